"""Layers whose micro-kernel takes all taps of several pixels at once: numbers, and border tables.

Taps outside of the image are skipped. A pixel's kind is which taps it sees; whatever depends on it
alone is a row of a table: the limits that mismatches are compared with, or the mismatches that
padding would have had.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.program import Constant, LinearWork, Nest, Store, TileWork
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.kernels import MismatchScale, XnorConv
from bnncc.ir.types import Array, Element, PackedChannels, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.targets import Kernel, kernel_named

__all__ = ["real_tile_work", "tile_work"]

_MOST_COMPARED = (1 << 15) - 1
"""The longest reduction whose mismatches kernels compare as 16-bit integers."""


def tile_work(
    graph: Graph, node: Node, work: LinearWork, nest: Nest, fill: Array
) -> tuple[TileWork, tuple[Constant, ...]]:
    """Return a layer's work in tiles, and the tables that it reads.

    Args:
        graph: the packed graph.
        node: an XnorConv whose kernel is a tile.
        work: what it takes to fill one block of sums.
        nest: the loops over pixels.
        fill: the words of a tap outside of the image, [planes, words of one group].
    """
    op = node.op
    assert isinstance(op, XnorConv)  # the caller asked
    sizes = graph.types[node.inputs[0]].shape[2:]
    kernel, kinds = kernel_named(op.kernel), _Kinds.of(op.window, sizes)
    tiles = _in_tiles(work, kernel, nest, kinds, work.word_bits // 8)
    outside = np.zeros((1, tiles.table_row), np.int64)
    if nest.partial and not op.skip:
        outside = kinds.outside(_differing(graph.constants[node.inputs[1]], fill, op))
    hint = work.weights.removesuffix("_weights")
    if _compares(graph, node, op):
        given = graph.constants[node.inputs[-1]].reshape(1, -1).astype(np.int64)
        limits = _limits(op, given, outside, kinds)
        table = constant(f"{hint}_limits", limits, "thresholds")
        compare, store = kernel.bits_symbol, _store(graph.types[node.outputs[0]])
        tiles = dataclasses.replace(tiles, limits=table.name, compare=compare, store=store)
    elif outside.any():
        table = constant(f"{hint}_outside", outside.astype(np.uint32), "parameters")
        tiles = dataclasses.replace(tiles, outside=table.name)
    else:
        return tiles, ()
    return dataclasses.replace(tiles, tabled=table.shape[0] > 1), (table,)


def real_tile_work(work: LinearWork, nest: Nest, window: Window, sizes: Sequence[int]) -> TileWork:
    """Return the work in tiles of a layer of real sums.

    Args:
        work: what it takes to fill one block of sums with a kernel that is a tile.
        nest: the loops over pixels.
        window: of the layer.
        sizes: of its image.
    """
    return _in_tiles(work, kernel_named(work.kernel), nest, _Kinds.of(window, sizes), 4)


def _in_tiles(work: LinearWork, kernel: Kernel, nest: Nest, kinds: _Kinds, word: int) -> TileWork:
    """Return a layer's work in tiles; `word` is the bytes of what x has side by side."""
    return TileWork(
        **{field.name: getattr(work, field.name) for field in dataclasses.fields(work)},
        mr=kernel.mr,
        word=word,
        tap=work.depth * word,
        joined=nest.x.dilation == 1 and work.groups == 1,
        x_row=nest.y.dilation * nest.x.size * nest.pixel * word,
        x_column=nest.x.dilation * nest.pixel * word,
        tap_entries=8 * work.depth * word // kernel.word_bits * kernel.nr,
        rows=kinds.rows.numbers,
        columns=kinds.columns.numbers,
        table_row=work.groups * work.blocks * work.nr,
    )


def _compares(graph: Graph, node: Node, op: XnorConv) -> bool:
    """Whether a layer ends in one comparison a bit, of what its kernel counts."""
    store = op.epilogue.stores[0]
    alone = len(op.epilogue.stores) == 1 and not op.epilogue.expression.terms and not op.zeros
    if not alone or not store.thresholds or not (op.direct or op.skip) or op.parts != (1,):
        return False
    thresholds, x = graph.constants[node.inputs[-1]], graph.types[node.inputs[0]]
    once = thresholds.shape[0] == thresholds.shape[2] == 1 and thresholds.dtype.kind == "i"
    return once and x.element is Element.BIPOLAR and op.depth * op.window.taps <= _MOST_COMPARED


def _store(kind: TensorType) -> Store:
    """Return how bits are stored."""
    layout = kind.layout
    assert isinstance(layout, PackedChannels)  # W3 holds
    return Store("y", "", word_bits=layout.word_bits, words=layout.words(kind.shape[1]))


@dataclass(frozen=True)
class _AxisKinds:
    """The kinds of outputs along an axis: those before the ones that see all taps, these, the rest.

    Attributes:
        inside: the first output that sees all taps, and the end of those.
        taps: of each kind.
    """

    inside: tuple[int, int] = (0, 1)
    taps: tuple[range, ...] = (range(1),)

    @classmethod
    def of(cls, axis: Axis, size: int) -> _AxisKinds:
        """Return the kinds of an axis with an input of `size`."""
        taps = [axis.taps(o, size) for o in range(axis.outputs(size))]
        whole = [o for o, seen in enumerate(taps) if len(seen) == axis.kernel]
        first, end = (whole[0], whole[-1] + 1) if whole else (0, 0)
        return cls((first, end), (*taps[:first], range(axis.kernel), *taps[end:]))

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The first output that sees all taps, the end of those, and how many kinds there are."""
        return (*self.inside, len(self.taps))


@dataclass(frozen=True)
class _Kinds:
    """The kinds of pixels: each kind of row with each kind of column, rows outside of columns."""

    rows: _AxisKinds
    columns: _AxisKinds

    @classmethod
    def of(cls, window: Window, sizes: Sequence[int]) -> _Kinds:
        """Return the kinds of a window's pixels; a lone axis is one of columns."""
        axes = [_AxisKinds.of(axis, size) for axis, size in zip(window.axes, sizes, strict=True)]
        return cls(*[_AxisKinds()] * (2 - len(axes)), *axes)

    def seen(self) -> Iterator[tuple[range, range]]:
        """Yield the rows and columns of the window that each kind sees."""
        return itertools.product(self.rows.taps, self.columns.taps)

    def outside(self, differing: Array) -> Array:
        """Return the sums of [rows, columns, lanes] over what each kind does not see."""
        whole = differing.sum(axis=(0, 1))
        inside = [differing[np.ix_(y, x)].sum(axis=(0, 1)) for y, x in self.seen()]
        return np.asarray(whole - np.stack(inside))


def _differing(weights: Array, fill: Array, op: XnorConv) -> Array:
    """Return the weighted mismatches of each tap with the padding, int64 [rows, columns, lanes]."""
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(axis=1)
    octets = np.ascontiguousarray(weights.transpose(0, 2, 1)).view(np.uint8)
    octets = octets.reshape(len(op.parts), -1, op.window.taps, octets.shape[-1] // op.window.taps)
    total = np.zeros(octets.shape[1:3], np.int64)
    for p, plane in enumerate(np.ascontiguousarray(fill).view(np.uint8)):
        for factor, part in zip(op.parts, octets, strict=True):
            counts = ones[part ^ plane].sum(axis=-1, dtype=np.int64)
            total += factor * counts << (p if op.codes else 0)
    kernel = (1, 1, *op.window.kernel)[-2:]
    return total.T.reshape(*kernel, -1)


def _limits(op: XnorConv, given: Array, outside: Array, kinds: _Kinds) -> Array:
    """Return the limits of each kind of pixel, int16 [kinds, lanes]; none reaches lanes past O.

    Taps outside are skipped; where padding would have mismatched there, less may mismatch inside.
    """
    limits = given
    if op.skip:
        scale = MismatchScale.of(op.parts, bipolar=True)
        taps = np.array([[len(y) * len(x)] for y, x in kinds.seen()])
        limits = (scale.of_k * op.depth * taps - given) // scale.factor
    missing = op.blocks * op.nr - limits.shape[1]
    padded = np.pad(limits, ((0, 0), (0, missing)), constant_values=-1)
    return np.asarray(np.clip(padded - outside, -1, _MOST_COMPARED), np.int16)
