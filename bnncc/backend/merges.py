"""From sums of classes to those of channels: butterflies and adders on bit slices, in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnncc.backend.program import SliceFunction, Step
from bnncc.ir.ops.shared_sums import ClassSums
from bnncc.ir.types import Array

__all__ = ["Merge", "merge"]

_LEAST_BITS = 5
"""Of class sums: the counters of weight 1 to 8, and one more."""


@dataclass(frozen=True, eq=False)
class Merge:
    """How the classes of a group become its channels.

    Attributes:
        bits: of the sum of a class.
        width: of that of a channel, no more than 24.
        steps: in order.
        more: by how much each channel's sum is more than the planes that it sees as they are, less
            those that it sees inverted: int64 [k].
    """

    bits: int
    width: int
    steps: tuple[Step, ...]
    more: Array


def merge(op: ClassSums, most: Array, name: str) -> Merge:
    """Return how classes are merged, in widths that hold any sum, whatever the weights.

    No channel's sum has all bits set, so that there is a limit which all are below.

    Args:
        op: the layer.
        most: the most that each class can sum up to, [groups, classes].
        name: the program's.
    """
    bits = max(_LEAST_BITS, int(most.max() + (op.k == 1)).bit_length())
    return (_by_threes if op.ternary else _by_twos)(op.k, bits, most, name)


def _by_twos(k: int, bits: int, most: Array, name: str) -> Merge:
    """Return how classes of signs are merged.

    Channel 0 is the sum of all classes, T; channel j is T - 2 N, with N that of the classes which
    it sees inverted. Round j finds N of channel j, whose signs differ between each two sums that
    follow one another, then makes them one.

    Args:
        k: channels in a group.
        bits: of the sum of a class.
        most: that each class can sum up to, [groups, classes].
        name: the program's.
    """
    widths = _widths(most)
    steps: list[Step] = []
    inverted: list[str] = []
    for j in range(1, k):
        left = 1 << (k - 1 - j)
        parts = [f"sums[{2 * i + 1}]" for i in range(left)]
        for doublings in range(j - 1, k - 2):
            held = [f"rest[{j - 1 + i}]" for i in range(len(parts) // 2)]
            add = SliceFunction(name, "add", widths[doublings])
            steps += [
                add.step(to, a, b) for to, a, b in zip(held, parts[::2], parts[1::2], strict=True)
            ]
            parts = held
        inverted += parts
        add = SliceFunction(name, "add", widths[j - 1])
        steps += [
            add.step(f"sums[{i}]", f"sums[{2 * i}]", f"sums[{2 * i + 1}]") for i in range(left)
        ]
    more = np.zeros(k, np.int64)
    if k == 1:
        return Merge(bits, bits, (Step("sums[0]", channel=0),), more)
    total = widths[-1] + 1
    less = SliceFunction(name, "less_twice", total)
    for j, of in enumerate(inverted, 1):
        steps += [less.step("channel", "sums[0]", of), Step("channel", channel=j)]
    more[1:] = 1 << total
    steps += [Step(f"sums[0][{total}] = bnn_slice_fill(0)"), Step("sums[0]", channel=0)]
    return Merge(bits, total + 1, tuple(steps), more)


def _widths(most: Array) -> tuple[int, ...]:
    """Return how many bits hold the sums of 1, 2, 4, ... classes of signs that are added."""
    rounds = most.shape[1].bit_length() - 1
    largest = [1] * rounds
    folded = most
    for j in range(rounds):
        largest[j] = max(largest[j], folded.max())
        inverted = folded[:, 1::2]
        for doublings in range(j + 1, rounds):
            inverted = inverted[:, ::2] + inverted[:, 1::2]
            largest[doublings] = max(largest[doublings], inverted.max())
        folded = folded[:, ::2] + folded[:, 1::2]
    return tuple(int(n).bit_length() for n in largest)


@dataclass(frozen=True)
class _Number:
    """A number in slices: where it is, the most that it can be, and how many slices it has."""

    at: str
    most: int
    bits: int


def _by_threes(k: int, bits: int, most: Array, name: str) -> Merge:
    """Return how classes of signs and zeros are merged.

    Each round takes one channel, the last that is left, out of the classes. Of three classes that
    differ in it alone, the sum is a class of the other channels. The channel is A - 2 N: A is what
    enters it, two of each three and the class that enters no other; N is one of each three.
    """
    first = bits
    more = np.zeros(k, np.int64)
    rounds: list[tuple[list[Step], int, list[Step]]] = []
    for j in range(k - 1, 0, -1):
        left = most.shape[1] // 3
        tops = [int(each) for each in most.max(axis=0)]
        steps: list[Step] = []
        entering, inverted = [_Number(f"sums[{3 * left}]", tops[-1], bits)], []
        pairs = [int((most[:, i] + most[:, i + 1]).max()) for i in range(0, 3 * left, 3)]
        paired = max(bits, max(pairs).bit_length())
        add = SliceFunction(name, "add", bits, bits, paired)
        for i, both in zip(range(0, 3 * left, 3), pairs, strict=True):
            steps.append(add.step(f"sums[{i}]", f"sums[{i}]", f"sums[{i + 1}]"))
            entering.append(_Number(f"sums[{i}]", both, paired))
            inverted.append(_Number(f"sums[{i + 1}]", tops[i + 1], bits))
        a = _summed(entering, [f"rest[{i}]" for i in range(left // 2 + 1)], steps, name)
        n = _summed(inverted, [], steps, name)
        total = max(a.bits, (a.most + 1).bit_length(), n.bits + 1)
        steps += [*_extended(a, total), *_extended(n, total - 1)]
        steps.append(SliceFunction(name, "less_twice", total).step("channel", a.at, n.at))
        more[j] = 1 << total
        most = most[:, :-1].reshape(len(most), left, 3).sum(axis=2)
        after = max(paired, int(most.max()).bit_length())
        add = SliceFunction(name, "add", paired, bits, after)
        others = [
            add.step(f"sums[{i}]", f"sums[{3 * i}]", f"sums[{3 * i + 2}]") for i in range(left)
        ]
        rounds.append((steps, total, others))
        bits = after
    width = max((int(most.max()) + 1).bit_length(), bits, *(total + 1 for _, total, _ in rounds))
    done: list[Step] = []
    for j, (steps, total, others) in zip(range(k - 1, 0, -1), rounds, strict=True):
        channel = _Number("channel", 0, total + 1)
        done += [*steps, *_extended(channel, width), Step("channel", channel=j), *others]
    done += [*_extended(_Number("sums[0]", 0, bits), width), Step("sums[0]", channel=0)]
    return Merge(first, width, tuple(done), more)


def _extended(number: _Number, bits: int) -> list[Step]:
    """Return what gives a number more bits."""
    text = f"bnn_slices_extend({number.bits}u, {bits}u, {number.at})"
    return [Step(text)] if number.bits < bits else []


def _summed(numbers: list[_Number], places: list[str], steps: list[Step], name: str) -> _Number:
    """Return the sum of numbers, and add how it is made to steps; the narrowest are added first.

    Args:
        numbers: what to add.
        places: where sums of two of them go; if there are none, one of the two is overwritten.
        steps: what has been done.
        name: the program's.
    """
    free = list(places)
    while len(numbers) > 1:
        numbers.sort(key=lambda number: number.bits, reverse=True)
        narrow, wide = numbers.pop(), numbers.pop()
        most = wide.most + narrow.most
        after = max(wide.bits, most.bit_length())
        held = [at for at in (wide.at, narrow.at) if at in places or not places]
        to = held[0] if held else free.pop()
        add = SliceFunction(name, "add", wide.bits, narrow.bits, after)
        steps.append(add.step(to, wide.at, narrow.at))
        numbers.append(_Number(to, most, after))
    return numbers[0]
