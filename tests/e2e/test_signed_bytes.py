"""int8 inputs, such as the features of a keyword spotter: the model's own, or declared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnncc

F = np.float32
NODE = helper.make_node
EVERY = np.arange(-128, 128, dtype=np.int8)


def network(shape: Sequence[int], element: int, *first: onnx.NodeProto) -> onnx.ModelProto:
    """Return "x" [1, *shape] -> `first`, which leads to "r" -> two binary layers -> "y"."""
    rng = np.random.default_rng(7)
    image = len(shape) > 1
    window = (3, 3) if image else ()
    sizes = [(20, shape[0], *window), (6, 20, *window)]
    if not image:
        sizes = [size[::-1] for size in sizes]
    linear = "Conv" if image else "MatMul"
    gamma = rng.normal(0, 1, 20)
    gamma[::5] = 0
    constants = {
        "w0": rng.choice([-1, 1], sizes[0]),
        "w1": rng.choice([-1, 1], sizes[1]),
        "g": gamma,
        "b": rng.normal(0, 0.5, 20),
        "m": np.rint(rng.normal(0, 40, 20)),
        "v": rng.choice([1e-6, 1, 400], 20),
        "tenth": np.array(0.1),
        "three": np.array(-3.0),
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "minus": np.array(-1.0),
    }
    nodes = [
        *first,
        NODE(linear, ["r", "w0"], ["a"]),
        NODE("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"]),
        NODE("GreaterOrEqual", ["n", "zero"], ["c"]),
        NODE("Where", ["c", "one", "minus"], ["bits"]),
        NODE(linear, ["bits", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "signed",
        [helper.make_tensor_value_info("x", element, [1, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a, F), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compiled(model: onnx.ModelProto, folder: Path, *inputs: str) -> bnncc.Artifact:
    path = folder / "signed.onnx"
    path.write_bytes(model.SerializeToString())
    artifact = bnncc.compile(path, folder, bnncc.Options(inputs=inputs))
    assert "const int8_t *" in artifact.header.read_text()
    assert bnncc.load(artifact).inputs[0].dtype == np.int8
    return artifact


def every_code(shape: Sequence[int]) -> np.ndarray:
    """Return samples [N, *shape] in which each element is each code at least once."""
    rng = np.random.default_rng(1)
    columns = [rng.permutation(EVERY) for _ in range(int(np.prod(shape)))]
    return np.stack(columns, axis=1).reshape(-1, *shape)


CAST = NODE("Cast", ["x"], ["r"], to=TensorProto.FLOAT)


@pytest.mark.parametrize("shape", [(49,), (3, 6, 6)])
@pytest.mark.parametrize("target", ["x86-64", "cortex-m4"])
def test_inputs_of_the_model_itself(shape, target, tmp_path):
    path = tmp_path / "signed.onnx"
    path.write_bytes(network(shape, TensorProto.INT8, CAST).SerializeToString())
    artifact = bnncc.compile(path, tmp_path, bnncc.Options(target=target))
    verification = bnncc.verify(artifact, data={"x": every_code(shape)})
    assert verification.ok
    assert verification.outputs[0].max_abs_error == 0  # sums of bytes, then of bits: no rounding
    assert bnncc.verify(artifact, samples=20).ok


def test_inputs_that_are_scaled(tmp_path):
    scaled = [
        NODE("Cast", ["x"], ["c8"], to=TensorProto.FLOAT),
        NODE("Mul", ["c8", "tenth"], ["s8"]),
        NODE("Add", ["s8", "three"], ["r"]),
    ]
    artifact = compiled(network((49,), TensorProto.INT8, *scaled), tmp_path)
    assert artifact.report.layers[0].reason.startswith("its input is int8")
    assert bnncc.verify(artifact, data={"x": every_code((49,))}).ok


@pytest.mark.parametrize("by", ["zero", "three"])
def test_signs_of_signed_bytes(by, tmp_path):
    """The first layer is on bits: thresholds over the 256 codes, at both ends of their range."""
    signed = [
        NODE("Cast", ["x"], ["c8"], to=TensorProto.FLOAT),
        NODE("Sub", ["c8", by], ["d8"]),
        NODE("Sign", ["d8"], ["r"]),
    ]
    artifact = compiled(network((49,), TensorProto.INT8, *signed), tmp_path)
    assert [layer.arithmetic for layer in artifact.report.layers] == ["bits", "bits"]
    assert artifact.report.assumptions == ()  # 0 is a code, and has a level of its own
    verification = bnncc.verify(artifact, data={"x": every_code((49,))})
    assert verification.ok
    assert verification.outputs[0].max_abs_error == 0
    domains = [proof.domain for proof in artifact.certificate.layers]
    assert (-128, 127) in [(domain.low, domain.high) for domain in domains]


def test_declared_inputs(tmp_path):
    model = network((49,), TensorProto.FLOAT, NODE("Identity", ["x"], ["r"]))
    artifact = compiled(model, tmp_path, "int8:0.5,-1")
    codes = every_code((49,))
    assert bnncc.verify(artifact, data={"x": codes}).ok
    decoded = codes.astype(F) * F(0.5) - F(1)
    assert bnncc.verify(artifact, data={"x": decoded}).ok
    with pytest.raises(bnncc.UsageError, match="are not int8 codes decoded by its --input"):
        bnncc.verify(artifact, data={"x": decoded + F(0.25)})
    with pytest.raises(bnncc.UsageError, match="takes int8, the data is uint8"):
        bnncc.verify(artifact, data={"x": codes.view(np.uint8)})


def test_bytes_are_declared_once(tmp_path):
    path = tmp_path / "signed.onnx"
    path.write_bytes(network((49,), TensorProto.INT8, CAST).SerializeToString())
    with pytest.raises(bnncc.UsageError, match="takes bytes already"):
        bnncc.compile(path, tmp_path, bnncc.Options(inputs=("int8:1,0",)))


def test_features_of_a_keyword_spotter(shared_dir, tmp_path):
    features = np.load(next((shared_dir / "data" / "kws_tiny").glob("*.npz")))
    x = next(features[name] for name in features.files if features[name].dtype == np.int8)
    shape = (int(np.prod(x.shape[1:])),)
    artifact = compiled(network(shape, TensorProto.INT8, CAST), tmp_path)
    assert bnncc.verify(artifact, data={"x": x[:100].reshape(100, *shape)}).ok
