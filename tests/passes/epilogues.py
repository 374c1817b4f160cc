"""Layers whose epilogue exists twice: as nodes of a graph, and as scalar Python arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bnncc.ir.expression import Chain, trace
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryDense
from bnncc.ir.types import Array, Element
from tests.ir.oracles import f32, normalised
from tests.ir.sketch import TINY, F, Sketch

Rows = Sequence[float]


@dataclass(frozen=True)
class Link:
    """One step of an epilogue: `spell` appends it to a graph, `value` is it for one number."""

    spell: Callable[[Sketch, str], str]
    value: Callable[[float, int], np.float32]


def _at(rows: Rows, c: int) -> float:
    return float(F(rows[c]))


def bn(gamma: Rows, beta: Rows, mean: Rows, variance: Rows, epsilon: float = 1e-5) -> Link:
    s = (gamma, beta, mean, variance)
    return Link(
        lambda sketch, x: sketch.batch_norm(x, s, epsilon),
        lambda v, c: normalised(v, [_at(rows, c) for rows in s], epsilon),
    )


def mul(rows: Rows) -> Link:
    return Link(lambda s, x: s(ew.Mul(), x, rows), lambda v, c: f32(v * _at(rows, c)))


def add(rows: Rows) -> Link:
    return Link(lambda s, x: s(ew.Add(), rows, x), lambda v, c: f32(v + _at(rows, c)))


def sub(rows: Rows) -> Link:
    return Link(lambda s, x: s(ew.Sub(), x, rows), lambda v, c: f32(v - _at(rows, c)))


def prelu(slopes: Rows) -> Link:
    return Link(
        lambda s, x: s(ew.PRelu(), x, slopes),
        lambda v, c: f32(v) if v > 0 else f32(v * _at(slopes, c)),
    )


def leaky(alpha: float) -> Link:
    return Link(
        lambda s, x: s(ew.LeakyRelu(alpha), x),
        lambda v, c: f32(v) if v >= 0 else f32(v * float(F(alpha))),
    )


def clip(low: float, high: float) -> Link:
    return Link(
        lambda s, x: s(ew.Clip(low, high), x),
        lambda v, c: f32(min(float(F(high)), max(float(F(low)), v))),
    )


def hard_sigmoid(alpha: float, beta: float) -> Link:
    def value(v: float, c: int) -> np.float32:
        line = f32(float(f32(v * float(F(alpha)))) + float(F(beta)))
        return f32(min(1.0, max(0.0, float(line))))

    return Link(lambda s, x: s(ew.HardSigmoid(alpha, beta), x), value)


def tanh() -> Link:
    return Link(lambda s, x: s(ew.Tanh(), x), lambda v, c: f32(math.tanh(v)))


def absolute() -> Link:
    return Link(lambda s, x: s(ew.Abs(), x), lambda v, c: f32(abs(v)))


SIGN = ([[0.0, float(TINY)]], [[-1.0, 0.0, 1.0]])
AT_LEAST_0 = ([[0.0]], [[-1.0, 1.0]])


@dataclass(frozen=True)
class Layer:
    """x -> BinaryDense -> Dequantize (unless x is real) -> links -> Step "y"."""

    element: Element
    k: int
    links: Sequence[Link]
    step: tuple[Sequence[Rows], Sequence[Rows]] = AT_LEAST_0
    to: Element = Element.BIPOLAR
    channels: int = 8
    scale: Rows = (1.0,) * 8
    shift: Rows = (0.0,) * 8
    slack: Rows = (0.0,) * 8
    seed: int = 0
    weights: Array = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        weights = random.choice(np.array([-1, 1], np.int8), (self.channels, self.k))
        object.__setattr__(self, "weights", weights)

    def sketch(self) -> Sketch:
        s = Sketch(self.k, self.element)
        last = s(BinaryDense(), "x", s.const(self.weights, "w", Element.BIPOLAR), to="n")
        if self.element is not Element.F32:
            rows = (self.scale, self.shift, self.slack)
            doubles = [s.const(row[: self.channels], "d", Element.F64) for row in rows]
            last = s(ew.Dequantize(), last, *doubles, to="v")
        for link in self.links:
            last = link.spell(s, last)
        s(ew.Step(self.to), last, *self.step, to="y")
        return s

    def graph(self) -> Graph:
        return self.sketch().done("y")

    def chain(self) -> Chain:
        chain = trace(self.graph(), "y", "n")
        assert chain is not None
        return chain

    def accumulators(self) -> list[int]:
        """Every integer that a sum of K operands +-x can be."""
        match self.element:
            case Element.BIPOLAR:
                return list(range(-self.k, self.k + 1, 2))
            case Element.TERNARY:
                return list(range(-self.k, self.k + 1))
            case _:
                return list(range(-255 * self.k, 255 * self.k + 1))

    def value(self, n: float, c: int) -> np.float32:
        """The epilogue's value before its Step, one rounded operation after the other."""
        v = f32(n)
        if self.element is not Element.F32:
            v = f32(n * float(self.scale[c]) + float(self.shift[c]))
        for link in self.links:
            v = link.value(float(v), c)
        return v

    def level(self, n: float, c: int) -> float:
        return self.level_of(float(self.value(n, c)), c)

    def level_of(self, value: float, c: int) -> float:
        thresholds, levels = (rows[c if len(rows) > 1 else 0] for rows in self.step)
        return float(F(levels[sum(1 for t in thresholds if float(F(t)) <= value)]))


# Of eight channels: ordinary, falling, gamma 0 of both signs, tiny gamma, tiny variance, ties.
GAMMA = (1.3, -0.9, 0.0, -0.0, 1e-30, -2.0, 0.5, -1.0)
BETA = (0.2, -0.4, -0.5, 0.0, 0.0, 0.1, 0.0, 0.0)
MEAN = (-0.7, 1.9, 3.0, 1.0, -2.5, 0.3, 1.0, 0.0)
VARIANCE = (2.1, 0.5, 1.0, 1.0, 0.3, 1e-12, 6e-8, 1.0)
HOSTILE = bn(GAMMA, BETA, MEAN, VARIANCE)

# beta 0 and the mean on an accumulator: the value there is 0 or what rounding leaves of it.
TIES = bn(
    (1, -1, 0.3, -0.7, 1.7, -0.1, 1, -1),
    (0,) * 8,
    (0, 0, 1, -1, 2, -2, 3, 63),
    (1, 1, 0.1, 0.2, 0.3, 1e-6, 1, 1),
)

ALPHAS = (0.1, 0.013, 1 / 3, 0.7, 1.5, 2**-10, 0.25, 3e-5)

QUANTISER = (
    [
        [-1.0, 0.0, 1.0],
        [-0.5, 0.25, 2.0],
        [0, 0, 0],
        [-1, 1, 1],
        [0, 1, 2],
        [0, 1, 2],
        [-9, 0, 9],
        [-1e30, 0, 1e30],
    ],
    [[0.0, 1.0, 2.0, 3.0]] * 4 + [[3.0, 2.0, 1.0, 0.0]] * 2 + [[0.0, 1.0, 0.0, 1.0]] * 2,
)

ALPHA_32 = tuple(float(F(a)) for a in ALPHAS)


def epilogues(element: Element, k: int) -> dict[str, Layer]:
    """Return layers with every kind of epilogue, for one operand element and length."""
    half = (-0.5, 0.25, -2.0, -0.1, -1e-3, 0.0, -1.0, 1.0)
    small = (0.3, -0.3, 0.01, -2.0, 0.0, 1.0, -1.0, 0.5)
    mild = bn(small[::-1], BETA, MEAN, (1.0, 4.0, 9.0, 0.1, 25.0, 1.0, 2.0, 3.0))
    return {
        "sign(bn)": Layer(element, k, [HOSTILE]),
        "three-level sign(bn)": Layer(element, k, [HOSTILE], SIGN, Element.TERNARY),
        "ties": Layer(element, k, [TIES]),
        "three-level ties": Layer(element, k, [TIES], SIGN, Element.TERNARY),
        "no epilogue": Layer(element, k, [], SIGN, Element.TERNARY),
        "bias": Layer(element, k, [add(small)], SIGN, Element.TERNARY),
        "alpha": Layer(element, k, [HOSTILE], scale=ALPHA_32),
        "alpha and shift": Layer(element, k, [TIES], scale=ALPHAS, shift=MEAN),
        "prelu": Layer(element, k, [mild, prelu(half), sub([0.3] * 8)]),
        "abs": Layer(element, k, [mild, absolute(), add([-0.25] * 8)], SIGN, Element.TERNARY),
        "hardtanh": Layer(element, k, [HOSTILE, clip(-1, 1)], SIGN, Element.TERNARY),
        "quantiser": Layer(element, k, [mild, clip(-1, 1), mul(ALPHAS)], QUANTISER, Element.F32),
        "hardsigmoid": Layer(element, k, [mild, hard_sigmoid(0.2, 0.5)], ([[0.5]], [[-1, 1]])),
        "leaky": Layer(element, k, [mild, leaky(0.01), add(small)]),
        "tanh": Layer(element, k, [mild, tanh()], ([[0.3]], [[1, -1]])),
    }
