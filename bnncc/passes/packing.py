"""Weights and thresholds in the forms that kernels read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from bnncc.ir.ops.kernels import MismatchScale
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.storage import pack_bits, plane_count, to_planes
from bnncc.ir.types import Array, Element, TensorType
from bnncc.passes.levels import never, simplified

__all__ = [
    "accumulator_base",
    "mismatch_limits",
    "narrowest",
    "packed_taps",
    "parts_of",
    "plane_thresholds",
    "skips_taps",
    "tap_major",
    "tiled",
    "weight_planes",
    "zero_weights",
]

_MOST_ZEROS = 64
_MOST_ZEROS_OF_A_CHANNEL = 1 / 16
"""Zeros up to these counts are exceptions among +-1; with more, weights take two planes."""


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


def parts_of(weights: Array) -> tuple[int, ...]:
    """Return what the bitplanes of weights count (see XnorConv): as few as make up all of them.

    Odd integers up to 2^k - 1 take k planes, others up to 2^(k-1) - 1 as many. One plane also where
    a few of -1 and +1 are 0, which are then listed: that takes 20 bytes each.
    """
    largest = int(np.abs(weights).max())
    if largest > 1:
        return _parts_of_several_bits(largest, odd=bool((weights % 2 != 0).all()))
    zeros = (weights == 0).reshape(len(weights), -1).sum(axis=1)
    most = _MOST_ZEROS_OF_A_CHANNEL * weights[0].size
    few = zeros.sum() <= _MOST_ZEROS and (zeros <= most).all()
    return (1,) if few else (1, 1)


def _parts_of_several_bits(largest: int, *, odd: bool) -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to the sum `largest`, or for its double with the last one less."""
    bits = largest.bit_length()
    if odd:
        return tuple(1 << i for i in range(bits))
    return (*(1 << i for i in range(bits)), (1 << bits) - 1)


def weight_planes(weights: Array, parts: Sequence[int]) -> list[Array]:
    """Return weights as int8 planes w_i of -1 and +1, so that weights = (sum parts_i w_i) / h."""
    if tuple(parts) == (1,):
        return [np.where(weights >= 0, np.int8(1), np.int8(-1))]
    half = 2 - sum(parts) % 2
    choices = np.array(list(itertools.product((-1, 1), repeat=len(parts))), np.int8)
    reached = choices @ np.asarray(parts) // half
    order = np.argsort(reached, kind="stable")
    found = order[np.searchsorted(reached[order], weights)]
    return [np.ascontiguousarray(plane[found]) for plane in choices.T]


def zero_weights(weights: Array) -> Array:
    """Return int32 [Z, axes + 2], a row (channel, *tap, channel of the group) for each 0."""
    places = np.argwhere(np.moveaxis(weights, 1, -1) == 0)
    return places.astype(np.int32)


def accumulator_base(weights: Array, element: Element, parts: Sequence[int] = (1,)) -> Array:
    """Return what each channel's mismatches are taken from, int32 [O] (see XnorConv)."""
    rows = weights.reshape(len(weights), -1)
    k = rows.shape[1]
    scale = MismatchScale.of(parts, bipolar=element is Element.BIPOLAR)
    if element.code_bits:
        ones = (scale.of_k * k + scale.divisor * rows.sum(axis=1, dtype=np.int64)) // 2
        return np.asarray(element.largest_code * ones, np.int32)
    return np.full(len(rows), scale.of_k * k, np.int32)


def mismatch_limits(
    thresholds: Array, base: Array, x: TensorType, k: int, parts: Sequence[int] = (1,)
) -> Array:
    """Return limits [P, O, T] so that n >= threshold iff weighted mismatches <= limit."""
    scale = MismatchScale.of(parts, bipolar=x.element is Element.BIPOLAR)
    most = k * sum(parts) * (x.element.largest_code or plane_count(x.element))
    exact = (base[:, np.newaxis] - scale.divisor * thresholds.astype(np.int64)) // scale.factor
    return np.asarray(np.clip(exact, -1, most))


def narrowest(limits: Array) -> Element:
    """Return the smallest element that holds limits, which are at least -1."""
    return Element.I16 if limits.max(initial=0) <= np.iinfo(np.int16).max else Element.I32


def skips_taps(op: BinaryConv, x: TensorType) -> bool:
    """Whether taps outside of the image are left out, rather than read from a row of padding.

    Codes need no case of their own: code 0 contributes nothing.
    """
    padded = op.window.is_padded(x.shape[2:])
    return padded and op.pad == 0 and not x.element.code_bits


def plane_thresholds(thresholds: Array, levels: Array, element: Element, channels: int) -> Array:
    """Return [planes, channels, T]: plane p's bit is the parity of value >= thresholds[p, c, j].

    Of reals, unused places hold NaN, at which no comparison holds: infinity would reach infinity.

    Args:
        thresholds: a Step's, [channels or 1, S].
        levels: [channels or 1, S + 1], elements of the next.
        element: BIPOLAR, TERNARY or a code, which says what the planes are.
        channels: how many channels the result has.
    """
    bits = to_planes(levels.T.astype(element.dtype), element).transpose(1, 2, 0)
    planes = [_as_parity(*simplified(thresholds, plane)) for plane in bits]
    most = max(1, *(plane.shape[1] for plane in planes))
    filled = [
        np.pad(plane, ((0, 0), (0, most - plane.shape[1])), constant_values=_unmet(thresholds))
        for plane in planes
    ]
    shape = (len(planes), channels, most)
    return np.ascontiguousarray(np.broadcast_to(np.stack(filled), shape))


def _unmet(thresholds: Array) -> float:
    """Return what no operand is >=, in the array's type."""
    return np.nan if thresholds.dtype == np.float32 else never(thresholds)


def _as_parity(thresholds: Array, bits: Array) -> Array:
    """Return thresholds of which an odd number is passed exactly where the bit is 1.

    Bits alternate at every used threshold; a channel that starts at 1 gets one always passed.
    """
    used = bits[:, 1:] != bits[:, :-1]
    starts_set = bits[:, :1] > 0
    always = -np.inf if thresholds.dtype == np.float32 else np.iinfo(thresholds.dtype).min
    first = np.full((len(bits), 1), always, thresholds.dtype)
    passed = np.concatenate([starts_set, used], axis=1)
    at = np.where(passed, np.concatenate([first, thresholds], axis=1), _unmet(thresholds))
    most = int(passed.sum(axis=1).max(initial=0))
    # Both values that stand for an unused place are sorted last.
    return np.sort(at.astype(thresholds.dtype), axis=1)[:, :most]
