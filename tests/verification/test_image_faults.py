"""One wrong number or attribute anywhere in a convolutional network, and verification must fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import bnncc
from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import XnorConv
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Array, Element, TensorType
from bnncc.ir.window import Window
from bnncc.verification.compare import compare
from bnncc.verification.data import Samples, random_samples
from bnncc.verification.run import CompiledModel, load, load_many
from tests.frontends.builders import saved
from tests.verification.images import network

F = np.float32
SAMPLES = 24


def compiled(folder: Path, kernels: str) -> Compilation:
    return compile_in_memory(saved(network(top=True), folder), Options(kernels=(kernels,)))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    return compiled(tmp_path_factory.mktemp("model"), "dense")


@pytest.fixture(scope="module")
def model(done: Compilation) -> CompiledModel:
    return load(done)


def chosen(done: Compilation) -> Samples:
    return random_samples(done.lowered.graph, done.inputs, SAMPLES, 0)


def verified(done: Compilation, model: CompiledModel) -> bnncc.Verification:
    return compare(done, model, chosen(done), "cc", lambda *_: None)


def with_constants(graph: Graph, **changed: Array) -> Graph:
    for value in changed.values():
        value.flags.writeable = False
    return dataclasses.replace(graph, constants=MappingProxyType({**graph.constants, **changed}))


def with_node(graph: Graph, old: Node, new: Node) -> Graph:
    nodes = tuple(new if node is old else node for node in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes)


def wrong(name: str, value: Array) -> Array:
    """Return a constant of which something is wrong: one weight, or every number a little."""
    value = np.array(value, order="C")
    if name.endswith(".sign"):
        value.flat[3] *= -1
    elif name.endswith(".list"):  # a plane of the first group in the last one's sums
        value[[0, -1]] = value[[-1, 0]]
    elif name.endswith(".fours"):  # four planes in the class behind theirs, and so on
        value.flat[value.argmax()] -= 1
    elif value.dtype == np.int32:
        value += 2
    elif ".thresholds" in name or ".decisions" in name:
        value = 2 * value + 1
    elif value.dtype.kind in "iu":
        value.flat[0] ^= np.asarray(1 << 2, value.dtype)
    else:
        value = value * value.dtype.type(1.01) + value.dtype.type(0.01)
    return value


def test_without_a_fault(done: Compilation, model: CompiledModel) -> None:
    result = verified(done, model)
    assert result.ok
    assert sum(layer.compared for layer in result.layers) > 50_000
    assert sum(layer.undecided for layer in result.layers) <= 5
    scores, best = result.outputs
    assert (scores.values, best.values) == (5 * SAMPLES, SAMPLES)
    assert scores.top1_agreement == best.top1_agreement == 1.0


# --- Against the float model ----------------------------------------------------------------------


def faulty_nodes(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """Yield graphs at stage BINARY with one attribute or operand wrong."""
    conv1, pool, shortcut, kappa = (graph.producers[n] for n in ("conv1.acc", "p3", "r1", "abs"))
    assert isinstance(conv1.op, BinaryConv)
    assert isinstance(pool.op, MaxPool)
    assert isinstance(shortcut.op, ew.Add)
    padded = dataclasses.replace(conv1.op, pad=1)
    yield "pad +1", with_node(graph, conv1, dataclasses.replace(conv1, op=padded))
    moved = dataclasses.replace(conv1.op, window=shifted(conv1.op.window))
    yield "window", with_node(graph, conv1, dataclasses.replace(conv1, op=moved))
    falls = np.full(12, -1, np.int8)
    smallest = dataclasses.replace(pool, inputs=(*pool.inputs, "falls"))
    changed = with_constants(with_node(graph, pool, smallest), falls=falls)
    types = {**graph.types, "falls": TensorType((12,), Element.BIPOLAR)}
    yield "smallest of a pool", dataclasses.replace(changed, types=types)
    elsewhere = dataclasses.replace(shortcut, inputs=("bn1", "stem"))
    yield "shortcut", with_node(graph, shortcut, elsewhere)
    yield "kappa", with_node(graph, kappa, dataclasses.replace(kappa, op=ew.Relu()))


def shifted(window: Window) -> Window:
    """Return the window one pixel off."""
    axes = tuple(
        dataclasses.replace(axis, before=axis.before - 1, after=axis.after + 1)
        for axis in window.axes
    )
    return Window(axes)


def faulty(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for name, value in graph.constants.items():
        if not name.endswith((".levels", ".levels.1", ".slack")):
            yield name, with_constants(graph, **{name: wrong(name, value)})
    yield from faulty_nodes(graph)


def test_every_fault_in_the_folded_graph_shows_against_the_float_model(
    done: Compilation, model: CompiledModel
) -> None:
    unnoticed, count = [], 0
    for label, graph in faulty(done.lowered.folded):
        lowered = dataclasses.replace(done.lowered, folded=graph)
        result = verified(dataclasses.replace(done, lowered=lowered), model)
        count += 1
        if not any(check.mismatches for check in (*result.layers, *result.outputs)):
            unnoticed.append(label)
    assert count > 30
    assert unnoticed == []


def test_a_fault_is_placed(done: Compilation, model: CompiledModel) -> None:
    graph = done.lowered.folded
    thresholds = graph.constants["s3.thresholds.1"].copy()
    channel = int(np.abs(thresholds.astype(np.int64)).min(axis=1).argmin())
    thresholds[channel] -= 4
    lowered = dataclasses.replace(
        done.lowered, folded=with_constants(graph, **{"s3.thresholds.1": thresholds})
    )
    result = verified(dataclasses.replace(done, lowered=lowered), model)
    (layer,) = (layer for layer in result.layers if layer.mismatches)
    assert layer.name == "s3"  # teacher-forced: it does not spread
    assert layer.first.startswith("sample ")
    assert f", channel {channel}, pixel [" in layer.first


# --- The packed graph and its C -------------------------------------------------------------------


def packed_faults(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for name, value in graph.constants.items():
        yield name, with_constants(graph, **{name: wrong(name, value)})
    for node in graph.nodes:
        if isinstance(node.op, XnorConv) and node.op.window.taps > 1:
            moved = dataclasses.replace(node.op, window=shifted(node.op.window))
            yield f"window {node.name}", with_node(graph, node, dataclasses.replace(node, op=moved))


@pytest.mark.parametrize("kernels", ["dense", pytest.param("shared", marks=pytest.mark.slow)])
def test_every_fault_in_the_packed_graph_shows_against_the_folded_one(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-O1")  # twenty models are compiled, and hardly run
    done = compiled(tmp_path, kernels)
    variants = []
    for i, (label, graph) in enumerate(packed_faults(done.lowered.graph)):
        program = lower(graph, f"faulty{i}", ["faulty"])
        lowered = dataclasses.replace(done.lowered, graph=graph)
        other = dataclasses.replace(
            done,
            lowered=lowered,
            program=program,
            header=render_header(program),
            source=render_source(program),
        )
        variants.append((label, other))
    models = load_many([other for _, other in variants])
    unnoticed = [
        label
        for (label, other), built in zip(variants, models, strict=True)
        if not any(check.c_mismatches for check in verified(other, built).layers)
    ]
    assert len(variants) > 15
    assert unnoticed == []
