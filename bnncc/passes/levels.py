"""Thresholds and levels as arrays: the algebra that passes on Steps share."""

from __future__ import annotations

import numpy as np

from bnncc.ir.types import Array, Element

__all__ = ["element_for", "never", "simplified"]


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
