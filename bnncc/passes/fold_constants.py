"""Compute what depends on no input.

Before: `%c = Neg(%a)` with %a constant. After: a constant %c.
Exact: the node's own definition computes the value. The ONNX frontend has ONNX Runtime fold most
constants already; this pass is for what other passes leave, and for graphs built by hand.
"""

from __future__ import annotations

from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["FOLD_CONSTANTS"]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    known = dict(graph.constants)
    for node in graph.nodes:
        if all(name in known for name in node.inputs) and node.output not in graph.outputs:
            (value,) = node.op.evaluate([known[name] for name in node.inputs])
            known[node.output] = value
            rewrite.fix(node, value)
    return Outcome(rewrite.finish())


FOLD_CONSTANTS = Pass("fold_constants", _apply, requires=Stage.FLOAT)
