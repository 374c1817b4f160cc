"""Networks drawn at random: what the C computes is what the interpreter computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnncc.errors import UnsupportedModelError
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.types import Element
from bnncc.passes.base import SignZero
from bnncc.targets import TARGETS
from tests.backend.toolchain import assert_same_bits, callable_model
from tests.backend.zoo import Emitted, Model, Net, emit, inputs

WIDTHS = [*range(1, 10), 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 100, 127, 128, 129]
LEVELS = ["-O0", "-O2", "-O3", "-O3 -march=native", "-Os", "-O3 -std=c99 -march=native"]


def _weights(net: Net, channels: int, k: int) -> np.ndarray:
    signs = net.signs(channels, k)
    match net.random.integers(0, 5):
        case 0:
            return signs * net.random.uniform(0.01, 1, (channels, 1)).astype(np.float32)
        case 1:
            return signs * np.float32(0.25)
        case 2:
            return net.reals(channels, k)
        case _:
            return signs


def _activation(net: Net, x: str) -> str:
    width = net.width(x)
    match net.random.integers(0, 7):
        case 0:
            slope = net.constant(net.random.uniform(-1, 1, width))
            return net.sign(net.op(ew.PRelu(), x, slope))
        case 1:
            return net.op(ew.Clip(-1.0, 1.0), x)
        case 2:
            jump = net.op(ew.Greater(), x, net.constant(net.reals(width)))
            return net.op(ew.Cast(Element.F32), jump)
        case 3:
            return net.sign(net.op(ew.Add(), x, net.constant(net.random.integers(-2, 3, width))))
        case 4:
            return net.op(ew.LeakyRelu(float(net.random.uniform(-0.5, 0.5))), x)
        case _:
            jump = net.op(ew.GreaterOrEqual(), x, net.constant(0.0))
            return net.op(ew.Where(), jump, net.constant(1.0), net.constant(-1.0))


def _random_model(seed: int) -> Model:
    net = Net(seed)
    draw = net.random
    if draw.random() < 0.3:
        x = net.input("x", int(draw.choice(WIDTHS)), element=Element.U8)
        x = net.op(ew.Cast(Element.F32), x)
        x = net.op(ew.Mul(), x, net.constant(np.float32(draw.choice([1, 1 / 255, 0.007843137]))))
        x = net.op(ew.Add(), x, net.constant(np.float32(draw.choice([0, -1, -0.5]))))
    else:
        x = net.input("x", int(draw.choice(WIDTHS)))
        if draw.random() < 0.5:
            x = net.sign(x)
    outputs = []
    for _ in range(draw.integers(1, 4)):
        channels = int(draw.choice(WIDTHS))
        x = net.dense(x, channels, _weights(net, channels, net.width(x)))
        if draw.random() < 0.7:
            x = net.batch_norm(x, float(draw.uniform(0.1, 5)))
        if draw.random() < 0.15:
            outputs.append(x)
        x = _activation(net, x)
    channels = int(draw.choice(WIDTHS))
    outputs.append(net.dense(x, channels, _weights(net, channels, net.width(x))))
    zero = list(SignZero)[draw.integers(0, len(SignZero))]
    return Model(net.build(*dict.fromkeys(outputs)), zero)


def compiled(seed: int) -> Emitted | None:
    """Return one random model as C, or None where bnncc says why it has no form for it."""
    target = TARGETS[seed % len(TARGETS)].name
    try:
        return emit(_random_model(seed), f"model{seed}", target)
    except UnsupportedModelError:
        return None


def check(e: Emitted, seed: int, compiler: str, folder: Path) -> None:
    target = TARGETS[seed % len(TARGETS)]
    own = target.cflags if target.name.startswith("x86") else ()  # others' C is portable
    flags = [*LEVELS[seed % len(LEVELS)].split(), *own]
    feeds = _feeds(e.graph, seed)
    call = callable_model(compiler, e, folder, *flags)
    assert_same_bits(call(feeds), interpret.run(e.graph, feeds))


def _feeds(graph: Graph, seed: int) -> dict:
    feeds = inputs(graph, 24, seed)
    for name, values in feeds.items():
        if values.dtype == np.float32:  # sums of 1e30 hide everything else: keep them in some
            values[8:] = np.clip(values[8:], -3, 3)
        feeds[name] = values
    return feeds


@pytest.mark.parametrize("seed", range(6))
def test_random_model(any_cc: str, tmp_path: Path, seed: int) -> None:
    e = compiled(seed)
    assert e is not None
    check(e, seed, any_cc, tmp_path)


SEEDS = range(100, 220)
# What the two tests at the end are about.


@pytest.mark.slow
def test_many_random_models(cc: str, tmp_path: Path) -> None:
    models = {seed: compiled(seed) for seed in SEEDS}
    assert sum(e is None for e in models.values()) < 10  # few are refused, or this tests nothing
    for seed, e in models.items():
        if e is not None:
            check(e, seed, cc, tmp_path / str(seed))
