/* The least that a RISC-V program without a C library needs under qemu-riscv32: Linux's exit, and the
 * functions that compilers call unasked. */
#include <stddef.h>
#include <stdint.h>

int main(void);
void start(void);
int __popcountsi2(uint32_t x);

__attribute__((used)) void start(void) {
  register long a0 __asm__("a0") = main();
  register long a7 __asm__("a7") = 93; /* exit */
  __asm__ volatile("ecall" : : "r"(a0), "r"(a7));
}

__asm__(".globl _start\n"
        "_start:\n"
        ".option push\n"
        ".option norelax\n"
        "la gp, __global_pointer$\n"
        ".option pop\n"
        "andi sp, sp, -16\n"
        "call start\n");

void *memset(void *to, int value, size_t count) {
  for (unsigned char *at = to; count; --count) {
    *at++ = (unsigned char)value;
    __asm__ volatile("");
  }
  return to;
}

void *memcpy(void *to, const void *from, size_t count) {
  const unsigned char *source = from;
  for (unsigned char *at = to; count; --count) {
    *at++ = *source++;
    __asm__ volatile("");
  }
  return to;
}

int __popcountsi2(uint32_t x) {
  int count = 0;
  for (; x; x &= x - 1u) {
    ++count;
  }
  return count;
}
