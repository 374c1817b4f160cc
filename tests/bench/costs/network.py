"""A whole network in each kernel family, as chosen, and in ONNX Runtime: what it takes here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnxruntime

from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.ir.types import Array
from bnncc.layouts.work import work_of
from tests.bench.costs.timing import Timed, built

__all__ = ["show_network"]

_FAMILIES = ("dense", "shared", "auto")


def show_network(model: Path, target: str, rounds: int) -> None:
    """Print microseconds of layers of bits in both families and as chosen, and of all the network.

    ONNX Runtime computes the same file in float, on one core too, in the same rounds.
    """
    done = {f: compile_in_memory(model, Options(target=target, kernels=(f,))) for f in _FAMILIES}
    with tempfile.TemporaryDirectory(prefix="bnncc-bench-") as folder:
        programs = {f: _built(each, target, Path(folder) / f) for f, each in done.items()}
        float_model = _float_model(model, next(iter(programs.values())).feed)
        peer = np.inf
        for _ in range(rounds):
            for program in programs.values():
                program.run(1)
            peer = min(peer, _timed(float_model))
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
    for layer, each in _others(programs["auto"]):
        sys.stdout.write(f"  {layer:64}{each / 1e3:10.1f}\n")
    for what, count in (("moves between layouts", _moves), ("all layers", _all)):
        times = "".join(f"{count(programs[f]) / 1e3:10.1f}" for f in _FAMILIES)
        sys.stdout.write(f"  {what:44}{times}\n")
    sys.stdout.write(f"  {'ONNX Runtime, in float, on one core':64}{peer / 1e3:10.1f}\n")


def _float_model(model: Path, feed: Array) -> Callable[[], object]:
    """Return what runs a file in ONNX Runtime, as fast as it does on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: feed}
    return lambda: session.run(None, feeds)


def _timed(call: Callable[[], object]) -> float:
    """Return the nanoseconds of a call."""
    start = perf_counter_ns()
    call()
    return perf_counter_ns() - start


def _others(timed: Timed) -> list[tuple[str, float]]:
    """Return the layers without a choice that take a hundredth of the time or more, and theirs."""
    pairs = list(zip(timed.program.layers, timed.best.tolist(), strict=True))
    least = sum(t for _, t in pairs) / 100
    return [(layer.summary[0], t) for layer, t in pairs if t > least and not work_of(layer)]


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
