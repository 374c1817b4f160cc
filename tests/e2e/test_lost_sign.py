"""Signs that PyTorch's exporter loses, from the user's eager module to repaired C and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnncc
from bnncc.report import Evidence

EIGHTH = 0.125
"""What inputs are multiples of: sums are exact in any order, and decisions lie between them."""


def binarise_in_place(x: Tensor) -> Tensor:
    """Binarise as much published code of 2016 to 2019 does, which leaves no trace when exported."""
    x.data = x.data.sign()
    return x


class BinaryLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(binarise_in_place(x), self.weight)


class BinaryConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(binarise_in_place(x), self.weight, None)


def decided(norm: nn.BatchNorm1d | nn.BatchNorm2d, unit: float) -> nn.Module:
    """Give a BatchNorm hostile statistics that leave no decision to rounding.

    Gammas of both signs and 0, tiny and large variances; means lie between the multiples of `unit`
    that sums can be.
    """
    n = norm.num_features
    draw = torch.randint
    with torch.no_grad():
        norm.weight[:] = torch.tensor([1.5, -1.5, 0.25, -1e-3])[draw(4, (n,))]
        norm.bias[:] = 0
        norm.weight[3], norm.bias[3] = 0, -0.5
        norm.running_mean[:] = (draw(-8, 8, (n,)) + 0.5) * unit
        norm.running_var[:] = torch.tensor([1e-6, 1, 40])[draw(3, (n,))]
    return norm


def binary(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    with torch.no_grad():
        layer.weight[:] = torch.where(torch.rand(layer.weight.shape) < 0.5, 1.0, -1.0)
    return layer


def mlp() -> nn.Sequential:
    return nn.Sequential(
        binary(nn.Linear(24, 32, bias=False)),
        decided(nn.BatchNorm1d(32), EIGHTH),
        nn.Hardtanh(),
        binary(BinaryLinear(32, 32, bias=False)),
        decided(nn.BatchNorm1d(32), 2),
        nn.Hardtanh(),
        binary(BinaryLinear(32, 5, bias=False)),
    )


def cnn() -> nn.Sequential:
    return nn.Sequential(
        binary(nn.Conv2d(2, 8, 3, padding=1, bias=False)),
        nn.MaxPool2d(2),
        decided(nn.BatchNorm2d(8), EIGHTH),
        nn.Hardtanh(),
        binary(BinaryConv2d(8, 8, 3, padding=1, bias=False)),
        decided(nn.BatchNorm2d(8), 1),
        binary(BinaryConv2d(8, 8, 3, padding=1, bias=False)),
        decided(nn.BatchNorm2d(8), 1),
        nn.Hardtanh(),
        nn.Flatten(),
        binary(BinaryLinear(72, 4, bias=False)),
    )


def exported(net: nn.Module, shape: tuple[int, ...], folder: Path) -> tuple[Path, np.ndarray]:
    """Return the file that tracing makes of a network, and inputs for it."""
    path = folder / "net.onnx"
    torch.onnx.export(net, (torch.zeros(1, *shape),), path, dynamo=False)
    x = np.random.default_rng(3).integers(-16, 17, (40, *shape)) * EIGHTH
    return path, x.astype(np.float32)


def eager(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(x.copy())).numpy()


CASES = {
    "mlp": (mlp, (24,), {"3": Evidence.BOUNDED, "6": Evidence.BOUNDED}),
    "cnn": (
        cnn,
        (2, 6, 6),
        {"4": Evidence.BOUNDED, "6": Evidence.NO_ACTIVATION, "10": Evidence.BOUNDED},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("zero", ["auto", "exact"])
def test_the_repaired_c_is_the_module_that_was_trained(case, zero, tmp_path):
    make, shape, accused = CASES[case]
    torch.manual_seed(2)
    net = make().eval()
    path, x = exported(net, shape, tmp_path)
    expected = eager(net, x)

    with pytest.warns(bnncc.LostSignWarning, match="BNN016") as caught:
        lost = bnncc.compile(path, tmp_path / "lost")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    found = {suspect.layer: suspect.evidence for suspect in lost.report.suspects}
    assert len(found) == len(accused)
    assert list(found.values()) == list(accused.values())
    assert (bnncc.load(lost)(x) != expected).any(axis=1).all()  # the file is another network

    options = bnncc.Options(insert_sign=True, sign_zero=zero)
    repaired = bnncc.compile(path, tmp_path / "out", options)
    np.testing.assert_array_equal(bnncc.load(repaired)(x), expected)
    assert repaired.report.suspects == ()
    assert len(repaired.report.edits) == len(accused)

    by_name = bnncc.Options(insert_sign_at=tuple(found), sign_zero=zero)
    named = bnncc.compile(path, tmp_path / "named", by_name)
    np.testing.assert_array_equal(bnncc.load(named)(x), expected)

    verification = bnncc.verify(repaired, data={"x": x})
    assert verification.ok
    assert verification.edits == repaired.report.edits
    assert verification.warnings == ()
    output = verification.outputs[0]
    assert (output.max_abs_error, output.top1_agreement) == (0, 1)


def test_one_layer_of_several(tmp_path):
    """What is left unrepaired is still warned about, and nothing claims to be the file."""
    torch.manual_seed(2)
    path, _ = exported(mlp().eval(), (24,), tmp_path)
    with pytest.warns(bnncc.LostSignWarning):
        first = bnncc.compile(path, tmp_path).report.suspects[0]
    options = bnncc.Options(insert_sign_at=(first.layer,))
    certificate = tmp_path / "certificate.json"
    with pytest.warns(bnncc.LostSignWarning, match="a layer with binary weights reads"):
        half = bnncc.compile(path, tmp_path, options, certificate=certificate)
    assert len(half.report.edits) == len(half.report.suspects) == 1
    plain = json.loads(certificate.read_text())
    assert [(edit["layer"], edit["tensor"]) for edit in plain["edits"]] == [
        (first.layer, first.input)
    ]
    assert plain["reference"].endswith("of the model file with the edits")
    whole = bnncc.compile(path, tmp_path / "whole", bnncc.Options(insert_sign=True))
    assert plain["model_sha256"] == whole.certificate.model_sha256  # that of the file
    header = half.header.read_text()
    assert f" * edited  Sign inserted on the input of {first.layer}\n" in header


def test_an_assignment_that_dynamo_sees(tmp_path):
    """Modules are exported by bnncc itself, which lets no assignment get lost: no warning."""
    torch.manual_seed(2)
    net = mlp().eval()
    x = np.float32(np.random.default_rng(4).integers(-16, 17, (20, 24)) * EIGHTH)
    done = bnncc.compile(net, tmp_path, example_inputs=torch.zeros(1, 24))
    np.testing.assert_array_equal(bnncc.load(done)(x), eager(net, x))
    assert done.report.suspects == ()


def test_the_binarynet_of_2019(shared_dir, tmp_path):
    """Its outputs are the author's in eager PyTorch once the two lost signs are put back."""
    stem = shared_dir / "models" / "broken" / "binarynet_2019_mlp_lost_sign"
    model, samples = Path(f"{stem}.torchscript.onnx"), np.load(f"{stem}.npz")
    with pytest.warns(bnncc.LostSignWarning):
        lost = bnncc.compile(model, tmp_path)
    assert [s.layer for s in lost.report.suspects] == ["/fc2/MatMul", "/fc3/MatMul"]
    assert np.abs(bnncc.load(lost)(samples["x"]) - samples["y_torch"]).max() > 0.1

    repaired = bnncc.compile(model, tmp_path, bnncc.Options(insert_sign=True))
    # Two layers on bits, which are equal; then a real sum of 256 terms and a log-softmax.
    error = np.abs(bnncc.load(repaired)(samples["x"]) - samples["y_torch"]).max()
    assert error <= 2e-6
    verification = bnncc.verify(repaired, data=f"{stem}.npz")
    assert verification.ok
    assert len(verification.edits) == 2


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_binaryconnect_network_is_not_accused(shared_dir, exporter, tmp_path):
    """Its binary weights read what a ReLU leaves, as they are meant to: no warning."""
    path = shared_dir / "models" / "trained" / f"zin_bwn_cnn_trained_det.{exporter}.onnx"
    done = bnncc.compile(path, tmp_path)
    assert done.report.suspects == ()
    assert "real input" in [caution.kind for caution in done.report.cautions]
