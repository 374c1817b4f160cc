"""The arena: where every intermediate tensor lives, so that lifetimes overlap and bytes do not.

Largest first, each at the lowest offset free during its whole life (Pisarchyk and Lee 2020, "greedy
by size"). Beside the plan stands the lower bound: the largest sum of tensors alive at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.kernels import Map
from bnncc.ir.ops.shape import Reshape

__all__ = ["ALIGNMENT", "MemoryPlan", "plan_memory"]

ALIGNMENT = 8
"""Bytes to which every tensor in the arena is aligned: the largest element is a 64-bit word."""


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets into the arena.

    Attributes:
        offsets: in bytes, of each tensor that lives in the arena.
        aliases: tensors that share another's memory, by the name of the one they share.
        arena_bytes: the arena's size.
        lower_bound: no plan can take fewer bytes.
    """

    offsets: Mapping[str, int]
    aliases: Mapping[str, str]
    arena_bytes: int
    lower_bound: int


@dataclass
class _Life:
    name: str
    size: int
    born: int
    dies: int


def plan_memory(graph: Graph) -> MemoryPlan:
    """Return the plan for a PACKED graph whose nodes run in order."""
    aliases = _aliases(graph)
    lives = _lives(graph, aliases)
    placed: list[tuple[_Life, int]] = []
    for life in sorted(lives, key=lambda a: (-a.size, a.born)):
        placed.append((life, _lowest_gap(life, placed)))
    return MemoryPlan(
        offsets={life.name: offset for life, offset in placed},
        aliases=aliases,
        arena_bytes=max((offset + life.size for life, offset in placed), default=0),
        lower_bound=_largest_live(lives),
    )


def _aliases(graph: Graph) -> dict[str, str]:
    """Return which tensors take over their operand's memory: reshapes, and maps in place."""
    aliases: dict[str, str] = {}
    for i, node in enumerate(graph.nodes):
        x = node.inputs[0]
        owner = aliases.get(x, x)
        if node.output in graph.outputs:
            continue
        if isinstance(node.op, Reshape) or _in_place(graph, node, i, owner, aliases):
            aliases[node.output] = owner
    return aliases


def _in_place(graph: Graph, node: Node, at: int, owner: str, aliases: Mapping[str, str]) -> bool:
    """Whether a map may write over what it reads: same size, no other or later reader."""
    if not isinstance(node.op, Map) or owner in graph.inputs or owner in graph.outputs:
        return False
    if graph.types[node.output].nbytes != graph.types[node.inputs[0]].nbytes:
        return False
    if graph.types[node.output].element is not graph.types[node.inputs[0]].element:
        return False
    later = (name for n in graph.nodes[at + 1 :] for name in n.inputs)
    return all(aliases.get(name, name) != owner for name in later)


def _lives(graph: Graph, aliases: Mapping[str, str]) -> list[_Life]:
    """Return the lifetime of every tensor in the arena, in steps of the node order."""
    outside = {*graph.inputs, *graph.outputs, *graph.constants}
    lives: dict[str, _Life] = {}
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            owner = aliases.get(name, name)
            if owner in outside:
                continue
            size = -(-graph.types[owner].nbytes // ALIGNMENT) * ALIGNMENT
            lives.setdefault(owner, _Life(owner, size, step, step)).dies = step
    return list(lives.values())


def _lowest_gap(life: _Life, placed: Sequence[tuple[_Life, int]]) -> int:
    offset = 0
    for other, start in sorted(placed, key=lambda entry: entry[1]):
        apart = other.dies < life.born or life.dies < other.born
        if apart or start + other.size <= offset:
            continue
        if start >= offset + life.size:
            break
        offset = start + other.size
    return offset


def _largest_live(lives: Sequence[_Life]) -> int:
    steps = range(max((life.dies for life in lives), default=-1) + 1)
    return max(
        (sum(a.size for a in lives if a.born <= step <= a.dies) for step in steps), default=0
    )
