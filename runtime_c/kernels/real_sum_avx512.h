/* real_sum_tile on AVX-512: a lane for each output channel, broadcasts of x. */
#ifndef BNN_REAL_SUM_AVX512_H
#define BNN_REAL_SUM_AVX512_H

#if !defined(__AVX512F__)
#  error "bnncc: this file is for AVX-512: -march=x86-64-v4, or -mavx512f"
#endif

#include <immintrin.h>
#include <string.h>

#include "../kernels/real_sum_tile.h"

/* `pixels` is a literal. */
BNN_ALWAYS_INLINE void bnn_real_sums__avx512(const size_t pixels, size_t step, const bnn_taps *taps,
                                             const unsigned char *x, const float *w, float *to) {
  __m512 sums[16];
  BNN_UNROLL
  for (size_t i = 0; i < 2u * pixels; ++i) {
    sums[i] = _mm512_loadu_ps(to + 16u * i);
  }
  for (size_t row = 0; row < taps->rows; ++row) {
    const float *each = w + row * taps->w_row / 4u * 32u;
    for (size_t run = 0; run < taps->runs; ++run) {
      const unsigned char *from = x + row * taps->x_row + run * taps->x_run;
      for (size_t k = 0; k < taps->bytes; k += 4u, each += 32) {
        const __m512 low = _mm512_loadu_ps(each);
        const __m512 high = _mm512_loadu_ps(each + 16);
        BNN_UNROLL
        for (size_t m = 0; m < pixels; ++m) {
          float value;
          __m512 a, b;
          memcpy(&value, from + m * step + k, sizeof value);
          a = _mm512_mul_ps(low, _mm512_set1_ps(value));
          b = _mm512_mul_ps(high, _mm512_set1_ps(value));
          BNN_KEEP_PRODUCT(a);
          BNN_KEEP_PRODUCT(b);
          sums[2u * m] = _mm512_add_ps(sums[2u * m], a);
          sums[2u * m + 1u] = _mm512_add_ps(sums[2u * m + 1u], b);
        }
      }
    }
  }
  BNN_UNROLL
  for (size_t i = 0; i < 2u * pixels; ++i) {
    _mm512_storeu_ps(to + 16u * i, sums[i]);
  }
}

BNN_NEVER_INLINE void bnn_real_sum_8x32__avx512(size_t pixels, size_t step, const bnn_taps *taps,
                                                const void *x, const float *w, float *sums) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_8(bnn_real_sums__avx512, step, taps, bytes, w, sums)
}

#endif
