"""The networks of the field's first papers: a module in, exact C out, and every layer on bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import bnncc
from bnncc.ir.expression import Source
from bnncc.ir.ops.elementwise import Mul
from bnncc.ir.ops.kernels import Fused, Linear, Map, Pool, RealConv, SignSum, XnorConv
from bnncc.ir.ops.pool import AveragePool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shared_sums import ClassSums, SharedConv, SharedSums
from tests.e2e import seed_networks as seeds

_LETTERS = {XnorConv: "b", SharedSums: "b", SharedConv: "b", SignSum: "s", RealConv: "r"}


@dataclass(frozen=True)
class Network:
    """A network, and what is to become of it.

    Attributes:
        name: of the test.
        make: the module.
        shape: of one input.
        layers: a letter for each linear layer in the order in which they run: "b" on bits, "s" sums
            of reals with binary weights, "r" real weights. XNOR-Net's box filter is an "s".
        samples: for verify.
        maps: elementwise layers that are part of no other layer.
        shortcuts: other tensors that epilogues of linear layers read.
        arena: bytes of RAM.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: str
    samples: int
    maps: int = 0
    shortcuts: int = 0
    arena: int = 0

    def __str__(self) -> str:
        return self.name


# Where a network flattens before BatchNorm, thresholds differ from pixel to pixel: one Map.
SMALL = [
    Network("xnor_lenet", lambda: seeds.lenet_with_kappa(8), (1, 28, 28), "rbbbr", 8, maps=1),
    Network(
        "bi_real",
        lambda: seeds.bi_real_net((1, 2, 1), 16, 10),
        (3, 32, 32),
        "rbbrbbrr",
        8,
        shortcuts=4,
    ),
    Network("bnn_vgg", lambda: seeds.bnn_vgg(12, 16), (3, 16, 16), "sbbbbbbbb", 8),
    Network(
        "bwn_vgg",
        lambda: seeds.binary_connect_vgg(12, 16, scaled=True),
        (3, 16, 16),
        "sssssssss",
        8,
    ),
]

LARGE = [
    Network("xnor_alexnet", seeds.alexnet, (3, 224, 224), "rbbbbbbr", 1, maps=1),
    Network(
        "xnor_alexnet_kappa", seeds.alexnet_with_kappa, (3, 224, 224), "rsbsbsbsbbbr", 1, maps=1
    ),
    Network(
        "bi_real_18",
        seeds.bi_real_net,
        (3, 224, 224),
        "rbbbbbrbbbbrbbbbrbbbr",
        1,
        shortcuts=16,
    ),
    Network(
        "bi_real_34",
        lambda: seeds.bi_real_net((6, 8, 12, 6)),
        (3, 224, 224),
        "rbbbbbbbrbbbbbbbbrbbbbbbbbbbbbrbbbbbr",
        1,
        shortcuts=32,
    ),
    Network("bnn_vgg", seeds.bnn_vgg, (3, 32, 32), "sbbbbbbbb", 2),
    Network("binary_connect_vgg", seeds.binary_connect_vgg, (3, 32, 32), "sssssssss", 1),
    Network("bwn_vgg", lambda: seeds.binary_connect_vgg(scaled=True), (3, 32, 32), "sssssssss", 1),
]


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Let this process import what each export's child would, and do it once."""
    torch.onnx.export(nn.ReLU().eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False)


@dataclass(frozen=True)
class Compiled:
    """A small network, its module, and the artifact."""

    network: Network
    module: nn.Module
    artifact: bnncc.Artifact


@pytest.fixture(scope="module", params=SMALL, ids=str)
def small(request, tmp_path_factory) -> Compiled:
    return compiled(request.param, tmp_path_factory.mktemp(request.param.name))


def compiled(network: Network, folder) -> Compiled:
    module = seeds.trained(network.make(), network.shape, seed=7)
    example = torch.zeros(1, *network.shape)
    return Compiled(network, module, bnncc.compile(module, folder, example_inputs=example))


def fused(artifact: bnncc.Artifact) -> list[Fused | SharedSums]:
    nodes = artifact.compilation.lowered.graph.nodes
    return [node.op for node in nodes if isinstance(node.op, Fused | SharedSums)]


def check(made: Compiled) -> None:
    """Assert that everything fused as the table says, that memory is planned well, and verify."""
    network, report = made.network, made.artifact.report
    kernels = fused(made.artifact)
    linear = [op for op in kernels if isinstance(op, Linear | ClassSums)]
    assert "".join(_LETTERS[type(op)] for op in linear) == network.layers
    assert sum(isinstance(op, Map) for op in kernels) == network.maps
    if "kappa" not in network.name and "lenet" not in network.name:
        epilogues = [op.epilogue for op in linear if isinstance(op, Fused)]
        assert sum(epilogue.variables for epilogue in epilogues) == network.shortcuts
    assert report.arena_bytes <= 1.05 * report.arena_lower_bound
    result = bnncc.verify(made.artifact, samples=network.samples)
    assert result.ok
    assert result.samples == network.samples
    (scores,) = result.outputs
    assert scores.top1_agreement == 1


def test_small_networks(small):
    check(small)


@pytest.mark.parametrize("family", ["shared", pytest.param("dense", marks=pytest.mark.slow)])
def test_small_networks_in_each_kernel_family(small, family, tmp_path):
    """What `test_small_networks` checks is whatever was chosen for this machine."""
    onnx.save(small.artifact.compilation.oracle, tmp_path / "network.onnx")
    done = bnncc.verify(
        tmp_path / "network.onnx", bnncc.Options(kernels=(family,)), samples=small.network.samples
    )
    assert done.ok


def test_small_networks_give_pytorchs_numbers(small, any_cc):
    """Up to the rounding of a few float32 operations: no bit flips on these samples."""
    x = np.random.default_rng(5).standard_normal((16, *small.network.shape)).astype(np.float32)
    with torch.no_grad():
        expected = small.module(torch.from_numpy(x)).numpy()
    got = bnncc.load(small.artifact, compiler=any_cc)(x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert len(np.unique(expected.argmax(1))) > 1  # the networks tell inputs apart


def test_statistics_are_those_of_training(small):
    norms = [m for m in small.module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    gammas = torch.cat([norm.weight.detach() for norm in norms])
    assert 0.05 < (gammas < 0).float().mean() < 0.2
    assert (gammas == 0).any()
    positive: list[float] = []
    for norm in norms:
        norm.register_forward_hook(
            lambda _norm, _x, y: positive.append((y > 0).float().mean().item())
        )
    with torch.no_grad():
        small.module(torch.randn(8, *small.network.shape))
    assert 0.3 < min(positive) <= max(positive) < 0.75


@pytest.mark.parametrize("small", SMALL[:1], indirect=True, ids=str)
def test_kappa_is_one_multiplication_before_one_comparison(small):
    """Equation 11 of XNOR-Net between two binary layers: |BN(x)| and its bit in one epilogue."""
    kernels = fused(small.artifact)
    pools = [op.op for op in kernels if isinstance(op, Pool)]
    assert [op.axes for op in pools if isinstance(op, ReduceMean)] == [(1,), (1,)]
    assert sum(isinstance(op, AveragePool) for op in pools) == 2  # once a layer
    convolutions = [op for op in kernels if isinstance(op, XnorConv | SharedConv)]
    first, second = (op for op in convolutions if op.epilogue.variables)
    _, bits = first.epilogue.stores
    assert bits.thresholds
    term = first.epilogue.expression.terms[bits.source.index]
    assert isinstance(term.op, Mul)  # by kappa, which is variable 1: what is compared with tau
    assert [o.index for o in term.operands if o.source is Source.VARIABLE] == [1]
    assert [store.thresholds for store in second.epilogue.stores] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("network", LARGE, ids=str)
def test_large_networks(network, tmp_path):
    check(compiled(network, tmp_path))
