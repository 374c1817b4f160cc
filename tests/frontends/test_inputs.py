"""Inputs declared by the user: how they are written, and what is put in front of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.errors import UsageError
from bnncc.frontends.inputs import InputSpec, declare_inputs, parse_input_spec
from bnncc.ir import interpret
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Add, Neg, Relu
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.types import Element, Stage
from tests.ir.oracles import f32
from tests.ir.sketch import F, Sketch, ops, same_bits

CODES = np.arange(256, dtype=np.uint8)[:, np.newaxis]


# --- parse_input_spec -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "scale", "offset"),
    [
        ("uint8:1,0", "", 1.0, 0.0),
        ("uint8:0.00784313725,-1", "", 0.00784313725, -1.0),
        ("image=uint8:1e-2,5", "image", 0.01, 5.0),
        ("a=b=uint8:1,0", "a=b", 1.0, 0.0),
        ("uint8:1,0=uint8:2,3", "uint8:1,0", 2.0, 3.0),
        ("input.1=uint8: 2 , -3 ", "input.1", 2.0, -3.0),
        ("größe=uint8:1,0", "größe", 1.0, 0.0),
        (" =uint8:1,0", " ", 1.0, 0.0),
    ],
)
def test_parses(text: str, name: str, scale: float, offset: float) -> None:
    assert parse_input_spec(text) == (name, InputSpec(scale, offset))
    if text.count("uint8") == 1:
        signed = InputSpec(scale, offset, Element.I8)
        assert parse_input_spec(text.replace("uint8", "int8")) == (name, signed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uint8",
        "uint8:",
        "uint8:1",
        "uint8:1,",
        "uint8:,1",
        "uint8:1,2,3",
        "uint8:one,0",
        "uint8:0,0",
        "uint8:-1,0",
        "uint8:nan,0",
        "uint8:inf,0",
        "uint8:1,nan",
        "uint8:1,-inf",
        "uint8:1e999,0",
        "int16:1,0",
        "sint8:1,0",
        "UINT8:1,0",
        "=uint8:1,0",
        "float32:1,0",
        "x=float:1,0",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_input_spec(text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "BNN021"
    assert diagnostic.what == f'"{text}" does not declare an input'.replace("\n", "\\n")
    assert diagnostic.why == (
        "it must read [NAME=]uint8:SCALE,OFFSET, or int8, with a positive SCALE"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["uint8:1e39,0", "uint8:1e-46,0", "uint8:1,1e39"])
def test_refuses_what_float32_cannot_hold(text: str) -> None:
    # The model computes in float32: an infinite scale, or one of 0, is none.
    with pytest.raises(UsageError) as caught:
        parse_input_spec(text)
    assert caught.value.code == "BNN021"


def test_messages_are_printable() -> None:
    with pytest.raises(UsageError, match=r"a\\x1b\[31m") as caught:
        parse_input_spec("a\x1b[31m")
    assert "\x1b" not in str(caught.value)


# --- InputSpec.decode -----------------------------------------------------------------------------


@given(st.floats(2**-20, 1e3, width=32), st.floats(-1e3, 1e3, width=32))
def test_decode_rounds_twice(scale: float, offset: float) -> None:
    real = InputSpec(scale, offset).decode(CODES)
    expected = [[f32(float(f32(u * scale)) + offset)] for u in range(256)]
    same_bits(real, np.array(expected, F))


def test_decode_takes_the_float32_of_its_numbers() -> None:
    # 0.1 is no float32: what reaches the model's float32 arithmetic is the nearest one.
    real = InputSpec(0.1, 0.3).decode(CODES)
    expected = [[f32(float(f32(u * float(F(0.1)))) + float(F(0.3)))] for u in range(256)]
    same_bits(real, np.array(expected, F))


# --- declare_inputs -------------------------------------------------------------------------------


def model(*, clash: bool = False) -> Graph:
    """y = relu(x W + image W) and the raw image, with names that decoding would like to have."""
    s = Sketch(4, stage=Stage.FLOAT)
    image = s.builder.input("image", s.builder.types["x"])
    suffixes = ("scale", "offset", "code", "scaled", "real")
    taken = [f"image.{suffix}" for suffix in suffixes] if clash else []
    w = s.const(np.arange(12).reshape(3, 4) - 5, "w")
    a = s(MatMul(), "x", w, to="a")
    b = s(MatMul(), image, w, to="b")
    for name in taken:
        b = s(Neg(), s(Neg(), b, to=name))
    s(Relu(), s(Add(), a, b, to="sum"), to="y")
    return s.done("y")


SPEC = InputSpec(1 / 255, -0.5)


@pytest.mark.parametrize("clash", [False, True])
@pytest.mark.parametrize("element", [Element.U8, Element.I8])
def test_decodes_in_front_of_the_model(element: Element, clash: bool) -> None:
    before = model(clash=clash)
    spec = replace(SPEC, element=element)
    after = declare_inputs(before, {"image": spec})
    assert violations(after) == []
    assert after.inputs == ("x", "image")
    assert after.outputs == before.outputs
    assert [after.types[n].element for n in after.inputs] == [Element.F32, element]
    assert after.types["image"].shape == (1, 4)
    assert ops(after)[:3] == ["Cast", "Mul", "Add"]
    assert [n.origin for n in after.nodes[:3]] == [("--input image",)] * 3
    assert [n.origin for n in after.nodes[3:]] == [n.origin for n in before.nodes]
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 4)).astype(F)
    codes = random.integers(0, 256, (50, 4)).astype(np.uint8)
    codes[0], codes[1] = 0, 255
    codes = codes.view(element.dtype)
    (expected,) = interpret.run(before, {"x": x, "image": spec.decode(codes)}).values()
    (actual,) = interpret.run(after, {"x": x, "image": codes}).values()
    same_bits(actual, expected)


def test_every_code() -> None:
    s = Sketch(1, stage=Stage.FLOAT)
    s(Relu(), "x", to="y")
    after = declare_inputs(s.done(), {"x": InputSpec(2 / 255, -1.0)})
    (actual,) = interpret.run(after, {"x": CODES}).values()
    expected = [max(float(v), 0.0) for v in InputSpec(2 / 255, -1.0).decode(CODES)[:, 0]]
    assert actual[:, 0].tolist() == expected


def test_both_inputs() -> None:
    after = declare_inputs(model(), {"image": SPEC, "x": InputSpec(1.0, 0.0)})
    assert violations(after) == []
    assert [after.types[n].element for n in after.inputs] == [Element.U8, Element.U8]
    # A scale of 1 and an offset of 0 are left out.
    assert ops(after)[:4] == ["Cast", "Mul", "Add", "Cast"]


def test_no_name_stands_for_the_only_input() -> None:
    s = Sketch(3, stage=Stage.FLOAT)
    s(Relu(), "x", to="y")
    after = declare_inputs(s.done(), {"": SPEC})
    assert after.types["x"].element is Element.U8


def test_nothing_declared_nothing_done() -> None:
    graph = model()
    assert declare_inputs(graph, {}) is graph


def test_the_graph_given_is_not_changed() -> None:
    graph = model()
    nodes, types = graph.nodes, dict(graph.types)
    declare_inputs(graph, {"image": SPEC})
    assert graph.nodes == nodes
    assert dict(graph.types) == types


def test_an_output_that_is_the_input_becomes_the_decoded_one() -> None:
    s = Sketch(2, stage=Stage.FLOAT)
    s(Relu(), "x", to="y")
    after = declare_inputs(s.done("y", "x"), {"x": SPEC})
    assert after.outputs == ("y", "x.real")
    assert after.types["x.real"].element is Element.F32


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        ({"nobody": SPEC}, 'no float32 input is called "nobody"'),
        ({"y": SPEC}, 'no float32 input is called "y"'),
        ({"w": SPEC}, 'no float32 input is called "w"'),
        ({"image": SPEC, "a\nb": SPEC}, 'no float32 input is called "a\\nb"'),
        ({"": SPEC}, "which input?"),
    ],
)
def test_refuses_other_names(specs: dict[str, InputSpec], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        declare_inputs(model(), specs)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.what) == ("BNN021", what)
    assert diagnostic.help == "the model's inputs: x, image"


def test_refuses_inputs_of_another_element() -> None:
    once = declare_inputs(model(), {"image": SPEC})
    with pytest.raises(UsageError, match='"image" takes bytes already'):
        declare_inputs(once, {"image": SPEC})
