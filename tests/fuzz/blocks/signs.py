"""All spellings of sign that exporters use."""

from __future__ import annotations

import numpy as np

from bnncc.ir.types import Array
from tests.fuzz.blocks.quantisers import bipolar_quant
from tests.fuzz.net import Net

__all__ = ["is_bits", "scaled_sign", "shifted_sign", "sign"]


def is_bits(values: Array) -> bool:
    """Whether all values are -1 or +1."""
    return bool((np.abs(values) == 1).all())


# --- Blocks ---------------------------------------------------------------------------------------


def sign(net: Net) -> None:
    """One of the spellings of sign."""
    net.pick(_SIGNS)(net)


def scaled_sign(net: Net) -> None:
    """A sign times a scale, the same for all or each channel's own."""
    if net.chance(0.2):
        bipolar_quant(net)
        return
    sign(net)
    row = np.abs(net.reals(net.channels if net.chance(0.5) else 1)) + np.float32(0.125)
    net.follow("Mul", net.constant(net.along(row) if row.size > 1 else row))


def shifted_sign(net: Net) -> None:
    """A sign with a threshold a channel (RSign), some of them values that the channel takes."""
    values = net.ties()
    rows = values[np.arange(net.channels), net.between(0, values.shape[1] - 1)]
    if net.chance(0.5):
        net.follow("Sub", net.constant(net.along(rows)))
    else:
        net.follow("Add", net.constant(net.along(-rows)))
    sign(net)


# --- Jumps ----------------------------------------------------------------------------------------


def _zero(net: Net) -> str:
    return net.constant(net.pick((0.0, 0.0, -0.0)))


def _sign(net: Net) -> None:
    net.follow("Sign")


def _where(net: Net) -> None:
    op, swapped = net.pick(
        (("GreaterOrEqual", False), ("Greater", False), ("Less", True), ("LessOrEqual", True))
    )
    if net.chance(0.2):  # the constant first
        condition = net.node(op, [_zero(net), net.x])
        swapped = not swapped
    else:
        condition = net.node(op, [net.x, _zero(net)])
    if net.chance(0.15):
        condition = net.node("Not", [condition])
        swapped = not swapped
    branches = [net.constant(-1.0 if swapped else 1.0), net.constant(1.0 if swapped else -1.0)]
    net.x = net.node("Where", [condition, *branches])


def _cast(net: Net) -> None:
    op = net.pick(("GreaterOrEqual", "Greater"))
    net.x = net.node("Cast", [net.node(op, [net.x, _zero(net)])], to=1)
    net.follow("Mul", net.constant(2.0))
    net.follow("Sub", net.constant(1.0))


def _difference(net: Net) -> None:
    """(x > 0) - (x < 0), each as a number."""
    masks = [net.node(op, [net.x, _zero(net)]) for op in ("Greater", "Less")]
    net.x = net.node("Sub", [net.node("Cast", [mask], to=1) for mask in masks])


def _logic(net: Net) -> None:
    """Where of x >= 0 joined with a comparison that says the same, or nothing."""
    above = net.node("GreaterOrEqual", [net.x, _zero(net)])
    other = net.node("Greater", [net.x, net.constant(0.0)])
    op = net.pick(("And", "Or"))
    condition = net.node(op, [above, other])
    net.x = net.node("Where", [condition, net.constant(1.0), net.constant(-1.0)])


def _clipped(net: Net) -> None:
    if net.chance(0.5):
        net.follow("Clip", net.constant(-1.0), net.constant(1.0))
    else:
        net.follow("Min", net.constant(1.0))
        net.follow("Max", net.constant(-1.0))
    _sign(net)


def _tanh_sign(net: Net) -> None:
    x = net.x
    net.follow("Tanh")
    _sign(net)
    sizes = np.abs(net.values[x][net.values[x] != 0])
    if x in net.exact and (sizes > 1e-30).all():
        net.exact.add(net.x)  # a tanh may round, and a subnormal one to 0, but not to another sign


def _nudged(net: Net) -> None:
    _sign(net)
    net.follow("Add", net.constant(net.pick((0.1, 0.5, -0.25))))
    _sign(net)


def _equal(net: Net) -> None:
    signs = net.node("Sign", [net.x])
    zero = net.node("Equal", [signs, net.constant(0.0)])
    net.x = net.node("Where", [zero, net.constant(net.pick((1.0, -1.0))), signs])


def _rounded(net: Net) -> None:
    if net.chance(0.5):
        net.follow("HardSigmoid", alpha=0.5, beta=0.5)
    else:
        net.follow("Add", net.constant(1.0))
        net.follow("Mul", net.constant(0.5))
        net.follow("Clip", net.constant(0.0), net.constant(1.0))
    net.follow("Round")
    net.follow("Mul", net.constant(2.0))
    net.follow("Sub", net.constant(1.0))


def _ceiled(net: Net) -> None:
    """2 ceil(clip(x, 0, 1)) - 1."""
    net.follow("Clip", net.constant(0.0), net.constant(1.0))
    net.follow("Ceil")
    net.follow("Mul", net.constant(2.0))
    net.follow("Sub", net.constant(1.0))


def _quotient(net: Net) -> None:
    """x / |x|, which is no number at 0, nor where another order of a sum gives 0."""
    if np.abs(net.values[net.x]).min() <= net.bounded(net.x) * 2.0**-16:
        _equal(net)
    else:
        net.x = net.node("Div", [net.x, net.node("Abs", [net.x])])


def _filled(net: Net) -> None:
    """Where between branches as large as the tensor."""
    condition = net.node("GreaterOrEqual", [net.x, _zero(net)])
    ones = np.ones(net.shape, np.float32)
    net.x = net.node("Where", [condition, net.constant(ones), net.constant(-ones)])


def _compared(net: Net) -> None:
    """A clamp made of comparisons, as Brevitas exports it, and a sign."""
    above = net.node("Greater", [net.x, net.constant(1.0)])
    net.x = net.node("Where", [above, net.constant(1.0), net.x])
    below = net.node("Less", [net.x, net.constant(-1.0)])
    net.x = net.node("Where", [below, net.constant(-1.0), net.x])
    _where(net)


def _bipolar(net: Net) -> None:
    """BipolarQuant, or Quant of one signed bit, with a scale of 1."""
    values = np.where(net.values[net.x] >= 0, np.float32(1), np.float32(-1))
    domain = net.pick(("onnx.brevitas", "qonnx.custom_op.general"))
    one = net.constant(1.0)
    if net.chance(0.7):
        net.x = net.foreign("BipolarQuant", domain, [net.x, one], values)
    else:
        rest = [one, net.constant(0.0), net.constant(1.0)]
        net.x = net.foreign("Quant", domain, [net.x, *rest], values, signed=1, narrow=0)


# --- What straight-through estimators leave: sign(x) - e + e --------------------------------------


def _residue(net: Net) -> None:
    """With e = Clip(x), or a tanh."""
    if net.chance(0.7):
        estimate = net.node("Clip", [net.x, net.constant(-1.0), net.constant(1.0)])
    else:
        estimate = net.node("Tanh", [net.x])
    signs = net.node("Sign", [net.x])
    net.x = net.node("Sub", [signs, estimate])
    net.follow("Add", estimate)


def _polynomial(net: Net) -> None:
    """With Bi-Real's piecewise polynomial, by Where."""
    x = net.x
    square = net.node("Mul", [x, x])
    double = net.node("Mul", [x, net.constant(2.0)])
    rising, falling = (net.node(op, [double, square]) for op in ("Add", "Sub"))
    inner = net.node("Less", [x, net.constant(0.0)])
    middle = net.node("Where", [inner, rising, falling])
    low = net.node("Less", [x, net.constant(-1.0)])
    left = net.node("Where", [low, net.constant(-1.0), middle])
    high = net.node("GreaterOrEqual", [x, net.constant(1.0)])
    estimate = net.node("Where", [high, net.constant(1.0), left])
    net.x = net.node("Sub", [net.node("Sign", [x]), estimate])
    net.follow("Add", estimate)


def _masked(net: Net) -> None:
    """With ReActNet's and Bi-Real's polynomial, by masks that are cast and multiplied."""
    x, one = net.x, net.constant(1.0)

    def blend(mask: str, inside: str, outside: str) -> str:
        number = net.node("Cast", [mask], to=1)
        rest = net.node("Sub", [one, number])
        parts = [net.node("Mul", [inside, number]), net.node("Mul", [outside, rest])]
        return net.node("Add", parts)

    square = net.node("Pow", [x, net.constant(2.0)])
    double = net.node("Mul", [x, net.constant(2.0)])
    rising, falling = net.node("Add", [square, double]), net.node("Sub", [double, square])
    left = blend(net.node("Less", [x, net.constant(-1.0)]), net.constant(-1.0), rising)
    middle = blend(net.node("Less", [x, net.constant(0.0)]), left, falling)
    estimate = blend(net.node("Less", [x, one]), middle, one)
    net.x = net.node("Add", [net.node("Sub", [net.node("Sign", [x]), estimate]), estimate])


def _whole(net: Net) -> None:
    """With the tensor itself, where it is small enough to vanish."""
    if net.bounded(net.x) > 1:
        _clipped(net)
        return
    x = net.x
    net.x = net.node("Sub", [net.node("Sign", [x]), x])
    net.follow("Add", x)


_SIGNS = (
    *(_where, _where, _where, _sign, _sign, _cast, _clipped, _nudged, _equal, _rounded, _ceiled),
    *(_difference, _logic, _bipolar, _residue, _polynomial, _masked, _tanh_sign, _whole),
    *(_quotient, _filled, _compared),
)
