"""Operators between binary layers, end to end: compiled, run as C, and verified layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bnncc
from bnncc.compiler import compile_in_memory
from bnncc.ir.ops.kernels import Move, RealConv, SignSum, XnorConv
from bnncc.ir.ops.shape import Expand
from bnncc.ir.ops.shared_sums import ClassSums
from bnncc.ir.types import Array
from tests.frontends.builders import NODE, make, saved

F = np.float32
CHANNELS = 8
IMAGE = ("n", 3, 8, 8)
SIGN = NODE("Sign", ["n0"], ["s0"])
UP = F([1, 1, 2, 2])


def signs(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).choice(F([-1, 1]), shape)


def reals(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


def network(
    *middle: onnx.NodeProto, channels: int = CHANNELS, **constants: Array
) -> onnx.ModelProto:
    """Return a real layer with normalised result n0, something that makes bits, and two layers.

    The statistics are hostile: gammas of either sign, a gamma of 0.
    """
    rows = {"g": reals(1, CHANNELS), "b": reals(2, CHANNELS), "m": reals(3, CHANNELS)}
    rows["g"][2] = 0
    return make(
        NODE("Conv", ["x", "w0"], ["c0"], pads=[1] * 4),
        NODE("BatchNormalization", ["c0", "g", "b", "m", "v"], ["n0"]),
        *middle,
        NODE("Conv", ["bits", "w1"], ["c1"], pads=[1] * 4),
        NODE("Sign", ["c1"], ["s1"]),
        NODE("Conv", ["s1", "w2"], ["y"]),
        inputs={"x": IMAGE},
        constants={
            "w0": reals(0, CHANNELS, 3, 3, 3),
            "w1": signs(4, 6, channels, 3, 3),
            "w2": signs(5, 4, 6, 1, 1),
            "v": np.abs(reals(6, CHANNELS)) + F(0.1),
            **rows,
            **constants,
        },
    )


def per_sample(axes: list[int]) -> list[onnx.NodeProto]:
    """Return what RBNN does before its sign."""
    return [
        NODE("ReduceMean", ["n0"], ["mean"], axes=axes),
        NODE("Sub", ["n0", "mean"], ["centred"]),
        NODE("Mul", ["centred", "centred"], ["square"]),
        NODE("ReduceMean", ["square"], ["variance"], axes=axes),
        NODE("Add", ["variance", "epsilon"], ["v1"]),
        NODE("Sqrt", ["v1"], ["deviation"]),
        NODE("Div", ["centred", "deviation"], ["normalised"]),
        NODE("Sign", ["normalised"], ["bits"]),
    ]


def between(op_type: str, *operands: str, **attributes: object) -> list[onnx.NodeProto]:
    """Return an operator on n0, then a sign."""
    return [NODE(op_type, ["n0", *operands], ["r"], **attributes), NODE("Sign", ["r"], ["bits"])]


def on_bits(op_type: str, *operands: str, **attributes: object) -> list[onnx.NodeProto]:
    """Return a sign, then an operator."""
    return [SIGN, NODE(op_type, ["s0", *operands], ["bits"], **attributes)]


# The models, and how many of their layers count bits.
NETWORKS: dict[str, tuple[onnx.ModelProto, int]] = {
    "upsampled bits": (network(*on_bits("Resize", "", "up", mode="nearest"), up=UP), 2),
    "upsampled reals": (network(*between("Resize", "", "up", mode="linear"), up=UP), 2),
    "chosen bits": (
        network(*on_bits("Gather", "i", axis=1), i=np.int64([3, 0, 0, 7, 1, 2, 2, 5])),
        2,
    ),
    "reflected bits": (
        network(*on_bits("Pad", "p", mode="reflect"), p=np.int64([0, 0, 1, 1, 0, 0, 1, 1])),
        2,
    ),
    "pixels of channels": (network(*on_bits("DepthToSpace", blocksize=2), channels=2), 2),
    "channels of pixels": (network(*on_bits("SpaceToDepth", blocksize=2), channels=32), 2),
    "halves of an image": (
        network(
            NODE("Split", ["n0"], ["p", "q"], axis=2),
            NODE("Max", ["p", "q"], ["r"]),
            NODE("Sign", ["r"], ["bits"]),
        ),
        2,
    ),
    "a sample's own statistics": (network(*per_sample([1, 2, 3]), epsilon=F(1e-5)), 2),
    "a channel's own statistics": (network(*per_sample([2, 3]), epsilon=F(1e-5)), 2),
    "InstanceNormalization": (network(*between("InstanceNormalization", "g", "b")), 2),
    "HardSwish": (network(*between("HardSwish")), 2),
    "Elu": (network(*between("Elu")), 2),
    "a bound a channel": (network(*between("Max", "low"), low=reals(7, CHANNELS, 1, 1)), 2),
    "far from the largest": (
        network(
            NODE("ReduceMax", ["n0"], ["most"], axes=[2, 3]),
            NODE("Sub", ["most", "n0"], ["r"]),
            NODE("Sub", ["r", "one"], ["q"]),
            NODE("Sign", ["q"], ["bits"]),
            one=F(1),
        ),
        2,
    ),
    "a gate that is expanded": (
        network(
            NODE("GlobalAveragePool", ["n0"], ["p"]),
            NODE("Conv", ["p", "w"], ["q"]),
            NODE("Sigmoid", ["q"], ["r"]),
            NODE("Expand", ["r", "sizes"], ["gate"]),
            NODE("Mul", ["gate", "n0"], ["gated"]),
            NODE("Sub", ["gated", "half"], ["h"]),
            NODE("Sign", ["h"], ["bits"]),
            w=reals(8, CHANNELS, CHANNELS, 1, 1),
            sizes=np.int64([1, CHANNELS, 8, 8]),
            half=F(0.5),
        ),
        2,
    ),
    "a transposed binary layer": (
        network(
            SIGN,
            NODE("ConvTranspose", ["s0", "w"], ["r"], strides=[2, 2], pads=[1] * 4),
            NODE("Sign", ["r"], ["bits"]),
            w=signs(9, CHANNELS, CHANNELS, 4, 4),
        ),
        6,
    ),
    "a transposed binary layer with a scale and a bias": (
        network(
            SIGN,
            NODE(
                "ConvTranspose", ["s0", "w", "bias"], ["r"], strides=[2, 2], output_padding=[1, 1]
            ),
            NODE("BatchNormalization", ["r", "g", "b", "m", "v"], ["n1"]),
            NODE("Sign", ["n1"], ["bits"]),
            w=signs(9, CHANNELS, CHANNELS, 3, 3) * F(0.3),
            bias=reals(10, CHANNELS),
        ),
        6,
    ),
    "a transposed real layer": (
        network(
            *between("ConvTranspose", "w", strides=[2, 2], pads=[1] * 4),
            w=reals(11, CHANNELS, CHANNELS, 3, 3),
        ),
        2,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_verified_and_its_binary_layers_count_bits(name: str, tmp_path: Path) -> None:
    model, binary = NETWORKS[name]
    done = compile_in_memory(saved(model, tmp_path))
    result = bnncc.verify(done, samples=4)
    assert result.ok, (result.layers, result.outputs)
    ops = [node.op for node in done.lowered.graph.nodes]
    assert sum(isinstance(op, XnorConv | ClassSums) for op in ops) == binary
    assert not any(isinstance(op, SignSum) for op in ops)
    assert any(isinstance(op, RealConv) for op in ops)
    # What merely repeats is read where it is.
    assert not any(isinstance(op, Move) and isinstance(op.op, Expand) for op in ops)
