"""The float32 arithmetic of bnn_real.h, bit for bit against np.float32, contraction and all."""

from __future__ import annotations

import platform
import re
import subprocess

import numpy as np
import pytest

from tests.runtime_c.driver import RUNTIME, Array, Library

X86 = platform.machine() in ("x86_64", "AMD64")
COUNT = 100_000


def _specials() -> Array:
    limits = np.finfo(np.float32)
    tiny = limits.smallest_subnormal
    near_one = np.nextafter(np.float32([1, 1]), np.float32([0, 2]))
    positive = [0, tiny, 2 * tiny, limits.tiny, 0.5, 1, *near_one, 2, 3, 1e10, limits.max, np.inf]
    return np.array([*positive, *(-np.array(positive))], np.float32)


def _floats(seed: int, count: int = COUNT) -> Array:
    """Return finite and infinite values of every exponent, zeros of both signs among them."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**32, count, np.uint32).view(np.float32)
    values = np.where(np.isnan(values), random.standard_normal(count).astype(np.float32), values)
    chosen = random.choice(_specials(), count)
    return np.where(random.random(count) < 0.3, chosen, values).astype(np.float32)


def _moderate(seed: int, count: int = COUNT) -> Array:
    random = np.random.default_rng(seed)
    return (random.standard_normal(count) * 10.0 ** random.integers(-3, 4, count)).astype("float32")


def assert_same_bits(actual: Array, expected: Array, *operands: Array) -> None:
    assert actual.dtype == expected.dtype == np.float32
    differs = actual.view(np.uint32) != expected.view(np.uint32)
    differs &= ~(np.isnan(actual) & np.isnan(expected))  # which NaN is the processor's choice
    if differs.any():
        i = int(np.flatnonzero(differs)[0])
        case = [operand[i] for operand in operands]
        pytest.fail(f"{case}: {actual[i]!r}, not {expected[i]!r} ({differs.sum()} cases)")


@pytest.fixture
def inexact() -> tuple[Array, Array, Array]:
    """(a, b, c) with c = -fl(ab): a fused multiply-add leaves the product's rounding error."""
    a, b = _moderate(1), _moderate(2)
    return a, b, -(a * b)


# --- The contraction trap -------------------------------------------------------------------------


def test_the_inputs_tell_fused_from_rounded(library: Library, inexact) -> None:
    # Without this, the tests below would pass on inputs for which it makes no difference.
    a, b, c = inexact
    fused = library.each("fused", "float32", a, b, c)
    assert (fused != 0).mean() > 0.9
    assert (a * b + c == 0).all()


@pytest.mark.parametrize("name", ["mul_add", "add_mul", "mul_then_add"])
def test_a_product_is_rounded_before_it_is_added(library: Library, inexact, name: str) -> None:
    a, b, c = inexact
    assert_same_bits(library.each(name, "float32", a, b, c), a * b + c, a, b, c)
    others = _moderate(3)
    assert_same_bits(library.each(name, "float32", a, b, others), a * b + others, a, b, others)


def test_a_product_is_rounded_before_it_is_subtracted(library: Library, inexact) -> None:
    a, b, c = inexact
    assert_same_bits(library.each("mul_sub", "float32", a, b, -c), a * b - -c, a, b, c)
    assert_same_bits(library.each("sub_mul", "float32", a, b, -c), -c - a * b, a, b, c)


def test_dequantize_rounds_three_times(library: Library) -> None:
    random = np.random.default_rng(4)
    n = random.integers(-(2**24), 2**24, COUNT).astype(np.int32)
    scale = random.standard_normal(COUNT)
    cancelling = -(n * scale)
    fused = library.each("fused_dequantize", "float32", n, scale, cancelling)
    assert (fused != 0).mean() > 0.9
    for shift in (cancelling, random.standard_normal(COUNT) * 1e3, np.zeros(COUNT)):
        actual = library.each("dequantize", "float32", n, scale, shift)
        assert_same_bits(actual, (n * scale + shift).astype(np.float32), n, scale, shift)


def test_dequantize_two_rounds_six_times(library: Library) -> None:
    random = np.random.default_rng(5)
    n = random.integers(-(2**20), 2**20, COUNT).astype(np.int32)
    total = random.integers(-(2**20), 2**20, COUNT).astype(np.int32)
    scale = (7.3 - total * 0.1) / np.where(n == 0, 1, n)  # so that little is left of the sum
    expected = (n * scale + total * 0.1 + -7.3).astype(np.float32)
    fused = library.each("fused_dequantize_two", "float32", n, total, scale)
    assert (fused != expected).mean() > 0.5
    actual = library.each("dequantize_two", "float32", n, total, scale)
    assert_same_bits(actual, expected, n, total, scale)


_OURS = """
#include "kernels/real_sum_scalar.h"
void neighbours(size_t count, const float *v, float *y);
void neighbours_in_double(size_t count, const int32_t *n, const double *scale, float *y);
void sums(size_t count, const float *x, const float *w, float *y);
float ours(float a, float b, float c);
float real(int32_t n, double scale, double shift);
void ours_each(size_t count, const float *a, const float *b, const float *c, float *y);
void real_each(size_t count, const int32_t *n, const double *b, const double *c, float *y);
float ours(float a, float b, float c) {
  const float t0 = bnn_mul(a, b);
  return t0 + c;
}
float real(int32_t n, double scale, double shift) {
  return bnn_dequantize(n, scale, shift);
}
void ours_each(size_t count, const float *a, const float *b, const float *c, float *y) {
  for (size_t i = 0; i < count; ++i) {
    y[i] = ours(a[i], b[i], c[i]);
  }
}
void real_each(size_t count, const int32_t *n, const double *b, const double *c, float *y) {
  for (size_t i = 0; i < count; ++i) {
    y[i] = real(n[i], b[i], c[i]);
  }
}
/* Channels whose constants alternate in sign: gcc 12 fuses these for all that the pragma says. */
void neighbours(size_t count, const float *v, float *y) {
  for (size_t i = 0; i < count; ++i) {
    y[4 * i] = bnn_mul(v[4 * i], 0.1f) + 1.1f;
    y[4 * i + 1] = bnn_mul(v[4 * i + 1], 0.2f) - 1.2f;
    y[4 * i + 2] = bnn_mul(v[4 * i + 2], 0.3f) + 1.3f;
    y[4 * i + 3] = bnn_mul(v[4 * i + 3], 0.4f) - 1.4f;
  }
}
void neighbours_in_double(size_t count, const int32_t *n, const double *scale, float *y) {
  for (size_t i = 0; i < count; ++i) {
    y[2 * i] = bnn_dequantize(n[2 * i], scale[0], 1.1);
    y[2 * i + 1] = bnn_dequantize(n[2 * i + 1], scale[1], -1.2);
  }
}
void sums(size_t count, const float *x, const float *w, float *y) {
  bnn_real_sum_1x8__scalar(count, x, w, y);
  bnn_real_sum_1x16__scalar(count, x, w, y);
  bnn_real_sum_1x32__scalar(count, x, w, y);
}
"""
_PLAIN = "float plain(float a, float b, float c) { return a * b + c; }\n"
_FUSED = re.compile(r"^\s*(v?fn?m(?:add|sub|la|ls)\w*|vfn?m[as])[\s.]", re.MULTILINE)


def _fused(compiler: str, source: str, *flags: str) -> list[str]:
    command = [compiler, "-O3", f"-I{RUNTIME}", *flags, "-S", "-x", "c", "-", "-o", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return [match[1] for match in _FUSED.finditer(done.stdout)]


_HOST = [
    *(("gcc", f"{dialect} -mfma") for dialect in ("-std=c99", "-std=gnu99")),
    ("gcc", "-std=gnu99 -march=skylake-avx512"),
    ("gcc", "-std=c99 -mfma -ffp-contract=fast"),
    # Fused multiply-adds come with these two as well, without __FMA__.
    *((compiler, flags) for compiler in ("gcc", "clang") for flags in ("-mavx512f", "-mfma4")),
    *(("clang", flags) for flags in ("-mfma", "-mfma -ffp-contract=fast")),
]
_CROSS = [
    *(("aarch64-linux-gnu-gcc", dialect) for dialect in ("-std=c99", "-std=gnu99")),
    ("arm-none-eabi-gcc", "-mthumb -mfloat-abi=hard -mcpu=cortex-m4 -mfpu=fpv4-sp-d16"),
    ("arm-none-eabi-gcc", "-mthumb -mfloat-abi=hard -mcpu=cortex-m7 -mfpu=fpv5-d16"),
]


@pytest.mark.parametrize(("compiler", "flags"), [*(_HOST if X86 else ()), *_CROSS])
def test_no_fused_instruction_where_the_processor_has_them(tool, compiler: str, flags: str) -> None:
    assert _fused(tool(compiler), _OURS, *flags.split()) == []


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        *((("gcc", "-mfma"), ("clang", "-mfma -ffp-contract=fast")) if X86 else ()),
        ("aarch64-linux-gnu-gcc", ""),
        ("arm-none-eabi-gcc", "-mthumb -mfloat-abi=hard -mcpu=cortex-m4 -mfpu=fpv4-sp-d16"),
    ],
)
def test_the_compilers_fuse_what_is_not_guarded(tool, compiler: str, flags: str) -> None:
    # Without this, the test above would pass with a pattern that matches nothing.
    assert _fused(tool(compiler), _PLAIN, *flags.split())


# --- Values ---------------------------------------------------------------------------------------


def test_mul(library: Library) -> None:
    a, b = _floats(10), _floats(11)
    with np.errstate(all="ignore"):
        expected = a * b
    assert_same_bits(library.each("mul", "float32", a, b), expected, a, b)


def test_relu(library: Library) -> None:
    x = _floats(12)
    expected = np.array([0.0 if v < 0 else v for v in x.tolist()], np.float32)  # relu(-0) is -0
    assert_same_bits(library.each("relu", "float32", x), expected, x)


def test_abs(library: Library) -> None:
    x = _floats(13)
    expected = (x.view(np.uint32) & np.uint32(0x7FFFFFFF)).view(np.float32)  # abs(-0) is +0
    assert_same_bits(library.each("abs", "float32", x), expected, x)


def test_sign(library: Library) -> None:
    x = _floats(14)
    expected = np.array([(v > 0) - (v < 0) for v in x.tolist()], np.float32)  # sign(-0) is +0
    assert_same_bits(library.each("sign", "float32", x), expected, x)


def test_clip(library: Library) -> None:
    x = _floats(15)
    bounds = np.stack([_floats(16), _floats(17)])
    low, high = bounds.min(axis=0), bounds.max(axis=0)
    low[:1000] = -0.0
    high[:500] = 0.0
    raised = [max(v, b) for v, b in zip(x.tolist(), low.tolist(), strict=True)]
    kept = [min(v, b) for v, b in zip(raised, high.tolist(), strict=True)]
    actual = library.each("clip", "float32", x, low, high)
    assert_same_bits(actual, np.array(kept, np.float32), x, low, high)


@pytest.mark.parametrize("name", ["relu", "abs"])
def test_nan_stays_nan(library: Library, name: str) -> None:
    x = np.full(COUNT, np.nan, np.float32)
    assert np.isnan(library.each(name, "float32", x)).all()


def test_nan_stays_nan_within_bounds(library: Library) -> None:
    x = np.full(COUNT, np.nan, np.float32)
    low, high = np.zeros_like(x), np.ones_like(x)
    assert np.isnan(library.each("clip", "float32", x, low, high)).all()


@pytest.mark.skipif(not X86, reason="of x86 instructions")
@pytest.mark.parametrize("level", ["-O2", "-O3"])
def test_loops_of_products_are_vectorised(tool, level: str) -> None:
    """What keeps products apart must leave the loop: one that stays inside makes it scalar."""
    code = """
    #include "bnn_real.h"
    void f(const float *x, float a, float b, float *BNN_RESTRICT y) {
      for (size_t i = 0; i < 256u; ++i) { y[i] = bnn_mul(x[i], a) + b; }
    }
    """
    flags = (level, "-mavx2", "-S", "-o", "-", f"-I{RUNTIME}", "-x", "c", "-")
    command = [tool("gcc"), *flags]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=True)
    assert re.search(r"\bvmulps\b", done.stdout)
