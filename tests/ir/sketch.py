"""What the tests of the IR and the passes share: graphs in few words, hard floats, bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnncc.ir.graph import Graph, GraphBuilder, Node
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import BatchNormalization
from bnncc.ir.types import Array, Element, Interval, Stage, TensorType

F = np.float32
TINY = F(np.finfo(np.float32).smallest_subnormal)
NORMAL = F(np.finfo(np.float32).smallest_normal)
LARGEST = F(np.finfo(np.float32).max)
INF = F(np.inf)

# Where float32 arithmetic goes wrong first: both zeros, subnormals, ties, the edges of the
# integers it holds exactly, and of the range.
_POSITIVE = (0.0, TINY, 3 * TINY, NORMAL, 1e-20, 0.1, F(0.5) - F(2**-25), 0.5, 0.50000006, 1, 1.5)
_POSITIVE += (2.5, 3.5, 7.25, 100.5, 8388607.5, 8388608, 16777215, 16777216, 1e20, LARGEST)
HARD = np.array([*_POSITIVE, *(-F(v) for v in _POSITIVE)], F)


class Sketch:
    """A graph under construction: operands are tensors' names, or values that become constants."""

    def __init__(
        self,
        channels: int = 4,
        element: Element = Element.F32,
        *,
        stage: Stage = Stage.BINARY,
        shape: Sequence[int] = (),
        interval: Interval | None = None,
    ) -> None:
        self.builder = GraphBuilder("sketch", stage)
        kind = TensorType(tuple(shape) or (1, channels), element, interval=interval)
        self.x = self.builder.input("x", kind)

    def const(self, value: object, name: str = "c", element: Element = Element.F32) -> str:
        return self.builder.constant(name, np.asarray(value, element.dtype), element)

    def __call__(
        self,
        op: Op,
        *operands: object,
        to: str = "",
        origin: Sequence[str] = (),
        elements: Sequence[Element] = (),
    ) -> str:
        """Append a node; `elements` are those of the constants among its operands, in order."""
        kinds = iter(elements)
        names = [
            o if isinstance(o, str) else self.const(o, element=next(kinds, Element.F32))
            for o in operands
        ]
        if not to:
            to = f"t{len(self.builder.nodes)}"
        assert to not in self.builder.types, f"the sketch has a tensor {to} already"
        return self.builder.node(op, names, to, origin or (f"the {to}",))

    def batch_norm(self, x: str, stats: BatchNormStats, epsilon: float = 1e-5, to: str = "") -> str:
        return self(BatchNormalization(epsilon), x, *stats, to=to)

    def done(self, *outputs: str) -> Graph:
        return self.builder.build(outputs or (self.builder.nodes[-1].output,))


BatchNormStats = tuple[Array, Array, Array, Array]
"""gamma, beta, mean, variance, each [C]."""


def ops(graph: Graph) -> list[str]:
    """Return the operations' names in order."""
    return [node.op.name for node in graph.nodes]


def only(graph: Graph, op: type[Op]) -> Node:
    """Return the one node with this operation."""
    (node,) = (node for node in graph.nodes if isinstance(node.op, op))
    return node


def bits(array: Array) -> Array:
    """Return float32 values as their 32 bits, every NaN the same: -0 and +0 differ."""
    array = np.ascontiguousarray(array)
    assert array.dtype == np.float32
    return np.where(np.isnan(array), np.uint32(0x7FC00000), array.view(np.uint32))


def same_bits(actual: Array, expected: Array) -> None:
    """Assert that two float32 arrays are the same to the bit."""
    np.testing.assert_array_equal(bits(actual), bits(expected), strict=True)


def neighbourhood(points: Sequence[float] | Array) -> Array:
    """Return the points, the floats on either side of each, and the hard ones."""
    at = np.asarray(points, F).reshape(-1)
    at = at[np.isfinite(at)]
    around = [np.nextafter(at, -INF), at, np.nextafter(at, INF)]
    return np.unique(np.concatenate([*around, HARD])).astype(F)
