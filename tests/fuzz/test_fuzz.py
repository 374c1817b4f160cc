"""Random networks, compiled many to a C file, against ONNX Runtime: no unexplained difference.

`python -m tests.fuzz --help` repeats and shrinks what fails here.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bnncc.errors import InternalError
from bnncc.verification.run import CompiledModel
from tests.conftest import IN_CI, require_tool
from tests.fuzz import case
from tests.fuzz.blocks import BLOCKS
from tests.fuzz.case import MENU, Outcome, build, check_all
from tests.fuzz.net import grid
from tests.fuzz.plan import UNLIMITED, Block, Plan, parse_plan, plan_of, plans, shrunk
from tests.fuzz.stems import STEMS

CHUNK = 100
CHUNKS = 20
BUILDS = (("gcc", "-O1"), ("gcc", "-O1"), ("gcc", "-O3"), ("clang", "-O1"))
REFUSALS = {
    "BNN008",  # an attribute or operand that the frontend does not take
    "BNN030",  # an operation in a place for which there is no C
}


def assert_nothing_fails(outcomes: Sequence[Outcome]) -> None:
    failures = [f'python -m tests.fuzz "{o.plan}"\n{o.failure}' for o in outcomes if o.failure]
    assert not failures, "\n\n".join(failures)
    refused = Counter(outcome.refused for outcome in outcomes if outcome.refused)
    assert {reason.split()[0] for reason in refused} <= REFUSALS, refused


# --- What it has found ----------------------------------------------------------------------------

MET = (
    "nhwc:817 batch_norm:54857 own_norm:42415 dense:25592 nothing:0 @8",
    "pair:42135 batch_norm:6595 concat:40676 mask:21142 @8",
    "2d:46602 few_bits_conv:23353 quantise:53655 nhwc:19122 nothing:0 @33",
    "2d:51586 kappa:59054 nothing:35732 @8",
    "2d:41596 binary_transposed:52128 own_norm:56691 classifier:63464",
    "nhwc:58734 reshape:13946 pool_sign:39576 wrapped_norm:30867 batch_norm:33217"
    " batch_norm:23140 binary_conv:28341 classifier:50121",
    "2d:30407 own_norm:37474 conv:33028 extremes:23676 probabilities:5710",
    "pair:12955 duplicate:8412 pool_sign:60526 curve:3551 wrapped_norm:60506 nothing:27102 @3",
    "dense:30906 residual:51970 nothing:0 @2",
    "1d:45989 batch_norm:64657 curve:55427 nothing:0 @33",
)


def test_networks_that_failed_once() -> None:
    assert_nothing_fails(check_all([parse_plan(text) for text in MET]))


# --- The fuzzer -----------------------------------------------------------------------------------


# An example is up to a dozen networks in one C file, so that few examples are many networks.
# Hypothesis would shrink for minutes, a library each time; `python -m tests.fuzz` takes seconds.
@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(plans(MENU), min_size=1, max_size=12))
def test_networks_of_hypothesis(drawn: list[Plan]) -> None:
    assert_nothing_fails(check_all(drawn))


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own: wild C takes nothing but one of them with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_networks(workers: ProcessPoolExecutor, chunk: int) -> None:
    compiler, cflags = BUILDS[chunk % len(BUILDS)]
    require_tool(compiler)
    first = chunk * CHUNK if IN_CI else secrets.randbelow(2**40)
    parts = np.array_split(range(first, first + CHUNK), workers._max_workers)
    tasks = [workers.submit(_checked, part.tolist(), compiler, cflags) for part in parts]
    try:
        outcomes = [outcome for task in tasks for outcome in task.result()]
    except BrokenProcessPool:
        pytest.fail(f"crashed: python -m tests.fuzz --each --count {CHUNK} {first}")
    assert_nothing_fails(outcomes)
    # Else the generator draws what bnncc does not do, and this tests little.
    assert sum(not outcome.refused for outcome in outcomes) >= 0.9 * CHUNK
    assert sum(outcome.is_exact for outcome in outcomes) >= 0.04 * CHUNK
    assert sum(outcome.certified for outcome in outcomes) > CHUNK
    assert sum(outcome.compared for outcome in outcomes) > 1000 * CHUNK
    assert sum(o.undecided for o in outcomes) < 0.01 * sum(o.compared for o in outcomes)


def _checked(seeds: Sequence[int], compiler: str, cflags: str) -> list[Outcome]:
    return check_all([plan_of(s, MENU) for s in seeds], compiler=compiler, cflags=cflags)


# --- The generator and the checks themselves ------------------------------------------------------


def test_a_plan_is_a_text_and_always_the_same_network() -> None:
    for seed in range(20):
        plan = plan_of(seed, MENU)
        assert parse_plan(str(plan)) == plan
        first, again = build(plan), build(plan)
        assert first.model.SerializeToString() == again.model.SerializeToString()
        assert first.samples.keys() == again.samples.keys()
        for name, values in first.samples.items():
            np.testing.assert_array_equal(values, again.samples[name])


@pytest.mark.parametrize("text", ["", "2d:1", "2d:1 sign nothing:0", "2d:1 nothing:0 @x"])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a plan|invalid literal"):
        parse_plan(text)


def test_every_kind_of_block_applies_to_every_kind_of_input() -> None:
    for stem in STEMS:
        for kind in BLOCKS:
            for seed in range(3):
                build(Plan(Block(stem, seed), (Block(kind, seed),), Block("nothing", 0)))


def test_shrinking_drops_what_does_not_matter() -> None:
    plan = parse_plan("2d:5 conv:1 sign:2 dense:3 batch_norm:4 noise:5 ranking:6")
    culprit = plan.blocks[2]
    small = shrunk(plan, lambda p: culprit in p.blocks and p.limit >= 3)
    assert small == Plan(plan.stem, (culprit,), Block("nothing", 0), 3)
    assert parse_plan(str(small)) == small
    assert str(small).endswith(" nothing:0 @3")
    assert plan.limit == UNLIMITED


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.75, 6, 0], 0.25), ([0.0], np.inf), ([1e-45], 2.0**-149), ([3, -12], 1)],
)
def test_the_grid_of_values(values: list[float], expected: float) -> None:
    assert grid(np.float32(values)) == expected


FOUND = Plan(Block("dense", 1), (Block("binary_dense", 1),), Block("nothing", 0))


def test_a_flipped_bit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = CompiledModel.traced

    def flipped(self, *args, **named):  # type: ignore[no-untyped-def]  # stands in
        outputs, layers = traced(self, *args, **named)
        outputs[0].view(np.uint8).reshape(-1)[0] ^= 1
        return outputs, layers

    assert check_all([FOUND])[0].failure == ""
    monkeypatch.setattr(CompiledModel, "traced", flipped)
    assert "c_mismatches=1" in check_all([FOUND])[0].failure


def test_a_difference_from_onnxruntime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = case.compare

    def apart(*args):  # type: ignore[no-untyped-def]  # stands in
        result = compared(*args)
        result.outputs[0].max_abs_error = 1e-7
        return result

    monkeypatch.setattr(case, "compare", apart)
    (outcome,) = check_all([FOUND])
    assert outcome.is_exact
    assert outcome.failure.startswith("differs, but exact: ")


def test_an_internal_error_is_a_failure_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = case.compile_in_memory

    def breaks(path, options):  # type: ignore[no-untyped-def]  # stands in
        if options.name == "fz0":
            raise InternalError("BNN070", "a promise is broken")
        return compiled(path, options)

    monkeypatch.setattr(case, "compile_in_memory", breaks)
    broken, fine = check_all([FOUND, FOUND])
    assert "a promise is broken" in broken.failure
    assert fine.failure == ""


def test_a_network_whose_c_is_rejected_is_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = case.compile_in_memory

    def spoiled(path, options):  # type: ignore[no-untyped-def]  # stands in
        done = compiled(path, options)
        if options.name == "fz1":
            done = replace(done, source="#error broken\n")
        return done

    monkeypatch.setattr(case, "compile_in_memory", spoiled)
    fine, broken = check_all([FOUND, FOUND])
    assert fine.failure == ""
    assert "the C compiler rejected the code of fz1" in broken.failure
