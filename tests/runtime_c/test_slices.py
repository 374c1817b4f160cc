"""Functions on bit slices, against the same on single lanes, on every kind of slice."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bnncc.errors import ToolchainError
from bnncc.targets import TARGETS
from bnncc.verification.build import host_flags
from tests.bench.instructions.machines import MACHINES, Machine
from tests.runtime_c.driver import RUNTIME, WARNINGS

SOURCE = Path(__file__).with_name("slices.c")
HEADERS = sorted({target.slices.header for target in TARGETS} | {"avx512"})
LISTS = {"u16": (0, 1), "u16 in fours": (0, 4), "u32": (1, 1)}


def _flags(lists: str, header: str, aligned: bool = False) -> tuple[str, ...]:
    wide, unit = LISTS[lists]
    first = ("-include", "slices/aligned.h") if aligned else ()
    macros = (f'-DSLICES="slices/{header}.h"', f"-DWIDE={wide}", f"-DUNIT={unit}")
    return ("-O1", "-std=gnu99", f"-I{RUNTIME}", *first, *macros, *WARNINGS)


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _native(cc: str, header: str) -> tuple[str, ...]:
    target = next((t for t in TARGETS if t.slices.header == header), None)
    wanted = target or next(t for t in TARGETS if t.slices.header == "avx512vl")
    if not wanted.cflags:
        return ()
    try:
        return host_flags((cc,), wanted)
    except ToolchainError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("header", HEADERS)
def test_here(cc: str, tmp_path: Path, header: str) -> None:
    program = tmp_path / "slices"
    _run([cc, *_flags("u16", header), *_native(cc, header), SOURCE, "-o", program])
    _run([program])


@pytest.mark.parametrize("lists", LISTS)
def test_lists(any_cc: str, tmp_path: Path, lists: str) -> None:
    program = tmp_path / "slices"
    _run([any_cc, *_flags(lists, "w64"), SOURCE, "-o", program])
    _run([program])


def test_words_that_must_be_aligned(any_cc: str, tmp_path: Path) -> None:
    program = tmp_path / "slices"
    more = ("-fsanitize=alignment,undefined", "-fno-sanitize-recover=all")
    _run([any_cc, *_flags("u16 in fours", "w32", aligned=True), *more, SOURCE, "-o", program])
    _run([program])


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.target)
def test_under_emulation(tool, tmp_path: Path, machine: Machine) -> None:
    slices = next(t.slices for t in TARGETS if t.name == machine.target)
    program = tmp_path / "slices"
    flags = _flags("u16 in fours", slices.header, slices.aligned)
    compiler = tool(f"{machine.tools}gcc")
    _run([compiler, *flags, SOURCE, *machine.sources, *machine.flags, "-o", program])
    tool(machine.emulator[0])
    _run([*machine.emulator, program])
