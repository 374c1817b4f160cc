"""The model definitions: layers, sizes, that they learn, and that they compile."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

import bnncc  # noqa: E402
from bnncc.ir.ops.kernels import Fused, Linear, RealConv, SignSum, XnorConv  # noqa: E402
from bnncc.ir.ops.shared_sums import ClassSums  # noqa: E402
from bnncc.nn import (  # noqa: E402
    Alpha,
    AlphaKappa,
    BinaryActivation,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    approx_sign,
    bake_weights,
    bipolar_sign,
    clip_weights_,
    float_twin,
    magnitude_aware,
    parameter_groups,
    ste,
    stochastic,
)
from bnncc.nn.models import (  # noqa: E402
    binary_connect_mlp,
    binary_connect_vgg,
    bireal18,
    bireal34,
    bireal_cifar,
    bnn_mlp,
    bnn_vgg,
    xnor_alexnet,
    xnor_lenet5,
    xnor_resnet18,
)
from tests.nn.hostile import hostile_  # noqa: E402

IMAGE = (3, 224, 224)


@dataclass(frozen=True)
class Network:
    """A network, and what is known of it.

    Attributes:
        name: of the tests.
        make: the module.
        shape: of one input.
        layers: a letter for each linear layer of the C, in the order in which they run: "b" on
            bits, "s" sums of reals with binary weights, "r" real weights.
        binary, real: how many weights are binary, and how many are real, in layers alone, without
            biases and BatchNorm.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: str
    binary: int = 0
    real: int = 0

    def __str__(self) -> str:
        return self.name


DIGIT, CIFAR = (1, 28, 28), (3, 32, 32)
_VGG_WEIGHTS = (
    9 * (3 * 128 + 128**2 + 128 * 256 + 256**2 + 256 * 512 + 512**2)
    + 512 * 16 * 1024
    + 1024**2
    + 1024 * 10
)
_ALEXNET_WEIGHTS = 25 * 96 * 256 + 9 * (256 * 384 + 384**2 + 384 * 256) + 36 * 256 * 4096 + 4096**2
_ALEXNET_REAL = 121 * 3 * 96 + 4096 * 1000
_RESNET18_WEIGHTS = 9 * (4 * 64**2 + sum(w * w // 2 + 3 * w * w for w in (128, 256, 512)))
_RESNET_SHORTCUTS = 64 * 128 + 128 * 256 + 256 * 512
_RESNET_REAL = 49 * 3 * 64 + _RESNET_SHORTCUTS + 512 * 1000
_RESNET34_WEIGHTS = 9 * (
    6 * 64**2 + sum(w * w // 2 + more * w * w for w, more in ((128, 7), (256, 11), (512, 5)))
)
_CIFAR_WEIGHTS = 9 * (6 * 16**2 + sum(w * w // 2 + 5 * w * w for w in (32, 64)))
_CIFAR_REAL = 9 * 3 * 16 + 16 * 32 + 32 * 64 + 64 * 10
FULL = [
    Network("bnn_mlp", bnn_mlp, (784,), "sbbb", 784 * 4096 + 2 * 4096**2 + 4096 * 10),
    Network("bnn_vgg", bnn_vgg, CIFAR, "sbbbbbbbb", _VGG_WEIGHTS),
    Network(
        "binary_connect_mlp",
        binary_connect_mlp,
        (784,),
        "ssss",
        784 * 1024 + 2 * 1024**2 + 1024 * 10,
    ),
    Network("binary_connect_vgg", binary_connect_vgg, CIFAR, "sssssssss", _VGG_WEIGHTS),
    Network("xnor_lenet5", xnor_lenet5, DIGIT, "rbbr", 25 * 20 * 50 + 800 * 500, 25 * 20 + 5000),
    Network("xnor_alexnet", xnor_alexnet, IMAGE, "rbbbbbbr", _ALEXNET_WEIGHTS, _ALEXNET_REAL),
    Network(
        "xnor_alexnet_kappa",
        lambda: xnor_alexnet(kappa=True),
        IMAGE,
        "rbbbbbbr",
        _ALEXNET_WEIGHTS,
        _ALEXNET_REAL,
    ),
    Network(
        "xnor_resnet18",
        xnor_resnet18,
        IMAGE,
        "rbbbb" + 3 * "bbrbb" + "r",
        _RESNET18_WEIGHTS,
        _RESNET_REAL,
    ),
    Network(
        "bireal18", bireal18, IMAGE, "rbbbb" + 3 * "brbbb" + "r", _RESNET18_WEIGHTS, _RESNET_REAL
    ),
    Network(
        "bireal34",
        bireal34,
        IMAGE,
        "rbbbbbb" + "brbbbbbbb" + "brbbbbbbbbbbb" + "brbbbbb" + "r",
        _RESNET34_WEIGHTS,
        _RESNET_REAL,
    ),
    Network(
        "bireal_cifar",
        bireal_cifar,
        CIFAR,
        "rbbbbbb" + 2 * "brbbbbb" + "r",
        _CIFAR_WEIGHTS,
        _CIFAR_REAL,
    ),
]
SMALL = [
    Network("bnn_mlp", lambda: bnn_mlp(40, in_features=50), (50,), "sbbb"),
    Network("bnn_vgg", lambda: bnn_vgg(12, size=16), (3, 16, 16), "sbbbbbbbb"),
    Network("binary_connect_mlp", lambda: binary_connect_mlp(40, in_features=50), (50,), "ssss"),
    Network("binary_connect_vgg", lambda: binary_connect_vgg(6, size=8), (3, 8, 8), "sssssssss"),
    Network("xnor_lenet5", xnor_lenet5, DIGIT, "rbbr"),
    Network("xnor_lenet5_kappa", lambda: xnor_lenet5(kappa=True), DIGIT, "rbbr"),
    Network(
        "xnor_resnet18",
        lambda: xnor_resnet18(width=8, classes=10, kappa=True),
        (3, 32, 32),
        "rbbbb" + 3 * "bbrbb" + "r",
    ),
    Network(
        "bireal18", lambda: bireal18(width=8, classes=10), (3, 32, 32), "rbbbb" + 3 * "brbbb" + "r"
    ),
    Network("bireal_cifar", lambda: bireal_cifar(8, width=8), (3, 16, 16), "rbbbrbbrbr"),
    Network(
        "plain_cifar",
        lambda: bireal_cifar(8, width=8, shortcut=False, estimator=ste, weight_estimator=ste),
        (3, 16, 16),
        "rbbbbbbr",
    ),
]
_LETTERS = {XnorConv: "b", SignSum: "s", RealConv: "r"}


# --- Layers and sizes -----------------------------------------------------------------------------


def test_mlp_is_the_network_of_the_paper():
    with torch.device("meta"):
        model = bnn_mlp()

    assert [(name, type(layer)) for name, layer in model.named_children()] == [
        ("fc1", BinaryLinear),
        ("bn1", nn.BatchNorm1d),
        ("sign1", BinaryActivation),
        ("fc2", BinaryLinear),
        ("bn2", nn.BatchNorm1d),
        ("sign2", BinaryActivation),
        ("fc3", BinaryLinear),
        ("bn3", nn.BatchNorm1d),
        ("sign3", BinaryActivation),
        ("fc4", BinaryLinear),
        ("bn4", nn.BatchNorm1d),
    ]
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, BinaryLinear)]
    assert shapes == [(4096, 784), (4096, 4096), (4096, 4096), (10, 4096)]


def test_mlp_takes_its_sizes_from_the_caller():
    model = bnn_mlp(7, 1, in_features=5, classes=3, dropout=0.25, input_dropout=0.125)

    names = [name for name, _ in model.named_children()]
    assert names == ["drop0", "fc1", "bn1", "sign1", "drop1", "fc2", "bn2"]
    assert (model.drop0.p, model.drop1.p) == (0.125, 0.25)
    assert model(torch.zeros(4, 5)).shape == (4, 3)


@pytest.mark.parametrize("make", [bnn_vgg, binary_connect_vgg])
def test_vgg_pools_sums_before_batch_norm(make):
    with torch.device("meta"):
        names = [name for name, _ in make().named_children()]

    act = "sign" if make is bnn_vgg else "relu"
    blocks = [
        [f"conv{i}", *([f"pool{i}"] if i % 2 == 0 else []), f"bn{i}", f"{act}{i}"]
        for i in range(1, 7)
    ]
    dense = [["fc7", "bn7", f"{act}7"], ["fc8", "bn8", f"{act}8"], ["fc9", "bn9"]]
    assert names == list(itertools.chain(*blocks, ["flatten"], *dense))


@pytest.mark.parametrize("network", FULL, ids=str)
def test_networks_have_the_papers_sizes(network):
    with torch.device("meta"):
        model = network.make().eval()
        outputs = model(torch.empty(2, *network.shape))

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    binary = sum(m.weight.numel() for m in layers if isinstance(m, BinaryLayer))
    real = sum(m.weight.numel() for m in layers if not isinstance(m, BinaryLayer))
    assert (binary, real) == (network.binary, network.real)
    assert outputs.shape == (2, 1000 if network.shape == IMAGE else 10)


def test_options_reach_the_layers():
    def scales(model: nn.Module) -> set[type]:
        return {type(m.scale) for m in model.modules() if isinstance(m, BinaryLayer)}

    def estimators(model: nn.Module, kind: type) -> set[object]:
        return {m.estimator for m in model.modules() if isinstance(m, kind)}

    with torch.device("meta"):
        for make in (xnor_lenet5, xnor_alexnet, xnor_resnet18):
            assert scales(make()) == {Alpha}
            assert scales(make(kappa=True)) == {AlphaKappa}
        for make in (bireal18, bireal34, bireal_cifar):
            assert estimators(make(), BinaryActivation) == {approx_sign}
            assert estimators(make(), BinaryConv2d) == {magnitude_aware}
            plain = make(shortcut=False, estimator=ste, weight_estimator=stochastic)
            assert estimators(plain, BinaryActivation) == {ste}
            assert estimators(plain, BinaryConv2d) == {stochastic}
            assert not [name for name, _ in plain.named_modules() if "shortcut" in name]
        for make in (binary_connect_mlp, binary_connect_vgg):
            assert estimators(make(estimator=stochastic), BinaryLayer) == {stochastic}


def test_bi_real_blocks_each_have_their_own_shortcut():
    model = bireal_cifar(8, width=4).eval()
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    same, halving = model.layer1[0], model.layer2[0]

    def inner(block: nn.Module) -> torch.Tensor:
        return block.bn(block.conv(torch.where(x >= 0, 1.0, -1.0)))

    assert torch.equal(inner(same) + x, same(x))
    pooled = nn.functional.avg_pool2d(x, 2)
    conv, norm = halving.shortcut[1:]
    assert torch.equal(inner(halving) + norm(conv(pooled)), halving(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bnn_mlp(layers=0), "an MLP needs at least 1 hidden layer, not 0"),
        (lambda: binary_connect_mlp(layers=0), "an MLP needs at least 1 hidden layer, not 0"),
        (
            lambda: bnn_vgg(size=28),
            "three pools halve the image: its size is a multiple of 8, not 28",
        ),
        (lambda: bireal_cifar(18), "depth is 5, 8, 11 and so on, not 18"),
        (lambda: bireal_cifar(2), "depth is 5, 8, 11 and so on, not 2"),
    ],
)
def test_sizes_that_make_no_network_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


# --- Learning -------------------------------------------------------------------------------------


def test_mlp_learns_the_parity_of_two_bits_in_all_its_layers():
    """No linear model can, and hidden signs that never flip would not have been trained."""
    x = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
    labels = (x[:, 0] * x[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = bnn_mlp(64, 2, in_features=8, classes=2)
    hidden = (model.fc1, model.fc2)
    before = [bipolar_sign(layer.weight) for layer in hidden]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clip_weights_(model)

    accuracy = (model.eval()(x).argmax(1) == labels).float().mean().item()
    flips = [
        (bipolar_sign(layer.weight) != signs).sum().item()
        for layer, signs in zip(hidden, before, strict=True)
    ]
    assert accuracy > 0.9
    assert min(flips) > 50
    assert max(layer.weight.abs().max().item() for layer in hidden) <= 1.0


@pytest.mark.parametrize("network", SMALL, ids=str)
def test_gradients_reach_every_parameter(network):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network.make()
        x = torch.randn(8, *network.shape)

    model(x).square().mean().backward()

    # A bias before BatchNorm moves nothing; gradients there are what rounding leaves.
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("network", SMALL, ids=str)
def test_twin_has_the_same_weights_and_shapes(network):
    model = network.make().eval()
    x = torch.randn(2, *network.shape, generator=torch.Generator().manual_seed(0))

    twin = float_twin(model)

    assert not any(isinstance(m, BinaryLayer | BinaryActivation) for m in twin.modules())
    sizes = [sum(p.numel() for p in one.parameters()) for one in (model, twin)]
    assert sizes[0] == sizes[1]
    assert twin(x).shape == model(x).shape
    assert len(parameter_groups(model, 1e-3)) > len(parameter_groups(twin, 1e-3)) == 1


def test_bi_real_starts_from_its_twin_that_clips():
    model = bireal_cifar(8, width=4)
    twin = float_twin(bireal_cifar(8, width=4), nn.Hardtanh)

    model.load_state_dict(twin.state_dict())

    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert sum(isinstance(m, nn.Hardtanh) for m in twin.modules()) == 6


# --- Compiling ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Let this process import what each export's child would, and do it once."""
    torch.onnx.export(nn.ReLU().eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False)


def letter(op: object) -> str:
    """Return the letter of a linear layer in the table; none of what else there is."""
    if isinstance(op, ClassSums):
        return "b"
    return _LETTERS[type(op)] if isinstance(op, Fused) and isinstance(op, Linear) else ""


def check(network: Network, folder, *, batch: int, samples: int) -> None:
    """Assert that a hostile network compiles to the layers of the table, and verifies."""
    x = torch.randn(batch, *network.shape, generator=torch.Generator().manual_seed(1))
    model = hostile_(network.make(), x, seed=2)
    with torch.no_grad():
        assert torch.equal(model(x[:1]), bake_weights(model)(x[:1]))

    artifact = bnncc.compile(model, folder, example_inputs=x[:1])

    kernels = [node.op for node in artifact.compilation.lowered.graph.nodes]
    assert "".join(map(letter, kernels)) == network.layers
    result = bnncc.verify(artifact, samples=samples)
    # Layer by layer, on ONNX Runtime's own inputs: over a million signs behind real shortcuts, two
    # float32 evaluations of a whole network may part at one of them, and then for good.
    assert result.ok
    assert (sum(layer.compared for layer in result.layers) > 0) is ("b" in network.layers)


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALL, ids=str)
def test_small_networks_compile(network, tmp_path):
    check(network, tmp_path, batch=16, samples=8)


@pytest.mark.slow
@pytest.mark.parametrize("network", FULL, ids=str)
def test_networks_of_true_size_compile(network, tmp_path):
    check(network, tmp_path, batch=4, samples=1)
