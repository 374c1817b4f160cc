"""Straight-through estimators leave (s - e) + e in exported graphs: where is that s, exactly?

A quantiser s(x) trained with the gradient of another function e(x) is spelled
`s.detach() - e.detach() + e`, and exporters keep the arithmetic. In float32 the residue vanishes
only where rounding allows it. For a level v != 0 with an even last bit, and e = 0 or of v's sign:

    |e| <  |v| / 2:             fl(v - e) is off by at most half an ulp of v; adding e back gives v
                                or lies no further than halfway to its neighbour, and ties go to v
    |v| / 2 <= |e| <= 2 |v|:    v - e is exact (Sterbenz), so v - e + e is
    2 |v| < |e| <= 2^24 b:      with b the lowest set bit of v, both are multiples of an ulp of e,
                                and v - e is smaller than e: exact

and for v = 0 always, -e + e being 0. With e of the other sign, 1 - e can lose its last bit: such
residues are no steps.

Source: Bengio et al. 2013 (the estimator); Sterbenz 1974, theorem 4.3.1.
"""

from __future__ import annotations

import numpy as np

from bnncc.ir.analysis.ranges import range_of
from bnncc.ir.expression import Chain
from bnncc.ir.types import Array
from bnncc.passes.thresholds import FLOATS

__all__ = ["exact_below"]

_REFINEMENTS = 12
_MOST_CELLS = 1 << 14
_WORTH_REFINING = 2.0**20


def exact_below(
    thresholds: Array,
    levels: Array,
    e: Chain | None,
    edges: Array,
    within: tuple[float, float] | None = None,
) -> float:
    """Return the largest limit for which fl(fl(s - e) + e) = s was proven at all |x| < limit.

    The floats are cut at every power of two, threshold and edge; on each piece s is one level, and
    interval arithmetic bounds e. Pieces on which that is too coarse are halved.

    Args:
        thresholds: float32 [T], ascending, where s changes.
        levels: float32 [C or 1, T + 1].
        e: the estimator's function, None for x itself.
        edges: float32, values of x at which e jumps.
        within: bounds on x, if there are any.

    Returns:
        inf where it holds for all x within the bounds, or all finite x; 0 where not even at 0.
    """
    powers = 2.0 ** np.arange(-149, 128)
    cuts = [-np.finfo(np.float32).max, *-powers, 0, *powers, *thresholds, *edges]
    ends = FLOATS.index(np.array(within or (-np.inf, np.inf), np.float32))
    low = np.unique(np.clip(FLOATS.index(np.array(cuts, np.float32)), *ends))
    high = np.append(low[1:] - 1, ends[1])
    limit = np.inf
    for refinement in range(_REFINEMENTS):
        proven = _is_exact(FLOATS.at(low), FLOATS.at(high), thresholds, levels, e)
        nearest = np.minimum(np.abs(FLOATS.at(low)), np.abs(FLOATS.at(high)))
        last = refinement == _REFINEMENTS - 1 or len(low) > _MOST_CELLS
        coarse = ~proven & (nearest < min(limit, _WORTH_REFINING)) & (low < high) & (not last)
        limit = min(limit, nearest[~proven & ~coarse].min(initial=np.inf))
        low, high = low[coarse], high[coarse]
        middle = (low + high) // 2
        low, high = np.concatenate([low, middle + 1]), np.concatenate([middle, high])
    return float(limit)


def _is_exact(low: Array, high: Array, thresholds: Array, levels: Array, e: Chain | None) -> Array:
    """Return for which pieces [M] of x the residue is proven to vanish in every channel."""
    v = levels[:, np.searchsorted(thresholds, low, side="right")].T
    x = low[:, np.newaxis], high[:, np.newaxis]
    bottom, top = range_of(e, *x) if e else x
    largest = np.maximum(np.abs(bottom), np.abs(top))
    same_sign = np.where(v < 0, top <= 0, bottom >= 0)
    vanishes = same_sign & _is_even(v) & (largest <= 2.0**24 * _lowest_bit(v))
    return np.asarray((np.isfinite(largest) & (vanishes | (v == 0))).all(axis=1))


def _is_even(v: Array) -> Array:
    """Return which floats are normal with an even last bit, so that ties go to them."""
    normal = np.abs(v) >= np.finfo(np.float32).smallest_normal
    return np.asarray(normal & (np.ascontiguousarray(v).view(np.uint32) % 2 == 0))


def _lowest_bit(v: Array) -> Array:
    """Return the power of two of the lowest set bit, as float64; 0 for 0."""
    mantissa, exponent = np.frexp(v.astype(np.float64))
    integer = (mantissa * 2.0**24).astype(np.int64)
    return np.asarray(np.ldexp((integer & -integer).astype(np.float64), exponent - 24))
