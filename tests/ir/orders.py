"""Other float32 evaluations of BatchNormalization, as frameworks and exporters spell it.

Fused multiply-adds are exact rationals rounded once, by `fractions` and `struct`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from bnncc.ir.types import Array
from tests.ir.oracles import f32
from tests.ir.sketch import F

Form = Callable[[Array, Sequence[Array], float], Array]
"""(x [N, C], (gamma, beta, mean, variance) each [C], epsilon) -> y [N, C]."""


def rounded(exact: Fraction) -> np.float32:
    """Return the float32 nearest to a rational number, ties to even."""
    nearest = float(exact)  # Python rounds rationals to double correctly
    if Fraction(nearest) == exact:
        return f32(nearest)
    # Inexact: rounding twice must not meet a tie, so nudge the double off it, towards the truth.
    half_way = Fraction(float(f32(nearest))) != Fraction(nearest) and _is_tie(nearest)
    if half_way:
        nearest = float(np.nextafter(nearest, np.inf if exact > Fraction(nearest) else -np.inf))
    return f32(nearest)


def _is_tie(value: float) -> bool:
    low = f32(value)
    other = np.nextafter(low, F(np.inf) if float(low) < value else F(-np.inf))
    return (float(low) + float(other)) / 2 == value


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return fl(a * b + c), elementwise with one rounding."""
    triples = np.broadcast(a, b, c)
    out = [
        rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in triples
    ]
    return np.array(out, F).reshape(triples.shape)


def _scale(s: Sequence[Array], epsilon: float) -> Array:
    gamma, _, _, variance = s
    return gamma * (F(1) / np.sqrt(variance + F(epsilon)))


def _exact_scale(s: Sequence[Array], epsilon: float) -> Array:
    gamma, _, _, variance = (v.astype(np.float64) for v in s)
    return gamma / np.sqrt(variance + float(epsilon))


def onnx_runtime(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    scale = _scale(s, epsilon)
    return x * scale + (s[1] - s[2] * scale)


def pytorch(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    scale = _scale(s, epsilon)
    return fma(x, scale, fma(-s[2], scale, s[1]))


def literal(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    gamma, beta, mean, variance = s
    return (x - mean) / np.sqrt(variance + F(epsilon)) * gamma + beta


def centred(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    return (x - s[2]) * _scale(s, epsilon) + s[1]


def centred_fused(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    return fma(x - s[2], _scale(s, epsilon), s[1])


def gamma_last(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    gamma, beta, mean, variance = s
    return gamma * ((x - mean) * (F(1) / np.sqrt(variance + F(epsilon)))) + beta


def folded_in_double(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    scale = _exact_scale(s, epsilon)
    shift = s[1].astype(np.float64) - s[2].astype(np.float64) * scale
    return x * scale.astype(F) + shift.astype(F)


def folded_and_fused(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    scale = _exact_scale(s, epsilon)
    shift = s[1].astype(np.float64) - s[2].astype(np.float64) * scale
    return fma(x, scale.astype(F), shift.astype(F))


def exact(x: Array, s: Sequence[Array], epsilon: float) -> Array:
    scale = _exact_scale(s, epsilon)
    return ((x.astype(np.float64) - s[2]) * scale + s[1]).astype(F)


FORMS: tuple[Form, ...] = (
    pytorch,
    literal,
    centred,
    centred_fused,
    gamma_last,
    folded_in_double,
    folded_and_fused,
    exact,
)
