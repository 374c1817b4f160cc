"""Decide what sign(0) becomes, and say so.

`torch.sign` and ONNX's Sign have three levels: sign(0) = 0. One bit holds two.

Before: `%y = Step(%x, [0, tiny], [-1, 0, +1])`.
After: `%y = Step(%x, [0], [-1, +1])` for sign(0) = +1, thresholds [tiny] for -1.

Over accumulators the three levels stay by default: the threshold finder sees whether 0 can occur at
all, and if it can, two bitplanes hold it exactly. So they do behind a ReLU, where 0 is common. Over
other real inputs the default is +1, an assumption that the report and the certificate state, and
that verify counts. It holds for every reader: where others than binary layers read the sign, as a
real tensor, that changes with it.
"""

from __future__ import annotations

import numpy as np

from bnncc.certificate import SignOfZero
from bnncc.ir.analysis.ranges import range_of
from bnncc.ir.expression import chains_to, root_of
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Movement
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, SignZero
from bnncc.passes.levels import simplified
from bnncc.passes.transplant import source_name

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
    return graph.types[root_of(graph, node.inputs[0])].element in (Element.I32, Element.U8)


def _piles_up(graph: Graph, name: str) -> bool:
    """Whether 0 is an end of what a real tensor can be, as behind a ReLU: then it is no accident.

    Movements and pools change nothing of that.
    """
    node = graph.producers.get(name)
    while node is not None and isinstance(node.op, Movement | MaxPool | AveragePool):
        name = node.inputs[0]
        node = graph.producers.get(name)
    everything = np.full((1, 1), np.inf, np.float32)
    ranges = (range_of(chain, -everything, everything) for chain in chains_to(graph, name))
    return any(bool(((low == 0) | (high == 0)).any()) for low, high in ranges)


def _sign(graph: Graph, node: Node, wanted: SignZero) -> int | None:
    """Return what sign(0) becomes, or None to keep three levels."""
    match wanted:
        case SignZero.EXACT:
            return None
        case SignZero.AUTO if _over_accumulator(graph, node) or _piles_up(graph, node.inputs[0]):
            return None
        case SignZero.MINUS:
            return -1
        case _:
            return 1


def _follows(graph: Graph, node: Node, other: Node) -> bool:
    """Whether `other` is a real tensor computed from the sign of which `node` holds the bits."""
    if other.op != Step(Element.F32) or other.inputs[0] != node.inputs[0]:
        return False
    pair = _SIGN_THRESHOLDS[0]
    return set(node.origin) <= set(other.origin) and bool(
        np.isin(pair, graph.constants[other.inputs[1]]).all()
    )


def _resolved(rewrite: Rewrite, node: Node, sign: int, element: Element) -> Node:
    """Return the Step with its level at 0 replaced by that above (+1) or below (-1)."""
    thresholds, levels = (rewrite.graph.constants[name] for name in node.inputs[1:])
    at = int(np.argmax(thresholds[0] == _SIGN_THRESHOLDS[0, 1]))
    two = levels.copy()
    two[:, at] = levels[:, at + sign]
    thresholds, two = simplified(thresholds, two)
    t = rewrite.constant(f"{node.output}.thresholds", thresholds, Element.F32)
    v = rewrite.constant(f"{node.output}.levels", two, Element.F32)
    return rewrite.node(Step(element), (node.inputs[0], t, v), node.output, node.origin)


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    assumptions: list[SignOfZero] = []
    for node in graph.nodes:
        if not _is_sign(graph, node):
            continue
        sign = _sign(graph, node, context.sign_zero)
        if sign is None:
            continue
        following = [other for other in graph.nodes if _follows(graph, node, other)]
        rewrite.replace(node, [_resolved(rewrite, node, sign, Element.BIPOLAR)])
        for other in following:
            rewrite.replace(other, [_resolved(rewrite, other, sign, Element.F32)])
        same = [other for other in following if other.origin == node.origin]
        # Where the Step was moved over a pool, the model has its sign behind that: as good.
        assumptions.append(SignOfZero(source_name((same or [node])[0].output), sign))
    return Outcome(rewrite.finish(), assumptions=tuple(assumptions))


RESOLVE_SIGN_ZERO = Pass(
    "resolve_sign_zero", _apply, requires=Stage.BINARY, exactness=Exactness.ASSUMPTION
)
