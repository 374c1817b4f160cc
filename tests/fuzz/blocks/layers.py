"""Linear layers: convolutions, transposed ones and dense layers, of weights of all kinds."""

from __future__ import annotations

from math import prod

import numpy as np

from tests.fuzz.blocks import quantisers, weights
from tests.fuzz.blocks.moves import flatten
from tests.fuzz.blocks.norms import tame
from tests.fuzz.blocks.signs import is_bits, sign
from tests.fuzz.blocks.weights import Weights
from tests.fuzz.blocks.window import Window
from tests.fuzz.net import Net

__all__ = [
    "MOST_MACS",
    "adabin",
    "binary_conv",
    "binary_dense",
    "binary_transposed",
    "conv",
    "convolution",
    "dense",
    "dense_layer",
    "depthwise",
    "factorised",
    "few_bits_conv",
    "few_bits_dense",
    "pointwise",
    "transposed",
]

MOST_MACS = 400_000


# --- Convolutions ---------------------------------------------------------------------------------


def conv(net: Net) -> None:
    """A convolution of real weights."""
    convolution(net, weights.real)


def binary_conv(net: Net) -> None:
    """A convolution of binary weights, mostly of signs."""
    _mostly_signs(net)
    convolution(net, weights.binary)


def few_bits_conv(net: Net) -> None:
    """A convolution of few levels by weights of few values."""
    if net.chance(0.8):
        quantisers.quantise(net)
    convolution(net, weights.any_few)


def adabin(net: Net) -> None:
    """AdaBin: weights a +- b, of two levels that are not +-1, with zero padding mostly."""
    if net.chance(0.8):
        quantisers.offset_levels(net)
    convolution(net, weights.two_valued)


def depthwise(net: Net) -> None:
    """A convolution of each channel by itself, of any weights."""
    if net.chance(0.5):
        sign(net)
    kinds = (weights.binary, weights.binary, weights.real, weights.any_few)
    convolution(net, net.pick(kinds), groups=net.channels)


def pointwise(net: Net) -> None:
    """A convolution of one tap."""
    if not net.spatial:
        dense(net)
        return
    kind = net.pick((weights.binary, weights.real, weights.any_few))
    net.follow("Conv", kind(net, (net.width(), net.channels, *[1] * len(net.spatial))))
    tame(net)


def _mostly_signs(net: Net) -> None:
    """Take signs of `x`, unless it holds some already, or now and then."""
    if not is_bits(net.values[net.x]) and net.chance(0.7):
        sign(net)


def convolution(net: Net, kind: Weights, groups: int = 0) -> None:
    """Append a convolution, or a dense layer where there is no image."""
    if not net.spatial:
        dense_layer(net, kind)
        return
    window = Window(net)
    groups = groups or _groups(net)
    each = net.channels // groups
    channels = groups * _outputs(net, window.kernel, groups)
    filters = kind(net, (channels, each, *window.kernel))
    bias = [net.constant(net.reals(channels))] if net.chance(0.3) else []
    pads = True
    if any(window.before + window.after) and net.chance(0.4):
        _pad(net, window, net.pick((-1.0, 0.0, 1.0)))
        pads = False
    attributes = window.attributes(pads=pads)
    if pads and net.chance(0.15):
        del attributes["pads"]
        attributes["auto_pad"] = net.pick(("SAME_UPPER", "SAME_LOWER", "VALID"))
        spans = [window.reach(a) < length for a, length in enumerate(net.spatial)]
        if attributes["auto_pad"] == "VALID" and not all(spans):
            attributes["auto_pad"] = "SAME_UPPER"
        attributes["dilations"] = [1] * len(net.spatial)
    net.follow("Conv", filters, *bias, group=groups, **attributes)
    tame(net)


def _outputs(net: Net, kernel: list[int], groups: int) -> int:
    """Return how many channels a group makes, at a cost that stays small."""
    taps = prod(kernel) * (net.channels // groups) * prod(net.spatial)
    return max(1, min(net.width() // groups, MOST_MACS // taps // groups))


def _groups(net: Net) -> int:
    divisors = [d for d in range(1, net.channels + 1) if net.channels % d == 0]
    return net.pick(divisors) if net.chance(0.25) else 1


def _pad(net: Net, window: Window, value: float) -> None:
    if net.opset >= 18 and net.chance(0.3):
        axes = list(range(2, len(net.shape)))
        operands = [net.constant([*window.before, *window.after], np.int64), net.constant(value)]
        net.follow("Pad", *operands, net.constant(axes, np.int64), mode="constant")
        return
    pads = [0, 0, *window.before, 0, 0, *window.after]
    operands = [net.constant(pads, np.int64)]
    if value or net.chance(0.5):
        operands.append(net.constant(value))
    net.follow("Pad", *operands, mode="constant")


def factorised(net: Net) -> None:
    """XNOR-Net++: a binary convolution times scales of each channel, row and column."""
    sign(net)
    convolution(net, weights.binary)
    if not net.spatial:
        return
    rank, scale = len(net.shape), ""
    for axis in range(1, rank):
        if axis > 1 and net.chance(0.2):
            continue
        values = net.random.choice(np.float32([0.25, 0.5, 1, 2]), net.shape[axis])
        if not net.dyadic:
            values = net.random.uniform(0.2, 2, net.shape[axis]).astype(np.float32)
        row = net.constant(values.reshape([-1 if a == axis else 1 for a in range(1, rank)]))
        scale = net.node("Mul", [scale, row]) if scale else row
    net.follow("Mul", scale)
    tame(net)


# --- Transposed convolutions ----------------------------------------------------------------------


def transposed(net: Net) -> None:
    """A transposed convolution of real weights."""
    _transposed(net, weights.real)


def binary_transposed(net: Net) -> None:
    """A transposed convolution of weights of few values, mostly of signs."""
    _mostly_signs(net)
    _transposed(net, net.pick((weights.binary, weights.binary, weights.any_few)))


def _transposed(net: Net, kind: Weights) -> None:
    if not net.spatial or max(net.spatial) > 16:
        return
    axes = len(net.spatial)
    kernel = [net.pick((1, 2, 2, 3, 4)) for _ in range(axes)]
    strides = [net.pick((1, 2, 2, 3)) for _ in range(axes)]
    dilations = [net.pick((1, 1, 1, 2)) for _ in range(axes)]
    pads = [net.between(0, d * (k - 1)) for k, d in zip(kernel, dilations, strict=True)] * 2
    extra = [net.between(0, stride - 1) for stride in strides]
    for axis, length in enumerate(net.spatial):
        whole = strides[axis] * (length - 1) + extra[axis] + dilations[axis] * (kernel[axis] - 1)
        if whole + 1 <= pads[axis] + pads[axes + axis]:
            pads[axis] = pads[axes + axis] = 0
    groups = _groups(net)
    each = _outputs(net, kernel, groups)
    filters = kind(net, (net.channels, each, *kernel))
    bias = [net.constant(net.reals(groups * each))] if net.chance(0.3) else []
    net.follow(
        "ConvTranspose",
        filters,
        *bias,
        group=groups,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=extra,
    )
    tame(net)


# --- Dense layers ---------------------------------------------------------------------------------


def dense(net: Net) -> None:
    """A dense layer: of signs and binary weights mostly."""
    if net.chance(0.6):
        binary_dense(net)
    else:
        dense_layer(net, weights.real)


def binary_dense(net: Net) -> None:
    """A dense layer of binary weights, mostly of signs."""
    _mostly_signs(net)
    dense_layer(net, weights.binary)


def few_bits_dense(net: Net) -> None:
    """A dense layer of few levels by weights of few values."""
    if net.chance(0.8):
        quantisers.quantise(net)
    dense_layer(net, weights.any_few)


def dense_layer(net: Net, kind: Weights) -> None:
    """Append a dense layer of all of a sample."""
    flatten(net)
    channels = net.width(max(1, MOST_MACS // net.channels))
    rows = kind(net, (channels, net.channels))
    if net.chance(0.5):
        bias = [net.constant(net.reals(channels))] if net.chance(0.5) else []
        scales = {}
        if net.chance(0.15):
            scales = {"alpha": net.pick((0.5, 2.0, -1.0)), "beta": net.pick((1.0, 0.5))}
        net.follow("Gemm", rows, *bias, transB=1, **scales)
    else:
        net.follow("MatMul", net.node("Transpose", [rows], perm=[1, 0]))
        if net.chance(0.3):
            net.follow("Add", net.constant(net.reals(channels)))
    tame(net)
