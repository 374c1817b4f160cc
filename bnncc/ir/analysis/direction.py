"""Is a chain monotone? Answered a channel, for the float32 arithmetic itself.

Rounding is monotone, so that fl(x + c), fl(x * c) and their compositions rise or fall as their real
counterparts do: a threshold found by bisection is then exact. Exp, Tanh and Sigmoid are sequences
of roundings for which that argument does not hold; that they never fall was checked for every float
(tests/runtime_c/test_transcendental.py). Sqrt, Log and powers are no numbers below 0, and no order
holds of those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnncc.ir.expression import Chain, Operand, Source, Term
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array

__all__ = ["UNKNOWN", "directions"]

UNKNOWN = 2
"""The direction of a channel that cannot be shown to be monotone."""

_RISING = (
    ew.Identity,
    ew.Relu,
    ew.Clip,
    ew.Exp,
    ew.Tanh,
    ew.Sigmoid,
    ew.Sign,
    ew.Cast,
    ew.Round,
    ew.Floor,
    ew.Ceil,
)


def directions(chain: Chain) -> Array:
    """Return int8 [channels]: +1 never falls, -1 never rises, 0 constant, UNKNOWN not shown."""
    found: list[Array] = []
    for term in chain.expression.terms:
        operands = [_operand(chain, operand, found) for operand in term.operands]
        result = _term(term, operands, chain)
        found.append(np.broadcast_to(result, (chain.channels,)).astype(np.int8))
    rising = np.ones(chain.channels, np.int8)
    return found[-1] if found else rising


def _operand(chain: Chain, operand: Operand, found: Sequence[Array]) -> Array:
    match operand.source:
        case Source.VARIABLE:
            return np.ones(chain.channels, np.int8)
        case Source.PARAMETER:
            return np.zeros(chain.channels, np.int8)
        case Source.TERM:
            return found[operand.index]


def _term(term: Term, d: Sequence[Array], chain: Chain) -> Array:
    """Return the direction of one term, given those of its operands."""
    parameters = [chain.operand(o) if o.source is Source.PARAMETER else None for o in term.operands]
    match term.op:
        case _ if isinstance(term.op, _RISING):
            return d[0]
        case ew.Neg() | ew.Not():
            return _times(d[0], np.int8(-1))
        case ew.Add() | ew.And() | ew.Or() | ew.Max() | ew.Min():
            return _together(d[0], d[1])
        case ew.Sub() | ew.Greater() | ew.GreaterOrEqual():
            return _together(d[0], _times(d[1], np.int8(-1)))
        case ew.Less() | ew.LessOrEqual():
            return _together(_times(d[0], np.int8(-1)), d[1])
        case ew.LeakyRelu(alpha=alpha):
            return d[0] if alpha >= 0 else _unless_constant(d[0], np.bool_(False))
        case ew.HardSigmoid(alpha=alpha):
            return _times(d[0], np.sign(alpha))
        case _:
            return _with_parameters(term, d, parameters)


def _with_parameters(term: Term, d: Sequence[Array], parameters: Sequence[Array | None]) -> Array:
    """Return the direction of a term that its constants decide."""
    match term.op:
        case ew.Mul():
            return _product(d, parameters)
        case ew.Div() if parameters[1] is not None:
            quotient = _times(d[0], np.sign(parameters[1]))
            return np.where(parameters[1] == 0, UNKNOWN, quotient)  # 0 / 0 is no number
        case ew.PRelu() if parameters[1] is not None:
            return _unless_constant(d[0], parameters[1] >= 0)
        case ew.BatchNormalization() as op:
            gamma, beta, mean, variance = (p for p in parameters[1:] if p is not None)
            return _times(d[0], np.sign(op.scale_and_shift(gamma, beta, mean, variance)[0]))
        case ew.Dequantize() if parameters[1] is not None:
            return _times(d[0], np.sign(parameters[1]))
        case ew.Where() if parameters[1] is not None and parameters[2] is not None:
            return _times(d[0], np.sign(parameters[1] - parameters[2]))
        case ew.Step() if parameters[2] is not None:
            return _step(d[0], parameters[2])
        case _:
            return _unless_constant_all(d)


def _times(direction: Array, sign: Array | np.generic | float) -> Array:
    """Return the direction after a factor of the given sign."""
    return np.where(direction == UNKNOWN, UNKNOWN, direction * np.asarray(sign))


def _together(a: Array, b: Array) -> Array:
    """Return the direction of a sum."""
    agree = (a == 0) | (b == 0) | ((a == b) & (a != UNKNOWN))
    return np.where(agree, np.where(a == 0, b, a), UNKNOWN)


def _product(d: Sequence[Array], parameters: Sequence[Array | None]) -> Array:
    for variable, factor in ((d[0], parameters[1]), (d[1], parameters[0])):
        if factor is not None:
            return _times(variable, np.sign(factor))
    return _unless_constant_all(d)


def _unless_constant(direction: Array, holds: Array | np.generic) -> Array:
    """Return the direction where `holds`, and only what is constant elsewhere."""
    return np.where(holds | (direction == 0), direction, UNKNOWN)


def _unless_constant_all(d: Sequence[Array]) -> Array:
    constant = np.all([direction == 0 for direction in d], axis=0)
    return np.where(constant, 0, UNKNOWN)


def _step(direction: Array, levels: Array) -> Array:
    changes = np.diff(levels, axis=1)
    rises, falls = (changes >= 0).all(axis=1), (changes <= 0).all(axis=1)
    sign = np.where(rises & falls, 0, np.where(rises, 1, -1))
    return np.where(rises | falls, _times(direction, sign), _unless_constant(direction, rises))
