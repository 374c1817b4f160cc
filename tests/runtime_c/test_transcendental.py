"""exp, log, tanh, erf, the logistic function, roots: as the IR defines them, near the truth.

The exhaustive sweeps over all floats are slow, and are what the bounds in the docstrings of
ir/ops/transcendental.py and the monotonicity that ir/analysis/direction.py relies on stand on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnncc.ir.ops import transcendental
from tests.runtime_c.driver import WARNINGS, Array, Library, compiled

FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "erf")
NEVER_FALL = ("exp", "log", "tanh", "sigmoid")
POWERS = (1, 2, 3, 4, 5, 8, 16, -1, -2, -3, -4, -7)


def _sweep() -> Array:
    """Return every 9973th float of all 2^32, the neighbourhoods of every seam, and the specials."""
    everywhere = np.arange(0, 2**32, 9973, np.int64).astype(np.uint32).view(np.float32)
    halves = (np.arange(-160, 160) + 0.5) * np.log(2)  # where the integer n changes
    seams = np.float32(
        [
            *halves,
            0,
            0.625,
            0.927734375,
            0.70710678,
            1,
            2.0**-126,
            4,
            9,
            17,
            18,
            44,
            87.3,
            88,
            88.7228,
            89,
            103.28,
            103.9721,
            104,
        ]
    )
    around = (seams.view(np.int32)[:, np.newaxis] + np.arange(-40, 41)).astype(np.int32)
    near = around.view(np.float32).reshape(-1)
    limits = np.finfo(np.float32)
    specials = np.float32([0, limits.smallest_subnormal, limits.tiny, limits.max, np.inf, np.nan])
    dense = np.linspace(-110, 110, 400_001, dtype=np.float32)
    return np.concatenate([everywhere, near, -near, specials, -specials, dense])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_step_is_one_float32_operation(library: Library, name: str) -> None:
    x = _sweep()
    expected = getattr(transcendental, f"{name}32")(x)
    actual = library.each(name, "float32", x)
    assert expected.dtype == np.float32
    _assert_same(actual, expected, x)
    assert np.isnan(expected[np.isnan(x)]).all()


def _assert_same(actual: Array, expected: Array, x: Array) -> None:
    """Compare bit for bit; one NaN is as good as another."""
    same = actual.view(np.uint32) == expected.view(np.uint32)
    same |= np.isnan(actual) & np.isnan(expected)
    assert same.all(), x[~same][:5]


def test_the_square_root_is_rounded_as_ieee_754_asks(library: Library) -> None:
    x = _sweep()
    with np.errstate(invalid="ignore"):
        expected = np.sqrt(x)
    _assert_same(library.each("sqrt", "float32", x), expected, x)


@pytest.mark.parametrize("halves", POWERS)
def test_powers_are_products(library: Library, halves: int) -> None:
    x = _sweep()
    half = np.full_like(x, halves, np.int32)
    _assert_same(library.each("power", "float32", x, half), transcendental.power32(x, halves), x)


@pytest.mark.parametrize("halves", POWERS)
def test_powers_are_near_the_truth(halves: int) -> None:
    x = np.abs(_sweep())
    x = x[(x > 1e-4) & (x < 1e4)]
    truth = x.astype(np.float64) ** (halves / 2)
    off = np.abs(transcendental.power32(x, halves) / truth - 1) * 2**24
    assert off.max() <= abs(halves) // 2 + 2


@pytest.mark.parametrize("name", NEVER_FALL)
def test_it_never_falls_from_one_sample_to_the_next(library: Library, name: str) -> None:
    x = np.sort(_sweep())
    y = library.each(name, "float32", x[x >= 0 if name == "log" else ~np.isnan(x)])
    assert (y[1:] >= y[:-1]).all()


# --- All of them ----------------------------------------------------------------------------------

_EVERY_FLOAT = """
#include <math.h>
#include <stdio.h>
#include "bnn_transcendental.h"

enum { BATCH = 1 << 16 };
static float x[BATCH], y[BATCH];

static double sigmoid(double v) {
  return 1.0 / (1.0 + exp(-v));
}

/* The k-th float from -infinity to infinity; -0 and 0 are two of them. */
static float kth(uint64_t k) {
  const uint64_t numbers = 0x7f800001u; /* of one sign */
  const uint32_t bits = k < numbers ? 0xff800000u - (uint32_t)k : (uint32_t)(k - numbers);
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

/* The distance in units of the last place of the true value, as float32 has it. */
static double ulps(float found, double truth) {
  int exponent;
  if (isinf(found) || isinf((float)truth)) {
    return found == (float)truth ? 0.0 : HUGE_VAL;
  }
  (void)frexp(truth, &exponent);
  return fabs((double)found - truth) / ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

int main(void) {
  const uint64_t count = 2ull * 0x7f800001u;
  const uint64_t start = %(positive)d ? 0x7f800001u : 0u;
  uint64_t falls = 0;
  double worst = 0;
  float last = -HUGE_VALF;
  for (uint64_t first = start; first < count; first += BATCH) {
    const size_t used = count - first < BATCH ? (size_t)(count - first) : BATCH;
    for (size_t i = 0; i < used; ++i) {
      x[i] = kth(first + i);
    }
    for (size_t i = 0; i < used; ++i) {
      y[i] = bnn_%(name)s(x[i]);
    }
    for (size_t i = 0; i < used; ++i) {
      const double error = ulps(y[i], %(name)s((double)x[i]));
      worst = error > worst ? error : worst;
      falls += !(y[i] >= last);
      last = y[i];
    }
  }
  printf("%%llu %%.6f", (unsigned long long)falls, worst);
  return 0;
}
"""
BOUNDS = {"exp": 1.0, "log": 0.9, "tanh": 1.4, "sigmoid": 2.5, "erf": 1.2}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float_is_near_the_truth(any_cc: str, tmp_path: Path, name: str) -> None:
    flags = ("-O3", "-march=native", "-std=gnu99", *WARNINGS, "-Wno-unused-function")
    source = _EVERY_FLOAT % {"name": name, "positive": name == "log"}
    program = compiled(any_cc, source, tmp_path / name, *flags)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    falls, worst = done.stdout.split()
    assert (int(falls) == 0) == (name in NEVER_FALL)
    # Not far below either: the bound says what there is.
    assert 0.9 * BOUNDS[name] < float(worst) <= BOUNDS[name]
