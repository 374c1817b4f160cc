"""How ONNX's per-sample normalisations are said in the IR: means, differences and a root."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.elementwise import Abs, Add, Div, Equal, Mul, Sqrt, Sub, Where
from bnncc.ir.ops.reduce import ReduceMean, ReduceSum
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array

__all__ = ["group_norm", "instance_norm", "layer_norm", "lp_norm", "mean_variance_norm"]

_GROUPS_ARE_CHANNELS_SINCE = 21


def _normalised(
    site: Site, x: str, axes: tuple[int, ...], epsilon: float, output: str = "normalised"
) -> str:
    """Return (x - mean) / sqrt(variance + epsilon), both over `axes` of each sample."""
    _, centred, deviation = _statistics(site, x, axes, epsilon)
    return site.emit(Div(), [centred, deviation], site.fresh(output) if output else "")


def _statistics(site: Site, x: str, axes: tuple[int, ...], epsilon: float) -> tuple[str, str, str]:
    """Return the mean, x - mean, and sqrt(variance + epsilon), over `axes` of each sample."""
    mean = site.part(ReduceMean(axes, keepdims=True), x)
    centred = site.part(Sub(), x, mean)
    square = site.part(Mul(), centred, centred)
    variance = site.part(ReduceMean(axes, keepdims=True), square)
    deviation = site.part(Sqrt(), site.part(Add(), variance, site.scalar(epsilon)))
    return mean, centred, deviation


def _constant(site: Site, index: int, shape: Sequence[int]) -> str:
    """Return a constant operand in another shape of as many elements."""
    values: Array = site.numbers(index)
    if values.size != math.prod(shape):
        what = f"{quoted(site.node.input[index])} of shape {list(values.shape)}"
        raise Refusal("BNN003", what, why=f"{site.node.op_type} needs {math.prod(shape)} values")
    form = "x".join(map(str, shape))
    return site.scope.constant(site.node.input[index], form, values.reshape(shape))


def _affine(site: Site, x: str, shape: Sequence[int], *, has_bias: bool = True) -> None:
    """Say x * scale + bias, operands 1 and 2."""
    scale = _constant(site, 1, shape)
    if not has_bias:
        site.emit(Mul(), [x, scale])
        return
    site.emit(Add(), [site.part(Mul(), x, scale), _constant(site, 2, shape)])


def _image(site: Site) -> tuple[str, tuple[int, ...]]:
    x = site.operand(0)
    shape = site.type_of(x).shape
    if len(shape) not in (3, 4):
        what = f"{site.node.op_type} of shape {list(shape)}"
        raise Refusal("BNN008", what, why="bnncc has it over one or two spatial axes")
    return x, shape


def instance_norm(site: Site) -> None:
    """Say InstanceNormalization: x * s + (bias - mean * s), as ONNX Runtime does.

    Of each channel of each sample, s is its scale over its deviation.
    """
    x, shape = _image(site)
    axes = tuple(range(2, len(shape)))
    column = (shape[1], *(1 for _ in axes))
    mean, _, deviation = _statistics(site, x, axes, site.attribute("epsilon", 1e-5))
    inverse = site.part(Div(), site.scalar(1), deviation)
    scale = site.part(Mul(), inverse, _constant(site, 1, column))
    shift = site.part(Sub(), _constant(site, 2, column), site.part(Mul(), mean, scale))
    site.emit(Add(), [site.part(Mul(), x, scale), shift])


def group_norm(site: Site) -> None:
    """Say GroupNormalization: groups of channels, with a scale a group before opset 21."""
    x, shape = _image(site)
    groups = site.attribute("num_groups", 0)
    if groups < 1 or shape[1] % groups:
        raise Refusal("BNN003", f"{shape[1]} channels in {groups} groups")
    merged = site.part(Reshape((1, groups, math.prod(shape[1:]) // groups)), x)
    normalised = _normalised(site, merged, (2,), site.attribute("epsilon", 1e-5))
    if site.opset < _GROUPS_ARE_CHANNELS_SINCE:
        scaled = site.part(Mul(), normalised, _constant(site, 1, (groups, 1)))
        shifted = site.part(Add(), scaled, _constant(site, 2, (groups, 1)))
        site.emit(Reshape(shape), [shifted])
        return
    image = site.part(Reshape(shape), normalised)
    _affine(site, image, (shape[1], *(1 for _ in shape[2:])))


def layer_norm(site: Site) -> None:
    """Say LayerNormalization: all axes from one on, seen as one axis."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    axis = site.axis(site.attribute("axis", -1), len(shape))
    if axis == 0:
        raise Refusal("BNN008", "LayerNormalization over dimension 0", why="it is the batch")
    if site.attribute("stash_type", onnx.TensorProto.FLOAT) != onnx.TensorProto.FLOAT:
        raise Refusal("BNN008", "LayerNormalization in a type other than float32")
    if len(site.node.output) > 1 and any(site.node.output[1:]):
        raise Refusal("BNN008", "LayerNormalization with its mean or deviation as a result")
    count = math.prod(shape[axis:])
    rows = site.part(Reshape((1, math.prod(shape[:axis]), count)), x)
    normalised = _normalised(site, rows, (2,), site.attribute("epsilon", 1e-5))
    scaled = site.part(Mul(), normalised, _constant(site, 1, (1, 1, count)))
    if site.has(2):
        scaled = site.part(Add(), scaled, _constant(site, 2, (1, 1, count)))
    site.emit(Reshape(shape), [scaled])


def mean_variance_norm(site: Site) -> None:
    """Say MeanVarianceNormalization: (x - mean) / (deviation + 1e-9)."""
    x = site.operand(0)
    given = site.attribute("axes", [0, 2, 3])
    axes = sorted(site.axes(given, len(site.type_of(x).shape)))
    own = tuple(axis for axis in axes if axis != 0)
    if not own:
        raise Refusal("BNN008", "MeanVarianceNormalization over the batch alone")
    centred = site.part(Sub(), x, site.part(ReduceMean(own, keepdims=True), x))
    variance = site.part(ReduceMean(own, keepdims=True), site.part(Mul(), centred, centred))
    deviation = site.part(Add(), site.part(Sqrt(), variance), site.scalar(1e-9))
    site.emit(Div(), [centred, deviation])


def lp_norm(site: Site) -> None:
    """Say LpNormalization: x over the sum of magnitudes, or the root of that of squares."""
    x = site.operand(0)
    axis = site.axis(site.attribute("axis", -1), len(site.type_of(x).shape))
    order = site.attribute("p", 2)
    if axis == 0 or order not in (1, 2):
        what = f"LpNormalization with p {order} along dimension {axis}"
        raise Refusal("BNN003" if axis else "BNN008", what)
    terms = site.part(Abs(), x) if order == 1 else site.part(Mul(), x, x)
    length = site.part(ReduceSum((axis,), keepdims=True), terms)
    length = length if order == 1 else site.part(Sqrt(), length)
    # Where squares are too small to be told from 0, ONNX Runtime has 0: what infinity divides.
    vanishes = site.part(Equal(), length, site.scalar(0))
    divisor = site.part(Where(), vanishes, site.scalar(math.inf), length)
    site.emit(Div(), [x, divisor])
