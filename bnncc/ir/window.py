"""Windows: how convolutions and pools slide over the spatial axes of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.ops.base import OpError
from bnncc.ir.types import Array

__all__ = ["POINT", "Axis", "Window"]


@dataclass(frozen=True)
class Axis:
    """A window along one axis: output o sees the inputs o * stride - before + k * dilation.

    Attributes:
        kernel: how many positions k = 0 .. kernel - 1 it has.
        stride, dilation: at least 1.
        before, after: how far it may reach beyond either end of the input.
        ceil: whether a last window that reaches further than `after` counts too, as long as it
            starts inside the input or the padding before it (ceil_mode of pools).
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def extent(self) -> int:
        """How many inputs it spans, gaps included."""
        return (self.kernel - 1) * self.dilation + 1

    def outputs(self, size: int) -> int:
        """Return how many outputs an input of `size` elements has.

        Raises:
            OpError: not one.
        """
        room = size + self.before + self.after - self.extent
        count = room // self.stride + 1
        if self.ceil and room % self.stride and count * self.stride < size + self.before:
            count += 1
        if count < 1:
            raise OpError(f"a window of {self.extent} does not fit an input of {size}")
        return count

    def taps(self, output: int, size: int) -> range:
        """Return the positions k at which output `output` sees an element of the input."""
        start = output * self.stride - self.before
        first = max(0, -(start // self.dilation)) if start < 0 else 0
        last = min(self.kernel, -((start - size) // self.dilation))
        return range(first, max(first, last))


@dataclass(frozen=True)
class Window:
    """One `Axis` for each spatial axis; none for layers without spatial axes."""

    axes: tuple[Axis, ...] = ()

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's shape."""
        return tuple(axis.kernel for axis in self.axes)

    @property
    def taps(self) -> int:
        """How many positions a full window has; 1 without axes."""
        return math.prod(self.kernel)

    def outputs(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the output's spatial shape for an input of spatial shape `sizes`.

        Raises:
            OpError: the ranks differ, or the window does not fit.
        """
        if len(sizes) != len(self.axes):
            raise OpError(f"{len(self.axes)} axes do not fit spatial shape {list(sizes)}")
        return tuple(axis.outputs(size) for axis, size in zip(self.axes, sizes, strict=True))

    def is_padded(self, sizes: Sequence[int]) -> bool:
        """Whether any output sees less than the whole kernel."""
        return bool(self.counts(sizes).min() < self.taps)

    def valid(self, sizes: Sequence[int]) -> Array:
        """Return bool [*kernel, *outputs]: whether that tap of that output lies in the input."""
        result = np.ones((), dtype=bool)
        rank = len(self.axes)
        for i, (axis, size) in enumerate(zip(self.axes, sizes, strict=True)):
            outputs = np.arange(axis.outputs(size)) * axis.stride - axis.before
            places = np.arange(axis.kernel)[:, np.newaxis] * axis.dilation + outputs
            shape = [1] * (2 * rank)
            shape[i], shape[rank + i] = places.shape
            result = result & ((places >= 0) & (places < size)).reshape(shape)
        return result

    def counts(self, sizes: Sequence[int]) -> Array:
        """Return int64 [*outputs]: how many taps of each output lie in the input."""
        valid = self.valid(sizes)
        return np.asarray(valid.sum(axis=tuple(range(len(self.axes))), dtype=np.int64))

    def patches(self, x: Array, fill: float = 0) -> Array:
        """Return a read-only view [N, C, *kernel, *outputs] of x [N, C, *sizes].

        Taps outside of the input hold `fill`.
        """
        sizes = x.shape[2:]
        outputs = self.outputs(sizes)
        ends = [
            max(0, (count - 1) * axis.stride - axis.before + axis.extent - size)
            for axis, count, size in zip(self.axes, outputs, sizes, strict=True)
        ]
        pads = [(axis.before, end) for axis, end in zip(self.axes, ends, strict=True)]
        if any(before or end for before, end in pads):
            x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
        steps = x.strides[2:]
        taps = [step * axis.dilation for step, axis in zip(steps, self.axes, strict=True)]
        moves = [step * axis.stride for step, axis in zip(steps, self.axes, strict=True)]
        return np.lib.stride_tricks.as_strided(
            x,
            (*x.shape[:2], *self.kernel, *outputs),
            (*x.strides[:2], *taps, *moves),
            writeable=False,
        )

    def __str__(self) -> str:
        return "[" + ", ".join(map(_described, self.axes)) + "]"


def _described(axis: Axis) -> str:
    text = str(axis.kernel)
    text += f"/{axis.stride}" if axis.stride != 1 else ""
    text += f" dilation {axis.dilation}" if axis.dilation != 1 else ""
    text += f" pad {axis.before}+{axis.after}" if axis.before or axis.after else ""
    return text + (" ceil" if axis.ceil else "")


POINT = Window()
"""The window of a layer without spatial axes."""
