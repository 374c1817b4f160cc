/* What runs under the emulator: a model on one sample, its result compared with the expected one. */
#include "guest.h"

#include "vectors.h"

static m_arena arena;
static OUTPUT_TYPE output[OUTPUTS];

__attribute__((noinline)) void mark(void) {
  __asm__ volatile("" ::: "memory");
}

int main(void) {
  mark();
  if (m_run(input, output, &arena) != 0) {
    return 1;
  }
  for (size_t i = 0; i < OUTPUTS; ++i) {
    if (output[i] != expected[i]) {
      return 2;
    }
  }
  return 0;
}
