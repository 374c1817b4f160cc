"""Keep the signs of planes, and build the lists of classes from them one group at a time.

Before: `%y = SharedSums(%t, lists, fours, ...)`, lists of all groups, an entry a plane
After:  `%y = SharedSums[built](%t, codes, fours, ...)`, k bits a plane

Lists take 16 or 32 bits for each plane and group; codes take as many as the group has channels,
which is what packed weights take. A group's list is built in scratch, and serves all slices.
Exact: the lists that are built have the same entries in every class.
Refused where codes take no less memory.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.shared_sums import SharedConv, SharedSums
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Outcome, Pass, Refusal
from bnncc.passes.sharing import unit_of

__all__ = ["LEAN_LISTS", "codes_of"]


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, SharedSums | SharedConv) or op.built:
            continue
        if context.builds_lists(node.outputs[0], node.origin):
            reason = _build(rewrite, node, op)
            if reason:
                refusals.append(Refusal(node.name, node.origin, f"no lists built: {reason}"))
    return Outcome(rewrite.finish(), tuple(refusals))


def _build(rewrite: Rewrite, node: Node, op: SharedSums | SharedConv) -> str:
    """Let a layer build its lists; or return why not."""
    if op.parts > 1 or op.ternary:
        return "its weights are not all +-1"
    lists, fours = (rewrite.value(name) for name in node.inputs[1:3])
    codes = codes_of(op, lists, fours)
    if codes is None:
        return "a plane enters its lists more than once, or never"
    words = op.codes.pack(codes)
    if words.nbytes >= lists.nbytes:
        return f"signs take {words.nbytes} bytes, lists {lists.nbytes}"
    taps = op.taps
    unit = unit_of(np.append(taps.offsets().reshape(-1), [4 * taps.half, taps.zeros]))
    largest = 4 * int(fours.astype(np.int64).sum(axis=1).max())
    name = rewrite.constant(f"{node.inputs[1]}.codes", words, Element.WORD32)
    inputs = (node.inputs[0], name, *node.inputs[2:])
    lean = replace(op, unit=unit, built=largest)
    rewrite.replace(node, [rewrite.results(lean, inputs, node.outputs, node.origin)])
    return ""


def codes_of(op: SharedSums | SharedConv, lists: Array, fours: Array) -> Array | None:
    """Return the codes that lists were made of, int64 [groups, P]; None if they were not."""
    held = lists.astype(np.int64) * op.unit
    places = op.group_places()
    classes = np.repeat(np.tile(np.arange(op.classes), len(fours)), 4 * fours.reshape(-1))
    groups = np.repeat(np.arange(len(fours)), 4 * fours.sum(axis=1, dtype=np.int64))
    result = np.full(places.shape, -1)
    for group, starts in enumerate(places):
        own = (groups == group) & (held != op.taps.zeros)
        inverted = held[own] >= 4 * op.taps.half
        order = np.argsort(starts)
        found = held[own] - np.where(inverted, 4 * op.taps.half, 0)
        at = order[np.searchsorted(starts[order], found).clip(max=len(starts) - 1)]
        if len(at) != len(starts) or not np.array_equal(starts[at], found):
            return None
        result[group, at] = 2 * classes[own] + inverted
    return result if (result >= 0).all() else None


LEAN_LISTS = Pass("lean_lists", _apply, requires=Stage.PACKED)
