"""Run the fuzzer by hand; `python -m tests.fuzz --help` says how.

python -m tests.fuzz 4711                   one network, made smaller while it fails
python -m tests.fuzz "2d:7 conv:3 nothing:0"  the same from a plan
python -m tests.fuzz --count 1000           new networks, of seeds that are printed
python -m tests.fuzz --count 100 --each 0   from seed 0, a library each: after a crash
"""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from collections import Counter
from pathlib import Path

from tests.fuzz.case import MENU, build, check_all
from tests.fuzz.plan import Plan, parse_plan, plan_of, shrunk

_AT_ONCE = 50


def main() -> int:
    """Return 0 if nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("what", nargs="?", default="", help="a seed, or a plan")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, from `what` on")
    parser.add_argument("--each", action="store_true", help="a library for each network")
    parser.add_argument("--compiler", default="", help="such as clang")
    parser.add_argument("--cflags", default="-O1")
    parser.add_argument("--save", type=Path, help="folder for the ONNX files of what fails")
    args = parser.parse_args()
    if args.what and not args.what.isdigit():
        todo = {args.what: parse_plan(args.what)}
    else:
        first = int(args.what) if args.what else secrets.randbelow(2**40)
        todo = {str(seed): plan_of(seed, MENU) for seed in range(first, first + args.count)}
    return _run(todo, args)


def _run(todo: dict[str, Plan], args: argparse.Namespace) -> int:
    at_once = 1 if args.each else _AT_ONCE
    labels = list(todo)
    refused: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    failed = 0
    for start in range(0, len(labels), at_once):
        part = labels[start : start + at_once]
        _say(f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0])
        outcomes = check_all(
            [todo[label] for label in part], compiler=args.compiler, cflags=args.cflags
        )
        for label, outcome in zip(part, outcomes, strict=True):
            totals["compared"] += outcome.compared
            totals["undecided"] += outcome.undecided
            totals["certified"] += outcome.certified
            totals["exact"] += outcome.is_exact
            if outcome.refused:
                refused[_without_names(outcome.refused)] += 1
            if outcome.failure:
                failed += 1
                _say(f"FAILS {label}: {outcome.plan}\n  {outcome.failure}")
                _shrink(label, outcome.plan, args)
    for reason, count in refused.most_common():
        _say(f"{count} refused: {reason}")
    _say(f"{len(todo)} networks, {sum(refused.values())} refused, {failed} failed")
    _say(", ".join(f"{count} {what}" for what, count in totals.items()))
    return 1 if failed else 0


def _without_names(reason: str) -> str:
    """Return a refusal without the names and numbers that differ from network to network."""
    return re.sub(r"\d+", "#", re.sub(r'"[^"]*"', '"..."', reason))


def _shrink(label: str, plan: Plan, args: argparse.Namespace) -> None:
    """Look for a smaller plan that fails, and save both."""

    def fails(candidate: Plan) -> bool:
        (outcome,) = check_all([candidate], compiler=args.compiler, cflags=args.cflags)
        return bool(outcome.failure)

    small = shrunk(plan, fails)
    (outcome,) = check_all([small], compiler=args.compiler, cflags=args.cflags)
    _say(f"smallest: {small}\n  {outcome.failure}")
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        for name, each in (("all", plan), ("small", small)):
            path = args.save / f"{label.split(maxsplit=1)[0].replace(':', '_')}_{name}"
            path.with_suffix(".onnx").write_bytes(build(each).model.SerializeToString())
            path.with_suffix(".txt").write_text(f"{each}\n{build(each).options}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
