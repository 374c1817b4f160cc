"""How ONNX's resampling is said in the IR: chosen pixels, or weighted sums of two each way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.elementwise import Identity
from bnncc.ir.ops.interpolate import Between, Interpolate
from bnncc.ir.ops.shape import Gather

__all__ = ["resize", "upsample"]

_F32 = np.float32
_AXES_SINCE = 18
_SIMPLE_ROUNDING_UNTIL = 10
_LINEAR_RANKS = (3, 4)


@dataclass(frozen=True)
class _Scale:
    """How one axis is resized: `outputs` of `inputs`, `factor` being their float32 ratio."""

    inputs: int
    outputs: int
    factor: np.float32


def _half_pixel(o: np.float32, scale: _Scale) -> np.float32:
    return _F32((o + _F32(0.5)) / scale.factor - _F32(0.5))


def _pytorch_half_pixel(o: np.float32, scale: _Scale) -> np.float32:
    return _half_pixel(o, scale) if scale.outputs > 1 else _F32(0)


def _align_corners(o: np.float32, scale: _Scale) -> np.float32:
    if scale.outputs == 1:
        return _F32(0)
    return _F32(o * _F32(scale.inputs - 1) / _F32(scale.outputs - 1))


def _asymmetric(o: np.float32, scale: _Scale) -> np.float32:
    return _F32(o / scale.factor)


def _tf_half_pixel(o: np.float32, scale: _Scale) -> np.float32:
    return _F32((o + _F32(0.5)) / scale.factor)


_PLACES: Mapping[str, Callable[[np.float32, _Scale], np.float32]] = MappingProxyType(
    {
        "half_pixel": _half_pixel,
        "pytorch_half_pixel": _pytorch_half_pixel,
        "align_corners": _align_corners,
        "asymmetric": _asymmetric,
        "tf_half_pixel_for_nn": _tf_half_pixel,
    }
)
"""Where an output lies among the inputs, in float32 as ONNX Runtime has it."""


def _round_prefer_floor(x: np.float32) -> int:
    return math.floor(x) if x - math.floor(x) <= 0.5 else math.ceil(x)


def _round_prefer_ceil(x: np.float32) -> int:
    return math.ceil(x) if x - math.floor(x) >= 0.5 else math.floor(x)


_NEAREST: Mapping[str, Callable[[np.float32], int]] = MappingProxyType(
    {
        "round_prefer_floor": _round_prefer_floor,
        "round_prefer_ceil": _round_prefer_ceil,
        "floor": math.floor,
        "ceil": math.ceil,
    }
)


def upsample(site: Site) -> None:
    """Say Upsample, which Resize replaced in opset 10: its scales are an attribute in opset 7."""
    shape = site.type_of(site.operand(0)).shape
    scales = site.attributes.get("scales")
    factors = [float(s) for s in (site.array(1).reshape(-1) if scales is None else scales)]
    mode = site.text("mode", "nearest")
    _resample(site, _scaled(site, shape, factors), mode, "asymmetric", math.floor)


def resize(site: Site) -> None:
    """Say Resize: scales or sizes, of all axes or of some, and eight attributes."""
    mode = site.text("mode", "nearest")
    if site.opset <= _SIMPLE_ROUNDING_UNTIL:
        shape = site.type_of(site.operand(0)).shape
        scales = _scaled(site, shape, [float(s) for s in site.array(1).reshape(-1)])
        shrinks = any(scale.factor < 1 for scale in scales)
        _resample(site, scales, mode, "asymmetric", math.ceil if shrinks else math.floor)
        return
    for name, plain in (("antialias", 0), ("exclude_outside", 0)):
        if site.attribute(name, plain) != plain:
            raise Refusal("BNN008", f"Resize with {name}", why="bnncc has it without")
    how = site.text("coordinate_transformation_mode", "half_pixel")
    if how not in _PLACES:
        why = f"bnncc has {', '.join(_PLACES)}"
        raise Refusal("BNN008", f"Resize with coordinates {quoted(how)}", why=why)
    rounding = site.text("nearest_mode", "round_prefer_floor")
    if rounding not in _NEAREST:
        raise Refusal("BNN003", f"Resize with nearest_mode {quoted(rounding)}")
    _resample(site, _scales(site), mode, how, _NEAREST[rounding])


def _scales(site: Site) -> list[_Scale]:
    """Return what becomes of each axis, from the operand with scales or that with sizes."""
    shape = site.type_of(site.operand(0)).shape
    axes = list(range(len(shape)))
    if site.opset >= _AXES_SINCE and "axes" in site.attributes:
        axes = site.axes([int(axis) for axis in site.attributes["axes"]], len(shape))
    if site.has(2) and site.array(2).size:
        factors = [1.0] * len(shape)
        given = [float(s) for s in site.array(2).reshape(-1)]
        if len(given) != len(axes):
            raise Refusal("BNN003", f"Resize of {len(axes)} axes by {len(given)} scales")
        for axis, factor in zip(axes, given, strict=True):
            factors[axis] = factor
        return _scaled(site, shape, factors)
    if not site.has(3):
        raise Refusal("BNN003", "Resize without scales and without sizes")
    policy = site.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise Refusal("BNN008", f"Resize that keeps the aspect ratio ({quoted(policy)})")
    sizes = list(shape)
    given_sizes = [int(s) for s in site.array(3).reshape(-1)]
    if len(given_sizes) != len(axes):
        raise Refusal("BNN003", f"Resize of {len(axes)} axes to {len(given_sizes)} sizes")
    for axis, size in zip(axes, given_sizes, strict=True):
        sizes[axis] = size
    return [_Scale(a, b, _F32(b) / _F32(a)) for a, b in zip(shape, sizes, strict=True)]


def _scaled(site: Site, shape: Sequence[int], factors: Sequence[float]) -> list[_Scale]:
    if len(factors) != len(shape) or not all(0 < factor < math.inf for factor in factors):
        what = f"{site.node.op_type} of shape {list(shape)} by scales {list(factors)}"
        raise Refusal("BNN003", what)
    # ONNX rounds the product down; ONNX Runtime takes it in float32.
    pairs = zip(shape, map(_F32, factors), strict=True)
    return [_Scale(size, int(_F32(size) * factor), factor) for size, factor in pairs]


def _resample(
    site: Site, scales: Sequence[_Scale], mode: str, how: str, rounding: Callable[[np.float32], int]
) -> None:
    x = site.operand(0)
    op_type = site.node.op_type
    if scales and (scales[0].outputs != 1 or min(scale.outputs for scale in scales) < 1):
        raise Refusal("BNN008", f"{op_type} to {[scale.outputs for scale in scales]}")
    if all(scale.inputs == scale.outputs and scale.factor == 1 for scale in scales):
        site.emit(Identity(), [x])
    elif mode == "nearest":
        site.emit(Gather(tuple(_chosen(scale, how, rounding) for scale in scales)), [x])
    elif mode in ("linear", "bilinear"):
        if scales[1].inputs != scales[1].outputs or len(scales) not in _LINEAR_RANKS:
            why = "bnncc has it over one or two spatial axes"
            raise Refusal(
                "BNN008", f"linear {op_type} of shape {[s.inputs for s in scales]}", why=why
            )
        site.emit(Interpolate(tuple(_between(scale, how) for scale in scales[2:])), [x])
    else:
        why = "bnncc takes the nearest pixels, or linear sums"
        raise Refusal("BNN008", f"{op_type} with mode {quoted(mode)}", why=why)


def _place(o: int, scale: _Scale, how: str) -> np.float32:
    if scale.factor == 1:
        return _F32(o)
    return _PLACES[how](_F32(o), scale)


def _chosen(scale: _Scale, how: str, rounding: Callable[[np.float32], int]) -> tuple[int, ...]:
    """Return the input nearest to each output."""
    places = (rounding(_place(o, scale, how)) for o in range(scale.outputs))
    return tuple(min(max(place, 0), scale.inputs - 1) for place in places)


def _between(scale: _Scale, how: str) -> Between:
    """Return the two inputs round each output; at the edges both are the same."""
    first: list[int] = []
    second: list[int] = []
    weights: list[tuple[float, float]] = []
    for o in range(scale.outputs):
        place = min(max(_place(o, scale, how), _F32(0)), _F32(scale.inputs - 1))
        low = min(int(place), scale.inputs - 1)
        high = min(low + 1, scale.inputs - 1)
        first.append(low)
        second.append(high)
        after = _F32(abs(place - _F32(low))) if low != high else _F32(0.5)
        before = _F32(abs(place - _F32(high))) if low != high else _F32(0.5)
        weights.append((float(before), float(after)))
    return Between(tuple(first), tuple(second), tuple(weights))
