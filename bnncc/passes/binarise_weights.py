"""Recognise binary weights by value, and compute their layers on integers.

Before: `%y = MatMul(%x, %W)` with every row of W in {-alpha, +alpha}.
After:  `%n = BinaryDense(%b, %sign); %y = Dequantize(%n, alpha, ...)` where x is a Step with levels
        -1, (0,) +1 or an affine map of uint8 codes;
        `%s = BinaryDense(%x, %sign); %y = Mul(%s, alpha)` where x is any other real.

The value of the layer becomes fl(alpha * n): a float32 sum of +-alpha is not a function of n, it
depends on the order of its terms, and this is the value that all those orders surround. How far
they can lie from it is bounded by `Dequantize.slack`, 0 where every order gives the same bits: when
all terms, and the bias that a Gemm adds, are multiples of one power of two and no partial sum
needs more than 24 bits.

Over reals every magnitude must be alpha itself; over integers crumbs of 2^-20 are bounded by slack.

Refuses: rows with other magnitudes or with zeros among non-zeros, and sums beyond 2^24.
Source: Courbariaux et al. 2016, section 1; Rastegari et al. 2016, eq. 2 (alpha).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF, gamma
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Add, Dequantize, Elementwise, Mul, Step
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.base import Context, Exactness, Outcome, Pass, Refusal
from bnncc.passes.levels import element_for

__all__ = ["BINARISE_WEIGHTS", "BinaryRows", "binary_rows"]

_SAME_MAGNITUDE = 2.0**-20
"""Relative difference below which magnitudes count as one alpha: what folded STEs leave behind."""

_CODES = np.arange(256, dtype=np.uint8)
_EXACT_INTEGERS = 1 << 24


@dataclass(frozen=True, eq=False)
class _Operand:
    """What a layer reads: integers v with real value unit * v + offset, the same for each element.

    Attributes:
        name: the tensor of integers.
        unit, offset: the affine map, exact in double.
        magnitudes: every |real value| an element can have.
        misfit: how far the model's float32 values lie from the affine map.
        nodes: what computes the tensor, if it does not exist yet.
        origin: the source nodes that the affine map stands for.
    """

    name: str
    unit: float
    offset: float
    magnitudes: Array
    misfit: float
    nodes: tuple[Node, ...]
    origin: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class BinaryRows:
    """A weight matrix [O, K] as signs and magnitudes.

    Attributes:
        signs: int8 -1 or +1, [O, K].
        alpha: float32 >= 0, [O].
        misfit: float64 [O], the sum over k of |w_k - alpha * sign_k|.
        reason: why the matrix is not binary, "" if it is.
    """

    signs: Array
    alpha: Array
    misfit: Array
    reason: str


def binary_rows(weights: Array) -> BinaryRows:
    """Return how far a weight matrix [O, K] is binary: each row +-alpha, by value."""
    magnitudes = np.abs(weights)
    lowest, highest = magnitudes.min(axis=1), magnitudes.max(axis=1)
    apart = highest - lowest > _SAME_MAGNITUDE * highest
    none = np.zeros(len(highest))
    if apart.any():
        zeros = int(((lowest == 0) & apart).sum())
        kind = f", {zeros} of them with zeros" if zeros else ""
        rows = f"{int(apart.sum())} of {len(apart)} output channels"
        reason = f"{rows} have weights other than +-alpha{kind}"
        return BinaryRows(np.zeros((0, 0), np.int8), highest, none, reason)
    signs = np.where(weights < 0, np.int8(-1), np.int8(1))
    if (lowest == highest).all():
        return BinaryRows(signs, highest, none, "")
    misfit = (highest[:, np.newaxis] - magnitudes).astype(np.float64).sum(axis=1)
    return BinaryRows(signs, highest, misfit, "")


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    rows = {
        node.name: binary_rows(graph.constants[node.inputs[1]])
        for node in graph.nodes
        if isinstance(node.op, MatMul) and graph.is_constant(node.inputs[1])
    }
    operands: dict[str, _Operand | None] = {}
    for node in graph.nodes:
        if node.name not in rows:
            continue
        x = node.inputs[0]
        reason = rows[node.name].reason or _too_long(graph, node)
        if reason:
            refusals.append(Refusal(node.name, node.origin, reason))
            continue
        first = x not in operands
        if first:
            operands[x] = _signs(rewrite, x, rows) or _codes(rewrite, x)
        operand = operands[x]
        if operand is None and rows[node.name].misfit.any():
            reason = "its weights are +-alpha but for rounding, and its input is real"
            refusals.append(Refusal(node.name, node.origin, reason))
        elif operand is None:
            rewrite.replace(node, _real(rewrite, node, rows[node.name]))
        else:
            made = operand.nodes if first else ()
            rewrite.replace(node, [*made, *_integer(rewrite, node, operand, rows[node.name])])
    return Outcome(rewrite.finish(), tuple(refusals))


def _too_long(graph: Graph, node: Node) -> str:
    k = graph.types[node.inputs[1]].shape[1]
    if 255 * k < _EXACT_INTEGERS:
        return ""
    return f"its {k} terms could sum to more than float32 holds exactly (2^24)"


def _signs(rewrite: Rewrite, x: str, rows: Mapping[str, BinaryRows]) -> _Operand | None:
    """Return x as -1, (0,) +1 if it is a Step with these levels.

    A Step that only feeds binary layers changes its element in place; one with other readers gets a
    twin, so that those still find their float32.
    """
    graph = rewrite.graph
    step = graph.producers.get(x)
    if step is None or not isinstance(step.op, Step):
        return None
    element = element_for(graph.constants[step.inputs[2]])
    if element is Element.F32:
        return None
    readers = graph.consumers[x]
    binary = all(r.name in rows and not rows[r.name].reason for r in readers)
    alone = binary and x not in graph.outputs
    name = x if alone else rewrite.fresh(f"{x}.bits")
    twin = rewrite.node(Step(element), step.inputs, name, step.origin)
    if alone:
        rewrite.replace(step, [twin])
    return _Operand(name, 1.0, 0.0, np.ones(1), 0.0, () if alone else (twin,), ())


def _codes(rewrite: Rewrite, x: str) -> _Operand | None:
    """Return x as uint8 codes if it is an affine map, the same for every element, of some."""
    path = _path_from_codes(rewrite.graph, x)
    if not path:
        return None
    real = _values_of_codes(rewrite.graph, path)
    offset = real[0]
    unit = real[1] - real[0]
    if not np.array_equal(unit * _CODES + offset, real):
        unit = (real[255] - real[0]) / 255
    misfit = float(np.abs(unit * _CODES + offset - real).max())
    if unit == 0 or misfit > 4 * UNIT_ROUNDOFF * np.abs(real).max():
        return None
    name, nodes = _reshaped(rewrite, path)
    origin = tuple(name for node in path for name in node.origin)
    return _Operand(name, unit, offset, np.abs(real), misfit, nodes, origin)


def _values_of_codes(graph: Graph, path: Sequence[Node]) -> Array:
    """Return what the path makes of each of the 256 codes, as float64 [256]."""
    values: Array = _CODES
    for node in path:
        if isinstance(node.op, Elementwise):
            operands = [
                graph.constants[n].reshape(()) if graph.is_constant(n) else values
                for n in node.inputs
            ]
            (values,) = node.op.evaluate(operands)
    return values.astype(np.float64)


def _path_from_codes(graph: Graph, x: str) -> list[Node]:
    """Return the nodes from a U8 tensor down to x, elementwise by scalars, or reshapes; or []."""
    path: list[Node] = []
    while graph.types[x].element is not Element.U8:
        node = graph.producers.get(x)
        if node is None or not isinstance(node.op, (Elementwise, Reshape)):
            return []
        variables = graph.variables(node)
        constants = [graph.constants[n] for n in node.inputs if graph.is_constant(n)]
        if len(variables) != 1 or any(c.size != 1 for c in constants):
            return []
        path.append(node)
        x = variables[0]
    return path[::-1]


def _reshaped(rewrite: Rewrite, path: Sequence[Node]) -> tuple[str, tuple[Node, ...]]:
    """Return the codes in the shape that the path's reshapes give, and what computes that."""
    name = rewrite.graph.variables(path[0])[0]
    nodes: list[Node] = []
    for node in path:
        if isinstance(node.op, Reshape):
            output = rewrite.fresh(f"{node.output}.codes")
            nodes.append(rewrite.node(node.op, (name,), output, node.origin))
            name = output
    return name, tuple(nodes)


def _weights(rewrite: Rewrite, node: Node, rows: BinaryRows) -> str:
    return rewrite.constant(f"{node.inputs[1]}.sign", rows.signs, Element.BIPOLAR)


def _real(rewrite: Rewrite, node: Node, rows: BinaryRows) -> list[Node]:
    """Return the layer on real activations: sums of +-x, times alpha where that is not 1."""
    operands = (node.inputs[0], _weights(rewrite, node, rows))
    if (rows.alpha == 1).all():
        return [rewrite.node(BinaryDense(), operands, node.output, node.origin)]
    total = rewrite.fresh(f"{node.output}.sum")
    alpha = rewrite.constant(f"{node.output}.alpha", rows.alpha, Element.F32)
    return [
        rewrite.node(BinaryDense(), operands, total, node.origin),
        rewrite.node(Mul(), (total, alpha), node.output, node.origin),
    ]


def _integer(rewrite: Rewrite, node: Node, operand: _Operand, rows: BinaryRows) -> list[Node]:
    """Return the layer on integers, and its value by definition."""
    alpha = rows.alpha.astype(np.float64)
    accumulator = rewrite.fresh(f"{node.output}.acc")
    weights = _weights(rewrite, node, rows)
    origin = (*node.origin, *operand.origin)
    dense = rewrite.node(BinaryDense(), (operand.name, weights), accumulator, origin)
    real_map = {
        "scale": alpha * operand.unit,
        "shift": alpha * operand.offset * rows.signs.sum(axis=1, dtype=np.int64),
        "slack": _slack(rewrite.graph, node, operand, rows),
    }
    constants = [
        rewrite.constant(f"{node.output}.{what}", value, Element.F64)
        for what, value in real_map.items()
    ]
    value = rewrite.node(Dequantize(), (accumulator, *constants), node.output, node.origin)
    return [dense, value]


def _slack(graph: Graph, node: Node, operand: _Operand, rows: BinaryRows) -> Array:
    """Return, per channel, how far any float32 order of the sum can lie from the layer's value."""
    k = graph.types[node.inputs[1]].shape[1]
    bias = _bias_added_by_the_same_gemm(graph, node, len(rows.alpha))
    largest = float(operand.magnitudes.max())
    magnitude = k * largest * rows.alpha.astype(np.float64) + np.abs(bias)
    bound = gamma(k + 2) * magnitude
    bound += rows.alpha * (k * operand.misfit) + rows.misfit * largest
    exact = (rows.misfit == 0) & (operand.misfit == 0)
    return np.where(exact & _sums_exactly(rows.alpha, operand.magnitudes, bias, k), 0.0, bound)


def _bias_added_by_the_same_gemm(graph: Graph, node: Node, channels: int) -> Array:
    """Return the bias [channels] that the source's Gemm adds, perhaps before the last product."""
    readers = graph.consumers[node.output]
    if len(readers) == 1 and isinstance(readers[0].op, Add) and readers[0].origin == node.origin:
        constants = [n for n in readers[0].inputs if graph.is_constant(n)]
        if constants:
            bias = graph.constants[constants[0]].astype(np.float64)
            return np.broadcast_to(bias.reshape(-1), (channels,))
    return np.zeros(channels)


def _sums_exactly(alpha: Array, magnitudes: Array, bias: Array, k: int) -> Array:
    """Return which channels' sums of k terms +-alpha * magnitude, and bias, never round.

    All terms are integers times one power of two, the smallest bit set in any of them; a partial
    sum is at most the sum of all magnitudes, and float32 holds every integer up to 2^24.
    """
    products = alpha.astype(np.float64)[:, np.newaxis] * magnitudes
    terms = np.concatenate([products, np.abs(bias)[:, np.newaxis]], axis=1)
    lowest_bit = _lowest_bit(terms).min(axis=1)
    total = k * products.max(axis=1) + np.abs(bias)
    return np.asarray(total <= _EXACT_INTEGERS * lowest_bit)


def _lowest_bit(values: Array) -> Array:
    """Return the power of two of the lowest set bit of each float64 (inf for 0)."""
    mantissa, exponent = np.frexp(values)
    integer = (mantissa * 2.0**53).astype(np.int64)
    lowest = (integer & -integer).astype(np.float64)
    return np.where(values == 0, np.inf, np.ldexp(lowest, exponent - 53))


BINARISE_WEIGHTS = Pass(
    "binarise_weights", _apply, requires=Stage.BINARY, exactness=Exactness.REDUCTION_ORDER
)
