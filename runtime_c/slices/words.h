/* Slices of several words, for headers whose instructions are missing: what is made for them then
 * still runs, on another machine. */
#ifndef BNN_SLICES_WORDS_H
#define BNN_SLICES_WORDS_H

#include <string.h>

#include "../bnn_config.h"

#define BNN_SLICES_OF_WORDS(count)                                   \
  typedef struct {                                                   \
    uint64_t w[count];                                               \
  } bnn_slice;                                                       \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {           \
    bnn_slice s;                                                     \
    BNN_COPY(s.w, at, sizeof s.w);                                   \
    return s;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {        \
    BNN_COPY(at, s.w, sizeof s.w);                                   \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {                \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = (uint64_t)0 - (bit & 1u);                             \
    }                                                                \
    return r;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {     \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = a.w[i] & b.w[i];                                      \
    }                                                                \
    return r;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {      \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = a.w[i] | b.w[i];                                      \
    }                                                                \
    return r;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {     \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = a.w[i] ^ b.w[i];                                      \
    }                                                                \
    return r;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) { \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = a.w[i] & ~b.w[i];                                     \
    }                                                                \
    return r;                                                        \
  }                                                                  \
                                                                     \
  BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {                  \
    bnn_slice r;                                                     \
    for (size_t i = 0; i < (count); ++i) {                           \
      r.w[i] = ~a.w[i];                                              \
    }                                                                \
    return r;                                                        \
  }

#endif
