"""Linear layers against Python integers and scalar float32 loops."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.linear import BinaryDense, MatMul, accumulator_interval, sequential_dot
from bnncc.ir.types import Element, Interval, Stage, TensorType
from tests.ir.oracles import CODES, EXTREMES, integers, scalar_dot
from tests.ir.sketch import HARD, INF, F, same_bits

LENGTHS = [1, 2, 63, 64, 65, 200]


@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("element", EXTREMES, ids=lambda e: e.value)
def test_integer_accumulators_are_exact(element: Element, k: int) -> None:
    random = np.random.default_rng(k)
    weights = random.choice(np.array([-1, 1], np.int8), (5, k))
    weights[0], weights[1] = -1, 1
    x = integers(element, 6, k, random)
    (n,) = BinaryDense().evaluate([x, weights])
    expected = [
        [sum(int(a) * int(w) for a, w in zip(row, ws, strict=True)) for ws in weights] for row in x
    ]
    np.testing.assert_array_equal(n, np.array(expected, np.int32), strict=True)


@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("element", EXTREMES, ids=lambda e: e.value)
def test_interval_is_what_the_extreme_operands_reach(element: Element, k: int) -> None:
    x = TensorType((1, k), element)
    (kind,) = BinaryDense().infer([x, TensorType((3, k), Element.BIPOLAR)])
    assert (kind.shape, kind.element) == ((1, 3), Element.I32)
    values = EXTREMES[element]
    largest = k * max(values)
    assert kind.interval == accumulator_interval(element, k)
    assert (kind.interval.low, kind.interval.high) == (-largest, largest)
    # One operand changes by one step: the accumulator changes by the stride, and no less.
    assert kind.interval.stride == min(np.diff(values))


@pytest.mark.parametrize("element", EXTREMES, ids=lambda e: e.value)
def test_every_value_of_a_small_interval_is_reached(element: Element) -> None:
    k = 2
    codes = np.arange(element.largest_code + 1, dtype=np.uint8)
    x = np.array(np.meshgrid(*[codes] * k)).reshape(k, -1).T
    if element not in CODES:
        values = np.array(EXTREMES[element], np.int8)
        x = np.array(np.meshgrid(*[values] * k)).reshape(k, -1).T
    weights = np.array([[1, 1], [1, -1], [-1, -1]], np.int8)
    (n,) = BinaryDense().evaluate([x, weights])
    interval = accumulator_interval(element, k)
    assert interval is not None
    expected = list(range(interval.low, interval.high + 1, interval.stride))
    assert np.unique(n).tolist() == expected
    assert interval.size == len(expected)


def test_the_longest_uint8_sum_is_exact() -> None:
    # float32 inside holds every integer up to 2^24: 65793 terms of 255 reach 16777215.
    k = 65793
    weights = np.ones((2, k), np.int8)
    weights[1, 0] = -1
    x = np.full((1, k), 255, np.uint8)
    (n,) = BinaryDense().evaluate([x, weights])
    assert n.tolist() == [[255 * k, 255 * (k - 2)]]


@pytest.mark.parametrize("k", LENGTHS)
def test_real_sums_round_in_order(k: int) -> None:
    random = np.random.default_rng(k)
    x = (random.standard_normal((3, k)) * 10.0 ** random.integers(-3, 4, (3, k))).astype(F)
    signs = random.choice(np.array([-1, 1], np.int8), (4, k))
    weights = random.standard_normal((4, k)).astype(F)
    for op, rows in ((MatMul(), weights), (BinaryDense(), signs)):
        (y,) = op.evaluate([x, rows])
        same_bits(y, np.array([[scalar_dot(a, w) for w in rows] for a in x], F))


def test_order_matters_in_that_test() -> None:
    random = np.random.default_rng(65)
    x = (random.standard_normal((3, 65)) * 10.0 ** random.integers(-3, 4, (3, 65))).astype(F)
    weights = random.standard_normal((4, 65)).astype(F)
    forward = sequential_dot(x, weights)
    assert (forward != sequential_dot(x[:, ::-1], weights[:, ::-1])).any()
    assert (forward != (x.astype(np.float64) @ weights.T.astype(np.float64)).astype(F)).any()


def test_batches_longer_than_a_block_are_complete() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((513, 3)).astype(F)
    weights = random.standard_normal((2, 3)).astype(F)
    expected = [[scalar_dot(row, w) for w in weights] for row in x]
    same_bits(sequential_dot(x, weights), np.array(expected, F))


def test_hard_values() -> None:
    hard = np.array([*HARD, INF, -INF], F)
    signs = np.array([[1], [-1]], np.int8)
    (y,) = BinaryDense().evaluate([hard[:, np.newaxis], signs])
    # The sum starts at +0, so that -0 alone becomes +0.
    same_bits(y, np.stack([hard + F(0), -hard + F(0)], axis=1))
    overflow = sequential_dot(np.array([[3e38, 3e38, -3e38]], F), np.ones((1, 3), F))
    assert overflow.tolist() == [[np.inf]]


def test_negated_weights_negate_a_real_sum() -> None:
    random = np.random.default_rng(7)
    x = random.standard_normal((20, 33)).astype(F)
    signs = random.choice(np.array([-1, 1], np.int8), (9, 33))
    np.testing.assert_array_equal(sequential_dot(x, -signs), -sequential_dot(x, signs))


def kind(element: Element, *shape: int) -> TensorType:
    return TensorType(shape, element)


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (MatMul(), [kind(Element.F32, 1, 3), kind(Element.F32, 2, 4)], "does not fit weights"),
        (MatMul(), [kind(Element.F32, 1, 1, 3), kind(Element.F32, 2, 3)], "does not fit weights"),
        (MatMul(), [kind(Element.U8, 1, 3), kind(Element.F32, 2, 3)], "needs f32 operands, not u8"),
        (MatMul(), [kind(Element.F32, 1, 3), kind(Element.BIPOLAR, 2, 3)], "needs f32 operands"),
        (BinaryDense(), [kind(Element.BIPOLAR, 1, 3), kind(Element.BIPOLAR, 3, 2)], "does not fit"),
        (
            BinaryDense(),
            [kind(Element.BIPOLAR, 1, 3), kind(Element.F32, 2, 3)],
            "needs weights that are sums",
        ),
        (
            BinaryDense(),
            [kind(Element.F32, 1, 3), kind(Element.U8, 2, 3)],
            "needs weights that are sums",
        ),
    ],
)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


def test_infers() -> None:
    weights = kind(Element.F32, 4, 3)
    assert MatMul().infer([kind(Element.F32, 1, 3), weights]) == (kind(Element.F32, 1, 4),)
    (real,) = BinaryDense().infer([kind(Element.F32, 1, 3), kind(Element.BIPOLAR, 4, 3)])
    assert real == kind(Element.F32, 1, 4)
    assert MatMul.stages == {Stage.FLOAT, Stage.BINARY}
    assert BinaryDense.stages == {Stage.BINARY}


def test_interval_text_and_size() -> None:
    assert str(Interval(-5, 5, 2)) == "[-5, 5 by 2]"
    assert str(Interval(-5, 5)) == "[-5, 5]"
    assert Interval(-5, 5, 2).size == len(range(-5, 6, 2))
    assert Interval(0, 0).size == 1
