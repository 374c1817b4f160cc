"""Epilogues as C: what a fused kernel does with each value `v` of channel `c` at pixel `p`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from bnncc.backend.expressions import Parameter, Statement, statements
from bnncc.backend.literals import literal
from bnncc.backend.program import Argument, Constant, Finish
from bnncc.backend.program import Store as StoreText
from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Dequantize, DequantizeTwo
from bnncc.ir.ops.kernels import Epilogue, Store
from bnncc.ir.types import Array, Element, TensorType

__all__ = ["finish", "variable_name"]


def variable_name(index: int) -> str:
    """Return the parameter that points to the index-th other tensor that an epilogue reads."""
    return f"s{index + 1}"


def finish(
    graph: Graph,
    epilogue: Epilogue,
    operands: Sequence[str],
    outputs: Sequence[Argument],
    hint: str,
    *,
    places: Mapping[str, str],
    direct: bool,
    names: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Finish, tuple[Constant, ...]]:
    """Return an epilogue as C, and the constants that it reads.

    Args:
        graph: the packed graph.
        epilogue: what follows each value.
        operands: the names of its operands.
        outputs: where it stores.
        hint: the start of the constants' names.
        places: where tensors that are not stored a value a pixel have channel c of pixel p.
        direct: whether thresholds are limits, see `XnorConv`.
        names: what to call parameters that go by another name.
    """
    variables = operands[: epilogue.variables]
    parameters = operands[epilogue.variables : epilogue.variables + epilogue.parameters]
    thresholds = iter(operands[epilogue.variables + epilogue.parameters :])
    shape = graph.types[outputs[0].buffer.tensor].shape
    called = [names.get(variable_name(i), variable_name(i)) for i in range(len(variables))]
    lines = [
        Statement(
            _c_type(graph, name),
            f"v{i + 1}",
            f"{called[i]}[{places.get(name) or _place(shape, graph.types[name])}]",
        )
        for i, name in enumerate(variables)
    ]
    held = ["v", *(line.name for line in lines)]
    read, constants = _parameters(graph, epilogue.expression, parameters, hint)
    lines += statements(epilogue.expression, held, read)
    stores: list[StoreText] = []
    for argument, store in zip(outputs, epilogue.stores, strict=True):
        value = _name(store.source, held)
        if store.thresholds:
            suffix = "" if len(stores) == 0 else str(len(stores))
            role = "limits" if direct else "thresholds"
            tensor = next(thresholds)
            limits = constant(f"{hint}_{role}{suffix}", graph.constants[tensor], "thresholds")
            decisions = _comparisons(limits, value, "<=" if direct else ">=")
            stores.append(_bits(graph.types[argument.buffer.tensor], argument, store, decisions))
            constants += () if _same_for_all_channels(limits) else (limits,)
        else:
            truth = store.to is Element.BOOL
            stores.append(StoreText(argument.name, f"(uint8_t)({value})" if truth else value))
    texts = [line.value for line in lines] + [d for s in stores for d in s.decisions]
    reads = any("[c" in text or " c]" in text or "+ c" in text for text in texts)
    return Finish(tuple(lines), tuple(stores), reads), tuple(constants)


def _c_type(graph: Graph, name: str) -> str:
    """Return the C type of one value of a stored tensor, truth values being integers."""
    return {Element.BOOL: "int", Element.I32: "int32_t"}.get(graph.types[name].element, "float")


def constant(name: str, values: Array, kind: str) -> Constant:
    """Return an array of the C under a name of its own."""
    c_types = {"bool": "uint8_t", "float32": "float", "float64": "double"}
    c_type = c_types.get(values.dtype.name, f"{values.dtype.name}_t")
    return Constant(name, c_type, values.shape, values, kind)


def _name(operand: Operand, variables: Sequence[str]) -> str:
    return variables[operand.index] if operand.source is Source.VARIABLE else f"t{operand.index}"


def _place(shape: tuple[int, ...], kind: TensorType) -> str:
    """Return the index of the element that belongs to channel c of pixel p."""
    channels, pixels = kind.shape[1], int(np.prod(kind.shape[2:]))
    one_pixel = int(np.prod(shape[2:])) == 1
    if channels == 1 and shape[1] > 1:
        return "p" if pixels > 1 else "0"
    return "c" if pixels == 1 or one_pixel else f"p * {channels}u + c"


def _parameters(
    graph: Graph, expression: Expression, names: Sequence[str], hint: str
) -> tuple[list[Parameter], tuple[Constant, ...]]:
    """Return how C reads each parameter, and the arrays it needs for that."""
    parameters: list[Parameter] = []
    constants: tuple[Constant, ...] = ()
    used = _used(expression)
    for i, name in enumerate(names):
        parameter = Parameter((), "", 1)
        if i in used:
            parameter, added = rows(f"{hint}_p{i}", graph.constants[name], "parameters")
            constants += added
        parameters.append(parameter)
    return parameters, constants


def rows(name: str, values: Array, kind: str) -> tuple[Parameter, tuple[Constant, ...]]:
    """Return how C reads a constant of one row a channel: as a literal where all rows agree."""
    width = values.shape[-1] if values.ndim > 1 else 1
    if not values.size:  # the thresholds of a Step with one level
        return Parameter((), "", width), ()
    table = np.ascontiguousarray(values.reshape(-1, width))
    if table.tobytes() == table[0].tobytes() * len(table):  # -0 is not +0
        return Parameter(tuple(map(literal, table[0])), "", width), ()
    array = constant(name, values, kind)
    return Parameter((), array.name, width), (array,)


def _used(expression: Expression) -> set[int]:
    """Return the parameters that C reads: all but the slack of an accumulator's value."""
    return {
        operand.index
        for term in expression.terms
        for operand in (
            term.operands[:-1] if isinstance(term.op, Dequantize | DequantizeTwo) else term.operands
        )
        if operand.source is Source.PARAMETER
    }


def _bits(
    kind: TensorType, argument: Argument, store: Store, decisions: tuple[str, ...]
) -> StoreText:
    assert store.layout is not None  # the caller asked
    words = store.layout.words(kind.shape[1])
    pixels = int(np.prod(kind.shape[2:]))
    return StoreText(
        argument.name,
        "",
        decisions,
        store.word_bits,
        words,
        pixels * words,
    )


def _comparisons(decisions: Constant, value: str, relation: str) -> tuple[str, ...]:
    """Return, a plane, the comparisons with thresholds [P, C, T] whose parity is the bit."""
    planes, channels, count = decisions.shape

    def threshold(p: int, j: int) -> str:
        if _same_for_all_channels(decisions):
            return literal(decisions.values[p, 0, j])
        row = "c" if count == 1 else f"c * {count}u"
        first = p * channels * count + j
        return f"{decisions.name}[{row}{f' + {first}u' if first else ''}]"

    return tuple(
        " ^ ".join(f"({value} {relation} {threshold(p, j)})" for j in range(count))
        for p in range(planes)
    )


def _same_for_all_channels(decisions: Constant) -> bool:
    return bool((decisions.values == decisions.values[:, :1]).all())
