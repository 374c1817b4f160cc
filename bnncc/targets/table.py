"""The targets. Another one is another row."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from bnncc.errors import UsageError, printable

__all__ = ["TARGETS", "Slices", "Target", "host_target", "target_named"]


@dataclass(frozen=True)
class Slices:
    """What bit slices, kernel family B, are on a target.

    Attributes:
        header: the file under runtime_c/slices that defines them.
        lanes: how many bits a slice has.
        aligned: whether they must start on whole words.
        addition: what a bit of an addition costs, a plane that enters a sum being 1: fitted to
            instructions counted, on x86 what made the fastest sizes of groups.
    """

    header: str
    lanes: int
    aligned: bool = False
    addition: float = 1.0


WORDS_32 = Slices("w32", 32, aligned=True)


@dataclass(frozen=True)
class Target:
    """A processor, as far as generated code depends on it.

    Attributes:
        name: as given to `--target`.
        description: for people.
        word_bits: of the words that activations and weights are packed in.
        lanes: how many float32 sums a core keeps in registers at once.
        isas: instruction sets of which kernels may be used, in order of preference.
        cflags: what gcc and clang need to be told for these; the C says so where they are not.
        macros: what such a compiler defines then, and must.
        slices: see there.
    """

    name: str
    description: str
    word_bits: int
    lanes: int
    isas: tuple[str, ...] = ("scalar",)
    cflags: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()
    slices: Slices = WORDS_32


TARGETS: tuple[Target, ...] = (
    Target("generic", "any C99 compiler, 32-bit words", 32, 8),
    Target(
        "x86-64",
        "x86-64, popcount instruction used where the compiler has it",
        64,
        32,
        slices=Slices("w64", 64),
    ),
    Target(
        "x86-64-v3",
        "x86-64 with AVX2 (Haswell, Zen and later)",
        64,
        32,
        ("avx2", "scalar"),
        ("-march=x86-64-v3",),
        ("__AVX2__",),
        Slices("avx2", 256),
    ),
    Target(
        "x86-64-avx512",
        "x86-64 with AVX-512 and its VPOPCNTDQ (Ice Lake, Zen 4 and later)",
        64,
        32,
        ("avx512", "scalar"),
        ("-march=x86-64-v4", "-mavx512vpopcntdq", "-mgfni"),
        ("__AVX512F__", "__AVX512BW__", "__AVX512VPOPCNTDQ__"),
        Slices("avx512vl", 256),
    ),
    Target("aarch64", "64-bit Arm (ARMv8-A)", 64, 32, slices=Slices("neon", 256)),
    Target("armv7-a", "32-bit Arm with NEON (ARMv7-A)", 32, 8, slices=Slices("neon", 256)),
    Target(
        "cortex-m4",
        "Arm Cortex-M4, M4F and above (Thumb-2)",
        32,
        8,
        slices=Slices("w32", 32, addition=1.2),
    ),
    Target(
        "cortex-m0",
        "Arm Cortex-M0, M0+, M1 and M23 (Thumb)",
        32,
        8,
        slices=Slices("w32", 32, aligned=True, addition=1.6),
    ),
    Target(
        "cortex-m55",
        "Arm Cortex-M55, M52 and M85 with Helium (MVE)",
        32,
        8,
        slices=Slices("mve", 128, addition=1.6),
    ),
    Target(
        "riscv32",
        "32-bit RISC-V (RV32IMC)",
        32,
        8,
    ),
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
