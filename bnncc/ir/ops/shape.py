"""Operations that move or rename elements and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import Array, Stage, TensorType

__all__ = ["Reshape"]


@dataclass(frozen=True)
class Reshape(Op):
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
