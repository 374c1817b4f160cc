/* real_sum: sums[n] = (((sums[n] + x[0] w[0][n]) + x[1] w[1][n]) + ...), every product and every
 * sum rounded on its own.
 *
 * x is [count], w is [count][NR], sums is [NR]; it adds to what is there, so that a convolution
 * calls this once a kernel row. The order of the additions is part of the contract: each output
 * channel is a lane, so that any vector width keeps it.
 */
#ifndef BNN_REAL_SUM_SCALAR_H
#define BNN_REAL_SUM_SCALAR_H

#include "../bnn_real.h"

BNN_INLINE void bnn_real_sum_1x8__scalar(size_t count, const float *BNN_RESTRICT x,
                                         const float *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  for (size_t k = 0; k < count; ++k) {
    float products[8];
    BNN_LANES
    for (size_t n = 0; n < 8u; ++n) {
      products[n] = bnn_term(x[k], w[k * 8u + n]);
    }
    BNN_KEEP_LANES;
    BNN_LANES
    for (size_t n = 0; n < 8u; ++n) {
      sums[n] += products[n];
    }
  }
}

BNN_INLINE void bnn_real_sum_1x16__scalar(size_t count, const float *BNN_RESTRICT x,
                                          const float *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  for (size_t k = 0; k < count; ++k) {
    float products[16];
    BNN_LANES
    for (size_t n = 0; n < 16u; ++n) {
      products[n] = bnn_term(x[k], w[k * 16u + n]);
    }
    BNN_KEEP_LANES;
    BNN_LANES
    for (size_t n = 0; n < 16u; ++n) {
      sums[n] += products[n];
    }
  }
}

/* So many lanes are left a loop, which needs no persuasion. */
BNN_INLINE void bnn_real_sum_1x32__scalar(size_t count, const float *BNN_RESTRICT x,
                                          const float *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  for (size_t k = 0; k < count; ++k) {
    for (size_t n = 0; n < 32u; ++n) {
      sums[n] += bnn_term(x[k], w[k * 32u + n]);
    }
  }
}

#endif
