"""The names of parameters: found above the weights, and trusted only where they are paths."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnncc.report.parameters import parameter_names


def names(nodes, **constants):
    """Return the names found in a graph of nodes, given as (op type, inputs, result)."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [y], name=f"node_{y}") for op, inputs, y in nodes],
        "g",
        [],
        [],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return parameter_names(helper.make_model(graph))


WEIGHTS = np.zeros((4, 3, 1, 1), np.float32)
SCALAR = np.zeros((), np.float32)


def test_weights_as_they_are():
    found = names(
        [("Conv", ["x", "layer1.0.conv.weight"], "y")], **{"layer1.0.conv.weight": WEIGHTS}
    )
    assert found == {"node_y": "layer1.0.conv.weight"}


def test_weights_binarised_in_the_graph():
    nodes = [
        ("Sign", ["a.weights"], "sign"),
        ("Mul", ["sign", "val.3"], "scaled"),
        ("Mul", ["scaled", "scaled"], "twice"),
        ("Conv", ["x", "twice", "a.bias"], "y"),
        ("MatMul", ["y", "z"], "product"),
    ]
    constants = {"a.weights": WEIGHTS, "val.3": SCALAR, "a.bias": np.zeros(99, np.float32)}
    assert names(nodes, **constants) == {"node_y": "a.weights"}


@pytest.mark.parametrize("name", ["mul_3", "onnx::Conv_61", "a..b", "model/conv2d.weights", ".w"])
def test_names_that_are_no_paths(name):
    assert names([("Gemm", ["x", name], "y")], **{name: WEIGHTS}) == {}


def test_two_that_could_be_meant():
    constants = {"a.weight": WEIGHTS, "b.weight": WEIGHTS}
    assert names([("Add", [*constants], "w"), ("Conv", ["x", "w"], "y")], **constants) == {}


def test_a_model_without_any():
    assert parameter_names(onnx.ModelProto()) == {}
