"""Bring a model into one form: no functions, fixed shapes, versions that ONNX Runtime reads.

What the model means is left alone. Opsets are not converted: the folder and verify's oracle run the
operators of the version that the user's file names, and the table knows the few that changed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper, shape_inference

from bnncc.errors import Diagnostic, UnsupportedModelError, UsageError, printable
from bnncc.frontends.onnx import runtime
from bnncc.frontends.onnx.read import ITEM_BYTES, MAX_TENSOR_BYTES, tensor_array
from bnncc.frontends.onnx.report import (
    Refusal,
    dimensions,
    element_name,
    library_text,
    origin,
    plural,
    quoted,
    where,
)
from bnncc.ir.types import Array

__all__ = ["Outline", "ValueType", "check", "infer", "normalise_model", "outline"]

_OLDEST_OPSET = 9
_MOST_NODES = 1_000_000
_DEEPEST_CALL = 100
_SMALL = 1024  # shapes, axes and the like: what shape inference reads by value has fewer elements

# What the onnx library raises for models it does not like, beside its own two exceptions.
_LIBRARY_ERRORS = (
    onnx.checker.ValidationError,
    shape_inference.InferenceError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
)


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
        inputs: shapes of the float32 graph inputs.
        outputs: names of the graph outputs.
        opset: version of the standard operators.
    """

    nodes: list[onnx.NodeProto]
    tensors: dict[str, Array]
    inputs: dict[str, tuple[int, ...]]
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
        for name, shape in self.inputs.items():
            graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        for name, array in self.tensors.items():
            if array.size <= _SMALL:
                graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                element = helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(helper.make_tensor_value_info(name, element, array.shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
        return model


def normalise_model(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Change `model` in place, as the module says, and return what was decided for the user.

    Raises:
        UsageError: BNN020 `shapes` does not fit the model.
        UnsupportedModelError: BNN003 contradictory, BNN005 too large, BNN006 a shape is not known,
            BNN008 a version or an element type is not supported.
    """
    notes: list[str] = []
    _check_versions(model)
    _strip(model)
    notes += _inline(model)
    notes += _fix_inputs(model, shapes)
    notes += runtime.adapt(model)
    return tuple(notes)


def _check_versions(model: onnx.ModelProto) -> None:
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise UnsupportedModelError(
            "BNN008",
            f"the model has ONNX IR version {model.ir_version}",
            why=f"the installed onnx package reads versions 3 to {onnx.IR_VERSION}",
            help="update the onnx package, or export with an older one",
        )
    newest = onnx.defs.onnx_opset_version()
    opset = runtime.opset_version(model)
    if opset is None or not _OLDEST_OPSET <= opset <= newest:
        raise UnsupportedModelError(
            "BNN008",
            f"the model uses {'no standard opset' if opset is None else f'opset {opset}'}",
            why=f"bnncc reads opsets {_OLDEST_OPSET} to {newest} (as far as the installed onnx)",
            help="export again with opset_version=17 or newer",
        )


def _strip(model: onnx.ModelProto) -> None:
    """Drop what has no meaning: names of the author's files, and shapes of another batch size."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]
    for function in model.functions:
        parts += [function, *function.node]
        function.ClearField("value_info")
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.ClearField("quantization_annotation")
    model.ClearField("training_info")


def _inline(model: onnx.ModelProto) -> Iterator[str]:
    if not model.functions:
        return
    expanded = _expanded_size(model)
    if expanded > _MOST_NODES:
        what = f"the model's local functions expand to {expanded} nodes"
        raise UnsupportedModelError("BNN005", what, why=f"the limit is {_MOST_NODES}")
    called = Counter((node.domain, node.op_type) for node in model.graph.node)
    hollow = _without_initializers(model)
    try:
        # Functions of another opset stay calls, and are reported as operators nobody knows.
        inlined = inliner.inline_local_functions(hollow)
    except _LIBRARY_ERRORS as error:
        what = "the model's local functions cannot be inlined"
        raise UnsupportedModelError("BNN003", what, why=library_text(error, {})) from error
    calls = sum(called[function.domain, function.name] for function in model.functions)
    del model.graph.node[:]
    model.graph.node.extend(inlined.graph.node)
    model.ClearField("functions")
    del model.opset_import[:]
    model.opset_import.extend(inlined.opset_import)
    _strip(model)
    yield f"{plural(calls, 'call')} of local functions inlined"


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose initializers are inputs of the same types, without values."""
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    declared = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in declared:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(value)
    return copy


def _expanded_size(model: onnx.ModelProto) -> int:
    """Return how many nodes inlining would leave: functions that call functions multiply."""
    functions = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        if depth > _DEEPEST_CALL:
            what = f"local functions call each other more than {_DEEPEST_CALL} deep"
            raise UnsupportedModelError("BNN003", what)
        total = 0
        for node in _nested(nodes):
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                sizes[key] = size_of(functions[key], depth + 1)
            total += sizes.get(key, 1)
        return total

    return size_of(model.graph.node, 0)


def _nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nested(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nested(graph.node)


def _fix_inputs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Give every graph input a fixed shape with batch 1, and return a note for each change."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for name in shapes:
        if name not in {value.name for value in inputs}:
            known = ", ".join(quoted(value.name) for value in inputs)
            what = f"--shape names {quoted(name)}, which is no input of the model"
            raise UsageError("BNN020", what, help=f"inputs are {known}")
    notes: list[str] = []
    found: list[Diagnostic] = []
    for value in inputs:
        done = _fix_input(value, shapes.get(value.name))
        if isinstance(done, Diagnostic):
            found.append(done)
        else:
            notes += done
    if found:
        raise UnsupportedModelError.of(found)
    return notes


def _fix_input(
    value: onnx.ValueInfoProto, override: tuple[int, ...] | None
) -> list[str] | Diagnostic:
    """Fix one input's shape; return notes, or why it cannot be done."""
    try:
        _check_input_type(value)
        return list(_fix_shape(value, override))
    except Refusal as refusal:
        return refusal.diagnostic("")


def _fix_shape(value: onnx.ValueInfoProto, override: tuple[int, ...] | None) -> Iterator[str]:
    tensor = value.type.tensor_type
    declared = [_size(dimension) for dimension in tensor.shape.dim]
    if override is not None:
        _check_override(value.name, override, declared if tensor.HasField("shape") else None)
        shape = override
    else:
        shape = _fixed_shape(value.name, declared)
    for axis, size in enumerate(shape):
        before = declared[axis] if axis < len(declared) else "unknown"
        if before != size and axis == 0:
            shown = "of unknown size" if before == "unknown" else _shown(before)
            yield f"batch dimension {shown} of input {quoted(value.name)} fixed to 1"
        elif before != size:
            name = f"dimension {axis} ({_shown(before)}) of input {quoted(value.name)}"
            yield f"{name} fixed to {size} by --shape"
    if math.prod(shape) * ITEM_BYTES[tensor.elem_type] > MAX_TENSOR_BYTES:
        what = f"input {quoted(value.name)} has the shape {dimensions(shape)}"
        raise Refusal("BNN005", what, why=f"the limit is {MAX_TENSOR_BYTES} bytes")
    tensor.ClearField("shape")
    for size in shape:
        tensor.shape.dim.add(dim_value=size)


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    """Return a dimension's size, or its name, or "unknown"; 0 and -1 stand for unknown too."""
    if dimension.HasField("dim_value") and dimension.dim_value > 0:
        return dimension.dim_value
    return dimension.dim_param or "unknown"


def _shown(size: int | str) -> str:
    return str(size) if isinstance(size, int) or size == "unknown" else quoted(size)


def _check_input_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value") or "nothing"
    if kind != "tensor_type":
        what = f"input {quoted(value.name)} is not a tensor"
        raise Refusal("BNN008", what, why=f"its type is {kind.removesuffix('_type')}")
    element = value.type.tensor_type.elem_type
    if element != onnx.TensorProto.FLOAT:
        raise Refusal(
            "BNN008",
            f"input {quoted(value.name)} has element type {element_name(element)}",
            why="bnncc compiles models whose inputs are FLOAT",
            help="export in float32; integer pixels are declared with --input uint8:scale,offset",
        )


def _check_override(
    name: str, override: Sequence[int], declared: Sequence[int | str] | None
) -> None:
    shown = f"--shape {printable(name)}={dimensions(override)}"
    if not override or override[0] != 1 or any(size < 1 for size in override):
        why = "the first dimension is the batch, and must be 1; no other may be below 1"
        raise UsageError("BNN020", f"{shown} is not a shape that bnncc compiles", why=why)
    fixed = list(declared[1:]) if declared is not None else list(override[1:])
    agrees = len(fixed) == len(override) - 1 and all(
        isinstance(size, str) or size == wanted
        for size, wanted in zip(fixed, override[1:], strict=True)
    )
    if not agrees:
        why = f"the model declares {dimensions(['batch', *fixed])}"
        raise UsageError("BNN020", f"{shown} contradicts the model", why=why)


def _fixed_shape(name: str, declared: Sequence[int | str]) -> tuple[int, ...]:
    if not declared:
        raise Refusal(
            "BNN006",
            f"the shape of input {quoted(name)} is not known",
            help=f"say it as in --shape {printable(name)}=1x784, the batch being 1",
        )
    batch, *others = declared
    if isinstance(batch, int) and batch != 1:
        shape = f"{printable(name)}={dimensions([1, *others])}"
        raise Refusal(
            "BNN006",
            f"input {quoted(name)} has a fixed batch of {batch}",
            why="generated C computes one sample a call; dimension 0 is taken as the batch",
            help=f"export with batch 1 or a dynamic batch, or try --shape {shape}",
        )
    for axis, size in enumerate(others, start=1):
        if isinstance(size, str):
            example = dimensions([1, *(28 if isinstance(s, str) else s for s in others)])
            raise Refusal(
                "BNN006",
                f"dimension {axis} ({_shown(size)}) of input {quoted(name)} is not known",
                why="C code has fixed shapes; only the batch, dimension 0, may be left open",
                help=f"say it as in --shape {printable(name)}={example}, or export it fixed",
            )
    return (1, *(size for size in others if isinstance(size, int)))


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
    inputs = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in tensors
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        literal = _literal(node)
        # A name that is taken stays a node, for the checker to complain about.
        if literal is None or node.output[0] in tensors or node.output[0] in inputs:
            nodes.append(node)
        else:
            tensors[node.output[0]] = literal
    return Outline(nodes, tensors, inputs, tuple(value.name for value in graph.output), opset)


def _literal(node: onnx.NodeProto) -> Array | None:
    """Return the value of a `Constant` node, or None if it is not one, or not of plain numbers."""
    if node.op_type != "Constant" or len(node.attribute) != 1 or len(node.output) != 1:
        return None
    (attribute,) = node.attribute
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
    except _LIBRARY_ERRORS as error:
        raise _rejected(outlined, "the onnx checker rejects the model", error) from error


def infer(outlined: Outline) -> dict[str, ValueType]:
    """Return what the onnx library's shape inference finds out about each tensor.

    Raises:
        UnsupportedModelError: BNN003 shapes or element types contradict each other.
    """
    try:
        model = shape_inference.infer_shapes(
            outlined.model(), check_type=True, strict_mode=True, data_prop=True
        )
    except _LIBRARY_ERRORS as error:
        what = "shapes or element types contradict each other"
        raise _rejected(outlined, what, error) from error
    graph = model.graph
    types = {value.name: _value_type(value) for value in (*graph.input, *graph.value_info)}
    types |= {value.name: _value_type(value) for value in graph.output}
    for name, array in outlined.tensors.items():
        types[name] = ValueType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
    return types


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
