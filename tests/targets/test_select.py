"""The choice of kernels: pure, total, and able to say why."""

from __future__ import annotations

import itertools

import pytest

from bnncc.errors import InternalError
from bnncc.targets import TARGETS, Choice, Target, kernels, load_kernels, select, target_named

OPERATIONS = sorted({kernel.computes for kernel in load_kernels()})
CHANNELS = [*range(1, 70), 127, 128, 129, 1000, 4096]
EACH_OPERATION = pytest.mark.parametrize("operation", OPERATIONS)
EACH_TARGET = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def _padded(channels: int, nr: int) -> int:
    return -(-channels // nr) * nr


@EACH_OPERATION
@EACH_TARGET
def test_every_operation_has_a_kernel_on_every_target(operation: str, target: Target) -> None:
    for channels in CHANNELS:
        choice = select(operation, channels, target)
        kernel = choice.kernel
        assert kernel.computes == operation
        assert kernel.isa in target.isas
        assert kernel in load_kernels()
        if operation == "xnor":
            assert kernel.is_tile or kernel.word_bits == target.word_bits
            assert kernel.word_bits <= target.word_bits
        else:
            assert kernel.nr <= target.lanes


@EACH_OPERATION
@EACH_TARGET
def test_no_kernel_of_the_same_isa_computes_less(operation: str, target: Target) -> None:
    for channels in CHANNELS:
        kernel = select(operation, channels, target).kernel
        for other in load_kernels():
            same_words = operation != "xnor" or other.word_bits == kernel.word_bits
            if other.computes != operation or other.isa != kernel.isa or not same_words:
                continue
            if operation != "xnor" and other.nr > target.lanes:
                continue
            assert _padded(channels, kernel.nr) <= _padded(channels, other.nr)


@EACH_OPERATION
@EACH_TARGET
def test_the_same_question_has_the_same_answer(operation: str, target: Target) -> None:
    first = [select(operation, channels, target) for channels in CHANNELS]
    second = [select(operation, channels, target) for channels in reversed(CHANNELS)]
    assert first == second[::-1]


@EACH_OPERATION
@EACH_TARGET
def test_every_row_of_the_operation_is_chosen_or_rejected(operation: str, target: Target) -> None:
    for channels in CHANNELS:
        choice = select(operation, channels, target)
        considered = [choice.kernel, *(kernel for kernel, _ in choice.rejected)]
        rows = [kernel for kernel in load_kernels() if kernel.computes == operation]
        assert sorted(considered, key=str) == sorted(rows, key=str)
        assert choice.reason
        assert all(reason for _, reason in choice.rejected)


def _reasons(choice: Choice) -> dict[str, str]:
    return {str(kernel): reason for kernel, reason in choice.rejected}


def test_reasons_are_those_of_the_choice() -> None:
    x86 = next(target for target in TARGETS if target.name == "x86-64")
    m4 = next(target for target in TARGETS if target.name == "cortex-m4")
    assert _reasons(select("xnor", 8, x86)) == {
        "bnn_xnor_1x4_w32__scalar": "packs 32-bit words, the target 64-bit words",
        "bnn_xnor_1x16_w64__scalar": "computes 16 channels, not 8",
        "bnn_xnor_4x32_w8__avx2": "needs avx2",
        "bnn_xnor_4x64_w8__avx2": "needs avx2",
        "bnn_xnor_8x32_w32__avx512": "needs avx512",
    }
    assert _reasons(select("sign_sum", 10, m4)) == {
        "bnn_sign_sum_1x32__scalar": "keeps 32 sums, the target 8"
    }
    assert _reasons(select("sign_sum", 10, x86)) == {
        "bnn_sign_sum_1x32__scalar": "computes 32 channels, not 16"
    }
    assert _reasons(select("sign_sum", 32, x86)) == {"bnn_sign_sum_1x8__scalar": "smaller"}


def test_every_isa_has_its_gain() -> None:
    assert {kernel.isa for kernel in load_kernels()} == kernels._GAINS.keys()
    assert kernels._GAINS["scalar"] == 1


@pytest.mark.parametrize("isa", ["altivec", "neon"])
def test_a_kernel_of_another_isa_is_rejected_for_that(isa: str) -> None:
    alien = Target("alien", "has no scalar unit", 64, 32, (isa,))
    with pytest.raises(InternalError) as caught:
        select("xnor", 8, alien)
    assert caught.value.code == "BNN091"
    assert "no kernel computes xnor for alien" in str(caught.value)


def test_an_unknown_operation_is_our_own_mistake() -> None:
    with pytest.raises(InternalError) as caught:
        select("xnor_conv", 8, TARGETS[0])
    assert caught.value.code == "BNN091"


@pytest.mark.parametrize(
    ("name", "channels", "symbol"),
    [
        ("x86-64-v3", 8, "bnn_xnor_1x8_w64__scalar"),
        ("x86-64-v3", 15, "bnn_xnor_4x32_w8__avx2"),  # as long as 16 channels of scalar code
        ("x86-64-v3", 17, "bnn_xnor_4x32_w8__avx2"),
        ("x86-64-v3", 33, "bnn_xnor_4x64_w8__avx2"),
        ("x86-64-v3", 96, "bnn_xnor_4x32_w8__avx2"),
        ("x86-64-v3", 128, "bnn_xnor_4x64_w8__avx2"),
        ("x86-64-avx512", 1, "bnn_xnor_8x32_w32__avx512"),
        ("x86-64-avx512", 100, "bnn_xnor_8x32_w32__avx512"),
    ],
)
def test_a_vector_kernel_has_to_be_faster(name: str, channels: int, symbol: str) -> None:
    choice = select("xnor", channels, target_named(name))
    assert str(choice.kernel) == symbol


def test_what_a_slower_kernel_would_take() -> None:
    reasons = _reasons(select("xnor", 8, target_named("x86-64-v3")))
    assert reasons["bnn_xnor_4x64_w8__avx2"] == "takes as long as 32 channels of scalar code"


def test_a_group_is_whole_tiles_or_has_no_tile() -> None:
    target = target_named("x86-64-avx512")
    assert select("xnor", 64, target, grouped=True).kernel.is_tile
    choice = select("xnor", 11, target, grouped=True)
    assert not choice.kernel.is_tile
    why = "computes 32 channels at once, a group has 11"
    assert _reasons(choice)["bnn_xnor_8x32_w32__avx512"] == why


def test_operations_are_those_that_the_graph_has() -> None:
    # XnorConv, SignSum and RealConv of ir/ops/kernels.py, asked for by lower_kernels.
    assert OPERATIONS == ["real_sum", "sign_sum", "xnor"]
    assert len(list(itertools.product(OPERATIONS, TARGETS))) == 3 * len(TARGETS)
