"""hoist_shortcuts: what moves a shortcut stands in front of the layers around which it goes."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Map, RealConv
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.shape import Concat, Expand, Pad, Slice
from bnncc.ir.window import Axis, Window
from bnncc.passes.hoist_shortcuts import HOIST_SHORTCUTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.pipeline import run_pass
from tests.ir.sketch import F, Sketch, ops
from tests.passes.applying import GENERIC, apply

RANDOM = np.random.default_rng(3)
SHAPE = (1, 2, 6, 6)
HALVED = Slice((0, 0, 0, 0), (1, 2, 3, 3), (1, 1, 2, 2))
WIDER = Pad((0, 1, 0, 0), (0, 1, 0, 0), 0.0)


def layer(s: Sketch, x: str, channels: int = 4, stride: int = 2) -> str:
    w = RANDOM.standard_normal((channels, s.builder.types[x].shape[1], 1, 1)).astype(F)
    return s(Conv(Window((Axis(1, stride), Axis(1, stride)))), x, w)


def hoisted(graph: Graph) -> Graph:
    after = apply(HOIST_SHORTCUTS, graph).graph
    assert run_pass(HOIST_SHORTCUTS, graph, GENERIC).graph.nodes == after.nodes
    assert HOIST_SHORTCUTS.apply(after, GENERIC).graph is after
    x = RANDOM.standard_normal((3, *SHAPE[1:])).astype(F)
    old, new = (interpret.run(g, {"x": x}) for g in (graph, after))
    for name in graph.outputs:
        np.testing.assert_array_equal(new[name], old[name])
    return after


@pytest.mark.parametrize("root", ["the input", "another tensor"])
def test_a_shortcut_that_drops_pixels_and_adds_channels(root: str) -> None:
    s = Sketch(shape=SHAPE)
    x = "x" if root == "the input" else layer(s, "x", 2, 1)
    y = layer(s, layer(s, x), stride=1)
    s(ew.Relu(), s(ew.Add(), s(WIDER, s(HALVED, x)), y), to="y")
    before = s.done()
    first = ["Slice", "Pad", "Conv"] if root == "the input" else ["Conv", "Slice", "Pad", "Conv"]
    after = hoisted(before)
    assert ops(after) == [*first, "Conv", "Add", "Relu"]
    # Then the sum is part of the last layer's kernel.
    for graph, maps in ((before, 1), (after, 0)):
        kernels = [node.op for node in run_pass(LOWER_KERNELS, graph, GENERIC).graph.nodes]
        assert sum(isinstance(op, Map) for op in kernels) == maps
    assert isinstance(kernels[-2], RealConv)
    assert kernels[-2].epilogue.variables == 1


def test_what_others_read_stays_where_it_is() -> None:
    s = Sketch(shape=SHAPE)
    y = layer(s, "x", 2)
    part = s(HALVED, "x")
    s(ew.Abs(), part, to="z")
    s(ew.Add(), y, part, to="y")
    graph = s.done("y", "z")
    assert HOIST_SHORTCUTS.apply(graph, GENERIC).graph is graph


def test_what_is_larger_than_its_origin_stays() -> None:
    s = Sketch(shape=SHAPE)
    gate = layer(s, "x", 2, 6)
    y = layer(s, "x", 2)
    s(ew.Mul(), y, s(Expand((1, 2, 3, 3)), gate), to="y")
    graph = s.done("y")
    assert HOIST_SHORTCUTS.apply(graph, GENERIC).graph is graph


def test_what_joins_tensors_stays() -> None:
    s = Sketch(shape=SHAPE)
    y = layer(s, "x")
    part = s(HALVED, "x")
    s(ew.Add(), y, s(Concat(1), part, part), to="y")
    graph = s.done("y")
    assert HOIST_SHORTCUTS.apply(graph, GENERIC).graph is graph


def test_one_operand_is_no_shortcut() -> None:
    s = Sketch(shape=SHAPE)
    layer(s, "x")
    s(ew.Add(), s(HALVED, "x"), 1.0, to="y")
    graph = s.done("y")
    assert HOIST_SHORTCUTS.apply(graph, GENERIC).graph is graph
