"""What a compile has to tell: which layers became bits, which did not and why, and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnncc.backend.program import Program
from bnncc.errors import printable
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.kernels import RealDense, SignSum, XnorDense
from bnncc.ir.ops.linear import MatMul
from bnncc.pipeline import Lowered

__all__ = ["LayerReport", "Report", "make_report"]

_LAYERS = (XnorDense, SignSum, RealDense)


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of the source model.

    Attributes:
        name: its node in the source model.
        k, channels: reduction length and output channels.
        weights: "binary" or "real".
        activations: what it reads: "bipolar", "ternary", "u8" or "f32".
        on_bits: whether it runs as XNOR and popcount.
        reason: why it is not computed on bits, "" if it is.
        kernel: the micro-kernel.
        source_bytes, packed_bytes: of its weights, before and after.
    """

    name: str
    k: int
    channels: int
    weights: str
    activations: str
    on_bits: bool
    reason: str
    kernel: str
    source_bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class Report:
    """The whole compile.

    Attributes:
        model: the C name.
        target: what the code is for.
        layers: every linear layer, in order.
        constant_bytes: of flash, by kind.
        source_bytes: of all constants of the source graph.
        arena_bytes, arena_lower_bound: of RAM.
        binary_macs, real_macs: multiply-accumulates a sample.
        notes: decisions taken for the user (batch fixed, ...).
        assumptions: what is assumed of the inputs (sign(0), ...).
        refusals: what nearly was optimised, and why it was left: (source nodes, reason).
        seconds: of each phase.
    """

    model: str
    target: str
    layers: tuple[LayerReport, ...]
    constant_bytes: Mapping[str, int]
    source_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    binary_macs: int
    real_macs: int
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    refusals: tuple[tuple[str, str], ...]
    seconds: Mapping[str, float]

    @property
    def flash_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(self.constant_bytes.values())

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return asdict(self) | {"flash_bytes": self.flash_bytes}


def make_report(
    source: Graph,
    lowered: Lowered,
    program: Program,
    *,
    target: str,
    notes: tuple[str, ...],
    seconds: Mapping[str, float],
) -> Report:
    """Return the report of one compile.

    Args:
        source: the graph as the frontend made it.
        lowered: what the pipeline made of it.
        program: what the backend printed.
        target: its name.
        notes: the frontend's.
        seconds: by phase.
    """
    linear = (_layer(source, lowered, n) for n in source.nodes if isinstance(n.op, MatMul))
    layers = [layer for layer in linear if layer]
    refusals = tuple((", ".join(map(printable, r.origin)), r.reason) for r in lowered.refusals)
    return Report(
        model=program.name,
        target=target,
        layers=tuple(layers),
        constant_bytes=program.constant_bytes,
        source_bytes=sum(array.nbytes for array in source.constants.values()),
        arena_bytes=program.arena_bytes,
        arena_lower_bound=program.arena_lower_bound,
        binary_macs=program.binary_macs,
        real_macs=program.real_macs,
        notes=notes,
        assumptions=tuple(map(str, lowered.assumptions)),
        refusals=refusals,
        seconds=seconds,
    )


def _layer(source: Graph, lowered: Lowered, node: Node) -> LayerReport | None:
    """Return one layer's row; None where nothing needed the layer, and it is gone."""
    weights = source.types[node.inputs[1]]
    kernel = next(
        (
            n
            for n in lowered.graph.nodes
            if isinstance(n.op, _LAYERS) and set(node.origin) <= set(n.origin)
        ),
        None,
    )
    if kernel is None or not isinstance(kernel.op, _LAYERS):
        return None
    x, packed = (lowered.graph.types[name] for name in kernel.inputs[:2])
    refusal = next((r.reason for r in lowered.refusals if r.origin == node.origin), "")
    if isinstance(kernel.op, SignSum):
        refusal = "its input is real: packed weights, float additions"
    return LayerReport(
        name=printable(node.origin[0]),
        k=weights.shape[1],
        channels=weights.shape[0],
        weights="real" if isinstance(kernel.op, RealDense) else "binary",
        activations=x.element.value,
        on_bits=isinstance(kernel.op, XnorDense),
        reason=refusal,
        kernel=kernel.op.kernel,
        source_bytes=weights.nbytes,
        packed_bytes=packed.nbytes,
    )
