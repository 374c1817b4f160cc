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


def test_custom_operators_are_named_with_their_domain(shared_dir: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx(shared_dir / "models/trained/tfc_qonnx_zoo.onnx")
    (found,) = caught.value.diagnostics
    assert found.what == 'operator "onnx.brevitas.BipolarQuant" is not supported (8 nodes)'
    assert found.where == (
        'ONNX nodes "BipolarQuant_11", "BipolarQuant_14", "BipolarQuant_19" and 5 more'
    )


def test_every_model_gets_a_coded_answer(shared_dir: Path) -> None:
    paths = sorted((shared_dir / "models").glob("*/*.onnx"))
    assert len(paths) > 50
    assert set().union(*map(codes, paths)) == {"BNN007"}


def codes(path: Path) -> set[str]:
    try:
        load_onnx(path)
    except UnsupportedModelError as error:
        return {d.code for d in error.diagnostics}
    return set()
