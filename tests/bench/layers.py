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
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, SignZero
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import Target, target_named
from tests.ir.sketch import Sketch
from tests.passes.convolutions import SAME

__all__ = ["FORMS", "LayerCase", "Printed", "printed", "variant"]

FORMS = ("minus", "zero", "residual")
"""Padded with -1 or 0, bits to bits; padded with 0, with a real shortcut, to reals and bits."""


@dataclass(frozen=True)
class LayerCase:
    """A 3x3 layer of stride 1 that keeps its image's size and channels.

    Attributes:
        channels, size: of the image, which is square.
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
    """A layer in C, in a program that packs its input first.

    Attributes:
        program, header, source: the program.
        index: the layer's, among those of the program.
        kernel: its micro-kernel.
    """

    program: Program
    header: str
    source: str
    index: int
    kernel: str


def variant(text: str) -> Target:
    """Return the target `TARGET`, or of `TARGET:ISA` the one that has no other kernels but scalar.

    Raises:
        UsageError: BNN020, there is no such target.
    """
    name, _, isa = text.partition(":")
    target = target_named(name)
    return replace(target, isas=tuple(dict.fromkeys((isa, "scalar")))) if isa else target


def printed(case: LayerCase, target: Target, name: str) -> Printed:
    """Return a layer with seeded random weights and thresholds as C for a target."""
    context = Context(target, SignZero.AUTO)
    packed = replace(LOWER_KERNELS.apply(_graph(case), context).graph, stage=Stage.PACKED)
    program = lower(packed, name, ())
    (node,) = (node for node in packed.nodes if isinstance(node.op, XnorConv))
    results = [layer.outputs[0].buffer.tensor for layer in program.layers]
    index = results.index(node.outputs[0])
    return Printed(program, render_header(program), render_source(program), index, node.op.kernel)


def _graph(case: LayerCase) -> Graph:
    random = np.random.default_rng(case.channels)
    channels = case.channels
    s = Sketch(shape=(1, channels, case.size, case.size))
    levels = [[-1, 1]] * channels
    signs = s(ew.Step(Element.BIPOLAR), "x", np.zeros((channels, 1)), levels, to="signs")
    shape = (channels, channels, 3, 3)
    w = s.const(random.choice(np.array([-1, 1], np.int8), shape), "w", Element.BIPOLAR)
    pad = -1 if case.form == "minus" else 0
    n = s(BinaryConv(SAME, 1, pad), signs, w, to="n")
    if case.form != "residual":
        t = s.const(random.integers(-20, 21, (channels, 1)), "t", Element.I32)
        return s.done(s(ew.Step(Element.BIPOLAR), n, t, levels, to="y"))
    rows = [random.standard_normal(channels) / 30, random.standard_normal(channels) / 3]
    real = s(ew.Dequantize(), n, *rows, np.zeros(channels), to="r", elements=[Element.F64] * 3)
    total = s(ew.Add(), real, "x", to="total")
    bits = s(ew.Step(Element.BIPOLAR), total, np.zeros((channels, 1)), levels, to="y")
    return s.done(total, bits)
