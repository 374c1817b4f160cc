/* Numbers in bit slices: slice i holds bit i of one number a lane.
 *
 * A layer with constant weights shares its sums between output channels. The planes (one bit a lane)
 * that enter a group of K channels fall into 2^(K-1) classes by the signs that the channels give them;
 * each class is summed once, and the channels are sums and differences of the classes.
 *
 * Functions take the width of their numbers as a constant: they are inlined into one function a
 * width, where their loops unroll.
 */
#ifndef BNN_SLICES_H
#define BNN_SLICES_H

#include "bnn_config.h"

/* A header under slices/ comes first. */
#if !defined(BNN_SLICE_LANES)
#  error "bnncc: no slices to work on"
#endif

/* s + a + b = s' + 2 * the result. One XOR alone lies on the way from s to s'. */
#if !defined(BNN_SLICE_FULL_ADD)
BNN_ALWAYS_INLINE bnn_slice bnn_full_add(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice t = bnn_slice_xor(a, b);
  const bnn_slice carry = bnn_slice_or(bnn_slice_and(a, b), bnn_slice_and(*s, t));
  *s = bnn_slice_xor(*s, t);
  return carry;
}

/* a - b - s = s' - 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_full_subtract(bnn_slice *s, bnn_slice a, bnn_slice b) {
  const bnn_slice t = bnn_slice_xor(a, b);
  const bnn_slice borrow = bnn_slice_or(bnn_slice_without(b, a), bnn_slice_without(*s, t));
  *s = bnn_slice_xor(*s, t);
  return borrow;
}
#endif

/* s + a = s' + 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_half_add(bnn_slice *s, bnn_slice a) {
  const bnn_slice carry = bnn_slice_and(*s, a);
  *s = bnn_slice_xor(*s, a);
  return carry;
}

#if defined(BNN_SLICE_PAIRS)
/* Two numbers of one bit as one of them and their XOR. Two full adders take 8 gates so, where they
 * take 10 apart. */
typedef struct {
  bnn_slice first, differ;
} bnn_pair;

/* s + both of x + both of y = s' + 2 * both of the result. */
BNN_ALWAYS_INLINE bnn_pair bnn_add_pairs(bnn_slice *s, bnn_pair x, bnn_pair y) {
  const bnn_slice sum = bnn_slice_xor(*s, x.differ);
  const bnn_slice any = bnn_slice_or(x.differ, bnn_slice_xor(x.first, sum));
  const bnn_slice other = bnn_slice_without(bnn_slice_xor(y.first, sum), y.differ);
  const bnn_pair carries = {bnn_slice_xor(sum, any), bnn_slice_xor(any, other)};
  *s = bnn_slice_xor(y.differ, sum);
  return carries;
}

/* s + both of x = s' + 2 * the result. */
BNN_ALWAYS_INLINE bnn_slice bnn_add_pair(bnn_slice *s, bnn_pair x) {
  const bnn_slice choice = bnn_slice_and(bnn_slice_xor(*s, x.first), x.differ);
  *s = bnn_slice_xor(*s, x.differ);
  return bnn_slice_xor(choice, x.first);
}

BNN_ALWAYS_INLINE bnn_pair bnn_as_pair(bnn_slice a, bnn_slice b) {
  const bnn_pair pair = {a, bnn_slice_xor(a, b)};
  return pair;
}
#endif

/* Counts planes: the bits of weight 1 to 8. */
typedef struct {
  bnn_slice of1, of2, of4, of8;
} bnn_counter;

/* What the places of planes are counted from. */
#if !defined(BNN_SLICE_BASES)
typedef const uint8_t *bnn_bases;

BNN_ALWAYS_INLINE bnn_bases bnn_bases_at(const uint8_t *planes) {
  return planes;
}

BNN_ALWAYS_INLINE bnn_slice bnn_slice_at(bnn_bases planes, size_t place) {
  return bnn_slice_load(planes + place);
}
#endif

/* Where planes start, in units of `unit` bytes, as uint16_t, or uint32_t if `wide`. */
typedef struct {
  const void *at;
  unsigned wide;
  unsigned unit;
} bnn_list;

BNN_ALWAYS_INLINE bnn_slice bnn_plane(bnn_bases planes, bnn_list list, size_t i) {
  const size_t place = list.wide ? ((const uint32_t *)list.at)[i] : ((const uint16_t *)list.at)[i];
  return bnn_slice_at(planes, place * list.unit);
}

BNN_ALWAYS_INLINE bnn_list bnn_list_from(bnn_list list, size_t i) {
  const uint8_t *at = (const uint8_t *)list.at;
  list.at = at + i * (list.wide ? sizeof(uint32_t) : sizeof(uint16_t));
  return list;
}

/* Between fours of planes: gcc loads as many ahead as it sees, more than there are registers. */
#if defined(BNN_SLICE_FENCE) && defined(__GNUC__)
#  define BNN_FENCE __asm__ volatile("" ::: "memory")
#else
#  define BNN_FENCE ((void)0)
#endif

/* Planes that leave a counter with weight 4: four planes at a time make one, or a pair. */
#if defined(BNN_SLICE_PAIRS)
typedef bnn_pair bnn_fours;

BNN_ALWAYS_INLINE bnn_fours bnn_no_fours(void) {
  const bnn_fours none = {bnn_slice_fill(0), bnn_slice_fill(0)};
  return none;
}

BNN_ALWAYS_INLINE bnn_fours bnn_count4(bnn_counter *c, bnn_bases planes, bnn_list list) {
  BNN_FENCE;
  const bnn_pair x = bnn_as_pair(bnn_plane(planes, list, 0), bnn_plane(planes, list, 1));
  const bnn_pair y = bnn_as_pair(bnn_plane(planes, list, 2), bnn_plane(planes, list, 3));
  return bnn_add_pairs(&c->of1, x, y);
}

/* Add what eight planes left; the carry of weight 8. */
BNN_ALWAYS_INLINE bnn_slice bnn_count_fours(bnn_counter *c, bnn_fours x, bnn_fours y) {
  return bnn_add_pair(&c->of4, bnn_add_pairs(&c->of2, x, y));
}
#else
typedef bnn_slice bnn_fours;

BNN_ALWAYS_INLINE bnn_fours bnn_no_fours(void) {
  return bnn_slice_fill(0);
}

BNN_ALWAYS_INLINE bnn_fours bnn_count4(bnn_counter *c, bnn_bases planes, bnn_list list) {
  BNN_FENCE;
  bnn_slice of3 = bnn_plane(planes, list, 0);
  const bnn_slice a = bnn_full_add(&of3, bnn_plane(planes, list, 1), bnn_plane(planes, list, 2));
  const bnn_slice b = bnn_full_add(&c->of1, of3, bnn_plane(planes, list, 3));
  return bnn_full_add(&c->of2, a, b);
}

BNN_ALWAYS_INLINE bnn_slice bnn_count_fours(bnn_counter *c, bnn_fours x, bnn_fours y) {
  return bnn_full_add(&c->of4, x, y);
}
#endif

/* Count eight planes; the carry of weight 8. */
#if defined(BNN_SLICE_PAIRS) && !defined(BNN_SLICE_IN_A_ROW)
/* The first five are added before the counter comes in, which so waits for fewer gates. */
BNN_ALWAYS_INLINE bnn_slice bnn_count8(bnn_counter *c, bnn_bases planes, bnn_list list) {
  BNN_FENCE;
  bnn_slice of5 = bnn_plane(planes, list, 0);
  const bnn_pair a = bnn_as_pair(bnn_plane(planes, list, 1), bnn_plane(planes, list, 2));
  const bnn_pair b = bnn_as_pair(bnn_plane(planes, list, 3), bnn_plane(planes, list, 4));
  const bnn_pair x = bnn_add_pairs(&of5, a, b);
  BNN_FENCE;
  const bnn_pair d = bnn_as_pair(of5, bnn_plane(planes, list, 5));
  const bnn_pair e = bnn_as_pair(bnn_plane(planes, list, 6), bnn_plane(planes, list, 7));
  const bnn_pair y = bnn_add_pairs(&c->of1, d, e);
  return bnn_count_fours(c, x, y);
}
#else
BNN_ALWAYS_INLINE bnn_slice bnn_count8(bnn_counter *c, bnn_bases planes, bnn_list list) {
  const bnn_fours x = bnn_count4(c, planes, list);
  return bnn_count_fours(c, x, bnn_count4(c, planes, bnn_list_from(list, 4)));
}
#endif

/* Add planes, four at a time, to a counter. Carries of weight 16 go to `carries`, an even number of
 * them; its end. There is one for 16 planes, and up to three more. */
BNN_ALWAYS_INLINE bnn_slice *bnn_count(bnn_counter *c, bnn_bases planes, bnn_list list,
                                       size_t fours, bnn_slice *carries) {
  bnn_slice *next = carries;
  for (; fours >= 4u; fours -= 4u, list = bnn_list_from(list, 16)) {
    const bnn_slice a = bnn_count8(c, planes, list);
    *next++ = bnn_full_add(&c->of8, a, bnn_count8(c, planes, bnn_list_from(list, 8)));
  }
  if (fours & 2u) {
    *next++ = bnn_half_add(&c->of8, bnn_count8(c, planes, list));
    list = bnn_list_from(list, 8);
  }
  if (fours & 1u) {
    const bnn_slice a = bnn_count_fours(c, bnn_count4(c, planes, list), bnn_no_fours());
    *next++ = bnn_half_add(&c->of8, a);
  }
  *next = bnn_slice_fill(0);
  return next + ((next - carries) & 1);
}

/* Add carries to the upper bits of a sum. */
BNN_ALWAYS_INLINE void bnn_count_carries(unsigned bits, bnn_slice *high, const bnn_slice *carries,
                                         const bnn_slice *end) {
  for (; carries < end; carries += 2) {
    bnn_slice carry = bnn_full_add(&high[0], carries[0], carries[1]);
    BNN_UNROLL
    for (unsigned i = 1; i < bits; ++i) {
      carry = bnn_half_add(&high[i], carry);
    }
  }
}

/* The number of `fours`, one at least, times four planes that are 1 in each lane, [bits]. */
BNN_ALWAYS_INLINE void bnn_class_sum(unsigned bits, const uint8_t *planes, bnn_list list,
                                     size_t fours, bnn_slice *carries, bnn_slice *sum) {
  const bnn_slice none = bnn_slice_fill(0);
  const bnn_bases bases = bnn_bases_at(planes);
  bnn_counter c = {bnn_plane(bases, list, 0), none, none, none};
  c.of2 = bnn_full_add(&c.of1, bnn_plane(bases, list, 1), bnn_plane(bases, list, 2));
  c.of4 = bnn_half_add(&c.of2, bnn_half_add(&c.of1, bnn_plane(bases, list, 3)));
  const bnn_slice *end = bnn_count(&c, bases, bnn_list_from(list, 4), fours - 1u, carries);
  sum[0] = c.of1;
  sum[1] = c.of2;
  sum[2] = c.of4;
  sum[3] = c.of8;
  bnn_slice high[14];
  BNN_UNROLL
  for (unsigned i = 4; i < bits; ++i) {
    high[i - 4u] = none;
  }
  bnn_count_carries(bits - 4u, high, carries, end);
  BNN_UNROLL
  for (unsigned i = 4; i < bits; ++i) {
    sum[i] = high[i - 4u];
  }
}

/* What planes count: those in part i of a list 2^i, and 2^(i + p) plane p of an element if `codes`.
 * The planes of an element are `bytes` apart. */
typedef struct {
  unsigned parts, planes;
  size_t bytes;
  unsigned codes;
} bnn_weights;

/* What all parts of a list count in each lane, [bits]; the fours of all of them.
 *
 * From the lowest power of two up, each starts from what the lower ones have carried. */
BNN_ALWAYS_INLINE size_t bnn_weighted_sum(unsigned bits, const uint8_t *planes, bnn_list list,
                                          const uint16_t *fours, bnn_weights weights,
                                          bnn_slice *carries, bnn_slice *sum) {
  const bnn_slice none = bnn_slice_fill(0);
  const unsigned powers = weights.parts + (weights.codes ? weights.planes - 1u : 0);
  bnn_counter c = {none, none, none, none};
  bnn_slice high[14];
  BNN_UNROLL
  for (unsigned i = 4; i < bits; ++i) {
    high[i - 4u] = none;
  }
  for (unsigned power = 0; power < powers; ++power) {
    bnn_list part = list;
    for (unsigned i = 0; i < weights.parts && i <= power; ++i) {
      const unsigned first = weights.codes ? power - i : 0;
      const unsigned end = weights.codes ? first + 1u : i == power ? weights.planes : 0;
      for (unsigned p = first; p < end && p < weights.planes; ++p) {
        const bnn_bases bases = bnn_bases_at(planes + p * weights.bytes);
        bnn_count_carries(bits - 4u, high, carries, bnn_count(&c, bases, part, fours[i], carries));
      }
      part = bnn_list_from(part, 4u * (size_t)fours[i]);
    }
    if (power + 1u < powers) {
      sum[power] = c.of1;
      c.of1 = c.of2;
      c.of2 = c.of4;
      c.of4 = c.of8;
      c.of8 = high[0];
      BNN_UNROLL
      for (unsigned i = 4; i < bits; ++i) {
        high[i - 4u] = i + 1u < bits ? high[i - 3u] : none;
      }
    }
  }
  const bnn_slice low[4] = {c.of1, c.of2, c.of4, c.of8};
  BNN_UNROLL
  for (unsigned i = powers - 1u; i < bits; ++i) {
    sum[i] = i < powers + 3u ? low[i + 1u - powers] : high[i - powers - 3u];
  }
  size_t all = 0;
  for (unsigned i = 0; i < weights.parts; ++i) {
    all += fours[i];
  }
  return all;
}

/* r = x + y: [bits] each, the result one bit more. r may be x. */
BNN_ALWAYS_INLINE void bnn_slices_add(unsigned bits, bnn_slice *r, const bnn_slice *x,
                                      const bnn_slice *y) {
  bnn_slice sum = x[0];
  bnn_slice carry = bnn_half_add(&sum, y[0]);
  r[0] = sum;
  BNN_UNROLL
  for (unsigned i = 1; i < bits; ++i) {
    sum = carry;
    carry = bnn_full_add(&sum, x[i], y[i]);
    r[i] = sum;
  }
  r[bits] = carry;
}

/* r = x + y: x of [bits], y of [narrow], which are no more, the result of [after], which hold it. r
 * may be x. */
BNN_ALWAYS_INLINE void bnn_slices_add_narrow(unsigned bits, unsigned narrow, unsigned after,
                                             bnn_slice *r, const bnn_slice *x, const bnn_slice *y) {
  bnn_slice carry = bnn_slice_and(x[0], y[0]);
  r[0] = bnn_slice_xor(x[0], y[0]);
  BNN_UNROLL
  for (unsigned i = 1; i < narrow; ++i) {
    const bnn_slice a = x[i];
    const bnn_slice b = y[i];
    const bnn_slice t = bnn_slice_xor(a, b);
    r[i] = bnn_slice_xor(t, carry);
    carry = bnn_slice_or(bnn_slice_and(a, b), bnn_slice_and(t, carry));
  }
  BNN_UNROLL
  for (unsigned i = narrow; i < bits; ++i) {
    const bnn_slice a = x[i];
    r[i] = bnn_slice_xor(a, carry);
    carry = bnn_slice_and(a, carry);
  }
  if (after > bits) {
    r[bits] = carry;
  }
}

/* More bits to a number: 0. */
BNN_ALWAYS_INLINE void bnn_slices_extend(unsigned bits, unsigned width, bnn_slice *x) {
  for (unsigned i = bits; i < width; ++i) {
    x[i] = bnn_slice_fill(0);
  }
}

/* r = x - 2 y + 2^bits: x has [bits], y one less, the result one more. */
BNN_ALWAYS_INLINE void bnn_slices_less_twice(unsigned bits, bnn_slice *r, const bnn_slice *x,
                                             const bnn_slice *y) {
  bnn_slice borrow = bnn_slice_fill(0);
  r[0] = x[0];
  BNN_UNROLL
  for (unsigned i = 1; i < bits; ++i) {
    bnn_slice rest = borrow;
    borrow = bnn_full_subtract(&rest, x[i], y[i - 1u]);
    r[i] = rest;
  }
  r[bits] = bnn_slice_not(borrow);
}

/* The lanes where x < limit <= 2^bits - 1. */
BNN_ALWAYS_INLINE bnn_slice bnn_slices_below(unsigned bits, const bnn_slice *x, uint32_t limit) {
  bnn_slice reached = bnn_slice_fill(1);
  BNN_UNROLL
  for (unsigned i = 0; i < bits; ++i) {
    if ((limit >> i) & 1u) {
      reached = bnn_slice_and(reached, x[i]);
    } else {
      reached = bnn_slice_or(reached, x[i]);
    }
  }
  return bnn_slice_not(reached);
}

#endif
