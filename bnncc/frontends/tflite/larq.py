"""Larq Compute Engine's operators, which work on packed bits: bit 0 is +1, bit 1 is -1.

In ONNX their tensors hold -1 and +1. Source: larq/compute-engine, tflite/kernels and core (its
portable kernels are the definition: faster ones differ in the sign of -0 and in rounding).
"""

from __future__ import annotations

import math

import numpy as np

from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import Refusal, dimensions
from bnncc.frontends.tflite.site import CHANNELS_FIRST, CHANNELS_LAST, WORD_BITS, Site, Value
from bnncc.frontends.tflite.windows import Sliding, biases, groups_of, pooled
from bnncc.ir.types import Array

__all__ = ["bconv", "bmaxpool", "dequantize_bits", "quantize_bits"]

_OPTIONS = (
    *("channels_in", "dilation_height_factor", "dilation_width_factor"),
    *("fused_activation_function", "pad_values", "padding", "stride_height", "stride_width"),
)


def quantize_bits(site: Site) -> None:
    """LceQuantize: -1 where x < 0, else +1."""
    x = site.value(0)
    result = _signed(site, site.emit("Less", [x.name, site.scalar(0)]))
    site.finish(result, x.shape, is_bits=True)


def _signed(site: Site, condition: str) -> str:
    """Emit -1 where a condition holds, else +1."""
    return site.emit("Where", [condition, site.scalar(-1), site.scalar(1)])


def dequantize_bits(site: Site) -> None:
    """LceDequantize: the bits as -1 and +1."""
    bits = site.bits(0)
    site.finish(bits.name, bits.shape)


def bmaxpool(site: Site) -> None:
    """LceBMaxPool2d: +1 if any bit of the window is."""
    bits = site.bits(0)
    options = site.custom(
        *("filter_height", "filter_width", "padding", "stride_height", "stride_width")
    )
    window = Sliding.of(
        bits,
        (options["filter_height"], options["filter_width"]),
        (options["stride_height"], options["stride_width"]),
        (1, 1),
        options["padding"],
    )
    result = pooled(site, "MaxPool", bits, window)
    site.finish(result, (1, *window.outputs, bits.shape[3]), is_bits=True)


def bconv(site: Site) -> None:
    """LceBconv2d: a sum n of bits times bits, and what is fused behind it.

    With K taps times channels, the kernel counts m = (K - n) / 2 mismatches. As bits the result is
    -1 where m > threshold; as reals it is fl(fl(2 m * -a) + c), with c = fl(b + K * a) from double,
    for the multiplier a and bias b of the file; a fused activation limits n.
    """
    options = site.custom(*_OPTIONS)
    bits = site.bits(0)
    weights = _unpacked(site, bits, options["channels_in"])
    strides = (options["stride_height"], options["stride_width"])
    dilations = (options["dilation_height_factor"], options["dilation_width_factor"])
    kernel = (weights.shape[2], weights.shape[3])
    window = Sliding.of(bits, kernel, strides, dilations, options["padding"])
    n = _summed(site, bits, weights, window, options["pad_values"])
    shape = (1, *window.outputs, len(weights))
    taps = math.prod(weights.shape[1:])
    if site.result.element == "int32":
        thresholds = np.clip(site.array(4, "int32").astype(np.int64), -1, taps)
        if thresholds.shape != (len(weights),):
            raise Refusal("BNN003", f"its thresholds have the shape {dimensions(thresholds.shape)}")
        # (K - n) / 2 > threshold: limited to what there is to count, float32 holds it exactly.
        limits = (taps - 2 * thresholds).astype(np.float32)
        below = site.emit("Less", [n, site.constant("limits", limits)])
        site.finish(_signed(site, below), shape, is_bits=True)
        return
    multiplier, bias = (biases(site, place, len(weights)) for place in (2, 3))
    n = site.activated(n, options["fused_activation_function"])
    twice = site.emit("Sub", [site.scalar(taps), n])
    with np.errstate(all="ignore"):  # what is no number is refused further down
        shift = (bias.astype(np.float64) + taps * multiplier.astype(np.float64)).astype(np.float32)
    scaled = site.emit("Mul", [twice, site.constant("multiplier", -multiplier)])
    shifted = site.emit("Add", [scaled, site.constant("bias", shift)])
    site.finish(shifted, shape)


def _unpacked(site: Site, bits: Value, channels: int) -> Array:
    """Return the weights as -1 and +1, float32 [O, C / groups, KH, KW].

    The file packs the channels of each group into words, the first into the lowest bit.
    """
    packed = site.array(1, "int32")
    if packed.size * WORD_BITS * 4 > MAX_TENSOR_BYTES:
        raise Refusal("BNN005", f"its filters are {packed.size * WORD_BITS} weights")
    if packed.ndim != 4 or channels != bits.shape[-1] or len(bits.shape) != 4:
        what = f"its filters {dimensions(packed.shape)} do not fit {dimensions(bits.shape)}"
        raise Refusal("BNN003", what, why=f"it says that there are {channels} channels")
    words = packed.shape[3]
    depth = channels
    if words != -(-channels // WORD_BITS):
        depth = words * WORD_BITS  # groups are whole words
    places = np.arange(depth)
    if words < 1 or depth > words * WORD_BITS or depth > channels:
        raise Refusal("BNN003", f"its filters have {words} words for {channels} channels")
    bit = packed[..., places // WORD_BITS] >> (places % WORD_BITS).astype(np.int32) & 1
    return np.asarray(1 - 2 * bit, np.float32).transpose(0, 3, 1, 2)


def _summed(site: Site, bits: Value, weights: Array, window: Sliding, pad: int) -> str:
    """Emit the sum of bits times bits, and return its name, channels last.

    Padding holds 0, which adds nothing, or +1.
    """
    if pad not in (0, 1):
        raise Refusal("BNN003", f"it pads with {pad}")
    image, pads = site.transposed(bits.name, CHANNELS_FIRST), (*window.before, *window.after)
    if pad == 1 and window.is_padded:
        widths = np.array([0, 0, *window.before, 0, 0, *window.after], np.int64)
        image = site.emit("Pad", [image, site.constant("widths", widths), site.scalar(1)])
        pads = (0, 0, 0, 0)
    result = site.emit(
        "Conv",
        [image, site.constant("weights", weights)],
        dilations=window.dilations,
        group=groups_of(bits.shape[3], weights),
        kernel_shape=window.kernel,
        pads=pads,
        strides=window.strides,
    )
    return site.transposed(result, CHANNELS_LAST)
