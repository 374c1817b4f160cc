"""exp, log, tanh, erf, the logistic function, the square root and powers of our own.

No two math libraries agree on these to the last bit, and small targets have none. These are
sequences of single float32 operations, the same here and in runtime_c/bnn_transcendental.h, so that
every target gives the same bits. Each is NaN for NaN.

The bounds on their errors, and that exp, log, tanh and the logistic function never fall, were found
by going through all 2^32 floats: tests/runtime_c/test_transcendental.py does it again.

Source of the polynomials: Moshier, "Methods and Programs for Mathematical Functions" (Cephes),
expf, logf and tanhf; those of erf are minimax fits of erf(x) / x and log(1 - erf(x)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnncc.ir.types import Array

__all__ = ["erf32", "exp32", "log32", "power32", "sigmoid32", "tanh32"]

_F32 = np.float32
_LOG2_E = _F32(1.44269504088896341)
_TO_INTEGER = _F32(12582912.0)  # 1.5 * 2^23: adding it leaves no bits behind the point
_TO_INTEGER_BITS = np.uint32(0x4B400000)
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
_TANH = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
_ERF_NEAR = (
    -5.96761703e-4,
    4.99119423e-3,
    -2.67681349e-2,
    1.12819925e-1,
    -3.76125336e-1,
    1.28379166e-1,
)
_ERF_FAR = (
    -1.72853470e-5,
    3.83197126e-4,
    -3.88396438e-3,
    2.42546219e-2,
    -1.06777877e-1,
    -6.34846687e-1,
    -1.28717512e-1,
)
_ERF_IS_NEAR = _F32(0.927734375)
_ERF_IS_ONE = _F32(4)  # 1 - erf is below 2^-25 from here on
_SMALLEST_NORMAL, _TO_NORMAL = _F32(2.0**-126), _F32(2.0**23)
_SQRT_HALF = _F32(0.707106781186547524)
_EXP_IS_ZERO, _EXP_IS_INFINITE = _F32(-104), _F32(89)
_TANH_IS_NEARLY_LINEAR = _F32(0.625)
_SIGMOID_IS_EXP = _F32(-18)  # where 1 + exp(x) rounds to 1


def _polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """Return the polynomial by Horner's rule, highest coefficient first."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + _F32(coefficient)
    return y


def exp32(x: Array) -> Array:
    """Return exp(x) within 1 ulp for any float32 x; it never falls.

    x = n ln 2 + r with |r| <= ln 2 / 2; 2^n is taken in two factors, since neither 2^128 nor
    2^-150 is a float, and only the last product rounds.
    """
    with np.errstate(all="ignore"):
        raised = np.where(x < _EXP_IS_ZERO, _EXP_IS_ZERO, x)
        inside = np.where(raised > _EXP_IS_INFINITE, _EXP_IS_INFINITE, raised)
        shifted = inside * _LOG2_E + _TO_INTEGER
        n = shifted - _TO_INTEGER
        r = (inside - n * _LN2_HIGH) - n * _LN2_LOW
        y = (_polynomial(r, _EXP) * (r * r) + r) + _F32(1)
        exponent = (shifted.view(np.uint32) - _TO_INTEGER_BITS) + np.uint32(254)  # n + 2 * 127
        half = exponent >> np.uint32(1)
        first, second = (
            (part << np.uint32(23)).view(np.float32) for part in (half, exponent - half)
        )
        return np.asarray((y * first) * second)


def log32(x: Array) -> Array:
    """Return log(x) within 0.9 ulp for any float32 x: -inf for zeros, NaN below; it never falls."""
    with np.errstate(all="ignore"):
        subnormal = x < _SMALLEST_NORMAL
        normal = np.where(subnormal, x * _TO_NORMAL, x)
        bits = normal.view(np.int32)
        exponent = (bits >> 23) - np.where(subnormal, 149, 126)
        m = ((bits & 0x007FFFFF) | 0x3F000000).view(np.float32)  # x = m * 2^exponent, 0.5 <= m < 1
        low = m < _SQRT_HALF
        e = np.where(low, exponent - 1, exponent).astype(np.float32)
        r = np.where(low, (m + m) - _F32(1), m - _F32(1))
        z = r * r
        y = (r * z) * _polynomial(r, _LOG)
        y = (y + e * _LN2_LOW) - _F32(0.5) * z
        y = (r + y) + e * _LN2_HIGH
        y = np.where(x > 0, y, np.where(x == 0, -_F32(np.inf), _F32(np.nan)))
        return np.where(x == np.inf, x, y)


def tanh32(x: Array) -> Array:
    """Return tanh(x) within 1.4 ulp for any float32 x; it never falls, and tanh(-x) = -tanh(x)."""
    with np.errstate(all="ignore"):
        magnitude = np.abs(x)
        z = magnitude * magnitude
        near = (_polynomial(z, _TANH) * z) * magnitude + magnitude
        far = _F32(1) - _F32(2) / (exp32(magnitude + magnitude) + _F32(1))
        return np.copysign(np.where(magnitude < _TANH_IS_NEARLY_LINEAR, near, far), x)


def sigmoid32(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) within 2.5 ulp for any float32 x; it never falls."""
    with np.errstate(all="ignore"):
        tail = x < _SIGMOID_IS_EXP
        e = exp32(np.where(tail, x, -x))
        return np.where(tail, e, _F32(1) / (_F32(1) + e))


def erf32(x: Array) -> Array:
    """Return erf(x) within 1.2 ulp for any float32 x; erf(-x) = -erf(x)."""
    with np.errstate(all="ignore"):
        t = np.abs(x)
        z = x * x
        near = (_polynomial(z, _ERF_NEAR) * t) + t
        reach = np.where(t > _ERF_IS_ONE, _ERF_IS_ONE, t)
        far = _F32(1) - exp32(_polynomial(reach, _ERF_FAR) * reach - reach)
        return np.copysign(np.where(t > _ERF_IS_NEAR, far, near), x)


def power32(x: Array, halves: int) -> Array:
    """Return x^(halves / 2): x times x, again and again, times its root, and in the end 1 over it.

    Each operation rounds: within (|halves| / 2 + 2) / 2 ulp, unless a power of the magnitude leaves
    the range where its inverse would not. NaN below 0 where `halves` is odd.
    """
    with np.errstate(all="ignore"):
        factors = [x] * (abs(halves) // 2) + [np.sqrt(x)] * (halves % 2)
        y = factors[0]
        for factor in factors[1:]:
            y = y * factor
        return np.asarray(_F32(1) / y if halves < 0 else y)
