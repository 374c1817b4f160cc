"""The windows of convolutions and pools, with `auto_pad` resolved to explicit pads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window

__all__ = [
    "average_pool",
    "checked_kernel",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "spatial_shape",
    "window_of",
]

_MOST = 2**20  # far above any stride or pad with a meaning, and no product of a few overflows


def spatial_shape(site: Site, x: str) -> tuple[int, ...]:
    """Return the extents of the operand behind its channels, of which there are one or two."""
    shape = site.type_of(x).shape
    if len(shape) not in (3, 4):
        what = f"{site.node.op_type} over {max(0, len(shape) - 2)} spatial axes"
        why = f"{quoted(x)} has shape {list(shape)}, and bnncc has it over one or two"
        raise Refusal("BNN008", what, why=why)
    return shape[2:]


def checked_kernel(
    site: Site, rank: int, weights: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Return the kernel's shape: of the weights if there are any, which `kernel_shape` repeats."""
    kernel = tuple(site.attribute("kernel_shape", weights or ()))
    if len(kernel) != rank or min(kernel) < 1 or (weights is not None and kernel != weights):
        why = f"the operand has {rank} spatial axes"
        if weights is not None:
            why = f"the weights have kernels of shape {list(weights)}"
        raise Refusal("BNN003", f"{site.node.op_type} with kernel_shape {list(kernel)}", why=why)
    return kernel


def window_of(
    site: Site, kernel: Sequence[int], sizes: Sequence[int], *, resolve: bool = True
) -> Window:
    """Return the window that the node's attributes describe.

    Args:
        site: a convolution or a pool.
        kernel: the kernel's shape.
        sizes: of the operand's spatial axes.
        resolve: whether `auto_pad` speaks of this window, rather than of one that it undoes.
    """
    rank = len(kernel)
    strides = _list(site, "strides", [1] * rank, 1)
    dilations = _list(site, "dilations", [1] * rank, 1)
    pads = _list(site, "pads", [0] * (2 * rank), 0)
    auto = site.text("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Refusal("BNN003", f"{site.node.op_type} with auto_pad {quoted(auto)}")
    ceil = bool(site.attribute("ceil_mode", 0))
    axes = []
    for i, size in enumerate(sizes):
        axis = Axis(kernel[i], strides[i], dilations[i], pads[i], pads[rank + i], ceil)
        axes.append(axis if auto == "NOTSET" or not resolve else _resolved(site, axis, auto, size))
    padded = (size + axis.before + axis.after for size, axis in zip(sizes, axes, strict=True))
    nbytes = math.prod(padded) * Element.F32.dtype.itemsize
    if nbytes > MAX_TENSOR_BYTES:
        what = f"{site.node.op_type} pads a channel to {nbytes} bytes"
        raise Refusal("BNN005", what, why=f"the limit is {MAX_TENSOR_BYTES} bytes")
    return Window(tuple(axes))


def _list(site: Site, name: str, default: list[int], least: int) -> list[int]:
    values: list[int] = list(site.attribute(name, default))
    if len(values) != len(default):
        what = f"{site.node.op_type} with {name} {values}"
        raise Refusal("BNN003", what, why=f"there should be {len(default)}")
    if any(not least <= value <= _MOST for value in values):
        what = f"{site.node.op_type} with {name} {values}"
        raise Refusal("BNN008", what, why=f"bnncc takes values from {least} to {_MOST}")
    return values


def _resolved(site: Site, axis: Axis, auto: str, size: int) -> Axis:
    """Return the axis with the pads that `auto_pad` asks for.

    SAME gives ceil(size / stride) outputs; an odd pad goes after for UPPER, before for LOWER.
    """
    if auto == "VALID":
        return replace(axis, before=0, after=0)
    outputs = -(-size // axis.stride)
    total = (outputs - 1) * axis.stride + axis.extent - size
    # ONNX Runtime leaves the dilation out, or refuses it, and pads by -2 where windows lie apart;
    # a 1x1 convolution with stride 2 needs -1, which it takes as 0.
    least = -1 if site.node.op_type == "Conv" else 0
    if axis.dilation != 1 or total < least:
        beside = "dilations" if axis.dilation != 1 else "strides beyond the kernel"
        what = f"{site.node.op_type} with auto_pad {auto} and {beside}"
        why = "ONNX Runtime, the reference, does not do there what ONNX says"
        raise Refusal("BNN008", what, why=why, help="export with explicit pads")
    total = max(0, total)
    before = (total + (auto == "SAME_LOWER")) // 2
    return replace(axis, before=before, after=total - before)


def _pool(site: Site) -> tuple[str, Window]:
    """Return a pool's operand and its window, each of which sees something of the operand."""
    x = site.operand(0)
    sizes = spatial_shape(site, x)
    window = window_of(site, checked_kernel(site, len(sizes)), sizes)
    site.check_fits(window, sizes)
    if any(max(axis.before, axis.after) >= axis.kernel for axis in window.axes):
        what = f"{site.node.op_type} with pads as large as the kernel"
        why = "ONNX Runtime, the reference, has no such pools"
        raise Refusal("BNN008", what, why=why, help="pad by less than the kernel")
    if int(window.counts(sizes).min()) < 1:
        what = f"{site.node.op_type} with windows that see nothing but padding"
        raise Refusal("BNN008", what, why="they have no value", help="pad by less")
    return x, window


def max_pool(site: Site) -> None:
    """Say MaxPool; `storage_order` speaks of the indices alone, which are refused elsewhere."""
    x, window = _pool(site)
    site.emit(MaxPool(window), [x])


def average_pool(site: Site) -> None:
    """Say AveragePool."""
    x, window = _pool(site)
    site.emit(AveragePool(window, bool(site.attribute("count_include_pad", 0))), [x])


def global_average_pool(site: Site) -> None:
    """Say GlobalAveragePool: the mean over all spatial axes."""
    x = site.operand(0)
    sizes = spatial_shape(site, x)
    site.emit(ReduceMean(tuple(range(2, 2 + len(sizes))), keepdims=True), [x])


def global_max_pool(site: Site) -> None:
    """Say GlobalMaxPool: a pool with one window."""
    x = site.operand(0)
    window = Window(tuple(Axis(size) for size in spatial_shape(site, x)))
    site.emit(MaxPool(window), [x])
