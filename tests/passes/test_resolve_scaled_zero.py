"""resolve_scaled_zero: what sign(0) becomes is decided before levels are counted, and said."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.certificate import SignOfZero
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.ops.shape import Slice
from bnncc.ir.types import Array, Element
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.resolve_scaled_zero import RESOLVE_SCALED_ZERO
from bnncc.pipeline import run_pass
from tests.ir.sketch import HARD, F, Sketch, only
from tests.passes.applying import apply, context
from tests.passes.epilogues import SIGN

LEVELS = (-0.9, -0.1, 0.7)
WEIGHTS = np.array([[1, -1, 1, 1], [-1, -1, 1, -1]], F)
LATENT = np.array([[0.317, -0.7, 0.11, 0.923]], F)


def before_a_layer(
    s: Sketch, x: str, levels: object = (LEVELS,), thresholds: object = SIGN[0]
) -> Graph:
    step = s(ew.Step(Element.F32), x, s.const(thresholds, "t"), s.const(levels, "v"), to="b")
    s(MatMul(), step, WEIGHTS, to="y")
    return s.done("y")


def reals(operation: ew.Elementwise | None = None, **given: object) -> Graph:
    s = Sketch()
    return before_a_layer(s, s(operation, "x") if operation else "x", **given)


def resolved(graph: Graph, mode: str = "auto") -> Graph:
    outcome = apply(RESOLVE_SCALED_ZERO, graph, context(sign_zero=mode))
    run_pass(RESOLVE_SCALED_ZERO, graph, context(sign_zero=mode))
    assert bool(outcome.assumptions) is (outcome.graph is not graph)
    assert apply(RESOLVE_SCALED_ZERO, outcome.graph, context(sign_zero=mode)).assumptions == ()
    return outcome.graph


def level_at_zero(graph: Graph) -> float:
    (row,) = interpret.run_stored(graph, {"x": np.zeros((1, 4), F)})["b"]
    return float(row[0])


@pytest.mark.parametrize(
    ("mode", "level"), [("auto", 0.7), ("plus", 0.7), ("minus", -0.9), ("exact", -0.1)]
)
def test_reals(mode: str, level: float) -> None:
    before = reals()
    outcome = apply(RESOLVE_SCALED_ZERO, before, context(sign_zero=mode))
    after = resolved(before, mode)
    assert level_at_zero(after) == F(level)
    if mode == "exact":
        assert after is before
        return
    (assumption,) = outcome.assumptions
    assert isinstance(assumption, SignOfZero)
    assert (assumption.tensor, assumption.value) == ("b", -1 if mode == "minus" else 1)
    assert assumption.levels == tuple(float(F(level)) for level in LEVELS)
    x = np.resize(HARD[HARD != 0], (12, 4))
    old, new = (interpret.run_stored(g, {"x": x})["b"] for g in (before, after))
    np.testing.assert_array_equal(new, old)


def test_two_levels_are_one_plane() -> None:
    """A scaled sign becomes bipolar, a shifted one a code of one bit."""
    for levels, element in (((-0.3, 0.0, 0.3), Element.BIPOLAR), (LEVELS, Element.U1)):
        after = run_pass(BINARISE_WEIGHTS, resolved(reals(levels=(levels,))), context()).graph
        assert after.types[only(after, BinaryDense).inputs[0]].element is element


@pytest.mark.parametrize("mode", ["auto", "plus"])
def test_behind_a_relu_zero_is_no_accident(mode: str) -> None:
    before = reals(ew.Relu())
    assert (resolved(before, mode) is before) is (mode == "auto")


@pytest.mark.parametrize(
    ("weights", "stays"),
    [
        (np.sign(LATENT), True),  # one accumulator
        (np.sign(LATENT) * F(0.3) + F(0.1), False),  # two of them, whose sum is real
        (LATENT, False),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "plus"])
def test_accumulators_to_be(weights: Array, stays: bool, mode: str) -> None:
    s = Sketch()
    bits = s(ew.Step(Element.F32), "x", *SIGN)
    weights = np.repeat(weights, 4, axis=0)
    before = before_a_layer(s, s(ew.Mul(), s(MatMul(), bits, weights), 0.5))
    assert (resolved(before, mode) is before) is (stays and mode == "auto")


def test_bytes_are_accumulators() -> None:
    s = Sketch(4, Element.U8)
    before = before_a_layer(s, s(ew.Sub(), s(ew.Cast(Element.F32), "x"), 127.0))
    assert RESOLVE_SCALED_ZERO.apply(before, context()).graph is before


@pytest.mark.parametrize(
    "given",
    [
        {"levels": ((-1.0, 0.0, 1.0),)},  # resolve_sign_zero's, once it is known to be bits
        {
            "levels": (LEVELS, LEVELS, (-2.0, 0.0, 2.0), LEVELS),
            "thresholds": SIGN[0] * F([[1]] * 4),
        },
        {"levels": ((0.0, 1.0, 1.0),)},
        {"thresholds": [[0.0, 0.5]]},
    ],
)
def test_what_is_no_scaled_sign(given: dict[str, object]) -> None:
    before = reals(**given)
    assert RESOLVE_SCALED_ZERO.apply(before, context(sign_zero="plus")).graph is before


def test_reals_that_no_layer_reads() -> None:
    s = Sketch()
    step = s(ew.Step(Element.F32), "x", s.const(SIGN[0], "t"), s.const((LEVELS,), "v"), to="b")
    s(ew.Mul(), step, 2.0, to="y")
    before = s.done("y")
    assert RESOLVE_SCALED_ZERO.apply(before, context()).graph is before


def test_levels_that_move_on_the_way_to_a_layer() -> None:
    s = Sketch(6)
    step = s(ew.Step(Element.F32), "x", s.const(SIGN[0], "t"), s.const((LEVELS,), "v"), to="b")
    s(MatMul(), s(Slice((0, 1), (1, 4), (1, 1)), step), WEIGHTS, to="y")
    before = s.done("y")
    assert resolved(before) is not before
