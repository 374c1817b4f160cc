"""Residues of straight-through estimators: fl(fl(v - e) + e) = v, where the proof says so.

What the proof rests on is checked float by float; what it says of a quantiser and its estimator is
compared with the arithmetic itself around everything that could go wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnncc.ir.expression import Chain, trace
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Element
from bnncc.passes.residues import exact_below
from tests.ir.sketch import INF, TINY, F, Sketch, neighbourhood

SIGN = np.array([0, TINY], F), np.array([[-1, 0, 1]], F)


def returned(v: float, e: np.ndarray) -> np.ndarray:
    return (F(v) - e) + e


def binade(exponent: int, stride: int = 1) -> np.ndarray:
    start = (exponent + 127) << 23
    return np.arange(start, start + (1 << 23), stride, dtype=np.uint32).view(F)


# --- Float by float -------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [-26, -25, -24, -23, -13, -2, -1, 0, 1, 22, 23])
def test_one_comes_back_from_every_estimate_of_its_sign(exponent: int) -> None:
    e = binade(exponent)
    assert (returned(1, e) == 1).all()
    assert (returned(-1, -e) == -1).all()


def test_one_comes_back_from_estimates_of_any_magnitude() -> None:
    for exponent in range(-126, 24):
        assert (returned(1, binade(exponent, 997)) == 1).all()
    tiny = np.array([0, TINY, 2.0**24], F)
    assert (returned(1, tiny) == 1).all()
    assert (returned(1, np.nextafter(F(2**24), INF)) != 1).all()


def test_even_levels_come_back() -> None:
    random = np.random.default_rng(0)
    v = np.abs(random.standard_normal(200_000).astype(F))
    v = (v.view(np.uint32) & ~np.uint32(1)).view(F)
    ratio = 2.0 ** random.uniform(-40, 1, v.size)
    e = (v * ratio).astype(F)
    assert ((v - e) + e == v).all()


def test_odd_levels_need_not() -> None:
    v = np.nextafter(F(1.5), INF)
    e = binade(-4, 7)
    assert (returned(v, e) != v).any()


def test_nor_does_one_from_estimates_of_the_other_sign() -> None:
    assert (returned(1, -binade(-4, 7)) != 1).any()


# --- Of quantisers --------------------------------------------------------------------------------


def bireal(s: Sketch) -> str:
    """Bi-Real's polynomial as PyTorch exports it, selected by products with 0 and 1."""
    masks = [s(ew.Cast(Element.F32), s(ew.Less(), "x", t)) for t in (-1.0, 0.0, 1.0)]
    squared, twice = s(ew.Mul(), "x", "x"), s(ew.Mul(), "x", 2.0)
    rising = s(ew.Add(), squared, twice)
    last = s(ew.Mul(), masks[0], -1.0)
    last = s(ew.Add(), last, s(ew.Mul(), rising, s(ew.Sub(), 1.0, masks[0])))
    falling = s(ew.Add(), s(ew.Mul(), s(ew.Neg(), "x"), "x"), twice)
    for mask, other in ((masks[1], falling), (masks[2], None)):
        beyond = s(ew.Sub(), 1.0, mask)
        rest = s(ew.Mul(), other, beyond) if other else beyond
        last = s(ew.Add(), s(ew.Mul(), last, mask), rest)
    return last


ESTIMATORS: dict[str, tuple[Callable[[Sketch], str], float]] = {
    "clip": (lambda s: s(ew.Clip(-1, 1), "x"), INF),
    "tanh": (lambda s: s(ew.Tanh(), "x"), INF),
    "a third of it": (lambda s: s(ew.Mul(), "x", 1 / 3), 3 * 2.0**24),
    "x + x": (lambda s: s(ew.Add(), "x", "x"), 2.0**23),
    "bireal": (bireal, 2.0**64),
    "relu": (lambda s: s(ew.Relu(), "x"), 2.0**24),
    "hardtanh of 5 x": (lambda s: s(ew.Clip(-1, 1), s(ew.Mul(), "x", 5.0)), INF),
    "-x": (lambda s: s(ew.Neg(), "x"), float(TINY)),
    "abs": (lambda s: s(ew.Abs(), "x"), float(TINY)),
    "shifted": (lambda s: s(ew.Add(), "x", 0.5), float(TINY)),
    "1 / x": (lambda s: s(ew.Div(), 1.0, "x"), 0),
}


def chain_of(spell: Callable[[Sketch], str]) -> tuple[Graph, Chain]:
    s = Sketch(1)
    graph = s.done(spell(s))
    chain = trace(graph, graph.outputs[0], "x")
    assert chain is not None
    return graph, chain


@pytest.mark.parametrize("name", ESTIMATORS)
def test_of_a_sign(name: str) -> None:
    spell, wanted = ESTIMATORS[name]
    _, e = chain_of(spell)
    limit = exact_below(*SIGN, e, np.array([-1, 0, 1], F))
    # The proof may stop short of where it first fails, by what interval arithmetic loses.
    assert limit == wanted or wanted / 2 <= limit <= wanted
    exact_for(e, limit)


def exact_for(e: Chain, limit: float) -> None:
    exponents = 2.0 ** np.arange(-148, 127)
    near = neighbourhood([*exponents, *-exponents])
    random = np.random.default_rng(1)
    dense = random.uniform(-3, 3, 200_000).astype(F)
    spread = (random.choice([-1, 1], 200_000) * 2.0 ** random.uniform(-126, 126, 200_000)).astype(F)
    x = np.concatenate([near, dense, spread])[:, np.newaxis]
    x = x[np.abs(x[:, 0]) < limit]
    estimate = e.evaluate(x)
    s = np.sign(x)
    np.testing.assert_array_equal((s - estimate) + estimate, s)


def test_x_itself() -> None:
    assert exact_below(*SIGN, None, np.zeros(0, F)) == 2.0**24


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 6.0), (-(2.0**23), 5.0)])
def test_bounds_on_x_count(bounds: tuple[float, float]) -> None:
    assert exact_below(*SIGN, None, np.zeros(0, F), bounds) == INF


def test_levels_of_every_channel_count() -> None:
    thresholds = np.zeros(1, F)
    for levels, wanted in [
        ([[-1, 1], [-0.5, 0.5]], 2.0**23),
        ([[-1, 1], [-0.1, 0.1]], 0.0),  # 0.1 is an odd float32
        ([[-1, 1], [-0.75, 1.5]], 2.0**22 + 0.5),  # -2^22 itself is still exact
        ([[0, 0], [0, 0]], INF),
    ]:
        assert exact_below(thresholds, np.array(levels, F), None, np.zeros(0, F)) == wanted


def test_codes_of_a_quantiser() -> None:
    # round(clip(x, 0, 1)) - clip(x, 0, 1) + clip(x, 0, 1), over c = clip(x, 0, 1).
    above = np.nextafter(F(0.5), INF)
    found = exact_below(np.array([above]), np.array([[0, 1]], F), None, np.zeros(0, F), (0.0, 1.0))
    assert found == INF
