"""Well-formedness of graphs: numbered rules, all checked after every pass.

W1  a tensor is defined before it is read; graph outputs are defined
W2  every tensor has one definition; node names are unique
W3  recorded types are those that the operations infer
W4  constants are read-only and stored as their types say
W5  every node has an origin
W6  every operation is allowed at the graph's stage
W7  there are inputs, outputs are results of nodes, none is listed twice; activations have batch 1
W8  every recorded tensor is used: no stray constants or types
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.base import OpError
from bnncc.ir.types import storage_dtype, storage_shape

__all__ = ["violations"]


def violations(graph: Graph) -> list[str]:
    """Return what is wrong with the graph, each beginning with its rule's number; [] if nothing."""
    return [
        *_definitions(graph),
        *_inferred_types(graph),
        *_constants(graph),
        *_nodes(graph),
        *_interface(graph),
        *_strays(graph),
    ]


def _definitions(graph: Graph) -> Iterator[str]:
    defined = Counter([*graph.inputs, *graph.constants])
    for node in graph.nodes:
        for name in node.inputs:
            if name not in defined:
                yield f"W1: {node.name} reads {name} before it is defined"
        defined.update(node.outputs)
    for name in graph.outputs:
        if name not in defined:
            yield f"W1: output {name} is never defined"
    yield from (f"W2: {name} is defined {n} times" for name, n in defined.items() if n > 1)
    names = Counter(node.name for node in graph.nodes)
    yield from (f"W2: {n} nodes are called {name}" for name, n in names.items() if n > 1)


def _inferred_types(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        missing = [name for name in (*node.inputs, *node.outputs) if name not in graph.types]
        if missing:
            yield f"W3: {node.name}: no type is recorded for {missing}"
        else:
            yield from _inferred_type(graph, node)


def _inferred_type(graph: Graph, node: Node) -> Iterator[str]:
    recorded = tuple(graph.types[name] for name in node.outputs)
    try:
        inferred = node.op.infer([graph.types[name] for name in node.inputs])
    except OpError as error:
        yield f"W3: {node.name}: {error}"
        return
    if inferred != recorded:
        yield f"W3: {node.name} is recorded as {recorded}, inferred as {inferred}"


def _constants(graph: Graph) -> Iterator[str]:
    for name, array in graph.constants.items():
        kind = graph.types.get(name)
        if kind is None:
            yield f"W4: constant {name} has no type"
        elif array.shape != storage_shape(kind) or array.dtype != storage_dtype(kind):
            yield f"W4: constant {name} is {array.dtype}{array.shape}, not {kind}"
        if array.flags.writeable:
            yield f"W4: constant {name} can be written"


def _nodes(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if not node.origin:
            yield f"W5: {node.name} has no origin"
        if graph.stage not in node.op.stages:
            yield f"W6: {node.name}: {node.op.name} is not allowed at stage {graph.stage.value}"


def _interface(graph: Graph) -> Iterator[str]:
    for what, names in (("input", graph.inputs), ("output", graph.outputs)):
        if len(set(names)) != len(names):
            yield f"W7: an {what} is listed twice"
    if not graph.inputs:
        yield "W7: there is no input"
    for name in graph.outputs:
        if name in graph.types and name not in graph.producers:
            yield f"W7: output {name} is not the result of a node"
    for name in (*graph.inputs, *(n for node in graph.nodes for n in node.outputs)):
        kind = graph.types.get(name)
        if kind is not None and kind.shape[:1] != (1,):
            yield f"W7: {name} has shape {list(kind.shape)}: axis 0 must be a batch of 1"


def _strays(graph: Graph) -> Iterator[str]:
    used = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    used.update(graph.inputs, graph.outputs)
    yield from (f"W8: {name} is recorded but not used" for name in graph.types if name not in used)
