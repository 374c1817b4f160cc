"""Directions are never claimed wrongly, and are claimed where thresholds are commonly sought."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from bnncc.ir.analysis.direction import UNKNOWN, directions
from bnncc.ir.expression import Chain, trace
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element
from tests.ir.chains import ALL, PARTIAL, chains
from tests.ir.sketch import HARD, Sketch, neighbourhood

_DENSE = np.arange(-6, 6, 0.0625)
_SPREAD = np.concatenate([sign * np.logspace(-8, 4, 60) for sign in (-1, 1)])


def grid(chain: Chain) -> Array:
    """Return ascending floats: dense around 0, far out, and next to the chain's own constants."""
    own = np.concatenate([np.ravel(p) for p in chain.parameters] or [np.zeros(0)])
    points = neighbourhood(np.concatenate([_DENSE, _SPREAD, own, own - 1, own + 0.5]))
    return points[np.abs(points) < 1e5]


def counterexamples(chain: Chain) -> str:
    """Return what contradicts the claimed directions on the grid, "" if nothing does."""
    x = grid(chain)
    with np.errstate(all="ignore"):
        y = chain.evaluate(np.broadcast_to(x[:, np.newaxis], (len(x), chain.channels)))
    y = y.astype(np.float64)
    for c, direction in enumerate(directions(chain).tolist()):
        if direction == UNKNOWN:
            continue
        before, after = y[:-1, c], y[1:, c]  # not their difference, which infinities have not
        wrong = {1: after < before, -1: after > before, 0: after != before}[direction]
        if wrong.any():
            i = int(np.argmax(wrong))
            at = f"f({x[i]!r}) = {y[i, c]!r}, f({x[i + 1]!r}) = {y[i + 1, c]!r}"
            return f"channel {c} claimed {direction}, but {at} in {chain.expression}"
    return ""


@given(chains(PARTIAL))
def test_no_claim_has_a_counterexample(chain: Chain) -> None:
    assert counterexamples(chain) == ""


@given(chains(ALL))
def test_one_direction_a_channel(chain: Chain) -> None:
    found = directions(chain)
    assert found.shape == (chain.channels,)
    assert found.dtype == np.int8
    assert set(found.tolist()) <= {-1, 0, 1, UNKNOWN}


def of(sketch: Sketch) -> list[int]:
    graph = sketch.done()
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    assert counterexamples(chain) == ""
    return directions(chain).tolist()


# --- Claims that thresholds over floats depend on -------------------------------------------------


@pytest.mark.parametrize(
    ("op", "direction"),
    [
        (ew.Identity(), 1),
        (ew.Neg(), -1),
        (ew.Relu(), 1),
        (ew.Clip(-1, 1), 1),
        (ew.Tanh(), 1),
        (ew.Sigmoid(), 1),
        (ew.Sign(), 1),
        (ew.Round(), 1),
        (ew.Floor(), 1),
        (ew.Ceil(), 1),
        (ew.HardSigmoid(0.2, 0.5), 1),
        (ew.HardSigmoid(-0.2, 0.5), -1),
        (ew.LeakyRelu(0.01), 1),
        (ew.LeakyRelu(-0.01), UNKNOWN),
        (ew.Abs(), UNKNOWN),
        (ew.Exp(), 1),
        (ew.Erf(), UNKNOWN),
        (ew.Sqrt(), UNKNOWN),
        (ew.Log(), UNKNOWN),
        (ew.Power(4), UNKNOWN),
    ],
    ids=str,
)
def test_unary(op: ew.Elementwise, direction: int) -> None:
    sketch = Sketch(3)
    sketch(op, "x")
    assert of(sketch) == [direction] * 3


def test_constants_decide_a_channel() -> None:
    sketch = Sketch(3)
    sketch(ew.Mul(), "x", [2, 0, -3])
    assert of(sketch) == [1, 0, -1]
    left = Sketch(3)
    left(ew.Mul(), [2, 0, -3], "x")
    assert of(left) == [1, 0, -1]
    divided = Sketch(3)
    divided(ew.Div(), "x", [2, -1, 0.5])
    assert of(divided) == [1, -1, 1]
    slopes = Sketch(3)
    slopes(ew.PRelu(), "x", [0.5, -0.5, 0])
    assert of(slopes) == [1, UNKNOWN, 1]


def test_sums_and_differences_with_constants() -> None:
    for op, operands, direction in (
        (ew.Add(), ("x", 3.0), 1),
        (ew.Add(), (3.0, "x"), 1),
        (ew.Sub(), ("x", 3.0), 1),
        (ew.Sub(), (3.0, "x"), -1),
    ):
        sketch = Sketch(3)
        sketch(op, *operands)
        assert of(sketch) == [direction] * 3


def test_batch_norm_goes_with_gamma() -> None:
    sketch = Sketch(3)
    sketch.batch_norm("x", ([1, 0, -1], [0.5, 0.5, 0.5], [1, 2, 3], [1e-8, 1, 2]))
    assert of(sketch) == [1, 0, -1]


def test_batch_norm_whose_scale_underflows_is_constant() -> None:
    sketch = Sketch(3)
    statistics = ([1e-30, -1e-30, 1], [1, 1, 1], [0, 0, 0], [3e38, 3e38, 1])
    sketch.batch_norm(sketch.builder.node(ew.Mul(), ["x", sketch.const(1e-20)], "s"), statistics)
    assert of(sketch)[2] == 1


def test_two_falls_rise() -> None:
    sketch = Sketch(3)
    bn = sketch.batch_norm(sketch(ew.Neg(), "x"), ([-1, 1, -2], [0, 0, 0], [1, 2, 3], [1, 1, 1]))
    sketch(ew.Relu(), bn)
    assert of(sketch) == [1, -1, 1]


@pytest.mark.parametrize(
    ("op", "direction"),
    [
        (ew.Greater(), 1),
        (ew.GreaterOrEqual(), 1),
        (ew.Less(), -1),
        (ew.LessOrEqual(), -1),
        (ew.Equal(), UNKNOWN),
    ],
    ids=str,
)
def test_comparisons_and_what_reads_them(op: ew.Elementwise, direction: int) -> None:
    other = {1: -1, -1: 1, UNKNOWN: UNKNOWN}[direction]
    for swapped, right in ((False, direction), (True, other)):
        operands = (0.5, "x") if swapped else ("x", 0.5)
        cast = Sketch(3)
        cast(ew.Cast(Element.F32), cast(op, *operands))
        assert of(cast) == [right] * 3
        where = Sketch(3)
        where(ew.Where(), where(op, *operands), [1, -1, 2], [-1, 1, 2])
        assert of(where) == [right, {1: -1, -1: 1, UNKNOWN: UNKNOWN}[right], 0] or right == UNKNOWN
        negated = Sketch(3)
        negated(ew.Cast(Element.F32), negated(ew.Not(), negated(op, *operands)))
        assert of(negated) == [{1: -1, -1: 1, UNKNOWN: UNKNOWN}[right]] * 3


def test_steps_go_with_their_levels() -> None:
    sketch = Sketch(4)
    levels = [[-1, 0, 1], [1, 0, -1], [1, -1, 1], [2, 2, 2]]
    sketch(ew.Step(Element.F32), "x", np.tile([[0.0, 1.0]], (4, 1)), levels)
    assert of(sketch) == [1, -1, UNKNOWN, 0]


def test_rising_terms_may_meet() -> None:
    sketch = Sketch(3)
    sketch(ew.Add(), sketch(ew.Mul(), "x", [1, -1, 0]), sketch(ew.Clip(-1, 1), "x"))
    assert of(sketch) == [1, UNKNOWN, 1]
    falling = Sketch(3)
    falling(ew.Sub(), falling(ew.Neg(), "x"), "x")
    assert of(falling) == [-1] * 3


def test_no_term_at_all_rises() -> None:
    sketch = Sketch(2)
    sketch(ew.Neg(), "x")
    graph = sketch.done()
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    assert directions(chain.before_last()[0]).tolist() == [1, 1]


def test_dequantize_goes_with_its_scale() -> None:
    sketch = Sketch(3, Element.I32)
    doubles = [sketch.const(v, element=Element.F64) for v in ([0.1, 0, -2], [1, 1, 1], [9, 9, 9])]
    sketch(ew.Dequantize(), "x", *doubles)
    graph = sketch.done()
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    assert directions(chain).tolist() == [1, 0, -1]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_quotient_by_zero_is_not_constant(zero: float) -> None:
    # x / 0 is -inf below and +inf above 0: the sign of a divisor says nothing where it is 0.
    sketch = Sketch(1)
    sketch(ew.Div(), "x", zero)
    graph = sketch.done()
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    x = HARD[HARD != 0][:, np.newaxis]
    assert len(np.unique(chain.evaluate(x))) == 2
    assert directions(chain).tolist() != [0]
