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

_LIKE = {"generic": "riscv32"}
"""Targets that are not measured -> whose costs they take."""


def costs_of(target: Target) -> Costs:
    """Return what work takes on a target."""
    return FITTED[_LIKE.get(target.name, target.name)]
