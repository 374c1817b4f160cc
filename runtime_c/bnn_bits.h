/* Population count: the instruction where there is one, arithmetic on the whole word elsewhere.
 *
 * __builtin_popcount without the instruction is a call into the compiler's library, many times
 * slower than the arithmetic: that is so on every Cortex-M and on baseline x86-64.
 */
#ifndef BNN_BITS_H
#define BNN_BITS_H

#include "bnn_config.h"

#if defined(__GNUC__) && (defined(__POPCNT__) || defined(__aarch64__) || defined(__riscv_zbb) || \
                          defined(__wasm__) || defined(__POWERPC__))
#  define BNN_HAS_POPCOUNT 1
#else
#  define BNN_HAS_POPCOUNT 0
#endif

/* Counts in fields of 2, 4, then 8 bits; the product adds the four bytes into the top one.
 * On 4 bits, 1011: pairs 10 and 11 become 01 and 10 (one and two set bits), their sum is 0011. */
BNN_INLINE uint32_t bnn_popcount32(uint32_t v) {
#if BNN_HAS_POPCOUNT
  return (uint32_t)__builtin_popcount(v);
#else
  v = v - ((v >> 1) & 0x55555555u);
  v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
  v = (v + (v >> 4)) & 0x0f0f0f0fu;
  return (v * 0x01010101u) >> 24;
#endif
}

BNN_INLINE uint32_t bnn_popcount64(uint64_t v) {
#if BNN_HAS_POPCOUNT
  return (uint32_t)__builtin_popcountll(v);
#else
  v = v - ((v >> 1) & 0x5555555555555555u);
  v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
  v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (uint32_t)((v * 0x0101010101010101u) >> 56);
#endif
}

#endif
