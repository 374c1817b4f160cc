"""TensorFlow Lite files: what each operator computes, by loops that follow its definition."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bnncc.frontends.onnx import Imported
from bnncc.frontends.tflite.table import CUSTOM, TABLE
from bnncc.frontends.torch import load_file
from bnncc.ir import interpret
from bnncc.ir.types import Array
from tests.frontends.flat import BCONV, SAME, VALID, Flat, packed
from tests.ir.sketch import same_bits

F = np.float32
RANDOM = np.random.default_rng(23)
INT32 = np.iinfo(np.int32)


def load(flat: Flat, inputs: Sequence[int], outputs: Sequence[int], folder: Path) -> Imported:
    path = folder / "model.tflite"
    path.write_bytes(flat.done(inputs, outputs))
    return load_file(path)


def run(flat: Flat, inputs: Sequence[int], y: int, folder: Path, *feeds: Array) -> Array:
    graph = load(flat, inputs, [y], folder).graph
    (result,) = interpret.run(graph, dict(zip(graph.inputs, feeds, strict=True))).values()
    return result


def whole(*shape: int) -> Array:
    """Return small whole numbers, whose sums are exact in any order."""
    return RANDOM.integers(-8, 9, shape).astype(F)


def bipolar(*shape: int) -> Array:
    return RANDOM.choice(np.array([-1, 1], F), shape)


def taps(
    size: int, kernel: int, stride: int, dilation: int, padding: int
) -> list[list[tuple[int, int]]]:
    """Return for each place of a window the taps (tap, pixel); pixels may lie outside."""
    reach = (kernel - 1) * dilation + 1
    if padding == SAME:
        count = -(-size // stride)
        before = max((count - 1) * stride + reach - size, 0) // 2
    else:
        count, before = (size - reach) // stride + 1, 0
    return [[(k, o * stride - before + k * dilation) for k in range(kernel)] for o in range(count)]


def slid(x: Array, kernel: Sequence[int], stride: int, dilation: int, padding: int) -> list:
    """Return for each place of a window on x [1, H, W, C] its taps (ky, kx, pixel or None)."""
    _, height, width, _ = x.shape
    rows = []
    for across in taps(height, kernel[0], stride, dilation, padding):
        row = []
        for along in taps(width, kernel[1], stride, dilation, padding):
            inside = [
                (i, j, x[0, y, z] if 0 <= y < height and 0 <= z < width else None)
                for (i, y), (j, z) in itertools.product(across, along)
            ]
            row.append(inside)
        rows.append(row)
    return rows


# --- Larq Compute Engine --------------------------------------------------------------------------


def mismatches(x: Array, w: Array, options: dict[str, int], groups: int) -> Array:
    """Return twice the number of mismatches, whole numbers [1, H', W', O].

    A tap outside is +1, or with pad_values 0 counts half of its channels.
    """
    outputs, kernel_h, kernel_w, depth = w.shape
    place = options["stride_height"], options["dilation_height_factor"], options["padding"]
    result = []
    for row in slid(x, (kernel_h, kernel_w), *place):
        for inside in row:
            for o in range(outputs):
                first = o // (outputs // groups) * depth
                total = 0
                for i, j, pixel in inside:
                    if pixel is None and options["pad_values"] == 0:
                        total += depth
                        continue
                    values = np.ones(depth) if pixel is None else pixel[first : first + depth]
                    total += 2 * int((values != w[o, i, j]).sum())
                result.append(total)
    rows = slid(x, (kernel_h, kernel_w), *place)
    return np.array(result).reshape(1, len(rows), len(rows[0]), outputs)


CLAMPS = {0: (-np.inf, np.inf), 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}
CONVOLUTIONS = [
    *({"padding": VALID}, {"padding": SAME}, {"padding": SAME, "pad_values": 1}),
    *({"padding": SAME, "stride_height": 2, "stride_width": 2, "pad_values": p} for p in (0, 1)),
    {"padding": SAME, "dilation_height_factor": 2, "dilation_width_factor": 2},
    *({"padding": VALID, "fused_activation_function": kind} for kind in (1, 2, 3)),
]


def made(channels: int, outputs: int, groups: int, options: dict[str, int]) -> tuple:
    """Return a file up to the bits that a binary convolution reads, its input and weights."""
    flat = Flat()
    x = flat.tensor((1, 6, 7, channels), name="x")
    w = bipolar(outputs, 3, 3, channels // groups)
    given = np.abs(whole(1, 6, 7, channels)) * bipolar(1, 6, 7, channels)
    assert (given == 0).any()
    options = BCONV | options | {"channels_in": channels}
    return flat, x, flat.quantize(x), w, given, options


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(7, 5, 1), (33, 3, 1), (64, 4, 2)])
def test_a_binary_convolution_with_real_results(tmp_path, options, channels, outputs, groups):
    flat, x, bits, w, given, options = made(channels, outputs, groups, options)
    a, b = whole(outputs) / F(7), whole(outputs) / F(3)
    a[0], b[1], a[2] = 0, -0.0, -abs(a[2]) - 1
    twice = mismatches(np.where(given < 0, -1, 1), w, options, groups)
    operands = [bits, flat.const(packed(w), "int32"), flat.const(a), flat.const(b), -1]
    y = flat.larq("LceBconv2d", operands, twice.shape, options, to="conv")
    result = run(flat, [x], y, tmp_path, given)

    k = w[0].size
    low, high = CLAMPS[options["fused_activation_function"]]
    limited = (k - np.clip(k - twice, low, high)).astype(F)
    shift = (b.astype(np.float64) + k * a.astype(np.float64)).astype(F)
    same_bits(result, limited * -a + shift)


@pytest.mark.parametrize("options", CONVOLUTIONS[:6], ids=str)
def test_a_binary_convolution_with_bits_as_results(tmp_path, options):
    flat, x, bits, w, given, options = made(12, 40, 1, options)
    twice = mismatches(np.where(given < 0, -1, 1), w, options, 1)
    thresholds = RANDOM.integers(45, 60, 40)
    thresholds[:6] = INT32.min, INT32.max, -1, 0, 107, 108
    operands = [bits, flat.const(packed(w), "int32"), -1, -1]
    operands.append(flat.const(thresholds, "int32"))
    shape = (*twice.shape[:3], 2)
    y = flat.larq("LceBconv2d", operands, shape, options, element="int32")
    y = flat.larq("LceDequantize", [y], twice.shape)
    result = run(flat, [x], y, tmp_path, given)
    np.testing.assert_array_equal(result, np.where(twice > 2 * thresholds, -1, 1))
    assert len(np.unique(result[..., 6:])) == 2


@pytest.mark.parametrize("padding", [SAME, VALID])
def test_a_pool_of_bits(tmp_path, padding):
    flat, given = Flat(), whole(1, 5, 6, 3)
    x = flat.tensor(given.shape, name="x")
    window = {"filter_height": 3, "filter_width": 3, "stride_height": 2, "stride_width": 2}
    places = slid(np.where(given < 0, -1, 1), (3, 3), 2, 1, padding)
    expected = [
        [np.max([v for _, _, v in inside if v is not None], axis=0) for inside in row]
        for row in places
    ]
    shape = np.shape([expected])
    options = window | {"padding": padding}
    y = flat.larq("LceBMaxPool2d", [flat.quantize(x)], (*shape[:3], 1), options, element="int32")
    y = flat.larq("LceDequantize", [y], shape)
    np.testing.assert_array_equal(run(flat, [x], y, tmp_path, given), [expected])


def test_bits_of_rows(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 40), name="x")
    y = flat.larq("LceDequantize", [flat.quantize(x)], (1, 40))
    given = whole(1, 40)
    given[0, :4] = 0.0, -0.0, np.inf, -np.inf
    np.testing.assert_array_equal(run(flat, [x], y, tmp_path, given), np.where(given < 0, -1, 1))


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [0, 1, 2, 3])
@pytest.mark.parametrize("window", [(SAME, 2, 1), (VALID, 1, 2)], ids=["same", "valid"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution(tmp_path, window, groups, activation):
    padding, stride, dilation = window
    flat, given, w, b = Flat(), whole(1, 6, 7, 4), whole(6, 3, 2, 4 // groups), whole(6)
    x = flat.tensor(given.shape, name="x")
    expected = []
    for row in slid(given, (3, 2), stride, dilation, padding):
        for inside in row:
            for o in range(6):
                part = slice(o // (6 // groups) * (4 // groups), None)
                terms = (v[part][: 4 // groups] @ w[o, i, j] for i, j, v in inside if v is not None)
                expected.append(sum(terms) + b[o])
    shape = (1, len(slid(given, (3, 2), stride, dilation, padding)), -1, 6)
    expected = np.clip(np.array(expected, F).reshape(shape), *CLAMPS[activation])
    y = flat.op(
        "CONV_2D",
        [x, flat.const(w), flat.const(b)],
        expected.shape,
        "Conv2DOptions",
        Padding=padding,
        StrideH=stride,
        StrideW=stride,
        DilationHFactor=dilation,
        DilationWFactor=dilation,
        FusedActivationFunction=activation,
    )
    np.testing.assert_array_equal(run(flat, [x], y, tmp_path, given), expected)


def test_a_depthwise_convolution(tmp_path):
    """Each channel's two results lie side by side; there is no bias."""
    flat, given, w = Flat(), whole(1, 5, 5, 3), whole(1, 3, 3, 6)
    x = flat.tensor(given.shape, name="x")
    places = slid(given, (3, 3), 1, 1, SAME)
    expected = [
        [sum(np.repeat(v, 2) * w[0, i, j] for i, j, v in inside if v is not None) for inside in row]
        for row in places
    ]
    options = {"Padding": SAME, "StrideH": 1, "StrideW": 1, "DepthMultiplier": 2}
    y = flat.op(
        "DEPTHWISE_CONV_2D", [x, flat.const(w)], (1, 5, 5, 6), "DepthwiseConv2DOptions", **options
    )
    np.testing.assert_array_equal(run(flat, [x], y, tmp_path, given), [expected])


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("name", "of"), [("MAX_POOL_2D", np.max), ("AVERAGE_POOL_2D", np.mean)])
def test_a_pool(tmp_path, name, of, padding):
    """What lies outside does not count."""
    flat, given = Flat(), whole(1, 5, 6, 3)
    x = flat.tensor(given.shape, name="x")
    expected = [
        [of([v for _, _, v in inside if v is not None], axis=0) for inside in row]
        for row in slid(given, (2, 3), 2, 1, padding)
    ]
    options = {"FilterHeight": 2, "FilterWidth": 3, "StrideH": 2, "StrideW": 2}
    shape = np.shape([expected])
    y = flat.op(name, [x], shape, "Pool2DOptions", Padding=padding, **options)
    np.testing.assert_array_equal(run(flat, [x], y, tmp_path, given), np.array([expected], F))


@pytest.mark.parametrize("keep", [False, True])
def test_a_dense_layer_flattens(tmp_path, keep):
    flat, given, w, b = Flat(), whole(1, 1, 1, 12), whole(5, 12), whole(5)
    x = flat.tensor(given.shape, name="x")
    y = flat.op(
        "FULLY_CONNECTED",
        [x, flat.const(w), flat.const(b)],
        (1, 1, 1, 5) if keep else (1, 5),
        "FullyConnectedOptions",
        KeepNumDims=keep,
        FusedActivationFunction=1,
    )
    expected = np.maximum(given.reshape(1, 12) @ w.T + b, 0)
    result = run(flat, [x], y, tmp_path, given)
    np.testing.assert_array_equal(result.reshape(1, 5), expected)


def test_weights_rounded_to_half_precision(tmp_path):
    flat, given, w = Flat(), whole(1, 4), RANDOM.standard_normal((3, 4)).astype(np.float16)
    x = flat.tensor(given.shape, name="x")
    wide = flat.op("DEQUANTIZE", [flat.const(w, "float16")], w.shape)
    y = flat.op("FULLY_CONNECTED", [x, wide, -1], (1, 3), "FullyConnectedOptions")
    graph = load(flat, [x], [y], tmp_path).graph
    weights = next(a for a in graph.constants.values() if a.shape == w.shape)
    np.testing.assert_array_equal(weights, w.astype(F))


# --- Everything else ------------------------------------------------------------------------------

_IMAGE = (1, 4, 5, 3)


def _unary(name: str, options: str = "", **fields: object) -> Callable[[Flat, int], int]:
    return lambda flat, x: flat.op(name, [x], _IMAGE, options, **fields)


def _with(
    name: str, shape: Sequence[int], *operands: object, options: str = "", **fields: object
) -> Callable[[Flat, int], int]:
    """Return an operator on an image and constants: integers are int32, others float32."""

    def build(flat: Flat, x: int) -> int:
        kinds = ["int32" if np.asarray(o).dtype.kind == "i" else "float32" for o in operands]
        places = [flat.const(o, kind) for o, kind in zip(operands, kinds, strict=True)]
        return flat.op(name, [x, *places], shape, options, **fields)

    return build


ROW = np.array([0.5, -2, 3], F)
MORE = whole(1, 4, 5, 2)
PADS = [[0, 0], [1, 2], [0, 3], [0, 0]]

OPERATORS: dict[str, tuple[Callable[[Flat, int], int], Callable[[Array], Array]]] = {
    "ABS": (_unary("ABS"), np.abs),
    "NEG": (_unary("NEG"), np.negative),
    "SIGN": (_unary("SIGN"), np.sign),
    "RELU": (_unary("RELU"), lambda x: np.maximum(x, 0)),
    "RELU6": (_unary("RELU6"), lambda x: np.clip(x, 0, 6)),
    "RELU_N1_TO_1": (_unary("RELU_N1_TO_1"), lambda x: np.clip(x, -1, 1)),
    "RELU_0_TO_1": (_unary("RELU_0_TO_1"), lambda x: np.clip(x, 0, 1)),
    "LEAKY_RELU": (
        _unary("LEAKY_RELU", "LeakyReluOptions", Alpha=0.25),
        lambda x: np.where(x < 0, x / 4, x),
    ),
    "PRELU": (
        _with("PRELU", _IMAGE, ROW.reshape(1, 1, 3)),
        lambda x: np.where(x < 0, x * ROW, x),
    ),
    "ADD": (
        _with("ADD", _IMAGE, ROW, options="AddOptions", FusedActivationFunction=1),
        lambda x: np.maximum(x + ROW, 0),
    ),
    "SUB": (_with("SUB", _IMAGE, ROW, options="SubOptions"), lambda x: x - ROW),
    "MUL": (_with("MUL", _IMAGE, ROW, options="MulOptions"), lambda x: x * ROW),
    "DIV": (_with("DIV", _IMAGE, ROW, options="DivOptions"), lambda x: x / ROW),
    "MAXIMUM": (_with("MAXIMUM", _IMAGE, ROW), lambda x: np.maximum(x, ROW)),
    "MINIMUM": (_with("MINIMUM", _IMAGE, ROW), lambda x: np.minimum(x, ROW)),
    "RESHAPE": (_with("RESHAPE", (1, 60), [1, -1]), lambda x: x.reshape(1, 60)),
    "RESHAPE by option": (
        _unary("RESHAPE", "ReshapeOptions", NewShape=[*_IMAGE]),
        lambda x: x,
    ),
    "EXPAND_DIMS": (_with("EXPAND_DIMS", (1, 1, 4, 5, 3), 1), lambda x: x[:, None]),
    "TRANSPOSE": (
        _with("TRANSPOSE", (1, 3, 4, 5), [0, 3, 1, 2]),
        lambda x: x.transpose(0, 3, 1, 2),
    ),
    "PAD": (_with("PAD", (1, 7, 8, 3), PADS), lambda x: np.pad(x, PADS)),
    "PADV2": (
        _with("PADV2", (1, 7, 8, 3), PADS, 1.0),
        lambda x: np.pad(x, PADS, constant_values=1),
    ),
    "SLICE": (
        _with("SLICE", (1, 2, 4, 3), [0, 1, 1, 0], [1, 2, -1, 3]),
        lambda x: x[:, 1:3, 1:],
    ),
    "STRIDED_SLICE": (
        _with(
            *("STRIDED_SLICE", (1, 2, 2, 3), [7, 0, -2, 0], [7, 4, 5, 7], [1, 2, 1, 1]),
            options="StridedSliceOptions",
            BeginMask=1,
            EndMask=9,
        ),
        lambda x: x[:, ::2, -2:],
    ),
    "CONCATENATION": (
        _with(
            *("CONCATENATION", (1, 4, 5, 5), MORE),
            options="ConcatenationOptions",
            Axis=-1,
        ),
        lambda x: np.concatenate([x, MORE], axis=3),
    ),
    "MEAN of pixels": (
        _with("MEAN", (1, 3), [1, 2], options="ReducerOptions"),
        lambda x: x.sum((1, 2)) / F(20),
    ),
    "MEAN of pixels that keeps axes": (
        _with("MEAN", (1, 1, 1, 3), [1, -2], options="ReducerOptions", KeepDims=True),
        lambda x: x.sum((1, 2), keepdims=True) / F(20),
    ),
    "MEAN of channels": (
        _with("MEAN", (1, 4, 5), [-1], options="ReducerOptions"),
        lambda x: x.sum(3) / F(3),
    ),
}


# ONNX's own functions have their accuracy from the tests of tests/ir.
NEARLY: dict[str, Callable[[Array], Array]] = {
    "HARD_SWISH": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "LOG_SOFTMAX": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "TANH": np.tanh,
}


@pytest.mark.parametrize("name", NEARLY)
def test_a_function(tmp_path, name):
    flat, given = Flat(), whole(1, 6)
    x = flat.tensor(given.shape, name="x")
    result = run(flat, [x], flat.op(name, [x], (1, 6)), tmp_path, given)
    # A few roundings each, of values up to 16.
    np.testing.assert_allclose(result, NEARLY[name](given.astype(np.float64)), 1e-6, 1e-6)


def test_every_operator_becomes_what_the_table_says(tmp_path):
    image, row = (1, 4, 5, 3), (1, 6)
    kernel, square = np.ones((1, 2, 2, 3)), {"FilterHeight": 2, "FilterWidth": 2}
    strides = {"StrideH": 1, "StrideW": 1, "Padding": VALID}
    each: dict[str, tuple[tuple[int, ...], Callable[[Flat, int], int]]] = {
        **{name.split()[0]: (image, build) for name, (build, _) in OPERATORS.items()},
        **{n: (row, lambda f, x, n=n: f.op(n, [x], row)) for n in (*NEARLY, "SOFTMAX")},
        **{
            name: (
                image,
                lambda f, x, n=name: f.op(
                    n, [x], (1, 3, 4, 3), "Pool2DOptions", **square, **strides
                ),
            )
            for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        },
        "CONV_2D": (
            image,
            lambda f, x: f.op(
                *("CONV_2D", [x, f.const(kernel)], (1, 3, 4, 1), "Conv2DOptions"),
                **strides,
                DilationHFactor=1,
                DilationWFactor=1,
            ),
        ),
        "DEPTHWISE_CONV_2D": (
            image,
            lambda f, x: f.op(
                *(
                    "DEPTHWISE_CONV_2D",
                    [x, f.const(kernel)],
                    (1, 3, 4, 3),
                    "DepthwiseConv2DOptions",
                ),
                **strides,
                DilationHFactor=1,
                DilationWFactor=1,
            ),
        ),
        "FULLY_CONNECTED": (
            row,
            lambda f, x: f.op(
                "FULLY_CONNECTED", [x, f.const(np.ones((2, 6)))], (1, 2), "FullyConnectedOptions"
            ),
        ),
        "SQUEEZE": ((1, 1, 6), lambda f, x: f.op("SQUEEZE", [x], row)),
    }
    # Of constants alone, and so no node at all.
    assert set(TABLE) - set(each) == {"DEQUANTIZE"}
    for name, (shape, build) in each.items():
        flat = Flat()
        x = flat.tensor(shape, name="x")
        source = load(flat, [x], [build(flat, x)], tmp_path).source
        assert TABLE[name].onnx in {node.op_type for node in source.graph.node}, name


def test_larq_s_operators_become_what_the_table_says(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4, 4, 32), name="x")
    bits = flat.quantize(x)
    pooled = flat.larq(
        *("LceBMaxPool2d", [bits], (1, 3, 3, 1)),
        {
            "filter_height": 2,
            "filter_width": 2,
            "padding": VALID,
            "stride_height": 1,
            "stride_width": 1,
        },
        element="int32",
    )
    w, ones = flat.const(packed(bipolar(5, 3, 3, 32)), "int32"), flat.const(np.ones(5, F))
    options = BCONV | {"padding": VALID, "channels_in": 32}
    real = flat.larq("LceBconv2d", [pooled, w, ones, ones, -1], (1, 1, 1, 5), options)
    y = flat.larq("LceDequantize", [flat.quantize(real)], (1, 1, 1, 5))
    found = {node.op_type for node in load(flat, [x], [y], tmp_path).source.graph.node}
    assert {builtin.onnx for builtin in CUSTOM.values()} <= found
    assert set(CUSTOM) == {operator["name"] for operator in flat.operators}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator(tmp_path, name):
    build, definition = OPERATORS[name]
    flat, given = Flat(), whole(*_IMAGE)
    x = flat.tensor(_IMAGE, name="x")
    y = build(flat, x)
    result = run(flat, [x], y, tmp_path, given)
    np.testing.assert_array_equal(result, definition(given), strict=True)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_softmax(tmp_path, beta):
    flat, given = Flat(), whole(1, 6)
    x = flat.tensor((1, 6), name="x")
    y = flat.op("SOFTMAX", [x], (1, 6), "SoftmaxOptions", Beta=beta)
    powers = np.exp(beta * given.astype(np.float64))
    np.testing.assert_allclose(
        run(flat, [x], y, tmp_path, given), powers / powers.sum(), rtol=4e-7, atol=1e-45
    )  # within 3 ulp, see softmax


# --- Names and notes ------------------------------------------------------------------------------


def test_the_interface_is_called_as_in_the_signature(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="serving_default_input_1:0")
    y = flat.op("RELU", [x], (1, 4), to="StatefulPartitionedCall:0")
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.done([x], [y], {"input_1": x, "scores": y}))
    graph = load_file(path).graph
    assert (graph.inputs, graph.outputs) == (("input_1",), ("scores",))


def test_tensors_may_share_a_name_and_layers_are_called_after_the_first_part(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4, 4, 2), name="x")
    w = flat.const(whole(3, 1, 1, 2), name="x")
    options = {"Padding": VALID, "StrideH": 1, "StrideW": 1}
    a = flat.op("CONV_2D", [x, w], (1, 4, 4, 3), "Conv2DOptions", to="conv/Conv2D;bias", **options)
    b = flat.op("ADD", [a, a], (1, 4, 4, 3), to="x")
    imported = load(flat, [x], [b], tmp_path)
    assert imported.graph.inputs == ("x",)
    origins = {name for node in imported.graph.nodes for name in node.origin}
    assert "conv/Conv2D" in origins


def test_the_report_says_what_was_translated(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="x")
    y = flat.larq("LceDequantize", [flat.quantize(x)], (1, 4))
    imported = load(flat, [x], [y], tmp_path)
    assert imported.notes == (
        "2 operators of TensorFlow Lite, 2 of them Larq Compute Engine's, translated to ONNX: "
        "verify compares with that translation in ONNX Runtime",
    )


def test_the_digest_is_of_the_users_file(tmp_path):
    flat = Flat()
    x = flat.tensor((1, 4), name="x")
    imported = load(flat, [x], [flat.op("RELU", [x], (1, 4))], tmp_path)
    content = (tmp_path / "model.tflite").read_bytes()
    assert imported.sha256 == hashlib.sha256(content).hexdigest()
