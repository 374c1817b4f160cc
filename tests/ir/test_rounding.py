"""The bound on other float32 evaluations holds for every one of them that we can think of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF, bias_slack, bound_of, gamma, spread
from bnncc.ir.expression import Chain, Source, trace
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Array, Element
from tests.ir import orders
from tests.ir.chains import CHANNELS, SMOOTH, chains
from tests.ir.oracles import f32
from tests.ir.sketch import F, Sketch


def evaluated(chain: Chain, x: Array, form: orders.Form) -> Array:
    """Return the chain's value before its final Step, every BatchNormalization in another form."""
    results: list[Array] = []
    pools = {Source.VARIABLE: [x], Source.PARAMETER: chain.parameters, Source.TERM: results}
    for term in chain.expression.terms:
        operands = [pools[o.source][o.index] for o in term.operands]
        if isinstance(term.op, ew.BatchNormalization):
            results.append(form(operands[0], operands[1:], term.op.epsilon))
        elif not isinstance(term.op, ew.Step):
            results.append(term.op.evaluate(operands)[0])
    return results[-1]


def worst(chain: Chain, x: Array, forms: Sequence[orders.Form] = orders.FORMS) -> float:
    """Return the largest distance to another evaluation, in units of the bound there."""
    value, bound = spread(chain, x)
    found = 0.0
    for form in forms:
        with np.errstate(all="ignore"):
            apart = np.abs(evaluated(chain, x, form).astype(np.float64) - value)
        assert not (apart[bound == 0] > 0).any(), f"{form.__name__} differs where bound is 0"
        ratio = apart[bound > 0] / bound[bound > 0]
        found = max(found, float(ratio.max(initial=0.0)))
    return found


def traced(sketch: Sketch, output: str = "") -> Chain:
    graph = sketch.done(*([output] if output else []))
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    return chain


def statistics(random: np.random.Generator, channels: int, far: float = 1.0) -> list[Array]:
    """gamma of both signs, means up to `far` and variances from 1e-8 up."""
    return [
        (random.standard_normal(channels) * 10.0 ** random.integers(-3, 2, channels)).astype(F),
        random.standard_normal(channels).astype(F),
        (random.standard_normal(channels) * far).astype(F),
        (10.0 ** random.uniform(-8, 2, channels)).astype(F),
    ]


@pytest.mark.parametrize("far", [1, 100])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_batch_norm(far: float, epsilon: float) -> None:
    random = np.random.default_rng(int(far))
    channels = 64
    s = statistics(random, channels, far)
    sketch = Sketch(channels)
    sketch.batch_norm("x", s, epsilon)
    chain = traced(sketch)
    integers = random.integers(-200, 201, (12, channels)).astype(F)
    near_the_mean = s[2] + random.standard_normal((6, channels)).astype(F) * F(1e-3)
    found = worst(chain, np.concatenate([integers, near_the_mean.astype(F)]))
    assert found <= 1
    # And it is no wild overestimate: a bound 20 times too wide would call good channels undecided.
    assert found > 0.05


def test_every_form_differs_from_ours_somewhere() -> None:
    random = np.random.default_rng(5)
    s = statistics(random, 64)
    x = random.integers(-200, 201, (20, 64)).astype(F)
    ours = orders.onnx_runtime(x, s, 1e-5)
    (evaluated_,) = ew.BatchNormalization(1e-5).evaluate([x, *s])
    np.testing.assert_array_equal(ours, evaluated_)
    for form in orders.FORMS:
        assert (form(x, s, 1e-5) != ours).any(), form.__name__


@pytest.mark.parametrize(
    "after",
    [
        [(ew.Mul(), 0.3), (ew.Add(), -0.7)],
        [(ew.PRelu(), -3.0), (ew.Sub(), 0.1)],
        [(ew.PRelu(), 0.25), (ew.Div(), 0.3)],
        [(ew.LeakyRelu(0.01),), (ew.Clip(-1, 1),)],
        [(ew.LeakyRelu(-5.0),), (ew.Neg(),), (ew.Abs(),)],
        [(ew.HardSigmoid(0.2, 0.5),), (ew.Mul(), 7.0)],
        [(ew.HardSigmoid(1.0, -3.0),)],
        [(ew.Tanh(),), (ew.Add(), 1.0)],
        [(ew.Sigmoid(),), (ew.Mul(), -3.0)],
        [(ew.Relu(),), (ew.Identity(),), (ew.Add(), -1e-3)],
    ],
    ids=lambda ops: "-".join(str(op[0]) for op in ops),
)
def test_what_follows_carries_the_bound(after: Sequence[tuple]) -> None:
    random = np.random.default_rng(1)
    sketch = Sketch(32)
    last = sketch.batch_norm("x", statistics(random, 32, 10))
    for op, *operands in after:
        last = sketch(op, last, *operands)
    x = random.integers(-60, 61, (30, 32)).astype(F)
    assert worst(traced(sketch, last), x) <= 1


@pytest.mark.parametrize("op", [ew.Add(), ew.Sub(), ew.Mul()], ids=str)
def test_two_uncertain_terms_meet(op: ew.Elementwise) -> None:
    random = np.random.default_rng(2)
    sketch = Sketch(32)
    one = sketch.batch_norm("x", statistics(random, 32))
    other = sketch.batch_norm("x", statistics(random, 32))
    last = sketch(op, one, sketch(ew.Relu(), other))
    x = random.integers(-60, 61, (30, 32)).astype(F)
    assert worst(traced(sketch, last), x) <= 1


def test_an_uncertain_divisor() -> None:
    random = np.random.default_rng(3)
    sketch = Sketch(8)
    last = sketch(ew.Div(), 1.0, sketch.batch_norm("x", statistics(random, 8)))
    x = random.integers(-60, 61, (30, 8)).astype(F)
    assert worst(traced(sketch, last), x) <= 1


@pytest.mark.parametrize("ulps", [-5, -1, 1, 5])
def test_no_two_libraries_agree_on_tanh(ulps: int) -> None:
    # ONNX Runtime's was seen up to 5.2 ulp off the true value.
    sketch = Sketch(1)
    last = sketch(ew.Add(), sketch(ew.Mul(), sketch(ew.Tanh(), "x"), 3.0), 0.1)
    chain = traced(sketch, last)
    x = np.concatenate([np.linspace(-9, 9, 181), np.logspace(-40, 0, 50)]).astype(F)[:, np.newaxis]
    value, bound = spread(chain, x)
    exact = np.tanh(x.astype(np.float64))
    other = (exact + ulps * np.spacing(exact.astype(F))).astype(F) * F(3) + F(0.1)
    assert (np.abs(other.astype(np.float64) - value) <= bound).all()
    assert (other != value).any()


@pytest.mark.parametrize("off", [-1.7e-7, -6e-8, 6e-8, 1.7e-7])
def test_no_two_libraries_agree_on_the_logistic_function(off: float) -> None:
    # ONNX Runtime's was seen up to 1.7e-7 off the true value.
    sketch = Sketch(1)
    last = sketch(ew.Add(), sketch(ew.Mul(), sketch(ew.Sigmoid(), "x"), 3.0), 0.1)
    x = np.linspace(-25, 25, 501).astype(F)[:, np.newaxis]
    value, bound = spread(traced(sketch, last), x)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    other = np.clip(exact + off, 0, 1).astype(F) * F(3) + F(0.1)
    assert (np.abs(other.astype(np.float64) - value) <= bound).all()
    assert (other != value).any()


@given(chains(SMOOTH))
def test_random_chains(chain: Chain) -> None:
    x = np.linspace(-20, 20, 81, dtype=F)[:, np.newaxis].repeat(CHANNELS, axis=1)
    assert worst(chain, x) <= 1


def test_no_uncertainty_without_batch_norm_or_slack() -> None:
    sketch = Sketch(2)
    scaled = sketch(ew.Mul(), "x", [0.1, 0.3])
    sketch(ew.Add(), sketch(ew.PRelu(), sketch(ew.HardSigmoid(0.2, 0.5), scaled), 0.7), 0.1)
    _, bound = spread(traced(sketch), np.ones((3, 2), F))
    assert bound.tolist() == [[0, 0]] * 3


def test_the_final_step_is_not_part_of_the_value() -> None:
    sketch = Sketch(2)
    doubled = sketch(ew.Mul(), "x", [2, 3])
    sketch(ew.Step(Element.BIPOLAR), doubled, [[0]], [[-1, 1]])
    value, bound = spread(traced(sketch), np.array([[1, -1]], F))
    assert (value.tolist(), bound.tolist()) == ([[2, -3]], [[0, 0]])
    alone = Sketch(2)
    alone(ew.Step(Element.BIPOLAR), "x", [[0]], [[-1, 1]])
    value, bound = spread(traced(alone), np.array([[1, -1]], F), slack=0.5)
    assert (value.tolist(), bound.tolist()) == ([[1, -1]], [[0.5, 0.5]])


def test_a_jump_is_uncertain_where_its_operand_may_lie_on_either_side() -> None:
    """Rows: below, next to, and above the jump; the operand may be off by 1/4."""
    x = np.array([[-0.75], [-0.125], [0.75]], F)
    for jump, height in ((ew.Sign(), [0, 2, 0]), (ew.Floor(), [0, 1, 0]), (ew.Round(), [0, 0, 0])):
        sketch = Sketch(1)
        sketch(jump, "x")
        _, bound = spread(traced(sketch), x, slack=0.1875)
        assert bound[:, 0].tolist() == height, jump
        _, bound = spread(traced(sketch), x)
        assert (bound == 0).all()


def test_a_comparison_is_uncertain_where_its_operands_may_be_equal() -> None:
    x = np.array([[-0.5], [-0.125], [0.5]], F)
    sketch = Sketch(1)
    below = sketch(ew.Less(), "x", 0)
    sketch(ew.Where(), below, sketch(ew.Mul(), "x", 4), "x")
    _, bound = spread(traced(sketch), x, slack=0.1875)
    assert bound[:, 0] == pytest.approx([0.75, 0.375 + 0.75, 0.1875], rel=1e-6)


def test_a_step_is_off_by_the_furthest_level_within_reach() -> None:
    """Rows: below all thresholds, next to one, between two that both are near, above."""
    x = np.array([[-9, -9], [-0.125, -0.125], [0.5, 0.5], [9, 9]], F)
    sketch = Sketch(2)
    levels = [[0, 5, 1, 7], [2, 2, 2, 3]]  # of no order
    step = sketch(ew.Step(Element.F32), "x", [[0, 0.4, 0.75], [0, 0.4, 0.75]], levels)
    sketch(ew.Neg(), step)
    chain = traced(sketch)
    _, bound = spread(chain, x, slack=0.25)
    assert bound.tolist() == [[0, 0], [5, 0], [6, 1], [0, 0]]
    _, bound = spread(chain, x)
    assert (bound == 0).all()


def test_a_product_with_what_is_exactly_0_is_0() -> None:
    """Where a divisor may be 0 the quotient is unbounded: times 0 it is 0, times 0 or 1 is open."""
    sketch = Sketch(2)
    open_ = sketch(ew.Div(), 1.0, "x")
    sketch(ew.Mul(), open_, [0, 2])
    _, bound = spread(traced(sketch), np.array([[0.125, 0.125], [8, 8]], F), slack=0.25)
    assert bound[0].tolist() == [0, np.inf]
    assert np.isfinite(bound[1]).all()
    both = Sketch(1)
    open_ = both(ew.Div(), 1.0, "x")
    bit = both(ew.Step(Element.F32), "x", [[0.25]], [[0, 1]])
    both(ew.Mul(), open_, bit)
    _, bound = spread(traced(both), np.array([[0.125]], F), slack=0.25)
    assert np.isposinf(bound).all()


TRUTHS = [(a, b) for a in (False, True) for b in (False, True)]


@pytest.mark.parametrize("op", [ew.And(), ew.Or(), ew.Xor()])
def test_a_truth_value_is_uncertain_where_another_operand_would_change_it(
    op: ew.Elementwise,
) -> None:
    for (a, b), open_a, open_b in itertools.product(TRUTHS, (0.0, 1.0), (0.0, 1.0)):
        values = [np.array(v) for v in (a, b)]
        moved = [np.array(v) for v in (open_a, open_b)]
        reached = {
            bool(op.compute(np.array(p), np.array(q)))
            for p in ({a, not a} if open_a else {a})
            for q in ({b, not b} if open_b else {b})
        }
        bound = bound_of(op, values, moved, op.compute(*values))
        assert float(bound) == (len(reached) > 1), (op, a, b, open_a, open_b)


FUNCTIONS = [ew.Exp(), ew.Log(), ew.Erf(), ew.Sqrt(), ew.Power(-3), ew.Power(4), ew.Power(1)]


@pytest.mark.parametrize("op", FUNCTIONS, ids=str)
def test_a_function_moves_no_further_than_its_bound(op: ew.Elementwise) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0.01, 5, 4000).astype(F)
    moved = random.choice([0.0, 1e-6, 1e-3, 0.02], x.shape)
    y = op.compute(x)
    for side in (-1, 1):
        other = (x + side * moved).astype(F)
        with np.errstate(all="ignore"):
            apart = np.abs(op.compute(other).astype(np.float64) - y)
        bound = bound_of(op, [x], [np.abs(other.astype(np.float64) - x)], y)
        # What is no number is not among the values, and may lie beyond a pole.
        assert (np.isnan(apart) | (apart <= bound)).all()
        assert np.isfinite(bound[x > 2 * moved]).all()


@given(
    st.lists(st.integers(-500, 500), min_size=1, max_size=20),
    st.floats(2**-10, 10, width=32),
    st.floats(0, 1e-3),
)
def test_slack_reaches_the_end(ns: list[int], alpha: float, slack: float) -> None:
    random = np.random.default_rng(len(ns))
    sketch = Sketch(1, Element.I32)
    doubles = [sketch.const([v], element=Element.F64) for v in (alpha, 0.0, slack)]
    value = sketch(ew.Dequantize(), "x", *doubles)
    s = statistics(random, 1)
    sketch.batch_norm(value, s)
    n = np.array(ns, np.int32)[:, np.newaxis]
    own, bound = spread(traced(sketch), n)
    defined = np.array([[f32(v * alpha)] for v in ns], F)
    for end in (-slack, slack):
        # Any float32 within the slack of fl(alpha * n) may come out of the sum.
        moved = np.array([[f32(float(v) + end)] for v in defined[:, 0]], F)
        inside = np.abs(moved.astype(np.float64) - defined) <= slack
        for form in orders.FORMS:
            assert (np.abs(form(moved, s, 1e-5) - own) <= bound)[inside].all()


def test_two_accumulators_are_off_by_their_slack_and_what_moves_them() -> None:
    operands = [np.array([[5, 7]]), np.array([[2]]), [0.5, 2], [-3, 0.25], [1, 1], [0.125, 0]]
    op, values = ew.DequantizeTwo(), [np.asarray(v) for v in operands]
    none = [np.zeros(())] * 6
    assert bound_of(op, values, none, np.zeros((1, 2))).tolist() == [0.125, 0]
    moved = [np.asarray(2.0), np.asarray(1.0), *none[2:]]
    assert bound_of(op, values, moved, np.zeros((1, 2))).tolist() == [0.125 + 1 + 3, 4 + 0.25]


@pytest.mark.parametrize("two", [False, True])
def test_a_chain_over_a_value_starts_from_its_slack(two: bool) -> None:
    sketch = Sketch(2, Element.I32)
    rows = [sketch.const([v, v], element=Element.F64) for v in (0.5, 2.0, 0.25)]
    slack = sketch.const([0.125, 0], "slack", Element.F64)
    more = ("x", rows[0], rows[1], rows[2], slack) if two else (rows[0], rows[2], slack)
    op = ew.DequantizeTwo() if two else ew.Dequantize()
    value = sketch(op, "x", *more, to="value")
    graph = sketch.done(sketch(ew.Neg(), value))
    chain = trace(graph, graph.outputs[0], "value")
    assert chain is not None
    assert bias_slack(graph, chain).tolist() == [0.125, 0]


# --- The emulation itself -------------------------------------------------------------------------


@given(*[st.floats(-1e3, 1e3, width=32)] * 3)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    found = Fraction(float(orders.fma(F(a), F(b), F(c))))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    below, above = (Fraction(float(np.nextafter(F(float(found)), F(e)))) for e in (-np.inf, np.inf))
    assert abs(found - exact) <= min(abs(below - exact), abs(above - exact))


def test_fma_is_not_two_roundings() -> None:
    a, c = F(1 + 2**-12), F(-(1 + 2**-11))
    assert orders.fma(a, a, c) == F(2**-24)
    assert a * a + c == 0


@given(st.integers(1, 1 << 20))
def test_gamma_is_highams(n: int) -> None:
    u = Fraction(1, 1 << 24)
    assert abs(Fraction(float(gamma(n))) / (n * u / (1 - n * u)) - 1) < Fraction(1, 1 << 50)
    assert Fraction(UNIT_ROUNDOFF) == u
