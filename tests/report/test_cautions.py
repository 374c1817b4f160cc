"""What a network does not gain: each caution at its limit, on layers made by hand and compiled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnncc.compiler import Options, compile_in_memory
from bnncc.ir.graph import GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.types import Element, TensorType
from bnncc.report import Arithmetic, LayerReport
from bnncc.report.cautions import cautions
from tests.cli.builders import make_images, save
from tests.models import compilation, mlp

BITS = LayerReport(
    name="bits",
    parameter="",
    shape="",
    k=576,
    channels=64,
    groups=1,
    pixels=1,
    macs=3_000,
    weights="binary",
    levels=2,
    activations="bipolar",
    arithmetic=Arithmetic.BITS,
    reason="",
    kernel="",
    macs_per_word=64.0,
    stores=("bits",),
    shortcuts=0,
    source_bytes=3_200,
    packed_bytes=100,
)


def real(name="real", macs=1_000, **changes):
    kind = {"weights": "real", "levels": 500, "arithmetic": Arithmetic.REALS}
    return dataclasses.replace(BITS, name=name, macs=macs, macs_per_word=0.0, **(kind | changes))


def signs(name="signs", macs=1_000, **changes):
    kind = {"arithmetic": Arithmetic.SIGNS, "macs_per_word": 0.0}
    return dataclasses.replace(BITS, name=name, macs=macs, **(kind | changes))


def kinds(*layers):
    return [caution.kind for caution in cautions(layers)]


def test_nothing_to_say():
    assert cautions([]) == cautions([BITS]) == cautions([real(), BITS]) == ()


def test_plain_float():
    (caution,) = cautions([real("a"), real("b")])
    assert (caution.kind, caution.layers) == ("plain float", ())
    assert caution.text == (
        "no layer has binary weights: this is a plain float model, whatever it is called. The C "
        "computes it, in float32, with all of its 2,000 MACs; it gets neither smaller nor faster. "
        "If you trained binary weights, the file holds what they are made of instead: export a "
        "model whose forward takes their sign, as in functional.linear(x, weight.sign())"
    )


def test_real_work_above_a_quarter():
    assert kinds(real(macs=1_000), BITS) == []
    assert kinds(real(macs=1_001), BITS) == ["real work"]
    assert kinds(signs(macs=500), BITS, real(macs=501)) == ["real work"]


@pytest.mark.parametrize("kind", [real, signs])
def test_real_work_names_the_largest(kind):
    layers = [kind(f"l{i}", 1_000 * i) for i in range(1, 6)]
    (caution,) = [c for c in cautions([*layers, BITS]) if c.kind == "real work"]
    assert caution.text == (
        "83 % of the MACs are in float, additions of +-x included: l5 (28 %), l4 (22 %), "
        "l3 (17 %) and 2 more. However fast bits are, this network gains at most a factor of "
        "1.2 over float"
    )
    assert caution.layers == ("l5", "l4", "l3", "l2", "l1")


def test_no_work_on_bits():
    (caution,) = cautions([signs(), real()])
    assert caution.kind == "real work"
    assert caution.text.endswith("they take no less time than before")


def test_real_inputs_past_the_first_layer():
    assert "real input" not in kinds(signs("image"), BITS)
    (caution,) = [
        c for c in cautions([BITS, signs("a"), BITS, signs("b")]) if c.kind == "real input"
    ]
    assert caution.layers == ("a", "b")
    assert caution.text.startswith("binary weights meet real inputs in a, b: ")


def test_real_inputs_that_are_suspected_are_no_caution():
    found = cautions([BITS, signs("a"), BITS, signs("b")], {"a"})
    assert [c.layers for c in found if c.kind == "real input"] == [("b",)]


def test_box_filters_are_meant_to_read_reals():
    assert kinds(BITS, signs(macs=9, levels=1), BITS) == []


@pytest.mark.parametrize(("filled", "said"), [(4.0, []), (3.99, ["few bits"]), (1.0, ["few bits"])])
def test_few_bits(filled, said):
    assert kinds(BITS, dataclasses.replace(BITS, macs_per_word=filled)) == said


def test_few_bits_that_make_weights_larger():
    thin = dataclasses.replace(BITS, name="thin", macs_per_word=1.0, packed_bytes=51_200)
    (caution,) = cautions([BITS, thin])
    assert caution.text.endswith("gain no time over float: thin (1, weights 16x as large)")
    assert caution.layers == ("thin",)


@pytest.mark.parametrize(
    ("levels", "k", "said"),
    [(2, 16, "few levels"), (4, 16, "few levels"), (5, 16, "plain float"), (2, 15, "plain float")],
)
def test_few_levels(levels, k, said):
    assert kinds(real(levels=levels, k=k))[0] == said


def test_two_valued_weights_are_not_plain_float():
    build = GraphBuilder("two")
    x = build.input("x", TensorType((1, 64), Element.F32))
    weights = np.random.default_rng(0).choice(np.float32([-0.25, 0.5]), (4, 64))
    name = build.constant("w", weights, Element.F32)
    graph = build.build([build.node(MatMul(), [x, name], "y")])
    few, work = compilation(graph).report.cautions
    assert few.text == (
        "weights of up to 2 values a channel are computed in float, since bnncc packs only "
        "+-alpha where a layer's input is real: y"
    )
    assert work.kind == "real work"


def test_binary_weights_behind_a_relu():
    build = GraphBuilder("lost")
    x = build.input("x", TensorType((1, 32), Element.F32))
    for i in range(2):
        weights = np.random.default_rng(i).choice(np.float32([-1, 1]), (32, 32))
        name = build.constant(f"w{i}", weights, Element.F32)
        x = build.node(MatMul(), [x, name], f"fc{i}")
        x = build.node(ew.Relu(), [x], f"relu{i}")
    found = {c.kind: c.layers for c in compilation(build.build([x])).report.cautions}
    assert found == {"real work": ("fc0", "fc1"), "real input": ("fc1",)}


def test_the_example_gains():
    assert compilation(mlp([784, 64, 64, 10], 1, uint8=True)).report.cautions == ()


def test_depthwise(tmp_path):
    path = save(make_images(), tmp_path / "images.onnx")
    report = compile_in_memory(path, Options(kernels=("dense",))).report
    assert [caution.kind for caution in report.cautions] == ["real work", "few bits"]
