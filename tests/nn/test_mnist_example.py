"""examples/mnist_mlp: the script on small idx files, and what is shipped beside it."""

import gzip
import hashlib
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

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "mnist_mlp"
SMALL = ["--hidden", "24", "--layers", "2", "--epochs", "2", "--batch-size", "50"]


@pytest.fixture(scope="module")
def script():
    """The example's train.py as a module."""
    spec = importlib.util.spec_from_file_location("mnist_mlp_train", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten noisy 28x28 patterns in MNIST's four files: 430 training and 210 test images."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (10, 28, 28))
    for split, count in (("train", 430), ("t10k", 210)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        noise = rng.integers(-128, 128, (count, 28, 28))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


def run_main(script, data, out, *options):
    with torch.random.fork_rng():
        return script.main(["--data", str(data), "--out", str(out), *SMALL, *options])


def logits_of(path, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.astype(np.float32) / 128 - 1})[0]


@pytest.mark.parametrize("weights", ["latent", "bipolar"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_export_is_the_trained_model(script, data, tmp_path, exporter, weights):
    model = run_main(script, data, tmp_path, "--exporter", exporter, "--weights", weights)

    images, _ = script.read_split(data, "t10k")
    with torch.no_grad():
        expected = model(script.scale(images)).numpy()
    actual = logits_of(tmp_path / "mnist_mlp.onnx", images.numpy())
    # Sums of the first layer are exact and the hidden ones are integers, so that only the last
    # BatchNorm may round differently: eight roundings of values below 8, 2^-22 each. One flipped
    # hidden sign would move a logit by 2 gamma / sqrt(variance), far more.
    assert not model.training
    assert np.abs(expected).max() < 8
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2.0**-19)


@pytest.mark.parametrize("weights", ["latent", "bipolar"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_export_is_one_clean_file(script, data, tmp_path, exporter, weights):
    run_main(script, data, tmp_path, "--exporter", exporter, "--weights", weights)

    path = tmp_path / "mnist_mlp.onnx"
    model = onnx.load(path)
    graph = model.graph
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "sample.npz", "figures.json"}
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
        assert needle not in model.SerializeToString()


def test_figures_and_sample_are_those_of_the_run(script, data, tmp_path):
    model = run_main(script, data, tmp_path, "--seed", "3", "--dropout", "0.25")

    images, labels = script.read_split(data, "t10k")
    figures = json.loads((tmp_path / "figures.json").read_text())
    with np.load(tmp_path / "sample.npz") as sample:
        assert np.array_equal(sample["images"], images[::20].numpy())
        assert np.array_equal(sample["labels"], labels[::20].numpy())
        assert sample["images"].dtype == sample["labels"].dtype == np.uint8
    with torch.no_grad():
        hits = model(script.scale(images)).argmax(1) == labels
    assert {
        "epochs": 2,
        "seed": 3,
        "dropout": 0.25,
        "test_images": 210,
        "test_correct": int(hits.sum()),
        "sample_images": 11,
        "sample_correct": int(hits[::20].sum()),
    }.items() <= figures.items()
    assert " --hidden 24 --layers 2 --epochs 2 --batch-size 50 " in figures["command"]
    assert str(tmp_path) not in figures["command"]


def test_training_learns_and_the_seed_decides(script, data, tmp_path):
    contents = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        run_main(script, data, tmp_path / name, "--exporter", "torchscript", "--seed", seed)
        contents.append((tmp_path / name / "mnist_mlp.onnx").read_bytes())
        figures = json.loads((tmp_path / name / "figures.json").read_text())
        # Chance is 21 of 210.
        assert figures["test_correct"] > 150

    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_latent_weights_stay_clipped(script, data, tmp_path):
    model = run_main(script, data, tmp_path, "--exporter", "torchscript", "--learning-rate", "0.5")

    assert [getattr(model, name).weight.abs().max().item() for name in ("fc1", "fc2", "fc3")] == [
        1.0,
        1.0,
        1.0,
    ]


def test_script_runs_by_itself(data, tmp_path):
    command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(data), *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert re.fullmatch(
        r"epoch 1/2: loss \d\.\d{5}, \d+\.\d s\n"
        r"epoch 2/2: loss \d\.\d{5}, \d+\.\d s\n"
        r"test accuracy: \d+\.\d\d% \(\d+ of 210\)\n",
        done.stdout,
    )
    assert (tmp_path / "mnist_mlp.onnx").exists()


def test_missing_data_is_said(script, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"

    with pytest.raises(SystemExit) as stopped:
        run_main(script, tmp_path, tmp_path)

    assert (
        f"{path} is missing: give its folder with --data, or --url to download"
        == stopped.value.code
    )


def test_other_files_are_refused(script, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + bytes(8)))

    with pytest.raises(SystemExit) as stopped:
        script.read_idx(path)

    assert f"{path} is not an idx file of unsigned bytes" == stopped.value.code


def test_download_takes_only_the_canonical_files(script, data, tmp_path, monkeypatch):
    first = "train-images-idx3-ubyte"
    actual = hashlib.sha256((data / f"{first}.gz").read_bytes()).hexdigest()
    expected = script.SHA256[first]
    url = data.as_uri()

    with pytest.raises(SystemExit) as stopped:
        script.download(url, tmp_path / "refused")

    assert stopped.value.code == (
        f"{first}.gz from {url}: SHA-256 is {actual}, expected {expected}"
    )
    assert list((tmp_path / "refused").iterdir()) == []

    for name in script.SHA256:
        content = (data / f"{name}.gz").read_bytes()
        monkeypatch.setitem(script.SHA256, name, hashlib.sha256(content).hexdigest())
    script.download(f"{url}/", tmp_path / "taken")

    for name in script.SHA256:
        expected = (data / f"{name}.gz").read_bytes()
        assert expected == (tmp_path / "taken" / f"{name}.gz").read_bytes()
    script.download("file:///nowhere", tmp_path / "taken")  # nothing is missing: nothing fetched


def test_scaled_pixels_are_exact_multiples_of_one_128th(script):
    pixels = torch.arange(256, dtype=torch.uint8)

    scaled = script.scale(pixels)

    # --input uint8:0.0078125,-1
    assert scaled.tolist() == [value * 0.0078125 - 1 for value in range(256)]


def test_square_hinge_is_that_of_the_paper(script):
    logits = torch.tensor([[2.0, -3.0, 0.5], [0.0, 1.0, -1.0]])
    labels = torch.tensor([0, 2], dtype=torch.uint8)

    loss = script.square_hinge(logits, labels)

    # Targets +1 -1 -1 and -1 -1 +1, so the hinges are 0 0 1.5 and 1 2 2.
    assert loss.item() == pytest.approx((1.5**2 + 1 + 4 + 4) / 6)


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
