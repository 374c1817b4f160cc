"""Means add up in the stated order; ranks break ties in favour of the lower index."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.reduce import ArgMax, ReduceMax, ReduceMean, ReduceSum, TopK
from bnncc.ir.types import Array, Element, Stage, TensorType

F = np.float32


def mean_in_order(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean of one sample [C, *S], pixels outermost, channels innermost, as loops."""
    kept = [axis for axis in range(1, x.ndim + 1) if axis not in axes]
    order = sorted(axes, key=lambda axis: (axis == 1, axis))
    result = np.empty([x.shape[axis - 1] for axis in kept], F)
    for place in np.ndindex(result.shape):
        total = F(0)
        for term in itertools.product(*(range(x.shape[axis - 1]) for axis in order)):
            where = dict(zip(kept, place, strict=True)) | dict(zip(order, term, strict=True))
            total = F(total + x[tuple(where[axis] for axis in range(1, x.ndim + 1))])
        count = np.prod([x.shape[axis - 1] for axis in order])
        result[place] = F(total / F(count))
    return result


SHAPES = [(5,), (3, 4), (3, 2, 4), (2, 1, 3)]
CASES = [
    (shape, axes)
    for shape in SHAPES
    for count in range(1, len(shape) + 1)
    for axes in itertools.combinations(range(1, len(shape) + 1), count)
]


@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_every_mean_has_the_stated_order(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    # Magnitudes apart by up to 2^40 make any other order round differently.
    x = rng.standard_normal((2, *shape)) * 2.0 ** rng.integers(-20, 20, (2, *shape))
    x = x.astype(F)
    kept, dropped = (ReduceMean(axes, keepdims).evaluate([x])[0] for keepdims in (True, False))
    expected = np.stack([mean_in_order(sample, axes) for sample in x])
    np.testing.assert_array_equal(dropped, expected)
    np.testing.assert_array_equal(kept.reshape(dropped.shape), expected)
    (known,) = ReduceMean(axes, keepdims=True).infer([TensorType((1, *shape), Element.F32)])
    assert known.shape[1:] == kept.shape[1:]
    (known,) = ReduceMean(axes, keepdims=False).infer([TensorType((1, *shape), Element.F32)])
    assert known.shape[1:] == dropped.shape[1:]


@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_a_sum_is_a_mean_that_is_not_divided(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(4).standard_normal((2, *shape)).astype(F)
    count = F(np.prod([shape[axis - 1] for axis in axes]))
    (total,) = ReduceSum(axes, keepdims=True).evaluate([x])
    (mean,) = ReduceMean(axes, keepdims=True).evaluate([x])
    np.testing.assert_array_equal(total / count, mean)


@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_the_largest_value(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(5).integers(-9, 9, (2, *shape)).astype(F)
    x[0, ..., 0] = -np.inf
    for keepdims in (False, True):
        (y,) = ReduceMax(axes, keepdims).evaluate([x])
        np.testing.assert_array_equal(y, x.max(axis=axes, keepdims=keepdims))


def test_the_first_of_equal_zeros_is_the_largest_and_a_nan_wins() -> None:
    (y,) = ReduceMax((1,), keepdims=False).evaluate([F([[-0.0, 0.0], [0.0, -0.0], [np.nan, 1]])])
    assert np.signbit(y[:2]).tolist() == [True, False]
    assert np.isnan(y[2])


def test_channels_are_added_before_the_next_pixel() -> None:
    x = np.array([[[1, 2**24], [1, -(2**24)]]], F)  # [N, C, L]
    (y,) = ReduceMean((1, 2), keepdims=False).evaluate([x])
    assert y == [0.5]  # 1 + 1 + 2^24 - 2^24
    (y,) = ReduceMean((1, 2), keepdims=False).evaluate([x.transpose(0, 2, 1)])
    assert y == [0.0]  # 1 + 2^24 + 1 - 2^24, where each 1 is rounded away


def test_a_mean_of_negative_zeros_starts_from_zero() -> None:
    (y,) = ReduceMean((1,), keepdims=True).evaluate([np.full((1, 3), -0.0, F)])
    assert not np.signbit(y).any()


@given(
    st.integers(1, 3).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.5, 7.0]), min_size=6, max_size=6),
            min_size=n,
            max_size=n,
        )
    ),
    st.integers(1, 6),
)
def test_ranks_break_ties_by_index(rows: list[list[float]], k: int) -> None:
    x = np.asarray(rows, F)
    values, indices = TopK(k).evaluate([x])
    expected = [sorted(range(6), key=lambda i: (-row[i], i))[:k] for row in x.tolist()]
    assert indices.tolist() == expected
    np.testing.assert_array_equal(values, np.sort(x, axis=1)[:, ::-1][:, :k])
    (first,) = ArgMax(keepdims=False).evaluate([x])
    assert first.tolist() == [row[0] for row in expected]
    (column,) = ArgMax(keepdims=True).evaluate([x])
    np.testing.assert_array_equal(column[:, 0], first)
    assert values.dtype == F
    assert {indices.dtype, first.dtype, column.dtype} == {np.dtype(np.int64)}


def test_ranks_of_values_without_ties_are_pytorchs() -> None:
    x = np.random.default_rng(0).standard_normal((7, 30)).astype(F)
    values, indices = TopK(5).evaluate([x])
    expected = torch.topk(torch.from_numpy(x), 5)
    np.testing.assert_array_equal(values, expected.values)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(
        ArgMax(keepdims=True).evaluate([x])[0], torch.from_numpy(x).argmax(1, keepdim=True)
    )


def test_infers_values_and_indices() -> None:
    x = TensorType((1, 9), Element.F32)
    assert TopK(4).infer([x]) == (
        TensorType((1, 4), Element.F32),
        TensorType((1, 4), Element.I64),
    )
    assert ArgMax(keepdims=True).infer([x]) == (TensorType((1, 1), Element.I64),)
    assert ArgMax(keepdims=False).infer([x]) == (TensorType((1,), Element.I64),)
    assert TopK.stages == ArgMax.stages == set(Stage)
    assert ReduceMean.stages == {Stage.FLOAT, Stage.BINARY}


@pytest.mark.parametrize(
    ("op", "shape", "element", "message"),
    [
        (ReduceMean((), keepdims=True), (1, 3), Element.F32, "axes"),
        (ReduceMean((0,), keepdims=True), (1, 3), Element.F32, "axes"),
        (ReduceMean((2,), keepdims=True), (1, 3), Element.F32, "axes"),
        (ReduceMean((2, 1), keepdims=True), (1, 3, 3), Element.F32, "axes"),
        (ReduceMean((1, 1), keepdims=True), (1, 3), Element.F32, "axes"),
        (ReduceMean((1,), keepdims=True), (1, 0), Element.F32, "no elements"),
        (ReduceMean((1,), keepdims=True), (1, 3), Element.U8, "f32"),
        (ArgMax(keepdims=True), (1, 3, 1), Element.F32, "f32 operand"),
        (ArgMax(keepdims=True), (1, 3), Element.I32, "f32 operand"),
        (ArgMax(keepdims=True), (1, 0), Element.F32, "no elements"),
        (TopK(0), (1, 3), Element.F32, "cannot take 0 of 3"),
        (TopK(4), (1, 3), Element.F32, "cannot take 4 of 3"),
    ],
)
def test_refuses(op, shape: tuple[int, ...], element: Element, message: str) -> None:
    with pytest.raises(OpError, match=message):
        op.infer([TensorType(shape, element)])
