"""Networks that others trained and exported; they lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import load_onnx
from bnncc.ir import interpret
from tests.frontends.builders import assert_agrees

TFC = "trained/tfc_1w1a_trained_plain"
LFC = "trained/bnnpynq_lfc_trained"
BREVITAS = "random/brevitas_tfc_1w1a"


@pytest.mark.parametrize(
    "name",
    [
        f"{TFC}.torchscript",
        f"{TFC}.dynamo",
        f"{LFC}.dynamo",
        f"{BREVITAS}.plain_script",
        f"{BREVITAS}.plain_dynamo",
        f"{BREVITAS}.qonnx_script",
        "trained/tfc_qonnx_zoo",
        "trained/tfc_w1a2_qonnx_zoo",
    ],
)
def test_every_tensor_is_the_oracles(name: str, shared_dir: Path) -> None:
    folder = shared_dir / "models"
    imported = load_onnx(folder / f"{name}.onnx")
    (given,) = imported.graph.inputs
    x = np.load((folder / name).with_suffix(".npz"))["x"]
    assert_agrees(imported, {given: x.astype(np.float32)}, zero_signs=False)
    assert sum(node.op.name == "MatMul" for node in imported.graph.nodes) == 4


def test_a_network_of_integers_gives_exactly_pytorchs_numbers(shared_dir: Path) -> None:
    folder = shared_dir / "models"
    imported = load_onnx(folder / f"{LFC}.dynamo.onnx")
    samples = np.load(folder / f"{LFC}.npz")
    (given,), (result,) = imported.graph.inputs, imported.graph.outputs
    y = interpret.run(imported.graph, {given: samples["x"].astype(np.float32)})[result]
    np.testing.assert_array_equal(y, samples["y_torch"].reshape(y.shape))


IMAGES = [
    "random/brevitas_cnv_1w1a.qonnx_script",
    "random/bireal18_224.dynamo",
    "random/irnet_resnet20.dynamo",
    "random/irnet_resnet20.torchscript",
    "random/luca_bnn_caffenet_clean.dynamo",
    "random/luca_bnn_caffenet_clean.torchscript",
    "random/xnornet_lenet5_clean.dynamo",
    "random/xnornet_lenet5_clean.torchscript",
    "trained/bnnpynq_cnv_trained.torchscript",
    "trained/zin_bwn_cnn_trained_det.dynamo",
    "trained/zin_bwn_cnn_trained_det.torchscript",
]


@pytest.mark.parametrize("name", IMAGES)
def test_every_tensor_of_a_convolutional_network_is_the_oracles(
    name: str, shared_dir: Path
) -> None:
    path = shared_dir / "models" / f"{name}.onnx"
    imported = load_onnx(path)
    (given,) = imported.graph.inputs
    x = np.load(path.with_suffix("").with_suffix(".npz"))["x"][:2]
    shape = imported.graph.types[given].shape[1:]
    x = x.reshape(-1, *shape)[: 1 if "224" in name else 2].astype(np.float32)
    assert_agrees(imported, {given: x}, zero_signs=False)
    assert any(node.op.name == "Conv" for node in imported.graph.nodes)


def test_an_image_network_of_integers_gives_exactly_pytorchs_numbers(shared_dir: Path) -> None:
    folder = shared_dir / "models/trained"
    imported = load_onnx(folder / "bnnpynq_cnv_trained.torchscript.onnx")
    samples = np.load(folder / "bnnpynq_cnv_trained.npz")
    (given,), (result,) = imported.graph.inputs, imported.graph.outputs
    y = interpret.run(imported.graph, {given: samples["x"][:4].astype(np.float32)})[result]
    np.testing.assert_array_equal(y, samples["y_torch"][:4].reshape(y.shape))


# Masked assignments, x[mask] = value, have no static shapes in these; TorchScript folds theirs.
MASKED = {"idiom_ones_index_put.dynamo", "idiom_sign_inplace_mask.dynamo"}


def test_every_spelling_of_sign_is_read(shared_dir: Path) -> None:
    paths = sorted((shared_dir / "models/idioms").glob("*.onnx"))
    assert len(paths) == 33
    refused = {path.stem for path in paths if codes(path)}
    assert refused == MASKED


@pytest.mark.parametrize("name", sorted(MASKED))
def test_masked_assignments_are_refused_with_another_spelling(name: str, shared_dir: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx(shared_dir / "models/idioms" / f"{name}.onnx")
    assert all(d.code == "BNN007" for d in caught.value.diagnostics)
    (found,) = (d for d in caught.value.diagnostics if "ScatterND" in d.what)
    assert found.what == 'operator "ScatterND" is not supported (2 nodes)'
    assert found.where == 'ONNX nodes "node_index_put", "node_index_put_2"'
    assert found.help == (
        "exporters say x[mask] = value this way: write x = torch.where(mask, value, x)"
    )


@pytest.mark.parametrize("name", ["idiom_bireal", "idiom_div_abs", "idiom_sign_inplace_mask"])
def test_spellings_of_sign_compute_what_onnx_runtime_does(name: str, shared_dir: Path) -> None:
    path = shared_dir / "models/idioms" / f"{name}.torchscript.onnx"
    imported = load_onnx(path)
    (given,) = imported.graph.inputs
    x = np.load(path.parent / f"{name}.npz")["x"]
    x = x.reshape(-1, *imported.graph.types[given].shape[1:])
    assert_agrees(imported, {given: x.astype(np.float32)}, zero_signs=False)


def test_nothing_but_masked_assignments_is_refused(shared_dir: Path) -> None:
    paths = sorted((shared_dir / "models").glob("*/*.onnx"))
    assert len(paths) > 50
    found = {path.stem: given for path in paths if (given := codes(path))}
    assert found == {name: {"BNN007"} for name in MASKED}


def codes(path: Path) -> set[str]:
    try:
        load_onnx(path)
    except UnsupportedModelError as error:
        return {d.code for d in error.diagnostics}
    return set()
