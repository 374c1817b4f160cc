"""What bnncc generates code for: one table of targets, and the pure choice of kernels."""

from __future__ import annotations

from bnncc.targets.kernels import Choice, Kernel, kernel_named, load_kernels, select
from bnncc.targets.table import TARGETS, Slices, Target, host_target, target_named

__all__ = [
    "TARGETS",
    "Choice",
    "Kernel",
    "Slices",
    "Target",
    "host_target",
    "kernel_named",
    "load_kernels",
    "select",
    "target_named",
]
