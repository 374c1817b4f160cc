/* Slices of 256 lanes in AVX-512VL: those of AVX2, but any gate of three inputs is one instruction. */
#ifndef BNN_SLICES_AVX512VL_H
#define BNN_SLICES_AVX512VL_H

#if !defined(__AVX512VL__)
#  error "bnncc: this file is for AVX-512VL: -march=x86-64-v4, or -mavx512vl"
#endif

#include "../slices/avx2.h"

/* A full adder is two instructions: no pair of carries is cheaper. */
#undef BNN_SLICE_PAIRS

/* s + a + b = s' + 2 * the result. */
#define BNN_SLICE_FULL_ADD 1
BNN_ALWAYS_INLINE bnn_slice bnn_full_add(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice carry = _mm256_ternarylogic_epi64(*s, a, b, 0xe8); /* majority */
  *s = _mm256_ternarylogic_epi64(*s, a, b, 0x96);                    /* parity */
  return carry;
}

/* a - b - s = s' - 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_full_subtract(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice borrow = _mm256_ternarylogic_epi64(*s, a, b, 0xb2); /* majority, a inverted */
  *s = _mm256_ternarylogic_epi64(*s, a, b, 0x96);                     /* parity */
  return borrow;
}

#endif
