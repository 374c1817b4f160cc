"""Where each of many blocks of memory lies, given when each lives: dynamic storage allocation.

No placement takes less than the largest sum of sizes alive at one step, and to find the least is
NP-hard (Garey and Johnson 1979, problem SR2). Networks come close to that bound, so these are tried
one after the other until one reaches it or the effort is spent:

1. In order of birth, at alternating ends of a memory as large as the bound. Exact on chains: a
   block meets only the one before and the one after, which lie at the other end, and any two
   neighbours fit.
2. Largest size first, then largest size times lifetime first, each at the lowest free offset
   (Pisarchyk and Lee 2020). Good where blocks of different sizes and lifetimes overlap.
3. From the best of these, squeaky wheel optimisation (Joslin and Clements 1999): the blocks that
   end above the bound move forward in the order by random distances, and all are placed anew.
   No optimum is out of reach: in order of its offsets, no block ends up higher.

The random numbers come from a fixed seed and the effort is counted in blocks looked at, never in
seconds: the same blocks get the same offsets on every machine.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Life", "largest_live", "place"]

_EFFORT = 400_000
"""Overlapping blocks that the search may look at: some 50 ms in CPython."""

_OVERHEAD = 5
"""What it takes to place one block, in overlapping blocks looked at."""


@dataclass(frozen=True)
class Life:
    """A block of memory: its size, and the first and the last step that need it."""

    size: int
    born: int
    dies: int


def place(lives: Sequence[Life]) -> list[int]:
    """Return an offset >= 0 for each block; blocks with a step in common share no byte.

    Every offset is a sum of sizes with signs, hence aligned to whatever all sizes are.
    """
    problem = _Problem(lives)
    best: list[int] = []
    for offsets in _candidates(problem):
        if not best or problem.top(offsets) < problem.top(best):
            best = offsets
        if problem.top(best) <= problem.bound:
            break
    return best


def largest_live(lives: Sequence[Life]) -> int:
    """Return the largest sum of sizes alive at one step: no placement takes less."""
    change: Counter[int] = Counter()
    for life in lives:
        change[life.born] += life.size
        change[life.dies + 1] -= life.size
    live = most = 0
    for step in sorted(change):
        live += change[step]
        most = max(most, live)
    return most


class _Problem:
    """Blocks, numbered as they were given, and who may not share bytes with whom."""

    def __init__(self, lives: Sequence[Life]) -> None:
        self.lives = lives
        self.sizes = [life.size for life in lives]
        self.bound = largest_live(lives)
        self.overlapping = _overlapping(lives)

    def order(self, key: Callable[[Life], Any]) -> list[int]:
        """Return the blocks in order of a key; equal ones as they were given."""
        return sorted(range(len(self.lives)), key=lambda i: key(self.lives[i]))

    def top(self, offsets: Sequence[int]) -> int:
        """Return the bytes that the offsets take."""
        return max(map(sum, zip(offsets, self.sizes, strict=True)), default=0)

    def from_below(self, order: Iterable[int]) -> list[int]:
        """Place each block, in order, at the lowest offset free during its whole life."""
        offsets = [-1] * len(self.lives)
        for i in order:
            offsets[i] = _lowest_gap(self._taken(i, offsets), self.sizes[i])
        return offsets

    def from_both_ends(self, order: Iterable[int]) -> list[int]:
        """Place the blocks, in order, in turns as low as possible and as high as the bound lets."""
        offsets = [-1] * len(self.lives)
        for turn, i in enumerate(order):
            taken, size = self._taken(i, offsets), self.sizes[i]
            offset = -1
            if turn % 2:
                mirrored = [(self.bound - end, self.bound - start) for start, end in taken]
                offset = self.bound - size - _lowest_gap(mirrored, size)
            offsets[i] = offset if offset >= 0 else _lowest_gap(taken, size)
        return offsets

    def _taken(self, block: int, offsets: Sequence[int]) -> list[tuple[int, int]]:
        """Return from where to where the blocks lie that are placed already and overlap this."""
        sizes = self.sizes
        return [
            (start, start + sizes[j]) for j in self.overlapping[block] if (start := offsets[j]) >= 0
        ]


def _overlapping(lives: Sequence[Life]) -> list[list[int]]:
    """Return, for each block, the others that have a step in common with it."""
    found: list[list[int]] = [[] for _ in lives]
    alive: list[int] = []
    for i in sorted(range(len(lives)), key=lambda i: lives[i].born):
        alive = [j for j in alive if lives[j].dies >= lives[i].born]
        for j in alive:
            found[j].append(i)
        found[i].extend(alive)
        alive.append(i)
    return found


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """Return the lowest offset >= 0 with `size` bytes free before the next span [start, end)."""
    offset = 0
    for start, end in sorted(taken):
        if start - offset >= size:
            break
        offset = max(offset, end)
    return offset


def _candidates(problem: _Problem) -> Iterator[list[int]]:
    """Yield placements, in the order of the module's docstring."""
    by_birth = problem.order(lambda life: (life.born, -life.size))
    by_size = problem.order(lambda life: (-life.size, life.born))
    by_area = problem.order(lambda life: (-life.size * (life.dies - life.born + 1), life.born))
    best = problem.from_both_ends(by_birth)
    yield best
    for order in (by_size, by_area):
        offsets = problem.from_below(order)
        yield offsets
        best = min(best, offsets, key=problem.top)
    yield from _squeaky_wheel(problem, best)


def _squeaky_wheel(problem: _Problem, offsets: list[int]) -> Iterator[list[int]]:
    """Yield placements from below, each in an order that learns from the one before."""
    chance = random.Random(0)
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    cost = _OVERHEAD * len(order) + sum(map(len, problem.overlapping))
    for _ in range(_EFFORT // cost):
        rank = [0.0] * len(order)
        for position, i in enumerate(order):
            too_high = offsets[i] + problem.sizes[i] > problem.bound
            forward = 0.5 + chance.random() * (position + 1) if too_high else 0.0
            rank[i] = position - forward
        order.sort(key=rank.__getitem__)
        offsets = problem.from_below(order)
        yield offsets
