"""What torch.onnx.export writes, by either exporter, for the ways people store binary weights."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import load_onnx
from tests.frontends.builders import assert_agrees

K, HIDDEN, CLASSES = 36, 40, 10


class BinaryLayer(nn.Module):
    """A dense layer whose weights are binary in one of several ways, then BatchNorm."""

    def __init__(self, inputs: int, outputs: int, weights: str) -> None:
        super().__init__()
        latent = torch.randn(outputs, inputs)
        self.kind = weights
        if weights.startswith("baked"):
            latent = torch.where(latent >= 0, 1.0, -1.0)
        if weights == "baked alpha":
            latent = latent * 0.37
        self.weight = nn.Parameter(latent)
        self.bias = nn.Parameter(torch.randn(outputs)) if weights == "latent alpha" else None
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.kind == "latent where":
            weight = torch.where(weight >= 0, 1.0, -1.0)
        elif self.kind == "latent sign":
            weight = torch.sign(weight)
        elif self.kind == "latent alpha":
            weight = torch.sign(weight) * weight.abs().mean(1, keepdim=True)
        return self.norm(nn.functional.linear(x, weight, self.bias))


class BinaryMLP(nn.Module):
    def __init__(self, weights: str) -> None:
        super().__init__()
        sizes = [K, HIDDEN, HIDDEN, CLASSES]
        self.layers = nn.ModuleList(BinaryLayer(i, o, weights) for i, o in pairwise(sizes))
        self.drop = nn.Dropout(0.3)
        # As after training: falling channels, constant ones, and variances that epsilon decides.
        for layer in self.layers:
            norm = layer.norm
            for statistic, spread in ((norm.weight, 1.0), (norm.bias, 0.5), (norm.running_mean, 3)):
                nn.init.normal_(statistic, 0, spread)
            nn.init.uniform_(norm.running_var, 1e-7, 40)
            with torch.no_grad():
                norm.weight[3] = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        for layer in self.layers[:-1]:
            x = nn.functional.hardtanh(layer(x))
            x = torch.where(x >= 0, 1.0, -1.0)
            x = self.drop(x)
        return self.layers[-1](x)


def export(model: nn.Module, path: Path, exporter: str, opset: int, *, dynamic: bool) -> None:
    if exporter == "dynamo":
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        options = {"dynamic_shapes": shapes, "dynamo": True, "verbose": False}
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}} if dynamic else None
        options = {"dynamic_axes": axes, "dynamo": False, "do_constant_folding": opset > 9}
    example = torch.zeros(2 if dynamic else 1, 1, 6, 6)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    torch.onnx.export(
        model, (example,), path, opset_version=opset, external_data=False, **names, **options
    )


@pytest.mark.parametrize(
    ("exporter", "opset"), [("script", 9), ("script", 13), ("script", 17), ("dynamo", 18)]
)
@pytest.mark.parametrize(
    "weights", ["latent where", "latent sign", "latent alpha", "baked", "baked alpha"]
)
def test_binary_mlp(weights: str, exporter: str, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BinaryMLP(weights)
    path = tmp_path / "mlp.onnx"
    dynamic = weights != "baked alpha"
    export(model, path, exporter, opset, dynamic=dynamic)
    imported = load_onnx(path)
    # Pixels k/128: with weights +-1 every sum is exact, and all there is to compare is equal.
    rng = np.random.default_rng(1)
    x = (rng.integers(-128, 128, (50, 1, 6, 6)) / 128).astype(np.float32)
    assert_agrees(imported, {"image": x}, zero_signs=False)
    assert imported.notes == (
        ('batch dimension "batch" of input "image" fixed to 1',) if dynamic else ()
    )
    assert imported.graph.inputs == ("image",)
    assert imported.graph.outputs == ("logits",)
    matrices = [c for c in imported.graph.constants.values() if c.ndim == 2 and len(c) > 1]
    assert [matrix.shape for matrix in matrices] == [
        (HIDDEN, K),
        (HIDDEN, HIDDEN),
        (CLASSES, HIDDEN),
    ]


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_newest_opset_of_each_exporter(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    newest = 20 if exporter == "script" else 23
    export(BinaryMLP("latent sign"), tmp_path / "m.onnx", exporter, newest, dynamic=True)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == newest
    assert load_onnx(tmp_path / "m.onnx").graph.nodes


def test_external_data_as_torch_writes_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "mlp.onnx"
    model = BinaryMLP("baked")
    torch.onnx.export(model, (torch.zeros(1, 1, 6, 6),), path, dynamo=True, verbose=False)
    assert (tmp_path / "mlp.onnx.data").exists()
    assert load_onnx(path).graph.nodes


@pytest.mark.filterwarnings("ignore")  # the exporter advises against this in several ways
def test_training_mode_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BinaryMLP("latent sign").train()
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 6, 6),),
        file,
        dynamo=False,
        training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False,
        opset_version=17,
        dynamic_axes={"image": {0: "batch"}},
        input_names=["image"],
    )
    (tmp_path / "m.onnx").write_bytes(file.getvalue())
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx(tmp_path / "m.onnx")
    assert {d.code for d in caught.value.diagnostics} == {"BNN012"}
    assert len(caught.value.diagnostics) == 5  # three BatchNorms, two Dropouts
