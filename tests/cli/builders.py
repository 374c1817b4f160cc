"""A small model with every kind of layer, and what tests of the command line share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("first", "hidden", "last")


def make_model(
    names: tuple[str, str, str] = NAMES, input_name: str = "x", *, real_last: bool = True
) -> onnx.ModelProto:
    """Return 32-16-16-4: binary weights on reals, then on bits; real weights, or binary ones."""
    rng = np.random.default_rng(3)
    constants = {
        "w0": rng.choice([-1, 1], (32, 16)),
        "w1": rng.choice([-1, 1], (16, 16)),
        "w2": rng.normal(0, 1, (16, 4)) if real_last else rng.choice([-1, 1], (16, 4)),
        "zero": np.array(0.0),
        "plus": np.array(1.0),
        "minus": np.array(-1.0),
    }
    nodes = []
    source = input_name
    for layer, name in enumerate(names):
        sums = "y" if layer == 2 else f"n{layer}"
        nodes.append(helper.make_node("MatMul", [source, f"w{layer}"], [sums], name=name))
        if layer < 2:
            source = f"bits{layer}"
            nodes += [
                helper.make_node("GreaterOrEqual", [sums, "zero"], [f"ge{layer}"]),
                helper.make_node("Where", [f"ge{layer}", "plus", "minus"], [source]),
            ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_images() -> onnx.ModelProto:
    """Return a residual network of 3x8x8 images as PyTorch's newer exporter would write it.

    A real stem; a block of binary convolution, BatchNorm with hostile statistics, shortcut and
    sign; a depthwise binary convolution of stride 2, which goes by the same name; a binary dense
    layer.
    """
    rng = np.random.default_rng(5)
    constants = {
        "conv1.weight": rng.normal(0, 1, (8, 3, 3, 3)),
        "layer1.conv.weight": 0.25 * rng.choice([-1, 1], (8, 8, 3, 3)),
        "layer2.conv.weight": rng.choice([-1, 1], (8, 1, 3, 3)),
        "val_7": rng.choice([-1, 1], (4, 128)),
        "gamma": np.array([1.5, -1.5, 0, 0.25, -0.25, 1e-20, 2, -2]),
        "beta": np.array([0.5, 0, 0.5, 0, -1, 0, 1, -1]),
        "mean": np.arange(-4, 4),
        "variance": np.array([1, 4, 1e-12, 9, 1, 1, 0.25, 16]),
        "zero": np.array(0.0),
        "plus": np.array(1.0),
        "minus": np.array(-1.0),
    }

    def sign(name: str, x: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("GreaterOrEqual", [x, "zero"], [f"{name}.ge"], name=f"ge_{name}"),
            helper.make_node(
                "Where", [f"{name}.ge", "plus", "minus"], [name], name=f"where_{name}"
            ),
        ]

    def conv(name: str, x: str, weights: str, y: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node("Conv", [x, weights], [y], name=name, **attributes)

    around = {"pads": [1, 1, 1, 1]}
    half = {"strides": [2, 2], "pads": [0, 0, 1, 1], "group": 8}
    statistics = ["gamma", "beta", "mean", "variance"]
    nodes = [
        conv("node_Conv_1", "x", "conv1.weight", "stem", **around),
        *sign("bits0", "stem"),
        conv("node_Conv", "bits0", "layer1.conv.weight", "sums", **around),
        helper.make_node("BatchNormalization", ["sums", *statistics], ["normal"], name="node_bn"),
        helper.make_node("Add", ["normal", "stem"], ["block"], name="node_add"),
        *sign("bits1", "block"),
        conv("node_Conv", "bits1", "layer2.conv.weight", "depthwise", **half),
        *sign("bits2", "depthwise"),
        helper.make_node("Flatten", ["bits2"], ["flat"], name="node_flatten"),
        helper.make_node("Gemm", ["flat", "val_7"], ["y"], name="node_Gemm_9", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "images",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_codes() -> onnx.ModelProto:
    """Return 32-32-4 with binary weights, and activations of 2 bits between them."""
    return _dense([("Clip", ("low", "high")), ("Round", ())])


def make_lost_sign() -> onnx.ModelProto:
    """Return 32-32-4 with binary weights and a hardtanh between them that no sign follows."""
    return _dense([("Clip", ("minus", "one"))])


def make_float() -> onnx.ModelProto:
    """Return 32-32-4 with real weights and a ReLU."""
    return _dense([("Relu", ())], real=True)


def _dense(between: list[tuple[str, tuple[str, ...]]], *, real: bool = False) -> onnx.ModelProto:
    rng = np.random.default_rng(9)
    constants = {
        "w0": rng.normal(0, 1, (32, 32)) if real else rng.choice([-1, 1], (32, 32)),
        "w1": rng.normal(0, 1, (32, 4)) if real else rng.choice([-1, 1], (32, 4)),
        "low": np.array(0.0),
        "high": np.array(3.0),
        "minus": np.array(-1.0),
        "one": np.array(1.0),
    }
    nodes, x = [helper.make_node("MatMul", ["x", "w0"], ["t"], name="first")], "t"
    for op, operands in between:
        nodes.append(helper.make_node(op, [x, *operands], [f"{x}_"], name=op.lower()))
        x = f"{x}_"
    nodes.append(helper.make_node("MatMul", [x, "w1"], ["y"], name="second"))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without what colours output, with the checkout importable."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | dict(more or {})


def pure_json(text: str) -> dict[str, Any]:
    """Return the one JSON object that `text` is, NaN and infinities refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def files_in(folder: Path) -> list[str]:
    """Return every file and folder below `folder`, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
