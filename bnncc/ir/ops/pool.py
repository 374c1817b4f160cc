"""Pools: one value from several of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType
from bnncc.ir.window import Window

__all__ = ["AveragePool", "MaxPool", "Pooling"]

_ORDERED = (
    Element.F32,
    Element.BIPOLAR,
    Element.TERNARY,
    *(element for element in Element if element.code_bits),
)


@dataclass(frozen=True)
class Pooling(Op):
    """An operation that makes each value from several of one operand, by no weights of a model."""

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY})


def _pooled(x: TensorType, window: Window) -> tuple[int, ...]:
    if len(x.shape) < 2 or x.layout != DENSE:
        raise OpError("a pool needs a dense operand with channels")
    shape = (*x.shape[:2], *window.outputs(x.shape[2:]))
    if not window.counts(x.shape[2:]).all():
        # Of nothing, ONNX Runtime makes the lowest float or 0, torch -inf or NaN.
        raise OpError(f"a window {window} sees nothing of an input {list(x.shape)}, only padding")
    return shape


@dataclass(frozen=True)
class MaxPool(Pooling):
    """y = the largest x in the window; taps outside of the input do not count.

    Of equals the first in C order, which decides between +0 and -0; a NaN wins.

    Operands (x [N, C, *S]: F32, BIPOLAR, TERNARY or codes) and, at stage BINARY, perhaps
    (direction: BIPOLAR [C]): channels of direction -1 take the smallest instead. Source: ONNX
    MaxPool-22.
    """

    window: Window

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element [N, C, *outputs]."""
        x, *direction = operands
        if x.element not in _ORDERED:
            raise OpError(f"MaxPool cannot order {x.element.value}")
        if any(d.shape != x.shape[1:2] or d.element is not Element.BIPOLAR for d in direction):
            raise OpError(f"directions do not fit an input {x}")
        return (TensorType(_pooled(x, self.window), x.element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the extreme of each window."""
        x, *direction = operands
        low, high = _extremes(x.dtype)
        result = self._first(x, low, np.greater)
        if direction:
            falls = (direction[0] < 0).reshape(-1, *(1,) * len(self.window.axes))
            result = np.where(falls, self._first(x, high, np.less), result)
        return (result,)

    def _first(self, x: Array, neutral: float, beats: np.ufunc) -> Array:
        """Return the first tap of each window that no other beats."""
        patches = self.window.patches(x, neutral)
        best = np.full((*x.shape[:2], *self.window.outputs(x.shape[2:])), neutral, x.dtype)
        for tap in np.ndindex(*self.window.kernel):
            value = patches[(slice(None), slice(None), *tap)]
            best = np.where(beats(value, best) | np.isnan(value), value, best)
        return best


def _extremes(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return values below and above all others of the type: f32, u8, or i8 for bits."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (0, 255) if dtype.kind == "u" else (-128, 127)


@dataclass(frozen=True)
class AveragePool(Pooling):
    """y = fl(sum / count), the float32 sum over the window's taps in C order.

    Operands (x: F32 [N, C, *S]). The count is of the taps inside the input, or with
    `count_include_pad` of those inside the input and the padding that the window states. Source:
    ONNX AveragePool-22.
    """

    window: Window
    count_include_pad: bool = False

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 [N, C, *outputs]."""
        (x,) = operands
        if x.element is not Element.F32:
            raise OpError("AveragePool needs an f32 operand")
        return (TensorType(_pooled(x, self.window), Element.F32),)

    def divisors(self, sizes: Sequence[int]) -> Array:
        """Return float32 [*outputs]: how many taps count."""
        if not self.count_include_pad:
            return self.window.counts(sizes).astype(np.float32)
        outputs = self.window.outputs(sizes)
        counts = np.ones((), np.int64)
        for axis, size, count in zip(self.window.axes, sizes, outputs, strict=True):
            padded = size + axis.before + axis.after
            start = np.arange(count) * axis.stride
            inside = np.minimum(axis.kernel, -((start - padded) // axis.dilation))
            counts = np.multiply.outer(counts, inside)
        return counts.astype(np.float32)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the averages with the defined order of roundings."""
        (x,) = operands
        patches = self.window.patches(x)
        rank = len(self.window.axes)
        flat = patches.reshape(*x.shape[:2], self.window.taps, *patches.shape[2 + rank :])
        total = np.zeros_like(flat[:, :, 0])
        with np.errstate(all="ignore"):
            for tap in range(self.window.taps):
                total = total + flat[:, :, tap]
            return (total / self.divisors(x.shape[2:]),)
