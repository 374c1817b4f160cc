/* Which pixels a micro-kernel that takes all taps at once finds under a window. */
#ifndef BNN_TAPS_H
#define BNN_TAPS_H

#include "bnn_config.h"

/* Which bytes of x and of the weights lie under a window: `rows` times `runs` runs of `bytes` bytes,
 * a multiple of 4. From one row to the next it is x_row bytes of x, and w_row bytes of each channel's
 * weights; within a row, x_run bytes of x from one run to the next, while the weights of its runs
 * follow one another. */
typedef struct {
  size_t rows, runs, bytes;
  size_t x_row, x_run, w_row;
} bnn_taps;

/* A tile of as many pixels as there are, up to 4 or 8, of which its code knows the number. */
#define BNN_EACH_OF_4(tile, ...) \
  switch (pixels) {              \
  case 1:                        \
    tile(1u, __VA_ARGS__);       \
    break;                       \
  case 2:                        \
    tile(2u, __VA_ARGS__);       \
    break;                       \
  case 3:                        \
    tile(3u, __VA_ARGS__);       \
    break;                       \
  default:                       \
    tile(4u, __VA_ARGS__);       \
    break;                       \
  }

#define BNN_EACH_OF_8(tile, ...) \
  switch (pixels) {              \
  case 1:                        \
    tile(1u, __VA_ARGS__);       \
    break;                       \
  case 2:                        \
    tile(2u, __VA_ARGS__);       \
    break;                       \
  case 3:                        \
    tile(3u, __VA_ARGS__);       \
    break;                       \
  case 4:                        \
    tile(4u, __VA_ARGS__);       \
    break;                       \
  case 5:                        \
    tile(5u, __VA_ARGS__);       \
    break;                       \
  case 6:                        \
    tile(6u, __VA_ARGS__);       \
    break;                       \
  case 7:                        \
    tile(7u, __VA_ARGS__);       \
    break;                       \
  default:                       \
    tile(8u, __VA_ARGS__);       \
    break;                       \
  }

#endif
