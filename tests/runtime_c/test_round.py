"""Round, floor and ceil without a math library, bit for bit against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime_c.driver import Library

_NUMPY = {"round": np.rint, "floor": np.floor, "ceil": np.ceil}


def _near_integers() -> np.ndarray:
    """Return whole numbers, halves, and both neighbours of each, up to where floats are whole."""
    whole = np.concatenate([np.arange(0, 3000), 2.0 ** np.arange(32), 2.0**23 - np.arange(100)])
    points = np.concatenate([whole, whole + 0.5, whole - 0.5]).astype(np.float32)
    lower, upper = (np.nextafter(points, np.float32(to)) for to in (-np.inf, np.inf))
    return np.concatenate([points, lower, upper])


@pytest.mark.parametrize("name", _NUMPY)
def test_whole_numbers(library: Library, name: str) -> None:
    random = np.random.default_rng(1)
    anything = random.integers(0, 2**32, 400_000, np.uint32).view(np.float32)
    spread = (random.standard_normal(200_000) * 10.0 ** random.integers(-3, 9, 200_000)).astype(
        "f4"
    )
    positive = np.concatenate([_near_integers(), spread, anything, np.float32([0, np.inf])])
    x = np.concatenate([positive, -positive])
    with np.errstate(all="ignore"):
        expected = _NUMPY[name](x)
    actual = library.each(name, "float32", x)
    numbers = ~np.isnan(x)
    # Bits, not values: floor(-0) and round(-0.3) are -0.
    same = actual.view(np.uint32) == expected.view(np.uint32)
    assert same[numbers].all(), x[numbers & ~same][:5]
    assert np.isnan(actual[~numbers]).all()
