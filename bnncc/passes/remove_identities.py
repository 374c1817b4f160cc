"""Remove operations that compute nothing.

Before: `%b = Identity(%a)`, or a Reshape to the shape %a has. After: readers of %b read %a.
Exact: the values are the same. A node whose result is a graph output stays, for the interface.
"""

from __future__ import annotations

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Identity
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["REMOVE_IDENTITIES"]


def _is_identity(graph: Graph, node: Node) -> bool:
    match node.op:
        case Identity():
            return True
        case Reshape(shape=shape):
            return graph.types[node.inputs[0]].shape == shape
        case _:
            return False


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        if _is_identity(graph, node) and node.output not in graph.outputs:
            rewrite.bypass(node, node.inputs[0])
    return Outcome(rewrite.finish())


REMOVE_IDENTITIES = Pass("remove_identities", _apply, requires=Stage.FLOAT)
