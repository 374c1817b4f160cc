"""Bring a model into one form: no functions, fixed shapes, versions that ONNX Runtime reads.

What the model means is left alone. Opsets are not converted: the folder and verify's oracle run the
operators of the version that the user's file names, and the table knows the few that changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import helper, inliner

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import qonnx, runtime
from bnncc.frontends.onnx.report import LIBRARY_ERRORS, library_text, plural
from bnncc.frontends.onnx.shapes import fix_inputs

__all__ = ["normalise_model"]

_OLDEST_OPSET = 7
_MOST_NODES = 1_000_000
_DEEPEST_CALL = 100


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
    notes += fix_inputs(model, shapes)
    notes += qonnx.decompose(model)
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
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                attribute.t.ClearField("doc_string")
                attribute.t.ClearField("metadata_props")
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
    except LIBRARY_ERRORS as error:
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
