"""What bnncc generates code for: one table of targets, and the pure choice of kernels."""

from __future__ import annotations

from bnncc.targets.costs import Costs
from bnncc.targets.fitted import FITTED
from bnncc.targets.kernels import Choice, Kernel, kernel_named, load_kernels, select
from bnncc.targets.table import TARGETS, Slices, Target, host_target, target_named

__all__ = [
    "TARGETS",
    "Choice",
    "Costs",
    "Kernel",
    "Slices",
    "Target",
    "costs_of",
    "host_target",
    "kernel_named",
    "load_kernels",
    "select",
    "target_named",
]

_LIKE = {"generic": ("riscv32",), "armv7-a": ("cortex-m4", "aarch64")}
"""Targets that are not measured -> whose costs they take: of two, the second's where it has them.

armv7-a has the slices of aarch64, and the 32-bit words of cortex-m4 beside them.
"""


def costs_of(target: Target) -> Costs:
    """Return what work takes on a target."""
    found = [FITTED[name] for name in _LIKE.get(target.name, (target.name,))]
    time = {name: value for costs in found for name, value in costs.time.items()}
    code = {name: value for costs in found for name, value in costs.code.items()}
    return Costs(found[0].unit, time, code)
