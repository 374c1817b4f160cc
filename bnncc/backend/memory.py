"""The arena: where every intermediate tensor lives, so that lifetimes overlap and bytes do not.

Some results need no memory of their own, and take over that of an operand. The others are placed by
`bnncc.backend.placement`. Beside the plan stands its lower bound: the largest sum of tensors alive
at one step, counted with that sharing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bnncc.backend.placement import Life, largest_live, place
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.kernels import Fused, Move
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.storage import encode
from bnncc.ir.types import Array, Element, PackedChannels, PixelPlanes, TensorType

__all__ = ["ALIGNMENT", "MemoryPlan", "is_alias", "plan_memory"]

ALIGNMENT = 8
"""Bytes to which every tensor in the arena is aligned: the largest element is a 64-bit word."""


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets into the arena.

    Attributes:
        offsets: in bytes, of each tensor that lives in the arena.
        aliases: tensors that share another's memory, by the name of the one they share.
        scratch: offsets of what nodes need while they run, by the node's name and that of the
            scratch.
        arena_bytes: the arena's size.
        lower_bound: no plan with these aliases can take fewer bytes.
    """

    offsets: Mapping[str, int]
    aliases: Mapping[str, str]
    scratch: Mapping[tuple[str, str], int]
    arena_bytes: int
    lower_bound: int


def plan_memory(graph: Graph) -> MemoryPlan:
    """Return the plan for a PACKED graph whose nodes run in order.

    Graph inputs, graph outputs and constants have memory of their own outside the arena.
    """
    aliases = _Sharing(graph).aliases
    lives, passing = _lives(graph, aliases), _passing(graph)
    blocks = [*lives.values(), *passing.values()]
    offsets = place(blocks)
    return MemoryPlan(
        offsets=dict(zip(lives, offsets, strict=False)),
        aliases=aliases,
        scratch=dict(zip(passing, offsets[len(lives) :], strict=True)),
        arena_bytes=max((o + b.size for o, b in zip(offsets, blocks, strict=True)), default=0),
        lower_bound=largest_live(blocks),
    )


def is_alias(graph: Graph, node: Node) -> bool:
    """Whether a node's one result is its only operand's stored bytes, unchanged.

    Such a node needs no code, unless its result is a graph output: that has memory of its own.
    """
    match node.op:
        case Reshape():
            return not graph.is_constant(node.inputs[0])
        case Move() if len(node.inputs) == 1 and not graph.is_constant(node.inputs[0]):
            return _keeps_bytes(node.op, graph.types[node.inputs[0]], graph.types[node.output])
        case _:
            return False


def _keeps_bytes(op: Move, x: TensorType, y: TensorType) -> bool:
    """Whether the definition of a move leaves every element, and every unused bit, where it was.

    Asked with operands that tell all elements apart: their positions, counted from 1, as integers,
    or where elements are packed bits, one bit of the positions after the other.
    """
    if x.nbytes != y.nbytes:
        return False
    position = np.arange(1, x.size + 1).reshape(x.shape)
    if not isinstance(x.layout, PackedChannels | PixelPlanes):
        x = replace(x, element=Element.I64)
        return _keeps(replace(op, sources=(x,)), encode(position, x))
    low, high = (0, x.element.largest_code) if x.element.code_bits else (-1, 1)
    bits = (position >> i & 1 for i in range(x.size.bit_length()))
    return all(_keeps(op, encode(np.where(bit, high, low), x)) for bit in bits)


def _keeps(op: Move, stored: Array) -> bool:
    (moved,) = op.evaluate([stored])
    return np.array_equal(stored.reshape(-1), moved.reshape(-1))


class _Sharing:
    """Which tensors share memory, found in one walk over the nodes in order.

    Attributes:
        aliases: see `MemoryPlan`; what is shared is never itself an alias.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.aliases: dict[str, str] = {}
        # The last step that reads what lies in a tensor's memory now, or lay there before.
        self._last_read = {
            name: step for step, node in enumerate(graph.nodes) for name in node.inputs
        }
        self._outside = {*graph.inputs, *graph.outputs, *graph.constants}
        for step, node in enumerate(graph.nodes):
            self._share(step, node)

    def _share(self, step: int, node: Node) -> None:
        if is_alias(self.graph, node):
            if node.output not in self.graph.outputs:
                self._join(node.output, self._owner(node.inputs[0]))
            return
        taken: set[str] = set()
        for result in node.outputs:
            if result in self.graph.outputs:
                continue
            free = self._overwritable(step, node, self.graph.types[result])
            owner = next((name for name in free if name not in taken), None)
            if owner is not None:
                taken.add(owner)
                self._join(result, owner)

    def _owner(self, name: str) -> str:
        return self.aliases.get(name, name)

    def _join(self, name: str, owner: str) -> None:
        self.aliases[name] = owner
        self._last_read[owner] = max(self._last_read[owner], self._last_read.get(name, -1))

    def _overwritable(self, step: int, node: Node, result: TensorType) -> list[str]:
        """Return whose memory a result of this node may take over, in order of the operands.

        Nothing later may read that memory, and every operand that lies in it must be stored as the
        result is and be read elementwise: the C reads element i of it, in stored order, only
        before it writes element i of any result. An epilogue's shortcut is such an operand; what
        a convolution runs its window over is not.
        """
        if not isinstance(node.op, Fused):
            return []
        elementwise = {
            i
            for i in node.op.elementwise_operands
            if _stored_alike(self.graph.types[node.inputs[i]], result)
        }
        owners = [self._owner(name) for name in node.inputs]
        kept = self._outside.union(o for i, o in enumerate(owners) if i not in elementwise)
        return [
            owner
            for i, owner in enumerate(owners)
            if i in elementwise and owner not in kept and self._last_read[owner] <= step
        ]


def _stored_alike(operand: TensorType, result: TensorType) -> bool:
    """Whether the same position means the same bytes, and a store of one leaves the others alone.

    Packed bits are excluded: many of them share the word that a store writes.
    """
    return (
        not isinstance(result.layout, PackedChannels | PixelPlanes)
        and operand.layout == result.layout
        and operand.element is result.element
        and operand.shape == result.shape
    )


def _lives(graph: Graph, aliases: Mapping[str, str]) -> dict[str, Life]:
    """Return the lifetime of every tensor in the arena, in steps of the node order."""
    outside = {*graph.inputs, *graph.outputs, *graph.constants}
    steps: dict[str, list[int]] = {}
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            owner = aliases.get(name, name)
            if owner not in outside:
                steps.setdefault(owner, []).append(step)
    return {
        name: Life(_aligned(graph.types[name].nbytes), used[0], used[-1])
        for name, used in steps.items()
    }


def _passing(graph: Graph) -> dict[tuple[str, str], Life]:
    """Return the lifetime of what nodes need while they run, see `MemoryPlan.scratch`."""
    return {
        (node.name, scratch.name): Life(_aligned(scratch.kind.nbytes), step, step)
        for step, node in enumerate(graph.nodes)
        for scratch in node.op.scratch
    }


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
