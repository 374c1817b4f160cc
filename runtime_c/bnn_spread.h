/* Planes of pixels, copied so that every tap of a window finds its pixels at the output's bits. */
#ifndef BNN_SPREAD_H
#define BNN_SPREAD_H

#include <string.h>

#include "bnn_config.h"
#include "bnn_expand.h"

/* 32 bits from bit `bit` of words on. */
BNN_ALWAYS_INLINE uint32_t bnn_aligned_bits32(const uint32_t *words, size_t bit) {
  const uint32_t *at = &words[bit / 32u];
  const uint32_t shift = (uint32_t)(bit % 32u);
  return shift ? (at[0] >> shift) | (at[1] << (32u - shift)) : at[0];
}

/* The same where words have their lowest byte first, and loads may start at any. */
BNN_ALWAYS_INLINE uint32_t bnn_bits32(const uint32_t *words, size_t bit) {
  const uint8_t *at = (const uint8_t *)words + bit / 8u;
  const uint32_t shift = (uint32_t)(bit % 8u);
  uint32_t low, high;
  BNN_COPY(&low, at, sizeof low);
  if (shift == 0) {
    return low;
  }
  BNN_COPY(&high, at + sizeof low, sizeof high);
  return (low >> shift) | (high << (32u - shift));
}

BNN_ALWAYS_INLINE uint64_t bnn_bits64(const uint64_t *words, size_t bit) {
  const uint8_t *at = (const uint8_t *)words + bit / 8u;
  const uint32_t shift = (uint32_t)(bit % 8u);
  uint64_t low, high;
  BNN_COPY(&low, at, sizeof low);
  if (shift == 0) {
    return low;
  }
  BNN_COPY(&high, at + sizeof low, sizeof high);
  return (low >> shift) | (high << (64u - shift));
}

/* Words of a plane, and their complements `half` words on unless it is 0. */
BNN_ALWAYS_INLINE void bnn_spread32(uint32_t *to, size_t half, uint32_t v) {
  to[0] = v;
  if (half) {
    to[half] = ~v;
  }
}

BNN_ALWAYS_INLINE void bnn_spread64(uint32_t *to, size_t half, uint64_t v) {
  const uint64_t inverted = ~v;
  BNN_COPY(to, &v, sizeof v);
  if (half) {
    BNN_COPY(&to[half], &inverted, sizeof inverted);
  }
}

/* The same of words that are used in part; of 64 bits, the lower half alone unless more are. */
BNN_ALWAYS_INLINE void bnn_spread_part32(uint32_t *to, size_t half, uint32_t v, uint32_t used) {
  to[0] = v & used;
  if (half) {
    to[half] = ~v & used;
  }
}

BNN_ALWAYS_INLINE void bnn_spread_part64(uint32_t *to, size_t half, uint64_t v, uint64_t used) {
  bnn_spread_part32(to, half, (uint32_t)v, (uint32_t)used);
  if (used >> 32) {
    bnn_spread_part32(&to[1], half, (uint32_t)(v >> 32), (uint32_t)(used >> 32));
  }
}

BNN_ALWAYS_INLINE void bnn_spread_clear(uint32_t *to, size_t half, size_t words) {
  for (size_t i = 0; i < words; ++i) {
    to[i] = 0;
    if (half) {
      to[half + i] = 0;
    }
  }
}

/* Row `row` of 8, 16 or 32 bits, where words have their lowest byte first. */
BNN_ALWAYS_INLINE void bnn_spread_row8(uint32_t *to, size_t half, size_t row, uint32_t v) {
  ((uint8_t *)to)[row] = (uint8_t)v;
  if (half) {
    ((uint8_t *)&to[half])[row] = (uint8_t)~v;
  }
}

BNN_ALWAYS_INLINE void bnn_spread_row16(uint32_t *to, size_t half, size_t row, uint32_t v) {
  const uint16_t bits = (uint16_t)v;
  const uint16_t inverted = (uint16_t)~v;
  BNN_COPY((uint8_t *)to + 2u * row, &bits, sizeof bits);
  if (half) {
    BNN_COPY((uint8_t *)&to[half] + 2u * row, &inverted, sizeof inverted);
  }
}

BNN_ALWAYS_INLINE void bnn_spread_row32(uint32_t *to, size_t half, size_t row, uint32_t v) {
  bnn_spread32(&to[row], half, v);
}

/* The bits `used` of a row that starts at bit `bit` of words that are 0 there. */
BNN_ALWAYS_INLINE void bnn_spread_row(uint32_t *to, size_t half, size_t bit, uint32_t v,
                                      uint32_t used) {
  uint32_t *at = &to[bit / 32u];
  const uint32_t left = (uint32_t)(bit % 32u);
  at[0] |= (v & used) << left;
  if (half) {
    at[half] |= (~v & used) << left;
  }
}

/* Every stride-th of 32 bits, the first of them bit `at`. */
BNN_INLINE uint32_t bnn_strided_bits(const uint32_t *words, size_t bit, size_t stride) {
  if (stride == 1u) {
    return bnn_aligned_bits32(words, bit);
  }
  if (stride == 2u) {
    return bnn_compress_w32(bnn_aligned_bits32(words, bit)) |
           (bnn_compress_w32(bnn_aligned_bits32(words, bit + 32u)) << 16);
  }
  uint32_t v = 0;
  for (size_t i = 0; i < 32u; ++i, bit += stride) {
    v |= ((words[bit / 32u] >> (bit % 32u)) & 1u) << i;
  }
  return v;
}

/* Row `row` of `pitch` bits: every stride-th of the image from bit `bit` on.
 *
 * keep, set: words of a row, which bits stay and which become 1.
 */
BNN_INLINE void bnn_spread_single(const uint32_t *BNN_RESTRICT image, size_t bit, size_t stride,
                                  const uint32_t *keep, const uint32_t *set, size_t pitch,
                                  size_t row, uint32_t *BNN_RESTRICT to, size_t half) {
  const uint32_t used = pitch < 32u ? (1u << pitch) - 1u : 0xffffffffu;
  for (size_t first = 0; first < pitch; first += 32u) {
    const uint32_t v = bnn_strided_bits(image, bit + first * stride, stride) & keep[first / 32u];
    bnn_spread_row(to, half, row * pitch + first, v | set[first / 32u], used);
  }
}

#endif
