"""Programs that run here, and the least time that each of their layers took."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnncc.backend.emit import render_header, render_source
from bnncc.backend.program import Program
from bnncc.ir.types import Array
from bnncc.targets import target_named

__all__ = ["HOSTED", "Timed", "built"]

HOSTED = ("x86-64", "x86-64-v3", "x86-64-avx512")
"""The targets that this machine may run; timed with gcc -O3 and their flags."""

_RUN = """
#include <time.h>
static double marks[{layers} + 1];
static double now(void) {{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}}
#define {macro}_TRACE(layer, data, bytes) (marks[(layer) + 1] = now())
{source}
int bench(int runs, const void *input, void *output, double *best) {{
  static {name}_arena arena;
  int status = 0;
  for (int run = 0; run < runs; ++run) {{
    marks[0] = now();
    status |= {name}_run(input, output, &arena);
    for (int i = 0; i < {layers}; ++i) {{
      const double time = marks[i + 1] - marks[i];
      best[i] = time < best[i] ? time : best[i];
    }}
  }}
  return status;
}}
"""


@dataclass(frozen=True, eq=False)
class Timed:
    """A program of one input and one output.

    Attributes:
        program: see there.
        library: exports `bench`.
        feed: its input, as C takes it.
        result: its output, once it ran.
        best: nanoseconds of each layer.
    """

    program: Program
    library: ctypes.CDLL
    feed: Array
    result: Array
    best: Array

    def run(self, runs: int) -> None:
        """Run it, and keep the least that each layer took."""
        pointers = [
            array.ctypes.data_as(ctypes.c_void_p) for array in (self.feed, self.result, self.best)
        ]
        assert self.library.bench(ctypes.c_int(runs), *pointers) == 0


def built(program: Program, feed: Array, target: str, folder: Path) -> Timed:
    """Return a program, built for a target.

    Args:
        program: of one input and one output.
        feed: the input in C order.
        target: one of HOSTED.
        folder: for its files, of its own.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{program.name}.h").write_text(render_header(program), encoding="utf-8")
    layers = len(program.layers)
    source = render_source(program)
    text = _RUN.format(macro=program.macro, source=source, name=program.name, layers=layers)
    (folder / "bench.c").write_text(text, encoding="utf-8")
    library = folder / "bench.so"
    flags = ("-O3", "-std=gnu99", "-fPIC", "-shared", "-w", *target_named(target).cflags)
    subprocess.run(["gcc", *flags, folder / "bench.c", "-o", library], check=True)
    (port,) = program.outputs
    kinds = {"float": np.float32, "int8_t": np.int8, "int32_t": np.int32, "uint8_t": np.uint8}
    result = np.zeros(port.shape, kinds[port.c_type])
    return Timed(program, ctypes.CDLL(str(library)), feed, result, np.full(layers, np.inf))
