"""How ONNX's reductions and the tails of classifiers are said in the IR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from bnncc.frontends.onnx.report import Refusal
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Elementwise, Identity
from bnncc.ir.ops.reduce import ArgMax, Reduction, TopK
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.ops.softmax import Softmax

__all__ = ["arg_max", "reduction", "softmax", "top_k"]

_MOST_AXES = 4  # kernels reduce images
_ONE_AXIS_SINCE = 13  # before that opset, Softmax ran over its axis and all behind it


def reduction(kind: type[Reduction], *first: Op, last: Op | None = None) -> Callable[[Site], None]:
    """Return the entry of a reduction: what happens to each element, to all, and to the result.

    Args:
        kind: makes one value of many.
        first: operations on each element before; one with two operands takes it twice.
        last: operation on the result.
    """

    def entry(site: Site) -> None:
        x = site.operand(0)
        axes = _axes(site, len(site.type_of(x).shape))
        for op in first:
            x = site.part(op, *[x] * (op.arity if isinstance(op, Elementwise) else 1))
        if axes is None:
            site.emit(last or Identity(), [x])
        elif last is None:
            _reduce(site, kind, axes, x, "")
        else:
            site.emit(last, [_reduce(site, kind, axes, x, site.fresh("reduced"))])

    return entry


def _axes(site: Site, rank: int) -> tuple[int, ...] | None:
    """Return a reduction's axes, which became an operand in opset 13 or 18; None if it has none.

    None given means all, unless the node says that it means nothing.
    """
    given = site.integers("axes", 1)
    if not given and site.attribute("noop_with_empty_axes", 0):
        return None
    axes = sorted(site.axes(given, rank)) if given else list(range(rank))
    if 0 in axes:
        what = f"{site.node.op_type} of shape {list(_shape(site))} along axes {axes}"
        why = "dimension 0 is the batch, and generated C computes one sample a call"
        raise Refusal("BNN008", what, why=why, help="reduce over the other dimensions alone")
    return tuple(axes)


def _shape(site: Site) -> tuple[int, ...]:
    return site.type_of(site.operand(0)).shape


def _reduce(site: Site, kind: type[Reduction], axes: tuple[int, ...], x: str, output: str) -> str:
    """Append a reduction: what is not an image, or loses its channels, by way of one that keeps."""
    shape = site.type_of(x).shape
    keepdims = bool(site.attribute("keepdims", 1))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    result = kept if keepdims else tuple(s for axis, s in enumerate(shape) if axis not in axes)
    spatial = axes == tuple(range(2, len(shape)))
    if len(shape) <= _MOST_AXES and (keepdims or spatial):
        return site.emit(kind(axes, keepdims), [x], output)
    if len(shape) > _MOST_AXES:
        merged, axes = _merged(site, shape, axes)
        x = site.part(Reshape(merged), x)
    reduced = site.part(kind(axes, True), x)
    return site.emit(Reshape(result), [reduced], output)


def _merged(
    site: Site, shape: Sequence[int], axes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a shape of few axes, runs of reduced and of other ones as one each, and the axes."""
    runs = [(gone, list(run)) for gone, run in groupby(range(1, len(shape)), axes.__contains__)]
    if len(runs) >= _MOST_AXES:
        what = f"{site.node.op_type} of shape {list(shape)} along axes {list(axes)}"
        raise Refusal("BNN008", what, why="they lie too far apart")
    merged = (1, *(math.prod(shape[axis] for axis in run) for _, run in runs))
    return merged, tuple(i for i, (gone, _) in enumerate(runs, start=1) if gone)


def softmax(*, log: bool) -> Callable[[Site], None]:
    """Return the entry of Softmax or LogSoftmax."""

    def entry(site: Site) -> None:
        shape = site.type_of(site.operand(0)).shape
        flattens = site.opset < _ONE_AXIS_SINCE
        axis = site.axis(site.attribute("axis", 1 if flattens else -1), len(shape))
        row = _row(site, axis, len(shape) if flattens else axis + 1)
        if len(shape) == 2:
            site.emit(Softmax(log), [row])
            return
        result = site.emit(Softmax(log), [row], site.fresh("row"))
        site.emit(Reshape(shape), [result])

    return entry


def _row(site: Site, axis: int, end: int) -> str:
    """Return the operand as [1, classes], its axes from `axis` up to `end` being the classes."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    classes = math.prod(shape[axis:end])
    if axis == 0 or classes != math.prod(shape):
        what = f"{site.node.op_type} of shape {list(shape)} along axis {axis}"
        raise Refusal("BNN008", what, why="bnncc has it over the classes of [1, classes]")
    if len(shape) == 2:
        return x
    return site.emit(Reshape((1, classes)), [x], site.fresh("classes"))


def arg_max(site: Site) -> None:
    """Say ArgMax, the lowest index among equals."""
    shape = site.type_of(site.operand(0)).shape
    axis = site.axis(site.attribute("axis", 0), len(shape))
    if site.attribute("select_last_index", 0):
        why = "among equal values, bnncc takes the lowest index, as most frameworks do"
        raise Refusal("BNN008", "ArgMax with select_last_index", why=why)
    row = _row(site, axis, axis + 1)
    keepdims = bool(site.attribute("keepdims", 1))
    if len(shape) == 2:
        site.emit(ArgMax(keepdims), [row])
        return
    index = site.emit(ArgMax(keepdims=True), [row], site.fresh("index"))
    rank = len(shape) if keepdims else len(shape) - 1
    site.emit(Reshape((1,) * rank), [index])


def _count(site: Site) -> int:
    if not site.has(1):
        return int(site.attribute("k", 0))
    counts = [int(count) for count in site.array(1).reshape(-1)]
    if len(counts) != 1:
        raise Refusal("BNN003", f"TopK with {len(counts)} values of k")
    return counts[0]


def top_k(site: Site) -> None:
    """Say TopK: k is an attribute before opset 10, `largest` and `sorted` came with 11."""
    shape = site.type_of(site.operand(0)).shape
    axis = site.axis(site.attribute("axis", -1), len(shape))
    count = _count(site)
    for name, why in (
        ("largest", "bnncc finds the largest values, not the smallest"),
        ("sorted", "bnncc sorts the values, which changes the order of the model's results"),
    ):
        if not site.attribute(name, 1):
            raise Refusal("BNN008", f"TopK with {name}=0", why=why)
    row = _row(site, axis, axis + 1)
    if not 1 <= count <= shape[axis]:
        raise Refusal("BNN003", f"TopK of {count} among {shape[axis]} values")
    if len(shape) == 2:
        site.emit_results(TopK(count), [row], site.node.output)
        return
    flat = [site.fresh(f"top{i}") for i in range(2)]
    site.emit_results(TopK(count), [row], flat)
    wanted = tuple(count if i == axis else 1 for i in range(len(shape)))
    for source, name in zip(flat, site.node.output, strict=True):
        site.emit(Reshape(wanted), [source], name)
