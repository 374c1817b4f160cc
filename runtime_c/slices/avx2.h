/* Slices of 256 lanes in AVX2. */
#ifndef BNN_SLICES_AVX2_H
#define BNN_SLICES_AVX2_H

#if !defined(__AVX2__)
#  error "bnncc: this file is for AVX2: -march=x86-64-v3, or -mavx2"
#endif

#include "../bnn_config.h"

#include <immintrin.h>

#define BNN_SLICE_LANES 256u
#define BNN_SLICE_PAIRS 1
#define BNN_SLICE_M256  1 /* a __m256i */

typedef __m256i bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
  _mm256_storeu_si256((__m256i *)(void *)at, s);
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  return _mm256_set1_epi32((int)(0u - (bit & 1u)));
}

BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {
  return _mm256_and_si256(a, b);
}

BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {
  return _mm256_or_si256(a, b);
}

BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {
  return _mm256_xor_si256(a, b);
}

BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) {
  return _mm256_andnot_si256(b, a);
}

BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {
  return _mm256_xor_si256(a, _mm256_set1_epi32(-1));
}

#endif
