"""Move a MaxPool behind the Step that follows it, so that it pools bits and the Step folds.

Before: `%p = MaxPool(%x); %v = BatchNormalization(%p, ...); %y = Step(bipolar)(%v, t, levels)`
After:  `%v' = BatchNormalization(%x, ...); %y' = Step(bipolar)(%v', t, levels);
        %y = MaxPool(%y', direction)`

Exact: a chain that rises in a channel commutes with the maximum, and one that falls turns it into
the minimum, for float32 arithmetic as for real (see `directions`). Every window sees an element of
the input. On bits the maximum is OR and the minimum AND: what decides is the chain between the pool
and the Step, so that BatchNorm with gamma < 0 before the pool is still OR, and behind it AND.

The Step then reads a layer's accumulator, or what follows from it alone, and folds into integer
thresholds; no real image is stored. Where the pooled tensor is no such value (a sum with a
shortcut), or something else reads the pool's result, the pool stays.

Refuses: chains that are not monotone in every channel.
"""

from __future__ import annotations

import numpy as np

from bnncc.ir.analysis.direction import UNKNOWN, directions
from bnncc.ir.expression import Chain, chain_to, root_of
from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.ops.elementwise import DequantizeTwo, Step
from bnncc.ir.ops.linear import BinaryConv, Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Outcome, Pass, Refusal
from bnncc.passes.transplant import UNPOOLED, alone, transplanted

__all__ = ["SINK_POOLS"]


def _apply(graph: Graph, _: Context) -> Outcome:
    while True:  # pools in a row sink one after the other
        outcome = _sunk(graph)
        if outcome.graph is graph:
            return outcome
        graph = outcome.graph


def _sunk(graph: Graph) -> Outcome:
    """Move every Step over one pool, where there is one."""
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    for node in graph.nodes:
        if not isinstance(node.op, Step) or node.op.to is Element.F32:
            continue
        chain = chain_to(graph, node.output)
        if chain is None or not _pools_a_layer(graph, chain.root) or not alone(graph, chain):
            continue
        direction = directions(chain)
        if (direction == UNKNOWN).any():
            reason = "its pool cannot follow it: what is between is not monotone in every channel"
            refusals.append(Refusal(node.name, node.origin, reason))
            continue
        _sink(rewrite, chain, direction)
    return Outcome(rewrite.finish(), tuple(refusals))


def _pools_a_layer(graph: Graph, name: str) -> bool:
    """Whether the tensor is pooled from a linear layer's result, or a function of it alone."""
    pool = graph.producers.get(name)
    if pool is None or not isinstance(pool.op, MaxPool) or len(pool.inputs) > 1:
        return False
    root = root_of(graph, pool.inputs[0])
    layer = graph.producers.get(root)
    is_layer = layer is not None and isinstance(layer.op, Conv | BinaryConv | DequantizeTwo)
    return is_layer or _pools_a_layer(graph, root)


def _sink(rewrite: Rewrite, chain: Chain, direction: Array) -> None:
    """Replace the pool and the chain by the chain and the pool."""
    pool = rewrite.graph.producers[chain.root]
    *between, step = chain.nodes
    bits = rewrite.fresh(f"{step.output}{UNPOOLED}")
    moved = transplanted(rewrite, chain, pool.inputs[0], UNPOOLED, bits)
    operands = [bits]
    if (direction < 0).any():
        falls = np.where(direction < 0, np.int8(-1), np.int8(1))
        operands.append(rewrite.constant(f"{pool.output}.direction", falls, Element.BIPOLAR))
    for node in (pool, *between):
        rewrite.replace(node, ())
    sunk = rewrite.node(pool.op, operands, step.output, pool.origin)
    rewrite.replace(step, [*moved, sunk])


SINK_POOLS = Pass("sink_pools", _apply, requires=Stage.BINARY)
