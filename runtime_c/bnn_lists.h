/* Lists of classes, built from the signs of planes.
 *
 * A group's planes come tap after tap. Each has a code of k bits: the lowest says that it enters
 * inverted, the others are its class. Codes fill words of 32 bits from below, as many as fit but 8
 * at most, and those of each tap start a word.
 */
#ifndef BNN_LISTS_H
#define BNN_LISTS_H

#include "bnn_config.h"

/* Where planes are, in the unit of a list's entries.
 *
 * taps, depth: how many there are, and planes under each.
 * step, inverted: from one plane to the next, and to its complement.
 * zeros: where a plane of zeros starts.
 */
typedef struct {
  size_t taps, depth;
  size_t step, inverted;
  size_t zeros;
} bnn_planes;

#define BNN_MOST_CLASSES 64u

/* Write an entry and return where the next one goes. */
BNN_ALWAYS_INLINE uint8_t *bnn_list_put(unsigned wide, uint8_t *at, size_t place) {
  if (wide) {
    *(uint32_t *)(void *)at = (uint32_t)place;
    return at + sizeof(uint32_t);
  }
  *(uint16_t *)(void *)at = (uint16_t)place;
  return at + sizeof(uint16_t);
}

/* Put `count` planes from `place` on, of codes in a word, into the lists of their classes, which go
 * on at next[class]. */
BNN_ALWAYS_INLINE void bnn_list_planes(unsigned k, unsigned wide, uint32_t word, size_t count,
                                       size_t place, const bnn_planes *of, uint8_t **next) {
  const size_t step = of->step;
  const size_t inverted = of->inverted;
  const uint32_t classes = (uint32_t)1 << (k - 1u);
  BNN_UNROLL
  for (size_t i = 0; i < count; ++i, place += step, word >>= k) {
    uint8_t **at = &next[(word >> 1) & (classes - 1u)];
    *at = bnn_list_put(wide, *at, place + (word & 1u) * inverted);
  }
}

/* Write where the planes of each class of a group start, class after class, each filled up to fours
 * with planes of zeros.
 *
 * k: channels of the group, 1 to 7; wide: whether entries are uint32_t, not uint16_t.
 * codes: see above; places: where the planes of each tap start, less `start`, [taps] entries.
 * fours: of the entries of each class, [2^(k-1)].
 */
BNN_ALWAYS_INLINE void bnn_build_list(unsigned k, unsigned wide, const uint32_t *codes,
                                      const void *places, size_t start, const bnn_planes *of,
                                      const uint16_t *fours, void *list) {
  const size_t classes = (size_t)1 << (k - 1u);
  const size_t held = k > 4u ? 32u / k : 8u;
  const size_t size = wide ? sizeof(uint32_t) : sizeof(uint16_t);
  uint8_t *next[BNN_MOST_CLASSES];
  uint8_t *end = (uint8_t *)list;
  for (size_t c = 0; c < classes; ++c) {
    next[c] = end;
    end += 4u * size * fours[c];
  }
  for (size_t tap = 0; tap < of->taps; ++tap) {
    size_t place = wide ? ((const uint32_t *)places)[tap] : ((const uint16_t *)places)[tap];
    place += start;
    size_t left = of->depth;
    for (; left >= held; left -= held, place += held * of->step) {
      bnn_list_planes(k, wide, *codes++, held, place, of, next);
    }
    if (left > 0) {
      bnn_list_planes(k, wide, *codes++, left, place, of, next);
    }
  }
  end = (uint8_t *)list;
  for (size_t c = 0; c < classes; ++c) {
    end += 4u * size * fours[c];
    for (uint8_t *at = next[c]; at < end;) {
      at = bnn_list_put(wide, at, of->zeros);
    }
  }
}

#endif
