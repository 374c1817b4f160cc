"""The graph: immutable, topologically ordered, single assignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from bnncc.ir.ops.base import Op
from bnncc.ir.types import Array, Element, Stage, TensorType

__all__ = ["Graph", "GraphBuilder", "Node", "Rewrite", "frozen_array"]


def frozen_array(array: Array) -> Array:
    """Return a read-only view of `array`, or itself where it is read-only already."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Node:
    """One operation at work: `inputs` and `outputs` name tensors.

    `origin` names the source model's nodes that this one computes; it survives every pass, so that
    messages, comments in the C and profile rows speak the user's language.
    """

    op: Op
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: tuple[str, ...]

    @property
    def output(self) -> str:
        """The only output's name."""
        (output,) = self.outputs
        return output


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order, the type of every tensor, and read-only constants.

    Two graphs are the same only if they are the same object: a pass that matches nothing returns
    the graph it was given.
    """

    name: str
    stage: Stage
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes each tensor; inputs and constants have none."""
        return MappingProxyType({name: node for node in self.nodes for name in node.outputs})

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place in `nodes` of the node that computes each tensor."""
        return MappingProxyType(
            {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        )

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each tensor, in order, each once."""
        found: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in found.items()})

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is a constant."""
        return name in self.constants

    def variables(self, node: Node) -> tuple[str, ...]:
        """The node's inputs that are not constants, each once."""
        return tuple(n for n in dict.fromkeys(node.inputs) if n not in self.constants)


@dataclass
class GraphBuilder:
    """Collects nodes and constants, infers types, and freezes them into a `Graph`."""

    name: str
    stage: Stage = Stage.FLOAT
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def input(self, name: str, kind: TensorType) -> str:
        """Declare a graph input and return its name."""
        self.types[name] = kind
        self.inputs.append(name)
        return name

    def constant(self, name: str, array: Array, element: Element) -> str:
        """Add a dense constant under a name not taken yet, and return that name."""
        unique = _unused(name, self.types)
        self.constants[unique] = frozen_array(array.astype(element.dtype, copy=False))
        self.types[unique] = TensorType(array.shape, element)
        return unique

    def node(self, op: Op, inputs: Sequence[str], output: str, origin: Sequence[str] = ()) -> str:
        """Append a node with one result called `output`, and return that name.

        Raises:
            OpError: the operands do not fit the operation.
        """
        (kind,) = op.infer([self.types[name] for name in inputs])
        self.types[output] = kind
        self.nodes.append(Node(op, output, tuple(inputs), (output,), tuple(origin) or (output,)))
        return output

    def results(
        self, op: Op, inputs: Sequence[str], outputs: Sequence[str], origin: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Append a node with a result for each name of `outputs`, and return those names.

        The node is called as its first result.

        Raises:
            OpError: the operands do not fit the operation.
        """
        names = tuple(outputs)
        kinds = op.infer([self.types[name] for name in inputs])
        self.types.update(zip(names, kinds, strict=True))
        self.nodes.append(Node(op, names[0], tuple(inputs), names, tuple(origin) or names[:1]))
        return names

    def build(self, outputs: Sequence[str]) -> Graph:
        """Return the finished graph; constants that nothing reads are left out."""
        return _assemble(
            Graph(
                self.name,
                self.stage,
                tuple(self.nodes),
                self.types,
                self.constants,
                tuple(self.inputs),
                tuple(outputs),
            )
        )


class Rewrite:
    """One pass's changes to a graph: nodes replaced, constants added, everything else shared."""

    def __init__(self, graph: Graph) -> None:
        """Start from `graph`, which is never modified."""
        self.graph = graph
        self._types = dict(graph.types)
        self._constants = dict(graph.constants)
        self._replaced: dict[str, tuple[Node, ...]] = {}
        self._aliases: dict[str, str] = {}

    def fresh(self, hint: str) -> str:
        """Reserve and return a tensor name not taken yet that starts with `hint`."""
        return _unused(hint, self._types)

    def type_of(self, name: str) -> TensorType:
        """Return the type of a tensor of the graph, or of one added by this rewrite."""
        return self._types[name]

    def value(self, name: str) -> Array:
        """Return a constant of the graph, or one added by this rewrite."""
        return self._constants[name]

    def constant(self, hint: str, array: Array, kind: TensorType | Element) -> str:
        """Add a constant (dense if only an element is given) and return its name."""
        if isinstance(kind, Element):
            kind = TensorType(array.shape, kind)
            array = array.astype(kind.element.dtype, copy=False)
        name = self.fresh(hint)
        self._constants[name] = frozen_array(array)
        self._types[name] = kind
        return name

    def node(self, op: Op, inputs: Sequence[str], output: str, origin: Iterable[str]) -> Node:
        """Return a new node with one result, and record the result's type."""
        return self.results(op, inputs, (output,), origin)

    def results(
        self, op: Op, inputs: Sequence[str], outputs: Sequence[str], origin: Iterable[str]
    ) -> Node:
        """Return a new node with a result for each name of `outputs`, called as the first."""
        kinds = op.infer([self._types[name] for name in inputs])
        self._types.update(zip(outputs, kinds, strict=True))
        names = tuple(dict.fromkeys(origin))
        return Node(op, outputs[0], tuple(inputs), tuple(outputs), names)

    def replace(self, old: Node, new: Sequence[Node]) -> None:
        """Put `new` (possibly nothing) in the place of `old`."""
        self._replaced[old.name] = tuple(new)

    def bypass(self, node: Node, name: str) -> None:
        """Remove `node`, whose one result equals the tensor `name`; its readers read that."""
        self._replaced[node.name] = ()
        self._aliases[node.output] = name

    def fix(self, node: Node, value: Array) -> None:
        """Remove `node`, whose one result is always `value`, and make that a constant."""
        self._replaced[node.name] = ()
        self._constants[node.output] = frozen_array(value)

    def finish(self) -> Graph:
        """Return the rewritten graph, or the original object if nothing was replaced."""
        if not self._replaced:
            return self.graph
        nodes = [
            self._renamed(new)
            for node in self.graph.nodes
            for new in self._replaced.get(node.name, (node,))
        ]
        return _assemble(
            Graph(
                self.graph.name,
                self.graph.stage,
                _ordered(nodes),
                self._types,
                self._constants,
                self.graph.inputs,
                self.graph.outputs,
            )
        )

    def _resolved(self, name: str) -> str:
        """Return the tensor that stands for `name` once all bypassed nodes are gone."""
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def _renamed(self, node: Node) -> Node:
        """Return the node with inputs that were bypassed replaced; itself if there are none."""
        if self._aliases.keys().isdisjoint(node.inputs):
            return node
        inputs = tuple(map(self._resolved, node.inputs))
        return Node(node.op, node.name, inputs, node.outputs, node.origin)


def _unused(hint: str, taken: Mapping[str, object]) -> str:
    if hint not in taken:
        return hint
    suffix = 1
    while f"{hint}.{suffix}" in taken:
        suffix += 1
    return f"{hint}.{suffix}"


def _ordered(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return `nodes` in topological order, keeping the given order where it allows."""
    made_here = {name for node in nodes for name in node.outputs}
    ready: set[str] = set()
    ordered: list[Node] = []
    waiting = list(nodes)
    while waiting:
        blocked: list[Node] = []
        for node in waiting:
            if all(name in ready or name not in made_here for name in node.inputs):
                ordered.append(node)
                ready.update(node.outputs)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            raise ValueError(f"nodes form a cycle: {[node.name for node in blocked]}")
        waiting = blocked
    return tuple(ordered)


def _assemble(draft: Graph) -> Graph:
    """Return the draft with every type inferred anew, without constants nothing reads, read-only.

    A rewritten node may give its result another element, layout or interval; what hangs below it
    follows here.
    """
    used = {name for node in draft.nodes for name in node.inputs}
    used.update(draft.inputs, draft.outputs)
    constants = {name: array for name, array in draft.constants.items() if name in used}
    types = {name: draft.types[name] for name in (*draft.inputs, *constants)}
    for node in draft.nodes:
        inferred = node.op.infer([types[name] for name in node.inputs])
        types.update(zip(node.outputs, inferred, strict=True))
    return Graph(
        draft.name,
        draft.stage,
        draft.nodes,
        MappingProxyType(types),
        MappingProxyType(constants),
        draft.inputs,
        draft.outputs,
    )
