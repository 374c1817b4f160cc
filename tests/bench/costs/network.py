"""A whole network in each kernel family and as chosen: what its layers of bits take here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.layouts.work import work_of
from tests.bench.costs.timing import Timed, built

__all__ = ["show_network"]

_FAMILIES = ("dense", "shared", "auto")


def show_network(model: Path, target: str, rounds: int) -> None:
    """Print microseconds of each layer that has both families, in turn forced and as chosen."""
    done = {f: compile_in_memory(model, Options(target=target, kernels=(f,))) for f in _FAMILIES}
    with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
        programs = {f: _built(each, target, Path(folder) / f) for f, each in done.items()}
        for _ in range(rounds):
            for program in programs.values():
                program.run(1)
    results = {f: program.result for f, program in programs.items()}
    assert all(np.array_equal(results["dense"], result) for result in results.values())
    choice = done["auto"].lowered.choice
    assert choice is not None  # compile_in_memory makes one
    layers = {f: _layers(program) for f, program in programs.items()}
    sys.stdout.write(f"{target}: us, dense, shared, chosen\n")
    for either in choice.eithers:
        if either.slices:
            times = "".join(f"{layers[f][either.result] / 1e3:10.1f}" for f in _FAMILIES)
            name = choice.family(either).value
            sys.stdout.write(f"  {either.origin[0]:44}{times}  {name}\n")
    for what, count in (("moves between layouts", _moves), ("all layers", _all)):
        times = "".join(f"{count(programs[f]) / 1e3:10.1f}" for f in _FAMILIES)
        sys.stdout.write(f"  {what:44}{times}\n")


def _built(done: Compilation, target: str, folder: Path) -> Timed:
    (port,) = done.program.inputs
    random = np.random.default_rng(0)
    feed = random.standard_normal(port.shape).astype(np.float32)
    return built(done.program, feed, target, folder)


def _layers(timed: Timed) -> Mapping[str, float]:
    """Return the nanoseconds of each layer by its first result, copies for its taps included."""
    found: dict[str, float] = {}
    for layer, time in zip(timed.program.layers, timed.best.tolist(), strict=True):
        copies = found.get(layer.inputs[0].buffer.tensor, 0.0)
        before = copies if _copies(timed, layer.inputs[0].buffer.tensor) else 0.0
        found[layer.outputs[0].buffer.tensor] = time + before
    return found


def _copies(timed: Timed, tensor: str) -> bool:
    return any(
        layer.template == "spread.c.j2" and layer.outputs[0].buffer.tensor == tensor
        for layer in timed.program.layers
    )


def _moves(timed: Timed) -> float:
    moving = ("to planes", "from planes", "to planar", "from planar")
    pairs = zip(timed.program.layers, timed.best.tolist(), strict=True)
    return sum(t for layer, t in pairs if next(iter(work_of(layer)), "").startswith(moving))


def _all(timed: Timed) -> float:
    return sum(timed.best.tolist())
