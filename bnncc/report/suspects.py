"""Layers whose input the exporter seems to have left without its sign.

Binary weights on real inputs are either meant so (BinaryConnect, BWN) or what remains of a binary
layer once `x.data = sign(x.data)` in its forward has left no trace in a traced graph. The file
alone cannot say which, and `verify` compares with the file. So the evidence is weighed here.

Accused is a layer with binary weights and real inputs that come of another layer, if its input is

    bounded         clipped to both sides of 0, as hardtanh leaves it right before a sign
    no activation   a function of other layers through affine operations and pools alone
    normalised      made by a BatchNorm, behind which an activation function is due
    beside bits     of both signs, in a network of which other layers read bits

Not accused is a layer whose input is the model's own; of one sign, as behind a ReLU, where
BinaryConnect's networks have theirs; quantised to more levels than bits are worth; or averaged over
the whole image. And where some layer with binary weights reads rectified reals and none reads bits,
the network works on reals by design: linear bottlenecks and normalised inputs are no evidence then.

Source: Courbariaux et al. 2015, arXiv:1511.00363 (BinaryConnect); Rastegari et al. 2016,
arXiv:1603.05279 (BWN, and XNOR-Net's order of BatchNorm, sign, convolution).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.errors import Diagnostic, printable
from bnncc.ir.analysis.ranges import everything, range_of
from bnncc.ir.expression import chains_to
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool, Pooling
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Movement, Pad
from bnncc.report.layers import Arithmetic, LayerReport

__all__ = ["Evidence", "LostSignWarning", "Suspect", "lost_sign", "suspects"]

_WHY = (
    "exporters do not see assignments to .data: x.data = x.data.sign() in forward leaves no trace "
    "in the file, which then is not the model that was trained. verify cannot notice, since it "
    "compares with the file. Layers that are meant to read reals, as in BinaryConnect and BWN, "
    "look the same: then all is well"
)
_HELP = (
    "compare the file's outputs with your own model's. If they differ, export again, with "
    "x = torch.where(x >= 0, 1.0, -1.0) or an autograd.Function in place of the assignment; or "
    "compile, and verify, with --insert-sign, which puts a Sign on the input of each of these "
    "layers, or --insert-sign-at LAYER for some of them (in Python Options(insert_sign=True), "
    "Options(insert_sign_at=(LAYER,)))"
)


class LostSignWarning(UserWarning):
    """What `bnncc.compile` and `bnncc.verify` warn with: the file is probably not the model."""


class Evidence(str, enum.Enum):
    """What speaks for a lost sign; the value is a clause about the layer's input."""

    BOUNDED = "clipped to both sides of 0, as a hardtanh leaves it right before a sign"
    NO_ACTIVATION = "no activation function lies between it and the layers before"
    NORMALISED = "a BatchNorm makes it, and no activation function follows"
    BESIDE_BITS = "it has both signs, and other layers of this network read bits"


@dataclass(frozen=True)
class Suspect:
    """A layer with binary weights whose input has probably lost its sign.

    Attributes:
        layer: what the user calls it.
        node: its node in the source model.
        result: the tensor of its sums in the graph of stage FLOAT, which no other layer has.
        input: the tensor that it reads.
        fed_by: the operation that makes that, and its node in the source model.
        evidence: what speaks for a lost sign.
        shared_with: the source nodes that read the same tensor.
    """

    layer: str
    node: str
    result: str
    input: str
    fed_by: str
    evidence: Evidence
    shared_with: tuple[str, ...]

    @property
    def text(self) -> str:
        """The accusation, for people."""
        text = (
            f"{self.layer}: its weights are binary, its input is real, made by {self.fed_by}: "
            f"{self.evidence.value}"
        )
        if self.shared_with:
            text += (
                f". {', '.join(self.shared_with)} read the same tensor: in PyTorch, an assignment "
                "to .data changes it for whatever runs later"
            )
        return text


def lost_sign(found: Sequence[Suspect]) -> Diagnostic:
    """Return the warning about the suspects, of which there is one at least."""
    layers = "a layer" if len(found) == 1 else f"{len(found)} layers"
    read = "reads" if len(found) == 1 else "read"
    return Diagnostic(
        "BNN016",
        f"the exporter has probably lost a sign: {layers} with binary weights {read} real numbers",
        "\n".join(suspect.text for suspect in found),
        _WHY,
        _HELP,
    )


def suspects(
    graph: Graph, layers: Sequence[LayerReport], nodes: Sequence[Node]
) -> tuple[Suspect, ...]:
    """Return the layers that have probably lost their sign, in order.

    Args:
        graph: the graph as the frontend made it.
        layers: a row for each linear layer.
        nodes: of the graph, one for each row.
    """
    found: list[Suspect] = []
    bits = any(n.arithmetic is Arithmetic.BITS and n.activations != "u8" for n in layers)
    pairs = [pair for pair in zip(layers, nodes, strict=True) if _sums_reals(graph, *pair)]
    rectified = any(_is_rectified(graph, node.inputs[0]) for _, node in pairs)
    for layer, node in pairs:
        evidence = _evidence(graph, node.inputs[0], beside_bits=bits)
        by_design = rectified and not bits and evidence is not Evidence.BOUNDED
        if evidence is not None and not by_design:
            found.append(_suspect(graph, layer, node, evidence))
    return tuple(found)


def _sums_reals(graph: Graph, layer: LayerReport, node: Node) -> bool:
    """Whether a layer has binary weights on real inputs that come of another layer.

    Box filters, such as the one that makes XNOR-Net's kappa, are meant to read reals.
    """
    if layer.arithmetic is not Arithmetic.SIGNS or layer.levels < 2:
        return False
    return any(isinstance(above.op, Conv) for above in _way(graph, node.inputs[0]))


def _suspect(graph: Graph, layer: LayerReport, node: Node, evidence: Evidence) -> Suspect:
    x = node.inputs[0]
    maker = _maker(graph, x)
    fed_by = f'{maker.op.name} "{printable(maker.origin[0])}"'
    others = [n for n in graph.consumers[x] if n.name != node.name]
    shared = dict.fromkeys(printable(n.origin[0]) for n in others if n.origin != node.origin)
    return Suspect(
        layer.title, layer.name, node.output, printable(x), fed_by, evidence, tuple(shared)
    )


def _evidence(graph: Graph, x: str, *, beside_bits: bool) -> Evidence | None:
    """Return what speaks for a sign that was lost behind the tensor x, if anything does."""
    way = [node for node in _way(graph, x) if not isinstance(node.op, Conv)]
    if any(_quantises(graph, node) for node in way) or _is_averaged(graph, x):
        return None
    low, high = _bounds(graph, x)
    if low >= 0 or high <= 0:
        return None
    if np.isfinite(low) and np.isfinite(high):
        return Evidence.BOUNDED
    if all(_is_affine(node) for node in way):
        return Evidence.NO_ACTIVATION
    if _is_normalised(graph, x):
        return Evidence.NORMALISED
    return Evidence.BESIDE_BITS if beside_bits else None


def _way(graph: Graph, x: str) -> list[Node]:
    """Return the nodes that x is computed by, up to the layers before, these included."""
    found: dict[str, Node] = {}
    waiting = [x]
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found[node.name] = node
        if not isinstance(node.op, Conv):
            waiting += graph.variables(node)
    return list(found.values())


def _maker(graph: Graph, x: str) -> Node:
    """Return what computes the elements of x, which some node moves at the most."""
    node = graph.producers[x]
    while isinstance(node.op, Movement | MaxPool) and node.inputs[0] in graph.producers:
        node = graph.producers[node.inputs[0]]
    return node


def _quantises(graph: Graph, node: Node) -> bool:
    """Whether a node's result jumps: then a quantiser is there, whatever it was meant to be."""
    match node.op:
        case ew.Sign() | ew.Round() | ew.Floor() | ew.Ceil():
            return True
        case ew.Where():
            return all(map(graph.is_constant, node.inputs[1:]))
        case ew.Cast():
            return graph.types[node.inputs[0]].element.dtype == np.bool_
        case _:
            return False


def _is_affine(node: Node) -> bool:
    """Whether a node is no activation function: it scales, adds, normalises, pools or moves."""
    kinds = (ew.Identity, ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Neg, ew.Sqrt, ew.BatchNormalization)
    return isinstance(node.op, (*kinds, Movement, Pooling))


def _is_normalised(graph: Graph, x: str) -> bool:
    """Whether x is the result of a BatchNorm, but for what scales, moves or pools it."""
    node = graph.producers.get(x)
    while node is not None and _is_affine(node) and len(graph.variables(node)) == 1:
        if isinstance(node.op, ew.BatchNormalization):
            return True
        node = graph.producers.get(graph.variables(node)[0])
    return False


def _is_averaged(graph: Graph, x: str) -> bool:
    """Whether x holds means over whole images, which are real whatever they are means of."""
    node = _maker(graph, x)
    if not isinstance(node.op, AveragePool | ReduceMean):
        return False
    return all(size == 1 for size in graph.types[node.output].shape[2:])


def _is_rectified(graph: Graph, x: str) -> bool:
    low, high = _bounds(graph, x)
    return low >= 0 or high <= 0


def _bounds(graph: Graph, name: str) -> tuple[float, float]:
    """Return bounds on a tensor that hold whatever the layers before compute."""
    node = graph.producers.get(name)
    if node is not None and isinstance(node.op, Movement | MaxPool | AveragePool):
        parts = [_bounds(graph, operand) for operand in graph.variables(node)]
        parts += [(node.op.value, node.op.value)] if isinstance(node.op, Pad) else []
        return min(low for low, _ in parts), max(high for _, high in parts)
    ranges = [
        range_of(chain, *everything(graph.types[chain.root].element))
        for chain in chains_to(graph, name)
    ]
    return (
        max((float(low.min()) for low, _ in ranges), default=-np.inf),
        min((float(high.max()) for _, high in ranges), default=np.inf),
    )
