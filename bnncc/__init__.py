"""bnncc: compile trained binary neural networks to exact, dependency-free C."""

from __future__ import annotations

from bnncc._version import __version__
from bnncc.certificate import Certificate
from bnncc.compiler import Artifact, Options, compile
from bnncc.errors import (
    BnnccError,
    InternalError,
    ToolchainError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from bnncc.report import LostSignWarning, Report
from bnncc.targets import TARGETS, Target
from bnncc.verification.api import load, verify
from bnncc.verification.result import Verification

__all__ = [
    "TARGETS",
    "Artifact",
    "BnnccError",
    "Certificate",
    "InternalError",
    "LostSignWarning",
    "Options",
    "Report",
    "Target",
    "ToolchainError",
    "UnsupportedModelError",
    "UsageError",
    "Verification",
    "VerificationError",
    "__version__",
    "compile",
    "load",
    "verify",
]
