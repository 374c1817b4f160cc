"""Calls runtime_c from Python: one C file that exports every kernel and function."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnncc import resources
from bnncc.targets import TARGETS, Kernel, load_kernels

RUNTIME = resources.runtime_dir()
WARNINGS = (
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef"),
    *("-Wcast-align", "-Wcomment", "-Werror"),
)

Array = npt.NDArray[np.generic]

_CANARY = 0xA5
_GUARD = 64

_FUNCTIONS = """
#include <stddef.h>
#include <stdint.h>
#include "bnn_bits.h"
#include "bnn_pack.h"
#include "bnn_power.h"
#include "bnn_real.h"
#include "bnn_round.h"
#include "bnn_softmax.h"
#include "bnn_tails.h"
#include "bnn_transcendental.h"
%(kernel_includes)s

#define CALL_RUN(symbol)                                                                          \\
  void call_##symbol(size_t count, const void *x, const void *w, void *out);                      \\
  void call_##symbol(size_t count, const void *x, const void *w, void *out) {                     \\
    symbol(count, x, w, out);                                                                     \\
  }
#define CALL_xnor(symbol) CALL_RUN(symbol)
#define CALL_sign_sum(symbol) CALL_RUN(symbol)
#define CALL_real_sum(symbol) CALL_RUN(symbol)
#define CALL_xnor_tile(symbol) /* see test_tiles.py */
#define CALL_real_sum_tile(symbol) /* see test_real_tiles.py */
#define BNN_KERNEL(operation, isa, symbol, header, mr, nr, word_bits) CALL_##operation(symbol)
#include "kernels.inc"
#undef BNN_KERNEL

struct row {
  const char *operation, *isa, *symbol, *header;
  int mr, nr, word_bits;
};
#define BNN_KERNEL(operation, isa, symbol, header, mr, nr, word_bits)                             \\
  {#operation, #isa, #symbol, #header, mr, nr, word_bits},
const struct row rows[] = {
#include "kernels.inc"
};
#undef BNN_KERNEL
const size_t row_count = sizeof rows / sizeof rows[0];

const int has_popcount = BNN_HAS_POPCOUNT;

#define LOOP(name, A, B, C, Y, expression)                                                        \\
  void all_##name(size_t count, const A *a, const B *b, const C *c, Y *y);                        \\
  void all_##name(size_t count, const A *a, const B *b, const C *c, Y *y) {                       \\
    for (size_t i = 0; i < count; ++i) {                                                          \\
      (void)b;                                                                                    \\
      (void)c;                                                                                    \\
      y[i] = expression;                                                                          \\
    }                                                                                             \\
  }

typedef uint32_t u32;
typedef uint64_t u64;

/* As the templates print them: each term of an epilogue is a statement of its own. */
static float mul_then_add(float a, float b, float c) {
  const float t0 = bnn_mul(a, b);
  const float t1 = t0 + c;
  return t1;
}

LOOP(popcount32, u32, u32, u32, u32, bnn_popcount32(a[i]))
LOOP(popcount64, u64, u64, u64, u32, bnn_popcount64(a[i]))
LOOP(mul, float, float, float, float, bnn_mul(a[i], b[i]))
LOOP(mul_add, float, float, float, float, bnn_mul(a[i], b[i]) + c[i])
LOOP(add_mul, float, float, float, float, c[i] + bnn_mul(a[i], b[i]))
LOOP(mul_sub, float, float, float, float, bnn_mul(a[i], b[i]) - c[i])
LOOP(sub_mul, float, float, float, float, c[i] - bnn_mul(a[i], b[i]))
LOOP(mul_then_add, float, float, float, float, mul_then_add(a[i], b[i], c[i]))
LOOP(fused, float, float, float, float, __builtin_fmaf(a[i], b[i], c[i]))
LOOP(dequantize, int32_t, double, double, float, bnn_dequantize(a[i], b[i], c[i]))
LOOP(dequantize_two, int32_t, int32_t, double, float,
     bnn_dequantize_two(a[i], b[i], c[i], 0.1, -7.3))
LOOP(fused_dequantize_two, int32_t, int32_t, double, float,
     (float)__builtin_fma(a[i], c[i], (double)b[i] * 0.1 - 7.3))
LOOP(fused_dequantize, int32_t, double, double, float, (float)__builtin_fma(a[i], b[i], c[i]))
LOOP(relu, float, float, float, float, bnn_relu(a[i]))
LOOP(abs, float, float, float, float, bnn_abs(a[i]))
LOOP(sign, float, float, float, float, bnn_sign(a[i]))
LOOP(clip, float, float, float, float, bnn_clip(a[i], b[i], c[i]))
LOOP(round, float, float, float, float, bnn_round(a[i]))
LOOP(floor, float, float, float, float, bnn_floor(a[i]))
LOOP(ceil, float, float, float, float, bnn_ceil(a[i]))
LOOP(exp, float, float, float, float, bnn_exp(a[i]))
LOOP(log, float, float, float, float, bnn_log(a[i]))
LOOP(erf, float, float, float, float, bnn_erf(a[i]))
LOOP(max, float, float, float, float, bnn_max(a[i], b[i]))
LOOP(min, float, float, float, float, bnn_min(a[i], b[i]))
LOOP(sqrt, float, float, float, float, bnn_sqrt(a[i]))
LOOP(power, float, int32_t, float, float,
     bnn_power(a[i], (unsigned)(b[i] < 0 ? -b[i] : b[i]) / 2u, b[i] %% 2 != 0, b[i] < 0))
LOOP(tanh, float, float, float, float, bnn_tanh(a[i]))
LOOP(sigmoid, float, float, float, float, bnn_sigmoid(a[i]))

void row_softmax(size_t count, const float *x, float *y);
void row_softmax(size_t count, const float *x, float *y) {
  bnn_softmax(count, x, y);
}
void row_log_softmax(size_t count, const float *x, float *y);
void row_log_softmax(size_t count, const float *x, float *y) {
  bnn_log_softmax(count, x, y);
}

int64_t row_argmax(size_t count, const float *x);
int64_t row_argmax(size_t count, const float *x) {
  return bnn_argmax(count, x);
}
void row_topk(size_t count, size_t k, const float *x, float *values, int64_t *indices);
void row_topk(size_t count, size_t k, const float *x, float *values, int64_t *indices) {
  bnn_topk(count, k, x, values, indices);
}

void pack_planes_32(size_t count, size_t words, const uint8_t *x, uint32_t *planes);
void pack_planes_32(size_t count, size_t words, const uint8_t *x, uint32_t *planes) {
  bnn_pack_planes_w32(count, words, x, planes);
}
void pack_planes_64(size_t count, size_t words, const uint8_t *x, uint64_t *planes);
void pack_planes_64(size_t count, size_t words, const uint8_t *x, uint64_t *planes) {
  bnn_pack_planes_w64(count, words, x, planes);
}
"""


def kernel_includes(isa: str = "scalar") -> str:
    """Return what includes the kernels of an instruction set."""
    headers = dict.fromkeys(kernel.header for kernel in load_kernels() if kernel.isa == isa)
    return "\n".join(f'#include "{header}"' for header in headers)


_ON_SLICES = ("bnn_slices.h", "bnn_planar.h")
"""Headers that come behind one of those under slices/."""


def flags_of(header: str) -> tuple[str, ...]:
    """Return the flags without which a header is refused: its name ends in what it is for."""
    if header in _ON_SLICES:
        return ("-include", "slices/w32.h")
    name = Path(header).stem.rpartition("_")[2]
    fits = (t.cflags for t in TARGETS if name in (t.isas[0], t.slices.header))
    return next(fits, ())


def compiled(cc: str, source: str, output: Path, *flags: str) -> Path:
    """Compile one C text to `output`; the test fails with what the compiler said otherwise."""
    path = output.with_name(f"{output.name}.c")
    path.write_text(source, encoding="utf-8")
    # Libraries after what needs them.
    command = [cc, f"-I{RUNTIME}", *flags, str(path), "-o", str(output), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return output


@dataclass(frozen=True, eq=False)
class Library:
    """runtime_c, built and loaded."""

    compiler: str
    flags: tuple[str, ...]
    handle: ctypes.CDLL

    @property
    def has_popcount(self) -> bool:
        return bool(ctypes.c_int.in_dll(self.handle, "has_popcount").value)

    def rows(self) -> tuple[Kernel, ...]:
        """Return the rows of kernels.inc as C reads them."""
        texts = ("operation", "isa", "symbol", "header")
        numbers = ("mr", "nr", "word_bits")

        class Row(ctypes.Structure):
            _fields_ = [
                *((name, ctypes.c_char_p) for name in texts),
                *((name, ctypes.c_int) for name in numbers),
            ]

        count = ctypes.c_size_t.in_dll(self.handle, "row_count").value
        rows = (Row * count).in_dll(self.handle, "rows")
        return tuple(
            Kernel(
                *(getattr(row, name).decode() for name in texts),
                *(getattr(row, name) for name in numbers),
            )
            for row in rows
        )

    def each(self, name: str, result: npt.DTypeLike, *operands: Array) -> Array:
        """Return all_NAME of arrays of one length, aligned for nothing more than one element."""
        count = len(operands[0])
        buffers = [Guarded.of(operand) for operand in operands]
        y = Guarded.empty(count, result)
        pointers = [buffer.pointer for buffer in buffers] + [None] * (3 - len(buffers))
        getattr(self.handle, f"all_{name}")(ctypes.c_size_t(count), *pointers, y.pointer)
        return y.checked()

    def kernel(self, symbol: str, count: int, x: Array, w: Array, out: Guarded) -> Array:
        """Return what a kernel leaves in `out`, having looked at the bytes around it."""
        call = getattr(self.handle, f"call_{symbol}")
        operands = Guarded.of(x), Guarded.of(w)  # named: they must outlive the call
        call(ctypes.c_size_t(count), *(operand.pointer for operand in operands), out.pointer)
        return out.checked()

    def row(self, name: str, x: Array) -> Array:
        """Return row_NAME of a whole row of floats."""
        given, y = Guarded.of(x), Guarded.empty(len(x), "float32")
        call = getattr(self.handle, f"row_{name}")
        call(ctypes.c_size_t(len(x)), given.pointer, y.pointer)
        return y.checked()

    def argmax(self, x: Array) -> int:
        """Return bnn_argmax of a row of floats."""
        given = Guarded.of(x)
        call = self.handle.row_argmax
        call.restype = ctypes.c_int64
        return int(call(ctypes.c_size_t(len(x)), given.pointer))

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        """Return the values and indices that bnn_topk leaves."""
        given, values, indices = Guarded.of(x), Guarded.empty(k, "f4"), Guarded.empty(k, "i8")
        pointers = (buffer.pointer for buffer in (given, values, indices))
        self.handle.row_topk(ctypes.c_size_t(len(x)), ctypes.c_size_t(k), *pointers)
        return values.checked(), indices.checked()

    def pack_planes(self, word_bits: int, x: Array, words: int) -> Array:
        """Return the planes [8, words] of bytes x."""
        out = Guarded.empty(8 * words, f"uint{word_bits}")
        call = getattr(self.handle, f"pack_planes_{word_bits}")
        codes = Guarded.of(x)
        call(ctypes.c_size_t(len(x)), ctypes.c_size_t(words), codes.pointer, out.pointer)
        return out.checked().reshape(8, words)


def build_library(cc: str, folder: Path, flags: Sequence[str]) -> Library:
    source = _FUNCTIONS % {"kernel_includes": kernel_includes()}
    path = compiled(cc, source, folder / "runtime.so", "-shared", "-fPIC", *flags)
    return Library(Path(cc).name, tuple(flags), ctypes.CDLL(str(path)))


class Guarded:
    """An array between canaries, aligned to its element and to nothing more."""

    def __init__(self, count: int, dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        size = count * kind.itemsize
        self._memory = np.full(2 * _GUARD + size + 64, _CANARY, np.uint8)
        # An odd multiple of the element's size past a multiple of 64.
        self._start = _GUARD + (kind.itemsize - self._memory.ctypes.data - _GUARD) % 64
        self._end = self._start + size
        self.array = self._memory[self._start : self._end].view(kind)
        assert self.array.ctypes.data % 64 == kind.itemsize % 64

    @classmethod
    def of(cls, array: Array) -> Guarded:
        made = cls(array.size, array.dtype)
        made.array[:] = array.reshape(-1)
        return made

    @classmethod
    def empty(cls, count: int, dtype: npt.DTypeLike) -> Guarded:
        return cls(count, dtype)

    @property
    def pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.array.ctypes.data)

    def checked(self) -> Array:
        """Return a copy of the array; the test fails if a byte around it was written."""
        before, after = self._memory[: self._start], self._memory[self._end :]
        assert (before == _CANARY).all(), "written before the output"
        assert (after == _CANARY).all(), "written past the output"
        return self.array.copy()
