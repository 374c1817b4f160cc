"""Recognise binary weights by value, and compute their layers on integers.

Before: `%y = Conv(%x, %W)` with every output channel's weights in {-alpha, +alpha}.
After:  `%n = BinaryConv(%b, %sign); %y = Dequantize(%n, alpha, ...)` where x is made of the levels
        -1, (0,) +1 of a Step or is an affine map of uint8 codes, `operands` says how;
        `%s = BinaryConv(%x, %sign); %y = Mul(%s, alpha)` where x is any other real.
MatMul and BinaryDense are the same without spatial axes.

The value of the layer becomes fl(alpha * n): a float32 sum of +-alpha is not a function of n, it
depends on the order of its terms, and this is the value that all those orders surround. How far
they can lie from it is bounded by `Dequantize.slack`, 0 where every order gives the same bits: when
all terms, and the bias that a Gemm adds, are multiples of one power of two and no partial sum
needs more than 24 bits. At borders fewer terms are summed, for which the same bounds hold.

Over reals every magnitude must be alpha itself; over integers crumbs of 2^-20 are bounded by slack.
A few exact zeros among +-alpha, which torch.sign(0) leaves, are weights 0 over bits.

Refuses: rows with other magnitudes or with more zeros among non-zeros, sums beyond 2^24, and over
integers a real 0 around an image of codes none of which is 0.
Source: Courbariaux et al. 2016, section 1; Rastegari et al. 2016, eq. 2 (alpha).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import gamma
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Add, Dequantize, Mul, over_channels
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, Conv, MatMul
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Window
from bnncc.passes.base import Context, Exactness, Outcome, Pass, Refusal
from bnncc.passes.operands import Operand, Operands

__all__ = ["BINARISE_WEIGHTS", "BinaryRows", "binary_rows"]

_SAME_MAGNITUDE = 2.0**-20
"""Relative difference below which magnitudes count as one alpha: what folded STEs leave behind."""

_MOST_ZEROS = 64
_MOST_ZEROS_OF_A_CHANNEL = 1 / 16
"""Zeros up to these counts are exceptions among +-alpha; with more, weights are ternary."""

_EXACT_INTEGERS = 1 << 24


@dataclass(frozen=True, eq=False)
class BinaryRows:
    """A weight matrix [O, K] as signs and magnitudes.

    Attributes:
        signs: int8 -1 or +1, in a few places 0, [O, K].
        alpha: float32 >= 0, [O].
        misfit: float64 [O], the sum over k of |w_k - alpha * sign_k|.
        reason: why the matrix is not binary, "" if it is.
        zeros: why only bits can be summed by it, "" if reals can as well.
    """

    signs: Array
    alpha: Array
    misfit: Array
    reason: str = ""
    zeros: str = ""


def binary_rows(weights: Array) -> BinaryRows:
    """Return how far a weight matrix [O, K] is binary: each row +-alpha, by value."""
    magnitudes = np.abs(weights)
    lowest, highest = magnitudes.min(axis=1), magnitudes.max(axis=1)
    holes = (lowest == 0) & (highest > 0)
    if holes.any():
        lowest[holes] = _lowest_but_few_zeros(magnitudes[holes])
    apart = highest - lowest > _SAME_MAGNITUDE * highest
    none = np.zeros(len(highest))
    if apart.any():
        reason = _other_magnitudes(apart, holes)
        return BinaryRows(np.zeros((0, 0), np.int8), highest, none, reason)
    signs = np.where(weights < 0, np.int8(-1), np.int8(1))
    signs[holes] *= weights[holes] != 0
    zeros = _other_magnitudes(holes, holes) if holes.any() else ""
    if (lowest == highest).all():
        return BinaryRows(signs, highest, none, zeros=zeros)
    crumbs = np.where(signs == 0, 0, highest[:, np.newaxis] - magnitudes)
    return BinaryRows(signs, highest, crumbs.astype(np.float64).sum(axis=1), zeros=zeros)


def _lowest_but_few_zeros(magnitudes: Array) -> Array:
    """Return each row's smallest magnitude [R] without its zeros, but 0 where those are many."""
    zeros = magnitudes == 0
    count = zeros.sum(axis=1)
    few = (count <= _MOST_ZEROS_OF_A_CHANNEL * zeros.shape[1]) & (count.sum() <= _MOST_ZEROS)
    smallest = np.where(zeros, np.inf, magnitudes).min(axis=1)
    return np.where(few, smallest, 0)


def _other_magnitudes(apart: Array, holes: Array) -> str:
    zeros = int((holes & apart).sum())
    kind = f", {zeros} of them with zeros" if zeros else ""
    rows = f"{int(apart.sum())} of {len(apart)} output channels"
    return f"{rows} have weights other than +-alpha{kind}"


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
    if rows.reason or 255 * rows.signs.shape[1] < _EXACT_INTEGERS:
        return rows
    k = rows.signs.shape[1]
    reason = f"its {k} terms could sum to more than float32 holds exactly (2^24)"
    return BinaryRows(rows.signs, rows.alpha, rows.misfit, reason)


def _rewritten(
    rewrite: Rewrite, operands: Operands, node: Node, rows: BinaryRows
) -> tuple[list[Node], str]:
    """Return what takes a layer's place, [] if it stays, and what is refused, "" if nothing."""
    if rows.reason:
        return [], rows.reason
    bits = operands.bits(node)
    if bits is not None:
        return _integer(rewrite, node, bits, rows), ""
    if rows.zeros:
        return [], rows.zeros
    codes = operands.codes(node)
    if isinstance(codes, Operand):
        return _integer(rewrite, node, codes, rows), ""
    if rows.misfit.any():
        return [], codes or "its weights are +-alpha but for rounding, and its input is real"
    return _real(rewrite, node, rows), codes


def _binary(node: Node, window: Window, pad: int) -> BinaryConv:
    """Return the layer's operation on signs as weights."""
    if isinstance(node.op, MatMul):
        return BinaryDense()
    assert isinstance(node.op, Conv)  # _apply asked
    return BinaryConv(window, node.op.groups, pad)


def _weights(rewrite: Rewrite, node: Node, rows: BinaryRows) -> str:
    """Return the signs as a constant in the shape of the layer's weights."""
    name = node.inputs[1]
    element = Element.TERNARY if rows.zeros else Element.BIPOLAR
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
    alpha = rows.alpha.astype(np.float64)
    accumulator = rewrite.fresh(f"{node.output}.acc")
    op = _binary(node, operand.window, operand.pad)
    weights = _weights(rewrite, node, rows)
    origin = (*node.origin, *operand.origin)
    layer = rewrite.node(op, (operand.name, weights), accumulator, origin)
    # Every tap counts in n: a code that stands for 0 is what zero padding holds, and where it is
    # code 0, or bits are padded with 0, the offset is 0 as well.
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
    return [layer, value]


def _slack(graph: Graph, node: Node, operand: Operand, rows: BinaryRows) -> Array:
    """Return, per channel, how far any float32 order of the sum can lie from the layer's value."""
    k = math.prod(graph.types[node.inputs[1]].shape[1:])
    bias = _bias_added_by_the_same_gemm(graph, node, len(rows.alpha))
    largest = float(operand.magnitudes.max())
    magnitude = k * largest * rows.alpha.astype(np.float64) + np.abs(bias)
    bound = gamma(k + 2) * magnitude
    bound += rows.alpha * (k * operand.misfit) + rows.misfit * largest
    exact = (rows.misfit == 0) & (operand.misfit == 0)
    return np.where(exact & _sums_exactly(rows.alpha, operand.magnitudes, bias, k), 0.0, bound)


def _bias_added_by_the_same_gemm(graph: Graph, node: Node, channels: int) -> Array:
    """Return the bias [channels] that the source's layer adds, perhaps before the last product."""
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
