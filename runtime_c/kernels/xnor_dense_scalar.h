/* xnor_dense: mismatches[n] = sum over k of popcount(x[k] ^ w[k * NR + n]).
 *
 * x is [words], w is [words][NR]: the block's weights with its output channels innermost, so that
 * one word of x serves NR channels and no sum crosses lanes. Both have zero tails, which never
 * mismatch. mismatches is [NR], at most words * word_bits < 2^32.
 */
#ifndef BNN_XNOR_DENSE_SCALAR_H
#define BNN_XNOR_DENSE_SCALAR_H

#include "../bnn_bits.h"

BNN_INLINE void bnn_xnor_dense_1x4_w32__scalar(size_t words, const uint32_t *BNN_RESTRICT x,
                                               const uint32_t *BNN_RESTRICT w,
                                               uint32_t *BNN_RESTRICT mismatches) {
  uint32_t m[4] = {0};
  for (size_t k = 0; k < words; ++k) {
    for (size_t n = 0; n < 4u; ++n) {
      m[n] += bnn_popcount32(x[k] ^ w[k * 4u + n]);
    }
  }
  for (size_t n = 0; n < 4u; ++n) {
    mismatches[n] = m[n];
  }
}

BNN_INLINE void bnn_xnor_dense_1x8_w64__scalar(size_t words, const uint64_t *BNN_RESTRICT x,
                                               const uint64_t *BNN_RESTRICT w,
                                               uint32_t *BNN_RESTRICT mismatches) {
  uint64_t m[8] = {0};
  for (size_t k = 0; k < words; ++k) {
    for (size_t n = 0; n < 8u; ++n) {
      m[n] += bnn_popcount64(x[k] ^ w[k * 8u + n]);
    }
  }
  for (size_t n = 0; n < 8u; ++n) {
    mismatches[n] = (uint32_t)m[n];
  }
}

#endif
