"""What values can a chain take over an interval of its root? Bounds that hold in float32 itself.

Interval arithmetic at the chain's own precision: rounding is monotone, so that where a real
operation takes its extremes at the ends of its operands' intervals, the float32 operation evaluated
there bounds every float32 result in between. A truth value's interval is (certain, possible).

Source: Moore, Kearfott and Cloud 2009, "Introduction to Interval Analysis", chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF
from bnncc.ir.expression import Chain, Operand, Source, Term, chains_to
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element

__all__ = ["Range", "Saturated", "bounds_of", "everything", "range_of", "saturated"]

Range = tuple[Array, Array]
"""The smallest and the largest value there may be; (-inf, inf) where nothing is known."""

_RISING = (
    ew.Identity,
    ew.Relu,
    ew.Clip,
    ew.Exp,
    ew.Log,
    ew.Sqrt,
    ew.Tanh,
    ew.Sigmoid,
    ew.Sign,
    ew.Cast,
    ew.Round,
    ew.Floor,
    ew.Ceil,
)
_INFINITY = np.float32(np.inf)
_ORDINARY, _LARGE = 2.0**12, 2.0**20
_SATURATES = 1.5
"""How much further a tensor's bounds may lie apart where values up to 2^20 go in, not 2^12."""


@dataclass(frozen=True)
class Saturated:
    """A tensor that stays within bounds as long as another's values are not absurdly large.

    Attributes:
        low, high: the bounds.
        root: the other tensor.
        limit: what its magnitudes must stay below.
    """

    low: float
    high: float
    root: str
    limit: float


def range_of(chain: Chain, low: Array, high: Array) -> Range:
    """Return bounds on f_c(x) for all float32 x in [low, high].

    Args:
        chain: f, of C channels.
        low: float32 [M, C] or [M, 1].
        high: likewise, not below low.

    Returns:
        float32 (lowest, highest), both [M, C]. Where x could give a NaN, both are infinite.
    """
    found: list[Range] = []
    undefined: list[Array] = []  # where a term may be no number, which whatever reads it then is
    for term in chain.expression.terms:
        operands = [
            (low, high)
            if o.source is Source.VARIABLE
            else found[o.index]
            if o.source is Source.TERM
            else (chain.operand(o),) * 2
            for o in term.operands
        ]
        bounds = _term(term, operands)
        above = [undefined[o.index] for o in term.operands if o.source is Source.TERM]
        undefined.append(_may_be_undefined(bounds, above))
        bounds = _known(bounds, undefined[-1])
        offset = _offset_of_magnitudes(chain, term)
        if offset is not None:
            bounds = _within_offset(bounds, found[term.operands[0].index], offset)
        found.append(bounds)
    shape = (len(low), chain.channels)
    bottom, top = found[-1] if found else (low, high)
    return np.broadcast_to(bottom, shape), np.broadcast_to(top, shape)


def bounds_of(graph: Graph, name: str) -> tuple[float, float] | None:
    """Return bounds on a tensor that hold whatever the model's input is, if there are any."""
    for chain in chains_to(graph, name):
        ends = everything(graph.types[chain.root].element)
        low, high = (end.astype(np.float64) for end in range_of(chain, *ends))
        if np.isfinite(low).all() and np.isfinite(high).all():
            return float(low.min()), float(high.max())
    return None


def everything(element: Element) -> Range:
    """Return the range of a tensor of which only the element is known, [1, 1] each."""
    if element is Element.BOOL:
        return np.array([[False]]), np.array([[True]])
    return np.full((1, 1), -_INFINITY), np.full((1, 1), _INFINITY)


def saturated(graph: Graph, name: str) -> Saturated | None:
    """Return bounds on a tensor that saturates where nothing is absurdly large, if it does.

    Such as (|x| - |x - c| + c) / 2, a clip in real numbers, whose roundings grow with x.
    """
    found = None
    for chain in chains_to(graph, name):  # the nearest root is the one to make assumptions about
        if graph.types[chain.root].element is not Element.F32:
            continue
        ordinary, large = (
            range_of(chain, np.full((1, 1), -end, np.float32), np.full((1, 1), end, np.float32))
            for end in (_ORDINARY, _LARGE)
        )
        with np.errstate(invalid="ignore"):  # inf - inf is not finite either
            widths = [(high - low).astype(np.float64) for low, high in (ordinary, large)]
        if np.isfinite(widths[1]).all() and (widths[1] <= _SATURATES * widths[0]).all():
            low, high = large
            found = Saturated(float(low.min()), float(high.max()), chain.root, _LARGE)
    return found


def _offset_of_magnitudes(chain: Chain, term: Term) -> Array | None:
    """Return |c| if the term is |x| - |x - c|, either way round, x being anything; else None."""

    def made(operand: Operand) -> Term | None:
        terms = chain.expression.terms
        return terms[operand.index] if operand.source is Source.TERM else None

    magnitudes = [made(o) for o in term.operands] if isinstance(term.op, ew.Sub) else []
    if [m.op if m else None for m in magnitudes] != [ew.Abs(), ew.Abs()]:
        return None
    a, b = (m.operands[0] for m in magnitudes if m)
    for x, other in ((a, made(b)), (b, made(a))):
        if other is None or not isinstance(other.op, ew.Add | ew.Sub) or x not in other.operands:
            continue
        (constant,) = [o for o in other.operands if o != x] or [x]
        if constant.source is Source.PARAMETER:
            return np.abs(chain.operand(constant))
    return None


def _within_offset(found: Range, magnitudes: Range, offset: Array) -> Range:
    """Return the range of |x| - |x - c|: x - c is off by its rounding, the difference monotone."""
    largest = np.maximum(np.abs(magnitudes[0]), np.abs(magnitudes[1])).astype(np.float64)
    most = offset + UNIT_ROUNDOFF * (largest + offset)
    bound = np.nextafter(most.astype(np.float32), _INFINITY)
    return np.maximum(found[0], -bound), np.minimum(found[1], bound)


def _may_be_undefined(found: Range, above: Sequence[Array]) -> Array:
    """Return where a result may be no number, as differences of infinities are, or an operand."""
    low, high = found
    if low.dtype == np.bool_:
        return np.zeros((1, 1), bool)
    nan = np.isnan(low) | np.isnan(high) | (np.isinf(low) & np.isinf(high) & (low < high))
    for operand in above:
        nan = nan | operand
    return np.asarray(nan)


def _known(found: Range, undefined: Array) -> Range:
    """Return the range, everything where there may be no number."""
    low, high = found
    if low.dtype == np.bool_:
        return low, high
    return np.where(undefined, -_INFINITY, low), np.where(undefined, _INFINITY, high)


def _term(term: Term, r: Sequence[Range]) -> Range:
    (low, high), *others = r
    match term.op:
        case _ if isinstance(term.op, _RISING):
            return _at(term.op, low), _at(term.op, high)
        case ew.Neg() | ew.Not():
            return _at(term.op, high), _at(term.op, low)
        case ew.Abs():
            magnitudes = np.abs(low), np.abs(high)
            least = np.where((low <= 0) & (high >= 0), np.float32(0), np.minimum(*magnitudes))
            return least, np.maximum(*magnitudes)
        case ew.Add() | ew.And() | ew.Or() | ew.Max() | ew.Min():
            return _at(term.op, low, others[0][0]), _at(term.op, high, others[0][1])
        case ew.Sub():
            return _at(term.op, low, others[0][1]), _at(term.op, high, others[0][0])
        case ew.Greater() | ew.GreaterOrEqual():
            return _at(term.op, low, others[0][1]), _at(term.op, high, others[0][0])
        case ew.Less() | ew.LessOrEqual():
            return _at(term.op, high, others[0][0]), _at(term.op, low, others[0][1])
        case ew.Equal():
            return _equal(r[0], r[1])
        case ew.Xor():
            (a, b), (c, d) = r
            return (a & ~d) | (c & ~b), (b & ~c) | (d & ~a)
        case ew.Mul() | ew.Div():
            return _product(term, r)
        case ew.Where():
            return _selected(r)
        case _:
            return _of_constants(term, r)


def _at(op: ew.Elementwise, *operands: Array) -> Array:
    return op.evaluate(operands)[0]


def _hull(values: Sequence[Array]) -> Range:
    """Return the smallest range that holds all values; a NaN among them stays one."""
    stacked = np.broadcast_arrays(*values)
    return np.minimum.reduce(stacked), np.maximum.reduce(stacked)


def _product(term: Term, r: Sequence[Range]) -> Range:
    """Return the range of a product or quotient: their extremes lie at corners."""
    a, b = r
    if isinstance(term.op, ew.Mul) and term.operands[0] == term.operands[1]:
        a = b = _term(Term(ew.Abs(), term.operands[:1]), [a])  # x * x is no product of two
        return _at(term.op, a[0], a[0]), _at(term.op, a[1], a[1])
    low, high = _hull([_at(term.op, x, y) for x in a for y in b])
    if isinstance(term.op, ew.Div):
        through_zero = (b[0] <= 0) & (b[1] >= 0)
        low, high = (
            np.where(through_zero, -_INFINITY, low),
            np.where(through_zero, _INFINITY, high),
        )
    return low, high


def _selected(r: Sequence[Range]) -> Range:
    """Return the range of Where: one branch where the condition is certain, else both."""
    (certain, possible), a, b = r

    def end(of: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
        return np.where(certain, x, np.where(possible, of(x, y), y))

    return end(np.minimum, a[0], b[0]), end(np.maximum, a[1], b[1])


def _equal(a: Range, b: Range) -> Range:
    single = (a[0] == a[1]) & (b[0] == b[1])
    return single & (a[0] == b[0]), (a[0] <= b[1]) & (b[0] <= a[1])


def _of_constants(term: Term, r: Sequence[Range]) -> Range:
    """Return the range of an operation that rises or falls in x, all else constant; else all."""
    (low, high), *others = r
    everything = np.full(np.shape(low), -_INFINITY), np.full(np.shape(low), _INFINITY)
    if any(bottom is not top for bottom, top in others):
        return everything
    constants = [bottom for bottom, _ in others]
    match term.op:
        case ew.BatchNormalization() | ew.Dequantize() | ew.HardSigmoid():
            monotone: Array | np.bool_ = np.bool_(True)
        case ew.LeakyRelu(alpha=alpha):
            monotone = np.bool_(alpha >= 0)
        case ew.PRelu():
            monotone = constants[0] >= 0
        case _:
            return everything
    bottom, top = _hull([_at(term.op, low, *constants), _at(term.op, high, *constants)])
    return np.where(monotone, bottom, everything[0]), np.where(monotone, top, everything[1])
