"""Signs that are joined, split, shuffled and repeated are bits up to the layers behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bnncc
from bnncc.ir.graph import Graph
from bnncc.ir.ops.kernels import GatherBits, Linear, Move, XnorConv
from bnncc.ir.types import Array, Element
from bnncc.passes.transplant import source_name
from tests.frontends.builders import NODE, make, saved

F = np.float32
IMAGE = ("n", 3, 7, 7)


class Blocks:
    """A network under construction: every layer's result is normalised by hostile statistics."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def constant(self, value: Array) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(NODE(op, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def layer(self, x: str, weights: Array, groups: int = 1) -> str:
        """Append a convolution that keeps the image's size, and BatchNorm."""
        pads = [size // 2 for size in weights.shape[2:]] * 2
        y = self.node("Conv", x, self.constant(weights), pads=pads, group=groups)
        count = len(weights)
        rows = self.random.standard_normal((3, count)).astype(F)
        rows[0, count // 2] = 0  # a gamma of 0
        rows[1, :: max(1, count // 4)] = 0  # ties
        rows[2, :: max(1, count // 4)] = 0
        variance = np.abs(self.random.standard_normal(count).astype(F)) + F(0.1)
        return self.node("BatchNormalization", y, *map(self.constant, (*rows, variance)))

    def binary(self, x: str, channels: int, depth: int, size: int = 3, groups: int = 1) -> str:
        shape = (channels, depth // groups, size, size)
        return self.layer(x, self.random.choice(F([-1, 1]), shape), groups)

    def real(self, channels: int) -> str:
        return self.layer("x", self.random.standard_normal((channels, 3, 3, 3)).astype(F))

    def sign(self, x: str) -> str:
        above = self.node("GreaterOrEqual", x, self.constant(F(0)))
        return self.node("Where", above, self.constant(F(1)), self.constant(F(-1)))

    def codes(self, x: str, levels: int) -> str:
        """DoReFa's quantiser of values from 0 to 1."""
        most = self.constant(F(levels - 1))
        clipped = self.node("Clip", x, self.constant(F(0)), self.constant(F(1)))
        return self.node("Div", self.node("Round", self.node("Mul", clipped, most)), most)

    def shuffled(self, x: str, channels: int, groups: int) -> str:
        wide = self.constant(np.int64([1, groups, channels // groups, 7, 7]))
        turned = self.node("Transpose", self.node("Reshape", x, wide), perm=[0, 2, 1, 3, 4])
        return self.node("Reshape", turned, self.constant(np.int64([1, channels, 7, 7])))

    def split(self, x: str, *sizes: int) -> list[str]:
        names = [f"part{len(self.nodes)}_{i}" for i in range(len(sizes))]
        parts = self.constant(np.int64(sizes))
        self.nodes.append(NODE("Split", [x, parts], names, axis=1, name=f"n_{names[0]}"))
        return names

    def model(self, y: str, *outputs: str) -> onnx.ModelProto:
        done = self.node("Identity", y)
        return make(
            *self.nodes,
            inputs={"x": IMAGE},
            outputs=(done, *outputs),
            constants=self.constants,
        )


def fire() -> onnx.ModelProto:
    """SqueezeNet: what a layer of 1 x 1 gives is expanded by two, whose signs are joined."""
    b = Blocks(1)
    x = b.sign(b.real(40))
    for depth in (40, 75):
        squeezed = b.sign(b.binary(x, 20, depth, 1))
        wide = [b.sign(b.binary(squeezed, count, 20, size)) for count, size in ((35, 1), (40, 3))]
        x = b.node("Concat", *wide, axis=1)
    return b.model(b.binary(x, 6, 75))


def shuffle() -> onnx.ModelProto:
    """ShuffleNet v1: layers of groups with the signs shuffled between them."""
    b = Blocks(2)
    x = b.sign(b.real(72))
    y = b.sign(b.binary(x, 36, 72, 1, groups=3))
    y = b.sign(b.binary(b.shuffled(y, 36, 3), 36, 36, 3, groups=3))
    y = b.binary(b.shuffled(y, 36, 2), 72, 36, 1, groups=2)
    return b.model(y)


def split() -> onnx.ModelProto:
    """ShuffleNet v2: one half of the signs goes by, is joined with the other, and all shuffled."""
    b = Blocks(3)
    x = b.sign(b.real(58))
    for _ in range(2):
        left, right = b.split(x, 29, 29)
        right = b.sign(b.binary(right, 29, 29))
        x = b.shuffled(b.node("Concat", left, right, axis=1), 58, 2)
    return b.model(b.binary(x, 5, 58, 1))


def dense() -> onnx.ModelProto:
    """Signs joined with all signs before; one of them is added to a real besides."""
    b = Blocks(4)
    x = b.sign(b.real(33))
    parts = [x]
    for i in range(3):
        joined = b.node("Concat", *parts, axis=1) if i else x
        parts.append(b.sign(b.binary(joined, 7, 33 + 7 * i)))
    y = b.binary(b.node("Concat", *parts, axis=1), 33, 54)
    return b.model(b.node("Add", y, x))


def codes() -> onnx.ModelProto:
    """Codes of two bits and of one, on the grid of the wider one."""
    b = Blocks(5)
    x = b.codes(b.real(12), 4)
    y = b.codes(b.binary(x, 9, 12), 2)
    both = b.shuffled(b.node("Concat", x, y, axis=1), 21, 3)
    return b.model(b.binary(both, 5, 21))


def zeros() -> onnx.ModelProto:
    """Signs of which some are 0, beside signs that never are, and a constant."""
    b = Blocks(6)
    x = b.sign(b.real(10))
    sums = b.node("Conv", x, b.constant(b.random.choice(F([-1, 1]), (5, 10, 1, 1))))
    constant = b.constant(b.random.choice(F([-1, 1]), (1, 2, 7, 7)))
    both = b.node("Concat", b.node("Sign", sums), x, constant, axis=1)
    return b.model(b.binary(both, 5, 17))


def repeated() -> onnx.ModelProto:
    """Every channel twice in an image of twice the size, of which every second pixel is taken."""
    b = Blocks(7)
    x = b.sign(b.real(20))
    twice = b.node("Gather", x, b.constant(np.arange(40) // 2), axis=1)
    up = b.node("Resize", twice, "", b.constant(F([1, 1, 2, 2])), mode="nearest")
    ends = (b.constant(np.int64(v)) for v in ([1, 0], [14, 14], [2, 3], [2, 2]))
    return b.model(b.binary(b.node("Slice", up, *ends), 4, 40))


# The models, and how many movements of bits are left of all their nodes.
MODELS = {fire: 2, shuffle: 3, split: 3, dense: 3, codes: 1, zeros: 1, repeated: 1}


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("target", ["x86-64", "cortex-m4"])
def test_signs_stay_bits(tmp_path: Path, build, target: str) -> None:
    path = saved(build(), tmp_path)
    artifact = bnncc.compile(path, tmp_path, bnncc.Options(target=target, kernels=("dense",)))
    graph: Graph = artifact.compilation.lowered.graph
    first, *layers = [node for node in graph.nodes if isinstance(node.op, Linear)]
    assert not isinstance(first.op, XnorConv)
    assert layers
    assert all(isinstance(node.op, XnorConv) for node in layers)
    assert sum(isinstance(node.op, GatherBits) for node in graph.nodes) == MODELS[build]
    moves = [node for node in graph.nodes if isinstance(node.op, Move)]
    interface = {*graph.inputs, *graph.outputs}
    assert all(interface.intersection((*node.inputs, *node.outputs)) for node in moves)
    verified = bnncc.verify(artifact)
    assert verified.ok
    compared = {source_name(layer.name) for layer in verified.layers if layer.compared}
    types = artifact.compilation.lowered.folded.types
    certified = [proof.layer for proof in artifact.certificate.layers if proof.layer in types]
    assert [name for name in certified if source_name(name) not in compared] == []


def test_ternary_joins_are_ternary(tmp_path: Path) -> None:
    artifact = bnncc.compile(saved(zeros(), tmp_path), tmp_path)
    (gather,) = [
        node for node in artifact.compilation.lowered.graph.nodes if isinstance(node.op, GatherBits)
    ]
    assert Element.TERNARY in {kind.element for kind in gather.op.sources}
    assert gather.op.element is Element.TERNARY
