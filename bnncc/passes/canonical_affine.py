"""Spell every per-channel affine step as Mul and Add by constants.

Before: `%y = BatchNormalization(%x, gamma, beta, mean, variance)`, `%y = Sub(%x, c)`.
After: `%m = Mul(%x, s); %y = Add(%m, t)`, `%y = Add(%x, -c)`; a Mul by 1 is gone.
Before: `%y = Dequantize(%n, scale, 0, ...)` with float32 scales. After: `%f = Cast(%n); %y =
Mul(%f, scale)`.

Exact: BatchNormalization's definition is fl(fl(x * s) + t) with s and t rounded as its own
evaluation rounds them; x - c and x + (-c) are the same operation; x * 1 is x. An Add of 0 stays,
because -0 + 0 is +0.
"""

from __future__ import annotations

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import (
    Add,
    BatchNormalization,
    Cast,
    Dequantize,
    Mul,
    Sub,
    over_channels,
)
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["CANONICAL_AFFINE"]

_EXACT_INTEGERS = 1 << 24


def _batch_norm(rewrite: Rewrite, node: Node, op: BatchNormalization) -> list[Node]:
    x, *names = node.inputs
    scale, shift = op.scale_and_shift(*(rewrite.graph.constants[name] for name in names))
    rank = len(rewrite.type_of(x).shape)
    nodes: list[Node] = []
    if not (scale == 1).all():
        s = rewrite.constant(f"{node.output}.scale", over_channels(scale, rank), Element.F32)
        scaled = rewrite.fresh(f"{node.output}.scaled")
        nodes.append(rewrite.node(Mul(), (x, s), scaled, node.origin))
        x = scaled
    t = rewrite.constant(f"{node.output}.shift", over_channels(shift, rank), Element.F32)
    return [*nodes, rewrite.node(Add(), (x, t), node.output, node.origin)]


def _dequantize(rewrite: Rewrite, node: Node) -> list[Node]:
    """Return Cast and Mul in float32 if they give the same bits, else nothing."""
    n, scale, shift, _ = node.inputs
    factors, offsets = (rewrite.graph.constants[name] for name in (scale, shift))
    interval = rewrite.type_of(n).interval
    small = interval is not None and max(-interval.low, interval.high) < _EXACT_INTEGERS
    with np.errstate(over="ignore"):
        single = factors.astype(np.float32)
    # A factor <= 0 would give -0 for some n, where the double sum n * scale + 0 gives +0.
    if not small or (offsets != 0).any() or not (single == factors).all() or (single <= 0).any():
        return []
    if (single == 1).all():
        return [rewrite.node(Cast(Element.F32), (n,), node.output, node.origin)]
    cast = rewrite.node(Cast(Element.F32), (n,), rewrite.fresh(f"{node.output}.real"), node.origin)
    factor = over_channels(single, len(rewrite.type_of(n).shape))
    alpha = rewrite.constant(f"{node.output}.alpha", factor, Element.F32)
    return [cast, rewrite.node(Mul(), (cast.output, alpha), node.output, node.origin)]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        match node.op:
            case BatchNormalization() as op if all(map(graph.is_constant, node.inputs[1:])):
                rewrite.replace(node, _batch_norm(rewrite, node, op))
            case Dequantize():
                new = _dequantize(rewrite, node)
                if new:
                    rewrite.replace(node, new)
            case Sub() if graph.is_constant(node.inputs[1]):
                x, c = node.inputs
                negated = rewrite.constant(f"{c}.negated", -graph.constants[c], Element.F32)
                rewrite.replace(node, [rewrite.node(Add(), (x, negated), node.output, node.origin)])
            case Mul() if node.output not in graph.outputs:
                _drop_unit_factor(rewrite, node)
    return Outcome(rewrite.finish())


def _drop_unit_factor(rewrite: Rewrite, node: Node) -> None:
    graph = rewrite.graph
    for x, factor in (node.inputs, reversed(node.inputs)):
        is_one = graph.is_constant(factor) and bool(np.all(graph.constants[factor] == 1))
        if is_one and graph.types[x] == graph.types[node.output]:
            rewrite.bypass(node, x)
            return


CANONICAL_AFFINE = Pass("canonical_affine", _apply, requires=Stage.BINARY)
