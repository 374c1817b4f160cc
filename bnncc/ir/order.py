"""The order in which a tensor holds another one's elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.types import Array

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """A movement of all elements of a tensor, its batch apart.

    Attributes:
        steps: one after the other, the shape [*S] that the elements have in C order, and how its
            axes are permuted: axis i of what comes out is axis perm[i].
    """

    steps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    def then(self, shape: Sequence[int], perm: Sequence[int]) -> Order:
        """Return this order and one step more."""
        return Order((*self.steps, (tuple(shape), tuple(perm))))

    def of(self, values: Array) -> Array:
        """Return the elements [N, ...] as they are held, [N, K]."""
        count = len(values)
        for shape, perm in self.steps:
            moved = np.reshape(values, (count, *shape))
            values = moved.transpose(0, *(axis + 1 for axis in perm))
        return values.reshape(count, -1)
