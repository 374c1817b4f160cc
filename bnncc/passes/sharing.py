"""Which sums output channels share: classes of planes, and how many channels make a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bnncc.ir.classes import class_list, class_patterns
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Array

__all__ = [
    "Grouping",
    "Lists",
    "Load",
    "best_grouping",
    "group_starts",
    "instructions",
    "listed",
    "loads",
    "stored",
    "unit_of",
]

_LARGEST_GROUP = 7
_LARGEST_TERNARY_GROUP = 4
_MOST_PLANES = 1 << 16
"""The numbers of fours in a class have 16 bits."""
_LARGEST_SUM = 1 << 18
"""Channels have up to _LARGEST_GROUP - 1 bits more than their classes, and 24 at most."""
_SAMPLED_GROUPS = 4
_WALK = 24.0
"""What one more walk along the list of a class costs, a plane being 1."""
_TOO_LARGE = "more planes enter a channel than its counters hold"


@dataclass(frozen=True, eq=False)
class Lists:
    """Operands of `SharedSums`, see there, and what they sum up to.

    Attributes:
        entries: uint16 or uint32 [entries].
        fours: uint16 [groups, classes * parts].
        unit: bytes that 1 stands for in `entries`.
        parts: how many powers of two there are.
        doubled: whether what they sum is twice the weights.
        totals: what all entries that enter a channel count together, int64 [groups, k].
    """

    entries: Array
    fours: Array
    unit: int
    parts: int
    doubled: bool
    totals: Array


class Grouping(NamedTuple):
    """How many channels make a group, and whether their classes are of zeros too."""

    k: int
    ternary: bool


class Load(NamedTuple):
    """What a group has to sum: planes, each in one of the walks along the list of a class."""

    planes: float
    walks: int


def instructions(grouping: Grouping, load: Load, addition: float = 1.2) -> float:
    """Return about how many instructions a group of channels takes for a slice of outputs.

    In those of a Cortex-M4, to whose counts it is fitted: within 1 % of them for sizes of groups
    worth having, and within 5 % with several walks or zeros. Elsewhere relations between sizes are
    alike but for what additions cost.

    Args:
        grouping: of the channels.
        load: what the group has to sum.
        addition: what a bit of an addition costs, a plane being 1; see `Slices`.
    """
    k = grouping.k
    classes = len(class_patterns(k, ternary=grouping.ternary))
    bits = max(5, int(load.planes / classes * 1.25).bit_length())
    added = _added_by_threes(k, bits) if grouping.ternary else _added_by_twos(k, bits)
    calls = (6.5 + _WALK * (load.walks - 1)) * classes
    return 7.4 * (load.planes + calls + addition * added + k * (bits + k))


def _added_by_twos(k: int, bits: int) -> int:
    """Return how many bits additions take that make k channels of classes of signs."""
    classes = 1 << (k - 1)
    folds = sum((classes >> j) * (bits + j - 1) for j in range(1, k))
    inverted = sum(
        ((classes >> j) >> i) * (bits + j + i - 2) for j in range(1, k) for i in range(1, k - j)
    )
    return folds + inverted


def _added_by_threes(k: int, bits: int) -> int:
    """Return the same where there are classes of zeros."""
    added = 0
    for j in range(k - 1, 0, -1):
        triples = (3**j - 1) // 2
        added += triples * (4 * bits + 4)
        bits += 2
    return added


def best_grouping(
    channels: int,
    load: Callable[[Grouping], Load],
    addition: float = 1.2,
    *,
    zeros: bool = False,
) -> Grouping:
    """Return how to group `channels` output channels.

    Args:
        channels: of one group of the convolution.
        load: what a group has to sum.
        addition: see `instructions`.
        zeros: whether some weights are 0.
    """
    sizes = range(1, min(channels, _LARGEST_GROUP) + 1)
    choices = [Grouping(k, False) for k in sizes]
    if zeros:
        choices += [Grouping(k, True) for k in sizes if k <= _LARGEST_TERNARY_GROUP]
    return min(choices, key=lambda g: -(-channels // g.k) * instructions(g, load(g), addition))


def loads(weights: Array, groups: int, elements: int) -> Callable[[Grouping], Load]:
    """Return what a group of channels has to sum, by how they are grouped.

    Args:
        weights: integers [O, depth, *kernel].
        groups: of the convolution.
        elements: planes of an element.
    """
    plain = Load(elements * weights[0].size, elements)
    if (np.abs(weights) == 1).all():
        return lambda _: plain
    channels = weights[: len(weights) // groups].reshape(len(weights) // groups, -1)

    def load(grouping: Grouping) -> Load:
        k = grouping.k
        sampled = min(len(channels) // k, _SAMPLED_GROUPS)
        terms = _terms(channels[: sampled * k].reshape(sampled, k, -1), ternary=grouping.ternary)
        planes = sum(len(term.planes) for term in terms) / sampled
        return Load(elements * planes, elements * max(1, len({term.power for term in terms})))

    return load


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
    weights: Array,
    taps: TapPlanes,
    firsts: Sequence[int],
    grouping: Grouping,
    groups: int,
    *,
    codes: bool,
) -> Lists | str:
    """Return the lists of a layer, or why there are none.

    Args:
        weights: integers [O, depth, *kernel].
        taps: where its planes are, complements included.
        firsts: the first channel of each group.
        grouping: of the channels.
        groups: of the convolution.
        codes: whether the planes of an element are the bits of a code.
    """
    rows = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
    if rows.shape[1] >= _MOST_PLANES:
        return _TOO_LARGE
    depth = weights.shape[1]
    members = np.array(firsts)[:, np.newaxis] + np.arange(grouping.k)
    terms = _terms(rows[members], ternary=grouping.ternary)
    if not terms:
        return "all of its weights are 0"
    doubled = any(term.power < 0 for term in terms)
    parts = max(term.power for term in terms) + 1 + doubled
    offsets = taps.offsets().reshape(-1, taps.channels)
    entries: list[Array] = []
    fours: list[Array] = []
    totals: list[Array] = []
    for group, first in enumerate(firsts):
        start = first // (len(weights) // groups) * depth
        places = offsets[:, start : start + depth].reshape(-1)
        found = [_Signed(term.power + doubled, *term.of_group(group, places)) for term in terms]
        one, counts = _classed(found, grouping, parts, taps)
        entries.append(one)
        fours.append(counts)
        totals.append(
            sum(np.abs(each.signs).sum(axis=1, dtype=np.int64) << each.part for each in found)
        )
    elements = (1 << len(taps.pads)) - 1 if codes else len(taps.pads)
    if np.max(totals) * elements >= _LARGEST_SUM:
        return _TOO_LARGE
    held, unit = stored(np.concatenate(entries))
    return Lists(held, np.array(fours), unit, parts, doubled, np.array(totals))


@dataclass(frozen=True, eq=False)
class _Term:
    """Planes that enter the channels of their groups with 2^power, or its negative.

    Attributes:
        power: -1 for halves, of which two make up what enters some channels and not others.
        groups, planes: of each, int64 [terms].
        signs: int8 [k, terms], -1 or +1, or 0 as well.
    """

    power: int
    groups: Array
    planes: Array
    signs: Array

    def of_group(self, group: int, places: Array) -> tuple[Array, Array]:
        """Return where the planes of a group are, and their signs."""
        start, end = np.searchsorted(self.groups, [group, group + 1])
        return places[self.planes[start:end]], self.signs[:, start:end]


def _terms(weights: Array, *, ternary: bool) -> list[_Term]:
    """Return weights [groups, k, planes] as signs, or zeros too if `ternary`, times powers of two.

    With zeros, each bit of a magnitude is one. Without, where all weights of a plane are odd, they
    take as many signs as the largest has bits. Where some are even, one sign for the odd ones
    leaves only even weights: it is the half of two, which cancel out in the others.
    """
    if ternary:
        return _ternary_terms(weights)
    groups, planes = np.nonzero(weights.any(axis=1))
    left = weights[groups, :, planes].T.astype(np.int64)  # [k, terms]
    terms: list[_Term] = []
    power = 0
    while groups.size:
        odd = left % 2 != 0
        whole, mixed = odd.all(axis=0), odd.any(axis=0) & ~odd.all(axis=0)
        bits = np.abs(left[:, whole]).max(axis=0, initial=0)
        codes = left[:, whole] + (1 << np.frexp(bits)[1].astype(np.int64)) - 1 >> 1
        for bit in range(int(bits.max(initial=0)).bit_length()):
            some = bits >> bit > 0
            at = np.flatnonzero(whole)[some]
            signs = (2 * (codes[:, some] >> bit & 1) - 1).astype(np.int8)
            terms.append(_Term(power + bit, groups[at], planes[at], signs))
        if mixed.any():
            positive, uneven = np.sign(left[:, mixed]).astype(np.int8), odd[:, mixed]
            for other in (1, -1):
                signs = np.where(uneven, positive, np.int8(other))
                terms.append(_Term(power - 1, groups[mixed], planes[mixed], signs))
        left = np.where(odd, left - np.sign(left), left) // 2
        rest = ~whole & left.any(axis=0)
        left, groups, planes = left[:, rest], groups[rest], planes[rest]
        power += 1
    return terms


def _ternary_terms(weights: Array) -> list[_Term]:
    """Return the bits of weights [groups, k, planes] with their signs."""
    signs, magnitudes = np.sign(weights), np.abs(weights.astype(np.int64))
    terms: list[_Term] = []
    for power in range(int(magnitudes.max()).bit_length()):
        digits = (signs * (magnitudes >> power & 1)).astype(np.int8)
        groups, planes = np.nonzero(digits.any(axis=1))
        terms.append(
            _Term(power, groups, planes, np.ascontiguousarray(digits[groups, :, planes].T))
        )
    return terms


@dataclass(frozen=True, eq=False)
class _Signed:
    """Planes of one part of a group: where they are, int64 [n], and their signs, int8 [k, n]."""

    part: int
    places: Array
    signs: Array


def _classed(
    terms: Sequence[_Signed], grouping: Grouping, parts: int, taps: TapPlanes
) -> tuple[Array, Array]:
    """Return the entries of one group's classes, uint16 fours [classes * parts] beside them."""
    signs = np.concatenate([term.signs for term in terms], axis=1)
    places = np.concatenate([term.places for term in terms])
    part = np.concatenate([np.full(len(term.places), term.part) for term in terms])
    first = np.take_along_axis(signs, np.argmax(signs != 0, axis=0)[np.newaxis], axis=0)[0]
    patterns = class_patterns(grouping.k, ternary=grouping.ternary)
    classes = np.zeros(3**grouping.k, np.int64)
    digits = 3 ** np.arange(grouping.k)
    classes[(patterns + 1) @ digits] = np.arange(len(patterns))
    keys = classes[digits @ (signs * first + 1)] * parts + part
    codes, least = 2 * keys + (first > 0), int(parts == 1)
    return class_list(codes, len(patterns) * parts, places, taps, least)


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
