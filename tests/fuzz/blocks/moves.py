"""What only moves values, or leaves some out: shapes, slices, pads, pixels chosen again."""

from __future__ import annotations

from math import prod

import numpy as np

from tests.fuzz.blocks.signs import sign
from tests.fuzz.net import Net

__all__ = [
    "border",
    "crop",
    "duplicate",
    "flatten",
    "gather",
    "nhwc",
    "noise",
    "pixels",
    "reshape",
    "resize",
    "shuffle",
    "split",
    "transpose",
]

_MOST_VALUES = 6000

# --- Shapes ---------------------------------------------------------------------------------------


def flatten(net: Net) -> None:
    """All of a sample in one row, as exporters spell it."""
    if not net.spatial:
        return
    form = net.pick(("Flatten", "Flatten", "Reshape", "numbers", "Shape"))
    if form == "Flatten":
        net.follow("Flatten", axis=1)
    elif form == "Shape":  # x.view(x.size(0), -1)
        batch = _size(net, 0)
        rest = net.node("Unsqueeze", [net.constant(-1, np.int64), net.constant([0], np.int64)])
        net.follow("Reshape", net.node("Concat", [batch, rest], axis=0))
    else:
        size = -1 if form == "Reshape" else prod(net.shape)
        net.follow("Reshape", net.constant([1, size], np.int64))


def _size(net: Net, axis: int) -> str:
    """Return the length of an axis of `x` as Shape, Gather and Unsqueeze say it: [1]."""
    shape = net.shape_of(net.x)
    size = net.node("Gather", [shape, net.constant(axis, np.int64)], axis=0)
    return net.node("Unsqueeze", [size, net.constant([0], np.int64)])


def reshape(net: Net) -> None:
    """The same values as channels and a row, or an axis added or removed."""
    size = prod(net.shape)
    if len(net.shape) == 3 and net.chance(0.5):
        net.follow("Unsqueeze", net.constant([net.pick((2, 3, -1))], np.int64))
        return
    if len(net.shape) > 2 and 1 in net.shape[2:] and net.chance(0.5):
        axis = 2 + net.shape[2:].index(1)
        net.follow("Squeeze", net.constant([axis], np.int64))
        return
    divisors = [d for d in range(1, min(size, 70) + 1) if size % d == 0]
    channels = net.pick(divisors)
    if net.chance(0.3):
        rows = [d for d in divisors if size // channels % d == 0]
        net.follow("Reshape", net.constant([0, channels, net.pick(rows), -1], np.int64))
    else:
        net.follow("Reshape", net.constant([1, channels, -1], np.int64))


def transpose(net: Net) -> None:
    """Axes that trade places, and back or not."""
    rank = len(net.shape)
    if rank < 3:
        return
    order = list(map(int, net.random.permutation(range(1, rank))))
    net.follow("Transpose", perm=[0, *order])
    if net.chance(0.4):
        net.follow(net.pick(("Relu", "Sign", "Neg", "Abs")))
        net.follow("Transpose", perm=[0, *(1 + order.index(axis) for axis in range(1, rank))])


def nhwc(net: Net) -> None:
    """Channels last as tf2onnx has them: some operations there, and back."""
    rank = len(net.shape)
    if rank < 3:
        return
    net.follow("Transpose", perm=[0, *range(2, rank), 1])
    for _ in range(net.between(1, 3)):
        form = net.pick(("sign", "affine", "pad", "concat", "relu", "there and back"))
        if form == "sign":
            sign(net)
        elif form == "affine":
            row = net.reals(net.shape[-1]) + np.float32(0.0625)
            net.follow(net.pick(("Mul", "Add", "Sub")), net.constant(row))
        elif form == "pad":
            around = [0, *(net.between(0, 1) for _ in range(rank - 2)), 0]
            value = net.constant(net.pick((0.0, 1.0, -1.0)))
            net.follow("Pad", net.constant([*around, *around], np.int64), value)
        elif form == "concat" and net.shape[-1] <= 35:
            net.x = net.node("Concat", [net.x, net.node("Neg", [net.x])], axis=-1)
        elif form == "relu":
            net.follow("Relu")
        else:
            net.follow("Transpose", perm=[0, rank - 1, *range(1, rank - 1)])
            net.follow("Transpose", perm=[0, *range(2, rank), 1])
    if net.chance(0.8):
        net.follow("Transpose", perm=[0, rank - 1, *range(1, rank - 1)])


def noise(net: Net) -> None:
    """What exporters leave: Identity, Dropout in eval mode, Casts and Expands that do nothing."""
    form = net.pick(("Identity", "Dropout", "Cast", "Expand", "Reshape"))
    if form == "Cast":
        net.follow("Cast", to=1)
    elif form == "Expand":
        net.follow("Expand", net.constant([1] * len(net.shape), np.int64))
    elif form == "Reshape":
        net.follow("Reshape", net.shape_of(net.x))
    else:
        net.follow(form)


# --- Parts ----------------------------------------------------------------------------------------


def crop(net: Net) -> None:
    """A Slice of any axis but the batch."""
    axis = net.between(1, len(net.shape) - 1)
    length = net.shape[axis]
    start = net.between(0, length - 1)
    end = net.between(start + 1, length)
    step = net.pick((1, 1, 2, 3))
    if net.chance(0.15):  # from the last to the first
        rows = ([-1], [-(2**62)], [axis], [-step])
    else:
        if net.chance(0.3):
            start -= length
        end = end if start >= 0 or end < length else 2**62
        rows = ([start], [end], [axis], [step])
    net.follow("Slice", *(net.constant(row, np.int64) for row in rows))


def split(net: Net) -> None:
    """One part of a Split, or all parts in another order."""
    axis = 1 if net.chance(0.8) else net.between(1, len(net.shape) - 1)
    length = net.shape[axis]
    if length < 2:
        return
    count = net.between(2, min(length, 4))
    sizes = [length // count] * (count - 1)
    sizes.append(length - sum(sizes))
    if length % count == 0 and net.opset < 18 and net.chance(0.5):
        parts = net.results("Split", [net.x], count, axis=axis)
    elif length % count == 0 and net.opset >= 18 and net.chance(0.5):
        parts = net.results("Split", [net.x], count, axis=axis, num_outputs=count)
    else:
        parts = net.results("Split", [net.x, net.constant(sizes, np.int64)], count, axis=axis)
    if net.chance(0.4):
        net.x = net.pick(parts)
        return
    net.random.shuffle(parts)
    net.x = net.node("Concat", parts, axis=axis)


def gather(net: Net) -> None:
    """Some channels, rows or columns, again and again or not at all; one of them drops its axis."""
    axis = net.between(1, len(net.shape) - 1)
    length = net.shape[axis]
    if len(net.shape) > 2 and net.chance(0.2):
        net.follow("Gather", net.constant(net.between(-length, length - 1), np.int64), axis=axis)
        return
    indices = net.random.integers(-length, length, net.between(1, min(length + 2, 70)))
    net.follow("Gather", net.constant(indices, np.int64), axis=axis)


# --- More -----------------------------------------------------------------------------------------


def border(net: Net) -> None:
    """A Pad around the spatial axes, of a constant or of what is there."""
    if not net.spatial:
        return
    axes = len(net.spatial)
    modes = ["constant", "constant", "constant", "edge", "reflect"]
    mode = net.pick([*modes, "wrap"] if net.opset >= 19 else modes)
    most = [2 if mode == "constant" else min(2, length - 1) for length in net.spatial]
    pads = [0, 0, *(net.between(0, m) for m in most), 0, 0, *(net.between(0, m) for m in most)]
    operands = [net.constant(pads, np.int64)]
    if mode == "constant":
        operands.append(net.constant(net.pick((0.0, 1.0, -1.0, 0.5))))
    assert len(pads) == 2 * (2 + axes)
    net.follow("Pad", *operands, mode=mode)


def duplicate(net: Net) -> None:
    """Channels twice (Bi-Real's and ReActNet's downsampling), or an axis of one stretched."""
    if net.channels > 48:
        return
    form = net.pick(("Concat", "Concat", "Tile", "Expand"))
    if form == "Concat":
        net.x = net.node("Concat", [net.x, net.x], axis=1)
    elif form == "Tile":
        net.follow("Tile", net.constant([1, 2, *[1] * len(net.spatial)], np.int64))
    elif 1 in net.shape[1:]:
        axis = 1 + net.shape[1:].index(1)
        target = [1] * len(net.shape)
        target[axis] = net.between(2, 5)
        net.follow("Expand", net.constant(target, np.int64))


def resize(net: Net) -> None:
    """Nearest pixels or linear sums, by scales or to sizes."""
    if not net.spatial or prod(net.shape) * 4 > _MOST_VALUES:
        return
    factors = [net.pick((0.5, 1.0, 1.5, 2.0, 2.0)) for _ in net.spatial]
    factors = [
        f if int(length * f) else 1.0 for f, length in zip(factors, net.spatial, strict=True)
    ]
    attributes = {"mode": net.pick(("nearest", "nearest", "linear"))}
    modes = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attributes["coordinate_transformation_mode"] = net.pick(modes)
    if attributes["mode"] == "nearest":
        modes = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = net.pick(modes)
    if net.chance(0.5):
        net.follow("Resize", "", net.constant([1.0, 1.0, *factors]), **attributes)
        return
    sizes = [int(length * f) for f, length in zip(factors, net.spatial, strict=True)]
    net.follow("Resize", "", "", net.constant([1, net.channels, *sizes], np.int64), **attributes)


def pixels(net: Net) -> None:
    """Channels that become blocks of pixels, or the other way round."""
    if len(net.spatial) != 2:
        return
    if net.channels % 4 == 0:
        net.follow("DepthToSpace", blocksize=2, mode=net.pick(("DCR", "CRD")))
    elif not any(length % 2 for length in net.spatial) and net.channels <= 17:
        net.follow("SpaceToDepth", blocksize=2)


def shuffle(net: Net) -> None:
    """ShuffleNet's: channels as groups, groups and members traded."""
    groups = [d for d in range(2, net.channels) if net.channels % d == 0]
    if not groups:
        return
    count = net.pick(groups)
    apart = [1, count, net.channels // count, -1]
    back = [1, net.channels, *net.spatial]
    net.follow("Reshape", net.constant(apart, np.int64))
    net.follow("Transpose", perm=[0, 2, 1, 3])
    net.follow("Reshape", net.constant(back, np.int64))
