"""Larq's networks by both ways out of Keras: tf2onnx, and Larq Compute Engine's .tflite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import bnncc
from bnncc.ir.ops.kernels import Linear, Move, RealConv, SignSum, XnorConv
from bnncc.passes.transplant import source_name

_LETTERS = {XnorConv: "b", SignSum: "s", RealConv: "r"}
EXPORTS = ("tf2onnx.onnx", "lce.tflite")


@dataclass(frozen=True)
class Expected:
    """What becomes of a network.

    Attributes:
        file: below ../shared/models, without its suffixes; its samples are in the .npz beside it.
        layers: a letter for each linear layer: "b" on bits, "s" sums of reals, "r" real weights.
    """

    file: str
    layers: str

    def __str__(self) -> str:
        return self.file.rsplit("/", 1)[1]


NETWORKS = [
    Expected("larq/lq_mnist", "sbbbb"),
    Expected("larq/lq_pad0", "rbbbbr"),
    Expected("larq/lq_pad1", "rbbbbr"),
    Expected("trained/mak2805_larq", "sbb"),
]
MOST_MOVES = {"tf2onnx.onnx": 5, "lce.tflite": 3}
"""At the interface, into the depthwise layer's words, and in front of the mean of channels last."""


@pytest.mark.parametrize("expected", NETWORKS, ids=str)
def test_both_exports(shared_dir, tmp_path, expected):
    """All binary layers work on bits, verify finds nothing, and Keras' results come out.

    Logits are sums of 64 products of reals, which Keras adds in another order: to within 64
    roundings of sums of about 1. Softmax of whole numbers is within 3 ulp of 1.
    """
    stored = np.load(shared_dir / "models" / f"{expected.file}.npz")
    x, keras = stored["x"].astype(np.float32), stored["y_keras"]
    results = []
    for export in EXPORTS:
        path = shared_dir / "models" / f"{expected.file}.{export}"
        options = bnncc.Options(target="x86-64", kernels=("dense",))
        artifact = bnncc.compile(path, tmp_path / export, options)
        ops = [node.op for node in artifact.compilation.lowered.graph.nodes]
        linear = [op for op in ops if isinstance(op, Linear)]
        assert "".join(_LETTERS[type(op)] for op in linear) == expected.layers
        assert sum(isinstance(op, Move) for op in ops) <= MOST_MOVES[export]
        verified = bnncc.verify(artifact, data={artifact.compilation.lowered.graph.inputs[0]: x})
        assert verified.ok
        compared = {source_name(layer.name) for layer in verified.layers if layer.compared}
        types = artifact.compilation.lowered.folded.types
        certified = [c.layer for c in artifact.certificate.layers if c.layer in types]
        assert [n for n in certified if source_name(n) not in compared] == []
        assert [output.top1_agreement for output in verified.outputs] == [1.0]
        results.append(bnncc.load(artifact)(x))
        np.testing.assert_allclose(results[-1], keras, rtol=0, atol=64 * 2**-24)
        np.testing.assert_array_equal(results[-1].argmax(1), keras.argmax(1))
    np.testing.assert_allclose(*results, rtol=0, atol=64 * 2**-24)


@pytest.mark.parametrize("expected", NETWORKS, ids=str)
def test_the_report_says_where_the_model_comes_from(shared_dir, tmp_path, expected):
    path = shared_dir / "models" / f"{expected.file}.lce.tflite"
    notes = bnncc.compile(path, tmp_path).report.notes
    assert any("translated to ONNX: verify compares with that translation" in n for n in notes)
