"""Flip the filters of channels whose level falls, so that kernels know one comparison.

Before: `%n = BinaryConv(%x, %W); %y = Step(%n, t, [+1, -1])`
After:  `%m = BinaryConv(%x, %W'); %y = Step(%m, t', [-1, +1])` with W' = -W in those channels.
Exact: the sum of -w x is exactly -n, whatever x pads with, for integers and for float32 in any
fixed order, because rounding to nearest is symmetric. n >= t fails iff -n > -t, that is, iff
-n >= t' with t' the next value above -t. Source: Umuroglu et al. 2017 (FINN), section 4.2.2.
"""

from __future__ import annotations

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.levels import never

__all__ = ["FLIP_FALLING"]


def _falling(levels: Array) -> Array:
    """Return which channels' levels never rise, and fall somewhere."""
    changes = np.diff(levels, axis=1)
    return np.asarray((changes <= 0).all(axis=1) & (changes < 0).any(axis=1))


def _negated(thresholds: Array) -> Array:
    """Return ascending thresholds t' on -n so that n >= t fails iff -n >= t'; unused ones last."""
    unused = thresholds == never(thresholds)
    if thresholds.dtype == np.float32:
        above = np.nextafter(-thresholds, np.float32(np.inf))
    else:
        above = 1 - thresholds
    return np.sort(np.where(unused, never(thresholds), above), axis=1).astype(thresholds.dtype)


def _reversed_levels(thresholds: Array, levels: Array) -> Array:
    """Return the levels in the order that -n meets them; unused places repeat the last."""
    used = (thresholds != never(thresholds)).sum(axis=1)[:, np.newaxis]
    place = np.arange(levels.shape[1])
    return np.take_along_axis(levels, np.maximum(used - place, 0), axis=1)


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        layer = graph.producers.get(node.inputs[0])
        if not isinstance(node.op, Step) or layer is None or not isinstance(layer.op, BinaryConv):
            continue
        levels = graph.constants[node.inputs[2]]
        falling = _falling(levels)
        alone = graph.consumers[layer.output] == (node,) and layer.output not in graph.outputs
        if falling.any() and alone:
            _flip(rewrite, layer, node, np.broadcast_to(falling, (levels.shape[0],)))
    return Outcome(rewrite.finish())


def _flip(rewrite: Rewrite, layer: Node, step: Node, falling: Array) -> None:
    graph = rewrite.graph
    thresholds, levels = (graph.constants[name] for name in step.inputs[1:])
    weights = graph.constants[layer.inputs[1]]
    sign = np.where(falling, np.int8(-1), np.int8(1))
    rows = falling[:, np.newaxis]
    flipped = {
        layer.inputs[1]: (
            weights * sign.reshape(-1, *(1,) * (weights.ndim - 1)),
            graph.types[layer.inputs[1]].element,
        ),
        step.inputs[1]: (
            np.where(rows, _negated(thresholds), thresholds),
            graph.types[step.inputs[1]].element,
        ),
        step.inputs[2]: (
            np.where(rows, _reversed_levels(thresholds, levels), levels),
            Element.F32,
        ),
    }
    w, t, v = (
        rewrite.constant(f"{name}.flipped", array, element)
        for name, (array, element) in flipped.items()
    )
    # The accumulator changes its meaning with its sign, so it gets a name of its own.
    accumulator = rewrite.fresh(f"{layer.output}.flipped")
    rewrite.replace(
        layer, [rewrite.node(layer.op, (layer.inputs[0], w), accumulator, layer.origin)]
    )
    rewrite.replace(step, [rewrite.node(step.op, (accumulator, t, v), step.output, step.origin)])


FLIP_FALLING = Pass("flip_falling", _apply, requires=Stage.BINARY)
