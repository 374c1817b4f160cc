"""The constants of the cost model: those, none negative, of least squared error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bnncc.ir.types import Array
from bnncc.layouts.work import Work

__all__ = ["fit", "fit_by_kind"]

_ROUNDS = 20_000

_SMALL = 100
"""Units that are added to each layer before errors are relative: what so little takes is noise."""


def fit_by_kind(rows: Sequence[tuple[Work, float]]) -> dict[str, float]:
    """Return what each kind of work takes, from the work of layers and what these took.

    Layers are of the kind that comes first; few do work of another kind besides.
    """
    alone: dict[str, list[tuple[Work, float]]] = defaultdict(list)
    mixed: dict[str, list[tuple[Work, float]]] = defaultdict(list)
    for work, units in rows:
        several = len({name.partition(":")[0] for name in work}) > 1
        (mixed if several else alone)[next(iter(work)).partition(":")[0]].append((work, units))
    found = {
        name: value
        for kind, held in alone.items()
        if kind not in mixed
        for name, value in fit(held).items()
    }
    for kind, held in mixed.items():  # less what is known of the others
        known = [sum(found.get(n, 0.0) * count for n, count in work.items()) for work, _ in held]
        left = [
            ({n: count for n, count in work.items() if n not in found}, max(units - less, 0.0))
            for (work, units), less in zip(held, known, strict=True)
        ]
        found |= fit([*left, *alone[kind]])
    return found


def fit(rows: Sequence[tuple[Work, float]], *, relative: bool = True) -> dict[str, float]:
    """Return what each kind of work takes, where any may occur beside any other.

    Args:
        rows: work, and what it took.
        relative: whether errors are a share of that, or units, as suits what is summed up.
    """
    names = list(dict.fromkeys(name for work, _ in rows for name in work))
    units = np.array([units for _, units in rows])
    counts = np.array([[work.get(name, 0) for name in names] for work, _ in rows], float)
    scale = units + _SMALL if relative else np.ones(len(units))
    weights = _least(counts / scale[:, np.newaxis], units / scale)
    return {name: float(f"{w:.3g}") for name, w in zip(names, weights, strict=True)}


def _least(a: Array, b: Array) -> Array:
    """Return the x >= 0 of least |a x - b|, by descent along one coordinate after the other."""
    scale = np.sqrt((a * a).sum(axis=0))
    scale[scale == 0] = 1
    gram, aim = (a / scale).T @ (a / scale), (a / scale).T @ b
    x = np.zeros(a.shape[1])
    for _ in range(_ROUNDS):
        before = x.copy()
        for i in range(len(x)):
            x[i] = max(0.0, x[i] + (aim[i] - gram[i] @ x) / max(gram[i, i], 1e-12))
        if np.abs(x - before).max() < 1e-9 * max(1e-30, np.abs(x).max()):
            break
    return x / scale
