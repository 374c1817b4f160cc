"""Hold the cost model against measurements: `python -m tests.bench.costs`.

python -m tests.bench.costs                          all targets, each layer beside the prediction
python -m tests.bench.costs --target cortex-m4       one target
python -m tests.bench.costs --fit                    and fit the constants to what was measured
python -m tests.bench.costs --model bireal.onnx      time a network's layers here, in each family

Targets that are emulated are counted, in instructions of gcc -O2; x86 is timed here, in ns of gcc
-O3, the least of interleaved rounds. Real epilogues on riscv32 take Cortex-M0's constants: there is
no library of floating point for it here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnncc.layouts.costs import time_of
from bnncc.passes.base import Family
from bnncc.targets import Costs, costs_of, fitted, target_named
from tests.bench.costs.cases import LARGE, SMALL, Case
from tests.bench.costs.fit import fit, fit_by_kind
from tests.bench.costs.measure import Built, Measured, code_sizes, emulated, timed
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
    parser.add_argument("--model", type=Path, help="a network of one input, for targets of x86")
    args = parser.parse_args()
    if args.model:
        for name in (name for name in args.target if name in HOSTED):
            show_network(args.model, name, args.rounds)
        return 0
    for name in args.target:
        with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
            cases = cases_of(name)
            rows = measured(name, cases, Path(folder), args.rounds)
            built = list(code_sizes(name, cases, Path(folder)))
        costs = _fitted(name, rows, built) if args.fit else costs_of(target_named(name))
        if args.fit:
            write(name, costs)
        _print(name, costs, rows, built)
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


def _fitted(name: str, rows: Sequence[Measured], built: Sequence[Built]) -> Costs:
    time = fit_by_kind([(row.work, row.units) for row in rows])
    code = fit([(each.parts, each.size) for each in built])
    layers = [code[part] for part in ("linear", "move", "pack_planes") if part in code]
    code["other"] = round(sum(layers) / len(layers))
    if name == "riscv32":
        other = fitted.FITTED["cortex-m0"]
        time, code = {**other.time, **time}, {**other.code, **code}
    return Costs("ns" if name in HOSTED else "instructions", time, code)


def _print(name: str, costs: Costs, rows: Sequence[Measured], built: Sequence[Built]) -> None:
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
    code = [
        sum(costs.code.get(p, costs.code["other"]) * n for p, n in each.parts.items()) / each.size
        - 1
        for each in built
    ]
    _line("  code", code)


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
