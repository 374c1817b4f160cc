"""What a core can do at most: the kernels' instructions on registers alone, in Gbin-MAC/s."""

from __future__ import annotations

__all__ = ["ROOFS", "SOURCE"]

ROOFS = {"x86-64-v3": "shuffle", "x86-64-avx512": "vpopcntd"}
"""Target -> the instruction that counts there. SOURCE exports `roof(seconds)` for each."""

# Independent chains enough to hide every latency; the empty asm keeps the compiler from seeing that
# the words do not change.
SOURCE = """
#include <immintrin.h>
#include <stdint.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__AVX512VPOPCNTDQ__)
#define CHAINS 14
#define BITS 512.0
typedef __m512i vector;
static inline vector count(vector sum, vector w, vector x) {
  return _mm512_add_epi32(sum, _mm512_popcnt_epi32(_mm512_xor_si512(w, x)));
}
#else
#define CHAINS 8
#define BITS 256.0
typedef __m256i vector;
static inline vector count(vector sum, vector w, vector x) {
  const vector four = _mm256_set1_epi8(15);
  const vector ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                       0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const vector both = _mm256_xor_si256(w, x);
  const vector high = _mm256_and_si256(_mm256_srli_epi16(both, 4), four);
  const vector low = _mm256_and_si256(both, four);
  const vector counts =
      _mm256_add_epi8(_mm256_shuffle_epi8(ones, low), _mm256_shuffle_epi8(ones, high));
  return _mm256_add_epi8(sum, counts);
}
#endif

double roof(long calls) {
  vector sums[CHAINS], w, x;
  __builtin_memset(sums, 0, sizeof sums);
  __builtin_memset(&w, 0x35, sizeof w);
  __builtin_memset(&x, 0x5a, sizeof x);
  const double start = now();
  for (long call = 0; call < calls; ++call) {
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; ++i) {
      __asm__("" : "+v"(x));
      sums[i] = count(sums[i], w, x);
    }
  }
  const double seconds = now() - start;
  for (int i = 0; i < CHAINS; ++i) {
    __asm__ volatile("" ::"v"(sums[i]));
  }
  return (double)calls * CHAINS * BITS / seconds / 1e9;
}
"""
