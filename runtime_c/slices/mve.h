/* Slices of 128 lanes in Helium (MVE). */
#ifndef BNN_SLICES_MVE_H
#define BNN_SLICES_MVE_H

#include "../slices/words.h"

#define BNN_SLICE_LANES 128u

#if defined(__ARM_FEATURE_MVE)
#  include <arm_mve.h>

#  define BNN_SLICE_FENCE 1
#  define BNN_SLICE_PAIRS 1

typedef uint8x16_t bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  return vldrbq_u8(at);
}

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
  vstrbq_u8(at, s);
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  return vdupq_n_u8((uint8_t)(0u - (bit & 1u)));
}

BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {
  return vandq_u8(a, b);
}

BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {
  return vorrq_u8(a, b);
}

BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {
  return veorq_u8(a, b);
}

BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) {
  return vbicq_u8(a, b);
}

BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {
  return vmvnq_u8(a);
}

#else

BNN_SLICES_OF_WORDS(2u)

#endif

#endif
