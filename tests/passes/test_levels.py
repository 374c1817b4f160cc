"""levels: the grid on which levels lie, and Steps with as few thresholds as they need."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.types import Element
from bnncc.passes.levels import grid_of, never, planes_of, simplified
from tests.ir.sketch import F
from tests.passes.applying import level_at


def found(levels: Sequence[float]) -> list[int]:
    """Return the integers that stand for the levels, which must lie on a grid."""
    grid = grid_of(np.array([levels], F))
    assert grid is not None
    integers = grid.integers(np.array(levels, F))
    apart = np.abs(grid.unit * integers + grid.offset - np.array(levels, F).astype(np.float64))
    assert apart.max() <= grid.misfit <= 4 * UNIT_ROUNDOFF * np.abs(np.array(levels, F)).max()
    values = dict(zip(_domain(grid.element), grid.values, strict=False))
    assert [values[int(v)] for v in integers] == [float(F(v)) for v in levels]
    return [int(v) for v in integers]


def _domain(element: Element) -> Sequence[int]:
    signed = {Element.BIPOLAR: [-1, 1], Element.TERNARY: [-1, 0, 1]}
    return signed.get(element) or range(element.largest_code + 1)


@pytest.mark.parametrize(
    ("levels", "element", "integers", "zero"),
    [
        ([-1, 1], Element.BIPOLAR, [-1, 1], None),
        ([0.3, -0.3], Element.BIPOLAR, [1, -1], None),
        ([-0.3, 0, 0.3], Element.TERNARY, [-1, 0, 1], 0),
        ([0, 1], Element.U1, [0, 1], 0),
        ([-0.7, 0], Element.U1, [0, 1], 1),
        ([0.2, 0.9], Element.U1, [0, 1], None),
        ([0, 1, 2], Element.U2, [0, 1, 2], 0),
        ([0.5, 2, 1], Element.U2, [0, 3, 1], None),
        ([-0.4, 0.1, 0.6], Element.U2, [0, 1, 2], None),
        ([-1, -0.5, 0, 0.5], Element.U2, [0, 1, 2, 3], 2),
        ([-2, -1, 0, 1, 2], Element.U3, [0, 1, 2, 3, 4], 2),
        ([0, 7, 1], Element.U3, [0, 7, 1], 0),
        ([i / 15 for i in range(16)], Element.U4, list(range(16)), 0),
        ([-1.7 + 3.4 * i / 15 for i in range(16)], Element.U4, list(range(16)), None),
    ],
)
def test_equally_spaced_levels(
    levels: list[float], element: Element, integers: list[int], zero: int | None
) -> None:
    assert found(levels) == integers
    grid = grid_of(np.array([levels], F))
    assert grid is not None
    assert (grid.element, grid.zero) == (element, zero)


def test_channels_share_one_grid() -> None:
    grid = grid_of(np.array([[0, 0.5, 0.5], [0.5, 1.5, 2], [2, 2, 0]], F))
    assert grid is not None
    assert (grid.element, grid.unit, grid.offset) == (Element.U3, 0.5, 0)
    assert grid.values == (0, 0.5, 1, 1.5, 2)
    step = Step(grid.element, grid.values)
    assert step.integers(np.array([0, 0.5, 1, 1.5, 2], F)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "levels",
    [
        [1],
        [0, 1, 2.5],
        [0, 1, 1.0001],
        [0, 1, 16],
        [i / 16 for i in range(17)],
        [0.1, 0.2, 0.3, 0.4005],
        [0, 1, np.inf],
        [-np.inf, np.inf],
        [0, 1, np.nan],
    ],
    ids=str,
)
def test_other_levels_lie_on_none(levels: list[float]) -> None:
    assert grid_of(np.array([levels], F)) is None


@given(
    st.lists(st.integers(0, 15), min_size=2, max_size=8, unique=True),
    st.floats(2**-20, 2**20, width=32),
    st.integers(-15, 0) | st.floats(-4, 4, width=32),
)
def test_rounded_levels_of_any_grid(codes: list[int], unit: float, first: float) -> None:
    """Levels that float32 made of unit * (code + first), with codes 1 apart somewhere."""
    lowest = min(codes)
    codes = sorted({*codes, lowest + 1} if lowest < 15 else {*codes, 14})
    levels = [float(F(F(unit) * F(F(c) + F(first)))) for c in codes]
    if len(set(levels)) < len(codes):
        return
    grid = grid_of(np.array([levels], F))
    if isinstance(first, int):
        assert grid is not None
    if grid is not None:
        found(levels)
        assert (grid.zero is None) == (0.0 not in grid.values)
        if grid.zero is not None:  # exactly, in the affine map too
            assert grid.unit * grid.zero + grid.offset == 0


@given(st.floats(-4, 4), st.floats(1e-3, 4), st.floats(1e-3, 4), st.booleans())
def test_two_planes_sum_to_the_levels(low: float, a: float, b: float, outer: bool) -> None:
    levels = np.unique(F([low, low + 2 * a, low + 2 * b] + [low + 2 * a + 2 * b] * outer))
    if grid_of(levels) is not None or len(levels) < 3 + outer:
        return
    found = planes_of(levels)
    if found is None:  # float32 may round the last level off the sum of the others
        assert outer
        return
    first, second = found
    sums = first.unit * first.integers(levels) + second.unit * second.integers(levels)
    apart = np.abs(sums + first.offset - levels).max()
    assert apart <= first.misfit <= 4 * UNIT_ROUNDOFF * np.abs(levels).max()
    for plane in found:
        step = Step(plane.element, plane.values, plane.codes)
        np.testing.assert_array_equal(step.integers(levels), plane.integers(levels))


def test_a_zero_is_exactly_zero_in_two_planes() -> None:
    found = planes_of(F([0, 0.41, 0.7, F(0.41) + F(0.7)]))
    assert found is not None
    first, second = found
    assert (first.zero, second.zero) == (-1, -1)
    assert first.unit * -1 + second.unit * -1 + first.offset == 0


@pytest.mark.parametrize("levels", [(-1, 1), (0, 1, 2.5, 3), (0, 1, 2.5, 3.5, 5), (0, 1, np.inf)])
def test_other_levels_are_not_two_planes(levels: Sequence[float]) -> None:
    assert planes_of(F(levels)) is None


def test_a_step_says_which_integer_is_nearest() -> None:
    values = (-0.25, 0.25, 0.75)
    near = np.array([-0.3, -0.2, 0.2, 0.3, 0.6, 9], F)
    assert Step(Element.U2, values).integers(near).tolist() == [0, 0, 1, 1, 2, 2]
    assert Step(Element.TERNARY, (-0.5, 0.0, 0.5)).integers(near[:3]).tolist() == [-1, 0, 0]
    assert Step(Element.BIPOLAR, (-0.5, 0.5)).integers(near[:3]).tolist() == [-1, -1, 1]
    assert Step(Element.U2).integers(near) is near


@given(st.data())
def test_simplified_steps_are_the_same_steps(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 5))
    values = st.integers(-4, 4)
    rows = [sorted(data.draw(st.lists(values, min_size=count, max_size=count))) for _ in range(3)]
    levels = [data.draw(st.lists(values, min_size=count + 1, max_size=count + 1)) for _ in rows]
    thresholds, kept = simplified(np.array(rows, np.int32).reshape(3, count), np.array(levels, F))
    unused = never(thresholds)
    most = 0
    for c, (t, v) in enumerate(zip(rows, levels, strict=True)):
        for x in range(-6, 7):
            assert level_at(x, thresholds[c].tolist(), kept[c].tolist()) == level_at(x, t, v)
        most = max(most, sum(a != b for a, b in itertools.pairwise(v)))
        assert (np.diff(thresholds[c].astype(np.int64)) >= 0).all()
        assert (kept[c][1:][thresholds[c] == unused] == kept[c][-1]).all()
    assert thresholds.shape[1] == most
