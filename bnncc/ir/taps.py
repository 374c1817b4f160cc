"""Where each tap of a window finds the planes of an image: copies whose bits are output pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnncc.ir.storage import pack_bits, unpack_bits
from bnncc.ir.types import Array, PixelPlanes
from bnncc.ir.window import Axis, Window

__all__ = ["Copy", "TapPlanes"]


@dataclass(frozen=True)
class Copy:
    """One copy of an image's planes: row r holds, for each output column, what lies under a tap.

    Attributes:
        column: the tap's place in the kernel's row.
        first, step: row r holds row first + r * step of the image, which may lie outside.
        rows: how many there are.
    """

    column: int
    first: int
    step: int
    rows: int


@dataclass(frozen=True)
class TapPlanes:
    """Copies of an image's planes, so that all taps of a window find theirs at the same lanes.

    Stored as words of 32 bits [N, words]: the copies, one after the other, of each the planes of
    all channels, of each rows of `pitch` bits, filled up with zeros; if `inverted`, all of that
    again with every bit of the rows inverted; and a plane of zeros in the end. Where elements have
    several planes, all of this follows for the next, so that a channel's are `part` words apart.

    Attributes:
        window: of one or two axes.
        sizes: the image's [H, W] or [W].
        channels: how many there are.
        pads: for each plane of an element, the bit outside of the image.
        pitch: bits from one row of outputs to the next.
        lanes: of a slice.
        by_row: whether a tap of another row finds its planes a row further in the same copy, where
            slices may start at any byte; else there is a copy for each tap, on whole words.
        inverted: whether complements are kept too.
        word_bits: of the words in which they are best computed; no bit of them depends on it.
        band: rows of outputs that the copies are for at a time, whole slices of them; 0 for all.
    """

    window: Window
    sizes: tuple[int, ...]
    channels: int
    pads: tuple[int, ...]
    pitch: int
    lanes: int
    by_row: bool
    inverted: bool
    word_bits: int
    band: int = 0

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The window's axes, rows first."""
        rows, columns = (*(Axis(1),) * (2 - len(self.sizes)), *self.window.axes)
        return rows, columns

    @property
    def extents(self) -> tuple[int, int]:
        """The image's rows and columns."""
        height, width = (*(1,) * (2 - len(self.sizes)), *self.sizes)
        return height, width

    @property
    def outputs(self) -> tuple[int, int]:
        """The rows and columns of the result."""
        rows, columns = (a.outputs(n) for a, n in zip(self.axes, self.extents, strict=True))
        return rows, columns

    @property
    def plane(self) -> int:
        """Words of one plane of the result."""
        return PixelPlanes(self.pitch, self.lanes).words(self.outputs[0])

    @property
    def rows(self) -> int:
        """Rows of outputs that the copies are for at a time."""
        return self.band or self.outputs[0]

    @property
    def bands(self) -> int:
        """How many times copies are made."""
        return -(-self.outputs[0] // self.rows)

    @property
    def held(self) -> int:
        """Words of one plane for so many rows."""
        return PixelPlanes(self.pitch, self.lanes).words(self.rows)

    @cached_property
    def copies(self) -> tuple[Copy, ...]:
        """The copies in order."""
        y, x = self.axes
        rows = self.rows
        if not self.by_row:
            places = [(j, i) for j in range(y.kernel) for i in range(x.kernel)]
            return tuple(Copy(i, j * y.dilation - y.before, y.stride, rows) for j, i in places)
        starts = sorted({j * y.dilation % y.stride for j in range(y.kernel)})
        last = max(j * y.dilation // y.stride for j in range(y.kernel))
        return tuple(
            Copy(i, start - y.before, y.stride, rows + last)
            for start in starts
            for i in range(x.kernel)
        )

    @property
    def copy_words(self) -> int:
        """Words of one plane of a copy: a slice may start at any row that a tap has."""
        further = (self.copies[0].rows - self.rows) * self.pitch
        return self.held + -(-further // 32)

    @property
    def half(self) -> int:
        """Words of all copies; their complements follow."""
        return len(self.copies) * self.channels * self.copy_words

    @property
    def zeros(self) -> int:
        """The byte where the first plane of zeros starts."""
        return 4 * self.half * (1 + self.inverted)

    @property
    def part(self) -> int:
        """Words from one plane of an element to the next."""
        return self.zeros // 4 + self.held

    @property
    def words(self) -> int:
        """All words."""
        return len(self.pads) * self.part

    def offsets(self) -> Array:
        """Return the byte at which each tap's first planes start, int64 [*kernel, channels]."""
        y, x = self.axes
        places = np.zeros((y.kernel, x.kernel), np.int64)
        index = {(copy.column, copy.first): n for n, copy in enumerate(self.copies)}
        for j, i in np.ndindex(places.shape):
            if self.by_row:
                further, start = divmod(j * y.dilation, y.stride)
                copy = index[i, start - y.before]
            else:
                further, copy = 0, index[i, j * y.dilation - y.before]
            first = 4 * copy * self.channels * self.copy_words
            places[j, i] = first + further * self.pitch // 8
        planes = 4 * self.copy_words * np.arange(self.channels)
        return (places[..., np.newaxis] + planes).reshape(*self.window.kernel, self.channels)

    def inside(self) -> Array:
        """Return bool [taps, rows, columns of the result]: whether a tap lies in the image."""
        valid = self.window.valid(self.sizes)
        return valid.reshape(self.window.taps, *self.outputs)

    def spread(self, bits: Array, band: int = 0) -> Array:
        """Return uint32 [N, words] that hold planes 0/1 [N, planes, channels, *sizes]."""
        parts = [self._spread(bits[:, p], pad, band) for p, pad in enumerate(self.pads)]
        return np.concatenate(parts, axis=1)

    def _spread(self, bits: Array, pad: int, band: int) -> Array:
        """Return the words of one plane of the elements, 0/1 [N, channels, *sizes]."""
        count = len(bits)
        image = bits.reshape(count, self.channels, *self.extents)
        copies = np.stack([self._copied(image, copy, pad, band) for copy in self.copies], axis=1)
        flat = copies.reshape(count, len(self.copies), self.channels, -1)
        unused = 32 * self.copy_words - flat.shape[-1]
        sides = (flat, 1 - flat) if self.inverted else (flat,)
        filled = [np.pad(side, [(0, 0)] * 3 + [(0, unused)]) for side in sides]
        words = [pack_bits(side, 32).reshape(count, -1) for side in filled]
        return np.concatenate([*words, np.zeros((count, self.held), np.uint32)], axis=1)

    def _copied(self, image: Array, copy: Copy, pad: int, band: int) -> Array:
        """Return a copy's bits [N, channels, rows, pitch]."""
        x = self.axes[1]
        height, width = self.extents
        rows = copy.first + copy.step * (band * self.rows + np.arange(copy.rows))
        columns = copy.column * x.dilation - x.before + x.stride * np.arange(self.pitch)
        columns[self.outputs[1] :] = -1
        taken = image[:, :, np.clip(rows, 0, height - 1)][..., np.clip(columns, 0, width - 1)]
        above_or_below = (rows < 0) | (rows >= height)
        outside = above_or_below[:, np.newaxis] | (columns < 0) | (columns >= width)
        filled = np.where(outside, np.uint8(pad), taken).astype(np.uint8)
        filled[..., self.outputs[1] :] = 0
        return filled

    def slices(self, words: Array, offsets: Array, plane: int = 0) -> Array:
        """Return what is at byte offsets [P] of words [N, words], 0/1 [N, P, plane bits].

        Args:
            words: as described above.
            offsets: of first planes.
            plane: which plane of the elements there.
        """
        octets = words.view(np.uint8)[:, 4 * plane * self.part :]
        size = 4 * self.held
        return np.stack(
            [unpack_bits(octets[:, start : start + size], 8 * size) for start in offsets], axis=1
        )
