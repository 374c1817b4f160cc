"""A convolutional network as ONNX with everything that verification has to see through."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from bnncc.ir.types import Array
from tests.frontends.builders import NODE, make

Constants = dict[str, Array]

_F = np.float32


def network(seed: int = 0, *, top: bool = False) -> onnx.ModelProto:
    """Return a network from "x" [1, 3, 12, 12] to scores "y" [1, 5], with hostile statistics.

    A real stem; a binary convolution with zero padding and a real shortcut round it; one with
    groups, scaled weights and a stride; a pool behind a sign; kappa, the mean of |x|, times a
    layer; a global average and a real layer with a bias. With `top`, the first-ranked class "best"
    too.
    """
    random = np.random.default_rng(seed)
    c: Constants = {}
    nodes = [
        _conv(c, random, "x", "stem", (8, 3, 3, 3), pads=[1] * 4, binary=False),
        _norm(c, random, "stem", "stem.bn", (8, 5)),
        *_sign(c, "stem.bn", "s1"),
        _conv(c, random, "s1", "conv1", (8, 8, 3, 3), pads=[1] * 4),
        _norm(c, random, "conv1", "bn1", (8, 8)),
        NODE("Add", ["bn1", "stem.bn"], ["r1"], "add1"),
        *_sign(c, "r1", "s2"),
        _conv(c, random, "s2", "conv2", (12, 4, 3, 3), pads=[1] * 4, strides=[2] * 2, group=2),
        _norm(c, random, "conv2", "bn2", (12, 6)),
        *_sign(c, "bn2", "s3"),
        NODE("MaxPool", ["s3"], ["p3"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        _conv(c, random, "p3", "conv3", (9, 12, 1, 1)),
        NODE("Abs", ["r1"], ["abs"], "kappa"),
        NODE("ReduceMean", ["abs"], ["kappa"], "kappa", axes=[1, 2, 3], keepdims=1),
        NODE("Mul", ["conv3", "kappa"], ["scaled"], "scale"),
        _norm(c, random, "scaled", "bn3", (9, 400)),
        *_sign(c, "bn3", "s4"),
        _conv(c, random, "s4", "conv4", (6, 9, 1, 1)),
        _norm(c, random, "conv4", "bn4", (6, 3)),
        NODE("GlobalAveragePool", ["bn4"], ["mean"], "gap"),
        NODE("Flatten", ["mean"], ["flat"], "flatten"),
        NODE("Gemm", ["flat", "fc.w", "fc.b"], ["y"], "fc", transB=1),
    ]
    c["fc.w"] = random.standard_normal((5, 6)).astype(_F)
    c["fc.b"] = random.standard_normal(5).astype(_F)
    outputs = {"y": 1}
    if top:
        nodes.append(NODE("ArgMax", ["y"], ["best"], "best", axis=1, keepdims=0))
        outputs["best"] = onnx.TensorProto.INT64
    return make(*nodes, inputs={"x": (1, 3, 12, 12)}, outputs=outputs, constants=c)


def _conv(
    c: Constants,
    random: np.random.Generator,
    x: str,
    name: str,
    shape: tuple[int, ...],
    *,
    binary: bool = True,
    **attributes: object,
) -> onnx.NodeProto:
    """Return a convolution: of +-1 and, from the second channel on, +-alpha, or of reals."""
    w = random.standard_normal(shape)
    if binary:
        alpha = random.uniform(0.01, 0.5, (shape[0], 1, 1, 1))
        alpha[0] = 1
        w = np.where(w < 0, -alpha, alpha)
    c[f"{name}.w"] = w.astype(_F)
    return NODE("Conv", [x, f"{name}.w"], [name], name, **attributes)


def _norm(
    c: Constants, random: np.random.Generator, x: str, name: str, kind: tuple[int, float]
) -> onnx.NodeProto:
    """Return a BatchNormalization, gamma of both signs and once 0, a tiny variance, a tie.

    `kind` says how many channels x has, and about how large its values are.
    """
    channels, spread = kind
    gamma = random.standard_normal(channels)
    gamma[1] = 0
    mean = random.standard_normal(channels) * spread / 4
    beta = random.standard_normal(channels) / 2
    variance = spread * random.uniform(0.1, 2, channels)
    variance[2] = 1e-9
    mean[0], beta[0] = np.rint(mean[0]), 0
    rows = dict(zip(("gamma", "beta", "mean", "var"), (gamma, beta, mean, variance), strict=True))
    c.update({f"{name}.{what}": row.astype(_F) for what, row in rows.items()})
    inputs = [x, *(f"{name}.{what}" for what in rows)]
    return NODE("BatchNormalization", inputs, [name], name)


def _sign(c: Constants, x: str, name: str) -> list[onnx.NodeProto]:
    """Return x >= 0 ? 1 : -1."""
    c["zero"], c["one"], c["minus"] = (np.asarray(v, _F) for v in (0, 1, -1))
    return [
        helper.make_node("GreaterOrEqual", [x, "zero"], [f"{name}.ge"], name),
        helper.make_node("Where", [f"{name}.ge", "one", "minus"], [name], name),
    ]
