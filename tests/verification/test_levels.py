"""Levels are held to the bit, but behind functions whose last bits no two libraries agree on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnncc
from bnncc.compiler import Compilation, compile_in_memory

F = np.float32


def compiled(folder: Path, tail: str) -> Compilation:
    """Return bits, a dense layer, a sign and a scale or a sigmoid: one Step with real levels."""
    random = np.random.default_rng(3)
    weights = random.choice(F([-1, 1]), (9, 5))
    nodes = [
        helper.make_node("Sign", ["x"], ["bits"]),
        helper.make_node("MatMul", ["bits", "w"], ["sum"]),
        helper.make_node("Sign", ["sum"], ["sign"]),
        helper.make_node("Mul", ["sign", "scale"], ["scaled"]),
        helper.make_node(tail, ["scaled"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(F(0.7), "scale"),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count])]
        for name, count in (("x", 9), ("y", 5))
    ]
    graph = helper.make_graph(nodes, "levels", *ports, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "levels.onnx")
    return compile_in_memory(folder / "levels.onnx")


def verified(done: Compilation, apart: float) -> bnncc.Verification:
    """Verify with all levels of the folded graph's last Step that much larger, relatively."""
    graph = done.lowered.folded
    levels = graph.producers["y"].inputs[2]
    value = (graph.constants[levels] * F(1 + apart)).astype(F)
    value.flags.writeable = False
    constants = MappingProxyType({**graph.constants, levels: value})
    folded = dataclasses.replace(graph, constants=constants)
    lowered = dataclasses.replace(done.lowered, folded=folded)
    x = np.random.default_rng(4).standard_normal((16, 9)).astype(F)
    return bnncc.verify(dataclasses.replace(done, lowered=lowered), data={"x": x})


def mismatches(found: bnncc.Verification) -> int:
    return sum(check.mismatches for check in (*found.layers, *found.outputs))


@pytest.mark.parametrize(
    ("tail", "apart", "noticed"),
    [
        ("Neg", 0, False),
        ("Neg", 2.0**-22, True),
        ("Sigmoid", 0, False),
        ("Tanh", 0, False),
        ("Sigmoid", 2.0**-22, False),
        ("Sigmoid", 2.0**-18, True),
        ("Tanh", 2.0**-18, True),
    ],
)
def test_levels(tmp_path: Path, tail: str, apart: float, noticed: bool) -> None:
    assert (mismatches(verified(compiled(tmp_path, tail), apart)) > 0) is noticed
