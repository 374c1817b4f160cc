/* Numbers of the lanes of bit slices, side by side, and slices of what is true of them. */
#ifndef BNN_PLANAR_H
#define BNN_PLANAR_H

#include "bnn_slices.h"

#if defined(__SSE2__)
#  include <immintrin.h>
#endif

#if defined(BNN_SLICE_M256)
/* Of pairs of bytes in four registers, those of a number side by side. */
BNN_ALWAYS_INLINE void bnn_order_octets(const __m256i *pairs, __m256i *octets) {
  const __m256i a = _mm256_unpacklo_epi16(pairs[0], pairs[1]);
  const __m256i b = _mm256_unpackhi_epi16(pairs[0], pairs[1]);
  const __m256i c = _mm256_unpacklo_epi16(pairs[2], pairs[3]);
  const __m256i d = _mm256_unpackhi_epi16(pairs[2], pairs[3]);
  octets[0] = _mm256_unpacklo_epi32(a, c);
  octets[1] = _mm256_unpackhi_epi32(a, c);
  octets[2] = _mm256_unpacklo_epi32(b, d);
  octets[3] = _mm256_unpackhi_epi32(b, d);
}

#  if defined(__GFNI__)
/* The numbers of up to 8 bits in slices, a byte a lane: register i holds those of lanes 16 i to
 * 16 i + 15, then those of 128 lanes further on. Bytes of all slices side by side, the last one's
 * first, are squares of 8 by 8 bits, and what they are multiplied by makes that of every one its transpose. */
BNN_ALWAYS_INLINE void bnn_slices_octets(unsigned bits, const bnn_slice *x, __m256i *octets) {
  const __m256i none = _mm256_setzero_si256();
  const __m256i ones = _mm256_set1_epi64x((long long)0x8040201008040201u);
  __m256i pairs[8];
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    const __m256i even = 6u - 2u * i < bits ? x[6u - 2u * i] : none;
    const __m256i odd = 7u - 2u * i < bits ? x[7u - 2u * i] : none;
    pairs[i] = _mm256_unpacklo_epi8(odd, even);
    pairs[i + 4u] = _mm256_unpackhi_epi8(odd, even);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; i += 4u) {
    bnn_order_octets(&pairs[i], &octets[i]);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    octets[i] = _mm256_gf2p8affine_epi64_epi8(ones, octets[i], 0);
  }
}
#  else
/* Bits i + shift of each byte of a change places with bits i of b, i in mask. */
BNN_ALWAYS_INLINE void bnn_swap_bits(__m256i *a, __m256i *b, int shift, char mask) {
  const __m256i moved = _mm256_xor_si256(_mm256_srli_epi16(*a, shift), *b);
  const __m256i change = _mm256_and_si256(moved, _mm256_set1_epi8(mask));
  *b = _mm256_xor_si256(*b, change);
  *a = _mm256_xor_si256(*a, _mm256_slli_epi16(change, shift));
}

/* The numbers of up to 8 bits in slices, a byte a lane: register i holds those of lanes 16 i to
 * 16 i + 15, then those of 128 lanes further on. Squares of 8 by 8 bits are transposed, of which
 * each slice holds a row in every byte, then bytes are put in order. */
BNN_ALWAYS_INLINE void bnn_slices_octets(unsigned bits, const bnn_slice *x, __m256i *octets) {
  __m256i r[8];
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    r[i] = i < bits ? x[i] : _mm256_setzero_si256();
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; i += 2u) {
    bnn_swap_bits(&r[i], &r[i + 1u], 1, 0x55);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    bnn_swap_bits(&r[i + (i & 2u)], &r[i + (i & 2u) + 2u], 2, 0x33);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    bnn_swap_bits(&r[i], &r[i + 4u], 4, 0x0f);
  }
  __m256i pairs[8];
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    pairs[i] = _mm256_unpacklo_epi8(r[2u * i], r[2u * i + 1u]);
    pairs[i + 4u] = _mm256_unpackhi_epi8(r[2u * i], r[2u * i + 1u]);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; i += 4u) {
    bnn_order_octets(&pairs[i], &octets[i]);
  }
}
#  endif

/* n = base - factor * x, of numbers of up to 16 bits in slices; the factor is 1 or 2. */
BNN_ALWAYS_INLINE void bnn_slices_numbers16(unsigned bits, const bnn_slice *x, int32_t base,
                                            int32_t factor, int16_t *n) {
  const __m256i first = _mm256_set1_epi16((short)base);
  __m256i low[8];
  __m256i high[8];
  bnn_slices_octets(bits < 8u ? bits : 8u, x, low);
  bnn_slices_octets(bits > 8u ? bits - 8u : 0u, x + 8, high);
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    __m256i a = _mm256_unpacklo_epi8(low[i], high[i]);
    __m256i b = _mm256_unpackhi_epi8(low[i], high[i]);
    a = _mm256_sub_epi16(first, factor == 2 ? _mm256_add_epi16(a, a) : a);
    b = _mm256_sub_epi16(first, factor == 2 ? _mm256_add_epi16(b, b) : b);
    const __m256i front = _mm256_permute2x128_si256(a, b, 0x20);
    const __m256i back = _mm256_permute2x128_si256(a, b, 0x31);
    _mm256_storeu_si256((__m256i *)(void *)&n[16u * i], front);
    _mm256_storeu_si256((__m256i *)(void *)&n[16u * i + 128u], back);
  }
}

/* n plus what its lane's kind adds. Kinds are below 16, a byte a lane; `more` are the lower bytes of
 * what each adds, then the upper ones. */
BNN_ALWAYS_INLINE void bnn_numbers16_more(const uint8_t *kinds, const uint8_t *more, int16_t *n) {
  const __m128i *tables = (const __m128i *)(const void *)more;
  const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(&tables[0]));
  const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128(&tables[1]));
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    const __m256i *at = (const __m256i *)(const void *)&kinds[32u * i];
    __m256i *to = (__m256i *)(void *)&n[32u * i];
    /* So that the halves of its 128 bits are lanes in order. */
    const __m256i kind = _mm256_permute4x64_epi64(_mm256_loadu_si256(at), 0xd8);
    const __m256i a = _mm256_shuffle_epi8(low, kind);
    const __m256i b = _mm256_shuffle_epi8(high, kind);
    const __m256i front = _mm256_add_epi16(_mm256_loadu_si256(to), _mm256_unpacklo_epi8(a, b));
    const __m256i back = _mm256_add_epi16(_mm256_loadu_si256(&to[1]), _mm256_unpackhi_epi8(a, b));
    _mm256_storeu_si256(to, front);
    _mm256_storeu_si256(&to[1], back);
  }
}

/* The numbers of up to 8 bits in slices, a byte a lane. */
BNN_ALWAYS_INLINE void bnn_slices_bytes(unsigned bits, const bnn_slice *x, uint8_t *bytes) {
  __m256i octets[8];
  bnn_slices_octets(bits, x, octets);
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    const __m128i front = _mm256_castsi256_si128(octets[i]);
    const __m128i back = _mm256_extracti128_si256(octets[i], 1);
    _mm_storeu_si128((__m128i *)(void *)&bytes[16u * i], front);
    _mm_storeu_si128((__m128i *)(void *)&bytes[16u * i + 128u], back);
  }
}
#else
/* Bits i + shift of a change places with bits i of b, i in mask. */
BNN_ALWAYS_INLINE void bnn_swap_bits(uint32_t *BNN_RESTRICT a, uint32_t *BNN_RESTRICT b,
                                     uint32_t shift, uint32_t mask) {
  for (size_t j = 0; j < BNN_SLICE_LANES / 32u; ++j) {
    const uint32_t change = ((a[j] >> shift) ^ b[j]) & mask;
    b[j] ^= change;
    a[j] ^= change << shift;
  }
}

/* The numbers of up to 8 bits in slices, a byte a lane: squares of 8 by 8 bits are transposed, of
 * which each slice holds a row in every byte. */
BNN_ALWAYS_INLINE void bnn_slices_bytes(unsigned bits, const bnn_slice *x, uint8_t *bytes) {
  uint32_t r[8][BNN_SLICE_LANES / 32u];
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; ++i) {
    bnn_slice_store((uint8_t *)r[i], i < bits ? x[i] : bnn_slice_fill(0));
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 8u; i += 2u) {
    bnn_swap_bits(r[i], r[i + 1u], 1u, 0x55555555u);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    bnn_swap_bits(r[i + (i & 2u)], r[i + (i & 2u) + 2u], 2u, 0x33333333u);
  }
  BNN_UNROLL
  for (unsigned i = 0; i < 4u; ++i) {
    bnn_swap_bits(r[i], r[i + 4u], 4u, 0x0f0f0f0fu);
  }
  for (size_t j = 0; j < BNN_SLICE_LANES / 32u; ++j) {
    for (uint32_t i = 0; i < 32u; ++i) {
      bytes[32u * j + i] = (uint8_t)(r[i % 8u][j] >> (i / 8u * 8u));
    }
  }
}

/* n = base - factor * x, of numbers of up to 16 bits in slices. */
BNN_ALWAYS_INLINE void bnn_slices_numbers16(unsigned bits, const bnn_slice *x, int32_t base,
                                            int32_t factor, int16_t *n) {
  uint8_t low[BNN_SLICE_LANES];
  uint8_t high[BNN_SLICE_LANES];
  bnn_slices_bytes(bits < 8u ? bits : 8u, x, low);
  if (bits > 8u) {
    bnn_slices_bytes(bits - 8u, x + 8, high);
  }
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    const int32_t number = bits > 8u ? (int32_t)low[i] + (int32_t)high[i] * 256 : (int32_t)low[i];
    n[i] = (int16_t)(base - factor * number);
  }
}
#endif

/* The same of numbers of up to 24 bits. */
BNN_ALWAYS_INLINE void bnn_slices_numbers32(unsigned bits, const bnn_slice *x, int32_t base,
                                            int32_t factor, int32_t *n) {
  uint8_t bytes[3][BNN_SLICE_LANES];
  BNN_UNROLL
  for (unsigned i = 0; 8u * i < bits; ++i) {
    bnn_slices_bytes(bits - 8u * i < 8u ? bits - 8u * i : 8u, x + 8u * i, bytes[i]);
  }
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    int32_t number = (int32_t)bytes[0][i];
    if (bits > 8u) {
      number += (int32_t)bytes[1][i] * 256;
    }
    if (bits > 16u) {
      number += (int32_t)bytes[2][i] * 65536;
    }
    n[i] = base - factor * number;
  }
}

/* All bits set, or none: as wide as a float where vectors of comparisons are registers, packed all at
 * once; AVX-512 has masks, and narrows them as cheaply. */
#if defined(__SSE2__) && !defined(__AVX512F__)
typedef int32_t bnn_flag;
#else
typedef uint8_t bnn_flag;
#endif

#if defined(__AVX2__)
/* Thirty-two flags as bits. */
BNN_ALWAYS_INLINE uint32_t bnn_flags32(const bnn_flag *flags) {
  const __m256i *at = (const __m256i *)(const void *)flags;
#  if defined(__AVX512F__)
  return (uint32_t)_mm256_movemask_epi8(_mm256_loadu_si256(at));
#  else
  const __m256i low = _mm256_packs_epi32(_mm256_loadu_si256(&at[0]), _mm256_loadu_si256(&at[1]));
  const __m256i high = _mm256_packs_epi32(_mm256_loadu_si256(&at[2]), _mm256_loadu_si256(&at[3]));
  /* Fours of a register's lower 128 bits come first, then those of its upper ones. */
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i fours = _mm256_packs_epi16(low, high);
  return (uint32_t)_mm256_movemask_epi8(_mm256_permutevar8x32_epi32(fours, order));
#  endif
}
#elif defined(__SSE2__)
BNN_ALWAYS_INLINE uint32_t bnn_flags16(const bnn_flag *flags) {
  __m128i v[4];
  BNN_UNROLL
  for (size_t i = 0; i < 4u; ++i) {
    v[i] = _mm_loadu_si128((const __m128i *)(const void *)&flags[4u * i]);
  }
  const __m128i low = _mm_packs_epi32(v[0], v[1]);
  const __m128i high = _mm_packs_epi32(v[2], v[3]);
  return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
}

BNN_ALWAYS_INLINE uint32_t bnn_flags32(const bnn_flag *flags) {
  return bnn_flags16(flags) | (bnn_flags16(&flags[16]) << 16);
}
#endif

/* Bit i of the words is set where flag i is, and bit i of `used`, unless it is NULL. */
BNN_ALWAYS_INLINE void bnn_flags_pack(size_t words, const bnn_flag *flags, const uint32_t *used,
                                      uint32_t *to) {
  for (size_t j = 0; j < words; ++j) {
    uint32_t word = 0;
#if defined(__SSE2__)
    word = bnn_flags32(&flags[32u * j]);
#else
    for (uint32_t i = 0; i < 32u; ++i) {
      word |= (uint32_t)(flags[32u * j + i] & 1u) << i;
    }
#endif
    to[j] = used ? word & used[j] : word;
  }
}

#endif
