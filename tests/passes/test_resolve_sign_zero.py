"""resolve_sign_zero: every mode, over reals and over accumulators, and never silently."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.certificate import SignOfZero
from bnncc.ir import interpret
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, BinaryDense
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Transpose
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.resolve_sign_zero import RESOLVE_SIGN_ZERO
from tests.ir.sketch import TINY, F, Sketch
from tests.passes.applying import apply, context, same_text
from tests.passes.epilogues import SIGN

X = np.array([[-1.0], [-float(TINY)], [-0.0], [0.0], [float(TINY)], [1.0]], F)


def over_reals(to: Element = Element.TERNARY) -> Sketch:
    s = Sketch(1)
    s(ew.Step(to), s(ew.Mul(), "x", 1.0), s.const(SIGN[0], "t"), s.const(SIGN[1], "v"), to="y")
    return s


def over_codes() -> Sketch:
    s = Sketch(1, Element.U8)
    real = s(ew.Sub(), s(ew.Cast(Element.F32), "x"), 127.0)
    s(ew.Step(Element.TERNARY), real, *SIGN, to="y")
    return s


def over_an_accumulator() -> Sketch:
    s = Sketch(2, Element.BIPOLAR)
    n = s(BinaryDense(), "x", s.const([[1, 1]], "w", Element.BIPOLAR))
    doubles = [s.const([v], "d", Element.F64) for v in (1.0, 0.0, 0.0)]
    value = s(ew.Dequantize(), n, *doubles)
    s(ew.Step(Element.TERNARY), value, *SIGN, to="y")
    return s


@pytest.mark.parametrize(("mode", "zero"), [("auto", 1), ("plus", 1), ("minus", -1), ("exact", 0)])
def test_reals(mode: str, zero: int) -> None:
    before = over_reals().done()
    outcome = apply(RESOLVE_SIGN_ZERO, before, context(sign_zero=mode))
    assert interpret.run(outcome.graph, {"x": X})["y"].tolist() == [
        [-1],
        [-1],
        [zero],
        [zero],
        [1],
        [1],
    ]
    if zero:
        assert outcome.assumptions == (SignOfZero("y", zero),)
        assert outcome.graph.types["y"].element is Element.BIPOLAR
    else:
        assert outcome.assumptions == ()
        assert outcome.graph is before


@pytest.mark.parametrize("between", ["nothing", "transpose", "max pool", "average pool"])
@pytest.mark.parametrize("end", [ew.Relu(), ew.Clip(-1, 0), ew.Clip(0, 6), ew.Clip(-1, 1)])
def test_where_zero_is_an_end_of_the_range_it_is_no_accident(
    end: ew.Elementwise, between: str
) -> None:
    s = Sketch(shape=(1, 2, 4, 4))
    x = s(end, s(ew.Mul(), "x", 2.0))
    window = Window((Axis(2, 2), Axis(2, 2)))
    move = {
        "transpose": Transpose((0, 2, 3, 1)),
        "max pool": MaxPool(window),
        "average pool": AveragePool(window),
    }
    x = s(move[between], x) if between in move else x
    s(ew.Step(Element.TERNARY), x, s.const(SIGN[0], "t"), s.const(SIGN[1], "v"), to="y")
    before = s.done()
    outcome = apply(RESOLVE_SIGN_ZERO, before, context())
    assert bool(outcome.assumptions) is (end == ew.Clip(-1, 1))
    assert (outcome.graph is before) is (not outcome.assumptions)
    assert apply(RESOLVE_SIGN_ZERO, before, context(sign_zero="plus")).assumptions


@pytest.mark.parametrize(("mode", "zero"), [("auto", 0), ("plus", 1), ("minus", -1), ("exact", 0)])
def test_accumulators(mode: str, zero: int) -> None:
    before = over_an_accumulator().done()
    outcome = apply(RESOLVE_SIGN_ZERO, before, context(sign_zero=mode))
    x = np.array([[-1, -1], [-1, 1], [1, 1]], np.int8)
    assert interpret.run(outcome.graph, {"x": x})["y"].tolist() == [[-1], [zero], [1]]
    assert bool(outcome.assumptions) == bool(zero)
    assert (outcome.graph is before) == (zero == 0)


@pytest.mark.parametrize(("mode", "zero"), [("auto", 0), ("plus", 1), ("minus", -1), ("exact", 0)])
def test_codes(mode: str, zero: int) -> None:
    outcome = apply(RESOLVE_SIGN_ZERO, over_codes().done(), context(sign_zero=mode))
    x = np.array([[126], [127], [128]], np.uint8)
    assert interpret.run(outcome.graph, {"x": x})["y"].tolist() == [[-1], [zero], [1]]


def over_scaled_pixels(shift: float) -> Sketch:
    """Return a sign of n * columns + shift over n in -3, -1, 1, 3 of two pixels."""
    s = Sketch(shape=(1, 3, 2), element=Element.BIPOLAR)
    w = s.const(np.ones((1, 3, 1)), "w", Element.BIPOLAR)
    n = s(BinaryConv(Window((Axis(1),))), "x", w)
    doubles = [s.const([v], "d", Element.F64) for v in (1.0, 0.0, 0.0)]
    scaled = s(ew.Mul(), s(ew.Dequantize(), n, *doubles), s.const([[[0.5, 0.25]]], "columns"))
    s(ew.Step(Element.TERNARY), s(ew.Add(), scaled, shift), *SIGN, to="y")
    return s


@pytest.mark.parametrize(
    ("shift", "reached"), [(0.0, False), (0.125, False), (0.5, True), (0.25, True), (0.75, True)]
)
def test_scales_a_pixel(shift: float, reached: bool) -> None:
    """No threshold on n serves both pixels; that none gives a 0 is proven, and no assumption."""
    before = over_scaled_pixels(shift).done()
    outcome = apply(RESOLVE_SIGN_ZERO, before, context())
    assert outcome.assumptions == ()
    assert (outcome.graph is before) is reached
    x = np.array([[[a] * 2, [b] * 2, [1] * 2] for a in (-1, 1) for b in (-1, 1)], np.int8)
    x = np.concatenate([x, -x])
    old, new = (interpret.run(g, {"x": x})["y"] for g in (before, outcome.graph))
    np.testing.assert_array_equal(new, old)
    assert bool((old == 0).any()) is reached
    assert apply(RESOLVE_SIGN_ZERO, before, context(sign_zero="plus")).assumptions
    assert apply(RESOLVE_SIGN_ZERO, before, context(sign_zero="exact")).graph is before


def test_in_text() -> None:
    expected = Sketch(1)
    m = expected(ew.Mul(), "x", 1.0)
    t, v = expected.const([[0.0]], "y.thresholds"), expected.const([[-1, 1]], "y.levels")
    expected(ew.Step(Element.BIPOLAR), m, t, v, to="y")
    same_text(apply(RESOLVE_SIGN_ZERO, over_reals().done()).graph, expected)


def test_names_are_printable() -> None:
    s = Sketch(1)
    s(ew.Step(Element.TERNARY), "x", *SIGN, to="a\nb\x1b[1m")
    (assumption,) = RESOLVE_SIGN_ZERO.apply(s.done(), context()).assumptions
    assert str(assumption) == "a\\nb\\x1b[1m: sign(0) is taken as +1, not 0"


@pytest.mark.parametrize(
    ("thresholds", "levels"),
    [
        ([[0.0, 0.5]], [[-1, 0, 1]]),  # a ternariser: 0 is wanted
        ([[0.0, float(TINY)]], [[1, 0, -1]]),
        ([[0.0, float(TINY)]], [[0, -1, 1]]),
        ([[-0.5, 0.5]], [[-1, 0, 1]]),
    ],
)
def test_other_ternary_steps_keep_three_levels(thresholds: list, levels: list) -> None:
    s = Sketch(1)
    s(ew.Step(Element.TERNARY), "x", thresholds, levels, to="y")
    graph = s.done()
    for mode in ("auto", "plus", "minus"):
        outcome = RESOLVE_SIGN_ZERO.apply(graph, context(sign_zero=mode))
        assert outcome.graph is graph
        assert outcome.assumptions == ()


def test_a_sign_whose_reals_are_read_keeps_its_zero() -> None:
    graph = over_reals(Element.F32).done()
    assert RESOLVE_SIGN_ZERO.apply(graph, context()).graph is graph


# --- Images ---------------------------------------------------------------------------------------


def image_of_reals() -> Sketch:
    s = Sketch(shape=(1, 2, 3, 1))
    column = np.array([[[1.0]], [[-2.0]]], F)
    s(ew.Step(Element.TERNARY), s(ew.Mul(), "x", column), *SIGN, to="y")
    return s


def image_of_accumulators() -> Sketch:
    s = Sketch(element=Element.BIPOLAR, shape=(1, 1, 3, 1))
    w = s.const([[[[1], [1]]], [[[1], [-1]]]], "w", Element.BIPOLAR)
    n = s(BinaryConv(Window((Axis(2, 1, 1, 0, 1), Axis(1)))), "x", w)
    doubles = [s.const(v, "d", Element.F64) for v in ([0.1, 0.2], [0.0, 0.0], [0.0, 0.0])]
    s(ew.Step(Element.TERNARY), s(ew.Dequantize(), n, *doubles), *SIGN, to="y")
    return s


@pytest.mark.parametrize(("mode", "zero"), [("auto", 1), ("plus", 1), ("minus", -1), ("exact", 0)])
def test_images_of_reals(mode: str, zero: int) -> None:
    outcome = apply(RESOLVE_SIGN_ZERO, image_of_reals().done(), context(sign_zero=mode))
    x = np.array([[-1, -0.0, TINY], [-1, 0, TINY]], F).reshape(1, 2, 3, 1)
    expected = [[-1, zero, 1], [1, zero, -1]]
    assert interpret.run(outcome.graph, {"x": x})["y"].reshape(2, 3).tolist() == expected
    assert bool(outcome.assumptions) == bool(zero)


@pytest.mark.parametrize(("mode", "zero"), [("auto", 0), ("plus", 1), ("minus", -1), ("exact", 0)])
def test_images_of_accumulators(mode: str, zero: int) -> None:
    outcome = apply(RESOLVE_SIGN_ZERO, image_of_accumulators().done(), context(sign_zero=mode))
    x = np.array([1, -1, -1], np.int8).reshape(1, 1, 3, 1)
    # Sums of two, but at the border, where one tap is left: [0, -2, -1] and [2, 0, -1].
    expected = [[zero, -1, -1], [1, zero, -1]]
    assert interpret.run(outcome.graph, {"x": x})["y"].reshape(2, 3).tolist() == expected
    assert bool(outcome.assumptions) == bool(zero)


def test_a_sign_that_moved_over_a_pool_is_known_by_the_pool() -> None:
    s = Sketch(shape=(1, 2, 3, 1))
    s(ew.Step(Element.TERNARY), "x", *SIGN, to="y.unpooled")
    s(MaxPool(Window((Axis(2), Axis(1)))), "y.unpooled", to="y")
    outcome = apply(RESOLVE_SIGN_ZERO, s.done(), context())
    assert outcome.assumptions == (SignOfZero("y", 1),)
