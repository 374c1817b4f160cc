"""The oracle: the user's model in ONNX Runtime, nothing optimised, inner tensors exposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from bnncc.frontends.onnx.runtime import evaluate, open_session, run_session
from bnncc.ir.types import Array

__all__ = ["Oracle"]


def _with_constants_computed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with what depends on no input computed once, not for every sample.

    ONNX Runtime itself computes it, operation by operation, so that the values are the same.
    """
    varying = {value.name for value in model.graph.input}
    fixed: list[onnx.NodeProto] = []
    rest: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if varying.isdisjoint(node.input):
            fixed.append(node)
        else:
            rest.append(node)
            varying.update(node.output)
    made = {name for node in fixed for name in node.output}
    read = {name for node in rest for name in node.input}
    read.update(value.name for value in model.graph.output)
    wanted = sorted(made & read)
    if not wanted:
        return model
    part = _with_nodes(model, fixed)
    del part.graph.input[:], part.graph.output[:]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    values = evaluate(part, {})
    result = _with_nodes(model, rest)
    result.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name)
        for name, value in zip(wanted, values, strict=True)
    )
    return result


def _with_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    """Return the model with other nodes, and only the initializers that these read."""
    nodes = list(nodes)
    read = {name for node in nodes for name in node.input}
    result = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    result.graph.name = graph.name
    result.graph.node.extend(nodes)
    result.graph.input.extend(graph.input)
    result.graph.output.extend(graph.output)
    result.graph.initializer.extend(i for i in graph.initializer if i.name in read)
    return result


class Oracle:
    """Runs the float model one sample at a time, as ONNX Runtime computes it."""

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str]) -> None:
        """Expose `tensors`; those that the model does not have under that name are left out."""
        model = _with_constants_computed(model)
        made = {name for node in model.graph.node for name in node.output}
        outputs = [value.name for value in model.graph.output]
        extra = [name for name in dict.fromkeys(tensors) if name in made and name not in outputs]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        self.tensors = (*outputs, *extra)
        self._session = open_session(exposed)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every exposed tensor for a batch, each sample computed alone.

        Args:
            feeds: float32 [N, ...] by input name.
        """
        (count,) = {len(array) for array in feeds.values()}
        rows = [
            run_session(self._session, {name: array[i : i + 1] for name, array in feeds.items()})
            for i in range(count)
        ]
        columns = zip(*rows, strict=True)
        return {
            name: np.concatenate(column) for name, column in zip(self.tensors, columns, strict=True)
        }
