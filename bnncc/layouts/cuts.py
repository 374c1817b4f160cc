"""The cheapest of two labels for everything, where apartness costs as well: a minimum cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Tie", "cheapest_labels"]


@dataclass(frozen=True)
class Tie:
    """What it costs once, however many readers differ from what they read.

    Attributes:
        maker: the index of what makes a tensor.
        readers: the indices of what reads it.
        to_true: paid if the maker is False and some reader True, an integer of at least 0, so that
            sums are exact.
        to_false: paid if the maker is True and some reader False.
    """

    maker: int
    readers: tuple[int, ...]
    to_true: int
    to_false: int


def cheapest_labels(costs: Sequence[tuple[int, int]], ties: Sequence[Tie]) -> list[bool]:
    """Return the labels of least total cost; of equals, those with the fewest True.

    Args:
        costs: of each thing, what the labels False and True cost, at least 0.
        ties: see there.

    Source:
        Greig, Porteous, Seheult 1989 for two labels; Kohli, Kumar, Torr 2007 for ties of many.
    """
    count = len(costs)
    source, sink = count + 2 * len(ties), count + 2 * len(ties) + 1
    network = _Network(sink + 1)
    for i, (false, true) in enumerate(costs):
        # Whatever stays with the source is True, and pays for it at the sink.
        network.add(source, i, false)
        network.add(i, sink, true)
    for n, tie in enumerate(ties):
        # A node between the maker and the readers: it goes with any True reader, and pays if the
        # maker does not; another goes with any False one. No reader alone costs more than that.
        any_true, any_false = count + 2 * n, count + 2 * n + 1
        network.add(any_true, tie.maker, tie.to_true)
        network.add(tie.maker, any_false, tie.to_false)
        for reader in tie.readers:
            network.add(reader, any_true, tie.to_true)
            network.add(any_false, reader, tie.to_false)
    network.saturate(source, sink)
    reached = network.reached(source)
    return [i in reached for i in range(count)]


class _Network:
    """Capacities between nodes, and the flow that is left of them."""

    def __init__(self, nodes: int) -> None:
        self._to: list[list[int]] = [[] for _ in range(nodes)]  # edges that leave each node
        self._ends: list[int] = []
        self._left: list[int] = []

    def add(self, start: int, end: int, capacity: int) -> None:
        """Add an edge, and its opposite of capacity 0."""
        for node, other, room in ((start, end, capacity), (end, start, 0)):
            self._to[node].append(len(self._ends))
            self._ends.append(other)
            self._left.append(room)

    def saturate(self, source: int, sink: int) -> None:
        """Send as much from source to sink as there is room for, along shortest ways."""
        while way := self._way(source, sink):
            room = min(self._left[edge] for edge in way)
            for edge in way:
                self._left[edge] -= room
                self._left[edge ^ 1] += room

    def reached(self, source: int) -> set[int]:
        """Return the nodes to which something more could flow from the source."""
        return set(self._found(source))

    def _way(self, source: int, sink: int) -> list[int]:
        """Return the edges of a shortest way with room, in backward order; [] if there is none."""
        found = self._found(source)
        way: list[int] = []
        node = sink
        while node != source:
            if node not in found:
                return []
            way.append(found[node])
            node = self._ends[found[node] ^ 1]
        return way

    def _found(self, source: int) -> dict[int, int]:
        """Return the edge by which each node is first reached."""
        found = {source: -1}
        waiting = deque([source])
        while waiting:
            for edge in self._to[waiting.popleft()]:
                end = self._ends[edge]
                if self._left[edge] > 0 and end not in found:
                    found[end] = edge
                    waiting.append(end)
        return found
