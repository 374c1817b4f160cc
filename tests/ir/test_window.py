"""Windows against their places, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bnncc.ir.ops.base import OpError
from bnncc.ir.types import Array
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.sketch import F
from tests.ir.windows import (
    axes_and_size,
    output_places,
    outputs_of,
    places,
    windows_and_sizes,
    within,
)

Drawn = tuple[Window, tuple[int, ...]]


@given(st.booleans().flatmap(lambda ceil: axes_and_size(ceil=ceil)))
def test_outputs_and_taps_along_one_axis(drawn: tuple[Axis, int]) -> None:
    axis, size = drawn
    outputs = outputs_of(axis, size)
    assert axis.outputs(size) == len(outputs)
    for output in outputs:
        seen = places(axis, output)
        assert axis.extent == seen[-1] - seen[0] + 1
        expected = [k for k, place in enumerate(seen) if 0 <= place < size]
        assert list(axis.taps(output, size)) == expected


@given(st.booleans().flatmap(lambda ceil: axes_and_size(ceil=ceil)))
def test_a_size_without_outputs_is_refused(drawn: tuple[Axis, int]) -> None:
    axis, size = drawn
    while size and outputs_of(axis, size):
        size -= 1
    assume(not outputs_of(axis, size))
    with pytest.raises(OpError, match=f"a window of {axis.extent} does not fit an input"):
        axis.outputs(size)


@given(windows_and_sizes(ceil=True))
def test_valid_counts_and_is_padded(drawn: Drawn) -> None:
    window, sizes = drawn
    seen = [[within(p, sizes) for p in taps] for _, taps in output_places(window, sizes)]
    outputs = window.outputs(sizes)
    valid = window.valid(sizes)
    assert (valid.dtype, valid.shape) == (bool, (*window.kernel, *outputs))
    expected = np.array(seen).T.reshape(valid.shape)
    np.testing.assert_array_equal(valid, expected)
    counts = np.array([sum(taps) for taps in seen]).reshape(outputs)
    np.testing.assert_array_equal(window.counts(sizes), counts, strict=True)
    assert window.is_padded(sizes) == (not all(map(all, seen)))
    assert window.taps == len(seen[0])


@given(windows_and_sizes(ceil=True))
def test_patches_hold_what_the_taps_see(drawn: Drawn) -> None:
    window, sizes = drawn
    x = np.arange(1, 1 + 6 * np.prod(sizes, dtype=int)).reshape(2, 3, *sizes)
    patches = window.patches(x, fill=-7)
    assert patches.shape == (2, 3, *window.kernel, *window.outputs(sizes))
    rows = [
        [x[(..., *place)] if within(place, sizes) else np.full((2, 3), -7) for place in taps]
        for _, taps in output_places(window, sizes)
    ]
    expected = np.array(rows).transpose(2, 3, 1, 0).reshape(patches.shape)
    np.testing.assert_array_equal(patches, expected)


@pytest.mark.parametrize(
    "x",
    [
        np.arange(96, dtype=F).reshape(2, 6, 8, 1).transpose(0, 3, 2, 1),
        np.arange(192, dtype=F).reshape(2, 1, 16, 6)[:, :, ::-2],
    ],
    ids=["transposed", "backwards"],
)
def test_patches_of_views_are_those_of_copies(x: Array) -> None:
    for axis in (Axis(3, 2), Axis(3, 1, 2, 1, 2)):
        window = Window((axis, axis))
        np.testing.assert_array_equal(window.patches(x), window.patches(x.copy()))


def test_patches_can_be_read_only() -> None:
    x = np.zeros((1, 1, 4), F)
    with pytest.raises(ValueError, match="read-only"):
        Window((Axis(2),)).patches(x)[...] = 1


def test_a_point_has_one_tap() -> None:
    assert (POINT.taps, POINT.kernel, POINT.outputs(())) == (1, (), ())
    assert POINT.counts(()) == 1
    assert not POINT.is_padded(())
    x = np.ones((2, 3), F)
    np.testing.assert_array_equal(POINT.patches(x), x)


def test_refuses_another_rank() -> None:
    with pytest.raises(OpError, match=r"2 axes do not fit spatial shape \[5\]"):
        Window((Axis(3), Axis(3))).outputs((5,))


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (POINT, "[]"),
        (Window((Axis(3),)), "[3]"),
        (Window((Axis(1), Axis(3, 2, 1, 1, 0))), "[1, 3/2 pad 1+0]"),
        (Window((Axis(2, 3, 4, 0, 1, ceil=True),)), "[2/3 dilation 4 pad 0+1 ceil]"),
    ],
)
def test_text(window: Window, text: str) -> None:
    assert str(window) == text
