"""What bnncc generates code for: one table of targets, and the pure choice of kernels."""

from __future__ import annotations

from bnncc.targets.kernels import Choice, Kernel, load_kernels, select
from bnncc.targets.table import TARGETS, Target, host_target, target_named

__all__ = [
    "TARGETS",
    "Choice",
    "Kernel",
    "Target",
    "host_target",
    "load_kernels",
    "select",
    "target_named",
]
