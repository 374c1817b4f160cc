"""gathers: movements of bits are one choice of channels and places, or none at all."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops.kernels import GatherBits, Move, XnorConv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Element, PackedChannels, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.gathers import gathering
from bnncc.passes.lower_kernels import LOWER_KERNELS
from tests.ir.sketch import Sketch, only
from tests.passes.applying import apply, context, staged
from tests.passes.convolutions import SAME, binary, bits_of, image
from tests.passes.gathers import MOVEMENTS, gathered, gathers, part, shuffled

POINT = Window((Axis(1), Axis(1)))


def lowered(graph: Graph) -> Graph:
    """Return the packed graph, which computes the same."""
    packed = staged(apply(LOWER_KERNELS, graph, context("x86-64")).graph, Stage.PACKED)
    feeds = {name: image(graph.types[name].element, graph.types[name].shape) for name in "x"}
    old, new = interpret.run(graph, feeds), interpret.run(packed, feeds)
    for name in old:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
    return packed


@pytest.mark.parametrize("name", MOVEMENTS)
def test_every_movement_is_one_gather(name: str) -> None:
    graph = lowered(gathered(name, [Element.BIPOLAR, Element.TERNARY], groups=3))
    gather = only(graph, GatherBits)
    read = only(graph, XnorConv).inputs[0]
    assert gather.output == read
    moves = [n for n in graph.nodes if isinstance(n.op, Move)]
    assert not any(isinstance(graph.types[n.output].layout, PackedChannels) for n in moves)


def test_all_graphs_compute_the_same() -> None:
    for _, graph in gathers():
        lowered(graph)


def test_channels_and_places_are_those_of_the_sources() -> None:
    s = Sketch(shape=(1, 4, 2, 3))
    a = bits_of(s, "x", "a", channels=4)
    b = bits_of(s, "x", "b", channels=4)
    both = s(Concat(1), a, b, to="both")
    y = s(Slice((0, 1, 0, 0), (1, 3, 2, 2), (1, 2, 1, 2)), shuffled(s, both, 2), to="y")
    found = gathering(s.done(y), "y", ())
    assert found is not None
    assert found.sources == ("a", "b")
    # Shuffled, the eight channels are a0 b0 a1 b1 ...; of these, every second from b0 on.
    assert found.channels == ((1, 0), (1, 1), (1, 2))
    assert found.places == ((0, 1), (0, 2))
    assert [node.output for node in found.nodes][0::4] == ["both", "y"]
    assert not found.is_identity(s.done(y))
    nearer = gathering(s.done(y), "y", {"both"})
    assert nearer is not None
    assert (nearer.sources, nearer.channels) == (("both",), ((0, 4), (0, 5), (0, 6)))


def unseparated() -> dict[str, Graph]:
    """Return graphs of movements by which channels do not stay channels, or pixels are added."""
    found = {}
    for name, op in {
        "padded": Pad((0, 1, 0, 0), (0, 0, 1, 0), 1),
        "turned": Transpose((0, 1, 3, 2)),
        "channels for rows": Transpose((0, 2, 1, 3)),
        "rows joined": Concat(2),
        "mixed": Reshape((1, 4, 9, 5)),
    }.items():
        s = Sketch(shape=(1, 9, 4, 5))
        bits = bits_of(s, "x", "s", channels=9)
        operands = [bits, bits_of(s, "x", "t", channels=9)] if isinstance(op, Concat) else [bits]
        moved = s(op, *operands, to="moved")
        found[name] = s.done(binary(s, shuffled(s, moved, 1), 3, POINT, "y"))
    return found


@pytest.mark.parametrize("name", unseparated())
def test_other_movements_are_made_bit_by_bit(name: str) -> None:
    graph = unseparated()[name]
    packed = lowered(graph)
    moves = [n for n in packed.nodes if isinstance(n.op, Move) and n.op.op is not None]
    assert isinstance(packed.types[moves[0].output].layout, PackedChannels)
    assert not any(isinstance(n.op, GatherBits) for n in packed.nodes)


def test_what_is_read_twice_is_made_once() -> None:
    s = Sketch(shape=(1, 40, 4, 5))
    a, b = (bits_of(s, "x", name, channels=40) for name in "ab")
    both = s(Concat(1), a, b, to="both")
    y, z = binary(s, both, 3, SAME, "y"), binary(s, both, 4, POINT, "z")
    cut = binary(s, part(s, both, 30, 20), 2, POINT, "cut")
    graph = lowered(s.done(y, z, cut))
    gathers_ = [n for n in graph.nodes if isinstance(n.op, GatherBits)]
    assert [len(n.inputs) for n in gathers_] == [2, 1]
    assert gathers_[1].inputs == ("both",)


def test_what_stays_as_it_is_takes_no_gather() -> None:
    s = Sketch(shape=(1, 40, 4, 5))
    bits = bits_of(s, "x", "s", channels=40)
    back = shuffled(s, shuffled(s, bits, 4), 10)
    graph = lowered(s.done(binary(s, back, 3, SAME, "y")))
    assert only(graph, XnorConv).inputs[0] == "s"
    assert not any(isinstance(n.op, GatherBits) for n in graph.nodes)


def test_a_pool_and_the_caller_read_moved_bits() -> None:
    s = Sketch(shape=(1, 40, 4, 5))
    moved = part(s, bits_of(s, "x", "s", channels=40), 3, 35)
    pooled = s(MaxPool(Window((Axis(2, 2), Axis(2, 2)))), moved, to="pooled")
    graph = lowered(s.done(moved, binary(s, pooled, 3, POINT, "y")))
    assert [n.op.name for n in graph.nodes].count("GatherBits") == 1
