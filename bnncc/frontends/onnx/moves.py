"""How ONNX's operators that only move elements are said in the IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.elementwise import Identity
from bnncc.ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose

__all__ = [
    "concat",
    "depth_to_space",
    "expand",
    "flatten",
    "gather",
    "pad",
    "reshape",
    "slice_",
    "space_to_depth",
    "split",
    "squeeze",
    "tile",
    "transpose",
    "unsqueeze",
]

# What numpy calls ONNX's modes.
_MIRRORS: Mapping[str, Literal["reflect", "edge", "wrap"]] = MappingProxyType(
    {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
)
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
    if mode not in _MIRRORS and mode != "constant":
        raise Refusal("BNN003", f"Pad with mode {quoted(mode)}")
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
    if mode in _MIRRORS:
        sizes = zip(site.type_of(x).shape, before, after, strict=True)
        site.emit(Gather(tuple(_mirrored(mode, *widths) for widths in sizes)), [x])
        return
    site.emit(Pad(tuple(before), tuple(after), _pad_value(site)), [x])


def _mirrored(mode: str, size: int, before: int, after: int) -> tuple[int, ...]:
    """Return where each element of an axis that is padded with its own elements comes from."""
    if mode == "reflect" and max(before, after) >= size:
        what = f"Pad of {size} elements by {before} and {after} with mode reflect"
        raise Refusal("BNN008", what, why="there are not so many to reflect")
    padded = np.pad(np.arange(size), (before, after), mode=_MIRRORS[mode])
    return tuple(padded.tolist())


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
    if 0 in by:
        raise Refusal("BNN003", f"Slice with steps {by}")
    ranges = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, first, last, by, strict=True):
        # ONNX clamps the bounds as Python does, but for an end before the first element.
        before_all = step < 0 and end < -shape[axis]
        ranges[axis] = ranges[axis][start : None if before_all else end : step]
    if ranges[0] != range(1):
        raise Refusal("BNN008", "Slice of the batch", why=_BATCH)
    if not all(ranges):
        what = f"Slice of {list(shape)} from {first} to {last}"
        raise Refusal("BNN008", what, why="nothing is left")
    _emit_choice(site, ranges, [x])


def _emit_choice(
    site: Site, places: Sequence[Sequence[int]], operands: list[str], output: str = ""
) -> str:
    """Append what takes some places of every axis: a Slice if they ascend at equal distances."""
    ranges = [_as_range(chosen) for chosen in places]
    if all(ranges):
        starts, sizes = (r.start for r in ranges if r), (len(r) for r in ranges if r)
        steps = tuple(r.step for r in ranges if r)
        return site.emit(Slice(tuple(starts), tuple(sizes), steps), operands, output)
    return site.emit(Gather(tuple(tuple(chosen) for chosen in places)), operands, output)


def _as_range(places: Sequence[int]) -> range | None:
    step = places[1] - places[0] if len(places) > 1 else 1
    found = range(places[0], places[0] + step * len(places), step) if step > 0 else None
    return found if found is not None and list(found) == list(places) else None


def gather(site: Site) -> None:
    """Say Gather with constant indices: a single one drops its axis."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    axis = site.axis(site.attribute("axis", 0), len(shape))
    indices = site.array(1)
    if indices.dtype.kind != "i" or not indices.size:
        what = f"Gather with {indices.size} indices of type {indices.dtype}"
        raise Refusal("BNN003", what)
    if axis == 0:
        raise Refusal("BNN008", "Gather along dimension 0", why=_BATCH)
    if indices.min() < -shape[axis] or indices.max() >= shape[axis]:
        what = f"Gather among {shape[axis]} elements with indices up to {int(indices.max())}"
        raise Refusal("BNN003", what)
    places: list[Sequence[int]] = [range(size) for size in shape]
    places[axis] = (indices.reshape(-1) % shape[axis]).tolist()
    if indices.ndim == 1:
        _emit_choice(site, places, [x])
        return
    chosen = _emit_choice(site, places, [x], site.fresh("chosen"))
    site.emit(Reshape((*shape[:axis], *indices.shape, *shape[axis + 1 :])), [chosen])


def split(site: Site) -> None:
    """Say Split as slices: into sizes from an attribute or an operand, or into equal parts."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    axis = site.axis(site.attribute("axis", 0), len(shape))
    if axis == 0:
        raise Refusal("BNN008", "Split along dimension 0", why=_BATCH)
    sizes = site.integers("split", 1) or _equal_parts(shape[axis], len(site.node.output))
    if len(sizes) != len(site.node.output) or sum(sizes) != shape[axis] or min(sizes) < 1:
        what = f"Split of {shape[axis]} elements into {sizes}"
        raise Refusal("BNN003", what, why=f"there are {len(site.node.output)} results")
    start = 0
    for name, size in zip(site.node.output, sizes, strict=True):
        starts = tuple(start if i == axis else 0 for i in range(len(shape)))
        part = tuple(size if i == axis else extent for i, extent in enumerate(shape))
        if name:
            site.emit(Slice(starts, part, (1,) * len(shape)), [x], name)
        start += size


def _equal_parts(size: int, count: int) -> list[int]:
    """Return `count` sizes, equal but for a smaller last one."""
    each = -(-size // count)
    return [min(each, size - i * each) for i in range(count)]


def expand(site: Site) -> None:
    """Say Expand; what reads it broadcasts by itself where it can."""
    x = site.operand(0)
    own = site.type_of(x).shape
    wanted = tuple(site.integers("shape", 1) or ())
    try:
        target = np.broadcast_shapes(own, wanted)
    except ValueError as error:
        raise Refusal("BNN003", f"Expand of {list(own)} to {list(wanted)}") from error
    if target[:1] != (1,):
        raise Refusal("BNN008", f"Expand of {list(own)} to {list(target)}", why=_BATCH)
    if len(own) < len(target):
        x = site.part(Reshape((1, *(1,) * (len(target) - len(own)), *own[1:])), x)
    if site.type_of(x).shape == target:
        site.emit(Identity(), [x])
        return
    site.scope.expanded[site.emit(Expand(target), [x])] = x


def tile(site: Site) -> None:
    """Say Tile: each axis round and round."""
    x = site.operand(0)
    shape = site.type_of(x).shape
    repeats = site.integers("repeats", 1) or []
    if len(repeats) != len(shape) or min(repeats, default=1) < 1:
        raise Refusal("BNN003", f"Tile of {list(shape)} by {repeats}")
    if repeats[:1] != [1]:
        raise Refusal("BNN008", f"Tile of {list(shape)} by {repeats}", why=_BATCH)
    if all(count == 1 for count in repeats):
        site.emit(Identity(), [x])
        return
    pairs = zip(shape, repeats, strict=True)
    site.emit(Gather(tuple(tuple(range(size)) * count for size, count in pairs)), [x])


def _blocks(site: Site) -> tuple[str, tuple[int, ...], int]:
    x = site.operand(0)
    shape, block = site.type_of(x).shape, site.attribute("blocksize", 0)
    if len(shape) != 4 or block < 1:
        raise Refusal("BNN003", f"{site.node.op_type} of shape {list(shape)} by {block}")
    return x, shape, block


def depth_to_space(site: Site) -> None:
    """Say DepthToSpace: channels become blocks of pixels, by depth or by column first."""
    x, (_, channels, rows, columns), block = _blocks(site)
    depth = channels // block**2
    if depth * block**2 != channels:
        raise Refusal("BNN003", f"DepthToSpace of {channels} channels by {block}")
    match site.text("mode", "DCR"):
        case "DCR":
            apart, perm = (1, block, block, depth, rows, columns), (0, 3, 4, 1, 5, 2)
        case "CRD":
            apart, perm = (1, depth, block, block, rows, columns), (0, 1, 4, 2, 5, 3)
        case other:
            raise Refusal("BNN003", f"DepthToSpace with mode {quoted(other)}")
    moved = site.part(Transpose(perm), site.part(Reshape(apart), x))
    site.emit(Reshape((1, depth, rows * block, columns * block)), [moved])


def space_to_depth(site: Site) -> None:
    """Say SpaceToDepth: blocks of pixels become channels."""
    x, (_, channels, rows, columns), block = _blocks(site)
    if rows % block or columns % block:
        raise Refusal("BNN003", f"SpaceToDepth of {rows} by {columns} pixels by {block}")
    apart = (1, channels, rows // block, block, columns // block, block)
    moved = site.part(Transpose((0, 3, 5, 1, 2, 4)), site.part(Reshape(apart), x))
    site.emit(Reshape((1, channels * block**2, rows // block, columns // block)), [moved])


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
