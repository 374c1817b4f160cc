"""Layer by layer: what a row says, and that each row is about the right kernel."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from bnncc.compiler import Options, compile_in_memory
from bnncc.ir.graph import GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Pad, Reshape
from bnncc.ir.types import Element, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Family
from bnncc.report import Arithmetic
from tests.cli.builders import make_images, save
from tests.models import add_sign, compilation, mlp


@pytest.fixture
def report(tmp_path):
    path = save(make_images(), tmp_path / "images.onnx")
    return compile_in_memory(path, Options(target="generic", kernels=("dense",))).report


def one_layer(op, x, weights, *, sign=False, words=32):
    """Return the row of a single layer on "x" of shape `x`, or on its signs."""
    build = GraphBuilder("one")
    source = build.input("x", TensorType(x, Element.F32))
    source = add_sign(build, source, "sign") if sign else source
    name = build.constant("w", weights, Element.F32)
    graph = build.build([build.node(op, [source, name], "y")])
    done = compilation(graph, {32: "generic", 64: "x86-64"}[words])
    (layer,) = done.report.layers
    assert layer.macs == done.program.binary_macs + done.program.real_macs
    return layer


def signs(*shape):
    return np.random.default_rng(0).choice(np.float32([-1, 1]), shape)


def test_numbers(report):
    stem, block, depthwise, dense = report.layers
    assert [layer.k for layer in report.layers] == [27, 72, 9, 128]
    assert [layer.pixels for layer in report.layers] == [64, 64, 16, 1]
    assert [layer.macs for layer in report.layers] == [
        27 * 8 * 64,
        72 * 8 * 64,
        9 * 8 * 16,
        128 * 4,
    ]
    assert (depthwise.groups, block.groups) == (8, 1)
    assert (stem.source_bytes, stem.packed_bytes) == (27 * 8 * 4, 27 * 8 * 4)
    assert (block.source_bytes, block.packed_bytes) == (72 * 8 * 4, 9 * 8 * 4)  # a word a tap
    assert (dense.source_bytes, dense.packed_bytes) == (128 * 4 * 4, 16 * 4 * 4)  # a word a pixel


def test_kinds(report):
    assert [layer.arithmetic for layer in report.layers] == ["reals", "bits", "bits", "bits"]
    assert [layer.activations for layer in report.layers] == ["f32", *["bipolar"] * 3]
    assert [layer.levels for layer in report.layers] == [27, 2, 2, 2]
    assert [bool(layer.reason) for layer in report.layers] == [True, False, False, False]


def test_a_shortcut_keeps_both_layers_apart(report):
    stem, block, depthwise, _ = report.layers
    assert stem.stores == ("reals", "bits")  # its reals are what the block adds
    assert block.stores == depthwise.stores == ("bits",)
    assert [layer.shortcuts for layer in report.layers] == [0, 1, 0, 0]


def test_totals(report):
    by_kind = dict.fromkeys(Arithmetic, 0)
    for layer in report.layers:
        by_kind[layer.arithmetic] += layer.macs
    assert by_kind == {"bits": 38_528, "signs": 0, "reals": 13_824}
    assert (report.binary_macs, report.sign_macs, report.real_macs) == tuple(by_kind.values())
    assert report.macs == 52_352


def test_layers_that_share_a_name_keep_their_order(report):
    _, block, depthwise, _ = report.layers
    assert block.name == depthwise.name == "node_Conv"
    assert (block.shape, depthwise.shape) == (
        "3x3 pad 1, 8 -> 8, 8x8",
        "3x3/2 pad 0+1, 8 depthwise, 4x4",
    )
    assert block.parameter == depthwise.parameter == ""  # whose would it be?


def test_layers_of_one_size_that_share_a_name(tmp_path):
    model = make_images()
    (second,) = (node for node in model.graph.node if "layer2.conv.weight" in node.input)
    second.input[1] = "layer1.conv.weight"
    del second.attribute[:]
    second.attribute.extend(next(n for n in model.graph.node if n.op_type == "Conv").attribute)
    model.graph.node[-1].input[1] = "wide"
    model.graph.initializer.append(numpy_helper.from_array(signs(4, 512), "wide"))
    done = compile_in_memory(save(model, tmp_path / "same.onnx"))
    _, first, second_layer, _ = done.report.layers
    assert (first.name, second_layer.name) == ("node_Conv", "node_Conv")
    assert (first.shortcuts, second_layer.shortcuts) == (1, 0)


@pytest.mark.parametrize(
    ("axes", "groups", "shape", "text"),
    [
        ((), 1, (4, 6), "6 -> 4"),
        ((Axis(5, 2, 1, 2, 2),), 1, (4, 6, 5), "5/2 pad 2, 6 -> 4, 8"),
        ((Axis(1), Axis(1)), 1, (4, 6, 1, 1), "1x1, 6 -> 4, 16x16"),
        ((Axis(3, 2), Axis(1)), 2, (4, 3, 3, 1), "3x1/2x1, 6 -> 4 in 2 groups, 7x16"),
        ((Axis(3, 1, 2, 0, 1),) * 2, 6, (6, 1, 3, 3), "3x3 dilation 2 pad 0+1, 6 depthwise, 13x13"),
        ((Axis(3), Axis(3, 1, 2)), 6, (12, 1, 3, 3), "3x3 dilation 1x2, 6 -> 12 depthwise, 14x12"),
        ((Axis(2, 1, 1, 1), Axis(2)), 1, (4, 6, 2, 2), "2x2 pad 1+0x0, 6 -> 4, 16x15"),
    ],
)
def test_shape(axes, groups, shape, text):
    op = Conv(Window(axes), groups) if axes else MatMul()
    x = (1, 6, *(16,) * len(axes))
    assert one_layer(op, x, signs(*shape)).shape == text


@pytest.mark.parametrize(("words", "filled"), [(32, 20), (64, 40)])
def test_macs_per_word(words, filled):
    assert (
        one_layer(MatMul(), (1, 40), signs(4, 40), sign=True, words=words).macs_per_word == filled
    )
    grouped = Conv(Window((Axis(1),)), 4)
    layer = one_layer(grouped, (1, 40, 3), signs(4, 10, 1), sign=True, words=words)
    assert layer.macs_per_word == 10


def test_bitplanes_share_the_work_of_a_word():
    layer = compilation(mlp([96, 8], 1, uint8=True), "generic").report.layers[0]
    assert (layer.activations, layer.macs_per_word) == ("u8", 32 / 8)


def test_real_input_of_the_model():
    layer = one_layer(MatMul(), (1, 8), signs(4, 8))
    assert (layer.arithmetic, layer.weights, layer.levels) == ("signs", "binary", 2)
    assert layer.reason.startswith("its input is the model's own, in float; --input ")


def test_real_input_names_what_makes_it():
    build = GraphBuilder("pooled")
    x = build.input("x", TensorType((1, 4, 6, 6), Element.F32))
    clipped = build.node(ew.Relu(), [x], "clipped")
    pooled = build.node(MaxPool(Window((Axis(2, 2),) * 2)), [clipped], "pooled")
    weights = build.constant("w", signs(4, 4, 1, 1), Element.F32)
    graph = build.build([build.node(Conv(Window((Axis(1),) * 2)), [pooled, weights], "y")])
    (layer,) = compilation(graph).report.layers
    assert layer.reason == "its input is real, made by Relu, MaxPool"


def test_real_input_that_is_only_moved_is_the_models_own():
    build = GraphBuilder("moved")
    x = build.input("x", TensorType((1, 4, 2, 2), Element.F32))
    flat = build.node(Reshape((1, 16)), [x], "flat")
    weights = build.constant("w", signs(4, 16), Element.F32)
    graph = build.build([build.node(MatMul(), [flat, weights], "y")])
    (layer,) = compilation(graph).report.layers
    assert layer.reason.startswith("its input is the model's own, in float; ")


def test_levels_of_real_weights():
    levels = np.float32([-0.4, 0.1, 0.6])
    weights = np.random.default_rng(1).choice(levels, (4, 64)) * np.float32([[1], [3], [5], [7]])
    crumbs = 1 + np.random.default_rng(2).uniform(-1, 1, weights.shape) * 2.0**-20
    layer = one_layer(MatMul(), (1, 64), (weights * crumbs).astype(np.float32))
    assert (layer.weights, layer.levels) == ("real", 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_box_filter_has_one_level(sign):
    box = np.full((1, 1, 3, 3), sign / 9, np.float32)
    layer = one_layer(Conv(Window((Axis(3),) * 2)), (1, 1, 8, 8), box)
    assert (layer.arithmetic, layer.levels) == ("signs", 1)


def test_a_layer_that_nobody_needs_is_left_out():
    build = GraphBuilder("dead")
    x = build.input("x", TensorType((1, 8), Element.F32))
    weights = build.constant("w", signs(4, 8), Element.F32)
    build.node(MatMul(), [x, weights], "unused")
    graph = build.build([build.node(MatMul(), [x, weights], "y")])
    assert [layer.name for layer in compilation(graph).report.layers] == ["y"]


def test_a_layer_that_pads_for_a_pad_before_it_keeps_its_row():
    build = GraphBuilder("padded")
    x = build.input("x", TensorType((1, 8, 4, 4), Element.F32))
    x = build.node(Pad((0, 0, 1, 0), (0, 0, 1, 2), 0.0), [x], "pad")
    weights = build.constant("w", signs(8, 8, 3, 3), Element.F32)
    graph = build.build([build.node(Conv(Window((Axis(3),) * 2)), [x, weights], "y")])
    assert [layer.name for layer in compilation(graph).report.layers] == ["y"]


@pytest.mark.parametrize(
    ("kernels", "name"),
    [
        (Family.DENSE, "bnn_xnor_1x4_w32__scalar"),
        (Family.SHARED, "shared sums of 5, w32, rows copied by 1"),
        (Family.LEAN, "shared sums of 5, w32, rows copied by 4, lists built"),
    ],
)
def test_kernels_say_how(kernels, name):
    build = GraphBuilder("one")
    source = build.input("x", TensorType((1, 64, 12, 20), Element.F32))
    weights = build.constant("w", signs(64, 64, 3, 3), Element.F32)
    bits = add_sign(build, source, "sign")
    window = Window((Axis(3, 1, 1, 1, 1),) * 2)
    graph = build.build([build.node(Conv(window, 1), [bits, weights], "y")])
    (layer,) = compilation(graph, "generic", kernels=kernels).report.layers
    assert layer.kernel == name
