"""Several tensors that meet: shortcuts, concatenations, gates, choices."""

from __future__ import annotations

from math import prod

import numpy as np

from tests.fuzz.blocks import weights
from tests.fuzz.blocks.activations import activation, rprelu
from tests.fuzz.blocks.layers import MOST_MACS, dense
from tests.fuzz.blocks.moves import flatten, shuffle
from tests.fuzz.blocks.norms import affine, batch_norm, tame
from tests.fuzz.blocks.quantisers import quantise
from tests.fuzz.blocks.signs import scaled_sign, shifted_sign, sign
from tests.fuzz.blocks.weights import Weights
from tests.fuzz.blocks.window import Window
from tests.fuzz.net import Net

__all__ = [
    "blend",
    "concat",
    "dense_block",
    "extremes",
    "gate",
    "improvement",
    "kappa",
    "reactnet",
    "residual",
    "two_halves",
]

_MOST_CHANNELS = 70

# --- Shortcuts ------------------------------------------------------------------------------------


def residual(net: Net) -> None:
    """A sign, a convolution and a BatchNorm beside a real shortcut, added."""
    shortcut = net.x
    net.pick((sign, sign, sign, quantise))(net)
    stride = net.pick((1, 1, 2)) if net.spatial else 1
    before = net.channels
    channels = before if stride == 1 or net.chance(0.3) else min(2 * before, _MOST_CHANNELS)
    if _costs_too_much(net, channels):
        return
    kind = weights.any_few if net.chance(0.2) else weights.binary
    _same_conv(net, channels, 3, stride, kind)
    if net.chance(0.8):
        batch_norm(net)
    main, net.x = net.x, shortcut
    if stride > 1:
        _down(net, stride, channels)
    inputs = [main, net.x]
    if net.chance(0.5):
        inputs.reverse()
    net.x = net.node("Add" if net.chance(0.9) else "Sum", inputs)
    if net.chance(0.4):
        activation(net)
    tame(net)


def _costs_too_much(net: Net, channels: int) -> bool:
    return net.channels * channels * prod(net.spatial) * 9 > 4 * MOST_MACS


def _same_conv(net: Net, channels: int, kernel: int, stride: int, kind: Weights) -> None:
    if not net.spatial:
        net.follow("MatMul", net.node("Transpose", [kind(net, (channels, net.channels))]))
        return
    axes = len(net.spatial)
    filters = kind(net, (channels, net.channels, *[kernel] * axes))
    pads = [kernel // 2] * (2 * axes)
    net.follow("Conv", filters, strides=[stride] * axes, pads=pads)


def _down(net: Net, stride: int, channels: int) -> None:
    """The shortcut with fewer pixels, and with more channels if the main path has more."""
    form = net.pick(("stepped", "pooled", "conv"))
    if form == "conv" and channels > net.channels:
        _same_conv(net, channels, 1, stride, weights.real)
        batch_norm(net)
        return
    if form == "pooled":
        _pooled(net, stride)
    else:
        _stepped(net, stride)
    added = channels - net.channels
    if added == 0:
        return
    if added == net.channels and net.chance(0.3):
        net.x = net.node("Concat", [net.x, net.x], axis=1)
    elif form == "pooled" and net.chance(0.5):
        _same_conv(net, channels, 1, 1, weights.real)
    else:
        _zeros_beside(net, added)


def _pooled(net: Net, stride: int) -> None:
    """Means of blocks, those at the end of what there is."""
    lengths = [stride] * len(net.spatial)
    net.follow("AveragePool", kernel_shape=lengths, strides=lengths, ceil_mode=1)


def _stepped(net: Net, stride: int) -> None:
    """x[:, :, ::stride, ::stride]."""
    axes = list(range(2, len(net.shape)))
    starts, ends = [0] * len(axes), [2**31] * len(axes)
    rows = (starts, ends, axes, [stride] * len(axes))
    net.follow("Slice", *(net.constant(row, np.int64) for row in rows))


def _zeros_beside(net: Net, added: int) -> None:
    """Channels of zeros on both sides (ResNet's option A)."""
    left, none = net.between(0, added), [0] * len(net.spatial)
    pads = [0, left, *none, 0, added - left, *none]
    net.follow("Pad", net.constant(pads, np.int64), net.constant(0.0))


def reactnet(net: Net) -> None:
    """RSign, a binary convolution, BatchNorm, the shortcut, RPReLU."""
    shortcut, channels = net.x, net.channels
    if _costs_too_much(net, channels):
        return
    shifted_sign(net)
    _same_conv(net, channels, net.pick((1, 3)), 1, weights.binary)
    batch_norm(net)
    net.x = net.node("Add", [net.x, shortcut])
    rprelu(net)
    tame(net)


def improvement(net: Net) -> None:
    """MeliusNet's: the last channels have the result of a convolution of all of them added."""
    source, channels = net.x, net.channels
    made = net.between(1, channels)
    if _costs_too_much(net, made):
        return
    sign(net)
    _same_conv(net, made, 3, 1, weights.binary)
    batch_norm(net)
    if made == channels:
        net.x = net.node("Add", [net.x, source])
        return
    parts = [([0], [channels - made]), ([channels - made], [2**31])]
    kept, grown = (
        net.node("Slice", [source, *(net.constant(r, np.int64) for r in (*ends, [1]))])
        for ends in parts
    )
    net.x = net.node("Concat", [kept, net.node("Add", [grown, net.x])], axis=1)


def kappa(net: Net) -> None:
    """XNOR-Net's convolution: signs and alpha * sign(W), times the box-filtered mean of |x|."""
    if not net.spatial:
        dense(net)
        return
    if net.chance(0.7):
        batch_norm(net)
    window = Window(net)
    taps = prod(window.kernel) * net.channels * prod(net.spatial)
    channels = max(1, min(net.width(), MOST_MACS // taps))
    mean = net.reduced("ReduceMean", net.node("Abs", [net.x]), [1])
    box = np.full((1, 1, *window.kernel), 1 / prod(window.kernel), np.float32)
    scale = net.node("Conv", [mean, net.constant(box)], **window.attributes())
    sign(net)
    filters = weights.binary(net, (channels, net.channels, *window.kernel))
    net.follow("Conv", filters, **window.attributes())
    net.follow("Mul", scale)
    tame(net)


# --- Side by side ---------------------------------------------------------------------------------


def concat(net: Net) -> None:
    """Branches from one tensor, bits and reals, and perhaps constants, side by side."""
    source = net.x
    branches = []
    kinds = (sign, sign, scaled_sign, activation, affine, quantise, _untouched)
    for _ in range(net.between(2, 3) if net.channels <= 48 else 1):
        net.x = source
        net.pick(kinds)(net)
        branches.append(net.x)
    if net.chance(0.1):
        branches.insert(net.between(0, len(branches)), net.constant(net.reals(*net.shape)))
    axis = 1 if net.chance(0.8) else net.between(1, len(net.shape) - 1)
    net.x = net.node("Concat", branches, axis=axis)


def _untouched(net: Net) -> None:
    """A branch that is the tensor itself."""


def dense_block(net: Net) -> None:
    """BinaryDenseNet's: what a binary convolution makes of a tensor, beside the tensor."""
    for _ in range(net.between(1, 3)):
        source, added = net.x, net.between(1, 16)
        if net.channels + added > _MOST_CHANNELS or _costs_too_much(net, added):
            return
        if net.chance(0.6):
            batch_norm(net)
        sign(net)
        _same_conv(net, added, 3, 1, weights.binary)
        net.x = net.node("Concat", [source, net.x], axis=1)
        tame(net)


def two_halves(net: Net) -> None:
    """ShuffleNet V2's: half of the channels pass, the others go through a layer; then a shuffle."""
    if net.channels < 2:
        return
    each = net.channels // 2
    sizes = net.constant([each, net.channels - each], np.int64)
    kept, net.x = net.results("Split", [net.x, sizes], 2, axis=1)
    if not _costs_too_much(net, net.channels):
        sign(net)
        _same_conv(net, net.channels, net.pick((1, 3)), 1, weights.binary)
        batch_norm(net)
    net.x = net.node("Concat", [kept, net.x], axis=1)
    if net.chance(0.7):
        shuffle(net)


# --- Values of one held against those of another --------------------------------------------------


def gate(net: Net) -> None:
    """Squeeze-and-excite: each channel times a function of all channels' means."""
    if not net.spatial:
        return
    source, channels = net.x, net.channels
    net.follow("GlobalAveragePool")
    inner = max(1, channels // net.pick((1, 2, 4)))
    if net.chance(0.5):
        flatten(net)
        net.follow("Gemm", weights.real(net, (inner, channels)), transB=1)
        net.follow("Relu")
        net.follow("Gemm", weights.real(net, (channels, inner)), transB=1)
        _squashed(net)
        shape = net.constant([1, channels, *[1] * (len(net.values[source].shape) - 2)], np.int64)
        net.follow("Reshape", shape)
    else:
        ones = [1] * len(net.spatial)
        net.follow("Conv", weights.real(net, (inner, channels, *ones)))
        net.follow("Relu")
        net.follow("Conv", weights.real(net, (channels, inner, *ones)))
        _squashed(net)
    net.x = net.node("Mul", [source, net.x])


def _squashed(net: Net) -> None:
    net.follow(net.pick(("Sigmoid", "HardSigmoid", "Tanh")))


def blend(net: Net) -> None:
    """Where of two branches compared with each other."""
    first, second = _two(net)
    op = net.pick(("Greater", "LessOrEqual"))
    net.x = net.node("Where", [net.node(op, [first, second]), second, first])


def extremes(net: Net) -> None:
    """Max, Min, Sum or a product of two branches or three."""
    op = net.pick(("Max", "Min", "Sum", "Mul", "Sub"))
    operands = list(_two(net))
    if op in ("Max", "Min", "Sum") and net.chance(0.3):
        operands.append(net.constant(net.reals(1)))
    net.x = net.node(op, operands)
    tame(net)


def _two(net: Net) -> tuple[str, str]:
    """Return two branches from `x` that have its shape."""
    source, found = net.x, []
    for kinds in ((sign, scaled_sign, affine), (affine, activation, _untouched)):
        net.x = source
        net.pick(kinds)(net)
        found.append(net.x)
    return found[0], found[1]
