/* What a classifier ends in: the index of the largest value, or the k largest. */
#ifndef BNN_TAILS_H
#define BNN_TAILS_H

#include "bnn_config.h"

/* Return the index of the largest of x[count], the lowest among equals; a NaN counts as larger than
 * any number. count is at least 1. */
BNN_INLINE int64_t bnn_argmax(size_t count, const float *x) {
  size_t best = 0;
  for (size_t c = 1; c < count; ++c) {
    if (x[best] == x[best] && !(x[c] <= x[best])) {
      best = c;
    }
  }
  return (int64_t)best;
}

/* The k largest of x[count] and their indices, falling, the lowest index first among equals; a NaN
 * counts as smaller than any number. values and indices are [k], 1 <= k <= count. */
BNN_INLINE void bnn_topk(size_t count, size_t k, const float *BNN_RESTRICT x,
                         float *BNN_RESTRICT values, int64_t *BNN_RESTRICT indices) {
  for (size_t c = 0; c < count; ++c) {
    size_t place = c < k ? c : k; /* behind the values that are there */
    while (place > 0 && (x[c] > values[place - 1u] ||
                         (values[place - 1u] != values[place - 1u] && x[c] == x[c]))) {
      --place;
      if (place + 1u < k) {
        values[place + 1u] = values[place];
        indices[place + 1u] = indices[place];
      }
    }
    if (place < k) {
      values[place] = x[c];
      indices[place] = (int64_t)c;
    }
  }
}

#endif
