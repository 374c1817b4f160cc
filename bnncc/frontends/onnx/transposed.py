"""How ConvTranspose is said in the IR: one convolution for each place within a stride.

With stride s, output o = s q + r is the sum over those taps k alone for which d k = r + p modulo s
(d is the dilation, p the pad before): an ordinary convolution of stride 1 with every so-manieth tap
of the kernel, the last first, whose q-th output it is. So there are s^2 convolutions over an image,
whose results are woven together. Nothing is multiplied by the zeros that a stretched input would
hold, and binary weights stay binary: taps outside of the input are skipped, as in any convolution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.frontends.onnx.windows import checked_kernel, spatial_shape, window_of
from bnncc.ir.ops.elementwise import Add
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.shape import Concat, Reshape, Slice, Transpose
from bnncc.ir.types import Array
from bnncc.ir.window import Axis, Window

__all__ = ["conv_transpose"]


@dataclass(frozen=True)
class _Phase:
    """The outputs r, r + s, r + 2 s, ... of one axis.

    Attributes:
        taps: of the kernel, in the order in which they meet ascending inputs.
        axis: the window that they make.
        inputs: those that any of its outputs sees; none where the kernel has a gap.
    """

    taps: tuple[int, ...]
    axis: Axis
    inputs: range


@dataclass(frozen=True)
class _Line:
    """One axis of a transposed convolution: `outputs` outputs, `each` in a phase, of `size` inputs.

    What the phases compute beyond the outputs is cut off.
    """

    size: int
    outputs: int
    stride: int
    phases: tuple[_Phase, ...]

    @property
    def each(self) -> int:
        return -(-self.outputs // self.stride)


def conv_transpose(site: Site) -> None:
    """Say ConvTranspose, with a bias added to each phase."""
    x = site.operand(0)
    sizes = spatial_shape(site, x)
    weights = site.numbers(1)
    name, channels = quoted(site.node.input[1]), site.type_of(x).shape[1]
    groups = site.attribute("group", 1)
    fits = weights.ndim == 2 + len(sizes) and 0 not in weights.shape and groups >= 1
    if not fits or len(weights) != channels or channels % groups:
        why = f"their shape is {list(weights.shape)}, and {quoted(x)} has {channels} channels"
        raise Refusal("BNN003", f"weights {name} do not fit in {groups} groups", why=why)
    lines = _lines(site, sizes, checked_kernel(site, len(sizes), weights.shape[2:]))
    rows = _by_output(weights, groups)
    phases = list(itertools.product(*(line.phases for line in lines)))
    seen = [all(phase.inputs for phase in each) for each in phases]
    if not any(seen):
        what = f"the result of ConvTranspose by {name} does not depend on its input"
        raise Refusal("BNN008", what, why="pads cut off all outputs that do")
    if len(phases) == 1:
        _phase(site, x, rows, phases[0], "")
        return
    results = [
        _phase(site, x, rows, each, site.fresh("phase"))
        if sees
        else _nothing(site, len(rows), lines)
        for each, sees in zip(phases, seen, strict=True)
    ]
    _woven(site, results, len(rows), lines)


def _by_output(weights: Array, groups: int) -> Array:
    """Return weights [C, O / groups, *kernel] as [O, C / groups, *kernel]."""
    apart = weights.reshape(groups, -1, *weights.shape[1:])
    return np.ascontiguousarray(np.swapaxes(apart, 1, 2)).reshape(
        groups * weights.shape[1], -1, *weights.shape[2:]
    )


def _lines(site: Site, sizes: Sequence[int], kernel: Sequence[int]) -> list[_Line]:
    window = window_of(site, kernel, sizes, resolve=False)
    extra = list(site.attribute("output_padding", [0] * len(sizes)))
    shape = list(site.attribute("output_shape", []))
    if len(extra) != len(sizes) or len(shape) not in (0, len(sizes)) or min(extra) < 0:
        what = f"ConvTranspose with output_padding {extra} and output_shape {shape}"
        raise Refusal("BNN003", what, why=f"there are {len(sizes)} spatial axes")
    auto = site.text("auto_pad", "NOTSET")
    lines = []
    for i, (size, axis) in enumerate(zip(sizes, window.axes, strict=True)):
        whole = axis.stride * (size - 1) + extra[i] + axis.extent
        before, outputs = axis.before, whole - axis.before - axis.after
        if shape or auto.startswith("SAME"):
            outputs = shape[i] if shape else size * axis.stride
            # ONNX pads by what is too much, the odd one at the end but for SAME_UPPER.
            total = max(0, whole - outputs)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        elif auto == "VALID":
            before, outputs = 0, whole
        if outputs < 1:
            what = f"ConvTranspose of {list(sizes)} pads away its outputs"
            raise Refusal("BNN003", what)
        lines.append(_line(axis, size, before, outputs))
    return lines


def _line(axis: Axis, size: int, before: int, outputs: int) -> _Line:
    each = -(-outputs // axis.stride)
    phases = [_one_phase(axis, size, before, rest, each) for rest in range(axis.stride)]
    return _Line(size, outputs, axis.stride, tuple(phases))


def _one_phase(axis: Axis, size: int, before: int, rest: int, each: int) -> _Phase:
    """Return the taps k with d k = r + p modulo s, and where they lie on the input.

    Output s q + r sees with tap k the input q + (r + p - d k) / s: those of one phase lie d / gcd
    apart, g being the greatest common divisor of d and s.
    """
    stride, dilation = axis.stride, axis.dilation
    taps = [k for k in range(axis.kernel) if (rest + before - dilation * k) % stride == 0]
    if not taps:
        return _Phase((), Axis(1), range(0))
    start = (rest + before - dilation * taps[-1]) // stride  # where the last tap begins
    apart = dilation // math.gcd(dilation, stride)
    end = start + each + (len(taps) - 1) * apart
    inputs = range(max(0, start), min(size, end))
    window = Axis(len(taps), 1, apart, max(0, -start), max(0, end - size))
    return _Phase(tuple(reversed(taps)), window, inputs)


def _phase(site: Site, x: str, rows: Array, phases: Sequence[_Phase], output: str) -> str:
    """Append what computes the outputs of one phase of each axis, and return their name."""
    _, channels, *sizes = site.type_of(x).shape
    chosen = rows
    for place, phase in enumerate(phases, start=2):
        chosen = np.take(chosen, phase.taps, axis=place)
    form = "taps " + " ".join(",".join(map(str, phase.taps)) for phase in phases)
    weights = site.scope.constant(site.node.input[1], form, np.ascontiguousarray(chosen))
    if any(len(phase.inputs) < size for phase, size in zip(phases, sizes, strict=True)):
        starts = (0, 0, *(phase.inputs.start for phase in phases))
        extents = (*site.type_of(x).shape[:2], *(len(phase.inputs) for phase in phases))
        x = site.part(Slice(starts, extents, (1,) * len(starts)), x)
    conv = Conv(Window(tuple(phase.axis for phase in phases)), channels // rows.shape[1])
    bias = _bias(site, len(rows), len(phases))
    if bias is None:
        return site.emit(conv, [x, weights], output)
    return site.emit(Add(), [site.emit(conv, [x, weights], site.fresh("sum")), bias], output)


def _bias(site: Site, channels: int, rank: int) -> str | None:
    """Return the bias as a column [O, 1, ...] if there is one."""
    if not site.has(2):
        return None
    bias = site.numbers(2)
    if bias.shape != (channels,):
        what = f"bias {quoted(site.node.input[2])} of shape {list(bias.shape)}"
        raise Refusal("BNN003", what, why=f"there are {channels} output channels")
    column = bias.reshape(-1, *(1,) * rank)
    return site.scope.constant(site.node.input[2], f"{rank}d", column)


def _nothing(site: Site, channels: int, lines: Sequence[_Line]) -> str:
    """Return what a phase computes that no tap belongs to: the bias, or zeros."""
    shape = (1, channels, *(line.each for line in lines))
    bias = np.zeros((), np.float32)
    if site.has(2):
        bias = site.numbers(2).reshape(-1, *(1,) * len(lines))
    name = f"without taps {'x'.join(map(str, shape))}"
    spread = np.ascontiguousarray(np.broadcast_to(bias, shape))
    return site.scope.constant(site.node.output[0], name, spread)


def _woven(site: Site, results: list[str], channels: int, lines: Sequence[_Line]) -> None:
    """Say the result: each phase's outputs, side by side, and no more than there are."""
    strides, each = [line.stride for line in lines], [line.each for line in lines]
    rank = len(lines)
    joined = site.part(Concat(1), *results)
    apart = site.part(Reshape((1, *strides, channels, *each)), joined)
    # [1, s1, s2, O, e1, e2] to [1, O, e1, s1, e2, s2]
    perm = (0, 1 + rank, *(axis for i in range(rank) for axis in (2 + rank + i, 1 + i)))
    turned = site.part(Transpose(perm), apart)
    whole = tuple(s * e for s, e in zip(strides, each, strict=True))
    outputs = tuple(line.outputs for line in lines)
    if whole == outputs:
        site.emit(Reshape((1, channels, *whole)), [turned])
        return
    image = site.part(Reshape((1, channels, *whole)), turned)
    shape = (1, channels, *outputs)
    site.emit(Slice((0,) * len(shape), shape, (1,) * len(shape)), [image])
