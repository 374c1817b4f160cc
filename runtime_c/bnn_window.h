/* Which taps of a window lie inside of an image. */
#ifndef BNN_WINDOW_H
#define BNN_WINDOW_H

#include "bnn_config.h"

/* Return the first tap k for which start + k * dilation >= before: start counts from the beginning
 * of the padding, which is `before` wide. */
BNN_INLINE size_t bnn_first_tap(size_t start, size_t before, size_t dilation) {
  return start >= before ? 0u : (before - start + dilation - 1u) / dilation;
}

/* Return the end of the taps k >= first, below kernel, for which start + k * dilation < reach: reach
 * is the padding before the input and the input. */
BNN_INLINE size_t bnn_end_tap(size_t first, size_t start, size_t reach, size_t dilation,
                              size_t kernel) {
  const size_t end = start >= reach ? 0u : (reach - start + dilation - 1u) / dilation;
  const size_t within = end < kernel ? end : kernel;
  return within > first ? within : first;
}

/* Return the first output of a kind, or the end of those of the kind before it. Along an axis, outputs
 * in [first, end) see all taps and are one kind, number `first`; each of the others is one of its own,
 * in order. */
BNN_INLINE size_t bnn_first_of_kind(size_t kind, size_t first, size_t end) {
  return kind <= first ? kind : end + (kind - first - 1u);
}

#endif
