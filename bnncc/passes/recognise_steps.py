"""Recognise everything that maps a real to finitely many levels, and call it Step.

Before: `%g = GreaterOrEqual(%x, 0); %y = Where(%g, 1, -1)`, or `%y = Sign(%x)`, or any other chain.
After: `%y = Step(%x, thresholds, levels)`.

No spelling is looked for. A *jump* (Sign, a comparison with a constant, Round, Floor, Ceil, the sum
with a constant so large that it rounds, or x / |x|) takes finitely many values, and so does every
elementwise function of such tensors alone, however it is spelled. Where all of them jump on the
same tensor x, they change only at the jumps' own breakpoints, which are known exactly in float32:
the chain is run once between each two of them, and the levels read off. Exact for every x that is
not NaN, but that a level of -0 becomes +0. exp, tanh and the like, of which every library has its
own, end a chain.

Nor does (s - e) + e, what a straight-through estimator leaves behind, take other values than s: see
`residues`. Where that is proven for |x| below a limit only, the limit is an assumption, unless it
is beyond 2^60. x / |x| at 0, no number in the model, becomes +1 or what --sign-zero asks for: an
assumption too. So is it that |x| - |x - c|, of which PACT makes its clip, is within +-c: beyond
2^20 its roundings are not.

Refuses: more than 16 levels, Round of an operand without bounds, constants that vary within a
channel, residues that are not proven to vanish for |x| < 2^20.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from bnncc.certificate import Assumption, Bounded, SignOfZero
from bnncc.ir.analysis.ranges import bounds_of, saturated
from bnncc.ir.analysis.rounding import OF_A_LIBRARY
from bnncc.ir.expression import Chain, trace
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, Refusal, SignZero
from bnncc.passes.levels import simplified
from bnncc.passes.residues import exact_below
from bnncc.passes.thresholds import FLOATS

__all__ = ["RECOGNISE_STEPS"]

_MOST_LEVELS = 16
_SMALLEST_LIMIT = 2.0**20
_NO_ACTIVATION = 2.0**60  # near the square root of the largest float32
_ROUNDING_OPS = (ew.Round, ew.Floor, ew.Ceil)
_COMPARISONS = (ew.Greater, ew.GreaterOrEqual, ew.Less, ew.LessOrEqual, ew.Equal)


@dataclass(frozen=True)
class _Levelled:
    """A tensor that takes finitely many values as `root` varies; `jumps` act on root itself."""

    root: str
    jumps: tuple[Node, ...]
    bounded: tuple[Bounded, ...] = ()


def _apply(graph: Graph, context: Context) -> Outcome:
    recogniser = _Recogniser(Rewrite(graph), context.sign_zero)
    found = recogniser.levelled()
    for node in graph.nodes:
        if node.outputs[0] in found and _is_end(graph, node, found):
            recogniser.replace(node, found[node.outputs[0]])
    return Outcome(
        recogniser.rewrite.finish(),
        tuple(recogniser.refusals),
        assumptions=tuple(dict.fromkeys(recogniser.assumptions)),
    )


@dataclass(frozen=True)
class _Recogniser:
    """One application of the pass, and what it has to say."""

    rewrite: Rewrite
    sign_zero: SignZero
    refusals: list[Refusal] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)

    def refuse(self, node: Node, reason: str) -> None:
        self.refusals.append(Refusal(node.name, node.origin, reason))

    def levelled(self) -> dict[str, _Levelled]:
        """Return every tensor that takes finitely many values, in one walk down the graph."""
        graph = self.rewrite.graph
        found: dict[str, _Levelled] = {}
        for node in graph.nodes:
            if not isinstance(node.op, ew.Elementwise) or isinstance(node.op, ew.Step):
                continue
            variables = graph.variables(node)
            own = not isinstance(node.op, OF_A_LIBRARY)  # of which the model's values may differ
            known = [found[name] for name in variables if name in found and own]
            root = _jumps_on(graph, node)
            quantised = _without_residue(graph, node, found)
            if known and len(known) == len(variables) and len({k.root for k in known}) == 1:
                jumps = dict.fromkeys(jump for k in known for jump in k.jumps)
                bounded = dict.fromkeys(b for k in known for b in k.bounded)
                found[node.output] = _Levelled(known[0].root, tuple(jumps), tuple(bounded))
            elif root is not None:
                if isinstance(node.op, ew.Div) and self.sign_zero is SignZero.EXACT:
                    self.refuse(node, "x / |x| is no number at 0, and --sign-zero is exact")
                else:
                    found[node.output] = _Levelled(root, (node,), _within_bounds(graph, node))
            elif quantised is not None:
                self._residue(node, *quantised, found)
        return found

    def _residue(self, node: Node, s: str, e: str, found: dict[str, _Levelled]) -> None:
        """Take (s - e) + e for s where that is proven."""
        graph = self.rewrite.graph
        root = found[s].root
        chain = trace(graph, s, root)
        estimator = trace(graph, e, root)
        if chain is None or (estimator is None and e != root):
            return
        thresholds = _thresholds(graph, found[s].jumps)
        jumps = [n for n in (estimator.nodes if estimator else ()) if _jumps_on(graph, n) == root]
        limit = exact_below(
            thresholds,
            _levels(chain, thresholds, _any_value(graph, root)),
            estimator,
            _thresholds(graph, jumps),
            bounds_of(graph, root),
        )
        if limit < _SMALLEST_LIMIT:
            self.refuse(node, f"subtracting and adding {e} may not leave its levels as they are")
            return
        bounded = found[s].bounded
        if limit < _NO_ACTIVATION:
            bounded = (*bounded, Bounded(root, limit, node.output))
        found[node.output] = _Levelled(root, found[s].jumps, bounded)

    def replace(self, node: Node, levelled: _Levelled) -> None:
        """Put a Step in the place of the node that ends a chain."""
        graph = self.rewrite.graph
        chain = trace(graph, node.output, levelled.root)
        if chain is None:
            self.refuse(node, "its constants vary within a channel")
            return
        thresholds = _thresholds(graph, levelled.jumps)
        levels = _levels(chain, thresholds, _any_value(graph, levelled.root))
        sign = -1 if self.sign_zero is SignZero.MINUS else 1
        undefined = np.isnan(levels)
        quotients = [jump for jump in levelled.jumps if isinstance(jump.op, ew.Div)]
        if undefined.any() and not quotients:
            self.refuse(node, "some of its levels are no numbers")
            return
        levels = np.where(undefined, np.roll(levels, -sign, axis=1), levels)
        thresholds, levels = simplified(thresholds[np.newaxis], levels)
        if thresholds.shape[1] >= _MOST_LEVELS:
            self.refuse(
                node, f"it takes {thresholds.shape[1] + 1} levels, more than {_MOST_LEVELS}"
            )
            return
        self.assumptions.extend(levelled.bounded)
        self.assumptions.extend(SignOfZero(q.output, sign, undefined=True) for q in quotients)
        origin = [name for n in chain.nodes for name in n.origin]
        t = self.rewrite.constant(f"{node.output}.thresholds", thresholds, Element.F32)
        v = self.rewrite.constant(f"{node.output}.levels", levels, Element.F32)
        step = self.rewrite.node(ew.Step(Element.F32), (levelled.root, t, v), node.output, origin)
        self.rewrite.replace(node, [step])


def _jumps_on(graph: Graph, node: Node) -> str | None:
    """Return the tensor of which the node takes the sign, compares it or rounds it, if it does."""
    variables = graph.variables(node)
    if not variables or graph.types[variables[0]].element is not Element.F32:
        return None
    if isinstance(node.op, ew.Add | ew.Sub):
        return variables[0] if _rounded_sums(graph, node) is not None else None
    if isinstance(node.op, ew.Div):
        magnitude = graph.producers.get(node.inputs[1])
        is_sign = magnitude and magnitude.op == ew.Abs() and magnitude.inputs == node.inputs[:1]
        return node.inputs[0] if is_sign else None
    if len(variables) > 1 or not _is_jump(graph, node):
        return None
    return variables[0]


def _is_jump(graph: Graph, node: Node) -> bool:
    if isinstance(node.op, _ROUNDING_OPS):
        bounds = _bounds(graph, node.inputs[0])
        return bounds is not None and bounds[1] - bounds[0] < _MOST_LEVELS
    if isinstance(node.op, _COMPARISONS):
        return any(map(graph.is_constant, node.inputs))
    return isinstance(node.op, ew.Sign)


def _bounds(graph: Graph, name: str) -> tuple[float, float] | None:
    """Return bounds on a tensor, if need be such as hold while another one is not absurd."""
    known = bounds_of(graph, name)
    if known is not None:
        return known
    found = saturated(graph, name)
    return (found.low, found.high) if found else None


def _rounds(jump: Node) -> bool:
    """Whether a jump has its values between bounds of its operand alone."""
    return isinstance(jump.op, (*_ROUNDING_OPS, ew.Add, ew.Sub))


def _within_bounds(graph: Graph, jump: Node) -> tuple[Bounded, ...]:
    """Return what a jump takes for granted of the model's values: of roundings, their bounds."""
    (name,) = graph.variables(jump)[:1]
    found = saturated(graph, name) if _rounds(jump) and bounds_of(graph, name) is None else None
    return (Bounded(found.root, found.limit, jump.output),) if found else ()


def _rounded_sums(graph: Graph, node: Node) -> tuple[float, float, Array] | None:
    """Return (lowest x, highest x, constant) of a sum x + constant with a few values; else None.

    Of numbers as large as 1.5 * 2^23 float32 has the whole ones alone: adding that and subtracting
    it again rounds to the nearest even integer, which is how old opsets without Round spell it.
    """
    constants = [graph.constants[name] for name in node.inputs if graph.is_constant(name)]
    falls = isinstance(node.op, ew.Sub) and graph.is_constant(node.inputs[0])
    if len(constants) != 1 or constants[0].size != 1 or falls:
        return None
    bounds = _bounds(graph, graph.variables(node)[0])
    if bounds is None:
        return None
    constant = constants[0].reshape(())
    ends = FLOATS.index(node.op.evaluate([np.array(bounds, np.float32), constant])[0])
    return (*bounds, constant) if ends[1] - ends[0] < _MOST_LEVELS else None


def _without_residue(
    graph: Graph, node: Node, found: Mapping[str, _Levelled]
) -> tuple[str, str] | None:
    """Return (s, e) if the node is (s - e) + e with s levelled."""
    if node.op != ew.Add():
        return None
    for difference, e in (node.inputs, node.inputs[::-1]):
        made = graph.producers.get(difference)
        if made and made.op == ew.Sub() and made.inputs[1] == e and made.inputs[0] in found:
            return made.inputs[0], e
    return None


def _is_end(graph: Graph, node: Node, found: dict[str, _Levelled]) -> bool:
    """Whether something other than the same levelled chain reads the node's result."""
    if graph.types[node.output].element is not Element.F32:
        return False
    root = found[node.output].root
    readers = graph.consumers[node.output]
    results = [reader.outputs[0] for reader in readers]
    same_chain = [name for name in results if name in found and found[name].root == root]
    return node.output in graph.outputs or len(same_chain) < len(readers)


def _thresholds(graph: Graph, jumps: Collection[Node]) -> Array:
    """Return, ascending, every float at which one of the jumps differs from the float below.

    What rounds is known within the bounds of its operand alone: where one does, that is how far the
    chain is looked at, and what jumps beyond does not count.
    """
    found = np.zeros(0, np.float32)
    found = np.unique(np.concatenate([found, *(_breakpoints(graph, jump) for jump in jumps)]))
    for jump in jumps:
        bounds = _bounds(graph, graph.variables(jump)[0]) if _rounds(jump) else None
        if bounds is not None:
            found = found[(found > np.float32(bounds[0])) & (found <= np.float32(bounds[1]))]
    return found


def _breakpoints(graph: Graph, jump: Node) -> Array:
    """Return the float32 values at which a jump's result changes: it differs from x just below."""
    match jump.op:
        case ew.Sign() | ew.Div():
            return np.array([0, _above(0)], np.float32)
        case ew.Round() | ew.Floor() | ew.Ceil():
            return _integer_breakpoints(graph, jump)
        case ew.Add() | ew.Sub():
            return _sum_breakpoints(graph, jump)
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


def _sum_breakpoints(graph: Graph, jump: Node) -> Array:
    """Return the smallest x at which each value of a rounded sum but the first is reached.

    The sum rises with x, so that bisection over the floats finds it.
    """
    known = _rounded_sums(graph, jump)
    assert known is not None  # _jumps_on asked
    ends = FLOATS.index(np.array(known[:2], np.float32))

    def sums(index: Array) -> Array:
        return FLOATS.index(jump.op.evaluate([FLOATS.at(index), known[2]])[0])

    values = np.arange(*sums(ends)) + 1
    low, high = np.broadcast_to(ends[:1], values.shape), np.broadcast_to(ends[1:], values.shape)
    while (low < high).any():
        middle = (low + high) // 2
        reached = sums(middle) >= values
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return np.asarray(FLOATS.at(low))


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
