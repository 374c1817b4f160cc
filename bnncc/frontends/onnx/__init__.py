"""From an ONNX file to a `Graph` of the FLOAT stage: read, normalise, fold, build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.inputs import InputSpec, declare_inputs
from bnncc.frontends.onnx.build import build_graph
from bnncc.frontends.onnx.constants import fold, live_nodes
from bnncc.frontends.onnx.normalise import normalise_model
from bnncc.frontends.onnx.outline import check, outline
from bnncc.frontends.onnx.qonnx import byte_inputs
from bnncc.frontends.onnx.read import read_model
from bnncc.frontends.onnx.report import quoted
from bnncc.frontends.onnx.unsupported import unsupported
from bnncc.ir.graph import Graph

__all__ = ["Imported", "load_onnx"]

_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class Imported:
    """A model as the compiler sees it, and as the oracle does.

    Attributes:
        graph: the FLOAT stage. A tensor that the ONNX model has too keeps its ONNX name.
        sha256: of the model file, followed by the external tensors in the order of their names.
        notes: what was decided for the user.
        source: the user's model in standard operators, external data loaded and batch fixed to 1,
            without metadata. Its inputs are float32 where annotations make them bytes for `graph`.
    """

    graph: Graph
    sha256: str
    notes: tuple[str, ...]
    source: onnx.ModelProto


def load_onnx(path: Path, shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES) -> Imported:
    """Return the model in the file `path`.

    Args:
        path: an ONNX file in the protobuf form, of opset 9 or newer.
        shapes: for some inputs, by name, the shape with batch 1.

    Raises:
        UsageError: BNN020 `shapes` does not fit the model.
        UnsupportedModelError: BNN001 to BNN012, every problem of one kind at once.
    """
    file = read_model(path)
    source = file.model
    annotated = byte_inputs(source)
    notes = normalise_model(source, shapes)
    outlined = outline(source)
    found = unsupported(outlined)
    if found:
        raise UnsupportedModelError.of(found)
    check(outlined)
    outlined.nodes = live_nodes(outlined.nodes, outlined.outputs)
    types = fold(outlined)
    graph = build_graph(outlined, types, path.stem)
    _polish(source, graph)
    whole = {name: InputSpec(1, 0) for name in graph.inputs if name in annotated}
    graph = declare_inputs(graph, whole, "annotation of {}")
    notes += tuple(f"input {quoted(name)} taken as bytes: its annotation says so" for name in whole)
    return Imported(graph, file.sha256, notes, source)


def _polish(source: onnx.ModelProto, graph: Graph) -> None:
    """Make `source` a model that ONNX Runtime loads, which is stricter than ONNX, as we are not."""
    nodes = list(source.graph.node)
    live = {id(node) for node in live_nodes(nodes, graph.outputs)}
    for i in reversed(range(len(nodes))):
        if id(nodes[i]) not in live:
            del source.graph.node[i]  # nobody has looked at it
    taken: set[str] = set()
    for node in source.graph.node:
        if node.name in taken:
            node.ClearField("name")  # it insists on unique names, or none
        taken.add(node.name)
    for value in source.graph.output:
        # Until here, the exporter's for whatever batch that was.
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for size in graph.types[value.name].shape:
            shape.dim.add(dim_value=size)
