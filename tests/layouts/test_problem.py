"""What a choice of layouts costs is what its program does, and no other choice costs less."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.layouts import Problem
from bnncc.layouts.costs import time_of
from bnncc.layouts.work import work_of
from bnncc.passes.base import Context, Family, Pixels
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import target_named
from tests.ir.sketch import Sketch
from tests.passes.applying import staged
from tests.passes.convolutions import HALVED, SAME, binary, bits_of, residual

TARGETS = ["cortex-m4", "x86-64-v3"]


def lowered(graph: Graph, target: str) -> Graph:
    context = Context(target_named(target))
    canonical = CANONICAL_AFFINE.apply(graph, context).graph
    return staged(LOWER_KERNELS.apply(canonical, context).graph, Stage.PACKED)


def problem_of(graph: Graph, target: str, **families: Family) -> Problem:
    context = Context(target_named(target), families={"*": Family.AUTO, **families})
    return Problem.of(lowered(graph, target), context)


def limits(s: Sketch, channels: int) -> str:
    held = np.random.default_rng(0).integers(-9, 9, (channels, 1))
    n = s.builder.nodes[-1].inputs[0]
    to = f"bits{len(s.builder.nodes)}"
    return s(Step(Element.BIPOLAR), n, s.const(held, "t", Element.I32), [[-1, 1]] * channels, to=to)


def branches() -> Graph:
    """Bits that three layers read: of one image, half of it, and with more channels."""
    s = Sketch(shape=(1, 16, 12, 12))
    first = bits_of(s, "x", "s", channels=16)
    binary(s, first, 16, SAME, "a")
    a = limits(s, 16)
    outputs = [binary(s, a, n, w, f"y{n}") for n, w in ((8, SAME), (24, HALVED), (40, POINT2))]
    return s.done(*outputs)


POINT2 = Window((Axis(1), Axis(1)))


def pooled() -> Graph:
    """A pool of bits between layers of bits, behind one that reads reals."""
    s = Sketch(shape=(1, 12, 8, 8))
    binary(s, bits_of(s, "x", "s", channels=12), 24, SAME, "a")
    pool = s(MaxPool(Window((Axis(2, 2),) * 2)), limits(s, 24), to="p")
    binary(s, pool, 16, SAME, "b")
    return s.done(binary(s, limits(s, 16), 8, SAME, "y"))


def grouped() -> Graph:
    """Groups that have words of their own, which planes of pixels need not."""
    s = Sketch(shape=(1, 24, 8, 8))
    binary(s, bits_of(s, "x", "s", channels=24), 24, SAME, "a")
    return s.done(binary(s, limits(s, 24), 16, SAME, "y", groups=4))


GRAPHS = {
    "branches": branches,
    "pooled": pooled,
    "residual": residual,
    "downsampled": lambda: residual(downsampled=True),
    "grouped": grouped,
}


def choices(problem: Problem) -> Iterator[Pixels]:
    """Yield every choice, but for pools of what is not on planes."""
    free = [e for e in problem.eithers if e.slices]
    for families in itertools.product(*([None, *e.slices] for e in free)):
        chosen = zip(free, families, strict=True)
        pixels = {e.result: family for e, family in chosen if family is not None}
        pools = {e.result for e in free if e.pool} & pixels.keys()
        made = {
            node.inputs[0]: node.outputs[0]
            for node in problem.graph.nodes
            if node.outputs[0] in pools
        }
        makers = (problem.graph.producers[name].outputs[0] for name in made)
        if all(maker in pixels for maker in makers):
            yield pixels


def done(problem: Problem, pixels: Pixels) -> float:
    """Return how long what the program of a choice does takes."""
    layers = problem.program(pixels).layers
    return math.fsum(time_of(work_of(layer), problem.costs) for layer in layers)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", GRAPHS)
def test_no_choice_costs_less(name: str, target: str) -> None:
    problem = problem_of(GRAPHS[name](), target)
    every = list(choices(problem))
    assert len(every) >= 4
    assert {Family.SHARED, Family.LEAN} <= {f for pixels in every for f in pixels.values()}
    times = [done(problem, pixels) for pixels in every]
    for pixels, time in zip(every, times, strict=True):
        assert problem.total(pixels).time == pytest.approx(time)
    chosen = problem.cheapest(lambda cost: round(1e6 * cost.time))
    assert times[every.index(chosen)] == pytest.approx(min(times))
