"""The loops of windows and movements: the numbers that the templates print."""

from __future__ import annotations

import math

import pytest
from hypothesis import given

from bnncc.backend.nests import access, flat_nest, move_work, window_nest
from bnncc.backend.program import Access, Fill, MoveWork, Slide
from bnncc.ir.ops.shape import Concat, Movement, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import CHANNELS_LAST, DENSE, Element, Layout, PackedChannels, TensorType
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.windows import windows_and_sizes

F32, BIPOLAR, TERNARY = Element.F32, Element.BIPOLAR, Element.TERNARY


def test_rows_lie_outside_of_columns() -> None:
    window = Window((Axis(3, 2, 1, 1, 0), Axis(2)))
    nest = window_nest(window, (5, 6), 7)
    assert nest.y == Slide(2, 5, 3, 2, 1, 1, partial=True)
    assert nest.x == Slide(5, 6, 2)
    assert (nest.pixels, nest.plane, nest.taps, nest.pixel) == (10, 5 * 6 * 7, 6, 7)
    assert nest.partial


def test_a_lone_axis_becomes_the_columns() -> None:
    nest = window_nest(Window((Axis(3, 1, 2),)), (9,), 2)
    assert nest.y == Slide()
    assert nest.x == Slide(5, 9, 3, 1, 2)
    assert not nest.partial


def test_a_layer_without_axes_has_one_pixel_and_one_tap() -> None:
    nest = window_nest(POINT, (), 4)
    assert (nest.pixels, nest.taps, nest.plane, nest.partial) == (1, 1, 4, False)


@pytest.mark.parametrize("sizes", [(), (5,), (3, 4), (2, 3, 4)])
def test_each_pixel_alone(sizes: tuple[int, ...]) -> None:
    nest = flat_nest((1, 9, *sizes), 3)
    assert (nest.pixels, nest.plane) == (math.prod(sizes), 3 * math.prod(sizes))
    assert nest.taps == 1


@given(windows_and_sizes())
def test_partial_says_whether_any_tap_lies_outside(
    case: tuple[Window, tuple[int, ...]],
) -> None:
    window, sizes = case
    nest = window_nest(window, sizes, 1)
    assert nest.partial == window.is_padded(sizes)
    assert nest.pixels == math.prod(window.outputs(sizes))
    assert nest.taps == window.taps


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((1, 6), DENSE, Access("numbers", channel=1, pixel=1)),
        ((1, 6, 4, 5), DENSE, Access("numbers", channel=20, pixel=1)),
        ((1, 6, 4, 5), CHANNELS_LAST, Access("numbers", channel=1, pixel=6)),
        ((1,), DENSE, Access("numbers", channel=1, pixel=1)),
        (
            (1, 70, 4, 5),
            PackedChannels(32, 2),
            Access("bits", 0, 3, planes=2, word_bits=32, plane=60, group=70, group_words=3),
        ),
        (
            (1, 70, 4, 5),
            PackedChannels(32, 1, 2),
            Access("bits", 0, 4, planes=1, word_bits=32, plane=80, group=35, group_words=2),
        ),
    ],
)
def test_how_an_element_is_reached(
    shape: tuple[int, ...], layout: Layout, expected: Access
) -> None:
    element = {1: BIPOLAR, 2: TERNARY}[layout.planes] if isinstance(layout, PackedChannels) else F32
    assert access(TensorType(shape, element, layout)) == expected


def moved(op: Movement | None, *sources: TensorType, to: Layout = CHANNELS_LAST) -> MoveWork:
    logical = [TensorType(x.shape, x.element) for x in sources]
    kind = op.infer(logical)[0] if op else logical[0]
    result = TensorType(kind.shape, kind.element, to)
    names = ["x", "s1"][: len(sources)]
    work, tables = move_work(op, sources, result, names, "model_layer0")
    assert tables == ()
    return work


IMAGE = TensorType((1, 3, 4, 5), F32, CHANNELS_LAST)


def places(work: MoveWork) -> list[tuple[tuple[int, ...], str, str, str, str]]:
    return [(p.counts, p.channel, p.pixel, p.to_channel, p.to_pixel) for p in work.parts]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (None, ((3, 4, 5), "i0", "i1 * 5u + i2", "i0", "i1 * 5u + i2")),
        (Transpose((0, 2, 3, 1)), ((4, 5, 3), "i2", "i0 * 5u + i1", "i0", "i1 * 3u + i2")),
        (
            Slice((0, 1, 0, 2), (1, 2, 2, 1), (1, 1, 2, 1)),
            ((2, 2, 1), "1u + i0", "(2u * i1) * 5u + 2u", "i0", "i1"),
        ),
        (
            Pad((0, 1, 2, 0), (0, 0, 1, 3), 0),
            ((3, 4, 5), "i0", "i1 * 5u + i2", "1u + i0", "(2u + i1) * 8u + i2"),
        ),
        (Reshape((1, 10, 6)), ((60,), "i0 / 20u", "i0 % 20u", "i0 / 6u", "i0 % 6u")),
        (Reshape((1, 60)), ((60,), "i0 / 20u", "i0 % 20u", "i0", "0u")),
    ],
    ids=str,
)
def test_movements_in_loops(
    op: Movement | None, expected: tuple[tuple[int, ...], str, str, str, str]
) -> None:
    to = DENSE if isinstance(op, Reshape) and len(op.shape) == 2 else CHANNELS_LAST
    assert places(moved(op, IMAGE, to=to)) == [expected]


def test_operands_follow_one_another() -> None:
    work = moved(Concat(2), IMAGE, TensorType((1, 3, 1, 5), F32, CHANNELS_LAST))
    assert [(p.source, p.counts, p.to_pixel) for p in work.parts] == [
        ("x", (3, 4, 5), "i1 * 5u + i2"),
        ("s1", (3, 1, 5), "4u * 5u + i2"),
    ]
    assert work.fills == ()


def test_only_what_parts_do_not_cover_is_filled() -> None:
    assert moved(None, IMAGE).fills == ()
    padded = moved(Pad((0, 0, 0, 1), (0, 0, 0, 0), -2.5), IMAGE)
    assert padded.fills == (Fill(0, 3 * 4 * 6, "-2.5f"),)
    codes = TensorType((1, 3, 4, 5), Element.U8, CHANNELS_LAST)
    assert moved(Pad((0, 0, 0, 1), (0, 0, 0, 0), 200), codes).fills[0].value == "200"


def bits(element: Element, channels: int) -> TensorType:
    planes = 1 if element is BIPOLAR else 2
    return TensorType((1, channels, 2, 2), element, PackedChannels(32, planes))


@pytest.mark.parametrize(
    ("element", "channels", "value", "held", "fills"),
    [
        (BIPOLAR, 5, -1, (0,), (Fill(0, 6, "0"),)),
        (BIPOLAR, 5, 1, (1,), (Fill(0, 6, "(uint32_t)0x1fu"),)),
        (BIPOLAR, 32, 1, (1,), (Fill(0, 6, "(uint32_t)0xffffffffu"),)),
        (
            BIPOLAR,
            65,
            1,
            (1,),
            (Fill(0, 18, "i % 3u == 2u ? (uint32_t)0x1u : (uint32_t)-1"),),
        ),
        (TERNARY, 5, -1, (0, 0), (Fill(0, 12, "0"),)),
        (TERNARY, 5, 0, (1, 0), (Fill(0, 6, "(uint32_t)0x1fu"), Fill(6, 6, "0"))),
        (TERNARY, 5, 1, (1, 1), (Fill(0, 6, "(uint32_t)0x1fu"), Fill(6, 6, "(uint32_t)0x1fu"))),
    ],
)
def test_padded_bits_leave_unused_ones_zero(
    element: Element, channels: int, value: int, held: tuple[int, ...], fills: tuple[Fill, ...]
) -> None:
    source = bits(element, channels)
    work = moved(Pad((0, 0, 0, 1), (0, 0, 0, 0), value), source, to=source.layout)
    assert (work.held, work.fills) == (held, fills)
