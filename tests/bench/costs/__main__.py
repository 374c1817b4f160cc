"""Hold the cost model against measurements: `python -m tests.bench.costs`.

python -m tests.bench.costs                          all targets, each layer beside the prediction
python -m tests.bench.costs --target cortex-m4       one target
python -m tests.bench.costs --fit                    and fit the constants to what was measured
python -m tests.bench.costs --fit --code             those of code alone
python -m tests.bench.costs --model bireal.onnx      time a network's layers here, in each family

Targets that are emulated are counted, in instructions of gcc -O2; x86 is timed here, in ns of gcc
-O3, the least of interleaved rounds. Real epilogues on riscv32 take Cortex-M0's constants: there is
no library of floating point for it here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bnncc.layouts.costs import code_bytes, time_of
from bnncc.passes.base import Family
from bnncc.targets import Costs, costs_of, fitted, target_named
from tests.bench.costs.cases import LARGE, SMALL, Case
from tests.bench.costs.fit import fit, fit_by_kind
from tests.bench.costs.measure import Built, Measured, code_sizes, emulated, timed, zoo_sizes
from tests.bench.costs.network import show_network
from tests.bench.costs.timing import HOSTED
from tests.bench.costs.written import write

_TARGETS = ("cortex-m0", "cortex-m4", "cortex-m55", "riscv32", "armv7-a", "aarch64", *HOSTED)
_REAL = ("real", "signs")


def main() -> int:
    """Print what was predicted beside what was measured; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.costs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", nargs="+", choices=_TARGETS, default=_TARGETS)
    parser.add_argument("--rounds", type=int, default=12, help="of timing, on x86")
    parser.add_argument("--fit", action="store_true", help="write the constants of the targets")
    parser.add_argument("--code", action="store_true", help="bytes of code, and no time")
    parser.add_argument("--model", type=Path, help="a network of one input, for targets of x86")
    args = parser.parse_args()
    if args.model:
        for name in (name for name in args.target if name in HOSTED):
            show_network(args.model, name, args.rounds)
        return 0
    for name in args.target:
        with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
            cases = () if args.code else cases_of(name)
            rows = measured(name, cases, Path(folder), args.rounds)
            built = [*code_sizes(name, SMALL, Path(folder)), *zoo_sizes(name, Path(folder))]
        costs = costs_of(target_named(name))
        if args.fit:
            time = _fitted(name, rows) if rows else costs.time
            costs = Costs("ns" if name in HOSTED else "instructions", time, _fitted_code(built))
            write(name, costs)
        if rows:
            _print(name, costs, rows)
        off = [code_bytes(each.parts, costs) / each.size - 1 for each in built]
        _line(f"  code of {name}", off)
    return 0


def cases_of(name: str) -> tuple[Case, ...]:
    """Return the layers to measure on a target: no larger than its machine takes."""
    large = LARGE if name in HOSTED or name == "aarch64" else ()
    cases = SMALL + large
    return tuple(c for c in cases if name != "riscv32" or c.form not in _REAL)


def measured(name: str, cases: Sequence[Case], folder: Path, rounds: int) -> list[Measured]:
    """Return the layers of cases, measured."""
    if name in HOSTED:
        return list(timed(name, cases, folder, rounds))
    return list(emulated(name, cases, folder))


def _fitted(name: str, rows: Sequence[Measured]) -> Mapping[str, float]:
    time = fit_by_kind([(row.work, row.units) for row in rows])
    return {**fitted.FITTED["cortex-m0"].time, **time} if name == "riscv32" else time


def _fitted_code(built: Sequence[Built]) -> Mapping[str, float]:
    """Return the bytes of parts; a layer of a kind that nobody measured takes what most do."""
    functions = [row for each in built for row in each.functions]
    layers = [size for parts, size in functions if "epilogue: statement" in parts]
    return {**fit(functions, relative=False), "other": float(np.median(layers))}


def _print(name: str, costs: Costs, rows: Sequence[Measured]) -> None:
    sys.stdout.write(f"{name}, {costs.unit}: predicted, measured, error\n")
    kinds = dict.fromkeys(row.kind for row in rows)
    for kind in kinds:
        held = [row for row in rows if row.kind == kind]
        off = [time_of(row.work, costs) / row.units - 1 for row in held]
        _line(f"  {kind} ({len(held)})", off)
    for case in dict.fromkeys(row.case for row in rows):
        for family in (Family.DENSE, Family.SHARED, Family.LEAN):
            mine = [row for row in rows if (row.case, row.family) == (case, family)]
            if not mine:
                continue
            told, took = sum(time_of(r.work, costs) for r in mine), sum(r.units for r in mine)
            error = f"{told:12.0f} {took:12.0f} {100 * (told / took - 1):+6.1f} %"
            sys.stdout.write(f"  {case!s:44} {family.value:6} {error}\n")
    both = [
        sum(time_of(row.work, costs) for row in mine) / sum(row.units for row in mine) - 1
        for mine in by_layer(rows).values()
    ]
    _line("  all", both)


def _line(what: str, errors: Sequence[float]) -> None:
    off = np.abs(np.array(errors))
    text = f"median {100 * np.median(off):.1f} %, worst {100 * off.max():.1f} %"
    sys.stdout.write(f"{what:30} {text}\n")


def by_layer(rows: Sequence[Measured]) -> dict[tuple[Case, Family], list[Measured]]:
    """Return what was measured of each case in each family, moves between layouts included."""
    found: dict[tuple[Case, Family], list[Measured]] = {}
    for row in rows:
        found.setdefault((row.case, row.family), []).append(row)
    return found


if __name__ == "__main__":
    sys.exit(main())
