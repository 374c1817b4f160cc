"""How far another float32 evaluation of the same layer could lie from ours.

An elementwise operation alone gives the same bits everywhere. Two things do not: a sum that another
library takes in another order (`Dequantize.slack` bounds it), and BatchNorm, which PyTorch, ONNX
Runtime and every folding of it round differently. The bound starts there, and grows through what
follows. Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bnncc.ir.expression import Chain, Source
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, Conv
from bnncc.ir.types import Array, Element

__all__ = [
    "OF_A_LIBRARY",
    "UNIT_ROUNDOFF",
    "bias_slack",
    "bound_of",
    "gamma",
    "layer_bias_slack",
    "layer_underflow",
    "softmax_bound",
    "spread",
]

UNIT_ROUNDOFF = 2.0**-24
"""Half the distance between 1 and the next float32: |fl(a op b) - (a op b)| <= u |a op b|."""

OF_A_LIBRARY = (ew.Tanh, ew.Sigmoid, ew.Exp, ew.Log, ew.Erf, ew.Power)
"""Functions that no two libraries round alike."""

_UNDERFLOW = 2.0**-149
"""The smallest positive float32: twice what a result that is not normal may be off besides."""

_BATCH_NORM_ROUNDINGS = 8
"""Roundings on any path from x to y in the forms of BatchNorm met in practice.

variance + epsilon, its root, the quotient, times gamma, mean * s, the subtraction, x * s, the last
sum: 8 in ONNX Runtime's order; x - mean first, or a fused multiply-add, take no more.
"""


def gamma(n: float | Array) -> float | Array:
    """Return n u / (1 - n u), the relative bound on n successive roundings (Higham, lemma 3.1)."""
    return n * UNIT_ROUNDOFF / (1 - n * UNIT_ROUNDOFF)


def spread(chain: Chain, x: Array, slack: Array | float = 0.0) -> tuple[Array, Array]:
    """Return the chain's value before its final Step, and how far another evaluation could be off.

    Args:
        chain: a chain that ends in a Step, or in any real operation.
        x: values of its root, [M, channels].
        slack: how far x itself could be off.

    Returns:
        float64 (value, bound), both [M, channels].
    """
    with np.errstate(all="ignore"):
        return _spread(chain, x, slack)


def _spread(chain: Chain, x: Array, slack: Array | float) -> tuple[Array, Array]:
    terms = chain.expression.terms
    if terms and isinstance(terms[-1].op, ew.Step):
        terms = terms[:-1]
    values = chain.expression.values([x], chain.parameters)
    shape = (x.shape[0], chain.channels)
    start = np.broadcast_to(np.asarray(slack, np.float64), shape)
    bounds: list[Array] = []
    for i, term in enumerate(terms):
        known = [
            (x, start)
            if o.source is Source.VARIABLE
            else (values[o.index], bounds[o.index])
            if o.source is Source.TERM
            else (chain.operand(o), np.zeros(()))
            for o in term.operands
        ]
        bound = bound_of(term.op, [k[0] for k in known], [k[1] for k in known], values[i])
        bounds.append(np.broadcast_to(np.asarray(bound, np.float64), shape))
    if not terms:
        return np.broadcast_to(x, shape).astype(np.float64), start
    return np.broadcast_to(values[len(terms) - 1], shape).astype(np.float64), bounds[-1]


def bias_slack(graph: Graph, chain: Chain) -> Array:
    """Return how far the chain's root could be off, [channels], where a layer's own node makes it.

    `layer_bias_slack` of a sum, the slack of what an accumulator stands for; else 0.
    """
    layer = graph.producers.get(chain.root)
    if layer is not None and isinstance(layer.op, ew.Dequantize | ew.DequantizeTwo):
        return graph.constants[layer.inputs[-1]]
    if layer is None or not isinstance(layer.op, Conv | BinaryConv):
        return np.zeros(chain.channels)
    return layer_bias_slack(graph, layer)


def layer_bias_slack(graph: Graph, layer: Node) -> Array:
    """Return how far the place at which a layer adds its bias can move a real sum, [channels].

    A library may start from the bias, or add it behind any part of the sum: each of K additions
    then rounds a value as large as the bias, gamma_K |bias| in all. Integer sums have it in their
    `Dequantize.slack`.
    """
    if graph.types[layer.output].element is not Element.F32:
        return np.zeros(graph.types[layer.output].shape[1])
    alpha, bias = _scale_and_bias(graph, layer)
    return np.asarray(gamma(_terms(graph, layer) + 2) * bias / np.where(alpha > 0, alpha, 1))


def layer_underflow(graph: Graph, layer: Node) -> Array:
    """Return how far products that are no normal numbers can move a real sum, [channels].

    Of weights +-alpha the library multiplies by alpha before it adds: each of K products is then
    rounded to a multiple of 2^-149, which is that over alpha of the sum that alpha multiplies.
    """
    alpha, _ = _scale_and_bias(graph, layer)
    scale = np.where(alpha > 0, np.minimum(alpha, 1), 1)
    return np.asarray(_terms(graph, layer) * _UNDERFLOW / scale)


def _terms(graph: Graph, layer: Node) -> int:
    """Return how many products make a sum of a layer."""
    return graph.types[layer.inputs[1]].size // graph.types[layer.output].shape[1]


def _scale_and_bias(graph: Graph, layer: Node) -> tuple[Array, Array]:
    """Return |alpha| and |bias|, [channels], of the layer's own nodes behind its sum."""
    channels = graph.types[layer.output].shape[1]
    alpha, bias = np.ones(channels), np.zeros(channels)
    last: Node | None = layer
    while last is not None:
        followers = (n for n in graph.consumers[last.output] if n.origin == layer.origin)
        last = next(followers, None)
        constants = [n for n in last.inputs if n in graph.constants] if last else []
        if last is None or not constants:
            break
        row = np.abs(graph.constants[constants[0]].astype(np.float64)).reshape(-1)
        alpha = row if isinstance(last.op, ew.Mul) else alpha
        bias = row if isinstance(last.op, ew.Add) else bias
    return alpha, bias


def softmax_bound(y: Array, *, log: bool) -> Array:
    """Return how far another library's softmax of the same row may lie from our result y [N, C].

    Each exponential, ours within 1 ulp, theirs granted 4, is off by 10 u relatively at most; a sum
    of C such terms by gamma_C more, on either side; the quotient or the last subtraction rounds
    once. Below exp(-87) some give 0, where the value is up to 2^-125. A relative error of the sum
    is an absolute one of its logarithm, which itself is off by 4 ulp at most.
    """
    relative = 20 * UNIT_ROUNDOFF + 2 * gamma(y.shape[1])
    if not log:
        return np.asarray((relative + 10 * UNIT_ROUNDOFF) * np.abs(y) + 2.0**-125)
    log_of_sum = np.log(y.shape[1]) + 1  # the sum lies between 1 and C
    return np.asarray(relative + 10 * UNIT_ROUNDOFF * log_of_sum + 2 * UNIT_ROUNDOFF * np.abs(y))


def bound_of(op: ew.Elementwise, v: Sequence[Array], e: Sequence[Array], y: Array) -> Array:
    """Return how far another evaluation of one operation may lie from its result `y`.

    Args:
        op: the operation.
        v: its operands; rows of channels in the shape in which they broadcast.
        e: how far each of them could be off.
        y: its result.
    """
    match op:
        case ew.Dequantize():
            return np.asarray(v[3] + _times(e[0], np.abs(v[1])))
        case ew.DequantizeTwo():
            grown = _times(e[0], np.abs(v[2])) + _times(e[1], np.abs(v[3]))
            return np.asarray(v[5] + grown)
        case ew.BatchNormalization() as op:
            return _batch_norm(op, v, e[0])
        case ew.Mul():
            grown = _times(e[0], np.abs(v[1]) + e[1]) + _times(e[1], np.abs(v[0]))
            return _rounded_twice(grown, y)
        case ew.Div():
            return _rounded_twice(_quotient(np.abs(v[0]), np.abs(v[1]), e[0], e[1]), y)
        case ew.Add() | ew.Sub():
            return _rounded_twice(e[0] + e[1], y)
        case ew.Max() | ew.Min():
            return np.maximum(e[0], e[1])
        case ew.PRelu():
            return _rounded_twice(e[0] * np.maximum(1, np.abs(v[1])), y)
        case ew.LeakyRelu(alpha=alpha):
            return _rounded_twice(e[0] * max(1.0, abs(alpha)), y)
        case ew.HardSigmoid(alpha=alpha, beta=beta):
            line = alpha * v[0].astype(np.float64) + beta
            grown = _rounded_twice(e[0] * abs(alpha), np.abs(line) + abs(beta))
            return _within(line, grown, lambda a: np.clip(a, 0, 1))
        case ew.Sqrt():
            return _rounded_twice(_within(np.maximum(v[0], 0), e[0], _root), y)
        case _ if isinstance(op, OF_A_LIBRARY):
            return _of_a_library(op, v[0].astype(np.float64), e[0], np.abs(y.astype(np.float64)))
        case ew.Clip() | ew.Relu() | ew.Sign() | ew.Round() | ew.Floor() | ew.Ceil():
            return _within(v[0], e[0], op.compute)
        case ew.Identity() | ew.Neg() | ew.Abs() | ew.Cast() | ew.Not():
            return e[0]
        case _:
            return _of_decisions(op, v, e, y)


def _times(a: Array, b: Array) -> Array:
    """Return a b of bounds, which may be infinite: 0 times whatever is out there is 0."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _of_a_step(x: Array, e: Array, thresholds: Array, levels: Array, y: Array) -> Array:
    """Bound a quantiser: by the furthest level that x - e to x + e reaches."""
    column = partial(ew.over_channels, rank=x.ndim)
    moved: Array = np.zeros(np.broadcast_shapes(x.shape, e.shape))
    for j in range(levels.shape[1]):
        above = x + e >= column(thresholds[:, j - 1]) if j else True
        below = x - e < column(thresholds[:, j]) if j < thresholds.shape[1] else True
        apart = np.abs(column(levels[:, j]).astype(np.float64) - y)
        moved = np.maximum(moved, np.where(above & below, apart, 0.0))
    return moved


def _of_decisions(op: ew.Elementwise, v: Sequence[Array], e: Sequence[Array], y: Array) -> Array:
    """Bound an operation that compares or selects; a truth value that may be the other is off by 1.

    Of any other operation, once its operands are uncertain, nothing is known.
    """
    match op:
        case ew.Greater() | ew.GreaterOrEqual() | ew.Less() | ew.LessOrEqual() | ew.Equal():
            apart = np.abs(v[0].astype(np.float64) - v[1])
            moved = e[0] + e[1]
            return np.where((moved > 0) & ~(apart > moved), 1.0, 0.0)
        case ew.And() | ew.Or():
            decisive = isinstance(op, ew.Or)  # the other operand decides where it certainly is this
            open_ = [(e[i] > 0) & ((v[1 - i] != decisive) | (e[1 - i] > 0)) for i in range(2)]
            return np.where(open_[0] | open_[1], 1.0, 0.0)
        case ew.Step():
            return _of_a_step(v[0].astype(np.float64), e[0], v[1], v[2], y)
        case ew.Xor():
            return np.maximum(e[0], e[1])
        case ew.Where():
            apart = np.abs(v[1].astype(np.float64) - v[2]) + np.maximum(e[1], e[2])
            return np.where(e[0] > 0, apart, np.where(v[0], e[1], e[2]))
        case _:
            uncertain = np.any(np.broadcast_arrays(*[np.asarray(b) > 0 for b in e]), axis=0)
            return np.where(uncertain, np.inf, 0.0)


def _of_a_library(op: ew.Elementwise, x: Array, e: Array, y: Array) -> Array:
    """Bound a function on whose last bits no two libraries agree: x moves by e, |y| is our result.

    ONNX Runtime has the largest errors of those met. They were measured, and granted are:

    - tanh up to 5.2 ulp, and 1e-43 next to the subnormals: 8 ulp and 2^-140;
    - the logistic function up to 1.7e-7, whatever its value: 4 ulp and 2^-22;
    - log up to 3.4 ulp, exp, erf and powers up to 1 ulp, of normal numbers: 8 ulp and 2^-125.
    """
    with np.errstate(all="ignore"):
        return _of_a_function(op, x, e, y)


def _of_a_function(op: ew.Elementwise, x: Array, e: Array, y: Array) -> Array:
    relative: float | Array = 16 * UNIT_ROUNDOFF
    absolute = 2.0**-125
    match op:
        case ew.Tanh():
            moved, absolute = _within(x, e, np.tanh), 2.0**-140
        case ew.Sigmoid():
            moved, relative, absolute = _within(x, e, _logistic), 8 * UNIT_ROUNDOFF, 2.0**-22
        case ew.Exp():
            moved = _within(x, e, np.exp)
        case ew.Log():
            moved = _within(x, e, np.log)
        case ew.Erf():  # its slope is 2 / sqrt(pi) at most
            moved = np.minimum(e * 1.13, 2)
        case ew.Power(halves=halves):
            moved, relative = _moved_power(x, e, halves / 2), 2 * gamma(abs(halves) // 2 + 4)
        case _:
            raise TypeError(op.name)
    moved = np.where(np.isnan(moved), np.inf, moved)
    return np.asarray(moved + relative * (y + moved) + absolute)


def _moved_power(x: Array, e: Array, exponent: float) -> Array:
    """Bound how far a power moves when x moves by e; infinite where x may reach a pole, or less.

    It rises or falls on either side of 0, where it is 0 itself or infinite.
    """
    if not np.any(e):
        return np.zeros(())
    here = x**exponent
    moved = np.maximum(*(np.abs((x + side * e) ** exponent - here) for side in (-1, 1)))
    around = moved + np.abs(here) if exponent > 0 else np.inf
    moved = np.where((np.abs(x) <= e) & (e > 0), around, moved)
    return np.where(np.isnan(moved), np.inf, moved)


def _root(x: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(x, 0)))


def _logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _within(x: Array, e: Array, rising: Callable[[Array], Array]) -> Array:
    """Bound how far a rising function moves when its operand moves by e: not at all where flat."""
    x = x.astype(np.float64)
    return np.asarray(np.maximum(rising(x + e) - rising(x), rising(x) - rising(x - e)))


def _quotient(a: Array, b: Array, e_a: Array, e_b: Array) -> Array:
    """Bound |a'/b' - a/b| for |a' - a| <= e_a, |b' - b| <= e_b; inf where b' could be 0."""
    with np.errstate(all="ignore"):
        moved = (e_a + a.astype(np.float64) / b * e_b) / (b - e_b)
    return np.where(e_b < b, moved, np.where((e_a > 0) | (e_b > 0), np.inf, 0.0))


def _rounded_twice(grown: Array, y: Array) -> Array:
    """Add both evaluations' rounding of a result near y, unless their operands are equal."""
    rounding = 2 * UNIT_ROUNDOFF * (np.abs(y.astype(np.float64)) + grown) + _UNDERFLOW
    return np.where(grown > 0, grown + rounding, 0.0)


def _batch_norm(op: ew.BatchNormalization, v: Sequence[Array], e: Array) -> Array:
    x, *statistics = (np.asarray(a, np.float64) for a in v)
    scale, beta, mean, variance = statistics
    slope = np.abs(scale / np.sqrt(variance + op.epsilon))
    terms = _times(slope, np.abs(x) + e) + slope * np.abs(mean) + np.abs(beta)
    tiny = np.where(terms > 0, _UNDERFLOW * (4 + np.abs(x) + e + np.abs(mean)), 0.0)
    return np.asarray(_times(e, slope) + 2 * gamma(_BATCH_NORM_ROUNDINGS) * terms + tiny)
