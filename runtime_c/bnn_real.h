/* float32 arithmetic that gives the same bits whatever the compiler and its options. */
#ifndef BNN_REAL_H
#define BNN_REAL_H

#include "bnn_config.h"

/* C lets a compiler contract a * b + c into one fused multiply-add, which rounds once where the
 * model rounds twice. gcc does so by default, across statements and after inlining; clang does so by
 * default within one expression. These switch it off for the rest of the file. (clang's
 * -ffp-contract=fast, unlike its default, disregards every pragma, as -ffast-math does: do not
 * compile with it. `bnncc verify` with the same CFLAGS shows whether a build keeps the bits.) */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

/* The product, rounded on its own. */
BNN_INLINE float bnn_mul(float a, float b) {
  return a * b;
}

/* The real value of an accumulator: one rounding to double for each operation, one to float. */
BNN_INLINE float bnn_dequantize(int32_t n, double scale, double shift) {
  const double product = (double)n * scale;
  return (float)(product + shift);
}

BNN_INLINE float bnn_relu(float x) {
  return x > 0.0f ? x : 0.0f;
}

BNN_INLINE float bnn_abs(float x) {
  return x < 0.0f ? -x : x + 0.0f;
}

/* -1, 0 or +1. */
BNN_INLINE float bnn_sign(float x) {
  return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
}

/* min(max(x, low), high); the bound itself where x equals it. */
BNN_INLINE float bnn_clip(float x, float low, float high) {
  const float raised = x > low ? x : low;
  return raised < high ? raised : high;
}

#if defined(__GNUC__)
#define BNN_INFINITY __builtin_inff()
#else
#include <math.h>
#define BNN_INFINITY INFINITY
#endif

#endif
