"""Which nodes become one kernel: every layer with the elementwise operations that follow it.

A group has an anchor, a linear layer or a pool, or none, and runs where its anchor stands. An
elementwise node joins the group of its latest operand, if that has the node's shape: everything
else it reads is then computed before the group runs. So a shortcut is added in the epilogue of the
layer that comes last, and BatchNorm, PReLU and sign follow in the same pass over the values. Chains
that start from the same stored tensor share a group too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Elementwise, Step
from bnncc.ir.ops.linear import BinaryConv, Conv, WindowSum
from bnncc.ir.ops.pool import Pooling
from bnncc.ir.ops.reduce import Reduction
from bnncc.ir.types import Element

__all__ = ["Group", "ends_in_bits", "fused_groups", "is_anchor", "is_bits"]

_BITS = (Element.BIPOLAR, Element.TERNARY, Element.U1, Element.U2, Element.U3, Element.U4)


@dataclass(eq=False)
class Group:
    """A kernel to be.

    Attributes:
        position: the place in the graph's order at which it runs.
        anchor: the layer or pool that makes its value; None if it starts from a stored tensor.
        shape: of everything it computes.
        nodes: its elementwise nodes, in order.
        stored: the results that others read, in order.
    """

    position: int
    anchor: Node | None
    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    @property
    def origin(self) -> tuple[str, ...]:
        """The source model's nodes."""
        anchor = [self.anchor] if self.anchor else []
        return tuple(dict.fromkeys(n for node in (*anchor, *self.nodes) for n in node.origin))


def is_bits(element: Element) -> bool:
    """Whether tensors of the element are stored as packed bits."""
    return element in _BITS


def is_anchor(graph: Graph, node: Node) -> bool:
    """Whether the node is a layer or pool that a kernel can continue with an epilogue.

    A reduction that drops the channels' axis is none: another axis then takes its place.
    """
    if isinstance(node.op, Reduction):
        return node.op.keepdims or 1 not in node.op.axes
    if isinstance(node.op, (Conv, BinaryConv, WindowSum)):
        return True
    return isinstance(node.op, Pooling) and not is_bits(graph.types[node.output].element)


def fused_groups(graph: Graph) -> list[Group]:
    """Return the groups of a BINARY graph in the order in which they run; none is useless."""
    home: dict[str, Group] = {}
    maps: dict[str, Group] = {}  # the last group without an anchor that starts from a tensor
    made = dict.fromkeys(graph.inputs, -1)
    groups: list[Group] = []
    for i, node in enumerate(graph.nodes):
        made.update(dict.fromkeys(node.outputs, i))
        if isinstance(node.op, Elementwise):
            group = _joined(graph, node, home, maps, made)
            if group is None:
                group = Group(i, None, graph.types[node.output].shape)
                groups.append(group)
                maps.update(dict.fromkeys(graph.variables(node), group))
            group.nodes.append(node)
            home[node.output] = group
        elif is_anchor(graph, node):
            group = Group(i, node, graph.types[node.output].shape)
            groups.append(group)
            home[node.output] = group
    for name, group in home.items():
        if name in graph.outputs or any(
            not isinstance(reader.op, Elementwise) or home[reader.output] is not group
            for reader in graph.consumers[name]
        ):
            group.stored.append(name)
    for group in groups:
        group.nodes = _needed(group.nodes, group.stored)
    return [group for group in groups if group.stored]


def _joined(
    graph: Graph,
    node: Node,
    home: Mapping[str, Group],
    maps: Mapping[str, Group],
    made: Mapping[str, int],
) -> Group | None:
    """Return the group that the node can continue, or None if it has to start one."""
    shape = graph.types[node.output].shape
    variables = graph.variables(node)
    places = {name: home[name].position if name in home else made[name] for name in variables}
    for candidates in (home, maps):
        for group in (candidates[name] for name in variables if name in candidates):
            others = [name for name in variables if home.get(name) is not group]
            if group.shape == shape and all(places[name] < group.position for name in others):
                return group
    return None


def _needed(nodes: Sequence[Node], stored: Sequence[str]) -> list[Node]:
    """Return the nodes on which a stored result depends; a sign stored as bits is a comparison."""
    wanted = set(stored)
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def ends_in_bits(graph: Graph, node: Node) -> bool:
    """Whether the node is a Step whose result is stored as packed bits."""
    return isinstance(node.op, Step) and is_bits(graph.types[node.output].element)
