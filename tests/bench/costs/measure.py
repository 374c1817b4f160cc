"""What each layer of a case takes: instructions under emulation, or nanoseconds on this machine."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnncc.layouts.code import Parts, functions_of, parts_of_program
from bnncc.layouts.work import Work, work_of
from bnncc.passes.base import Family
from bnncc.targets import target_named
from tests.backend.zoo import MODELS, Emitted, emitted
from tests.bench.costs.cases import Case, Printed, printed
from tests.bench.costs.timing import Timed, built
from tests.bench.instructions.machines import LEVEL, MACHINES
from tests.bench.instructions.measure import counts

__all__ = ["FAMILIES", "Built", "Measured", "code_sizes", "emulated", "timed", "zoo_sizes"]

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
    """The code of a program.

    Attributes:
        parts, size: what it consists of, and bytes.
        functions: the same of each function where none is inlined but what always is.
    """

    parts: Parts
    size: int
    functions: tuple[tuple[Parts, int], ...]


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


_APART = (
    *("-fno-inline-functions-called-once", "-fno-inline-small-functions", "-fno-inline-functions"),
    *("-fno-partial-inlining", "-fno-ipa-icf"),
)
"""What keeps every function, perhaps under a longer name: with constants for some arguments."""


def code_sizes(name: str, cases: Sequence[Case], folder: Path) -> Iterator[Built]:
    """Yield the code of cases in both families, compiled as they are measured.

    Raises:
        subprocess.CalledProcessError: a program does not compile.
    """
    for case, family in families(cases):
        model = printed(case, family, target_named(name))
        yield _compiled(name, model, folder)


def zoo_sizes(name: str, folder: Path) -> Iterator[Built]:
    """Yield the code of the zoo: of small programs that have every kind of layer.

    Raises:
        subprocess.CalledProcessError: a program does not compile.
    """
    for model_name in MODELS:
        yield _compiled(name, emitted(model_name, name), folder)


def _compiled(name: str, model: Printed | Emitted, folder: Path) -> Built:
    sizes = _sizes(name, model, folder, ())
    apart = _sizes(name, model, folder, _APART)
    functions = functions_of(model.program)
    rows = tuple((parts, apart[f]) for f, parts in functions.items() if f in apart)
    return Built(parts_of_program(model.program), sum(sizes.values()), rows)


def _sizes(
    name: str, model: Printed | Emitted, folder: Path, flags: Sequence[str]
) -> Mapping[str, int]:
    """Return the bytes of each function of a program."""
    machine = next((m for m in MACHINES if m.target == name), None)
    hosted = ("-O3", *target_named(name).cflags)
    tools, own = (machine.tools, (LEVEL, *machine.flags)) if machine else ("", hosted)
    stem = folder / f"{name}-code"
    stem.mkdir(parents=True, exist_ok=True)
    source, object_file = stem / f"{model.program.name}.c", stem / "m.o"
    source.with_suffix(".h").write_text(model.header, encoding="utf-8")
    source.write_text(model.source, encoding="utf-8")
    command = [f"{tools}gcc", *own, *flags, "-std=gnu99", "-w", "-c", source]
    subprocess.run([*command, "-o", object_file], check=True, stderr=subprocess.DEVNULL)
    command = [f"{tools}nm", "-S", object_file]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes: Counter[str] = Counter()
    for row in (line.split() for line in said.stdout.splitlines()):
        if len(row) == 4 and row[2] in "tT":
            sizes[row[3].partition(".")[0]] += int(row[1], 16)
    return sizes


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
