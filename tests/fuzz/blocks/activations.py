"""Functions of one value, and choices between values."""

from __future__ import annotations

import numpy as np

from tests.fuzz.blocks.norms import tame
from tests.fuzz.net import Net

__all__ = ["activation", "choice", "curve", "root", "rprelu", "squash"]


def activation(net: Net) -> None:
    """A function of one value, made of lines."""
    choices = (
        *(_relu, _prelu, _prelu, _leaky, _clip, _clip, _hard_sigmoid, _abs, _neg, _hard_swish),
        *(_bounds, _shrink, _thresholded, _rounded),
    )
    net.pick(choices)(net)


def _relu(net: Net) -> None:
    net.follow("Relu")


def _prelu(net: Net) -> None:
    slopes = net.reals(net.channels) if net.chance(0.7) else net.reals(1)
    shaped = slopes.reshape(-1, *[1] * len(net.spatial))
    net.follow("PRelu", net.constant(shaped))


def _leaky(net: Net) -> None:
    net.follow("LeakyRelu", alpha=net.pick((0.01, 0.25, -0.5, 1.5)))


_BOUNDS = ((-1.0, 1.0), (-1.0, 1.0), (0.0, 6.0), (-0.5, 2.0), (None, 1.0), (0.0, None))


def _clip(net: Net) -> None:
    low, high = net.pick(_BOUNDS)
    if low is None:
        net.follow("Clip", "", net.constant(high))
    elif high is None:
        net.follow("Clip", net.constant(low))
    else:
        net.follow("Clip", net.constant(low), net.constant(high))


def _bounds(net: Net) -> None:
    """Max and Min with constants, each channel's own or one for all."""
    row = np.abs(net.reals(net.channels)) if net.chance(0.5) else np.float32([1])
    bound = net.along(row) if row.size > 1 else row
    net.follow("Max", net.constant(-bound))
    if net.chance(0.7):
        net.x = net.node("Min", [net.constant(bound), net.x])


def _hard_sigmoid(net: Net) -> None:
    alpha, beta = net.pick(((0.2, 0.5), (1 / 6, 0.5), (0.5, 0.5), (0.25, 0.5)))
    net.follow("HardSigmoid", alpha=alpha, beta=beta)


def _hard_swish(net: Net) -> None:
    net.follow("HardSwish")


def _abs(net: Net) -> None:
    net.follow("Abs")


def _neg(net: Net) -> None:
    net.follow("Neg")


def _shrink(net: Net) -> None:
    net.follow("Shrink", lambd=net.pick((0.5, 0.25, 1.0)), bias=net.pick((0.0, 0.5, 0.25)))


def _thresholded(net: Net) -> None:
    net.follow("ThresholdedRelu", alpha=net.pick((0.0, 0.5, 1.0)))


def _rounded(net: Net) -> None:
    net.follow(net.pick(("Round", "Floor", "Ceil")))


def rprelu(net: Net) -> None:
    """ReActNet's: a shift, a PRelu of each channel, another shift."""
    net.follow("Sub", net.constant(net.along(net.reals(net.channels))))
    net.follow("PRelu", net.constant(net.reals(net.channels).reshape(-1, *[1] * len(net.spatial))))
    net.follow("Add", net.constant(net.along(net.reals(net.channels))))


def squash(net: Net) -> None:
    """A sigmoid or tanh."""
    net.follow(net.pick(("Sigmoid", "Tanh")))


def curve(net: Net) -> None:
    """A smooth function, said by ONNX's operator or by its parts."""
    choices = [_silu, _elu, _softplus, _softsign, _gelu_by_parts, _exponential]
    choices += [_mish] if net.opset >= 18 else []
    choices += [_gelu] if net.opset >= 20 else []
    net.pick(choices)(net)


def _silu(net: Net) -> None:
    net.x = net.node("Mul", [net.x, net.node("Sigmoid", [net.x])])


def _elu(net: Net) -> None:
    net.follow(net.pick(("Elu", "Selu", "Celu")))


def _softplus(net: Net) -> None:
    net.follow("Softplus")


def _softsign(net: Net) -> None:
    net.follow("Softsign")


def _mish(net: Net) -> None:
    net.follow("Mish")


def _gelu(net: Net) -> None:
    net.follow("Gelu", approximate=net.pick(("none", "tanh")))


def _gelu_by_parts(net: Net) -> None:
    x = net.x
    net.follow("Mul", net.constant(np.sqrt(0.5)))
    net.follow("Erf")
    net.follow("Add", net.constant(1.0))
    net.x = net.node("Mul", [net.node("Mul", [x, net.x]), net.constant(0.5)])


def _exponential(net: Net) -> None:
    """e^x of what is not too large, or a logarithm of it."""
    net.follow("Clip", net.constant(-8.0), net.constant(6.0))
    net.follow("Exp")
    if net.chance(0.4):
        net.follow("Add", net.constant(net.pick((0.5, 1.0))))
        net.follow("Log")


def root(net: Net) -> None:
    """Squares, roots, powers and quotients of numbers that have them."""
    form = net.pick(("square", "cube", "root", "power", "inverse", "half"))
    if form in ("square", "cube"):
        net.follow("Clip", net.constant(-16.0), net.constant(16.0))
        net.follow("Pow", net.constant(2.0 if form == "square" else 3.0))
    else:
        net.follow("Abs")
        net.follow("Add", net.constant(net.pick((0.25, 1.0))))
        if form == "root":
            net.follow("Sqrt")
        elif form == "inverse":
            net.follow("Reciprocal")
        elif form == "half":
            net.follow("Pow", net.constant(0.5))
        else:
            net.follow("Pow", net.constant(net.pick((-1.0, -0.5, -2.0))))
    tame(net)


def choice(net: Net) -> None:
    """Where of a comparison: between numbers, the value and functions of it."""
    x = net.x
    op = net.pick(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"))
    row = net.reals(net.channels) if net.chance(0.5) else net.reals(1)
    bound = net.constant(net.along(row) if row.size > 1 else row)
    condition = net.node(op, [x, bound])
    if net.chance(0.3):
        other = net.node("Less", [net.node("Abs", [x]), net.constant(1.0)])
        condition = net.node(net.pick(("And", "Or", "Xor")), [condition, other])
    if net.chance(0.2):
        condition = net.node("Not", [condition])
    branches = [x, net.node("Neg", [x]), net.constant(net.pick((0.0, 1.0, -1.0))), bound]
    first, second = (net.pick(branches) for _ in range(2))
    if {first, second} <= {branches[2], bound} and net.chance(0.5):
        first = x
    net.x = net.node("Where", [condition, first, second])
