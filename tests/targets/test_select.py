"""The choice of kernels: pure, total, and able to say why."""

from __future__ import annotations

import itertools

import pytest

from bnncc.errors import InternalError
from bnncc.targets import TARGETS, Choice, Target, load_kernels, select

OPERATIONS = sorted({kernel.operation for kernel in load_kernels()})
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
        assert kernel.operation == operation
        assert kernel.isa in target.isas
        assert kernel in load_kernels()
        if operation == "xnor":
            assert kernel.word_bits == target.word_bits
        else:
            assert kernel.nr <= target.lanes


@EACH_OPERATION
@EACH_TARGET
def test_no_kernel_of_the_same_isa_computes_less(operation: str, target: Target) -> None:
    for channels in CHANNELS:
        kernel = select(operation, channels, target).kernel
        for other in load_kernels():
            same_words = operation != "xnor" or other.word_bits == target.word_bits
            if other.operation != operation or other.isa != kernel.isa or not same_words:
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
        rows = [kernel for kernel in load_kernels() if kernel.operation == operation]
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
    }
    assert _reasons(select("sign_sum", 10, m4)) == {
        "bnn_sign_sum_1x32__scalar": "keeps 32 sums, the target 8"
    }
    assert _reasons(select("sign_sum", 10, x86)) == {
        "bnn_sign_sum_1x32__scalar": "computes 32 channels, not 16"
    }
    assert _reasons(select("sign_sum", 32, x86)) == {"bnn_sign_sum_1x8__scalar": "smaller"}


@pytest.mark.parametrize("isa", ["avx2", "neon"])
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


def test_a_preferred_isa_wins_over_fewer_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from bnncc.targets import kernels

    rows = load_kernels()
    scalar = next(row for row in rows if row.operation == "xnor" and row.word_bits == 64)
    vector = replace(scalar, isa="avx9", symbol="bnn_xnor_1x64_w64__avx9", nr=64)
    monkeypatch.setattr(kernels, "load_kernels", lambda: (*rows, vector))
    target = Target("future", "has it all", 64, 32, ("avx9", "scalar"))
    assert select("xnor", 1, target).kernel is vector
    plain = replace(target, isas=("scalar", "avx9"))
    assert select("xnor", 1, plain).kernel is scalar
    reasons = dict(select("xnor", 1, target).rejected)
    assert set(map(str, reasons)) >= {str(scalar)}


def test_operations_are_those_that_the_graph_has() -> None:
    # XnorDense, SignSum and RealDense of ir/ops/kernels.py, asked for by lower_kernels.
    assert OPERATIONS == ["real_sum", "sign_sum", "xnor"]
    assert len(list(itertools.product(OPERATIONS, TARGETS))) == 3 * len(TARGETS)
