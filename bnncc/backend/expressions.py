"""Expressions as C statements, one a term, for one channel `c`.

Each operation is written so that it gives, in C, the bits that its definition in the IR gives.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from bnncc.backend.literals import literal
from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Element

__all__ = ["Parameter", "Statement", "is_emittable", "runtime_headers", "statements"]


@dataclass(frozen=True)
class Parameter:
    """How C reads a parameter of the expression.

    Attributes:
        literals: its values, if they are the same for every channel.
        array: else the name of an array with a row a channel.
        width: how many values a row has.
    """

    literals: tuple[str, ...]
    array: str
    width: int

    def at(self, j: int = 0) -> str:
        """Return the C expression of value j for channel c."""
        if self.literals:
            return self.literals[j]
        return f"{self.array}[c]" if self.width == 1 else f"{self.array}[c * {self.width}u + {j}u]"


@dataclass(frozen=True)
class Statement:
    """`const {c_type} {name} = {value};`."""

    c_type: str
    name: str
    value: str


_C_TYPES = {Element.BOOL: "int", Element.I32: "int32_t", Element.F32: "float"}

_INFIX = {
    ew.Greater: ">",
    ew.GreaterOrEqual: ">=",
    ew.Less: "<",
    ew.LessOrEqual: "<=",
    ew.Equal: "==",
    ew.And: "&&",
    ew.Or: "||",
    ew.Xor: "!=",
}


_CALLS = {
    ew.Relu: ("bnn_relu", "bnn_real.h"),
    ew.Abs: ("bnn_abs", "bnn_real.h"),
    ew.Sign: ("bnn_sign", "bnn_real.h"),
    ew.Round: ("bnn_round", "bnn_round.h"),
    ew.Floor: ("bnn_floor", "bnn_round.h"),
    ew.Ceil: ("bnn_ceil", "bnn_round.h"),
    ew.Erf: ("bnn_erf", "bnn_transcendental.h"),
    ew.Exp: ("bnn_exp", "bnn_transcendental.h"),
    ew.Log: ("bnn_log", "bnn_transcendental.h"),
    ew.Max: ("bnn_max", "bnn_real.h"),
    ew.Min: ("bnn_min", "bnn_real.h"),
    ew.Power: ("bnn_power", "bnn_power.h"),
    ew.Sqrt: ("bnn_sqrt", "bnn_power.h"),
    ew.Tanh: ("bnn_tanh", "bnn_transcendental.h"),
    ew.Sigmoid: ("bnn_sigmoid", "bnn_transcendental.h"),
}
"""Functions of reals, and the header under runtime_c/ that has them."""


def runtime_headers(expression: Expression) -> list[str]:
    """Return the headers under runtime_c/ that an expression's statements call into."""
    calls = [_CALLS[type(term.op)] for term in expression.terms if type(term.op) in _CALLS]
    return list(dict.fromkeys(["bnn_real.h", *(header for _, header in calls)]))


def is_emittable(op: ew.Elementwise) -> bool:
    """Whether `statements` can write the operation."""
    return isinstance(op, ew.Step) or _value(op, ("a", "b", "c", "d", "e")) is not None


def statements(
    expression: Expression, variables: Sequence[str], parameters: Sequence[Parameter]
) -> list[Statement]:
    """Return the statements that compute an expression; the last one's name is the result.

    Args:
        expression: of operations that `is_emittable` accepts.
        variables: the C expression of each variable, a primary one.
        parameters: how C reads each parameter.
    """
    lines: list[Statement] = []

    def operand(o: Operand) -> str:
        match o.source:
            case Source.VARIABLE:
                return variables[o.index]
            case Source.PARAMETER:
                return parameters[o.index].at()
            case Source.TERM:
                return f"t{o.index}"

    for i, term in enumerate(expression.terms):
        if isinstance(term.op, ew.Step):
            thresholds, levels = (parameters[o.index] for o in term.operands[1:])
            lines += _step(f"t{i}", operand(term.operands[0]), thresholds, levels)
            continue
        value = _value(term.op, [operand(o) for o in term.operands], _readers(expression, i))
        if value is None:
            raise ValueError(f"{term.op} cannot be written in C")
        lines.append(Statement(_C_TYPES[term.op.result_element], f"t{i}", value))
    return lines


def _readers(expression: Expression, i: int) -> set[type[ew.Elementwise]]:
    """Return the operations that read term i."""
    term = Operand(Source.TERM, i)
    return {type(reader.op) for reader in expression.terms if term in reader.operands}


def _product(a: str, b: str, readers: Set[type[ew.Elementwise]]) -> str:
    """Return a product, guarded against fused operations unless nothing could fuse it.

    A sum could, also on gcc, whose pragma does not hold where lanes alternately add and subtract:
    as they do once it knows the constants that are added, and their signs.
    """
    return f"{a} * {b}" if readers == {ew.Mul} else f"bnn_mul({a}, {b})"


def _step(name: str, x: str, thresholds: Parameter, levels: Parameter) -> list[Statement]:
    """Return `x >= t1 ? l2 : x >= t0 ? l1 : l0`: thresholds ascend, so the highest comes first.

    The levels stand in variables of their own: where a selection reads an array, gcc 12 makes it
    the index of one load, which its vectoriser gets wrong from -O3 on (it takes the comparison's
    all-ones mask for 1). tests/verification/test_run.py holds such models.
    """
    read = [Statement("float", f"{name}_{j}", levels.at(j)) for j in range(levels.width)]
    rungs = [f"{x} >= {thresholds.at(j)} ? {read[j + 1].name} : " for j in range(len(read) - 1)]
    return [*read, Statement("float", name, "".join(reversed(rungs)) + read[0].name)]


def _value(
    op: ew.Elementwise, o: Sequence[str], readers: Set[type[ew.Elementwise]] = frozenset()
) -> str | None:
    """Return the C expression of one operation on operands that are primary expressions.

    Args:
        op: the operation.
        o: its operands.
        readers: the operations that read its result; none if anything may.
    """
    match op:
        case ew.Identity():
            return o[0]
        case ew.Cast(to=Element.F32):
            return f"(float){o[0]}"
        case ew.Cast(to=Element.I32):
            return f"(int32_t){o[0]}"
        case ew.Add():
            return f"{o[0]} + {o[1]}"
        case ew.Sub():
            return f"{o[0]} - {o[1]}"
        case ew.Mul():
            return _product(o[0], o[1], readers)
        case ew.Div():
            return f"{o[0]} / {o[1]}"
        case ew.Neg():
            return f"-{o[0]}"
        case ew.Dequantize() | ew.DequantizeTwo():
            call = "bnn_dequantize" if isinstance(op, ew.Dequantize) else "bnn_dequantize_two"
            return f"{call}({', '.join(o[: op.arity - 1])})"
        case ew.Not():
            return f"!{o[0]}"
        case ew.Where():
            return f"{o[0]} ? {o[1]} : {o[2]}"
        case _ if type(op) in _INFIX:
            return f"{o[0]} {_INFIX[type(op)]} {o[1]}"
        case ew.Power(halves=halves):
            inverse = int(halves < 0)
            return f"bnn_power({o[0]}, {abs(halves) // 2}u, {halves % 2}, {inverse})"
        case _ if type(op) in _CALLS:
            return f"{_CALLS[type(op)][0]}({', '.join(o[: op.arity])})"
        case _:
            return _piecewise(op, o)


def _piecewise(op: ew.Elementwise, o: Sequence[str]) -> str | None:
    """Return the C expression of operations that select; comparisons treat -0 as 0."""
    match op:
        case ew.PRelu():
            return f"{o[0]} < 0.0f ? bnn_mul({o[1]}, {o[0]}) : {o[0]}"
        case ew.LeakyRelu(alpha=alpha):
            return f"{o[0]} >= 0.0f ? {o[0]} : bnn_mul({_f32(alpha)}, {o[0]})"
        case ew.Clip(low=low, high=high):
            return f"bnn_clip({o[0]}, {_f32(low)}, {_f32(high)})"
        case ew.HardSigmoid(alpha=alpha, beta=beta):
            line = f"bnn_mul({_f32(alpha)}, {o[0]}) + {_f32(beta)}"
            return f"bnn_clip({line}, 0.0f, 1.0f)"
        case _:
            return None


def _f32(value: float) -> str:
    return literal(np.asarray(value, np.float32))
