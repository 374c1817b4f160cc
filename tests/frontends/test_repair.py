"""Signs put back into a model: the same one in the graph and in what the oracle runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnncc.certificate import InsertedSign
from bnncc.frontends.onnx import Imported
from bnncc.frontends.onnx.repair import insert_signs
from bnncc.ir import interpret
from bnncc.ir.ops.linear import Conv
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make, oracle

F = np.float32
RNG = np.random.default_rng(5)
SQUARE = RNG.choice([-1, 1], (4, 4)).astype(F)
WIDE = RNG.choice([-1, 1], (2, 4, 3, 3)).astype(F)
IMAGE = {"x": ("batch", 4, 5, 5)}
CLIP = {"low": F(-1), "high": F(1)}


def clipped(name: str = "h", x: str = "x") -> onnx.NodeProto:
    return NODE("Clip", [x, "low", "high"], [name], name=f"clip_{name}")


def repaired(model: onnx.ModelProto, folder: Path, *layers: str) -> tuple[Imported, list[str]]:
    """Return the model with signs at the layers of these origins, and its nodes as text."""
    imported = load(model, folder)
    before = imported.source.SerializeToString(deterministic=True), imported.graph
    nodes = [node for node in imported.graph.nodes if isinstance(node.op, Conv)]
    chosen = {node.output: node.origin[0] for node in nodes if node.origin[0] in layers}
    done, edits = insert_signs(imported, chosen)
    assert [edit.layer for edit in edits] == list(chosen.values())
    assert (imported.source.SerializeToString(deterministic=True), imported.graph) == before
    assert done.sha256 == imported.sha256
    onnx.checker.check_model(done.source)
    texts = [f"{n.op_type}({n.input[0]}) -> {n.output[0]}" for n in done.source.graph.node]
    return done, texts


def assert_same(done: Imported, x: np.ndarray) -> None:
    """The graph is the source, tensor by tensor, and from end to end."""
    assert_agrees(done, {"x": x}, zero_signs=False)
    assert_same_outputs(done, x)


def assert_same_outputs(done: Imported, x: np.ndarray) -> None:
    computed = interpret.run(done.graph, {"x": x})
    (expected,) = oracle(done.source, {"x": x}, ["y"])
    # Whole numbers and halves, but for what others read of x: then sums of a few of order 1.
    np.testing.assert_allclose(computed["y"], expected, rtol=0, atol=1e-5)


def images(count: int = 5) -> np.ndarray:
    return np.round(RNG.normal(0, 1, (count, 4, 5, 5)) * 4).astype(F) / 4  # zeros among them


@pytest.mark.parametrize(
    "layer",
    [
        NODE("MatMul", ["h", "w"], ["y"], name="fc"),
        NODE("Gemm", ["h", "w", "b"], ["y"], name="fc", transB=1),
        NODE("Gemm", ["h", "w", "b"], ["y"], name="fc", alpha=0.5, beta=2.0),
    ],
    ids=["MatMul", "Gemm", "scaled Gemm"],
)
def test_dense_layers(layer: onnx.NodeProto, tmp_path: Path) -> None:
    model = make(clipped(), layer, constants={"w": SQUARE, "b": np.arange(4, dtype=F), **CLIP})
    done, texts = repaired(model, tmp_path, "fc")
    assert texts == ["Clip(x) -> h", "Sign(h) -> h.sign", f"{layer.op_type}(h.sign) -> y"]
    assert done.source.graph.node[1].name == "--insert-sign fc"
    assert done.graph.producers["h.sign"].origin == ("--insert-sign fc",)
    assert_same(done, hostile(1e10))


def test_what_was_inserted(tmp_path: Path) -> None:
    model = make(clipped(), NODE("MatMul", ["h", "w"], ["y"]), constants={"w": SQUARE, **CLIP})
    _, (edit,) = insert_signs(load(model, tmp_path), {"y": "layers.1"})
    assert edit == InsertedSign("layers.1", "h")
    assert str(edit) == (
        "layers.1: a Sign was inserted on its input, h, which the model file does not have"
    )


def test_rows_of_an_image(tmp_path: Path) -> None:
    """A MatMul of several rows is a convolution in the graph, and moved there and back."""
    model = make(
        clipped(),
        NODE("MatMul", ["h", "w"], ["y"], name="rows"),
        inputs={"x": ("batch", 3, 4)},
        constants={"w": SQUARE, **CLIP},
    )
    done, texts = repaired(model, tmp_path, "rows")
    assert texts[1:] == ["Sign(h) -> h.sign", "MatMul(h.sign) -> y"]
    assert_same_outputs(done, np.resize(hostile(1e10), (30, 3, 4)))


def test_a_convolution_pads_the_signs_with_zeros(tmp_path: Path) -> None:
    conv = NODE("Conv", ["h", "w"], ["y"], name="conv", pads=[1, 0, 1, 2])
    model = make(clipped(), conv, inputs=IMAGE, constants={"w": WIDE, **CLIP})
    done, texts = repaired(model, tmp_path, "conv")
    assert texts[1:] == ["Sign(h) -> h.sign", "Conv(h.sign) -> y"]
    assert_same(done, images())


def padded(value: float, *others: onnx.NodeProto, outputs: Sequence[str] = ("y",)):
    return make(
        clipped(),
        NODE("Pad", ["h", "widths", "value"], ["p"], name="pad"),
        NODE("Conv", ["p", "w"], ["y"], name="conv"),
        *others,
        inputs=IMAGE,
        outputs=outputs,
        constants={
            "w": WIDE,
            "widths": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "value": F(value),
            **CLIP,
        },
    )


def test_zeros_that_the_model_pads_with_stay_zeros(tmp_path: Path) -> None:
    """Behind the Pad, `--sign-zero=plus` would make +1 of them."""
    done, texts = repaired(padded(0), tmp_path, "conv")
    assert texts[1:] == ["Sign(h) -> h.sign", "Pad(h.sign) -> p", "Conv(p) -> y"]
    assert_same(done, images())


def test_what_others_read_of_a_pad_stays(tmp_path: Path) -> None:
    other = NODE("Conv", ["p", "w"], ["z"], name="other")
    done, texts = repaired(padded(0, other, outputs=("y", "z")), tmp_path, "conv")
    assert texts[1:] == [*("Pad(h) -> p", "Sign(p) -> p.sign", "Conv(p.sign) -> y", "Conv(p) -> z")]
    assert_agrees(done, {"x": images()}, zero_signs=False)


def test_other_values_that_the_model_pads_with_are_signed(tmp_path: Path) -> None:
    done, texts = repaired(padded(0.5), tmp_path, "conv")
    assert texts[1:] == ["Pad(h) -> p", "Sign(p) -> p.sign", "Conv(p.sign) -> y"]
    assert_same(done, images())


def test_layers_that_read_one_tensor_share_the_sign_and_others_do_not(tmp_path: Path) -> None:
    model = make(
        clipped(),
        NODE("MatMul", ["h", "w"], ["a"], name="first"),
        NODE("MatMul", ["h", "w"], ["b"], name="second"),
        NODE("Add", ["a", "b"], ["s"]),
        NODE("Add", ["s", "h"], ["y"], name="shortcut"),
        constants={"w": SQUARE, **CLIP},
    )
    done, texts = repaired(model, tmp_path, "first", "second")
    assert texts == [
        "Clip(x) -> h",
        "Sign(h) -> h.sign",
        "MatMul(h.sign) -> a",
        "MatMul(h.sign) -> b",
        "Add(a) -> s",
        "Add(s) -> y",
    ]
    assert list(done.source.graph.node[-1].input) == ["s", "h"]
    assert_same(done, hostile(1e10))


def test_nodes_of_one_name(tmp_path: Path) -> None:
    """PyTorch's newer exporter writes them; the tensors tell them apart."""
    model = make(
        NODE("MatMul", ["x", "w"], ["a"], name="node_linear"),
        clipped("h", "a"),
        NODE("MatMul", ["h", "w"], ["y"], name="node_linear"),
        constants={"w": SQUARE, **CLIP},
    )
    imported = load(model, tmp_path)
    done, _ = insert_signs(imported, {"y": "fc2"})
    reads = [list(n.input) for n in done.source.graph.node if n.op_type == "MatMul"]
    assert reads == [["x", "w"], ["h.sign", "w"]]
    assert_same(done, hostile(1e10))


def test_the_input_itself(tmp_path: Path) -> None:
    model = make(NODE("MatMul", ["x", "w"], ["y"], name="fc"), constants={"w": SQUARE})
    done, texts = repaired(model, tmp_path, "fc")
    assert texts == ["Sign(x) -> x.sign", "MatMul(x.sign) -> y"]
    assert_same(done, hostile(1e10))


def test_names_that_are_taken(tmp_path: Path) -> None:
    model = make(
        clipped("h"),
        NODE("MatMul", ["h", "w"], ["h.sign"], name="first"),
        clipped("h.sign.1", "h.sign"),
        NODE("MatMul", ["h.sign.1", "w"], ["y"], name="second"),
        constants={"w": SQUARE, **CLIP},
    )
    done, texts = repaired(model, tmp_path, "first", "second")
    assert len({text.partition("-> ")[2] for text in texts}) == len(texts) == 6
    assert_same(done, hostile(1e10))


def test_nothing_to_insert(tmp_path: Path) -> None:
    model = make(NODE("MatMul", ["x", "w"], ["y"]), constants={"w": SQUARE})
    imported = load(model, tmp_path)
    done, edits = insert_signs(imported, {})
    assert (edits, done.graph) == ((), imported.graph)
    assert done.source == imported.source
