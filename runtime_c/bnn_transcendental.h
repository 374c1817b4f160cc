/* exp, log, tanh, erf and the logistic function of our own: sequences of single float32 operations,
 * so that every target gives the same bits. Polynomials after Moshier's Cephes, those of erf minimax
 * fits. Each is NaN for NaN; exp, log, tanh and the logistic function never fall. */
#ifndef BNN_TRANSCENDENTAL_H
#define BNN_TRANSCENDENTAL_H

#include "bnn_float.h"
#include "bnn_real.h"

/* Return exp(x) within 1 ulp. x = n ln 2 + r; 2^n is taken in two factors, since neither 2^128 nor
 * 2^-150 is a float, and only the last product rounds. */
BNN_INLINE float bnn_exp(float x) {
  const float raised = x < -104.0f ? -104.0f : x;
  const float inside = raised > 89.0f ? 89.0f : raised;
  /* Adding 1.5 * 2^23 leaves no bits behind the point: n is x / ln 2 to the nearest integer, and
   * the low bits of the sum are n itself. */
  const float shifted = bnn_mul(inside, 1.44269504088896341f) + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (inside - bnn_mul(n, 0.693359375f)) - bnn_mul(n, -2.12194440e-4f);
  const uint32_t exponent = (bnn_bits_of(shifted) - 0x4b400000u) + 254u; /* n + 2 * 127 */
  const uint32_t half = exponent >> 1;
  float p = 1.9875691500e-4f;
  p = bnn_mul(p, r) + 1.3981999507e-3f;
  p = bnn_mul(p, r) + 8.3334519073e-3f;
  p = bnn_mul(p, r) + 4.1665795894e-2f;
  p = bnn_mul(p, r) + 1.6666665459e-1f;
  p = bnn_mul(p, r) + 0.5f;
  p = (bnn_mul(p, bnn_mul(r, r)) + r) + 1.0f;
  p = bnn_mul(p, bnn_float_of(half << 23));
  return bnn_mul(p, bnn_float_of((exponent - half) << 23));
}

/* Return log(x) within 0.9 ulp: -infinity for zeros, NaN below. */
BNN_INLINE float bnn_log(float x) {
  /* x = m * 2^exponent, 0.5 <= m < 1; below 2^-126 the exponent is in m's leading zeros. */
  const int subnormal = x < 1.17549435e-38f;
  const uint32_t bits = bnn_bits_of(subnormal ? bnn_mul(x, 8388608.0f) : x);
  const int32_t exponent = (int32_t)(bits >> 23) - (subnormal ? 149 : 126);
  const float m = bnn_float_of((bits & 0x007fffffu) | 0x3f000000u);
  float e;
  float r;
  float z;
  float p = 7.0376836292e-2f;
  if (!(x > 0.0f) || x > FLT_MAX) {
    return x == 0.0f ? -BNN_INFINITY : x > 0.0f ? x : bnn_float_of(0x7fc00000u);
  }
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

/* Return tanh(x) within 1.4 ulp; tanh(-x) = -tanh(x). */
BNN_INLINE float bnn_tanh(float x) {
  const float magnitude = bnn_abs(x);
  const float z = bnn_mul(magnitude, magnitude);
  const float far_off = 1.0f - 2.0f / (bnn_exp(magnitude + magnitude) + 1.0f);
  float p = -5.70498872745e-3f;
  p = bnn_mul(p, z) + 2.06390887954e-2f;
  p = bnn_mul(p, z) + -5.37397155531e-2f;
  p = bnn_mul(p, z) + 1.33314422036e-1f;
  p = bnn_mul(p, z) + -3.33332819422e-1f;
  p = bnn_mul(bnn_mul(p, z), magnitude) + magnitude;
  return bnn_with_sign(magnitude < 0.625f ? p : far_off, x);
}

/* Return 1 / (1 + exp(-x)) within 2.5 ulp. Below -18 the 1 in exp(x) / (1 + exp(x)) is all there is
 * of the sum. */
BNN_INLINE float bnn_sigmoid(float x) {
  const float e = bnn_exp(x < -18.0f ? x : -x);
  return x < -18.0f ? e : 1.0f / (1.0f + e);
}

/* Return erf(x) within 1.2 ulp; erf(-x) = -erf(x). Far from 0 it is 1 - exp(a polynomial), which from 4
 * on is 1. */
BNN_INLINE float bnn_erf(float x) {
  const float t = bnn_abs(x);
  const float z = bnn_mul(x, x);
  const float reach = t > 4.0f ? 4.0f : t;
  float near_by = -5.96761703e-4f;
  float p = -1.72853470e-5f;
  near_by = bnn_mul(near_by, z) + 4.99119423e-3f;
  near_by = bnn_mul(near_by, z) + -2.67681349e-2f;
  near_by = bnn_mul(near_by, z) + 1.12819925e-1f;
  near_by = bnn_mul(near_by, z) + -3.76125336e-1f;
  near_by = bnn_mul(near_by, z) + 1.28379166e-1f;
  near_by = bnn_mul(near_by, t) + t;
  p = bnn_mul(p, reach) + 3.83197126e-4f;
  p = bnn_mul(p, reach) + -3.88396438e-3f;
  p = bnn_mul(p, reach) + 2.42546219e-2f;
  p = bnn_mul(p, reach) + -1.06777877e-1f;
  p = bnn_mul(p, reach) + -6.34846687e-1f;
  p = bnn_mul(p, reach) + -1.28717512e-1f;
  p = 1.0f - bnn_exp(bnn_mul(p, reach) - reach);
  return bnn_with_sign(t > 0.927734375f ? p : near_by, x);
}

#endif
