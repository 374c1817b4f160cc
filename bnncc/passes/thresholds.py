"""Find the thresholds of a chain over its accumulator: by evaluation, never by algebra.

`enumerated` runs the chain on every value the accumulator can take. `bisected` is for domains too
large for that (uint8 sums) or real: the chain is monotone, so that a binary search over the
representable values ends at the one place where the level changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bnncc.certificate import Undecided
from bnncc.ir.analysis.direction import UNKNOWN
from bnncc.ir.analysis.rounding import spread
from bnncc.ir.expression import Chain
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.types import Array, Interval
from bnncc.passes.levels import never, simplified

__all__ = ["FLOATS", "Floats", "Found", "Integers", "bisected", "enumerated", "scrutinised"]

_VALUES_AT_ONCE = 1 << 19
_ONE_BY_ONE = 64
_LARGEST = np.float32(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Found:
    """Thresholds [C, T], levels [C, T + 1], and how many evaluations they rest on."""

    thresholds: Array
    levels: Array
    values_checked: int


@dataclass(frozen=True)
class Integers:
    """The accumulator's integers, indexed 0 .. size - 1 in ascending order."""

    interval: Interval

    @property
    def size(self) -> int:
        """How many there are."""
        return self.interval.size

    def at(self, index: Array) -> Array:
        """Return the accumulators (int32) with these indices."""
        return (self.interval.low + index * self.interval.stride).astype(np.int32)

    def index(self, x: Array) -> Array:
        """Return the index of the first accumulator >= x."""
        return -((self.interval.low - x.astype(np.int64)) // self.interval.stride)


@dataclass(frozen=True)
class Floats:
    """The finite float32 values in ascending order, -0 and +0 as one."""

    size: int = 2 * 0x7F7FFFFF + 1

    def at(self, index: Array) -> Array:
        """Return the floats with these indices: 0 is -FLT_MAX, the middle is 0."""
        signed = index - (self.size // 2)
        magnitude = np.abs(signed).astype(np.uint32).view(np.float32)
        return np.asarray(np.where(signed < 0, -magnitude, magnitude), np.float32)

    def index(self, x: Array) -> Array:
        """Return the indices of finite floats; the inverse of `at`."""
        clipped = np.clip(x.astype(np.float32), -_LARGEST, _LARGEST)
        magnitude = np.abs(clipped).view(np.uint32).astype(np.int64)
        return np.where(clipped < 0, -magnitude, magnitude) + self.size // 2


FLOATS = Floats()


def enumerated(chain: Chain, domain: Integers) -> Found:
    """Return the thresholds of any chain, monotone or not, read off its value on every integer."""
    parts = [_read_off(chain.of(part), domain) for part in _channel_slices(chain, domain.size)]
    most = max(thresholds.shape[1] for thresholds, _ in parts)
    widened = [_widen(thresholds, levels, most) for thresholds, levels in parts]
    thresholds = np.concatenate([t for t, _ in widened])
    levels = np.concatenate([v for _, v in widened])
    return Found(thresholds, levels, domain.size * chain.channels)


def _channel_slices(chain: Chain, size: int) -> Iterator[slice]:
    step = max(1, _VALUES_AT_ONCE // size)
    for start in range(0, chain.channels, step):
        yield slice(start, min(start + step, chain.channels))


def _read_off(chain: Chain, domain: Integers) -> tuple[Array, Array]:
    n = domain.at(np.arange(domain.size))
    table = chain.evaluate(np.broadcast_to(n[:, np.newaxis], (domain.size, chain.channels)))
    index, channel = np.nonzero(table[1:] != table[:-1])
    order = np.lexsort((index, channel))
    index, channel = index[order] + 1, channel[order]
    count = np.bincount(channel, minlength=chain.channels)
    place = np.arange(len(channel)) - np.repeat(np.cumsum(count) - count, count)
    most = int(count.max(initial=0))
    thresholds = np.full((chain.channels, most), never(n), dtype=np.int32)
    thresholds[channel, place] = n[index]
    levels = np.repeat(table[-1][:, np.newaxis], most + 1, axis=1).astype(np.float32)
    levels[:, 0] = table[0]
    levels[channel, place + 1] = table[index, channel]
    return thresholds, levels


def _widen(thresholds: Array, levels: Array, most: int) -> tuple[Array, Array]:
    missing = most - thresholds.shape[1]
    padded = np.pad(thresholds, ((0, 0), (0, missing)), constant_values=never(thresholds))
    return padded, np.pad(levels, ((0, 0), (0, missing)), mode="edge")


def bisected(chain: Chain, direction: Array, domain: Integers | Floats) -> Found:
    """Return the thresholds of a chain that is monotone in every channel.

    Args:
        chain: ends in a Step.
        direction: +1, 0 or -1 a channel, as `directions` found.
        domain: the accumulator's values.
    """
    levels = np.unique(_final_step(chain)[1])
    lowest, highest = _defined(chain, domain)

    def at(index: Array) -> Array:
        return domain.at(np.clip(index, lowest, highest))

    changes: list[Array] = []
    rounds = 0
    for level in levels[1:]:

        def crossed(index: Array, level: float = level) -> Array:
            at_least = chain.evaluate(at(index)[np.newaxis])[0] >= level
            return np.asarray(np.where(direction < 0, ~at_least, at_least))

        first, used = _first_true(crossed, domain.size, chain.channels)
        changes.append(first)
        rounds += used
    # The end of the domain stands for "never": the level there is that of the last change.
    columns = np.sort(np.stack(changes, axis=1), axis=1) if changes else _none(chain)
    index = np.minimum(columns, domain.size - 1)
    starts = np.concatenate([np.zeros((chain.channels, 1), np.int64), index], axis=1)
    reached = [chain.evaluate(at(column)[np.newaxis])[0] for column in starts.T]
    thresholds, found = simplified(domain.at(index), np.stack(reached, axis=1).astype(np.float32))
    return Found(thresholds, found, (rounds + len(reached)) * chain.channels)


def _defined(chain: Chain, domain: Integers | Floats) -> tuple[Array, Array]:
    """Return the indices, [C] each, around the middle between which all of a chain are numbers.

    At the ends of float32 a product overflows, and what reads it may multiply infinity by 0: the
    maximum of that and a number is no number, a comparison with it false. So is the model's own
    result there, but it says nothing about the numbers below.
    """
    middle = domain.size // 2

    def undefined(index: Array) -> Array:
        values = chain.expression.values([domain.at(index)[np.newaxis]], chain.parameters)
        found = np.zeros((1, chain.channels), bool)
        for value in values:
            found = found | np.isnan(value)
        return np.asarray(found[0])

    def outward(sign: int, size: int) -> Array:
        first, _ = _first_true(lambda i: undefined(middle + sign * i), size, chain.channels)
        return np.asarray(middle + sign * np.maximum(first - 1, 0))

    ends = np.zeros(chain.channels, np.int64), np.full(chain.channels, domain.size - 1)
    if not any(undefined(end).any() for end in ends):
        return ends
    return outward(-1, middle + 1), outward(+1, domain.size - middle)


def _none(chain: Chain) -> Array:
    return np.zeros((chain.channels, 0), np.int64)


def _final_step(chain: Chain) -> tuple[Array, Array]:
    """Return the thresholds and levels of the Step that ends the chain."""
    term = chain.expression.terms[-1]
    assert isinstance(term.op, Step)  # the caller traced the chain from one
    return chain.operand(term.operands[1]), chain.operand(term.operands[2])


def _first_true(holds: Callable[[Array], Array], size: int, channels: int) -> tuple[Array, int]:
    """Return, a channel, the first index at which a rising predicate holds (size if none)."""
    low = np.zeros(channels, np.int64)
    high = np.full(channels, size, np.int64)
    rounds = 0
    while (low < high).any():
        middle = (low + high) // 2
        held = holds(np.minimum(middle, size - 1))
        high = np.where(held & (low < high), middle, high)
        low = np.where(held | (low >= high), low, middle + 1)
        rounds += 1
    return low, rounds


def scrutinised(
    chain: Chain,
    found: Found,
    domain: Integers | Floats,
    direction: Array,
    slack: Array | float = 0.0,
) -> tuple[float | None, tuple[Undecided, ...]]:
    """Return (smallest distance or None, undecided accumulators) of a chain's thresholds.

    The distance is between the chain's value and the Step's nearest threshold, over both neighbours
    of every change. Accumulators are undecided where a float32 evaluation in another order could
    reach another level, or where the accumulator itself could be off by `slack`: looked for outward
    from every change and inward from both ends. A channel that is not monotone can come near a
    decision anywhere, so there every integer is looked at.
    """
    smallest = np.inf
    ranges: list[Undecided] = []
    starts = _starts(found, domain)
    for j in range(starts.shape[1]):
        above = starts[:, j]
        below = above - 1
        for side in (below, above):
            inside = (side >= 0) & (side < domain.size)
            at = np.clip(side, 0, domain.size - 1)
            change = inside & (above > 0) & (above < domain.size)
            smallest = min(smallest, _distance(chain, domain, at, change))
        low = _walk(chain, domain, below, -1, slack)
        high = _walk(chain, domain, above, +1, slack)
        for c in np.nonzero(high - low > 1)[0].tolist():
            edges = domain.at(np.clip([low[c] + 1, high[c] - 1], 0, domain.size - 1))
            ranges.append(Undecided(c, edges[0].item(), edges[1].item()))
    if isinstance(domain, Integers):
        ranges += _everywhere(chain, domain, direction == UNKNOWN)
    return smallest if np.isfinite(smallest) else None, tuple(dict.fromkeys(ranges))


def _everywhere(chain: Chain, domain: Integers, of: Array) -> Iterator[Undecided]:
    """Yield each undecided accumulator of the channels `of`, bool [C], from a look at all."""
    values = domain.at(np.arange(domain.size))[:, np.newaxis]
    for part in _channel_slices(chain, domain.size):
        if of[part].any():
            some = chain.of(part)
            x = np.broadcast_to(values, (domain.size, some.channels))
            open_ = ~_decided(some, x) & of[part]
            for c, i in zip(*(found.tolist() for found in np.nonzero(open_.T)), strict=True):
                n = values[i, 0].item()
                yield Undecided(part.start + c, n, n)


def _starts(found: Found, domain: Integers | Floats) -> Array:
    """Return the index of every change and, for integers, of both ends of the domain, [C, T + 2].

    Sums of 1e38, where float32 overflows, are no decisions of a model.
    """
    reached = found.thresholds != never(found.thresholds)
    inner = np.where(reached, domain.index(found.thresholds), domain.size)
    if isinstance(domain, Floats):
        return inner
    ends = np.broadcast_to([0, domain.size], (len(inner), 2))
    return np.concatenate([inner, ends], axis=1)


def _distance(chain: Chain, domain: Integers | Floats, index: Array, of: Array) -> float:
    """Return the smallest distance to a decision over the channels `of`."""
    value, _ = spread(chain, domain.at(index)[np.newaxis])
    thresholds, _ = _final_step(chain)
    with np.errstate(invalid="ignore"):  # a decision that is never met is infinitely far away
        apart = np.abs(value[0][:, np.newaxis] - thresholds)
    gaps = np.where(np.isnan(apart), np.inf, apart).min(axis=1, initial=np.inf)
    return float(gaps[of].min(initial=np.inf))


def _walk(
    chain: Chain, domain: Integers | Floats, start: Array, step: int, slack: Array | float
) -> Array:
    """Return, a channel, the first decided index from `start` on.

    Integers go one by one at first, so that ranges are tight; then, and for floats at once, the
    step doubles, so that a range may be twice too wide: more is called undecided, never less.
    """
    index, stride, walked = start.copy(), step, 0
    while True:
        inside = (index >= 0) & (index < domain.size)
        at = np.clip(index, 0, domain.size - 1)
        open_ = inside & ~_decided(chain, domain.at(at)[np.newaxis], slack)[0]
        if not open_.any():
            return index
        index = np.where(open_, index + stride, index)
        walked += 1
        stride *= 2 if isinstance(domain, Floats) or walked > _ONE_BY_ONE else 1


def _decided(chain: Chain, x: Array, slack: Array | float = 0.0) -> Array:
    """Return whether every float32 order gives the same level at accumulators x, bool [M, C].

    Args:
        chain: of C channels.
        x: [M, C].
        slack: how far x itself could be off, [C].
    """
    value, bound = spread(chain, x, slack)
    thresholds, levels = _final_step(chain)
    finite = np.where(np.isfinite(bound), bound, 0)
    ends = [_level(end, thresholds, levels) for end in (value - finite, value + finite)]
    return np.asarray((ends[0] == ends[1]) & np.isfinite(bound))


def _level(value: Array, thresholds: Array, levels: Array) -> Array:
    """Return the level of values [M, C], by thresholds [C or 1, T] and levels [C or 1, T + 1]."""
    found = np.broadcast_to(levels[:, 0], value.shape)
    for threshold, level in zip(thresholds.T, levels.T[1:], strict=True):
        found = np.where(value >= threshold, level, found)
    return found
