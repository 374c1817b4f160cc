"""Operators that work on each element alone, and those along the last axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnncc.frontends.onnx.report import Refusal, dimensions
from bnncc.frontends.tflite.site import Site

__all__ = ["arithmetic", "clipped", "dequantize", "leaky_relu", "prelu", "softmax", "unary"]


def unary(op: str, *, axis: int | None = None) -> Callable[[Site], None]:
    """Return the translation into one ONNX operator, perhaps along an axis."""

    def translate(site: Site) -> None:
        x = site.value(0)
        attributes = {} if axis is None else {"axis": axis}
        site.finish(site.emit(op, [x.name], **attributes), x.shape)

    return translate


def clipped(low: float, high: float) -> Callable[[Site], None]:
    """Return the translation of min(max(x, low), high)."""

    def translate(site: Site) -> None:
        x = site.value(0)
        bounds = [site.scalar(low), site.scalar(high)]
        site.finish(site.emit("Clip", [x.name, *bounds]), x.shape)

    return translate


def arithmetic(op: str, kind: str) -> Callable[[Site], None]:
    """Return the translation of an operator on two tensors, whose shapes broadcast.

    Args:
        op: in ONNX.
        kind: the table of its options, in which is the fused activation; "" if it has none.
    """

    def translate(site: Site) -> None:
        a, b = site.value(0), site.value(1)
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError as error:
            shapes = f"{dimensions(a.shape)} and {dimensions(b.shape)}"
            raise Refusal("BNN003", f"its operands {shapes} do not broadcast") from error
        result = site.emit(op, [a.name, b.name])
        if kind:
            result = site.activated(result, site.option(kind, "FusedActivationFunction"))
        site.finish(result, shape)

    return translate


def leaky_relu(site: Site) -> None:
    """LEAKY_RELU: alpha * x below 0."""
    x = site.value(0)
    alpha = site.number("LeakyReluOptions", "Alpha")
    site.finish(site.emit("LeakyRelu", [x.name], alpha=alpha), x.shape)


def prelu(site: Site) -> None:
    """PRELU: slope * x below 0, the slopes broadcast, mostly [1, 1, C]."""
    x, slope = site.value(0), site.value(1)
    site.finish(site.emit("PRelu", [x.name, slope.name]), x.shape)


def softmax(site: Site) -> None:
    """SOFTMAX: of beta * x, along the last axis."""
    x = site.value(0)
    beta = site.number("SoftmaxOptions", "Beta")
    name = x.name if beta == 1 else site.emit("Mul", [x.name, site.scalar(beta)])
    site.finish(site.emit("Softmax", [name], axis=-1), x.shape)


def dequantize(site: Site) -> None:
    """DEQUANTIZE: of constants that the converter has rounded to float16."""
    site.fix(site.array(0, "float16").astype(np.float32))
