"""One row for each linear layer of the source model, and the kernel that it became."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.errors import printable
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.kernels import Linear, RealConv, SignSum, XnorConv
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Movement
from bnncc.ir.ops.shared_sums import ClassSums, SharedConv, SharedSums, Spread
from bnncc.ir.types import Element, PackedChannels, TensorType
from bnncc.ir.window import Axis
from bnncc.pipeline import Lowered

__all__ = ["Arithmetic", "LayerReport", "layer_reports", "matched_layers", "titles"]


class Arithmetic(str, enum.Enum):
    """What a multiply-accumulate of a layer is."""

    BITS = "bits"
    """XNOR and popcount."""
    SIGNS = "signs"
    """An addition of +-x, x being real: binary weights, packed."""
    REALS = "reals"
    """A multiplication and an addition in float32."""


_STORED = {
    Element.BIPOLAR: "bits",
    Element.TERNARY: "levels",
    Element.I32: "integers",
    **{element: "codes" for element in Element if element.code_bits},
}


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of the source model.

    Attributes:
        name: its node in the source model.
        parameter: what the source model calls its weights, "" if that cannot be said.
        shape: window, channels, groups and pixels, to be read by people.
        k: the reduction length: taps of the window times channels of a group.
        channels, groups, pixels: of the output.
        macs: multiply-accumulates a sample, those outside of a padded image included.
        weights: "binary" or "real".
        levels: how many values an output channel's weights have, at most, up to rounding, in the
            first block of channels; 1 for sums of x itself, such as a box filter.
        activations: what it reads: "bipolar", "ternary", "u1" to "u4", "u8" or "f32".
        arithmetic: what its multiply-accumulates are.
        reason: why they are not on bits, "" if they are.
        kernel: the micro-kernel, or how sums are shared between channels.
        macs_per_word: of bits, how many one XNOR and popcount of a word does, or how many pixels
            a word of a plane holds; 0 otherwise.
        stores: what its epilogue stores: "reals", "integers", "bits", "levels" (-1, 0, +1),
            "codes" (of up to 4 bits).
        shortcuts: how many other tensors its epilogue reads.
        source_bytes, packed_bytes: of its weights, before and after.
    """

    name: str
    parameter: str
    shape: str
    k: int
    channels: int
    groups: int
    pixels: int
    macs: int
    weights: str
    levels: int
    activations: str
    arithmetic: Arithmetic
    reason: str
    kernel: str
    macs_per_word: float
    stores: tuple[str, ...]
    shortcuts: int
    source_bytes: int
    packed_bytes: int

    @property
    def title(self) -> str:
        """The layer in the user's own words: the module that holds its weights, or its node."""
        return _title(self.parameter, self.name)


def layer_reports(
    source: Graph, lowered: Lowered, parameters: Mapping[str, str]
) -> tuple[LayerReport, ...]:
    """Return a row for each linear layer of the source that is still there, in order."""
    own = _own_parameters(source, parameters)
    return tuple(
        _layer(source, lowered, node, kernel, own.get(node.origin[0], ""))
        for node, kernel in matched_layers(source, lowered.graph)
    )


def titles(source: Graph, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return what the user calls each linear layer of the source, by the tensor of its sums."""
    own = _own_parameters(source, parameters)
    return {
        node.output: _title(printable(own.get(node.origin[0], "")), printable(node.origin[0]))
        for node in source.nodes
        if isinstance(node.op, Conv)
    }


def _title(parameter: str, node: str) -> str:
    return parameter.rpartition(".")[0] or node


def _own_parameters(source: Graph, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of nodes that have a name of their own."""
    uses = Counter(node.origin[0] for node in source.nodes if isinstance(node.op, Conv))
    return {name: parameter for name, parameter in parameters.items() if uses[name] == 1}


def matched_layers(source: Graph, packed: Graph) -> Iterator[tuple[Node, Node]]:
    """Yield each linear node of the source with its kernel; some of them nobody needed.

    A kernel's origin starts with its layer's own, and goes on with what was fused with it: never
    another layer. Names need not be unique, though; layers that share one keep their order.
    """
    kernels = [node for node in packed.nodes if isinstance(node.op, Linear | ClassSums)]
    for node in source.nodes:
        if isinstance(node.op, Conv):
            found = next((kernel for kernel in kernels if _computes(source, kernel, node)), None)
            if found is not None:
                kernels.remove(found)
                yield node, found


def _computes(source: Graph, kernel: Node, node: Node) -> bool:
    """Whether a kernel has a layer's name and size; a dense layer's window may be a whole image."""
    assert isinstance(kernel.op, Linear | ClassSums)  # the caller asked
    channels, *rest = source.types[node.inputs[1]].shape
    return (
        kernel.origin[: len(node.origin)] == node.origin
        and kernel.op.channels == channels
        and _reduction(kernel.op) == math.prod(rest)
    )


def _reduction(op: Linear | ClassSums) -> int:
    """Return K, the reduction length."""
    return op.depth if isinstance(op, ClassSums) else op.depth * op.window.taps


def _layer(
    source: Graph, lowered: Lowered, node: Node, kernel: Node, parameter: str
) -> LayerReport:
    op, graph = kernel.op, lowered.graph
    assert isinstance(op, Linear | SharedSums | SharedConv)  # matched_layers asked
    assert isinstance(node.op, Conv)  # likewise
    x, result = graph.types[_read(graph, kernel)], graph.types[kernel.outputs[0]]
    weights = source.types[node.inputs[1]]
    k = _reduction(op)
    on_bits = isinstance(op, XnorConv | ClassSums)
    made = [graph.types[name].element for name in kernel.outputs]
    stored = [_STORED.get(element, "reals") for element in made]
    return LayerReport(
        name=printable(node.origin[0]),
        parameter=printable(parameter),
        shape=_shape_text(source, node),
        k=k,
        channels=op.channels,
        groups=node.op.groups,
        pixels=result.size // op.channels,
        macs=result.size * k,
        weights="real" if isinstance(op, RealConv) else "binary",
        levels=_levels(graph, kernel, op),
        activations=x.element.value,
        arithmetic=_arithmetic(op),
        reason="" if on_bits else _reason(source, lowered, node, op),
        kernel=_kernel_name(op),
        macs_per_word=_macs_per_word(op, x),
        stores=tuple(dict.fromkeys(stored)),
        shortcuts=0 if isinstance(op, SharedSums) else op.epilogue.variables,
        source_bytes=weights.nbytes,
        packed_bytes=sum(graph.types[name].nbytes for name in _weight_tables(kernel, op)),
    )


def _read(graph: Graph, kernel: Node) -> str:
    """Return the tensor that a layer reads, before copies of it are made for its taps."""
    maker = graph.producers.get(kernel.inputs[0])
    return maker.inputs[0] if maker and isinstance(maker.op, Spread) else kernel.inputs[0]


def _weight_tables(kernel: Node, op: Linear | ClassSums) -> tuple[str, ...]:
    """Return the constants that hold a layer's weights."""
    if isinstance(op, ClassSums):
        return kernel.inputs[1:3]
    if isinstance(op, XnorConv) and op.zeros:
        return (kernel.inputs[1], kernel.inputs[op.own_operands - 1])
    return (kernel.inputs[1],)


def _kernel_name(op: Linear | ClassSums) -> str:
    if not isinstance(op, ClassSums):
        return op.kernel
    parts = [f"shared sums of {op.k}", op.slices]
    parts += [f"rows copied by {op.taps.band}"] if op.taps.band else []
    parts += ["lists built"] if op.built else []
    return ", ".join(parts)


def _arithmetic(op: Linear | ClassSums) -> Arithmetic:
    match op:
        case XnorConv() | ClassSums():
            return Arithmetic.BITS
        case SignSum():
            return Arithmetic.SIGNS
        case _:
            return Arithmetic.REALS


def _levels(packed: Graph, kernel: Node, op: Linear | ClassSums) -> int:
    """Return the most values of a channel in the first block, within 2^-16 of its largest."""
    if isinstance(op, ClassSums | XnorConv):
        return op.levels
    weights = packed.constants[kernel.inputs[1]]
    if isinstance(op, SignSum):
        ones = int(np.unpackbits(weights.view(np.uint8)).sum())
        return 2 if 0 < ones < op.channels * op.depth * op.window.taps else 1
    block = weights[0, :, : op.channels // op.groups]
    unit = np.maximum(np.abs(block).max(axis=0), np.finfo(np.float32).tiny)
    steps = np.rint(block.astype(np.float64) / unit * 2**16)
    return max(np.unique(lane).size for lane in steps.T)


def _macs_per_word(op: Linear | ClassSums, x: TensorType) -> float:
    """Return how many products one word holds, all planes taken together.

    Channels of several groups lie side by side only where groups fill whole words.
    """
    if isinstance(op, ClassSums):
        return math.prod(op.taps.outputs) / (op.taps.plane * len(op.taps.pads) * op.parts)
    if not isinstance(x.layout, PackedChannels):
        return 0.0
    words = -(-op.depth // x.layout.word_bits)
    parts = len(op.parts) if isinstance(op, XnorConv) else 1
    return op.depth / (words * x.layout.planes * parts)


def _reason(source: Graph, lowered: Lowered, node: Node, op: Linear | ClassSums) -> str:
    """Return why a layer's sums are not sums of bits."""
    refusals = [refusal for refusal in lowered.refusals if refusal.origin == node.origin]
    refusals.sort(key=lambda refusal: refusal.node != node.name)  # passes may rename nodes
    if refusals:
        return refusals[0].reason
    if isinstance(op, RealConv):
        return "its weights are real"
    makers = _makers(source, node.inputs[0])
    if _comes_of_signed_bytes(source, node.inputs[0]):
        return "its input is int8, summed as numbers; uint8 would run on bitplanes"
    if not makers or isinstance(makers[0].op, Movement | MaxPool):
        return "its input is the model's own, in float; --input uint8:SCALE,OFFSET takes bytes"
    return f"its input is real, made by {', '.join(maker.op.name for maker in makers)}"


def _comes_of_signed_bytes(source: Graph, name: str) -> bool:
    """Whether a tensor is an int8 input of the model, decoded and moved at the most."""
    node = source.producers.get(name)
    while node is not None and isinstance(node.op, Elementwise | Movement | MaxPool):
        variables = source.variables(node)
        if len(variables) != 1:
            return False
        name = variables[0]
        node = source.producers.get(name)
    return source.types[name].element is Element.I8


def _makers(source: Graph, name: str) -> list[Node]:
    """Return what computes a tensor's elements, if anything does, then what moves them."""
    makers: list[Node] = []
    while (node := source.producers.get(name)) is not None:
        makers.append(node)
        if not isinstance(node.op, Movement | MaxPool):
            break
        name = node.inputs[0]
    return makers[::-1]


def _shape_text(source: Graph, node: Node) -> str:
    """Return a layer's attributes in a line, such as `3x3/2 pad 1, 64 -> 128, 28x28`."""
    assert isinstance(node.op, Conv)  # the caller asked
    window, groups = node.op.window, node.op.groups
    x, y = source.types[node.inputs[0]].shape[1], source.types[node.output].shape
    channels = f"{x} -> {y[1]}"
    if groups == x > 1:
        channels = f"{x} depthwise" if x == y[1] else f"{channels} depthwise"
    elif groups > 1:
        channels += f" in {groups} groups"
    if not window.axes:
        return channels
    return f"{_window_text(window.axes)}, {channels}, {'x'.join(map(str, y[2:]))}"


def _window_text(axes: Sequence[Axis]) -> str:
    text = "x".join(str(axis.kernel) for axis in axes)
    if any(axis.stride > 1 for axis in axes):
        text += f"/{_joined([str(axis.stride) for axis in axes])}"
    if any(axis.dilation > 1 for axis in axes):
        text += f" dilation {_joined([str(axis.dilation) for axis in axes])}"
    if any(axis.before or axis.after for axis in axes):
        text += f" pad {_joined([_pad_text(axis) for axis in axes])}"
    return text


def _pad_text(axis: Axis) -> str:
    return str(axis.before) if axis.before == axis.after else f"{axis.before}+{axis.after}"


def _joined(values: Sequence[str]) -> str:
    """Return the values with an x between them, or the one that all of them are."""
    return values[0] if len(set(values)) == 1 else "x".join(values)
