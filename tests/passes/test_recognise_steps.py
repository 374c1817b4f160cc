"""recognise_steps: every spelling of a quantiser becomes Steps that agree with it at every float.

Each spelling is run before and after on all its breakpoints, the floats on either side, both
zeros, subnormals and the largest floats; between those neither side can change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnncc.certificate import Bounded, SignOfZero
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.types import Element
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from bnncc.passes.recognise_steps import RECOGNISE_STEPS
from tests.ir.sketch import TINY, F, Sketch, neighbourhood, only, ops, same_bits
from tests.passes.applying import GENERIC, apply, context, same_text, step_tables

GRID = neighbourhood(np.concatenate([np.arange(-20, 20, 0.25), [0.1, -0.1, 1 / 3, 2.5000002]]))


def recognised(graph: Graph) -> Graph:
    return apply(ELIMINATE_DEAD, apply(RECOGNISE_STEPS, graph).graph).graph


def agree(before: Graph, after: Graph, more: object = ()) -> None:
    """Assert that two graphs over x [1, C] give equal values at the grid's and `more` floats."""
    channels = before.types["x"].shape[-1]
    x = np.concatenate([GRID, neighbourhood(more)])[:, np.newaxis].repeat(channels, axis=1)
    old, new = interpret.run(before, {"x": x}), interpret.run(after, {"x": x})
    for name in old:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)


Spelling = Callable[[Sketch], str]


def compared(op: ew.Elementwise, swapped: bool, above: float, below: float) -> Spelling:
    """Where(x op 0, ...) with +1 above and -1 below, however the comparison has it."""

    def spell(s: Sketch) -> str:
        operands = (0.0, "x") if swapped else ("x", 0.0)
        return s(ew.Where(), s(op, *operands), above, below)

    return spell


def sign_of_zero_repaired(s: Sketch) -> str:
    sign = s(ew.Sign(), "x")
    return s(ew.Where(), s(ew.Equal(), sign, 0.0), 1.0, sign)


def sign_of_zero_repaired_from_x(s: Sketch) -> str:
    return s(ew.Where(), s(ew.Equal(), 0.0, "x"), np.ones((1, 2)), s(ew.Sign(), "x"))


def cast_and_scaled(op: ew.Elementwise, swapped: bool) -> Spelling:
    def spell(s: Sketch) -> str:
        operands = (0.0, "x") if swapped else ("x", 0.0)
        real = s(ew.Cast(Element.F32), s(op, *operands))
        return s(ew.Sub(), s(ew.Mul(), 2.0, real), 1.0)

    return spell


def sign_add_sign(s: Sketch) -> str:
    return s(ew.Sign(), s(ew.Add(), s(ew.Sign(), "x"), 0.1))


def ternary_by_casts(s: Sketch) -> str:
    up = s(ew.Cast(Element.F32), s(ew.Greater(), "x", 0.5))
    down = s(ew.Cast(Element.F32), s(ew.Less(), "x", -0.5))
    return s(ew.Sub(), up, down)


def ternary_by_where(s: Sketch) -> str:
    inner = s(ew.Where(), s(ew.LessOrEqual(), "x", -0.5), -1.0, 0.0)
    return s(ew.Where(), s(ew.GreaterOrEqual(), "x", 0.5), 1.0, inner)


def inside_an_interval(s: Sketch) -> str:
    both = s(ew.And(), s(ew.GreaterOrEqual(), "x", -1.0), s(ew.Less(), "x", 1.0))
    return s(ew.Cast(Element.F32), both)


def outside_an_interval(s: Sketch) -> str:
    either = s(ew.Or(), s(ew.Less(), "x", -1.0), s(ew.Greater(), "x", 1.0))
    return s(ew.Where(), s(ew.Not(), either), -1.0, 1.0)


def scaled_sign(s: Sketch) -> str:
    return s(ew.Add(), s(ew.Mul(), s(ew.Sign(), "x"), [0.25, -3.0]), [0.5, 0.125])


def normalised_sign(s: Sketch) -> str:
    statistics = ([1.5, -1.5], [0.1, 0.0], [0.5, -0.5], [0.1, 2.0])
    return s(ew.Sign(), s.batch_norm(s(ew.Sign(), "x"), statistics))


ON_X: dict[str, Spelling] = {
    "sign": lambda s: s(ew.Sign(), "x"),
    "x >= 0 ? 1 : -1": compared(ew.GreaterOrEqual(), False, 1.0, -1.0),
    "x > 0 ? 1 : -1": compared(ew.Greater(), False, 1.0, -1.0),
    "x < 0 ? -1 : 1": compared(ew.Less(), False, -1.0, 1.0),
    "x <= 0 ? -1 : 1": compared(ew.LessOrEqual(), False, -1.0, 1.0),
    "0 <= x ? 1 : -1": compared(ew.LessOrEqual(), True, 1.0, -1.0),
    "0 < x ? 1 : -1": compared(ew.Less(), True, 1.0, -1.0),
    "0 > x ? -1 : 1": compared(ew.Greater(), True, -1.0, 1.0),
    "0 >= x ? -1 : 1": compared(ew.GreaterOrEqual(), True, -1.0, 1.0),
    "x >= 0 ? -1 : 1": compared(ew.GreaterOrEqual(), False, -1.0, 1.0),
    "sign, then 0 becomes 1": sign_of_zero_repaired,
    "sign, but 1 where x is 0": sign_of_zero_repaired_from_x,
    "2 * (x >= 0) - 1": cast_and_scaled(ew.GreaterOrEqual(), False),
    "2 * (x > 0) - 1": cast_and_scaled(ew.Greater(), False),
    "2 * (0 > x) - 1": cast_and_scaled(ew.Greater(), True),
    "sign(sign + 0.1)": sign_add_sign,
    "(x > d) - (x < -d)": ternary_by_casts,
    "nested where": ternary_by_where,
    "inside an interval": inside_an_interval,
    "outside an interval": outside_an_interval,
    "x == 2.5": lambda s: s(ew.Cast(Element.F32), s(ew.Equal(), "x", 2.5)),
    "scale * sign + shift": scaled_sign,
    "sign of a normalised sign": normalised_sign,
    "sign(-x) by 0 - sign": lambda s: s(ew.Sub(), 0.5, s(ew.Sign(), "x")),
    "abs(sign)": lambda s: s(ew.Abs(), s(ew.Sign(), "x")),
    "round(0.7 * sign)": lambda s: s(ew.Round(), s(ew.Mul(), 0.7, s(ew.Sign(), "x"))),
    "clip(sign)": lambda s: s(ew.Clip(0, 6), s(ew.Sign(), "x")),
    "rsign": lambda s: s(ew.Where(), s(ew.GreaterOrEqual(), "x", [0.25, -3.0]), 1.0, -1.0),
    "full-shape branches": lambda s: s(
        ew.Where(), s(ew.Greater(), "x", 0.0), np.full((1, 2), 1.0), np.full((1, 2), -1.0)
    ),
    "prelu of a sign": lambda s: s(ew.PRelu(), s(ew.Sign(), "x"), [0.5, -0.5]),
}

AFTER_A_CHAIN: dict[str, tuple[Spelling, list[str]]] = {
    "relu, sign": (lambda s: s(ew.Sign(), s(ew.Relu(), "x")), ["Relu"]),
    "hardtanh, sign": (lambda s: s(ew.Sign(), s(ew.Clip(-1, 1), "x")), ["Clip"]),
    "tanh, sign": (lambda s: s(ew.Sign(), s(ew.Tanh(), "x")), ["Tanh"]),
    "clip 0..1, round": (lambda s: s(ew.Round(), s(ew.Clip(0, 1), "x")), ["Clip"]),
    "clip 0..3, round": (lambda s: s(ew.Round(), s(ew.Clip(0, 3), "x")), ["Clip"]),
    "clip 0..15, round": (lambda s: s(ew.Round(), s(ew.Clip(0, 15), "x")), ["Clip"]),
    "clip -1..1, round": (lambda s: s(ew.Round(), s(ew.Clip(-1, 1), "x")), ["Clip"]),
    "clip -2..2, round": (lambda s: s(ew.Round(), s(ew.Clip(-2, 2), "x")), ["Clip"]),
    "clip to odd bounds, round": (lambda s: s(ew.Round(), s(ew.Clip(-1.5, 2.5), "x")), ["Clip"]),
    "clip to integers, floor": (lambda s: s(ew.Floor(), s(ew.Clip(-2, 2), "x")), ["Clip"]),
    "clip to integers, ceil": (lambda s: s(ew.Ceil(), s(ew.Clip(-2, 2), "x")), ["Clip"]),
    "clip to halves, round": (lambda s: s(ew.Round(), s(ew.Clip(-0.5, 1.5), "x")), ["Clip"]),
    "clip, floor": (lambda s: s(ew.Floor(), s(ew.Clip(-2.5, 2.25), "x")), ["Clip"]),
    "clip, ceil": (lambda s: s(ew.Ceil(), s(ew.Clip(-2.5, 2.25), "x")), ["Clip"]),
    "dorefa 2 bits": (
        lambda s: s(ew.Div(), s(ew.Round(), s(ew.Mul(), s(ew.Clip(0, 1), "x"), 3.0)), 3.0),
        ["Clip", "Mul"],
    ),
    "dorefa 4 bits": (
        lambda s: s(ew.Mul(), s(ew.Round(), s(ew.Mul(), s(ew.Clip(0, 1), "x"), 15.0)), F(1 / 15)),
        ["Clip", "Mul"],
    ),
    "pact, 2 bits": (
        lambda s: s(
            ew.Div(), s(ew.Round(), s(ew.Mul(), s(ew.Clip(0, 1.7), "x"), F(3 / 1.7))), F(3 / 1.7)
        ),
        ["Clip", "Mul"],
    ),
    "signed, 3 bits": (
        lambda s: s(ew.Div(), s(ew.Round(), s(ew.Mul(), s(ew.Clip(-1, 1), "x"), 3.0)), 3.0),
        ["Clip", "Mul"],
    ),
    "round by a large constant": (
        lambda s: s(ew.Sub(), s(ew.Add(), s(ew.Clip(-2, 1), "x"), 12582912.0), 12582912.0),
        ["Clip"],
    ),
    "round by a large constant in front": (
        lambda s: s(ew.Add(), -8388608.0, s(ew.Sub(), s(ew.Clip(0, 3), "x"), -8388608.0)),
        ["Clip"],
    ),
    "round to halves": (
        lambda s: s(ew.Sub(), s(ew.Add(), 6291456.0, s(ew.Clip(-1, 1), "x")), 6291456.0),
        ["Clip"],
    ),
    "codes with an offset": (
        lambda s: s(
            ew.Sub(),
            s(ew.Mul(), s(ew.Floor(), s(ew.Div(), s(ew.Clip(0, 0.99), "x"), 0.25)), 0.5),
            0.75,
        ),
        ["Clip", "Div"],
    ),
    "2 * round(hardsigmoid) - 1": (
        lambda s: s(
            ew.Sub(), s(ew.Mul(), 2.0, s(ew.Round(), s(ew.HardSigmoid(0.2, 0.5), "x"))), 1.0
        ),
        ["HardSigmoid"],
    ),
    "round(tanh)": (lambda s: s(ew.Round(), s(ew.Tanh(), "x")), ["Tanh"]),
    "batch norm, sign": (
        lambda s: s(ew.Sign(), s.batch_norm("x", ([2, -1], [0.5, 0], [1, 2], [1, 1e-8]))),
        ["BatchNormalization"],
    ),
}


@pytest.mark.parametrize("name", ON_X)
def test_spellings_on_x(name: str) -> None:
    sketch = Sketch(2)
    before = sketch.done(ON_X[name](sketch))
    after = recognised(before)
    assert ops(after) == ["Step"]
    agree(before, after)


@pytest.mark.parametrize("name", AFTER_A_CHAIN)
def test_spellings_after_a_chain(name: str) -> None:
    spell, kept = AFTER_A_CHAIN[name]
    sketch = Sketch(2)
    before = sketch.done(spell(sketch))
    after = recognised(before)
    # The root is what jumps read: what bounds it, DoReFa's Clip and scale, say, is kept.
    assert ops(after) == [*kept, "Step"]
    agree(before, after, np.arange(-40, 40) / 3)


@pytest.mark.parametrize("at", [0.0, 0.1, -2.5, 3 * TINY, -1e30, 16777216.0])
@pytest.mark.parametrize(
    "op", [ew.Greater(), ew.GreaterOrEqual(), ew.Less(), ew.LessOrEqual(), ew.Equal()], ids=str
)
@pytest.mark.parametrize("swapped", [False, True])
def test_comparisons_with_any_constant(op: ew.Elementwise, at: float, swapped: bool) -> None:
    sketch = Sketch(1)
    operands = (at, "x") if swapped else ("x", at)
    sketch(ew.Where(), sketch(op, *operands), 3.0, -0.5, to="y")
    before = sketch.done()
    after = recognised(before)
    assert ops(after) == ["Step"]
    agree(before, after, [at])


@pytest.mark.parametrize("at", [np.inf, -np.inf])
@pytest.mark.parametrize(
    "op", [ew.Greater(), ew.GreaterOrEqual(), ew.Less(), ew.LessOrEqual()], ids=str
)
def test_comparisons_with_infinity(op: ew.Elementwise, at: float) -> None:
    sketch = Sketch(1)
    sketch(ew.Where(), sketch(op, "x", at), 3.0, -0.5, to="y")
    before = sketch.done()
    agree(before, recognised(before))


# --- Text -----------------------------------------------------------------------------------------


def test_sign_in_text() -> None:
    sketch = Sketch(3)
    sketch(ew.Sign(), "x", to="y", origin=["act"])
    expected = Sketch(3)
    t = expected.const([[0, TINY]], "y.thresholds")
    v = expected.const([[-1, 0, 1]], "y.levels")
    expected(ew.Step(Element.F32), "x", t, v, to="y", origin=["act"])
    same_text(apply(RECOGNISE_STEPS, sketch.done()).graph, expected)


def test_hardtanh_round_in_text_keeps_all_origins() -> None:
    sketch = Sketch(2)
    sketch(ew.Clip(0, 2), "x", to="c", origin=["clamp"])
    sketch(ew.Round(), "c", to="r", origin=["round"])
    sketch(ew.Mul(), "r", 0.5, to="y", origin=["rescale"])
    expected = Sketch(2)
    expected(ew.Clip(0, 2), "x", to="c", origin=["clamp"])
    # 0.5 goes to even 0, 1.5 to even 2.
    t = expected.const([[np.nextafter(F(0.5), F(1)), 1.5]], "y.thresholds")
    v = expected.const([[0, 0.5, 1]], "y.levels")
    expected(ew.Step(Element.F32), "c", t, v, to="y", origin=["round", "rescale"])
    same_text(recognised(sketch.done()), expected)


def test_channels_that_differ_have_rows_of_their_own() -> None:
    sketch = Sketch(3)
    risen = sketch(ew.GreaterOrEqual(), "x", [0.5, -1.0, 0.5])
    sketch(ew.Where(), risen, [1, 1, -1], [-1, -1, 1], to="y")
    thresholds, levels = step_tables(recognised(sketch.done()), "y")
    assert thresholds.tolist() == [[0.5], [-1.0], [0.5]]
    assert levels.tolist() == [[-1, 1], [-1, 1], [1, -1]]


def test_channels_with_fewer_thresholds_are_filled_up() -> None:
    sketch = Sketch(2)
    sketch(ew.Mul(), sketch(ew.Sign(), "x"), [1.0, 0.0], to="y")
    before = sketch.done()
    after = recognised(before)
    thresholds, levels = step_tables(after, "y")
    assert thresholds.tolist() == [[0, TINY], [np.inf, np.inf]]
    np.testing.assert_array_equal(levels, [[-1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("2 * round(hardsigmoid) - 1", [-1, 1]),
        ("clip -1..1, round", [-1, 0, 1]),
        ("round(tanh)", [-1, 0, 1]),
        ("clip 0..1, round", [0, 1]),
        ("clip, floor", [-3, -2, -1, 0, 1, 2]),
        ("clip to integers, floor", [-2, -1, 0, 1, 2]),
        ("clip to integers, ceil", [-2, -1, 0, 1, 2]),
        ("clip to halves, round", [0, 1, 2]),
        ("clip 0..15, round", list(range(16))),
    ],
)
def test_levels_that_bounds_exclude_do_not_count(name: str, levels: list[float]) -> None:
    # One level too many and a sign is no longer bipolar, or a 4-bit code has 17 of them.
    sketch = Sketch(2)
    before = sketch.done(AFTER_A_CHAIN[name][0](sketch))
    _, found = step_tables(recognised(before), before.outputs[0])
    np.testing.assert_array_equal(found, [levels])


@pytest.mark.parametrize(("low", "high"), [(-1, -1), (-1.5, 1.5), (-3.25, -0.75), (0.75, 2)])
def test_jumps_outside_of_the_bounds_of_a_rounding_do_not_count(low: float, high: float) -> None:
    """What a bounded tensor cannot be has no level, and none is read off there."""
    sketch = Sketch(1)
    x = sketch(ew.Clip(low, high), "x")
    sign = sketch(ew.Where(), sketch(ew.GreaterOrEqual(), x, 0.0), 1.0, -1.0)
    before = sketch.done(sketch(ew.Sub(), sign, sketch(ew.Round(), x)))
    after = recognised(before)
    assert ops(after) == ["Clip", "Step"]
    agree(before, after, np.arange(-4, 4, 0.25))


# --- Where chains end -----------------------------------------------------------------------------


def test_every_reader_gets_its_own_step() -> None:
    sketch = Sketch(2)
    sketch(ew.Sign(), "x", to="s")
    sketch(MatMul(), "s", np.eye(2), to="m")
    sketch(ew.Mul(), "s", 0.5, to="half")
    before = sketch.done("m", "half")
    after = recognised(before)
    assert sorted(ops(after)) == ["MatMul", "Step", "Step"]
    assert after.producers["half"].inputs[0] == "x"
    agree(before, after)


def test_an_output_in_the_middle_of_a_chain_is_kept() -> None:
    sketch = Sketch(2)
    sketch(ew.Sign(), "x", to="s")
    sketch(ew.Add(), "s", 0.5, to="y")
    before = sketch.done("y", "s")
    after = recognised(before)
    assert ops(after) == ["Step", "Step"]
    agree(before, after)


def test_a_truth_value_as_output_is_left_alone() -> None:
    sketch = Sketch(2)
    sketch(ew.Greater(), "x", 0.5, to="g")
    before = sketch.done()
    outcome = RECOGNISE_STEPS.apply(before, GENERIC)
    assert outcome.graph is before


def test_a_step_then_more_reals_is_cut_where_the_real_comes_in() -> None:
    sketch = Sketch(2)
    sketch(ew.Mul(), sketch(ew.Sign(), "x", to="s"), "x", to="y")
    before = sketch.done()
    after = recognised(before)
    assert ops(after) == ["Step", "Mul"]
    agree(before, after)


def test_functions_of_which_libraries_differ_end_a_chain() -> None:
    """Their values are not levels that the model must have."""
    sketch = Sketch(2)
    curved = sketch(ew.Tanh(), sketch(ew.Mul(), sketch(ew.Sign(), "x"), 0.3))
    sketch(ew.Mul(), curved, 100.0, to="y")
    before = sketch.done()
    after = recognised(before)
    assert ops(after) == ["Step", "Tanh", "Mul"]
    agree(before, after)


def test_two_roots_are_two_steps() -> None:
    sketch = Sketch(2)
    one = sketch(ew.Sign(), "x", to="one")
    other = sketch(ew.Sign(), sketch(ew.Sub(), "x", 1.0), to="other")
    sketch(ew.Add(), one, other, to="y")
    before = sketch.done()
    after = recognised(before)
    assert sorted(ops(after)) == ["Add", "Step", "Step", "Sub"]
    agree(before, after)


def test_what_depends_on_magnitude_is_not_a_step_of_x() -> None:
    sketch = Sketch(2)
    big = sketch(ew.Cast(Element.F32), sketch(ew.Greater(), sketch(ew.Abs(), "x"), 0.5))
    sketch(ew.Mul(), sketch(ew.Sign(), "x"), big, to="y")
    before = sketch.done()
    agree(before, recognised(before))


def test_nothing_to_recognise() -> None:
    sketch = Sketch(2)
    sketch(ew.Relu(), sketch(ew.Add(), "x", 0.5), to="y")
    graph = sketch.done()
    outcome = RECOGNISE_STEPS.apply(graph, GENERIC)
    assert outcome.graph is graph
    assert outcome.refusals == ()


# --- Straight-through estimators ------------------------------------------------------------------


def residue(s: Sketch, quantised: str, e: str, *, first: bool = False) -> str:
    """(s - e) + e, what `s.detach() - e.detach() + e` is exported as."""
    difference = s(ew.Sub(), quantised, e)
    return s(ew.Add(), *((e, difference) if first else (difference, e)))


def bireal(s: Sketch) -> str:
    """Bi-Real's sign as PyTorch exports it: its polynomial selected by products with 0 and 1."""
    masks = [s(ew.Cast(Element.F32), s(ew.Less(), "x", t)) for t in (-1.0, 0.0, 1.0)]
    twice = s(ew.Mul(), "x", 2.0)
    rising = s(ew.Add(), s(ew.Mul(), "x", "x"), twice)
    e = s(ew.Neg(), masks[0])
    e = s(ew.Add(), e, s(ew.Mul(), rising, s(ew.Sub(), 1.0, masks[0])))
    falling = s(ew.Add(), s(ew.Mul(), s(ew.Neg(), "x"), "x"), twice)
    rest = s(ew.Mul(), falling, s(ew.Sub(), 1.0, masks[1]))
    e = s(ew.Add(), s(ew.Mul(), e, masks[1]), rest)
    e = s(ew.Add(), s(ew.Mul(), e, masks[2]), s(ew.Sub(), 1.0, masks[2]))
    return residue(s, s(ew.Sign(), "x"), e)


def adabin(s: Sketch) -> str:
    clipped = s(ew.Clip(-1, 1), "x")
    quantised = residue(s, s(ew.Sign(), "x"), clipped)
    return s(ew.Mul(), 0.8843692, s(ew.Add(), quantised, 0.5124579))


ESTIMATED: dict[str, Spelling] = {
    "bireal": bireal,
    "adabin": adabin,
    "hardtanh": lambda s: residue(s, s(ew.Sign(), "x"), s(ew.Clip(-1, 1), "x")),
    "tanh": lambda s: residue(s, s(ew.Sign(), "x"), s(ew.Tanh(), "x"), first=True),
    "greater": lambda s: residue(s, ON_X["x >= 0 ? 1 : -1"](s), s(ew.Clip(-1, 1), "x")),
    "scaled": lambda s: residue(s, s(ew.Mul(), s(ew.Sign(), "x"), [0.5, 1.75]), s(ew.Tanh(), "x")),
    "twice": lambda s: residue(
        s, residue(s, s(ew.Sign(), "x"), s(ew.Clip(-1, 1), "x")), s(ew.Tanh(), "x")
    ),
}


@pytest.mark.parametrize("name", ESTIMATED)
def test_what_an_estimator_leaves_behind_is_dropped(name: str) -> None:
    sketch = Sketch(2)
    before = sketch.done(ESTIMATED[name](sketch))
    outcome = apply(RECOGNISE_STEPS, before)
    assert (outcome.refusals, outcome.assumptions) == ((), ())
    after = recognised(before)
    assert ops(after) == ["Step"]
    x = np.random.default_rng(0).standard_normal((100_000, 2)).astype(F)
    old, new = (interpret.run(g, {"x": x})[before.outputs[0]] for g in (before, after))
    np.testing.assert_array_equal(new, old)
    reachable = GRID[np.abs(GRID) < 2.0**60]
    x = reachable[:, np.newaxis].repeat(2, axis=1)
    old, new = (interpret.run(g, {"x": x})[before.outputs[0]] for g in (before, after))
    np.testing.assert_array_equal(new, old)
    assert differences(before, after, RECOGNISE_STEPS.exactness) == []


def test_an_estimator_without_bounds_is_exact_up_to_a_limit() -> None:
    sketch = Sketch(2)
    s = residue(sketch, sketch(ew.Sign(), "x"), "x")
    before = sketch.done(s)
    outcome = apply(RECOGNISE_STEPS, before)
    assert outcome.assumptions == (Bounded("x", 2.0**24, s),)
    assert str(outcome.assumptions[0]) == (
        f"x: values stay below 1.67772e+07 in magnitude, from where on {s} is made of roundings"
    )
    after = recognised(before)
    assert ops(after) == ["Step"]
    inside = GRID[np.abs(GRID) < 2.0**24]
    x = np.concatenate([inside, np.linspace(-3, 3, 4001, dtype=F)])[:, np.newaxis].repeat(2, axis=1)
    old, new = (interpret.run(g, {"x": x})[s] for g in (before, after))
    np.testing.assert_array_equal(new, old)


def test_an_estimator_of_bounded_values_needs_no_limit() -> None:
    sketch = Sketch(2)
    c = sketch(ew.Clip(0, 1), "x", to="c")
    before = sketch.done(residue(sketch, sketch(ew.Round(), c), c))
    outcome = apply(RECOGNISE_STEPS, before)
    assert outcome.assumptions == ()
    after = recognised(before)
    assert ops(after) == ["Clip", "Step"]
    agree(before, after)


@pytest.mark.parametrize("alpha", [1.7, 0.3, [0.9, 6.0]])
def test_a_clip_by_magnitudes_saturates_where_nothing_is_absurd(alpha: float | list[float]) -> None:
    """As PACT spells it: 0.5 * (|x| - |x - alpha| + alpha)."""
    sketch = Sketch(2)
    other = sketch(ew.Abs(), sketch(ew.Sub(), "x", alpha))
    clipped = sketch(ew.Add(), sketch(ew.Sub(), sketch(ew.Abs(), "x"), other), alpha)
    scale = (3 / F(alpha)).astype(F)
    code = sketch(ew.Round(), sketch(ew.Mul(), sketch(ew.Mul(), clipped, 0.5), scale))
    before = sketch.done(sketch(ew.Div(), code, scale))
    assert apply(RECOGNISE_STEPS, before).assumptions == (Bounded("x", 2.0**20, code),)
    after = recognised(before)
    step = only(after, ew.Step)
    assert after.constants[step.inputs[2]].shape[1] == 4
    x = np.concatenate([GRID[np.abs(GRID) < 2.0**20], np.linspace(-3, 9, 4001, dtype=F)])
    x = x[:, np.newaxis].repeat(2, axis=1)
    old, new = (interpret.run(g, {"x": x})[before.outputs[0]] for g in (before, after))
    np.testing.assert_array_equal(new, old)


def test_refuses_what_only_grows_slowly() -> None:
    sketch = Sketch(2)
    before = sketch.done(sketch(ew.Round(), sketch(ew.Mul(), "x", 1e-6)))
    assert apply(RECOGNISE_STEPS, before).graph is before


@pytest.mark.parametrize(
    "e",
    [
        lambda s: s(ew.Neg(), "x"),
        lambda s: s(ew.Abs(), "x"),
        lambda s: s(ew.Sub(), "x", 0.5),
        lambda s: s(ew.Mul(), s(ew.Clip(-1, 1), "x"), 1e8),
    ],
    ids=["-x", "abs", "shifted", "steep"],
)
def test_refuses_residues_that_do_not_vanish(e: Spelling) -> None:
    sketch = Sketch(2)
    estimate = e(sketch)
    graph = sketch.done(residue(sketch, ON_X["x > 0 ? 1 : -1"](sketch), estimate))
    outcome = apply(RECOGNISE_STEPS, graph)
    (refusal,) = outcome.refusals
    assert refusal.node == graph.outputs[0]
    assert refusal.reason == (
        f"subtracting and adding {estimate} may not leave its levels as they are"
    )
    agree(graph, recognised(graph))


def test_two_different_estimators_are_no_residue() -> None:
    sketch = Sketch(2)
    one, other = sketch(ew.Clip(-1, 1), "x"), sketch(ew.Tanh(), "x")
    difference = sketch(ew.Sub(), sketch(ew.Sign(), "x"), one)
    graph = sketch.done(sketch(ew.Add(), difference, other))
    after = recognised(graph)
    assert ops(after)[-1] == "Add"
    agree(graph, after)


# --- x / |x| --------------------------------------------------------------------------------------


def quotient() -> Graph:
    sketch = Sketch(2)
    sketch(ew.Mul(), sketch(ew.Div(), "x", sketch(ew.Abs(), "x"), to="q"), 2.0, to="y")
    return sketch.done()


@pytest.mark.parametrize(("sign_zero", "sign"), [("auto", 1), ("plus", 1), ("minus", -1)])
def test_x_over_its_magnitude(sign_zero: str, sign: int) -> None:
    before = quotient()
    outcome = apply(RECOGNISE_STEPS, before, context(sign_zero=sign_zero))
    assert outcome.assumptions == (SignOfZero("q", sign, undefined=True),)
    assert str(outcome.assumptions[0]) == (
        f"q: sign(0) is taken as {sign:+d}, though the model's is no number"
    )
    after = apply(ELIMINATE_DEAD, outcome.graph).graph
    assert ops(after) == ["Step"]
    x = GRID[:, np.newaxis].repeat(2, axis=1)
    old, new = (interpret.run(g, {"x": x})["y"] for g in (before, after))
    np.testing.assert_array_equal(new, np.where(x == 0, 2 * sign, old))


def test_x_over_its_magnitude_has_no_exact_value_at_0() -> None:
    graph = quotient()
    outcome = apply(RECOGNISE_STEPS, graph, context(sign_zero="exact"))
    assert outcome.graph is graph
    (refusal,) = outcome.refusals
    assert refusal.reason == "x / |x| is no number at 0, and --sign-zero is exact"


@pytest.mark.parametrize("swap", [False, True])
def test_other_quotients_stay(swap: bool) -> None:
    sketch = Sketch(2)
    magnitude = sketch(ew.Abs(), sketch(ew.Neg(), "x"))
    sketch(ew.Div(), *((magnitude, "x") if swap else ("x", magnitude)), to="y")
    graph = sketch.done()
    assert RECOGNISE_STEPS.apply(graph, GENERIC).graph is graph


# --- Refusals -------------------------------------------------------------------------------------


def staircase(sketch: Sketch, steps: int) -> str:
    total = sketch(ew.Cast(Element.F32), sketch(ew.Greater(), "x", 0.0))
    for i in range(1, steps):
        one = sketch(ew.Cast(Element.F32), sketch(ew.Greater(), "x", float(i)))
        total = sketch(ew.Add(), total, one)
    return total


def test_sixteen_levels_are_the_most() -> None:
    sketch = Sketch(1)
    before = sketch.done(staircase(sketch, 15))
    after = recognised(before)
    assert ops(after) == ["Step"]
    agree(before, after)


def test_refuses_more_levels() -> None:
    sketch = Sketch(1)
    graph = sketch.done(staircase(sketch, 16))
    outcome = RECOGNISE_STEPS.apply(graph, GENERIC)
    (refusal,) = outcome.refusals
    assert refusal.reason == "it takes 17 levels, more than 16"
    assert refusal.node == graph.outputs[0]
    assert refusal.origin == (f"the {refusal.node}",)
    assert outcome.graph is graph


def test_refuses_constants_that_vary_within_a_channel() -> None:
    sketch = Sketch(shape=(1, 2, 2))
    risen = sketch(ew.GreaterOrEqual(), "x", [[[1, 2], [3, 4]]])
    sketch(ew.Where(), risen, 1.0, -1.0, to="y")
    graph = sketch.done()
    outcome = RECOGNISE_STEPS.apply(graph, GENERIC)
    assert [r.reason for r in outcome.refusals] == ["its constants vary within a channel"]
    assert outcome.graph is graph


@pytest.mark.parametrize("jump", [ew.Round(), ew.Floor(), ew.Ceil()], ids=str)
def test_rounding_without_bounds_stays(jump: ew.Elementwise) -> None:
    sketch = Sketch(2)
    sketch(jump, sketch(ew.Mul(), "x", 0.5), to="y")
    graph = sketch.done()
    assert RECOGNISE_STEPS.apply(graph, GENERIC).graph is graph


# --- Hostile spellings ----------------------------------------------------------------------------


@pytest.mark.parametrize("op", [ew.Equal(), ew.Greater(), ew.GreaterOrEqual()], ids=str)
def test_a_tensor_compared_with_itself(op: ew.Elementwise) -> None:
    # x == x is how "not a NaN" is spelled.
    sketch = Sketch(2)
    sketch(ew.Where(), sketch(op, "x", "x"), 1.0, -1.0, to="y")
    before = sketch.done()
    agree(before, recognised(before))


@pytest.mark.parametrize("jump", [ew.Round(), ew.Floor(), ew.Ceil()], ids=str)
def test_clip_with_its_bounds_swapped(jump: ew.Elementwise) -> None:
    # ONNX: where min > max, the result is max everywhere.
    sketch = Sketch(2)
    sketch(jump, sketch(ew.Clip(3, 1), "x"), to="y")
    before = sketch.done()
    agree(before, recognised(before))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda s: s(ew.Round(), s(ew.Clip(-1, 1), "x")),
        lambda s: s(ew.Ceil(), s(ew.Clip(-1, 1), "x")),
        lambda s: s(ew.Mul(), s(ew.Sign(), "x"), 0.0),
        lambda s: s(ew.Mul(), s(ew.Sign(), "x"), [1.0, 0.0]),
        lambda s: s(ew.Neg(), s(ew.Relu(), s(ew.Sign(), "x"))),
    ],
    ids=["round", "ceil", "0 * sign", "a channel times 0", "-relu(sign)"],
)
def test_zeros_of_both_signs_do_not_fail_the_compile(spelling: Spelling) -> None:
    # round(-0.3) is -0.0 and round(0.3) is +0.0: one level, two bit patterns. The ternariser
    # round(clip(x, -1, 1)) is what TTQ-like networks export.
    sketch = Sketch(2)
    before = sketch.done(spelling(sketch))
    after = recognised(before)
    agree(before, after)
    assert differences(before, after, RECOGNISE_STEPS.exactness) == []


def test_levels_are_exact_float32() -> None:
    sketch = Sketch(1)
    third = sketch(ew.Div(), sketch(ew.Round(), sketch(ew.Clip(0, 3), "x")), 3.0)
    sketch(ew.Mul(), third, 0.1, to="y")
    after = recognised(sketch.done())
    _, levels = step_tables(after, "y")
    same_bits(levels, np.array([[F(i) / F(3) * F(0.1) for i in range(4)]], F))
    assert only(after, ew.Step).op == ew.Step(Element.F32)
