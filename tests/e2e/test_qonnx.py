"""QONNX and FINN files, unedited: they compile, verify, and give the reference's own outputs."""

from __future__ import annotations

import gzip

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnncc
from bnncc.report.layers import Arithmetic

QONNX, FINN = "qonnx.custom_op.general", "finn.custom_op.general"
BYTES = "uint8:0.00392156862745098,0"
F32 = np.float32

# The array of outputs that QONNX's executor, or Brevitas in PyTorch, gave for the file.
FILES = {
    "trained/tfc_qonnx_zoo": "y_qonnx",
    "trained/tfc_w1a2_qonnx_zoo": "y_qonnx",
    "trained/tfc_finn_multithreshold": "y_top1",
    "random/brevitas_tfc_1w1a.qonnx_script": "y_torch",
    "random/brevitas_tfc_1w1a.plain_script": "y_torch",
    "random/brevitas_tfc_1w1a.plain_dynamo": "y_torch",
    "random/brevitas_cnv_1w1a.qonnx_script": "y_torch",
}

# Of the first 1000 test images of MNIST, from bytes: what MODELS.md states for the first.
SCORES = {
    "trained/tfc_qonnx_zoo": 913,
    "trained/tfc_w1a2_qonnx_zoo": 938,
    "trained/tfc_finn_multithreshold": 913,
}


@pytest.mark.parametrize("file", FILES)
def test_file(shared_dir, tmp_path, file):
    models = shared_dir / "models"
    stored = np.load(models / f"{file.split('.')[0]}.npz")
    artifact = bnncc.compile(models / f"{file}.onnx", tmp_path)
    assert bnncc.verify(artifact, data={"x": stored["x"]}).ok
    assert bnncc.verify(artifact, samples=32).ok
    # Every layer sums whole numbers, and what follows rounds as in the reference.
    wanted = stored[FILES[file]]
    model = bnncc.load(artifact)
    y = model(stored["x"].reshape(-1, *model.inputs[0].shape))
    np.testing.assert_array_equal(y.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("file", SCORES)
def test_score_on_mnist(shared_dir, tmp_path, file):
    folder = shared_dir / "data" / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as images:
        x = np.frombuffer(images.read(16 + 1000 * 784), np.uint8, offset=16)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as numbers:
        labels = np.frombuffer(numbers.read(8 + 1000), np.uint8, offset=8)
    is_float = file != "trained/tfc_finn_multithreshold"  # that one says itself that it is not
    options = bnncc.Options(inputs=(BYTES,) if is_float else ())
    artifact = bnncc.compile(shared_dir / "models" / f"{file}.onnx", tmp_path, options)
    y = bnncc.load(artifact)(x.reshape(-1, 1, 28, 28))
    classes = y.argmax(1) if is_float else y.reshape(-1)
    assert (classes == labels).sum() == SCORES[file]


def built(nodes, constants, shape, path, *, element=TensorProto.FLOAT):
    """Save a model from "x" of `shape` to "y"."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    imports = [helper.make_opsetid("", 11), helper.make_opsetid(QONNX, 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def statistics(rng, name, channels):
    """Return BatchNorm parameters, a third of the gammas negative, and one of them zero."""
    gamma = rng.normal(0.5, 1, channels)
    gamma[0] = 0
    return {
        f"{name}.g": gamma.astype(F32),
        f"{name}.b": rng.normal(size=channels).astype(F32),
        f"{name}.m": rng.normal(0, 4, channels).astype(F32),
        f"{name}.v": rng.uniform(0.5, 30, channels).astype(F32),
    }


def normalised(x, name, y):
    operands = [x, *(f"{name}.{part}" for part in "gbmv")]
    return helper.make_node("BatchNormalization", operands, [y])


def quantised(op_type, x, y, *parameters, domain=QONNX, **attributes):
    return helper.make_node(op_type, [x, *parameters], [y], domain=domain, **attributes)


def test_rows_that_finn_normalises_as_columns_stay_bits(tmp_path):
    """Unsqueeze, BatchNormalization, Squeeze: the thresholds fold as if only the second stood."""
    rng = np.random.default_rng(2)
    nodes = [
        quantised("MultiThreshold", "x", "s0", "zero", domain=FINN, out_scale=2.0, out_bias=-1.0),
        helper.make_node("MatMul", ["s0", "w0"], ["a0"]),
        helper.make_node("Unsqueeze", ["a0"], ["u0"], axes=[2]),
        normalised("u0", "n0", "b0"),
        helper.make_node("Squeeze", ["b0"], ["q0"], axes=[2]),
        quantised("MultiThreshold", "q0", "s1", "zero", domain=FINN, out_scale=2.0, out_bias=-1.0),
        helper.make_node("MatMul", ["s1", "w1"], ["y"]),
    ]
    constants = {
        "zero": np.zeros((1, 1), F32),
        "w0": np.sign(rng.normal(size=(40, 24))).astype(F32),
        "w1": np.sign(rng.normal(size=(24, 5))).astype(F32),
        **statistics(rng, "n0", 24),
    }
    artifact = bnncc.compile(built(nodes, constants, [1, 40], tmp_path / "m.onnx"), tmp_path / "c")
    assert [layer.stores for layer in artifact.report.layers] == [("bits",), ("reals",)]
    assert {layer.arithmetic for layer in artifact.report.layers} == {Arithmetic.BITS}
    assert bnncc.verify(artifact).ok


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_images_of_bytes_and_activations_of_a_few_bits(tmp_path, bits):
    """uint8 images, weights and activations quantised per channel, thresholds per channel."""
    rng = np.random.default_rng(bits)
    nodes = [
        helper.make_node("Cast", ["x"], ["r"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["r", "full"], ["i"]),
        quantised("BipolarQuant", "w0", "v0", "s0"),
        helper.make_node("Conv", ["i", "v0"], ["a0"], pads=[1, 1, 1, 1]),
        normalised("a0", "n0", "b0"),
        quantised("Quant", "b0", "q0", "half", "none", "bits", signed=0),
        quantised("BipolarQuant", "w1", "v1", "one"),
        helper.make_node("Conv", ["q0", "v1"], ["a1"], strides=[2, 2]),
        quantised("MultiThreshold", "a1", "q1", "steps", domain=FINN, data_layout="NCHW"),
        helper.make_node("Flatten", ["q1"], ["f"]),
        quantised("Quant", "w2", "v2", "s2", "none", "bits4", narrow=1),
        helper.make_node("MatMul", ["f", "v2"], ["y"]),
    ]
    constants = {
        "full": F32(255),
        "one": F32(1),
        "half": F32(0.5),
        "none": F32(0),
        "bits": F32(bits),
        "bits4": F32(4),
        "s0": rng.uniform(0.1, 2, (8, 1, 1, 1)).astype(F32),
        "s2": rng.uniform(0.1, 2, (1, 6)).astype(F32),
        "w0": rng.normal(size=(8, 3, 3, 3)).astype(F32),
        "w1": rng.normal(size=(4, 8, 3, 3)).astype(F32),
        "w2": rng.normal(size=(36, 6)).astype(F32),
        "steps": (np.round(rng.normal(0, 5, (4, 3))) / 2).astype(F32),
        **statistics(rng, "n0", 8),
    }
    path = built(nodes, constants, [1, 3, 8, 8], tmp_path / "m.onnx", element=TensorProto.UINT8)
    artifact = bnncc.compile(path, tmp_path / "c")
    assert bnncc.verify(artifact).ok
    images = rng.integers(0, 256, (20, 3, 8, 8))
    assert bnncc.verify(artifact, data={"x": images.astype(np.uint8)}).ok
    assert bnncc.verify(artifact, data={"x": images.astype(F32)}).ok  # the same numbers
    with pytest.raises(bnncc.UsageError, match="are not uint8 codes"):
        bnncc.verify(artifact, data={"x": images.astype(F32) + F32(0.5)})
    with pytest.raises(bnncc.UsageError, match="takes bytes already"):
        bnncc.compile(path, tmp_path / "d", bnncc.Options(inputs=("uint8:1,0",)))
