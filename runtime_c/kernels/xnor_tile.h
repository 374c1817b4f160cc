/* xnor_tile: MR pixels by NR output channels of a binary convolution, all taps in one call, so that
 * what is counted stays in registers.
 *
 *   bnn_xnor_MRxNR_wB__isa: mismatches[m * NR + n] += M(m, n), each below 2^32
 *   bnn_xnor_bits_MRxNR_wB__isa: bit n of bits[m] is M(m, n) <= limits[n]; M(m, n) < 2^15
 *
 * M(m, n) is the sum of popcount(x ^ w) over the bytes under pixel m's window. 1 <= pixels <= MR; the
 * results of other pixels are left alone. Pixel m's first byte is x[m * step].
 *
 * The weights of a block are words of B bits, [bytes * 8 / B][NR], output channels innermost: one
 * word of x serves NR channels and no sum crosses lanes. Words of x are little-endian, so that a
 * word of x is as good as its parts in order. Both have zero tails, which never mismatch.
 */
#ifndef BNN_XNOR_TILE_H
#define BNN_XNOR_TILE_H

#include "../bnn_taps.h"

#endif
