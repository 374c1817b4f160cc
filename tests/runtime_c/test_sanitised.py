"""Every kernel and function on buffers of exactly the size it names, under ASan and UBSan.

Python's canaries see what is written outside; this sees what is read outside, too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bnncc.targets import load_kernels
from tests.runtime_c.driver import WARNINGS, compiled, kernel_includes

SANITISE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# x, weights and results of each operation in bytes, for `count` elements or words of x.
SIZES = """
#define SIZES_xnor(count, nr, word_bits)                                                          \\
  count * (word_bits) / 8u, count * (nr) * (word_bits) / 8u, (nr) * 4u
#define SIZES_sign_sum(count, nr, word_bits) count * 4u, count * (word_bits) / 8u, (nr) * 4u
#define SIZES_real_sum(count, nr, word_bits) count * 4u, count * (nr) * 4u, (nr) * 4u
"""

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bnn_pack.h"
#include "bnn_round.h"
#include "bnn_softmax.h"
#include "bnn_tails.h"
%(includes)s
%(sizes)s
typedef void adapter(size_t count, const void *x, const void *w, void *out);

/* Both ends of each buffer are its ends: malloc gives no byte more. Misaligned by one element from
 * any vector's alignment where `shift` is the element's size. */
static void check(adapter *call, size_t count, size_t x_bytes, size_t w_bytes, size_t out_bytes) {
  unsigned char *x = malloc(x_bytes), *w = malloc(w_bytes), *out = malloc(out_bytes);
  memset(x, 0x3f, x_bytes);
  memset(w, 0x3e, w_bytes);
  memset(out, 0, out_bytes);
  call(count, x, w, out);
  free(x);
  free(w);
  free(out);
}

/* What no conversion, shift or index may trip over: floats of every size, infinities and NaNs. */
static void check_functions(size_t count) {
  float *x = malloc(count * 4u), *y = malloc(count * 4u);
  int64_t *indices = malloc(count * 8u);
  for (size_t i = 0; i < count; ++i) {
    x[i] = bnn_float_of((uint32_t)(i * 0x9e3779b9u + count * 0x00300001u));
    y[i] = bnn_exp(x[i]) + bnn_tanh(x[i]) + bnn_sigmoid(x[i]) + bnn_round(x[i]) + bnn_ceil(x[i]);
    y[i] = y[i] + bnn_log(x[i] < 1.0f ? 1.0f : x[i]);
  }
  bnn_softmax(count, x, y);
  bnn_log_softmax(count, x, y);
  bnn_topk(count, count, x, y, indices);
  bnn_topk(count, (count + 1u) / 2u, x, y, indices);
  indices[0] = bnn_argmax(count, x);
  free(x);
  free(y);
  free(indices);
}

#define CALL_RUN(symbol)                                                                          \\
  static void call_##symbol(size_t count, const void *x, const void *w, void *out) {              \\
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

#define CHECK_RUN(operation, symbol, count, nr, word_bits)                                        \\
  check(call_##symbol, count, SIZES_##operation(count, nr, word_bits));                           \\
  kernels += count == 1u;
#define CHECK_xnor(...) CHECK_RUN(xnor, __VA_ARGS__)
#define CHECK_sign_sum(...) CHECK_RUN(sign_sum, __VA_ARGS__)
#define CHECK_real_sum(...) CHECK_RUN(real_sum, __VA_ARGS__)
#define CHECK_xnor_tile(...)
#define CHECK_real_sum_tile(...)

int main(void) {
  int kernels = 0;
  for (size_t count = 1; count <= 70u; ++count) {
#define BNN_KERNEL(operation, isa, symbol, header, mr, nr, word_bits)                             \\
    CHECK_##operation(symbol, count, nr##u, word_bits##u)
#include "kernels.inc"
#undef BNN_KERNEL
    check_functions(count);
    for (size_t word_bits = 32; word_bits <= 64u; word_bits += 32) {
      const size_t words = (count + word_bits - 1u) / word_bits;
      uint8_t *x = malloc(count);
      unsigned char *planes = malloc(words * word_bits);
      memset(x, 0xc5, count);
      if (word_bits == 32u) {
        bnn_pack_planes_w32(count, words, x, (uint32_t *)(void *)planes);
      } else {
        bnn_pack_planes_w64(count, words, x, (uint64_t *)(void *)planes);
      }
      free(x);
      free(planes);
    }
  }
  printf("%%d", kernels);
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(cc: str, tmp_path_factory) -> Path:
    source = PROGRAM % {"includes": kernel_includes(), "sizes": SIZES}
    path = tmp_path_factory.mktemp("sanitised") / "kernels"
    return compiled(cc, source, path, "-O1", "-g", "-std=c99", *WARNINGS, *SANITISE)


def test_kernels_stay_inside_their_buffers(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(not kernel.is_tile for kernel in load_kernels())


def test_the_sanitiser_sees_one_element_too_many(cc: str, tmp_path: Path) -> None:
    # Without this, a build that lost its sanitisers would pass.
    sizes = SIZES.replace("count * 4u,", "count * 4u - 4u,")
    source = PROGRAM % {"includes": kernel_includes(), "sizes": sizes}
    path = compiled(cc, source, tmp_path / "short", "-O1", "-g", "-std=c99", *SANITISE)
    done = subprocess.run([path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
