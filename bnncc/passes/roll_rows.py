"""Copy planes for a band of rows at a time, where that saves memory and takes hardly longer.

Before: `%t = Spread(%p)`; `%y = SharedSums(%t, lists, ...)`, %t the copies for all rows
After:  `%y = SharedSums[band](%p, lists', ...)`, with scratch for the copies of a band

Bands are whole slices of outputs. Rows that the windows of two bands have in common are copied
twice, and lists that are built are built for every band.
Exact: the lists name the same planes, at the places that they have in a band's copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.shared_sums import SharedConv, SharedSums, Spread
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.sharing import Grouping, Load, instructions, stored

__all__ = ["ROLL_ROWS", "bands", "in_other_copies", "rolled", "time_of_band"]

_COPY, _PLANE, _LIST = 3.3, 30.0, 10.0
"""Instructions on a Cortex-M4: of a word that is copied, of a plane around that, and of an entry
of a list that is built."""
_MORE, _MORE_LEAN = 0.03, 0.15
"""What share of a layer's time saving memory may cost; more where time was given for flash."""


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, SharedSums | SharedConv) or op.taps.band:
            continue
        spread = graph.producers[node.inputs[0]]
        assert isinstance(spread.op, Spread)  # share_sums made it
        lean = context.builds_lists(node.outputs[0], node.origin)
        rows = _best(op, spread.op.pitch, lean=lean)
        if rows and graph.consumers[spread.output] == (node,):
            rewrite.replace(spread, [])
            rewrite.replace(node, [rolled(rewrite, node, spread, rows)])
    return Outcome(rewrite.finish())


def bands(taps: TapPlanes, pitch: int) -> Iterator[int]:
    """Yield how many rows of outputs a band may have, from few to many, fewer than there are.

    Args:
        taps: the copies.
        pitch: of what they are copied from.
    """
    moved = math.gcd(taps.axes[0].stride * pitch, taps.word_bits)
    least = math.lcm(taps.lanes // math.gcd(taps.pitch, taps.lanes), taps.word_bits // moved)
    yield from range(least, taps.outputs[0], least)


def time_of_band(op: SharedSums | SharedConv, rows: int, *, lean: bool) -> float:
    """Return what a layer with bands of so many rows takes longer than with one, as a share of it.

    Args:
        op: the layer.
        rows: of a band.
        lean: whether it builds its lists.
    """
    whole, band = replace(op.taps, band=0), replace(op.taps, band=rows)
    word = op.taps.word_bits // 32 if op.taps.by_row else 1
    elements = len(op.taps.pads)
    words = elements * (band.bands * band.half - whole.half)
    copied = _COPY * 2 * words / word + _PLANE * (band.bands - 1) * elements * op.taps.channels
    slices = len(op.firsts) * 32 * op.taps.plane / op.taps.lanes
    grouping, load = Grouping(op.k, op.ternary), Load(op.depth * elements, op.parts * elements)
    built = _LIST * op.depth * len(op.firsts) if lean else 0.0
    return (copied + built * (band.bands - 1)) / (slices * instructions(grouping, load) + built)


def _best(op: SharedSums | SharedConv, pitch: int, *, lean: bool) -> int:
    """Return the rows of the smallest bands that are quick enough; 0 if none are."""
    most = _MORE_LEAN if lean else _MORE
    tried = bands(op.taps, pitch)
    quick = (rows for rows in tried if time_of_band(op, rows, lean=lean) <= most)
    return min(quick, key=lambda rows: replace(op.taps, band=rows).words, default=0)


def rolled(rewrite: Rewrite, node: Node, spread: Node, rows: int) -> Node:
    """Return a layer that makes its copies for bands of so many rows.

    Args:
        rewrite: of the graph.
        node: the layer, with lists that are ready.
        spread: what makes its copies.
        rows: one of `bands`.
    """
    op = node.op
    assert isinstance(op, SharedSums | SharedConv)  # the caller asked
    assert isinstance(spread.op, Spread)  # likewise
    taps = replace(op.taps, band=rows)
    places = in_other_copies(
        rewrite.value(node.inputs[1]).astype(np.int64) * op.unit, op.taps, taps
    )
    lists, unit = stored(places)
    word = {2: Element.WORD16, 4: Element.WORD32}[lists.itemsize]
    name = rewrite.constant(node.inputs[1], lists, word)
    inputs = (spread.inputs[0], name, *node.inputs[2:])
    bandwise = replace(op, taps=taps, unit=unit, pitch=spread.op.pitch)
    return rewrite.results(bandwise, inputs, node.outputs, (*node.origin, *spread.origin))


def in_other_copies(places: Array, old: TapPlanes, new: TapPlanes) -> Array:
    """Return where the planes start in other copies that start at `places` in some, in bytes."""
    before, after = (
        np.concatenate([taps.offsets().reshape(-1), taps.offsets().reshape(-1) + 4 * taps.half])
        for taps in (old, new)
    )
    before, after = np.append(before, old.zeros), np.append(after, new.zeros)
    order = np.argsort(before)
    found: Array = after[order[np.searchsorted(before[order], places)]]
    return found


ROLL_ROWS = Pass("roll_rows", _apply, requires=Stage.PACKED)
