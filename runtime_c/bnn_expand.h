/* Bits put apart and together again: what a channel shuffle does to the words of a pixel.
 *
 * Source: Warren, Hacker's Delight, 7-2 (half of a perfect shuffle, and its inverse).
 */
#ifndef BNN_EXPAND_H
#define BNN_EXPAND_H

#include "bnn_config.h"

/* Bit i of the result's even bits is bit i of v, for all bits of the lower half; odd bits are 0. */
BNN_INLINE uint32_t bnn_expand_w32(uint32_t v) {
  v &= 0x0000ffffu;
  v = (v | (v << 8)) & 0x00ff00ffu;
  v = (v | (v << 4)) & 0x0f0f0f0fu;
  v = (v | (v << 2)) & 0x33333333u;
  return (v | (v << 1)) & 0x55555555u;
}

BNN_INLINE uint64_t bnn_expand_w64(uint64_t v) {
  v &= 0x00000000ffffffffu;
  v = (v | (v << 16)) & 0x0000ffff0000ffffu;
  v = (v | (v << 8)) & 0x00ff00ff00ff00ffu;
  v = (v | (v << 4)) & 0x0f0f0f0f0f0f0f0fu;
  v = (v | (v << 2)) & 0x3333333333333333u;
  return (v | (v << 1)) & 0x5555555555555555u;
}

/* Bit i of the lower half is bit 2 i of v; the upper half is 0. */
BNN_INLINE uint32_t bnn_compress_w32(uint32_t v) {
  v &= 0x55555555u;
  v = (v | (v >> 1)) & 0x33333333u;
  v = (v | (v >> 2)) & 0x0f0f0f0fu;
  v = (v | (v >> 4)) & 0x00ff00ffu;
  return (v | (v >> 8)) & 0x0000ffffu;
}

BNN_INLINE uint64_t bnn_compress_w64(uint64_t v) {
  v &= 0x5555555555555555u;
  v = (v | (v >> 1)) & 0x3333333333333333u;
  v = (v | (v >> 2)) & 0x0f0f0f0f0f0f0f0fu;
  v = (v | (v >> 4)) & 0x00ff00ff00ff00ffu;
  v = (v | (v >> 8)) & 0x0000ffff0000ffffu;
  return (v | (v >> 16)) & 0x00000000ffffffffu;
}

#endif
