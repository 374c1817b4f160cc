"""What binary layers read: integers, and the affine map that gives their real values.

Two kinds of activations are integers. The levels of Steps, -1, (0,) +1 or on a grid: whatever only
moves or orders levels (MaxPool, Reshape, Transpose, Slice) moves bits as well, a Concat joins those
of several Steps, and of constants, if all of them lie on one grid, and a Pad with a level right
before a convolution is what that convolution's padding holds. And uint8 codes under an affine map,
the same for every element, however it is spelled and whatever moves elements in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Elementwise, Step
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Concat, Movement, Pad
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Window
from bnncc.passes.levels import Grid, element_for, grid_of, planes_of
from bnncc.passes.transplant import INTEGERS

__all__ = ["Operand", "Operands"]

_CODES = np.arange(256, dtype=np.uint8)

_Scale = tuple[Element, float, float]
"""Which integers stand for real values: their element, and the affine map."""
_BYTES: _Scale = (Element.U8, 1.0, 0.0)
"""Codes that stand for themselves, whatever the layer takes them for."""


@dataclass(frozen=True, eq=False)
class Operand:
    """What a layer reads: integers v with real value unit * v + offset, the same for each element.

    Attributes:
        name: the tensor of integers.
        window: how the layer slides over that tensor.
        pad: the integer that taps outside of the tensor hold; 0 also where there are none.
        unit, offset: the affine map, exact in double.
        border: whether taps outside hold a real 0 that no integer stands for: they count for
            nothing, neither `unit` times the integer, which is 0, nor `offset`.
        magnitudes: every |real value| an element can have.
        misfit: how far the model's float32 values lie from the affine map.
        origin: the source nodes that the affine map stands for.
        beside: another tensor of integers, whose own `pad` and `unit` count: what is read is the
            sum of both.
    """

    name: str
    window: Window
    pad: int
    unit: float = 1.0
    offset: float = 0.0
    border: bool = False
    magnitudes: Array = dataclasses.field(default_factory=lambda: np.ones(1))
    misfit: float = 0.0
    origin: tuple[str, ...] = ()
    beside: Operand | None = None


class Operands:
    """Finds the integers that layers can read, and makes the tensors that hold them, each once."""

    def __init__(self, rewrite: Rewrite, layers: Collection[str]) -> None:
        """Work on a graph of which `layers`, by name, have weights that bits can be summed by."""
        self._rewrite = rewrite
        self._graph = rewrite.graph
        self._layers = layers
        self._narrowed: set[str] = set()
        self._copies: dict[tuple[str, _Scale], str] = {}
        self._beside: dict[str, list[Node]] = {}  # the copies of a node

    def bits(self, layer: Node) -> Operand | None:
        """Return what a layer reads as integers if Steps make it; None if it is real.

        A Step whose levels are -1, (0,) +1 and that in the end only feeds binary layers changes its
        element in place; one with other readers, or of which a Concat holds others beside, gets a
        twin, as does what lies between it and the layer, so that those still find their float32.
        Levels on any other grid get one, whose integers stand for them.
        """
        x, window, pad = self._reads(layer)
        held = _levelled(self._graph, x)
        if held is None:
            return None
        element = element_for(held.levels)
        if element is Element.F32 or (element is Element.TERNARY and held.levels.min() == 0):
            return self._on_grid(layer)  # 0 and 1 take one plane as a code
        first = held.nodes[0]
        if held.is_chain and self._only_bits(first.output):
            self._narrow(first, element)
            return Operand(x, window, pad)
        return Operand(self._twin(held, None), window, pad)

    def _on_grid(self, layer: Node) -> Operand | None:
        """Return levels other than -1, (0,) +1 as integers, of a grid or of two planes of bits."""
        assert isinstance(layer.op, Conv)
        x, window = layer.inputs[0], layer.op.window
        held = _levelled(self._graph, x)  # with the Pad that a layer on bits takes as its own
        if held is None:
            return None
        grid = grid_of(held.levels)
        parts = (grid,) if grid else planes_of(held.levels) or ()
        ordered = all(part.codes == tuple(sorted(part.codes)) for part in parts)
        if not ordered and any(isinstance(node.op, MaxPool) for node in held.nodes):
            return None  # the larger of two levels need not have the larger bit in each plane
        padded = window.is_padded(self._graph.types[x].shape[2:])
        found = None
        for part in reversed(parts):
            found = Operand(
                self._twin(held, part),
                window,
                (part.zero or 0) if padded else 0,
                part.unit,
                part.offset,
                padded and part.zero is None,
                np.abs(np.asarray(part.values)),
                part.misfit,
                beside=found,
            )
        return found

    def _twin(self, held: _Levelled, grid: Grid | None) -> str:
        """Return what holds the integers of a tensor of levels, made of those of the Steps.

        Without a grid they are the levels themselves.
        """
        # Of -1 and +1 alone a Step gives bits, but not beside a 0 that is joined or put round them.
        element = grid.element if grid else element_for(held.levels)
        scale = (element, grid.unit, grid.offset) if grid else (element, 1.0, 0.0)
        names = {name: self._constant(name, scale, grid) for name in held.constants}
        for node in held.nodes:
            if (node.output, scale) not in self._copies:
                op, operands = self._of_integers(node, grid, names, element)
                self._copied(node, op, operands, scale)
            names[node.output] = self._copies[node.output, scale]
        return names[held.nodes[-1].output]

    def _of_integers(
        self, node: Node, grid: Grid | None, names: Mapping[str, str], element: Element
    ) -> tuple[Op, tuple[str, ...]]:
        """Return what computes a node's integers, and its operands; `names` has those it moves."""
        match node.op:
            case Step():
                return self._stepped(node, grid, element)
            case Concat():
                return node.op, tuple(names[name] for name in node.inputs)
            case Pad(value=value) if grid:
                level = float(grid.integers(np.asarray(value, np.float32)))
                return dataclasses.replace(node.op, value=level), (names[node.inputs[0]],)
            case _:
                return node.op, (names[node.inputs[0]], *node.inputs[1:])

    def _stepped(
        self, step: Node, grid: Grid | None, element: Element
    ) -> tuple[Op, tuple[str, ...]]:
        """Return the twin of a Step that gives integers, and its operands."""
        x, thresholds, levels = step.inputs
        held = self._graph.constants[levels]
        if grid is None:
            return Step(element), (x, thresholds, levels)
        integers = grid.integers(held)
        name = self._rewrite.constant(f"{levels}{INTEGERS}", integers, Element.F32)
        return Step(grid.element, grid.values, grid.codes), (x, thresholds, name)

    def _constant(self, name: str, scale: _Scale, grid: Grid | None) -> str:
        """Return a constant of levels as the integers that stand for them."""
        if (name, scale) not in self._copies:
            levels = self._graph.constants[name]
            integers = grid.integers(levels) if grid else levels
            held = self._rewrite.constant(f"{name}{INTEGERS}", integers, scale[0])
            self._copies[name, scale] = held
        return self._copies[name, scale]

    def codes(self, layer: Node) -> Operand | None:
        """Return what a layer reads as uint8 codes; None if it is just real."""
        assert isinstance(layer.op, Conv)
        x, window = layer.inputs[0], layer.op.window
        path = _path_from_codes(self._graph, x)
        if not path:
            return None
        real = _values_of_codes(self._graph, path)
        offset = real[0]
        unit = real[1] - real[0]
        if not np.array_equal(unit * _CODES + offset, real):
            unit = (real[255] - real[0]) / 255
        affine = unit * _CODES + offset
        misfit = float(np.abs(affine - real).max())
        if unit == 0 or misfit > 4 * UNIT_ROUNDOFF * np.abs(real).max():
            return None
        padded = window.is_padded(self._graph.types[x].shape[2:])
        zeros = np.flatnonzero((real == 0) & (affine == 0))
        pad = int(zeros[0]) if padded and zeros.size else 0
        border = padded and not zeros.size
        name = self._graph.variables(path[0])[0]
        for node in path:
            if not isinstance(node.op, Elementwise):
                name = self._copied(node, node.op, (name, *node.inputs[1:]), _BYTES)
        origin = tuple(name for node in path for name in node.origin)
        return Operand(name, window, pad, unit, offset, border, np.abs(real), misfit, origin)

    def _reads(self, layer: Node) -> tuple[str, Window, int]:
        """Return the tensor that bits come from, and how the layer slides over and pads it."""
        assert isinstance(layer.op, Conv)
        x = layer.inputs[0]
        pad = self._graph.producers.get(x)
        if pad is None or not _absorbs(self._graph, layer, pad):
            return x, layer.op.window, 0
        assert isinstance(pad.op, Pad)  # _absorbs asked
        sides = zip(layer.op.window.axes, pad.op.before[2:], pad.op.after[2:], strict=True)
        axes = (
            dataclasses.replace(axis, before=axis.before + before, after=axis.after + after)
            for axis, before, after in sides
        )
        return pad.inputs[0], Window(tuple(axes)), int(pad.op.value)

    def _only_bits(self, name: str) -> bool:
        """Whether everything that comes of a tensor of levels is sums of bits."""
        if name in self._graph.outputs:
            return False
        return all(self._takes_bits(reader) for reader in self._graph.consumers[name])

    def _takes_bits(self, reader: Node) -> bool:
        graph = self._graph
        if reader.name in self._layers:
            return True
        if isinstance(reader.op, Pad):
            layers = graph.consumers[reader.output]
            absorbed = [n.name in self._layers and _absorbs(graph, n, reader) for n in layers]
            return bool(absorbed) and all(absorbed) and reader.output not in graph.outputs
        return _moves_one(reader) and self._only_bits(reader.output)

    def _narrow(self, step: Node, element: Element) -> None:
        """Make a Step give bits, and let everything below it follow, up to the layers."""
        if step.name in self._narrowed:
            return
        self._narrowed.add(step.name)
        rewrite = self._rewrite
        rewrite.replace(step, [rewrite.node(Step(element), step.inputs, step.output, step.origin)])
        waiting = [step.output]
        while waiting:
            for reader in self._graph.consumers[waiting.pop()]:
                if isinstance(reader.op, Pad):
                    rewrite.replace(reader, [])  # part of the windows of all that read it
                elif reader.name not in self._layers:
                    # The node stays the same one; this records its result's new element.
                    rewrite.node(reader.op, reader.inputs, reader.output, reader.origin)
                    waiting.append(reader.output)

    def _copied(self, node: Node, op: Op, operands: Sequence[str], scale: _Scale) -> str:
        """Return what takes the place of a node's result, computed next to it, once a scale."""
        key = node.output, scale
        if key not in self._copies:
            rewrite = self._rewrite
            output = rewrite.fresh(f"{node.output}{INTEGERS if scale != _BYTES else '.codes'}")
            copies = self._beside.setdefault(node.name, [])
            copies.append(rewrite.node(op, operands, output, node.origin))
            rewrite.replace(node, [node, *copies])
            self._copies[key] = output
        return self._copies[key]


def _absorbs(graph: Graph, layer: Node, pad: Node) -> bool:
    """Whether a layer on bits can take a Pad as its own padding: levels, around images alone.

    A layer pads with one value; a Pad may lie around one that pads with 0 only if it is 0 as well.
    """
    if not isinstance(layer.op, Conv) or not isinstance(pad.op, Pad):
        return False
    sizes = graph.types[pad.output].shape[2:]
    before, after = pad.op.before, pad.op.after
    return (
        pad.op.value in (-1, 0, 1)
        and not (before[1] or after[1])
        and (pad.op.value == 0 or not layer.op.window.is_padded(sizes))
    )


def _moves_one(node: Node) -> bool:
    """Whether each element of a node's result is one of its first operand, chosen by order only."""
    return isinstance(node.op, MaxPool | Movement) and not isinstance(node.op, Pad | Concat)


@dataclass(frozen=True, eq=False)
class _Levelled:
    """A tensor of which every element is a level of a Step, a constant or what a Pad puts round it.

    Attributes:
        nodes: the Steps, and what moves, orders and joins their levels, in the graph's order.
        constants: those among the operands that are joined.
        levels: every value that an element can have.
    """

    nodes: tuple[Node, ...]
    constants: tuple[str, ...]
    levels: Array

    @property
    def is_chain(self) -> bool:
        """Whether it has the levels of a single Step, and nothing was put to them."""
        return all(_moves_one(node) for node in self.nodes[1:])


def _levelled(graph: Graph, x: str) -> _Levelled | None:
    """Return what makes a tensor out of levels, moved, ordered and joined; None if it is real."""
    found: dict[str, Node] = {}
    constants: dict[str, None] = {}
    values: list[Array] = []
    waiting = [x]
    while waiting:
        name = waiting.pop()
        node = graph.producers.get(name)
        if name in graph.constants:
            constants[name] = None
            values.append(graph.constants[name].reshape(-1))
            continue
        if node is None:
            return None
        if name in found:
            continue
        found[name] = node
        match node.op:
            case Step() if len(graph.types[name].shape) > 1:  # bits are packed along channels
                values.append(graph.constants[node.inputs[2]].reshape(-1))
            case Concat():
                waiting.extend(node.inputs)
            case Pad(value=value):
                values.append(np.array([value], np.float32))
                waiting.append(node.inputs[0])
            case MaxPool() | Movement():
                waiting.append(node.inputs[0])
            case _:
                return None
    nodes = sorted(found.values(), key=lambda node: graph.positions[node.output])
    return _Levelled(tuple(nodes), tuple(constants), np.concatenate(values))


def _path_from_codes(graph: Graph, x: str) -> list[Node]:
    """Return the nodes from a U8 tensor down to x, elementwise by scalars, or movements; or []."""
    path: list[Node] = []
    while graph.types[x].element is not Element.U8:
        node = graph.producers.get(x)
        if node is None or not _maps_codes(graph, node):
            return []
        path.append(node)
        (x,) = graph.variables(node)
    return path[::-1]


def _maps_codes(graph: Graph, node: Node) -> bool:
    """Whether a node maps each element of one tensor by itself, all alike, or only moves them."""
    if not isinstance(node.op, Elementwise):
        return isinstance(node.op, Movement) and not isinstance(node.op, Pad | Concat)
    variables = graph.variables(node)
    constants = [graph.constants[n] for n in node.inputs if graph.is_constant(n)]
    return (
        len(variables) == 1
        and all(c.size == 1 for c in constants)
        and graph.types[node.output].shape == graph.types[variables[0]].shape
    )


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
