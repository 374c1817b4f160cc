"""Movements of bits, one after the other, as one choice of channels and pixels.

Concat, Slice, Gather, Expand and the Reshape - Transpose - Reshape of a channel shuffle: whatever
leaves each channel a channel comes down to which channel of which tensor it is, and, the same for
all of them, which pixel each pixel is. That is read off by running the movements on the elements'
own numbers.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.shape import Movement, Pad
from bnncc.ir.types import Array

__all__ = ["Gathering", "gathering"]


@dataclass(frozen=True)
class Gathering:
    """A tensor as channels and pixels of others, see `GatherBits`.

    Attributes:
        sources: the others.
        channels, places: as there.
        nodes: the movements that it stands for, in the graph's order.
    """

    sources: tuple[str, ...]
    channels: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, ...], ...] | None
    nodes: tuple[Node, ...]

    def is_identity(self, graph: Graph) -> bool:
        """Whether it is all of one other tensor, as it is."""
        count = graph.types[self.sources[0]].shape[1]
        in_order = self.channels == tuple((0, k) for k in range(count))
        return in_order and len(self.sources) == 1 and self.places is None


def gathering(graph: Graph, name: str, stops: Container[str]) -> Gathering | None:
    """Return the gather that a moved tensor is, or None if there is none.

    Args:
        graph: at stage BINARY.
        name: what a Movement makes.
        stops: tensors to gather from even where a Movement makes them.
    """
    nodes = _movements(graph, name, stops)
    if any(isinstance(node.op, Pad) for node in nodes):
        return None
    made = {node.output for node in nodes}
    read = dict.fromkeys(operand for node in nodes for operand in node.inputs)
    sources = tuple(operand for operand in read if operand not in made)
    if len({graph.types[source].shape[2:] for source in sources}) > 1:
        return None
    numbers = _numbered(graph, sources)
    for node in nodes:
        (numbers[node.output],) = node.op.evaluate([numbers[operand] for operand in node.inputs])
    return _separated(graph, sources, numbers[name], nodes)


def _movements(graph: Graph, name: str, stops: Container[str]) -> tuple[Node, ...]:
    """Return the movements that make a tensor, in the graph's order."""
    found: dict[str, Node] = {}
    waiting = [name]
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is None or not isinstance(node.op, Movement) or node.output in found:
            continue
        if node.output == name or node.output not in stops:
            found[node.output] = node
            waiting.extend(node.inputs)
    return tuple(sorted(found.values(), key=lambda node: graph.positions[node.output]))


def _numbered(graph: Graph, sources: Sequence[str]) -> dict[str, Array]:
    """Return arrays that number the elements of all sources, one after the other."""
    numbers: dict[str, Array] = {}
    start = 0
    for source in sources:
        kind = graph.types[source]
        numbers[source] = np.arange(start, start + kind.size).reshape(kind.shape)
        start += kind.size
    return numbers


def _separated(
    graph: Graph, sources: tuple[str, ...], numbers: Array, nodes: tuple[Node, ...]
) -> Gathering | None:
    """Return the gather by the numbers of its elements, if channels and pixels part."""
    sizes = graph.types[sources[0]].shape[2:]
    rows = numbers.reshape(numbers.shape[1], -1)
    channels, pixels = np.divmod(rows, math.prod(sizes))  # of all sources, one after the other
    same_channel = (channels == channels[:, :1]).all()
    if not same_channel or not (pixels == pixels[:1]).all() or numbers.ndim != len(sizes) + 2:
        return None
    places = _places(pixels[0].reshape(numbers.shape[2:]), sizes)
    if places is None:
        return None
    starts = np.cumsum([0, *(graph.types[source].shape[1] for source in sources)])
    operands = np.searchsorted(starts, channels[:, 0], side="right") - 1
    chosen = zip(operands.tolist(), (channels[:, 0] - starts[operands]).tolist(), strict=True)
    whole = all(axis == tuple(range(size)) for axis, size in zip(places, sizes, strict=True))
    return Gathering(sources, tuple(chosen), None if whole else places, nodes)


def _places(pixels: Array, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
    """Return the places along each axis of pixels [*outputs], if the axes part; else None."""
    found = []
    for axis, coordinate in enumerate(np.unravel_index(pixels, sizes) if sizes else ()):
        first = tuple(slice(None) if i == axis else slice(1) for i in range(len(sizes)))
        if not (coordinate == coordinate[first]).all():
            return None
        found.append(tuple(coordinate[first].reshape(-1).tolist()))
    return tuple(found)
