"""examples/mnist_mlp: the script on small idx files, and what is shipped beside it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from bnncc.nn.models import bnn_mlp  # noqa: E402  # torch first: without it the module is skipped
from bnncc.nn.training import load_mnist, scale  # noqa: E402
from tests.nn.pictures import write_mnist  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "mnist_mlp"
SMALL = ["--hidden", "24", "--layers", "2", "--epochs", "3", "--batch-size", "50"]


@pytest.fixture(scope="module")
def script():
    """The example's train.py as a module."""
    spec = importlib.util.spec_from_file_location("mnist_mlp_train", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """360 + 70 training and 210 test images."""
    return write_mnist(tmp_path_factory.mktemp("data"), 430, 210)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The script run by itself: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("run")
    command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(data), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *SMALL, "--seed", "3", "--dropout", "0.25"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return out, done.stdout


def logits_of(path, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.astype(np.float32) / 128 - 1})[0]


def trained_like():
    """A small network with statistics of BatchNorm as no initialisation has them."""
    torch.manual_seed(0)
    model = bnn_mlp(24, 2)
    for layer in model:
        if isinstance(layer, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.running_mean, std=10)
            torch.nn.init.uniform_(layer.running_var, 1, 300)
    return model.eval()


@pytest.mark.parametrize("weights", ["latent", "bipolar"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_export_is_the_model_in_one_clean_file(script, data, tmp_path, exporter, weights):
    model = trained_like()
    path = tmp_path / "mnist_mlp.onnx"

    script.export_onnx(model, path, exporter, weights)

    images = load_mnist(data, flat=True).test.images
    with torch.no_grad():
        expected = model(scale(images)).numpy()
    # Sums of the first layer are exact and the hidden ones are integers, so that only the last
    # BatchNorm may round differently: eight roundings of values below 64, 2^-19 each. One flipped
    # hidden sign would move a logit by 2 gamma / sqrt(variance), far more.
    assert np.abs(expected).max() < 64
    np.testing.assert_allclose(logits_of(path, images.numpy()), expected, rtol=0, atol=2.0**-16)

    exported = onnx.load(path)
    graph = exported.graph
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    signs = sum(node.op_type == "Where" for node in graph.node)
    assert signs == (5 if weights == "latent" else 2)
    assert sum(node.op_type == "BatchNormalization" for node in graph.node) == 3
    sizes = sorted(np.prod(one.dims) for one in graph.initializer if len(one.dims) == 2)
    assert sizes == [24 * 10, 24 * 24, 784 * 24]
    for value, width in ((graph.input[0], 784), (graph.output[0], 10)):
        batch, features = value.type.tensor_type.shape.dim
        assert (batch.dim_param, features.dim_value) == ("batch", width)
    for one in graph.initializer:
        one.ClearField("raw_data")  # any three bytes may occur among the weights
    for needle in (b".py", b"stack_trace", b"site-packages", str(ROOT).encode()):
        assert needle not in exported.SerializeToString()


def test_the_run_writes_what_it_says(finished):
    out, _ = finished

    assert {one.name for one in out.iterdir()} == {
        *("mnist_mlp.checkpoint", "float_twin.checkpoint"),
        *("mnist_mlp.h", "mnist_mlp.c", "mnist_mlp.onnx"),
        *("sample.npz", "figures.json", "results.json", "curves.png"),
    }


def test_the_table_says_what_was_counted(finished, data):
    out, printed = finished
    images = load_mnist(data, flat=True).test
    logits = logits_of(out / "mnist_mlp.onnx", images.images.numpy())
    accuracy = (logits.argmax(1) == images.labels.numpy()).mean()

    # Chance is 10 %, and the patterns are told apart by any look at them.
    assert accuracy > 0.7
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [row[0] for row in cells] == ["float_twin", "mnist_mlp: float", "mnist_mlp: C"]
    assert [row[2] for row in cells[1:]] == [f"{accuracy:.2%}"] * 2
    sizes = [int(row[3].replace(",", "")) for row in cells]
    assert sizes[0] == sizes[1] == 4 * (784 * 24 + 24 * 24 + 24 * 10 + 4 * (24 + 24 + 10))
    assert sizes[2] < sizes[0] / 16
    assert re.search(
        r"^mnist_mlp: C = float: same class for 210 of 210 images; ", printed, re.MULTILINE
    )
    assert re.search(
        r"^  epoch 3/3: loss \d\.\d{5}, validation error \d+\.\d\d%, ", printed, re.MULTILINE
    )


def test_figures_and_sample_are_those_of_the_run(finished, data):
    out, _ = finished
    images, labels = (getattr(load_mnist(data, flat=True).test, n) for n in ("images", "labels"))
    hits = logits_of(out / "mnist_mlp.onnx", images.numpy()).argmax(1) == labels.numpy()

    figures = json.loads((out / "figures.json").read_text())
    with np.load(out / "sample.npz") as sample:
        assert np.array_equal(sample["images"], images[::20].numpy())
        assert np.array_equal(sample["labels"], labels[::20].numpy())
        assert sample["images"].dtype == sample["labels"].dtype == np.uint8
    assert {
        "test_images": 210,
        "test_correct": int(hits.sum()),
        "sample_images": 11,
        "sample_correct": int(hits[::20].sum()),
    }.items() <= figures.items()
    assert " --hidden 24 --layers 2 --epochs 3 --batch-size 50 " in figures["command"]
    assert figures["command"].endswith(" --seed 3 --no-twin")
    for name in ("figures.json", "results.json"):
        assert str(out.parent) not in (out / name).read_text()


def test_a_run_in_two_parts_gives_the_same_network(script, finished, data, tmp_path):
    """The checkpoint after one epoch, resumed, against the run that was not interrupted."""
    again = ["--data", str(data), "--out", str(tmp_path), *SMALL, "--seed", "3"]
    again += ["--dropout", "0.25", "--no-twin"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert script.main([*again, "--stop-after", "1"]) == []
        script.main([*again, "--resume"])
    finally:
        torch.set_num_threads(threads)

    for name in ("mnist_mlp.onnx", "mnist_mlp.c", "mnist_mlp.h"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()


def test_shipped_model_has_its_figures():
    figures = json.loads((EXAMPLE / "figures.json").read_text())
    with np.load(EXAMPLE / "sample.npz") as sample:
        images, labels = sample["images"], sample["labels"]

    logits = logits_of(EXAMPLE / "mnist_mlp.onnx", images)

    assert (figures["sample_images"], 784) == images.shape
    assert figures["sample_correct"] == int((logits.argmax(axis=1) == labels).sum())
    assert figures["test_correct"] >= 0.975 * figures["test_images"]


def test_shipped_files_are_small():
    assert (EXAMPLE / "mnist_mlp.onnx").stat().st_size <= 4_000_000
    assert (EXAMPLE / "sample.npz").stat().st_size <= 120_000


def test_readme_quotes_the_figures():
    figures = json.loads((EXAMPLE / "figures.json").read_text())
    readme = (EXAMPLE / "README.md").read_text()

    assert figures["command"] in readme
    assert f"{figures['test_correct'] / figures['test_images']:.2%}" in readme
    assert f"{figures['sample_correct']} of {figures['sample_images']}" in readme
