"""Recognise everything that maps a real to finitely many levels, and call it Step.

Before: `%g = GreaterOrEqual(%x, 0); %y = Where(%g, 1, -1)`, or `%y = Sign(%x)`, or any other chain.
After: `%y = Step(%x, thresholds, levels)`.

No spelling is looked for. A *jump* (Sign, a comparison with a constant, Round, Floor, Ceil) takes
finitely many values, and so does every elementwise function of such tensors alone, however it is
spelled. Where all of them jump on the same tensor x, they change only at the jumps' own
breakpoints, which are known exactly in float32: the chain is run once between each two of them,
and the levels read off. Exact for every x that is not NaN, but that a level of -0 becomes +0.

Refuses: more than 16 levels, Round of an operand without bounds, constants that vary within a
channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnncc.ir.expression import Chain, trace
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, Refusal
from bnncc.passes.levels import simplified

__all__ = ["RECOGNISE_STEPS"]

_MOST_LEVELS = 16
_ROUNDING_OPS = (ew.Round, ew.Floor, ew.Ceil)
_COMPARISONS = (ew.Greater, ew.GreaterOrEqual, ew.Less, ew.LessOrEqual, ew.Equal)


@dataclass(frozen=True)
class _Levelled:
    """A tensor that takes finitely many values as `root` varies; `jumps` act on root itself."""

    root: str
    jumps: tuple[Node, ...]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    found = _levelled(graph)
    for node in graph.nodes:
        if node.output in found and _is_end(graph, node, found):
            refusal = _replace(rewrite, node, found[node.output])
            if refusal:
                refusals.append(refusal)
    return Outcome(rewrite.finish(), tuple(refusals))


def _levelled(graph: Graph) -> dict[str, _Levelled]:
    """Return every tensor that takes finitely many values, in one walk down the graph."""
    found: dict[str, _Levelled] = {}
    for node in graph.nodes:
        if not isinstance(node.op, ew.Elementwise) or isinstance(node.op, ew.Step):
            continue
        variables = graph.variables(node)
        if not variables:
            continue
        known = [found[name] for name in variables if name in found]
        if len(known) == len(variables) and len({k.root for k in known}) == 1:
            jumps = tuple(dict.fromkeys(jump for k in known for jump in k.jumps))
            found[node.output] = _Levelled(known[0].root, jumps)
        elif len(variables) == 1 and _is_jump(graph, node):
            found[node.output] = _Levelled(variables[0], (node,))
    return found


def _is_jump(graph: Graph, node: Node) -> bool:
    if graph.types[graph.variables(node)[0]].element is not Element.F32:
        return False
    if isinstance(node.op, _ROUNDING_OPS):
        return _bounds(graph, node.inputs[0]) is not None
    if isinstance(node.op, _COMPARISONS):
        return any(map(graph.is_constant, node.inputs))
    return isinstance(node.op, ew.Sign)


def _bounds(graph: Graph, name: str) -> tuple[float, float] | None:
    """Return bounds on a tensor that are known from the operation that made it."""
    node = graph.producers.get(name)
    match node.op if node else None:
        case ew.Clip(low=low, high=high) if high - low < _MOST_LEVELS:
            return min(low, high), high
        case ew.HardSigmoid():
            return 0.0, 1.0
        case ew.Tanh() | ew.Sign():
            return -1.0, 1.0
        case _:
            return None


def _is_end(graph: Graph, node: Node, found: dict[str, _Levelled]) -> bool:
    """Whether something other than the same levelled chain reads the node's result."""
    if graph.types[node.output].element is not Element.F32:
        return False
    root = found[node.output].root
    readers = graph.consumers[node.output]
    same_chain = [r for r in readers if r.output in found and found[r.output].root == root]
    return node.output in graph.outputs or len(same_chain) < len(readers)


def _replace(rewrite: Rewrite, node: Node, levelled: _Levelled) -> Refusal | None:
    graph = rewrite.graph
    chain = trace(graph, node.output, levelled.root)
    if chain is None:
        return Refusal(node.name, node.origin, "its constants vary within a channel")
    thresholds = np.unique(np.concatenate([_breakpoints(graph, j) for j in levelled.jumps]))
    thresholds, levels = simplified(
        thresholds[np.newaxis], _levels(chain, thresholds, _any_value(graph, levelled.root))
    )
    if thresholds.shape[1] >= _MOST_LEVELS:
        reason = f"it takes {thresholds.shape[1] + 1} levels, more than {_MOST_LEVELS}"
        return Refusal(node.name, node.origin, reason)
    origin = [name for n in chain.nodes for name in n.origin]
    t = rewrite.constant(f"{node.output}.thresholds", thresholds, Element.F32)
    v = rewrite.constant(f"{node.output}.levels", levels, Element.F32)
    step = rewrite.node(ew.Step(Element.F32), (levelled.root, t, v), node.output, origin)
    rewrite.replace(node, [step])
    return None


def _breakpoints(graph: Graph, jump: Node) -> Array:
    """Return the float32 values at which a jump's result changes: it differs from x just below."""
    match jump.op:
        case ew.Sign():
            return np.array([0, _above(0)], np.float32)
        case ew.Round() | ew.Floor() | ew.Ceil():
            return _integer_breakpoints(graph, jump)
    constant = np.unique(next(graph.constants[n] for n in jump.inputs if graph.is_constant(n)))
    swapped = graph.is_constant(jump.inputs[0])
    at = constant.astype(np.float32)
    match jump.op:
        case ew.GreaterOrEqual() | ew.Less():
            return _above(at) if swapped else at
        case ew.Greater() | ew.LessOrEqual():
            return at if swapped else _above(at)
        case _:
            return np.concatenate([at, _above(at)])


def _integer_breakpoints(graph: Graph, jump: Node) -> Array:
    bounds = _bounds(graph, jump.inputs[0])
    assert bounds is not None  # _is_jump asked
    integers = np.arange(np.floor(bounds[0]) - 1, np.ceil(bounds[1]) + 1, dtype=np.float32)
    match jump.op:
        case ew.Floor():
            found = integers
        case ew.Ceil():
            found = _above(integers)
        case _:
            # Halves go to even: i + 0.5 rounds to i where i is even, to i + 1 where it is odd.
            halves = integers + np.float32(0.5)
            found = np.where(integers % 2 == 0, _above(halves), halves)
    return found[(found > np.float32(bounds[0])) & (found <= np.float32(bounds[1]))]


def _above(x: Array | float) -> Array:
    with np.errstate(over="ignore"):
        return np.nextafter(np.asarray(x, np.float32), np.float32(np.inf))


def _any_value(graph: Graph, name: str) -> Array:
    """Return a value that the tensor can have, [1]."""
    bounds = _bounds(graph, name)
    return np.array([bounds[1] if bounds else 0], np.float32)


def _levels(chain: Chain, thresholds: Array, anywhere: Array) -> Array:
    """Return the chain's value below the first threshold and from each on, [channels, T + 1]."""
    with np.errstate(over="ignore"):
        below = np.nextafter(thresholds[:1], np.float32(-np.inf))
    probes = np.concatenate([below, thresholds]) if len(thresholds) else anywhere
    x = np.broadcast_to(probes[:, np.newaxis], (len(probes), chain.channels))
    levels = chain.evaluate(x).T + np.float32(0)  # a level of -0 becomes +0
    same = (levels == levels[:1]).all()
    return levels[:1] if same else levels


RECOGNISE_STEPS = Pass("recognise_steps", _apply, requires=Stage.BINARY, exactness=Exactness.VALUE)
