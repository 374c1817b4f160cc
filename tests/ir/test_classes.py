"""Codes of planes: what goes into words comes out of them, and lists hold what codes say."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.classes import PlaneCodes, class_list
from bnncc.ir.taps import TapPlanes
from bnncc.ir.window import Axis, Window

WINDOW = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("depth", [1, 4, 7, 8, 33])
def test_words_hold_codes(k: int, depth: int) -> None:
    held = PlaneCodes(3, depth, k)
    codes = np.random.default_rng(k).integers(0, 1 << k, (5, 3 * depth))
    words = held.pack(codes)
    assert (words.dtype, words.shape) == (np.uint32, (5, held.words))
    assert np.array_equal(held.unpack(words), codes)


def test_the_first_code_is_the_lowest_and_taps_start_words() -> None:
    words = PlaneCodes(2, 7, 5).pack(np.arange(14).reshape(1, -1))
    first = sum(i << 5 * i for i in range(6))
    assert words.tolist() == [[first, 6, sum((7 + i) << 5 * i for i in range(6)), 13]]


def test_classes_are_filled_up_with_planes_of_zeros() -> None:
    taps = TapPlanes(WINDOW, (6, 6), 1, (0,), 8, 32, by_row=True, inverted=True, word_bits=32)
    codes = np.array([0, 1, 4, 0, 0, 0, 0, 5, 0])
    places = 10 * np.arange(9)
    entries, fours = class_list(codes, 4, places, taps)
    assert fours.tolist() == [2, 1, 1, 1]
    inverted = 4 * taps.half
    none, first = [taps.zeros], sorted([0, 10 + inverted, 30, 40, 50, 60, 80])
    third = [20, 70 + inverted, *none, *none]
    assert entries.tolist() == [*first, *none, *4 * none, *third, *4 * none]
