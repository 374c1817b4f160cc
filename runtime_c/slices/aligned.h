/* Slices start on whole words: where a load from elsewhere is several, or a fault. */
#ifndef BNN_SLICES_ALIGNED_H
#define BNN_SLICES_ALIGNED_H

#include "../bnn_config.h"

#define BNN_SLICES_ALIGNED 1

#endif
