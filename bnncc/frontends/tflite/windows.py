"""Convolutions and pools: channels last in the file, channels first in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.frontends.onnx.report import Refusal, dimensions
from bnncc.frontends.tflite.site import CHANNELS_FIRST, CHANNELS_LAST, Site, Value
from bnncc.ir.types import Array

__all__ = ["Sliding", "conv", "depthwise_conv", "fully_connected", "pool"]

_SAME, _VALID = 0, 1


@dataclass(frozen=True)
class Sliding:
    """How a window slides over an image, height before width.

    Attributes:
        kernel, strides, dilations: each a pair, at least 1.
        before, after: what SAME padding adds.
        outputs: how many places there are.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    outputs: tuple[int, int]

    @classmethod
    def of(
        cls,
        image: Value,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        dilations: tuple[int, int],
        padding: int,
    ) -> Sliding:
        """Return how TensorFlow slides a window over an image [1, H, W, C].

        SAME gives ceil(size / stride) places, and what is odd in the padding goes behind.

        Raises:
            Refusal: BNN003 it does not slide at all.
        """
        if len(image.shape) != 4:
            raise Refusal("BNN008", f"its input {dimensions(image.shape)} is not an image")
        if min(*kernel, *strides, *dilations) < 1 or padding not in (_SAME, _VALID):
            raise Refusal("BNN003", "its window, strides or padding are out of range")
        before, after, outputs = [], [], []
        axes = zip(image.shape[1:3], kernel, strides, dilations, strict=True)
        for size, taps, stride, dilation in axes:
            reach = (taps - 1) * dilation + 1
            count = -(-size // stride) if padding == _SAME else (size - reach) // stride + 1
            if count < 1:
                raise Refusal("BNN003", f"its window of {reach} does not fit into {size} pixels")
            around = max((count - 1) * stride + reach - size, 0) if padding == _SAME else 0
            before.append(around // 2)
            after.append(around - around // 2)
            outputs.append(count)
        pairs = ((a[0], a[1]) for a in (before, after, outputs))
        return cls(kernel, strides, dilations, *pairs)

    @property
    def is_padded(self) -> bool:
        """Whether it reaches over an edge."""
        return any((*self.before, *self.after))

    @property
    def attributes(self) -> dict[str, Sequence[int]]:
        """Kernel, strides and padding as attributes of an ONNX pool."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": (*self.before, *self.after),
        }


def conv(site: Site) -> None:
    """CONV_2D: filters [O, KH, KW, C / groups]."""
    weights = site.array(1)
    if weights.ndim != 4:
        raise Refusal("BNN003", f"its filters have the shape {dimensions(weights.shape)}")
    _convolved(site, "Conv2DOptions", weights.transpose(0, 3, 1, 2))


def depthwise_conv(site: Site) -> None:
    """DEPTHWISE_CONV_2D: filters [1, KH, KW, C * multiplier], a channel's results side by side."""
    weights = site.array(1)
    if weights.ndim != 4 or weights.shape[0] != 1:
        raise Refusal("BNN003", f"its filters have the shape {dimensions(weights.shape)}")
    _convolved(site, "DepthwiseConv2DOptions", weights.transpose(3, 0, 1, 2))


def _convolved(site: Site, kind: str, weights: Array) -> None:
    """Emit a convolution by weights [O, C / groups, KH, KW]."""
    image = site.value(0)
    dilations = tuple(site.option(kind, f"Dilation{side}Factor") for side in "HW")
    window = Sliding.of(
        image,
        (weights.shape[2], weights.shape[3]),
        (site.option(kind, "StrideH"), site.option(kind, "StrideW")),
        (dilations[0], dilations[1]),
        site.option(kind, "Padding"),
    )
    operands = [site.transposed(image.name, CHANNELS_FIRST), site.constant("weights", weights)]
    if site.has(2):
        operands.append(site.constant("bias", biases(site, 2, len(weights))))
    result = site.emit(
        "Conv",
        operands,
        dilations=window.dilations,
        group=groups_of(image.shape[3], weights),
        **window.attributes,
    )
    result = site.transposed(result, CHANNELS_LAST)
    result = site.activated(result, site.option(kind, "FusedActivationFunction"))
    site.finish(result, (1, *window.outputs, len(weights)))


def groups_of(channels: int, weights: Array) -> int:
    """Return how many groups of channels weights [O, C / groups, ...] make.

    Raises:
        Refusal: BNN003 none fit.
    """
    groups, rest = divmod(channels, weights.shape[1])
    if rest or groups < 1 or len(weights) % groups:
        what = f"its {len(weights)} filters of {weights.shape[1]} channels do not fit {channels}"
        raise Refusal("BNN003", what)
    return int(groups)


def biases(site: Site, place: int, count: int) -> Array:
    """Return a constant operand with a value for each channel, float32 [count].

    Raises:
        Refusal: BNN003 it has another shape; further as `Site.array`.
    """
    values = site.array(place)
    if values.shape != (count,):
        what = f"its operand {place} has the shape {dimensions(values.shape)}"
        raise Refusal("BNN003", what, why=f"there are {count} channels")
    return values


def fully_connected(site: Site) -> None:
    """FULLY_CONNECTED: weights [O, K], the input taken as rows of K."""
    kind = "FullyConnectedOptions"
    x, weights = site.value(0), site.array(1)
    if site.option(kind, "WeightsFormat"):
        raise Refusal("BNN008", "its weights are stored shuffled")
    if weights.ndim != 2 or int(np.prod(x.shape)) != weights.shape[1]:
        what = f"its weights {dimensions(weights.shape)} do not fit {dimensions(x.shape)}"
        raise Refusal("BNN003", what)
    name = x.name
    if x.shape != (1, weights.shape[1]):
        shape = site.constant("shape", np.array([1, weights.shape[1]], np.int64))
        name = site.emit("Reshape", [name, shape])
    operands = [name, site.constant("weights", weights)]
    if site.has(2):
        operands.append(site.constant("bias", biases(site, 2, len(weights))))
    result = site.emit("Gemm", operands, transB=1)
    shape_out: tuple[int, ...] = (1, len(weights))
    if site.option(kind, "KeepNumDims") and len(x.shape) != 2:
        shape_out = (*x.shape[:-1], len(weights))
        kept = site.constant("kept", np.array(shape_out, np.int64))
        result = site.emit("Reshape", [result, kept])
    result = site.activated(result, site.option(kind, "FusedActivationFunction"))
    site.finish(result, shape_out)


def pool(op: str) -> Callable[[Site], None]:
    """Return the translation of a pool by an ONNX operator; an average leaves padding out."""

    def translate(site: Site) -> None:
        kind = "Pool2DOptions"
        image = site.value(0)
        window = Sliding.of(
            image,
            (site.option(kind, "FilterHeight"), site.option(kind, "FilterWidth")),
            (site.option(kind, "StrideH"), site.option(kind, "StrideW")),
            (1, 1),
            site.option(kind, "Padding"),
        )
        result = pooled(site, op, image, window)
        result = site.activated(result, site.option(kind, "FusedActivationFunction"))
        site.finish(result, (1, *window.outputs, image.shape[3]))

    return translate


def pooled(site: Site, op: str, image: Value, window: Sliding) -> str:
    """Emit a pool of an image, and return its result's name, channels last."""
    first = site.transposed(image.name, CHANNELS_FIRST)
    return site.transposed(site.emit(op, [first], **window.attributes), CHANNELS_LAST)
