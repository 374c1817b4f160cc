"""The targets. Another one is another row."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from bnncc.errors import UsageError, printable

__all__ = ["TARGETS", "Target", "host_target", "target_named"]


@dataclass(frozen=True)
class Target:
    """A processor, as far as generated code depends on it.

    Attributes:
        name: as given to `--target`.
        description: for people.
        word_bits: of the words that activations and weights are packed in.
        lanes: how many float32 sums a core keeps in registers at once.
        isas: instruction sets of which kernels may be used, in order of preference.
    """

    name: str
    description: str
    word_bits: int
    lanes: int
    isas: tuple[str, ...] = ("scalar",)


TARGETS: tuple[Target, ...] = (
    Target("generic", "any C99 compiler, 32-bit words", 32, 8),
    Target("x86-64", "x86-64, popcount instruction used where the compiler has it", 64, 32),
    Target("aarch64", "64-bit Arm (ARMv8-A)", 64, 32),
    Target("cortex-m4", "Arm Cortex-M4, M4F and above (Thumb-2)", 32, 8),
)

_HOSTS = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64"}


def target_named(name: str) -> Target:
    """Return the target of that name.

    Raises:
        UsageError: BNN020, listing the names there are.
    """
    for target in TARGETS:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in TARGETS)
    what = f'unknown target "{printable(name)}"'
    raise UsageError("BNN020", what, help=f"choose one of: {known}")


def host_target() -> Target:
    """Return the target for the machine this runs on; generic where it is none of the table's."""
    return target_named(_HOSTS.get(platform.machine(), "generic"))
