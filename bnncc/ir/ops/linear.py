"""Linear layers of the FLOAT and BINARY stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import Array, Element, Interval, Stage, TensorType

__all__ = ["BinaryDense", "MatMul", "accumulator_interval", "sequential_dot"]

# What sequential_dot works on at a time stays inside the cache.
_ROWS_AT_ONCE = 256
_TERMS_AT_ONCE = 64


def sequential_dot(x: Array, weights: Array) -> Array:
    """Return x [N, K] times weights [O, K] transposed, each sum from k = 0 upward in float32.

    Every product and every sum is rounded on its own: the order that the generated C spells out,
    whatever its vector width.
    """
    sums = np.zeros((x.shape[0], weights.shape[0]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for first in range(0, x.shape[1], _TERMS_AT_ONCE):
            terms = slice(first, first + _TERMS_AT_ONCE)
            columns = np.ascontiguousarray(weights[:, terms].T, dtype=np.float32)
            for start in range(0, x.shape[0], _ROWS_AT_ONCE):
                some = slice(start, start + _ROWS_AT_ONCE)
                rows = np.ascontiguousarray(x[some, terms].T, dtype=np.float32)
                for row, column in zip(rows, columns, strict=True):
                    sums[some] += row[:, np.newaxis] * column
    return sums


def accumulator_interval(element: Element, k: int) -> Interval | None:
    """Return every value a sum of `k` terms +-x can take, or None where x is real.

    Args:
        element: of x: BIPOLAR, TERNARY (-1, 0, +1), U8 (0..255) or F32.
        k: the reduction length.
    """
    match element:
        case Element.BIPOLAR:
            return Interval(-k, k, 2)
        case Element.TERNARY:
            return Interval(-k, k)
        case Element.U8:
            return Interval(-255 * k, 255 * k)
        case _:
            return None


def _check_dense(x: TensorType, weights: TensorType) -> None:
    if len(x.shape) != 2 or len(weights.shape) != 2 or x.shape[1] != weights.shape[1]:
        raise OpError(f"an input {list(x.shape)} does not fit weights {list(weights.shape)}")


@dataclass(frozen=True)
class MatMul(Op):
    """y = x W^T in float32, each sum in ascending k, every operation rounded on its own.

    Operands (x: F32 [N, K], weights: F32 [O, K]); the frontend turns ONNX's MatMul and Gemm into
    it. A framework sums in an order of its own, so that its y differs from this one by rounding:
    at most gamma_K * sum |x_k w_k| (Higham 2002, eq. 3.5).
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 [N, O]."""
        x, weights = operands
        _check_dense(x, weights)
        if x.element is not Element.F32 or weights.element is not Element.F32:
            raise OpError(f"MatMul needs f32 operands, not {x.element.value}")
        return (TensorType((x.shape[0], weights.shape[0]), Element.F32),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the product with the defined order of roundings."""
        return (sequential_dot(operands[0], operands[1]),)


@dataclass(frozen=True)
class BinaryDense(Op):
    """n = sum_k w_k x_k with w in {-1, +1}; operands (x [N, K], weights: BIPOLAR [O, K]).

    BIPOLAR, TERNARY or U8 x: an exact I32 accumulator. F32 x: an F32 sum, from k = 0 upward.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.BINARY})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return I32 [N, O] with its interval, or F32 [N, O]."""
        x, weights = operands
        _check_dense(x, weights)
        if weights.element is not Element.BIPOLAR:
            raise OpError("BinaryDense needs bipolar weights")
        interval = accumulator_interval(x.element, x.shape[1])
        element = Element.I32 if interval else Element.F32
        return (TensorType((x.shape[0], weights.shape[0]), element, interval=interval),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the accumulators."""
        x, weights = operands
        if x.dtype == np.float32:
            return (sequential_dot(x, weights),)
        # Exact: every partial sum is an integer below 2^24 (binarise_weights sees to 255 K < 2^24).
        product = x.astype(np.float32) @ weights.astype(np.float32).T
        return (product.astype(np.int32),)
