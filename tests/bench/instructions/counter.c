/* A plugin for QEMU that counts the instructions a program executes between calls of a function.
 *
 * Arguments: mark=ADDRESS, of that function, and out=FILE. At each call the file gets a line "mark"
 * after one line "ADDRESS INSTRUCTIONS TIMES" for each block of code that has run since the call
 * before. Blocks end where control may go elsewhere, so that they run as a whole.
 *
 * Distributions have QEMU without its header: what is used of it is declared here, and has been the
 * same in every version so far.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

enum { NO_REGISTERS = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                                  void (*call)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
                                                 void (*call)(unsigned, void *), int flags,
                                                 void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

PUBLIC int qemu_plugin_version = PLUGIN_VERSION;
PUBLIC int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments);

struct block {
  uint64_t address, times;
  size_t instructions;
  struct block *next;
};

static struct block *blocks;
static uint64_t mark;
static FILE *out;

static void executed(unsigned cpu, void *data) {
  struct block *block = data;
  (void)cpu;
  if (block->address == mark) {
    for (struct block *b = blocks; b; b = b->next) {
      if (b->times) {
        fprintf(out, "%" PRIx64 " %zu %" PRIu64 "\n", b->address, b->instructions, b->times);
      }
      b->times = 0;
    }
    fputs("mark\n", out);
    fflush(out);
  }
  ++block->times;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  struct block *block = calloc(1, sizeof *block);
  (void)id;
  if (!block) {
    abort();
  }
  block->address = qemu_plugin_tb_vaddr(tb);
  block->instructions = qemu_plugin_tb_n_insns(tb);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGISTERS, block);
}

int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
  (void)info;
  for (int i = 0; i < count; ++i) {
    if (!strncmp(arguments[i], "out=", 4)) {
      out = fopen(arguments[i] + 4, "w");
    } else if (!strncmp(arguments[i], "mark=", 5)) {
      mark = strtoull(arguments[i] + 5, NULL, 16);
    }
  }
  if (!out || !mark) {
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
