"""What each layer of a case takes: instructions under emulation, or nanoseconds on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnncc.layouts.work import Work, code_of_program, work_of
from bnncc.passes.base import Family
from bnncc.targets import target_named
from tests.bench.costs.cases import Case, Printed, printed
from tests.bench.costs.timing import HOSTED, Timed, built
from tests.bench.instructions.machines import LEVEL, MACHINES
from tests.bench.instructions.measure import counts

__all__ = ["FAMILIES", "Built", "Measured", "code_sizes", "emulated", "timed"]

FAMILIES = (Family.DENSE, Family.SHARED)

_LEAN = 6
"""Every so many cases are measured with lists that are built, too."""


def families(cases: Sequence[Case]) -> Iterator[tuple[Case, Family]]:
    """Yield what to measure."""
    for i, case in enumerate(cases):
        for family in (*FAMILIES, *((Family.LEAN,) if i % _LEAN == 0 else ())):
            yield case, family


@dataclass(frozen=True)
class Measured:
    """One layer of a case: what it does, and what it takes.

    Attributes:
        case, family: which.
        work: see there.
        units: instructions or nanoseconds.
    """

    case: Case
    family: Family
    work: Work
    units: float

    @property
    def kind(self) -> str:
        """The kind of layer."""
        return next(iter(self.work)).partition(":")[0]


@dataclass(frozen=True)
class Built:
    """The code of a case: what it consists of, and bytes of its functions."""

    parts: Work
    size: int


def emulated(name: str, cases: Sequence[Case], folder: Path) -> Iterator[Measured]:
    """Yield the layers of cases in both families, counted on the machine of a target.

    Raises:
        subprocess.CalledProcessError: a case does not compile, or returned something else.
    """
    machine = next(m for m in MACHINES if m.target == name)
    for case, family in families(cases):
        model = printed(case, family, target_named(name))
        yield from _rows(model, counts(machine, model, folder / name))


def _rows(model: Printed, units: Sequence[float]) -> Iterator[Measured]:
    """Yield the layers behind the one that makes the case's input."""
    layers = model.program.layers
    first = next(i for i, layer in enumerate(layers) if work_of(layer)) + 1
    for layer, each in list(zip(layers, units, strict=True))[first:]:
        if work := work_of(layer):
            yield Measured(model.case, model.family, work, each)


def code_sizes(name: str, cases: Sequence[Case], folder: Path) -> Iterator[Built]:
    """Yield the code of cases in both families, compiled for a target as they are measured.

    Raises:
        subprocess.CalledProcessError: a case does not compile.
    """
    machine = next((m for m in MACHINES if m.target == name), None)
    tools, flags = (machine.tools, (LEVEL, *machine.flags)) if machine else ("", ("-O3",))
    flags += HOSTED.get(name, ())
    stem = folder / f"{name}-code"
    stem.mkdir(parents=True, exist_ok=True)
    for case, family in families(cases):
        model = printed(case, family, target_named(name))
        (stem / "m.h").write_text(model.header, encoding="utf-8")
        (stem / "m.c").write_text(model.source, encoding="utf-8")
        object_file = stem / "m.o"
        command = [f"{tools}gcc", *flags, "-std=gnu99", "-w", "-c", stem / "m.c"]
        subprocess.run([*command, "-o", object_file], check=True, stderr=subprocess.DEVNULL)
        said = subprocess.run(
            [f"{tools}nm", "-S", object_file], capture_output=True, text=True, check=True
        )
        rows = [line.split() for line in said.stdout.splitlines()]
        sizes = [int(row[1], 16) for row in rows if len(row) == 4 and row[2] in "tT"]
        yield Built(code_of_program(model.program), sum(sizes))


def timed(name: str, cases: Sequence[Case], folder: Path, rounds: int) -> Iterator[Measured]:
    """Yield the layers of cases in both families, timed here: the least of interleaved rounds.

    Raises:
        subprocess.CalledProcessError: a case does not compile.
    """
    models = [printed(case, family, target_named(name)) for case, family in families(cases)]
    programs = [_built(model, name, folder / f"{name}-{i}") for i, model in enumerate(models)]
    for _ in range(rounds):
        for model, program in zip(models, programs, strict=True):
            program.run(3)
            assert np.array_equal(program.result, model.expected), str(model.case)
    for model, program in zip(models, programs, strict=True):
        yield from _rows(model, program.best.tolist())


def _built(model: Printed, name: str, folder: Path) -> Timed:
    feed = np.ascontiguousarray(np.moveaxis(model.feed, 1, -1))
    return built(model.program, feed, name, folder)
