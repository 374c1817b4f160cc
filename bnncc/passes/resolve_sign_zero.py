"""Decide what sign(0) becomes, and say so.

`torch.sign` and ONNX's Sign have three levels: sign(0) = 0. One bit holds two.

Before: `%y = Step(%x, [0, tiny], [-1, 0, +1])`.
After: `%y = Step(%x, [0], [-1, +1])` for sign(0) = +1, thresholds [tiny] for -1.

Over accumulators the three levels stay by default: the threshold finder sees whether 0 can occur at
all, and if it can, two bitplanes hold it exactly. Where scales vary from pixel to pixel, nothing
folds, so that all accumulators are tried at all pixels here: a zero that never occurs is no level.
The three levels also stay behind a ReLU, where 0 is common. Over other real inputs the default is
+1, an assumption that the report and the certificate state, and that verify counts. It holds for
every reader: where others than binary layers read the sign, as a real tensor or to compare it, that
changes with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnncc.certificate import SignOfZero
from bnncc.ir.analysis.ranges import range_of
from bnncc.ir.expression import chain_to, chains_to, root_of, trace
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Movement
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, SignZero
from bnncc.passes.levels import simplified
from bnncc.passes.transplant import source_name

__all__ = ["AT_ZERO", "RESOLVE_SIGN_ZERO", "piles_up", "resolved"]

AT_ZERO = np.array([[0, np.nextafter(np.float32(0), np.float32(1))]], np.float32)
"""The thresholds of a sign: between them lies 0 alone."""
_SIGN_LEVELS = np.array([[-1, 0, 1]], np.float32)
_MOST_EVALUATIONS = 1 << 28
"""Of (pixel, accumulator) pairs, above which zeros that never occur are not looked for."""


def _is_sign(graph: Graph, node: Node) -> bool:
    """Whether the node is the three-level sign, and one bit is wanted of it."""
    if node.op != Step(Element.TERNARY):
        return False
    thresholds, levels = (graph.constants[name] for name in node.inputs[1:])
    return np.array_equal(thresholds, AT_ZERO) and np.array_equal(levels, _SIGN_LEVELS)


def _over_accumulator(graph: Graph, node: Node) -> bool:
    whole = (Element.I32, Element.U8, Element.I8)
    return graph.types[root_of(graph, node.inputs[0])].element in whole


def _never_zero(graph: Graph, node: Node) -> bool:
    """Whether no accumulator gives a 0 at any pixel, of a Step whose scales vary within a channel.

    Where they do not, the threshold finder will see.
    """
    root = root_of(graph, node.inputs[0])
    interval = graph.types[root].interval
    known = chain_to(graph, node.output)
    if interval is None or (known is not None and known.root == root):
        return False
    chain = trace(graph, node.inputs[0], root, pixels=True)
    if chain is None or interval.size * chain.channels > _MOST_EVALUATIONS:
        return False
    values = range(interval.low, interval.high + 1, interval.stride)
    rows = (np.full((1, chain.channels), n, np.int32) for n in values)
    return all(bool((chain.evaluate(row) != 0).all()) for row in rows)


def piles_up(graph: Graph, name: str) -> bool:
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
        case SignZero.AUTO if _over_accumulator(graph, node):
            return 1 if _never_zero(graph, node) else None
        case SignZero.AUTO if piles_up(graph, node.inputs[0]):
            return None
        case SignZero.MINUS:
            return -1
        case _:
            return 1


def resolved(rewrite: Rewrite, signs: Mapping[Node, int], element: Element) -> None:
    """Replace the level at 0 of some Steps, and of all that follows from them, by one beside it.

    What is computed from a sign holds at 0 what it holds above, or below, once the sign does.

    Args:
        rewrite: takes the new Steps.
        signs: three-level signs, and what sign(0) becomes in each: +1 or -1.
        element: that of the two-level signs.
    """
    wanted: dict[str, tuple[Op, Node, int]] = {
        node.name: (Step(element), node, sign) for node, sign in signs.items()
    }
    for sign_node, sign in signs.items():
        for node in rewrite.graph.nodes:
            if _follows(sign_node, node):
                wanted.setdefault(node.name, (node.op, node, sign))
    for op, node, sign in wanted.values():
        held = [rewrite.graph.constants[name] for name in node.inputs[1:]]
        thresholds, levels = _with_level_at_zero(held[0], held[1], sign)
        if np.array_equal(thresholds, held[0]) and np.array_equal(levels, held[1]):
            continue
        t = rewrite.constant(f"{node.output}.thresholds", thresholds, Element.F32)
        v = rewrite.constant(f"{node.output}.levels", levels, Element.F32)
        new = rewrite.node(op, (node.inputs[0], t, v), node.output, node.origin)
        rewrite.replace(node, [new])


def _follows(sign: Node, node: Node) -> bool:
    """Whether a node is a Step that is computed from a sign, but spelled over what that is of."""
    above = node is not sign and isinstance(node.op, Step) and node.inputs[0] == sign.inputs[0]
    return above and set(sign.origin) <= set(node.origin)


def _with_level_at_zero(thresholds: Array, levels: Array, sign: int) -> tuple[Array, Array]:
    """Return a Step's thresholds and levels with that at 0 as it is above (+1) or below (-1)."""
    pair = np.broadcast_to(AT_ZERO, (len(thresholds), 2))
    at = np.sort(np.concatenate([thresholds, pair], axis=1), axis=1)
    beside = AT_ZERO[0, 1] if sign > 0 else -AT_ZERO[0, 1]
    met = np.where(at == 0, beside, at)
    passed = (thresholds[:, np.newaxis] <= met[:, :, np.newaxis]).sum(axis=2)
    reached = np.take_along_axis(levels, passed, axis=1)
    return simplified(at, np.concatenate([levels[:, :1], reached], axis=1))


def _apply(graph: Graph, context: Context) -> Outcome:
    rewrite = Rewrite(graph)
    assumptions: list[SignOfZero] = []
    signs: dict[Node, int] = {}
    for node in graph.nodes:
        sign = _sign(graph, node, context.sign_zero) if _is_sign(graph, node) else None
        if sign is None:
            continue
        signs[node] = sign
        if context.sign_zero is SignZero.AUTO and _over_accumulator(graph, node):
            continue  # proven, not assumed
        same = [other for other in graph.nodes if _is_same_in_reals(node, other)]
        # Where the Step was moved over a pool, the model has its sign behind that: as good.
        assumptions.append(SignOfZero(source_name((same or [node])[0].output), sign))
    resolved(rewrite, signs, Element.BIPOLAR)
    return Outcome(rewrite.finish(), assumptions=tuple(assumptions))


def _is_same_in_reals(sign: Node, node: Node) -> bool:
    """Whether a node holds, as a real tensor, the sign of which the other holds the bits."""
    return _follows(sign, node) and node.op == Step(Element.F32) and node.origin == sign.origin


RESOLVE_SIGN_ZERO = Pass(
    "resolve_sign_zero", _apply, requires=Stage.BINARY, exactness=Exactness.ASSUMPTION
)
