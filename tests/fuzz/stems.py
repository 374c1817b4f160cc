"""What goes into fuzzed networks: rows, lines and images, of reals or of bytes, one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnncc.frontends.inputs import parse_input_spec
from bnncc.ir.types import Array
from tests.fuzz.net import Net
from tests.fuzz.plan import Block

__all__ = ["STEMS", "Fed", "feed"]

SAMPLES = 8
STEMS = ("dense", "1d", "2d", "bytes", "nhwc", "pair")
_LENGTHS = {"dense": 0, "1d": 1}
_MOST_CHANNELS = {0: 70, 1: 33, 2: 8}
# What `--input` may say of float inputs, and what FINN says by annotations.
_SPECS = ("", "", "", "uint8:1,0", "uint8:0.0078125,-1", "uint8:0.007843137,-1", "annotated")


@dataclass(frozen=True, eq=False)
class Fed:
    """What is fed to a network.

    Attributes:
        samples: by input, as the C takes them.
        specs: for `Options.inputs`.
    """

    samples: Mapping[str, Array]
    specs: tuple[str, ...]


def feed(net: Net, stem: Block) -> Fed:
    """Declare the inputs of a network, join them in `net.x`, and return what they are fed."""
    spatial = _LENGTHS.get(stem.kind, 2)
    if stem.kind in ("bytes", "pair") and net.chance(0.4):
        spatial = net.between(0, 1)
    shape = (net.width(_MOST_CHANNELS[spatial]), *(_length(net) for _ in range(spatial)))
    if stem.kind == "bytes":
        codes = _codes(net, shape)
        net.input("x", codes)
        net.follow("Cast", to=1)
        return Fed({"x": codes}, ())
    if stem.kind == "nhwc":
        first = _input(net, "x", (*shape[1:], shape[0]))
        net.follow("Transpose", perm=[0, len(shape), *range(1, len(shape))])
        return first
    first = _input(net, "x", shape)
    if stem.kind != "pair":
        return first
    second = _second(net, shape)
    return Fed({**first.samples, **second.samples}, (*first.specs, *second.specs))


def _length(net: Net) -> int:
    return min(net.between(1, 13), net.limit)


def _second(net: Net, shape: tuple[int, ...]) -> Fed:
    """Declare another input that is joined with `x`: as large, a value a channel, or channels."""
    x = net.x
    form = net.pick(("Add", "Sub", "Mul", "Max", "Concat", "Where"))
    other = shape
    if form == "Concat":
        other = (min(net.between(1, 5), net.limit), *shape[1:])
    elif net.chance(0.3):
        other = (shape[0], *[1] * (len(shape) - 1))
    second = _input(net, "another", other)
    if form == "Concat":
        net.x = net.node("Concat", [x, net.x], axis=1)
    elif form == "Where":
        condition = net.node("Greater", [x, net.x])
        net.x = net.node("Where", [condition, x, net.x])
    else:
        net.x = net.node(form, [x, net.x])
    return second


def _input(net: Net, name: str, shape: tuple[int, ...]) -> Fed:
    """Declare an input of reals that may be bytes to the C."""
    spec = net.pick(_SPECS)
    if not spec:
        samples = _reals(net, shape)
        net.input(name, samples)
        return Fed({name: samples}, ())
    codes = _codes(net, shape)
    if spec == "annotated":
        net.input(name, codes.astype(np.float32), annotated=True)
        return Fed({name: codes}, ())
    net.input(name, parse_input_spec(spec)[1].decode(codes))
    return Fed({name: codes}, (f"{name}={spec}",))


def _reals(net: Net, shape: tuple[int, ...]) -> Array:
    """Return samples [8, ...]: zeros, +-1, one-hot, and normal ones, coarse or not."""
    values = net.random.normal(0, 1, (SAMPLES, *shape))
    if net.dyadic:
        values = np.clip(np.round(values * 8) / 8, -2, 2)
    else:
        values[::2] = np.round(values[::2] * 8) / 8
        values[3] *= net.pick((1e3, 1e-3, 1e-20, 1e-42))
    values[4] = 0 if net.chance(0.5) else -0.0
    values[5] = net.pick((1, -1))
    values[6] = np.sign(net.random.normal(0, 1, shape))
    values[7] = 0
    values[7].reshape(-1)[net.between(0, values[7].size - 1)] = 1
    return values.astype(np.float32)


def _codes(net: Net, shape: tuple[int, ...]) -> Array:
    values = net.random.integers(0, 256, (SAMPLES, *shape))
    values[4], values[5] = 0, 255
    values[6] = net.random.choice([0, 255], shape)
    values[7] = net.random.integers(126, 130, shape)
    return values.astype(np.uint8)
