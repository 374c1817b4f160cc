"""Lower a PACKED graph to a Program: choose names, place tensors, turn attributes into numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bnncc.backend.amalgamate import amalgamate
from bnncc.backend.expressions import Parameter, is_emittable, statements
from bnncc.backend.literals import literal
from bnncc.backend.memory import MemoryPlan, plan_memory
from bnncc.backend.names import comment
from bnncc.backend.program import Buffer, Constant, Finish, Layer, Port, Program
from bnncc.errors import Diagnostic, UnsupportedModelError, printable
from bnncc.ir.expression import Expression, Source
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Dequantize
from bnncc.ir.ops.kernels import Epilogue, Map, PackPlanes, RealDense, SignSum, XnorDense
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Element, PackedChannels, storage_dtype, storage_shape
from bnncc.targets import load_kernels

__all__ = ["lower"]

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "uint8": "uint8_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "int16": "int16_t",
    "int32": "int32_t",
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
    headers = dict.fromkeys(["bnn_config.h", "bnn_real.h"])
    headers.update(dict.fromkeys(h for node in lowering.steps for h in _headers(node)))
    return Program(
        name=name,
        macro=name.upper(),
        banner=tuple(banner),
        inputs=lowering.inputs,
        outputs=lowering.outputs,
        layers=tuple(layers),
        arena_bytes=lowering.plan.arena_bytes,
        arena_lower_bound=lowering.plan.lower_bound,
        runtime=amalgamate(headers),
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
        if isinstance(node.op, (Map, XnorDense, SignSum, RealDense))
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
        if graph.types[name].element.dtype.name not in _C_TYPES
    ]
    if problems:
        raise UnsupportedModelError.of(problems)


def _headers(node: Node) -> list[str]:
    match node.op:
        case XnorDense(kernel=symbol) | SignSum(kernel=symbol) | RealDense(kernel=symbol):
            return [kernel.header for kernel in load_kernels() if kernel.symbol == symbol]
        case PackPlanes():
            return ["bnn_pack.h"]
        case Softmax():
            return ["bnn_softmax.h"]
        case _:
            return []


class _Lowering:
    """The state of one lowering: where each tensor lives."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name
        self.plan: MemoryPlan = plan_memory(graph)
        self.inputs = self._ports("input", graph.inputs)
        self.outputs = self._ports("output", graph.outputs)
        # A reshape shares its operand's memory, unless the caller owns the result.
        self.steps = [
            node
            for node in graph.nodes
            if not (isinstance(node.op, Reshape) and node.output in self.plan.aliases)
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
        owner = self.plan.aliases.get(tensor, tensor)
        c_type = _C_TYPES[storage_dtype(kind).name]
        pointer = next(
            (port.parameter for port in (*self.inputs, *self.outputs) if port.tensor == owner),
            "",
        )
        if not pointer:
            offset = self.plan.offsets[owner] // 8
            pointer = f"({c_type} *)(void *)&arena->words[{offset}]"
        shape = storage_shape(kind)
        return Buffer(tensor, c_type, pointer, shape, kind.nbytes)

    def layer(self, index: int, node: Node) -> Layer:
        """Return the layer that computes a node."""
        blank = Layer(
            function=f"{self.name}_layer{index}",
            template="",
            summary=(),
            name=printable(node.origin[0]),
            x=self.buffer(node.inputs[0]),
            y=self.buffer(node.output),
        )
        match node.op:
            case XnorDense() as op:
                return self._xnor(blank, node, op)
            case SignSum() as op:
                return self._sum(blank, node, op, "binary weights", "sign_sum.c.j2")
            case RealDense() as op:
                return self._sum(blank, node, op, "real weights", "real_dense.c.j2")
            case Map() as op:
                return self._map(blank, node, op)
            case Softmax(log=log):
                return replace(
                    blank,
                    template="softmax.c.j2",
                    summary=self._summary(node, "over the classes"),
                    kernel="bnn_log_softmax" if log else "bnn_softmax",
                    channels=self.graph.types[node.output].size,
                )
            case PackPlanes(word_bits=word_bits):
                return replace(
                    blank,
                    template="pack_planes.c.j2",
                    summary=self._summary(node, "bytes into bitplanes"),
                    kernel=f"bnn_pack_planes_w{word_bits}",
                    channels=self.graph.types[node.output].size,
                    k=blank.y.shape[-1],
                )
            case _:
                return replace(
                    blank,
                    template="copy.c.j2",
                    summary=self._summary(node, "the same elements under another shape"),
                    channels=self.graph.types[node.output].size,
                )

    def _xnor(self, blank: Layer, node: Node, op: XnorDense) -> Layer:
        x = self.graph.types[node.inputs[0]]
        assert isinstance(x.layout, PackedChannels)  # W3 holds
        weights = self._constant(blank, "weights", node.inputs[1], "binary weights")
        rest = list(node.inputs[2:])
        base, constants = "", [weights]
        if not op.direct:
            parameter, added = self._parameter(blank, "base", rest.pop(0), "thresholds")
            base, constants = parameter.at(), [*constants, *added]
        finish, added = self._finish(blank, op.epilogue, rest, direct=op.direct)
        macs = x.shape[-1] * op.channels
        return replace(
            blank,
            template="xnor_dense.c.j2",
            summary=self._summary(
                node, f"kernel {op.kernel}, K = {x.shape[-1]}, {macs} binary MACs"
            ),
            constants=(*constants, *added),
            weights=weights.name,
            base=base,
            kernel=op.kernel,
            k=x.layout.words(x.shape[-1]),
            channels=op.channels,
            nr=op.nr,
            blocks=weights.shape[0],
            planes=x.layout.planes,
            plane_shift=1 if x.element is Element.U8 else 0,
            factor=2 if x.element is Element.BIPOLAR else 1,
            finish=finish,
            binary_macs=macs,
        )

    def _sum(
        self, blank: Layer, node: Node, op: SignSum | RealDense, kind: str, template: str
    ) -> Layer:
        k = self.graph.types[node.inputs[0]].shape[-1]
        weights = self._constant(blank, "weights", node.inputs[1], kind)
        finish, added = self._finish(blank, op.epilogue, node.inputs[2:])
        macs = k * op.channels
        binary = isinstance(op, SignSum)
        what = f"{macs} {'additions of +-x' if binary else 'real MACs'}"
        return replace(
            blank,
            template=template,
            summary=self._summary(node, f"kernel {op.kernel}, K = {k}, {what}"),
            constants=(weights, *added),
            weights=weights.name,
            kernel=op.kernel,
            k=k,
            channels=op.channels,
            nr=op.nr,
            blocks=weights.shape[0],
            finish=finish,
            binary_macs=macs if binary else 0,
            real_macs=0 if binary else macs,
        )

    def _map(self, blank: Layer, node: Node, op: Map) -> Layer:
        finish, added = self._finish(blank, op.epilogue, node.inputs[1:])
        return replace(
            blank,
            template="map.c.j2",
            summary=self._summary(node, "elementwise"),
            constants=added,
            channels=self.graph.types[node.output].size,
            finish=finish,
        )

    def _summary(self, node: Node, what: str) -> tuple[str, ...]:
        x, y = (self.graph.types[name] for name in (node.inputs[0], node.output))
        nodes = ", ".join(comment(name) for name in node.origin)
        return (comment(nodes), f"{x} -> {y}", what)

    def _constant(self, blank: Layer, role: str, tensor: str, kind: str) -> Constant:
        values = self.graph.constants[tensor]
        c_type = _C_TYPES[values.dtype.name]
        return Constant(f"{blank.function}_{role}", c_type, values.shape, values, kind)

    def _parameter(
        self, blank: Layer, role: str, tensor: str, kind: str
    ) -> tuple[Parameter, tuple[Constant, ...]]:
        """Return how C reads a constant of one row a channel: as a literal where all rows agree."""
        values = self.graph.constants[tensor]
        width = values.shape[-1] if values.ndim > 1 else 1
        if not values.size:  # the thresholds of a Step with one level
            return Parameter((), "", width), ()
        rows = np.ascontiguousarray(values.reshape(-1, width))
        if rows.tobytes() == rows[0].tobytes() * len(rows):  # -0 is not +0
            return Parameter(tuple(map(literal, rows[0])), "", width), ()
        constant = self._constant(blank, role, tensor, kind)
        return Parameter((), constant.name, width), (constant,)

    def _finish(
        self, blank: Layer, epilogue: Epilogue, operands: Sequence[str], *, direct: bool = False
    ) -> tuple[Finish, tuple[Constant, ...]]:
        """Return the epilogue in C, and the constants it reads."""
        parameters: list[Parameter] = []
        constants: list[Constant] = []
        used = _used_parameters(epilogue.expression)
        for i, tensor in enumerate(operands[: epilogue.parameters]):
            parameter = Parameter((), "", 1)
            if i in used:
                parameter, added = self._parameter(blank, f"p{i}", tensor, "parameters")
                constants += added
            parameters.append(parameter)
        lines = statements(epilogue.expression, "v", parameters)
        result = lines[-1].name if lines else "v"
        if not epilogue.thresholds:
            return Finish(tuple(lines), result, (), 0, 0), tuple(constants)
        role = "limits" if direct else "thresholds"
        decisions = self._constant(blank, role, operands[-1], "thresholds")
        comparisons = _comparisons(decisions, result, "<=" if direct else ">=")
        texts = (*(line.value for line in lines), *comparisons)
        finish = Finish(
            tuple(lines),
            result,
            comparisons,
            epilogue.word_bits,
            blank.y.shape[-1],
            reads_channel=any("[c" in text or " c]" in text for text in texts),
        )
        return finish, (*constants, *(() if _same_for_all_channels(decisions) else (decisions,)))


def _used_parameters(expression: Expression) -> set[int]:
    """Return the parameters that C reads: all but the slack of a Dequantize."""
    return {
        operand.index
        for term in expression.terms
        for operand in (term.operands[:3] if isinstance(term.op, Dequantize) else term.operands)
        if operand.source is Source.PARAMETER
    }


def _comparisons(decisions: Constant, value: str, relation: str) -> tuple[str, ...]:
    """Return, a plane, the comparisons with thresholds [P, C, T] whose parity is the bit."""
    planes, channels, count = decisions.shape

    def threshold(p: int, j: int) -> str:
        if _same_for_all_channels(decisions):
            return literal(decisions.values[p, 0, j])
        row = "c" if count == 1 else f"c * {count}u"
        first = p * channels * count + j
        return f"{decisions.name}[{f'{first}u + ' if first else ''}{row}]"

    return tuple(
        " ^ ".join(f"({value} {relation} {threshold(p, j)})" for j in range(count))
        for p in range(planes)
    )


def _same_for_all_channels(decisions: Constant) -> bool:
    return bool((decisions.values == decisions.values[:, :1]).all())
