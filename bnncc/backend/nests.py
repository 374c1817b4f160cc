"""Windows and movements as loops over pixels: from an operation's attributes to numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.backend.literals import literal
from bnncc.backend.program import Access, MoveWork, Nest, Part, Slide
from bnncc.ir.ops.shape import Concat, Movement, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import ChannelsLast, Element, PackedChannels, TensorType
from bnncc.ir.window import Axis, Window

__all__ = ["flat_nest", "move_work", "window_nest"]


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
    channels, pixels = kind.shape[1], math.prod(kind.shape[2:])
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
    op: Movement | None, sources: Sequence[TensorType], result: TensorType, names: Sequence[str]
) -> MoveWork:
    """Return the loops of a movement.

    Args:
        op: what moves; None if only the layout changes.
        sources: the operands' types.
        result: the result's type.
        names: the parameters that point to the operands.
    """
    write = access(result)
    size = math.prod(result.shape)
    if write.kind == "bits":
        size = write.plane * write.planes
    boxes = _boxes(op, sources, result)
    parts = [
        _part(box, source, result, name)
        for box, source, name in zip(boxes, sources, names, strict=True)
    ]
    return MoveWork(write, size, _fill(op, result), tuple(parts))


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
    to = [_affine(start, 1, axis) for axis, start in enumerate(box.to)]
    at = [_affine(*entry) for entry in zip(box.first, box.step, box.along, strict=True)]
    return Part(name, read, box.counts, at[0], _pixel(at, source), to[0], _pixel(to, result))


def _split(index: str, pixels: int) -> tuple[str, str]:
    """Return channel and pixel of the index-th element in C order."""
    return (index, "0u") if pixels == 1 else (f"{index} / {pixels}u", f"{index} % {pixels}u")


def _affine(start: int, step: int, loop: int) -> str:
    index = f"i{loop}" if step == 1 else f"{step}u * i{loop}"
    return f"{start}u + {index}" if start else index


def _pixel(coordinates: Sequence[str], kind: TensorType) -> str:
    """Return the pixel with these coordinates behind the channel's, rows outside of columns."""
    first, *rest = coordinates[1:] or ("0u",)
    pixel = first
    for coordinate, size in zip(rest, kind.shape[3:], strict=True):
        rows = f"({pixel})" if " " in pixel else pixel
        pixel = f"{rows} * {size}u + {coordinate}"
    return pixel


def _fill(op: Movement | None, result: TensorType) -> str:
    """Return what a result holds before its parts move in, "" where they cover all of it."""
    if isinstance(result.layout, PackedChannels):
        return "0"  # the unused bits, and bits are or-ed in
    if isinstance(op, Pad):
        value = np.asarray(op.value, result.element.dtype)
        return literal(value) if result.element is Element.F32 else str(value)
    return ""
