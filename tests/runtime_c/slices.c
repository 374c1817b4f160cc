/* Every function on slices against the same on single lanes; the result is the line that failed.
 *
 * SLICES is a header under slices/, WIDE and UNIT the form of lists.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include SLICES

#include "bnn_planar.h"

enum { BYTES = BNN_SLICE_LANES / 8, PLANES = 40, MOST = 70, BITS = 16 };

#if WIDE
typedef uint32_t place;
#else
typedef uint16_t place;
#endif

/* The last plane that 16 bits reach lies at the end of this. */
static union {
  uint32_t words[(65535u * UNIT + 512u) / 4u];
  uint8_t bytes[65535u * UNIT + 512u];
} room;

#define CHECK(condition) \
  if (!(condition)) {    \
    return __LINE__;     \
  }

static uint64_t state = 88172645463325252u;

static uint32_t random32(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

static bnn_slice random_slice(void) {
  uint32_t words[BYTES / 4];
  for (size_t i = 0; i < BYTES / 4; ++i) {
    words[i] = random32();
  }
  return bnn_slice_load((const uint8_t *)words);
}

static unsigned lane(bnn_slice s, size_t i) {
  uint32_t words[BYTES / 4];
  bnn_slice_store((uint8_t *)words, s);
  return (unsigned)(((const uint8_t *)words)[i / 8] >> (i % 8)) & 1u;
}

static uint32_t number(const bnn_slice *x, unsigned bits, size_t i) {
  uint32_t value = 0;
  for (unsigned bit = 0; bit < bits; ++bit) {
    value |= (uint32_t)lane(x[bit], i) << bit;
  }
  return value;
}

static int gates(void) {
  const bnn_slice a = random_slice(), b = random_slice(), c = random_slice();
  bnn_slice full = c, half = c, rest = c;
  const bnn_slice carry = bnn_full_add(&full, a, b);
  const bnn_slice borrow = bnn_full_subtract(&rest, a, b);
  const bnn_slice carry_of_half = bnn_half_add(&half, a);
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    const unsigned x = lane(a, i), y = lane(b, i), z = lane(c, i);
    CHECK(lane(bnn_slice_fill(0), i) == 0 && lane(bnn_slice_fill(1), i) == 1);
    CHECK(lane(bnn_slice_and(a, b), i) == (x & y));
    CHECK(lane(bnn_slice_or(a, b), i) == (x | y));
    CHECK(lane(bnn_slice_xor(a, b), i) == (x ^ y));
    CHECK(lane(bnn_slice_without(a, b), i) == (x & ~y));
    CHECK(lane(bnn_slice_not(a), i) == 1u - x);
    CHECK(lane(full, i) + 2u * lane(carry, i) == x + y + z);
    CHECK(lane(rest, i) + y + z == x + 2u * lane(borrow, i));
    CHECK(lane(half, i) + 2u * lane(carry_of_half, i) == x + z);
  }
  return 0;
}

/* Class sums of `bits` bits of the planes in a list, from four up to what the bits hold. */
#define CLASS_SUM(bits)                                                              \
  static void class_sum_##bits(const bnn_list *list, size_t fours, bnn_slice *sum) { \
    static bnn_slice carries[(1u << bits) / 16u + 4u];                               \
    bnn_class_sum(bits, room.bytes, *list, fours, carries, sum);                     \
  }
CLASS_SUM(5)
CLASS_SUM(7)
CLASS_SUM(12)

static place list_of[1u << 12];

static int class_sums(int kind) {
  const bnn_list list = {list_of, WIDE, UNIT};
  const place last = 65535u;
  for (size_t i = 0; i < PLANES; ++i) {
    const bnn_slice plane = kind == 2 ? random_slice() : bnn_slice_fill((uint32_t)kind);
    bnn_slice_store(&room.bytes[i * BYTES], plane);
    bnn_slice_store(&room.bytes[(size_t)last * UNIT], plane);
  }
  for (size_t i = 0; i < sizeof list_of / sizeof *list_of; ++i) {
    const size_t chosen = random32() % (PLANES + 1u);
    list_of[i] = chosen == PLANES ? last : (place)(chosen * BYTES / UNIT);
  }
  for (size_t fours = 1; 4u * fours < 1u << 12; fours += fours < MOST / 4 ? 1 : 331) {
    bnn_slice sum[BITS];
    unsigned bits = 12;
    if (4u * fours < 1u << 5) {
      bits = 5;
      class_sum_5(&list, fours, sum);
    } else if (4u * fours < 1u << 7) {
      bits = 7;
      class_sum_7(&list, fours, sum);
    } else {
      class_sum_12(&list, fours, sum);
    }
    for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
      uint32_t expected = 0;
      for (size_t n = 0; n < 4u * fours; ++n) {
        const uint8_t *at = &room.bytes[(size_t)list_of[n] * UNIT];
        expected += (uint32_t)(at[i / 8] >> (i % 8)) & 1u;
      }
      CHECK(number(sum, bits, i) == expected);
    }
  }
  return 0;
}

/* Sums, differences and comparisons of numbers of `bits` bits. */
#define NUMBERS(bits)                                                                  \
  static int numbers_##bits(int kind) {                                                \
    bnn_slice x[bits + 1], y[bits + 1], r[bits + 1], d[bits + 1];                      \
    for (unsigned i = 0; i < bits; ++i) {                                              \
      x[i] = kind == 2 ? random_slice() : bnn_slice_fill((uint32_t)kind);              \
      y[i] = kind == 2 ? random_slice() : bnn_slice_fill((uint32_t)(i % 2));           \
    }                                                                                  \
    bnn_slices_add(bits, r, x, y);                                                     \
    bnn_slices_less_twice(bits, d, x, y);                                              \
    for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {                                     \
      const uint32_t a = number(x, bits, i), b = number(y, bits, i);                   \
      CHECK(number(r, bits + 1, i) == a + b);                                          \
      CHECK(number(d, bits + 1, i) == a + (1u << bits) - 2u * number(y, bits - 1, i)); \
    }                                                                                  \
    for (unsigned n = 0; n < 20; ++n) {                                                \
      const uint32_t limit = n ? random32() & ((1u << bits) - 1u) : (1u << bits) - 1u; \
      const bnn_slice below = bnn_slices_below(bits, x, limit);                        \
      for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {                                   \
        CHECK(lane(below, i) == (number(x, bits, i) < limit));                         \
      }                                                                                \
    }                                                                                  \
    return 0;                                                                          \
  }
NUMBERS(1)
NUMBERS(5)
NUMBERS(16)

/* Numbers of `bits` bits, each beside the next. */
#define PLANAR(bits)                                                                    \
  static int planar_##bits(int kind) {                                                  \
    bnn_slice x[bits];                                                                  \
    for (unsigned i = 0; i < bits; ++i) {                                               \
      x[i] = kind == 2 ? random_slice() : bnn_slice_fill((uint32_t)kind);               \
    }                                                                                   \
    for (int32_t factor = 1; factor <= 2; ++factor) {                                   \
      const int32_t base = (int32_t)(random32() % 4001u) - 2000;                        \
      int32_t wide[BNN_SLICE_LANES];                                                    \
      bnn_slices_numbers32(bits, x, base, factor, wide);                                \
      for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {                                    \
        CHECK(wide[i] == base - factor * (int32_t)number(x, bits, i));                  \
      }                                                                                 \
      int16_t n[BNN_SLICE_LANES];                                                       \
      bnn_slices_numbers16(bits < 14 ? bits : 14, x, base, factor, n);                  \
      for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {                                    \
        const uint32_t value = number(x, bits < 14 ? bits : 14, i);                     \
        CHECK((uint16_t)n[i] == (uint16_t)((uint32_t)base - (uint32_t)factor * value)); \
      }                                                                                 \
    }                                                                                   \
    return 0;                                                                           \
  }
PLANAR(1)
PLANAR(7)
PLANAR(8)
PLANAR(11)
PLANAR(14)
PLANAR(16)
PLANAR(19)

static int flags(int kind) {
  bnn_flag flag[BNN_SLICE_LANES];
  uint32_t used[BYTES / 4], all_of_them[BYTES / 4], some[BYTES / 4];
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    const unsigned set = kind == 2 ? random32() & 1u : (unsigned)kind;
    flag[i] = (bnn_flag) - (int)set;
    used[i / 32] = random32();
  }
  bnn_flags_pack(BYTES / 4, flag, NULL, all_of_them);
  bnn_flags_pack(BYTES / 4, flag, used, some);
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    const uint32_t bit = (uint32_t)flag[i] & 1u;
    CHECK(((all_of_them[i / 32] >> (i % 32)) & 1u) == bit);
    CHECK(((some[i / 32] >> (i % 32)) & 1u) == (bit & (used[i / 32] >> (i % 32))));
  }
  return 0;
}

#if defined(BNN_SLICE_M256)
static int looked_up(void) {
  uint8_t kinds[BNN_SLICE_LANES], more[32];
  int16_t n[BNN_SLICE_LANES], was[BNN_SLICE_LANES];
  for (size_t i = 0; i < sizeof more; ++i) {
    more[i] = (uint8_t)random32();
  }
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    kinds[i] = (uint8_t)(random32() % 16u);
    n[i] = was[i] = (int16_t)random32();
  }
  bnn_numbers16_more(kinds, more, n);
  for (size_t i = 0; i < BNN_SLICE_LANES; ++i) {
    const int32_t added = more[kinds[i]] + 256 * more[16 + kinds[i]];
    CHECK(n[i] == (int16_t)(was[i] + added));
  }
  return 0;
}
#else
static int looked_up(void) {
  return 0;
}
#endif

static int all(void) {
  int failed = looked_up();
  for (int kind = 0; kind < 3 && !failed; ++kind) {
    failed = gates();
    failed = failed ? failed : class_sums(kind);
    failed = failed ? failed : numbers_1(kind);
    failed = failed ? failed : numbers_5(kind);
    failed = failed ? failed : numbers_16(kind);
    failed = failed ? failed : planar_1(kind);
    failed = failed ? failed : planar_7(kind);
    failed = failed ? failed : planar_8(kind);
    failed = failed ? failed : planar_11(kind);
    failed = failed ? failed : planar_14(kind);
    failed = failed ? failed : planar_16(kind);
    failed = failed ? failed : planar_19(kind);
    failed = failed ? failed : flags(kind);
  }
  return failed;
}

int main(void) {
  return all() ? 1 : 0;
}
