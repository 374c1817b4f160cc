/* Between words of channels and planes of pixels. */
#ifndef BNN_TRANSPOSE_H
#define BNN_TRANSPOSE_H

#include "bnn_config.h"

/* Bit j of word i becomes bit i of word j, of 32 words: halves of blocks change places, of 16, 8, 4,
 * 2 and 1 rows and columns. */
BNN_INLINE void bnn_transpose32(uint32_t *rows) {
  uint32_t mask = 0x0000ffffu;
  for (uint32_t size = 16; size > 0; size >>= 1, mask ^= mask << size) {
    for (uint32_t i = 0; i < 32u; i = (i + size + 1u) & ~size) {
      const uint32_t change = ((rows[i] >> size) ^ rows[i + size]) & mask;
      rows[i] ^= change << size;
      rows[i + size] ^= change;
    }
  }
}

#endif
