"""What a TensorFlow Lite file may not hold, damaged and hostile ones among them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnncc.errors import UnsupportedModelError, UsageError
from bnncc.frontends.tflite import load_tflite
from bnncc.frontends.torch import load_file
from bnncc.frontends.torch.kinds import FileKind, file_kind
from bnncc.ir.check import violations
from tests.frontends.flat import BCONV, SAME, VALID, Flat, packed

F = np.float32
WINDOW = {"Padding": VALID, "StrideH": 1, "StrideW": 1}
SIGNS = np.where(np.arange(5 * 9 * 40).reshape(5, 3, 3, 40) % 3, F(1), F(-1))


def refusal(content: bytes, folder: Path) -> str:
    path = folder / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError) as caught:
        load_tflite(path)
    return str(caught.value)


Build = Callable[[Flat, int], int]


def one(build: Build, shape: tuple[int, ...] = (1, 4, 4, 2)) -> bytes:
    flat = Flat()
    x = flat.tensor(shape, name="x")
    return flat.done([x], [build(flat, x)])


def bconv(change: Callable[[dict], None] = lambda _: None, **more: object) -> Build:
    """Return a binary convolution with something changed."""

    def build(flat: Flat, x: int) -> int:
        given = {
            "options": BCONV | {"channels_in": 40},
            "filters": packed(SIGNS),
            "multiplier": np.ones(5),
            "bias": np.zeros(5),
            "thresholds": None,
            "shape": (1, 2, 2, 5),
            "element": "float32",
        } | more
        change(given)
        constants = [flat.const(given[name]) for name in ("multiplier", "bias")]
        limits = given["thresholds"]
        return flat.larq(
            "LceBconv2d",
            [
                flat.quantize(x, to="bits"),
                flat.const(given["filters"], "int32", "filters"),
                *constants,
                -1 if limits is None else flat.const(limits, "int32"),
            ],
            given["shape"],
            given["options"],
            to="conv",
            element=given["element"],
        )

    return build


def options(**changes: object) -> Callable[[dict], None]:
    def change(given: dict) -> None:
        kept = {k: v for k, v in (given["options"] | changes).items() if v is not None}
        given["options"] = kept

    return change


IMAGE = (1, 4, 4, 40)
LARQ: dict[str, tuple[Build, str]] = {
    "an option that is missing": (
        bconv(options(channels_in=None)),
        "error[BNN003]: LceBconv2d: its options cannot be read\n  where: conv\n  why:   "
        "channels_in is missing",
    ),
    "an option that is text": (bconv(options(padding="SAME")), "padding is no integer"),
    "no options": (bconv(options=None), "its options cannot be read"),
    "channels that do not match": (bconv(options(channels_in=33)), "it says that there are 33"),
    "negative channels": (bconv(options(channels_in=-40)), "it says that there are -40"),
    "a padding that is none": (bconv(options(padding=2)), "padding are out of range"),
    "a value to pad with that is none": (bconv(options(pad_values=-1)), "it pads with -1"),
    "a stride of 0": (bconv(options(stride_width=0)), "strides or padding are out of range"),
    "a window that does not fit": (
        bconv(options(dilation_width_factor=2)),
        "[BNN003]: LceBconv2d: its window of 5 does not fit into 4 pixels",
    ),
    "an activation": (
        bconv(options(fused_activation_function=4)),
        "[BNN008]: LceBconv2d: its fused activation TANH is not supported",
    ),
    "words that no groups make": (
        bconv(filters=np.zeros((5, 3, 3, 3), np.int32)),
        "[BNN003]: LceBconv2d: its filters have 3 words for 40 channels",
    ),
    "groups that are no whole words": (
        bconv(filters=np.zeros((5, 3, 3, 1), np.int32)),
        "its 5 filters of 32 channels do not fit 40",
    ),
    "a bias too short": (bconv(bias=np.zeros(4)), "its operand 3 has the shape 4"),
    "thresholds too many": (
        bconv(thresholds=np.zeros(6), element="int32", shape=(1, 2, 2, 1)),
        "its thresholds have the shape 6",
    ),
    "no thresholds": (bconv(element="int32", shape=(1, 2, 2, 1)), "its operand 4 is missing"),
    "another shape than declared": (bconv(shape=(1, 2, 3, 5)), "the file says 1x2x3x5"),
    "results of eight bits": (bconv(element="int8"), 'tensor "conv" is int8'),
    "reals in place of bits": (
        lambda flat, x: flat.larq("LceDequantize", [x], IMAGE),
        'its operand "x" is not made by an operator on packed bits',
    ),
    "bits in place of reals": (
        lambda flat, x: flat.op("RELU", [flat.quantize(x, to="bits")], (1, 4, 4, 2)),
        '[BNN008]: RELU: its operand "bits" is packed bits',
    ),
    "bits as results": (lambda flat, x: flat.quantize(x, to="bits"), 'output "bits" is packed'),
}


@pytest.mark.parametrize("name", LARQ)
def test_larq(tmp_path, name):
    build, message = LARQ[name]
    assert message in refusal(one(build, IMAGE), tmp_path)


def test_a_binary_convolution_that_is_none_of_these(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(one(bconv(), IMAGE))
    assert violations(load_tflite(path).graph) == []


def conv(w: np.ndarray, *more: int, **changes: object) -> Build:
    return lambda flat, x: flat.op(
        "CONV_2D", [x, flat.const(w), *more], (1, 4, 4, 3), "Conv2DOptions", **(WINDOW | changes)
    )


FILTERS = np.ones((3, 1, 1, 2))
BUILTIN: dict[str, tuple[Build, str]] = {
    "filters of another rank": (conv(np.ones((3, 2))), "its filters have the shape 3x2"),
    "filters of other channels": (
        conv(np.ones((3, 1, 1, 5))),
        "its 3 filters of 5 channels do not fit 2",
    ),
    "filters that are computed": (
        lambda flat, x: flat.op("CONV_2D", [x, x], (1, 4, 4, 3), "Conv2DOptions", **WINDOW),
        '[BNN008]: CONV_2D: its operand "x" is not a constant',
    ),
    "no filters": (
        lambda flat, x: flat.op("CONV_2D", [x], (1, 4, 4, 3), "Conv2DOptions", **WINDOW),
        "its operand 1 is missing",
    ),
    "no options": (
        lambda flat, x: flat.op("CONV_2D", [x, flat.const(FILTERS)], (1, 4, 4, 3)),
        "its window, strides or padding are out of range",
    ),
    "the options of another operator": (
        lambda flat, x: flat.op(
            "CONV_2D", [x, flat.const(FILTERS)], (1, 4, 4, 3), "Pool2DOptions", **WINDOW
        ),
        "[BNN003]: CONV_2D: its options are Pool2DOptions, not Conv2DOptions",
    ),
    "an operand that nothing makes": (
        lambda flat, x: flat.op("ADD", [x, flat.tensor((1, 4, 4, 2), name="lost")], (1, 4, 4, 2)),
        '[BNN003]: ADD: nothing makes its operand "lost"',
    ),
    "shapes that do not broadcast": (
        lambda flat, x: flat.op("ADD", [x, flat.const(np.ones(3))], (1, 4, 4, 2)),
        "its operands 1x4x4x2 and 3 do not broadcast",
    ),
    "a constant cut short": (
        lambda flat, x: flat.op("ADD", [x, flat.tensor((2,), data=b"1234")], (1, 4, 4, 2)),
        "holds 4 bytes, not the 2 values it declares",
    ),
    "a tensor of state": (
        lambda flat, x: flat.op("ADD", [x, flat.tensor((2,), variable=True)], (1, 4, 4, 2)),
        "it keeps its value from one run to the next",
    ),
    "elements that no reshape makes": (
        lambda flat, x: flat.op("RESHAPE", [x, flat.const([1, 33], "int32")], (1, 33)),
        "1x4x4x2 elements are not 1x33",
    ),
    "another shape than the reshape's": (
        lambda flat, x: flat.op("RESHAPE", [x, flat.const([1, 32], "int32")], (1, 33)),
        "it reshapes to 1x32, and the file says 1x33",
    ),
    "an order of axes that is none": (
        lambda flat, x: flat.op("TRANSPOSE", [x, flat.const([0, 1, 1, 2], "int32")], (1, 4, 4, 4)),
        "[0, 1, 1, 2] is no order of 4 axes",
    ),
    "negative widths": (
        lambda flat, x: flat.op(
            "PAD", [x, flat.const([[0, 0], [-1, 0], [0, 0], [0, 0]], "int32")], (1, 3, 4, 2)
        ),
        "its widths [0, 0, -1, 0, 0, 0, 0, 0] do not fit 1x4x4x2",
    ),
    "a slice of nothing": (
        lambda flat, x: flat.op(
            "SLICE", [x, *(flat.const(v, "int32") for v in ([0, 4, 0, 0], [1, 1, 4, 2]))], (1,)
        ),
        "nothing is left of 1x4x4x2",
    ),
    "a slice that drops an axis": (
        lambda flat, x: flat.op(
            "STRIDED_SLICE",
            [x, *(flat.const(v, "int32") for v in ([0] * 4, [1, 4, 4, 2], [1] * 4))],
            (1,),
            "StridedSliceOptions",
            ShrinkAxisMask=2,
        ),
        "its ShrinkAxisMask is not supported",
    ),
    "axes that are none": (
        lambda flat, x: flat.op("MEAN", [x, flat.const([4], "int32")], (1,), "ReducerOptions"),
        "its axes [4] do not fit 1x4x4x2",
    ),
    "operands that do not join": (
        lambda flat, x: flat.op(
            "CONCATENATION", [x, flat.const(np.ones((1, 3, 4, 2)))], (1,), "ConcatenationOptions"
        ),
        "do not fit along axis 0",
    ),
    "shuffled weights": (
        lambda flat, x: flat.op(
            "FULLY_CONNECTED",
            [x, flat.const(np.ones((3, 32)))],
            (1, 3),
            "FullyConnectedOptions",
            WeightsFormat=1,
        ),
        "its weights are stored shuffled",
    ),
    "a result that is made twice": (
        lambda flat, x: (
            flat.operators.append(
                {"name": "RELU", "in": [x], "out": [x], "options": "", "fields": {}}
            )
            or x
        ),
        "its result is made twice",
    ),
}


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_operators(tmp_path, name):
    build, message = BUILTIN[name]
    assert message in refusal(one(build), tmp_path)


def test_all_operators_that_are_not_supported_at_once(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="x")
    a = flat.op("COS", [x], (1, 4), to="a")
    b = flat.larq("FlexErf", [a], (1, 4), to="b")
    c = flat.op("COS", [b], (1, 4), to="c")
    assert refusal(flat.done([x], [c]), tmp_path) == (
        "error[BNN007]: operator COS is not supported\n"
        "  where: a, c\n"
        "error[BNN007]: custom operator FlexErf is not supported\n"
        "  where: b"
    )


def test_all_that_is_wrong_at_once_but_not_what_follows_from_it(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="x")
    a = flat.op("ADD", [x, flat.const(np.ones(3))], (1, 4), to="a")
    b = flat.op("RELU", [a], (1, 4), to="b")
    c = flat.op("MUL", [x, flat.const(np.ones(3))], (1, 4), to="c")
    text = refusal(flat.done([x], [b, c]), tmp_path)
    assert text.count("error[BNN003]") == 2
    assert "RELU" not in text


@pytest.mark.parametrize(
    ("element", "shape", "message"),
    [
        ("int8", (1, 4), 'error[BNN008]: input "x" is int8, not float32'),
        ("float32", (2, 4), 'error[BNN008]: input "x" holds more than one sample'),
    ],
)
def test_inputs(tmp_path, element, shape, message):
    flat = Flat()
    x = flat.tensor(shape, element, name="x")
    assert refusal(flat.done([x], [flat.op("RELU", [x], shape)]), tmp_path).startswith(message)


def test_an_input_that_is_listed_twice(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="x")
    content = flat.done([x, x], [flat.op("RELU", [x], (1, 4))])
    assert 'input "x" is listed twice' in refusal(content, tmp_path)


@pytest.mark.parametrize("outputs", [True, False])
def test_outputs_that_nothing_makes(tmp_path, outputs):
    flat = Flat()
    x, lost = (flat.tensor((1, 4), name=name) for name in ("x", "lost"))
    flat.op("RELU", [x], (1, 4))
    text = refusal(flat.done([x], [lost] if outputs else []), tmp_path)
    assert text == (
        'error[BNN003]: nothing makes output "lost"'
        if outputs
        else "error[BNN003]: the model has no outputs"
    )


def test_shapes_of_inputs_are_fixed(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(one(lambda flat, x: flat.op("RELU", [x], (1, 4, 4, 2))))
    with pytest.raises(UsageError):
        load_tflite(path, {"x": (1, 5, 5, 2)})


# --- Files ----------------------------------------------------------------------------------------


def test_the_content_tells_what_it_is(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(one(lambda flat, x: flat.op("RELU", [x], (1, 4, 4, 2))))
    assert file_kind(path) is FileKind.TFLITE
    assert load_file(path).graph.inputs == ("x",)


def test_a_file_that_is_cut_short(tmp_path):
    content = one(bconv(), IMAGE)
    text = refusal(content[:200], tmp_path)
    assert text.startswith("error[BNN002]: ")
    assert "is not a TensorFlow Lite model\n  why:   its 200 bytes start like one" in text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnsupportedModelError, match="BNN001"):
        load_tflite(tmp_path / "none.tflite")


def test_tensors_that_claim_too_much(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 1 << 15, 1 << 15, 4), name="x")
    content = flat.done([x], [flat.op("RELU", [x], (1, 1 << 15, 1 << 15, 4))])
    assert "error[BNN005]: the model's tensors claim" in refusal(content, tmp_path)


def network() -> bytes:
    """Return a file with every kind of option there is."""
    flat = Flat()
    x = flat.tensor((1, 6, 6, 3), name="x")
    w = flat.const(np.ones((40, 3, 3, 3)))
    a = flat.op("CONV_2D", [x, w, flat.const(np.zeros(40))], (1, 6, 6, 40), "Conv2DOptions",
                Padding=SAME, StrideH=1, StrideW=1)  # fmt: skip
    a = flat.op("ADD", [a, flat.const(np.ones(40))], (1, 6, 6, 40), "AddOptions")
    window = {"filter_height": 2, "filter_width": 2, "stride_height": 2, "stride_width": 2}
    bits = flat.quantize(a)
    bits = flat.larq(
        "LceBMaxPool2d", [bits], (1, 3, 3, 2), window | {"padding": VALID}, element="int32"
    )
    operands = [flat.const(packed(SIGNS), "int32"), *(flat.const(np.ones(5)) for _ in "ab"), -1]
    b = flat.larq("LceBconv2d", [bits, *operands], (1, 1, 1, 5), BCONV | {"channels_in": 40})
    b = flat.op("RESHAPE", [b, flat.const([1, 5], "int32")], (1, 5), "ReshapeOptions", NewShape=[5])
    c = flat.op("FULLY_CONNECTED", [b, flat.const(np.ones((2, 5)))], (1, 2),
                "FullyConnectedOptions")  # fmt: skip
    d = flat.op("SOFTMAX", [c], (1, 2), "SoftmaxOptions", Beta=1.0)
    return flat.done([x], [d], {"image": x, "scores": d})


def damaged(content: bytes, choose: random.Random) -> bytes:
    """Return the file cut short, or with bytes, words and lengths changed."""
    if choose.random() < 0.1:
        return content[: choose.randrange(8, len(content))]
    changed = bytearray(content)
    for _ in range(choose.choice([1, 1, 2, 4, 16])):
        at = choose.randrange(8, len(changed) - 4)
        if choose.random() < 0.5:
            changed[at] = choose.choice(
                [0, 1, 127, 128, 255, changed[at] ^ 1 << choose.randrange(8)]
            )
        else:
            edges = [0, 1, -1, 2**31 - 1, -(2**31), choose.randrange(-(2**31), 2**31)]
            struct.pack_into("<i", changed, at & ~3, choose.choice(edges))
    return bytes(changed)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 9))]
)
def test_damaged_files_are_refused_or_read(tmp_path, seed):
    choose, path, content = random.Random(seed), tmp_path / "model.tflite", network()
    outcomes = set()
    for _ in range(400):
        path.write_bytes(damaged(content, choose))
        try:
            assert violations(load_tflite(path).graph) == []
            outcomes.add("read")
        except UnsupportedModelError as error:
            outcomes.add(error.code)
    assert {"read", "BNN002", "BNN003"} <= outcomes


def test_a_constant_that_is_used_too_often(tmp_path, monkeypatch):
    """A file may name one part any number of times: its size bounds nothing."""
    flat = Flat()
    a = x = flat.tensor((1, 4), name="x")
    w = flat.const(np.ones((4, 4)))
    for _ in range(20):
        a = flat.op("FULLY_CONNECTED", [a, w], (1, 4), "FullyConnectedOptions")
    content = flat.done([x], [a])
    monkeypatch.setattr("bnncc.frontends.tflite.site.MAX_TENSOR_BYTES", 19 * 64)
    assert refusal(content, tmp_path) == (
        "error[BNN005]: the model's constants take 1280 bytes, one for each use\n"
        "  why:   the limit is 1216 bytes"
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda flat, x: flat.op("CONCATENATION", [x] * 257, (1, 4, 4, 514), "ConcatenationOptions"),
        lambda flat, x: flat.op("RELU", [x], (1, 4, 4, 2), to="n" * 4097),
        lambda flat, x: flat.larq("LceDequantize", [x], (1, 4, 4, 2), {"o": "s" * 4097}),
        lambda flat, x: flat.op("RELU", [x], (1, 1, 1, 1, 1, 1, 4, 4, 2)),
    ],
    ids=["operands", "name", "options", "axes"],
)
def test_what_no_network_has(tmp_path, build):
    assert refusal(one(build), tmp_path).startswith("error[BNN002]")
