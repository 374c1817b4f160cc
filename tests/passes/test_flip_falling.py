"""flip_falling: falling channels rise on -n, at every accumulator, and no other channel changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, BinaryDense
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.flip_falling import FLIP_FALLING
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.levels import element_for
from tests.ir.sketch import INF, LARGEST, TINY, F, Sketch, ops
from tests.passes.applying import (
    GENERIC,
    apply,
    every_operand,
    level_at,
    same_text,
    same_values,
    step_tables,
)
from tests.passes.epilogues import epilogues

NEVER = 2**31 - 1
WEIGHTS = np.array([[1, -1, 1], [-1, -1, 1], [1, 1, 1], [-1, 1, -1]], np.int8)


def stepped(
    thresholds: Sequence[Sequence[float]],
    levels: Sequence[Sequence[float]],
    *,
    element: Element = Element.TERNARY,
    weights: Array = WEIGHTS,
) -> Sketch:
    """x -> BinaryDense "n" -> Step "y" with these rows."""
    s = Sketch(weights.shape[1], element)
    s(BinaryDense(), "x", s.const(weights, "w", Element.BIPOLAR), to="n", origin=["fc"])
    held = Element.F32 if element is Element.F32 else Element.I32
    t, v = s.const(thresholds, "t", held), s.const(levels, "v")
    s(ew.Step(element_for(np.array(levels))), "n", t, v, to="y", origin=["act"])
    return s


def test_in_text() -> None:
    before = stepped(
        [[1, NEVER], [0, 2], [-1, NEVER], [0, NEVER]],
        [[1, -1, -1], [1, 0, -1], [-1, 1, 1], [0, 0, 0]],
    )
    expected = Sketch(3, Element.TERNARY)
    w = [[-1, 1, -1], [1, 1, -1], [1, 1, 1], [-1, 1, -1]]
    w = expected.const(w, "w.flipped", Element.BIPOLAR)
    t = [[0, NEVER], [-1, 1], [-1, NEVER], [0, NEVER]]
    t = expected.const(t, "t.flipped", Element.I32)
    v = expected.const([[-1, 1, 1], [-1, 0, 1], [-1, 1, 1], [0, 0, 0]], "v.flipped")
    expected(BinaryDense(), "x", w, to="n.flipped", origin=["fc"])
    expected(ew.Step(Element.TERNARY), "n.flipped", t, v, to="y", origin=["act"])
    same_text(apply(FLIP_FALLING, before.done()).graph, expected)


@pytest.mark.parametrize("name", list(epilogues(Element.BIPOLAR, 1)))
@pytest.mark.parametrize("k", [1, 2, 7, 64])
def test_every_accumulator_of_folded_layers(k: int, name: str) -> None:
    layer = epilogues(Element.BIPOLAR, k)[name]
    folded = apply(ELIMINATE_DEAD, apply(FOLD_THRESHOLDS, layer.graph()).graph).graph
    flipped = apply(FLIP_FALLING, folded).graph
    assert ops(flipped) == ["BinaryDense", "Step"]
    weights, flipped_weights = (
        g.constants[next(n for n in g.nodes if n.op == BinaryDense()).inputs[1]]
        for g in (folded, flipped)
    )
    before, after = step_tables(folded, "y"), step_tables(flipped, "y")
    for c in range(layer.channels):
        old = [level_at(n, before[0][c].tolist(), before[1][c].tolist()) for n in range(-k, k + 1)]
        falls = old == sorted(old, reverse=True) and old[0] != old[-1]
        sign = -1 if falls else 1
        assert flipped_weights[c].tolist() == (sign * weights[c]).tolist()
        new = [
            level_at(sign * n, after[0][c].tolist(), after[1][c].tolist()) for n in range(-k, k + 1)
        ]
        assert new == old
        if falls:
            assert (np.diff(after[1][c]) >= 0).all()
    same_values(folded, flipped, x=every_operand(Element.BIPOLAR, k))


@given(st.data())
def test_any_integer_steps(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    row = st.lists(st.integers(-4, 5), min_size=count, max_size=count, unique=True).map(sorted)
    level = st.lists(st.sampled_from([-1, 0, 1]), min_size=count + 1, max_size=count + 1)
    level |= level.map(lambda v: sorted(v, reverse=True))
    thresholds = data.draw(st.lists(row, min_size=4, max_size=4))
    levels = data.draw(st.lists(level, min_size=4, max_size=4))
    before = stepped(thresholds, levels).done()
    after = apply(FLIP_FALLING, before).graph
    x = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T.astype(np.int8)
    same_values(before, after, x=x)


FLOAT_THRESHOLDS = [0.0, -0.0, float(TINY), -float(TINY), 1.5, -1.5, 0.1, float(LARGEST)]


@pytest.mark.parametrize("weight", [1, -1])
@pytest.mark.parametrize("t", FLOAT_THRESHOLDS)
def test_float_thresholds_and_their_neighbours(t: float, weight: int) -> None:
    # One weight, so that the sum is +-x and lands on every float that x does.
    weights = np.array([[weight], [weight]], np.int8)
    levels = [[1, -1], [-1, 1]]
    before = stepped([[t], [t]], levels, element=Element.F32, weights=weights).done()
    after = apply(FLIP_FALLING, before).graph
    thresholds, levels_ = step_tables(after, "y")
    assert levels_.tolist() == [[-1, 1], [-1, 1]]
    assert thresholds[1, 0] == F(t)
    near = np.array([t, -t, 0.0, -0.0, 1, -1, LARGEST, -LARGEST], F)
    near = np.concatenate([near, *(np.nextafter(near[:4], F(e)) for e in (9, -9))])
    same_values(before, after, x=near[:, np.newaxis])


def test_float_sums_negate_exactly() -> None:
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-1, 1], np.int8), (6, 40))
    x = (random.standard_normal((200, 40)) * 10.0 ** random.integers(-3, 3, (200, 40))).astype(F)
    sums = interpret.run_stored(
        stepped([[0.0]] * 6, [[1, -1]] * 6, element=Element.F32, weights=weights).done(), {"x": x}
    )["n"]
    # Thresholds on sums that do occur: what lands on them must keep its side.
    thresholds = [[float(v)] for v in sums[7]]
    before = stepped(thresholds, [[1, -1]] * 6, element=Element.F32, weights=weights).done()
    after = apply(FLIP_FALLING, before).graph
    same_values(before, after, x=x)


def test_several_falling_levels_over_floats() -> None:
    weights = np.ones((2, 1), np.int8)
    levels = [[1, 0, -1], [1, -1, -1]]
    before = stepped([[-0.5, 0.5], [0.25, np.inf]], levels, element=Element.F32, weights=weights)
    after = apply(FLIP_FALLING, before.done()).graph
    thresholds, found = step_tables(after, "y")
    up = [float(np.nextafter(F(v), INF)) for v in (-0.5, 0.5, -0.25)]
    assert thresholds.tolist() == [[up[0], up[1]], [up[2], np.inf]]
    assert found.tolist() == [[-1, 0, 1], [-1, 1, 1]]


def test_one_row_for_all_channels() -> None:
    before = stepped([[1]], [[1, -1]]).done()
    after = apply(FLIP_FALLING, before).graph
    assert step_tables(after, "y")[0].tolist() == [[0]]
    x = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T.astype(np.int8)
    same_values(before, after, x=x)


# --- Images ---------------------------------------------------------------------------------------

PADDED = Window((Axis(3, 2, 1, 1, 0), Axis(2, 1, 2, 0, 2)))


@pytest.mark.parametrize("pad", [-1, 0, 1])
@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY, Element.U8, Element.F32])
@pytest.mark.parametrize("zeros", [False, True])
def test_convolutions(zeros: bool, element: Element, pad: int) -> None:
    if element in (Element.F32, Element.U8):
        pad = abs(pad) * 200 if element is Element.U8 else 0
    random = np.random.default_rng(3)
    weights = random.choice(np.array([-1, 1], np.int8), (6, 3, 3, 2))
    kind = Element.BIPOLAR
    if zeros:
        weights[:2, 1, 1, 1], kind = 0, Element.TERNARY
    s = Sketch(element=element, shape=(1, 6, 5, 4))
    s(BinaryConv(PADDED, 2, pad), "x", s.const(weights, "w", kind), to="n")
    held = Element.F32 if element is Element.F32 else Element.I32
    t = s.const([[0], [1], [-2], [3], [0], [0]], "t", held)
    s(ew.Step(Element.BIPOLAR), "n", t, [[1, -1], [-1, 1]] * 3, to="y")
    before = s.done()
    after = apply(FLIP_FALLING, before).graph
    assert ops(after) == ["BinaryConv", "Step"]
    assert after.nodes[0].op == BinaryConv(PADDED, 2, pad)
    assert after.types["w.flipped"].element is kind
    sign = np.array([-1, 1] * 3, np.int8).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(after.constants["w.flipped"], weights * sign)
    assert step_tables(after, "y")[1].tolist() == [[-1, 1]] * 6
    shape = (40, 6, 5, 4)
    x = random.standard_normal(shape).astype(F)
    if element is not Element.F32:
        choice = np.arange(256) if element is Element.U8 else np.array([-1, 0, 1])
        choice = choice[choice != 0] if element is Element.BIPOLAR else choice
        x = random.choice(choice, shape).astype(element.dtype)
    same_values(before, after, x=x)


def test_one_row_for_all_channels_of_an_image() -> None:
    weights = np.array([[[1, -1]], [[1, 1]]], np.int8)
    s = Sketch(element=Element.BIPOLAR, shape=(1, 1, 5))
    w = s.const(weights, "w", Element.BIPOLAR)
    s(BinaryConv(Window((Axis(2, 1, 1, 1, 0),))), "x", w, to="n")
    s(ew.Step(Element.BIPOLAR), "n", s.const([[1]], "t", Element.I32), [[1, -1]], to="y")
    before = s.done()
    after = apply(FLIP_FALLING, before).graph
    np.testing.assert_array_equal(after.constants["w.flipped"], -weights)
    x = (np.array(list(np.ndindex(*[2] * 5))) * 2 - 1).astype(np.int8)[:, np.newaxis]
    same_values(before, after, x=x)


# --- Left alone -----------------------------------------------------------------------------------


def untouched(graph: Graph) -> None:
    assert FLIP_FALLING.apply(graph, GENERIC).graph is graph


def test_rising_constant_and_crossing_channels_are_left_alone() -> None:
    rows = [[-1, 1], [0, 1], [0, NEVER], [-1, 1]]
    untouched(stepped(rows, [[-1, 0, 1], [1, -1, 1], [1, 1, 1], [-1, 1, -1]]).done())


def test_an_accumulator_with_another_reader_is_left_alone() -> None:
    s = stepped([[1]], [[1, -1]])
    s(ew.Step(Element.BIPOLAR), "n", s.const([[0]], "t", Element.I32), [[-1, 1]], to="z")
    untouched(s.done("y", "z"))


def test_a_sum_that_is_an_output_keeps_its_sign() -> None:
    s = stepped([[0.5]], [[1, -1]], element=Element.F32)
    before = s.done("y", "n")
    after = apply(FLIP_FALLING, before).graph
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(F)
    same_values(before, after, x=x)


def test_shared_weights_are_flipped_for_one_layer_only() -> None:
    s = stepped([[1]], [[1, -1]])
    s(BinaryDense(), "x", "w", to="m")
    s(ew.Step(Element.BIPOLAR), "m", s.const([[0]], "t", Element.I32), [[-1, 1]], to="z")
    before = s.done("y", "z")
    after = apply(FLIP_FALLING, before).graph
    assert after.producers["m"] is before.producers["m"]
    x = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T.astype(np.int8)
    same_values(before, after, x=x)


def test_steps_on_other_things_are_left_alone() -> None:
    s = Sketch(3)
    s(ew.Step(Element.BIPOLAR), s(ew.Relu(), "x"), [[0.5]], [[1, -1]], to="y")
    untouched(s.done())
    on_input = Sketch(3)
    on_input(ew.Step(Element.BIPOLAR), "x", [[0.5]], [[1, -1]], to="y")
    untouched(on_input.done())
