/* Slices of 32 lanes, one a bit of a word. */
#ifndef BNN_SLICES_W32_H
#define BNN_SLICES_W32_H

#include <string.h>

#include "../bnn_config.h"

#define BNN_SLICE_LANES 32u
/* No instruction selects bits: two full adders are cheaper with their carries in pairs. */
#define BNN_SLICE_PAIRS 1
#define BNN_SLICE_FENCE 1
#if !defined(BNN_SLICES_ALIGNED)
/* A Cortex-M4 has just the registers for planes that are added to a counter one after the other. */
#  define BNN_SLICE_IN_A_ROW 1
#endif

typedef uint32_t bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  bnn_slice s;
#if defined(BNN_SLICES_ALIGNED)
  s = *(const uint32_t *)(const void *)at;
#else
  BNN_COPY(&s, at, sizeof s);
#endif
  return s;
}

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
#if defined(BNN_SLICES_ALIGNED)
  *(uint32_t *)(void *)at = s;
#else
  BNN_COPY(at, &s, sizeof s);
#endif
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  return (uint32_t)0 - (bit & 1u);
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
