"""Images between pixels: what Resize makes of them where it is linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.pool import Pooling
from bnncc.ir.types import DENSE, Array, Element, TensorType

__all__ = ["Between", "Interpolate"]


@dataclass(frozen=True)
class Between:
    """Where each output along one axis lies: between two inputs, nearer to the heavier one.

    Attributes:
        first, second: the two inputs of each output.
        weights: float32 values, of the first and of the second.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    weights: tuple[tuple[float, float], ...]

    @property
    def reach(self) -> int:
        """How many inputs there must be."""
        return 1 + max(*self.first, *self.second)

    def __str__(self) -> str:
        return f"{len(self.first)} outputs"


@dataclass(frozen=True)
class Interpolate(Pooling):
    """y = the weighted sum of the pixels around each place: two along each of one or two axes.

    x: F32 [N, C, *S]. A pixel's weight is the product of its axes' weights, rounded to float32;
    every product with a pixel and every sum is rounded on its own, the last axis running fastest:
    ((w00 x00 + w01 x01) + w10 x10) + w11 x11, in ONNX Runtime's order. Source: ONNX Resize-19,
    mode linear.
    """

    axes: tuple[Between, ...]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 [N, C, *outputs]."""
        (x,) = operands
        if x.element is not Element.F32 or x.layout != DENSE:
            raise OpError(f"Interpolate needs a dense f32 operand, not {x}")
        sizes = x.shape[2:]
        if len(sizes) != len(self.axes) or len(sizes) not in (1, 2):
            raise OpError(f"{len(self.axes)} axes do not fit an operand {x}")
        if any(axis.reach > size for axis, size in zip(self.axes, sizes, strict=True)):
            raise OpError(f"{self} reaches out of an operand {x}")
        outputs = tuple(len(axis.first) for axis in self.axes)
        return (TensorType((*x.shape[:2], *outputs), Element.F32),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the sums with the defined order of roundings."""
        (x,) = operands
        total: Array | None = None
        with np.errstate(all="ignore"):
            for side in np.ndindex(*(2,) * len(self.axes)):
                term = self.weight(side) * self._pixels(x, side)
                total = term if total is None else total + term
        assert total is not None  # there is an axis
        return (np.ascontiguousarray(total),)

    def _pixels(self, x: Array, side: tuple[int, ...]) -> Array:
        for place, (axis, s) in enumerate(zip(self.axes, side, strict=True), start=2):
            x = np.take(x, axis.second if s else axis.first, axis=place)
        return x

    def weight(self, side: tuple[int, ...]) -> Array:
        """Return float32 [*outputs]: the weights of the first (0) or second (1) pixel each way."""
        result = np.ones((), np.float32)
        for axis, s in zip(self.axes, side, strict=True):
            row = np.asarray(axis.weights, np.float32)[:, s]
            result = np.multiply.outer(result, row)
        return np.asarray(result, np.float32)
