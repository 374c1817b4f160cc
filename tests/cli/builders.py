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
