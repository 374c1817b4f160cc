"""Softmax and LogSoftmax over the channels, with an exponential and a logarithm of our own.

No two math libraries agree on exp and log to the last bit, and small targets have none. These are
sequences of single float32 operations, the same here and in runtime_c/bnn_softmax.h, so that every
target gives the same bits. Source of the polynomials: Moshier, "Methods and Programs for
Mathematical Functions" (Cephes), expf and logf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType

__all__ = ["Softmax", "exp32", "log32"]

_F32 = np.float32
_LOG2_E = _F32(1.44269504088896341)
_TO_INTEGER = _F32(12582912.0)  # 1.5 * 2^23: adding it leaves no bits behind the point
_LN2_HIGH, _LN2_LOW = _F32(0.693359375), _F32(-2.12194440e-4)
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SQRT_HALF = _F32(0.707106781186547524)
_SMALLEST_EXPONENT = _F32(-87.0)


def _polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """Return the polynomial by Horner's rule, highest coefficient first."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + _F32(coefficient)
    return y


def exp32(x: Array) -> Array:
    """Return exp(x) within 2 ulp for float32 -87 <= x <= 0; 0 below that."""
    with np.errstate(all="ignore"):
        n = (x * _LOG2_E + _TO_INTEGER) - _TO_INTEGER
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        y = (_polynomial(r, _EXP) * (r * r) + r) + _F32(1)
        power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
        return np.where(x >= _SMALLEST_EXPONENT, y * power, _F32(0))


def log32(x: Array) -> Array:
    """Return log(x) within 2 ulp for float32 x >= 1."""
    bits = x.view(np.int32)
    exponent = (bits >> 23) - 126
    m = ((bits & 0x007FFFFF) | 0x3F000000).view(np.float32)  # x = m * 2^exponent, 0.5 <= m < 1
    low = m < _SQRT_HALF
    e = np.where(low, exponent - 1, exponent).astype(np.float32)
    r = np.where(low, (m + m) - _F32(1), m - _F32(1))
    z = r * r
    y = (r * z) * _polynomial(r, _LOG)
    y = (y + e * _LN2_LOW) - _F32(0.5) * z
    return np.asarray((r + y) + e * _LN2_HIGH)


@dataclass(frozen=True)
class Softmax(Op):
    """y_c = exp(x_c - max) / sum, or (x_c - max) - log(sum) with `log`; x is F32 [N, C].

    max is the row's largest value, sum the sum of all exp(x_c - max) from c = 0 upward; every
    operation rounds to float32 on its own.
    """

    log: bool

    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's type."""
        (x,) = operands
        if len(x.shape) != 2 or x.element is not Element.F32 or x.layout != DENSE:
            raise OpError("Softmax needs a dense f32 operand [1, C]")
        return (x,)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the normalised rows."""
        (x,) = operands
        with np.errstate(all="ignore"):
            below = x - x.max(axis=1, keepdims=True)
        powers = exp32(below)
        total = np.add.accumulate(powers, axis=1)[:, -1:]  # one after the other, in float32
        return (below - log32(total) if self.log else powers / total,)
