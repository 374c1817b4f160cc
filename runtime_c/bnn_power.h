/* Square roots and powers without a math library. */
#ifndef BNN_POWER_H
#define BNN_POWER_H

#include "bnn_float.h"
#include "bnn_real.h"

/* The square root, rounded once as IEEE 754 asks: NaN below 0, a zero keeps its sign. The root of a
 * 24-bit whole number, found bit by bit, needs one bit more to be rounded: 25 steps. */
BNN_INLINE float bnn_sqrt(float x) {
  uint32_t bits = bnn_bits_of(x);
  uint32_t exponent = (bits >> 23) + 129u; /* of x, plus 256: as odd as itself */
  uint32_t root = 0;
  uint32_t twice = 0;
  if (!(x > 0.0f) || x > FLT_MAX) {
    return x == 0.0f || x > 0.0f ? x : bnn_float_of(0x7fc00000u);
  }
  if (bits < 0x00800000u) {
    for (++exponent; bits < 0x00800000u; bits <<= 1) {
      --exponent;
    }
  }
  bits = (bits & 0x007fffffu) | 0x00800000u;
  bits <<= 1 + (exponent & 1u);
  for (uint32_t bit = 0x01000000u; bit != 0; bit >>= 1) {
    const uint32_t next = twice + bit;
    if (next <= bits) {
      twice = next + bit;
      bits -= next;
      root += bit;
    }
    bits <<= 1;
  }
  root += bits != 0 ? root & 1u : 0u;
  return bnn_float_of((root >> 1) + 0x3f000000u + (((exponent >> 1) - 128u) << 23));
}

/* x to the power of `whole`, times its root if `half`; 1 over that if `inverse`. Not the 0th power. */
BNN_INLINE float bnn_power(float x, unsigned whole, int half, int inverse) {
  float y = whole == 0 ? bnn_sqrt(x) : x;
  for (unsigned i = 1; i < whole; ++i) {
    y = bnn_mul(y, x);
  }
  if (half && whole != 0) {
    y = bnn_mul(y, bnn_sqrt(x));
  }
  return inverse ? 1.0f / y : y;
}

#endif
