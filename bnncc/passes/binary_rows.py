"""Which weights are sums of bitplanes: +-alpha, -alpha 0 +alpha, two values, k bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnncc.ir.types import Array

__all__ = ["BinaryRows", "binary_rows"]

_SAME_VALUE = 2.0**-20
"""Relative difference below which values count as one: what folded STEs leave behind."""

_MOST_VALUES = 16
_NEAR = 2.0**-23
"""How far off their grid, relative to the largest of a row, weights of several bits may lie."""


@dataclass(frozen=True, eq=False)
class BinaryRows:
    """A weight matrix [O, K] as w = alpha * integer + offset.

    Attributes:
        signs: the integers, int8 [O, K]: -1 and +1, 0 as well, or of magnitudes up to 15. Beyond 1
            either all are odd, which k bitplanes make up, or any.
        alpha: >= 0, [O]; float32 for +-alpha and -alpha, 0, +alpha, else float64.
        offset: float64 [O], 0 for weights that are symmetric around 0.
        magnitudes: float64 [O, M], the values |w_k| of each row, those within rounding as one.
        misfit: float64 [O], the sum over k of |w_k - (alpha * integer_k + offset)|.
        reason: why the matrix is not binary, "" if it is.
        integers: why only integers can be summed by it, "" if reals can as well.
    """

    signs: Array
    alpha: Array
    offset: Array
    magnitudes: Array
    misfit: Array
    reason: str = ""
    integers: str = ""


def binary_rows(weights: Array) -> BinaryRows:
    """Return how far a weight matrix [O, K] is binary, a row at a time, by value."""
    magnitudes = np.abs(weights)
    lowest, highest = magnitudes.min(axis=1), magnitudes.max(axis=1)
    holes = (lowest == 0) & (highest > 0)
    if holes.any():
        some = magnitudes[holes]
        lowest[holes] = np.where(some == 0, np.inf, some).min(axis=1)
    apart = highest - lowest > _SAME_VALUE * highest
    if apart.any():
        return _two_valued(weights, apart, holes)
    signs = np.where(weights < 0, np.int8(-1), np.int8(1))
    signs[holes] *= weights[holes] != 0
    misfit = np.zeros(len(highest))
    if (lowest != highest).any():
        crumbs = np.where(signs == 0, 0, highest[:, np.newaxis] - magnitudes)
        misfit = crumbs.astype(np.float64).sum(axis=1)
    values = highest.astype(np.float64)[:, np.newaxis]
    reason = _other_magnitudes(holes, holes) if holes.any() else ""
    return BinaryRows(signs, highest, np.zeros(len(highest)), values, misfit, integers=reason)


# --- Two values -----------------------------------------------------------------------------------


def _two_valued(weights: Array, apart: Array, holes: Array) -> BinaryRows:
    """Return a matrix some of whose rows are not +-alpha, if all rows have at most two values."""
    reason = _other_magnitudes(apart | holes, holes)
    first = int(np.argmax(apart))
    if not _upper(weights[first : first + 1])[1].all() or not _upper(weights)[1].all():
        return _of_several_bits(weights, reason)
    ends = [end(axis=1).astype(np.float64) for end in (weights.min, weights.max)]
    even = ~(apart | holes)
    ends[1] = np.where(even, np.abs(weights).max(axis=1), ends[1])
    ends[0] = np.where(even, -ends[1], ends[0])
    alpha, offset = (ends[1] - ends[0]) / 2, (ends[1] + ends[0]) / 2
    signs = np.where(even[:, np.newaxis], weights >= 0, _upper(weights)[0]) * np.int8(2) - 1
    return _fitted(weights, signs, alpha, offset, reason)


def _fitted(weights: Array, signs: Array, alpha: Array, offset: Array, reason: str) -> BinaryRows:
    """Return rows of integers with what the weights differ from them."""
    exact = alpha[:, np.newaxis] * signs + offset[:, np.newaxis]
    misfit = np.abs(weights - exact).sum(axis=1)
    found = [np.unique(np.abs(row.astype(np.float64))) for row in exact]
    most = max(map(len, found))
    magnitudes = np.stack([np.pad(row, (0, most - len(row)), mode="edge") for row in found])
    magnitudes[:, -1] = np.abs(weights).max(axis=1)  # whatever rounding lies between
    return BinaryRows(signs.astype(np.int8), alpha, offset, magnitudes, misfit, integers=reason)


# --- Several bits ---------------------------------------------------------------------------------


def _of_several_bits(weights: Array, reason: str) -> BinaryRows:
    """Return a matrix each of whose rows has at most 16 equally spaced values, if it is one.

    Odd multiples of alpha need the fewest planes, then any multiples of it; values that are not
    symmetric are codes from 0 upward, of which the odd integers 2 code - (2^k - 1) are made.
    """
    none = np.zeros(len(weights))
    values: list[Array] = []
    for row in weights:  # real weights have more, and the first row already tells
        values.append(np.unique(row).astype(np.float64))
        if len(values[-1]) > _MOST_VALUES:
            return _refused(len(weights), reason)
    for odd in (True, False):
        units = [_unit(row, odd=odd) for row in values]
        if all(unit is not None for unit in units):
            alpha = np.array(units, np.float64)
            signs = np.rint(weights / np.where(alpha > 0, alpha, 1)[:, np.newaxis])
            signs = np.where(odd & (alpha == 0)[:, np.newaxis], 1, signs)
            return _fitted(weights, signs, alpha, none, reason)
    grids = [_grid(row) for row in values]
    if any(grid is None for grid in grids):
        return _refused(len(weights), reason)
    low, unit, count = np.array(grids, np.float64).T
    largest = (1 << int(count.max() - 1).bit_length()) - 1
    codes = np.rint((weights - low[:, np.newaxis]) / unit[:, np.newaxis])
    return _fitted(weights, 2 * codes - largest, unit / 2, low + unit / 2 * largest, reason)


def _refused(rows: int, reason: str) -> BinaryRows:
    """Return that a matrix of so many rows is not binary."""
    none = np.zeros(rows)
    return BinaryRows(np.zeros((0, 0), np.int8), none, none, none[:, np.newaxis], none, reason)


def _unit(values: Array, *, odd: bool) -> float | None:
    """Return alpha such that all values are its odd multiples up to 15, or any of them; else None.

    Args:
        values: of one row, ascending.
        odd: whether 0 and even multiples are refused.
    """
    magnitudes = np.unique(np.abs(values[values != 0]))
    if not magnitudes.size:
        return 0.0
    largest = magnitudes[-1]
    for multiple in range(1, _MOST_VALUES):
        unit = largest / multiple
        places = np.rint(values / unit)
        fits = np.abs(places * unit - values) <= _NEAR * largest
        if fits.all() and not (odd and (places % 2 == 0).any()):
            return float(unit)
    return None


def _grid(values: Array) -> tuple[float, float, int] | None:
    """Return (lowest value, unit, count) of a grid of at most 16 points, None if there is none."""
    low, high = values[0], values[-1]
    largest = np.abs(values).max()
    if low == high:
        return low, max(largest, 1.0), 1
    for steps in range(1, _MOST_VALUES):
        unit = (high - low) / steps
        places = np.rint((values - low) / unit)
        if (np.abs(places * unit + low - values) <= _NEAR * largest).all():
            return low, unit, steps + 1
    return None


def _upper(weights: Array) -> tuple[Array, Array]:
    """Return which weights [R, K] are the upper of two values, and which rows [R] have no third."""
    low, high = weights.min(axis=1, keepdims=True), weights.max(axis=1, keepdims=True)
    upper = weights > low / 2 + high / 2
    ends = np.where(upper, high, low)
    fits = np.abs(weights - ends) <= _SAME_VALUE * np.abs(ends)
    # Magnitudes within rounding of one another are one value, with either sign.
    return upper, fits.all(axis=1) | _one_magnitude(weights)


def _one_magnitude(weights: Array) -> Array:
    magnitudes = np.abs(weights)
    lowest, highest = magnitudes.min(axis=1), magnitudes.max(axis=1)
    return np.asarray(highest - lowest <= _SAME_VALUE * highest)


def _other_magnitudes(apart: Array, holes: Array) -> str:
    zeros = int((holes & apart).sum())
    kind = f", {zeros} of them with zeros" if zeros else ""
    rows = f"{int(apart.sum())} of {len(apart)} output channels"
    return f"{rows} have weights other than +-alpha{kind}"
