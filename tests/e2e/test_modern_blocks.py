"""The blocks of newer networks: as exporters write them, they compile, verify, and run on bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bnncc
from bnncc.report import Arithmetic
from tests.e2e import modern_blocks as blocks

IMAGE = (3, 12, 12)
_LETTERS = {Arithmetic.BITS: "b", Arithmetic.SIGNS: "s", Arithmetic.REALS: "r"}


@dataclass(frozen=True)
class Block:
    """A network, and what is to become of it.

    Attributes:
        name: of the test.
        make: the module.
        layers: a letter for each linear layer in the model's order: "b" on bits, "s" sums of reals
            with binary weights, "r" real weights.
        reads: what the layers on bits read, if not all of them read one plane of bits.
        shapes: of one sample of each input.
        warns: whether it is warned of a sign that may be lost: reals that are clipped are what
            BinaryConnect means, and what a lost sign leaves.
    """

    name: str
    make: Callable[[], nn.Module]
    layers: str
    reads: tuple[str, ...] = ()
    shapes: Sequence[tuple[int, ...]] = (IMAGE,)
    warns: bool = False

    def __str__(self) -> str:
        return self.name


BLOCKS = [
    Block("react_net", blocks.ReActNet, "rbbbbbbbr"),
    Block("react_net_expanded", lambda: blocks.ReActNet(expanded=True), "rbbbbbbbr"),
    Block("binary_dense_net", blocks.binary_dense_net, "rbbrbr"),
    Block("melius_net", blocks.melius_net, "rbbrbbr"),
    Block("real_to_binary", blocks.real_to_binary, "rrrbrrbbrrr"),
    Block("shuffle_net", blocks.shuffle_net, "rbbbbr"),
    Block("split_bits", lambda: blocks.SplitBits(12), "rbbb"),
    Block("ir_net", blocks.ir_net, "rbbbbr"),
    Block("rbnn", blocks.rbnn, "rbbr"),
    Block("xnor_net_plus_plus", lambda: blocks.xnor_net_plus_plus(product=False), "rbbbr"),
    Block("xnor_net_plus_plus_product", lambda: blocks.xnor_net_plus_plus(product=True), "rbbbr"),
    # Each transposed layer of stride 2 is four layers, one for each parity of the pixels.
    Block("transposed", blocks.TransposedDecoder, "r" + "b" * 9 + "r"),
    Block("residues", blocks.residues, "rbbbr"),
    Block("ada_bin", blocks.ada_bin, "rbbr", ("u1", "u1")),
    Block("dorefa", blocks.dorefa, "rbbbr", ("u2", "u3", "u4")),
    Block("pact", blocks.pact, "rbbr", ("u2", "u2")),
    # Levels that a basis of two numbers spans are two planes of bits, each with its own scale.
    Block("lq_net", blocks.lq_net, "rbbbr", ("u2", "bipolar", "bipolar")),
    Block("binary_connect", blocks.binary_connect, "sss", warns=True),
    Block("elastic_link", blocks.elastic_link, "rbbrrbr"),
    Block("quick_net", blocks.quick_net, "rrrbbrrbr", shapes=[(3, 24, 24)]),
    Block("tokens", blocks.Tokens, "rbbbbbr"),
    Block("generator", blocks.Generator, "rbbr", shapes=[(16,)]),
    Block("u_net", blocks.UNet, "rbbbbbbr"),
    Block("keyword_net", blocks.KeywordNet, "rbbbr", shapes=[(10, 41)]),
    Block("two_of_each", blocks.TwoOfEach, "rrbbb", shapes=[IMAGE, (5,)]),
    Block("verdict", blocks.Verdict, "rb", shapes=[(16,)]),
]


@pytest.fixture(scope="module", params=BLOCKS, ids=str)
def block(request) -> Block:
    return request.param


@pytest.fixture(scope="module")
def module(block: Block) -> nn.Module:
    return blocks.trained(block.make(), block.shapes, seed=7)


def examples(block: Block) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(1, *shape) for shape in block.shapes)


def compiled(
    block: Block, model: Path | nn.Module, folder: Path, kernels: tuple[str, ...] = ()
) -> bnncc.Artifact:
    expected = pytest.warns(bnncc.LostSignWarning) if block.warns else contextlib.nullcontext()
    with expected:
        given = examples(block) if isinstance(model, nn.Module) else None
        return bnncc.compile(model, folder, bnncc.Options(kernels=kernels), example_inputs=given)


def check(block: Block, artifact: bnncc.Artifact) -> None:
    """Assert that every layer is what the table says, and verify."""
    layers = artifact.report.layers
    assert "".join(_LETTERS[layer.arithmetic] for layer in layers) == block.layers
    on_bits = [layer for layer in layers if layer.arithmetic is Arithmetic.BITS]
    expected = block.reads or ("bipolar",) * len(on_bits)
    assert tuple(layer.activations for layer in on_bits) == expected
    result = bnncc.verify(artifact, samples=4)
    assert result.ok, [
        c for c in (*result.layers, *result.outputs) if c.mismatches + c.c_mismatches
    ]
    # Bits are compared with the model's own, wherever it has them under some name.
    assert sum(check.compared > 0 for check in result.layers) >= min(1, len(on_bits))


# What the old exporter has to say of models that trace well all the same.
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:Constant folding:UserWarning"
)
def test_by_way_of_torchscript(block: Block, module: nn.Module, tmp_path: Path, any_cc) -> None:
    path = tmp_path / f"{block.name}.onnx"
    torch.onnx.export(module, examples(block), path, dynamo=False)
    artifact = compiled(block, path, tmp_path)
    check(block, artifact)
    gives_pytorchs_numbers(block, module, artifact, any_cc)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:Constant folding:UserWarning"
)
def test_with_shared_sums(block: Block, module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"{block.name}.onnx"
    torch.onnx.export(module, examples(block), path, dynamo=False)
    artifact = compiled(block, path, tmp_path, kernels=("shared",))
    check(block, artifact)
    for layer in artifact.report.layers:
        image = layer.arithmetic is Arithmetic.BITS and layer.pixels > 1
        assert layer.kernel.startswith("shared sums") or not image


def gives_pytorchs_numbers(
    block: Block, module: nn.Module, artifact: bnncc.Artifact, compiler: str
) -> None:
    """Assert so up to the rounding of a few float32 operations, where no bit flipped."""
    random = np.random.default_rng(5)
    inputs = [random.standard_normal((8, *shape)).astype(np.float32) for shape in block.shapes]
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, inputs))
    got = bnncc.load(artifact, compiler=compiler)(*inputs)
    several = isinstance(expected, tuple)
    for mine, theirs in zip(got, expected, strict=True) if several else [(got, expected)]:
        reals = theirs.numpy()
        assert np.ptp(reals) > 0
        np.testing.assert_allclose(mine, reals, rtol=0, atol=2e-5 * np.abs(reals).max())


@pytest.mark.slow
def test_by_way_of_dynamo(block: Block, module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"{block.name}.onnx"
    torch.onnx.export(module, examples(block), path, dynamo=True, verbose=False)
    check(block, compiled(block, path, tmp_path))


@pytest.mark.slow
def test_from_pytorch_itself(block: Block, module: nn.Module, tmp_path: Path) -> None:
    """Every other one as an archive, the rest as the module: what follows is the same."""
    if BLOCKS.index(block) % 2:
        check(block, compiled(block, module, tmp_path))
        return
    path = tmp_path / f"{block.name}.pt2"
    torch.export.save(torch.export.export(module, examples(block)), path)
    check(block, compiled(block, path, tmp_path))


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_attention_is_refused_by_name(dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    options = {"verbose": False} if dynamo else {}
    example = torch.zeros(1, 5, 8)
    torch.onnx.export(blocks.Attention().eval(), (example,), path, dynamo=dynamo, **options)
    with pytest.raises(bnncc.UnsupportedModelError) as caught:
        bnncc.compile(path, tmp_path)
    products = [d for d in caught.value.diagnostics if d.what.startswith("MatMul")]
    assert len(products) == 2  # but none of the dense layers before
    for product in products:
        assert product.what.startswith("MatMul of two activations, ")
        assert "as in attention" in product.why
