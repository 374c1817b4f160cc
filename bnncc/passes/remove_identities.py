"""Remove operations that compute nothing, and put Reshapes and Transposes in a row together.

Before: `%b = Identity(%a)`, or a Reshape to the shape %a has, a Transpose that leaves all axes
where they are, a Pad by nothing, a Slice of everything, a Concat of one operand, a MaxPool of
single elements. After: readers of %b read %a.

Before: `%b = Transpose(p)(%a)`, `%c = Transpose(q)(%b)`. After: `%c = Transpose(p[q])(%a)`, which
computes nothing where the two cancel; %b goes if nobody else reads it. Likewise Reshapes.

Exact: the values are the same, element by element. A node whose result is a graph output stays, for
the interface.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Identity
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Stage
from bnncc.ir.window import Axis
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["REMOVE_IDENTITIES"]


def _computes_nothing(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether the node maps an operand of that shape to itself."""
    match node.op:
        case Identity():
            return True
        case Reshape(shape=wanted) | Slice(sizes=wanted):
            return wanted == shape
        case Transpose(perm=perm):
            return perm == tuple(range(len(perm)))
        case Pad(before=before, after=after):
            return not any((*before, *after))
        case Concat():
            return len(node.inputs) == 1
        case MaxPool(window=window):
            single = all(axis == Axis(1, 1, axis.dilation, ceil=axis.ceil) for axis in window.axes)
            return single and len(node.inputs) == 1
        case _:
            return False


def _joined(first: Op, second: Op) -> Op | None:
    """Return the one operation that does what two in a row do, or None if there is none."""
    match first, second:
        case Reshape(), Reshape():
            return second
        case Transpose(perm=inner), Transpose(perm=outer):
            return Transpose(tuple(inner[axis] for axis in outer))
        case _:
            return None


def _simplified(node: Node, inputs: tuple[str, ...], moved: Mapping[str, Node]) -> Node:
    """Return the node with these inputs, as one with the Reshape or Transpose it reads."""
    before = moved.get(inputs[0])
    joined = _joined(before.op, node.op) if before else None
    if before is None or joined is None:
        return Node(node.op, node.name, inputs, node.outputs, node.origin)
    origin = tuple(dict.fromkeys((*before.origin, *node.origin)))
    return Node(joined, node.name, before.inputs, node.outputs, origin)


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    alias: dict[str, str] = {}
    moved: dict[str, Node] = {}  # the Reshapes and Transposes that stay, by their results
    read = set(graph.outputs)
    for old in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in old.inputs)
        node = _simplified(old, inputs, moved)
        shape = graph.types[node.inputs[0]].shape
        if _computes_nothing(node, shape) and node.output not in graph.outputs:
            alias[node.output] = node.inputs[0]
            rewrite.bypass(old, node.inputs[0])
            continue
        if node.op != old.op or node.inputs != inputs:
            rewrite.replace(old, [node])
        if isinstance(node.op, (Reshape, Transpose)):
            moved[node.output] = node
        else:
            read.update(inputs)
    for node in reversed(list(moved.values())):
        if node.output in read:
            read.update(node.inputs)
        else:
            rewrite.replace(node, ())
    return Outcome(rewrite.finish())


REMOVE_IDENTITIES = Pass("remove_identities", _apply, requires=Stage.FLOAT)
