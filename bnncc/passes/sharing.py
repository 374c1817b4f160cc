"""Which sums output channels share: classes of planes, and how many channels make a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.classes import class_list
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Array

__all__ = [
    "Lists",
    "best_group_size",
    "group_starts",
    "instructions",
    "listed",
    "stored",
    "unit_of",
]

_LARGEST_GROUP = 7
_MOST_PLANES = 1 << 16
"""Counters have 16 bits, and so do the numbers of fours in a class."""


@dataclass(frozen=True, eq=False)
class Lists:
    """Operands of `SharedSums`: see there.

    Attributes:
        entries: uint16 or uint32 [entries].
        fours: uint16 [groups, classes].
        unit: bytes that 1 stands for in `entries`.
    """

    entries: Array
    fours: Array
    unit: int


def instructions(k: int, planes: int, addition: float = 1.2) -> float:
    """Return about how many instructions a group of k channels takes for a slice of outputs.

    In those of a Cortex-M4, to whose counts it is fitted: within 1 % of them for sizes of groups
    worth having. Elsewhere relations between sizes are alike but for what additions cost.

    Args:
        k: channels in the group.
        planes: that enter each of them.
        addition: what a bit of an addition costs, a plane being 1; see `Slices`.
    """
    classes = 1 << (k - 1)
    bits = max(5, int(planes / classes * 1.25).bit_length())
    folds = sum((classes >> j) * (bits + j - 1) for j in range(1, k))
    inverted = sum(
        ((classes >> j) >> i) * (bits + j + i - 2) for j in range(1, k) for i in range(1, k - j)
    )
    return 7.4 * (planes + 6.5 * classes + addition * (folds + inverted) + k * (bits + k))


def best_group_size(channels: int, planes: int, addition: float = 1.2) -> int:
    """Return how many of `channels` output channels, of `planes` planes each, make a group."""
    sizes = range(1, min(channels, _LARGEST_GROUP) + 1)
    return min(sizes, key=lambda k: -(-channels // k) * instructions(k, planes, addition))


def group_starts(channels: int, groups: int, k: int) -> tuple[int, ...]:
    """Return the first channel of each group; the last of a convolution's group may overlap.

    Args:
        channels: O.
        groups: of the convolution, which have no plane in common.
        k: channels in a group; at most O / groups.
    """
    count = channels // groups
    starts = [min(first, count - k) for first in range(0, count, k)]
    return tuple(group * count + start for group in range(groups) for start in starts)


def listed(
    bits: Array, taps: TapPlanes, firsts: Sequence[int], k: int, groups: int
) -> Lists | None:
    """Return the lists of a layer, or None if it is too large for them.

    Args:
        bits: its weights, bool [O, depth, *kernel], True for +1.
        taps: where its planes are, complements included.
        firsts: the first channel of each group.
        k: channels in a group.
        groups: of the convolution.
    """
    if bits[0].size >= _MOST_PLANES:
        return None
    rows = np.moveaxis(bits, 1, -1).reshape(len(bits), -1)
    depth = bits.shape[1]
    offsets = taps.offsets().reshape(-1, taps.channels)
    entries: list[Array] = []
    fours: list[Array] = []
    for first in firsts:
        start = first // (len(bits) // groups) * depth
        places = offsets[:, start : start + depth].reshape(-1)
        one, counts = _classed(rows[first : first + k], places, taps)
        entries.append(one)
        fours.append(counts)
    held, unit = stored(np.concatenate(entries))
    return Lists(held, np.array(fours), unit)


def _classed(rows: Array, places: Array, taps: TapPlanes) -> tuple[Array, Array]:
    """Return the entries of one group's classes, uint16 fours [classes] beside them."""
    differ = rows[1:] ^ rows[0]
    keys = (differ << np.arange(len(differ))[:, np.newaxis]).sum(axis=0).astype(np.int64)
    return class_list(2 * keys + rows[0], 1 << len(differ), places, taps)


def stored(places: Array) -> tuple[Array, int]:
    """Return offsets in bytes as entries of a list, uint16 or uint32, and their unit."""
    unit = unit_of(places)
    narrow = places.max() // unit < 1 << 16
    return (places // unit).astype(np.uint16 if narrow else np.uint32), unit


def unit_of(entries: Array) -> int:
    """Return the unit of offsets: a byte, or more if that makes them fit into 16 bits."""
    common = int(np.bitwise_or.reduce(entries))
    most = common & -common if common else 1
    unit = 1
    while entries.max() // unit >= 1 << 16 and 2 * unit <= most:
        unit *= 2
    return unit
