"""exp, log and softmax of our own, against the math library in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.analysis.rounding import softmax_bound
from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.ops.transcendental import exp32, log32
from bnncc.ir.types import Element, TensorType

F = np.float32


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    spacing = np.spacing(np.abs(exact).astype(F)).astype(np.float64)
    return float((np.abs(found.astype(np.float64) - exact) / spacing).max())


def test_exp_within_an_ulp() -> None:
    near = np.logspace(-45, 1.9, 100_000)
    x = np.concatenate([np.linspace(-110, 88.7, 200_001), -near, near]).astype(F)
    assert ulps(exp32(x), np.exp(x.astype(np.float64))) <= 1
    assert exp32(np.array([0, -0.0], F)).tolist() == [1, 1]


def test_exp_at_its_ends() -> None:
    x = np.array([-np.inf, -3e38, -104, -103.97, -103, 88.72283, 88.72284, 3e38, np.inf], F)
    with np.errstate(over="ignore"):
        assert exp32(x).tolist() == np.exp(x.astype(np.float64)).astype(F).tolist()
    assert exp32(x)[[0, 3, 4, 5, 6]].tolist() == [0, F(2**-149), F(2**-149), exp32(x)[5], np.inf]
    assert np.isnan(exp32(np.array([np.nan], F))).all()


def test_log_within_two_ulp() -> None:
    x = np.concatenate([np.linspace(1, 4, 200_001), np.logspace(0, 38, 100_000)]).astype(F)
    exact = np.log(x.astype(np.float64))
    assert ulps(log32(x)[exact > 0], exact[exact > 0]) <= 2
    assert log32(np.array([1], F)).tolist() == [0]


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=40), st.booleans())
def test_within_the_bound_that_verify_grants(row: list[float], log: bool) -> None:
    x = np.array([row], F)
    (y,) = Softmax(log).evaluate([x])
    below = [float(v - x[0].max()) for v in x[0]]  # rounded to float32, as in any library
    total = math.fsum(map(math.exp, below))
    exact = [b - math.log(total) if log else math.exp(b) / total for b in below]
    assert (np.abs(y[0] - np.array(exact)) <= softmax_bound(y, log=log)[0]).all()


def test_the_sum_is_taken_in_order() -> None:
    """2^24 ones cannot be counted one by one: the sum stays at 2^24, pairwise it would not."""
    x = np.zeros((1, (1 << 24) + 8), F)
    (y,) = Softmax(log=False).evaluate([x])
    assert y[0, 0] == F(2.0**-24)


@pytest.mark.parametrize(
    "kind",
    [
        TensorType((1, 2, 3), Element.F32),
        TensorType((1, 3), Element.I32),
    ],
)
def test_refuses(kind: TensorType) -> None:
    with pytest.raises(OpError, match="Softmax needs a dense f32 operand"):
        Softmax(log=True).infer([kind])
