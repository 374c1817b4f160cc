"""Layers become shared sums where asked, and hand on planes and planar numbers."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.kernels import GatherBits, Move, PoolBits, XnorConv
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Reshape, Transpose
from bnncc.ir.ops.shared_sums import ClassSums, PoolPlanes, SharedConv, SharedSums, Spread
from bnncc.ir.types import CHANNELS_LAST, DENSE, Element, PixelPlanes, Planar, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Family, Outcome
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.share_sums import SHARE_SUMS, pitch_of
from bnncc.pipeline import run_pass
from bnncc.targets import target_named
from tests.ir.sketch import Sketch
from tests.passes.applying import staged
from tests.passes.convolutions import HALVED, POINT, SAME, binary, bits_of, residual

GENERIC = target_named("generic")
EVERYWHERE = Context(GENERIC, families={"*": Family.SHARED})


def lowered(graph: Graph) -> Graph:
    canonical = CANONICAL_AFFINE.apply(graph, Context(GENERIC)).graph
    return staged(LOWER_KERNELS.apply(canonical, Context(GENERIC)).graph, Stage.PACKED)


def applied(graph: Graph, context: Context = EVERYWHERE) -> Outcome:
    """Return what the pass makes of a graph of the BINARY stage, having run both."""
    return run_pass(SHARE_SUMS, lowered(graph), context)


def chain(element: Element = Element.BIPOLAR, zeros: str = "no") -> Graph:
    """Return two layers of bits, the first of which makes bits for the second."""
    s = Sketch(shape=(1, 12, 5, 6))
    first = binary(s, bits_of(s, "x", "s", element, 12), 9, SAME, "a", zeros=zeros)
    return s.done(binary(s, bits_of(s, first, "b", element, 9), 3, SAME, "y", zeros=zeros))


def sharing(graph: Graph) -> list[ClassSums]:
    return [node.op for node in graph.nodes if isinstance(node.op, ClassSums)]


def moves(graph: Graph) -> list[tuple[str, str]]:
    return [
        (str(node.op.sources[0].layout), str(node.op.to))
        for node in graph.nodes
        if isinstance(node.op, Move)
    ]


def test_layers_hand_on_planes() -> None:
    after = applied(chain()).graph
    assert [type(node.op) for node in after.nodes] == [
        *(Move, type(after.nodes[1].op)),
        *(Move, Spread, SharedConv, Spread, SharedConv, Move),
    ]
    assert moves(after) == [
        ("dense", "channels-last"),
        ("packed32x1", "pixels8x1"),
        ("planar8", "dense"),
    ]


def test_comparisons_of_sums_stay_on_slices() -> None:
    s = Sketch(shape=(1, 12, 5, 6))
    binary(s, bits_of(s, "x", "s", channels=12), 9, SAME, "a")
    limits = s.const(np.random.default_rng(0).integers(-9, 9, (9, 1)), "t", Element.I32)
    bits = s(Step(Element.BIPOLAR), s.builder.nodes[-1].inputs[0], limits, [[-1, 1]] * 9, to="b")
    after = applied(s.done(binary(s, bits, 3, SAME, "y"))).graph
    first, last = (node for node in after.nodes if isinstance(node.op, ClassSums))
    assert isinstance(first.op, SharedSums)
    assert after.types[first.output].layout == PixelPlanes(8, 32)
    assert isinstance(last.op, SharedConv)


def test_a_shortcut_stays_planar() -> None:
    after = applied(residual()).graph
    first, second = (node for node in after.nodes if isinstance(node.op, SharedConv))
    planar = Planar(8, 32)
    assert [after.types[name].layout for name in first.outputs] == [planar, PixelPlanes(8, 32)]
    assert second.inputs[4] == first.outputs[0]
    assert after.types[first.inputs[4]].layout == planar
    assert (str(planar), str(CHANNELS_LAST)) not in moves(after)
    assert (str(planar), str(DENSE)) in moves(after)


def test_other_kernels_get_numbers_with_channels_last() -> None:
    after = applied(residual(downsampled=True)).graph
    assert ("planar8", "channels-last") in moves(after)
    assert ("channels-last", "planar8") in moves(after)


def test_the_planes_of_an_element_share_one_list() -> None:
    single, several = (applied(chain(element)).graph for element in (Element.U1, Element.U2))
    for before, after in zip(*map(sharing, (single, several)), strict=True):
        assert before.parts == after.parts == 1
        assert (len(before.taps.pads), len(after.taps.pads)) == (1, 2)
        assert after.codes
    assert [single.types[n.inputs[1]] for n in single.nodes if isinstance(n.op, ClassSums)] == [
        several.types[n.inputs[1]] for n in several.nodes if isinstance(n.op, ClassSums)
    ]
    assert ("packed32x2", "pixels8x2") in moves(several)


def test_zeros_outside_of_an_image_are_ternary() -> None:
    """Single bits have none, so that pixels next to the border are of kinds of their own."""
    for op in sharing(applied(chain(Element.TERNARY)).graph):
        assert op.taps.pads == (1, 0)
        assert not op.skip
    for op in sharing(applied(chain(Element.BIPOLAR)).graph):
        assert op.taps.pads == (0,)
        assert op.skip


@pytest.mark.parametrize(
    ("zeros", "parts", "ternary"),
    [("no", 1, False), ("few", 2, False), ("many", 1, True), ("odd", 3, False), ("bits", 2, True)],
)
def test_weights_are_sums_of_powers_of_two(zeros: str, parts: int, ternary: bool) -> None:
    s = Sketch(shape=(1, 300, 5, 6))
    y = binary(s, bits_of(s, "x", "s", channels=300), 9, SAME, "y", zeros=zeros)
    (op,) = sharing(applied(s.done(y)).graph)
    assert (op.parts, op.ternary) == (parts, ternary)


def test_weights_of_0_alone_say_so() -> None:
    s = Sketch(shape=(1, 5, 4, 4))
    x = bits_of(s, "x", "s", channels=5)
    w = s.const(np.zeros((3, 5, 3, 3)), "w", Element.TERNARY)
    before = lowered(s.done(s(BinaryConv(SAME, 1, 0), x, w, to="y")))
    outcome = SHARE_SUMS.apply(before, EVERYWHERE)
    assert outcome.graph is before
    assert [r.reason for r in outcome.refusals] == ["no shared sums: all of its weights are 0"]


def test_more_planes_than_counters_hold_say_so() -> None:
    s = Sketch(shape=(1, 1 << 16, 1, 2))
    x = bits_of(s, "x", "s", channels=1 << 16)
    w = s.const(np.ones((2, 1 << 16, 1, 1)), "w", Element.BIPOLAR)
    n = s(BinaryConv(Window((Axis(1), Axis(1))), 1, 0), x, w, to="y")
    outcome = SHARE_SUMS.apply(lowered(s.done(n)), EVERYWHERE)
    (refusal,) = outcome.refusals
    assert refusal.reason == "no shared sums: more planes enter a channel than its counters hold"


def test_a_dense_layer_has_one_pixel() -> None:
    s = Sketch(shape=(1, 40))
    before = lowered(s.done(binary(s, bits_of(s, "x", "s", channels=40), 9, POINT, "y")))
    outcome = SHARE_SUMS.apply(before, EVERYWHERE)
    assert outcome.graph is before
    (refusal,) = outcome.refusals
    assert refusal.reason == "no shared sums: a dense layer has one pixel, and lanes are pixels"


def test_only_what_was_asked_for() -> None:
    before = lowered(chain())
    assert SHARE_SUMS.apply(before, Context(GENERIC)).graph is before
    assert not SHARE_SUMS.apply(before, Context(GENERIC)).refusals
    first = Context(GENERIC, families={"the a": Family.SHARED})
    after = applied(chain(), first).graph
    assert [type(n.op) for n in after.nodes if isinstance(n.op, XnorConv | ClassSums)] == [
        SharedConv,
        XnorConv,
    ]
    assert ("pixels8x1", "packed32x1") in moves(after)


def test_applied_twice_it_changes_nothing() -> None:
    after = applied(residual()).graph
    assert SHARE_SUMS.apply(after, EVERYWHERE).graph is after


@pytest.mark.parametrize(
    ("width", "pitch"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32), (33, 64), (65, 96)]
)
def test_rows_are_whole_words_or_parts_of_one(width: int, pitch: int) -> None:
    assert pitch_of(width) == pitch


def pooled(window: Window, *, falling: bool) -> Graph:
    """Two layers with a pool of bits between them, which some channels want the smallest of."""
    s = Sketch(shape=(1, 12, 6, 6))
    first = binary(s, bits_of(s, "x", "s", channels=12), 9, SAME, "a")
    directions = [s.const(np.where(np.arange(9) % 3, 1, -1), "d", Element.BIPOLAR)]
    bits = bits_of(s, first, "b", channels=9)
    pool = s(MaxPool(window), bits, *(directions if falling else ()), to="p")
    return s.done(binary(s, pool, 3, SAME, "y"))


QUARTER = Window((Axis(2, 2), Axis(2, 2)))


@pytest.mark.parametrize(
    ("window", "falling", "taken"),
    [(QUARTER, False, True), (QUARTER, True, True), (HALVED, False, True), (HALVED, True, False)],
)
def test_pools_between_layers_take_planes(window: Window, falling: bool, taken: bool) -> None:
    after = applied(pooled(window, falling=falling)).graph
    assert [type(n.op) for n in after.nodes if isinstance(n.op, PoolPlanes | PoolBits)] == [
        PoolPlanes if taken else PoolBits
    ]
    assert len(moves(after)) == (3 if taken else 5)


@pytest.mark.parametrize("shuffled", [False, True])
def test_groups_read_planes_of_the_channels_that_they_have(shuffled: bool) -> None:
    """A shuffle of channels may be what gives groups words of their own."""
    s = Sketch(shape=(1, 12, 5, 6))
    bits = bits_of(s, "x", "s", channels=12)
    if shuffled:
        apart = s(Reshape((1, 3, 4, 5, 6)), bits)
        bits = s(Reshape((1, 12, 5, 6)), s(Transpose((0, 2, 1, 3, 4)), apart), to="shuffled")
    after = applied(s.done(binary(s, bits, 8, SAME, "y", groups=4))).graph
    assert any(isinstance(node.op, ClassSums) for node in after.nodes)
    assert any(isinstance(node.op, GatherBits) for node in after.nodes) == shuffled
