/* Slices of 256 lanes in two NEON registers: two sums share one walk of a list. */
#ifndef BNN_SLICES_NEON_H
#define BNN_SLICES_NEON_H

#include "../slices/words.h"

#define BNN_SLICE_LANES 256u

#if defined(__ARM_NEON)
#  include <arm_neon.h>

#  define BNN_SLICE_FENCE 1

typedef struct {
  uint8x16_t v[2];
} bnn_slice;

BNN_INLINE bnn_slice bnn_slice_load(const uint8_t *at) {
  bnn_slice s;
  s.v[0] = vld1q_u8(at);
  s.v[1] = vld1q_u8(at + 16);
  return s;
}

#  if defined(__aarch64__)
/* A load adds a base and a place, but not 16 as well: each half has a base of its own, which the
 * compiler must not know to be 16 bytes from the other. */
#    define BNN_SLICE_BASES 1
typedef struct {
  const uint8_t *of[2];
} bnn_bases;

BNN_ALWAYS_INLINE bnn_bases bnn_bases_at(const uint8_t *planes) {
  bnn_bases bases = {{planes, planes + 16}};
#    if defined(__GNUC__)
  __asm__("" : "+r"(bases.of[1]));
#    endif
  return bases;
}

BNN_ALWAYS_INLINE bnn_slice bnn_slice_at(bnn_bases bases, size_t place) {
  bnn_slice s;
  s.v[0] = vld1q_u8(bases.of[0] + place);
  s.v[1] = vld1q_u8(bases.of[1] + place);
  return s;
}
#  endif

BNN_INLINE void bnn_slice_store(uint8_t *at, bnn_slice s) {
  vst1q_u8(at, s.v[0]);
  vst1q_u8(at + 16, s.v[1]);
}

BNN_INLINE bnn_slice bnn_slice_fill(uint32_t bit) {
  bnn_slice s;
  s.v[0] = vdupq_n_u8((uint8_t)(0u - (bit & 1u)));
  s.v[1] = s.v[0];
  return s;
}

BNN_INLINE bnn_slice bnn_slice_and(bnn_slice a, bnn_slice b) {
  bnn_slice r;
  r.v[0] = vandq_u8(a.v[0], b.v[0]);
  r.v[1] = vandq_u8(a.v[1], b.v[1]);
  return r;
}

BNN_INLINE bnn_slice bnn_slice_or(bnn_slice a, bnn_slice b) {
  bnn_slice r;
  r.v[0] = vorrq_u8(a.v[0], b.v[0]);
  r.v[1] = vorrq_u8(a.v[1], b.v[1]);
  return r;
}

BNN_INLINE bnn_slice bnn_slice_xor(bnn_slice a, bnn_slice b) {
  bnn_slice r;
  r.v[0] = veorq_u8(a.v[0], b.v[0]);
  r.v[1] = veorq_u8(a.v[1], b.v[1]);
  return r;
}

BNN_INLINE bnn_slice bnn_slice_without(bnn_slice a, bnn_slice b) {
  bnn_slice r;
  r.v[0] = vbicq_u8(a.v[0], b.v[0]);
  r.v[1] = vbicq_u8(a.v[1], b.v[1]);
  return r;
}

BNN_INLINE bnn_slice bnn_slice_not(bnn_slice a) {
  bnn_slice r;
  r.v[0] = vmvnq_u8(a.v[0]);
  r.v[1] = vmvnq_u8(a.v[1]);
  return r;
}

/* s + a + b = s' + 2 * the result. */
#  define BNN_SLICE_FULL_ADD 1
BNN_ALWAYS_INLINE bnn_slice bnn_full_add(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice t = bnn_slice_xor(a, b);
  bnn_slice carry;
  carry.v[0] = vbslq_u8(t.v[0], s->v[0], a.v[0]);
  carry.v[1] = vbslq_u8(t.v[1], s->v[1], a.v[1]);
  *s = bnn_slice_xor(*s, t);
  return carry;
}

/* a - b - s = s' - 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_full_subtract(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice t = bnn_slice_xor(a, b);
  bnn_slice borrow;
  borrow.v[0] = vbslq_u8(t.v[0], b.v[0], s->v[0]);
  borrow.v[1] = vbslq_u8(t.v[1], b.v[1], s->v[1]);
  *s = bnn_slice_xor(*s, t);
  return borrow;
}

#else

BNN_SLICES_OF_WORDS(4u)

#endif

#endif
