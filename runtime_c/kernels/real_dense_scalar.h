/* real_dense: sums[n] = (((0 + x[0] w[0][n]) + x[1] w[1][n]) + ...), every product and every sum
 * rounded on its own.
 *
 * x is [count], w is [count][NR], sums is [NR]. The order is part of the contract, as in sign_sum.
 */
#ifndef BNN_REAL_DENSE_SCALAR_H
#define BNN_REAL_DENSE_SCALAR_H

#include "../bnn_real.h"

BNN_INLINE void bnn_real_dense_1x8__scalar(size_t count, const float *BNN_RESTRICT x,
                                           const float *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  float s[8] = {0};
  for (size_t k = 0; k < count; ++k) {
    for (size_t n = 0; n < 8u; ++n) {
      s[n] += bnn_mul(x[k], w[k * 8u + n]);
    }
  }
  for (size_t n = 0; n < 8u; ++n) {
    sums[n] = s[n];
  }
}

#endif
