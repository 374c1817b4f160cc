"""Put signs back that an exporter lost: into the graph, and into the model that the oracle runs.

Both get the same node, `Sign`, which is what `x.data = x.data.sign()` computes: sign(0) = 0, and
`--sign-zero` says what becomes of that as it does everywhere. It stands on the layer's own input,
behind whatever activation function there is, and before zeros that the model pads it with: of
those, sign leaves zeros, which is what a layer on bits pads with.

What comes out is another model than the file. Who calls this has to say so: `InsertedSign`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx
from onnx import helper

from bnncc.certificate import InsertedSign
from bnncc.errors import InternalError
from bnncc.frontends.onnx import Imported
from bnncc.frontends.onnx.report import quoted
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Sign
from bnncc.ir.ops.shape import Pad

__all__ = ["insert_signs"]


def insert_signs(
    imported: Imported, layers: Mapping[str, str]
) -> tuple[Imported, tuple[InsertedSign, ...]]:
    """Return the model with a Sign on the input of some layers, and what was inserted.

    Args:
        imported: is left as it is.
        layers: what the user calls each layer, by the tensor of its sums in `imported.graph`.
    """
    source = onnx.ModelProto()
    source.CopyFrom(imported.source)
    repair = _Repair(imported.graph, source)
    found = [node for node in imported.graph.nodes if layers.keys() & set(node.outputs)]
    edits = tuple(repair.insert(node, layers[node.output]) for node in found)
    return dataclasses.replace(imported, graph=repair.rewrite.finish(), source=source), edits


class _Repair:
    """The graph and the ONNX model, edited side by side."""

    def __init__(self, graph: Graph, source: onnx.ModelProto) -> None:
        self.graph = graph
        self.source = source.graph
        self.rewrite = Rewrite(graph)
        self.makers: dict[str, onnx.NodeProto] = {
            name: node for node in self.source.node for name in node.output
        }
        self.tensors = {*self.makers, *(value.name for value in self.source.input)}
        self.signs: dict[str, str] = {}

    def insert(self, layer: Node, title: str) -> InsertedSign:
        """Put a Sign on what the layer reads; layers that read one tensor share it."""
        reader, x = self._read(layer)
        twin = self._written(reader)
        if x not in twin.input:
            what = f"the model's own node of layer {quoted(title)} was not found"
            raise InternalError("BNN091", what)
        if x not in self.signs:
            self._add_sign(reader, x, f"--insert-sign {title}")
        else:
            self._rewire(reader, x)
        for i, name in enumerate(twin.input):
            if name == x:
                twin.input[i] = self.signs[x]
        return InsertedSign(title, x)

    def _read(self, layer: Node) -> tuple[Node, str]:
        """Return the node by which a layer reads the source model, and the tensor it reads."""
        reader, x = self._up(layer)
        pad = self.graph.producers.get(x)
        if pad is None or not isinstance(pad.op, Pad) or pad.op.value != 0:
            return reader, x
        only = len(self.graph.consumers[x]) == 1 and x not in self.graph.outputs
        return self._up(pad) if only else (reader, x)

    def _up(self, node: Node) -> tuple[Node, str]:
        """Climb from a node to the first operand that the source model has as well."""
        while node.inputs[0] not in self.tensors:
            node = self.graph.producers[node.inputs[0]]
        return node, node.inputs[0]

    def _written(self, node: Node) -> onnx.NodeProto:
        """Return the source's node that a node of the graph is part of: where its result leads."""
        while node.output not in self.makers:
            (node,) = self.graph.consumers[node.output]
        return self.makers[node.output]

    def _add_sign(self, reader: Node, x: str, label: str) -> None:
        name = self.rewrite.fresh(f"{x}.sign")
        while name in self.tensors:
            name = self.rewrite.fresh(f"{name}_")
        self.signs[x] = name
        sign = self.rewrite.node(Sign(), [x], name, [label])
        self._rewire(reader, x, sign)
        made = helper.make_node("Sign", [x], [name], name=label)
        at = next(i for i, node in enumerate(self.source.node) if x in node.input)
        self.source.node.insert(at, made)

    def _rewire(self, reader: Node, x: str, *before: Node) -> None:
        inputs = tuple(self.signs[x] if name == x else name for name in reader.inputs)
        renamed = dataclasses.replace(reader, inputs=inputs)
        self.rewrite.replace(reader, [*before, renamed])
