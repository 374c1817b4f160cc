"""Operations that move or rename elements and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType

__all__ = ["Concat", "Expand", "Gather", "Movement", "Pad", "Reshape", "Slice", "Transpose"]

# What a padded element may hold, where that is less than its numpy type can.
_VALUES: dict[Element, Sequence[int]] = {
    Element.BOOL: (0, 1),
    Element.BIPOLAR: (-1, 1),
    Element.TERNARY: (-1, 0, 1),
    **{element: range(element.largest_code + 1) for element in Element if element.code_bits},
}

_SIGNS = frozenset({Element.BIPOLAR, Element.TERNARY})
"""What holds -1 and +1 in the same way, one of them 0 as well."""


@dataclass(frozen=True)
class Movement(Op):
    """An operation whose result holds elements of its operands, or constants, and nothing computed.

    It takes any element type, and commutes with every function of a single element. Axis 0, the
    batch, stays where it is.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY})


def _dense(op: Op, operands: Sequence[TensorType], rank: int | None) -> TensorType:
    """Return the one operand, dense and with as many axes as the operation speaks of."""
    (x,) = operands
    if x.layout != DENSE or (rank is not None and len(x.shape) != rank):
        raise OpError(f"{op} does not fit an operand {x}")
    return x


@dataclass(frozen=True)
class Reshape(Movement):
    """The same elements in C order under another shape; axis 0, the batch, stays.

    `shape` is complete (no 0, no -1) and starts with 1. ONNX's Reshape, Flatten, Squeeze and
    Unsqueeze all become this one.
    """

    shape: tuple[int, ...]

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY, Stage.PACKED})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element in the new shape."""
        (x,) = operands
        if x.shape[:1] != (1,) or self.shape[:1] != (1,) or math.prod(self.shape) != x.size:
            raise OpError(f"cannot reshape {list(x.shape)} to {list(self.shape)}")
        return (TensorType(self.shape, x.element, x.layout),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the reshaped operand, whatever its batch."""
        return (operands[0].reshape(operands[0].shape[0], *self.shape[1:]),)


@dataclass(frozen=True)
class Transpose(Movement):
    """Axis i of the result is axis perm[i] of the operand; perm[0] is 0. Source: ONNX Transpose."""

    perm: tuple[int, ...]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element with its axes permuted."""
        x = _dense(self, operands, len(self.perm))
        if self.perm[:1] != (0,) or sorted(self.perm) != list(range(len(self.perm))):
            raise OpError(f"{list(self.perm)} is no order of axes that keeps the first")
        return (TensorType(tuple(x.shape[axis] for axis in self.perm), x.element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the permuted operand in C order."""
        return (np.ascontiguousarray(operands[0].transpose(self.perm)),)


@dataclass(frozen=True)
class Pad(Movement):
    """The operand with `before` and `after` elements of one value put round it.

    Both have an entry an axis, none negative, that of axis 0 being 0. Source: ONNX Pad, mode
    constant.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element in the larger shape; TERNARY for BIPOLAR among zeros."""
        x = _dense(self, operands, len(self.before))
        widths = (*self.before, *self.after)
        if len(self.after) != len(self.before) or min(widths, default=0) < 0:
            raise OpError(f"{self} has widths that are not two for each axis, and none negative")
        if self.before[:1] != (0,) or self.after[:1] != (0,):
            raise OpError(f"{self} pads the batch")
        held = Element.TERNARY if x.element is Element.BIPOLAR and self.value == 0 else x.element
        if held in _VALUES and self.value not in _VALUES[held]:
            raise OpError(f"{held.value} cannot be padded with {self.value}")
        shape = (a + b + c for a, b, c in zip(self.before, x.shape, self.after, strict=True))
        return (TensorType(tuple(shape), held),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the padded operand."""
        (x,) = operands
        widths = list(zip(self.before, self.after, strict=True))
        return (np.pad(x, widths, constant_values=x.dtype.type(self.value)),)


@dataclass(frozen=True)
class Slice(Movement):
    """Elements start, start + step, ... of each axis, `sizes` of them; all of axis 0.

    The three are complete: an entry an axis, steps at least 1. Source: ONNX Slice.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element in the smaller shape."""
        x = _dense(self, operands, len(self.starts))
        if not len(self.starts) == len(self.sizes) == len(self.steps):
            raise OpError(f"{self} has not one start, size and step for each axis")
        for extent, start, size, step in zip(
            x.shape, self.starts, self.sizes, self.steps, strict=True
        ):
            if start < 0 or size < 1 or step < 1 or start + (size - 1) * step >= extent:
                raise OpError(f"{self} reaches out of shape {list(x.shape)}")
        if (self.starts[:1], self.sizes[:1]) != ((0,), x.shape[:1]):
            raise OpError(f"{self} cuts the batch")
        return (TensorType(self.sizes, x.element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the selected elements in C order."""
        ranges = zip(self.starts[1:], self.sizes[1:], self.steps[1:], strict=True)
        cuts = (slice(start, start + (size - 1) * step + 1, step) for start, size, step in ranges)
        return (np.ascontiguousarray(operands[0][(slice(None), *cuts)]),)


@dataclass(frozen=True)
class Expand(Movement):
    """The operand repeated along axes of size 1 up to `shape`, which is complete and starts with 1.

    Source: ONNX Expand, or numpy's broadcasting.
    """

    shape: tuple[int, ...]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element in the larger shape."""
        x = _dense(self, operands, len(self.shape))
        same = all(a in (1, b) for a, b in zip(x.shape, self.shape, strict=True))
        if not same or self.shape[:1] != (1,):
            raise OpError(f"cannot expand {list(x.shape)} to {list(self.shape)}")
        return (TensorType(self.shape, x.element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the repeated operand, whatever its batch."""
        (x,) = operands
        return (np.ascontiguousarray(np.broadcast_to(x, (x.shape[0], *self.shape[1:]))),)


@dataclass(frozen=True)
class Gather(Movement):
    """y[n, i, j, ...] = x[n, places[1][i], places[2][j], ...]: chosen places of every axis.

    `places` is complete, an entry an axis; that of axis 0, the batch, is (0,) and stands for all of
    it. ONNX's Gather, Tile, Resize to the nearest, Slice with negative steps and channel shuffles.
    """

    places: tuple[tuple[int, ...], ...]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's element, as many along each axis as there are places."""
        x = _dense(self, operands, len(self.places))
        for extent, places in zip(x.shape, self.places, strict=True):
            if not places or min(places) < 0 or max(places) >= extent:
                raise OpError(f"{self} reaches out of shape {list(x.shape)}")
        if self.places[:1] != ((0,),):
            raise OpError(f"{self} chooses among the batch")
        return (TensorType(tuple(map(len, self.places)), x.element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the chosen elements in C order."""
        (x,) = operands
        for axis, places in enumerate(self.places[1:], start=1):
            if places != tuple(range(x.shape[axis])):
                x = np.take(x, places, axis=axis)
        return (np.ascontiguousarray(x),)

    def __str__(self) -> str:
        return f"{self.name}({' x '.join(str(len(places)) for places in self.places)})"


@dataclass(frozen=True)
class Concat(Movement):
    """The operands, at least one, one behind the other along `axis`, which is not 0.

    Constant operands have a batch of 1, which is repeated.
    """

    axis: int

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operands' element, TERNARY for some of both, with the sum of their extents."""
        if not operands:
            raise OpError("Concat needs an operand")
        first, axis = operands[0], self.axis
        if not 0 < axis < len(first.shape):
            raise OpError(f"{self} does not fit an operand {first}")
        rest = (first.shape[:axis], first.shape[axis + 1 :])
        elements = {x.element for x in operands}
        for x in operands:
            same = (x.shape[:axis], x.shape[axis + 1 :]) == rest and x.layout == DENSE
            if not same or (len(elements) > 1 and not elements <= _SIGNS):
                raise OpError(f"{self} cannot join {first} and {x}")
        element = first.element if len(elements) == 1 else Element.TERNARY
        extent = sum(x.shape[axis] for x in operands)
        return (TensorType((*rest[0], extent, *rest[1]), element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the operands as one."""
        batch = max(x.shape[0] for x in operands)
        parts = [np.broadcast_to(x, (batch, *x.shape[1:])) for x in operands]
        return (np.concatenate(parts, axis=self.axis),)
