"""The shipped network, end to end: the figures that README and the example state."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bnncc
from bnncc.frontends.inputs import parse_input_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist_mlp"
UINT8 = "uint8:0.0078125,-1"


@pytest.fixture(scope="module")
def test_set(shared_dir):
    folder = shared_dir / "data" / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def compiled(tmp_path, inputs=()):
    return bnncc.compile(EXAMPLE / "mnist_mlp.onnx", tmp_path, bnncc.Options(inputs=inputs))


def test_the_sample_as_floats_and_as_bytes(tmp_path):
    sample = np.load(EXAMPLE / "sample.npz")
    figures = json.loads((EXAMPLE / "figures.json").read_text())
    for inputs in ((), (UINT8,)):
        x = sample["images"] if inputs else parse_input_spec(UINT8)[1].decode(sample["images"])
        data = {"x": x, "labels": sample["labels"]}
        result = bnncc.verify(compiled(tmp_path, inputs), data=data)
        assert result.ok
        assert [layer.undecided for layer in result.layers] == [0] * len(result.layers)
        (scores,) = result.outputs
        assert scores.accuracy_c == figures["sample_correct"] / figures["sample_images"]
        assert scores.top1_agreement == 1


def test_weights_take_one_bit_each(tmp_path):
    report = compiled(tmp_path).report
    weights = 784 * 512 + 2 * 512 * 512 + 512 * 10
    others = report.flash_bytes - report.constant_bytes["binary weights"]
    assert report.flash_bytes <= 1.05 * weights / 8 + others
    assert others == 2 * 512 * (4 + 2 + 2) // 2 + 2 * 10 * 4  # f32, i16, i16 thresholds; affine
    assert report.arena_bytes == report.arena_lower_bound == 2 * 512 // 8


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [(), (UINT8,)], ids=["float32", "uint8"])
def test_all_test_images(tmp_path, test_set, inputs):
    images, labels = test_set
    x = images if inputs else parse_input_spec(UINT8)[1].decode(images)
    result = bnncc.verify(compiled(tmp_path, inputs), data={"x": x, "labels": labels})
    assert result.ok
    quantised = [layer for layer in result.layers if layer.compared]
    assert [layer.compared for layer in quantised] == [10_000 * 512] * 3
    # Every input is a multiple of 2^-7, so no float32 sum of the first layer rounds at all.
    assert [layer.undecided for layer in quantised] == [0, 0, 0]
    (scores,) = result.outputs
    assert scores.top1_agreement == 1
    assert scores.max_abs_error == 0
    assert scores.accuracy_c == scores.accuracy_reference == 0.9828


@pytest.mark.slow
def test_an_input_scale_that_rounds_is_undecided_at_most_where_the_certificate_says(
    tmp_path, test_set
):
    images, labels = test_set
    spec = "uint8:0.00784313725,-1"  # u / 127.5 - 1: not a dyadic rational
    artifact = compiled(tmp_path, (spec,))
    result = bnncc.verify(artifact, data={"x": images, "labels": labels})
    assert result.ok
    compared = sum(layer.compared for layer in result.layers)
    assert sum(layer.undecided for layer in result.layers) <= 1e-4 * compared
    assert artifact.certificate.layers[0].undecided


def test_the_demo_prints_the_figures(tmp_path):
    command = [sys.executable, EXAMPLE / "demo.py", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("float model 97.60%, C 97.60%") == 2
    assert done.stdout.count("same bits     yes") == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        f"mnist_mlp{suffix}" for suffix in (".h", ".c", "_u8.h", "_u8.c")
    }
