"""operands: bits and codes are found through whatever moves them, pads and other readers aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, Conv, MatMul
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes.applying import GENERIC, apply
from tests.passes.images import bits_in, conv, images, scaled, signs, summed

RANDOM = np.random.default_rng(11)
SHAPE = (1, 3, 4, 5)
ALL = Window((Axis(3), Axis(3)))
PADDED = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))
HALVES = Window((Axis(2, 2), Axis(2, 2)))
W = signs(RANDOM, (4, 3, 3, 3))


def binarised(graph: Graph) -> Graph:
    """Return the graph after the pass, which must refuse nothing, without what is dead then."""
    outcome = apply(BINARISE_WEIGHTS, graph)
    assert outcome.refusals == ()
    return apply(ELIMINATE_DEAD, outcome.graph).graph


def same_reals(before: Graph, after: Graph, x: Array) -> None:
    """Assert equal results to the bit: alphas are powers of two, so that no sum rounds."""
    old, new = interpret.run(before, {"x": x}), interpret.run(after, {"x": x})
    for name in old:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)


# --- Through pools and movements ------------------------------------------------------------------


def moved(s: Sketch, x: str) -> str:
    """Append every operation that only moves or orders levels; [1, 3, 4, 5] to [1, 12]."""
    x = s(MaxPool(HALVES), x, to="pool")  # [1, 3, 2, 2]
    x = s(Transpose((0, 2, 3, 1)), x, to="channels last")  # [1, 2, 2, 3]
    x = s(Slice((0, 0, 0, 0), (1, 2, 2, 3), (1, 1, 1, 1)), x, to="slice")
    return s(Reshape((1, 12)), x, to="flat")


@pytest.mark.parametrize("levels", [(-1, 1), (1, -1), (-1, 0, 1)])
def test_levels_are_moved_as_bits(levels: tuple[float, ...]) -> None:
    s = Sketch(shape=SHAPE)
    w = scaled(np.array([1, 0.5]), signs(RANDOM, (4, 12)))
    s(MatMul(), moved(s, bits_in(s, levels)), s.const(w, "w"), to="y")
    before = s.done()
    after = binarised(before)
    assert ops(after) == [*ops(before)[:-1], "BinaryDense", "Dequantize"]
    element = Element.TERNARY if 0 in levels else Element.BIPOLAR
    for name in ("s", "pool", "channels last", "slice", "flat"):
        assert after.types[name].element is element
    # What only follows the Step's element is not rewritten.
    assert after.producers["pool"] is before.producers["pool"]
    same_reals(before, after, images(RANDOM, SHAPE))


def pooled(s: Sketch) -> None:
    """x -> Step "s" -> MaxPool "pool" -> Conv "y" (1x1)."""
    pool = s(MaxPool(HALVES), bits_in(s), to="pool")
    conv(s, pool, signs(RANDOM, (2, 3, 1, 1)), Window((Axis(1), Axis(1))))


def reads_the_step(s: Sketch) -> None:
    s(ew.Mul(), "s", 0.25, to="other")


def reads_the_pool(s: Sketch) -> None:
    s(ew.Mul(), "pool", 0.25, to="other")


def moves_and_reads(s: Sketch) -> None:
    s(ew.Relu(), s(Reshape((1, 60)), "s"), to="other")


def concatenates(s: Sketch) -> None:
    s(Concat(1), "pool", "pool", to="other")


def layer_that_is_not_binary(s: Sketch) -> None:
    w = s.const(RANDOM.standard_normal((2, 3, 3, 3)), "real")
    s(Conv(ALL), "s", w, to="other", origin=["real conv"])


def pads_with_no_level(s: Sketch) -> None:
    pad = s(Pad((0, 0, 1, 1), (0, 0, 1, 1), 0.3), "s")
    pad = s(Pad((0, 0, 1, 1), (0, 0, 1, 1), 0.45), pad)
    conv(s, pad, W, ALL, to="other")


OTHER_READERS: list[Callable[[Sketch], None]] = [
    reads_the_step,
    reads_the_pool,
    moves_and_reads,
    concatenates,
    layer_that_is_not_binary,
    pads_with_no_level,
]


@pytest.mark.parametrize("reader", OTHER_READERS, ids=lambda f: f.__name__)
def test_other_readers_find_their_reals(reader: Callable[[Sketch], None]) -> None:
    s = Sketch(shape=SHAPE)
    pooled(s)
    reader(s)
    before = s.done("y", "other")
    after = apply(ELIMINATE_DEAD, apply(BINARISE_WEIGHTS, before).graph).graph
    assert after.types["s"].element is Element.F32
    assert after.types["s.integers"].element is Element.BIPOLAR
    assert after.types["pool.integers"].element is Element.BIPOLAR
    assert after.producers["pool.integers"].inputs == ("s.integers",)
    assert after.producers["pool.integers"].origin == ("the pool",)
    assert after.producers["y.acc"].inputs[0] == "pool.integers"
    same_reals(before, after, images(RANDOM, SHAPE))


@pytest.mark.parametrize("output", ["s", "pool"])
def test_outputs_keep_their_reals(output: str) -> None:
    s = Sketch(shape=SHAPE)
    pooled(s)
    before = s.done("y", output)
    after = binarised(before)
    assert after.types[output].element is Element.F32
    assert after.producers["y.acc"].inputs[0] == "pool.integers"
    same_reals(before, after, images(RANDOM, SHAPE))


def test_two_layers_share_the_twins() -> None:
    s = Sketch(shape=SHAPE)
    pooled(s)
    conv(s, "pool", signs(RANDOM, (3, 3, 2, 2)), Window((Axis(2), Axis(2))), to="z")
    conv(s, "s", W, ALL, to="v")
    reads_the_step(s)
    before = s.done("y", "z", "v", "other")
    after = binarised(before)
    assert ops(after).count("Step") == 2
    assert ops(after).count("MaxPool") == 1
    read = {n.inputs[0] for n in after.nodes if isinstance(n.op, BinaryConv)}
    assert read == {"s.integers", "pool.integers"}
    same_reals(before, after, images(RANDOM, SHAPE))


def test_binary_layers_alone_share_the_step_itself() -> None:
    s = Sketch(shape=SHAPE)
    pooled(s)
    conv(s, "s", W, PADDED, to="z")
    s(MatMul(), s(Reshape((1, 60)), "s", to="flat"), s.const(signs(RANDOM, (2, 60))), to="v")
    before = s.done("y", "z", "v")
    after = binarised(before)
    assert ops(after).count("Step") == 1
    assert after.types["s"].element is after.types["flat"].element is Element.BIPOLAR
    same_reals(before, after, images(RANDOM, SHAPE))


@pytest.mark.parametrize(
    "op",
    [ew.Relu(), AveragePool(HALVES)],
    ids=["elementwise", "averages"],
)
def test_what_makes_other_values_than_levels_stays_real(op: Op) -> None:
    s = Sketch(shape=SHAPE)
    x = s(op, bits_in(s), to="made")
    channels = s.builder.types[x].shape[1]
    w = scaled(np.array([1, 0.5]), signs(RANDOM, (2, channels, 1, 1)))
    conv(s, x, w, Window((Axis(1), Axis(1))))
    before = s.done()
    after = binarised(before)
    assert after.types["s"].element is after.types["made"].element is Element.F32
    assert ops(after) == [*ops(before)[:-1], "BinaryConv", "Mul"]
    same_reals(before, after, images(RANDOM, SHAPE))


def test_a_sign_without_channels_stays_real() -> None:
    """One value a sample, which the model squeezed, and then gave an axis again."""
    s = Sketch(1)
    step = s(ew.Step(Element.F32), s(Reshape((1,)), "x"), [[0.0]], [[-1.0, 1.0]], to="s")
    s(MatMul(), s(Reshape((1, 1)), step), s.const([[1.0], [-1.0]], "w"), to="y")
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Reshape", "Step", "Reshape", "BinaryDense"]
    assert after.types["s"].element is Element.F32
    same_reals(before, after, F([[-0.5], [0], [2]]))


# --- Pads -----------------------------------------------------------------------------------------


def padding(
    value: float,
    window: Window = ALL,
    before: tuple[int, ...] = (0, 0, 1, 0),
    after: tuple[int, ...] = (0, 0, 2, 1),
) -> Sketch:
    """x -> Step "s" -> Pad "p" -> Conv "y", alphas 1 and 0.5."""
    s = Sketch(shape=SHAPE)
    pad = s(Pad(before, after, value), bits_in(s), to="p")
    channels = s.builder.types[pad].shape[1]
    conv(s, pad, scaled(np.array([1, 0.5]), signs(RANDOM, (4, channels, 3, 3))), window)
    return s


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_pad_with_a_level_becomes_padding(value: float) -> None:
    before = padding(value).done()
    after = binarised(before)
    assert ops(after) == ["Step", "BinaryConv", "Dequantize"]
    window = Window((Axis(3, 1, 1, 1, 2), Axis(3, 1, 1, 0, 1)))
    assert only(after, BinaryConv).op == BinaryConv(window, 1, int(value))
    x = images(RANDOM, SHAPE)
    w = after.constants["w.sign"]
    stored = interpret.run_stored(after, {"x": x})
    bits = np.where(x >= 0, 1, -1)
    np.testing.assert_array_equal(stored["y.acc"], summed(bits, w, window, 1, value))
    same_reals(before, after, x)


def test_a_pad_of_1_d_behind_a_pool() -> None:
    s = Sketch(shape=(1, 3, 9))
    pool = s(MaxPool(Window((Axis(2),))), bits_in(s, (-1, 0, 1)), to="pool")
    pad = s(Pad((0, 0, 2), (0, 0, 0), -1.0), pool, to="p")
    conv(s, pad, signs(RANDOM, (6, 1, 3)), Window((Axis(3, 2),)), groups=3)
    before = s.done()
    after = binarised(before)
    assert only(after, BinaryConv).op == BinaryConv(Window((Axis(3, 2, 1, 2, 0),)), 3, -1)
    assert only(after, BinaryConv).inputs[0] == "pool"
    same_reals(before, after, images(RANDOM, (1, 3, 9)))


def test_zeros_around_zeros_are_zeros() -> None:
    before = padding(0.0, PADDED).done()
    after = binarised(before)
    window = Window((Axis(3, 1, 1, 2, 3), Axis(3, 1, 1, 1, 2)))
    assert only(after, BinaryConv).op == BinaryConv(window, 1, 0)
    same_reals(before, after, images(RANDOM, SHAPE))


UNABSORBED = {
    "ones within zeros": (padding(1.0, PADDED), Element.BIPOLAR),
    "zeros as channels": (padding(0.0, before=(0, 1, 1, 1)), Element.TERNARY),
    "ones as channels": (padding(-1.0, before=(0, 1, 1, 1)), Element.BIPOLAR),
    "a half": (padding(0.5), Element.U3),
}


@pytest.mark.parametrize("name", UNABSORBED)
def test_other_pads_are_put_round_bits(name: str) -> None:
    sketch, element = UNABSORBED[name]
    before = sketch.done()
    after = binarised(before)
    assert ops(after) == ["Step", "Pad", "BinaryConv", "Dequantize"]
    assert after.types["p.integers"].element is element
    same_reals(before, after, images(RANDOM, SHAPE))


def test_two_pads_with_no_level_stay_real() -> None:
    s = Sketch(shape=SHAPE)
    pad = s(Pad((0, 0, 1, 0), (0, 0, 0, 1), 0.375), bits_in(s))
    conv(s, s(Pad((0, 0, 1, 0), (0, 0, 0, 1), 0.46875), pad), W, ALL)
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Step", "Pad", "Pad", "BinaryConv"]
    assert after.types["s"].element is Element.F32
    same_reals(before, after, images(RANDOM, SHAPE))


def test_padding_that_no_window_reaches_is_none() -> None:
    # Of 7 rows, a stride of 2 leaves the one that the convolution itself adds unread.
    window = Window((Axis(3, 2, 1, 0, 1), Axis(3)))
    before = padding(1.0, window).done()
    after = binarised(before)
    assert ops(after) == ["Step", "BinaryConv", "Dequantize"]
    assert only(after, BinaryConv).op.pad == 1
    same_reals(before, after, images(RANDOM, SHAPE))


def test_a_pad_before_a_movement_is_put_round_bits() -> None:
    s = Sketch(shape=SHAPE)
    pad = s(Pad((0, 0, 1, 1), (0, 0, 1, 1), 1.0), bits_in(s), to="p")
    conv(s, s(MaxPool(HALVES), pad, to="pool"), W, ALL)
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Step", "Pad", "MaxPool", "BinaryConv", "Dequantize"]
    assert after.types["pool.integers"].element is Element.BIPOLAR
    same_reals(before, after, images(RANDOM, SHAPE))


def test_layers_that_share_a_pad() -> None:
    s = padding(-1.0)
    conv(s, "p", W, Window((Axis(3, 2), Axis(3, 2))), to="z")
    before = s.done("y", "z")
    after = binarised(before)
    assert "p" not in after.types
    assert after.types["s"].element is Element.BIPOLAR
    same_reals(before, after, images(RANDOM, SHAPE))


def test_a_pad_with_a_reader_that_cannot_absorb_it() -> None:
    s = padding(-1.0)
    conv(s, "p", W, PADDED, to="z")
    before = s.done("y", "z")
    after = binarised(before)
    assert after.producers["y.acc"].inputs[0] == "s.integers"
    assert after.producers["y.acc"].op.pad == -1  # type: ignore[attr-defined]  # the op is a BinaryConv
    assert after.producers["z.acc"].inputs[0] == "p.integers"
    assert after.producers["p.integers"].inputs == ("s.integers",)
    same_reals(before, after, images(RANDOM, SHAPE))


def test_a_pad_that_is_an_output_stays_one() -> None:
    before = padding(-1.0).done("y", "p")
    after = binarised(before)
    assert after.types["p"].element is Element.F32
    assert only(after, BinaryConv).inputs[0] == "s.integers"
    same_reals(before, after, images(RANDOM, SHAPE))


# --- Levels on a grid -----------------------------------------------------------------------------


def test_integers_of_a_grid_are_a_twin_of_the_step() -> None:
    s = Sketch(shape=SHAPE)
    levels = (0, 0.25, 0.75)
    conv(s, moved_image(s, bits_in(s, levels)), signs(RANDOM, (4, 2, 3, 2)), ALL_OF_MOVED)
    conv(s, "s", scaled(np.array([1, 0.5]), W), PADDED, to="z")
    reads_the_step(s)
    before = s.done("y", "z", "other")
    after = binarised(before)
    step = after.producers["s.integers"]
    assert step.op == ew.Step(Element.U2, (0.0, 0.25, 0.5, 0.75))
    assert step.inputs[:2] == after.producers["s"].inputs[:2]
    assert after.constants[step.inputs[2]].tolist() == [[0, 1, 3]]
    assert after.types["s"].element is Element.F32
    assert after.types["pool.integers"].element is Element.U2
    assert after.producers["pool.integers"].origin == ("the pool",)
    read = {n.inputs[0] for n in after.nodes if isinstance(n.op, BinaryConv)}
    assert read == {"slice.integers", "s.integers"}
    assert ops(after).count("Step") == 2
    same_reals(before, after, images(RANDOM, SHAPE))


ALL_OF_MOVED = Window((Axis(3, 1, 1, 1, 1), Axis(2)))


def moved_image(s: Sketch, x: str) -> str:
    """Append every operation that only moves or orders levels; [1, 3, 4, 5] to [1, 2, 3, 2]."""
    x = s(MaxPool(HALVES), x, to="pool")  # [1, 3, 2, 2]
    x = s(Transpose((0, 2, 1, 3)), x, to="turned")  # [1, 2, 3, 2]
    return s(Slice((0, 0, 0, 0), (1, 2, 3, 2), (1, 1, 1, 1)), x, to="slice")


@pytest.mark.parametrize(("value", "integer"), [(0.0, 0), (0.25, 1), (-1.0, 0)])
def test_a_pad_of_levels_is_put_round_their_integers(value: float, integer: int) -> None:
    s = Sketch(shape=SHAPE)
    pad = s(Pad((0, 0, 1, 0), (0, 0, 0, 1), value), bits_in(s, (0, 0.25, 0.5)), to="p")
    conv(s, pad, W, ALL)
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Step", "Pad", "BinaryConv", "Dequantize"]
    assert only(after, Pad).op == Pad((0, 0, 1, 0), (0, 0, 0, 1), integer)
    same_reals(before, after, images(RANDOM, SHAPE))


# --- Levels of several Steps ----------------------------------------------------------------------


POINT = Window((Axis(1), Axis(1)))
JOINED: dict[str, tuple[list[tuple[float, ...]], Element]] = {
    "signs": ([(-1, 1), (1, -1)], Element.BIPOLAR),
    "signs, one with a zero": ([(-1, 1), (-1, 0, 1)], Element.TERNARY),
    "signs and zeros and ones": ([(-1, 1), (0, 1)], Element.TERNARY),
    "zeros and ones": ([(0, 1), (1, 0)], Element.U1),
    "signs of one scale": ([(-0.5, 0.5), (0.5, -0.5)], Element.BIPOLAR),
    "codes of several widths": ([(0, 0.25, 0.5, 0.75), (0, 0.75)], Element.U2),
    "scales on a grid": ([(-1.5, 1.5), (-0.5, 0.5)], Element.U2),
}
"""name -> the levels of two Steps, the element in which a Concat holds both"""


def joined(s: Sketch, *parts: str) -> str:
    """Append a Concat, a channel shuffle and a layer that reads them: "y"."""
    both = s(Concat(1), *parts, to="both")
    channels = s.builder.types[both].shape[1]
    wide = s(Reshape((1, 2, channels // 2, 4, 5)), both, to="wide")
    shuffled = s(Reshape((1, channels, 4, 5)), s(Transpose((0, 2, 1, 3, 4)), wide), to="shuffled")
    return conv(s, shuffled, scaled(np.array([1, 0.5]), signs(RANDOM, (4, channels, 1, 1))), POINT)


@pytest.mark.parametrize("name", JOINED)
def test_levels_of_several_steps_are_joined_as_integers(name: str) -> None:
    levels, element = JOINED[name]
    s = Sketch(shape=SHAPE)
    joined(s, *(bits_in(s, some, to) for some, to in zip(levels, "st", strict=True)))
    before = s.done()
    after = binarised(before)
    assert ops(after) == [*ops(before)[:-1], "BinaryConv", "Dequantize"]
    assert after.types["shuffled.integers"].element is element
    same_reals(before, after, images(RANDOM, SHAPE))


def test_two_scales_are_two_planes() -> None:
    """The levels 1 and 0.375 with either sign are 11/16 a + 5/16 b for a, b = +-1."""
    s = Sketch(shape=SHAPE)
    joined(s, bits_in(s, (-1, 1)), bits_in(s, (-0.375, 0.375), "t"))
    before = s.done()
    after = binarised(before)
    assert ops(after).count("BinaryConv") == 2
    assert ops(after).count("Step") == 4
    assert "F32" not in {after.types[n.inputs[0]].element.name for n in after.nodes[-3:-1]}
    same_reals(before, after, images(RANDOM, SHAPE))


def test_levels_that_no_two_planes_sum_to_stay_real() -> None:
    s = Sketch(shape=SHAPE)
    joined(s, bits_in(s, (-1, 1)), bits_in(s, (0.375, 0.5), "t"))
    before = s.done()
    after = binarised(before)
    assert ops(after) == [*ops(before)[:-1], "BinaryConv", "Mul"]
    same_reals(before, after, images(RANDOM, SHAPE))


# --- Two planes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "pads"),
    [
        ((-1.125, -0.5, 0.5, 1.125), (0, 0)),  # 0 is no level: taps outside count for nothing
        ((0, 0.375, 0.625, 1), (-1, -1)),
        ((-0.375, 0, 0.25, 0.625), (-1, 1)),
        ((-1, 0, 2.0**-5), (1, -1)),
        ((0.25, 0.28125, 2.25), (0, 0)),  # and their offset is not added there
        ((0.625, 0, 0.375, 1), (-1, -1)),  # in any order
    ],
)
@pytest.mark.parametrize("window", [ALL, PADDED], ids=["plain", "padded"])
def test_levels_of_two_planes(
    levels: tuple[float, ...], pads: tuple[int, int], window: Window
) -> None:
    s = Sketch(shape=SHAPE)
    conv(s, bits_in(s, levels), scaled(np.array([1, 0.5]), signs(RANDOM, (4, 3, 3, 3))), window)
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Step", "Step", "BinaryConv", "BinaryConv", "DequantizeTwo"]
    layers = [node for node in after.nodes if isinstance(node.op, BinaryConv)]
    assert {after.types[node.inputs[0]].element for node in layers} == {Element.BIPOLAR}
    found = {node.outputs[0].rsplit(".", 1)[1]: node.op for node in layers}
    assert [found[n].pad for n in ("acc", "second")] == [*(pads if window is PADDED else (0, 0))]
    same_reals(before, after, images(RANDOM, SHAPE))


@pytest.mark.parametrize(
    ("levels", "layers"), [((0, 0.375, 0.625, 1), 1), ((0, 2.0**-5, 2), 2), ((0, 0.5, 1, 1.5), 1)]
)
def test_planes_are_pooled_only_in_order(levels: tuple[float, ...], layers: int) -> None:
    """Of two levels the larger may have the smaller bit in the second of two planes."""
    s = Sketch(shape=SHAPE)
    pool = s(MaxPool(HALVES), bits_in(s, levels))
    conv(s, pool, signs(RANDOM, (2, 3, 1, 1)), Window((Axis(1), Axis(1))))
    before = s.done()
    after = binarised(before)
    assert ops(after).count("BinaryConv") == layers
    same_reals(before, after, images(RANDOM, SHAPE))


def test_weights_of_two_values_on_two_planes_stay_real() -> None:
    s = Sketch(shape=SHAPE)
    w = signs(RANDOM, (4, 3, 3, 3)) * F(0.3) + F(0.1)
    conv(s, bits_in(s, (0, 0.41, 0.7, 1.11)), w, ALL)
    before = s.done()
    outcome = apply(BINARISE_WEIGHTS, before)
    assert "two-valued" in outcome.refusals[0].reason
    assert ops(apply(ELIMINATE_DEAD, outcome.graph).graph) == ["Step", "Conv"]


def test_a_real_among_the_joined_keeps_all_real() -> None:
    s = Sketch(shape=SHAPE)
    joined(s, bits_in(s), s(ew.Relu(), "x"))
    after = binarised(s.done())
    assert after.types["shuffled"].element is Element.F32


@pytest.mark.parametrize(("value", "element"), [(1, Element.BIPOLAR), (0, Element.TERNARY)])
def test_a_constant_is_joined(value: float, element: Element) -> None:
    s = Sketch(shape=SHAPE)
    constant = np.full(SHAPE, value)
    constant[:, 1] = -1
    joined(s, bits_in(s), s.const(constant, "k"))
    before = s.done()
    after = binarised(before)
    assert after.types["both.integers"].element is element
    assert after.types["k.integers"].element is element
    same_reals(before, after, images(RANDOM, SHAPE))


def test_steps_that_others_read_are_joined_and_shared() -> None:
    """One Step feeds reals, a layer of its own and two Concats: its signs are found once."""
    s = Sketch(shape=SHAPE)
    a, b = bits_in(s), bits_in(s, (1, -1), "t")
    conv(s, a, W, PADDED, to="v")
    both = s(Concat(1), a, b, to="both")
    conv(s, both, signs(RANDOM, (2, 6, 1, 1)), POINT, to="z")
    more = s(Concat(1), both, a, to="more")
    conv(s, more, signs(RANDOM, (2, 9, 1, 1)), POINT)
    reads_the_step(s)
    before = s.done("v", "z", "y", "other")
    after = binarised(before)
    assert after.types["s"].element is Element.F32
    read = {n.inputs[0] for n in after.nodes if isinstance(n.op, BinaryConv)}
    assert read == {"s.integers", "both.integers", "more.integers"}
    assert after.producers["more.integers"].inputs == ("both.integers", "s.integers")
    assert ops(after).count("Step") == 3
    same_reals(before, after, images(RANDOM, SHAPE))


def test_a_step_on_two_grids() -> None:
    """What joins other levels needs other integers of the same Step."""
    s = Sketch(shape=SHAPE)
    a, b = bits_in(s, (0, 0.5)), bits_in(s, (0, 0.25), "t")
    conv(s, a, W, PADDED, to="z")
    joined(s, a, b)
    before = s.done("y", "z")
    after = binarised(before)
    elements = {n: after.types[n].element for n in ("s.integers", "s.integers.1", "t.integers")}
    assert elements == dict(zip(elements, (Element.U1, Element.U2, Element.U2), strict=True))
    same_reals(before, after, images(RANDOM, SHAPE))


# --- Codes ----------------------------------------------------------------------------------------


def camera(scale: float, offset: float, window: Window, alpha: Sequence[float] = (1,)) -> Sketch:
    """x: U8 -> Cast -> * scale + offset -> Conv "y"."""
    s = Sketch(element=Element.U8, shape=SHAPE)
    real = s(ew.Mul(), s(ew.Cast(Element.F32), "x"), scale)
    real = s(ew.Add(), real, offset, to="real") if offset else real
    conv(s, real, scaled(np.array(alpha), W), window)
    return s


def coded_images() -> Array:
    x = RANDOM.integers(0, 256, (6, *SHAPE[1:])).astype(np.uint8)
    x[0], x[1] = 0, 255
    return x


@pytest.mark.parametrize(
    ("scale", "offset", "zero"),
    [(1.0, 0.0, 0), (1 / 255, 0.0, 0), (1 / 128, -1.0, 128), (0.25, -63.75, 255), (-0.5, 3.5, 7)],
)
def test_zero_padding_of_codes_is_the_code_that_stands_for_0(
    scale: float, offset: float, zero: int
) -> None:
    before = camera(scale, offset, PADDED, (1, 0.5, 0.1, 3)).done()
    after = binarised(before)
    assert only(after, BinaryConv).op == BinaryConv(PADDED, 1, zero)
    x = coded_images()
    stored = interpret.run_stored(after, {"x": x})
    w = after.constants["w.sign"]
    np.testing.assert_array_equal(stored["y.acc"], summed(x, w, PADDED, 1, zero))
    # Against the reals themselves, whose padding is a real 0, in double.
    real = x * np.float64(F(scale)) + offset
    exact = summed(real, before.constants["w"], PADDED, 1)
    slack = after.constants["y.slack"].reshape(-1, 1, 1)
    assert (np.abs(stored["y"] - exact) <= slack).all()
    own = interpret.run(before, {"x": x})["y"].astype(np.float64)
    assert (np.abs(stored["y"] - own) <= slack).all()
    power_of_two = scale != 1 / 255
    assert (slack[[0, 1, 3]] == 0).all() == power_of_two
    assert slack[2] > 0


@pytest.mark.parametrize(("scale", "offset"), [(2 / 255, -1.0), (1 / 128, 1.0), (1.0, -0.5)])
def test_a_zero_off_the_grid_counts_for_nothing(scale: float, offset: float) -> None:
    before = camera(scale, offset, PADDED, (1, 0.5, 0.1, 0)).done()
    after = binarised(before)
    assert only(after, BinaryConv).op == BinaryConv(PADDED, 1, 0)
    x = coded_images()
    stored = interpret.run_stored(after, {"x": x})
    np.testing.assert_array_equal(
        stored["y.acc"], summed(x, after.constants["w.sign"], PADDED, 1, 0)
    )
    real = interpret.run_stored(before, {"x": x})[only(before, Conv).inputs[0]]
    exact = summed(real, before.constants["w"], PADDED, 1)
    slack = after.constants["y.slack"].reshape(-1, 1, 1)
    assert (np.abs(stored["y"] - exact) <= slack).all()
    own = interpret.run(before, {"x": x})["y"].astype(np.float64)
    assert (np.abs(stored["y"] - own) <= slack).all()
    # What a tap adds by the offset alone is there once a tap inside of the image.
    inside = summed(np.full((1, *SHAPE[1:]), offset), before.constants["w"], PADDED, 1)
    np.testing.assert_allclose(after.constants["y.shift"], inside, rtol=1e-6, atol=1e-6)
    assert (slack[[0, 1, 3]] == 0).all() == (scale != 2 / 255)


def test_without_padding_no_code_need_stand_for_0() -> None:
    before = camera(2 / 255, -1.0, ALL).done()
    after = binarised(before)
    assert only(after, BinaryConv).op == BinaryConv(ALL, 1, 0)
    x = coded_images()
    stored = interpret.run_stored(after, {"x": x})
    np.testing.assert_array_equal(stored["y.acc"], summed(x, after.constants["w.sign"], ALL, 1))
    own = interpret.run(before, {"x": x})["y"].astype(np.float64)
    assert (np.abs(stored["y"] - own) <= after.constants["y.slack"].reshape(-1, 1, 1)).all()


def test_crumbs_off_the_grid_are_bounded() -> None:
    s = camera(2 / 255, -1.0, PADDED)
    crumbs = RANDOM.integers(0, 2, W.shape).astype(F) * F(2**-22)
    conv(s, "real", W * (1 - crumbs), PADDED, to="z")
    before = s.done("y", "z")
    after = binarised(before)
    x = coded_images()
    old, new = (interpret.run(g, {"x": x}) for g in (before, after))
    for name in ("y", "z"):
        slack = after.constants[f"{name}.slack"].reshape(-1, 1, 1)
        assert (np.abs(old[name].astype(np.float64) - new[name]) <= slack).all()


def test_codes_are_moved_as_codes() -> None:
    s = Sketch(element=Element.U8, shape=(1, 4, 5, 3))
    planar = s(Transpose((0, 3, 1, 2)), s(ew.Cast(Element.F32), "x"), to="planar")
    real = s(ew.Sub(), s(ew.Mul(), planar, 1 / 128), 1.0)
    part = s(Slice((0, 1, 0, 0), (1, 2, 4, 5), (1, 1, 1, 1)), real, to="part")
    conv(s, part, W[:, 1:], PADDED)
    before = s.done()
    after = binarised(before)
    assert ops(after) == ["Transpose", "Slice", "BinaryConv", "Dequantize"]
    assert only(after, BinaryConv).inputs[0] == "part.codes"
    x = RANDOM.integers(0, 256, (5, 4, 5, 3)).astype(np.uint8)
    same_reals(before, after, x)


def test_codes_under_a_constant_of_a_higher_rank_stay_real() -> None:
    s = Sketch(6, Element.U8)
    real = s(ew.Mul(), s(ew.Cast(Element.F32), "x"), [[[0.5]]])
    assert s.builder.types[real].shape == (1, 1, 6)
    flat = s(Reshape((1, 6)), real)
    s(MatMul(), flat, s.const(signs(RANDOM, (2, 6))), to="y")
    before = s.done()
    after = BINARISE_WEIGHTS.apply(before, GENERIC).graph
    assert after.types[only(after, BinaryDense).inputs[0]].element is Element.F32
