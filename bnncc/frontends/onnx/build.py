"""Say a normalised, folded ONNX graph in the IR, and report everything that cannot be said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx

from bnncc.errors import Diagnostic, InternalError, UnsupportedModelError
from bnncc.frontends.onnx.operator import refuse_unknown
from bnncc.frontends.onnx.outline import Outline, ValueType
from bnncc.frontends.onnx.report import Refusal, element_name, quoted, where
from bnncc.frontends.onnx.site import Damaged, Scope, Site
from bnncc.frontends.onnx.table import TABLE
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.types import Element, TensorType

__all__ = ["build_graph"]

# These pass values on unchanged: small integers may pass through as the float32 they equal.
_MOVES = frozenset(
    {
        *("Concat", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose"),
        *(
            "Unsqueeze",
            "Where",
            "DepthToSpace",
            "Expand",
            "Gather",
            "SpaceToDepth",
            "Split",
            "Tile",
        ),
    }
)
# ArgMax gives indices as int64, which are among the model's outputs; Cast what it can say exactly.
_WHOLE = frozenset({"ArgMax", "Cast"})
# What activations may hold, in either's words; `shapes` lets no other inputs pass.
_HELD: Mapping[int, Element] = {
    onnx.TensorProto.FLOAT: Element.F32,
    onnx.TensorProto.BOOL: Element.BOOL,
    onnx.TensorProto.UINT8: Element.U8,
    onnx.TensorProto.INT8: Element.I8,
}
# What the model's outputs may hold, in either's words.
_SAID: Mapping[int, Element] = {
    onnx.TensorProto.FLOAT: Element.F32,
    onnx.TensorProto.BOOL: Element.BOOL,
    onnx.TensorProto.INT64: Element.I64,
}
# How many results these may have, where that is more than one.
_RESULTS: Mapping[str, int | None] = {"TopK": 2, "Split": None}
_INTEGERS = (
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT8,
)
_ELEMENTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL)


def build_graph(outlined: Outline, types: Mapping[str, ValueType], name: str) -> Graph:
    """Return the FLOAT graph called `name` of a folded outline.

    Raises:
        UnsupportedModelError: every node that cannot be said, at once.
    """
    builder = GraphBuilder(name)
    for given, (element, shape) in outlined.inputs.items():
        builder.input(given, TensorType(shape, _HELD[element]))
    names = {n for node in outlined.nodes for n in (*node.input, *node.output)}
    scope = Scope(builder, outlined.tensors, names | outlined.tensors.keys() | set(outlined.inputs))
    used = {n for node in outlined.nodes for n in node.input} | set(outlined.outputs)
    found: list[Diagnostic] = []
    for node in outlined.nodes:
        # What depends on a node of no known type is not looked at: it would only distract.
        if all(n in builder.types or n in outlined.tensors for n in node.input if n):
            problems = _import(Site(scope, node, outlined.opset), types, used)
            found += problems
            if problems:
                _pretend(builder, node, types)
    found += _interface(outlined, builder, types)
    if found:
        raise UnsupportedModelError.of(dict.fromkeys(found))
    graph = builder.build(outlined.outputs)
    broken = violations(graph)
    if broken:
        raise InternalError("BNN091", "the ONNX frontend built an ill-formed graph", why=broken[0])
    return graph


def _pretend(builder: GraphBuilder, node: onnx.NodeProto, types: Mapping[str, ValueType]) -> None:
    """Give a refused node's result its type, for the nodes behind it to be looked at as well."""
    kind = types.get(node.output[0])
    if kind and kind.known and kind.known[0] == 1 and kind.element in _HELD:
        builder.types[node.output[0]] = TensorType(kind.known, _HELD[kind.element])


def _import(site: Site, types: Mapping[str, ValueType], used: Collection[str]) -> list[Diagnostic]:
    """Append what the site's node says, and return what stood in the way."""
    node = site.node
    try:
        is_constant = all(name in site.scope.tensors for name in node.input if name)
        if is_constant or node.op_type not in TABLE:  # such as Shape, which is constant as a rule
            what = f"{node.op_type} cannot be computed at compile time"
            raise Refusal("BNN008", what, why="the size of its result is not known before")
        _check_results(node, types, used)
        operator = TABLE[node.op_type]
        operator.say(site)
        refuse_unknown(site, operator)
    except Refusal as refusal:
        return [refusal.diagnostic(where([node]))]
    except Damaged as damaged:
        return damaged.found
    return []


def _check_results(
    node: onnx.NodeProto, types: Mapping[str, ValueType], used: Collection[str]
) -> None:
    count = _RESULTS.get(node.op_type, 1)
    for name in node.output[count:] if count is not None else ():
        if name in used:
            what = f"result {quoted(name)} of {node.op_type} is used"
            raise Refusal("BNN008", what, why="bnncc computes only its first result")
    kind = types.get(next(filter(None, node.output), ""))
    element = kind.element if kind else onnx.TensorProto.UNDEFINED
    if element in _ELEMENTS or (element in _INTEGERS and node.op_type in _MOVES | _WHOLE):
        return
    what = f"{node.op_type} computes {element_name(element)}"
    why = "activations are float32 or truth values"
    raise Refusal("BNN008", what, why=why, help="export in float32: model.float()")


def _interface(
    outlined: Outline, builder: GraphBuilder, types: Mapping[str, ValueType]
) -> Iterator[Diagnostic]:
    for name in outlined.outputs:
        what = f"there is nothing to compute for output {quoted(name)}"
        if name in outlined.inputs:
            yield Diagnostic("BNN008", what, why="it is one of the model's inputs")
        elif name in outlined.tensors:
            yield Diagnostic("BNN008", what, why="it does not depend on the model's input")
        elif name in builder.types and _SAID.get(types[name].element) is not (
            builder.types[name].element
        ):
            kind = element_name(types[name].element)
            yield Diagnostic("BNN008", f"output {quoted(name)} has element type {kind}")
