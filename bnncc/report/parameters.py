"""What the user calls the weights of a layer: exporters number nodes, but keep parameters' names.

`node_Conv_557` says nothing; that its weights come of `layer1.0.conv.weights` does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["parameter_names"]

_LINEAR = ("Conv", "Gemm", "MatMul")


def parameter_names(model: onnx.ModelProto) -> dict[str, str]:
    """Return, by the name of a linear node, the parameter of a module that its weights come of.

    That is the one initializer above the node's weights that is the largest and has a dotted name,
    as parameters of PyTorch's modules have.
    """
    graph = model.graph
    makers = {result: node for node in graph.node for result in node.output}
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    found: dict[str, str] = {}
    for node in graph.node:
        name = _parameter(node, makers, sizes) if node.op_type in _LINEAR else ""
        if name:
            found[node.name] = name
    return found


def _parameter(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], sizes: dict[str, int]
) -> str:
    """Return the largest initializer above a node's weights if it has a dotted name, or ""."""
    waiting, seen, above = list(node.input[1:2]), set(), []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in sizes:
            above.append(name)
        elif name in makers:
            waiting += makers[name].input
    most = max((sizes[name] for name in above), default=0)
    largest = [name for name in above if sizes[name] == most]
    return largest[0] if len(largest) == 1 and _is_path(largest[0]) else ""


def _is_path(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() or part.isdigit() for part in parts)
