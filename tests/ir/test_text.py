"""The text of a graph: exact, stable, and one line a tensor whatever the names are."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Add, Clip, Dequantize, Mul, Step
from bnncc.ir.ops.linear import BinaryConv, BinaryDense
from bnncc.ir.text import format_graph
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import F, Sketch


def small(weights: object = ((1, -1, 1), (-1, -1, 1))) -> Graph:
    sketch = Sketch(3, Element.BIPOLAR)
    w = sketch.const(weights, "w", Element.BIPOLAR)
    sketch(BinaryDense(), "x", w, to="n", origin=["fc", "act"])
    sketch(
        Step(Element.TERNARY), "n", sketch.const([[0, 1]], "t", Element.I32), [[-1, 0, 1]], to="y"
    )
    return sketch.done()


def test_says_everything() -> None:
    assert format_graph(small()) == (
        "graph %sketch stage=binary\n"
        "  input    %x: bipolar[1x3]\n"
        "  constant %w: bipolar[2x3] = [[1, -1, 1], [-1, -1, 1]]\n"
        "  constant %t: i32[1x2] = [[0, 1]]\n"
        "  constant %c: f32[1x3] = [[-1.0, 0.0, 1.0]]\n"
        "  %n: i32[1x2] in [-3, 3 by 2] = BinaryDense(%x, %w)  # fc, act\n"
        "  %y: ternary[1x2] = Step(ternary)(%n, %t, %c)  # the y\n"
        "  output   %y\n"
    )


def test_says_how_windows_move() -> None:
    sketch = Sketch(element=Element.BIPOLAR, shape=(1, 1, 6))
    window = Window((Axis(3, 2, 1, 1, 0),))
    sketch(BinaryConv(window, pad=-1), "x", sketch.const([[[1, -1, 1]]], "w", Element.BIPOLAR))
    assert format_graph(sketch.done()).splitlines()[3] == (
        "  %t0: i32[1x1x3] in [-3, 3 by 2] = "
        "BinaryConv(window=[3/2 pad 1+0], groups=1, pad=-1)(%x, %w)  # the t0"
    )


def test_is_the_same_for_the_same_graph() -> None:
    assert format_graph(small()) == format_graph(small())


def test_large_constants_stand_as_their_hash() -> None:
    def text(flip: int) -> str:
        sketch = Sketch(9, Element.BIPOLAR)
        weights = np.ones((1, 9), np.int8)
        weights[0, flip] = -1
        sketch(BinaryDense(), "x", sketch.const(weights, "w", Element.BIPOLAR), to="y")
        return format_graph(sketch.done())

    assert "sha256:" in text(0)
    assert len({text(i) for i in range(9)}) == 9


def with_constant(value: object, element: Element = Element.F32) -> str:
    sketch = Sketch(1, Element.F32 if element is Element.F32 else Element.I32)
    if element is Element.F32:
        sketch(Mul(), "x", sketch.const(value, "a"), to="y")
    else:
        a = sketch.const(value, "a", element)
        sketch(Dequantize(), "x", a, sketch.const([0], "b", Element.F64), a, to="y")
    return format_graph(sketch.done())


@pytest.mark.parametrize(
    ("element", "value"),
    [(Element.F32, v) for v in (0.1, 1 / 3, 16777215, 1e-5, -1.2345679e-38, 3.4e38)]
    + [(Element.F64, v) for v in (0.1, 16777215)],
)
def test_neighbouring_constants_have_different_texts(element: Element, value: float) -> None:
    # Expected graphs are compared as text: what the text does not say is not tested.
    at = np.array([value], element.dtype)
    outward = np.nextafter(at, np.copysign(np.inf, at))
    assert with_constant(at, element) != with_constant(outward, element)


def test_constants_of_very_different_size_are_all_spelled_out() -> None:
    a, b = np.array([1000, 1.2345678e-5], F), np.array([1000, 1.2345679e-5], F)

    def text(value: object) -> str:
        sketch = Sketch(2)
        sketch(Add(), "x", sketch.const(value), to="y")
        return format_graph(sketch.done())

    assert a[1] != b[1]
    assert text(a) != text(b)


def test_does_not_depend_on_how_the_user_prints_arrays() -> None:
    plain = with_constant(0.123456)
    with np.printoptions(precision=2, suppress=True, sign="+", threshold=1):
        assert with_constant(0.123456) == plain


HOSTILE = {
    "newline": "a\n  output   %spoofed\n",
    "carriage return": "a\rb",
    "escape": "\x1b[2Jb",
    "null": "a\0b",
    "line separator": "a\u2028b",
    "right to left override": "a\u202eb",
    "surrogate": "a\ud800b",
    "C comment": "*/ int main(void) { /*",
    "quote": 'a"b\\',
    "long": "n" * 10_000,
    "unicode": "größe≥0",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_stay_on_their_line(name: str) -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    constant = sketch.const([1, 2], name + "c")
    sketch(Add(), "x", constant, to=name, origin=[name])
    sketch(Clip(-1, 1), name, to=name + "y", origin=[name])
    text = format_graph(sketch.done(name + "y"))
    lines = text.split("\n")
    assert len(lines) == 7
    assert text.splitlines() == lines[:-1]
    for line in lines[:-1]:
        assert line.isprintable()
        assert len(line) < 500
    text.encode("utf-8")
    if name and len(name) < 80 and name.isprintable():
        assert f"%{name}" in text
