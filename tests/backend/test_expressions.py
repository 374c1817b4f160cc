"""Each elementwise operation as C, bit for bit as its definition in the IR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bnncc.backend.expressions import (
    Parameter,
    is_emittable,
    runtime_headers,
    statements,
)
from bnncc.ir import interpret
from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.graph import GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Epilogue, Map, Store
from bnncc.ir.types import Array, Element, Stage, TensorType
from tests.backend.toolchain import WARNINGS, assert_same_bits, callable_model
from tests.backend.zoo import Emitted, inputs, print_c

CHANNELS = 11
X = Operand(Source.VARIABLE, 0)
F32 = Element.F32


def _p(i: int) -> Operand:
    return Operand(Source.PARAMETER, i)


def _t(i: int) -> Operand:
    return Operand(Source.TERM, i)


def _row(seed: int) -> Array:
    row = np.random.default_rng(seed).standard_normal(CHANNELS).astype(np.float32)
    row[:4] = 0, 1, -1, 3e38
    return row


def _scalar(value: float) -> Array:
    return np.float32(value).reshape(())


def _one(op: ew.Elementwise, *parameters: Array, first: bool = True) -> tuple:
    """Return (terms, parameters) of op(x, *parameters), or of op(*parameters, x)."""
    places = [_p(i) for i in range(len(parameters))]
    return (Term(op, (X, *places) if first else (*places, X)),), parameters


def _truth(op: ew.Elementwise, *parameters: Array) -> tuple:
    """Return the same for a truth value, as 0 and 1."""
    terms, _ = _one(op, *parameters)
    return (*terms, Term(ew.Cast(F32), (_t(0),))), parameters


def _logic(op: ew.Elementwise) -> tuple:
    """Return op(x > 0.5[, x < row]) as 0 and 1."""
    terms = [Term(ew.Greater(), (X, _p(0))), Term(ew.Less(), (X, _p(1)))][: op.arity]
    joined = Term(op, tuple(map(_t, range(op.arity))))
    cast = Term(ew.Cast(F32), (_t(op.arity),))
    return (*terms, joined, cast), (_scalar(0.5), _row(9))[: op.arity]


_THRESHOLDS = np.array([[-1, -0.0, 0.5, np.inf]], np.float32)
_LEVELS = np.array([[-3, -0.0, 0.1, 7, 9]], np.float32)
_SOME = np.sort(np.random.default_rng(1).standard_normal((CHANNELS, 2)).astype(np.float32))
_ROWS = np.random.default_rng(2).standard_normal((CHANNELS, 3)).astype(np.float32)

CASES: dict[str, tuple[tuple[Term, ...], Sequence[Array]]] = {
    "identity": _one(ew.Identity()),
    "add row": _one(ew.Add(), _row(1)),
    "add scalar": _one(ew.Add(), _scalar(-0.25)),
    "add to itself": ((Term(ew.Add(), (X, X)),), ()),
    "row minus x": _one(ew.Sub(), _row(2), first=False),
    "x minus negative": _one(ew.Sub(), _scalar(-1.5)),
    "mul row": _one(ew.Mul(), _row(3)),
    "mul scalar": _one(ew.Mul(), _scalar(-0.1)),
    "mul by minus zero": _one(ew.Mul(), _scalar(-0.0)),
    "div by row": _one(ew.Div(), _row(4)),
    "scalar by x": _one(ew.Div(), _scalar(3), first=False),
    "neg": _one(ew.Neg()),
    "neg of neg": ((Term(ew.Neg(), (X,)), Term(ew.Neg(), (_t(0),))), ()),
    "abs": _one(ew.Abs()),
    "relu": _one(ew.Relu()),
    "leaky relu": _one(ew.LeakyRelu(0.1)),
    "leaky relu, falling": _one(ew.LeakyRelu(-0.1)),
    "prelu": _one(ew.PRelu(), _row(5)),
    "prelu, scalar": _one(ew.PRelu(), _scalar(-2)),
    "clip": _one(ew.Clip(-0.5, 2)),
    "clip at zero": _one(ew.Clip(0, 6)),
    "clip above": _one(ew.Clip(float("-inf"), 1)),
    "hard sigmoid": _one(ew.HardSigmoid(0.2, 0.5)),
    "sign": _one(ew.Sign()),
    "round": _one(ew.Round()),
    "floor": _one(ew.Floor()),
    "ceil": _one(ew.Ceil()),
    "round of scaled": ((Term(ew.Mul(), (X, _p(0))), Term(ew.Round(), (_t(0),))), (_scalar(0.5),)),
    "tanh": _one(ew.Tanh()),
    "erf": _one(ew.Erf()),
    "exp": _one(ew.Exp()),
    "log": _one(ew.Log()),
    "sqrt": _one(ew.Sqrt()),
    **{f"power {halves}": _one(ew.Power(halves)) for halves in (1, 3, 8, -1, -2, -5)},
    "max with a row": _one(ew.Max(), _row(14)),
    "row and max": _one(ew.Max(), _row(15), first=False),
    "min with a row": _one(ew.Min(), _row(14)),
    "row and min": _one(ew.Min(), _row(15), first=False),
    "larger of two terms": (
        (Term(ew.Abs(), (X,)), Term(ew.Neg(), (X,)), Term(ew.Max(), (_t(0), _t(1)))),
        (),
    ),
    "sigmoid": _one(ew.Sigmoid()),
    "sigmoid then mul": ((Term(ew.Sigmoid(), (X,)), Term(ew.Mul(), (X, _t(0)))), ()),
    "greater": _truth(ew.Greater(), _row(6)),
    "greater or equal": _truth(ew.GreaterOrEqual(), _scalar(0)),
    "less": _truth(ew.Less(), _row(7)),
    "less or equal": _truth(ew.LessOrEqual(), _scalar(-0.0)),
    "equal": _truth(ew.Equal(), _row(8)),
    "and": _logic(ew.And()),
    "or": _logic(ew.Or()),
    "not": _logic(ew.Not()),
    "xor": _logic(ew.Xor()),
    "where": (
        (Term(ew.Greater(), (X, _p(0))), Term(ew.Where(), (_t(0), _p(1), X))),
        (_scalar(0), _row(10)),
    ),
    "step, shared": _one(ew.Step(F32), _THRESHOLDS, _LEVELS),
    "step, a row a channel": _one(ew.Step(F32), _SOME, _ROWS),
    "step, one threshold": _one(ew.Step(F32), _THRESHOLDS[:, :1], _LEVELS[:, :2]),
    "mul then add": (
        (Term(ew.Mul(), (X, _p(0))), Term(ew.Add(), (_t(0), _p(1)))),
        (_row(11), _row(12)),
    ),
    # The literal that stands for a row of equal values must have all their bits.
    "mul by zeros of both signs": _one(ew.Mul(), np.float32([0, -0.0] * 5 + [0])),
}
_INTEGER_CASES: dict[str, tuple[tuple[Term, ...], Sequence[Array]]] = {
    "cast": _one(ew.Cast(F32)),
    "dequantize": _one(
        ew.Dequantize(),
        *np.random.default_rng(13).standard_normal((2, CHANNELS)),
        np.zeros(CHANNELS),
    ),
    "dequantize two": (
        (Term(ew.DequantizeTwo(), (X, X, *(_p(i) for i in range(4)))),),
        (*np.random.default_rng(14).standard_normal((3, CHANNELS)), np.zeros(CHANNELS)),
    ),
    "dequantize, scalars": _one(
        ew.Dequantize(), np.full(CHANNELS, 0.1), np.full(CHANNELS, -7.3), np.zeros(CHANNELS)
    ),
}


_ELEMENTS = {F32: CASES, Element.I32: _INTEGER_CASES, Element.U8: {"cast": _INTEGER_CASES["cast"]}}


def _emitted(element: Element) -> Emitted:
    """Return the C of one Map a case, all of one input x [1, CHANNELS]; each has its output."""
    builder = GraphBuilder("cases", Stage.PACKED)
    x = builder.input("x", TensorType((1, CHANNELS), element))
    kinds = {"float32": F32, "float64": Element.F64}
    for name, (terms, parameters) in _ELEMENTS[element].items():
        operands = [builder.constant("p", value, kinds[value.dtype.name]) for value in parameters]
        result = _t(len(terms) - 1)
        epilogue = Epilogue(Expression(terms), 0, len(operands), (Store(result, F32),))
        builder.node(Map(epilogue), [x, *operands], name)
    return print_c(builder.build(list(_ELEMENTS[element])), f"cases_{element.value}")


def _feeds(element: Element, graph) -> dict[str, Array]:
    if element is F32:
        return inputs(graph, 40)
    random = np.random.default_rng(3)
    limits = {Element.I32: (-(2**31), 2**31 - 1), Element.U8: (0, 255)}[element]
    drawn = random.integers(*limits, (40, CHANNELS), endpoint=True)
    drawn[0], drawn[1], drawn[2] = limits[0], limits[1], 2**24 + 1 if element is Element.I32 else 0
    return {"x": drawn.astype(element.dtype)}


def _compared(compiler: str, folder: Path, element: Element, *flags: str) -> dict:
    """Return, by case, what the C gives and what the definition gives."""
    e = _emitted(element)
    feeds = _feeds(element, e.graph)
    actual = callable_model(compiler, e, folder, *flags, *WARNINGS)(feeds)
    expected = interpret.run(e.graph, feeds)
    return {name: ({name: actual[name]}, {name: expected[name]}) for name in actual}


@pytest.fixture(scope="module")
def compared(any_cc: str, tmp_path_factory) -> dict:
    # As most people build: not in a strict dialect, and for the processor at hand.
    flags = ("-O3", "-march=native", "-std=gnu99")
    folder = tmp_path_factory.mktemp("cases")
    return {element: _compared(any_cc, folder, element, *flags) for element in _ELEMENTS}


@pytest.mark.parametrize("name", CASES)
def test_reals(compared, name: str) -> None:
    assert_same_bits(*compared[F32][name])


@pytest.mark.parametrize("name", _INTEGER_CASES)
def test_integers(compared, name: str) -> None:
    assert_same_bits(*compared[Element.I32][name])


def test_bytes(compared) -> None:
    assert_same_bits(*compared[Element.U8]["cast"])


def test_products_are_rounded_whatever_the_compiler_may_fuse(cc: str, tmp_path: Path) -> None:
    flags = ("-O3", "-march=native", "-ffp-contract=fast")
    cases = _compared(cc, tmp_path, F32, *flags)
    for actual, expected in cases.values():
        assert_same_bits(actual, expected)


def test_every_operation_that_has_a_form_is_here() -> None:
    terms = [term for terms, _ in (*CASES.values(), *_INTEGER_CASES.values()) for term in terms]
    tested = {type(term.op) for term in terms}
    with_form = {kind for kind, op in _ALL.items() if is_emittable(op)}
    assert with_form == tested
    # canonical_affine writes it as a product and a sum, before any kernel is chosen.
    assert _ALL.keys() - with_form == {ew.BatchNormalization}


_ATTRIBUTES = {
    ew.Cast: (F32,),
    ew.Step: (F32,),
    ew.LeakyRelu: (0.1,),
    ew.Clip: (0, 1),
    ew.HardSigmoid: (0.2, 0.5),
    ew.Power: (3,),
    ew.BatchNormalization: (1e-5,),
}
_KINDS = [getattr(ew, name) for name in ew.__all__ if name not in ("Elementwise", "over_channels")]
_ALL = {kind: kind(*_ATTRIBUTES.get(kind, ())) for kind in _KINDS}


def test_what_has_no_form_is_refused() -> None:
    terms = (Term(ew.BatchNormalization(1e-5), (X, *map(_p, range(4)))),)
    with pytest.raises(ValueError, match=r"BatchNormalization\(.*\) cannot be written in C"):
        statements(Expression(terms), ("v",), [Parameter((), "row", 1)] * 4)


def test_variables_are_read_by_their_place() -> None:
    y = Operand(Source.VARIABLE, 1)
    terms = (Term(ew.Add(), (y, X)), Term(ew.Mul(), (_t(0), y)))
    lines = statements(Expression(terms), ("v", "other[i]"), [])
    assert [(line.name, line.value) for line in lines] == [
        ("t0", "other[i] + v"),
        ("t1", "bnn_mul(t0, other[i])"),
    ]


@pytest.mark.parametrize(
    ("readers", "product"),
    [
        ((), "bnn_mul(v, v)"),
        ((ew.Mul(),), "v * v"),
        ((ew.Add(),), "bnn_mul(v, v)"),
        ((ew.Sub(),), "bnn_mul(v, v)"),
        ((ew.Mul(), ew.Add()), "bnn_mul(v, v)"),
        ((ew.Add(), ew.Sub()), "bnn_mul(v, v)"),
    ],
)
def test_products_are_guarded_as_far_as_their_readers_may_fuse(
    readers: tuple[ew.Elementwise, ...], product: str
) -> None:
    terms = (Term(ew.Mul(), (X, X)), *(Term(op, (_t(0), X)) for op in readers))
    assert statements(Expression(terms), ("v",), [])[0].value == product


def test_only_the_headers_that_are_called_into() -> None:
    def headers(*ops: ew.Elementwise) -> list[str]:
        return runtime_headers(Expression(tuple(Term(op, (X,)) for op in ops)))

    assert headers() == headers(ew.Relu(), ew.Neg()) == ["bnn_real.h"]
    assert headers(ew.Tanh(), ew.Sigmoid()) == ["bnn_real.h", "bnn_transcendental.h"]
    assert headers(ew.Ceil()) == ["bnn_real.h", "bnn_round.h"]


def test_parameters_are_read_by_channel_and_place() -> None:
    assert Parameter(("1.0f",), "", 1).at() == "1.0f"
    assert Parameter(("1.0f", "2.0f"), "", 2).at(1) == "2.0f"
    assert Parameter((), "row", 1).at() == "row[c]"
    assert Parameter((), "table", 3).at(2) == "table[c * 3u + 2u]"
