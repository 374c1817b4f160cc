"""Lower to kernels: fuse every layer with what follows it, choose a kernel, pack its weights.

Before: `%n = BinaryConv(%x, %W); %y = Step(%n, t, v)`
After:  `%y = XnorConv(%x, packed weights, limits)`, with %x and %y in PackedChannels

Before: `%n = BinaryConv(%x, %W); %v = Dequantize(%n, ...); %r = Add(%v, %s); %y = Step(%r)`
After:  `%r, %y = XnorConv(%x, packed weights, K, %s)`, the expression {Dequantize; Add} being its
        epilogue, %s the shortcut that it adds; %r is stored as numbers, %y as bits, in one pass

and so on for sums over reals (SignSum), real weights (RealConv), pools, and chains that follow no
layer (Map). A tensor is stored if another kernel or the interface reads it; everything else lives
in registers. Images are kept with channels last; where the interface has them otherwise, a Move
changes that. Bits that only move do so where a kernel reads them, by all movements on the way at
once, as words if channels stay channels (GatherBits). Exact: an epilogue is the chain's own
operations; n >= t iff the mismatches are <= floor((base - t) / factor); a Step with several
thresholds is the parity of comparisons.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnncc.errors import Diagnostic, UnsupportedModelError, printable
from bnncc.ir.expression import Expression, Operand, Source, Term, per_channel
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.kernels import (
    Epilogue,
    Fused,
    GatherBits,
    Map,
    Move,
    PackPlanes,
    Pool,
    PoolBits,
    RealConv,
    SignSum,
    Store,
    SumUnderWindow,
    XnorConv,
)
from bnncc.ir.ops.linear import BinaryConv, Conv, WindowSum
from bnncc.ir.ops.pool import MaxPool, Pooling
from bnncc.ir.ops.reduce import Reduction
from bnncc.ir.ops.shape import Movement, Reshape
from bnncc.ir.storage import encode, pack_bits, plane_count
from bnncc.ir.types import (
    DENSE,
    Array,
    Element,
    Layout,
    PackedChannels,
    Stage,
    TensorType,
    real_layout,
)
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.fusion import Group, ends_in_bits, fused_groups, is_bits
from bnncc.passes.gathers import Gathering, gathering
from bnncc.passes.packing import (
    accumulator_base,
    mismatch_limits,
    narrowest,
    packed_taps,
    parts_of,
    plane_thresholds,
    skips_taps,
    tap_major,
    tiled,
    weight_planes,
    zero_weights,
)
from bnncc.targets import Kernel, Target, select

__all__ = ["LOWER_KERNELS"]

_WORDS = {8: Element.WORD8, 32: Element.WORD32, 64: Element.WORD64}


def _apply(graph: Graph, context: Context) -> Outcome:
    groups = {group.position: group for group in fused_groups(graph)}
    lowering = _Lowering(Rewrite(graph), context.target)
    for i, node in enumerate(graph.nodes):
        if i in groups:
            lowering.rewrite.replace(node, lowering.kernel(groups[i]))
        elif isinstance(node.op, (Elementwise, Conv, BinaryConv, WindowSum)):
            lowering.rewrite.replace(node, ())
        elif isinstance(node.op, (Movement, MaxPool)):
            lowering.rewrite.replace(node, lowering.moved(node))
        elif isinstance(node.op, Reduction):
            lowering.rewrite.replace(node, lowering.dropped(node, node.op))
    if lowering.problems:
        raise UnsupportedModelError.of(lowering.problems)
    return Outcome(lowering.rewrite.finish())


class _Lowering:
    """Turns groups into kernel nodes, for one graph and target."""

    def __init__(self, rewrite: Rewrite, target: Target) -> None:
        self.rewrite = rewrite
        self.graph = rewrite.graph
        self.target = target
        self.problems: list[Diagnostic] = []
        self._held: dict[tuple[str, Layout], str] = {}
        self._new: list[Node] = []

    # --- Where tensors are held --------------------------------------------------------------

    def _layout(self, name: str) -> Layout:
        """Return the layout in which kernels hold a tensor of the graph."""
        kind = self.graph.types[name]
        if is_bits(kind.element):
            return PackedChannels(self.target.word_bits, plane_count(kind.element))
        return real_layout(kind.shape)

    def _target_name(self, name: str) -> str:
        """Return the name for a stored result; it is new if the caller gets another layout."""
        layout = self._layout(name)
        if name not in self.graph.outputs or layout == DENSE:
            self._held[name, layout] = name
            return name
        return self._held.setdefault((name, layout), self.rewrite.fresh(f"{name}.channels_last"))

    def _held_in(self, name: str, layout: Layout, origin: tuple[str, ...]) -> str:
        """Return the tensor that holds `name` in a layout, moving it there if none does."""
        if (name, layout) not in self._held:
            self._held[name, layout] = self._converted(name, layout, origin)
        return self._held[name, layout]

    def _converted(self, name: str, layout: Layout, origin: tuple[str, ...]) -> str:
        kind = self.graph.types[name]
        if name in self.graph.constants:
            to = TensorType(kind.shape, kind.element, layout)
            if layout == DENSE:
                return name
            value = encode(self.graph.constants[name], to)
            return self.rewrite.constant(f"{name}.channels_last", value, to)
        own = self._layout(name)
        moved = self._moves_bits(name)
        if moved and isinstance(layout, PackedChannels):
            return self._gathered(moved, layout)
        source = self._held_in(name, own, origin) if moved else self._held.get((name, own), name)
        given = self.rewrite.type_of(source)
        if given.layout == layout:
            return source
        if given.element is Element.U8 and isinstance(layout, PackedChannels) and layout.planes:
            return self._planes(name, layout, origin)
        return self._in_layout(source, layout, f"{name}.{layout}", origin)

    def _in_layout(self, name: str, layout: Layout, hint: str, origin: tuple[str, ...]) -> str:
        """Return the same elements as a tensor of the rewritten graph in another layout."""
        kind = self.rewrite.type_of(name)
        op: Move | GatherBits = Move(None, (kind,), layout)
        if isinstance(layout, PackedChannels) and isinstance(kind.layout, PackedChannels):
            channels = tuple((0, k) for k in range(kind.shape[1]))
            op = GatherBits((kind,), channels, None, layout)
        return self._append(op, (name,), hint, origin)

    def _moves_bits(self, name: str) -> Node | None:
        """Return the node that makes bits by moving them, which is done where they are read."""
        node = self.graph.producers.get(name)
        moves = node is not None and isinstance(node.op, Movement)
        return node if moves and is_bits(self.graph.types[name].element) else None

    def _gathered(self, node: Node, layout: PackedChannels) -> str:
        """Return moved bits in a layout: by all movements at once, by this one, or bit by bit."""
        held = {name for name, kept in self._held if kept == self._layout(name)}
        found = gathering(self.graph, node.output, held)
        found = found or gathering(self.graph, node.output, self.graph.types)
        if found is not None and found.is_identity(self.graph):
            return self._held_in(found.sources[0], layout, node.origin)
        own = self._layout(node.output)
        if layout == own:
            name = self._target_name(node.output)
        elif found is None:
            packed = self._held_in(node.output, own, node.origin)
            return self._in_layout(packed, layout, f"{node.output}.{layout}", node.origin)
        else:
            name = self.rewrite.fresh(f"{node.output}.{layout}")
        sources = node.inputs if found is None else found.sources
        names = tuple(self._held_in(n, self._layout(n), node.origin) for n in sources)
        kinds = tuple(map(self.rewrite.type_of, names))
        assert isinstance(node.op, Movement)  # the caller asked
        if found is None:
            op: Move | GatherBits = Move(node.op, kinds, layout)
        else:
            op = GatherBits(kinds, found.channels, found.places, layout)
        self._new.append(self.rewrite.node(op, names, name, _origin(node, found)))
        return name

    def _planes(self, name: str, layout: PackedChannels, origin: tuple[str, ...]) -> str:
        """Return the bitplanes of uint8 codes."""
        numbers = self._held_in(name, real_layout(self.graph.types[name].shape), origin)
        op = PackPlanes(layout.word_bits)
        packed = self._append(op, (numbers,), f"{name}.planes", origin)
        if layout.groups == 1:
            return packed
        return self._in_layout(packed, layout, f"{name}.grouped", origin)

    def _append(
        self,
        op: Move | GatherBits | PackPlanes | Pool,
        inputs: tuple[str, ...],
        hint: str,
        origin: tuple[str, ...],
    ) -> str:
        node = self.rewrite.node(op, inputs, self.rewrite.fresh(hint), origin)
        self._new.append(node)
        return node.output

    def _interface(self, name: str, origin: tuple[str, ...]) -> None:
        """Append what gives the caller a result in C order, if a kernel stored it otherwise."""
        held = self._held[name, self._layout(name)]
        if held != name:
            kind = self.rewrite.type_of(held)
            node = self.rewrite.node(Move(None, (kind,), DENSE), (held,), name, origin)
            self._new.append(node)

    def _taken(self) -> list[Node]:
        new, self._new = self._new, []
        return new

    # --- Kernels -----------------------------------------------------------------------------

    def moved(self, node: Node) -> list[Node]:
        """Return the nodes for one that moves elements or pools bits."""
        x = node.inputs[0]
        layout = self._layout(node.output)
        if isinstance(node.op, MaxPool) and is_bits(self.graph.types[x].element):
            self._append_pool(node, node.op)
        elif isinstance(node.op, MaxPool):
            return [node]
        elif self._moves_bits(node.output):
            if node.output in self.graph.outputs:
                self._held_in(node.output, layout, node.origin)
        else:
            assert isinstance(node.op, Movement)  # _apply asked
            names = tuple(self._held_in(n, self._layout(n), node.origin) for n in node.inputs)
            kinds = tuple(map(self.rewrite.type_of, names))
            target = self._target_name(node.output)
            op = Move(node.op, kinds, layout)
            self._new.append(self.rewrite.node(op, names, target, node.origin))
        if node.output in self.graph.outputs:
            self._interface(node.output, node.origin)
        return self._taken()

    def dropped(self, node: Node, op: Reduction) -> list[Node]:
        """Return the nodes for a reduction that drops the channels: one that keeps them, moved."""
        store = Store(Operand(Source.VARIABLE, 0), Element.F32)
        pool = Pool(Epilogue(Expression(()), 0, 0, (store,)), replace(op, keepdims=True))
        x = self._numbers(node.inputs[0], node.origin)
        kept = self._append(pool, (x,), f"{node.output}.kept", node.origin)
        kind = self.graph.types[node.output]
        move = Move(Reshape(kind.shape), (self.rewrite.type_of(kept),), self._layout(node.output))
        target = self._target_name(node.output)
        self._new.append(self.rewrite.node(move, (kept,), target, node.origin))
        if node.output in self.graph.outputs:
            self._interface(node.output, node.origin)
        return self._taken()

    def _append_pool(self, node: Node, op: MaxPool) -> None:
        x, *direction = node.inputs
        layout = self._layout(x)
        assert isinstance(layout, PackedChannels)  # the caller asked
        inputs = [self._held_in(x, layout, node.origin)]
        if direction:
            falls = self.graph.constants[direction[0]] < 0
            words = pack_bits(falls, layout.word_bits)
            element = _WORDS[layout.word_bits]
            inputs.append(self.rewrite.constant(f"{node.output}.falling", words, element))
        target = self._target_name(node.output)
        codes = bool(self.graph.types[x].element.code_bits)
        self._new.append(self.rewrite.node(PoolBits(op.window, codes), inputs, target, node.origin))

    def kernel(self, group: Group) -> list[Node]:
        """Return the nodes that compute a group's results."""
        try:
            self._append_kernel(group, _Fusing(self, group))
        except _NoKernelError as problem:
            self.problems.append(problem.diagnostic)
            return []
        for name in group.stored:
            if name in self.graph.outputs:
                self._interface(name, group.origin)
        return self._taken()

    def _append_kernel(self, group: Group, fusing: _Fusing) -> None:
        anchor = group.anchor
        if anchor is None:
            self._append_fused(group, Map(fusing.epilogue()), [fusing.first], fusing)
            return
        match anchor.op:
            case Conv():
                self._real(group, anchor, anchor.op, fusing)
            case BinaryConv():
                if self.graph.types[anchor.inputs[0]].element is Element.F32:
                    self._sign_sum(group, anchor, anchor.op, fusing)
                else:
                    self._xnor(group, anchor, anchor.op, fusing)
            case WindowSum() as op:
                self._window_sum(group, anchor, op, fusing)
            case Pooling() as op:
                x = self._numbers(anchor.inputs[0], group.origin)
                self._append_fused(group, Pool(fusing.epilogue(), op), [x], fusing)

    def _numbers(self, name: str, origin: tuple[str, ...]) -> str:
        return self._held_in(name, real_layout(self.graph.types[name].shape), origin)

    def _append_fused(
        self,
        group: Group,
        op: Fused,
        own: list[str],
        fusing: _Fusing,
    ) -> None:
        outputs = [self._target_name(name) for name in group.stored]
        inputs = [*own, *fusing.operands()]
        self._new.append(self.rewrite.results(op, inputs, outputs, group.origin))

    def _real(self, group: Group, anchor: Node, conv: Conv, fusing: _Fusing) -> None:
        weights = self.graph.constants[anchor.inputs[1]]
        channels, depth = weights.shape[:2]
        grouped = conv.groups > 1
        kernel = select("real_sum", channels // conv.groups, self.target, grouped=grouped).kernel
        rows = tap_major(weights).reshape(channels, -1)
        tiles = np.ascontiguousarray(tiled(rows, kernel.nr, conv.groups).transpose(0, 2, 1))
        name = self.rewrite.constant(f"{anchor.inputs[1]}.tiles", tiles, Element.F32)
        op = RealConv(
            fusing.epilogue(), kernel.symbol, channels, kernel.nr, depth, conv.window, conv.groups
        )
        x = self._numbers(anchor.inputs[0], group.origin)
        self._append_fused(group, op, [x, name], fusing)

    def _sign_sum(self, group: Group, anchor: Node, conv: BinaryConv, fusing: _Fusing) -> None:
        weights = self.graph.constants[anchor.inputs[1]]
        channels, depth = weights.shape[:2]
        kernel = select("sign_sum", channels // conv.groups, self.target).kernel
        rows = tap_major(weights).reshape(channels, -1) > 0
        lanes = tiled(rows, kernel.nr, conv.groups).transpose(0, 2, 1)
        words = pack_bits(lanes, kernel.nr)[..., 0]
        name = self.rewrite.constant(f"{anchor.inputs[1]}.packed", words, _WORDS[kernel.nr])
        op = SignSum(
            fusing.epilogue(), kernel.symbol, channels, kernel.nr, depth, conv.window, conv.groups
        )
        x = self._numbers(anchor.inputs[0], group.origin)
        self._append_fused(group, op, [x, name], fusing)

    def _xnor(self, group: Group, anchor: Node, conv: BinaryConv, fusing: _Fusing) -> None:
        weights = self.graph.constants[anchor.inputs[1]]
        x = self.graph.types[anchor.inputs[0]]
        channels, depth = weights.shape[:2]
        kernel = select(
            "xnor", channels // conv.groups, self.target, grouped=conv.groups > 1
        ).kernel
        source = self._packed(anchor.inputs[0], conv.groups, depth, group.origin)
        parts = parts_of(weights)
        name = self._packed_weights(anchor.inputs[1], parts, kernel, conv.groups)
        epilogue = fusing.epilogue()
        zeros = zero_weights(weights) if parts == (1,) else np.zeros((0, 0), np.int32)
        skip = skips_taps(conv, x)
        signs = _signs(weights) if len(zeros) else weights
        base = accumulator_base(signs, x.element, parts)
        direct = not skip and not len(zeros) and _is_direct(epilogue)
        own = [source, name]
        if direct:
            fusing.to_limits(base, x, depth * conv.window.taps, parts)
        elif not skip:
            own.append(self.rewrite.constant(f"{anchor.output}.base", base, Element.I32))
        if len(zeros):
            own.append(self.rewrite.constant(f"{anchor.output}.zeros", zeros, Element.I32))
        op = XnorConv(
            epilogue,
            kernel.symbol,
            channels,
            kernel.nr,
            depth,
            conv.window,
            conv.groups,
            direct,
            skip,
            conv.pad,
            bool(len(zeros)),
            bool(x.element.code_bits),
            parts,
        )
        self._append_fused(group, op, own, fusing)

    def _packed_weights(
        self, name: str, parts: tuple[int, ...], kernel: Kernel, groups: int
    ) -> str:
        """Return weights as words [parts * blocks, taps * words, nr].

        They are packed as x is; then a kernel may read each word in parts.
        """
        bits, part = self.target.word_bits, f"<u{kernel.word_bits // 8}"
        planes = weight_planes(self.graph.constants[name], parts)
        words = [packed_taps(plane, bits).view(part) for plane in planes]
        rows = [tiled(each, kernel.nr, groups) for each in words]
        tiles = np.ascontiguousarray(np.concatenate(rows).transpose(0, 2, 1))
        return self.rewrite.constant(f"{name}.packed", tiles, _WORDS[kernel.word_bits])

    def _window_sum(self, group: Group, anchor: Node, op: WindowSum, fusing: _Fusing) -> None:
        x = self.graph.types[anchor.inputs[0]]
        depth = x.shape[1] // op.groups
        source = self._packed(anchor.inputs[0], op.groups, depth, group.origin)
        fused = SumUnderWindow(fusing.epilogue(), op, x.element, depth)
        self._append_fused(group, fused, [source], fusing)

    def _packed(self, name: str, groups: int, depth: int, origin: tuple[str, ...]) -> str:
        """Return the bitplanes that a layer reads: groups start on words of their own."""
        bits = self.target.word_bits
        planes = plane_count(self.graph.types[name].element)
        layout = PackedChannels(bits, planes, groups if depth % bits else 1)
        return self._held_in(name, layout, origin)


def _origin(node: Node, found: Gathering | None) -> list[str]:
    """Return the source nodes of a movement, then of those that move in one with it."""
    nodes = [node, *(found.nodes if found else ())]
    return [name for moved in nodes for name in moved.origin]


def _signs(weights: Array) -> Array:
    """Return weights as packed in one plane, where 0 counts as +1."""
    return np.where(weights >= 0, np.int8(1), np.int8(-1))


def _is_direct(epilogue: Epilogue) -> bool:
    """Whether nothing but comparisons of the accumulator is wanted."""
    return (
        len(epilogue.stores) == 1
        and bool(epilogue.stores[0].thresholds)
        and not (epilogue.expression.terms)
    )


class _NoKernelError(Exception):
    """A node that no kernel computes; the diagnostic is complete."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(why)
        self.diagnostic = Diagnostic(
            "BNN030",
            f"no kernel computes {node.op.name} here",
            ", ".join(printable(name) for name in node.origin),
            why,
            "`bnncc compile --dump-dir DIR` writes the graph around it, pass by pass",
        )


class _Fusing:
    """One group's epilogue in the making: its expression, and the operands that it reads."""

    def __init__(self, lowering: _Lowering, group: Group) -> None:
        self._lowering = lowering
        self._group = group
        self._graph = lowering.graph
        self._terms: list[Term] = []
        self._values: dict[str, Operand] = {}
        self._variables: list[str] = []
        self._parameters: list[str] = []
        self._thresholds: list[str] = []
        self._stores: list[Store] = []
        self._epilogue: Epilogue | None = None
        self.first = ""
        if group.anchor:
            self._values[group.anchor.output] = Operand(Source.VARIABLE, 0)
        else:
            self._start()

    def _start(self) -> None:
        """Choose the stored tensor that a group without an anchor starts from."""
        first = self._group.nodes[0]
        shape = self._group.shape
        types = self._graph.types
        whole = [n for n in self._graph.variables(first) if types[n].shape == shape]
        if not whole:
            raise _NoKernelError(first, "none of its operands has the shape of its result")
        self._values[whole[0]] = Operand(Source.VARIABLE, 0)
        self.first = self._lowering._numbers(whole[0], self._group.origin)

    def epilogue(self) -> Epilogue:
        """Return the epilogue; the operands are complete then."""
        if self._epilogue is None:
            for node in self._group.nodes:
                if not ends_in_bits(self._graph, node):
                    self._term(node)
            for name in self._group.stored:
                self._store(name)
            self._epilogue = Epilogue(
                Expression(tuple(self._terms)),
                len(self._variables),
                len(self._parameters),
                tuple(self._stores),
            )
        return self._epilogue

    def operands(self) -> list[str]:
        """Return the names of the epilogue's operands."""
        return [*self._variables, *self._parameters, *self._thresholds]

    def to_limits(self, base: Array, x: TensorType, k: int, parts: tuple[int, ...]) -> None:
        """Make the thresholds limits on mismatches, see `XnorConv.direct`."""
        rewrite = self._lowering.rewrite
        limits = mismatch_limits(rewrite.value(self._thresholds[0]), base, x, k, parts)
        hint = f"{self._group.stored[0]}.limits"
        self._thresholds[0] = rewrite.constant(hint, limits, narrowest(limits))

    def _term(self, node: Node) -> None:
        assert isinstance(node.op, Elementwise)  # a group has no others
        operands = tuple(
            self._operand(node, node.op, i, name) for i, name in enumerate(node.inputs)
        )
        self._values[node.output] = Operand(Source.TERM, len(self._terms))
        self._terms.append(Term(node.op, operands))

    def _operand(self, node: Node, op: Elementwise, index: int, name: str) -> Operand:
        if name in self._values:
            return self._values[name]
        if name in self._graph.constants:
            value = self._channel_constant(op, index, name)
            if value is not None:
                return self._parameter(name, value)
        self._variables.append(self._other(node, name))
        self._values[name] = Operand(Source.VARIABLE, len(self._variables))
        return self._values[name]

    def _other(self, node: Node, name: str) -> str:
        """Return the stored form of a tensor of a value each, one a pixel, or one a channel."""
        shape = self._group.shape
        if name in self._graph.constants:
            return self._spread(name)
        given = self._graph.types[name].shape
        if len(given) != len(shape) or given[2:] not in (shape[2:], (1,) * len(shape[2:])):
            sizes = "x".join(map(str, given))
            raise _NoKernelError(node, f"an operand of shape {sizes} varies along some axes only")
        return self._lowering._numbers(name, self._group.origin)

    def _spread(self, name: str) -> str:
        """Return a constant that varies within a channel with a value for every pixel."""
        shape = self._group.shape
        value = self._graph.constants[name]
        value = value.reshape(*(1,) * (len(shape) - value.ndim), *value.shape)
        spread = np.broadcast_to(value, (*value.shape[:2], *shape[2:]))
        element = self._graph.types[name].element
        kind = TensorType(spread.shape, element, real_layout(spread.shape))
        return self._lowering.rewrite.constant(f"{name}.image", encode(spread, kind), kind)

    def _channel_constant(self, op: Elementwise, index: int, name: str) -> Array | None:
        constant = self._graph.constants[name]
        shape = self._group.shape
        if index not in op.channel_operands:
            return per_channel(constant, shape)
        return constant if constant.ndim == 2 else per_channel(constant, shape[:2])

    def _parameter(self, name: str, value: Array) -> Operand:
        rewrite = self._lowering.rewrite
        if value.shape != self._graph.types[name].shape:
            kind = TensorType(value.shape, self._graph.types[name].element)
            held = rewrite.constant(f"{name}.row", value, kind)
        else:
            held = name
        self._values[name] = Operand(Source.PARAMETER, len(self._parameters))
        self._parameters.append(held)
        return self._values[name]

    def _store(self, name: str) -> None:
        node = self._graph.producers[name]
        element = self._graph.types[name].element
        if not ends_in_bits(self._graph, node):
            self._stores.append(Store(self._values[name], element))
            return
        thresholds, levels = (self._graph.constants[n] for n in node.inputs[1:])
        planes = plane_thresholds(thresholds, levels, element, self._group.shape[1])
        held = Element.F32 if planes.dtype == np.float32 else Element.I32
        rewrite = self._lowering.rewrite
        self._thresholds.append(rewrite.constant(f"{name}.decisions", planes, held))
        assert isinstance(node.op, Elementwise)  # a Step
        source = self._operand(node, node.op, 0, node.inputs[0])
        bits = self._lowering.target.word_bits
        self._stores.append(Store(source, element, planes.shape[-1], bits))


LOWER_KERNELS = Pass("lower_kernels", _apply, requires=Stage.BINARY)
