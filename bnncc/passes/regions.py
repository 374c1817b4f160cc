"""What a pass rewrote, in regions: nodes before and after that speak about the same tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.linear import BinaryConv, Conv, matrix_conv
from bnncc.ir.storage import encode
from bnncc.ir.types import Array

__all__ = ["Region", "boundary", "execute", "regions"]


@dataclass(frozen=True)
class Region:
    """Nodes rewritten together: `old` in the graph before, `new` in the graph after, in order."""

    old: tuple[Node, ...]
    new: tuple[Node, ...]

    @property
    def origin(self) -> str:
        """The source nodes, for messages."""
        names = dict.fromkeys(name for node in (*self.old, *self.new) for name in node.origin)
        return ", ".join(names)


def boundary(graph: Graph, nodes: Iterable[Node]) -> set[str]:
    """Return the variables that nodes read and that none of them makes."""
    nodes = tuple(nodes)
    made = {name for node in nodes for name in node.outputs}
    return {name for node in nodes for name in graph.variables(node)} - made


def regions(before: Graph, after: Graph) -> list[Region]:
    """Return the rewritten nodes in groups that share tensors existing on one side only.

    A constant joins nothing: either side has its own.
    """
    kept = {id(node) for node in before.nodes} & {id(node) for node in after.nodes}
    changed = [(graph, n) for graph in (before, after) for n in graph.nodes if id(n) not in kept]
    common = before.types.keys() & after.types.keys()
    parent = list(range(len(changed)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner: dict[tuple[str, bool], int] = {}
    for i, (graph, node) in enumerate(changed):
        made_here = set(node.outputs)
        for name in {*graph.variables(node), *node.outputs}:
            # Two nodes that make the same tensor, before and after, belong together too.
            if name not in common or name in made_here:
                key = (name, name in common)
                parent[find(i)] = find(owner.setdefault(key, i))
    groups: dict[int, list[tuple[Graph, Node]]] = {}
    for i, entry in enumerate(changed):
        groups.setdefault(find(i), []).append(entry)
    depth = {name: i for i, node in enumerate(before.nodes) for name in node.outputs}
    places = tuple({id(n): i for i, n in enumerate(g.nodes)} for g in (before, after))
    return [
        _grown(
            _Side(before, [n for graph, n in members if graph is before], places[0]),
            _Side(after, [n for graph, n in members if graph is after], places[1]),
            depth,
        )
        for members in groups.values()
    ]


class _Side:
    """The nodes of a region in one of the two graphs, and what they read from outside."""

    def __init__(self, graph: Graph, nodes: Sequence[Node], places: Mapping[int, int]) -> None:
        self.graph = graph
        self.nodes = list(nodes)
        self.places = places
        self.boundary = boundary(graph, nodes)
        self._made = {name for node in nodes for name in node.outputs}

    def copy(self) -> _Side:
        """Return the same side, to grow apart."""
        return _Side(self.graph, self.nodes, self.places)

    def grow(self, name: str) -> None:
        """Take in the node that makes a tensor of the boundary."""
        producer = self.graph.producers[name]
        self.nodes.append(producer)
        self._made.update(producer.outputs)
        self.boundary.difference_update(producer.outputs)
        self.boundary.update(n for n in self.graph.variables(producer) if n not in self._made)

    def ordered(self) -> tuple[Node, ...]:
        """Return the nodes in the graph's order."""
        return tuple(sorted(self.nodes, key=lambda node: self.places[id(node)]))


def _grown(old: _Side, new: _Side, depth: Mapping[str, int]) -> Region:
    """Return the region, grown upward until both sides start from the same tensors.

    A rewritten layer may read something further up than the original did, as the codes of which the
    original read the affine map: fed independently, the two sides would not agree.
    """
    region = _climbed(old.copy(), new.copy(), depth, together=False)
    return (
        region or _climbed(old, new, depth, together=True) or Region(old.ordered(), new.ordered())
    )


def _climbed(old: _Side, new: _Side, depth: Mapping[str, int], *, together: bool) -> Region | None:
    """Grow both sides until they start from the same tensors; None if they end apart.

    Args:
        old: the nodes before, which grow.
        new: the nodes after, which grow.
        depth: the place of each tensor in the graph before.
        together: whether what both sides read is taken in as well where it follows from a tensor
            that one of them reads: that one may come no further up.
    """
    while old.nodes and new.nodes:
        apart = old.boundary ^ new.boundary
        if not apart:
            break
        # The deepest first: what lies further up may turn out to be common then.
        deepest = max(apart, key=lambda name: depth.get(name, -1))
        if together:
            following = _following(old.graph, deepest, old.boundary & new.boundary)
            deepest = max({deepest} | following, key=lambda name: depth.get(name, -1))
        if depth.get(deepest, -1) < 0:
            return None
        for side in (old, new):
            if deepest in side.boundary:
                side.grow(deepest)
    return Region(old.ordered(), new.ordered())


def _following(graph: Graph, source: str, names: set[str]) -> set[str]:
    """Return those of some tensors that are computed from `source`."""
    reached = {source}
    for node in graph.nodes[graph.positions.get(source, -1) + 1 :] if names else ():
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return names & reached


def execute(
    graph: Graph, nodes: Sequence[Node], feeds: Mapping[str, Array], *, any_order: bool
) -> dict[str, Array]:
    """Return every tensor of some nodes, as stored.

    Args:
        graph: to which they belong.
        nodes: what to run, in order.
        feeds: logical values of what they read from outside, and perhaps of more.
        any_order: whether a real sum may be taken in any order, which is fast.
    """
    env = {n: encode(v, graph.types[n]) for n, v in feeds.items() if n in graph.types}
    for node in nodes:
        operands = [graph.constants[n] if n in graph.constants else env[n] for n in node.inputs]
        results = _in_any_order(node, operands) if any_order else ()
        env.update(zip(node.outputs, results or node.op.evaluate(operands), strict=True))
    return env


def _in_any_order(node: Node, operands: Sequence[Array]) -> tuple[Array, ...]:
    """Return a real layer's sums in an order of BLAS's own; () for other nodes."""
    if not isinstance(node.op, Conv | BinaryConv) or operands[0].dtype != np.float32:
        return ()
    x, weights = operands
    with np.errstate(all="ignore"):
        return (matrix_conv(x, weights.astype(np.float32), node.op.window, node.op.groups),)
