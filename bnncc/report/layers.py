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
from bnncc.ir.ops.kernels import Linear, RealConv, SignSum, XnorConv
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Movement
from bnncc.ir.types import Element, PackedChannels, TensorType
from bnncc.ir.window import Axis
from bnncc.pipeline import Lowered

__all__ = ["Arithmetic", "LayerReport", "layer_reports"]


class Arithmetic(str, enum.Enum):
    """What a multiply-accumulate of a layer is."""

    BITS = "bits"
    """XNOR and popcount."""
    SIGNS = "signs"
    """An addition of +-x, x being real: binary weights, packed."""
    REALS = "reals"
    """A multiplication and an addition in float32."""


_STORED = {Element.BIPOLAR: "bits", Element.TERNARY: "levels", Element.I32: "integers"}


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
        activations: what it reads: "bipolar", "ternary", "u8" or "f32".
        arithmetic: what its multiply-accumulates are.
        reason: why they are not on bits, "" if they are.
        kernel: the micro-kernel.
        macs_per_word: of bits, how many one XNOR and popcount of a word does; 0 otherwise.
        stores: what its epilogue stores: "reals", "integers", "bits", "levels" (-1, 0, +1).
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
        module, _, _ = self.parameter.rpartition(".")
        return module or self.name


def layer_reports(
    source: Graph, lowered: Lowered, parameters: Mapping[str, str]
) -> tuple[LayerReport, ...]:
    """Return a row for each linear layer of the source that is still there, in order."""
    uses = Counter(node.origin[0] for node in source.nodes if isinstance(node.op, Conv))
    own = {name: parameter for name, parameter in parameters.items() if uses[name] == 1}
    return tuple(
        _layer(source, lowered, node, kernel, own.get(node.origin[0], ""))
        for node, kernel in _matched(source, lowered.graph)
    )


def _matched(source: Graph, packed: Graph) -> Iterator[tuple[Node, Node]]:
    """Yield each linear node of the source with its kernel; some of them nobody needed.

    A kernel's origin starts with its layer's own, and goes on with what was fused with it: never
    another layer. Names need not be unique, though; layers that share one keep their order.
    """
    kernels = [node for node in packed.nodes if isinstance(node.op, Linear)]
    for node in source.nodes:
        if isinstance(node.op, Conv):
            found = next((kernel for kernel in kernels if _computes(source, kernel, node)), None)
            if found is not None:
                kernels.remove(found)
                yield node, found


def _computes(source: Graph, kernel: Node, node: Node) -> bool:
    """Whether a kernel has a layer's name and size; a dense layer's window may be a whole image."""
    assert isinstance(kernel.op, Linear)  # the caller asked
    channels, *rest = source.types[node.inputs[1]].shape
    return (
        kernel.origin[: len(node.origin)] == node.origin
        and kernel.op.channels == channels
        and kernel.op.depth * kernel.op.window.taps == math.prod(rest)
    )


def _layer(
    source: Graph, lowered: Lowered, node: Node, kernel: Node, parameter: str
) -> LayerReport:
    op, types = kernel.op, lowered.graph.types
    assert isinstance(op, Linear)  # _matched asked
    x, result = types[kernel.inputs[0]], types[kernel.outputs[0]]
    weights = source.types[node.inputs[1]]
    k = op.depth * op.window.taps
    tables = [kernel.inputs[1]]
    if isinstance(op, XnorConv) and op.zeros:
        tables.append(kernel.inputs[op.own_operands - 1])
    stored = [_STORED.get(store.to, "reals") for store in op.epilogue.stores]
    return LayerReport(
        name=printable(node.origin[0]),
        parameter=printable(parameter),
        shape=_shape_text(source, node),
        k=k,
        channels=op.channels,
        groups=op.groups,
        pixels=result.size // op.channels,
        macs=result.size * k,
        weights="real" if isinstance(op, RealConv) else "binary",
        levels=_levels(lowered.graph, kernel, op),
        activations=x.element.value,
        arithmetic=_arithmetic(op),
        reason="" if isinstance(op, XnorConv) else _reason(source, lowered, node, op),
        kernel=op.kernel,
        macs_per_word=_macs_per_word(op, x),
        stores=tuple(dict.fromkeys(stored)),
        shortcuts=op.epilogue.variables,
        source_bytes=weights.nbytes,
        packed_bytes=sum(types[name].nbytes for name in tables),
    )


def _arithmetic(op: Linear) -> Arithmetic:
    match op:
        case XnorConv():
            return Arithmetic.BITS
        case SignSum():
            return Arithmetic.SIGNS
        case _:
            return Arithmetic.REALS


def _levels(packed: Graph, kernel: Node, op: Linear) -> int:
    """Return the most values of a channel in the first block, within 2^-16 of its largest."""
    if isinstance(op, XnorConv):
        return 3 if op.zeros else sum(op.parts) + 1
    weights = packed.constants[kernel.inputs[1]]
    if isinstance(op, SignSum):
        ones = int(np.unpackbits(weights.view(np.uint8)).sum())
        return 2 if 0 < ones < op.channels * op.depth * op.window.taps else 1
    block = weights[0, :, : op.channels // op.groups]
    unit = np.maximum(np.abs(block).max(axis=0), np.finfo(np.float32).tiny)
    steps = np.rint(block.astype(np.float64) / unit * 2**16)
    return max(np.unique(lane).size for lane in steps.T)


def _macs_per_word(op: Linear, x: TensorType) -> float:
    """Return how many products one word holds, all planes taken together.

    Channels of several groups lie side by side only where groups fill whole words.
    """
    if not isinstance(x.layout, PackedChannels):
        return 0.0
    words = -(-op.depth // x.layout.word_bits)
    parts = len(op.parts) if isinstance(op, XnorConv) else 1
    return op.depth / (words * x.layout.planes * parts)


def _reason(source: Graph, lowered: Lowered, node: Node, op: Linear) -> str:
    """Return why a layer's sums are not sums of bits."""
    refusals = [refusal for refusal in lowered.refusals if refusal.origin == node.origin]
    refusals.sort(key=lambda refusal: refusal.node != node.name)  # passes may rename nodes
    if refusals:
        return refusals[0].reason
    if isinstance(op, RealConv):
        return "its weights are real"
    makers = _makers(source, node.inputs[0])
    if not makers or isinstance(makers[0].op, Movement | MaxPool):
        return "its input is the model's own, in float; --input uint8:SCALE,OFFSET takes bytes"
    return f"its input is real, made by {', '.join(maker.op.name for maker in makers)}"


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
