"""Softmax and log-softmax: near the truth, and the same bits from every compiler."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.runtime_c.driver import Array, Library

LENGTHS = [1, 2, 3, 7, 8, 9, 10, 33, 100, 1000]


def _rows(count: int) -> list[Array]:
    random = np.random.default_rng(count)
    rows = [random.standard_normal(count) * scale for scale in (1e-6, 0.1, 1, 10, 40, 1e4, 1e30)]
    steps = np.arange(count) * -0.5
    edges = [np.zeros(count), np.full(count, -3e38), steps, steps[::-1], 87 * np.cos(steps)]
    return [np.asarray(row, np.float32) for row in (*rows, *edges)]


def _truth(x: Array) -> tuple[list[float], list[float]]:
    """Return softmax and log-softmax in float64, of the differences that float32 gives."""
    with np.errstate(over="ignore"):
        below = [float(v) for v in x - x.max()]
    powers = [math.exp(v) for v in below]
    total = math.fsum(powers)
    return [p / total for p in powers], [v - math.log(total) for v in below]


@pytest.mark.parametrize("count", LENGTHS)
def test_softmax_is_near_the_truth(library: Library, count: int) -> None:
    for x in _rows(count):
        expected, _ = _truth(x)
        actual = library.row("softmax", x)
        # 2 ulp of each exponential, half a one of each of the sum's additions and of the quotient;
        # powers below exp(-87) are 0.
        bound = (count / 2 + 5) * 2.0**-23
        assert np.abs(actual - expected).max() <= bound * max(expected) + 2e-38
        relative = np.abs(actual - expected) / np.maximum(expected, 1e-300)
        assert relative[np.array(expected) > 1e-36].max() <= bound


@pytest.mark.parametrize("count", LENGTHS)
def test_log_softmax_is_near_the_truth(library: Library, count: int) -> None:
    for x in _rows(count):
        _, expected = _truth(x)
        actual = library.row("log_softmax", x)
        # The sum's relative error moves its logarithm as much; then 2 ulp of that and a rounding.
        slack = (count / 2 + 5) * 2.0**-23 + 3 * 2.0**-23 * np.abs(expected)
        assert (np.abs(actual - np.float64(expected)) <= slack).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_every_step_is_one_float32_operation(library: Library, name: str) -> None:
    # Bit for bit what numpy gives, operation by operation: the definition in the IR.
    from bnncc.ir.ops.softmax import Softmax

    op = Softmax(log=name == "log_softmax")
    for count in LENGTHS:
        for x in _rows(count):
            (expected,) = op.evaluate([x[np.newaxis]])
            assert library.row(name, x).tobytes() == expected.tobytes(), (count, x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_nan_is_not_hidden(library: Library, name: str) -> None:
    assert np.isnan(library.row(name, np.float32([1, np.nan, 2]))).all()
