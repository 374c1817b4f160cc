/* float32 arithmetic that gives the same bits whatever the compiler and its options. */
#ifndef BNN_REAL_H
#define BNN_REAL_H

#include "bnn_config.h"

/* C lets a compiler contract a * b + c into one fused multiply-add, which rounds once where the
 * model rounds twice. gcc does so by default, across statements and after inlining; the pragma
 * switches it off for the rest of the file, but not where gcc 12 finds neighbours of which one adds
 * and one subtracts (vfmaddsub). clang does so by default within one expression, and everywhere with
 * -ffp-contract=fast, which disregards pragmas and of which no macro tells. A zero that neither can
 * see through, or-ed into the product's bits, keeps the sum apart. It is a call of a constant function,
 * which leaves every loop, so that the loop is still vectorised; gcc keeps the bare asm inside, and
 * the loop scalar. Other compilers get a volatile product. */
#if defined(__GNUC__)
#  define BNN_ROUNDED
#  if !defined(__clang__)
#    pragma GCC optimize("fp-contract=off")
#  endif
BNN_NEVER_INLINE __attribute__((const)) uint32_t bnn_opaque_zero(void) {
  uint32_t zero = 0;
  __asm__("" : "+r"(zero));
  return zero;
}
#else
#  define BNN_ROUNDED volatile
#endif

/* The product, rounded on its own. */
BNN_INLINE float bnn_mul(float a, float b) {
  BNN_ROUNDED float product = a * b;
#if defined(__GNUC__)
  uint32_t bits;
  __builtin_memcpy(&bits, &product, sizeof bits);
  bits |= bnn_opaque_zero();
  __builtin_memcpy(&product, &bits, sizeof bits);
#endif
  return product;
}

/* The same for sums that only ever add, for which gcc's pragma is enough. */
BNN_INLINE float bnn_term(float a, float b) {
#if defined(__GNUC__) && !defined(__clang__)
  return a * b;
#else
  return bnn_mul(a, b);
#endif
}

/* n * scale in double, rounded on its own, as bnn_mul is. */
BNN_INLINE double bnn_scaled(int32_t n, double scale) {
  BNN_ROUNDED double product = (double)n * scale;
#if defined(__GNUC__)
  uint64_t bits;
  __builtin_memcpy(&bits, &product, sizeof bits);
  bits |= bnn_opaque_zero();
  __builtin_memcpy(&product, &bits, sizeof bits);
#endif
  return product;
}

/* The real value of an accumulator: one rounding to double for each operation, one to float. */
BNN_INLINE float bnn_dequantize(int32_t n, double scale, double shift) {
  return (float)(bnn_scaled(n, scale) + shift);
}

/* The same of two accumulators. */
BNN_INLINE float bnn_dequantize_two(int32_t n, int32_t total, double scale, double weight,
                                    double shift) {
  return (float)(bnn_scaled(n, scale) + bnn_scaled(total, weight) + shift);
}

BNN_INLINE float bnn_relu(float x) {
  return x < 0.0f ? 0.0f : x;
}

BNN_INLINE float bnn_abs(float x) {
  return x < 0.0f ? -x : x + 0.0f;
}

/* -1, 0 or +1. */
BNN_INLINE float bnn_sign(float x) {
  return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
}

/* min(max(x, low), high); x itself where it equals a bound. */
BNN_INLINE float bnn_clip(float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
}

/* The larger of two; the second of equals, and a NaN wins. Two selections: gcc vectorises no `||`. */
BNN_INLINE float bnn_max(float a, float b) {
  return a != a ? a : (a > b ? a : b);
}

/* The smaller of two; the second of equals, and a NaN wins. */
BNN_INLINE float bnn_min(float a, float b) {
  return a != a ? a : (a < b ? a : b);
}

#if defined(__GNUC__)
#  define BNN_INFINITY __builtin_inff()
#  define BNN_NAN      __builtin_nanf("")
#else
#  include <math.h>
#  define BNN_INFINITY INFINITY
#  define BNN_NAN      NAN
#endif

#endif
