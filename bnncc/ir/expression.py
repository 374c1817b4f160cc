"""Elementwise chains as values: the computation between a linear layer and what it feeds.

An `Expression` is a small program of elementwise operations. It serves three masters: the threshold
finder runs it over whole domains, the analyses ask it for direction and rounding, and a fused
kernel carries it as its epilogue.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.types import Array

__all__ = [
    "Chain",
    "Expression",
    "Operand",
    "Source",
    "Term",
    "chain_to",
    "chains_to",
    "per_channel",
    "root_of",
    "trace",
]


class Source(enum.Enum):
    """Where an operand comes from."""

    VARIABLE = "x"
    PARAMETER = "p"
    TERM = "t"


@dataclass(frozen=True)
class Operand:
    """One operand of a term: the index-th variable, parameter or earlier term."""

    source: Source
    index: int

    def __str__(self) -> str:
        return f"{self.source.value}{self.index}"


@dataclass(frozen=True)
class Term:
    """One operation of an expression."""

    op: Elementwise
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.operands))})"


@dataclass(frozen=True)
class Expression:
    """Terms in order; the last is the result, and no term at all means the first variable."""

    terms: tuple[Term, ...]

    def values(self, variables: Sequence[Array], parameters: Sequence[Array]) -> list[Array]:
        """Return the value of every term; arrays broadcast as their operations say."""
        results: list[Array] = []
        pools: Mapping[Source, Sequence[Array]] = {
            Source.VARIABLE: variables,
            Source.PARAMETER: parameters,
            Source.TERM: results,
        }
        for term in self.terms:
            operands = [pools[operand.source][operand.index] for operand in term.operands]
            results.append(term.op.evaluate(operands)[0])
        return results

    def evaluate(self, variables: Sequence[Array], parameters: Sequence[Array]) -> Array:
        """Return the result."""
        return self.values(variables, parameters)[-1] if self.terms else variables[0]

    def __str__(self) -> str:
        return "{" + "; ".join(f"t{i} = {term}" for i, term in enumerate(self.terms)) + "}"


def per_channel(constant: Array, shape: Sequence[int]) -> Array | None:
    """Return a constant as it applies to a tensor [N, C, ...]: a scalar or [C]; else None.

    Values that vary along any other axis have no such form; exporters also spell one value out
    over a whole shape, and that has.
    """
    if constant.size == 1:
        return constant.reshape(())
    missing = len(shape) - constant.ndim
    if missing < 0:
        return None
    aligned = constant.reshape(*(1,) * missing, *constant.shape)
    row = aligned[(slice(1), slice(None), *(slice(1),) * (aligned.ndim - 2))]
    if aligned.size > row.size and not _same_bits(aligned, row):
        return None
    if row.size == 1:
        return row.reshape(())
    return row.reshape(-1) if row.size == shape[1] else None


def _same_bits(array: Array, row: Array) -> bool:
    """Whether every element equals the row's, where it broadcasts to: -0 is not 0."""
    same = np.array_equal(array, np.broadcast_to(row, array.shape))
    return same and bool((np.signbit(array) == np.signbit(row)).all())


@dataclass(frozen=True, eq=False)
class Chain:
    """y = f_c(x): an expression of one variable with a constant a channel for each parameter.

    Attributes:
        root: the tensor x, [N, channels, ...].
        expression: how y follows from x.
        parameters: each of shape [] or [channels], or a Step's [channels or 1, T].
        names: the tensors that hold the parameters.
        nodes: the nodes it was traced from, one a term.
        channels: how many channels x has.
    """

    root: str
    expression: Expression
    parameters: tuple[Array, ...]
    names: tuple[str, ...]
    nodes: tuple[Node, ...]
    channels: int

    def evaluate(self, x: Array) -> Array:
        """Return f_c(x) for x [M, channels]."""
        return self.expression.evaluate([x], self.parameters)

    def of(self, channels: slice) -> Chain:
        """Return the chain for some of its channels."""
        parameters = tuple(p[channels] if _varies(p, self.channels) else p for p in self.parameters)
        count = len(range(*channels.indices(self.channels)))
        return Chain(self.root, self.expression, parameters, self.names, self.nodes, count)

    def before_last(self) -> tuple[Chain, tuple[Array, ...]]:
        """Return the chain without its last term, and that term's parameters.

        The last term's first operand must be the one before it (or the root).
        """
        last = self.expression.terms[-1]
        terms = self.expression.terms[:-1]
        kept = [
            i
            for i in range(len(self.parameters))
            if any(Operand(Source.PARAMETER, i) in term.operands for term in terms)
        ]
        place = {old: new for new, old in enumerate(kept)}
        renumbered = tuple(
            Term(
                term.op,
                tuple(
                    Operand(o.source, place[o.index]) if o.source is Source.PARAMETER else o
                    for o in term.operands
                ),
            )
            for term in terms
        )
        chain = Chain(
            self.root,
            Expression(renumbered),
            tuple(self.parameters[i] for i in kept),
            tuple(self.names[i] for i in kept),
            self.nodes[:-1],
            self.channels,
        )
        own = [self.operand(o) for o in last.operands if o.source is Source.PARAMETER]
        return chain, tuple(own)

    def operand(self, operand: Operand) -> Array:
        """Return a parameter's value."""
        return self.parameters[operand.index]


def _varies(parameter: Array, channels: int) -> bool:
    return parameter.ndim > 0 and parameter.shape[0] == channels and channels > 1


def trace(graph: Graph, output: str, root: str, *, pixels: bool = False) -> Chain | None:
    """Return `output` as a chain over `root`, or None where it is not one.

    It is one if every path from `output` upward reaches `root` or a constant through elementwise
    operations alone, every constant is a scalar or one value a channel, and nothing broadcasts the
    root to a larger shape.

    Args:
        graph: where both are.
        output: what is computed.
        root: what it is computed from.
        pixels: whether constants may vary within a channel: each pixel of each channel, in C order,
            is a channel of the result.
    """
    shape = graph.types[root].shape
    channels = math.prod(shape[1 : None if pixels else 2])
    order: dict[str, Node] = {}
    if not _visit(graph, output, root, order) or not order:
        return None
    if graph.types[output].shape != shape:
        return None
    parameters: list[Array] = []
    names: list[str] = []
    indices = {name: i for i, name in enumerate(order)}
    terms: list[Term] = []
    for node in order.values():
        operands: list[Operand] = []
        for name in node.inputs:
            if name == root:
                operands.append(Operand(Source.VARIABLE, 0))
            elif name in indices:
                operands.append(Operand(Source.TERM, indices[name]))
            else:
                constant = graph.constants[name]
                parameter = _parameter(node, name, constant, shape)
                if pixels:
                    parameter = _at_pixels(constant, parameter, shape)
                if parameter is None:
                    return None
                if name not in names:
                    names.append(name)
                    parameters.append(parameter)
                operands.append(Operand(Source.PARAMETER, names.index(name)))
        if not isinstance(node.op, Elementwise):
            return None
        terms.append(Term(node.op, tuple(operands)))
    nodes = tuple(order.values())
    return Chain(root, Expression(tuple(terms)), tuple(parameters), tuple(names), nodes, channels)


def root_of(graph: Graph, name: str) -> str:
    """Return the farthest single tensor that `name` is an elementwise function of, or `name`.

    Where several activations meet on the way, it is the last tensor that they have in common: of
    Step(Add(layer, shortcut)) the sum.
    """
    return _roots(graph, name, lambda _: True)[-1]


def chains_to(graph: Graph, output: str) -> Iterator[Chain]:
    """Yield `output` as chains over its roots, from the farthest root that allows it inward."""
    shape = graph.types[output].shape
    for root in reversed(_roots(graph, output, lambda node: _is_link(graph, node, shape))[1:]):
        chain = trace(graph, output, root)
        if chain is not None:
            yield chain


def chain_to(graph: Graph, output: str) -> Chain | None:
    """Return `output` as a chain over the farthest root that allows it; None if nothing does."""
    return next(chains_to(graph, output), None)


def _roots(graph: Graph, name: str, admits: Callable[[Node], bool]) -> list[str]:
    """Return every single tensor that `name` is an elementwise function of, from `name` upward.

    The tensors still open are expanded into their operands, the latest first: an operand is
    reached only once all its readers are. Whenever one alone is open, it is a root. An open tensor
    that no admitted operation makes ends the climb: what lies above comes with it.
    """
    roots: list[str] = []
    open_ = {name}
    queue = [(-graph.positions.get(name, -1), name)]
    while queue:
        _, latest = heapq.heappop(queue)
        if not queue:
            roots.append(latest)
        node = graph.producers.get(latest)
        if node is None or not isinstance(node.op, Elementwise) or not admits(node):
            break
        for operand in graph.variables(node):
            if operand not in open_:
                open_.add(operand)
                heapq.heappush(queue, (-graph.positions.get(operand, -1), operand))
    return roots


def _is_link(graph: Graph, node: Node, shape: Sequence[int]) -> bool:
    """Whether the node can be a term of a chain over tensors of this shape."""
    if graph.variables(node) and graph.types[node.output].shape != tuple(shape):
        return False
    constants = [name for name in node.inputs if name in graph.constants]
    return all(_parameter(node, n, graph.constants[n], shape) is not None for n in constants)


def _parameter(node: Node, name: str, constant: Array, shape: Sequence[int]) -> Array | None:
    """Return a constant operand as it applies to each channel, a Step's as rows; else None."""
    op = node.op
    if isinstance(op, Elementwise) and node.inputs.index(name) in op.channel_operands:
        return constant if constant.ndim == 2 else per_channel(constant, shape[:2])
    return per_channel(constant, shape)


def _at_pixels(constant: Array, row: Array | None, shape: Sequence[int]) -> Array:
    """Return a constant operand as it applies to each pixel of each channel.

    Args:
        constant: the operand; it broadcasts to one sample, or the result were larger than the root.
        row: as it applies to each channel, [], [C] or [C or 1, T]; None if it varies within some.
        shape: of the tensors of the chain, [N, C, *S].
    """
    if row is None:
        return np.broadcast_to(constant, (1, *shape[1:])).reshape(-1)
    if row.ndim and len(row) == shape[1]:
        return np.repeat(row, math.prod(shape[2:]), axis=0)
    return row


def _visit(graph: Graph, name: str, root: str, order: dict[str, Node]) -> bool:
    """Collect, in order, the nodes between `root` and `name`; False if a path leads elsewhere."""
    stack = [(name, False)]
    while stack:
        current, operands_done = stack.pop()
        if current == root or current in graph.constants or current in order:
            continue
        node = graph.producers.get(current)
        if node is None or not isinstance(node.op, Elementwise):
            return False
        if operands_done:
            order[current] = node
            continue
        stack.append((current, True))
        stack.extend((operand, False) for operand in reversed(node.inputs))
    return True
