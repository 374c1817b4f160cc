"""Operations that make one value of many, or rank them."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.pool import Pooling
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType

__all__ = ["ArgMax", "ReduceMax", "ReduceMean", "ReduceSum", "Reduction", "TopK"]


@dataclass(frozen=True)
class Reduction(Pooling):
    """One value from all along some axes of x: F32 [N, C, *S].

    They are taken along the reduced axes behind the channels in C order, and at each place along
    the channels where those are reduced too: the order in which pixels lie in memory, channels
    last.

    Attributes:
        axes: which, ascending, at least one, 0 (the batch) not among them.
        keepdims: whether they stay, with one element each.
    """

    axes: tuple[int, ...]
    keepdims: bool

    @abc.abstractmethod
    def reduced(self, terms: Array) -> Array:
        """Return one value from `terms` along axis 0, in this order."""

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 without the reduced axes, or with one element along them."""
        (x,) = operands
        if x.element is not Element.F32 or x.layout != DENSE:
            raise OpError(f"{self.name} needs a dense f32 operand, not {x}")
        places = range(1, len(x.shape))
        if not self.axes or tuple(axis for axis in places if axis in self.axes) != self.axes:
            raise OpError(f"axes {list(self.axes)} do not fit an operand {x}")
        if math.prod(x.shape[axis] for axis in self.axes) == 0:
            raise OpError(f"{self.name} of no elements")
        return (TensorType(self._shape(x.shape), Element.F32),)

    def _shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.keepdims:
            return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))
        return tuple(size for axis, size in enumerate(shape) if axis not in self.axes)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the reduced values with the defined order of roundings."""
        (x,) = operands
        order = [axis for axis in self.axes if axis != 1] + [1] * (1 in self.axes)
        leading = np.moveaxis(x, order, range(len(order)))
        terms = leading.reshape(-1, *leading.shape[len(order) :])
        with np.errstate(all="ignore"):
            result = self.reduced(terms)
        return (np.ascontiguousarray(result.reshape(self._shape(x.shape))),)


@dataclass(frozen=True)
class ReduceSum(Reduction):
    """y = the float32 sum from 0 upward."""

    def reduced(self, terms: Array) -> Array:
        """Return the sums."""
        # accumulate adds one after the other; the last + 0 is the first one's: -0 becomes +0.
        return np.asarray(np.add.accumulate(terms, axis=0)[-1] + np.float32(0))


@dataclass(frozen=True)
class ReduceMean(ReduceSum):
    """y = fl(sum / count), the float32 sum from 0 upward."""

    def reduced(self, terms: Array) -> Array:
        """Return the means."""
        return np.asarray(super().reduced(terms) / np.float32(len(terms)))


@dataclass(frozen=True)
class ReduceMax(Reduction):
    """y = the largest, of equals the first; the last NaN wins."""

    def reduced(self, terms: Array) -> Array:
        """Return the largest values."""
        best = np.full(terms.shape[1:], -np.inf, terms.dtype)
        for term in terms:
            best = np.where((term > best) | np.isnan(term), term, best)
        return best


def _classes(op: Op, operands: Sequence[TensorType]) -> int:
    """Return how many values a row of the one operand has."""
    (x,) = operands
    if len(x.shape) != 2 or x.element is not Element.F32 or x.layout != DENSE:
        raise OpError(f"{op.name} needs a dense f32 operand [1, C], not {x}")
    if x.shape[1] < 1:
        raise OpError(f"{op.name} of no elements")
    return x.shape[1]


@dataclass(frozen=True)
class ArgMax(Op):
    """y = the index of the largest of x: F32 [N, C], the lowest among equals.

    Attributes:
        keepdims: whether the result is I64 [N, 1] rather than [N].
    """

    keepdims: bool

    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return I64 [1, 1] or [1]."""
        _classes(self, operands)
        batch = operands[0].shape[0]
        return (TensorType((batch, 1) if self.keepdims else (batch,), Element.I64),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the indices; a NaN counts as the largest."""
        return (np.argmax(operands[0], axis=1, keepdims=self.keepdims).astype(np.int64),)


@dataclass(frozen=True)
class TopK(Op):
    """(values, indices) of the k largest of x: F32 [N, C], falling, lower indices first at ties."""

    k: int

    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 [1, k] and I64 [1, k]."""
        classes = _classes(self, operands)
        if not 1 <= self.k <= classes:
            raise OpError(f"TopK cannot take {self.k} of {classes}")
        shape = (operands[0].shape[0], self.k)
        return (TensorType(shape, Element.F32), TensorType(shape, Element.I64))

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the largest values and where they are."""
        (x,) = operands
        order = np.argsort(-x, axis=1, kind="stable")[:, : self.k].astype(np.int64)
        return np.take_along_axis(x, order, axis=1), order
