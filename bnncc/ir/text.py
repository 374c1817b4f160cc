"""Stable text of a graph, for `--dump-dir`, tests and eyes."""

from __future__ import annotations

import hashlib

import numpy as np

from bnncc.errors import printable
from bnncc.ir.graph import Graph, Node
from bnncc.ir.types import Array

__all__ = ["format_graph"]

_SHORT = 8


def format_graph(graph: Graph) -> str:
    """Return the graph as text: one line an input, a constant, a node; the same for the same graph.

    Constants of up to 8 elements are spelled out, larger ones stand as their SHA-256.
    """
    lines = [f"graph {_name(graph.name)} stage={graph.stage.value}"]
    lines += [f"  input    {_name(n)}: {graph.types[n]}" for n in graph.inputs]
    lines += [
        f"  constant {_name(n)}: {graph.types[n]} = {_content(array)}"
        for n, array in graph.constants.items()
    ]
    lines += [_node(graph, node) for node in graph.nodes]
    lines += [f"  output   {_name(n)}" for n in graph.outputs]
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return f"%{printable(name)}"


def _content(array: Array) -> str:
    if array.size <= _SHORT:
        return str(array.tolist())  # Python prints floats so that they read back the same
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"sha256:{digest[:16]}"


def _node(graph: Graph, node: Node) -> str:
    results = ", ".join(f"{_name(n)}: {graph.types[n]}" for n in node.outputs)
    operands = ", ".join(_name(n) for n in node.inputs)
    origin = ", ".join(printable(name) for name in node.origin)
    return f"  {results} = {node.op}({operands})  # {origin}"
