"""What a compile has to tell: which layers became bits, which did not and why, work and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from bnncc.backend.program import Program
from bnncc.certificate import InsertedSign
from bnncc.errors import Diagnostic, printable
from bnncc.ir.graph import Graph
from bnncc.pipeline import Lowered
from bnncc.report.cautions import Caution, cautions
from bnncc.report.layers import Arithmetic, LayerReport, layer_reports, matched_layers
from bnncc.report.others import OtherWork, other_work
from bnncc.report.suspects import Evidence, LostSignWarning, Suspect, lost_sign, suspects

__all__ = [
    "Arithmetic",
    "Caution",
    "Evidence",
    "LayerReport",
    "LostSignWarning",
    "OtherWork",
    "Report",
    "Suspect",
    "find_suspects",
    "make_report",
]

_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Report:
    """The whole compile.

    Attributes:
        model: the C name.
        target: what the code is for.
        layers: every linear layer, in order.
        others: what else the C does, by kind.
        constant_bytes: of flash, by kind.
        source_bytes: of all constants of the source graph.
        arena_bytes, arena_lower_bound: of RAM.
        binary_macs, sign_macs, real_macs: multiply-accumulates a sample: on bits, as additions of
            +-x, and of reals.
        cautions: what the network does not gain.
        notes: decisions taken for the user (batch fixed, ...).
        assumptions: what is assumed of the inputs (sign(0), ...).
        refusals: what nearly was optimised, and why it was left: (source nodes, reason).
        suspects: layers whose input the exporter seems to have left without its sign. With any,
            the file is probably not the model that was trained.
        edits: what was changed in the model as the user asked: the C computes the edited one.
        seconds: of each phase.
    """

    model: str
    target: str
    layers: tuple[LayerReport, ...]
    others: tuple[OtherWork, ...]
    constant_bytes: Mapping[str, int]
    source_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    binary_macs: int
    sign_macs: int
    real_macs: int
    cautions: tuple[Caution, ...]
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    refusals: tuple[tuple[str, str], ...]
    suspects: tuple[Suspect, ...]
    edits: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def flash_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(self.constant_bytes.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates a sample, of all kinds."""
        return self.binary_macs + self.sign_macs + self.real_macs

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What nobody may miss: that the file is probably not the model."""
        return (lost_sign(self.suspects),) if self.suspects else ()

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return asdict(self) | {
            "flash_bytes": self.flash_bytes,
            "suspects": [asdict(suspect) | {"text": suspect.text} for suspect in self.suspects],
        }


def make_report(
    source: Graph,
    lowered: Lowered,
    program: Program,
    *,
    target: str,
    notes: tuple[str, ...],
    seconds: Mapping[str, float],
    parameters: Mapping[str, str] = _NO_PARAMETERS,
    edits: Sequence[InsertedSign] = (),
) -> Report:
    """Return the report of one compile.

    Args:
        source: the graph as the frontend made it.
        lowered: what the pipeline made of it.
        program: what the backend printed.
        target: its name.
        notes: the frontend's.
        seconds: by phase.
        parameters: of linear layers, by source node, what the user calls their weights.
        edits: what was changed in the model before.
    """
    layers = layer_reports(source, lowered, parameters)
    found = _suspects(source, lowered, layers)
    refusals = tuple((", ".join(map(printable, r.origin)), r.reason) for r in lowered.refusals)
    macs = {kind: sum(n.macs for n in layers if n.arithmetic == kind) for kind in Arithmetic}
    return Report(
        model=program.name,
        target=target,
        layers=layers,
        others=other_work(lowered.graph, program),
        constant_bytes=program.constant_bytes,
        source_bytes=sum(array.nbytes for array in source.constants.values()),
        arena_bytes=program.arena_bytes,
        arena_lower_bound=program.arena_lower_bound,
        binary_macs=macs[Arithmetic.BITS],
        sign_macs=macs[Arithmetic.SIGNS],
        real_macs=macs[Arithmetic.REALS],
        cautions=cautions(layers, {suspect.node for suspect in found}),
        notes=notes,
        assumptions=tuple(map(str, lowered.assumptions)),
        refusals=refusals,
        suspects=found,
        edits=tuple(map(str, edits)),
        seconds=seconds,
    )


def find_suspects(
    source: Graph, lowered: Lowered, parameters: Mapping[str, str]
) -> tuple[Suspect, ...]:
    """Return the layers that have probably lost their sign; the arguments are `make_report`'s."""
    return _suspects(source, lowered, layer_reports(source, lowered, parameters))


def _suspects(
    source: Graph, lowered: Lowered, layers: Sequence[LayerReport]
) -> tuple[Suspect, ...]:
    nodes = [node for node, _ in matched_layers(source, lowered.graph)]
    return suspects(source, layers, nodes)
