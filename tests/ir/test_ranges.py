"""Ranges: whatever float32 value a chain takes on an interval lies inside of its range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.analysis.ranges import bounds_of, range_of, saturated
from bnncc.ir.expression import Chain, trace
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Element
from tests.ir.chains import FLOAT, PARTIAL, chains
from tests.ir.sketch import HARD, INF, LARGEST, F, Sketch

RANDOM = np.random.default_rng(4)


def traced(sketch: Sketch) -> Chain:
    graph = sketch.done()
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    return chain


def within(chain: Chain, low: float, high: float) -> tuple[list[float], list[float]]:
    bottom, top = range_of(chain, np.array([[low]], F), np.array([[high]], F))
    return bottom[0].tolist(), top[0].tolist()


FINITE = st.sampled_from(HARD.tolist()) | st.floats(-8, 8, width=32)


@given(chains([*FLOAT, *PARTIAL[-1:]]), FINITE, FINITE, st.integers(0, 2**32 - 1))
def test_no_value_lies_outside(chain: Chain, a: float, b: float, seed: int) -> None:
    low, high = min(a, b), max(a, b)
    random = np.random.default_rng(seed)
    inside = np.clip(random.uniform(low, high, 40).astype(F), low, high)
    inside = np.concatenate([inside, HARD[(low <= HARD) & (high >= HARD)], [low, high]])
    x = inside.astype(F)[:, np.newaxis].repeat(chain.channels, axis=1)
    bottom, top = range_of(chain, np.array([[low]], F), np.array([[high]], F))
    with np.errstate(all="ignore"):
        y = chain.evaluate(x)
    anything = np.isinf(bottom) & np.isinf(top)  # which allows for NaN
    assert (anything | ((y >= bottom) & (y <= top))).all()


def test_what_is_known_is_tight() -> None:
    s = Sketch(1)
    line = s(ew.Add(), s(ew.Mul(), "x", -2.0), 1.0)
    s(ew.Clip(-4, 4), s(ew.Neg(), s(ew.Abs(), line)), to="y")
    assert within(traced(s), -1, 1) == ([-3], [0])


def test_a_square_is_no_product_of_two() -> None:
    s = Sketch(1)
    s(ew.Mul(), "x", "x", to="y")
    assert within(traced(s), -3, 2) == ([0], [9])
    assert within(traced(s), -3, -2) == ([4], [9])


def test_a_channel_each() -> None:
    s = Sketch(3)
    s(ew.PRelu(), s.batch_norm("x", ([1, -2, 0], [0, 0, 5], [0] * 3, [1] * 3), 0.0), [0.5, 0.5, 1])
    assert within(traced(s), -1, 2) == ([-0.5, -2, 5], [2, 2, 5])


def test_truth_values_are_certain_possible_or_neither() -> None:
    s = Sketch(1)
    up = s(ew.Greater(), "x", 0.0)
    down = s(ew.Not(), s(ew.LessOrEqual(), 1.0, "x"))
    both = s(ew.And(), up, down)
    s(ew.Where(), both, s(ew.Mul(), "x", 10.0), s(ew.Cast(Element.F32), up), to="y")
    chain = traced(s)
    assert within(chain, 0.25, 0.5) == ([2.5], [5])
    assert within(chain, -2, -1) == ([0], [0])
    assert within(chain, 1, 2) == ([1], [1])
    assert within(chain, -1, 0.5) == ([-10], [5])


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(0, 0, (1, 1)), (1, 2, (0, 0)), (-1, 1, (0, 1)), (-1, 0, (0, 1))]
)
def test_equality(low: float, high: float, wanted: tuple[float, float]) -> None:
    s = Sketch(1)
    s(ew.Cast(Element.F32), s(ew.Equal(), "x", 0.0), to="y")
    assert within(traced(s), low, high) == ([wanted[0]], [wanted[1]])


@pytest.mark.parametrize(
    "spell",
    [
        lambda s: s(ew.Div(), 1.0, "x"),
        lambda s: s(ew.PRelu(), "x", -0.5),
        lambda s: s(ew.LeakyRelu(-0.5), "x"),
        lambda s: s(ew.Mul(), s(ew.Mul(), "x", float(LARGEST)), 0.0),
    ],
    ids=["a quotient through zero", "prelu that turns", "leaky relu that turns", "inf * 0"],
)
def test_what_is_not_known_is_anything(spell) -> None:
    s = Sketch(1)
    spell(s)
    assert within(traced(s), -4, 4) == ([-INF], [INF])


def test_a_quotient_away_from_zero() -> None:
    s = Sketch(1)
    s(ew.Div(), -6.0, "x", to="y")
    assert within(traced(s), 2, 3) == ([-3], [-2])
    assert within(traced(s), -3, -2) == ([2], [3])


def test_no_term_at_all_is_the_interval() -> None:
    s = Sketch(1)
    s(ew.Neg(), "x", to="y")
    bare, _ = traced(s).before_last()
    assert within(bare, -1, 2) == ([-1], [2])


def test_a_truth_value_as_the_root_is_certain_of_nothing() -> None:
    s = Sketch(2, element=Element.BOOL)
    s(ew.Where(), s(ew.Not(), "x"), F(3), F(-2))
    assert bounds_of(s.done(), "t1") == (-2, 3)


# --- Differences of magnitudes --------------------------------------------------------------------

BY_MAGNITUDES = {
    "x - c": lambda s: (s(ew.Abs(), "x"), s(ew.Abs(), s(ew.Sub(), "x", 3.0))),
    "c - x": lambda s: (s(ew.Abs(), "x"), s(ew.Abs(), s(ew.Sub(), 3.0, "x"))),
    "x + c": lambda s: (s(ew.Abs(), "x"), s(ew.Abs(), s(ew.Add(), "x", -3.0))),
    "the other way round": lambda s: (s(ew.Abs(), s(ew.Sub(), "x", 3.0)), s(ew.Abs(), "x")),
}


@pytest.mark.parametrize("spelling", BY_MAGNITUDES)
@pytest.mark.parametrize("end", [3.5, 2.0**12, 2.0**22 + 1, 2.0**26])
def test_differences_of_magnitudes(spelling: str, end: float) -> None:
    s = Sketch(1)
    s(ew.Sub(), *BY_MAGNITUDES[spelling](s), to="y")
    chain = traced(s)
    ((low,), (high,)) = within(chain, -end, end)
    assert high <= 3 + 2.0**-23 * end + 2.0**-20
    assert -low == high >= 3
    x = np.concatenate([np.linspace(-end, end, 10001, dtype=F), end - np.arange(9, dtype=F)])
    y = chain.evaluate(np.clip(x, -end, end)[:, np.newaxis])
    assert low <= y.min() <= y.max() <= high


def test_other_differences_are_none() -> None:
    s = Sketch(2)
    other = s(ew.Mul(), s(ew.Tanh(), "x"), 2.0)
    s(ew.Sub(), s(ew.Abs(), "x"), s(ew.Abs(), s(ew.Sub(), "x", other)), to="y")
    assert within(traced(s), -100, 100)[1] == [100, 100]


def test_what_saturates() -> None:
    s = Sketch(1)
    a = s(ew.Mul(), "x", 2.0, to="a")
    s(ew.Sub(), s(ew.Abs(), a), s(ew.Abs(), s(ew.Sub(), a, 3.0)), to="y")
    graph = s.done("y")
    assert bounds_of(graph, "y") is None
    found = saturated(graph, "y")
    assert found is not None
    assert (found.root, found.limit) == ("a", 2.0**20)
    assert found.high == -found.low == pytest.approx(3.0625, abs=1e-5)
    assert saturated(graph, "a") is None


def test_infinity_saturates_at_nothing() -> None:
    s = Sketch(2)
    s(ew.Add(), s(ew.Tanh(), "x"), INF, to="y")
    graph = s.done()
    assert bounds_of(graph, "y") is None
    assert saturated(graph, "y") is None  # and numpy does not warn of inf - inf
