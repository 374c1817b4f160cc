/* xnor_tile on AVX2, which counts no bits: a lane of 8 bits for each output channel, and vpshufb to
 * look up how many bits differ in 4 of them.
 *
 * Two ways, on the same weights. By lookup: the nibble a of a pixel chooses the table of
 * popcount(a ^ i) for i < 16, and the nibbles of 32 channels' weights their entries of it; the
 * weights' nibbles are taken apart once for all pixels. By shuffle: the table of popcount(i), and
 * the nibbles of x ^ w. A pixel costs 4 instructions for 256 bits or 8; but lookup needs a load
 * each, which a pixel on its own does not hide.
 */
#ifndef BNN_XNOR_AVX2_H
#define BNN_XNOR_AVX2_H

#if !defined(__AVX2__)
#  error "bnncc: this file is for AVX2: -march=x86-64-v3, or -mavx2"
#endif

#include <immintrin.h>

#include "../kernels/xnor_tile.h"

/* 16 entries, popcount(a ^ i); a in 16 bits as four sums of one bit each. */
#define BNN_BIT(a, i, b) ((((a) ^ (i)) >> (b)) & 1)
#define BNN_ENTRY(a, i)  (BNN_BIT(a, i, 0) + BNN_BIT(a, i, 1) + BNN_BIT(a, i, 2) + BNN_BIT(a, i, 3))
#define BNN_ROW(a)                                                         \
  {BNN_ENTRY(a, 0),  BNN_ENTRY(a, 1),  BNN_ENTRY(a, 2),  BNN_ENTRY(a, 3),  \
   BNN_ENTRY(a, 4),  BNN_ENTRY(a, 5),  BNN_ENTRY(a, 6),  BNN_ENTRY(a, 7),  \
   BNN_ENTRY(a, 8),  BNN_ENTRY(a, 9),  BNN_ENTRY(a, 10), BNN_ENTRY(a, 11), \
   BNN_ENTRY(a, 12), BNN_ENTRY(a, 13), BNN_ENTRY(a, 14), BNN_ENTRY(a, 15)}

static const uint8_t bnn_differing_bits[16][16] BNN_ALIGNED(64) = {
    BNN_ROW(0),  BNN_ROW(1),  BNN_ROW(2),  BNN_ROW(3), BNN_ROW(4),  BNN_ROW(5),
    BNN_ROW(6),  BNN_ROW(7),  BNN_ROW(8),  BNN_ROW(9), BNN_ROW(10), BNN_ROW(11),
    BNN_ROW(12), BNN_ROW(13), BNN_ROW(14), BNN_ROW(15)};

BNN_ALWAYS_INLINE __m256i bnn_differing(size_t nibble) {
  const void *row = bnn_differing_bits[nibble];
  return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)row));
}

BNN_ALWAYS_INLINE __m256i bnn_load__avx2(const void *from) {
  return _mm256_loadu_si256((const __m256i *)from);
}

/* Add the bits of one byte of x that differ from the weights w to counts of 8 bits. */
BNN_ALWAYS_INLINE void bnn_xnor_lookup__avx2(const size_t pixels, const size_t vectors, size_t step,
                                             const unsigned char *x, const uint8_t *w,
                                             __m256i *counts) {
  const __m256i nibbles = _mm256_set1_epi8(15);
  __m256i low[2];
  __m256i high[2];
  BNN_UNROLL
  for (size_t j = 0; j < vectors; ++j) {
    const __m256i words = bnn_load__avx2(w + 32u * j);
    low[j] = _mm256_and_si256(words, nibbles);
    high[j] = _mm256_and_si256(_mm256_srli_epi16(words, 4), nibbles);
  }
  BNN_UNROLL
  for (size_t m = 0; m < pixels; ++m) {
    const size_t a = x[m * step];
    const __m256i first = bnn_differing(a & 15u);
    const __m256i second = bnn_differing(a >> 4);
    BNN_UNROLL
    for (size_t j = 0; j < vectors; ++j) {
      __m256i *count = counts + m * vectors + j;
      *count = _mm256_add_epi8(*count, _mm256_shuffle_epi8(first, low[j]));
      *count = _mm256_add_epi8(*count, _mm256_shuffle_epi8(second, high[j]));
    }
  }
}

/* The same for a pixel on its own. */
BNN_ALWAYS_INLINE void bnn_xnor_shuffle__avx2(const size_t vectors, const unsigned char *x,
                                              const uint8_t *w, __m256i *counts) {
  const __m256i nibbles = _mm256_set1_epi8(15);
  const __m256i ones = bnn_differing(0);
  const __m256i a = _mm256_set1_epi8((char)*x);
  BNN_UNROLL
  for (size_t j = 0; j < vectors; ++j) {
    const __m256i differ = _mm256_xor_si256(a, bnn_load__avx2(w + 32u * j));
    const __m256i low = _mm256_and_si256(differ, nibbles);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(differ, 4), nibbles);
    const __m256i both =
        _mm256_add_epi8(_mm256_shuffle_epi8(ones, low), _mm256_shuffle_epi8(ones, high));
    counts[j] = _mm256_add_epi8(counts[j], both);
  }
}

/* Add counts of 8 bits to those of 16: channels 0 to 7 and 16 to 23 of a vector's 32 to the first
 * of two, the others to the second. */
BNN_ALWAYS_INLINE void bnn_xnor_widen__avx2(const size_t vectors, const __m256i *counts,
                                            __m256i *sums) {
  const __m256i zero = _mm256_setzero_si256();
  BNN_UNROLL
  for (size_t i = 0; i < vectors; ++i) {
    sums[2u * i] = _mm256_add_epi16(sums[2u * i], _mm256_unpacklo_epi8(counts[i], zero));
    sums[2u * i + 1u] = _mm256_add_epi16(sums[2u * i + 1u], _mm256_unpackhi_epi8(counts[i], zero));
  }
}

/* The bits that differ in at most 31 bytes, so that counts of 8 bits hold them; see the next. */
BNN_ALWAYS_INLINE void bnn_xnor_stretch__avx2(const size_t pixels, const size_t vectors,
                                              size_t step, size_t bytes, const unsigned char *x,
                                              const uint8_t *w, __m256i *sums) {
  __m256i counts[8];
  BNN_UNROLL
  for (size_t i = 0; i < pixels * vectors; ++i) {
    counts[i] = _mm256_setzero_si256();
  }
  for (size_t k = 0; k < bytes; ++k) {
    if (pixels == 1u) {
      bnn_xnor_shuffle__avx2(vectors, x + k, w + k * vectors * 32u, counts);
    } else {
      bnn_xnor_lookup__avx2(pixels, vectors, step, x + k, w + k * vectors * 32u, counts);
    }
  }
  bnn_xnor_widen__avx2(pixels * vectors, counts, sums);
}

/* sums is [pixels][vectors][2] of 16 bits a channel, which hold fewer than 2^16 bits under the window;
 * `pixels` and `vectors` are literals. */
BNN_ALWAYS_INLINE void bnn_xnor_counts__avx2(const size_t pixels, const size_t vectors, size_t step,
                                             const bnn_taps *taps, const unsigned char *x,
                                             const uint8_t *w, __m256i *sums) {
  BNN_UNROLL
  for (size_t i = 0; i < 2u * pixels * vectors; ++i) {
    sums[i] = _mm256_setzero_si256();
  }
  for (size_t row = 0; row < taps->rows; ++row) {
    const uint8_t *each = w + row * taps->w_row * vectors * 32u;
    for (size_t run = 0; run < taps->runs; ++run) {
      const unsigned char *from = x + row * taps->x_row + run * taps->x_run;
      for (size_t left = taps->bytes; left > 0;) {
        const size_t bytes = left < 31u ? left : 31u;
        bnn_xnor_stretch__avx2(pixels, vectors, step, bytes, from, each, sums);
        from += bytes;
        each += bytes * vectors * 32u;
        left -= bytes;
      }
    }
  }
}

/* Add 8 counts of 16 bits. */
BNN_ALWAYS_INLINE void bnn_xnor_add__avx2(uint32_t *mismatches, __m128i counts) {
  const __m256i sum = _mm256_add_epi32(bnn_load__avx2(mismatches), _mm256_cvtepu16_epi32(counts));
  void *to = mismatches;
  _mm256_storeu_si256((__m256i *)to, sum);
}

/* mismatches += sums, for at most 2^16 - 1 bits under the window. */
BNN_ALWAYS_INLINE void bnn_xnor_part__avx2(const size_t pixels, const size_t vectors, size_t step,
                                           const bnn_taps *taps, const unsigned char *x,
                                           const uint8_t *w, uint32_t *mismatches) {
  __m256i sums[16];
  bnn_xnor_counts__avx2(pixels, vectors, step, taps, x, w, sums);
  BNN_UNROLL
  for (size_t i = 0; i < pixels * vectors; ++i) {
    uint32_t *to = mismatches + 32u * i;
    bnn_xnor_add__avx2(to, _mm256_castsi256_si128(sums[2u * i]));
    bnn_xnor_add__avx2(to + 8, _mm256_castsi256_si128(sums[2u * i + 1u]));
    bnn_xnor_add__avx2(to + 16, _mm256_extracti128_si256(sums[2u * i], 1));
    bnn_xnor_add__avx2(to + 24, _mm256_extracti128_si256(sums[2u * i + 1u], 1));
  }
}

/* The same for any number: each run in parts that hold few enough. */
BNN_ALWAYS_INLINE void bnn_xnor_sums__avx2(const size_t pixels, const size_t vectors, size_t step,
                                           const bnn_taps *taps, const unsigned char *x,
                                           const uint8_t *w, uint32_t *mismatches) {
  const size_t most = 8188u; /* bytes, a multiple of 4, of fewer than 2^16 bits */
  if (taps->rows * taps->runs * taps->bytes <= most) {
    bnn_xnor_part__avx2(pixels, vectors, step, taps, x, w, mismatches);
    return;
  }
  for (size_t row = 0; row < taps->rows; ++row) {
    for (size_t run = 0; run < taps->runs; ++run) {
      const unsigned char *from = x + row * taps->x_row + run * taps->x_run;
      const uint8_t *each = w + (row * taps->w_row + run * taps->bytes) * vectors * 32u;
      for (size_t done = 0; done < taps->bytes; done += most) {
        const size_t left = taps->bytes - done;
        const bnn_taps part = {1u, 1u, left < most ? left : most, 0u, 0u, 0u};
        bnn_xnor_part__avx2(pixels, vectors, step, &part, from + done, each + done * vectors * 32u,
                            mismatches);
      }
    }
  }
}

/* Which of 32 channels count at most their limit. */
BNN_ALWAYS_INLINE uint32_t bnn_xnor_within__avx2(const __m256i *sums, const int16_t *limits) {
  const __m256i early = bnn_load__avx2(limits);
  const __m256i late = bnn_load__avx2(limits + 16);
  /* In the order of `bnn_xnor_widen`, which packing undoes. */
  const __m256i first = _mm256_cmpgt_epi16(sums[0], _mm256_permute2x128_si256(early, late, 0x20));
  const __m256i second = _mm256_cmpgt_epi16(sums[1], _mm256_permute2x128_si256(early, late, 0x31));
  return ~(uint32_t)_mm256_movemask_epi8(_mm256_packs_epi16(first, second));
}

BNN_ALWAYS_INLINE void bnn_xnor_compare__avx2(const size_t pixels, const size_t vectors,
                                              size_t step, const bnn_taps *taps,
                                              const unsigned char *x, const uint8_t *w,
                                              const int16_t *limits, uint64_t *bits) {
  __m256i sums[16];
  bnn_xnor_counts__avx2(pixels, vectors, step, taps, x, w, sums);
  BNN_UNROLL
  for (size_t m = 0; m < pixels; ++m) {
    bits[m] = bnn_xnor_within__avx2(&sums[2u * m * vectors], limits);
    if (vectors == 2u) {
      const uint32_t above = bnn_xnor_within__avx2(&sums[4u * m + 2u], limits + 32);
      bits[m] |= (uint64_t)above << 32;
    }
  }
}

BNN_NEVER_INLINE void bnn_xnor_4x64_w8__avx2(size_t pixels, size_t step, const bnn_taps *taps,
                                             const void *x, const uint8_t *w,
                                             uint32_t *mismatches) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_4(bnn_xnor_sums__avx2, 2u, step, taps, bytes, w, mismatches)
}

BNN_NEVER_INLINE void bnn_xnor_bits_4x64_w8__avx2(size_t pixels, size_t step, const bnn_taps *taps,
                                                  const void *x, const uint8_t *w,
                                                  const int16_t *limits, uint64_t *bits) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_4(bnn_xnor_compare__avx2, 2u, step, taps, bytes, w, limits, bits)
}

BNN_NEVER_INLINE void bnn_xnor_4x32_w8__avx2(size_t pixels, size_t step, const bnn_taps *taps,
                                             const void *x, const uint8_t *w,
                                             uint32_t *mismatches) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_4(bnn_xnor_sums__avx2, 1u, step, taps, bytes, w, mismatches)
}

BNN_NEVER_INLINE void bnn_xnor_bits_4x32_w8__avx2(size_t pixels, size_t step, const bnn_taps *taps,
                                                  const void *x, const uint8_t *w,
                                                  const int16_t *limits, uint64_t *bits) {
  const unsigned char *bytes = (const unsigned char *)x;
  BNN_EACH_OF_4(bnn_xnor_compare__avx2, 1u, step, taps, bytes, w, limits, bits)
}

#endif
