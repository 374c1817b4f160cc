"""Whole networks at stage FLOAT that between them give every pass something to do."""

from __future__ import annotations

import itertools

import numpy as np

from bnncc.frontends.inputs import InputSpec, declare_inputs
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMax
from bnncc.ir.ops.shape import Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import F, Sketch


def signs(random: np.random.Generator, channels: int, k: int) -> Array:
    return random.choice(np.array([-1, 1], F), (channels, k))


def statistics(random: np.random.Generator, channels: int, k: int) -> tuple[Array, ...]:
    """gamma of both signs and 0, means on integers, variances from tiny to large."""
    gamma = random.standard_normal(channels)
    gamma[1::7] = 0
    beta = random.standard_normal(channels) / 2
    beta[2::7] = 0
    mean = np.rint(random.standard_normal(channels) * np.sqrt(k) / 2)
    variance = k * random.uniform(0.1, 2, channels)
    variance[3::7] = 1e-12
    return tuple(v.astype(F) for v in (gamma, beta, mean, variance))


def _everything(seed: int) -> Sketch:
    """In-graph weights, identities, scaled and real layers, several readers, every activation."""
    random = np.random.default_rng(seed)
    s = Sketch(stage=Stage.FLOAT, shape=(1, 4, 4))
    flat = s(Reshape((1, 16)), s(ew.Identity(), "x", origin=["dropout"]), origin=["flatten"])
    latent = s.const(random.standard_normal((12, 16)).astype(F), "latent")
    scaled = s(ew.Mul(), s(ew.Sign(), latent, origin=["q1"]), s.const(0.3), origin=["q1"])
    a = s(MatMul(), flat, scaled, to="n1", origin=["fc1"])
    a = s.batch_norm(a, statistics(random, 12, 5), to="bn1")
    a = s(ew.Sign(), s(ew.Clip(-1, 1), a, origin=["hardtanh"]), to="sign1", origin=["act1"])
    half = s(ew.Mul(), a, 0.5, to="half", origin=["skip"])
    b = s(MatMul(), a, s.const(signs(random, 10, 12) * F(0.25), "w2"), to="n2", origin=["fc2"])
    b = s(ew.Add(), b, s.const(random.standard_normal(10).astype(F), "b2"), origin=["fc2"])
    b = s(ew.PRelu(), s.batch_norm(b, statistics(random, 10, 1)), [-0.5] * 10, origin=["prelu"])
    risen = s(ew.GreaterOrEqual(), s(ew.Sub(), b, 0.25, origin=["rsign"]), 0.0, origin=["rsign"])
    b = s(ew.Where(), risen, 1.0, -1.0, to="sign2", origin=["rsign"])
    c = s(MatMul(), b, s.const(signs(random, 9, 10), "w3"), to="n3", origin=["fc3"])
    c = s(ew.Sign(), s(ew.Sign(), c, origin=["act3"]), to="sign3", origin=["act3"])
    s(MatMul(), c, s.const(signs(random, 6, 9) * F(0.1), "w4"), to="n4", origin=["fc4"])
    s.batch_norm("n4", statistics(random, 6, 1), to="y")
    s(MatMul(), half, s.const(random.standard_normal((3, 12)).astype(F), "r"), to="z")
    return s


def _classic(
    seed: int, sizes: tuple[int, ...], *, sign: ew.Elementwise | None = None, alpha: bool = False
) -> Sketch:
    """Dense - BatchNorm - sign, and a last layer without a sign."""
    random = np.random.default_rng(seed)
    s = Sketch(sizes[0], stage=Stage.FLOAT)
    last = "x"
    for i, (k, channels) in enumerate(itertools.pairwise(sizes), start=1):
        w = signs(random, channels, k)
        if alpha:
            w *= random.uniform(0.01, 0.9, (channels, 1)).astype(F)
        last = s(MatMul(), last, s.const(w, f"w{i}"), to=f"n{i}", origin=[f"fc{i}"])
        last = s.batch_norm(last, statistics(random, channels, k), to=f"bn{i}")
        if i < len(sizes) - 1:
            if sign is not None:
                last = s(sign, last, to=f"s{i}", origin=[f"act{i}"])
            else:
                risen = s(ew.GreaterOrEqual(), last, 0.0, origin=[f"act{i}"])
                last = s(ew.Where(), risen, 1.0, -1.0, to=f"s{i}", origin=[f"act{i}"])
    return s


def _bipolarised(seed: int) -> Sketch:
    """A sign straight on the input, then a classic layer."""
    random = np.random.default_rng(seed)
    s = Sketch(20, stage=Stage.FLOAT)
    risen = s(ew.Greater(), s(ew.Sub(), "x", 0.3, origin=["q0"]), 0.0, origin=["q0"])
    bits = s(ew.Sub(), s(ew.Mul(), s(ew.Cast(Element.F32), risen), 2.0), 1.0, to="s0")
    n = s(MatMul(), bits, s.const(signs(random, 9, 20), "w1"), to="n1", origin=["fc1"])
    a = s(ew.Sign(), s.batch_norm(n, statistics(random, 9, 20)), to="s1", origin=["act1"])
    s(MatMul(), a, s.const(signs(random, 3, 9), "w2"), to="y", origin=["fc2"])
    return s


def _plain(seed: int) -> Sketch:
    """Nothing binary at all."""
    random = np.random.default_rng(seed)
    s = Sketch(5, stage=Stage.FLOAT)
    h = s(MatMul(), "x", s.const(random.standard_normal((7, 5)).astype(F), "w"), origin=["fc1"])
    h = s(ew.LeakyRelu(0.1), s(ew.Add(), h, random.standard_normal(7).astype(F)))
    s(MatMul(), h, s.const(random.standard_normal((2, 7)).astype(F), "v"), to="y", origin=["fc2"])
    return s


def _images(seed: int) -> Sketch:
    """Pads, pools on either side of BatchNorm, a shortcut, residues, dense layers on an image."""
    random = np.random.default_rng(seed)

    def conv(x: str, to: str, *shape: int, window: Window = PADDED) -> str:
        alpha = random.uniform(0.1, 0.9, (shape[0], 1, 1, 1)).astype(F)
        w = random.choice(np.array([-1, 1], F), shape) * alpha
        return s(Conv(window), x, s.const(w, f"w.{to}"), to=to, origin=[to])

    def sign(x: str, to: str) -> str:
        e = s(ew.Clip(-1, 1), x, origin=[to])
        difference = s(ew.Sub(), s(ew.Sign(), x, origin=[to]), e, origin=[to])
        return s(ew.Add(), difference, e, to=to, origin=[to])

    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 9, 8))
    around = s(Pad((0, 0, 1, 0), (0, 0, 1, 2), 0.0), "x", origin=["pad"])
    a = conv(around, "conv1", 6, 3, 3, 3, window=Window((Axis(3), Axis(3))))
    a = s.batch_norm(a, statistics(random, 6, 9), to="bn1")
    a = sign(s(MaxPool(POOL), a, origin=["pool1"]), "act1")
    b = s.batch_norm(conv(a, "conv2", 10, 6, 3, 3), statistics(random, 10, 50), to="bn2")
    c = s.batch_norm(conv(sign(b, "act2"), "conv3", 10, 10, 3, 3), statistics(random, 10, 90))
    c = sign(s(ew.Add(), c, b, to="sum", origin=["shortcut"]), "act3")
    d = s(MaxPool(POOL), conv(c, "conv4", 7, 10, 3, 3), origin=["pool2"])
    d = s.batch_norm(d, statistics(random, 7, 50), to="bn4")
    flat = s(Reshape((1, 28)), d, origin=["flatten"])
    f = s(MatMul(), sign(flat, "act4"), s.const(signs(random, 9, 28), "w5"), to="fc1")
    f = s.batch_norm(f, statistics(random, 9, 28), to="bn5")
    s(MatMul(), s(ew.Sign(), f, to="act5"), s.const(signs(random, 5, 9), "w6"), to="y")
    return s


def _channels_last(seed: int) -> Sketch:
    """What exporters make of a model with channels last: layers between Transposes, +1 round."""
    random = np.random.default_rng(seed)
    last, first = Transpose((0, 2, 3, 1)), Transpose((0, 3, 1, 2))
    s = Sketch(stage=Stage.FLOAT, shape=(1, 8, 9, 3))
    a = s(first, s(ew.Mul(), "x", [0.5, 0.25, 2.0], origin=["scale"]), origin=["transpose"])
    w = s.const(signs(random, 8, 27).reshape(8, 3, 3, 3) * F(0.1), "w1")
    a = s.batch_norm(s(Conv(PADDED), a, w, to="conv1"), statistics(random, 8, 5), to="bn1")
    a = s(last, a, to="last1", origin=["transpose"])
    b = s(ew.Sign(), s(ew.Add(), s(ew.Sign(), a, origin=["act1"]), 0.1, origin=["act1"]), to="act1")
    b = s(
        first,
        s(Pad((0, 1, 1, 0), (0, 1, 1, 0), 1.0), b, origin=["the conv2"]),
        origin=["transpose"],
    )
    w = s.const(signs(random, 8, 72).reshape(8, 8, 3, 3), "w2")
    b = s(last, s(Conv(Window((Axis(3), Axis(3)))), b, w, to="conv2"), origin=["transpose"])
    b = s(ew.Add(), s(ew.Mul(), b, random.standard_normal(8).astype(F), to="bn2"), a, to="shortcut")
    c = s(ew.Sign(), s(Reshape((1, 576)), b, origin=["flatten"]), to="act2")
    s(MatMul(), c, s.const(signs(random, 5, 576), "w3"), to="y")
    return s


def _halved(seed: int) -> Sketch:
    """Scaled and shifted signs of reals, a shortcut of fewer pixels, the largest of an image."""
    random = np.random.default_rng(seed)
    s = Sketch(stage=Stage.FLOAT, shape=(1, 4, 6, 6))

    def conv(x: str, to: str, channels: int, stride: int) -> str:
        rows = signs(random, channels, 9 * s.builder.types[x].shape[1])
        w = s.const(rows.reshape(channels, -1, 3, 3) * F(0.5), f"w.{to}")
        window = Window((Axis(3, stride, before=1, after=1),) * 2)
        return s(Conv(window), x, w, to=to, origin=[to])

    def scaled_sign(x: str, to: str) -> str:
        shifted = s(ew.Sub(), s(ew.Sign(), x, origin=[to]), 0.125, origin=[to])
        return s(ew.Mul(), shifted, 0.75, to=to, origin=[to])

    y = conv(conv(scaled_sign("x", "act1"), "conv1", 6, 2), "conv2", 8, 1)
    y = s.batch_norm(y, statistics(random, 8, 50), to="bn1")
    side = s(Slice((0, 0, 0, 0), (1, 4, 3, 3), (1, 1, 2, 2)), "x", origin=["slice"])
    side = s(Pad((0, 2, 0, 0), (0, 2, 0, 0), 0.0), side, origin=["pad"])
    y = s(ew.Add(), y, side, to="sum", origin=["shortcut"])
    y = conv(scaled_sign(y, "act2"), "conv3", 3, 1)
    y = s(ew.Sign(), s(ReduceMax((2, 3), keepdims=False), y, origin=["pool"]), to="act3")
    s(MatMul(), y, s.const(signs(random, 2, 3), "w4"), to="y", origin=["fc"])
    return s


PADDED = Window((Axis(3, before=1, after=1),) * 2)
POOL = Window((Axis(2, 2), Axis(3, 2, before=1)))
CAMERA = InputSpec(1 / 127.5, -1.0)
EXACT_CAMERA = InputSpec(1 / 128, -1.0)


def networks(seed: int = 0) -> dict[str, Graph]:
    """Return networks by name, all at stage FLOAT."""
    classic = _classic(seed, (24, 17, 11, 5)).done()
    three = _classic(seed + 1, (24, 16, 12, 5), sign=ew.Sign()).done()
    bipolarised = _bipolarised(seed + 2).done("y")
    return {
        "classic": classic,
        "classic on codes": declare_inputs(classic, {"x": EXACT_CAMERA}),
        "classic on inexact codes": declare_inputs(classic, {"x": CAMERA}),
        "three levels": three,
        "three levels on codes": declare_inputs(three, {"x": EXACT_CAMERA}),
        "alpha": _classic(seed + 3, (24, 17, 11, 5), alpha=True).done(),
        "bipolarised": bipolarised,
        "bipolarised codes": declare_inputs(bipolarised, {"x": CAMERA}),
        "everything": _everything(seed + 4).done("y", "z"),
        "plain": _plain(seed + 5).done(),
        "images": _images(seed + 6).done(),
        "channels last": _channels_last(seed + 7).done(),
        "halved": _halved(seed + 8).done(),
    }
