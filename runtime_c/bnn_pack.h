/* Bytes into bitplanes. */
#ifndef BNN_PACK_H
#define BNN_PACK_H

#include "bnn_config.h"

/* Bit c % 32 of word planes[p * stride + c / 32] becomes bit p of x[c]; unused bits become 0.
 * x is [count]; each of the 8 planes takes ceil(count / 32) words. */
BNN_INLINE void bnn_pack_planes_w32(size_t count, size_t stride, const uint8_t *BNN_RESTRICT x,
                                    uint32_t *BNN_RESTRICT planes) {
  for (size_t first = 0; first < count; first += 32u) {
    const size_t used = count - first < 32u ? count - first : 32u;
    uint32_t bits[8] = {0};
    for (size_t c = 0; c < used; ++c) {
      const uint32_t code = x[first + c];
      for (size_t p = 0; p < 8u; ++p) {
        bits[p] |= ((code >> p) & 1u) << c;
      }
    }
    for (size_t p = 0; p < 8u; ++p) {
      planes[p * stride + first / 32u] = bits[p];
    }
  }
}

/* The same on words of 64 bits. */
BNN_INLINE void bnn_pack_planes_w64(size_t count, size_t stride, const uint8_t *BNN_RESTRICT x,
                                    uint64_t *BNN_RESTRICT planes) {
  for (size_t first = 0; first < count; first += 64u) {
    const size_t used = count - first < 64u ? count - first : 64u;
    uint64_t bits[8] = {0};
    for (size_t c = 0; c < used; ++c) {
      const uint64_t code = x[first + c];
      for (size_t p = 0; p < 8u; ++p) {
        bits[p] |= ((code >> p) & 1u) << c;
      }
    }
    for (size_t p = 0; p < 8u; ++p) {
      planes[p * stride + first / 64u] = bits[p];
    }
  }
}

#endif
