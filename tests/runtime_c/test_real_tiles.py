"""Every tile of real sums, bit for bit: windows of all forms, any number of pixels, one order."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnncc.targets import Kernel, load_kernels
from tests.runtime_c.driver import WARNINGS, Array, Guarded, compiled, kernel_includes
from tests.runtime_c.test_sanitised import SANITISE
from tests.runtime_c.test_tiles import WINDOWS, Taps, flags_for, stored_weights

TILES = tuple(kernel for kernel in load_kernels() if kernel.operation == "real_sum_tile")
EACH_TILE = pytest.mark.parametrize("kernel", TILES, ids=str)

_SOURCE = """
#include <stddef.h>
%(includes)s
void call(size_t pixels, size_t step, const size_t *t, const void *x, const float *w, float *sums);
void call(size_t pixels, size_t step, const size_t *t, const void *x, const float *w, float *sums) {
  const bnn_taps taps = {t[0], t[1], t[2], t[3], t[4], t[5]};
  %(kernel)s(pixels, step, &taps, x, w, sums);
}
"""

# Buffers of exactly the size that a call names; malloc gives no byte more.
_EXACT = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
  int calls = 0;
  for (size_t pixels = 1; pixels <= %(mr)su; ++pixels) {
    for (size_t bytes = 4; bytes <= 68; bytes += 4, ++calls) {
      const size_t taps[6] = {2, 2, bytes, 2 * bytes + 4, bytes + 4, 2 * bytes};
      const size_t size = taps[3] + taps[4] + bytes + (pixels - 1) * 8;
      char *x = calloc(size, 1);
      float *w = calloc(bytes * %(nr)su, sizeof *w), *sums = calloc(pixels * %(nr)su, sizeof *sums);
      call(pixels, 8, taps, x, w, sums);
      free(x);
      free(w);
      free(sums);
    }
  }
  printf("%%d", calls);
  return 0;
}
"""

# What a compiler may do unless it is told otherwise, and what it may be told to do.
OPTIONS = ("-O0", "-O2", "-O3 -std=gnu99 -ffp-contract=fast")


def _source(kernel: Kernel) -> str:
    return _SOURCE % {"includes": kernel_includes(kernel.isa), "kernel": kernel}


@pytest.fixture(scope="module", params=[(k, o) for k in TILES for o in OPTIONS], ids=str)
def tile(cc: str, tmp_path_factory: pytest.TempPathFactory, request) -> tuple[Kernel, ctypes.CDLL]:
    """Return a tile, and a library that exports it as `call`."""
    kernel, options = request.param
    flags = (*options.split(), "-shared", "-fPIC", *WARNINGS, *flags_for(cc, kernel.isa))
    if "-std" not in options:
        flags = ("-std=c99", *flags)
    path = compiled(cc, _source(kernel), tmp_path_factory.mktemp("tiles") / "tile", *flags)
    return kernel, ctypes.CDLL(str(path))


def _drawn(taps: Taps, pixels: int, nr: int, wild: bool) -> tuple[Array, Array]:
    """Return the floats of x, and weights [nr, floats of all rows]; some are 0 of either sign."""
    random = np.random.default_rng(taps.bytes + pixels)
    reach = 1 + max((taps.offsets(pixels - 1) or [0])[-1], 0)
    shapes = (-(-reach // 4), (nr, max(taps.rows * taps.w_row // 4, 1)))
    x, w = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    if wild:
        x *= np.float32(10) ** random.integers(-20, 20, x.shape)
        x[::7], w[:, ::5] = -0.0, np.where(w[:, ::5] > 0, 0, -0.0)
        x[3::50], w[2, 1::30] = np.inf, np.nan
    return x, w


def _summed(taps: Taps, start: Array, x: Array, w: Array) -> Array:
    """Return the sums float32 [pixels, nr], one rounding after the other."""
    columns = [place // 4 for place in taps.weights()[::4]]
    total = start
    for n, column in enumerate(columns):
        seen = x[[taps.offsets(m)[4 * n] // 4 for m in range(len(start))]]
        product = seen[:, np.newaxis] * w[np.newaxis, :, column]
        total = total + product
    return total


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("wild", [False, True], ids=["near 1", "wild"])
def test_sums_go_on_from_what_is_there(tile: tuple[Kernel, ctypes.CDLL], wild: bool) -> None:
    kernel, library = tile
    for name, taps in WINDOWS.items():
        for pixels in range(1, kernel.mr + 1):
            x, w = _drawn(taps, pixels, kernel.nr, wild)
            start = np.random.default_rng(pixels).standard_normal((pixels, kernel.nr))
            start = start.astype(np.float32)
            out, given = Guarded.of(start), Guarded.of(x)
            stored = Guarded.of(stored_weights(kernel, w.view(np.uint8)))
            sizes = ctypes.c_size_t(pixels), ctypes.c_size_t(taps.step)
            library.call(*sizes, taps.as_c(), given.pointer, stored.pointer, out.pointer)
            found, expected = out.checked().reshape(start.shape), _summed(taps, start, x, w)
            same = (found.view(np.uint32) == expected.view(np.uint32)) | np.isnan(expected)
            assert (same & (np.isnan(found) == np.isnan(expected))).all(), f"{name}, {pixels}"


def test_products_round_before_they_are_added(tile: tuple[Kernel, ctypes.CDLL]) -> None:
    kernel, library = tile
    random = np.random.default_rng(5)
    x = random.standard_normal(1).astype(np.float32)
    w = random.standard_normal(kernel.nr).astype(np.float32)
    start = -(x * w)[np.newaxis]
    out, given, stored = Guarded.of(start), Guarded.of(x), Guarded.of(w)
    taps = Taps(1, 1, 4, 0, 0, 4, 0)
    sizes = ctypes.c_size_t(1), ctypes.c_size_t(0)
    library.call(*sizes, taps.as_c(), given.pointer, stored.pointer, out.pointer)
    # Their rounding errors, if they were not.
    assert not out.checked().any()


@EACH_TILE
def test_tiles_stay_inside_their_buffers(cc: str, tmp_path: Path, kernel: Kernel) -> None:
    source = _source(kernel) + _EXACT % {"mr": kernel.mr, "nr": kernel.nr}
    flags = ("-O1", "-g", "-std=c99", *WARNINGS, *SANITISE, *flags_for(cc, kernel.isa))
    program = compiled(cc, source, tmp_path / "tiles", *flags)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 17 * kernel.mr
