"""Linear layers of the FLOAT and BINARY stages.

A dense layer is a convolution without spatial axes: MatMul is Conv, and BinaryDense is BinaryConv,
with the window `POINT`. What holds for the one holds for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import Array, Element, Interval, Stage, TensorType
from bnncc.ir.window import POINT, Window

__all__ = [
    "BinaryConv",
    "BinaryDense",
    "Conv",
    "MatMul",
    "WindowSum",
    "accumulator_interval",
    "matrix_conv",
    "sequential_conv",
    "sequential_dot",
]

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


def sequential_conv(x: Array, weights: Array, window: Window, groups: int) -> Array:
    """Return the convolution of x [N, C, *S] with weights [O, C / groups, *kernel] in float32.

    Each sum runs over the taps in C order, and within a tap over the channels of the group in
    ascending order; taps outside of the input are skipped. A skipped tap adds +-0 to a sum that
    started from +0, which changes nothing: that is how it is computed here.
    """
    rows, outputs = _as_rows(x, weights, window, groups)
    sums = [sequential_dot(part, w) for part, w in rows]
    return _as_images(sums, x.shape[0], outputs)


def matrix_conv(x: Array, weights: Array, window: Window, groups: int, fill: float = 0) -> Array:
    """Return the same convolution by matrix products in the type of x, in no defined order.

    Exact wherever every partial sum is; taps outside of the input hold `fill`.
    """
    rows, outputs = _as_rows(x, weights, window, groups, fill)
    return _as_images([part @ w.T for part, w in rows], x.shape[0], outputs)


def _as_rows(
    x: Array, weights: Array, window: Window, groups: int, fill: float = 0
) -> tuple[list[tuple[Array, Array]], tuple[int, ...]]:
    """Return, a group, (x [N * outputs, K], weights [O / groups, K]), and the outputs' shape.

    K runs over taps, then channels.
    """
    rank = len(window.axes)
    outputs = window.outputs(x.shape[2:])
    patches = np.moveaxis(window.patches(x, fill), 1, 1 + rank)  # [N, *kernel, C, *outputs]
    taps_last = np.moveaxis(patches, range(1, 2 + rank), range(1 + rank, 3 + 2 * rank - 1))
    depth, count = weights.shape[1], len(weights) // groups
    w = np.moveaxis(weights, 1, -1).reshape(groups, count, -1)
    parts = []
    for g in range(groups):
        part = taps_last[..., g * depth : (g + 1) * depth]
        parts.append((part.reshape(-1, window.taps * depth), w[g]))
    return parts, outputs


def _as_images(parts: Sequence[Array], batch: int, outputs: tuple[int, ...]) -> Array:
    """Return [N, O, *outputs] from one [N * outputs, O / groups] a group."""
    rows = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    images = np.moveaxis(rows.reshape(batch, *outputs, rows.shape[1]), -1, 1)
    return np.ascontiguousarray(images)


def accumulator_interval(element: Element, k: int) -> Interval | None:
    """Return every value a sum of `k` terms +-x can take, or None where x is real.

    Args:
        element: of x: BIPOLAR, TERNARY (-1, 0, +1), a code (U8: 0..255) or F32.
        k: the reduction length.
    """
    match element:
        case Element.BIPOLAR:
            return Interval(-k, k, 2)
        case Element.TERNARY:
            return Interval(-k, k)
        case _ if element.code_bits:
            return Interval(-element.largest_code * k, element.largest_code * k)
        case _:
            return None


def _result_shape(
    x: TensorType, weights: TensorType, window: Window, groups: int
) -> tuple[int, ...]:
    """Return [N, O, *outputs] of a convolution, or refuse operands that do not fit."""
    fits = (
        len(x.shape) == len(weights.shape) == 2 + len(window.axes)
        and weights.shape[2:] == window.kernel
        and x.shape[1] == weights.shape[1] * groups
        and weights.shape[0] % groups == 0
    )
    if not fits:
        raise OpError(f"an input {list(x.shape)} does not fit weights {list(weights.shape)}")
    return (x.shape[0], weights.shape[0], *window.outputs(x.shape[2:]))


@dataclass(frozen=True)
class Conv(Op):
    """y = w * x, a cross-correlation in float32, every operation rounded on its own.

    Operands (x: F32 [N, C, *S], weights: F32 [O, C / groups, *kernel]); zero padding. Each sum runs
    over taps, then channels, from 0 upward (see `sequential_conv`). A framework sums in an order of
    its own, so that its y differs from this one by rounding: at most gamma_K * sum |x_k w_k|
    (Higham 2002, eq. 3.5). A bias is an Add of its own. Source: ONNX Conv-22.
    """

    window: Window
    groups: int = 1

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 [N, O, *outputs]."""
        x, weights = operands
        shape = _result_shape(x, weights, self.window, self.groups)
        if x.element is not Element.F32 or weights.element is not Element.F32:
            raise OpError(f"{self.name} needs f32 operands, not {x.element.value}")
        return (TensorType(shape, Element.F32),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the convolution with the defined order of roundings."""
        return (sequential_conv(operands[0], operands[1], self.window, self.groups),)


@dataclass(frozen=True)
class MatMul(Conv):
    """y = x W^T: a Conv without spatial axes, x [N, K], weights [O, K]."""

    window: Window = POINT
    groups: int = 1

    def __str__(self) -> str:
        return self.name


# What each summable element may be padded with.
_PADS: dict[Element, Sequence[int]] = {
    Element.F32: (0,),
    Element.BIPOLAR: (-1, 0, 1),
    Element.TERNARY: (-1, 0, 1),
    **{element: range(element.largest_code + 1) for element in Element if element.code_bits},
}


@dataclass(frozen=True)
class BinaryConv(Op):
    """n = sum of w x over the window, with w = +-1, -1, 0, +1 or other small integers.

    Operands (x [N, C, *S], weights: BIPOLAR, TERNARY or S2..S4 [O, C / groups, *kernel]). BIPOLAR,
    TERNARY x or codes: an exact I32 accumulator. F32 x: an F32 sum in the order of `Conv`.

    Attributes:
        window, groups: as in `Conv`.
        pad: what taps outside of the input hold: 0, as if they were not there, or for BIPOLAR and
            TERNARY x -1 or +1, or any code.
    """

    window: Window
    groups: int = 1
    pad: int = 0

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.BINARY})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return I32 with its interval, or F32, [N, O, *outputs]."""
        x, weights = operands
        shape = _result_shape(x, weights, self.window, self.groups)
        if not weights.element.largest_weight:
            raise OpError(f"{self.name} needs weights that are sums of bitplanes")
        if x.element not in _PADS:
            raise OpError(f"{self.name} cannot sum {x.element.value}")
        if self.pad not in _PADS[x.element]:
            raise OpError(f"{x.element.value} cannot be padded with {self.pad}")
        interval = self._interval(x, weights)
        element = Element.I32 if interval else Element.F32
        return (TensorType(shape, element, interval=interval),)

    def _interval(self, x: TensorType, weights: TensorType) -> Interval | None:
        """Return every value the accumulator can take.

        Sums of K terms +-1 have the parity of K. Skipped taps change it where the channels are odd
        in number, zeros among the weights anywhere.
        """
        depth = weights.shape[1]
        largest = weights.element.largest_weight
        found = accumulator_interval(x.element, largest * depth * self.window.taps)
        if found is None or found.stride == 1:
            return found
        odd_border = self.pad == 0 and depth % 2 == 1 and self.window.is_padded(x.shape[2:])
        if odd_border or weights.element is not Element.BIPOLAR:
            return Interval(found.low, found.high)
        return found

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the accumulators."""
        x, weights = operands
        if x.dtype == np.float32:
            return (sequential_conv(x, weights.astype(np.float32), self.window, self.groups),)
        # Exact: partial sums are integers below 2^24 (binarise_weights sees to 255 K w < 2^24).
        real = (x.astype(np.float32), weights.astype(np.float32))
        product = matrix_conv(*real, self.window, self.groups, self.pad)
        return (product.astype(np.int32),)


@dataclass(frozen=True)
class BinaryDense(BinaryConv):
    """n = sum_k w_k x_k: a BinaryConv without spatial axes, x [N, K], weights [O, K]."""

    window: Window = POINT
    groups: int = 1
    pad: int = 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class WindowSum(Op):
    """S = sum of x over the window and the channels of a group: what a filter of ones would sum.

    Operand x [N, C, *S]: BIPOLAR, TERNARY or codes; an exact I32 sum for each of the groups, in the
    C order of the outputs' channels. Weights a s + b with s = +-1 sum to a n + b S.

    Attributes:
        window, groups, pad: as in `BinaryConv`.
        channels: of the result: 1 for one group, else a multiple of the groups, of which each fills
            equally many channels in a row.
    """

    window: Window
    groups: int = 1
    pad: int = 0
    channels: int = 1

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.BINARY})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return I32 with its interval, [N, channels, *outputs]."""
        (x,) = operands
        depth, odd = divmod(x.shape[1], self.groups)
        if odd or self.channels % self.groups or len(x.shape) != 2 + len(self.window.axes):
            raise OpError(f"{self.channels} sums of {self.groups} groups do not fit {x}")
        interval = accumulator_interval(x.element, depth * self.window.taps)
        if interval is None or self.pad not in _PADS[x.element]:
            raise OpError(f"{self.name} cannot sum {x.element.value} padded with {self.pad}")
        interval = Interval(0 if x.element.code_bits else interval.low, interval.high)
        shape = (x.shape[0], self.channels, *self.window.outputs(x.shape[2:]))
        return (TensorType(shape, Element.I32, interval=interval),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the sums."""
        (x,) = operands
        depth = x.shape[1] // self.groups
        ones = np.ones((self.groups, depth, *self.window.kernel), np.float32)
        sums = matrix_conv(x.astype(np.float32), ones, self.window, self.groups, self.pad)
        repeated = np.repeat(sums, self.channels // self.groups, axis=1)
        return (repeated.astype(np.int32),)
