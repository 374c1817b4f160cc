"""Weights and thresholds in the forms that kernels read."""

from __future__ import annotations

import numpy as np

from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.storage import pack_bits, plane_count, to_planes
from bnncc.ir.types import Array, Element, TensorType
from bnncc.passes.levels import never, simplified

__all__ = [
    "accumulator_base",
    "mismatch_limits",
    "narrowest",
    "packed_taps",
    "plane_thresholds",
    "skips_taps",
    "tap_major",
    "tiled",
    "zero_weights",
]


def tap_major(weights: Array) -> Array:
    """Return weights [O, D, *kernel] as [O, taps, D]: the order in which kernels read them."""
    return np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1, weights.shape[1])


def tiled(rows: Array, nr: int, groups: int) -> Array:
    """Return rows [O, ...] as [blocks, nr, ...]: each group's O / groups rows in whole blocks."""
    grouped = rows.reshape(groups, -1, *rows.shape[1:])
    missing = -grouped.shape[1] % nr
    padded = np.pad(grouped, ((0, 0), (0, missing), *((0, 0),) * (rows.ndim - 1)))
    return padded.reshape(-1, nr, *rows.shape[1:])


def packed_taps(weights: Array, word_bits: int) -> Array:
    """Return weights [O, D, *kernel] as words [O, taps * words], 0 counting as +1."""
    words = pack_bits(tap_major(weights) >= 0, word_bits)
    return words.reshape(len(words), -1)


def zero_weights(weights: Array) -> Array:
    """Return int32 [Z, axes + 2], a row (channel, *tap, channel of the group) for each 0."""
    places = np.argwhere(np.moveaxis(weights, 1, -1) == 0)
    return places.astype(np.int32)


def accumulator_base(weights: Array, element: Element) -> Array:
    """Return the accumulator of each channel at zero mismatches, int32 [O] (see XnorConv)."""
    rows = weights.reshape(len(weights), -1)
    k = rows.shape[1]
    if element is Element.U8:
        return np.asarray(255 * (k + rows.sum(axis=1, dtype=np.int64)) // 2, np.int32)
    return np.full(len(rows), k, np.int32)


def mismatch_limits(thresholds: Array, base: Array, x: TensorType, k: int) -> Array:
    """Return limits [P, O, T] so that n >= threshold iff weighted mismatches <= limit."""
    factor = 2 if x.element is Element.BIPOLAR else 1
    most = k * (255 if x.element is Element.U8 else plane_count(x.element))
    exact = (base[:, np.newaxis] - thresholds.astype(np.int64)) // factor
    return np.asarray(np.clip(exact, -1, most))


def narrowest(limits: Array) -> Element:
    """Return the smallest element that holds limits, which are at least -1."""
    return Element.I16 if limits.max(initial=0) <= np.iinfo(np.int16).max else Element.I32


def skips_taps(op: BinaryConv, x: TensorType) -> bool:
    """Whether taps outside of the image are left out, rather than read from a row of padding.

    Codes need no case of their own: code 0 contributes nothing.
    """
    padded = op.window.is_padded(x.shape[2:])
    return padded and op.pad == 0 and x.element is not Element.U8


def plane_thresholds(thresholds: Array, levels: Array, element: Element, channels: int) -> Array:
    """Return [planes, channels, T]: plane p's bit is the parity of value >= thresholds[p, c, j].

    Args:
        thresholds: a Step's, [channels or 1, S].
        levels: [channels or 1, S + 1], in {-1, +1} or {-1, 0, +1}.
        element: BIPOLAR or TERNARY, which says what the planes are.
        channels: how many channels the result has.
    """
    bits = to_planes(levels.T, element).transpose(1, 2, 0)
    planes = [_as_parity(*simplified(thresholds, plane)) for plane in bits]
    most = max(1, *(plane.shape[1] for plane in planes))
    filled = [
        np.pad(plane, ((0, 0), (0, most - plane.shape[1])), constant_values=never(thresholds))
        for plane in planes
    ]
    shape = (len(planes), channels, most)
    return np.ascontiguousarray(np.broadcast_to(np.stack(filled), shape))


def _as_parity(thresholds: Array, bits: Array) -> Array:
    """Return thresholds of which an odd number is passed exactly where the bit is 1.

    Bits alternate at every used threshold; a channel that starts at 1 gets one always passed.
    """
    starts_set = bits[:, :1]
    if not starts_set.any():
        return thresholds
    always = -np.inf if thresholds.dtype == np.float32 else np.iinfo(thresholds.dtype).min
    first = np.where(starts_set, always, never(thresholds)).astype(thresholds.dtype)
    widened = np.sort(np.concatenate([first, thresholds], axis=1), axis=1)
    used = int((widened != never(thresholds)).sum(axis=1).max(initial=0))
    return widened[:, :used]
