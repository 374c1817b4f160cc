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

/* What vectors are read from begins where a line of cache does. */
#if defined(__GNUC__)
#  define BNN_ALIGNED(bytes) __attribute__((aligned(bytes)))
#else
#  define BNN_ALIGNED(bytes)
#endif

/* What is written once for every width, and what must not be copied into all its callers. */
#if defined(__GNUC__)
#  define BNN_ALWAYS_INLINE static inline __attribute__((always_inline, unused))
#  define BNN_NEVER_INLINE  static __attribute__((noinline, unused))
#else
#  define BNN_ALWAYS_INLINE static inline
#  define BNN_NEVER_INLINE  static
#endif

/* A layer: a function of its own, since in what comes of many gcc may find no vectors. On x86 it does,
 * and of functions that call none less is known to be right: see below. */
#if defined(__x86_64__) || defined(__i386__)
#  define BNN_LAYER static
#else
#  define BNN_LAYER BNN_NEVER_INLINE
#endif

/* A local array that vectors are copied to. For AVX-512, gcc 12 may copy 16 bytes to one as if it were
 * aligned in a function that calls none, and where it is not; so it is aligned there. */
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#  define BNN_COPIED_TO BNN_ALIGNED(32)
#else
#  define BNN_COPIED_TO
#endif

/* A copy of a few bytes, which gcc takes for a call of a library's function under -ffreestanding. */
#if defined(__GNUC__)
#  define BNN_COPY(to, from, bytes) __builtin_memcpy(to, from, bytes)
#else
#  define BNN_COPY(to, from, bytes) memcpy(to, from, bytes)
#endif

/* Before a loop whose count is a small constant once its function is inlined. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#  define BNN_UNROLL _Pragma("GCC unroll 16")
#else
#  define BNN_UNROLL
#endif

/* A kernel keeps one result a lane, to be vectorised over its lanes. Left alone, clang prefers the
 * reduction where sums are integers, and gcc wherever it has unrolled the loop over the lanes: both
 * then shuffle more than they compute. BNN_REDUCTION stands before a loop over the reduction,
 * BNN_LANES before one over lanes, also for the small targets, where gcc keeps a loop unless asked;
 * BNN_KEEP_LANES, an empty statement that gcc does not look through, between terms and sums. */
#if defined(__clang__)
#  define BNN_REDUCTION _Pragma("clang loop vectorize(disable)")
#  define BNN_LANES
#  define BNN_KEEP_LANES ((void)0)
#elif defined(__GNUC__) && __GNUC__ >= 8
#  define BNN_REDUCTION
#  define BNN_LANES      _Pragma("GCC unroll 8")
#  define BNN_KEEP_LANES __asm__("")
#else
#  define BNN_REDUCTION
#  define BNN_LANES
#  define BNN_KEEP_LANES ((void)0)
#endif

#endif
