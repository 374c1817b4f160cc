"""Gathers of packed bits as moves of whole words, as far as bits lie side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.nests import access, pixel_index, place_rule
from bnncc.backend.program import (
    Access,
    BitList,
    BitRun,
    Constant,
    Gathered,
    GatherWork,
    Piece,
    WordRun,
)
from bnncc.ir.ops.kernels import GatherBits
from bnncc.ir.types import PackedChannels, TensorType

__all__ = ["gather_work"]

_FEWEST_BITS = 4
"""Bits at equal distances that make a loop; fewer are pieces of words."""
_MOST_PIECES = 64
"""Single bits that follow no rule, above which a table lists them."""
_IN_WORDS = [[1, 2], [1, 4], [1, 8]]
"""Distances, here and there, of bits that a word is expanded or compressed to."""
_REACH = 64
"""How many channels on the next one at an equal distance is looked for."""


def gather_work(
    op: GatherBits, result: TensorType, names: Sequence[str], hint: str
) -> tuple[GatherWork, tuple[Constant, ...]]:
    """Return the loops of a gather, and the tables of places that they read.

    Args:
        op: what is gathered.
        result: the result's type.
        names: the parameters that point to the operands.
        hint: the start of the tables' names.
    """
    layouts = [_layout(source) for source in op.sources]
    runs = _runs(_bit_places(op, layouts))
    whole, single, spread = _sorted_out(runs)
    tables: list[Constant] = []
    to = access(result)
    listed = len(single) > _MOST_PIECES
    lists = _listed(single, to, tables, hint) if listed else []
    counts, source, target, more = _pixels(op, result, hint)
    operands = tuple(
        Gathered(name, at.pixel, at.plane if at.planes == to.planes else 0)
        for name, at in zip(names, map(access, op.sources), strict=True)
    )
    work = GatherWork(
        operands,
        to.word_bits,
        to.planes,
        to.pixel,
        to.plane,
        counts,
        source,
        target,
        tuple(_words(whole + single * (not listed), op.sources, to.word_bits, to.pixel)),
        tuple(spread),
        tuple(lists),
    )
    return work, (*tables, *more)


def _layout(kind: TensorType) -> PackedChannels:
    assert isinstance(kind.layout, PackedChannels)  # GatherBits reads and writes no others
    return kind.layout


# --- Runs of bits ---------------------------------------------------------------------------------


def _bit_of(channel: int, channels: int, layout: PackedChannels) -> int:
    """Return the place of a channel among the bits of a pixel's words."""
    group, rest = divmod(channel, channels // layout.groups)
    words = layout.words(channels) // layout.groups
    return group * words * layout.word_bits + rest


def _bit_places(op: GatherBits, layouts: Sequence[PackedChannels]) -> dict[int, tuple[int, int]]:
    """Return (operand, its bit) for each used bit of the result, ascending."""
    count = len(op.channels)
    return {
        _bit_of(c, count, op.to): (s, _bit_of(k, op.sources[s].shape[1], layouts[s]))
        for c, (s, k) in enumerate(op.channels)
    }


def _runs(places: dict[int, tuple[int, int]]) -> Iterator[BitRun]:
    """Yield bits at equal distances here and there, every bit in one run, long ones first found."""
    left = dict(places)
    while left:
        to = next(iter(left))
        run = _longest(left, to)
        for i in range(run.count):
            del left[run.to_first + run.to_step * i]
        yield run


def _longest(left: dict[int, tuple[int, int]], to: int) -> BitRun:
    """Return the longest run that starts at a bit; of equally long ones the nearest."""
    operand, first = left[to]
    best = BitRun(operand, 1, first, 1, to, 1)
    for to_step in range(1, _REACH + 1):
        following = left.get(to + to_step)
        if following is None or following[0] != operand or following[1] < first:
            continue
        step = following[1] - first
        count = 2
        while left.get(to + to_step * count) == (operand, first + step * count):
            count += 1
        if count > best.count:
            best = BitRun(operand, count, first, step, to, to_step)
        if step == to_step == 1:
            break  # words move at once
    return best


def _sorted_out(runs: Iterator[BitRun]) -> tuple[list[BitRun], list[BitRun], list[BitRun]]:
    """Return runs that move in words, single bits, and long runs that move bit by bit."""
    whole: list[BitRun] = []
    single: list[BitRun] = []
    spread: list[BitRun] = []
    for run in runs:
        side_by_side = run.step == run.to_step == 1
        distances = sorted((run.step, run.to_step))
        if run.count > 1 and side_by_side:
            whole.append(run)
        elif run.count >= _FEWEST_BITS:
            (whole if distances in _IN_WORDS else spread).append(run)
        else:
            places = ((run.first + run.step * i, run.to_step * i) for i in range(run.count))
            single += [BitRun(run.operand, 1, at, 1, run.to_first + to, 1) for at, to in places]
    return whole, single, spread


def _listed(
    single: Sequence[BitRun], to: Access, tables: list[Constant], hint: str
) -> list[BitList]:
    """Return the bits of each operand by a table, those of each word of the result together."""
    found = []
    for operand in sorted({run.operand for run in single}):
        bits = sorted((run.to_first, run.first) for run in single if run.operand == operand)
        there = [(at, bit % to.word_bits) for bit, at in bits]
        ends = [sum(bit < (word + 1) * to.word_bits for bit, _ in bits) for word in range(to.pixel)]
        names = []
        for what, values in (("bits", np.array(there)), ("ends", np.array(ends))):
            held = values.astype(np.uint16 if values.max() < 1 << 16 else np.uint32)
            tables.append(constant(f"{hint}_{what}{operand}", held, "parameters"))
            names.append(tables[-1].name)
        found.append(BitList(operand, *names))
    return found


# --- Words ----------------------------------------------------------------------------------------


def _words(
    runs: Sequence[BitRun], sources: Sequence[TensorType], word_bits: int, words: int
) -> Iterator[WordRun]:
    """Yield the words of a pixel in order, those that differ by their place alone together."""
    pieces: dict[int, dict[Piece, int]] = {word: {} for word in range(words)}
    for run in runs:
        for word, piece in _cut(run, word_bits):
            place = replace(piece, mask=0)
            pieces[word][place] = pieces[word].get(place, 0) | piece.mask
    held = [
        (word, tuple(_relative(sources, word, piece, mask, word_bits) for piece, mask in found))
        for word, found in ((word, some.items()) for word, some in pieces.items())
    ]
    for _, group in groupby(held, key=lambda entry: entry[1]):
        (first, same), *others = group
        own = tuple(replace(piece, word=piece.word + first) for piece in same)
        yield WordRun(first, 1 + len(others), own)


def _cut(run: BitRun, word_bits: int) -> Iterator[tuple[int, Piece]]:
    """Yield (word here, piece) for bits at distances that are powers of two, one of them 1."""
    wide, to_wide = word_bits // run.step, word_bits // run.to_step  # bits of one word
    done = 0
    while done < run.count:
        word, low = divmod(run.to_first + run.to_step * done, word_bits)
        there, at = divmod(run.first + run.step * done, word_bits)
        place, from_place = low // run.to_step, at // run.step
        count = min(run.count - done, to_wide - place, wide - from_place)
        shift = place - from_place
        yield (
            word,
            Piece(
                run.operand,
                there,
                max(shift, 0),
                max(-shift, 0),
                ((1 << count) - 1) << place,
                run.step.bit_length() - 1,
                at % run.step,
                run.to_step.bit_length() - 1,
                low % run.to_step,
            ),
        )
        done += count


def _relative(
    sources: Sequence[TensorType], word: int, piece: Piece, mask: int, word_bits: int
) -> Piece:
    """Return a piece, its word counted from the result's, without a mask that changes nothing."""
    used = _used(sources[piece.operand], piece.word) >> piece.from_bit
    step = 1 << piece.compressed
    taken = sum((used >> (i * step) & 1) << i for i in range(word_bits // step))
    left = (taken << piece.left >> piece.right) & ((1 << (word_bits >> piece.expanded)) - 1)
    return replace(piece, word=piece.word - word, mask=0 if left == mask else mask)


def _used(kind: TensorType, word: int) -> int:
    """Return the bits of one of a pixel's words that belong to channels."""
    layout = _layout(kind)
    channels = kind.shape[1] // layout.groups
    place = word % (layout.words(kind.shape[1]) // layout.groups)
    bits = min(layout.word_bits, channels - place * layout.word_bits)
    return (1 << bits) - 1


# --- Pixels ---------------------------------------------------------------------------------------


def _pixels(
    op: GatherBits, result: TensorType, hint: str
) -> tuple[tuple[int, ...], str, str, list[Constant]]:
    """Return the loops over pixels, the pixels there and here, and tables of places."""
    if op.places is None:
        pixels = int(np.prod(result.shape[2:]))
        index = "i0" if pixels > 1 else "0u"
        return (pixels,), index, index, []
    tables: list[Constant] = []
    at = ["0u"]  # in the place of the channel
    for loop, places in enumerate(op.places):
        index = place_rule(places, loop)
        if not index:
            held = np.asarray(places, np.uint16 if max(places) < 1 << 16 else np.uint32)
            tables.append(constant(f"{hint}_places{loop}", held, "parameters"))
            index = f"{tables[-1].name}[i{loop}]"
        at.append(index)
    counts = tuple(map(len, op.places))
    to = ["0u", *(f"i{loop}" if count > 1 else "0u" for loop, count in enumerate(counts))]
    return counts, pixel_index(at, op.sources[0]), pixel_index(to, result), tables
