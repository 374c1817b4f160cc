/* Slices of 64 lanes, one a bit of a word. */
#ifndef BNN_SLICES_W64_H
#define BNN_SLICES_W64_H

#include <string.h>

#include "../bnn_config.h"

#define BNN_SLICE_LANES 64u

typedef uint64_t bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  bnn_slice s;
  BNN_COPY(&s, at, sizeof s);
  return s;
}

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
  BNN_COPY(at, &s, sizeof s);
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  return (uint64_t)0 - (bit & 1u);
}

BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {
  return a & b;
}

BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {
  return a | b;
}

BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {
  return a ^ b;
}

BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) {
  return a & ~b;
}

BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {
  return ~a;
}

#endif
