"""The choice for a goal: the fastest, the smallest, within limits, and as demanded."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bnncc.errors import UnsupportedModelError
from bnncc.ir.graph import Graph
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.types import Element
from bnncc.layouts import Choice, Goal, Optimize, Problem, Size, choose
from bnncc.passes.base import Family, Pixels
from tests.ir.sketch import Sketch
from tests.layouts.test_problem import branches, choices, limits, pooled, problem_of
from tests.passes.convolutions import SAME, binary, bits_of, residual

TARGET = "cortex-m4"


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_of(branches(), TARGET)


@pytest.fixture(scope="module")
def sizes(problem: Problem) -> list[tuple[Pixels, Size]]:
    """What the program of every choice takes."""
    return [(pixels, problem.size(pixels)) for pixels in choices(problem)]


def test_the_fastest_and_the_smallest_differ(
    problem: Problem, sizes: list[tuple[Pixels, Size]]
) -> None:
    fast, small = (choose(problem, Goal(optimize)) for optimize in Optimize)
    totals = [problem.total(pixels) for pixels, _ in sizes]
    assert fast.time == pytest.approx(problem.total(fast.pixels).time)
    assert fast.time == pytest.approx(min(total.time for total in totals))
    least = problem.total(small.pixels).flash
    assert least == min(total.flash for total in totals)
    assert least < problem.total(fast.pixels).flash


def test_a_demand_overrules_what_is_cheaper() -> None:
    shared = problem_of(branches(), TARGET, **{"*": Family.SHARED})
    everything = choose(shared, Goal(Optimize.SIZE)).pixels
    assert everything == {e.result: Family.SHARED for e in shared.eithers if e.slices}
    lean = problem_of(branches(), TARGET, **{"*": Family.LEAN})
    built = choose(lean, Goal()).pixels
    assert built == dict.fromkeys(everything, Family.LEAN)
    assert lean.size(built).constants < shared.size(everything).constants
    dense = problem_of(branches(), TARGET, **{"*": Family.DENSE})
    assert choose(dense, Goal()).pixels == {}
    one = problem_of(branches(), TARGET, **{"*": Family.SHARED, "the y24": Family.DENSE})
    (result,) = (e.result for e in one.eithers if "the y24" in e.origin)
    assert choose(one, Goal()).pixels.keys() == everything.keys() - {result}


def test_what_cannot_share_is_asked_only_on_demand() -> None:
    def refused(choice: Choice) -> set[str]:
        return choice.asked.keys() - choice.pixels.keys()

    assert not refused(choose(problem_of(pruned(), TARGET), Goal()))
    demanded = problem_of(pruned(), TARGET, **{"*": Family.SHARED})
    assert len(refused(choose(demanded, Goal()))) == 1
    assert {e.refusal for e in demanded.eithers if not e.slices} == {
        "no shared sums: all of its weights are 0"
    }


@pytest.mark.parametrize("kind", ["flash", "ram"])
def test_limits_are_kept_by_the_fastest_that_fits(
    problem: Problem, sizes: list[tuple[Pixels, Size]], kind: str
) -> None:
    """On every limit that some choice just keeps; trading need not find the very fastest."""
    limits = sorted({getattr(size, kind) for _, size in sizes})
    assert len(limits) > 4
    for limit in limits:
        choice = choose(problem, Goal(**{f"max_{kind}": limit}))
        assert getattr(problem.size(choice.pixels), kind) <= limit
        fitting = [pixels for pixels, size in sizes if getattr(size, kind) <= limit]
        fastest = min(problem.total(pixels).time for pixels in fitting)
        assert choice.time <= 1.25 * fastest
    assert choice.pixels == choose(problem, Goal()).pixels


def test_lists_are_built_where_there_is_no_room_for_them() -> None:
    """Weights of 128 channels: their lists take thrice as much, and building them some time."""
    problem = problem_of(wide(), TARGET)
    (either,) = (e for e in problem.eithers if Family.LEAN in e.slices)
    shared, lean = either.slices[Family.SHARED], either.slices[Family.LEAN]
    assert either.dense.time > 2 * lean.time > 2 * shared.time
    fast = choose(problem, Goal())
    assert fast.family(either) is Family.SHARED
    flash = problem.size(fast.pixels).flash
    tight = choose(problem, Goal(max_flash=flash - 1))
    assert tight.family(either) is Family.LEAN
    assert problem.size(tight.pixels).flash < flash - (shared.flash - lean.flash) // 2
    small = choose(problem, Goal(Optimize.SIZE))
    assert small.family(either) is Family.DENSE


@pytest.mark.parametrize("kind", ["flash", "ram"])
@pytest.mark.parametrize("build", [branches, pooled, residual])
def test_a_refusal_names_what_would_fit(build, kind: str) -> None:
    problem = problem_of(build(), TARGET)
    with pytest.raises(UnsupportedModelError, match="does not fit") as caught:
        choose(problem, Goal(**{f"max_{kind}": 100}))
    (found,) = caught.value.diagnostics
    assert found.code == "BNN031"
    least = int(re.fullmatch(rf"the least that fits: --max-{kind} (\d+)", found.help)[1])
    assert f"{least:,} bytes" in found.why
    assert "the most is" in found.why
    choice = choose(problem, Goal(**{f"max_{kind}": least}))
    assert getattr(problem.size(choice.pixels), kind) == least
    with pytest.raises(UnsupportedModelError):
        choose(problem, Goal(**{f"max_{kind}": least - 1}))


def test_both_limits_are_refused_together() -> None:
    problem = problem_of(branches(), TARGET)
    with pytest.raises(UnsupportedModelError) as caught:
        choose(problem, Goal(max_flash=10, max_ram=10))
    assert [d.what for d in caught.value.diagnostics] == [
        "the program does not fit into 10 bytes of flash",
        "the program does not fit into 10 bytes of RAM",
    ]


def wide() -> Graph:
    """A layer of 128 channels, from bits to bits."""
    s = Sketch(shape=(1, 128, 12, 12))
    binary(s, bits_of(s, "x", "s", channels=128), 128, SAME, "a")
    return s.done(limits(s, 128))


def pruned() -> Graph:
    """Two layers, the second of which has no weights but 0."""
    s = Sketch(shape=(1, 16, 12, 12))
    binary(s, bits_of(s, "x", "s", channels=16), 16, SAME, "a")
    zeros = s.const(np.zeros((8, 16, 3, 3)), "zeros", Element.TERNARY)
    return s.done(s(BinaryConv(SAME, 1, 0), limits(s, 16), zeros, to="y"))
