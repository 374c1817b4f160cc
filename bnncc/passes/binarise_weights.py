"""Recognise binary weights by value, and compute their layers on integers.

Before: `%y = Conv(%x, %W)` with every output channel's weights in {-alpha, +alpha}.
After:  `%n = BinaryConv(%b, %sign); %y = Dequantize(%n, alpha, ...)` where x is an affine map of
        integers: the levels of a Step, or uint8 codes; `operands` says how;
        `%s = BinaryConv(%x, %sign); %y = Mul(%s, alpha)` where x is any other real.
MatMul and BinaryDense are the same without spatial axes.

Over integers, weights may be -alpha, 0, +alpha too, any two values alpha * sign + offset, and up to
16 equally spaced values, integers times alpha and perhaps an offset: `%S = WindowSum(%b);
%y = DequantizeTwo(%n, %S, alpha, offset, ...)`, since they sum to alpha * n + offset * S. Where
taps outside hold a real 0 that no integer stands for, they count for nothing in n and S, and the
shift, what the map's own offset adds, is another at the border: a constant image. Levels that are
two planes of bits, each with a unit of its own, are two layers on bits: `%y = DequantizeTwo(%n, %m,
alpha * unit, alpha * unit', ...)`.

The value of the layer becomes the double expression, rounded once, such as fl(alpha * n): a float32
sum of +-alpha is not a function of n, it depends on the order of its terms, and this is the value
that all those orders surround. How far they can lie from it is bounded by `Dequantize.slack`, 0
where every order gives the same bits: when all terms, and the bias that a Gemm adds, are multiples
of one power of two and no partial sum needs more than 24 bits. At borders fewer terms are summed,
for which the same bounds hold.

Over reals every magnitude must be alpha itself; over integers crumbs of 2^-20 are bounded by slack.

Refuses: rows with other values, sums beyond 2^24, two-valued weights on two planes.
Source: Courbariaux et al. 2016, section 1; Rastegari et al. 2016, eq. 2 (alpha); Zhang et al. 2018
(LQ-Nets), eq. 3 (two planes); Tu et al. 2022 (AdaBin), eq. 6 (two values).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from bnncc.ir.analysis.rounding import gamma
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Add, Dequantize, DequantizeTwo, Mul, over_channels
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, Conv, MatMul, WindowSum, matrix_conv
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Window
from bnncc.passes.base import Context, Exactness, Outcome, Pass, Refusal
from bnncc.passes.binary_rows import BinaryRows, binary_rows
from bnncc.passes.operands import Operand, Operands

__all__ = ["BINARISE_WEIGHTS"]

_EXACT_INTEGERS = 1 << 24
_FEWEST_WEIGHTS = 4
"""Fewer weights lie on some grid by chance: two always do."""


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    rows = {
        node.name: _binary_rows_of(graph.constants[node.inputs[1]])
        for node in graph.nodes
        if isinstance(node.op, Conv) and graph.is_constant(node.inputs[1])
    }
    operands = Operands(rewrite, {name for name, layer in rows.items() if not layer.reason})
    for node in graph.nodes:
        if node.name not in rows:
            continue
        new, reason = _rewritten(rewrite, operands, node, rows[node.name])
        if reason:
            refusals.append(Refusal(node.name, node.origin, reason))
        if new:
            rewrite.replace(node, new)
    return Outcome(rewrite.finish(), tuple(refusals))


def _binary_rows_of(weights: Array) -> BinaryRows:
    """Return how far weights [O, C / groups, *kernel] are binary, a row an output channel."""
    rows = binary_rows(weights.reshape(len(weights), -1))
    k = rows.signs.shape[1]
    if not rows.reason and rows.integers and k < _FEWEST_WEIGHTS:
        return dataclasses.replace(rows, reason=rows.integers)
    if rows.reason or 255 * k * int(np.abs(rows.signs).max()) < _EXACT_INTEGERS:
        return rows
    reason = f"its {k} terms could sum to more than float32 holds exactly (2^24)"
    return dataclasses.replace(rows, reason=reason)


def _rewritten(
    rewrite: Rewrite, operands: Operands, node: Node, rows: BinaryRows
) -> tuple[list[Node], str]:
    """Return what takes a layer's place, [] if it stays, and what is refused, "" if nothing."""
    if rows.reason:
        return [], rows.reason
    operand = operands.bits(node) or operands.codes(node)
    if operand is not None and operand.beside and rows.offset.any():
        return [], "its weights are two-valued, and its input is levels that are not equally spaced"
    if operand is not None:
        return _integer(rewrite, node, operand, rows), ""
    if rows.integers:
        return [], rows.integers
    if rows.misfit.any():
        return [], "its weights are +-alpha but for rounding, and its input is real"
    return _real(rewrite, node, rows), ""


def _binary(node: Node, window: Window, pad: int) -> BinaryConv:
    """Return the layer's operation on signs as weights."""
    if isinstance(node.op, MatMul):
        return BinaryDense()
    assert isinstance(node.op, Conv)  # _apply asked
    return BinaryConv(window, node.op.groups, pad)


def _weights(rewrite: Rewrite, node: Node, rows: BinaryRows) -> str:
    """Return the signs as a constant in the shape of the layer's weights."""
    name = node.inputs[1]
    largest = int(np.abs(rows.signs).max())
    several = (e for e in (Element.S2, Element.S3, Element.S4) if largest <= e.largest_weight)
    element = Element.BIPOLAR if rows.signs.all() else Element.TERNARY
    element = element if largest <= 1 else next(several)
    signs = rows.signs.reshape(rewrite.graph.constants[name].shape)
    return rewrite.constant(f"{name}.sign", signs, element)


def _real(rewrite: Rewrite, node: Node, rows: BinaryRows) -> list[Node]:
    """Return the layer on real activations: sums of +-x, times alpha where that is not 1."""
    assert isinstance(node.op, Conv)  # _apply asked
    op = _binary(node, node.op.window, 0)
    operands = (node.inputs[0], _weights(rewrite, node, rows))
    if (rows.alpha == 1).all():
        return [rewrite.node(op, operands, node.output, node.origin)]
    total = rewrite.fresh(f"{node.output}.sum")
    rank = len(rewrite.type_of(node.output).shape)
    alpha = over_channels(rows.alpha, rank)
    alpha_name = rewrite.constant(f"{node.output}.alpha", alpha, Element.F32)
    return [
        rewrite.node(op, operands, total, node.origin),
        rewrite.node(Mul(), (total, alpha_name), node.output, node.origin),
    ]


def _integer(rewrite: Rewrite, node: Node, operand: Operand, rows: BinaryRows) -> list[Node]:
    """Return the layer on integers, and its value by definition."""
    accumulator = rewrite.fresh(f"{node.output}.acc")
    op = _binary(node, operand.window, operand.pad)
    weights = _weights(rewrite, node, rows)
    origin = (*node.origin, *operand.origin)
    layer = rewrite.node(op, (operand.name, weights), accumulator, origin)
    scale = rows.alpha.astype(np.float64) * operand.unit
    shift, rounded = _shift(rewrite.graph, node, operand, rows)
    slack = _slack(rewrite.graph, node, operand, rows) + rounded

    def constant(what: str, value: Array) -> str:
        element = Element.F32 if value.ndim > 1 else Element.F64
        return rewrite.constant(f"{node.output}.{what}", value, element)

    if not rows.offset.any() and not operand.beside:
        rest = [constant("scale", scale), constant("shift", shift), constant("slack", slack)]
        value = rewrite.node(Dequantize(), (accumulator, *rest), node.output, node.origin)
        return [layer, value]
    if operand.beside:
        second = _binary(node, operand.window, operand.beside.pad)
        name = rewrite.fresh(f"{node.output}.second")
        total = rewrite.node(second, (operand.beside.name, weights), name, origin)
        weight = rows.alpha.astype(np.float64) * operand.beside.unit
    else:
        total = _window_sum(rewrite, node, op, operand)
        weight = rows.offset * operand.unit
    rest = [
        constant("scale", scale),
        constant("weight", weight),
        constant("shift", shift),
        constant("slack", slack),
    ]
    sums = (accumulator, total.output)
    value = rewrite.node(DequantizeTwo(), (*sums, *rest), node.output, node.origin)
    return [total, layer, value]


def _window_sum(rewrite: Rewrite, node: Node, op: BinaryConv, operand: Operand) -> Node:
    """Return the sums of what the layer reads."""
    channels = 1 if op.groups == 1 else rewrite.type_of(node.output).shape[1]
    sums = WindowSum(op.window, op.groups, op.pad, channels)
    name = rewrite.fresh(f"{node.output}.total")
    return rewrite.node(sums, (operand.name,), name, (*node.origin, *operand.origin))


def _shift(
    graph: Graph, node: Node, operand: Operand, rows: BinaryRows
) -> tuple[Array, Array | float]:
    """Return what the offset of the integers' affine map adds, and how far that was rounded.

    A value a channel [O], where every tap counts: an integer that stands for 0 is what zero padding
    holds. Else [1, O, *outputs] in float32, the sum of the weights inside at each output.
    """
    weights = rows.alpha[:, np.newaxis] * rows.signs.astype(np.float64) + rows.offset[:, np.newaxis]
    if operand.offset == 0 or not operand.border:
        return operand.offset * weights.sum(axis=1), 0.0
    assert isinstance(node.op, Conv)  # _apply asked
    kernel = weights.reshape(graph.types[node.inputs[1]].shape)
    inside = np.full(graph.types[node.inputs[0]].shape, operand.offset)
    exact = matrix_conv(inside, kernel, node.op.window, node.op.groups)
    image = exact.astype(np.float32)
    apart = np.abs(image - exact).max(axis=(0, *range(2, image.ndim)))
    return image, apart


def _slack(graph: Graph, node: Node, operand: Operand, rows: BinaryRows) -> Array:
    """Return, per channel, how far any float32 order of the sum can lie from the layer's value."""
    k = math.prod(graph.types[node.inputs[1]].shape[1:])
    bias = _bias_added_by_the_same_gemm(graph, node, len(rows.alpha))
    largest = float(operand.magnitudes.max())
    heaviest = rows.magnitudes.max(axis=1)
    bound = gamma(k + 2) * (k * largest * heaviest + np.abs(bias))
    bound += heaviest * (k * operand.misfit) + rows.misfit * largest
    exact = (rows.misfit == 0) & (operand.misfit == 0)
    return np.where(exact & _sums_exactly(rows, operand.magnitudes, bias, k), 0.0, bound)


def _bias_added_by_the_same_gemm(graph: Graph, node: Node, channels: int) -> Array:
    """Return the bias [channels] that the source's layer adds, perhaps before the last product.

    It is in units of the sum: where a Gemm scales that by alpha, the bias over alpha.
    """
    alpha, last = 1.0, node
    while True:
        readers = graph.consumers[last.output]
        if len(readers) != 1 or readers[0].origin != node.origin:
            return np.zeros(channels)
        last = readers[0]
        constants = [graph.constants[n] for n in last.inputs if graph.is_constant(n)]
        if not constants or not isinstance(last.op, Add | Mul):
            return np.zeros(channels)
        value = constants[0].astype(np.float64).reshape(-1)
        if isinstance(last.op, Add):
            return np.broadcast_to(value / alpha, (channels,))
        if value.size != 1 or value.item() == 0:
            return np.zeros(channels)
        alpha = value.item()


def _sums_exactly(rows: BinaryRows, magnitudes: Array, bias: Array, k: int) -> Array:
    """Return which channels' sums of k terms +-w * magnitude, and bias, never round.

    All terms are integers times one power of two, the smallest bit set in any of them; a partial
    sum is at most the sum of all magnitudes, and float32 holds every integer up to 2^24.
    """
    products = (rows.magnitudes[:, :, np.newaxis] * magnitudes).reshape(len(bias), -1)
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
