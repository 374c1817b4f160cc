"""Windows and movements as loops over pixels: from an operation's attributes to numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.literals import literal
from bnncc.backend.program import (
    Access,
    Constant,
    Fill,
    InterpolateWork,
    MoveWork,
    Nest,
    Part,
    Slide,
)
from bnncc.ir.ops.interpolate import Between, Interpolate
from bnncc.ir.ops.shape import (
    Concat,
    Expand,
    Gather,
    Movement,
    Pad,
    Reshape,
    Slice,
    Transpose,
)
from bnncc.ir.storage import to_planes
from bnncc.ir.types import ChannelsLast, Element, PackedChannels, TensorType
from bnncc.ir.window import Axis, Window

__all__ = [
    "access",
    "flat_nest",
    "interpolation",
    "move_work",
    "pixel_index",
    "place_rule",
    "window_nest",
]


def window_nest(window: Window, sizes: Sequence[int], pixel: int) -> Nest:
    """Return the loops of a window over spatial axes `sizes`; a lone axis becomes the columns.

    Args:
        window: of at most two axes.
        sizes: of the input.
        pixel: elements or words of one pixel of the input.
    """
    slides = [_slide(axis, size) for axis, size in zip(window.axes, sizes, strict=True)]
    y, x = [Slide()] * (2 - len(slides)) + slides
    return Nest(y, x, pixel)


def _slide(axis: Axis, size: int) -> Slide:
    outputs = axis.outputs(size)
    partial = any(len(axis.taps(o, size)) < axis.kernel for o in range(outputs))
    return Slide(outputs, size, axis.kernel, axis.stride, axis.dilation, axis.before, partial)


def flat_nest(shape: Sequence[int], pixel: int) -> Nest:
    """Return the loop over all pixels of an image [N, C, *S], each looked at alone."""
    pixels = math.prod(shape[2:])
    return Nest(Slide(), Slide(pixels, pixels), pixel)


def access(kind: TensorType) -> Access:
    """Return how one element of a stored tensor is reached."""
    channels = kind.shape[1] if len(kind.shape) > 1 else 1
    pixels = math.prod(kind.shape[2:])
    match kind.layout:
        case PackedChannels() as layout:
            words = layout.words(channels)
            return Access(
                "bits",
                pixel=words,
                planes=layout.planes,
                word_bits=layout.word_bits,
                plane=pixels * words,
                group=channels // layout.groups,
                group_words=words // layout.groups,
            )
        case ChannelsLast():
            return Access("numbers", channel=1, pixel=channels)
        case _:
            return Access("numbers", channel=pixels, pixel=1)


def move_work(
    op: Movement | None,
    sources: Sequence[TensorType],
    result: TensorType,
    names: Sequence[str],
    hint: str,
) -> tuple[MoveWork, tuple[Constant, ...]]:
    """Return the loops of a movement, and the tables of places that they read.

    Args:
        op: what moves; None if only the layout changes.
        sources: the operands' types.
        result: the result's type.
        names: the parameters that point to the operands.
        hint: the start of the tables' names.
    """
    if isinstance(op, Gather):
        part, tables = _chosen(op, sources[0], result, names[0], hint)
        return MoveWork(access(result), _fills(op, result), _held(op, result), (part,)), tables
    boxes = _boxes(op, sources, result)
    parts = [
        _part(box, source, result, name)
        for box, source, name in zip(boxes, sources, names, strict=True)
    ]
    fills, held = _fills(op, result), _held(op, result)
    return MoveWork(access(result), fills, held, tuple(parts)), ()


@dataclass(frozen=True)
class _Box:
    """Elements that move together: a loop index for each axis of the result but the batch.

    Attributes:
        counts: the loops' lengths.
        to: where each axis of the result starts.
        first, step: of each axis of the source.
        along: which loop each axis of the source follows.
    """

    counts: tuple[int, ...]
    to: tuple[int, ...]
    first: tuple[int, ...]
    step: tuple[int, ...]
    along: tuple[int, ...]


def _boxes(
    op: Movement | None, sources: Sequence[TensorType], result: TensorType
) -> list[_Box | None]:
    """Return one box a source; None stands for all elements in C order."""
    rank = len(result.shape) - 1
    zeros, ones, same = (0,) * rank, (1,) * rank, tuple(range(rank))
    match op:
        case Reshape():
            return [None]
        case Concat(axis=axis):
            offsets = np.cumsum([0, *(source.shape[axis] for source in sources)]).tolist()
            starts = [tuple(o * (i == axis - 1) for i in same) for o in offsets[:-1]]
            return [
                _Box(source.shape[1:], start, zeros, ones, same)
                for source, start in zip(sources, starts, strict=True)
            ]
        case Pad(before=before):
            return [_Box(sources[0].shape[1:], before[1:], zeros, ones, same)]
        case Slice(starts=starts, sizes=sizes, steps=steps):
            return [_Box(sizes[1:], zeros, starts[1:], steps[1:], same)]
        case Expand():
            step = tuple(int(size > 1) for size in sources[0].shape[1:])
            return [_Box(result.shape[1:], zeros, zeros, step, same)]
        case Transpose(perm=perm):
            along = tuple(perm[1:].index(axis) for axis in range(1, rank + 1))
            return [_Box(result.shape[1:], zeros, zeros, ones, along)]
        case _:
            return [_Box(result.shape[1:], zeros, zeros, ones, same)]


def _part(box: _Box | None, source: TensorType, result: TensorType, name: str) -> Part:
    read = access(source)
    if box is None:
        total = math.prod(result.shape)
        places = [_split("i0", math.prod(kind.shape[2:])) for kind in (source, result)]
        return Part(name, read, (total,), *places[0], *places[1])
    steps = [int(count > 1) for count in box.counts]  # a loop that does not turn is left out
    to = [_affine(start, steps[axis], axis) for axis, start in enumerate(box.to)]
    at = [
        _affine(first, step * steps[loop], loop)
        for first, step, loop in zip(box.first, box.step, box.along, strict=True)
    ]
    return Part(
        name, read, box.counts, at[0], pixel_index(at, source), to[0], pixel_index(to, result)
    )


def _split(index: str, pixels: int) -> tuple[str, str]:
    """Return channel and pixel of the index-th element in C order."""
    return (index, "0u") if pixels == 1 else (f"{index} / {pixels}u", f"{index} % {pixels}u")


def _affine(start: int, step: int, loop: int) -> str:
    if step == 0:
        return f"{start}u"
    index = f"i{loop}" if step == 1 else f"{step}u * i{loop}"
    return f"{start}u + {index}" if start else index


def _chosen(
    op: Gather, source: TensorType, result: TensorType, name: str, hint: str
) -> tuple[Part, tuple[Constant, ...]]:
    """Return the loops over chosen places, and a table for each axis that follows no rule."""
    at: list[str] = []
    tables: list[Constant] = []
    for loop, places in enumerate(op.places[1:]):
        index = place_rule(places, loop)
        if not index:
            held = np.asarray(places, np.uint16 if max(places) < 1 << 16 else np.uint32)
            tables.append(constant(f"{hint}_places{loop}", held, "parameters"))
            index = f"{tables[-1].name}[i{loop}]"
        at.append(index)
    to = [_affine(0, 1, loop) for loop in range(len(at))]
    counts = result.shape[1:]
    pixels = pixel_index(at, source), pixel_index(to, result)
    return Part(name, access(source), counts, at[0], pixels[0], to[0], pixels[1]), tuple(tables)


def place_rule(places: Sequence[int], loop: int) -> str:
    """Return the C expression of places at equal distances, each repeated, or round and round."""
    count, start = len(places), places[0]
    index = np.arange(count)
    step = places[1] - start if count > 1 else 0
    if step >= 0 and np.array_equal(places, start + step * index):
        return _affine(start, step, loop)
    repeats = places.count(0)
    if repeats > 1 and np.array_equal(places, index // repeats):
        return f"i{loop} / {repeats}u"
    period = max(places) + 1
    return f"i{loop} % {period}u" if np.array_equal(places, index % period) else ""


def interpolation(
    op: Interpolate, x: TensorType, hint: str
) -> tuple[Nest, InterpolateWork, tuple[Constant, ...]]:
    """Return the loops of an interpolation, its taps, and the tables of places and weights."""
    loops = ("oy", "ox")[2 - len(op.axes) :]
    named = list(zip(loops, op.axes, strict=True))
    tables = tuple(t for loop, axis in named for t in _axis_tables(f"{hint}_{loop}", axis))
    pixel = x.shape[1]
    taps = []
    for side in np.ndindex(*(2,) * len(loops)):
        entries = [
            f"[{loop} * 2u + {s}u]" if len(axis.first) > 1 else f"[{s}]"
            for s, (loop, axis) in zip(side, named, strict=True)
        ]
        at = [f"{hint}_{loop}_places{e}" for loop, e in zip(loops, entries, strict=True)]
        weights = [f"{hint}_{loop}_weights{e}" for loop, e in zip(loops, entries, strict=True)]
        place = at[0] if len(at) == 1 else f"(size_t){at[0]} * {x.shape[3]}u + {at[1]}"
        weight = weights[0] if len(at) == 1 else f"bnn_mul({', '.join(weights)})"
        taps.append((f"({place}) * {pixel}u" if len(at) > 1 else f"{place} * {pixel}u", weight))
    value = " + ".join(f"bnn_mul(w{i}, x{i}[c])" for i in range(len(taps)))
    slides = [Slide(len(a.first), s) for a, s in zip(op.axes, x.shape[2:], strict=True)]
    y, x_ = [Slide()] * (2 - len(slides)) + slides
    return Nest(y, x_, pixel), InterpolateWork(tuple(taps), value), tables


def _axis_tables(hint: str, axis: Between) -> list[Constant]:
    """Return the places [outputs, 2] of an axis, and their weights."""
    places = np.array([axis.first, axis.second]).T
    held = places.astype(np.uint16 if places.max() < 1 << 16 else np.uint32)
    weights = np.asarray(axis.weights, np.float32)
    return [
        constant(f"{hint}_places", held, "parameters"),
        constant(f"{hint}_weights", weights, "parameters"),
    ]


def pixel_index(coordinates: Sequence[str], kind: TensorType) -> str:
    """Return the pixel with these coordinates behind the channel's, rows outside of columns."""
    pixel = "0u"
    for coordinate, size in zip(coordinates[1:], kind.shape[2:], strict=True):
        if pixel != "0u" and size > 1:
            pixel = f"({pixel}) * {size}u" if " " in pixel else f"{pixel} * {size}u"
        terms = [term for term in (pixel, coordinate) if term != "0u"]
        pixel = " + ".join(terms) or "0u"
    return pixel


def _fills(op: Movement | None, result: TensorType) -> tuple[Fill, ...]:
    """Return what a result holds before its parts move in; nothing where they cover all of it."""
    match result.layout:
        case PackedChannels(word_bits=word_bits) as layout:
            planes = _held(op, result)
            words, last = divmod(result.shape[1] - 1, word_bits)
            size = math.prod(result.shape[2:]) * layout.words(result.shape[1])
            if not any(planes):  # the unused bits, and those that are or-ed in
                return (Fill(0, size * layout.planes, "0"),)
            c_type = f"uint{word_bits}_t"
            ones, tail = f"({c_type})-1", f"({c_type})0x{(2 << last) - 1:x}u"
            pattern = f"i % {words + 1}u == {words}u ? {tail} : {ones}" if words else tail
            return tuple(
                Fill(plane * size, size, pattern if bit else "0")
                for plane, bit in enumerate(planes)
            )
        case _ if isinstance(op, Pad):
            value = np.asarray(op.value, result.element.dtype)
            text = literal(value) if result.element is Element.F32 else str(value)
            return (Fill(0, math.prod(result.shape), text),)
        case _:
            return ()


def _held(op: Movement | None, result: TensorType) -> tuple[int, ...]:
    """Return the bits, one a plane, of the elements of a packed result that a Pad adds."""
    if not isinstance(result.layout, PackedChannels):
        return ()
    if not isinstance(op, Pad):
        return (0,) * result.layout.planes
    value = np.full((1, 1), op.value, result.element.dtype)
    return tuple(int(bit) for bit in to_planes(value, result.element).reshape(-1))
