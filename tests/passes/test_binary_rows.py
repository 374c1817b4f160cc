"""binary_rows: +-alpha, -alpha 0 +alpha, and two values, found by value alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.types import Array
from bnncc.passes.binary_rows import BinaryRows, binary_rows
from tests.ir.sketch import F


def off(rows: BinaryRows, weights: Array) -> Array:
    """Return, a row, the sum of what the weights differ from what they were taken for."""
    taken = rows.alpha[:, np.newaxis].astype(np.float64) * rows.signs + rows.offset[:, np.newaxis]
    return np.abs(weights.astype(np.float64) - taken).sum(axis=1)


# --- +-alpha --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "alpha"),
    [
        ([[1, -1, 1], [-1, -1, -1]], [1, 1]),
        ([[0.5, -0.5], [3, 3]], [0.5, 3]),
        ([[0.0, -0.0], [1, -1]], [0, 1]),
        ([[1e-45, -1e-45]], [1e-45]),
        ([[-7.0]], [7]),
        ([[3e38, -3e38]], [3e38]),
    ],
)
def test_rows_of_one_magnitude(weights: list, alpha: list) -> None:
    w = np.array(weights, F)
    rows = binary_rows(w)
    assert rows.reason == rows.integers == ""
    assert rows.alpha.tolist() == np.array(alpha, F).tolist()
    assert rows.misfit.tolist() == rows.offset.tolist() == [0] * len(w)
    assert set(np.unique(rows.signs)) <= {-1, 1}
    assert (rows.signs * rows.alpha[:, np.newaxis] == w).all()


def test_crumbs_up_to_a_millionth_are_one_magnitude() -> None:
    tops = np.array([1.0, 0.3, 7e-5], F)
    crumb = tops * F(1 - 2**-21)
    w = np.stack([tops, -crumb, crumb, -tops], axis=1)
    rows = binary_rows(w)
    assert rows.reason == rows.integers == ""
    assert rows.alpha.tolist() == tops.tolist()
    np.testing.assert_array_equal(rows.misfit, off(rows, w))


@pytest.mark.parametrize("apart", [2**-19, 2**-10, 0.1234])
def test_magnitudes_further_apart_are_not(apart: float) -> None:
    w = np.array([[1, -1, 1], [1, F(1 - apart), -1], [-1, 1, 1]], F)
    assert binary_rows(w).reason == "1 of 3 output channels have weights other than +-alpha"


# --- -alpha, 0, +alpha ----------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [1, 4, 30, 63])
def test_rows_with_zeros(zeros: int) -> None:
    w = np.full((4, 64), F(0.3))
    w[:, 1::2] *= -1
    w[1, :zeros] = w[2, 64 - zeros :] = 0
    w[3] = 0
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.integers == (
        "2 of 4 output channels have weights other than +-alpha, 2 of them with zeros"
    )
    assert rows.alpha.tolist() == [F(0.3), F(0.3), F(0.3), 0]
    assert rows.misfit.tolist() == rows.offset.tolist() == [0] * 4
    # Only a channel of zeros alone has signs all the same: its alpha is 0.
    assert (rows.signs == 0).sum(axis=1).tolist() == [0, zeros, zeros, 0]
    assert (rows.signs * rows.alpha[:, np.newaxis] == w).all()


def test_zeros_and_crumbs() -> None:
    w = np.array([[0.3, -0.3, 0, 0.3], [1, -1, 1, 1]], F)
    w[0, 3] *= F(1 - 2**-21)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.misfit.tolist() == [float(F(0.3)) - float(w[0, 3]), 0]


def test_zeros_among_other_values_are_named() -> None:
    w = np.array([[1, 0, 1, -1], [0.512, 1, -1, 0], [-1, 1, 1, 1], [0, -2, 2, 0]], F)
    expected = "3 of 4 output channels have weights other than +-alpha, 3 of them with zeros"
    assert binary_rows(w).reason == expected


# --- Two values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "alpha", "offset"),
    [
        ([0.5, -0.25, -0.25], 0.375, 0.125),
        ([3, 1, 3], 1, 2),
        ([-3, -1, -3], 1, -2),
        ([0, 0.5, 0.5], 0.25, 0.25),
        ([-2, 0, 0], 1, -1),
        # The middle lies between the values, whatever float32 makes of it.
        ([1, 1 + 2**-19, 1], 2**-20, 1 + 2**-20),
        ([3e38, -1e38, 3e38], (3e38 + 1e38) / 2, (3e38 - 1e38) / 2),
    ],
)
def test_rows_of_two_values(row: list, alpha: float, offset: float) -> None:
    w = np.array([row, [0.7, 0.1, 0.1]], F)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.integers.startswith("2 of 2 output channels have weights other than +-alpha")
    np.testing.assert_allclose(rows.alpha[0], alpha, rtol=1e-7)  # of the values in float32
    np.testing.assert_allclose(rows.offset[0], offset, rtol=1e-7)
    assert rows.signs[0].tolist() == np.where(w[0] == w[0].max(), 1, -1).tolist()
    assert off(rows, w).tolist() == rows.misfit.tolist() == [0, 0]
    assert rows.magnitudes.tolist() == [sorted({abs(float(v)) for v in r}) for r in w]


def test_rows_of_one_magnitude_among_rows_of_two_values() -> None:
    w = np.array([[0.7, 0.1, 0.1], [-0.5, 0.5, 0.5], [-2, -2, -2], [0, 0, 0], [0.1, -0.1, 0.1]], F)
    w[4, 0] *= F(1 - 2**-21)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.integers == "1 of 5 output channels have weights other than +-alpha"
    assert (rows.offset != 0).tolist() == [True, False, False, False, False]
    assert rows.alpha[1:].tolist() == [0.5, 2, 0, float(F(0.1))]
    assert rows.signs[2].tolist() == [-1, -1, -1]
    np.testing.assert_array_equal(rows.misfit, off(rows, w))
    assert (rows.misfit > 0).tolist() == [False] * 4 + [True]


def test_two_values_with_crumbs() -> None:
    w = np.array([[0.7, -0.2, F(0.7) * F(1 - 2**-21), F(-0.2) * F(1 + 2**-21)]], F)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.signs.tolist() == [[1, -1, 1, -1]]
    np.testing.assert_array_equal(rows.misfit, off(rows, w))
    assert 0 < rows.misfit[0] < 2**-19


@pytest.mark.parametrize(
    "row", [[0.7, 0.1, 0.31], [0.7, 0.1, 0.1001], [1, 2.01, 3], [-1, 0, np.pi]], ids=str
)
def test_a_third_value_off_the_grid_is_one_too_many(row: list) -> None:
    w = np.array([[0.5, 0.1, 0.1], row], F)
    rows = binary_rows(w)
    assert rows.reason.startswith("2 of 2 output channels")


finite = st.floats(-(2.0**20), 2.0**20, width=32)


@given(finite, finite, st.integers(1, 12), st.integers(0, 2**32))
def test_any_two_values(a: float, b: float, k: int, seed: int) -> None:
    w = np.random.default_rng(seed).choice(np.array([a, b], F), (3, k))
    rows = binary_rows(w)
    assert rows.reason == ""
    # The middle and half the distance are exact in double, up to its own rounding.
    assert (off(rows, w) <= k * 2**-50 * np.abs(w).max(axis=1)).all()
    np.testing.assert_array_equal(rows.misfit, off(rows, w))
    assert (np.abs(w).max(axis=1) == rows.magnitudes.max(axis=1)).all()


# --- Several bits ---------------------------------------------------------------------------------


def multiples(integers: list[int], alpha: float, offset: float = 0) -> list[float]:
    """Return, in float32 roundings, what a quantiser gives for some integers."""
    return [float(F(F(F(i) * F(alpha)) + F(offset))) for i in integers]


@pytest.mark.parametrize(
    ("row", "integers", "alpha", "offset"),
    [
        # DoReFa's 2 bits: 2 c / 3 - 1.
        ([-1, 1, F(2 / 3) - 1, F(4 / 3) - 1], [-3, 3, -1, 1], 1 / 3, 0),
        (multiples([-7, 5, 1, 3, -1], 0.1), [-7, 5, 1, 3, -1], 0.1, 0),
        (multiples([15, -15, 1, 13], 0.5), [15, -15, 1, 13], 0.5, 0),
        # With a zero, or an even multiple, any integers.
        (multiples([-3, 0, 1, 2], 0.1), [-3, 0, 1, 2], 0.1, 0),
        (multiples([7, -6, 5, 0], 3), [7, -6, 5, 0], 3, 0),
        ([3, 6, -3], [1, 2, -1], 3, 0),
        # Seven codes of three bits, which 0 is no multiple of.
        (multiples([0, 1, 2, 6], 0.25, 0.1), [-7, -5, -3, 5], 0.125, 0.1 + 7 / 8),
        (multiples([0, 15, 7], 1, -3.3), [-15, 15, -1], 0.5, -3.3 + 7.5),
    ],
    ids=str,
)
def test_rows_of_several_bits(
    row: list[float], integers: list[int], alpha: float, offset: float
) -> None:
    w = np.array([row], F)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert rows.integers.startswith("1 of 1 output channels have weights other than +-alpha")
    assert rows.signs.tolist() == [integers]
    np.testing.assert_allclose(rows.alpha, [alpha], rtol=1e-6)
    np.testing.assert_allclose(rows.offset, [offset], rtol=1e-6)
    np.testing.assert_array_equal(rows.misfit, off(rows, w))
    assert rows.misfit[0] <= len(row) * 2**-23 * np.abs(w).max()
    assert rows.magnitudes.max() == np.abs(w).max()


def test_channels_share_the_kind_of_integers() -> None:
    odd, even = multiples([-3, 3, 1, 1], 0.1), multiples([2, 0, -3, 1], 0.5)
    rows = binary_rows(np.array([odd, even, [0, 0, 0, 0], [5, 5, -5, 5]], F))
    assert rows.signs.tolist() == [[-3, 3, 1, 1], [2, 0, -3, 1], [0, 0, 0, 0], [1, 1, -1, 1]]
    alone = binary_rows(np.array([odd, [0, 0, 0, 0]], F))
    assert alone.signs.tolist() == [[-3, 3, 1, 1], [1, 1, 1, 1]]
    assert alone.alpha[1] == 0
    codes = multiples([0, 1, 3, 2], 0.5, 0.1)
    mixed = binary_rows(np.array([odd, codes, [2, 2, 2, 2]], F))
    assert mixed.signs[1].tolist() == [-3, -1, 3, 1]
    assert (off(mixed, np.array([odd, codes, [2, 2, 2, 2]], F)) <= 1e-6).all()


@pytest.mark.parametrize("count", [16, 17])
def test_at_most_16_values(count: int) -> None:
    w = np.arange(count, dtype=F)[np.newaxis] + F(0.5)
    assert (binary_rows(w).reason == "") == (count == 16)
    assert binary_rows(np.arange(-8, 9, dtype=F)[np.newaxis]).reason


def test_reals_are_not_of_several_bits() -> None:
    random = np.random.default_rng(0)
    for k in (3, 4, 9, 100):
        assert binary_rows(random.standard_normal((50, k)).astype(F)).reason


@given(
    st.lists(st.integers(-7, 7), min_size=3, max_size=12),
    st.floats(2**-10, 2**10, width=32),
    st.sampled_from([0.0, 0.3, -2.0]),
)
def test_any_small_integers(integers: list[int], alpha: float, offset: float) -> None:
    w = np.array([multiples(integers, alpha)], F)
    if offset:  # with roundings of the sum that stay below what is granted
        w = (np.array([integers]) * alpha + offset * alpha).astype(F)
    rows = binary_rows(w)
    assert rows.reason == ""
    assert (off(rows, w) <= len(integers) * 2**-20 * np.abs(w).max()).all()
