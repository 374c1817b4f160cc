/* The bits of a float: 1 of sign, 8 of exponent (biased by 127), 23 of fraction. */
#ifndef BNN_FLOAT_H
#define BNN_FLOAT_H

#include <string.h>

#include "bnn_config.h"

BNN_INLINE uint32_t bnn_bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

BNN_INLINE float bnn_float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* The magnitude of one with the sign of the other. */
BNN_INLINE float bnn_with_sign(float magnitude, float sign) {
  return bnn_float_of((bnn_bits_of(magnitude) & 0x7fffffffu) | (bnn_bits_of(sign) & 0x80000000u));
}

#endif
