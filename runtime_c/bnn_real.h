/* float32 arithmetic that gives the same bits whatever the compiler and its options. */
#ifndef BNN_REAL_H
#define BNN_REAL_H

#include "bnn_config.h"

/* C lets a compiler contract a * b + c into one fused multiply-add, which rounds once where the
 * model rounds twice; gcc does so by default, across statements. bnn_mul returns the product
 * rounded on its own. Where the processor has no fused multiply-add there is nothing to prevent. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__) || \
    defined(__riscv_flen) || defined(__POWERPC__) || defined(__s390__) || defined(__wasm_relaxed_simd__)
#define BNN_MAY_CONTRACT 1
#else
#define BNN_MAY_CONTRACT 0
#endif

#if BNN_MAY_CONTRACT && defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

BNN_INLINE float bnn_mul(float a, float b) {
#if !BNN_MAY_CONTRACT || defined(__clang__)
  return a * b;
#elif defined(__GNUC__) && __GNUC__ >= 12
  return __builtin_assoc_barrier(a * b);
#else
  volatile float product = a * b;
  return product;
#endif
}

/* The real value of an accumulator: one rounding to double for each operation, one to float. */
BNN_INLINE float bnn_dequantize(int32_t n, double scale, double shift) {
#if !BNN_MAY_CONTRACT || defined(__clang__)
  return (float)((double)n * scale + shift);
#elif defined(__GNUC__) && __GNUC__ >= 12
  return (float)(__builtin_assoc_barrier((double)n * scale) + shift);
#else
  volatile double product = (double)n * scale;
  return (float)(product + shift);
#endif
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
