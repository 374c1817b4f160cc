"""What work takes on each target: the constants of the cost model, fitted to measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Costs"]


@dataclass(frozen=True)
class Costs:
    """Constants by the names of `bnncc.layouts.work` and `bnncc.layouts.code`.

    Attributes:
        unit: of time: "instructions" or "ns".
        time: what each kind of work takes, in that unit.
        code: bytes of each part of functions.
    """

    unit: str
    time: Mapping[str, float]
    code: Mapping[str, float]
