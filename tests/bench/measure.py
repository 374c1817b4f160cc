"""Build layers for targets and time them: interleaved, so that all see the same neighbours."""

from __future__ import annotations

import ctypes
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnncc.backend.amalgamate import amalgamate
from bnncc.targets import Target
from bnncc.verification.build import host_flags
from tests.bench import roofs
from tests.bench.layers import LayerCase, Printed, Variant, printed

__all__ = ["Built", "Row", "build", "build_roof", "measure"]

_FLAGS = ("-O3", "-std=gnu99", "-fPIC", "-shared", "-w")

_CLOCK = """
#include <stdlib.h>
#include <string.h>
#include <time.h>
static double bench_marks[64];
static double bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
"""

# A layer's time is that from the mark after the layer before it to its own; what is measured is
# one layer, or several.
_RUN = """
double bench_{name}(int runs) {{
  static {name}_arena arena;
  static float input[{inputs}], outputs[2][{elements}];
  double best = 1e30;
  for (size_t i = 0; i < {inputs}u; ++i) {{
    input[i] = (float)((i * 2654435761u >> 7) % 2001u) - 1000.0f;
  }}
  for (int run = 0; run < runs; ++run) {{
    {name}_run({arguments}, &arena);
    const double time = {time};
    best = time < best ? time : best;
  }}
  return best;
}}
"""


@dataclass(frozen=True, eq=False)
class Built:
    """Layers built for a target by a compiler.

    Attributes:
        label: of the target and the compiler.
        library: exports `bench_m{i}(runs)`, which returns the nanoseconds of the i-th.
        kernels: the layers' micro-kernels, or how they share sums.
    """

    label: str
    library: ctypes.CDLL
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What was measured of one layer in one build, or of a roof: Gbin-MAC/s."""

    label: str
    kernel: str
    median: float
    best: float


def build(
    label: str, of: Variant, compiler: str, cases: Sequence[LayerCase], folder: Path
) -> Built:
    """Return the layers, built with -O3 and their target's flags.

    Raises:
        ToolchainError: BNN041, this machine cannot run the target's code.
        subprocess.CalledProcessError: the compiler failed.
    """
    target = of.target
    programs = [printed(case, of, f"m{i}") for i, case in enumerate(cases)]
    headers = dict.fromkeys(h for p in programs for h in p.program.headers)
    texts = [_CLOCK, amalgamate(headers)]
    for p, case in zip(programs, cases, strict=True):
        texts.append(_text(p, case, folder))
    source = folder / f"{label.replace(':', '-').replace(' ', '-')}.c"
    source.write_text("\n".join(texts), encoding="utf-8")
    library = source.with_suffix(".so")
    flags = (*_FLAGS, *(target.cflags or host_flags((compiler,), target)))
    subprocess.run([compiler, *flags, source, "-o", library], check=True, cwd=folder)
    return Built(label, ctypes.CDLL(str(library)), tuple(p.kernel for p in programs))


def _text(p: Printed, case: LayerCase, folder: Path) -> str:
    name, program = p.program.name, p.program
    (folder / f"{name}.h").write_text(p.header, encoding="utf-8")
    trace = f"#define {program.macro}_TRACE(layer, data, bytes) bench_marks[layer] = bench_now()\n"
    outputs = [f"({port.c_type} *)outputs[{i}]" for i, port in enumerate(program.outputs)]
    run = _RUN.format(
        name=name,
        time=" + ".join(f"(bench_marks[{i}] - bench_marks[{i - 1}])" for i in p.indices),
        inputs=program.inputs[0].size,
        elements=case.channels * case.size**2,
        arguments=", ".join(["input", *outputs]),
    )
    return trace + p.source.replace(program.runtime, "", 1) + run


def build_roof(label: str, target: Target, compiler: str, folder: Path) -> ctypes.CDLL:
    """Return a library that exports `roof(calls)`, see roofs.py."""
    source = folder / f"roof-{label}.c"
    source.write_text(roofs.SOURCE, encoding="utf-8")
    library = source.with_suffix(".so")
    command = [compiler, *_FLAGS, *target.cflags, source, "-o", library]
    subprocess.run(command, check=True, cwd=folder)
    return ctypes.CDLL(str(library))


def measure(
    builds: Sequence[Built],
    roof_libraries: dict[str, ctypes.CDLL],
    cases: Sequence[LayerCase],
    rounds: int,
) -> tuple[dict[LayerCase, list[Row]], list[Row]]:
    """Return the rows of each layer, and the roofs, measured in turns for `rounds` rounds."""
    times: dict[tuple[int, int], list[float]] = {}
    heights: dict[str, list[float]] = {}
    for _ in range(rounds):
        for label, library in roof_libraries.items():
            library.roof.restype = ctypes.c_double
            heights.setdefault(label, []).append(library.roof(ctypes.c_long(200_000)))
        for i in range(len(cases)):
            for b, built in enumerate(builds):
                call = getattr(built.library, f"bench_m{i}")
                call.restype = ctypes.c_double
                times.setdefault((i, b), []).append(call(ctypes.c_int(3)))
    rows = {
        case: [
            Row(
                built.label,
                built.kernels[i],
                case.macs / statistics.median(times[i, b]),
                case.macs / min(times[i, b]),
            )
            for b, built in enumerate(builds)
        ]
        for i, case in enumerate(cases)
    }
    tops = [
        Row(label, "registers alone", statistics.median(seen), max(seen))
        for label, seen in heights.items()
    ]
    return rows, tops
