/* real_sum_tile: MR pixels by NR output channels, all taps in one call, so that sums stay in
 * registers and a weight is loaded once for all pixels.
 *
 *   bnn_real_sum_MRxNR__isa: sums[m * NR + n] is to the bit what real_sum would add to it
 *
 * of the floats under pixel m's window, in the order of its rows, runs and bytes. 1 <= pixels <= MR;
 * the sums of other pixels are left alone. Pixel m's first byte is x[m * step]. The weights of a block
 * are [bytes / 4][NR], output channels innermost.
 */
#ifndef BNN_REAL_SUM_TILE_H
#define BNN_REAL_SUM_TILE_H

#include "../bnn_taps.h"

/* Between a product and its sum: gcc and clang, told to, fuse those of intrinsics too. */
#if defined(__GNUC__)
#  define BNN_KEEP_PRODUCT(vector) __asm__("" : "+v"(vector))
#else
#  define BNN_KEEP_PRODUCT(vector) (void)(vector)
#endif

#endif
