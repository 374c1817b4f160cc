"""The oracle: the user's model in ONNX Runtime, nothing optimised, inner tensors exposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from bnncc.certificate import SignOfZero
from bnncc.frontends.onnx.runtime import evaluate, open_session, run_session
from bnncc.ir.types import Array

__all__ = ["Oracle", "raw_name"]

_SIGN = (-1.0, 0.0, 1.0)


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


def raw_name(tensor: str) -> str:
    """Return the name under which the oracle has an assumed sign before the assumption."""
    return f"{tensor}@raw"


def _with_sign_of_zero(model: onnx.ModelProto, assumption: SignOfZero) -> onnx.ModelProto:
    """Return the model with the assumed value in place of a sign s where that is 0, or no number.

    As s + value * (1 - |s|), exact on -1, 0 and 1; where 0 gives NaN, as Where(IsNaN(s), value, s).
    Of other levels s, zero among them and no two of them nearer than d, as s (1 - z) + value * z
    with z = relu(1 - |s - zero| * 2 / d), which is 1 or 0.
    """
    name, raw = assumption.tensor, raw_name(assumption.tensor)
    result = _with_nodes(model, model.graph.node)
    graph = result.graph
    at = next((i for i, node in enumerate(graph.node) if name in node.output), None)
    if at is None:
        return model
    nodes = list(graph.node)
    nodes[at].output[list(nodes[at].output).index(name)] = raw
    below, zero, above = assumption.levels
    constants = {"one": 1.0, "value": assumption.levels[1 + assumption.value]}
    constants |= {"level": zero, "steep": 2 / min(abs(zero - below), abs(above - zero))}
    for what, value in constants.items():
        constant = np.asarray(value, np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(constant, f"{name}@{what}"))
    if assumption.undefined:
        chain = [
            ("IsNaN", [raw], f"{name}@zero"),
            ("Where", [f"{name}@zero", f"{name}@value", raw], name),
        ]
    elif assumption.levels != _SIGN:
        chain = [
            ("Sub", [raw, f"{name}@level"], f"{name}@apart"),
            ("Abs", [f"{name}@apart"], f"{name}@abs"),
            ("Mul", [f"{name}@abs", f"{name}@steep"], f"{name}@far"),
            ("Sub", [f"{name}@one", f"{name}@far"], f"{name}@near"),
            ("Relu", [f"{name}@near"], f"{name}@zero"),
            ("Sub", [f"{name}@one", f"{name}@zero"], f"{name}@other"),
            ("Mul", [raw, f"{name}@other"], f"{name}@kept"),
            ("Mul", [f"{name}@zero", f"{name}@value"], f"{name}@sign"),
            ("Add", [f"{name}@kept", f"{name}@sign"], name),
        ]
    else:
        chain = [
            ("Abs", [raw], f"{name}@abs"),
            ("Sub", [f"{name}@one", f"{name}@abs"], f"{name}@zero"),
            ("Mul", [f"{name}@zero", f"{name}@value"], f"{name}@sign"),
            ("Add", [raw, f"{name}@sign"], name),
        ]
    made = [onnx.helper.make_node(op, inputs, [output]) for op, inputs, output in chain]
    del graph.node[:]
    graph.node.extend([*nodes[: at + 1], *made, *nodes[at + 1 :]])
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

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Iterable[str] = (),
        assumptions: Iterable[SignOfZero] = (),
    ) -> None:
        """Expose `tensors`; those that the model does not have under that name are left out.

        With assumptions, the tensors that they name hold the assumed sign where the model's own is
        0; the model's own is exposed as `raw_name(tensor)`.
        """
        assumptions = tuple(assumptions)
        model = _with_constants_computed(model)
        for assumption in assumptions:
            model = _with_sign_of_zero(model, assumption)
        made = {name for node in model.graph.node for name in node.output}
        tensors = [*tensors, *(raw_name(a.tensor) for a in assumptions)]
        outputs = [value.name for value in model.graph.output]
        extra = [name for name in dict.fromkeys(tensors) if name in made and name not in outputs]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        self.tensors = (*outputs, *extra)
        self._dtypes = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        self._session = open_session(exposed)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every exposed tensor for a batch, each sample computed alone.

        Args:
            feeds: [N, ...] by input name; bytes for a float32 input are the numbers they are.
        """
        (count,) = {len(array) for array in feeds.values()}
        feeds = {
            name: array.astype(self._dtypes[name], copy=False) for name, array in feeds.items()
        }
        rows = [
            run_session(self._session, {name: array[i : i + 1] for name, array in feeds.items()})
            for i in range(count)
        ]
        columns = zip(*rows, strict=True)
        return {
            name: np.concatenate(column) for name, column in zip(self.tensors, columns, strict=True)
        }
