"""Graphs of stage BINARY in which bits change their channels and places on the way to a layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bnncc.ir.graph import Graph
from bnncc.ir.ops.shape import Concat, Expand, Gather, Reshape, Slice, Transpose
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import Sketch
from tests.passes.convolutions import binary, bits_of

SIZES = (3, 4)
_ELEMENTS = (Element.BIPOLAR, Element.TERNARY, Element.U2)

Moved = Callable[[Sketch, Sequence[str]], str]


def shuffled(s: Sketch, x: str, groups: int, to: str = "") -> str:
    """Append ShuffleNet's channel shuffle."""
    _, channels, *sizes = s.builder.types[x].shape
    wide = s(Reshape((1, groups, channels // groups, *sizes)), x)
    turned = s(Transpose((0, 2, 1, *range(3, 3 + len(sizes)))), wide)
    return s(Reshape((1, channels, *sizes)), turned, to=to)


def channels_of(s: Sketch, x: str, channels: Sequence[int]) -> str:
    """Append a choice of channels."""
    sizes = s.builder.types[x].shape[2:]
    return s(Gather(((0,), tuple(channels), *(tuple(range(size)) for size in sizes))), x)


def part(s: Sketch, x: str, start: int, count: int, step: int = 1) -> str:
    """Append a Slice of channels."""
    sizes = s.builder.types[x].shape[2:]
    ones = (1,) * len(sizes)
    return s(Slice((0, start, *(0 for _ in sizes)), (1, count, *sizes), (1, step, *ones)), x)


def places_of(s: Sketch, x: str, *places: Sequence[int]) -> str:
    """Append a choice of places along each spatial axis."""
    channels = tuple(range(s.builder.types[x].shape[1]))
    return s(Gather(((0,), channels, *map(tuple, places))), x)


def _joined(s: Sketch, xs: Sequence[str]) -> str:
    return s(Concat(1), *xs)


def _permutation(count: int) -> list[int]:
    return np.random.default_rng(count).permutation(count).tolist()


def _split_and_joined(s: Sketch, xs: Sequence[str]) -> str:
    """A block of ShuffleNet v2: one half is joined with another branch, and both are shuffled."""
    half = s.builder.types[xs[0]].shape[1] // 2
    both = s(Concat(1), part(s, xs[0], 0, half), xs[1])
    return part(s, shuffled(s, both, 2), 0, half)


def _image_of_a_pixel(s: Sketch, xs: Sequence[str]) -> str:
    dot = s(Slice((0, 0, 1, 2), (1, s.builder.types[xs[0]].shape[1], 1, 1), (1, 1, 1, 1)), xs[0])
    return s(Expand((*s.builder.types[dot].shape[:2], 2, 3)), dot)


MOVEMENTS: dict[str, tuple[tuple[int, ...], Moved]] = {
    "joined, whole words": ((64, 128), _joined),
    "joined, parts of words": ((33, 31, 70, 5), _joined),
    "joined with itself": ((7,), lambda s, xs: s(Concat(1), xs[0], xs[0], xs[0])),
    "a part, whole words": ((192,), lambda s, xs: part(s, xs[0], 64, 64)),
    "a part across words": ((200,), lambda s, xs: part(s, xs[0], 41, 130)),
    "a part of a word": ((70,), lambda s, xs: part(s, xs[0], 3, 5)),
    "every second": ((131,), lambda s, xs: part(s, xs[0], 1, 65, 2)),
    "some of every second": ((131,), lambda s, xs: part(s, xs[0], 1, 20, 2)),
    "shuffled by two": ((96,), lambda s, xs: shuffled(s, xs[0], 2)),
    "shuffled by four": ((136,), lambda s, xs: shuffled(s, xs[0], 4)),
    "shuffled by eight": ((144,), lambda s, xs: shuffled(s, xs[0], 8)),
    "shuffled back by two": ((130,), lambda s, xs: shuffled(s, xs[0], 65)),
    "shuffled back by four": ((140,), lambda s, xs: shuffled(s, xs[0], 35)),
    "shuffled back by eight": ((200,), lambda s, xs: shuffled(s, part(s, xs[0], 5, 192), 24)),
    "every fourth of both": (
        (70, 80),
        lambda s, xs: s(Concat(1), *(part(s, x, 3, 16, 4) for x in xs)),
    ),
    "shuffled by three": ((33,), lambda s, xs: shuffled(s, xs[0], 3)),
    "shuffled by many": ((150,), lambda s, xs: shuffled(s, xs[0], 50)),
    "joined and shuffled": ((66, 30), lambda s, xs: shuffled(s, s(Concat(1), *xs), 2)),
    "split, joined, shuffled": ((60, 30), _split_and_joined),
    "each repeated": ((35,), lambda s, xs: channels_of(s, xs[0], np.arange(105) // 3)),
    "backwards": ((40,), lambda s, xs: channels_of(s, xs[0], range(39, -1, -1))),
    "a few at random": ((70,), lambda s, xs: channels_of(s, xs[0], _permutation(70)[:9])),
    "many at random": ((150,), lambda s, xs: channels_of(s, xs[0], _permutation(150))),
    "many of two at random": (
        (80, 70),
        lambda s, xs: channels_of(s, s(Concat(1), *xs), _permutation(150)),
    ),
    "every second pixel": ((33,), lambda s, xs: places_of(s, xs[0], (0, 2), (1, 3))),
    "pixels twice": ((33,), lambda s, xs: places_of(s, xs[0], (0, 0, 1, 1), (0, 0, 1, 1, 2, 2))),
    "pixels at random": ((33,), lambda s, xs: places_of(s, xs[0], (2, 0, 0, 1), (3, 0, 2))),
    "pixels and channels": (
        (33, 20),
        lambda s, xs: places_of(s, shuffled(s, part(s, s(Concat(1), *xs), 3, 50), 2), (1,), (3, 1)),
    ),
    "one pixel all over": ((33,), _image_of_a_pixel),
}
"""name -> channels of the tensors of bits, what moves them"""


def gathered(
    name: str, elements: Sequence[Element], groups: int = 1, sizes: Sequence[int] = SIZES
) -> Graph:
    """Return bits of these elements in turn, moved, and then read by one layer."""
    channels, move = MOVEMENTS[name]
    s = Sketch(shape=(1, sum(channels), *sizes))
    kinds = itertools.cycle(elements)
    starts = np.cumsum([0, *channels]).tolist()
    bits = [
        bits_of(s, part(s, "x", start, count), f"s{i}", next(kinds), count)
        for i, (start, count) in enumerate(zip(starts, channels, strict=False))
    ]
    moved = move(s, bits)
    depth = s.builder.types[moved].shape[1]
    groups = groups if depth % groups == 0 else 1
    window = Window((Axis(1),) * len(s.builder.types[moved].shape[2:]))
    return s.done(binary(s, moved, 3 * groups, window, "y", groups=groups))


def gathers() -> Iterator[tuple[str, Graph]]:
    """Yield every movement of every element, with groups or without."""
    for i, name in enumerate(MOVEMENTS):
        for j, element in enumerate(_ELEMENTS):
            groups = (1, 3, 5)[(i + j) % 3]
            yield f"{element.value} {name} for {groups} groups", gathered(name, [element], groups)
    for name in ("joined, parts of words", "joined and shuffled"):
        yield f"bipolar and ternary {name}", gathered(name, _ELEMENTS[:2], 2)
        yield f"{name} in a line", gathered(name, [Element.BIPOLAR], 1, (5,))
        yield f"{name} without axes", gathered(name, [Element.BIPOLAR], 1, ())
    for value in (Element.BIPOLAR, Element.TERNARY):
        s = Sketch(shape=(1, 40, *SIZES))
        constant = np.random.default_rng(1).choice([-1, 1], (1, 37, *SIZES))
        held = s.const(constant, "k", value)
        both = s(Concat(1), bits_of(s, "x", "s", Element.BIPOLAR, 40), held, to="both")
        window = Window((Axis(1), Axis(1)))
        yield f"a {value.value} constant", s.done(binary(s, both, 5, window, "y"))
