"""Every layer, estimator, scale and padding: eager PyTorch in eval mode, and the C, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

import bnncc  # noqa: E402
from bnncc.ir.ops.kernels import Map, XnorConv  # noqa: E402
from bnncc.ir.ops.shared_sums import ClassSums  # noqa: E402
from bnncc.nn import (  # noqa: E402
    AbsMean,
    Alpha,
    AlphaKappa,
    BinaryActivation,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    Factorised,
    RPReLU,
    RSign,
    approx_sign,
    bake_weights,
    magnitude_aware,
    ste,
    stochastic,
)
from tests.nn.hostile import hostile_, margins  # noqa: E402

ESTIMATORS = (ste, approx_sign, magnitude_aware, stochastic)
PADDINGS = (0, -1, 1)
CHANNELS = 11  # of a word's 32 and more: there is a tail
SIZE = 5
CLASSES = 5
SAMPLES = 24


@dataclass(frozen=True)
class Kind:
    """A layer, and how to stack it.

    Attributes:
        name: of the tests.
        shape: of one input.
        norm: the BatchNorm that suits it.
        paddings: those it has.
    """

    name: str
    shape: tuple[int, ...]
    norm: type[nn.Module]
    paddings: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    def layer(self, estimator, activation, scale, padding_value) -> nn.Module:
        options = {"estimator": estimator, "activation": activation, "scale": scale}
        if self.name == "linear":
            return BinaryLinear(CHANNELS, CHANNELS, **options)
        conv = BinaryConv1d if self.name == "conv1d" else BinaryConv2d
        return conv(CHANNELS, CHANNELS, 3, padding=1, padding_value=padding_value, **options)


KINDS = [
    Kind("linear", (CHANNELS,), nn.BatchNorm1d, (0,)),
    Kind("conv1d", (CHANNELS, SIZE), nn.BatchNorm1d, PADDINGS),
    Kind("conv2d", (CHANNELS, SIZE, SIZE), nn.BatchNorm2d, PADDINGS),
]
SCALES: dict[str, Callable[[Kind], nn.Module | None]] = {
    "none": lambda _: None,
    "alpha": lambda _: Alpha(),
    "abs_mean": lambda _: AbsMean(),
    "alpha_kappa": lambda _: AlphaKappa(),
    "channels": lambda _: Factorised(CHANNELS),
    "factorised": lambda kind: Factorised(CHANNELS, *kind.shape[1:]),
}


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Let this process import what each export's child would, and do it once."""
    torch.onnx.export(nn.ReLU().eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False)


def check(model: nn.Module, shape: tuple[int, ...], folder, *, layers: int) -> None:
    """Assert that all binary layers are on bits, that they verify, and that C gives PyTorch's."""
    x = decided_inputs(model, shape)
    artifact = bnncc.compile(model, folder, example_inputs=x[:1])

    nodes = artifact.compilation.lowered.graph.nodes
    assert sum(isinstance(node.op, XnorConv | ClassSums) for node in nodes) == layers
    # Scales, BatchNorm and activations are epilogues: apart stands what makes the input binary.
    assert sum(isinstance(node.op, Map) for node in nodes) == 1
    check_outputs(artifact, model, x)


def decided_inputs(model: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Make the model hostile, and return samples that keep each real away from its decision.

    Eager PyTorch has an order of operations of its own: a few values differ from ONNX Runtime's in
    their last bits, here below 1e-6.
    """
    x = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(1))
    decided = margins(hostile_(model, x, seed=2), x) > 1e-5
    assert decided.sum() >= SAMPLES - 4
    return x[decided]


def check_outputs(artifact: bnncc.Artifact, model: nn.Module, x: torch.Tensor) -> None:
    """Assert that an artifact verifies, and that its C gives what eager PyTorch gives."""
    result = bnncc.verify(artifact, samples=8)
    assert result.ok
    assert sum(layer.compared for layer in result.layers) > 0
    with torch.no_grad():
        expected = model(x)
    got = bnncc.load(artifact)(x.numpy())
    assert torch.equal(expected, torch.from_numpy(got))  # sums of bits: integers
    assert len(expected.unique()) > 2  # or a constant would do
    assert len(expected.unique(dim=0)) > 1  # even one with several values


COMBINATIONS = [
    pytest.param(kind, scale, id=f"{kind}-{scale}", marks=() if usual else pytest.mark.slow)
    for (i, kind), (j, scale) in product(enumerate(KINDS), enumerate(SCALES))
    for usual in [i == j % len(KINDS)]
]
"""Every scale with one kind of layer at once, with the others in the longer sweeps."""


@pytest.mark.parametrize(("kind", "scale"), COMBINATIONS)
def test_every_combination_compiles_to_what_eager_computes(kind, scale, tmp_path):
    """One network holds all estimators and paddings of a layer and a scale, one after the other."""
    parts: list[nn.Module] = []
    for estimator, padding_value in product(ESTIMATORS, kind.paddings):
        made = SCALES[scale](kind)
        sign = ste if estimator is magnitude_aware else estimator
        inside = sign if isinstance(made, AlphaKappa) else None
        parts.append(kind.norm(CHANNELS))
        parts += [] if inside else [BinaryActivation(sign)]
        parts.append(kind.layer(estimator, inside, made, padding_value))
    features = CHANNELS * SIZE ** (len(kind.shape) - 1)
    end = [kind.norm(CHANNELS), BinaryActivation(), nn.Flatten(), BinaryLinear(features, CLASSES)]

    layers = len(ESTIMATORS) * len(kind.paddings) + 1
    check(nn.Sequential(*parts, *end), kind.shape, tmp_path, layers=layers)


@dataclass(frozen=True)
class Extent:
    """How a convolution's window lies, and how many pixels a side of 7 become."""

    options: dict[str, object]
    pixels: tuple[int, int]


EXTENTS = {
    "stride": Extent({"kernel_size": 3, "stride": 2, "padding": 1}, (4, 4)),
    "dilation": Extent({"kernel_size": 3, "padding": 2, "dilation": 2}, (7, 7)),
    "wide": Extent({"kernel_size": (1, 5), "padding": (0, 2), "stride": (2, 1)}, (4, 7)),
    "even": Extent({"kernel_size": 2, "padding": 1}, (8, 8)),
    "unpadded": Extent({"kernel_size": 3}, (5, 5)),
}


@pytest.mark.parametrize("padding_value", PADDINGS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("extent", EXTENTS)
def test_windows_of_any_extent_pad_with_their_value(extent, groups, padding_value):
    """Against a loop over pixels: what padding_value means, whatever the window."""
    options = EXTENTS[extent].options
    layer = BinaryConv2d(6, 9, **options, groups=groups, padding_value=padding_value).eval()
    x = torch.randn(2, 6, 7, 7, generator=torch.Generator().manual_seed(1)).sign()

    outputs = layer(x)

    assert outputs.shape[2:] == EXTENTS[extent].pixels
    (rows, columns), signs = layer.padding, torch.where(layer.weight >= 0, 1.0, -1.0)
    padded = torch.full((2, 6, 7 + 2 * rows, 7 + 2 * columns), float(padding_value))
    padded[:, :, rows : rows + 7, columns : columns + 7] = x
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    for c, i, j in product(range(9), range(outputs.shape[2]), range(outputs.shape[3])):
        first = c // (9 // groups) * (6 // groups)
        seen = padded[:, first : first + 6 // groups]
        window = seen[:, :, i * sh : i * sh + kh * dh : dh, j * sw : j * sw + kw * dw : dw]
        assert torch.equal((window * signs[c]).sum((1, 2, 3)), outputs[:, c, i, j])


@pytest.mark.parametrize("scale", ["none", "alpha", "alpha_kappa"])
def test_windows_of_any_extent_compile(scale, tmp_path):
    parts: list[nn.Module] = []
    groups = 1 if scale == "alpha_kappa" else 3
    for padding_value, extent in zip((0, -1, 1, 0, 1), EXTENTS.values(), strict=True):
        if scale == "alpha_kappa" and "dilation" in extent.options:
            continue
        made = SCALES[scale](KINDS[2])
        inside = ste if isinstance(made, AlphaKappa) else None
        options = {"padding_value": padding_value, "activation": inside, "scale": made}
        conv = BinaryConv2d(12, 12, **extent.options, groups=groups, **options)
        parts += [nn.BatchNorm2d(12)] + ([] if inside else [BinaryActivation()]) + [conv]
    end = [nn.BatchNorm2d(12), BinaryActivation(), nn.Flatten()]
    model = nn.Sequential(*parts, *end, BinaryLinear(12 * 2 * 5, CLASSES))  # 12 pixels end as 2 x 5
    convs = sum(isinstance(part, BinaryConv2d) for part in parts)

    check(model, (12, 12, 12), tmp_path, layers=convs + 1)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_learned_thresholds_and_moved_corners_compile(kind, tmp_path):
    parts: list[nn.Module] = []
    for padding_value in kind.paddings:
        sign = RSign(CHANNELS, approx_sign)
        layer = kind.layer(magnitude_aware, None, None, padding_value)
        parts += [sign, layer, kind.norm(CHANNELS), RPReLU(CHANNELS)]
    features = CHANNELS * SIZE ** (len(kind.shape) - 1)
    end = [RSign(CHANNELS), nn.Flatten(), BinaryLinear(features, CLASSES)]

    check(nn.Sequential(*parts, *end), kind.shape, tmp_path, layers=len(kind.paddings) + 1)


# --- Every way into the compiler ------------------------------------------------------------------


def every_feature() -> nn.Module:
    """Return a network with every scale, three paddings, learned thresholds and moved corners."""
    parts: list[nn.Module] = []
    for (name, make), padding_value in zip(SCALES.items(), (0, -1, 1) * 2, strict=True):
        made = make(KINDS[2])
        inside = approx_sign if name == "alpha_kappa" else None
        parts += [nn.BatchNorm2d(CHANNELS)] + ([] if inside else [RSign(CHANNELS)])
        estimator = magnitude_aware if name == "none" else ste
        parts += [KINDS[2].layer(estimator, inside, made, padding_value), RPReLU(CHANNELS)]
    end = [nn.BatchNorm2d(CHANNELS), BinaryActivation(), nn.Flatten()]
    return nn.Sequential(*parts, *end, BinaryLinear(CHANNELS * SIZE**2, CLASSES))


def to_onnx(model: nn.Module, x: torch.Tensor, path, **options) -> object:
    torch.onnx.export(
        model, (x[:1],), path, input_names=["x"], external_data=False, verbose=False, **options
    )
    return path


def to_pt2(model: nn.Module, x: torch.Tensor, path) -> object:
    torch.export.save(torch.export.export(model, (x[:1],)), path)
    return path


ROUTES = {
    "module": lambda model, x, folder: model,
    "pt2": lambda model, x, folder: to_pt2(model, x, folder / "m.pt2"),
    "dynamo": lambda model, x, folder: to_onnx(model, x, folder / "m.onnx", dynamo=True),
    "dynamo-unoptimised": lambda model, x, folder: to_onnx(
        model, x, folder / "m.onnx", dynamo=True, optimize=False
    ),
    "torchscript": lambda model, x, folder: to_onnx(model, x, folder / "m.onnx", dynamo=False),
}


@pytest.mark.parametrize("baked", [False, True], ids=["latent", "baked"])
@pytest.mark.filterwarnings("ignore:Constant folding - Only steps=1")  # torch's Pad, by TorchScript
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_the_same_c(route, baked, tmp_path):
    model = every_feature()
    x = decided_inputs(model, KINDS[2].shape)
    source = ROUTES[route](bake_weights(model) if baked else model, x, tmp_path)

    example = {"example_inputs": x[:1]} if route == "module" else {}
    artifact = bnncc.compile(source, tmp_path, bnncc.Options(name="m"), **example)

    nodes = artifact.compilation.lowered.graph.nodes
    assert sum(isinstance(node.op, XnorConv | ClassSums) for node in nodes) == len(SCALES) + 1
    check_outputs(artifact, model, x)
