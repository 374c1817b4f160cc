"""Every elementwise operation against plain Python arithmetic, to the bit.

The oracle computes in Python floats (IEEE double) and rounds to float32 through `struct`. For one
+, -, *, / or square root of float32 operands that is the correctly rounded float32 result: double
has more than 2 * 24 + 2 bits (Figueroa 1995).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import Array, Element, PackedChannels, Stage, TensorType
from tests.ir.oracles import divided, f32, normalised
from tests.ir.sketch import HARD, INF, LARGEST, NORMAL, TINY, F, same_bits

FLOATS = st.floats(width=32, allow_nan=False)
PAIRS = list(itertools.product([*HARD, INF, -INF], repeat=2))


def run(op: Op, *operands: object) -> Array:
    arrays = [np.asarray(o) for o in operands]
    (result,) = op.evaluate(arrays)
    return result


ARITHMETIC: dict[Op, Callable[[float, float], float]] = {
    ew.Add(): lambda a, b: a + b,
    ew.Sub(): lambda a, b: a - b,
    ew.Mul(): lambda a, b: a * b,
    ew.Div(): divided,
}


@pytest.mark.parametrize("op", ARITHMETIC, ids=str)
def test_arithmetic_rounds_once(op: Op) -> None:
    a, b = np.array(PAIRS, F).T
    expected = [f32(ARITHMETIC[op](float(x), float(y))) for x, y in PAIRS]
    same_bits(run(op, a, b), np.array(expected, F))


@given(FLOATS, FLOATS)
def test_arithmetic_rounds_once_on_any_floats(a: float, b: float) -> None:
    for op, oracle in ARITHMETIC.items():
        same_bits(run(op, F(a), F(b)), np.asarray(f32(oracle(a, b))))


COMPARISONS: dict[Op, Callable[[float, float], bool]] = {
    ew.Greater(): lambda a, b: a > b,
    ew.GreaterOrEqual(): lambda a, b: a >= b,
    ew.Less(): lambda a, b: a < b,
    ew.LessOrEqual(): lambda a, b: a <= b,
    ew.Equal(): lambda a, b: a == b,
}


@pytest.mark.parametrize("op", COMPARISONS, ids=str)
def test_comparisons(op: Op) -> None:
    pairs = [*PAIRS, (F(np.nan), F(0)), (F(0), F(np.nan)), (F(np.nan), F(np.nan))]
    a, b = np.array(pairs, F).T
    expected = [COMPARISONS[op](float(x), float(y)) for x, y in pairs]
    np.testing.assert_array_equal(run(op, a, b), np.array(expected), strict=True)


def test_zeros_of_either_sign_compare_equal() -> None:
    assert run(ew.Equal(), F(0.0), F(-0.0))
    assert run(ew.GreaterOrEqual(), F(-0.0), F(0.0))
    assert not run(ew.Greater(), F(0.0), F(-0.0))
    assert not run(ew.Less(), F(-0.0), F(0.0))


@pytest.mark.parametrize(
    ("op", "table"),
    [
        (ew.And(), [False, False, False, True]),
        (ew.Or(), [False, True, True, True]),
        (ew.Not(), [True, True, False, False]),
    ],
    ids=str,
)
def test_logic(op: Op, table: list[bool]) -> None:
    a, b = np.array([(False, False), (False, True), (True, False), (True, True)]).T
    operands = (a, b)[: op.arity]
    np.testing.assert_array_equal(run(op, *operands), np.array(table), strict=True)


def _half_to_even(x: float) -> float:
    floor = math.floor(x)
    apart = x - floor
    up = apart > 0.5 or (apart == 0.5 and floor % 2 == 1)
    return math.copysign(floor + up, x)


def _clipped(x: float, low: float, high: float) -> float:
    raised = max(x, low)  # x where equal: Python takes the first
    return min(raised, high)


UNARY: dict[Op, Callable[[float], float]] = {
    ew.Identity(): lambda x: x,
    ew.Neg(): lambda x: math.copysign(x, -math.copysign(1, x)),
    ew.Abs(): lambda x: math.copysign(x, 1),
    ew.Relu(): lambda x: 0.0 if x < 0 else x,
    ew.LeakyRelu(0.01): lambda x: x if x >= 0 else float(F(0.01)) * x,
    ew.LeakyRelu(-2.0): lambda x: x if x >= 0 else -2.0 * x,
    ew.Clip(-1, 1): lambda x: _clipped(x, -1.0, 1.0),
    ew.Clip(0, 6): lambda x: _clipped(x, 0.0, 6.0),
    ew.Clip(0.1, 0.1): lambda x: float(F(0.1)),
    ew.Clip(3, 1): lambda x: 1.0,
    ew.Sign(): lambda x: float((x > 0) - (x < 0)),
    ew.Round(): _half_to_even,
    ew.Floor(): lambda x: math.copysign(math.floor(x), x),
    ew.Ceil(): lambda x: math.copysign(math.ceil(x), x),
}


@pytest.mark.parametrize("op", UNARY, ids=str)
def test_unary(op: Op) -> None:
    halves = np.arange(-9.5, 10, 0.5, dtype=F)
    x = np.concatenate([HARD, halves, np.nextafter(halves, INF), np.nextafter(halves, -INF)])
    expected = [f32(UNARY[op](float(v))) for v in x]
    same_bits(run(op, x), np.array(expected, F))


FINITE_ONLY = (ew.Round(), ew.Floor(), ew.Ceil())  # as far as the oracle goes


@pytest.mark.parametrize("op", [op for op in UNARY if op not in FINITE_ONLY], ids=str)
def test_infinities(op: Op) -> None:
    x = np.array([INF, -INF])
    expected = [f32(UNARY[op](float(v))) for v in x]
    same_bits(run(op, x), np.array(expected, F))


def test_rounding_keeps_infinities_and_the_sign_of_zero() -> None:
    x = np.array([INF, -INF, -0.0, 0.0, -0.25, 0.25, -0.5, 0.5], F)
    same_bits(run(ew.Round(), x), np.array([INF, -INF, -0.0, 0, -0.0, 0, -0.0, 0], F))
    same_bits(run(ew.Floor(), x), np.array([INF, -INF, -0.0, 0, -1, 0, -1, 0], F))
    same_bits(run(ew.Ceil(), x), np.array([INF, -INF, -0.0, 0, -0.0, 1, -0.0, 1], F))


def test_sign_has_three_levels_and_one_zero() -> None:
    x = np.array([-INF, -1, -TINY, -0.0, 0.0, TINY, INF], F)
    same_bits(run(ew.Sign(), x), np.array([-1, -1, -1, 0, 0, 1, 1], F))


@given(FLOATS, st.sampled_from([0.2, 1 / 6, 1.0, 0.5, -0.25]), st.sampled_from([0.5, 0.0, -3.0]))
def test_hard_sigmoid_rounds_twice(x: float, alpha: float, beta: float) -> None:
    line = f32(float(f32(float(F(alpha)) * x)) + float(F(beta)))
    expected = f32(_clipped(float(line), 0.0, 1.0))
    same_bits(run(ew.HardSigmoid(alpha, beta), F(x)), np.asarray(expected))


def test_hard_sigmoid_is_not_fused() -> None:
    # fl(fl(0.2 x) + 0.5) and fl(0.2 x + 0.5) differ here.
    x = np.linspace(-2, 2, 2001, dtype=F)
    fused = [_clipped(float(f32(float(F(0.2)) * float(v) + 0.5)), 0.0, 1.0) for v in x]
    assert (run(ew.HardSigmoid(0.2, 0.5), x) != np.array(fused, F)).any()


@given(FLOATS, st.sampled_from([0.25, 0.0, -0.1, 1.0, -2.0, 1e-30]))
def test_prelu(x: float, slope: float) -> None:
    expected = f32(float(F(slope)) * x) if x < 0 else f32(x)
    same_bits(run(ew.PRelu(), F(x), F(slope)), np.asarray(expected))


def test_prelu_has_a_slope_a_channel() -> None:
    x = np.array([[-2, -2, -2], [3, 3, 3]], F)
    slopes = np.array([0.5, -1, 0], F)
    same_bits(run(ew.PRelu(), x, slopes), np.array([[-1, 2, -0.0], [3, 3, 3]], F))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


@pytest.mark.parametrize(
    ("op", "truth", "bound"),
    [(ew.Tanh(), math.tanh, 1.4), (ew.Sigmoid(), _logistic, 2.5)],
    ids=["Tanh", "Sigmoid"],
)
@given(x=FLOATS | st.floats(-110, 110, width=32))
def test_transcendental_functions_are_near_the_truth(
    op: ew.Elementwise, truth: Callable[[float], float], bound: float, x: float
) -> None:
    result = run(op, F(x))
    exact = truth(x)
    assert result.dtype == np.float32
    assert result.shape == ()
    assert abs(float(result) - exact) <= bound * float(np.spacing(abs(F(exact))))


def test_ends_of_the_transcendental_functions() -> None:
    x = np.array([-INF, -200, -0.0, 0, 200, INF, np.nan], F)
    assert run(ew.Tanh(), x)[:-1].tolist() == [-1, -1, 0, 0, 1, 1]
    assert np.signbit(run(ew.Tanh(), x)[2:4]).tolist() == [True, False]
    assert run(ew.Sigmoid(), x)[:-1].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert np.isnan([run(ew.Tanh(), x)[-1], run(ew.Sigmoid(), x)[-1]]).all()


def test_where_selects_and_broadcasts() -> None:
    condition = np.array([[True, False, True]])
    result = run(ew.Where(), condition, F(-0.0), np.array([[1], [2]], F))
    same_bits(result, np.array([[-0.0, 1, -0.0], [-0.0, 2, -0.0]], F))


def test_casts() -> None:
    same_bits(run(ew.Cast(Element.F32), np.array([False, True])), np.array([0, 1], F))
    codes = np.arange(256, dtype=np.uint8)
    same_bits(run(ew.Cast(Element.F32), codes), np.array([f32(v) for v in range(256)]))
    # Integers beyond 2^24 round to nearest, ties to even.
    big = [2**24 - 1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**31 - 1, -(2**31)]
    same_bits(
        run(ew.Cast(Element.F32), np.array(big, np.int32)),
        np.array([16777215, 16777216, 16777220, -16777216, 2147483648, -2147483648], F),
    )
    widened = run(ew.Cast(Element.I32), codes)
    np.testing.assert_array_equal(widened, np.arange(256, dtype=np.int32), strict=True)


# --- BatchNormalization ---------------------------------------------------------------------------


STATISTICS = {
    "ordinary": (1.3, 0.2, -0.7, 2.1),
    "gamma below 0": (-0.9, 0.1, 3.0, 0.5),
    "gamma 0": (0.0, -0.25, 5.0, 1.0),
    "gamma -0": (-0.0, 0.0, 1.0, 1.0),
    "tiny variance": (0.8, 0.1, -4.0, 6e-8),
    "subnormal variance": (1.0, 0.0, 0.0, float(TINY)),
    "no variance": (2.0, -1.0, 3.0, 0.0),
    "tie": (1.0, 0.0, 3.0, 1.0),
    "huge variance": (1.0, 0.0, 1e10, 1e30),
    "tiny gamma": (float(TINY), 1.0, 2.0, 1.0),
}


@pytest.mark.parametrize("epsilon", [1e-5, 1e-4, 0.0])
@pytest.mark.parametrize("name", STATISTICS)
def test_batch_norm_has_the_reference_order_of_roundings(name: str, epsilon: float) -> None:
    statistics = np.array(STATISTICS[name], F)
    if statistics[3] + F(epsilon) == 0:
        epsilon = 1e-5
    x = np.concatenate([np.arange(-9, 10, dtype=F), HARD[np.abs(HARD) < 1e20]])
    (result,) = ew.BatchNormalization(epsilon).evaluate([x[:, np.newaxis], *statistics[:, None]])
    expected = [normalised(float(v), statistics, epsilon) for v in x]
    same_bits(result[:, 0], np.array(expected, F))


def test_batch_norm_is_neither_fused_nor_literal() -> None:
    random = np.random.default_rng(3)
    gamma, beta, mean = random.standard_normal((3, 64)).astype(F)
    variance = random.uniform(0.1, 3, 64).astype(F)
    x = random.standard_normal((50, 64)).astype(F)
    (ours,) = ew.BatchNormalization(1e-5).evaluate([x, gamma, beta, mean, variance])
    literal = (x - mean) / np.sqrt(variance + F(1e-5)) * gamma + beta
    scale, shift = ew.BatchNormalization(1e-5).scale_and_shift(gamma, beta, mean, variance)
    fused = (x.astype(np.float64) * scale + shift).astype(F)
    assert (ours != literal).any()
    assert (ours != fused).any()


def test_batch_norm_has_channels_on_axis_1_at_any_rank() -> None:
    random = np.random.default_rng(4)
    statistics = random.uniform(0.5, 2, (4, 3)).astype(F)
    x = random.standard_normal((2, 3, 4, 5)).astype(F)
    (result,) = ew.BatchNormalization(1e-5).evaluate([x, *statistics])
    for index in np.ndindex(*x.shape):
        expected = normalised(float(x[index]), statistics[:, index[1]], 1e-5)
        assert result[index] == expected


# --- Dequantize -----------------------------------------------------------------------------------


@given(
    st.integers(-(2**24), 2**24),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3) | st.just(0.0),
)
def test_dequantize_rounds_in_double_then_to_float32(n: int, scale: float, shift: float) -> None:
    operands = [np.array([[n]], np.int32), *(np.array([v]) for v in (scale, shift, 1e9))]
    (result,) = ew.Dequantize().evaluate(operands)
    same_bits(result, np.array([[f32(n * scale + shift)]], F))


def test_dequantize_with_a_float32_alpha_rounds_once() -> None:
    n = np.arange(-300, 301, dtype=np.int32)[:, np.newaxis]
    alpha = np.array([0.1, 1 / 3, 0.7], F)
    (result,) = ew.Dequantize().evaluate([n, alpha.astype(np.float64), np.zeros(3), np.zeros(3)])
    expected = [[f32(int(v) * float(a)) for a in alpha] for v in n[:, 0]]
    same_bits(result, np.array(expected, F))


doubles = st.floats(-1e3, 1e3)


@given(st.integers(-(2**24), 2**24), st.integers(-(2**24), 2**24), doubles, doubles, doubles)
def test_dequantize_two_rounds_every_operation_in_double(
    n: int, total: int, scale: float, weight: float, shift: float
) -> None:
    sums = [np.array([[v]], np.int32) for v in (n, total)]
    rows = [np.array([v]) for v in (scale, weight, shift, 1e9)]
    (result,) = ew.DequantizeTwo().evaluate([*sums, *rows])
    same_bits(result, np.array([[f32(n * scale + total * weight + shift)]], F))


def test_a_shift_may_vary_from_pixel_to_pixel() -> None:
    random = np.random.default_rng(0)
    n = random.integers(-99, 99, (2, 3, 4, 5)).astype(np.int32)
    total = random.integers(-99, 99, (2, 1, 4, 5)).astype(np.int32)
    scale, weight, slack = random.standard_normal((3, 3))
    shift = random.standard_normal((1, 3, 4, 5)).astype(F)
    (one,) = ew.Dequantize().evaluate([n, scale, shift, slack])
    (two,) = ew.DequantizeTwo().evaluate([n, total, scale, weight, shift, slack])
    for b, c, y, x in np.ndindex(*n.shape):
        value = float(n[b, c, y, x]) * scale[c]
        both = value + float(total[b, 0, y, x]) * weight[c]
        at = float(shift[0, c, y, x])
        assert one[b, c, y, x] == f32(value + at)
        assert two[b, c, y, x] == f32(both + at)


# --- Step -----------------------------------------------------------------------------------------


def _level(x: float, thresholds: Sequence[float], levels: Sequence[float]) -> float:
    return float(levels[sum(1 for t in thresholds if t <= x)])


@pytest.mark.parametrize("shared", [True, False], ids=["one row", "a row a channel"])
@pytest.mark.parametrize("element", [Element.F32, Element.I32], ids=lambda e: e.value)
@pytest.mark.parametrize("count", range(4))
def test_step_counts_the_thresholds_reached(count: int, element: Element, shared: bool) -> None:
    random = np.random.default_rng(count)
    channels = 5
    rows = 1 if shared else channels
    pool = np.array([-3, -1, 0, 0.5, 2, 7], F)
    thresholds = np.sort(random.choice(pool, (rows, count)), axis=1).astype(element.dtype)
    near = np.unique(np.concatenate([pool, [-9, 9]])).astype(element.dtype)
    if element is Element.F32:
        near = np.concatenate([near, np.nextafter(near, INF), np.nextafter(near, -INF)])
        near = np.concatenate([near, np.array([-0.0, INF, -INF, LARGEST, NORMAL], F)])
    else:
        near = np.concatenate([near - 1, near, near + 1]).astype(np.int32)
    x = np.stack([random.permutation(near) for _ in range(channels)], axis=1)
    for to, values in (
        (Element.BIPOLAR, [-1, 1]),
        (Element.TERNARY, [-1, 0, 1]),
        (Element.F32, [-0.5, -0.0, 0.1, 3e8]),
    ):
        levels = random.choice(np.array(values, F), (rows, count + 1))
        (result,) = ew.Step(to).evaluate([x, thresholds, levels])
        expected = [
            [
                _level(float(v), thresholds[r].tolist(), levels[r].tolist())
                for r, v in zip([0] * channels if shared else range(channels), xs, strict=True)
            ]
            for xs in x
        ]
        np.testing.assert_array_equal(result, np.array(expected, to.dtype), strict=True)


def test_step_places_that_stand_for_never_are_not_reached() -> None:
    largest = np.array([[LARGEST]])
    thresholds = np.array([[0, INF]], F)
    (result,) = ew.Step(Element.F32).evaluate([largest, thresholds, np.array([[1, 2, 9]], F)])
    assert result.tolist() == [[2.0]]
    never = np.iinfo(np.int32).max
    operands = [np.array([[never - 1]], np.int32), np.array([[0, never]], np.int32)]
    (result,) = ew.Step(Element.F32).evaluate([*operands, np.array([[1, 2, 9]], F)])
    assert result.tolist() == [[2.0]]


# --- Types ----------------------------------------------------------------------------------------

F32, I32, U8, BOOL, F64 = Element.F32, Element.I32, Element.U8, Element.BOOL, Element.F64
BITS = Element.BIPOLAR


def kinds(*specs: tuple[Element, Sequence[int]]) -> list[TensorType]:
    return [TensorType(tuple(shape), element) for element, shape in specs]


@pytest.mark.parametrize(
    ("op", "operands", "shape", "element"),
    [
        (ew.Add(), kinds((F32, [1, 3]), (F32, [3])), (1, 3), F32),
        (ew.Add(), kinds((F32, [1, 1, 4]), (F32, [1, 3, 1])), (1, 3, 4), F32),
        (ew.Greater(), kinds((F32, [1, 3]), (F32, [])), (1, 3), BOOL),
        (ew.Not(), kinds((BOOL, [1, 3])), (1, 3), BOOL),
        (ew.Where(), kinds((BOOL, [1, 3]), (F32, []), (F32, [1, 3])), (1, 3), F32),
        (ew.Cast(F32), kinds((U8, [1, 3])), (1, 3), F32),
        (ew.Cast(I32), kinds((U8, [1, 3])), (1, 3), I32),
        (ew.Identity(), kinds((U8, [1, 3])), (1, 3), U8),
        (ew.BatchNormalization(1e-5), kinds((F32, [1, 3, 2]), *[(F32, [3])] * 4), (1, 3, 2), F32),
        (ew.Dequantize(), kinds((I32, [1, 3]), *[(F64, [3])] * 3), (1, 3), F32),
        (
            ew.Dequantize(),
            kinds((I32, [1, 3, 4]), (F64, [3]), (F32, [1, 3, 4]), (F64, [1])),
            (1, 3, 4),
            F32,
        ),
        (
            ew.DequantizeTwo(),
            kinds((I32, [1, 3, 4]), (I32, [1, 1, 4]), *[(F64, [3])] * 4),
            (1, 3, 4),
            F32,
        ),
        (
            ew.DequantizeTwo(),
            kinds((I32, [1, 3]), (I32, [1, 3]), *[(F64, [3])] * 4),
            (1, 3),
            F32,
        ),
        (
            ew.Step(BITS),
            kinds((I32, [1, 3]), (I32, [3, 2]), (F32, [3, 3])),
            (1, 3),
            BITS,
        ),
        (ew.Step(F32), kinds((F32, [1, 3]), (F32, [1, 0]), (F32, [1, 1])), (1, 3), F32),
    ],
    ids=lambda v: str(v) if isinstance(v, Op) else "",
)
def test_infers(op: Op, operands: list[TensorType], shape: tuple, element: Element) -> None:
    assert op.infer(operands) == (TensorType(shape, element),)


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (ew.Add(), kinds((F32, [1, 3])), "Add takes 2 operands, not 1"),
        (ew.Add(), kinds((F32, [1, 3]), (F32, [4])), r"shapes \[1, 3\] and \[4\] do not broadcast"),
        (ew.Add(), kinds((F32, [1, 3]), (I32, [3])), "Add needs f32 operands, not f32, i32"),
        (ew.And(), kinds((F32, [1, 3]), (F32, [1, 3])), "And needs bool operands, not f32, f32"),
        (ew.Equal(), kinds((I32, [1, 3]), (I32, [])), "Equal needs f32 operands, not i32, i32"),
        (ew.Identity(), kinds((F32, [1]), (F32, [1])), "Identity takes one operand"),
        (ew.Where(), kinds((F32, [1]), (F32, [1]), (F32, [1])), "needs operands .bool, f32, f32"),
        (ew.Where(), kinds((BOOL, [1]), (F32, [1])), "Where takes 3 operands, not 2"),
        (ew.BatchNormalization(0), kinds((F32, [1, 3])), "takes 5 operands"),
        (ew.BatchNormalization(0), kinds((F32, [1, 3]), *[(F64, [3])] * 4), "needs f32 operands"),
        (ew.BatchNormalization(0), kinds((F32, [1, 3]), *[(F32, [2])] * 4), "do not fit an input"),
        (ew.BatchNormalization(0), kinds((F32, [3]), *[(F32, [3])] * 4), "do not fit an input"),
        (ew.BatchNormalization(0), kinds((F32, [1, 4, 3]), *[(F32, [3])] * 4), "do not fit"),
        (ew.Dequantize(), kinds((F32, [1, 3]), *[(F64, [3])] * 3), "needs operands .i32, f64"),
        (ew.Dequantize(), kinds((I32, [1, 3]), *[(F32, [3])] * 3), "needs operands .i32, f64"),
        (ew.Dequantize(), kinds((I32, [1, 3]), *[(F64, [3])] * 2), "needs operands"),
        (ew.Dequantize(), kinds((I32, [1, 3]), *[(F64, [2])] * 3), "do not fit an accumulator"),
        (
            ew.Dequantize(),
            kinds((I32, [1, 3, 4]), (F64, [3]), (F32, [1, 3, 5]), (F64, [3])),
            "no shift a pixel",
        ),
        (
            ew.DequantizeTwo(),
            kinds((I32, [1, 3, 4]), (I32, [1, 3, 1]), *[(F64, [3])] * 4),
            r"i32\[1x3x1\] does not fit an accumulator",
        ),
        (
            ew.DequantizeTwo(),
            kinds((I32, [1, 3]), (F32, [1, 3]), *[(F64, [3])] * 4),
            "needs operands .i32, i32, f64",
        ),
        (ew.Step(F32), kinds((U8, [1, 3]), (U8, [1, 1]), (F32, [1, 2])), "own element type"),
        (ew.Step(F32), kinds((F32, [1, 3]), (I32, [1, 1]), (F32, [1, 2])), "own element type"),
        (ew.Step(F32), kinds((F32, [1, 3]), (F32, [2, 1]), (F32, [2, 2])), "do not fit"),
        (ew.Step(F32), kinds((F32, [1, 3]), (F32, [3, 2]), (F32, [3, 2])), "do not fit"),
        (ew.Step(F32), kinds((F32, [1, 3]), (F32, [3, 1]), (F32, [1, 2])), "do not fit"),
    ],
    ids=lambda v: str(v) if isinstance(v, Op) else "",
)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


@pytest.mark.parametrize("op", [ew.Relu(), ew.Add(), ew.Not(), ew.Cast(F32)], ids=str)
def test_refuses_packed_operands(op: Op) -> None:
    packed = TensorType((1, 32), Element.BIPOLAR, PackedChannels(32, 1))
    with pytest.raises(OpError, match="needs dense operands"):
        op.infer([packed] * op.arity)


def test_only_steps_are_new_at_stage_binary() -> None:
    for name in set(ew.__all__) - {"over_channels"}:
        op = getattr(ew, name)
        expected = {Stage.BINARY} if name == "Step" else {Stage.FLOAT, Stage.BINARY}
        assert op.stages == expected, name


def test_text_names_the_attributes() -> None:
    assert str(ew.Clip(-1, 1)) == "Clip(low=-1, high=1)"
    assert str(ew.Relu()) == "Relu"
    assert str(ew.Cast(Element.F32)) == "Cast(f32)"
    assert str(ew.Step(Element.TERNARY)) == "Step(ternary)"
