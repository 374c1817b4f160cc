"""Lists of classes: each plane once a group, in the class of its signs; 16 bits where they do."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bnncc.ir.classes import class_patterns
from bnncc.ir.ops.shared_sums import SharedSums
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.lean_lists import codes_of
from bnncc.passes.roll_rows import in_other_copies
from bnncc.passes.sharing import (
    Grouping,
    Lists,
    Load,
    best_grouping,
    group_starts,
    listed,
    loads,
)
from bnncc.targets import target_named

SAME = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))
K = 3
SIGNS = Grouping(K, ternary=False)


def planes(channels: int, width: int = 6, *, by_row: bool = True) -> TapPlanes:
    pitch = 8 if width <= 8 else 32
    pads = (0,)
    return TapPlanes(SAME, (6, width), channels, pads, pitch, 32, by_row, True, word_bits=32)


def weights(channels: int) -> Array:
    random = np.random.default_rng(channels)
    bits = random.random((K, channels, 3, 3)) < 0.5
    bits[2] = bits[0]  # half of the classes stay empty
    return bits


def lists_of(bits: Array, taps: TapPlanes) -> Lists:
    found = listed(2 * bits.astype(np.int8) - 1, taps, (0,), SIGNS, 1, codes=False)
    assert isinstance(found, Lists)
    return found


def assert_complete(found: Lists, bits: Array, taps: TapPlanes) -> None:
    """Each plane is in the class of its signs, inverted where the first channel's weight is +1."""
    places = found.entries.astype(np.int64) * found.unit
    assert found.fours.shape == (1, 1 << (K - 1))
    classes = np.repeat(np.arange(found.fours.size), 4 * found.fours.reshape(-1).astype(np.int64))
    real = places != taps.zeros
    have = sorted(zip(places[real].tolist(), classes[real].tolist(), strict=True))
    rows = np.moveaxis(bits, 1, -1).reshape(K, -1)
    keys = (rows[1] ^ rows[0]) + 2 * (rows[2] ^ rows[0])
    where = taps.offsets().reshape(-1) + np.where(rows[0], 4 * taps.half, 0)
    assert have == sorted(zip(where.tolist(), keys.tolist(), strict=True))


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("channels", [1, 5, 33])
def test_each_plane_is_listed_once(channels: int, by_row: bool) -> None:
    bits, taps = weights(channels), planes(channels, by_row=by_row)
    assert_complete(lists_of(bits, taps), bits, taps)


def test_16_bits_end_where_offsets_pass_them() -> None:
    per_channel = planes(2).zeros - planes(1).zeros
    most = (1 << 16) // per_channel
    for channels in (most - 1, most, most + 1):
        bits, taps = weights(channels), planes(channels)
        found = lists_of(bits, taps)
        assert found.unit == 1  # rows of a byte: no larger unit would do
        fits = int(taps.zeros) < 1 << 16
        assert found.entries.dtype == (np.uint16 if fits else np.uint32)
        assert_complete(found, bits, taps)
    assert lists_of(weights(most - 1), planes(most - 1)).entries.dtype == np.uint16
    assert lists_of(weights(most + 1), planes(most + 1)).entries.dtype == np.uint32


def test_16_bits_reach_further_where_planes_are_on_words() -> None:
    channels = (1 << 16) // (planes(2, 20).zeros - planes(1, 20).zeros) + 1
    bits, taps = weights(channels), planes(channels, 20)
    found = lists_of(bits, taps)
    assert (found.entries.dtype, found.unit) == (np.uint16, 2)
    assert_complete(found, bits, taps)


def test_more_planes_than_counters_hold_are_refused() -> None:
    weights = np.ones((K, (1 << 16) // 9 + 1, 3, 3), np.int8)
    reason = listed(weights, planes(weights.shape[1]), (0,), SIGNS, 1, codes=False)
    assert reason == "more planes enter a channel than its counters hold"


def test_sums_that_may_not_fit_are_refused() -> None:
    taps = replace(planes(3500), pads=(0,) * 4)
    weights = np.ones((K, 3500, 3, 3), np.int8)
    assert isinstance(listed(weights, taps, (0,), SIGNS, 1, codes=False), Lists)
    reason = listed(weights, taps, (0,), SIGNS, 1, codes=True)
    assert reason == "more planes enter a channel than its counters hold"


def test_weights_of_0_alone_have_no_lists() -> None:
    weights = np.zeros((K, 4, 3, 3), np.int8)
    assert listed(weights, planes(4), (0,), SIGNS, 1, codes=False) == "all of its weights are 0"


_SHAPES = st.tuples(*(st.integers(1, most) for most in (3, 4, 6)))


@given(arrays(np.int8, _SHAPES, elements=st.integers(-15, 15)), st.booleans())
def test_lists_add_up_to_the_weights(weights: Array, ternary: bool) -> None:
    """Groups of channels with planes of one tap each."""
    groups, k, count = weights.shape
    taps = replace(planes(count), window=Window((Axis(1), Axis(1))))
    rows = weights.reshape(groups * k, count, 1, 1)
    firsts = range(0, groups * k, k)
    found = listed(rows, taps, firsts, Grouping(k, ternary), 1, codes=False)
    if isinstance(found, str):
        assert not weights.any()
        return
    patterns = class_patterns(k, ternary=ternary)
    assert found.fours.shape == (groups, len(patterns) * found.parts)
    assert not (ternary and found.doubled)
    sums = np.zeros((groups, k, count), np.int64)
    totals = np.zeros((groups, k), np.int64)
    places = iter(found.entries.astype(np.int64) * found.unit)
    for (group, key), fours in np.ndenumerate(found.fours):
        pattern, part = divmod(key, found.parts)
        signs = patterns[pattern].astype(np.int64)
        for place in itertools.islice(places, 4 * int(fours)):
            if place != taps.zeros:
                inverted, plane = divmod(place // 4, taps.half)
                sums[group, :, plane // taps.copy_words] += (2 * inverted - 1) * signs << part
                totals[group] += np.abs(signs) << part
    assert (sums == (1 + found.doubled) * weights).all()
    assert (totals == found.totals).all()


def test_the_last_group_overlaps() -> None:
    assert group_starts(10, 1, 4) == (0, 4, 6)
    assert group_starts(10, 2, 2) == (0, 2, 3, 5, 7, 8)


@pytest.mark.parametrize(
    ("target", "channels", "size"),
    [
        *[("aarch64", 64, 5), ("aarch64", 128, 5), ("aarch64", 256, 6)],
        *[("x86-64-v3", 64, 5), ("x86-64-v3", 128, 5), ("x86-64-v3", 256, 6)],
        *[("cortex-m0", 64, 4), ("cortex-m0", 128, 5), ("cortex-m55", 64, 4)],
        *[("cortex-m4", 64, 5), ("cortex-m4", 128, 5), ("riscv32", 64, 5)],
    ],
)
def test_group_sizes_are_those_measured_best(target: str, channels: int, size: int) -> None:
    """By `python -m tests.bench.instructions`, on x86 by `python -m tests.bench`.

    On a Cortex-M4, 4 of 64 channels take as many instructions, but longer lists.
    """
    addition = target_named(target).slices.addition
    found = best_grouping(channels, lambda _: Load(9 * channels, 1), addition)
    assert found == Grouping(size, ternary=False)


@pytest.mark.parametrize(
    ("channels", "zeros", "best"),
    [
        *((64, 0.002, Grouping(4, False)), (64, 0.05, Grouping(4, False))),
        *((64, 0.6, Grouping(2, True)), (128, 0.05, Grouping(4, False))),
        *((128, 1 / 3, Grouping(3, True)), (128, 0.6, Grouping(3, True))),
    ],
)
def test_zeros_are_classes_where_there_are_many(
    channels: int, zeros: float, best: Grouping
) -> None:
    """As measured on Cortex-M4, where groups of 2 and of 3 tie in the last case."""
    random = np.random.default_rng(channels)
    weights = random.choice(np.array([-1, 1], np.int8), (channels, channels, 3, 3))
    weights[random.random(weights.shape) < zeros] = 0
    assert best_grouping(channels, loads(weights, 1, 1), zeros=True) == best


def test_groups_have_no_more_channels_than_there_are() -> None:
    assert best_grouping(2, lambda _: Load(1000, 1)).k == 2


def test_lists_of_a_large_layer_take_no_time() -> None:
    """A 512x512x3x3 layer: lists, their places in bands, and codes, in a second of one core."""
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-1, 1], np.int8), (512, 512, 3, 3))
    taps = TapPlanes(SAME, (14, 14), 512, (0,), 16, 32, by_row=True, inverted=True, word_bits=32)
    start = time.process_time()
    firsts = group_starts(512, 1, 6)
    found = listed(weights, taps, firsts, Grouping(6, ternary=False), 1, codes=False)
    assert isinstance(found, Lists)
    places = found.entries.astype(np.int64) * found.unit
    moved = in_other_copies(places, taps, replace(taps, band=4))
    assert moved.max() < places.max()
    op = SharedSums(taps, 512, 6, firsts, 4608, "w32", found.unit, False, Element.BIPOLAR)
    codes = codes_of(op, found.entries, found.fours)
    assert codes is not None
    assert op.codes.pack(codes).shape == (86, 9 * 103)
    assert time.process_time() - start < 1.0  # 0.25 s on one Zen 5 core
