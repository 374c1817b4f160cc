"""Drop nodes whose results nobody needs.

Before: `%t = Relu(%x)` that neither a node nor the interface reads. After: nothing.
"""

from __future__ import annotations

from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["ELIMINATE_DEAD", "without_dead"]


def _apply(graph: Graph, _: Context) -> Outcome:
    return Outcome(without_dead(graph))


def without_dead(graph: Graph) -> Graph:
    """Return the graph without nodes that nobody needs; itself if there are none."""
    rewrite = Rewrite(graph)
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
        else:
            rewrite.replace(node, ())
    return rewrite.finish()


ELIMINATE_DEAD = Pass("eliminate_dead", _apply, requires=Stage.BINARY)
