"""Building generated C: the warning set of DESIGN section 5, the dialects, the cross compilers."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from bnncc.backend.amalgamate import amalgamate
from bnncc.ir.types import Array
from tests.backend.zoo import Emitted

WARNINGS = (
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef"),
    *("-Wcast-align", "-Wcomment", "-Wdouble-promotion", "-Wvla", "-Werror"),
)
C_ONLY = ("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wold-style-definition")
DIALECTS = {
    "c99": ("-x", "c", "-std=c99", *C_ONLY),
    "c11": ("-x", "c", "-std=c11", *C_ONLY),
    "c++17": ("-x", "c++", "-std=c++17"),
}
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb")
CORTEX_M4F = (*CORTEX_M4, "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
CROSS = {
    "arm-none-eabi-gcc": CORTEX_M4,
    "aarch64-linux-gnu-gcc": (),
}


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; the test fails with what it said unless it succeeds."""
    texts = [str(part) for part in command]
    done = subprocess.run(texts, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(texts)}\n{done.stdout}{done.stderr}"
    return done


def write(emitted: Emitted, folder: Path) -> Path:
    """Write the two files of a model and return the source's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{emitted.name}.h").write_text(emitted.header, encoding="utf-8")
    source = folder / f"{emitted.name}.c"
    source.write_text(emitted.source, encoding="utf-8")
    return source


def together(models: Iterable[Emitted], folder: Path) -> Path:
    """Write all models into one C file, behind one runtime, and return its path."""
    emitted = list(models)
    texts = [amalgamate(dict.fromkeys(h for e in emitted for h in e.program.headers))]
    for e in emitted:
        write(e, folder)
        assert e.source.count(e.program.runtime) == 1
        texts.append(e.source.replace(e.program.runtime, ""))
    path = folder / "together.c"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def objects(compiler: str, sources: Iterable[Path], folder: Path, *flags: str) -> list[Path]:
    """Compile C files to objects in `folder`, all in one call of the compiler."""
    paths = list(sources)
    folder.mkdir(parents=True, exist_ok=True)
    run(compiler, *flags, "-c", *paths, cwd=folder)
    return [folder / f"{path.stem}.o" for path in paths]


def frames_of(path: Path) -> dict[str, int]:
    """Return the bytes of each function's frame, from what `-fstack-usage` wrote."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert all(kind in ("static", "dynamic,bounded") for *_, kind in rows), rows
    return {where.rsplit(":", 1)[1]: int(size) for where, size, _ in rows}


def callable_model(
    compiler: str, emitted: Emitted, folder: Path, *flags: str
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Return the generated C as a function from inputs [N, ...] to outputs, as `interpret.run`."""
    source = write(emitted, folder)
    library = folder / f"{emitted.name}.so"
    run(compiler, "-shared", "-fPIC", *flags, source, "-o", library)
    call = getattr(ctypes.CDLL(str(library)), f"{emitted.name}_run")
    graph, program = emitted.graph, emitted.program

    def apply(feeds: Mapping[str, Array]) -> dict[str, Array]:
        arrays = [np.ascontiguousarray(feeds[name]) for name in graph.inputs]
        rows = len(arrays[0])
        outputs = {}
        for name in graph.outputs:
            kind = graph.types[name]
            outputs[name] = np.zeros((rows, *kind.shape[1:]), kind.element.dtype)
            outputs[name].view(np.uint8)[...] = 0xA5
        arena = np.full(program.arena_words, 0xA5A5A5A5A5A5A5A5, np.uint64)
        for i in range(rows):
            samples = [array[i : i + 1] for array in (*arrays, *outputs.values())]
            pointers = [ctypes.c_void_p(sample.ctypes.data) for sample in samples]
            assert call(*pointers, ctypes.c_void_p(arena.ctypes.data)) == 0
        return outputs

    return apply


def assert_same_bits(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Compare arrays bit for bit; one NaN is as good as another."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        have = actual[name]
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        same = have.view(f"u{have.itemsize}") == want.view(f"u{want.itemsize}")
        if have.dtype.kind == "f":
            same |= np.isnan(have) & np.isnan(want)
        where = np.argwhere(~same)
        assert not where.size, (name, where[:3].tolist(), have[~same][:3], want[~same][:3])
