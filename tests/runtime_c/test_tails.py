"""argmax and top-k, against the definitions in the IR and Python's own sort."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnncc.ir.ops.reduce import ArgMax, TopK
from tests.runtime_c.driver import Array, Library

NAN, INF = math.nan, math.inf
ROWS = [
    [3.0],
    [1, 2, 3],
    [3, 2, 1],
    [2, 7, 7, 1, 7],
    [5, 5, 5, 5],
    [-0.0, 0.0, -0.0],
    [-INF, -1, INF, INF],
    [-INF, -INF],
    [1, NAN, 2, NAN],
    [NAN, 1, 9],
    [NAN, NAN],
    [1, 9, NAN],
    [-1e-45, 1e-45, 0, -3e38, 3e38],
]


def _rows() -> list[Array]:
    random = np.random.default_rng(1)
    some = [random.standard_normal(n) for n in (2, 7, 10, 64, 1000)]
    ties = [random.integers(0, 4, n) for n in (5, 33, 100)]
    return [np.asarray(row, np.float32) for row in (*ROWS, *some, *ties)]


def test_argmax_is_the_first_of_the_largest(library: Library) -> None:
    for x in _rows():
        (expected,) = ArgMax(keepdims=False).evaluate([x[np.newaxis]])
        assert library.argmax(x) == expected[0], x
        if not np.isnan(x).any():
            assert library.argmax(x) == x.tolist().index(max(x.tolist()))


def _by_sorting(x: list[float], k: int) -> list[int]:
    """Return the order of a sort by falling value, then rising index, what is no number last."""
    keys = [(math.isnan(v), 0 if math.isnan(v) else -v, i) for i, v in enumerate(x)]
    return [i for _, _, i in sorted(keys)[:k]]


def test_topk_is_a_stable_sort(library: Library) -> None:
    for x in _rows():
        for k in sorted({1, 2, 3, 5, len(x) - 1, len(x)} & set(range(1, len(x) + 1))):
            values, indices = library.topk(x, k)
            expected = TopK(k).evaluate([x[np.newaxis]])
            assert indices.tolist() == _by_sorting(x.tolist(), k) == expected[1][0].tolist(), x
            assert values.tobytes() == x[indices].tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("k", [1, 5])
def test_argmax_leads_the_largest(library: Library, k: int) -> None:
    random = np.random.default_rng(2)
    for _ in range(100):
        x = random.integers(-3, 3, 12).astype(np.float32)
        assert library.topk(x, k)[1][0] == library.argmax(x)
