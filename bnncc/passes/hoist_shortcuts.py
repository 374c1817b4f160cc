"""Move what only moves a shortcut's elements in front of the layers that it goes around.

Before: `%n = BinaryConv(%b, %W); %s = Slice(%x, ...); %p = Pad(%s, ...); %y = Add(%n', %p)`
After:  `%s = Slice(%x, ...); %p = Pad(%s, ...); %n = BinaryConv(%b, %W); %y = Add(%n', %p)`

An elementwise operation is part of the kernel of its latest operand. Models compute a shortcut that
drops pixels and adds channels right before the sum, behind the layer: the sum would be a pass of
its own, over an image that was stored for it. In front of the layer the shortcut is one more
operand of its epilogue.

Only movements go, whose operands were there before, and only where that holds no more memory: what
they give is no larger than what they are made of. The graph's nodes stay the same, in another
order, so that there is nothing to prove.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.shape import Movement
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["HOIST_SHORTCUTS"]


def _apply(graph: Graph, _: Context) -> Outcome:
    chains = [chain for node in graph.nodes for chain in _shortcuts(graph, node)]
    behind: dict[str, list[Node]] = {}  # by the tensors that they are made of
    for chain in chains:
        behind.setdefault(chain[0].inputs[0], []).extend(chain)
    moved = {node.name for chain in chains for node in chain}
    nodes = [node for name in graph.inputs for node in behind.get(name, ())]
    for node in graph.nodes:
        if node.name not in moved:
            nodes.append(node)
            nodes.extend(n for name in node.outputs for n in behind.get(name, ()))
    if tuple(nodes) == graph.nodes:
        return Outcome(graph)
    return Outcome(dataclasses.replace(graph, nodes=tuple(nodes)))


def _shortcuts(graph: Graph, node: Node) -> Iterator[list[Node]]:
    """Yield what moves each of the operands of a sum or the like, in order, from where it starts.

    Nothing else reads what is moved, on the way or at the end.
    """
    variables = graph.variables(node)
    if not isinstance(node.op, Elementwise) or len(variables) < 2:
        return
    for name in variables:
        chain: list[Node] = []
        root = name
        while (made := _moved_alone(graph, root)) is not None:
            chain.insert(0, made)
            root = made.inputs[0]
        if chain and graph.types[name].size <= graph.types[root].size:
            yield chain


def _moved_alone(graph: Graph, name: str) -> Node | None:
    """Return what moves one tensor's elements to make another that has one reader, if it does."""
    made = graph.producers.get(name)
    if made is None or not isinstance(made.op, Movement) or len(made.inputs) > 1:
        return None
    return made if len(graph.consumers[name]) == 1 and name not in graph.outputs else None


HOIST_SHORTCUTS = Pass("hoist_shortcuts", _apply, requires=Stage.BINARY)
