"""A program that knows nothing of bnncc but the two files of each model.

It reads samples from a file, runs them one by one and writes the results. Every buffer has exactly
the size that the header names, so that a sanitiser sees one byte too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bnncc.ir.graph import Graph
from bnncc.ir.types import Array
from tests.backend.toolchain import write
from tests.backend.zoo import MODELS, Emitted, emitted

_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
%(includes)s

typedef int runner(void *const *ports, void *arena);

struct model {
  const char *name;
  runner *run;
  size_t inputs, outputs;
  size_t bytes[8]; /* of each input, then of each output */
  size_t arena;
};

%(runners)s
static const struct model models[] = {
%(rows)s};

static void *allocated(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) {
    exit(2);
  }
  return memory;
}

int main(int argc, char **argv) {
  const struct model *m = models;
  if (argc != 4) {
    return 3;
  }
  while (strcmp(m->name, argv[1]) != 0) {
    ++m;
  }
  FILE *in = fopen(argv[2], "rb");
  FILE *out = fopen(argv[3], "wb");
  if (in == NULL || out == NULL) {
    return 4;
  }
  void *ports[8] = {NULL};
  for (size_t i = 0; i < m->inputs + m->outputs; ++i) {
    ports[i] = allocated(m->bytes[i]);
  }
  void *arena = allocated(m->arena);
  while (fread(ports[0], 1, m->bytes[0], in) == m->bytes[0]) {
    for (size_t i = 1; i < m->inputs; ++i) {
      if (fread(ports[i], 1, m->bytes[i], in) != m->bytes[i]) {
        return 5;
      }
    }
    /* What the arena holds before must not matter. */
    void *first[8] = {NULL};
    for (int pass = 0; pass < 2; ++pass) {
      memset(arena, pass == 0 ? 0x00 : 0xa5, m->arena);
      if (m->run(ports, arena) != 0) {
        return 6;
      }
      for (size_t i = m->inputs; i < m->inputs + m->outputs; ++i) {
        if (pass == 0) {
          first[i] = allocated(m->bytes[i]);
          memcpy(first[i], ports[i], m->bytes[i]);
          memset(ports[i], 0x5a, m->bytes[i]);
        } else {
          if (memcmp(first[i], ports[i], m->bytes[i]) != 0) {
            return 7;
          }
          fwrite(ports[i], 1, m->bytes[i], out);
          free(first[i]);
        }
      }
    }
  }
  for (size_t i = 0; i < m->inputs + m->outputs; ++i) {
    free(ports[i]);
  }
  free(arena);
  fclose(in);
  return fclose(out) == 0 ? 0 : 8;
}
"""

# The same without an operating system: the input file's first byte says which model.
_FIRMWARE = """
#include <stddef.h>
#include <stdint.h>
%(includes)s

int host_open(const char *name, size_t length, int for_writing);
size_t host_read(int file, void *bytes, size_t count);
size_t host_write(int file, const void *bytes, size_t count);
void host_close(int file);
int main(void);

typedef int runner(void *const *ports, void *arena);

struct model {
  const char *name;
  runner *run;
  size_t inputs, outputs;
  size_t bytes[8];
  size_t arena;
  size_t stack;
  int unaligned;
};

%(runners)s
static const struct model models[] = {
%(rows)s};

static uint64_t arena[8192];
static uint64_t memory[8][8192];

/* The stack below this frame, painted before a call and looked through after it. */
enum { PAINTED = 8192, SLACK = 64 };

static void paint(void) {
  volatile unsigned char below[PAINTED];
  for (size_t i = 0; i < PAINTED; ++i) {
    below[i] = 0xc3;
  }
}

static size_t unpainted(void) {
  volatile unsigned char below[PAINTED];
  size_t i = 0;
  while (i < PAINTED && below[i] == 0xc3) {
    ++i;
  }
  return PAINTED - i;
}

int main(void) {
  unsigned char which = 0;
  const int in = host_open("in.bin", 6, 0);
  const int out = host_open("out.bin", 7, 1);
  if (in < 0 || out < 0 || host_read(in, &which, 1) != 0) {
    return 1;
  }
  const struct model *m = &models[which];
  if (m->unaligned) {
    *(volatile uint32_t *)0xe000ed14u &= ~(1u << 3); /* slices start at any byte: trap no more */
  }
  void *ports[8] = {NULL};
  for (size_t i = 0; i < m->inputs + m->outputs; ++i) {
    /* Aligned to a float and no further, bytes to nothing. */
    ports[i] = (unsigned char *)memory[i] + (m->bytes[i] %% 4u == 0u ? 4u : 1u);
  }
  for (uint8_t sample = 0;; ++sample) {
    for (size_t i = 0; i < m->inputs; ++i) {
      if (host_read(in, ports[i], m->bytes[i]) != 0) {
        host_close(out);
        return i == 0 ? 0 : 2;
      }
    }
    for (size_t i = 0; i < m->arena; ++i) {
      ((unsigned char *)arena)[i] = sample;
    }
    paint();
    if (m->run(ports, arena) != 0) {
      return 3;
    }
    if (unpainted() > m->stack + SLACK) {
      return 4;
    }
    for (size_t i = m->inputs; i < m->inputs + m->outputs; ++i) {
      if (host_write(out, ports[i], m->bytes[i]) != 0) {
        return 5;
      }
    }
  }
}
"""


def write_sources(
    folder: Path, target: str, models: Iterable[str] = tuple(MODELS), *, firmware: bool = False
) -> list[Path]:
    """Write models and the program's main.c, and return every C file."""
    chosen = [emitted(model, target) for model in models]
    includes, runners, rows = [], [], []
    for e in chosen:
        ports = (*e.program.inputs, *e.program.outputs)
        arguments = ", ".join(f"ports[{i}]" for i in range(len(ports)))
        sizes = ", ".join(f"{_macro(e, p)} * sizeof({p.c_type})" for p in ports)
        includes.append(f'#include "{e.name}.h"')
        runners.append(
            f"static int run_{e.name}(void *const *ports, void *arena) {{\n"
            f"  return {e.name}_run({arguments}, arena);\n}}\n"
        )
        counts = f"{len(e.program.inputs)}, {len(e.program.outputs)}"
        arena = f"sizeof({e.name}_arena)"
        unaligned = int(bool(MODELS[e.name]().families))  # shared sums on a core that may
        stack = f", {e.name.upper()}_STACK_BYTES, {unaligned}" if firmware else ""
        rows.append(f'  {{"{e.name}", run_{e.name}, {counts}, {{{sizes}}}, {arena}{stack}}},\n')
    paths = [write(e, folder) for e in chosen]
    main = folder / "main.c"
    parts = {"includes": "\n".join(includes), "runners": "\n".join(runners), "rows": "".join(rows)}
    main.write_text((_FIRMWARE if firmware else _MAIN) % parts, encoding="utf-8")
    return [main, *paths]


def _macro(e: Emitted, port) -> str:
    return f"{e.name.upper()}_{port.macro}_SIZE"


def to_bytes(graph: Graph, feeds: Mapping[str, Array]) -> bytes:
    """Return samples as the program reads them: of each sample every input."""
    arrays = [feeds[name] for name in graph.inputs]
    return b"".join(array[i].tobytes() for i in range(len(arrays[0])) for array in arrays)


def from_bytes(graph: Graph, text: bytes) -> dict[str, Array]:
    """Return the results that the program wrote, by output."""
    kinds = [graph.types[name] for name in graph.outputs]
    sample = np.dtype([(str(i), k.element.dtype, k.shape[1:]) for i, k in enumerate(kinds)])
    assert len(text) % sample.itemsize == 0
    table = np.frombuffer(text, sample)
    return {name: table[str(i)].copy() for i, name in enumerate(graph.outputs)}
