"""The weights of fuzzed layers: real, or what quantisers leave, as exporters say it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnncc.ir.types import Array
from tests.fuzz.blocks.quantisers import multi_bit_quant
from tests.fuzz.net import Net

__all__ = ["Weights", "any_few", "binary", "few_bits", "real", "ternary", "two_valued"]

Weights = Callable[[Net, tuple[int, ...]], str]
"""Returns the name of weights of a shape: filters [O, C, *kernel] or rows [O, K]."""


def real(net: Net, shape: tuple[int, ...]) -> str:
    """Real weights."""
    return net.constant(net.reals(*shape))


def scales(net: Net, shape: tuple[int, ...]) -> Array:
    """Return positive scales that apply to each output channel, or to all."""
    count = 1 if net.chance(0.25) else shape[0]
    alpha = net.random.uniform(0.01, 0.5, (count, *[1] * (len(shape) - 1)))
    return (2.0 ** np.round(np.log2(alpha)) if net.dyadic else alpha).astype(np.float32)


def _signs(net: Net, shape: tuple[int, ...]) -> Array:
    return net.random.choice(np.float32([-1, 1]), shape)


def binary(net: Net, shape: tuple[int, ...]) -> str:
    """Weights of one magnitude a channel."""
    signs = _signs(net, shape)
    if net.chance(0.1):
        signs[net.random.random(shape) < 0.05] = 0
    form = net.pick(("plain", "plain", "alpha", "alpha", "crumbs", "sign", "mean", "where", "ste"))
    if form in ("alpha", "crumbs"):
        signs = signs * scales(net, shape)
        if form == "crumbs" and not net.dyadic:  # what a straight-through estimator leaves
            signs *= 1 + net.random.integers(-4, 5, shape).astype(np.float32) * np.float32(2.0**-23)
        return net.constant(signs)
    if form == "plain":
        return net.constant(signs)
    latent = net.constant(signs * np.float32(net.random.uniform(0.1, 1, shape)))
    if form == "where":
        above = net.node("GreaterOrEqual", [latent, net.constant(0.0)])
        return net.node("Where", [above, net.constant(1.0), net.constant(-1.0)])
    bits = net.node("Sign", [latent])
    if form == "sign":
        return bits
    if form == "ste":
        estimate = net.node("Clip", [latent, net.constant(-1.0), net.constant(1.0)])
        return net.node("Add", [net.node("Sub", [bits, estimate]), estimate])
    size = net.reduced("ReduceMean", net.node("Abs", [latent]), list(range(1, len(shape))))
    return net.node("Mul", [bits, size])


def ternary(net: Net, shape: tuple[int, ...]) -> str:
    """Weights -alpha, 0, +alpha: given, or a latent tensor held against a threshold (TWN)."""
    signs = _signs(net, shape) * (net.random.random(shape) < net.pick((0.3, 0.6, 0.9)))
    if net.chance(0.5):
        return net.constant((signs * scales(net, shape)).astype(np.float32))
    latent = net.constant(signs * np.float32(net.random.uniform(0.6, 1, shape)))
    delta = net.constant(0.5)
    above = net.node("Greater", [net.node("Abs", [latent]), delta])
    masked = net.node("Mul", [net.node("Sign", [latent]), net.node("Cast", [above], to=1)])
    return net.node("Mul", [masked, net.constant(0.25)])


def few_bits(net: Net, shape: tuple[int, ...]) -> str:
    """Weights of 2 to 4 bits: odd multiples (DoReFa), signed integers, codes with an offset."""
    bits = net.between(2, 4)
    form = net.pick(("odd", "signed", "codes", "quant"))
    if form == "quant":
        return multi_bit_quant(net, net.constant(net.reals(*shape)), bits)
    codes = net.random.integers(0, 2**bits, shape)
    if form == "odd":
        values = 2.0 * codes - (2**bits - 1)
    elif form == "signed":
        values = np.maximum(codes - 2.0 ** (bits - 1), 1 - 2.0 ** (bits - 1) * net.between(0, 1))
    else:
        values = codes - net.between(0, 2**bits - 1)
    return net.constant((values * scales(net, shape)).astype(np.float32))


def two_valued(net: Net, shape: tuple[int, ...]) -> str:
    """Weights a +- b, of each output channel's own (AdaBin)."""
    rest = [1] * (len(shape) - 1)
    middle = net.reals(shape[0], *rest) / np.float32(4)
    alpha = np.broadcast_to(scales(net, shape), (shape[0], *rest))
    signs = _signs(net, shape)
    if net.chance(0.5):
        return net.constant((signs * alpha + middle).astype(np.float32))
    scaled = net.node("Mul", [net.constant(signs), net.constant(alpha)])
    return net.node("Add", [scaled, net.constant(middle)])


def any_few(net: Net, shape: tuple[int, ...]) -> str:
    """Weights of few values."""
    return net.pick((binary, ternary, few_bits, two_valued))(net, shape)
