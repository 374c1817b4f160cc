"""Decide what sign(0) becomes, and say so.

`torch.sign` and ONNX's Sign have three levels: sign(0) = 0. One bit holds two.

Before: `%y = Step(%x, [0, tiny], [-1, 0, +1])`.
After: `%y = Step(%x, [0], [-1, +1])` for sign(0) = +1, thresholds [tiny] for -1.

Over accumulators the three levels stay by default: the threshold finder sees whether 0 can occur at
all, and if it can, two bitplanes hold it exactly. Over real inputs the default is +1, an assumption
that the report and the certificate state, and that verify counts.
"""

from __future__ import annotations

import numpy as np

from bnncc.errors import printable
from bnncc.ir.expression import root_of
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, SignZero

__all__ = ["RESOLVE_SIGN_ZERO"]

_SIGN_THRESHOLDS = np.array([[0, np.nextafter(np.float32(0), np.float32(1))]], np.float32)
_SIGN_LEVELS = np.array([[-1, 0, 1]], np.float32)


def _is_sign(graph: Graph, node: Node) -> bool:
    """Whether the node is the three-level sign, and one bit is wanted of it."""
    if node.op != Step(Element.TERNARY):
        return False
    thresholds, levels = (graph.constants[name] for name in node.inputs[1:])
    return np.array_equal(thresholds, _SIGN_THRESHOLDS) and np.array_equal(levels, _SIGN_LEVELS)


def _over_accumulator(graph: Graph, node: Node) -> bool:
    root = root_of(graph, node.inputs[0])
    return root is not None and graph.types[root].element in (Element.I32, Element.U8)


def _threshold(graph: Graph, node: Node, wanted: SignZero) -> Array | None:
    """Return the one threshold that replaces the two, or None to keep three levels."""
    match wanted:
        case SignZero.EXACT:
            return None
        case SignZero.AUTO if _over_accumulator(graph, node):
            return None
        case SignZero.MINUS:
            return _SIGN_THRESHOLDS[:, 1:]
        case _:
            return _SIGN_THRESHOLDS[:, :1]


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    assumptions: list[str] = []
    for node in graph.nodes:
        if not _is_sign(graph, node):
            continue
        threshold = _threshold(graph, node, context.sign_zero)
        if threshold is None:
            continue
        t = rewrite.constant(f"{node.output}.thresholds", threshold, Element.F32)
        v = rewrite.constant(f"{node.output}.levels", np.array([[-1, 1]]), Element.F32)
        operands = (node.inputs[0], t, v)
        step = rewrite.node(Step(Element.BIPOLAR), operands, node.output, node.origin)
        rewrite.replace(node, [step])
        sign = "-1" if context.sign_zero is SignZero.MINUS else "+1"
        assumptions.append(f"{printable(node.output)}: sign(0) is taken as {sign}, not 0")
    return Outcome(rewrite.finish(), assumptions=tuple(assumptions))


RESOLVE_SIGN_ZERO = Pass(
    "resolve_sign_zero", _apply, requires=Stage.BINARY, exactness=Exactness.ASSUMPTION
)
