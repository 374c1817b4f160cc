/* Rounding to whole numbers without a math library: exact, and a zero keeps its sign. */
#ifndef BNN_ROUND_H
#define BNN_ROUND_H

#include "bnn_float.h"
#include "bnn_real.h"

/* The nearest whole number, halves to even. From 2^23 on every float is whole; below it, adding
 * 2^23 leaves no bits behind the point, and the addition itself rounds. */
BNN_INLINE float bnn_round(float x) {
  const float magnitude = bnn_abs(x);
  const float whole = (magnitude + 8388608.0f) - 8388608.0f;
  return magnitude < 8388608.0f ? bnn_with_sign(whole, x) : x;
}

/* The largest whole number <= x. */
BNN_INLINE float bnn_floor(float x) {
  const float nearest = bnn_round(x);
  return nearest > x ? nearest - 1.0f : nearest;
}

/* The smallest whole number >= x. */
BNN_INLINE float bnn_ceil(float x) {
  return -bnn_floor(-x);
}

#endif
