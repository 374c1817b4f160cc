"""Say a maximum over whole axes of an image as the MaxPool that it is.

Before: `%y = ReduceMax(axes=(2, 3), keepdims=False)(%x)` with %x [1, C, H, W].
After:  `%p = MaxPool(window=[H, W])(%x); %y = Reshape(1, C)(%p)`, no Reshape with keepdims.

Exporters spell AdaptiveMaxPool2d(1) so. A reduction is of reals alone, but a pool orders bits as
well, and the Steps behind it move over it (`sink_pools`).

Exact: both go through the elements in C order, of equals the first, and a NaN wins. Maxima over
channels stay.
"""

from __future__ import annotations

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMax
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["CANONICAL_POOLS"]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        if isinstance(node.op, ReduceMax) and min(node.op.axes) > 1:
            rewrite.replace(node, _pooled(rewrite, node, node.op))
    return Outcome(rewrite.finish())


def _pooled(rewrite: Rewrite, node: Node, op: ReduceMax) -> list[Node]:
    """Return the pool, and the Reshape that drops its axes if the reduction does."""
    (x,) = node.inputs
    shape = rewrite.type_of(x).shape
    kernel = [size if axis in op.axes else 1 for axis, size in enumerate(shape)][2:]
    pool = MaxPool(Window(tuple(map(Axis, kernel))))
    if op.keepdims:
        return [rewrite.node(pool, (x,), node.output, node.origin)]
    wide = rewrite.fresh(f"{node.output}.pooled")
    flat = Reshape(rewrite.type_of(node.output).shape)
    return [
        rewrite.node(pool, (x,), wide, node.origin),
        rewrite.node(flat, (wide,), node.output, node.origin),
    ]


CANONICAL_POOLS = Pass("canonical_pools", _apply, requires=Stage.FLOAT)
