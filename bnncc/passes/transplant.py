"""Move elementwise chains to other tensors of the same channels: past a pool, or past a reshape."""

from __future__ import annotations

import math
import re

from bnncc.ir.expression import Chain, Source
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Elementwise, over_channels
from bnncc.ir.types import Array

__all__ = [
    "FLAT",
    "IMAGE",
    "INTEGERS",
    "REORDERED",
    "UNPOOLED",
    "alone",
    "fitted",
    "same_order",
    "source_name",
    "transplanted",
]

UNPOOLED = ".unpooled"
"""Ends the name of a tensor that holds, before a pool, what the model has behind it."""
IMAGE = ".image"
"""Ends the name of a tensor that holds, as an image, what the model has flat, in the same order."""
REORDERED = ".reordered"
"""Ends the name of a tensor that holds, as an image, what the model has flat in another order."""
FLAT = ".flat"
"""Ends the name of a tensor that holds, flat, what the model has as an image, in the same order."""
INTEGERS = ".integers"
"""Ends the name of a tensor that holds the integers that stand for the model's levels."""

_MOVED = re.compile(
    rf"({'|'.join(map(re.escape, (UNPOOLED, IMAGE, REORDERED, FLAT, INTEGERS)))})(\.\d+)?$"
)
_RENAMED = re.compile(rf"({'|'.join(map(re.escape, (IMAGE, FLAT, INTEGERS)))})(\.\d+)?$")


def same_order(name: str) -> str:
    """Return the name of the model's tensor that holds the same elements in the same C order."""
    while _RENAMED.search(name):
        name = _RENAMED.sub("", name)
    return name


def source_name(name: str) -> str:
    """Return the name that the tensor had before chains were moved."""
    while _MOVED.search(name):
        name = _MOVED.sub("", name)
    return name


def alone(graph: Graph, chain: Chain) -> bool:
    """Whether nothing but the chain itself reads its root and what it computes on the way."""
    inside = {node.name for node in chain.nodes}
    hidden = [chain.root, *(node.output for node in chain.nodes[:-1])]
    readers = {reader.name for name in hidden for reader in graph.consumers[name]}
    return readers <= inside and not set(hidden).intersection(graph.outputs)


def transplanted(rewrite: Rewrite, chain: Chain, root: str, suffix: str, last: str) -> list[Node]:
    """Return the chain's operations on another tensor.

    Args:
        rewrite: takes the new nodes' types and constants.
        chain: not empty.
        root: what they read in the place of the chain's root: as many channels, any spatial shape.
        suffix: of the new tensors' names.
        last: the name of the last of them.
    """
    nodes: list[Node] = []
    for term, old in zip(chain.expression.terms, chain.nodes, strict=True):
        inputs = [
            root
            if operand.source is Source.VARIABLE
            else nodes[operand.index].output
            if operand.source is Source.TERM
            else fitted(rewrite, old, place, chain.operand(operand), root)
            for place, operand in enumerate(term.operands)
        ]
        output = last if old is chain.nodes[-1] else rewrite.fresh(f"{old.output}{suffix}")
        nodes.append(rewrite.node(old.op, inputs, output, old.origin))
    return nodes


def fitted(rewrite: Rewrite, node: Node, place: int, value: Array, root: str) -> str:
    """Return the constant that applies an operand of `node` to each channel of `root`.

    Args:
        rewrite: takes the constant, if it is new.
        node: an elementwise operation.
        place: of the operand, a constant, among its inputs.
        value: the operand as it applies to each channel, see `per_channel`.
        root: the tensor, of any spatial shape.
    """
    name = node.inputs[place]
    held, shape = rewrite.type_of(name), rewrite.type_of(root).shape
    if isinstance(node.op, Elementwise) and place in node.op.channel_operands:
        return name
    wanted = over_channels(value, len(shape)) if value.ndim else value
    if held.shape == wanted.shape or (math.prod(held.shape) == 1 and len(held.shape) <= len(shape)):
        return name
    return rewrite.constant(name, wanted, held.element)
