"""Operators that move elements, and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bnncc.frontends.onnx.report import Refusal, dimensions
from bnncc.frontends.tflite.site import CHANNELS_FIRST, Site, Value

__all__ = ["concatenate", "mean", "pad", "reshape", "slice_", "strided_slice", "transpose"]


def reshape(site: Site) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the same elements under the shape that the file declares.

    Where RESHAPE says which one, that must be it.
    """
    x, shape = site.value(0), site.result.shape
    if site.operator.name == "RESHAPE":
        wanted = site.integers(1) if site.has(1) else site.vector("ReshapeOptions", "NewShape")
        fits = len(wanted) == len(shape) and all(
            a in (-1, b) for a, b in zip(wanted, shape, strict=True)
        )
        if not fits:
            what = f"it reshapes to {dimensions(wanted)}, and the file says {dimensions(shape)}"
            raise Refusal("BNN003", what)
    if math.prod(shape) != math.prod(x.shape):
        what = f"{dimensions(x.shape)} elements are not {dimensions(shape)}"
        raise Refusal("BNN003", what)
    target = site.constant("shape", np.array(shape, np.int64))
    site.finish(site.emit("Reshape", [x.name, target]), shape)


def transpose(site: Site) -> None:
    """TRANSPOSE."""
    x, perm = site.value(0), site.integers(1)
    if sorted(perm) != list(range(len(x.shape))):
        raise Refusal("BNN003", f"{list(perm)} is no order of {len(x.shape)} axes")
    site.finish(site.transposed(x.name, perm), [x.shape[axis] for axis in perm])


def pad(site: Site) -> None:
    """PAD and PADV2: with 0, or with a constant."""
    x, widths = site.value(0), site.integers(1)
    if len(widths) != 2 * len(x.shape) or min(widths, default=0) < 0:
        raise Refusal("BNN003", f"its widths {list(widths)} do not fit {dimensions(x.shape)}")
    before, after = widths[::2], widths[1::2]
    operands = [x.name, site.constant("widths", np.array([*before, *after], np.int64))]
    if site.has(2):
        value = site.array(2)
        if value.size != 1:
            raise Refusal("BNN003", f"it pads with {value.size} values")
        operands.append(site.scalar(float(value.reshape(()))))
    sizes = zip(x.shape, before, after, strict=True)
    site.finish(site.emit("Pad", operands), [a + b + c for a, b, c in sizes])


def concatenate(site: Site) -> None:
    """CONCATENATION: along any axis."""
    kind = "ConcatenationOptions"
    values = [site.value(place) for place in range(len(site.operator.inputs))]
    if not values:
        raise Refusal("BNN003", "it has no operands")
    rank = len(values[0].shape)
    axis = site.option(kind, "Axis")
    axis += rank if axis < 0 else 0
    shapes = [list(value.shape) for value in values]
    rest = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
    if not 0 <= axis < rank or any(
        r != rest[0] or len(s) != rank for r, s in zip(rest, shapes, strict=True)
    ):
        what = f"its operands {', '.join(map(dimensions, shapes))} do not fit along axis {axis}"
        raise Refusal("BNN003", what)
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    result = site.emit("Concat", [value.name for value in values], axis=axis)
    site.finish(site.activated(result, site.option(kind, "FusedActivationFunction")), shape)


def slice_(site: Site) -> None:
    """SLICE: from `begin` on so many elements, -1 for all that follow."""
    x, begin, size = site.value(0), site.integers(1), site.integers(2)
    if not len(begin) == len(size) == len(x.shape):
        raise Refusal("BNN003", f"it does not slice each axis of {dimensions(x.shape)} once")
    axes = zip(x.shape, begin, size, strict=True)
    ends = [whole if count == -1 else start + count for whole, start, count in axes]
    _sliced(site, x, begin, ends, [1] * len(begin))


def strided_slice(site: Site) -> None:
    """STRIDED_SLICE: as Python slices, where a mask's bit says that an end of the axis is meant."""
    kind = "StridedSliceOptions"
    for mask in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"):
        if site.option(kind, mask):
            raise Refusal("BNN008", f"its {mask} is not supported")
    x = site.value(0)
    begin, end, step = (list(site.integers(place)) for place in (1, 2, 3))
    if not len(begin) == len(end) == len(step) == len(x.shape) or min(step, default=1) < 1:
        raise Refusal("BNN008", f"it does not slice each axis of {dimensions(x.shape)} forward")
    for axis, whole in enumerate(x.shape):
        begin[axis] = 0 if site.option(kind, "BeginMask") >> axis & 1 else begin[axis]
        end[axis] = whole if site.option(kind, "EndMask") >> axis & 1 else end[axis]
    _sliced(site, x, begin, end, step)


def _sliced(
    site: Site, x: Value, begin: Sequence[int], end: Sequence[int], step: Sequence[int]
) -> None:
    ranges = [
        range(*slice(a, b, c).indices(whole))
        for whole, a, b, c in zip(x.shape, begin, end, step, strict=True)
    ]
    if not all(ranges):
        raise Refusal("BNN003", f"nothing is left of {dimensions(x.shape)}")
    parts = (
        ("starts", [r.start for r in ranges]),
        ("ends", [r.stop for r in ranges]),
        ("axes", range(len(ranges))),
        ("steps", [r.step for r in ranges]),
    )
    operands = [site.constant(role, np.array(list(v), np.int64)) for role, v in parts]
    site.finish(site.emit("Slice", [x.name, *operands]), [len(r) for r in ranges])


def mean(site: Site) -> None:
    """MEAN: over constant axes."""
    x, rank = site.value(0), len(site.value(0).shape)
    axes = sorted({axis + rank * (axis < 0) for axis in site.integers(1)})
    if not axes or axes[0] < 0 or axes[-1] >= rank:
        raise Refusal("BNN003", f"its axes {axes} do not fit {dimensions(x.shape)}")
    keep = bool(site.option("ReducerOptions", "KeepDims"))
    if axes == [1, 2] and rank == 4:
        # Channels first, sums run over the pixels in C order.
        first = site.transposed(x.name, CHANNELS_FIRST)
        result = site.emit("ReduceMean", [first], axes=[2, 3], keepdims=0)
        if keep:
            target = site.constant("kept", np.array([1, 1, 1, x.shape[3]], np.int64))
            result = site.emit("Reshape", [result, target])
    else:
        result = site.emit("ReduceMean", [x.name], axes=axes, keepdims=int(keep))
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    left = [size for axis, size in enumerate(x.shape) if axis not in axes]
    site.finish(result, kept if keep else left)
