"""Build a layer for a machine, run it there, and count."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bnncc.backend.program import Program
from bnncc.ir.types import Array
from bnncc.targets import target_named
from tests.bench.instructions.cases import Case, printed
from tests.bench.instructions.machines import HERE, LEVEL, Machine, plugin

__all__ = ["Count", "Model", "count", "counts"]


class Model(Protocol):
    """A program m in C, an input of bytes, and what it must return."""

    program: Program
    header: str
    source: str
    feed: Array
    expected: Array


@dataclass(frozen=True)
class Count:
    """What a layer took on a machine.

    Attributes:
        machine, case: which.
        instructions: executed from planes of bits to planes of bits, calls included.
        functions: the same by function, most first.
        macs: binary multiply-accumulates.
        flash: bytes of the layer's constants, and of the functions that ran.
        ram: bytes of the planes, and their copies, that live at once.
    """

    machine: str
    case: str
    instructions: int
    functions: tuple[tuple[str, int], ...]
    macs: int
    flash: tuple[int, int]
    ram: int

    @property
    def per_mac(self) -> float:
        """Instructions for a binary multiply-accumulate."""
        return self.instructions / self.macs


@dataclass(frozen=True)
class _Function:
    name: str
    start: int
    size: int


def count(machine: Machine, case: Case, folder: Path) -> Count:
    """Count the instructions of a case on a machine; its result must be right.

    Raises:
        subprocess.CalledProcessError: it does not compile, or returned something else.
    """
    model = printed(case, target_named(machine.target))
    functions, blocks = _counted(machine, model, folder)
    ran: Counter[_Function] = Counter()
    for index in model.layers:
        for address, instructions in blocks[1 + index]:
            ran[_owner(functions, address)] += instructions
    return Count(
        machine.target,
        str(case),
        ran.total(),
        tuple((f.name, n) for f, n in ran.most_common()),
        case.macs,
        (model.list_bytes, sum(f.size for f in ran)),
        model.plane_bytes,
    )


def counts(machine: Machine, model: Model, folder: Path) -> list[int]:
    """Return how many instructions each layer of a model takes; its result must be right.

    Raises:
        subprocess.CalledProcessError: it does not compile, or returned something else.
    """
    _, blocks = _counted(machine, model, folder)
    totals = iter([sum(n for _, n in block) for block in blocks[1:]])
    return [sum(itertools.islice(totals, len(n.outputs))) for n in model.program.layers]


def _counted(
    machine: Machine, model: Model, folder: Path
) -> tuple[list[_Function], list[list[tuple[int, int]]]]:
    """Return a model's functions, and what `_run` says."""
    folder.mkdir(parents=True, exist_ok=True)
    program = _build(machine, model, folder)
    functions = _functions(machine, program)
    mark = next(f.start for f in functions if f.name == "mark")
    return functions, _run(machine, program, mark, folder)


def _build(machine: Machine, model: Model, folder: Path) -> Path:
    (folder / "m.h").write_text(model.header, encoding="utf-8")
    (folder / "m.c").write_text(model.source, encoding="utf-8")
    (folder / "vectors.h").write_text(_vectors(model), encoding="utf-8")
    program = folder / "m.elf"
    flags = (LEVEL, "-std=gnu99", f"-I{folder}", f"-I{HERE}", "-include", "guest.h")
    sources = (folder / "m.c", HERE / "guest.c", *machine.sources)
    command = [f"{machine.tools}gcc", *flags, *sources, *machine.flags, "-o", program]
    subprocess.run(command, check=True)
    return program


def _vectors(model: Model) -> str:
    def array(kind: str, name: str, values: Array) -> str:
        return f"static const {kind} {name}[] = {{{','.join(map(str, values.ravel().tolist()))}}};"

    (port,) = model.program.outputs
    lines = [
        f"#define OUTPUT_TYPE {port.c_type}",
        f"#define OUTPUTS {model.expected.size}u",
        array("uint8_t", "input", np.moveaxis(model.feed, 1, -1)),
        array(port.c_type, "expected", model.expected),
    ]
    return "\n".join(lines) + "\n"


def _functions(machine: Machine, program: Path) -> list[_Function]:
    """Return a program's functions by address."""
    command = [f"{machine.tools}nm", "-S", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in said.stdout.splitlines()]
    found = [
        _Function(row[3], int(row[0], 16) & ~1, int(row[1], 16))
        for row in rows
        if len(row) == 4 and row[2] in "tTwW"
    ]
    return sorted(found, key=lambda f: f.start)


def _owner(functions: Sequence[_Function], address: int) -> _Function:
    nameless = _Function("(jumps to functions chosen as the program starts)", 0, 0)
    return next((f for f in functions if f.start <= address < f.start + f.size), nameless)


def _run(machine: Machine, program: Path, mark: int, folder: Path) -> list[list[tuple[int, int]]]:
    """Return, up to each mark, where blocks of code start and how many instructions they ran."""
    emulator, *options = machine.emulator
    counts = folder / "counts"
    counter = f"{plugin(emulator, folder.parent)},mark={mark:x},out={counts}"
    subprocess.run(
        [emulator, "-plugin", counter, *options, program], check=True, stdin=subprocess.DEVNULL
    )
    found: list[list[tuple[int, int]]] = [[]]
    for line in counts.read_text(encoding="utf-8").splitlines():
        if line == "mark":
            found.append([])
        else:
            address, instructions, times = line.split()
            found[-1].append((int(address, 16), int(instructions) * int(times)))
    return found
