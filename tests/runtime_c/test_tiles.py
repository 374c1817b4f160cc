"""Every tile of counts, bit for bit: windows of all forms, any number of pixels, deep sums."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bnncc.errors import ToolchainError
from bnncc.targets import TARGETS, Kernel, Target, load_kernels
from bnncc.verification.build import host_flags
from tests.runtime_c.driver import WARNINGS, Array, Guarded, compiled, kernel_includes
from tests.runtime_c.test_sanitised import SANITISE

TILES = tuple(kernel for kernel in load_kernels() if kernel.operation == "xnor_tile")
EACH_TILE = pytest.mark.parametrize("kernel", TILES, ids=str)
Pair = tuple[Array, Array]
PATTERNS = ("random", "ones", "zeros", "opposite")

_SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
%(includes)s

#define TILE(symbol, bits_symbol, W)                                                              \\
  void call_##symbol(size_t pixels, size_t step, const size_t *t, const void *x, const void *w,   \\
                     uint32_t *out);                                                              \\
  void call_##symbol(size_t pixels, size_t step, const size_t *t, const void *x, const void *w,   \\
                     uint32_t *out) {                                                             \\
    const bnn_taps taps = {t[0], t[1], t[2], t[3], t[4], t[5]};                                   \\
    symbol(pixels, step, &taps, x, (const W *)w, out);                                            \\
  }                                                                                               \\
  void call_##bits_symbol(size_t pixels, size_t step, const size_t *t, const void *x,             \\
                          const void *w, const int16_t *limits, uint64_t *bits);                  \\
  void call_##bits_symbol(size_t pixels, size_t step, const size_t *t, const void *x,             \\
                          const void *w, const int16_t *limits, uint64_t *bits) {                 \\
    const bnn_taps taps = {t[0], t[1], t[2], t[3], t[4], t[5]};                                   \\
    bits_symbol(pixels, step, &taps, x, (const W *)w, limits, bits);                              \\
  }
%(tiles)s
"""

# Buffers of exactly the size that a call names; malloc gives no byte more.
_EXACT = """
#define CHECK(symbol, bits_symbol, W, mr, nr)                                                     \\
  for (size_t pixels = 1; pixels <= mr; ++pixels) {                                               \\
    for (size_t bytes = 4; bytes <= 68; bytes += 4) {                                             \\
      const size_t taps[6] = {2, 2, bytes, 2 * bytes + 4, bytes + 4, 2 * bytes};                  \\
      const size_t size = taps[3] + taps[4] + bytes + (pixels - 1) * 8;                           \\
      unsigned char *x = malloc(size), *w = malloc(4 * bytes * nr);                               \\
      uint32_t *sums = malloc(pixels * nr * sizeof *sums);                                        \\
      int16_t *limits = malloc(nr * sizeof *limits);                                              \\
      uint64_t *bits = malloc(pixels * sizeof *bits);                                             \\
      memset(x, 0x3f, size);                                                                      \\
      memset(w, 0x3e, 4 * bytes * nr);                                                            \\
      memset(sums, 0, pixels * nr * sizeof *sums);                                                \\
      memset(limits, 0, nr * sizeof *limits);                                                     \\
      call_##symbol(pixels, 8, taps, x, w, sums);                                                 \\
      call_##bits_symbol(pixels, 8, taps, x, w, limits, bits);                                    \\
      calls += 1;                                                                                 \\
      free(x);                                                                                    \\
      free(w);                                                                                    \\
      free(sums);                                                                                 \\
      free(limits);                                                                               \\
      free(bits);                                                                                 \\
    }                                                                                             \\
  }

int main(void) {
  int calls = 0;
  %(checks)s
  printf("%%d", calls);
  return 0;
}
"""


def _target(isa: str) -> Target:
    return next(target for target in TARGETS if target.isas[0] == isa)


def _source(isa: str) -> str:
    rows = [kernel for kernel in TILES if kernel.isa == isa]
    tiles = "\n".join(f"TILE({k}, {k.bits_symbol}, uint{k.word_bits}_t)" for k in rows)
    return _SOURCE % {"includes": kernel_includes(isa), "tiles": tiles}


def flags_for(cc: str, isa: str) -> tuple[str, ...]:
    try:
        return host_flags((cc,), _target(isa))
    except ToolchainError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def libraries(cc: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """Return the tiles of each instruction set as a library."""
    folder = tmp_path_factory.mktemp("tiles")
    found = {}
    for isa in dict.fromkeys(kernel.isa for kernel in TILES):
        flags = ("-O2", "-std=c99", "-shared", "-fPIC", *WARNINGS, *flags_for(cc, isa))
        found[isa] = ctypes.CDLL(str(compiled(cc, _source(isa), folder / isa, *flags)))
    return found


@dataclass(frozen=True)
class Taps:
    """What `bnn_taps` says, and the pixels' distance."""

    rows: int
    runs: int
    bytes: int
    x_row: int
    x_run: int
    w_row: int
    step: int

    def offsets(self, pixel: int) -> list[int]:
        """Return where each byte under a pixel's window is in x."""
        starts = itertools.product(range(self.rows), range(self.runs))
        places = [row * self.x_row + run * self.x_run for row, run in starts]
        return [pixel * self.step + p + k for p in places for k in range(self.bytes)]

    def weights(self) -> list[int]:
        """Return where each byte of a channel's weights is."""
        length = self.runs * self.bytes
        return [row * self.w_row + k for row in range(self.rows) for k in range(length)]

    def as_c(self) -> ctypes.Array[ctypes.c_size_t]:
        fields = (self.rows, self.runs, self.bytes, self.x_row, self.x_run, self.w_row)
        return (ctypes.c_size_t * 6)(*fields)


WINDOWS = {
    "one word": Taps(1, 1, 4, 0, 0, 4, 8),
    "dense": Taps(1, 1, 104, 0, 0, 104, 0),
    "3x3 of 64 channels": Taps(3, 1, 24, 80, 0, 24, 8),
    "3x3 of 320 channels": Taps(3, 1, 120, 400, 0, 120, 40),
    "cut on the left": Taps(2, 1, 16, 80, 0, 24, 8),
    "dilated": Taps(3, 2, 8, 160, 24, 16, 8),
    "cut and dilated": Taps(2, 2, 12, 160, 32, 36, 4),
    "down a column": Taps(3, 1, 24, 80, 0, 24, 80),
    "every other pixel": Taps(3, 1, 24, 80, 0, 24, 16),
    "nothing": Taps(0, 1, 8, 8, 0, 8, 8),
    "no column": Taps(3, 0, 8, 8, 0, 8, 8),
    **{f"{n} bytes": Taps(1, 1, n, 0, 0, n, 4) for n in (28, 32, 36, 60, 64, 124, 128)},
}


def _drawn(taps: Taps, pixels: int, nr: int, pattern: str) -> tuple[Array, Array]:
    """Return x and the weights [nr, bytes of all rows], bits as the pattern says."""
    random = np.random.default_rng(taps.bytes)
    reach = 1 + max((taps.offsets(pixels - 1) or [0])[-1], 0)
    shapes = (reach, (nr, max(taps.rows * taps.w_row, 1)))
    x, w = (random.integers(0, 256, shape).astype(np.uint8) for shape in shapes)
    match pattern:
        case "ones":
            return np.full_like(x, 255), np.full_like(w, 255)
        case "zeros":
            return np.zeros_like(x), np.zeros_like(w)
        case "opposite":
            return np.full_like(x, 255), np.zeros_like(w)
        case _:
            return x, w


def stored_weights(kernel: Kernel, w: Array) -> Array:
    """Return weights [nr, bytes] as the kernel reads them: words, channels innermost."""
    width = kernel.word_bits // 8
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % width)))
    return np.ascontiguousarray(padded.reshape(kernel.nr, -1, width).transpose(1, 0, 2))


def _counted(taps: Taps, pixels: int, x: Array, w: Array) -> Array:
    """Return the mismatches int64 [pixels, nr], by Python's own integers."""
    columns = w[:, taps.weights()]
    rows = [int.from_bytes(row.tobytes(), "little") for row in columns]
    seen = [int.from_bytes(x[taps.offsets(m)].tobytes(), "little") for m in range(pixels)]
    return np.array([[(a ^ b).bit_count() for b in rows] for a in seen], np.int64)


def _problems(kernel: Kernel) -> Iterator[tuple[str, Taps, int, Array, Array]]:
    for (name, taps), pattern in itertools.product(WINDOWS.items(), PATTERNS):
        pixels = range(1, kernel.mr + 1) if pattern == "random" else (kernel.mr,)
        for count in pixels:
            x, w = _drawn(taps, count, kernel.nr, pattern)
            yield f"{name}, {count} pixels, {pattern}", taps, count, x, w


def _sums(library: ctypes.CDLL, kernel: Kernel, taps: Taps, start: Array, xw: Pair) -> Array:
    """Return what the kernel leaves, counting on from `start` [pixels, nr]."""
    x, w = xw
    out = Guarded.of(start.astype(np.uint32))
    given, stored = Guarded.of(x), Guarded.of(stored_weights(kernel, w))
    call = getattr(library, f"call_{kernel}")
    sizes = ctypes.c_size_t(len(start)), ctypes.c_size_t(taps.step)
    call(*sizes, taps.as_c(), given.pointer, stored.pointer, out.pointer)
    return out.checked().reshape(start.shape)


@EACH_TILE
def test_sums_count_on_from_what_is_there(libraries, kernel: Kernel) -> None:
    for what, taps, pixels, x, w in _problems(kernel):
        start = np.random.default_rng(pixels).integers(0, 2**24, (pixels, kernel.nr))
        found = _sums(libraries[kernel.isa], kernel, taps, start, (x, w))
        assert np.array_equal(found, start + _counted(taps, pixels, x, w)), what


@EACH_TILE
def test_bits_compare_with_limits(libraries, kernel: Kernel) -> None:
    random = np.random.default_rng(0)
    for what, taps, pixels, x, w in _problems(kernel):
        counted = _counted(taps, pixels, x, w)
        # At what is counted, and next to it; and the ends of what limits can be.
        limits = counted[0] + random.integers(-1, 2, kernel.nr)
        limits[::7], limits[3::7] = -1, 32767
        bits = Guarded.empty(pixels, "uint64")
        given, stored = Guarded.of(x), Guarded.of(stored_weights(kernel, w))
        held = Guarded.of(limits.astype(np.int16))
        call = getattr(libraries[kernel.isa], f"call_{kernel.bits_symbol}")
        sizes = ctypes.c_size_t(pixels), ctypes.c_size_t(taps.step)
        call(*sizes, taps.as_c(), given.pointer, stored.pointer, held.pointer, bits.pointer)
        weights = 1 << np.arange(kernel.nr, dtype=np.uint64)
        expected = ((counted <= limits) * weights).sum(axis=1, dtype=np.uint64)
        assert np.array_equal(bits.checked(), expected), what


@EACH_TILE
@pytest.mark.parametrize("pattern", PATTERNS)
def test_deep_sums_do_not_overflow_a_counter(libraries, kernel: Kernel, pattern: str) -> None:
    # Around 2^15 and 2^16 bits, where counters of 16 bits are full, and far beyond.
    for rows, runs, size in [
        *((1, 1, n) for n in (4092, 4096, 8184, 8188, 8192, 8196, 16380, 20000)),
        *((3, 1, 2728), (3, 1, 2732), (2, 2, 8192), (5, 3, 700)),
    ]:
        taps = Taps(rows, runs, size, runs * size + 8, size + 4, runs * size, 12)
        x, w = _drawn(taps, 2, kernel.nr, pattern)
        start = np.zeros((2, kernel.nr), np.int64)
        found = _sums(libraries[kernel.isa], kernel, taps, start, (x, w))
        assert np.array_equal(found, _counted(taps, 2, x, w)), taps


@EACH_TILE
def test_the_longest_compared_reduction(libraries, kernel: Kernel) -> None:
    taps = Taps(1, 1, 4096, 0, 0, 4096, 0)
    x, w = np.full(4096, 255, np.uint8), np.zeros((kernel.nr, 4096), np.uint8)
    x[-1] = 127  # 2^15 - 1 mismatches
    limits = np.where(np.arange(kernel.nr) % 2, 32767, 32766).astype(np.int16)
    bits = Guarded.empty(1, "uint64")
    given, stored, held = map(Guarded.of, (x, stored_weights(kernel, w), limits))
    call = getattr(libraries[kernel.isa], f"call_{kernel.bits_symbol}")
    sizes = ctypes.c_size_t(1), ctypes.c_size_t(0)
    call(*sizes, taps.as_c(), given.pointer, stored.pointer, held.pointer, bits.pointer)
    assert bits.checked()[0] == 0xAAAAAAAAAAAAAAAA >> (64 - kernel.nr)


@pytest.mark.parametrize("isa", dict.fromkeys(kernel.isa for kernel in TILES))
def test_tiles_stay_inside_their_buffers(cc: str, tmp_path: Path, isa: str) -> None:
    rows = [kernel for kernel in TILES if kernel.isa == isa]
    checks = [f"CHECK({k}, {k.bits_symbol}, uint{k.word_bits}_t, {k.mr}u, {k.nr}u)" for k in rows]
    source = _source(isa) + _EXACT % {"checks": "\n  ".join(checks)}
    flags = ("-O1", "-g", "-std=c99", *WARNINGS, *SANITISE, *flags_for(cc, isa))
    program = compiled(cc, source, tmp_path / "tiles", *flags)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(17 * kernel.mr for kernel in rows)
