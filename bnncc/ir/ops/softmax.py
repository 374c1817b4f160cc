"""Softmax and LogSoftmax over the channels, with an exponential and a logarithm of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.transcendental import exp32, log32
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType

__all__ = ["Softmax"]


@dataclass(frozen=True)
class Softmax(Op):
    """y_c = exp(x_c - max) / sum, or (x_c - max) - log(sum) with `log`; x is F32 [N, C].

    max is the row's largest value, sum the sum of all exp(x_c - max) from c = 0 upward; every
    operation rounds to float32 on its own.
    """

    log: bool

    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's type."""
        (x,) = operands
        if len(x.shape) != 2 or x.element is not Element.F32 or x.layout != DENSE:
            raise OpError("Softmax needs a dense f32 operand [1, C]")
        return (x,)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the normalised rows."""
        (x,) = operands
        with np.errstate(all="ignore"):
            below = x - x.max(axis=1, keepdims=True)
        powers = exp32(below)
        total = np.add.accumulate(powers, axis=1)[:, -1:]  # one after the other, in float32
        return (below - log32(total) if self.log else powers / total,)
