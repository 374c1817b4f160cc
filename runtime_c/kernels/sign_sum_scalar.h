/* sign_sum: sums[n] = (((sums[n] + s(0) x[0]) + s(1) x[1]) + ...) with s(k) = +1 where bit n of w[k]
 * is 1, else -1.
 *
 * x is [count], w is [count] words of NR bits, sums is [NR]; it adds to what is there, so that a
 * convolution calls this once a kernel row. The order of the additions is part of the contract:
 * each output channel is a lane, so that any vector width keeps it.
 */
#ifndef BNN_SIGN_SUM_SCALAR_H
#define BNN_SIGN_SUM_SCALAR_H

#include "../bnn_float.h"

/* -x is x with its sign bit flipped. Bit n of w moves to the sign's place by a shift that differs
 * from lane to lane; SSE has no such instruction, and takes four signs at once from a table. */
#if defined(__SSE2__)
#  define BNN_FLIPS(a, b, c, d) \
    {(a) * 0x80000000u, (b) * 0x80000000u, (c) * 0x80000000u, (d) * 0x80000000u}

/* What flips four floats where the bits of the index are 0. */
static const uint32_t bnn_flips[16][4] = {
    BNN_FLIPS(1u, 1u, 1u, 1u), BNN_FLIPS(0u, 1u, 1u, 1u), BNN_FLIPS(1u, 0u, 1u, 1u),
    BNN_FLIPS(0u, 0u, 1u, 1u), BNN_FLIPS(1u, 1u, 0u, 1u), BNN_FLIPS(0u, 1u, 0u, 1u),
    BNN_FLIPS(1u, 0u, 0u, 1u), BNN_FLIPS(0u, 0u, 0u, 1u), BNN_FLIPS(1u, 1u, 1u, 0u),
    BNN_FLIPS(0u, 1u, 1u, 0u), BNN_FLIPS(1u, 0u, 1u, 0u), BNN_FLIPS(0u, 0u, 1u, 0u),
    BNN_FLIPS(1u, 1u, 0u, 0u), BNN_FLIPS(0u, 1u, 0u, 0u), BNN_FLIPS(1u, 0u, 0u, 0u),
    BNN_FLIPS(0u, 0u, 0u, 0u)};

/* sums[n] += x where bit n of `signs` is 1, else -x; sums is [4], signs < 16. */
BNN_INLINE void bnn_add_signed(float x, uint32_t signs, float *BNN_RESTRICT sums) {
  const uint32_t *flips = bnn_flips[signs];
  float terms[4];
  for (size_t n = 0; n < 4u; ++n) {
    terms[n] = bnn_float_of(bnn_bits_of(x) ^ flips[n]);
  }
  BNN_KEEP_LANES;
  for (size_t n = 0; n < 4u; ++n) {
    sums[n] += terms[n];
  }
}
#endif

BNN_INLINE void bnn_sign_sum_1x8__scalar(size_t count, const float *BNN_RESTRICT x,
                                         const uint8_t *BNN_RESTRICT w, float *BNN_RESTRICT sums) {
  for (size_t k = 0; k < count; ++k) {
#if defined(__SSE2__)
    bnn_add_signed(x[k], w[k] & 15u, &sums[0]);
    bnn_add_signed(x[k], (uint32_t)w[k] >> 4, &sums[4]);
#else
    const uint32_t flips = ~(uint32_t)w[k];
    BNN_LANES
    for (size_t n = 0; n < 8u; ++n) {
      sums[n] += bnn_float_of(bnn_bits_of(x[k]) ^ (((flips >> n) & 1u) << 31));
    }
#endif
  }
}

BNN_INLINE void bnn_sign_sum_1x32__scalar(size_t count, const float *BNN_RESTRICT x,
                                          const uint32_t *BNN_RESTRICT w,
                                          float *BNN_RESTRICT sums) {
  for (size_t k = 0; k < count; ++k) {
#if defined(__SSE2__) && !defined(__AVX2__)
    BNN_LANES
    for (size_t n = 0; n < 32u; n += 4u) {
      bnn_add_signed(x[k], (w[k] >> n) & 15u, &sums[n]);
    }
#else
    for (size_t n = 0; n < 32u; ++n) {
      const uint32_t flip = (~w[k] << (31u - n)) & 0x80000000u;
      sums[n] += bnn_float_of(bnn_bits_of(x[k]) ^ flip);
    }
#endif
  }
}

#endif
