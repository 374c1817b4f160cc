"""Time binary layers: `python -m tests.bench`.

python -m tests.bench                                  the layers of the table, AVX2 and AVX-512
python -m tests.bench --variants x86-64-v3:shared      those of shared sums
python -m tests.bench --layers 64@56 --form residual   one layer, with a shortcut
python -m tests.bench --variants x86-64-v3:scalar      with the scalar kernels of a target

Figures are Gbin-MAC/s of one core, median and (best) of all rounds; each round takes the best of
three calls.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench.layers import FORMS, LayerCase, variant
from tests.bench.measure import Row, build, build_roof, measure
from tests.bench.roofs import ROOFS

_LAYERS = "64@32 128@32 256@16 512@16 64@56 128@28 256@14 512@7"
_VARIANTS = (
    *("x86-64-v3:scalar", "x86-64-v3", "x86-64-v3:shared"),
    *("x86-64-avx512:scalar", "x86-64-avx512", "x86-64-avx512:shared"),
)


def main() -> int:
    """Print a table; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layers", nargs="+", default=_LAYERS.split(), help="CHANNELS@SIZE")
    parser.add_argument("--form", choices=FORMS, default="minus")
    parser.add_argument("--variants", nargs="+", default=_VARIANTS, help="TARGET[:ISA|:shared]")
    parser.add_argument("--compilers", nargs="+", default=["gcc", "clang"])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    cases = [LayerCase(*map(int, text.split("@")), args.form) for text in args.layers]
    with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
        builds = [
            build(f"{text} {compiler}", variant(text), compiler, cases, Path(folder))
            for text in args.variants
            for compiler in args.compilers
        ]
        compiler = args.compilers[-1]
        tops = {
            f"{name} {what}": build_roof(name, variant(name).target, compiler, Path(folder))
            for name, what in ROOFS.items()
            if any(text.partition(":")[0] == name for text in args.variants)
        }
        rows, roofs = measure(builds, tops, cases, args.rounds)
    for row in roofs:
        _print("roof", row)
    for case, found in rows.items():
        for row in found:
            _print(str(case), row)
    return 0


def _print(what: str, row: Row) -> None:
    figures = f"{row.median:7.0f} ({row.best:.0f})"
    sys.stdout.write(f"{what:11} {row.label:30} {row.kernel:30} {figures}\n")


if __name__ == "__main__":
    sys.exit(main())
