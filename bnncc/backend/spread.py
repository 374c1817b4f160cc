"""Copies of planes as C: one for every column of taps, and every row of them that needs one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.program import Constant, SpreadColumn, SpreadRows, SpreadWork
from bnncc.ir.ops.shared_sums import Spread
from bnncc.ir.taps import Copy, TapPlanes
from bnncc.ir.types import Array, PixelPlanes, TensorType

__all__ = ["spread_work"]

_OUTSIDE = "outside"
"""What the template calls a word of what lies outside of the image."""


def spread_work(op: Spread, x: TensorType, hint: str) -> tuple[SpreadWork, tuple[Constant, ...]]:
    """Return how planes are copied for the taps of a window, and the masks where a loop needs them.

    Args:
        op: the operation.
        x: its operand.
        hint: the start of the masks' names.
    """
    taps = op.taps
    assert isinstance(x.layout, PixelPlanes)  # Spread.infer asked
    form, bits = _form(op)
    height = taps.extents[0]
    masks, image = _Masks.of(taps), _image(op, form, bits)
    groups = tuple(
        _rows(op, copies, bits * image.guard + first * op.pitch, masks, (form, bits))
        for first, copies in _by_first(taps.copies)
    )
    tables = masks.tables(hint) if form == "single" else ()
    used = taps.copies[0].rows * taps.pitch
    last = used % bits
    cleared = -(-used // 32) if form in ("moved", "paired") else used // 32 if taps.by_row else 0
    work = SpreadWork(
        form=form,
        bits=bits,
        load=f"bnn_bits{bits}" if taps.by_row else "bnn_aligned_bits32",
        planes=len(taps.pads),
        channels=taps.channels,
        x_words=x.layout.words(height),
        image=-(-height * op.pitch // 32),
        behind=_if_set(_behind(height * op.pitch, bits), taps) if any(taps.pads) else "",
        last=image.guard + (height * op.pitch - 1) // bits,
        guard=image.guard,
        buffer=image.words,
        outside=_OUTSIDE if _varies(taps) else _literal(taps.pads[0] * ((1 << bits) - 1), bits),
        pads=sum(pad << p for p, pad in enumerate(taps.pads)) if _varies(taps) else 0,
        fills=tables[1].values.size // 2 if tables and _varies(taps) else 0,
        groups=groups,
        keep=tables[0].name if tables else "",
        fill=tables[1].name if tables else "",
        period=max(1, taps.pitch // (32 if form == "wide" else bits)),
        whole=used // bits,
        tail=_literal((1 << last) - 1, bits) if last else "",
        tail_words=-(-last // 32),
        used=-(-used // 32),
        cleared=0 if form == "single" else cleared,
        copy_words=taps.copy_words,
        half=taps.half if taps.inverted else 0,
        part=taps.part,
        zeros=taps.zeros // 4,
        plane=taps.held,
        rows=taps.copies[0].rows,
        row_bits=taps.axes[0].stride * op.pitch,
        stride=taps.axes[1].stride,
        pitch=taps.pitch,
        row_mask=_literal((1 << min(taps.pitch, 32)) - 1, 32),
        by_bytes=taps.by_row,
        step=taps.band * taps.axes[0].stride * op.pitch // 32,
    )
    return work, tables


def _form(op: Spread) -> tuple[str, int]:
    """Return how copies are made, see SpreadWork, and of how many bits the words are for that."""
    taps = op.taps
    rows, columns = taps.axes
    bits = taps.word_bits if taps.by_row else 32
    if max(op.pitch, bits) % min(op.pitch, bits):  # masks of a row repeat in whole words
        bits = 32
    if rows.stride == columns.stride == 1 and op.pitch == taps.pitch:
        return "moved", bits
    within = max(columns.before, columns.kernel * columns.dilation - columns.before) < 64
    words = (bits, op.pitch % 64, taps.pitch % 32) == (64, 0, 0)
    if words and columns.stride == 2 and within and op.pitch > 64:
        return "wide", 64
    if columns.stride > 2 or op.pitch > bits or taps.pitch > 32:
        return "single", 32
    if columns.stride == 1:
        return "rows", max(32, op.pitch)
    two_rows = bits == 64 and (op.pitch, taps.pitch) == (32, 16)
    return ("paired", 32) if two_rows else ("halved", max(32, op.pitch))


@dataclass(frozen=True)
class _Image:
    """One plane with what lies outside of it: words in front, and all words."""

    guard: int
    words: int


def _image(op: Spread, form: str, bits: int) -> _Image:
    taps = op.taps
    columns = taps.axes[1]
    before = max(0, -min(c.first for c in taps.copies)) * op.pitch + columns.before
    guard = -(-before // bits) + 1
    furthest = max(0, max(c.column for c in taps.copies) * columns.dilation - columns.before)
    if form == "moved":  # all rows as one
        rows = -(-taps.copies[0].rows * op.pitch // bits) * bits
        end = max(c.first for c in taps.copies) * op.pitch + furthest + rows
    else:
        lowest = max(c.first + (c.rows - 1) * c.step for c in taps.copies)
        end = lowest * op.pitch + furthest + columns.stride * (taps.pitch + bits) + 2 * bits
    whole = 0 if taps.band else taps.extents[0] * op.pitch
    return _Image(guard, guard + -(-max(end, whole) // bits) + 1)


def _by_first(copies: tuple[Copy, ...]) -> list[tuple[int, list[tuple[int, Copy]]]]:
    """Return copies with their numbers, together where they start in the same row."""
    numbered = enumerate(copies)
    return [(k, list(group)) for k, group in itertools.groupby(numbered, lambda c: c[1].first)]


def _rows(
    op: Spread,
    copies: list[tuple[int, Copy]],
    start: int,
    masks: _Masks,
    how: tuple[str, int],
) -> SpreadRows:
    """Return the copies that start at a bit of the image.

    Args:
        op: the operation.
        copies: with their numbers.
        start: that bit.
        masks: see there.
        how: the form and the bits of a word.
    """
    form, bits = how
    axis, words = op.taps.axes[1], op.taps.channels * op.taps.copy_words
    columns = []
    for number, copy in copies:
        offset = copy.column * axis.dilation - axis.before
        halved = form in ("halved", "paired", "wide")
        phase, moved = (offset % 2, offset // 2) if halved else (0, offset)
        row = f"half{phase}" if halved else "row"
        # What comes from another row then is masked.
        inside = bits % op.pitch == 0 and abs(moved) < bits
        value = _moved(row, moved) if inside else ""
        places = tuple(
            (keep, _if_set(fill, op.taps))
            for keep, fill in masks.literals(copy.column, 32 if form == "wide" else bits)
        )
        to, bit = number * words, start + offset
        columns.append(SpreadColumn(to, bit, value, copy.column, places, phase, moved))
    return SpreadRows(start, tuple(columns))


def _varies(taps: TapPlanes) -> bool:
    """Whether the bit outside of the image is not the same in all planes of an element."""
    return len(set(taps.pads)) > 1


def _if_set(word: str, taps: TapPlanes) -> str:
    """Return bits outside of an image as they are in a plane, in C."""
    return f"({word} & {_OUTSIDE})" if word and _varies(taps) else word


def _moved(value: str, bits: int) -> str:
    return f"{value} {'<<' if bits < 0 else '>>'} {abs(bits)}" if bits else value


@dataclass(frozen=True, eq=False)
class _Masks:
    """Which bits of a row under each column of taps are pixels, and which are set instead.

    Attributes:
        keep, fill: 0/1 [columns of taps, pitch].
        varies: whether bits are set in some planes of an element only.
    """

    keep: Array
    fill: Array
    varies: bool

    @staticmethod
    def of(taps: TapPlanes) -> _Masks:
        """Return the masks of copies."""
        axis, width, outputs = taps.axes[1], taps.extents[1], taps.outputs[1]
        keep = np.zeros((axis.kernel, taps.pitch), np.uint8)
        places = np.arange(outputs) * axis.stride - axis.before
        taken = np.arange(axis.kernel)[:, np.newaxis] * axis.dilation + places
        keep[:, :outputs] = (taken >= 0) & (taken < width)
        fill = np.zeros_like(keep)
        fill[:, :outputs] = (1 - keep[:, :outputs]) * max(taps.pads)
        return _Masks(keep, fill, _varies(taps))

    def literals(self, column: int, bits: int) -> tuple[tuple[str, str], ...]:
        """Return, for each word until they repeat, what to keep and what to set; "" if nothing."""
        repeats = max(1, bits // self.keep.shape[1])
        words = [np.tile(m[column], repeats).reshape(-1, bits) for m in (self.keep, self.fill)]
        return tuple(
            ("" if keep.all() else _word(keep), _word(fill) if fill.any() else "")
            for keep, fill in zip(*words, strict=True)
        )

    def tables(self, hint: str) -> tuple[Constant, Constant]:
        """Return the masks as arrays, uint32 [columns of taps, words of a row].

        Where the bits to set vary, there is an array of zeros in front of them.
        """
        repeats = max(1, 32 // self.keep.shape[1])
        unset = [np.zeros_like(self.fill)] if self.varies else []
        keep, fill = (
            constant(
                f"{hint}_{name}",
                np.packbits(np.tile(m, (1, repeats)), 1, "little").view("<u4"),
                "parameters",
            )
            for name, m in (("keep", self.keep), ("fill", np.concatenate([*unset, self.fill])))
        )
        return keep, fill


def _word(bits: Array) -> str:
    value = int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
    return _literal(value, bits.size)


def _behind(bits: int, word: int) -> str:
    """Return the bits of an image's last word that lie behind it; "" if there are none."""
    used = (1 << bits % word) - 1
    return _literal((1 << word) - 1 - used, word) if used else ""


def _literal(value: int, bits: int) -> str:
    """Return an unsigned word in C."""
    return f"0x{value:0{bits // 4}x}u"
