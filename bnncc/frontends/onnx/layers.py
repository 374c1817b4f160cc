"""How ONNX's linear layers are said in the IR: products without a bias, which is an Add."""

from __future__ import annotations

import math

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.frontends.onnx.windows import checked_kernel, spatial_shape, window_of
from bnncc.ir.ops.elementwise import Add, Mul
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.shape import Reshape, Transpose
from bnncc.ir.types import Array
from bnncc.ir.window import Axis, Window

__all__ = ["conv", "gemm", "matmul"]

_MATRIX_RANK = 2
_IMAGE_RANK = 4


def gemm(site: Site) -> None:
    """Alpha * x W + beta * C: each factor and the sum round on their own, as in ONNX Runtime."""
    if site.attribute("transA", 0):
        raise Refusal("BNN008", "Gemm with transA", why="the batch would be summed over")
    beta = np.float32(site.attribute("beta", 1.0))
    alpha = np.float32(site.attribute("alpha", 1.0))
    has_bias = site.has(2) and beta != 0
    steps = (["scaled"] if alpha != 1 else []) + (["biased"] if has_bias else [])
    # The last step carries the ONNX result's name, those before it names of their own.
    names = ["sum", *steps]
    given = [site.fresh(name) for name in names[:-1]] + [""]
    rows = bool(site.attribute("transB", 0))
    result = _product(site, rows, given.pop(0))
    if alpha != 1:
        factor = site.scope.constant(site.node.output[0], "alpha", np.asarray(alpha))
        result = site.emit(Mul(), [result, factor], given.pop(0))
    if has_bias:
        site.emit(Add(), [result, _bias(site, beta)], given.pop(0))


def _bias(site: Site, beta: np.float32) -> str:
    if beta == 1:
        return site.operand(2)
    if site.is_constant(2):
        scaled: Array = site.numbers(2) * beta
        return site.scope.constant(site.node.input[2], f"times{beta}", scaled)
    factor = site.scope.constant(site.node.output[0], "beta", np.asarray(beta))
    return site.emit(Mul(), [site.operand(2), factor], site.fresh("bias"))


def matmul(site: Site) -> None:
    """Say MatMul by a constant matrix: of [1, K], of tokens [1, ..., K], or from the left."""
    if site.has(1) and not site.is_constant(1):
        if site.is_constant(0):
            _from_left(site)
            return
        operands = " and ".join(quoted(name) for name in site.node.input)
        why = (
            "bnncc packs weights at compile time; products of activations, as in attention, "
            "have none"
        )
        raise Refusal("BNN008", f"MatMul of two activations, {operands}", why=why)
    x = _activation(site)
    if len(site.type_of(x).shape) > _MATRIX_RANK:
        _of_tokens(site, x)
    else:
        _product(site, are_rows=False, output="")


def _product(site: Site, are_rows: bool, output: str) -> str:
    op_type = site.node.op_type
    x = _activation(site)
    shape = site.type_of(x).shape
    if len(shape) != _MATRIX_RANK:
        why = f"{quoted(x)} has shape {list(shape)}, and bnncc multiplies [batch, features]"
        raise Refusal("BNN008", f"{op_type} of {len(shape)} dimensions", why=why)
    return site.emit(MatMul(), [x, site.weights(1, are_rows=are_rows)], output)


def _of_tokens(site: Site, x: str) -> None:
    """Say a dense layer over the last axis of [1, ..., K]: a convolution of one tap, K channels.

    The axes between are pixels to it, one axis of them if there are more than images have.
    """
    shape = site.type_of(x).shape
    result = (*shape[:-1], site.array(1).shape[-1])
    images = shape if len(shape) <= _IMAGE_RANK else (1, math.prod(shape[1:-1]), shape[-1])
    if images != shape:
        x = site.part(Reshape(images), x)
    last = len(images) - 1
    x = site.part(Transpose((0, last, *range(1, last))), x)
    image = site.part(_point(last - 1), x, _as_filters(site, 1, last - 1, are_rows=False))
    back = Transpose((0, *range(2, last + 1), 1))
    if images == shape:
        site.emit(back, [image])
    else:
        site.emit(Reshape(result), [site.part(back, image)])


def _from_left(site: Site) -> None:
    """Say W x with x [1, K, T]: K channels of T pixels, so that nothing has to move."""
    x = site.operand(1)
    shape = site.type_of(x).shape
    if len(shape) != _MATRIX_RANK + 1:
        why = (
            f"{quoted(x)} has shape {list(shape)}, and bnncc multiplies from the left only "
            "[batch, features, tokens]"
        )
        raise Refusal("BNN008", "MatMul of a constant and an activation", why=why)
    site.emit(_point(1), [x, _as_filters(site, 0, 1, are_rows=True)])


def _point(axes: int) -> Conv:
    """Return a convolution of one tap."""
    return Conv(Window((Axis(1),) * axes))


def _as_filters(site: Site, index: int, axes: int, *, are_rows: bool) -> str:
    """Return the IR's name of a constant matrix as filters of one tap, [O, K, 1, ...]."""
    matrix = site.scope.builder.constants[site.weights(index, are_rows=are_rows)]
    filters = matrix.reshape(*matrix.shape, *(1,) * axes)
    form = f"{'rows' if are_rows else 'columns'}.{axes}d"
    return site.scope.constant(site.node.input[index], form, filters)


def _activation(site: Site) -> str:
    """Return the first operand of a layer, once it and the weights are what they must be."""
    if not site.has(1) or site.is_constant(0) or not site.is_constant(1):
        raise Refusal(
            "BNN008",
            f"{site.node.op_type} of operands other than an activation and constant weights",
            why="bnncc packs weights at compile time, so they must not depend on the input",
        )
    return site.operand(0)


def conv(site: Site) -> None:
    """Say Conv: the product, and a bias [O] as a sum with [O, 1, ...]."""
    x = _activation(site)
    sizes = spatial_shape(site, x)
    weights = site.numbers(1)
    name = quoted(site.node.input[1])
    if weights.ndim != 2 + len(sizes) or 0 in weights.shape:
        why = f"their shape is {list(weights.shape)}, and {quoted(x)} has {len(sizes)} spatial axes"
        raise Refusal("BNN003", f"weights {name} do not fit", why=why)
    kernel = checked_kernel(site, len(sizes), weights.shape[2:])
    groups = site.attribute("group", 1)
    if groups < 1 or len(weights) % groups:
        raise Refusal("BNN003", f"{len(weights)} channels of {name} in {groups} groups")
    op = Conv(window_of(site, kernel, sizes), groups)
    operands = [x, site.scope.constant(site.node.input[1], "", weights)]
    if not site.has(2):
        site.emit(op, operands)
        return
    bias = site.numbers(2)
    if bias.shape != weights.shape[:1]:
        what = f"bias {quoted(site.node.input[2])} of shape {list(bias.shape)}"
        raise Refusal("BNN003", what, why=f"there are {len(weights)} output channels")
    column = bias.reshape(-1, *(1,) * len(sizes))
    product = site.emit(op, operands, site.fresh("sum"))
    form = f"{len(sizes)}d"  # of a bias that layers of other ranks may share
    site.emit(Add(), [product, site.scope.constant(site.node.input[2], form, column)])
