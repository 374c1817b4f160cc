"""The layers whose instructions are counted: 3x3 binary convolutions, bits to bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.backend.program import Layer, Program
from bnncc.compiler import Options, compile_in_memory
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import XnorConv
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.shared_sums import ClassSums, Spread
from bnncc.ir.storage import plane_count
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Family
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.roll_rows import ROLL_ROWS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.targets import Target
from tests.ir.sketch import Sketch

__all__ = ["FORMS", "READS", "Case", "Printed", "printed", "random_weights", "trained_cases"]

FORMS = {"minus": (-1, 1), "zero": (0, 1), "strided": (-1, 2), "valid": (None, 1)}
"""name -> what taps outside of the image hold, None if there are none, and the stride."""

READS = (Element.BIPOLAR, Element.TERNARY, Element.U1, Element.U2, Element.U3, Element.U4)
"""What the layer may convolve; outside of images of codes is 0, whatever the form."""

_LAYER = "the n"
"""The source node of the case's own layer, in front of which another makes its input."""


@dataclass(frozen=True, eq=False)
class Case:
    """One layer with 16x16 outputs.

    Attributes:
        name: of its weights, for people.
        weights: -1, 0 and +1, [channels out, channels in, 3, 3].
        form: one of FORMS.
        size: of the outputs, which are square.
        reads: what it convolves.
        family: of its kernel.
    """

    name: str
    weights: Array
    form: str = "minus"
    size: int = 16
    reads: Element = Element.BIPOLAR
    family: Family = Family.SHARED

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates, the padding's included."""
        return int(self.weights.size) * self.size**2

    def __str__(self) -> str:
        out, channels = self.weights.shape[:2]
        reads = "" if self.reads is Element.BIPOLAR else f" {self.reads.value}"
        return f"{channels}->{out} {self.name} {self.form}{reads} {self.family.value}"


@dataclass(frozen=True, eq=False)
class Printed:
    """A case as C.

    Attributes:
        program, header, source: the program m, that makes the layer's input from bytes.
        layers: those counted, by their indices in the program.
        feed: its input.
        expected: what it must return.
    """

    program: Program
    header: str
    source: str
    layers: tuple[int, ...]
    feed: Array
    expected: Array

    @property
    def counted(self) -> list[Layer]:
        """The layers counted."""
        return [self.program.layers[i] for i in self.layers]

    @property
    def list_bytes(self) -> int:
        """Bytes of the constants of the layers counted."""
        return sum(c.values.nbytes for layer in self.counted for c in layer.constants)

    @property
    def plane_bytes(self) -> int:
        """Bytes of RAM for what these layers read, write and need meanwhile at once."""
        return max(
            sum(a.buffer.nbytes for a in layer.inputs + layer.outputs + layer.scratch)
            for layer in self.counted
        )


def random_weights(channels: int, zeros: float = 0) -> Array:
    """Return seeded random weights [channels, channels, 3, 3], a part of which are 0."""
    random = np.random.default_rng(channels)
    signs = random.choice(np.array([-1, 1], np.int8), (channels, channels, 3, 3))
    signs[random.random(signs.shape) < zeros] = 0
    return signs


def printed(case: Case, target: Target) -> Printed:
    """Return a case as C for a target."""
    graph = _graph(case)
    context = Context(target, families={_LAYER: case.family})
    packed = replace(LOWER_KERNELS.apply(graph, context).graph, stage=Stage.PACKED)
    for step in (SHARE_SUMS, ROLL_ROWS, LEAN_LISTS):
        packed = step.apply(packed, context).graph
    program = lower(packed, "m", ())
    made = {
        node.outputs[0]
        for node in packed.nodes
        if isinstance(node.op, Spread | ClassSums | XnorConv) and _LAYER in node.origin
    }
    layers = [i for i, v in enumerate(program.layers) if v.outputs[0].buffer.tensor in made]
    kind = graph.types["x"]
    feed = np.random.default_rng(0).integers(0, 256, kind.shape).astype(np.uint8)
    (expected,) = interpret.run(packed, {"x": feed}).values()
    return Printed(
        program, render_header(program), render_source(program), tuple(layers), feed, expected
    )


def _graph(case: Case) -> Graph:
    """Return a layer that makes bits from bytes, and the case's; thresholds are random."""
    random = np.random.default_rng(1)
    out, channels = case.weights.shape[:2]
    pad, stride = FORMS[case.form]
    size = case.size * stride + (2 if pad is None else 0)
    margin = 0 if pad is None else 1
    axis = Axis(3, stride, 1, margin, margin)
    s = Sketch(element=Element.U8, shape=(1, 1, size, size))
    same = Window((Axis(3, 1, 1, 1, 1),) * 2)
    first = random.choice(np.array([-1, 1], np.int8), (channels, 1, 3, 3))
    m = s(BinaryConv(same, 1, 0), "x", s.const(first, "v", Element.BIPOLAR), to="m")
    steps = case.reads.largest_code or plane_count(case.reads)
    thresholds = np.sort(random.integers(-100, 101, (channels, steps)), axis=1)
    bits = _stepped(s, m, thresholds, case.reads, "bits")
    kind = Element.BIPOLAR if case.weights.all() else Element.TERNARY
    weights = s.const(case.weights, "w", kind)
    outside = 0 if case.reads.code_bits else pad or 0
    n = s(BinaryConv(Window((axis, axis)), 1, outside), bits, weights, to="n", origin=[_LAYER])
    thresholds = random.integers(-40, 41, (out, 1))
    return s.done(_stepped(s, n, thresholds, Element.BIPOLAR, "y"))


def _stepped(s: Sketch, x: str, thresholds: Array, element: Element, to: str) -> str:
    held = s.const(thresholds, f"{to}.thresholds", Element.I32)
    signed = {Element.BIPOLAR: [-1, 1], Element.TERNARY: [-1, 0, 1]}
    levels = signed.get(element, range(element.largest_code + 1))
    return s(ew.Step(element), x, held, [list(levels)] * len(thresholds), to=to)


def trained_cases(model: Path) -> list[Case]:
    """Return the 3x3 layers of a model that keep the number of channels, with its own weights.

    Raises:
        BnnccError: the model does not compile.
    """
    compiled = compile_in_memory(model, Options(target="generic", kernels=("dense",)))
    graph = compiled.lowered.graph
    cases = []
    for node in graph.nodes:
        if isinstance(node.op, XnorConv) and node.op.window.kernel == (3, 3):
            weights = node.op.integers([graph.constants[node.inputs[1]]])
            if weights.shape[0] == weights.shape[1]:
                cases.append(Case(" ".join(node.origin[:1]) or node.name, weights))
    return cases
