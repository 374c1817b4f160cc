"""What a verification found, in numbers; imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnncc.errors import Diagnostic

__all__ = ["LayerCheck", "OutputCheck", "Verification"]


@dataclass
class LayerCheck:
    """One stored tensor of the compiled model.

    Attributes:
        name: the tensor, by its name in the source model.
        compared: bits compared with the float reference; 0 where the tensor is not quantised.
        mismatches: differ though float32 decides: a failure.
        undecided: differ within float32 rounding of a decision.
        assumed: how often the reference is exactly 0 and sign(0) was assumed.
        c_mismatches: stored values of the C that differ from the interpreter's, of the packed graph
            bit for bit, or of the folded graph by value: a failure.
        first: where the first failure is, "" if there is none.
    """

    name: str
    compared: int = 0
    mismatches: int = 0
    undecided: int = 0
    assumed: int = 0
    c_mismatches: int = 0
    first: str = ""


@dataclass
class OutputCheck:
    """One output of the model.

    Attributes:
        name: by its name in the source model.
        values: how many were compared.
        mismatches: on the oracle's own inputs to the last layer, beyond what rounding explains.
        c_mismatches: of the C against the interpreter: a failure.
        max_abs_error: of the C against the oracle, end to end.
        top1_agreement: how often both rank the same class first, if it is a vector of scores.
        accuracy_reference, accuracy_c: with labels.
    """

    name: str
    values: int = 0
    mismatches: int = 0
    c_mismatches: int = 0
    max_abs_error: float = 0.0
    top1_agreement: float | None = None
    accuracy_reference: float | None = None
    accuracy_c: float | None = None


@dataclass(frozen=True)
class Verification:
    """The result of a verification; `ok` is the verdict.

    Attributes:
        samples, source: how many, and where from.
        compiler: what built the C.
        layers, outputs: what was compared.
        edits: what the user had changed in the model file: the verdict is about the file so edited.
        warnings: why the file is probably not the model that was trained, of which the verdict
            says nothing.
    """

    samples: int
    source: str
    compiler: str
    layers: tuple[LayerCheck, ...]
    outputs: tuple[OutputCheck, ...]
    edits: tuple[str, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing differs that float32 rounding or a stated assumption does not explain."""
        failed = [check.mismatches or check.c_mismatches for check in self.layers]
        failed += [check.mismatches or check.c_mismatches for check in self.outputs]
        return not any(failed)

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return {"ok": self.ok} | asdict(self)
