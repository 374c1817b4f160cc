"""Which nodes share a kernel, in which order kernels run, and what they store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Reshape, Transpose
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.fusion import Group, ends_in_bits, fused_groups, is_anchor, is_bits
from tests.ir.sketch import Sketch, only

POINTS = Window((Axis(1), Axis(1)))
PAIR = Window((Axis(2, 2), Axis(2, 2)))


def drawn(s: Sketch, x: str, to: str, channels: int = 3, window: Window = POINTS) -> str:
    """Append a convolution."""
    depth = s.builder.types[x].shape[1]
    w = s.const(np.ones((channels, depth, *window.kernel)), "w")
    return s(Conv(window), x, w, to=to)


def images() -> Sketch:
    return Sketch(shape=(1, 3, 4, 4))


def text(graph: Graph) -> list[str]:
    """Return a line a group: position, anchor, nodes, and what it stores."""
    return [_line(group) for group in fused_groups(graph)]


def _line(group: Group) -> str:
    anchor = group.anchor.output if group.anchor else "-"
    nodes = " ".join(node.output for node in group.nodes)
    return f"{group.position} {anchor}: {nodes} -> {' '.join(group.stored)}"


def test_a_layer_takes_what_follows_it() -> None:
    s = images()
    a = drawn(s, "x", "a")
    b = s(ew.Relu(), s(ew.Mul(), a, 2.0, to="m"), to="r")
    s(ew.Step(Element.BIPOLAR), b, [[0.0]], [[-1, 1]], to="y")
    graph = s.done()
    assert text(graph) == ["0 a: m r y -> y"]
    (group,) = fused_groups(graph)
    assert group.shape == (1, 3, 4, 4)
    assert group.origin == ("the a", "the m", "the r", "the y")


def test_what_others_read_and_what_the_caller_gets_is_stored() -> None:
    s = images()
    a = drawn(s, "x", "a")
    r = s(ew.Relu(), a, to="r")
    n = s(ew.Neg(), r, to="n")
    drawn(s, r, "b")
    assert text(s.done("a", "b", n)) == ["0 a: r n -> a r n", "3 b:  -> b"]


def test_a_shortcut_joins_the_later_layer() -> None:
    s = images()
    a = s(ew.Relu(), drawn(s, "x", "a"), to="r")
    b = drawn(s, a, "b")
    s(ew.Add(), a, b, to="sum")
    s(ew.Add(), "sum", "x", to="y")
    assert text(s.done("y")) == ["0 a: r -> r", "2 b: sum y -> y"]


def test_a_shortcut_whose_layer_comes_last_takes_the_sum() -> None:
    # The order of the nodes decides, not that of the operands.
    s = images()
    a = drawn(s, "x", "a")
    b = drawn(s, "x", "b")
    s(ew.Add(), a, b, to="ab")
    s(ew.Add(), b, a, to="ba")
    assert text(s.done("ab", "ba")) == ["0 a:  -> a", "1 b: ab ba -> ab ba"]


def test_an_operand_made_after_the_layer_starts_a_kernel_of_its_own() -> None:
    # b is an operand of both a2 and a Reshape of a: what joins b must not wait for the Reshape.
    s = images()
    a = drawn(s, "x", "a")
    moved = s(Transpose((0, 1, 3, 2)), a, to="moved")
    s(ew.Add(), a, moved, to="y")
    assert text(s.done("y")) == ["0 a:  -> a", "2 -: y -> y"]


def test_two_layers_whose_sums_cross_make_no_cycle() -> None:
    s = images()
    a = drawn(s, "x", "a")
    b = drawn(s, a, "b")
    both = s(ew.Add(), a, b, to="both")
    c = drawn(s, both, "c")
    s(ew.Mul(), c, b, to="p")
    s(ew.Add(), both, a, to="q")
    s(ew.Add(), "p", "q", to="y")
    assert text(s.done("y")) == ["0 a:  -> a", "1 b: both q -> b both q", "3 c: p y -> y"]


def test_a_chain_that_follows_no_layer_starts_from_a_tensor() -> None:
    s = images()
    r = s(ew.Relu(), "x", to="r")
    m = s(ew.Mul(), r, 2.0, to="m")
    t = s(Transpose((0, 1, 3, 2)), m, to="t")
    s(ew.Add(), t, m, to="y")
    assert text(s.done("y")) == ["0 -: r m -> m", "3 -: y -> y"]


def test_chains_over_one_tensor_share_a_kernel() -> None:
    # Truth values do not leave a kernel: all that is asked of x must be asked in one.
    s = images()
    low = s(ew.Less(), "x", 2.0, to="low")
    a = drawn(s, "x", "a")
    high = s(ew.Greater(), "x", 0.5, to="high")
    near = s(ew.And(), low, high, to="near")
    s(ew.Where(), near, "x", 0.0, to="y")
    s(ew.Abs(), a, to="z")
    assert text(s.done("y", "z")) == ["0 -: low high near y -> y", "1 a: z -> z"]


def test_a_chain_waits_for_what_it_reads_beside_a_shared_tensor() -> None:
    s = images()
    s(ew.Relu(), "x", to="r")
    a = drawn(s, "r", "a")
    s(ew.Add(), "x", a, to="y")
    moved = s(Transpose((0, 1, 3, 2)), "y", to="moved")
    s(ew.Sub(), "x", moved, to="z")
    assert text(s.done("z")) == ["0 -: r -> r", "1 a: y -> y", "4 -: z -> z"]


def test_a_result_of_another_shape_starts_anew() -> None:
    s = images()
    pooled = s(ReduceMean((2, 3), keepdims=True), "x", to="p")
    gate = s(ew.Relu(), pooled, to="gate")
    a = drawn(s, "x", "a")
    s(ew.Mul(), gate, a, to="scaled")
    s(ew.Mul(), gate, "x", to="y")
    assert text(s.done("scaled", "y")) == [
        "0 p: gate -> gate",
        "2 a: scaled -> scaled",
        "4 -: y -> y",
    ]


def test_what_nobody_needs_is_left_out() -> None:
    s = images()
    a = drawn(s, "x", "a")
    s(ew.Relu(), a, to="unused")
    r = s(ew.Neg(), a, to="n")
    s(ew.Add(), r, 1.0, to="unread")
    drawn(s, "x", "nothing")
    s(ew.Abs(), "x", to="alone")
    assert text(s.done("n")) == ["0 a: n -> n"]


def test_a_sign_stored_as_bits_still_needs_what_it_compares() -> None:
    s = images()
    m = s(ew.Mul(), drawn(s, "x", "a"), 3.0, to="m")
    s(ew.Step(Element.BIPOLAR), m, [[0.0]], [[-1, 1]], to="y")
    graph = s.done()
    assert text(graph) == ["0 a: m y -> y"]
    assert ends_in_bits(graph, graph.producers["y"])
    assert not ends_in_bits(graph, graph.producers["m"])


def test_a_step_to_numbers_is_no_comparison() -> None:
    s = images()
    s(ew.Step(Element.F32), "x", [[0.0]], [[-1, 2]], to="y")
    graph = s.done()
    assert not ends_in_bits(graph, graph.producers["y"])


@pytest.mark.parametrize(
    ("op", "anchors"),
    [
        (AveragePool(PAIR), True),
        (MaxPool(PAIR), True),
        (ReduceMean((2, 3), keepdims=True), True),
        (ReduceMean((2, 3), keepdims=False), True),
        (ReduceMean((1,), keepdims=True), True),
        (ReduceMean((1,), keepdims=False), False),
        (ReduceMean((1, 2, 3), keepdims=False), False),
        (Reshape((1, 48)), False),
        (ew.Relu(), False),
    ],
    ids=str,
)
def test_layers_and_pools_of_numbers_are_anchors(op: ew.Elementwise, anchors: bool) -> None:
    s = images()
    s(op, "x", to="y")
    graph = s.done()
    assert is_anchor(graph, graph.producers["y"]) is anchors


def test_pools_of_bits_are_no_anchors() -> None:
    s = images()
    bits = s(ew.Step(Element.BIPOLAR), "x", [[0.0]], [[-1, 1]])
    s(MaxPool(PAIR), bits, to="p")
    w = s.const(np.ones((2, 3, 1, 1)), "w", Element.BIPOLAR)
    s(BinaryConv(POINTS), "p", w, to="y")
    graph = s.done()
    assert not is_anchor(graph, only(graph, MaxPool))
    assert is_anchor(graph, only(graph, BinaryConv))
    assert [is_bits(e) for e in (Element.BIPOLAR, Element.TERNARY, Element.U8)] == [True, True, 0]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a graph of layers, pools, movements and sums, each over any earlier tensors."""
    s = images()
    names = ["x"]
    for i in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["layer", "sum", "unary", "move", "gate"]))
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        to = f"n{i}"
        match kind:
            case "layer":
                drawn(s, a, to)
            case "sum":
                s(ew.Add(), a, b, to=to)
            case "unary":
                s(ew.Neg(), a, to=to)
            case "move":
                s(Transpose((0, 1, 3, 2)), a, to=to)
            case _:
                pooled = s(ReduceMean((2, 3), keepdims=True), a, to=f"{to}.pooled")
                s(ew.Mul(), b, pooled, to=to)
        names.append(to)
    outputs = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True))
    return s.done(*outputs)


@given(graphs())
def test_groups_can_run_in_order_and_hold_every_needed_node_once(graph: Graph) -> None:
    groups = fused_groups(graph)
    assert [g.position for g in groups] == sorted({g.position for g in groups})
    at = {group.position: group for group in groups}
    made = set(graph.inputs) | set(graph.constants)
    for i, node in enumerate(graph.nodes):
        if i in at:
            group = at[i]
            # Everything that the kernel reads from outside is there when it runs.
            assert _reads(group) <= made
            made.update(group.stored)
        elif isinstance(node.op, Transpose) and set(node.inputs) <= made:
            made.update(node.outputs)
    assert set(graph.outputs) <= made
    nodes = [node.name for group in groups for node in group.nodes]
    assert len(nodes) == len(set(nodes))


def _reads(group: Group) -> set[str]:
    """Return the tensors that a group takes from elsewhere."""
    own: Sequence[str] = [node.output for node in group.nodes]
    inputs = {name for node in group.nodes for name in node.inputs}
    if group.anchor:
        inputs |= set(group.anchor.inputs)
        own = [*own, group.anchor.output]
    return inputs - set(own)
