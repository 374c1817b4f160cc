/* xnor_tile on AVX-512 with VPOPCNTDQ: a lane of 32 bits for each output channel. */
#ifndef BNN_XNOR_AVX512_H
#define BNN_XNOR_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VPOPCNTDQ__)
#  error "bnncc: this file is for AVX-512 with VPOPCNTDQ: -march=x86-64-v4 -mavx512vpopcntdq"
#endif

#include <immintrin.h>
#include <string.h>

#include "../kernels/xnor_tile.h"

/* counts is [pixels][2] vectors; `pixels` is a literal. */
BNN_ALWAYS_INLINE void bnn_xnor_counts__avx512(const size_t pixels, size_t step,
                                               const bnn_taps *taps, const unsigned char *x,
                                               const uint32_t *w, __m512i *counts) {
  BNN_UNROLL
  for (size_t i = 0; i < 2u * pixels; ++i) {
    counts[i] = _mm512_setzero_si512();
  }
  for (size_t row = 0; row < taps->rows; ++row) {
    const uint32_t *each = w + row * taps->w_row * 8u;
    for (size_t run = 0; run < taps->runs; ++run) {
      const unsigned char *from = x + row * taps->x_row + run * taps->x_run;
      for (size_t k = 0; k < taps->bytes; k += 4u, each += 32) {
        const __m512i low = _mm512_loadu_si512(each);
        const __m512i high = _mm512_loadu_si512(each + 16);
        BNN_UNROLL
        for (size_t m = 0; m < pixels; ++m) {
          int32_t word;
          __m512i a;
          memcpy(&word, from + m * step + k, sizeof word);
          a = _mm512_set1_epi32(word);
          counts[2u * m] =
              _mm512_add_epi32(counts[2u * m], _mm512_popcnt_epi32(_mm512_xor_si512(low, a)));
          counts[2u * m + 1u] =
              _mm512_add_epi32(counts[2u * m + 1u], _mm512_popcnt_epi32(_mm512_xor_si512(high, a)));
        }
      }
    }
  }
}

BNN_ALWAYS_INLINE void bnn_xnor_sums__avx512(const size_t pixels, size_t step, const bnn_taps *taps,
                                             const unsigned char *x, const uint32_t *w,
                                             uint32_t *mismatches) {
  __m512i counts[16];
  bnn_xnor_counts__avx512(pixels, step, taps, x, w, counts);
  BNN_UNROLL
  for (size_t i = 0; i < 2u * pixels; ++i) {
    uint32_t *to = mismatches + 16u * i;
    _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), counts[i]));
  }
}

/* 16 limits. */
BNN_ALWAYS_INLINE __m512i bnn_xnor_limits__avx512(const void *limits) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)limits));
}

BNN_ALWAYS_INLINE void bnn_xnor_compare__avx512(const size_t pixels, size_t step,
                                                const bnn_taps *taps, const unsigned char *x,
                                                const uint32_t *w, const int16_t *limits,
                                                uint64_t *bits) {
  __m512i counts[16];
  const __m512i low = bnn_xnor_limits__avx512(limits);
  const __m512i high = bnn_xnor_limits__avx512(limits + 16);
  bnn_xnor_counts__avx512(pixels, step, taps, x, w, counts);
  BNN_UNROLL
  for (size_t m = 0; m < pixels; ++m) {
    bits[m] = (uint64_t)_mm512_cmple_epi32_mask(counts[2u * m], low) |
              (uint64_t)_mm512_cmple_epi32_mask(counts[2u * m + 1u], high) << 16;
  }
}

BNN_NEVER_INLINE void bnn_xnor_8x32_w32__avx512(size_t pixels, size_t step, const bnn_taps *taps,
                                                const void *x, const uint32_t *w,
                                                uint32_t *mismatches) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_8(bnn_xnor_sums__avx512, step, taps, bytes, w, mismatches)
}

BNN_NEVER_INLINE void bnn_xnor_bits_8x32_w32__avx512(size_t pixels, size_t step,
                                                     const bnn_taps *taps, const void *x,
                                                     const uint32_t *w, const int16_t *limits,
                                                     uint64_t *bits) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_8(bnn_xnor_compare__avx512, step, taps, bytes, w, limits, bits)
}

#endif
