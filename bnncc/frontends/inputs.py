"""Inputs declared by the user: what a camera gives, not what the model was exported with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bnncc.errors import UsageError, printable
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.ops.elementwise import Add, Cast, Mul
from bnncc.ir.types import Array, Element

__all__ = ["InputSpec", "declare_inputs", "parse_input_spec"]

_FORM = re.compile(r"(?:(?P<name>.+)=)?(?P<kind>u?int8):(?P<scale>[^,]+),(?P<offset>[^,]+)")

_ELEMENTS = {"uint8": Element.U8, "int8": Element.I8}


@dataclass(frozen=True)
class InputSpec:
    """An input of codes u, bytes, that stand for the float32 values fl(fl(u * scale) + offset).

    Attributes:
        scale, offset: of each code.
        element: U8 (0..255) or I8 (-128..127).
    """

    scale: float
    offset: float
    element: Element = Element.U8

    def decode(self, codes: Array) -> Array:
        """Return the float32 values that codes stand for."""
        scaled = codes.astype(np.float32) * np.float32(self.scale)
        return scaled + np.float32(self.offset)


def parse_input_spec(text: str) -> tuple[str, InputSpec]:
    """Return (input name or "", spec) of `[NAME=]uint8:SCALE,OFFSET`, or with int8.

    Raises:
        UsageError: BNN021.
    """
    match = _FORM.fullmatch(text)
    try:
        scale, offset = (float(match[part]) for part in ("scale", "offset")) if match else (0, 0)
    except ValueError:
        scale = offset = 0.0
    with np.errstate(over="ignore"):
        held = np.array([scale, offset], np.float32)
    if not match or not (np.isfinite(held).all() and held[0] > 0):
        raise UsageError(
            "BNN021",
            f'"{printable(text)}" does not declare an input',
            why="it must read [NAME=]uint8:SCALE,OFFSET, or int8, with a positive SCALE",
            help="for images exported as u / 127.5 - 1: --input uint8:0.00784313725,-1",
        )
    return match["name"] or "", InputSpec(scale, offset, _ELEMENTS[match["kind"]])


def declare_inputs(
    graph: Graph, specs: Mapping[str, InputSpec], origin: str = "--input {}"
) -> Graph:
    """Return the graph with some float32 inputs taken as bytes and decoded inside.

    Args:
        graph: at stage FLOAT.
        specs: by input name; "" stands for the only input.
        origin: who says so, of an input's name.

    Raises:
        UsageError: BNN021, if a name is unknown or the input is not float32.
    """
    if not specs:
        return graph
    if "" in specs and len(graph.inputs) == 1:
        specs = {graph.inputs[0]: specs[""]}
    known = ", ".join(printable(name) for name in graph.inputs)
    for name in specs:
        if name in graph.inputs and graph.types[name].element in _ELEMENTS.values():
            what = f'"{printable(name)}" takes bytes already: the model itself says so'
            raise UsageError("BNN021", what, help="compile it without --input")
        if name not in graph.inputs or graph.types[name].element is not Element.F32:
            what = f'no float32 input is called "{printable(name)}"' if name else "which input?"
            raise UsageError("BNN021", what, help=f"the model's inputs: {known}")
    builder = GraphBuilder(graph.name, graph.stage)
    real_name: dict[str, str] = {}
    for name in graph.inputs:
        kind = graph.types[name]
        builder.input(name, replace(kind, element=specs[name].element) if name in specs else kind)
    taken = set(graph.types)
    for name, spec in specs.items():
        real_name[name] = _decoded(builder, name, spec, taken, origin.format(name))
    for name, array in graph.constants.items():
        builder.constant(name, array, graph.types[name].element)
    for node in graph.nodes:
        operands = [real_name.get(operand, operand) for operand in node.inputs]
        builder.results(node.op, operands, node.outputs, node.origin)
    return builder.build([real_name.get(name, name) for name in graph.outputs])


def _decoded(
    builder: GraphBuilder, name: str, spec: InputSpec, taken: set[str], origin: str
) -> str:
    """Add the nodes that decode an input, and return the float32 tensor's name."""

    def fresh(role: str) -> str:
        unique = f"{name}.{role}"
        while unique in taken:
            unique += "_"
        taken.add(unique)
        return unique

    real = builder.node(Cast(Element.F32), [name], fresh("code"), [origin])
    if spec.scale != 1:
        scale = builder.constant(fresh("scale"), np.asarray(spec.scale, np.float32), Element.F32)
        real = builder.node(Mul(), [real, scale], fresh("scaled"), [origin])
    if spec.offset != 0:
        offset = builder.constant(fresh("offset"), np.asarray(spec.offset, np.float32), Element.F32)
        real = builder.node(Add(), [real, offset], fresh("real"), [origin])
    return real
