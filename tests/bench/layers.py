"""Single layers to measure: 3x3 binary convolutions, as the compiler prints them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.backend.program import Program
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import XnorConv
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.shared_sums import ClassSums, Spread
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, Family, SignZero
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.targets import Target, target_named
from tests.ir.sketch import Sketch
from tests.passes.convolutions import HALVED, SAME

__all__ = ["FORMS", "LayerCase", "Printed", "Variant", "as_networks_scale", "printed", "variant"]

FORMS = ("minus", "zero", "strided", "residual")
"""Padded with -1, or with 0, bits to bits; padded with 0, of every other pixel; padded with 0, with
a real shortcut, to reals and bits."""


@dataclass(frozen=True)
class LayerCase:
    """A 3x3 layer that keeps its image's channels, and its size unless it is strided.

    Attributes:
        channels, size: of the result, which is square.
        form: one of FORMS.
    """

    channels: int
    size: int
    form: str = "minus"

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates of one call, the padding's included."""
        return 9 * self.channels**2 * self.size**2

    def __str__(self) -> str:
        return f"{self.channels}@{self.size}x{self.size}"


@dataclass(frozen=True)
class Printed:
    """A layer in C, in a program that makes what it reads first.

    Attributes:
        program, header, source: the program.
        indices: of what makes up the layer, among the layers of the program.
        kernel: its micro-kernel, or how its sums are shared.
    """

    program: Program
    header: str
    source: str
    indices: tuple[int, ...]
    kernel: str


@dataclass(frozen=True)
class Variant:
    """What a layer is compiled for.

    Attributes:
        target: the target.
        family: of its kernels.
    """

    target: Target
    family: Family = Family.DENSE


def variant(text: str) -> Variant:
    """Return dense kernels of `TARGET`, of `TARGET:ISA` only those and scalar; or `TARGET:shared`.

    Raises:
        UsageError: BNN020, there is no such target.
    """
    name, _, isa = text.partition(":")
    target = target_named(name)
    if isa == Family.SHARED.value:
        return Variant(target, Family.SHARED)
    return Variant(replace(target, isas=tuple(dict.fromkeys((isa, "scalar")))) if isa else target)


def printed(case: LayerCase, of: Variant, name: str) -> Printed:
    """Return a layer with seeded random weights and thresholds as C.

    A layer that shares sums is all from planes of bits to planes of bits, or planar numbers.
    """
    context = Context(of.target, SignZero.AUTO, families={"*": of.family})
    canonical = CANONICAL_AFFINE.apply(_graph(case), context).graph
    packed = replace(LOWER_KERNELS.apply(canonical, context).graph, stage=Stage.PACKED)
    packed = SHARE_SUMS.apply(packed, context).graph
    program = lower(packed, name, ())
    results = [layer.outputs[0].buffer.tensor for layer in program.layers]
    nodes = [node for node in packed.nodes if isinstance(node.op, (XnorConv, Spread, ClassSums))]
    indices = tuple(results.index(node.outputs[0]) for node in nodes)
    kernel = _kernel(nodes[-1].op)
    return Printed(program, render_header(program), render_source(program), indices, kernel)


def _kernel(op: object) -> str:
    if isinstance(op, ClassSums):
        return f"shared by {op.k}, {op.taps.lanes} lanes"
    assert isinstance(op, XnorConv)
    return op.kernel


def _graph(case: LayerCase) -> Graph:
    random = np.random.default_rng(case.channels)
    channels, stride = case.channels, 2 if case.form == "strided" else 1
    s = Sketch(shape=(1, channels, stride * case.size, stride * case.size))
    levels = [[-1, 1]] * channels
    signs = s(ew.Step(Element.BIPOLAR), "x", np.zeros((channels, 1)), levels, to="signs")
    shape = (channels, channels, 3, 3)
    w = s.const(random.choice(np.array([-1, 1], np.int8), shape), "w", Element.BIPOLAR)
    pad = -1 if case.form == "minus" else 0
    n = s(BinaryConv(HALVED if stride == 2 else SAME, 1, pad), signs, w, to="n")
    if case.form != "residual":
        t = s.const(random.integers(-20, 21, (channels, 1)), "t", Element.I32)
        return s.done(s(ew.Step(Element.BIPOLAR), n, t, levels, to="y"))
    total = s(ew.Add(), as_networks_scale(s, n, random, channels, "r"), "x", to="total")
    bits = s(ew.Step(Element.BIPOLAR), total, np.zeros((channels, 1)), levels, to="y")
    return s.done(total, bits)


def as_networks_scale(
    s: Sketch, n: str, random: np.random.Generator, channels: int, to: str
) -> str:
    """Return an accumulator times its weights' alpha, then normalised: what residual layers do."""
    alpha = np.float32(random.uniform(0.02, 0.05, channels))
    rows = [alpha, np.zeros(channels), np.zeros(channels)]
    value = s(ew.Dequantize(), n, *rows, to=f"{to} real", elements=[Element.F64] * 3)
    mean, variance = random.standard_normal(channels), random.uniform(0.5, 2, channels)
    gamma, beta = random.uniform(0.5, 1.5, channels), random.standard_normal(channels) / 3
    return s(ew.BatchNormalization(1e-5), value, gamma, beta, mean, variance, to=to)
