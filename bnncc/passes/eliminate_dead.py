"""Drop nodes whose results nobody needs.

Before: `%t = Relu(%x)` that neither a node nor the interface reads. After: nothing.
"""

from __future__ import annotations

from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["ELIMINATE_DEAD"]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
        else:
            rewrite.replace(node, ())
    return Outcome(rewrite.finish())


ELIMINATE_DEAD = Pass("eliminate_dead", _apply, requires=Stage.BINARY)
