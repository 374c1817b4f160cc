"""How ONNX's operators that only move elements are said in the IR."""

from __future__ import annotations

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose

__all__ = ["concat", "flatten", "pad", "reshape", "slice_", "squeeze", "transpose", "unsqueeze"]

_BATCH = "the batch must stay in dimension 0, where it is 1"


def reshape(site: Site) -> None:
    """Say Reshape: 0 stands for the size that is there, -1 for what is left."""
    x = site.type_of(site.operand(0)).shape
    wanted = site.integers("shape", 1) or []
    if not site.attribute("allowzero", 0):
        if any(size == 0 for size in wanted[len(x) :]):
            raise Refusal("BNN003", f"Reshape of {list(x)} to {wanted}")
        wanted = [x[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        known = int(np.prod([size for size in wanted if size != -1], dtype=object))
        total = int(np.prod(x, dtype=object))
        wanted[wanted.index(-1)] = total // known if known else 0
    _reshape_to(site, wanted)


def flatten(site: Site) -> None:
    """Say Flatten: two dimensions, parted at an axis."""
    x = site.type_of(site.operand(0)).shape
    axis = site.attribute("axis", 1)
    axis += len(x) if axis < 0 else 0
    if not 0 <= axis <= len(x):
        raise Refusal("BNN003", f"Flatten of {list(x)} at axis {axis}")
    _reshape_to(site, [int(np.prod(x[:axis])), int(np.prod(x[axis:]))])


def squeeze(site: Site) -> None:
    """Say Squeeze: axes are an attribute before opset 13, and by default all of size 1."""
    x = site.type_of(site.operand(0)).shape
    axes = site.integers("axes", 1)
    if axes is None:
        gone = {axis for axis, size in enumerate(x) if size == 1}
    else:
        gone = {axis + len(x) if axis < 0 else axis for axis in axes}
    if not gone <= set(range(len(x))):
        raise Refusal("BNN003", f"Squeeze of {list(x)} at axes {axes}")
    _reshape_to(site, [size for axis, size in enumerate(x) if axis not in gone])


def unsqueeze(site: Site) -> None:
    """Say Unsqueeze: axes are an attribute before opset 13, and count in the result."""
    x = site.type_of(site.operand(0)).shape
    axes = site.integers("axes", 1) or []
    rank = len(x) + len(axes)
    added = {axis + rank if axis < 0 else axis for axis in axes}
    if len(added) != len(axes) or not added <= set(range(rank)):
        raise Refusal("BNN003", f"Unsqueeze of {list(x)} at axes {axes}")
    sizes = iter(x)
    _reshape_to(site, [1 if axis in added else next(sizes) for axis in range(rank)])


def _reshape_to(site: Site, shape: list[int]) -> None:
    x = site.operand(0)
    if shape[:1] != [1]:
        what = f"{site.node.op_type} from {list(site.type_of(x).shape)} to {shape}"
        raise Refusal("BNN008", what, why=_BATCH)
    site.emit(Reshape(tuple(shape)), [x])


def transpose(site: Site) -> None:
    """Say Transpose; without `perm` it reverses the axes."""
    x = site.operand(0)
    rank = len(site.type_of(x).shape)
    perm = [int(axis) for axis in site.attribute("perm", range(rank)[::-1])]
    if sorted(perm) != list(range(rank)):
        raise Refusal("BNN003", f"Transpose of {rank} axes by {perm}")
    if perm[:1] != [0]:
        raise Refusal("BNN008", f"Transpose of the axes to {perm}", why=_BATCH)
    site.emit(Transpose(tuple(perm)), [x])


def pad(site: Site) -> None:
    """Say Pad: widths and value are attributes before opset 11, axes come with opset 18."""
    mode = site.text("mode", "constant")
    if mode != "constant":
        why = "bnncc pads with a constant only"
        raise Refusal("BNN008", f"Pad with mode {quoted(mode)}", why=why)
    x = site.operand(0)
    rank = len(site.type_of(x).shape)
    widths = site.integers("pads", 1) or []
    given = site.integers("axes", 3)
    axes = list(range(rank)) if given is None else site.axes(given, rank)
    if len(widths) != 2 * len(axes):
        raise Refusal("BNN003", f"Pad of {len(axes)} axes by {len(widths)} widths")
    if any(width < 0 for width in widths):
        help_text = "cut with a slice, and pad by what is positive"
        raise Refusal("BNN008", "Pad with negative widths", why="they cut", help=help_text)
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = widths[place], widths[len(axes) + place]
    if before[:1] != [0] or after[:1] != [0]:
        raise Refusal("BNN008", "Pad of the batch", why=_BATCH)
    site.emit(Pad(tuple(before), tuple(after), _pad_value(site)), [x])


def _pad_value(site: Site) -> float:
    if not site.has(2):
        return float(site.attribute("value", 0.0))
    array = site.numbers(2)
    if array.size != 1:
        raise Refusal("BNN003", f"Pad with a value of shape {list(array.shape)}")
    return float(array.reshape(()))


def slice_(site: Site) -> None:
    """Say Slice: bounds are attributes before opset 10, which has no steps."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    first, last = site.integers("starts", 1) or [], site.integers("ends", 2) or []
    given, given_steps = site.integers("axes", 3), site.integers("steps", 4)
    axes = site.axes(list(range(len(first))) if given is None else given, len(shape))
    by = [1] * len(axes) if given_steps is None else given_steps
    if not len(first) == len(last) == len(by) == len(axes):
        counts = f"{len(first)} starts, {len(last)} ends, {len(axes)} axes and {len(by)} steps"
        raise Refusal("BNN003", f"Slice with {counts}")
    if any(step < 1 for step in by):
        raise Refusal("BNN008", f"Slice with steps {by}", why="bnncc slices in ascending order")
    ranges = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, first, last, by, strict=True):
        # ONNX clamps the bounds as Python does.
        ranges[axis] = ranges[axis][start:end:step]
    if ranges[0] != range(1):
        raise Refusal("BNN008", "Slice of the batch", why=_BATCH)
    if not all(ranges):
        what = f"Slice of {list(shape)} from {first} to {last}"
        raise Refusal("BNN008", what, why="nothing is left")
    starts, sizes = (r.start for r in ranges), (len(r) for r in ranges)
    site.emit(Slice(tuple(starts), tuple(sizes), tuple(r.step for r in ranges)), [x])


def concat(site: Site) -> None:
    """Say Concat, of activations and perhaps constants."""
    operands = [site.operand(i) for i in range(len(site.node.input))]
    kinds = [site.type_of(name) for name in operands]
    axis = site.axis(site.attribute("axis", 0), len(kinds[0].shape))
    if axis == 0:
        raise Refusal("BNN008", "Concat along dimension 0", why=_BATCH)
    if len({kind.element for kind in kinds}) > 1:
        found = ", ".join(
            f"{quoted(n)} is {k.element.value}" for n, k in zip(operands, kinds, strict=True)
        )
        raise Refusal("BNN008", "Concat of several element types", why=found)
    site.emit(Concat(axis), operands)
