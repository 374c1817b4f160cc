/* sign_sum: sums[n] = (((0 + s(0) x[0]) + s(1) x[1]) + ...) with s(k) = +1 where bit n of w[k] is 1,
 * else -1.
 *
 * x is [count], w is [count] words of NR bits, sums is [NR]. The order of the additions is part of
 * the contract: each output channel is a lane, so that any vector width keeps it.
 */
#ifndef BNN_SIGN_SUM_SCALAR_H
#define BNN_SIGN_SUM_SCALAR_H

#include "../bnn_config.h"

BNN_INLINE void bnn_sign_sum_1x8__scalar(size_t count, const float *BNN_RESTRICT x,
                                         const uint8_t *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  float s[8] = {0};
  for (size_t k = 0; k < count; ++k) {
    const float positive = x[k];
    const float negative = -positive;
    for (size_t n = 0; n < 8u; ++n) {
      s[n] += (((uint32_t)w[k] >> n) & 1u) != 0u ? positive : negative;
    }
  }
  for (size_t n = 0; n < 8u; ++n) {
    sums[n] = s[n];
  }
}

BNN_INLINE void bnn_sign_sum_1x32__scalar(size_t count, const float *BNN_RESTRICT x,
                                          const uint32_t *BNN_RESTRICT w,
                                          float *BNN_RESTRICT sums) {
  float s[32] = {0};
  for (size_t k = 0; k < count; ++k) {
    const float positive = x[k];
    const float negative = -positive;
    for (size_t n = 0; n < 32u; ++n) {
      s[n] += ((w[k] >> n) & 1u) != 0u ? positive : negative;
    }
  }
  for (size_t n = 0; n < 32u; ++n) {
    sums[n] = s[n];
  }
}

#endif
