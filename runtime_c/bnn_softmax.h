/* Softmax and log-softmax, every step a single float32 operation. */
#ifndef BNN_SOFTMAX_H
#define BNN_SOFTMAX_H

#include "bnn_transcendental.h"

/* Return the largest of x[count], or NaN if there is one. */
BNN_INLINE float bnn_largest(size_t count, const float *x) {
  float largest = x[0];
  for (size_t c = 1; c < count; ++c) {
    largest = x[c] > largest || x[c] != x[c] ? x[c] : largest;
  }
  return largest;
}

/* y[c] = exp(x[c] - max) / sum, the sum taken from c = 0 upward. x and y are [count]. */
BNN_INLINE void bnn_softmax(size_t count, const float *BNN_RESTRICT x, float *BNN_RESTRICT y) {
  const float largest = bnn_largest(count, x);
  float sum = 0.0f;
  for (size_t c = 0; c < count; ++c) {
    y[c] = bnn_exp(x[c] - largest);
    sum += y[c];
  }
  for (size_t c = 0; c < count; ++c) {
    y[c] = y[c] / sum;
  }
}

/* y[c] = (x[c] - max) - log(sum), the sum as above. x and y are [count]. */
BNN_INLINE void bnn_log_softmax(size_t count, const float *BNN_RESTRICT x, float *BNN_RESTRICT y) {
  const float largest = bnn_largest(count, x);
  float sum = 0.0f;
  for (size_t c = 0; c < count; ++c) {
    y[c] = x[c] - largest;
    sum += bnn_exp(y[c]);
  }
  sum = bnn_log(sum);
  for (size_t c = 0; c < count; ++c) {
    y[c] = y[c] - sum;
  }
}

#endif
