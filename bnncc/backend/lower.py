"""Lower a PACKED graph to a Program: choose names, place tensors, turn attributes into numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bnncc.backend.amalgamate import amalgamate
from bnncc.backend.borders import bordered
from bnncc.backend.epilogues import constant, finish, rows, variable_name
from bnncc.backend.expressions import is_emittable, runtime_headers
from bnncc.backend.gathers import gather_work
from bnncc.backend.memory import MemoryPlan, is_alias, plan_memory
from bnncc.backend.names import comment
from bnncc.backend.nests import flat_nest, interpolation, move_work, window_nest
from bnncc.backend.planar import numbers_work, planar_places, planar_work, pool_work
from bnncc.backend.program import (
    Argument,
    Buffer,
    Constant,
    GatherWork,
    Layer,
    LinearWork,
    Nest,
    PoolWork,
    Port,
    Program,
    SharedWork,
    WindowSumWork,
)
from bnncc.backend.shared_sums import (
    pixels_work,
    shared_work,
    slice_functions,
    slice_headers,
)
from bnncc.backend.spread import spread_work
from bnncc.backend.tiles import real_tile_work, tile_work
from bnncc.errors import Diagnostic, InternalError, UnsupportedModelError, printable
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.base import Scratch
from bnncc.ir.ops.interpolate import Interpolate
from bnncc.ir.ops.kernels import (
    Fused,
    GatherBits,
    Linear,
    Map,
    MismatchScale,
    Move,
    PackPlanes,
    Pool,
    PoolBits,
    RealConv,
    SignSum,
    SumUnderWindow,
    XnorConv,
)
from bnncc.ir.ops.pool import AveragePool, MaxPool, Pooling
from bnncc.ir.ops.reduce import ArgMax, ReduceMax, ReduceMean, Reduction, TopK
from bnncc.ir.ops.shared_sums import ClassSums, PoolPlanes, SharedConv, SharedSums, Spread
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.storage import pack_bits
from bnncc.ir.types import (
    Array,
    Element,
    Layout,
    PackedChannels,
    PixelPlanes,
    Planar,
    TensorType,
    storage_dtype,
    storage_shape,
)
from bnncc.ir.window import Axis, Window
from bnncc.targets import kernel_named

__all__ = ["lower"]

_C_TYPES = {
    "bool": "uint8_t",
    "float32": "float",
    "float64": "double",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
}


def lower(graph: Graph, name: str, banner: Sequence[str]) -> Program:
    """Return the program for a PACKED graph.

    Args:
        graph: at stage PACKED.
        name: the prefix of every identifier.
        banner: lines of the comment on top of the files.

    Raises:
        UnsupportedModelError: BNN030, listing every operation that C code has no form for.
    """
    _refuse_what_has_no_form(graph)
    lowering = _Lowering(graph, name)
    layers = [lowering.layer(i, node) for i, node in enumerate(lowering.steps)]
    shared = [layer.work for layer in layers if isinstance(layer.work, SharedWork)]
    headers = dict.fromkeys(["bnn_config.h", "bnn_real.h"])
    headers.update(dict.fromkeys(h for node in lowering.steps for h in _headers(node)))
    if any(isinstance(layer.work, GatherWork) and layer.work.expands for layer in layers):
        headers["bnn_expand.h"] = None
    return Program(
        name=name,
        macro=name.upper(),
        banner=tuple(banner),
        inputs=lowering.inputs,
        outputs=lowering.outputs,
        layers=tuple(layers),
        arena_bytes=lowering.plan.arena_bytes,
        arena_lower_bound=lowering.plan.lower_bound,
        headers=tuple(headers),
        runtime=amalgamate(headers),
        slices=slice_functions(name, shared),
    )


def _refuse_what_has_no_form(graph: Graph) -> None:
    problems = [
        Diagnostic(
            "BNN030",
            f"{term.op.name} has no form in C yet",
            ", ".join(printable(origin) for origin in node.origin),
            "it could not be folded into thresholds, and the C has no fixed-order code for it",
        )
        for node in graph.nodes
        if isinstance(node.op, Fused)
        for term in node.op.epilogue.expression.terms
        if not is_emittable(term.op)
    ]
    problems += [
        Diagnostic(
            "BNN030",
            f'output "{printable(name)}" holds {graph.types[name].element.value}',
            why="outputs in C are float32, int32 or uint8",
            help="export the model with that output cast to float",
        )
        for name in graph.outputs
        if graph.types[name].element is Element.BOOL
        or graph.types[name].element.dtype.name not in _C_TYPES
    ]
    if problems:
        raise UnsupportedModelError.of(problems)


def _headers(node: Node) -> list[str]:
    found: list[str] = []
    if isinstance(node.op, Fused):
        found += runtime_headers(node.op.epilogue.expression)
    if isinstance(node.op, Linear):
        found.append(kernel_named(node.op.kernel).header)
    match node.op:
        case Linear() | Pool() | PoolBits():
            found.append("bnn_window.h")
        case SumUnderWindow():
            found += ["bnn_bits.h", "bnn_window.h"]
        case PackPlanes():
            found.append("bnn_pack.h")
        case Spread():
            found.append("bnn_spread.h")
        case SharedSums() as op:
            found += slice_headers(op)
        case SharedConv() as op:
            found += [*slice_headers(op), "bnn_planar.h"]
        case Move(sources=(source,), to=to) if PixelPlanes in {type(source.layout), type(to)}:
            found.append("bnn_transpose.h")
        case Softmax():
            found.append("bnn_softmax.h")
        case ArgMax() | TopK():
            found.append("bnn_tails.h")
    return found


def _in_arena(c_type: str, word: int) -> str:
    return f"({c_type} *)(void *)&arena->words[{word}]"


class _Lowering:
    """The state of one lowering: where each tensor lives."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name
        self.plan: MemoryPlan = plan_memory(graph)
        self.inputs = self._ports("input", graph.inputs)
        self.outputs = self._ports("output", graph.outputs)
        self._tables: dict[str, Constant] = {}
        self._places: dict[str, str] = {}  # of the tables that hold kinds of rows and columns
        # An alias needs no code, unless the caller owns its memory.
        self.steps = [
            node
            for node in graph.nodes
            if not (is_alias(graph, node) and node.output in self.plan.aliases)
        ]

    def _ports(self, role: str, tensors: Sequence[str]) -> tuple[Port, ...]:
        ports = []
        for i, tensor in enumerate(tensors):
            kind = self.graph.types[tensor]
            parameter = role if len(tensors) == 1 else f"{role}{i}"
            c_type = _C_TYPES[kind.element.dtype.name]
            ports.append(Port(parameter, parameter.upper(), c_type, kind.shape, kind.size, tensor))
        return tuple(ports)

    def buffer(self, tensor: str) -> Buffer:
        """Return where a tensor lives."""
        kind = self.graph.types[tensor]
        owner = self._owner(tensor)
        c_type = _C_TYPES[storage_dtype(kind).name]
        pointer = next(
            (port.parameter for port in (*self.inputs, *self.outputs) if port.tensor == owner),
            "",
        )
        if tensor in self._tables:
            pointer = self._tables[tensor].name
        if not pointer:
            pointer = _in_arena(c_type, self.plan.offsets[owner] // 8)
        shape = self._tables[tensor].shape if tensor in self._tables else storage_shape(kind)
        return Buffer(tensor, c_type, pointer, shape, kind.nbytes)

    def _owner(self, tensor: str) -> str:
        return self.plan.aliases.get(tensor, tensor)

    def layer(self, index: int, node: Node) -> Layer:
        """Return the layer that computes a node."""
        blank = self._blank(f"{self.name}_layer{index}", node)
        match node.op:
            case XnorConv() as op:
                return self._xnor(blank, node, op)
            case SumUnderWindow() as op:
                return self._window_sum(blank, node, op)
            case SignSum() | RealConv() as op:
                return self._sum(blank, node, op)
            case Pool() as op:
                return self._pool(blank, node, op)
            case Map() as op:
                nest = flat_nest(self._type(node.outputs[0]).shape, blank.channels)
                done = replace(blank, template="map.c.j2", nest=nest)
                return self._finished(done, node, op)
            case PoolBits() as op:
                return self._pool_bits(blank, node, op)
            case Spread() | PoolPlanes() | SharedSums() | SharedConv():
                return self._of_pixels(blank, node)
            case Move(op=None, sources=(source,), to=to) if _has_pixels(source.layout, to):
                return self._to_pixels(blank, source, self._type(node.output))
            case Move() | GatherBits() as op:
                return self._move(blank, node, op)
            case PackPlanes(word_bits=word_bits):
                kind = self._type(node.outputs[0])
                words = blank.outputs[0].buffer.shape[-1]
                return replace(
                    blank,
                    template="pack_planes.c.j2",
                    nest=flat_nest(kind.shape, words),
                    call=f"bnn_pack_planes_w{word_bits}",
                )
            case Softmax(log=log):
                call = "bnn_log_softmax" if log else "bnn_softmax"
                return replace(blank, template="call.c.j2", call=f"{call}({blank.channels}u, x, y)")
            case ArgMax():
                count = self._type(node.inputs[0]).shape[1]
                return replace(blank, template="call.c.j2", call=f"*y = bnn_argmax({count}u, x)")
            case TopK(k=k):
                count = self._type(node.inputs[0]).shape[1]
                call = f"bnn_topk({count}u, {k}u, x, y, y1)"
                return replace(blank, template="call.c.j2", call=call)
            case op:
                raise InternalError("BNN091", f"no layer computes {op.name}")

    def _type(self, tensor: str) -> TensorType:
        return self.graph.types[tensor]

    def _blank(self, function: str, node: Node) -> Layer:
        """Return a layer with names, parameters and comment, and nothing to do yet."""
        others: Sequence[str] = ()
        tables: list[Constant] = []
        if isinstance(node.op, Fused):
            start = node.op.own_operands
            others = node.inputs[start : start + node.op.epilogue.variables]
        elif isinstance(node.op, Move | GatherBits):
            others = node.inputs[1:]
        for name in (node.inputs[0], *others):
            if name in self.graph.constants and name not in self._tables:
                hint = f"{function}_t{len(tables)}"
                whole = name not in others or isinstance(node.op, Move | GatherBits | SharedConv)
                tables += self._table(hint, name, whole=whole)
        written = [self._owner(name) for name in node.outputs]
        named = {"x": node.inputs[0]} | {variable_name(i): n for i, n in enumerate(others)}
        inputs = [
            Argument(parameter, self.buffer(name), self._owner(name) not in written)
            for parameter, name in named.items()
        ]
        read = [self._owner(name) for name in named.values()]
        outputs = [
            Argument("y" if i == 0 else f"y{i}", self.buffer(name), self._owner(name) not in read)
            for i, name in enumerate(node.outputs)
        ]
        kind = self._type(node.outputs[0])
        return Layer(
            function=function,
            scratch=tuple(self._scratch(node, each) for each in node.op.scratch),
            template="",
            summary=self._summary(node),
            name=printable(node.origin[0]),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            constants=tuple(tables),
            channels=kind.shape[1] if len(kind.shape) > 1 else 1,
        )

    def _scratch(self, node: Node, scratch: Scratch) -> Argument:
        """Return the parameter for memory that a node needs while it runs."""
        kind = scratch.kind
        c_type = _C_TYPES[storage_dtype(kind).name]
        offset = self.plan.scratch[node.name, scratch.name] // 8
        pointer = _in_arena(c_type, offset)
        return Argument(scratch.name, Buffer("", c_type, pointer, storage_shape(kind), kind.nbytes))

    def _table(self, hint: str, name: str, *, whole: bool) -> tuple[Constant, ...]:
        """Return the arrays that hold a constant tensor, of an image perhaps what differs in it."""
        value = self.graph.constants[name]
        found = None if whole else bordered(hint, value)
        if found is None:
            self._tables[name] = constant(hint, value, "parameters")
            return (self._tables[name],)
        self._tables[name], self._places[name] = found.table, found.place
        return (found.table, *found.kinds)

    def _summary(self, node: Node) -> tuple[str, ...]:
        x = self._type(node.inputs[0])
        results = ", ".join(str(self._type(name)) for name in node.outputs)
        nodes = ", ".join(comment(name) for name in node.origin)
        return (comment(nodes), f"{x} -> {results}", self._described(node))

    def _described(self, node: Node) -> str:
        """Return one line on what a node does."""
        match node.op:
            case Linear() as op:
                k = op.depth * op.window.taps
                kind = {XnorConv: "binary MACs", SignSum: "additions of +-x"}
                window = f"window {op.window}, " if op.window.axes else ""
                groups = f"{op.groups} groups, " if op.groups > 1 else ""
                what = kind.get(type(op), "real MACs")
                macs = self._macs(node, op)
                return f"kernel {op.kernel}, {window}{groups}K = {k}, {macs} {what}"
            case Pool(op=op):
                return str(op)
            case Move(op=op):
                return str(op) if op else "the same elements in another layout"
            case Map():
                return "elementwise"
            case SumUnderWindow(op=op):
                return str(op)
            case PackPlanes():
                return "bytes into bitplanes"
            case op:
                return str(op)

    def _macs(self, node: Node, op: Linear) -> int:
        """Return the multiply-accumulates of a linear layer, taps outside of the image included."""
        return math.prod(self._type(node.outputs[0]).shape) * op.depth * op.window.taps

    def _finished(self, layer: Layer, node: Node, op: Fused, *, direct: bool = False) -> Layer:
        """Return the layer with its epilogue."""
        ending, added = finish(
            self.graph,
            op.epilogue,
            node.inputs[op.own_operands :],
            layer.outputs,
            layer.function,
            places=self._places,
            direct=direct,
        )
        return replace(layer, finish=ending, constants=(*layer.constants, *added))

    def _xnor(self, blank: Layer, node: Node, op: XnorConv) -> Layer:
        x = self._type(node.inputs[0])
        layout = x.layout
        assert isinstance(layout, PackedChannels)  # W3 holds
        words = layout.words(x.shape[1])
        rest = list(node.inputs[2 : op.own_operands])
        weights = self._constant(blank, "weights", node.inputs[1], "binary weights")
        constants = [weights]
        scale = MismatchScale.of(op.parts, bipolar=x.element is Element.BIPOLAR)
        value = "(int32_t)m[n]"
        if op.skip:
            value = _accumulator("base", scale)
        elif not op.direct:
            name = f"{blank.function}_base"
            base, added = rows(name, self.graph.constants[rest.pop(0)], "thresholds")
            constants += added
            value = _accumulator(base.at(), scale)
        nest = window_nest(op.window, x.shape[2:], words)
        work = LinearWork(
            kernel=op.kernel,
            weights=weights.name,
            nr=op.nr,
            blocks=op.blocks // op.groups,
            groups=op.groups,
            depth=words // op.groups,
            entry=op.nr,
            sum_type="uint32_t",
            value=value,
            value_type="int32_t",
            planes=layout.planes,
            plane_shift=1 if op.codes else 0,
            base=scale.of_k * op.depth if op.skip else 0,
            pad=op.pad,
            word_bits=layout.word_bits,
            parts=op.parts,
        )
        tiled = kernel_named(op.kernel).is_tile
        compared = False
        if tiled:
            work, tables = tile_work(self.graph, node, work, nest, _fill(op, layout))
            constants = [replace(weights, aligned=True), *constants[1:], *tables]
            compared = bool(work.limits)
        elif nest.partial and not op.skip:
            fill = constant(f"{blank.function}_fill", _fill(op, layout), "parameters")
            constants.append(fill)
            work = replace(work, fill=fill.name)
        if op.zeros:
            zeros = self._zeros(blank, op, rest.pop(0))
            constants.append(zeros)
            count = zeros.shape[0]
            value = f"{work.value} - fix[n]"
            work = replace(work, zeros=zeros.name, zero_count=count, value=value)
        done = replace(
            blank,
            template="tiles.c.j2" if tiled else "linear.c.j2",
            constants=(*blank.constants, *constants),
            nest=nest,
            work=work,
            binary_macs=self._macs(node, op),
        )
        return done if compared else self._finished(done, node, op, direct=op.direct)

    def _of_pixels(self, blank: Layer, node: Node) -> Layer:
        """Return a layer of kernel family B."""
        match node.op:
            case Spread() as op:
                spread, tables = spread_work(op, self._type(node.inputs[0]), blank.function)
                return replace(blank, template="spread.c.j2", work=spread, constants=tables)
            case SharedSums() as op:
                work, tables = shared_work(self.graph, node, op, self.name, blank.function)
                layer = self._shared(blank, node, op)
                return replace(layer, work=work, constants=(*layer.constants, *tables))
            case SharedConv() as op:
                return self._numbers(self._shared(blank, node, op), node, op)
            case PoolPlanes() as op:
                falls = [
                    self._constant(blank, "falls", name, "parameters") for name in node.inputs[1:]
                ]
                pool = pool_work(op, falls[0].name if falls else "")
                return replace(
                    blank, template="pool_planes.c.j2", work=pool, constants=tuple(falls)
                )
            case op:
                raise InternalError("BNN091", f"{op.name} is no layer of pixels")

    def _shared(self, blank: Layer, node: Node, op: ClassSums) -> Layer:
        macs = math.prod(self._type(blank.outputs[0].buffer.tensor).shape) * op.depth
        layer = replace(blank, template="shared_sums.c.j2", binary_macs=macs)
        if not op.taps.band:
            return layer
        x, spread = self._type(node.inputs[0]), Spread(op.taps, op.pitch)
        copies, tables = spread_work(spread, x, blank.function)
        return replace(layer, copies=copies, constants=(*layer.constants, *tables))

    def _to_pixels(self, blank: Layer, source: TensorType, result: TensorType) -> Layer:
        """Return a move to planes of pixels or planar numbers, or from these."""
        if Planar in {type(source.layout), type(result.layout)}:
            return replace(blank, template="planar.c.j2", work=planar_work(source, result))
        return replace(blank, template="pixels.c.j2", work=pixels_work(source, result))

    def _numbers(self, blank: Layer, node: Node, op: SharedConv) -> Layer:
        work, tables = numbers_work(self.graph, node, op, blank, self.name)
        places, names = planar_places(self.graph, blank)
        ending, added = finish(
            self.graph,
            op.epilogue,
            node.inputs[op.own_operands :],
            blank.outputs,
            blank.function,
            places=places,
            direct=False,
            names=names,
        )
        constants = (*blank.constants, *tables, *added)
        return replace(blank, work=work, finish=ending, constants=constants)

    def _zeros(self, blank: Layer, op: XnorConv, tensor: str) -> Constant:
        """Return the table of zero weights: rows (block, lane, tap row, tap column, channel)."""
        table = self.graph.constants[tensor]
        taps = np.zeros((len(table), 2), np.int32)
        taps[:, 2 - len(op.window.axes) :] = table[:, 1:-1]
        count = op.channels // op.groups
        group, channel = table[:, 0] // count, table[:, 0] % count
        block = group * (op.blocks // op.groups) + channel // op.nr
        columns = [block, channel % op.nr, taps[:, 0], taps[:, 1], table[:, -1]]
        values = np.stack(columns, axis=1).astype(np.int32)
        return constant(f"{blank.function}_zeros", values, "binary weights")

    def _window_sum(self, blank: Layer, node: Node, op: SumUnderWindow) -> Layer:
        x = self._type(node.inputs[0])
        layout = x.layout
        assert isinstance(layout, PackedChannels)  # W3 holds
        words = layout.words(x.shape[1])
        window, pad = op.op.window, op.op.pad
        bias = 0 if op.element.code_bits else op.depth
        work = WindowSumWork(
            groups=op.op.groups,
            repeats=op.op.channels // op.op.groups,
            depth=words // op.op.groups,
            word_bits=layout.word_bits,
            planes=layout.planes,
            plane_shift=1 if op.element.code_bits else 0,
            factor=2 if op.element is Element.BIPOLAR else 1,
            inside=-bias - pad * op.depth,
            always=pad * op.depth * window.taps,
        )
        nest = window_nest(window, x.shape[2:], words)
        return self._finished(
            replace(blank, template="window_sum.c.j2", nest=nest, work=work), node, op
        )

    def _sum(self, blank: Layer, node: Node, op: SignSum | RealConv) -> Layer:
        x = self._type(node.inputs[0])
        binary = isinstance(op, SignSum)
        kind = "binary weights" if binary else "real weights"
        weights = self._constant(blank, "weights", node.inputs[1], kind)
        macs = self._macs(node, op)
        work = LinearWork(
            kernel=op.kernel,
            weights=weights.name,
            nr=op.nr,
            blocks=op.blocks // op.groups,
            groups=op.groups,
            depth=op.depth,
            entry=1 if binary else op.nr,
            sum_type="float",
            value="m[n]",
            value_type="float",
        )
        nest = window_nest(op.window, x.shape[2:], x.shape[1])
        tiled = kernel_named(op.kernel).is_tile
        done = replace(
            blank,
            template="tiles.c.j2" if tiled else "linear.c.j2",
            constants=(*blank.constants, weights),
            nest=nest,
            work=real_tile_work(work, nest, op.window, x.shape[2:]) if tiled else work,
            binary_macs=macs if binary else 0,
            real_macs=0 if binary else macs,
        )
        return self._finished(done, node, op)

    def _pool(self, blank: Layer, node: Node, op: Pool) -> Layer:
        x = self._type(node.inputs[0])
        if isinstance(op.op, Interpolate):
            loops, taps, tables = interpolation(op.op, x, blank.function)
            constants = (*blank.constants, *tables)
            done = replace(blank, template="interpolate.c.j2", constants=constants)
            return self._finished(replace(done, nest=loops, work=taps), node, op)
        window, work, constants = self._pooling(blank, op.op, x)
        done = replace(
            blank,
            template="pool_across.c.j2" if work.across else "pool.c.j2",
            constants=(*blank.constants, *constants),
            nest=window_nest(window, x.shape[2:], x.shape[1]),
            work=replace(work, lanes=_lanes(x.shape[1])),
        )
        return self._finished(done, node, op)

    def _pooling(
        self, blank: Layer, op: Pooling, x: TensorType
    ) -> tuple[Window, PoolWork, tuple[Constant, ...]]:
        match op:
            case MaxPool(window=window):
                return window, _maximum(x.element), ()
            case AveragePool(window=window):
                divisor, constants = self._divisor(blank, window, x, op.divisors(x.shape[2:]))
                work = PoolWork("0.0f", "value[n] + e", f"value[n] / {divisor}", "float")
                return window, work, constants
            case Reduction(axes=axes):
                return _reduced_window(axes, x.shape[2:]), _reducing(op, x.shape), ()
            case _:
                raise InternalError("BNN091", f"no pool computes {op.name}")

    def _divisor(
        self, blank: Layer, window: Window, x: TensorType, divisors: Array
    ) -> tuple[str, tuple[Constant, ...]]:
        """Return the C expression of how many taps count at pixel p, and the table it reads."""
        if (divisors == divisors.flat[0]).all():
            return f"{float(divisors.flat[0])}f", ()
        if np.array_equal(divisors, window.counts(x.shape[2:])):
            return _taps_inside(window_nest(window, x.shape[2:], 1)), ()
        table = constant(f"{blank.function}_divisors", divisors, "parameters")
        return f"{table.name}[p]", (table,)

    def _pool_bits(self, blank: Layer, node: Node, op: PoolBits) -> Layer:
        x = self._type(node.inputs[0])
        assert isinstance(x.layout, PackedChannels)  # W3 holds
        words = x.layout.words(x.shape[1])
        constants: tuple[Constant, ...] = ()
        mask = ""
        if len(node.inputs) > 1:
            constants = (self._constant(blank, "falling", node.inputs[1], "parameters"),)
            mask = constants[0].name
        bits = x.layout.word_bits
        work = PoolWork(mask, "", "", f"uint{bits}_t")
        return replace(
            blank,
            template="pool_codes.c.j2" if op.codes else "pool_bits.c.j2",
            constants=(*blank.constants, *constants),
            channels=x.layout.planes,
            nest=window_nest(op.window, x.shape[2:], words),
            work=work,
        )

    def _move(self, blank: Layer, node: Node, op: Move | GatherBits) -> Layer:
        names = [argument.name for argument in blank.inputs]
        result = self._type(node.outputs[0])
        if isinstance(op, GatherBits):
            gather, tables = gather_work(op, result, names, blank.function)
            done = replace(blank, template="gather_bits.c.j2", work=gather)
        else:
            sources = [self._type(name) for name in node.inputs]
            work, tables = move_work(op.op, sources, result, names, blank.function)
            done = replace(blank, template="move.c.j2", work=work)
        return replace(done, constants=(*blank.constants, *tables))

    def _constant(self, blank: Layer, role: str, tensor: str, kind: str) -> Constant:
        return constant(f"{blank.function}_{role}", self.graph.constants[tensor], kind)


def _has_pixels(*layouts: Layout) -> bool:
    return any(isinstance(layout, PixelPlanes | Planar) for layout in layouts)


def _accumulator(base: str, scale: MismatchScale) -> str:
    """Return the C expression of the n-th accumulator, see `XnorConv`."""
    factor = "2 * " if scale.factor == 2 else ""
    value = f"{base} - {factor}(int32_t)m[n]"
    return value if scale.divisor == 1 else f"({value}) / {scale.divisor}"


def _taps_inside(nest: Nest) -> str:
    """Return the C expression of how many taps of a pixel lie inside, as a float."""
    y = "(ky1 - ky0)" if nest.y.partial else f"{nest.y.kernel}u"
    x = "(kx1 - kx0)" if nest.x.partial else f"{nest.x.kernel}u"
    return f"(float)({y} * {x})"


def _reducing(op: Reduction, shape: Sequence[int]) -> PoolWork:
    """Return how values along some axes of a tensor of that shape become one."""
    across = 1 in op.axes
    value = "value" if across else "value[n]"
    if isinstance(op, ReduceMax):
        return PoolWork("-BNN_INFINITY", _larger(value), value, "float", across)
    count = math.prod(shape[axis] for axis in op.axes)
    finish = f"{value} / {count}.0f" if isinstance(op, ReduceMean) else value
    return PoolWork("0.0f", f"{value} + e", finish, "float", across)


def _maximum(element: Element) -> PoolWork:
    """Return how the largest of numbers is found; the first of equals, and a NaN wins."""
    if element is Element.F32:
        return PoolWork("-BNN_INFINITY", _larger("value[n]"), "value[n]", "float")
    return PoolWork("0", "e > value[n] ? e : value[n]", "value[n]", _C_TYPES[element.dtype.name])


def _lanes(channels: int) -> int:
    """Return how many channels a pool takes at once: whole blocks, or 8 and a part of 8."""
    return next((lanes for lanes in (32, 16) if channels % lanes == 0), 8)


def _larger(value: str) -> str:
    """Return the larger of e and a value: two selections, which gcc vectorises, not an `||`."""
    return f"e != e ? e : (e > {value} ? e : {value})"


def _reduced_window(axes: Sequence[int], sizes: Sequence[int]) -> Window:
    """Return the window that covers the reduced spatial axes at once."""
    spatial = enumerate(sizes, start=2)
    return Window(tuple(Axis(size if axis in axes else 1) for axis, size in spatial))


def _fill(op: XnorConv, layout: PackedChannels) -> Array:
    """Return the words of a tap outside of the image, [planes, words of one group]."""
    words = -(-op.depth // layout.word_bits)
    held = [op.pad >> plane & 1 if op.codes else op.pad > 0 for plane in range(layout.planes)]
    bits = np.zeros((layout.planes, op.depth), dtype=bool)
    bits[:] = np.array(held, dtype=bool)[:, np.newaxis]
    return pack_bits(bits, layout.word_bits).reshape(layout.planes, words)
