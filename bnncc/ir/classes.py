"""Lists of classes: where the planes start that enter a group of channels with the same signs."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Array

__all__ = ["PlaneCodes", "class_list", "class_patterns"]


@functools.cache
def class_patterns(k: int, *, ternary: bool) -> Array:
    """Return how the planes of each class enter k channels, int8 [classes, k].

    The first channel that they enter at all, they enter with +1. Signs alone make 2^(k-1) classes:
    channel j has the other sign where bit j - 1 of the class's number is set. With zeros there are
    (3^k - 1) / 2: those of k - 1 channels, each with +1, -1 and 0 in the last one in turn, and then
    the class that enters the last channel alone.
    """
    patterns = np.ones((1, 1), np.int8)
    for _ in range(1, k):
        count, width = patterns.shape
        if ternary:
            last = np.tile(np.array([1, -1, 0], np.int8), count)
            patterns = np.column_stack([np.repeat(patterns, 3, axis=0), last])
            patterns = np.vstack([patterns, np.eye(1, width + 1, width, dtype=np.int8)])
        else:
            last = np.repeat(np.array([1, -1], np.int8), count)
            patterns = np.column_stack([np.tile(patterns, (2, 1)), last])
    patterns.setflags(write=False)
    return patterns


@dataclass(frozen=True)
class PlaneCodes:
    """The signs of planes in a group of channels, as words of 32 bits.

    A plane's code has k bits: bit 0 says that the group's first channel has the weight +1, which
    inverts the plane, and the others are its class, see `bnncc.ir.ops.shared_sums.ClassSums`. A
    word holds as many codes as fit, but 8 at most, the first one lowest; those of each tap start a
    word.

    Attributes:
        taps: of the window.
        depth: planes that a channel sees under each of them.
        k: channels in a group, at most 32.
    """

    taps: int
    depth: int
    k: int

    @property
    def per_word(self) -> int:
        """How many codes a word holds."""
        return min(8, 32 // self.k)

    @property
    def words(self) -> int:
        """Words of a group."""
        return self.taps * -(-self.depth // self.per_word)

    def pack(self, codes: Array) -> Array:
        """Return words uint32 [groups, words] that hold codes [groups, taps * depth]."""
        taps = codes.reshape(-1, self.depth).astype(np.uint32)
        unused = -self.depth % self.per_word
        parts = np.pad(taps, [(0, 0), (0, unused)]).reshape(len(codes), self.words, self.per_word)
        shifts = np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.k)
        return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1))

    def unpack(self, words: Array) -> Array:
        """Return codes int64 [groups, taps * depth] that words hold."""
        shifts = np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.k)
        parts = words[..., np.newaxis] >> shifts & np.uint32((1 << self.k) - 1)
        codes = parts.reshape(len(words), self.taps, -1)[..., : self.depth]
        return np.asarray(codes.reshape(len(words), -1), np.int64)


def class_list(
    codes: Array, classes: int, places: Array, taps: TapPlanes, least: int = 1
) -> tuple[Array, Array]:
    """Return one group's list: class after class, each filled up to fours with planes of zeros.

    Args:
        codes: of planes [P]: bit 0 says that one is inverted, the others are its class.
        classes: how many there are.
        places: the byte where each plane starts [P].
        taps: where planes are, complements included.
        least: fours of a class; C starts sums of a single list with one.

    Returns:
        Where planes start, in bytes, int64 [entries]; uint16 [classes], the fours of each class.
    """
    keys = codes >> 1
    where = places + np.where(codes & 1, 4 * taps.half, 0)
    order = np.lexsort((where, keys))
    counts = np.bincount(keys, minlength=classes)
    fours = np.maximum(-(-counts // 4), least)
    starts = np.cumsum(4 * fours) - 4 * fours
    held = np.full(4 * fours.sum(), taps.zeros, np.int64)
    rank = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    held[np.repeat(starts, counts) + rank] = where[order]
    return held, fours.astype(np.uint16)
