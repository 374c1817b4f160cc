"""canonical_affine: the same bits in another spelling."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element, Interval
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from tests.ir.oracles import f32, normalised
from tests.ir.sketch import HARD, F, Sketch, ops, same_bits
from tests.passes.applying import GENERIC, apply, outputs, same_text, same_values

RANDOM = np.random.default_rng(2)
STATS = (
    np.array([1.3, -0.9, 0.0, -0.0, 1e-30, 2.0], F),
    np.array([0.2, -0.4, 0.5, -0.0, 0.0, 1.0], F),
    np.array([-0.7, 1.9, 3.0, 1.0, 2.0, 0.0], F),
    np.array([2.1, 0.5, 6e-8, 1.0, 1e-12, 1.0], F),
)


def rows(channels: int) -> Array:
    x = HARD[:, np.newaxis].repeat(channels, axis=1)
    with np.errstate(over="ignore"):
        return np.concatenate([x, RANDOM.standard_normal((50, channels)).astype(F) * F(30)])


def test_batch_norm_to_the_bit() -> None:
    s = Sketch(6)
    s.batch_norm("x", STATS, to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Mul", "Add"]
    x = rows(6)
    same_values(before, after, x=x)
    (y,) = outputs(after, x=x)
    expected = [
        [normalised(float(v), [row[c] for row in STATS], 1e-5) for c, v in enumerate(xs)]
        for xs in x
    ]
    same_bits(y, np.array(expected, F))


def test_batch_norm_in_text() -> None:
    s = Sketch(2)
    s.batch_norm("x", ([2, -1], [1, 1], [3, 0.5], [0.25, 4]), 0.0, to="y")
    expected = Sketch(2)
    scale, shift = expected.const([4, -0.5], "y.scale"), expected.const([-11, 1.25], "y.shift")
    m = expected(ew.Mul(), "x", scale, to="y.scaled", origin=["the y"])
    expected(ew.Add(), m, shift, to="y")
    same_text(apply(CANONICAL_AFFINE, s.done()).graph, expected)


def test_batch_norm_over_axis_1_of_four() -> None:
    s = Sketch(shape=(1, 6, 2, 3))
    s.batch_norm("x", STATS, to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Mul", "Add"]
    same_values(before, after, x=RANDOM.standard_normal((4, 6, 2, 3)).astype(F))


def test_batch_norm_with_computed_statistics_stays() -> None:
    s = Sketch(1, shape=(1, 1))
    gamma = s(ew.Neg(), s.const([1.0]), to="gamma")
    s(ew.BatchNormalization(1e-5), "x", gamma, [0.0], [0.0], [1.0], to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


def test_sub_becomes_add_to_the_bit() -> None:
    s = Sketch(4)
    s(ew.Sub(), "x", s.const([0.0, -0.0, 1e-40, 0.1], "c"), to="y")
    before = s.done()
    expected = Sketch(4)
    negated = expected.const([-0.0, 0.0, -1e-40, -0.1], "c.negated")
    expected(ew.Add(), "x", negated, to="y")
    after = apply(CANONICAL_AFFINE, before).graph
    same_text(after, expected)
    same_values(before, after, x=rows(4))


def test_a_constant_minus_x_stays() -> None:
    s = Sketch(4)
    s(ew.Sub(), 1.0, "x", to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("one", [1.0, [1.0, 1.0], [[1.0, 1.0]]], ids=["scalar", "row", "full"])
def test_a_factor_of_1_is_dropped(one: object, left: bool) -> None:
    s = Sketch(2)
    operands = (one, "x") if left else ("x", one)
    s(ew.Neg(), s(ew.Mul(), *operands), to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Neg"]
    same_values(before, after, x=rows(2))


@pytest.mark.parametrize(
    "factor", [[1.0, 2.0], [-1.0, -1.0], [[[1.0, 1.0]]], np.float32(1 + 2**-23)], ids=str
)
def test_other_factors_stay(factor: object) -> None:
    s = Sketch(2)
    s(ew.Neg(), s(ew.Mul(), "x", factor), to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


def test_a_factor_of_1_before_an_output_stays() -> None:
    s = Sketch(2)
    s(ew.Mul(), "x", 1.0, to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


def test_adding_0_stays() -> None:
    # -0 + 0 is +0: not the same bits.
    s = Sketch(2)
    s(ew.Neg(), s(ew.Add(), "x", 0.0), to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


SMALL = Interval(-300, 300)


def dequantized(
    scale: list[float], shift: list[float], interval: Interval | None = SMALL
) -> Sketch:
    s = Sketch(len(scale), Element.I32, interval=interval)
    rows_ = [s.const(v, "d", Element.F64) for v in (scale, shift, [9.0] * len(scale))]
    s(ew.Dequantize(), "x", *rows_, to="y")
    return s


ALPHAS = [float(F(v)) for v in (0.1, 1 / 3, 0.7, 3e-5)]


def test_dequantize_becomes_cast_and_mul_to_the_bit() -> None:
    before = dequantized(ALPHAS, [0.0, -0.0, 0.0, 0.0]).done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Cast", "Mul"]
    n = np.arange(-300, 301, dtype=np.int32)[:, np.newaxis].repeat(4, axis=1)
    same_values(before, after, x=n[n[:, 0] != 0])
    (y,) = outputs(after, x=n)
    expected = [[f32(int(v) * a) for a in ALPHAS] for v in n[:, 0]]
    np.testing.assert_array_equal(y, np.array(expected, F))


def test_dequantize_of_zero_keeps_its_sign() -> None:
    # 0 * -0.7 is -0, and -0 + 0 is +0: dropping the shift must not turn one into the other.
    before = dequantized([-0.75, 0.75], [0.0, 0.0]).done()
    after = apply(CANONICAL_AFFINE, before).graph
    same_values(before, after, x=np.zeros((1, 2), np.int32))


@pytest.mark.parametrize(
    "sketch",
    [
        dequantized([0.1], [0.0]),
        dequantized([0.0, 0.5], [0.0, 0.0]),
        dequantized([-0.5, 0.5], [0.0, 0.0]),
        dequantized([0.5], [1e-30]),
        dequantized([1e300], [0.0]),
        dequantized([0.5], [0.0], Interval(-(2**24), 5)),
        dequantized([0.5], [0.0], Interval(-5, 2**24)),
        dequantized([0.5], [0.0], None),
    ],
    ids=[
        "not float32",
        "a factor of 0",
        "below 0",
        "a shift",
        "too large",
        "low end",
        "high end",
        "no interval",
    ],
)
def test_other_dequantizes_stay(sketch: Sketch) -> None:
    graph = sketch.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph


@pytest.mark.parametrize("interval", [Interval(1 - 2**24, 2**24 - 1)])
def test_the_largest_exact_accumulators(interval: Interval) -> None:
    before = dequantized([ALPHAS[0]], [0.0], interval).done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Cast", "Mul"]
    ends = np.array([[interval.low], [interval.high], [2**23 + 1]], np.int32)
    same_values(before, after, x=ends)


@pytest.mark.parametrize(
    "sketch",
    [
        lambda: dequantized([1.0, 1.0], [0.0, 0.0]),
        lambda: _normalised([1.0, 1.0], [1.0, 1.0]),
    ],
    ids=["alpha 1", "scale 1"],
)
def test_a_factor_of_1_that_the_pass_itself_makes_is_dropped_too(sketch: object) -> None:
    # +-1 weights have alpha 1: the most common network there is. Once is enough, or the pass is
    # not idempotent and every epilogue multiplies by 1.
    s = sketch()  # type: ignore[operator]  # function from the table above
    s(ew.Relu(), "y", to="z")
    once = apply(CANONICAL_AFFINE, s.done()).graph
    assert "Mul" not in ops(once)
    assert CANONICAL_AFFINE.apply(once, GENERIC).graph is once


def _normalised(gamma: list[float], variance: list[float]) -> Sketch:
    s = Sketch(2)
    s.batch_norm("x", (gamma, [0.5, 0.5], [0.0, 0.0], variance), 0.0, to="y")
    return s


# --- Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(5,), (3, 2)])
def test_dequantize_of_images_to_the_bit(sizes: tuple[int, ...]) -> None:
    shape = (1, 4, *sizes)
    s = Sketch(element=Element.I32, shape=shape, interval=SMALL)
    d = [s.const(v, "d", Element.F64) for v in (ALPHAS, [0.0] * 4, [9.0] * 4)]
    s(ew.Dequantize(), "x", *d, to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Cast", "Mul"]
    assert after.constants["y.alpha"].shape == (4, *(1,) * len(sizes))
    n = RANDOM.integers(-300, 301, (60, *shape[1:])).astype(np.int32)
    same_values(before, after, x=n)
    (y,) = outputs(after, x=n)
    expected = [f32(int(n[i]) * ALPHAS[i[1]]) for i in np.ndindex(*n.shape)]
    np.testing.assert_array_equal(y.reshape(-1), np.array(expected, F))


def test_one_scale_for_all_channels_of_an_image() -> None:
    s = Sketch(element=Element.I32, shape=(1, 4, 3, 2), interval=SMALL)
    d = [s.const([v], "d", Element.F64) for v in (ALPHAS[0], 0.0, 9.0)]
    s(ew.Dequantize(), "x", *d, to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Cast", "Mul"]
    same_values(before, after, x=RANDOM.integers(-300, 301, (9, 4, 3, 2)).astype(np.int32))


def test_sub_and_unit_factors_of_images() -> None:
    s = Sketch(shape=(1, 3, 2, 2))
    column = np.array([0.0, -0.0, 0.1], F).reshape(3, 1, 1)
    unit = s(ew.Mul(), "x", np.ones((3, 1, 1)))
    unit = s(ew.Mul(), np.ones((1, 3, 1, 1)), unit)
    s(ew.Sub(), unit, s.const(column, "bias"), to="y")
    before = s.done()
    after = apply(CANONICAL_AFFINE, before).graph
    assert ops(after) == ["Add"]
    assert after.constants["bias.negated"].shape == (3, 1, 1)
    x = np.resize(HARD, (20, 3, 2, 2))
    same_values(before, after, x=x)


def test_a_factor_of_1_that_makes_an_image_stays() -> None:
    s = Sketch(shape=(1, 3, 1, 1))
    s(ew.Neg(), s(ew.Mul(), "x", np.ones((3, 2, 2))), to="y")
    graph = s.done()
    assert CANONICAL_AFFINE.apply(graph, GENERIC).graph is graph
