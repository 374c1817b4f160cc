"""Elementwise chains as values: the computation between a linear layer and what it feeds.

An `Expression` is a small program of elementwise operations. It serves three masters: the threshold
finder runs it over whole domains, the analyses ask it for direction and rounding, and a fused
kernel carries it as its epilogue.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.types import Array

__all__ = ["Chain", "Expression", "Operand", "Source", "Term", "per_channel", "root_of", "trace"]


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

    A constant that varies along any other axis has no such form.
    """
    if constant.size == 1:
        return constant.reshape(())
    missing = len(shape) - constant.ndim
    if missing < 0:
        return None
    aligned = (*(1,) * missing, *constant.shape)
    return constant.reshape(-1) if aligned[1] == shape[1] == constant.size else None


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


def trace(graph: Graph, output: str, root: str) -> Chain | None:
    """Return `output` as a chain over `root`, or None where it is not one.

    It is one if every path from `output` upward reaches `root` or a constant through elementwise
    operations alone, every constant is a scalar or one value a channel, and nothing broadcasts the
    root to a larger shape.
    """
    shape = graph.types[root].shape
    channels = shape[1] if len(shape) > 1 else 1
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
                parameter = _parameter(node, name, graph.constants[name], shape)
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


def root_of(graph: Graph, name: str) -> str | None:
    """Return the one tensor that `name` is an elementwise function of, itself if made otherwise.

    None where several activations meet on the way.
    """
    roots: set[str] = set()
    seen = {name}
    stack = [name]
    while stack:
        current = stack.pop()
        node = graph.producers.get(current)
        if node is None or not isinstance(node.op, Elementwise):
            roots.add(current)
            continue
        fresh = [v for v in graph.variables(node) if v not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return roots.pop() if len(roots) == 1 else None


def _parameter(node: Node, name: str, constant: Array, shape: Sequence[int]) -> Array | None:
    """Return a constant operand as it applies to each channel, a Step's as rows; else None."""
    op = node.op
    if isinstance(op, Elementwise) and node.inputs.index(name) in op.channel_operands:
        return constant if constant.ndim == 2 else per_channel(constant, shape[:2])
    return per_channel(constant, shape)


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
