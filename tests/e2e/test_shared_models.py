"""Models that others exported, unedited."""

from __future__ import annotations

import numpy as np
import pytest

import bnncc

TFC = "trained/tfc_1w1a_trained_plain"
LFC = "trained/bnnpynq_lfc_trained"


@pytest.mark.parametrize("target", ["x86-64", "generic"])
@pytest.mark.parametrize(
    "name", [f"{TFC}.dynamo", f"{TFC}.torchscript", f"{LFC}.dynamo"], ids=lambda n: n[8:]
)
def test_verifies_and_agrees_with_torch(shared_dir, tmp_path, name, target):
    model = shared_dir / "models" / f"{name}.onnx"
    stored = np.load(shared_dir / "models" / f"{name.split('.')[0]}.npz")
    artifact = bnncc.compile(model, tmp_path, bnncc.Options(target=target))
    assert [layer.weights for layer in artifact.report.layers] == ["binary"] * 4
    assert artifact.report.real_macs == 0
    result = bnncc.verify(artifact, data={"x": stored["x"]})
    assert result.ok
    assert sum(layer.undecided for layer in result.layers) == 0
    scores = bnncc.load(artifact)(stored["x"])
    np.testing.assert_array_equal(scores.argmax(1), stored["y_torch"].argmax(1))
    if LFC in name:  # integers throughout: nothing can round
        np.testing.assert_array_equal(scores, stored["y_torch"])


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_bnn_with_hardtanh_a_real_last_layer_and_log_softmax(shared_dir, tmp_path, exporter):
    folder = shared_dir / "models" / "random"
    stored = np.load(folder / "binarynet_clean_mlp.npz")
    artifact = bnncc.compile(folder / f"binarynet_clean_mlp.{exporter}.onnx", tmp_path)
    assert [layer.weights for layer in artifact.report.layers] == ["binary"] * 3 + ["real"]
    assert bnncc.verify(artifact, data={"x": stored["x"]}).ok
    assert bnncc.verify(artifact, samples=300).ok
    scores = bnncc.load(artifact)(stored["x"])
    np.testing.assert_array_equal(scores.argmax(1), stored["y_torch"].argmax(1))


def test_sign_of_zero_is_found_unreachable_layer_by_layer(shared_dir, tmp_path):
    """Odd sums cannot be 0, but only once the layer above is known to give no 0 either."""
    artifact = bnncc.compile(shared_dir / "models" / f"{LFC}.dynamo.onnx", tmp_path)
    assert [layer.activations for layer in artifact.report.layers] == ["bipolar"] * 4
    assert [len(layer.zero_reachable) for layer in artifact.certificate.layers] == [0] * 4
