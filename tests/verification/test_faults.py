"""A verification that cannot fail proves nothing: one wrong number anywhere, and it must."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import bnncc
from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.ir.graph import Graph
from bnncc.ir.types import Array

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist_mlp"
UINT8 = "uint8:0.0078125,-1"


@pytest.fixture(scope="module")
def done() -> Compilation:
    return compile_in_memory(EXAMPLE / "mnist_mlp.onnx", Options(inputs=(UINT8,)))


def with_constant(graph: Graph, name: str, value: Array) -> Graph:
    value.flags.writeable = False
    return dataclasses.replace(graph, constants=MappingProxyType({**graph.constants, name: value}))


def verified(done: Compilation, graph: Graph, which: str) -> bnncc.Verification:
    """Verify with another folded graph, or another packed graph and the C that it gives."""
    lowered = dataclasses.replace(done.lowered, **{which: graph})
    if which == "graph":
        program = lower(graph, done.program.name, ["faulty"])
        done = dataclasses.replace(
            done, program=program, header=render_header(program), source=render_source(program)
        )
    images = np.load(EXAMPLE / "sample.npz")["images"]
    return bnncc.verify(dataclasses.replace(done, lowered=lowered), data={"x": images})


def test_without_a_fault(done: Compilation) -> None:
    assert verified(done, done.lowered.graph, "graph").ok


@pytest.mark.parametrize("kind", [".limits", ".packed"])
def test_one_number_of_a_layer_wrong_in_the_packed_graph(done: Compilation, kind: str) -> None:
    graph = done.lowered.graph
    names = [name for name in graph.constants if name.endswith(kind)]
    assert len(names) >= 3
    for name in names:
        value = np.array(graph.constants[name], order="C")
        if kind == ".limits":
            value += 1
        else:
            value.reshape(-1)[5] ^= np.asarray(1 << 7, value.dtype)
        assert not verified(done, with_constant(graph, name, value), "graph").ok, name


def test_thresholds_wrong_in_the_folded_graph(done: Compilation) -> None:
    graph = done.lowered.folded
    for name in [name for name in graph.constants if "thresholds" in name]:
        value = graph.constants[name] + 2
        result = verified(done, with_constant(graph, name, value), "folded")
        assert sum(layer.mismatches for layer in result.layers) > 0, name


def test_not_a_number_in_the_folded_graph(done: Compilation) -> None:
    graph = done.lowered.folded
    (beta,) = graph.producers[graph.outputs[0]].inputs[2:3]
    value = np.full_like(graph.constants[beta], np.nan)
    result = verified(done, with_constant(graph, beta, value), "folded")
    assert result.outputs[0].mismatches > 0
