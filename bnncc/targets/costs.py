"""What work takes on each target: the constants of the cost model, fitted to measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Costs"]


@dataclass(frozen=True)
class Costs:
    """Constants by the names of `bnncc.layouts.work`.

    Attributes:
        unit: of time: "instructions" or "ns".
        time: what each kind of work takes, in that unit.
        code: bytes of code of each kind of layer.
    """

    unit: str
    time: Mapping[str, float]
    code: Mapping[str, float]
