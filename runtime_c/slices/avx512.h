/* Slices of 512 lanes in AVX-512F, where any gate of three inputs is one instruction. */
#ifndef BNN_SLICES_AVX512_H
#define BNN_SLICES_AVX512_H

#if !defined(__AVX512F__)
#  error "bnncc: this file is for AVX-512: -march=x86-64-v4, or -mavx512f"
#endif

#include "../bnn_config.h"

#include <immintrin.h>

#define BNN_SLICE_LANES 512u

typedef __m512i bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  return _mm512_loadu_si512((const __m512i *)(const void *)at);
}

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
  _mm512_storeu_si512((__m512i *)(void *)at, s);
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  return _mm512_set1_epi32((int)(0u - (bit & 1u)));
}

BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {
  return _mm512_and_si512(a, b);
}

BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {
  return _mm512_or_si512(a, b);
}

BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {
  return _mm512_xor_si512(a, b);
}

BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) {
  return _mm512_andnot_si512(b, a);
}

BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {
  return _mm512_xor_si512(a, _mm512_set1_epi32(-1));
}

/* s + a + b = s' + 2 * the result. */
#define BNN_SLICE_FULL_ADD 1
BNN_ALWAYS_INLINE bnn_slice bnn_full_add(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice carry = _mm512_ternarylogic_epi64(*s, a, b, 0xe8); /* majority */
  *s = _mm512_ternarylogic_epi64(*s, a, b, 0x96);                    /* parity */
  return carry;
}

/* a - b - s = s' - 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_full_subtract(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice borrow = _mm512_ternarylogic_epi64(*s, a, b, 0xb2); /* majority, a inverted */
  *s = _mm512_ternarylogic_epi64(*s, a, b, 0x96);                     /* parity */
  return borrow;
}

#endif
