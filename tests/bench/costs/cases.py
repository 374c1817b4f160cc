"""Single layers of real networks, in both kernel families, to hold the cost model against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.backend.program import Program
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Family
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.roll_rows import ROLL_ROWS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.targets import Target
from tests.bench.layers import as_networks_scale
from tests.ir.sketch import Sketch

__all__ = ["LARGE", "SMALL", "Case", "Printed", "printed"]


@dataclass(frozen=True)
class Case:
    """A binary convolution, behind a small layer that makes its input of bytes.

    Attributes:
        channels, out: of its input and its result.
        size: of its result, rows and columns.
        kernel, stride, groups: of the window.
        pad: what lies outside of the image, -1, 0 or 1; None for no padding.
        form: "bits", to bits by comparison; "pool", the same and pooled by 2x2; "real", to numbers,
            with a shortcut where the sizes allow one; "signs", to bits of such numbers.
    """

    channels: int
    out: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    pad: int | None = 0
    form: str = "bits"

    @property
    def window(self) -> Window:
        """The window."""
        margin = 0 if self.pad is None else self.kernel // 2
        return Window((Axis(self.kernel, self.stride, 1, margin, margin),) * 2)

    @property
    def input_size(self) -> tuple[int, int]:
        """Rows and columns of its input."""
        less = self.kernel - self.stride if self.pad is None else 0
        rows, columns = (n * self.stride + less for n in self.size)
        return rows, columns

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        groups = f" in {self.groups}" if self.groups > 1 else ""
        size = "x".join(map(str, self.size))
        pad = "no pad" if self.pad is None else f"pad {self.pad}"
        window = f"{self.kernel}x{self.kernel}{stride}"
        return f"{window} {self.channels}->{self.out}{groups} {size} {pad} {self.form}"


def _square(channels: int, out: int, size: int, **more: object) -> Case:
    return replace(Case(channels, out, (size, size)), **more)


SMALL: tuple[Case, ...] = (
    _square(16, 16, 28),
    _square(16, 32, 14, stride=2),
    _square(32, 32, 14, pad=-1, form="pool"),
    _square(32, 64, 7, pad=None),
    _square(64, 64, 7),
    _square(8, 8, 24, pad=None),
    _square(24, 40, 10, form="real"),
    _square(32, 32, 16, form="real"),
    _square(32, 32, 16, form="signs"),
    _square(16, 16, 20, form="signs"),
    _square(64, 64, 14, kernel=1),
    _square(32, 96, 8, kernel=1),
    _square(16, 16, 12, kernel=5, pad=-1),
    _square(32, 32, 12, groups=4),
    _square(64, 64, 16),
    _square(64, 64, 16, pad=-1, form="pool"),
    _square(64, 64, 8, form="real"),
    _square(64, 128, 8, stride=2, pad=-1),
    _square(64, 32, 4),
    Case(16, 24, (1, 33), pad=-1),
    Case(16, 16, (6, 36), stride=2),
    Case(16, 24, (5, 60), stride=2),
    _square(16, 16, 20, pad=-1, form="pool"),
    _square(128, 64, 8, form="pool"),
    _square(8, 16, 28, form="pool"),
    _square(40, 24, 6, form="pool"),
    _square(16, 16, 28, form="real"),
    _square(48, 48, 10, form="real"),
    _square(40, 40, 12, pad=1, form="signs"),
    _square(24, 24, 17, pad=None),
    _square(16, 24, 20, stride=2),
    Case(24, 24, (9, 11)),
    _square(128, 128, 3, pad=None),
    _square(96, 64, 2),
)
"""Layers of networks for microcontrollers."""

LARGE: tuple[Case, ...] = (
    _square(64, 64, 56, form="real"),
    _square(64, 64, 56, form="signs"),
    _square(64, 128, 28, stride=2, form="real"),
    _square(128, 128, 28, form="real"),
    _square(128, 256, 14, stride=2, form="real"),
    _square(256, 256, 14, form="real"),
    _square(256, 256, 14, form="signs"),
    _square(256, 512, 7, stride=2, form="real"),
    _square(512, 512, 7, form="real"),
    _square(512, 512, 7, form="signs"),
    _square(64, 64, 28, pad=None, form="pool"),
    _square(64, 128, 12, pad=None),
    _square(128, 128, 10, pad=None, form="pool"),
    _square(128, 256, 3, pad=None),
    _square(256, 256, 1, pad=None),
    _square(64, 64, 32, pad=-1),
    _square(128, 128, 32, pad=-1, form="pool"),
    _square(256, 256, 16, pad=-1),
    _square(128, 256, 28, kernel=1),
    _square(256, 256, 14, kernel=1, form="real"),
    _square(64, 64, 28, groups=8),
    _square(128, 128, 16, stride=2, form="signs"),
    _square(32, 32, 33, kernel=5),
    Case(48, 80, (24, 20), form="real"),
    _square(256, 256, 7),
)
"""Those of Bi-Real-18 and of CNV, and others of their size."""


@dataclass(frozen=True, eq=False)
class Printed:
    """A case as C in one kernel family.

    Attributes:
        case, family: which.
        program, header, source: the program m, or of another name.
        layers: all of the program's, by their indices.
        feed: its input.
        expected: what it must return.
    """

    case: Case
    family: Family
    program: Program
    header: str
    source: str
    layers: tuple[int, ...]
    feed: Array
    expected: Array


def printed(case: Case, family: Family, target: Target, name: str = "m") -> Printed:
    """Return a case as C for a target."""
    graph = graph_of(case)
    context = Context(target, families={"the n": family})
    canonical = CANONICAL_AFFINE.apply(graph, context).graph
    packed = replace(LOWER_KERNELS.apply(canonical, context).graph, stage=Stage.PACKED)
    for step in (SHARE_SUMS, ROLL_ROWS, LEAN_LISTS):
        packed = step.apply(packed, context).graph
    program = lower(packed, name, ())
    kind = graph.types["x"]
    feed = np.random.default_rng(0).integers(0, 256, kind.shape).astype(np.uint8)
    (expected,) = interpret.run(packed, {"x": feed}).values()
    return Printed(
        case,
        family,
        program,
        render_header(program),
        render_source(program),
        tuple(range(len(program.layers))),
        feed,
        expected,
    )


def graph_of(case: Case) -> Graph:
    """Return a layer that makes reals and bits of bytes, and the case's; constants are random."""
    random = np.random.default_rng(1)
    s = Sketch(element=Element.U8, shape=(1, 1, *case.input_size))
    same = Window((Axis(3, 1, 1, 1, 1),) * 2)
    first = random.choice(np.array([-1, 1], np.int8), (case.channels, 1, 3, 3))
    m = s(BinaryConv(same, 1, 0), "x", s.const(first, "v", Element.BIPOLAR), to="m")
    shape = (case.out, case.channels // case.groups, case.kernel, case.kernel)
    weights = s.const(
        random.choice(np.array([-1, 1], np.int8), shape), "w", element=Element.BIPOLAR
    )
    conv = BinaryConv(case.window, case.groups, case.pad or 0)
    if case.form in ("bits", "pool"):
        bits = _signs(s, m, random.integers(-100, 101, (case.channels, 1)), "bits")
        n = s(conv, bits, weights, to="n")
        y = _signs(s, n, random.integers(-9, 10, (case.out, 1)), "y")
        pool = MaxPool(Window((Axis(2, 2),) * 2))
        return s.done(s(pool, y, to="p") if case.form == "pool" else y)
    shortcut = as_networks_scale(s, m, random, case.channels, "r")
    bits = s(
        ew.Step(Element.BIPOLAR),
        shortcut,
        np.zeros((case.channels, 1)),
        _levels(case.channels),
        to="bits",
    )
    y = as_networks_scale(s, s(conv, bits, weights, to="n"), random, case.out, "z")
    if s.builder.types[y].shape == s.builder.types[shortcut].shape:
        y = s(ew.Add(), y, shortcut, to="total")
    if case.form == "signs":
        limits = random.standard_normal((case.out, 1))
        y = s(ew.Step(Element.BIPOLAR), y, limits, _levels(case.out), to="y")
    return s.done(y)


def _signs(s: Sketch, x: str, thresholds: Array, to: str) -> str:
    held = s.const(thresholds, f"{to}.thresholds", Element.I32)
    return s(ew.Step(Element.BIPOLAR), x, held, _levels(len(thresholds)), to=to)


def _levels(channels: int) -> Sequence[Sequence[int]]:
    return [[-1, 1]] * channels
