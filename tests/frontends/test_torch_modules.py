"""bnncc.compile(module, example_inputs=...): exported elsewhere, equal to the module, unchanged."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnncc
from bnncc import UnsupportedModelError, UsageError
from bnncc.frontends.torch import agree, convert, isolate, load_module
from bnncc.nn.models import bnn_mlp

K, HIDDEN, CLASSES = 35, 24, 5
ZERO = torch.zeros(1, K)


class TorchSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class WhereSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Net(nn.Module):
    """Dense, BatchNorm, sign, dense; its outputs are whole numbers."""

    def __init__(self, sign=WhereSign):
        super().__init__()
        self.sign = sign
        self.first = nn.Linear(K, HIDDEN, bias=False)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(HIDDEN, CLASSES, bias=False)
        trained(self)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.sign.apply(self.first.weight))
        x = self.drop(self.sign.apply(self.norm(x)))
        return nn.functional.linear(x, self.sign.apply(self.last.weight))


class DataLinear(nn.Linear):
    """The layer that most published BNN code descends from: it binarises by assigning `.data`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) != K:
            x.data = x.data.sign()
        if not hasattr(self.weight, "org"):
            self.weight.org = self.weight.data.clone()
        self.weight.data = self.weight.org.sign()
        return nn.functional.linear(x, self.weight)


class DataNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            DataLinear(K, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.Hardtanh(),
            DataLinear(HIDDEN, CLASSES, bias=False),
        )
        trained(self)


def trained(model: nn.Module) -> nn.Module:
    """Give BatchNorm the statistics that training leaves: falling channels, far-off means."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean, 0, 4)
            nn.init.uniform_(part.running_var, 1, 40)
    return model.eval()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Let this process import what each child would, and start its thread pool before any fork."""
    torch.onnx.export(nn.ReLU().eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False)
    torch.randn(600, 600) @ torch.randn(600, 600)


def whole_numbers(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-9, 10, (count, K)).astype(np.float32)


@pytest.mark.parametrize(
    "make", [lambda: Net(WhereSign), lambda: Net(TorchSign), DataNet], ids=["where", "sign", "data"]
)
def test_equal_to_the_module(make, tmp_path, any_cc):
    model = make()
    artifact = bnncc.compile(model, tmp_path, example_inputs=ZERO)
    assert artifact.report.notes == ()
    compiled = bnncc.load(artifact, compiler=any_cc)
    x = whole_numbers(40)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    got = np.concatenate([np.asarray(compiled(row[None])).reshape(1, -1) for row in x])
    assert np.array_equal(expected, got)


def test_bnn_mlp_in_training_mode(tmp_path, any_cc):
    model = trained(bnn_mlp(HIDDEN, 2, in_features=K, dropout=0.2))
    x = whole_numbers(30)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    model.train()
    before = copy.deepcopy(model.state_dict())
    artifact = bnncc.compile(model, tmp_path, example_inputs=(ZERO.repeat(4, 1),))
    assert model.training
    assert all(part.training for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert artifact.header.name == "sequential.h"
    assert artifact.report.notes == (
        "the module is in training mode, and was exported as in eval mode",
        "example_inputs hold 4 samples; the C takes one a call",
    )
    compiled = bnncc.load(artifact, compiler=any_cc)
    got = np.concatenate([np.asarray(compiled(row[None])).reshape(1, -1) for row in x])
    # The last BatchNorm's few float32 operations are ordered differently in PyTorch.
    assert np.allclose(expected, got, rtol=1e-5, atol=1e-5)


def test_same_module_same_bytes(tmp_path):
    model = Net()
    first, second = (bnncc.compile(model, tmp_path / n, example_inputs=ZERO) for n in "ab")
    assert first.source.read_bytes() == second.source.read_bytes()
    assert first.source.name == "net.c"
    text = first.header.read_text()
    assert "model   Net\n" in text
    assert str(Path(__file__).parent) not in text
    assert len(first.certificate.as_json()["model_sha256"]) == 64


def test_verify_takes_a_module():
    assert bnncc.verify(Net(), example_inputs=ZERO, samples=20).ok


def test_import_of_bnncc_imports_no_torch():
    code = "import sys, bnncc; from bnncc.cli import app; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_of_main(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, bnncc\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.randn(3, 8))\n"
        "    def forward(self, x):\n"
        "        return x @ torch.where(self.weight >= 0, 1.0, -1.0).t()\n"
        "bnncc.compile(Mine(), 'out', example_inputs=torch.zeros(1, 8))\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.c", "mine.h"]


# --- Convolutions ---------------------------------------------------------------------------------


class ConvNet(nn.Module):
    """A stem, a strided binary convolution with a real shortcut, a grouped one, a pool, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(3))
        self.strided = nn.Conv2d(12, 12, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.slope = nn.PReLU(12, 0.2)
        self.head = nn.Linear(12, CLASSES)
        trained(self)

    def binary(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        sign = WhereSign.apply
        return layer._conv_forward(sign(x), sign(layer.weight), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.norms[0](self.stem(x)))
        x = self.norms[1](self.binary(self.strided, x)) + nn.functional.avg_pool2d(x, 2)
        x = self.slope(self.norms[2](self.binary(self.grouped, x)) + x)
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


IMAGE = torch.zeros(1, 3, 16, 16)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, 3, 16, 16)).astype(np.float32)


def test_a_convolutional_network(tmp_path, any_cc):
    model = ConvNet()
    artifact = bnncc.compile(model, tmp_path, example_inputs=IMAGE)
    assert artifact.report.notes == ()
    x = images(20)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    got = bnncc.load(artifact, compiler=any_cc)(x)
    # The real stem, BatchNorm and head round in another order in PyTorch; no bit flips here.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert bnncc.verify(artifact, samples=20).ok


def test_no_bias_is_made_up():
    """PyTorch's exporter gives every convolution a bias, of zeros where the module has none."""
    graph = load_module(ConvNet(), IMAGE).graph
    assert sum(node.op.name == "Conv" for node in graph.nodes) == 3
    biases = [
        node
        for node in graph.nodes
        if node.op.name == "Add" and graph.producers[node.inputs[0]].op.name == "Conv"
    ]
    assert [graph.constants[node.inputs[1]].size for node in biases] == [12]  # of the grouped one


@pytest.mark.parametrize(("large", "runs"), [(10**9, 9), (0, 3)], ids=["small", "large"])
def test_large_networks_are_compared_on_fewer_samples(monkeypatch, large, runs):
    """Interpreting a sample of an ImageNet network takes seconds: two equal ones are enough."""
    calls = []
    run = agree.interpret.run
    monkeypatch.setattr(agree, "_LARGE", large)
    monkeypatch.setattr(agree.interpret, "run", lambda *given: (calls.append(1), run(*given))[1])
    assert load_module(Net(), ZERO).notes == ()
    assert len(calls) == runs


def test_a_large_network_that_computes_something_else(monkeypatch):
    monkeypatch.setattr(agree, "_LARGE", 0)
    assert "is not what it computes" in str(refusal(Wrong()))


# --- Failures -------------------------------------------------------------------------------------


class Failing(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        self.act()
        return x.sign()


def refusal(module, inputs=ZERO, kind=UnsupportedModelError) -> bnncc.BnnccError:
    with pytest.raises(kind) as caught:
        bnncc.compile(module, "/nonexistent", example_inputs=inputs)
    return caught.value


HELP = (
    '  help:  export it yourself with torch.onnx.export(module.eval(), (example_input,), "model.'
    'onnx"), and compile model.onnx'
)


def test_forward_raises():
    def act():
        raise ValueError("no weights\nloaded")

    error = refusal(Failing(act))
    line = (
        Path(__file__)
        .read_text()
        .splitlines()
        .index('        raise ValueError("no weights\\nloaded")')
    )
    assert str(error) == (
        "error[BNN015]: PyTorch cannot export module Failing\n"
        f"  where: act, test_torch_modules.py:{line + 1}\n"
        "  why:   ValueError: no weights loaded\n" + HELP
    )


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (os.abort, "ended the exporting process by SIGABRT"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "ended the exporting process by SIGSEGV"),
        (lambda: os._exit(3), "ended with exit code 3"),
        (sys.exit, "SystemExit"),
    ],
    ids=["abort", "segfault", "_exit", "exit"],
)
def test_forward_ends_the_process(act, what):
    error = refusal(Failing(act))
    assert what in str(error)
    assert error.code == "BNN015"
    assert str(error).endswith(HELP)
    if "SIG" in what:
        assert "test_torch_modules.py:" in error.diagnostics[0].where


def test_forward_hangs(monkeypatch):
    monkeypatch.setattr(convert, "EXPORT_SECONDS", 1.0)
    begin = time.monotonic()
    error = refusal(Failing(lambda: time.sleep(60)))
    assert time.monotonic() - begin < 20
    assert "exporting module Failing did not end within 1 second\n" in str(error)
    assert "test_torch_modules.py:" in error.diagnostics[0].where


class Wrong(nn.Module):
    """What the exporter sees is not what the module computes."""

    def forward(self, x):
        return x.sign() if torch.is_grad_enabled() else (-x).sign()


def test_an_export_that_computes_something_else():
    assert str(refusal(Wrong())).startswith(
        "error[BNN015]: what PyTorch exported from module Wrong is not what it computes\n"
        "  why:   on every one of a few random inputs, the exported graph gives other results"
    )


def test_random_modules_are_refused_for_being_random():
    class Noisy(nn.Module):
        def forward(self, x):
            return (x + torch.rand_like(x)).sign()

    assert refusal(Noisy()).code in ("BNN007", "BNN012")


def test_example_inputs(tmp_path):
    error = refusal(Net(), None, UsageError)
    assert str(error) == (
        "error[BNN022]: compiling a module needs example_inputs\n"
        "  help:  bnncc.compile(module, example_inputs=(torch.zeros(1, 784),)), a tensor for each "
        "argument of forward"
    )
    assert refusal(Net(), (), UsageError).code == "BNN022"
    error = refusal(Net(), (ZERO, 3), UsageError)
    assert "example_inputs[1] is no tensor, but a int" in str(error)
    error = refusal(tmp_path / "m.onnx", ZERO, UsageError)
    assert "example_inputs is given, but the model is a file" in str(error)
    error = refusal(3, ZERO, UsageError)
    assert "a model is a file or a torch.nn.Module, not int" in str(error)
    assert refusal(Net(), torch.zeros(1, K + 1)).code == "BNN015"


def test_without_fork(monkeypatch):
    """Modules are pickled then: a copy, since that moves tensors to shared memory."""
    monkeypatch.setattr(isolate, "can_fork", lambda: False)
    monkeypatch.setattr(convert, "can_fork", lambda: False)
    model = nn.Sequential(nn.Linear(4, 3))
    assert load_module(model, torch.zeros(1, 4)).graph.outputs
    assert not any(tensor.is_shared() for tensor in model.parameters())

    class Local(nn.Module):
        def forward(self, x):
            return x

    assert "PyTorch cannot export module Local" in str(refusal(Local()))
