"""Count the instructions of binary layers: `python -m tests.bench.instructions`.

python -m tests.bench.instructions                        the table, all machines
python -m tests.bench.instructions --target cortex-m4     one machine
python -m tests.bench.instructions --form zero --profile  padded with 0, and by function
python -m tests.bench.instructions --kernel lean dense    and other kernels
python -m tests.bench.instructions --model cnv.onnx       with the weights of a model
python -m tests.bench.instructions --reads u2 --kernel shared dense
                                                          codes of 2 bits, by both families

A layer is 3x3 with 16x16 outputs. Counted is all from its input's planes of bits to its output's,
the copies for the taps included, under QEMU; the result is checked. Flash is that of lists and
limits, and of the code that ran; RAM that of planes. Dense kernels have words instead of planes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bnncc.ir.types import Element
from bnncc.passes.base import Family
from tests.bench.instructions.cases import FORMS, READS, Case, random_weights, trained_cases
from tests.bench.instructions.machines import LEVEL, MACHINES
from tests.bench.instructions.measure import Count, count


def main() -> int:
    """Print a table; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [machine.target for machine in MACHINES]
    kernels = [family.value for family in Family]
    parser.add_argument("--target", nargs="+", choices=names, default=names)
    parser.add_argument("--channels", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--form", nargs="+", choices=FORMS, default=["minus"])
    elements = [element.value for element in READS]
    parser.add_argument("--reads", choices=elements, default=elements[0], help="what it convolves")
    parser.add_argument("--zeros", type=float, default=0, help="the part of weights that are 0")
    parser.add_argument("--kernel", nargs="+", choices=kernels, default=["shared"])
    parser.add_argument("--model", type=Path, help="layers with this model's weights, not random")
    parser.add_argument("--profile", action="store_true", help="print each function's part")
    args = parser.parse_args()
    cases = trained_cases(args.model) if args.model else []
    for form, c in itertools.product(args.form, () if args.model else args.channels):
        weights = random_weights(c, args.zeros)
        cases.append(Case("random", weights, form, reads=Element(args.reads)))
    cases = [replace(case, family=Family(name)) for case in cases for name in args.kernel]
    sys.stdout.write(f"gcc {LEVEL}; instructions/MAC, flash (lists + code), RAM in bytes\n")
    with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
        for machine in MACHINES:
            for i, case in enumerate(cases if machine.target in args.target else ()):
                _print(count(machine, case, Path(folder) / f"{machine.target}{i}"), args.profile)
    return 0


def _print(found: Count, profile: bool) -> None:
    lists, code = found.flash
    figures = f"{found.per_mac:8.4f}  {lists:7} + {code:5}  {found.ram:7}"
    sys.stdout.write(f"{found.machine:11} {found.case:32} {figures}\n")
    for name, instructions in found.functions if profile else ():
        sys.stdout.write(f"  {instructions / found.macs:8.5f} {name}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
