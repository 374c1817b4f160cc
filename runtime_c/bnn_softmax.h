/* Softmax and log-softmax with an exp and a log of our own: sequences of single float32 operations,
 * so that every target gives the same bits. Polynomials after Moshier's Cephes. */
#ifndef BNN_SOFTMAX_H
#define BNN_SOFTMAX_H

#include <string.h>

#include "bnn_real.h"

/* Return exp(x) within 2 ulp for -87 <= x <= 0, and 0 below that. */
BNN_INLINE float bnn_exp(float x) {
  /* Adding 1.5 * 2^23 leaves no bits behind the point: n is x / ln 2 to the nearest integer. */
  const float n = (bnn_mul(x, 1.44269504088896341f) + 12582912.0f) - 12582912.0f;
  const float r = (x - bnn_mul(n, 0.693359375f)) - bnn_mul(n, -2.12194440e-4f);
  float p = 1.9875691500e-4f;
  float power;
  uint32_t bits;
  if (!(x >= -87.0f)) {
    return 0.0f;
  }
  p = bnn_mul(p, r) + 1.3981999507e-3f;
  p = bnn_mul(p, r) + 8.3334519073e-3f;
  p = bnn_mul(p, r) + 4.1665795894e-2f;
  p = bnn_mul(p, r) + 1.6666665459e-1f;
  p = bnn_mul(p, r) + 0.5f;
  p = (bnn_mul(p, bnn_mul(r, r)) + r) + 1.0f;
  bits = (uint32_t)((int32_t)n + 127) << 23;
  memcpy(&power, &bits, sizeof power);
  return bnn_mul(p, power);
}

/* Return log(x) within 2 ulp for x >= 1. */
BNN_INLINE float bnn_log(float x) {
  uint32_t bits;
  int32_t exponent;
  float m;
  float e;
  float r;
  float z;
  float p = 7.0376836292e-2f;
  memcpy(&bits, &x, sizeof bits);
  exponent = (int32_t)(bits >> 23) - 126;
  bits = (bits & 0x007fffffu) | 0x3f000000u; /* x = m * 2^exponent, 0.5 <= m < 1 */
  memcpy(&m, &bits, sizeof m);
  if (m < 0.707106781186547524f) {
    e = (float)(exponent - 1);
    r = (m + m) - 1.0f;
  } else {
    e = (float)exponent;
    r = m - 1.0f;
  }
  z = bnn_mul(r, r);
  p = bnn_mul(p, r) + -1.1514610310e-1f;
  p = bnn_mul(p, r) + 1.1676998740e-1f;
  p = bnn_mul(p, r) + -1.2420140846e-1f;
  p = bnn_mul(p, r) + 1.4249322787e-1f;
  p = bnn_mul(p, r) + -1.6668057665e-1f;
  p = bnn_mul(p, r) + 2.0000714765e-1f;
  p = bnn_mul(p, r) + -2.4999993993e-1f;
  p = bnn_mul(p, r) + 3.3333331174e-1f;
  p = bnn_mul(bnn_mul(r, z), p);
  p = (p + bnn_mul(e, -2.12194440e-4f)) - bnn_mul(0.5f, z);
  return (r + p) + bnn_mul(e, 0.693359375f);
}

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
