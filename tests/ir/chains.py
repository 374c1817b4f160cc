"""Random elementwise chains, as graphs, for the analyses."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from bnncc.ir.expression import Chain, trace
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Element
from tests.ir.sketch import Sketch

CHANNELS = 3

_NUMBERS = st.floats(-4, 4, width=16) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, -1e-3])
_ROWS = st.lists(_NUMBERS, min_size=CHANNELS, max_size=CHANNELS)
_PARAMETERS = _NUMBERS | _ROWS
_NONZERO = _NUMBERS.filter(lambda v: v != 0)
_POSITIVE = st.sampled_from([1.0, 0.5, 2.25, 1e-3, 6e-8])

_UNARY = [ew.Neg(), ew.Abs(), ew.Relu(), ew.Clip(-1, 1), ew.Clip(0, 2), ew.Tanh(), ew.Sign()]
_UNARY += [ew.Round(), ew.Floor(), ew.Ceil(), ew.LeakyRelu(0.25), ew.LeakyRelu(-0.5), ew.Identity()]
_UNARY += [ew.HardSigmoid(0.25, 0.5), ew.HardSigmoid(-0.25, 0.5), ew.Sigmoid(), ew.Erf()]
# Infinite, or no numbers, for some operands.
_PARTIAL = [ew.Exp(), ew.Sqrt(), ew.Log(), ew.Power(3), ew.Power(-2)]
_COMPARISONS = [ew.Greater(), ew.GreaterOrEqual(), ew.Less(), ew.LessOrEqual(), ew.Equal()]

Append = Callable[[st.DrawFn, Sketch, str, str], str]


def _with_constant(op: ew.Elementwise) -> Append:
    def append(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
        constant = sketch.const(draw(_PARAMETERS))
        operands = (a, constant) if draw(st.booleans()) else (constant, a)
        return sketch(op, *operands)

    return append


def _together(op: ew.Elementwise) -> Append:
    return lambda draw, sketch, a, b: sketch(op, a, b)


def _divided(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    rows = st.lists(_NONZERO, min_size=CHANNELS, max_size=CHANNELS)
    return sketch(ew.Div(), a, draw(_NONZERO | rows))


def _unary(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    return sketch(draw(st.sampled_from(_UNARY)), a)


def _partial(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    return sketch(draw(st.sampled_from(_PARTIAL)), a)


def _prelu(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    return sketch(ew.PRelu(), a, draw(_PARAMETERS))


def _batch_norm(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    variance = draw(st.lists(_POSITIVE, min_size=CHANNELS, max_size=CHANNELS))
    statistics = [draw(_ROWS) for _ in range(3)]
    return sketch(ew.BatchNormalization(1e-5), a, *statistics, variance)


def _compared(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    right = b if draw(st.booleans()) else sketch.const(draw(_PARAMETERS))
    operands = (a, right) if draw(st.booleans()) else (right, a)
    return sketch(draw(st.sampled_from(_COMPARISONS)), *operands)


def _truth(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    """A truth value of one or two comparisons."""
    truth = _compared(draw, sketch, a, b)
    match draw(st.integers(0, 4)):
        case 0:
            return sketch(ew.Not(), truth)
        case 1:
            return sketch(ew.And(), truth, _compared(draw, sketch, a, b))
        case 2:
            return sketch(ew.Or(), truth, _compared(draw, sketch, a, b))
        case 3:
            return sketch(ew.Xor(), truth, _compared(draw, sketch, a, b))
    return truth


def _where(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    truth = _truth(draw, sketch, a, b)
    if draw(st.booleans()):
        return sketch(ew.Where(), truth, draw(_PARAMETERS), draw(_PARAMETERS))
    return sketch(ew.Where(), truth, a, b)


def _cast(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    return sketch(ew.Cast(Element.F32), _truth(draw, sketch, a, b))


def _step(draw: st.DrawFn, sketch: Sketch, a: str, b: str) -> str:
    rows = draw(st.sampled_from([1, CHANNELS]))
    count = draw(st.integers(0, 3))
    row = st.lists(_NUMBERS, min_size=count, max_size=count).map(sorted)
    levels = st.lists(_NUMBERS, min_size=count + 1, max_size=count + 1)
    levels |= levels.map(sorted) | levels.map(lambda v: sorted(v, reverse=True))
    thresholds = draw(st.lists(row, min_size=rows, max_size=rows))
    values = draw(st.lists(levels, min_size=rows, max_size=rows))
    return sketch(ew.Step(Element.F32), a, thresholds, values)


_OF_TWO = (ew.Add(), ew.Sub(), ew.Mul(), ew.Max(), ew.Min())
_WITH_CONSTANT = [_with_constant(op) for op in _OF_TWO]
_TOGETHER = [_together(op) for op in _OF_TWO]
ALL: list[Append] = [*_WITH_CONSTANT, *_TOGETHER, _divided, _unary, _unary, _prelu, _batch_norm]
ALL += [_where, _cast, _step]
FLOAT: list[Append] = [kind for kind in ALL if kind is not _step]
PARTIAL: list[Append] = [*ALL, _partial, _partial]
SMOOTH: list[Append] = [*_WITH_CONSTANT, _divided, _prelu, _batch_norm]


def extended(draw: st.DrawFn, sketch: Sketch, x: str, kinds: list[Append], count: int) -> str:
    """Append `count` steps below x, each on any tensor made here; return the last result."""
    made = [x]
    for _ in range(count):
        # The last result more often than not, or there would be no long chains.
        a = made[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(made))
        b = draw(st.sampled_from(made))
        made.append(draw(st.sampled_from(kinds))(draw, sketch, a, b))
    return made[-1]


@st.composite
def chains(draw: st.DrawFn, kinds: list[Append], most: int = 4) -> Chain:
    """Draw a chain over x [1, 3] of up to `most` steps."""
    sketch = Sketch(CHANNELS)
    last = extended(draw, sketch, "x", kinds, draw(st.integers(1, most)))
    chain = trace(sketch.done(last), last, "x")
    assert chain is not None
    return chain
