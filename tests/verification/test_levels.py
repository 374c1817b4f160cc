"""Levels are held to the bit; functions whose last bits no two libraries agree on make none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnncc
from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.ir.ops.elementwise import Step
from tests.frontends.builders import NODE, make, saved

F = np.float32


def compiled(folder: Path, tail: str) -> Compilation:
    """Return bits, a dense layer, a sign times a scale (a Step with real levels), and a tail."""
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
    levels = [node.inputs[2] for node in graph.nodes if isinstance(node.op, Step)][-1]
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
        ("Sigmoid", 2.0**-18, True),
        ("Tanh", 2.0**-18, True),
    ],
)
def test_levels(tmp_path: Path, tail: str, apart: float, noticed: bool) -> None:
    assert (mismatches(verified(compiled(tmp_path, tail), apart)) > 0) is noticed


def test_channels_of_one_level_hold_it_at_infinity(tmp_path: Path) -> None:
    """A threshold that nothing reaches is not reached by infinity either."""
    model = make(
        NODE("Mul", ["x", "large"], ["a"], "overflows"),
        NODE("Min", ["a", "most"], ["b"], "limited"),
        NODE("GreaterOrEqual", ["b", "zero"], ["m"], "compared"),
        NODE("Where", ["m", "plus", "minus"], ["s"], "chosen"),
        NODE("MatMul", ["s", "w"], ["y"], "fc"),
        constants={
            "large": F(1e38),
            "most": np.array([-0.5, 0.5, -0.5, 0.5], F),
            "zero": F(0),
            "plus": F(1),
            "minus": F(-1),
            "w": np.eye(4, 3, dtype=F) * 2 - 1,
        },
    )
    done = compile_in_memory(saved(model, tmp_path), Options())
    x = np.array([[100, 100, np.inf, np.inf], [-100, -100, -np.inf, -np.inf]], F)
    result = bnncc.verify(done, data={"x": x})
    assert result.ok, result.layers
    signs = np.array([[-1, 1, -1, 1], [-1] * 4], F)
    np.testing.assert_array_equal(bnncc.load(done)(x), signs @ (np.eye(4, 3, dtype=F) * 2 - 1))
