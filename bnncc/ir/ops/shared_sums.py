"""PACKED operations of kernel family B: sums on bit slices, shared between output channels.

The weights of a layer are constants. In a group of k output channels, every plane (a bit of one
channel of the input under one tap, at all pixels) enters each channel with a sign. Up to the sign
in the group's first channel there are 2^(k-1) patterns of signs, and so as many classes of planes.
Each class is summed once; the k channels are sums and differences of the classes.

Weights of several bits are sums of signs times powers of two. The planes that enter with 2^i, those
of bit i of the weights, are counted with that, as are those of bit i of a code. Where many weights
are 0, patterns are of signs and zeros, and there are (3^k - 1) / 2 classes.

Source:
    Sharing of subsums by enumeration of patterns is due to Lupanov (1956), and known from the
    "method of the four Russians" (Arlazarov et al. 1970); counters are carry-save adders on slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from bnncc.ir.classes import PlaneCodes, class_list, class_patterns
from bnncc.ir.ops.base import Op, OpError, Scratch
from bnncc.ir.ops.kernels import Fused
from bnncc.ir.storage import (
    decode,
    encode,
    from_planar,
    pack_bits,
    pack_pixels,
    plane_count,
    unpack_pixels,
)
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import (
    DENSE,
    Array,
    Element,
    PackedChannels,
    PixelPlanes,
    Planar,
    Stage,
    TensorType,
)

__all__ = ["ClassSums", "PoolPlanes", "SharedConv", "SharedSums", "Spread"]

_LOWERED = frozenset({Stage.BINARY, Stage.PACKED})


@dataclass(frozen=True)
class Spread(Op):
    """The planes of x [N, C, *S] in PixelPlanes, copied for the taps of a window.

    Attributes:
        taps: what it makes.
        pitch: of x.
    """

    taps: TapPlanes
    pitch: int

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return words [1, words]."""
        (x,) = operands
        if isinstance(x.layout, PixelPlanes) and x.layout.pitch != self.pitch:
            raise OpError(f"the rows of {x} are not {self.pitch} bits apart")
        if not isinstance(x.layout, PixelPlanes) or x.shape[2:] != self.taps.sizes:
            raise OpError(f"Spread reads planes of pixels {self.taps.sizes}, not {x}")
        if (x.layout.planes, x.shape[1]) != (len(self.taps.pads), self.taps.channels):
            raise OpError(f"{self.taps.channels} channels are not those of {x}")
        return (TensorType((x.shape[0], self.taps.words), Element.WORD32),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the copies."""
        (x,) = operands
        return (self.taps.spread(unpack_pixels(x, PixelPlanes(self.pitch, 32), self.taps.sizes)),)

    def __str__(self) -> str:
        copies = len(self.taps.copies) * (1 + self.taps.inverted)
        return f"{self.name}({copies} copies for window {self.taps.window})"


@dataclass(frozen=True)
class PoolPlanes(Op):
    """MaxPool on planes of pixels: the OR of those under the window, or the AND where it falls.

    Operands (x: words [N, words] as `taps` says, then falls: U8 [C], 1 where the smallest is
    wanted, if any is). Planes must rise with x, as those of BIPOLAR and TERNARY do. Taps outside of
    the image hold 0, which only the OR is free to take.

    Attributes:
        taps: where x has the planes.
        element: of x.
    """

    taps: TapPlanes
    element: Element

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the pooled planes."""
        x, *falls = operands
        channels, planes = self.taps.channels, plane_count(self.element)
        if len(self.taps.pads) != planes:
            raise OpError(f"{self.element.value} has {planes} planes")
        if x.shape != (x.shape[0], self.taps.words):
            raise OpError(f"{x} does not hold {self.taps.words} words")
        if any(f.shape != (channels,) for f in falls):
            raise OpError(f"directions do not fit {channels} channels")
        if falls and not self.taps.inside().all():
            raise OpError("the smallest is only taken where no tap lies outside of the image")
        sizes = self.taps.outputs[2 - len(self.taps.sizes) :]
        layout = PixelPlanes(self.taps.pitch, self.taps.lanes, planes)
        return (TensorType((x.shape[0], channels, *sizes), self.element, layout),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the pooled planes."""
        x, *falls = operands
        taps = self.taps
        falling = falls[0] != 0 if falls else np.zeros(taps.channels, bool)
        pooled = [self._pooled(x, p, falling[:, np.newaxis]) for p in range(len(taps.pads))]
        return (pack_bits(np.stack(pooled, axis=1), 32),)

    def _pooled(self, x: Array, plane: int, falling: Array) -> Array:
        """Return one plane of the elements, 0/1 [N, C, plane bits]."""
        taps = self.taps
        offsets = taps.offsets().reshape(-1, taps.channels)
        under = np.stack([taps.slices(x, each, plane) for each in offsets])
        pooled: Array = np.where(falling, under.min(axis=0), under.max(axis=0))
        pooled[..., taps.outputs[0] * taps.pitch :] = 0  # copies may have further rows
        return pooled

    def __str__(self) -> str:
        return f"{self.name}({self.taps.window})"


@dataclass(frozen=True)
class ClassSums:
    """M, how much the planes of a channel that differ from its weights count, from sums of classes.

    Operands (x: words [N, words] as `taps` says; list: WORD16 or WORD32 [entries], where in x the
    first planes of each part of each class of each group start, in units of `unit` bytes; fours:
    WORD16 [groups, classes * parts], how many fours of entries those are, filled up with planes of
    zeros; one at least, unless there are several parts). Plane p of an element, of the entries in
    part i, counts 2^i, or 2^(i + p) if `of_codes`.

    The planes of a class enter the channels first + j, j = 0 ... k - 1, of a group as its row of
    `class_patterns` says. Planes are inverted where the weight of the first channel that they enter
    is +1, so that mismatches are ones.

    Where the copies are for a band of rows, x are planes of pixels instead, and the copies are made
    in scratch, one band after the other.

    Where lists are built one group at a time, list is WORD32 [groups, words] instead: the codes of
    the group's planes, see `PlaneCodes`.

    Attributes:
        taps: how x holds the planes.
        channels: O.
        k: channels in a group.
        firsts: the first channel of each group; groups may overlap.
        depth: products that a channel sums.
        slices: the header under runtime_c/slices of the slices that compute them.
        unit: see above.
        skip: whether pixels that see less than the whole window are of kinds of their own.
        pitch: of x, where x are planes of pixels.
        built: entries of the largest group, where lists are built one group at a time; else 0.
        parts: how many powers of two the weights are sums of.
        of_codes: whether the planes of an element are the bits of a code.
        levels: how many values weights have.
        ternary: whether there are classes of zeros too.
    """

    taps: TapPlanes
    channels: int
    k: int
    firsts: tuple[int, ...]
    depth: int
    slices: str
    unit: int
    skip: bool
    pitch: int = field(default=0, kw_only=True)
    built: int = field(default=0, kw_only=True)
    parts: int = field(default=1, kw_only=True)
    of_codes: bool = field(default=False, kw_only=True)
    levels: int = field(default=2, kw_only=True)
    ternary: bool = field(default=False, kw_only=True)

    @property
    def patterns(self) -> Array:
        """How the planes of each class enter the channels of a group, int8 [classes, k]."""
        return class_patterns(self.k, ternary=self.ternary)

    @property
    def classes(self) -> int:
        """How many classes a group has."""
        return len(self.patterns)

    @property
    def codes(self) -> PlaneCodes:
        """How the codes are held that lists are built from."""
        taps = self.taps.window.taps
        return PlaneCodes(taps, self.depth // taps, self.k)

    @property
    def scratch(self) -> tuple[Scratch, ...]:
        """What it needs while it runs."""
        found: list[Scratch] = []
        if self.taps.band:
            found.append(Scratch("copies", TensorType((self.taps.words,), Element.WORD32)))
        if self.built:
            found.append(Scratch("lists", TensorType((self.built,), self.built_element)))
        return tuple(found)

    @property
    def built_element(self) -> Element:
        """What the entries are of lists that are built."""
        return Element.WORD32 if self.taps.zeros // self.unit >= 1 << 16 else Element.WORD16

    def group_places(self) -> Array:
        """Return the byte where each group's planes start, before inversion, int64 [groups, P]."""
        seen = self.codes.depth
        offsets = self.taps.offsets().reshape(-1, self.taps.channels // seen, seen)
        per_part = self.channels // offsets.shape[1]
        return np.stack([offsets[:, first // per_part].reshape(-1) for first in self.firsts])

    def entries(self, lists: Array, fours: Array) -> Array:
        """Return the entries of all groups, [entries], of the operands that say them."""
        if not self.built:
            return lists
        codes, places = self.codes.unpack(lists), self.group_places()
        groups = [
            class_list(code, self.classes, place, self.taps)
            for code, place in zip(codes, places, strict=True)
        ]
        if not np.array_equal(np.stack([counts for _, counts in groups]), fours):
            raise ValueError("fours are not those of the codes")
        return np.concatenate([held for held, _ in groups]) // self.unit

    def plane_weight(self, plane: int) -> int:
        """Return what a plane of an element counts."""
        return 1 << plane if self.of_codes else 1

    def class_sums(self, lists: Array, fours: Array) -> Array:
        """Return the most that each class can sum up to, int64 [groups, classes]."""
        entries = self.entries(lists, fours)
        ends = np.cumsum(4 * fours.reshape(-1).astype(np.int64))
        real = np.concatenate([[0], np.cumsum(entries != self.taps.zeros // self.unit)])
        sizes = np.diff(real[np.concatenate([[0], ends])]).reshape(len(fours), -1, self.parts)
        sums: Array = sizes @ (1 << np.arange(self.parts)) * self._weight_of_elements
        return sums

    @property
    def _weight_of_elements(self) -> int:
        """What the planes of an element count together."""
        return sum(self.plane_weight(p) for p in range(len(self.taps.pads)))

    def kinds(self) -> tuple[Array, Array]:
        """Return the kinds of pixels.

        Returns:
            bool [kinds, taps], which taps lie in the image, and int64 [rows, columns], each
            pixel's kind.
        """
        inside = self.taps.inside()
        if not self.skip:
            return np.ones((1, len(inside)), bool), np.zeros(inside.shape[1:], np.int64)
        seen, kinds = np.unique(inside.reshape(len(inside), -1), axis=1, return_inverse=True)
        return seen.T, kinds.reshape(inside.shape[1:])

    def result_shape(self, x: TensorType, fours: TensorType) -> tuple[int, ...]:
        """Return [N, O, *outputs], or raise OpError if the operands do not fit."""
        if self.taps.band:
            Spread(self.taps, self.pitch).infer([x])
        elif x.shape != (x.shape[0], self.taps.words):
            raise OpError(f"{x} does not hold {self.taps.words} words")
        if fours.shape != (len(self.firsts), self.classes * self.parts):
            raise OpError(f"{fours} does not fit {len(self.firsts)} groups of {self.k} channels")
        sizes = self.taps.outputs[2 - len(self.taps.sizes) :]
        return (x.shape[0], self.channels, *sizes)

    def mismatches(self, x: Array, lists: Array, fours: Array) -> Array:
        """Return M, int64 [N, O, rows, columns]."""
        entries = self.entries(lists, fours)
        offsets, places = np.unique(entries.astype(np.int64) * self.unit, return_inverse=True)
        weights, always = self._weights(places, fours, len(offsets), offsets != self.taps.zeros)
        taps = self.taps
        bands: list[Array] = []
        for words in self._copies(x):
            counts: Array = np.zeros((), np.float32)
            for plane in range(len(taps.pads)):
                bits = taps.slices(words, offsets, plane).astype(np.float32)
                counts = counts + self.plane_weight(plane) * np.matmul(weights, bits)
            used = counts[..., : taps.rows * taps.pitch]
            bands.append(used.reshape(*counts.shape[:2], taps.rows, -1))
        rows, columns = taps.outputs
        wide = np.concatenate(bands, axis=2)[:, :, :rows, :columns]
        return np.asarray(wide.astype(np.int64) + always.reshape(-1, 1, 1))

    def _copies(self, x: Array) -> Iterator[Array]:
        """Yield the copies of each band, uint32 [N, words]."""
        if not self.taps.band:
            yield x
            return
        bits = unpack_pixels(x, PixelPlanes(self.pitch, 32), self.taps.sizes)
        for band in range(self.taps.bands):
            yield self.taps.spread(bits, band)

    def _weights(self, places: Array, fours: Array, count: int, real: Array) -> tuple[Array, Array]:
        """Return what each distinct plane adds to each channel, float32 [O, P], and constants."""
        weights = np.zeros((self.channels, count), np.float32)
        always = np.zeros(self.channels, np.int64)
        sizes = 4 * fours.astype(np.int64).reshape(len(self.firsts), -1)
        ends = np.cumsum(sizes).reshape(sizes.shape)
        classes, parts = np.divmod(np.arange(sizes.shape[1]), self.parts)
        for group, first in enumerate(self.firsts):
            held = places[ends[group, 0] - sizes[group, 0] : ends[group, -1]]
            pattern = np.repeat(classes, sizes[group])
            powers = np.repeat(1 << parts, sizes[group])
            for j in range(self.k):
                signs = self.patterns[pattern, j].astype(np.int64)
                row = np.zeros(count, np.float32)
                np.add.at(row, held, powers * signs)
                weights[first + j] = row
                inverted = (powers * (signs < 0) * real[held]).sum()
                always[first + j] = inverted * self._weight_of_elements
        return weights, always


@dataclass(frozen=True)
class SharedSums(ClassSums, Op):
    """Bits of mismatches compared with limits: bit = (M <= limit), or the parity of several.

    Operands (those of `ClassSums`; limits: I32 [planes, O, T, kinds], those of every kind of
    pixel).

    Attributes:
        to: what the bits are planes of.
    """

    to: Element

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    @property
    def layout(self) -> PixelPlanes:
        """How the result is stored."""
        return PixelPlanes(self.taps.pitch, self.taps.lanes, plane_count(self.to))

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the planes."""
        x, _, fours, limits = operands
        if limits.shape[:2] != (plane_count(self.to), self.channels):
            raise OpError(f"limits {limits} do not fit {self.channels} channels")
        return (TensorType(self.result_shape(x, fours), self.to, self.layout),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the packed bits."""
        x, entries, fours, limits = operands
        mismatches = self.mismatches(x, entries, fours)
        _, kinds = self.kinds()
        bits = np.zeros((len(x), limits.shape[0], *mismatches.shape[1:]), bool)
        for j in range(limits.shape[2]):
            bits ^= mismatches[:, np.newaxis] <= limits[:, :, j][..., kinds]
        return (pack_pixels(bits, self.layout),)

    def __str__(self) -> str:
        return f"{self.name}({len(self.firsts)} groups of {self.k} channels, {self.taps.window})"


@dataclass(frozen=True)
class SharedConv(ClassSums, Fused):
    """n = (base - factor * M) / divisor, then the epilogue, on planes and planar numbers.

    Operands (those of `ClassSums`; base: I32 [O, kinds], that of every kind of pixel; then the
    epilogue's). The tensors that the epilogue reads are `Planar`, or DENSE with one pixel; what it
    stores is `Planar`, or `PixelPlanes` where it stores bits. The division is exact.

    Attributes:
        factor, divisor: see above, and `XnorConv`.
    """

    factor: int
    divisor: int

    @property
    def planar(self) -> Planar:
        """How numbers are stored."""
        return Planar(self.taps.pitch, self.taps.lanes)

    @property
    def own_operands(self) -> int:
        """X, list, fours and base."""
        return 4

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return [N, O, *outputs]."""
        x, _, fours, base = operands
        if base.shape[:1] != (self.channels,):
            raise OpError(f"base {base} does not fit {self.channels} channels")
        return self.result_shape(x, fours)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the types of the stores."""
        own = self.own_operands
        for variable in operands[own : own + self.epilogue.variables]:
            one_pixel = variable.layout == DENSE and math.prod(variable.shape[2:]) == 1
            if variable.layout != self.planar and not one_pixel:
                raise OpError(f"{self.name} reads {self.planar}, not {variable}")
        return tuple(replace(kind, layout=self._layout(kind)) for kind in super().infer(operands))

    def _layout(self, kind: TensorType) -> Planar | PixelPlanes:
        if not isinstance(kind.layout, PackedChannels):
            return self.planar
        return PixelPlanes(self.taps.pitch, self.taps.lanes, kind.layout.planes)

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the accumulators n, int32 [N, *outputs, O]."""
        x, entries, fours, base = operands
        _, kinds = self.kinds()
        mismatches = self.mismatches(x, entries, fours)
        n = (base.astype(np.int64)[:, kinds] - self.factor * mismatches) // self.divisor
        sizes = self.taps.outputs[2 - len(self.taps.sizes) :]
        return np.asarray(np.moveaxis(n.reshape(*n.shape[:2], *sizes), 1, -1), np.int32)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored results."""
        own, ending = self.own_operands, self.epilogue
        values = self.values(operands[:own])
        variables = [self._last(x) for x in operands[own : own + ending.variables]]
        results = ending.store(values, [*variables, *operands[own + ending.variables :]])
        shape = (1, values.shape[-1], *values.shape[1:-1])
        return tuple(
            encode(decode(stored, kind), replace(kind, layout=self._layout(kind)))
            for stored, kind in zip(results, ending.results(shape), strict=True)
        )

    def _last(self, x: Array) -> Array:
        """Return a tensor that the epilogue reads with channels last."""
        sizes = self.taps.outputs[2 - len(self.taps.sizes) :]
        one_pixel = x.shape[2:] == (1,) * len(sizes)  # planar channels fill whole slices
        return np.moveaxis(x if one_pixel else from_planar(x, self.planar, sizes), 1, -1)

    def __str__(self) -> str:
        sums = f"{len(self.firsts)} groups of {self.k} channels, {self.taps.window}"
        return f"{self.name}({sums}, {self.epilogue})"
