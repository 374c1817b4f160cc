/* The least that a bare Cortex-M under QEMU needs: vectors, memory, semihosting.
 *
 * Semihosting is the debugger's file system: a breakpoint instruction with an operation in r0 and its
 * arguments in r1, served by QEMU on the host.
 */
#include <stddef.h>
#include <stdint.h>

extern uint32_t stack_top[], data_start[], data_end[], data_load[], bss_start[], bss_end[];

int main(void);
void reset(void);
void fault(void);

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
enum { EXIT_OK = 0x20026, EXIT_FAULT = 0x20023 };

static int semihost(int operation, const void *arguments) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

int host_open(const char *name, size_t length, int for_writing) {
  const uintptr_t arguments[3] = {(uintptr_t)name, for_writing ? 5u : 1u, length}; /* "wb", "rb" */
  return semihost(SYS_OPEN, arguments);
}

/* Return how many bytes were not read. */
size_t host_read(int file, void *bytes, size_t count) {
  const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)bytes, count};
  return (size_t)semihost(SYS_READ, arguments);
}

size_t host_write(int file, const void *bytes, size_t count) {
  const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)bytes, count};
  return (size_t)semihost(SYS_WRITE, arguments);
}

void host_close(int file) {
  const uintptr_t arguments[1] = {(uintptr_t)file};
  semihost(SYS_CLOSE, arguments);
}

static void leave(int reason) {
  semihost(SYS_EXIT, (const void *)(uintptr_t)reason);
  for (;;) {
  }
}

void fault(void) {
  leave(EXIT_FAULT);
}

void reset(void) {
  *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20;   /* the FPU, if the code uses it */
#if !defined(ALLOW_UNALIGNED)
  *(volatile uint32_t *)0xe000ed14u |= 1u << 3;      /* trap unaligned access: a Cortex-M0 would */
#endif
#if defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xe000ed14u |= 1u << 19;     /* loops without a branch's cost */
#endif
  for (uint32_t *to = data_start, *from = data_load; to < data_end;) {
    *to++ = *from++;
  }
  for (uint32_t *to = bss_start; to < bss_end;) {
    *to++ = 0;
  }
  leave(main() == 0 ? EXIT_OK : EXIT_FAULT);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(uintptr_t)stack_top, reset, fault, fault, fault, fault, fault,
};
