/* What the generated code asks of its compiler. */
#ifndef BNN_CONFIG_H
#define BNN_CONFIG_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#  error "bnncc: -ffast-math and its parts change results; compile this file without them"
#endif

/* 16 is for half precision; float is evaluated as float then too. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#  error "bnncc: float must be evaluated as float; on 32-bit x86 use -msse2 -mfpmath=sse"
#endif

#if defined(__cplusplus) || !defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L
#  if defined(__GNUC__)
#    define BNN_RESTRICT __restrict__
#  else
#    define BNN_RESTRICT
#  endif
#else
#  define BNN_RESTRICT restrict
#endif

/* A model uses some of the runtime's functions; the others must not warn. */
#if defined(__GNUC__)
#  define BNN_INLINE static inline __attribute__((unused))
#else
#  define BNN_INLINE static inline
#endif

#endif
