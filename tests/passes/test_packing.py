"""Weights and thresholds as kernels read them: each bit and number looked up by its place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.types import Array, Element, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.passes.levels import element_for, never
from bnncc.passes.packing import (
    accumulator_base,
    mismatch_limits,
    narrowest,
    packed_taps,
    parts_of,
    plane_thresholds,
    skips_taps,
    tap_major,
    tiled,
    weight_planes,
    zero_weights,
)
from tests.ir.oracles import CODES, EXTREMES, PLANES, integers, plane_bit, word_value
from tests.ir.sketch import F
from tests.passes.applying import level_at

KERNELS = [(), (3,), (2, 3)]


def numbered(*shape: int) -> Array:
    """Return an array in which every element has another value, from 1 upward."""
    return np.arange(1, int(np.prod(shape)) + 1).reshape(shape)


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_taps_lie_outside_of_channels(kernel: tuple[int, ...]) -> None:
    weights = numbered(4, 5, *kernel)
    rows = tap_major(weights)
    assert rows.shape == (4, int(np.prod(kernel)), 5)
    for o, c, *tap in np.ndindex(*weights.shape):
        place = int(np.ravel_multi_index(tuple(tap), kernel)) if kernel else 0
        assert rows[o, place, c] == weights[(o, c, *tap)]


@pytest.mark.parametrize(("count", "nr", "groups"), [(8, 4, 1), (9, 4, 3), (33, 8, 3), (2, 8, 2)])
def test_blocks_hold_channels_of_one_group(count: int, nr: int, groups: int) -> None:
    rows = numbered(count, 2)
    blocks = tiled(rows, nr, groups)
    each = count // groups
    assert blocks.shape == (groups * -(-each // nr), nr, 2)
    found = []
    for group, channel in itertools.product(range(groups), range(each)):
        block = group * -(-each // nr) + channel // nr
        np.testing.assert_array_equal(blocks[block, channel % nr], rows[group * each + channel])
        found.append((block, channel % nr))
    for block, lane in np.ndindex(*blocks.shape[:2]):
        assert (block, lane) in found or not blocks[block, lane].any()


@pytest.mark.parametrize("word_bits", [32, 64])
@pytest.mark.parametrize("depth", [1, 31, 32, 33, 65])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_weights_bit_by_bit(kernel: tuple[int, ...], depth: int, word_bits: int) -> None:
    weights = np.random.default_rng(depth).integers(-1, 2, (3, depth, *kernel)).astype(np.int8)
    words = packed_taps(weights, word_bits)
    each = -(-depth // word_bits)
    assert words.shape == (3, int(np.prod(kernel)) * each)
    assert words.dtype == np.dtype(f"uint{word_bits}")
    for o, (place, tap) in itertools.product(range(3), enumerate(np.ndindex(*kernel))):
        # Zeros count as +1; the bits past the channels are 0, which the comparison sees too.
        expected = sum(int(weights[(o, c, *tap)] >= 0) << c for c in range(depth))
        assert word_value(words[o, place * each : (place + 1) * each], word_bits) == expected


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_zeros_are_listed_by_channel_and_tap(kernel: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).integers(-1, 2, (4, 5, *kernel)).astype(np.int8)
    table = zero_weights(weights)
    assert (table.dtype, table.shape[1]) == (np.int32, 2 + len(kernel))
    expected = {(o, *tap, c) for (o, c, *tap), w in np.ndenumerate(weights) if w == 0}
    assert {tuple(row) for row in table.tolist()} == expected
    assert len(table) == len(expected)
    assert [row[0] for row in table.tolist()] == sorted(row[0] for row in table.tolist())
    assert len(zero_weights(np.ones((2, 3, *kernel), np.int8))) == 0


@pytest.mark.parametrize(
    ("row_zeros", "parts"),
    [
        ([0, 0], (1,)),
        ([4, 0], (1,)),  # a sixteenth of 64
        ([5, 0], (1, 1)),
        ([4] * 16, (1,)),  # 64 in all
        ([4] * 17, (1, 1)),
    ],
)
def test_more_than_a_few_zeros_take_a_plane_of_their_own(
    row_zeros: list[int], parts: tuple[int, ...]
) -> None:
    weights = np.ones((len(row_zeros), 4, 4, 4), np.int8)
    for row, zeros in zip(weights.reshape(len(row_zeros), -1), row_zeros, strict=True):
        row[:zeros] = 0
    assert parts_of(weights) == parts


@pytest.mark.parametrize("parts", [(1,), (1, 1), (1, 2), (1, 2, 3), (1, 2, 4)], ids=str)
def test_weights_are_half_the_weighted_sum_of_their_planes(parts: tuple[int, ...]) -> None:
    choices = np.array(list(itertools.product((-1, 1), repeat=len(parts))))
    half = 1 if sum(parts) % 2 else 2
    values = np.unique(choices @ parts) // half
    weights = np.random.default_rng(0).choice(values, (4, 5, 3)).astype(np.int8)
    planes = weight_planes(weights, parts)
    assert len(planes) == len(parts)
    assert {int(v) for plane in planes for v in np.unique(plane)} == {-1, 1}
    total = sum(part * plane.astype(int) for part, plane in zip(parts, planes, strict=True))
    np.testing.assert_array_equal(total, half * weights.astype(int))


# --- Accumulators ---------------------------------------------------------------------------------


def mismatches(x: Array, weights: Array, element: Element) -> int:
    """Return the weighted mismatches of one row, bit by bit."""
    return sum(
        (plane_bit(int(v), p, element) != int(w > 0)) << (p if element in CODES else 0)
        for v, w in zip(x, weights, strict=True)
        for p in range(PLANES[element])
    )


@pytest.mark.parametrize("element", list(EXTREMES), ids=lambda e: e.value)
def test_the_base_is_the_accumulator_without_mismatches(element: Element) -> None:
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-1, 1], np.int8), (4, 3, 2, 2))
    weights[0], weights[1] = 1, -1
    base = accumulator_base(weights, element)
    assert base.dtype == np.int32
    factor = 2 if element is Element.BIPOLAR else 1
    rows = weights.reshape(4, -1)
    for row, b in zip(rows, base.tolist(), strict=True):
        for x in integers(element, 9, rows.shape[1], random):
            n = sum(int(v) * int(w) for v, w in zip(x, row, strict=True))
            assert n == b - factor * mismatches(x, row, element)


PARTS = [(1,), (1, 1), (1, 2), (1, 2, 3)]


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("element", list(EXTREMES), ids=lambda e: e.value)
def test_limits_hold_at_every_mismatch_count(element: Element, parts: tuple[int, ...]) -> None:
    """n >= t iff M <= limit, for accumulators and mismatches counted bit by bit."""
    random = np.random.default_rng(0)
    k = 3
    half = 1 if sum(parts) % 2 else 2
    planes = random.choice(np.array([-1, 1]), (len(parts), 4, k))
    weights = (np.tensordot(parts, planes, axes=1) // half).astype(np.int8)
    base = accumulator_base(weights, element, parts)
    x = integers(element, 40, k, random)
    n = x.astype(int) @ weights.astype(int).T
    bits = weight_planes(weights, parts)
    m = np.zeros((len(x), 4), int)
    for part, plane in zip(parts, bits, strict=True):
        m += part * np.array([[mismatches(row, w, element) for w in plane] for row in x])
    most = k * sum(parts) * (element.largest_code or PLANES[element])
    assert m.max() <= most
    least, top = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    for t in [*range(n.min() - 2, n.max() + 3, max(1, most // 40)), least, top]:
        thresholds = np.full((1, 4, 1), t, np.int32)
        limit = mismatch_limits(thresholds, base, TensorType((1, k), element), k, parts)
        assert limit.shape == (1, 4, 1)
        assert limit.min() >= -1
        assert limit.max() <= most
        np.testing.assert_array_equal(n >= t, m <= limit[0, :, 0])


def test_limits_are_stored_as_narrow_as_they_fit() -> None:
    assert narrowest(np.array([[[-1, 32767]]])) is Element.I16
    assert narrowest(np.array([[[-1, 32768]]])) is Element.I32
    assert narrowest(np.zeros((1, 0, 1), np.int64)) is Element.I16


@pytest.mark.parametrize(
    ("window", "pad", "element", "skips"),
    [
        (Window((Axis(3, 1, 1, 1, 1),)), 0, Element.BIPOLAR, True),
        (Window((Axis(3, 1, 1, 1, 1),)), 0, Element.TERNARY, True),
        (Window((Axis(3, 1, 1, 1, 1),)), 1, Element.BIPOLAR, False),
        (Window((Axis(3, 1, 1, 1, 1),)), -1, Element.TERNARY, False),
        (Window((Axis(3, 1, 1, 1, 1),)), 0, Element.U8, False),
        (Window((Axis(3),)), 0, Element.BIPOLAR, False),
        # The padding behind the last window is never seen.
        (Window((Axis(2, 2, 1, 0, 1),)), 0, Element.BIPOLAR, False),
        (Window(), 0, Element.BIPOLAR, False),
    ],
)
def test_only_taps_that_count_for_nothing_are_skipped(
    window: Window, pad: int, element: Element, skips: bool
) -> None:
    sizes = (6,) if window.axes else ()
    assert skips_taps(BinaryConv(window, 1, pad), TensorType((1, 4, *sizes), element)) is skips


# --- plane_thresholds -----------------------------------------------------------------------------


@st.composite
def stepped(draw: st.DrawFn) -> tuple[Array, Array, Element, int]:
    channels = 3
    rows = draw(st.sampled_from([1, channels]))
    count = draw(st.integers(0, 4))
    element = draw(st.sampled_from([np.float32, np.int32]))
    far = [never(np.zeros(1, element))] if count else []
    value = st.integers(-5, 5) | st.sampled_from([-5, *far])
    row = st.lists(value, min_size=count, max_size=count).map(sorted)
    values = draw(st.sampled_from([[-1, 1], [-1, 0, 1]]))
    level = st.lists(st.sampled_from(values), min_size=count + 1, max_size=count + 1)
    thresholds = np.array(draw(st.lists(row, min_size=rows, max_size=rows)), element)
    levels = np.array(draw(st.lists(level, min_size=rows, max_size=rows)), F)
    wanted = element_for(levels) if draw(st.booleans()) else Element.TERNARY
    return thresholds.reshape(rows, count), levels, wanted, channels


@given(stepped())
def test_planes_are_parities_of_comparisons(case: tuple[Array, Array, Element, int]) -> None:
    thresholds, levels, to, channels = case
    planes = plane_thresholds(thresholds, levels, to, channels)
    assert planes.shape[:2] == (PLANES[to], channels)
    assert planes.shape[2] >= 1
    assert planes.dtype == thresholds.dtype
    for c in range(channels):
        t, v = (a[min(c, len(a) - 1)].tolist() for a in (thresholds, levels))
        infinities = [-np.inf, np.inf] if thresholds.dtype == F else []
        for x in [*range(-7, 8), *infinities]:
            for p in range(PLANES[to]):
                parity = sum(x >= limit for limit in planes[p, c].tolist()) % 2
                assert parity == plane_bit(int(level_at(x, t, v)), p, to)


def test_a_rising_channel_takes_one_comparison() -> None:
    t = np.array([[3], [5]], np.int32)
    planes = plane_thresholds(t, np.array([[-1, 1]] * 2, F), Element.BIPOLAR, 2)
    assert planes.tolist() == [[[3], [5]]]
