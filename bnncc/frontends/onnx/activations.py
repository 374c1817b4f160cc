"""How ONNX's activation functions are said in the IR: in elementary operations, as ONNX says them.

Each step rounds on its own. Where another library takes them in another order, it differs by no
more than it may for the exponential or the error function that each has inside.
"""

from __future__ import annotations

import math

import numpy as np

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.elementwise import (
    Abs,
    Add,
    Clip,
    Div,
    Erf,
    Exp,
    Greater,
    HardSigmoid,
    Identity,
    Less,
    Log,
    Max,
    Min,
    Mul,
    Neg,
    Power,
    Relu,
    Sigmoid,
    Sub,
    Tanh,
    Where,
)

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hard_swish",
    "largest",
    "mish",
    "power",
    "reciprocal",
    "selu",
    "shrink",
    "smallest",
    "softplus",
    "softsign",
    "sum_",
    "swish",
    "thresholded_relu",
]

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)
_MOST_HALVES = 32
_BROADCAST_SINCE = 8  # as far as Max, Min and Sum are concerned
_SQRT_TWO_OVER_PI, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def hard_swish(site: Site) -> None:
    """Say HardSwish: x * HardSigmoid(x)."""
    x = site.operand(0)
    site.emit(Mul(), [x, site.part(HardSigmoid(1 / 6, 0.5), x)])


def swish(site: Site) -> None:
    """Say Swish: x * sigmoid(alpha * x)."""
    x, alpha = site.operand(0), site.attribute("alpha", 1.0)
    scaled = x if alpha == 1 else site.part(Mul(), x, site.scalar(alpha))
    site.emit(Mul(), [x, site.part(Sigmoid(), scaled)])


def _below_zero(site: Site, x: str, value: str) -> str:
    """Return `value` where x < 0, else x."""
    return site.part(Where(), site.part(Less(), x, site.scalar(0)), value, x)


def elu(site: Site) -> None:
    """Say Elu: x, or alpha * (exp(x) - 1) below 0."""
    x = site.operand(0)
    grown = site.part(Sub(), site.part(Exp(), x), site.scalar(1))
    scaled = site.part(Mul(), site.scalar(site.attribute("alpha", 1.0)), grown)
    site.emit(Where(), [site.part(Less(), x, site.scalar(0)), scaled, x])


def celu(site: Site) -> None:
    """Say Celu: x, or alpha * (exp(x / alpha) - 1) below 0."""
    x, alpha = site.operand(0), site.attribute("alpha", 1.0)
    if alpha == 0:
        raise Refusal("BNN003", "Celu with alpha 0", why="it divides by alpha")
    slope = site.part(Exp(), site.part(Div(), x, site.scalar(alpha)))
    grown = site.part(Sub(), slope, site.scalar(1))
    scaled = site.part(Mul(), site.scalar(alpha), grown)
    site.emit(Where(), [site.part(Less(), x, site.scalar(0)), scaled, x])


def selu(site: Site) -> None:
    """Say Selu: gamma times x, or times alpha * (exp(x) - 1) below 0."""
    x = site.operand(0)
    alpha, gamma = site.attribute("alpha", _SELU[0]), site.attribute("gamma", _SELU[1])
    grown = site.part(Sub(), site.part(Exp(), x), site.scalar(1))
    scaled = site.part(Mul(), site.scalar(alpha), grown)
    site.emit(Mul(), [site.scalar(gamma), _below_zero(site, x, scaled)])


def _log_of_exponential(site: Site, x: str, output: str) -> str:
    """Return log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    small = site.part(Exp(), site.part(Neg(), site.part(Abs(), x)))
    log = site.part(Log(), site.part(Add(), small, site.scalar(1)))
    return site.emit(Add(), [site.part(Relu(), x), log], output)


def softplus(site: Site) -> None:
    """Say Softplus."""
    _log_of_exponential(site, site.operand(0), "")


def mish(site: Site) -> None:
    """Say Mish: x * tanh(softplus(x))."""
    x = site.operand(0)
    plus = _log_of_exponential(site, x, site.fresh("softplus"))
    site.emit(Mul(), [x, site.part(Tanh(), plus)])


def softsign(site: Site) -> None:
    """Say Softsign: x times 1 / (1 + |x|), each rounded, as ONNX Runtime does."""
    x = site.operand(0)
    size = site.part(Add(), site.part(Abs(), x), site.scalar(1))
    site.emit(Mul(), [site.part(Div(), site.scalar(1), size), x])


def thresholded_relu(site: Site) -> None:
    """Say ThresholdedRelu: x above alpha, else 0."""
    x, zero = site.operand(0), site.scalar(0)
    above = site.part(Greater(), x, site.scalar(site.attribute("alpha", 1.0)))
    site.emit(Where(), [above, x, zero])


def shrink(site: Site) -> None:
    """Say Shrink: what lies beyond +-lambd, moved towards 0 by the bias; else 0."""
    x = site.operand(0)
    reach, bias = site.attribute("lambd", 0.5), site.scalar(site.attribute("bias", 0.0))
    above = site.part(Greater(), x, site.scalar(reach))
    below = site.part(Less(), x, site.scalar(-reach))
    upper = site.part(Where(), above, site.part(Sub(), x, bias), site.scalar(0))
    site.emit(Where(), [below, site.part(Add(), x, bias), upper])


def gelu(site: Site) -> None:
    """Say Gelu: x / 2 * (1 + erf(x / sqrt 2)), or its approximation by tanh."""
    x = site.operand(0)
    half = site.scalar(0.5)
    match site.text("approximate", "none"):
        case "none":
            inner = site.part(Erf(), site.part(Mul(), x, site.scalar(math.sqrt(0.5))))
        case "tanh":
            cube = site.part(Mul(), site.part(Mul(), x, x), x)
            more = site.part(Mul(), site.scalar(_GELU_CUBE), cube)
            line = site.part(Mul(), site.scalar(_SQRT_TWO_OVER_PI), site.part(Add(), x, more))
            inner = site.part(Tanh(), line)
        case other:
            raise Refusal("BNN003", f"Gelu with approximate {quoted(other)}")
    factor = site.part(Add(), inner, site.scalar(1))
    site.emit(Mul(), [site.part(Mul(), half, x), factor])


def reciprocal(site: Site) -> None:
    """Say Reciprocal: 1 / x."""
    site.emit(Div(), [site.scalar(1), site.operand(0)])


def power(site: Site) -> None:
    """Say Pow with one constant exponent, a multiple of 1/2: products, a root, a quotient."""
    exponents = np.unique(site.numbers(1))
    if exponents.size != 1:
        why = f"{quoted(site.node.input[1])} holds {exponents.size} different ones"
        raise Refusal("BNN008", "Pow with more than one exponent", why=why)
    exponent = float(exponents[0])
    halves = 2 * exponent
    x = site.operand(0)
    if exponent == 1:
        site.emit(Identity(), [x])
    # ONNX Runtime multiplies rows, but where they hold a single value, it takes C's pow.
    elif exponent == 2 and site.type_of(x).shape[-1] > 1:
        site.emit(Mul(), [x, x])
    elif exponent == 3 and site.type_of(x).shape[-1] > 1:
        site.emit(Mul(), [site.part(Mul(), x, x), x])
    elif halves == int(halves) and 0 < abs(halves) <= _MOST_HALVES:
        site.emit(Power(int(halves)), [x])
    else:
        raise Refusal(
            "BNN008",
            f"Pow with exponent {exponent:.9g}",
            why="bnncc multiplies, takes roots and divides, accurately for multiples of 1/2 up to "
            f"{_MOST_HALVES // 2}",
            help="say it by Exp and Log, whose accuracy is known",
        )


def _several(site: Site, op: Max | Min | Add) -> None:
    """Say an operator of any number of operands, the first two first."""
    operands = [site.operand(i) for i in range(len(site.node.input))]
    shapes = {site.type_of(name).shape for name in operands}
    if site.opset < _BROADCAST_SINCE and len(shapes) > 1:
        why = f"they have {len(shapes)} shapes, and broadcast only from opset {_BROADCAST_SINCE} on"
        raise Refusal("BNN003", f"operands of {site.node.op_type}", why=why)
    *inner, last = operands
    if not inner:
        site.emit(Identity(), [last])
        return
    result = inner[0]
    for operand in inner[1:]:
        result = site.part(op, result, operand)
    site.emit(op, [result, last])


def sum_(site: Site) -> None:
    """Say Sum, from the first operand to the last."""
    _several(site, Add())


def largest(site: Site) -> None:
    """Say Max; of an activation and one number it is a Clip."""
    bound = _bound(site)
    if bound is None:
        _several(site, Max())
    else:
        site.emit(Clip(bound[1], math.inf), [bound[0]])


def smallest(site: Site) -> None:
    """Say Min; of an activation and one number it is a Clip."""
    bound = _bound(site)
    if bound is None:
        _several(site, Min())
    else:
        site.emit(Clip(-math.inf, bound[1]), [bound[0]])


def _bound(site: Site) -> tuple[str, float] | None:
    """Return (x, bound) of a node with two operands, one being a number that does not widen x."""
    if len(site.node.input) != 2 or site.opset < _BROADCAST_SINCE:
        return None
    for i in range(2):
        if site.is_constant(i) and not site.is_constant(1 - i):
            value, x = site.numbers(i), site.operand(1 - i)
            if value.size == 1 and value.ndim <= len(site.type_of(x).shape):
                return x, float(value.reshape(()))
    return None
