"""How far the float model may lie from us, tensor by tensor, where both start from its own values.

The model's own values are known for some tensors; from there on, two evaluations part ways by
rounding alone: a sum taken in another order, BatchNorm, a quotient. `Bounds` follows what they add
through everything between one known tensor and the next, through several operands just as well: of
a layer's result plus a shortcut, the shortcut is known, and the sum of both rounds once more.
Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", chapters 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from bnncc.certificate import LayerCertificate
from bnncc.ir.analysis.rounding import (
    UNIT_ROUNDOFF,
    bound_of,
    gamma,
    layer_bias_slack,
    layer_underflow,
    softmax_bound,
)
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Elementwise, Mul, Step, Sub, over_channels
from bnncc.ir.ops.interpolate import Interpolate
from bnncc.ir.ops.linear import BinaryConv, Conv, WindowSum, matrix_conv
from bnncc.ir.ops.pool import AveragePool, MaxPool, Pooling
from bnncc.ir.ops.reduce import ArgMax, ReduceMax, Reduction, TopK
from bnncc.ir.ops.shape import Movement
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array

__all__ = ["Bounds"]

_EXACT = np.zeros(())
_UNDERFLOW = 2.0**-149
"""What two products that are not normal float32 numbers may be apart."""


class Bounds:
    """Bounds on the tensors of one graph at stage BINARY, for one batch of inputs."""

    def __init__(
        self,
        graph: Graph,
        certificates: Mapping[str, LayerCertificate],
        seen: Mapping[str, Array],
        known: Container[str],
    ) -> None:
        """Hold on to values that grow while the graph runs.

        Args:
            graph: what is run.
            certificates: of its Steps, by their result.
            seen: the values so far, [N, ...], by name.
            known: the tensors that hold the model's own values.
        """
        self._graph = graph
        self._certificates = certificates
        self._seen = seen
        self._known = known
        self._found: dict[str, Array] = {}

    def explains(self, name: str, at: tuple[Array, ...], truth: Array) -> Array:
        """Return which values at some places of a tensor may become the model's [M].

        Args:
            name: a tensor that was just computed; `seen` holds our own values of it.
            at: an index array [M] for each of its axes.
            truth: the model's values there [M].
        """
        node = self._graph.producers[name]
        if isinstance(node.op, Step):
            return self._open(node, at)
        if isinstance(node.op, ArgMax | TopK) and self._seen[name].dtype == np.int64:
            return self._tied(node, at, truth)
        ours = self._seen[name]
        bound = np.broadcast_to(self.of(name), ours.shape)[at]
        with np.errstate(invalid="ignore"):
            apart = np.abs(ours[at].astype(np.float64) - truth)
        # Not "apart > bound": no comparison with NaN holds, and a NaN of ours must not pass. The
        # model's may, where anything is possible: a variance of E[x^2] - E[x]^2 can be below 0.
        return np.asarray((apart <= bound) | (np.isnan(truth) & np.isinf(bound)))

    def of(self, name: str) -> Array:
        """Return how far the model's values may lie from ours, in a shape that broadcasts."""
        node = self._graph.producers.get(name)
        if node is None or name in self._known:
            return _EXACT
        if name not in self._found:
            with np.errstate(all="ignore"):
                self._found[name] = self._derived(node, name)
        return self._found[name]

    def _derived(self, node: Node, name: str) -> Array:
        """Return the bound on a result from those on the operands."""
        operands = [self._value(operand) for operand in node.inputs]
        bounds = [self.of(operand) for operand in node.inputs]
        y = self._seen[name]
        match node.op:
            case Step():
                return self._step(node)
            case Elementwise() as op:
                shaped = [
                    over_channels(v, y.ndim) if i in op.channel_operands else v
                    for i, v in enumerate(operands)
                ]
                return bound_of(op, shaped, bounds, y)
            case Conv() | BinaryConv():
                return self._sum(node, operands[0], bounds[0], operands[1])
            case MaxPool() | ReduceMax() | Movement() | TopK() | WindowSum() as op:
                return _moved(op, node.outputs.index(name), operands, bounds)
            case Pooling() as op:
                return _pooled(op, operands[0], bounds[0], y) + self._of_a_variance(node)
            case Softmax(log=log):
                return softmax_bound(y, log=log) + _softmax_moved(y, bounds[0], log=log)
            case _:
                return np.asarray(np.inf) if any(b.any() for b in bounds) else _EXACT

    def _of_a_variance(self, node: Node) -> Array:
        """Bound what an operator's variance is off where a library has it as E[x^2] - E[x]^2.

        Both means, of n squares, and their difference are off by gamma_(n + 2) E[x^2] each.
        """
        makers = self._graph.producers
        square = makers.get(node.inputs[0])
        centred = makers.get(square.inputs[0]) if square and square.op == Mul() else None
        if centred is None or square is None or centred.op != Sub():
            return _EXACT
        x, mean = centred.inputs[0], makers.get(centred.inputs[1])
        own = all(n is not None and n.origin == node.origin for n in (square, centred, mean))
        if not own or mean is None or mean.op != node.op or mean.inputs[0] != x:
            return _EXACT
        values = np.abs(self._value(x).astype(np.float64)) + self.of(x)
        (squares,) = node.op.evaluate([values * values])
        return np.asarray(4 * gamma(values.size // squares.size + 2) * squares)

    def _value(self, name: str) -> Array:
        constants = self._graph.constants
        return constants[name] if name in constants else self._seen[name]

    def _sum(self, node: Node, x: Array, moved: Array, weights: Array) -> Array:
        """Bound a layer's sums: gamma_K sum |w x| on either side, and what x itself brings along.

        Sums of integers are exact, and so are sums over patches of zeros.
        """
        op = node.op
        assert isinstance(op, Conv | BinaryConv)  # _derived asked
        size = np.abs(weights).astype(np.float32)

        def weighted(terms: Array) -> Array:
            return matrix_conv(terms.astype(np.float32), size, op.window, op.groups)

        grown = _summed(weighted, np.broadcast_to(moved, x.shape)) if moved.any() else _EXACT
        if x.dtype != np.float32:
            return grown
        k = weights[0].size
        magnitude = _summed(weighted, np.abs(x) + moved)
        bias = over_channels(layer_bias_slack(self._graph, node), magnitude.ndim)
        tiny = over_channels(layer_underflow(self._graph, node), magnitude.ndim)
        # Both float32 products above round too, down by gamma_K at most.
        moved_by = (grown + 2 * gamma(k + 2) * magnitude) * (1 + 2 * gamma(k + 2))
        return np.asarray(moved_by + bias + np.where(magnitude > 0, tiny, 0.0))

    def _step(self, node: Node) -> Array:
        """Bound a quantised tensor: by the range of its levels wherever more than one is open."""
        levels = self._graph.constants[node.inputs[2]]
        shape = self._seen[node.output].shape
        at = tuple(index.reshape(-1) for index in np.indices(shape))
        spread = float(levels.max() - levels.min())
        return np.where(self._open(node, at).reshape(shape), spread, 0.0)

    def _open(self, node: Node, at: tuple[Array, ...]) -> Array:
        """Return whether rounding leaves a quantised tensor open at some places.

        The certificate speaks of the folded chain, given its operand; the operand may be a sum.
        """
        x = self._seen[node.inputs[0]]
        value = x[at].astype(np.float64)
        reach = np.broadcast_to(self.of(node.inputs[0]), x.shape)[at]
        channel = at[1]
        proof = self._certificates.get(node.output)
        # No threshold decides what NaN becomes: the model's, or what may be one. Ours is no excuse.
        nan = np.isnan(value)
        given = self._given_nan(node.inputs[0], len(x))[at[0]] if nan.any() else nan
        anything = np.isinf(reach) | (nan & given)
        if proof is not None:
            undecided = proof.is_undecided(channel, value - reach, value + reach)
            return np.asarray(anything | undecided)
        thresholds = self._graph.constants[node.inputs[1]]
        rows = thresholds[np.minimum(channel, len(thresholds) - 1)]
        low, high = (value - reach)[:, np.newaxis], (value + reach)[:, np.newaxis]
        return np.asarray(anything | ((low < rows) & (rows <= high)).any(axis=1))

    def _given_nan(self, name: str, count: int) -> Array:
        """Return which samples [N] have NaN among the model's values that a tensor is made of."""
        node = self._graph.producers.get(name)
        if node is None or name in self._known:
            value = self._value(name)
            if self._graph.is_constant(name) or value.dtype.kind != "f":
                return np.zeros(count, bool)
            return np.asarray(np.isnan(value).reshape(count, -1).any(axis=1))
        operands = [self._given_nan(operand, count) for operand in node.inputs]
        return np.asarray(np.any(operands, axis=0))

    def _tied(self, node: Node, at: tuple[Array, ...], truth: Array) -> Array:
        """Return whether the scores that two rankings put in one place may be equal."""
        scores = self._seen[node.inputs[0]]
        ours = self._seen[node.outputs[-1]][at]
        bound = np.broadcast_to(self.of(node.inputs[0]), scores.shape).max(axis=1)[at[0]]
        inside = (truth >= 0) & (truth < scores.shape[1])
        theirs = np.where(inside, truth, 0).astype(np.int64)
        gap = np.abs(scores[at[0], ours].astype(np.float64) - scores[at[0], theirs])
        return np.asarray(inside & (gap <= 2 * bound), bool)


def _pooled(op: Pooling, x: Array, moved: Array, y: Array) -> Array:
    """Bound a mean, sum or interpolation: by the same of what x moves, and by its own roundings.

    Those are gamma_count of the mean or sum of |x|, on either side.
    """
    match op:
        case Reduction():
            count = max(1, x.size // y.size)
        case AveragePool(window=window):
            count = window.taps
        case Interpolate(axes=axes):  # a weight is the product of two differences
            count = 2 ** len(axes) + 2 * len(axes)
        case _:
            return np.asarray(np.inf)

    def pooled(terms: Array) -> Array:
        return op.evaluate([terms.astype(np.float64)])[0]

    magnitude = _summed(pooled, np.abs(x.astype(np.float64)) + moved)
    grown = _summed(pooled, np.broadcast_to(moved, x.shape))
    # Terms may be squares that are not normal numbers, rounded on one side alone.
    tiny = np.where(magnitude > 0, count * _UNDERFLOW, 0.0)
    return np.asarray(grown + 2 * gamma(count + 2) * magnitude + tiny)


def _summed(sums: Callable[[Array], Array], terms: Array) -> Array:
    """Return sums, with weights >= 0, of bounds: infinite if a term with a weight above 0 is."""
    endless = np.isinf(terms)
    total = sums(np.where(endless, 0.0, terms)).astype(np.float64)
    # 0 times infinity is no number, and a NaN explains nothing.
    return np.where(sums(endless) > 0, np.inf, total) if endless.any() else total


def _moved(op: Op, result: int, operands: Sequence[Array], bounds: Sequence[Array]) -> Array:
    """Bound an operation that rises with each of its operands and rounds nothing."""
    if not any(bound.any() for bound in bounds):
        return _EXACT
    # A pool's directions are no value that it passes on.
    varying = [i for i, v in enumerate(operands) if not (isinstance(op, MaxPool) and i)]

    def at(side: int) -> Array:
        ends = list(operands)
        for i in varying if side else ():  # a bound may be infinite, and 0 times that is no number
            ends[i] = operands[i].astype(np.float64) + side * bounds[i]
            if operands[i].dtype == np.int8:  # bits go no further
                ends[i] = np.clip(ends[i], -1, 1)
        return np.asarray(op.evaluate(ends)[result], np.float64)

    return np.asarray(np.maximum(at(1) - at(0), at(0) - at(-1)))


def _softmax_moved(y: Array, moved: Array, *, log: bool) -> Array:
    """Bound a softmax whose operands move by e: by a factor exp(2 e) at most."""
    most = np.broadcast_to(moved, y.shape).max(axis=1, keepdims=True)
    own = 2 * most if log else np.abs(y) * np.expm1(2 * most)
    return np.asarray(own * (1 + 4 * UNIT_ROUNDOFF))
