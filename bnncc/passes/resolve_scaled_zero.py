"""Decide what sign(0) becomes where a sign is scaled or shifted, before anything counts its levels.

Before: `%y = Step(%x, [0, tiny], [-0.9, -0.1, 0.7])` in front of a layer, as of 0.8 * (sign(x) -
0.125). After: `%y = Step(%x, [0], [-0.9, 0.7])` for sign(0) = +1, thresholds [tiny] for -1.

Two levels are one bitplane whatever they are, three are two. The rules are those of
`resolve_sign_zero`, which sees only signs of -1, 0, +1, once it is known which are bits: over real
inputs +1 by default, an assumption; behind a ReLU, or where an accumulator makes x, three levels
stay, unless --sign-zero says otherwise.
"""

from __future__ import annotations

import numpy as np

from bnncc.certificate import SignOfZero
from bnncc.ir.expression import root_of
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Movement
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, SignZero
from bnncc.passes.binary_rows import binary_rows
from bnncc.passes.levels import element_for
from bnncc.passes.resolve_sign_zero import AT_ZERO, piles_up, resolved
from bnncc.passes.transplant import source_name

__all__ = ["RESOLVE_SCALED_ZERO"]


def _scaled(graph: Graph, node: Node) -> tuple[float, float, float] | None:
    """Return the three levels of a sign that is scaled or shifted; None for any other node."""
    if node.op != Step(Element.F32):
        return None
    thresholds, levels = (graph.constants[name] for name in node.inputs[1:])
    if not np.array_equal(thresholds, AT_ZERO) or element_for(levels[0]) is Element.TERNARY:
        return None
    below, zero, above = levels[0].tolist()
    return (below, zero, above) if len(levels) == 1 and zero not in (below, above) else None


def _feeds_a_layer(graph: Graph, name: str) -> bool:
    """Whether a layer reads a tensor, moved or pooled or as it is."""
    return any(
        isinstance(reader.op, Conv)
        or (isinstance(reader.op, Movement | MaxPool) and _feeds_a_layer(graph, reader.output))
        for reader in graph.consumers[name]
    )


def _may_accumulate(graph: Graph, name: str) -> bool:
    """Whether a tensor may turn out to follow from integers alone: bytes, or one accumulator.

    Weights of two values that are not opposite need a second sum: what follows from both is real.
    """
    root = root_of(graph, name)
    layer = graph.producers.get(root)
    if layer is None or not isinstance(layer.op, Conv) or not graph.is_constant(layer.inputs[1]):
        return graph.types[root].element is not Element.F32
    weights = graph.constants[layer.inputs[1]]
    rows = binary_rows(weights.reshape(len(weights), -1))
    return not rows.reason and not rows.offset.any()


def _sign(graph: Graph, node: Node, wanted: SignZero) -> int | None:
    """Return what sign(0) becomes, or None to keep three levels."""
    match wanted:
        case SignZero.EXACT:
            return None
        case SignZero.MINUS:
            return -1
        case SignZero.PLUS:
            return 1
    x = node.inputs[0]
    return None if piles_up(graph, x) or _may_accumulate(graph, x) else 1


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    assumptions: list[SignOfZero] = []
    signs: dict[Node, int] = {}
    for node in graph.nodes:
        levels = _scaled(graph, node)
        if levels is None or not _feeds_a_layer(graph, node.output):
            continue
        sign = _sign(graph, node, context.sign_zero)
        if sign is not None:
            signs[node] = sign
            assumptions.append(SignOfZero(source_name(node.output), sign, levels=levels))
    resolved(rewrite, signs, Element.F32)
    return Outcome(rewrite.finish(), assumptions=tuple(assumptions))


RESOLVE_SCALED_ZERO = Pass(
    "resolve_scaled_zero", _apply, requires=Stage.BINARY, exactness=Exactness.ASSUMPTION
)
