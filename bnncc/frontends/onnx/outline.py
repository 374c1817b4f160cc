"""The outline of a model: its graph without its weights, as the onnx library gets to see it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import runtime
from bnncc.frontends.onnx.read import tensor_array
from bnncc.frontends.onnx.report import LIBRARY_ERRORS, library_text, origin, plural, quoted, where
from bnncc.ir.types import Array

__all__ = ["Outline", "ValueType", "check", "infer", "literal", "outline"]

_SMALL = 1024  # shapes, axes and the like: what shape inference reads by value has fewer elements


@dataclass(frozen=True)
class ValueType:
    """What the onnx library inferred of a tensor: element type, and sizes as far as known."""

    element: int
    shape: tuple[int | None, ...] | None

    @property
    def known(self) -> tuple[int, ...] | None:
        """The shape, if every size is known."""
        if self.shape is None:
            return None
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None


@dataclass(eq=False)
class Outline:
    """A model's graph with its tensors apart, so that the onnx library never copies weights.

    Attributes:
        nodes: in the model's order, `Constant` nodes left out.
        tensors: every tensor whose values are known.
        inputs: element types and shapes of the graph inputs.
        outputs: names of the graph outputs.
        opset: version of the standard operators.
    """

    nodes: list[onnx.NodeProto]
    tensors: dict[str, Array]
    inputs: dict[str, tuple[int, tuple[int, ...]]]
    outputs: tuple[str, ...]
    opset: int

    def labels(self) -> dict[str, str]:
        """Return what the node names of `model()` stand for."""
        return {f"@{i}@": quoted(origin(node)) for i, node in enumerate(self.nodes)}

    def model(self) -> onnx.ModelProto:
        """Return the graph as a model in which large tensors are graph inputs.

        Nodes are called by their index, for no message to depend on the user's names.
        """
        model = onnx.ModelProto(ir_version=8)
        model.opset_import.add(domain="", version=self.opset)
        graph = model.graph
        graph.name = "outline"
        for i, node in enumerate(self.nodes):
            copy = graph.node.add()
            copy.CopyFrom(node)
            copy.name = f"@{i}@"
            copy.domain = ""  # "ai.onnx" is another spelling of it
        for name, (element, shape) in self.inputs.items():
            graph.input.append(helper.make_tensor_value_info(name, element, shape))
        for name, array in self.tensors.items():
            if array.size <= _SMALL:
                graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                element = helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(helper.make_tensor_value_info(name, element, array.shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
        return model


def outline(model: onnx.ModelProto) -> Outline:
    """Return the outline of a normalised model.

    Raises:
        UnsupportedModelError: BNN003 a tensor does not hold what it declares, or two have one
            name; BNN008 a tensor is sparse or of a type that no operation here takes.
    """
    graph = model.graph
    if graph.sparse_initializer:
        names = ", ".join(quoted(tensor.values.name) for tensor in graph.sparse_initializer)
        raise UnsupportedModelError("BNN008", f"the model has sparse tensors: {names}")
    opset = runtime.opset_version(model)
    assert opset is not None  # checked by `normalise_model`
    tensors: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in tensors:
            raise UnsupportedModelError("BNN003", f"two tensors are called {quoted(tensor.name)}")
        tensors[tensor.name] = tensor_array(tensor)
    inputs = {value.name: _declared(value.type.tensor_type) for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        known = literal(node)
        # A name that is taken stays a node, for the checker to complain about.
        if known is None or node.output[0] in tensors or node.output[0] in inputs:
            nodes.append(node)
        else:
            tensors[node.output[0]] = known
    return Outline(nodes, tensors, inputs, tuple(value.name for value in graph.output), opset)


def _declared(kind: onnx.TypeProto.Tensor) -> tuple[int, tuple[int, ...]]:
    return kind.elem_type, tuple(dimension.dim_value for dimension in kind.shape.dim)


def literal(node: onnx.NodeProto) -> Array | None:
    """Return the value of a `Constant` node, or None if it is not one, or not of plain numbers."""
    if node.op_type != "Constant" or len(node.attribute) != 1 or len(node.output) != 1:
        return None
    (attribute,) = node.attribute
    if attribute.ref_attr_name:  # which `check` refuses outside of functions
        return None
    match attribute.name, attribute.type:
        case "value", onnx.AttributeProto.TENSOR:
            return tensor_array(attribute.t)
        case "value_float" | "value_floats", onnx.AttributeProto.FLOAT | onnx.AttributeProto.FLOATS:
            return np.asarray(helper.get_attribute_value(attribute), dtype=np.float32)
        case "value_int" | "value_ints", onnx.AttributeProto.INT | onnx.AttributeProto.INTS:
            return np.asarray(helper.get_attribute_value(attribute), dtype=np.int64)
        case _:
            return None


def check(outlined: Outline) -> None:
    """Run the onnx library's checker.

    Raises:
        UnsupportedModelError: BNN003 it rejects the model.
    """
    repeated = [name for name, n in Counter(outlined.outputs).items() if n > 1]
    if repeated:
        raise UnsupportedModelError("BNN003", f"output {quoted(repeated[0])} is listed twice")
    if not outlined.outputs:
        raise UnsupportedModelError("BNN003", "the model has no outputs")
    # The checker lets them pass, although nothing calls the graph that could give them a value.
    referring = [n for n in outlined.nodes if any(a.ref_attr_name for a in n.attribute)]
    if referring:
        what = "attributes refer to those of a function, outside of any"
        raise UnsupportedModelError("BNN003", what, where=where(referring))
    model = outlined.model()
    for value in model.graph.output:
        # The checker insists on a type, which it compares with nothing. Files without one exist.
        value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ()))
    try:
        onnx.checker.check_model(model)
    except LIBRARY_ERRORS as error:
        raise _rejected(outlined, "the onnx checker rejects the model", error) from error


def infer(outlined: Outline) -> dict[str, ValueType]:
    """Return what the onnx library's shape inference finds out about each tensor.

    Raises:
        UnsupportedModelError: BNN003 shapes or element types contradict each other.
    """
    _check_splits(outlined.nodes)
    try:
        model = shape_inference.infer_shapes(
            outlined.model(), check_type=True, strict_mode=True, data_prop=True
        )
    except LIBRARY_ERRORS as error:
        what = "shapes or element types contradict each other"
        raise _rejected(outlined, what, error) from error
    graph = model.graph
    types = {value.name: _value_type(value) for value in (*graph.input, *graph.value_info)}
    types |= {value.name: _value_type(value) for value in graph.output}
    for name, array in outlined.tensors.items():
        types[name] = ValueType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
    return types


def _check_splits(nodes: Sequence[onnx.NodeProto]) -> None:
    """Refuse a Split into other than its results: the onnx library aborts the process at some."""
    for node in nodes:
        given = next((a.i for a in node.attribute if a.name == "num_outputs"), None)
        if node.op_type == "Split" and given not in (None, len(node.output)):
            what = f"Split with {plural(len(node.output), 'result')} and num_outputs {given}"
            raise UnsupportedModelError("BNN003", what, where=where([node]))


def _value_type(value: onnx.ValueInfoProto) -> ValueType:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    sizes = (d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return ValueType(tensor.elem_type, tuple(sizes))


def _rejected(outlined: Outline, what: str, error: Exception) -> UnsupportedModelError:
    index = re.search(r"@(\d+)@", str(error))
    place = where([outlined.nodes[int(index.group(1))]]) if index else ""
    why = library_text(error, outlined.labels())
    return UnsupportedModelError("BNN003", what, where=place, why=why)
