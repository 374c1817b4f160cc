"""Keep images with their channels on axis 1, where layers want them, as long as possible.

Before: `%t = Transpose(0, 2, 3, 1)(%y); %s = Sign(%t); %p = Pad(%s, ...); %u = Transpose(0, 3, 1,
        2)(%p)` with %y made by a convolution
After:  `%s' = Sign(%y); %u = Pad(%s', ...)`, its widths in the order of %y's axes

Models that were written with channels last come with a Transpose in front of and behind whatever
their exporter has only with channels first. What lies between two of them would be kept from its
layer: an epilogue that does not fuse, a Pad that is not seen to be the padding of a convolution.
Here every Transpose of what a layer made moves down, past operations on single elements, Pad,
Slice, Concat and reductions, until it meets its inverse, or something that needs the axes as the
model has them: a Reshape, an output. A Transpose of anything else, such as an input, moves up, in
front of the operations on single elements that the model applies with channels last.

A Reshape that only moves axes of one element is a Transpose too, and a Transpose that moves no
element past another becomes a Reshape.

Exact: elements are moved, and computed from the same operands; constants move with their axes. A
sum moves only where it keeps its order. Pools and layers have their channels on axis 1 by
definition, so that nothing moves past them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import Reduction
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.order import Order
from bnncc.ir.types import Stage
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.transplant import REORDERED

__all__ = ["SINK_TRANSPOSES"]

_Perm = tuple[int, ...]

_LAYERS = (Conv, MaxPool, AveragePool)
"""What makes images of anything: their channels are on axis 1 by definition."""


@dataclass(frozen=True)
class _View:
    """A tensor of the model as another one with its axes in another order.

    Attributes:
        root: the tensor of the model whose axes they are; where the node that makes it moves, they
            are those of what the node makes then.
        perm: axis i is the root's axis perm[i].
        origin: the source nodes that have put the axes in this order.
    """

    root: str
    perm: _Perm
    origin: tuple[str, ...]

    @property
    def moves(self) -> bool:
        """Whether any axis has another place."""
        return self.perm != tuple(range(len(self.perm)))


def _apply(graph: Graph, _: Context) -> Outcome:
    orders: dict[str, Order] = {}
    while True:  # a Transpose that moved up may be the inverse that another one needs
        moved = _raised(_Sinking(graph, orders).run(), orders)
        if moved is graph:
            return Outcome(graph, orders=orders)
        graph = moved


def _note(orders: dict[str, Order], graph: Graph, name: str, moved: str, perm: _Perm) -> None:
    """Note that the tensor `moved` holds what `name` did, its axes permuted."""
    if moved != name:
        shape = graph.types[name].shape[1:]
        axes = [axis - 1 for axis in perm[1:]]
        orders[moved] = orders.get(name, Order()).then(shape, axes)


def _inverse(perm: _Perm) -> _Perm:
    return tuple(int(axis) for axis in np.argsort(perm))


def _keeps_order(shape: Sequence[int], perm: _Perm) -> bool:
    """Whether a tensor's elements stay in C order when its axes are permuted."""
    longer = [axis for axis in perm if shape[axis] > 1]
    return longer == sorted(longer)


def _permutation(graph: Graph, node: Node) -> _Perm | None:
    """Return how a node permutes the axes of its operand; None if it does anything else.

    A Reshape does if only axes of one element change places; those keep their order.
    """
    if isinstance(node.op, Transpose):
        return node.op.perm
    if not isinstance(node.op, Reshape):
        return None
    before, after = graph.types[node.inputs[0]].shape, node.op.shape
    if len(before) != len(after) or before == after:
        return None
    order = [axis for axis, size in enumerate(before) if size > 1]
    if [before[axis] for axis in order] != [size for size in after if size > 1]:
        return None
    longer = iter(order)
    single = iter([axis for axis, size in enumerate(before) if size == 1])
    return tuple(next(single if size == 1 else longer) for size in after)


def _moved_op(op: Op, perm: _Perm, shape: Sequence[int]) -> tuple[Op, _Perm] | None:
    """Return what an operation on a transposed tensor is on the tensor itself, or None.

    Args:
        op: of a node whose operands have their axes permuted.
        perm: axis i of the operands is axis perm[i] of what they are views of.
        shape: of the first operand.

    Returns:
        The operation, and how its result's axes are permuted.
    """
    at = _inverse(perm)
    match op:
        case Elementwise():
            return (op, perm) if not op.channel_operands or perm[1] == 1 else None
        case Pad():
            before, after = (tuple(w[axis] for axis in at) for w in (op.before, op.after))
            return Pad(before, after, op.value), perm
        case Slice():
            parts = (op.starts, op.sizes, op.steps)
            starts, sizes, steps = (tuple(part[axis] for axis in at) for part in parts)
            return Slice(starts, sizes, steps), perm
        case Concat():
            return Concat(perm[op.axis]), perm
        case Reduction():
            return _moved_reduction(op, perm, shape)
        case _:
            return None


def _moved_reduction(op: Reduction, perm: _Perm, shape: Sequence[int]) -> tuple[Op, _Perm] | None:
    """Return what reduces the same elements in the same order, or None."""

    def order(axes: Sequence[int]) -> list[int]:
        return [axis for axis in axes if axis != 1] + [1] * (1 in axes)

    axes = tuple(sorted(perm[axis] for axis in op.axes))
    was = [perm[axis] for axis in order(op.axes) if shape[axis] > 1]
    is_ = [axis for axis in order(axes) if shape[_inverse(perm)[axis]] > 1]
    if was != is_:
        return None
    moved = dataclasses.replace(op, axes=axes)
    if op.keepdims:
        return moved, perm
    left = [axis for axis in perm if axis not in axes]
    return moved, tuple(sorted(left).index(axis) for axis in left)


def _makes_image(graph: Graph, node: Node, images: Set[str]) -> bool:
    """Whether a node makes an image with its channels on axis 1: a layer, or of such images."""
    if isinstance(node.op, _LAYERS):
        return len(graph.types[node.output].shape) > 2
    match node.op:
        case Elementwise() | Pad() | Slice() | Concat() | Reduction(keepdims=True):
            return not images.isdisjoint(node.inputs)
        case _:
            return False


def _permuted_constant(rewrite: Rewrite, node: Node, place: int, at: _Perm) -> str:
    """Return a constant operand of a node that moves, its axes in the order `at`."""
    name = node.inputs[place]
    value = rewrite.value(name)
    rows = isinstance(node.op, Elementwise) and place in node.op.channel_operands
    if rows or (value.size == 1 and isinstance(node.op, Elementwise)):
        return name
    full = value.reshape((1,) * (len(at) - value.ndim) + value.shape)
    moved = np.ascontiguousarray(full.transpose(at))
    return rewrite.constant(f"{name}{REORDERED}", moved, rewrite.type_of(name).element)


# --- Down -----------------------------------------------------------------------------------------


class _Sinking:
    """One walk down a graph: what moves, and then what it becomes."""

    def __init__(self, graph: Graph, orders: dict[str, Order]) -> None:
        self._graph = graph
        self._orders = orders  # where to note those of what moves
        self._rewrite = Rewrite(graph)
        self._images: set[str] = set()
        self._views: dict[str, _View] = {}
        self._ops: dict[str, Op] = {}  # of the nodes that move, by their results in the model
        self._moved: dict[str, str] = {}  # what those results are called then

    def run(self) -> Graph:
        """Return the graph with its Transposes moved down, or itself."""
        for node in self._graph.nodes:
            self._look_at(node)
        for name in self._ops:
            self._moved[name] = moved = self._name_of(name)
            if moved not in self._graph.types:
                at = _inverse(self._views[name].perm)
                _note(self._orders, self._graph, name, moved, at)
        for node in self._graph.nodes:
            new = self._rewritten(node)
            if new != [node]:
                self._rewrite.replace(node, new)
        return self._rewrite.finish()

    def _look_at(self, node: Node) -> None:
        """Note whether the node permutes axes, moves, or makes an image that others may permute."""
        graph, x = self._graph, node.inputs[0]
        perm = _permutation(graph, node)
        if perm is not None:
            self._permute(node, perm)
            return
        lead = self._lead(node)
        if lead is None or isinstance(node.op, _LAYERS):
            if _makes_image(graph, node, self._images):
                self._images.update(node.outputs)
            return
        moved = _moved_op(node.op, lead.perm, graph.types[x].shape)
        if moved and all(self._fits(name, lead.perm) for name in graph.variables(node)):
            self._ops[node.output], after = moved
            self._views[node.output] = _View(node.output, after, lead.origin)

    def _permute(self, node: Node, perm: _Perm) -> None:
        """Note a node that permutes the axes of an image, or of a view of one."""
        x = node.inputs[0]
        view = self._views.get(x)
        if view is None and x in self._images:
            view = _View(x, tuple(range(len(perm))), ())
        if view is not None:
            composed = tuple(view.perm[axis] for axis in perm)
            found = _View(view.root, composed, (*view.origin, *node.origin))
            self._views[node.output] = found
            if not found.moves:
                self._images.add(node.output)

    def _lead(self, node: Node) -> _View | None:
        """Return the first operand whose axes have other places than those of an image."""
        views = (self._views.get(name) for name in node.inputs)
        return next((view for view in views if view is not None and view.moves), None)

    def _fits(self, name: str, perm: _Perm) -> bool:
        """Whether a variable is to be had, for nothing, without its axes permuted by perm."""
        view = self._views.get(name)
        if view is not None and view.moves:
            return view.perm == perm
        shape = self._graph.types[name].shape
        # Of two images whose axes differ, either could follow the other, back and forth for ever.
        free = _keeps_order(shape, _inverse(perm)) and name not in self._images
        return len(shape) == len(perm) and (free or bool(self._transposed(name, perm)))

    def _transposed(self, name: str, perm: _Perm) -> str:
        """Return a tensor of the graph of which `name` is a Transpose by perm, or ""."""
        inverse = Transpose(_inverse(perm))
        readers = self._graph.consumers[name]
        found = (r.output for r in readers if r.op == inverse and r.output not in self._views)
        return next(found, "")

    def _name_of(self, name: str) -> str:
        """Return what to call the result of a node that moves: as the model does, if it has it."""
        same = (n for n, view in self._views.items() if view.root == name and not view.moves)
        return next(same, "") or self._rewrite.fresh(f"{name}{REORDERED}")

    def _root(self, view: _View) -> str:
        return self._moved.get(view.root, view.root)

    def _rewritten(self, node: Node) -> list[Node]:
        """Return what takes the place of a node."""
        name = node.outputs[0]
        if name not in self._views:
            return [self._reshaped(node)] if isinstance(node.op, Reshape) else [node]
        view = self._views[name]
        root = self._root(view)
        new = self._computed(node) if name in self._ops else []
        if root == name:
            return new
        if not view.moves and name not in self._graph.outputs:
            self._rewrite.bypass(node, root)
        elif self._is_needed(name):
            new.append(self._permuted(name, view, root))
        return new

    def _is_needed(self, name: str) -> bool:
        """Whether anything reads a view with its axes where the model has them."""
        readers = self._graph.consumers[name]
        free = self._keeps_order(name)
        return name in self._graph.outputs or any(
            r.outputs[0] not in self._views and not (free and isinstance(r.op, Reshape))
            for r in readers
        )

    def _keeps_order(self, name: str) -> bool:
        """Whether a view holds the elements of its root in the same order."""
        return _keeps_order(self._graph.types[name].shape, _inverse(self._views[name].perm))

    def _permuted(self, name: str, view: _View, root: str) -> Node:
        """Return the node that makes a view."""
        shape = self._graph.types[name].shape
        op = Reshape(shape) if self._keeps_order(name) else Transpose(view.perm)
        return self._rewrite.node(op, (root,), name, view.origin)

    def _reshaped(self, node: Node) -> Node:
        """Return a Reshape as one of what its operand is a view of, if the order is the same."""
        view = self._views.get(node.inputs[0])
        if view is None or not view.moves or not self._keeps_order(node.inputs[0]):
            return node
        return self._rewrite.node(
            node.op, (self._root(view),), node.output, (*view.origin, *node.origin)
        )

    def _computed(self, node: Node) -> list[Node]:
        """Return a node that moves, on what its operands are views of, behind what that needs."""
        lead = self._lead(node)
        assert lead is not None  # or it would not move
        at = _inverse(lead.perm)
        new: list[Node] = []
        inputs: list[str] = []
        for place, name in enumerate(node.inputs):
            view = self._views.get(name)
            if self._graph.is_constant(name):
                inputs.append(_permuted_constant(self._rewrite, node, place, at))
            elif view is not None and view.moves:
                inputs.append(self._root(view))
            elif found := self._transposed(name, lead.perm):
                inputs.append(found)
            else:
                shape = self._graph.types[name].shape
                flat = Reshape(tuple(shape[axis] for axis in at))
                root = self._root(view) if view else name
                inputs.append(self._rewrite.fresh(f"{name}{REORDERED}"))
                new.append(self._rewrite.node(flat, (root,), inputs[-1], lead.origin))
        moved = self._moved[node.output]
        return [*new, self._rewrite.node(self._ops[node.output], inputs, moved, node.origin)]


# --- Up -------------------------------------------------------------------------------------------


def _raised(graph: Graph, orders: dict[str, Order]) -> Graph:
    """Return the graph with Transposes of what no layer made in front of elementwise operations."""
    rewrite = Rewrite(graph)
    images: set[str] = set()
    for node in graph.nodes:
        if _permutation(graph, node) is None and _makes_image(graph, node, images):
            images.update(node.outputs)
    for node in graph.nodes:
        if not isinstance(node.op, Transpose) or node.inputs[0] in images:
            continue
        perm = node.op.perm
        passed = _passed(graph, node.inputs[0], _inverse(perm))
        if passed and not _keeps_order(graph.types[node.inputs[0]].shape, perm):
            _raise(rewrite, node, passed, orders)
    return rewrite.finish()


def _passed(graph: Graph, name: str, perm: _Perm) -> list[tuple[Node, Op]]:
    """Return the nodes above a tensor that only a Transpose reads, and what they are above it.

    In the order of the graph; those are operations whose operands are permuted by perm.
    """
    passed: list[tuple[Node, Op]] = []
    while len(graph.consumers[name]) == 1 and name not in graph.outputs:
        node = graph.producers.get(name)
        if node is None or not isinstance(node.op, Elementwise | Pad | Slice):
            break
        variables = graph.variables(node)
        moved = _moved_op(node.op, perm, graph.types[node.inputs[0]].shape)
        if moved is None or len(variables) != 1:
            break
        (name,) = variables
        if len(graph.types[name].shape) != len(perm):
            break
        passed.insert(0, (node, moved[0]))
    return passed


def _raise(
    rewrite: Rewrite, node: Node, passed: Sequence[tuple[Node, Op]], orders: dict[str, Order]
) -> None:
    """Put a Transpose in front of the nodes above it."""
    graph = rewrite.graph
    assert isinstance(node.op, Transpose)  # that is what moves up
    perm = node.op.perm
    first, _ = passed[0]
    (root,) = graph.variables(first)
    last = rewrite.fresh(f"{root}{REORDERED}")
    new = [rewrite.node(node.op, (root,), last, node.origin)]
    for old, op in passed:
        inputs = [
            _permuted_constant(rewrite, old, place, perm) if graph.is_constant(name) else last
            for place, name in enumerate(old.inputs)
        ]
        # Where nobody asks for the Transpose by name, its result is named after what it holds.
        named = old is passed[-1][0] and node.output in graph.outputs
        last = node.output if named else rewrite.fresh(f"{old.output}{REORDERED}")
        if not named:
            _note(orders, graph, old.output, last, perm)
        new.append(rewrite.node(op, inputs, last, old.origin))
        rewrite.replace(old, ())
    if last != node.output:
        rewrite.bypass(node, last)
    rewrite.replace(node, new)


SINK_TRANSPOSES = Pass("sink_transposes", _apply, requires=Stage.FLOAT)
