"""Thresholds and levels as arrays: the algebra that passes on Steps share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF
from bnncc.ir.types import Array, Element

__all__ = ["Grid", "element_for", "grid_of", "never", "planes_of", "simplified"]

_CODES = {1: Element.U1, 2: Element.U2, 3: Element.U3, 4: Element.U4}
_PLANES = {3: ((-1, 1, 1), (-1, -1, 1)), 4: ((-1, -1, 1, 1), (-1, 1, -1, 1))}
"""By how many levels there are, the bit of each in two planes."""
_NEAR = 2.0**-16
"""How far, in steps of the grid, levels may seem to lie off it before the grid is fitted."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Equally spaced levels: integers v of `element` with real values unit * v + offset.

    Attributes:
        element: BIPOLAR, TERNARY or a code.
        unit, offset: in double.
        values: the real values, ascending, float32 where the model has that level.
        misfit: how far these lie from the affine map at most.
        codes: of one of two planes, the integer that each value has in it; none of a grid.
    """

    element: Element
    unit: float
    offset: float
    values: tuple[float, ...]
    misfit: float
    codes: tuple[int, ...] = ()

    def integers(self, real: Array) -> Array:
        """Return the integers that stand for some of the levels."""
        if self.codes:
            return np.asarray(self.codes)[np.searchsorted(self.values, real)]
        return np.rint((real.astype(np.float64) - self.offset) / self.unit)

    @property
    def zero(self) -> int | None:
        """The integer that stands for a real 0; None if none does."""
        if 0.0 not in self.values:
            return None
        if self.codes:
            return self.codes[self.values.index(0.0)]
        return int(np.rint(-self.offset / self.unit))


def grid_of(levels: Array) -> Grid | None:
    """Return the grid on which all levels of a Step lie, or None if there is none of 16 points.

    Two and three levels that are symmetric are BIPOLAR and TERNARY times a scale; any others are
    codes from 0 upward.
    """
    found = np.unique(levels).astype(np.float64)
    if not 2 <= len(found) <= 1 << max(_CODES) or not np.isfinite(found).all():
        return None
    largest = found[-1]
    if found[0] == -largest and len(found) == 2:
        return Grid(Element.BIPOLAR, largest, 0.0, tuple(found.tolist()), 0.0)
    if found[0] == -largest and len(found) == 3 and found[1] == 0:
        return Grid(Element.TERNARY, largest, 0.0, tuple(found.tolist()), 0.0)
    places = (found - found[0]) / np.diff(found).min()
    index = np.rint(places).astype(np.int64)
    count = int(index[-1]) + 1
    if np.abs(places - index).max() > _NEAR or count > 1 << max(_CODES):
        return None
    unit = (largest - found[0]) / (count - 1)
    # A real 0 is exactly 0 in the affine map too: it is what padding holds, and what sums rest on.
    offset = -unit * index[found == 0][0] if (found == 0).any() else found[0]
    values = unit * np.arange(count) + offset
    misfit = float(np.abs(values[index] - found).max())
    if misfit > 4 * UNIT_ROUNDOFF * np.abs(found).max():
        return None
    values[index] = found
    element = _CODES[max(1, (count - 1).bit_length())]
    return Grid(element, float(unit), float(offset), tuple(values.tolist()), misfit)


def planes_of(levels: Array) -> tuple[Grid, Grid] | None:
    """Return two planes of bits, each with a unit of its own, that sum to all levels of a Step.

    Level = unit a + unit' b + offset with a, b = +-1. Any three levels are such sums; four are, if
    the outer two have the mean of the inner two, as those that a basis of two numbers spans.

    Source: Zhang et al. 2018 (LQ-Nets), eq. 3.
    """
    found = np.unique(levels).astype(np.float64)
    if not np.isfinite(found).all() or len(found) not in _PLANES:
        return None
    codes = _PLANES[len(found)]
    units = np.diff(found) / 2 if len(found) == 3 else (found[[2, 1]] - found[0]) / 2
    sums = units @ np.array(codes)
    # A real 0 is exactly 0 in the sum too: it is what padding holds, and what sums rest on.
    offset = -sums[found == 0][0] if (found == 0).any() else (found[0] + found[-1]) / 2
    misfit = float(np.abs(sums + offset - found).max())
    if misfit > 4 * UNIT_ROUNDOFF * np.abs(found).max():
        return None
    values = tuple(found.tolist())
    first, second = (
        Grid(Element.BIPOLAR, float(unit), float(offset), values, misfit, code)
        for unit, code in zip(units, codes, strict=True)
    )
    return first, second


def element_for(levels: Array) -> Element:
    """Return BIPOLAR, TERNARY or F32, the narrowest element that holds every level."""
    if np.isin(levels, (-1, 1)).all():
        return Element.BIPOLAR
    if np.isin(levels, (-1, 0, 1)).all():
        return Element.TERNARY
    return Element.F32


def never(thresholds: Array) -> float:
    """Return the value that stands for a threshold no operand reaches, in the array's type."""
    if thresholds.dtype == np.float32:
        return np.inf
    return np.iinfo(thresholds.dtype).max


def simplified(thresholds: Array, levels: Array) -> tuple[Array, Array]:
    """Return the same steps with as few thresholds as the busiest channel needs.

    Args:
        thresholds: ascending, [C or 1, T]; one row serves every channel.
        levels: [C or 1, T + 1].

    Returns:
        (thresholds [R, T'], levels [R, T' + 1]) with R the larger row count. Unused places hold
        `never` and repeat the last level.
    """
    rows = max(thresholds.shape[0], levels.shape[0])
    thresholds = np.broadcast_to(thresholds, (rows, thresholds.shape[1]))
    levels = np.broadcast_to(levels, (rows, levels.shape[1]))
    changes = levels[:, 1:] != levels[:, :-1]
    most = int(changes.sum(axis=1).max(initial=0))
    # A stable sort on "is not a change" moves each row's changes to the front, in order.
    order = np.argsort(~changes, axis=1, kind="stable")[:, :most]
    kept = np.take_along_axis(changes, order, axis=1)
    moved = np.where(kept, np.take_along_axis(thresholds, order, axis=1), never(thresholds))
    reached = np.take_along_axis(levels[:, 1:], order, axis=1)
    last = np.concatenate([levels[:, :1], np.where(kept, reached, levels[:, -1:])], axis=1)
    return np.ascontiguousarray(moved), np.ascontiguousarray(last)
