"""What the C does beside its linear layers: pools, elementwise passes, movements."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnncc.backend.program import Program
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.interpolate import Interpolate
from bnncc.ir.ops.kernels import (
    GatherBits,
    Linear,
    Map,
    Move,
    PackPlanes,
    Pool,
    PoolBits,
    SumUnderWindow,
)
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shared_sums import ClassSums, PoolPlanes, Spread
from bnncc.ir.types import TensorType

__all__ = ["OtherWork", "other_work"]


@dataclass(frozen=True)
class OtherWork:
    """All passes of one kind over stored tensors.

    Attributes:
        kind: "elementwise", "move", "pool", "pool of bits", "sum of bits", "bitplanes", "copies
            for taps", or the operation's name.
        count: of such passes.
        elements: that they visit a sample: those under a pool's windows, those that others write.
    """

    kind: str
    count: int
    elements: int


def other_work(packed: Graph, program: Program) -> tuple[OtherWork, ...]:
    """Return what is not linear, by kind, the most elements first.

    Args:
        packed: the graph.
        program: what became of it; nodes that it has no code for are not listed.
    """
    total: dict[str, OtherWork] = {}
    for buffer in (layer.outputs[0].buffer for layer in program.layers):
        node = packed.producers[buffer.tensor]
        if isinstance(node.op, Linear | ClassSums):
            continue
        kind = _kind(node)
        so_far = total.get(kind, OtherWork(kind, 0, 0))
        visited = _visited(packed.types[node.inputs[0]], packed.types[node.outputs[0]], node)
        total[kind] = OtherWork(kind, so_far.count + 1, so_far.elements + visited)
    return tuple(sorted(total.values(), key=lambda work: -work.elements))


def _kind(node: Node) -> str:
    match node.op:
        case Map():
            return "elementwise"
        case Move():
            return "move"
        case Pool():
            return "pool"
        case PoolBits() | PoolPlanes():
            return "pool of bits"
        case GatherBits():
            return "gather of bits"
        case SumUnderWindow():
            return "sum of bits"
        case PackPlanes():
            return "bitplanes"
        case Spread():
            return "copies for taps"
        case op:
            return op.name.lower()


def _visited(x: TensorType, result: TensorType, node: Node) -> int:
    match node.op:
        case Pool(op=MaxPool(window=window) | AveragePool(window=window)):
            return math.prod(result.shape) * window.taps
        case Pool(op=Interpolate(axes=axes)):
            return math.prod((*result.shape, *(2 for _ in axes)))
        case SumUnderWindow(op=op):
            return result.size * x.shape[1] // op.groups * op.window.taps
        case PoolPlanes(taps=taps):
            return result.size * taps.window.taps
        case Spread(taps=taps):
            return x.size * len(taps.copies) * (1 + taps.inverted)
        case PoolBits(window=window):
            return result.size * window.taps
        case _:
            return max(x.size, result.size)
