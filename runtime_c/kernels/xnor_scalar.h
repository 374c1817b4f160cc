/* xnor: mismatches[n] += sum over k of popcount(x[k] ^ w[k * NR + n]).
 *
 * x is [words], w is [words][NR]: the block's weights with its output channels innermost, so that
 * one word of x serves NR channels and no sum crosses lanes. Both have zero tails, which never
 * mismatch. mismatches is [NR]; it counts on from what is there, so that a convolution calls this
 * once a kernel row, and must stay below 2^32.
 */
#ifndef BNN_XNOR_SCALAR_H
#define BNN_XNOR_SCALAR_H

#include "../bnn_bits.h"

BNN_INLINE void bnn_xnor_1x4_w32__scalar(size_t words, const uint32_t *BNN_RESTRICT x,
                                         const uint32_t *BNN_RESTRICT w,
                                         uint32_t *BNN_RESTRICT mismatches) {
  BNN_REDUCTION
  for (size_t k = 0; k < words; ++k) {
    BNN_LANES
    for (size_t n = 0; n < 4u; ++n) {
      mismatches[n] += bnn_popcount32(x[k] ^ w[k * 4u + n]);
    }
  }
}

BNN_INLINE void bnn_xnor_1x8_w64__scalar(size_t words, const uint64_t *BNN_RESTRICT x,
                                         const uint64_t *BNN_RESTRICT w,
                                         uint32_t *BNN_RESTRICT mismatches) {
  BNN_REDUCTION
  for (size_t k = 0; k < words; ++k) {
    for (size_t n = 0; n < 8u; ++n) {
      mismatches[n] += bnn_popcount64(x[k] ^ w[k * 8u + n]);
    }
  }
}

BNN_INLINE void bnn_xnor_1x16_w64__scalar(size_t words, const uint64_t *BNN_RESTRICT x,
                                          const uint64_t *BNN_RESTRICT w,
                                          uint32_t *BNN_RESTRICT mismatches) {
  BNN_REDUCTION
  for (size_t k = 0; k < words; ++k) {
#if defined(__AVX512VPOPCNTDQ__) /* where lanes are counted one by one, 16 in a row spill */
    BNN_LANES
#endif
    for (size_t n = 0; n < 16u; ++n) {
      mismatches[n] += bnn_popcount64(x[k] ^ w[k * 16u + n]);
    }
  }
}

#endif
