"""An operator's small model between binary layers: does everything there stay bits?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bnncc.frontends.onnx.operator import Bits
from bnncc.ir.ops.kernels import XnorConv
from bnncc.ir.types import Array, Element
from bnncc.passes.base import Context, SignZero
from bnncc.pipeline import run_pipeline
from bnncc.targets import host_target
from tests.frontends.builders import NODE, load, make

F = np.float32
_RANKS = (2, 3, 4)


def signs(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).choice(F([-1, 1]), shape)


def is_on_bits(case: onnx.ModelProto, kind: Bits, folder: Path) -> bool:
    """Whether no real number is stored where the nodes of `case` stand between binary layers.

    Args:
        case: a model of one image or row x, with one such result y.
        kind: what the operator is said to become. For SUMS, the nodes' own weights are made
            binary, with signs before and behind; for STAYS a sign comes before, for FOLDS behind.
        folder: for the models.
    """
    types = load(case, folder).graph.types
    shapes = types["x"].shape, types["y"].shape
    if types["y"].element is not Element.F32 or not all(len(s) in _RANKS for s in shapes):
        return False  # no layer could read it
    source = load(_surrounded(case, kind, *shapes), folder).graph
    graph = run_pipeline(source, Context(host_target(), SignZero.AUTO)).graph
    layers = [i for i, node in enumerate(graph.nodes) if isinstance(node.op, XnorConv)]
    between = graph.nodes[layers[0] : layers[-1]] if layers else ()
    stored = [name for node in between for name in node.outputs]
    return bool(stored) and all(graph.types[name].element is not Element.F32 for name in stored)


def can_stand_between(case: onnx.ModelProto) -> bool:
    """Whether the case has the form that `is_on_bits` takes."""
    return len(case.graph.input) == len(case.graph.output) == 1


def _surrounded(
    case: onnx.ModelProto, kind: Bits, shape: Sequence[int], result: Sequence[int]
) -> onnx.ModelProto:
    constants = {t.name: numpy_helper.to_array(t) for t in case.graph.initializer}
    if kind is Bits.SUMS:
        constants["w"] = np.where(constants["w"] < 0, F(-1), F(1))
    before, last = _layer("before", "image", "sums", shape), _layer("last", "bits", "out", result)
    nodes = [NODE("Sign", ["real"], ["image"]), before[0]]
    if kind is Bits.FOLDS:
        nodes.append(NODE("Identity", ["sums"], ["x"]))
    else:
        nodes.append(NODE("Sign", ["sums"], ["x"]))
    nodes += case.graph.node
    if kind is Bits.STAYS:
        nodes.append(NODE("Identity", ["y"], ["bits"]))
    else:
        # Many functions are positive everywhere: their signs would be known.
        nodes += [NODE("Sub", ["y", "middle"], ["m"]), NODE("Sign", ["m"], ["bits"])]
    opset = case.opset_import[0].version
    added: Mapping[str, Array] = {**before[1], **last[1], "middle": F(0.37)}
    sizes: Sequence[int | str] = ("n", *shape[1:])
    return make(
        *nodes,
        last[0],
        inputs={"real": sizes},
        outputs=["out"],
        constants={**constants, **added},
        opset=max(opset, 9),
    )


def _layer(
    name: str, x: str, y: str, shape: Sequence[int]
) -> tuple[onnx.NodeProto, dict[str, Array]]:
    """Return a binary layer that keeps an image's or a row's shape, and its weights."""
    channels = shape[1]
    if len(shape) == 2:
        return NODE("MatMul", [x, name], [y]), {name: signs(1, channels, channels)}
    ones = (1,) * (len(shape) - 2)
    return NODE("Conv", [x, name], [y]), {name: signs(1, channels, channels, *ones)}
