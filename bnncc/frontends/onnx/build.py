"""Say a normalised, folded ONNX graph in the IR, and report everything that cannot be said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx

from bnncc.errors import Diagnostic, InternalError, UnsupportedModelError
from bnncc.frontends.onnx.constants import live_nodes
from bnncc.frontends.onnx.outline import Outline, ValueType
from bnncc.frontends.onnx.report import Refusal, element_name, plural, quoted, where
from bnncc.frontends.onnx.runtime import STANDARD_DOMAINS
from bnncc.frontends.onnx.site import Damaged, Scope, Site
from bnncc.frontends.onnx.table import RANDOM, TABLE
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.types import Element, TensorType

__all__ = ["build_graph", "unsupported"]

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
}
# What the model's outputs may hold, in either's words.
_SAID: Mapping[int, Element] = {
    onnx.TensorProto.FLOAT: Element.F32,
    onnx.TensorProto.BOOL: Element.BOOL,
    onnx.TensorProto.INT64: Element.I64,
}
# How many results these may have, where that is more than one.
_RESULTS: Mapping[str, int | None] = {"TopK": 2, "Split": None}
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.UINT8)
_ELEMENTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL)

_TAILS = frozenset({"Hardmax"})
_MASKS = frozenset({"NonZero", "ScatterElements", "ScatterND"})
_HELP_TAIL = "export the model without it: its operand ranks the classes in the same order"
_CONTROL = frozenset({"If", "Loop", "Scan"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_WHY: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        _CONTROL,
        (
            "what it computes depends on the input, and generated C takes one path",
            "export without branches and loops that depend on the input, or by tracing",
        ),
    ),
    **dict.fromkeys(
        _RECURRENT,
        (
            "it carries a state from step to step, and bnncc compiles networks without one",
            "compile what comes before and behind it, and keep it in your own code",
        ),
    ),
}
_HELP_CUSTOM = "export without custom operators, so that standard ones spell out what it does"
_HELP_OTHER = "say it in operators that bnncc compiles, or compute it outside of the model"
_HELP_MASK = "exporters say x[mask] = value this way: write x = torch.where(mask, value, x)"
_HELP_RANDOM = "export in eval mode, with deterministic binarisation"


def unsupported(outlined: Outline) -> list[Diagnostic]:
    """Return a finding for each operator type that bnncc does not compile, however it is used.

    Args:
        outlined: the graph before folding. It need not be well-formed: the checker refuses graphs
            with operators it does not know, so this comes first.
    """
    live = {id(node) for node in live_nodes(outlined.nodes, outlined.outputs)}
    constants = set(outlined.tensors)
    groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    random: list[onnx.NodeProto] = []
    for node in outlined.nodes:
        is_constant = node.op_type in ("Shape", "Size") or constants.issuperset(
            name for name in node.input if name
        )
        if not _is_standard(node, outlined.opset):
            groups[_full_name(node)].append(node)
        elif id(node) in live and node.op_type in RANDOM:
            random.append(node)
        elif id(node) in live and (
            _has_subgraph(node) or not (is_constant or node.op_type in TABLE)
        ):
            groups[_full_name(node)].append(node)
        if is_constant:
            constants.update(node.output)
    found = [_unsupported(name, nodes) for name, nodes in groups.items()]
    return found + ([_random(random)] if random else [])


def _is_standard(node: onnx.NodeProto, opset: int) -> bool:
    return node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type, opset, "")


def _full_name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def _has_subgraph(node: onnx.NodeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attribute)


def _unsupported(name: str, nodes: Sequence[onnx.NodeProto]) -> Diagnostic:
    help_text = _HELP_TAIL if name in _TAILS else _HELP_MASK if name in _MASKS else _HELP_OTHER
    why, help_text = _WHY.get(name, ("", help_text))
    if nodes[0].domain not in STANDARD_DOMAINS:
        help_text = _HELP_CUSTOM
    what = f"operator {quoted(name)} is not supported ({plural(len(nodes), 'node')})"
    return Diagnostic("BNN007", what, where(nodes), why, help_text)


def _random(nodes: Sequence[onnx.NodeProto]) -> Diagnostic:
    return Diagnostic(
        "BNN012",
        f"the model draws random numbers ({plural(len(nodes), 'node')})",
        where(nodes),
        "stochastic binarisation or noise was left on, so there is nothing fixed to compile",
        _HELP_RANDOM,
    )


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
        TABLE[node.op_type](site)
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
