"""The emulated machines: what compiles for them, and what runs the result."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "LEVEL", "MACHINES", "Machine", "plugin"]

LEVEL = "-O2"
"""Of optimisation, by gcc."""

HERE = Path(__file__).parent
"""Where the guest's sources are."""

_CORTEX_M = HERE.parent.parent / "e2e" / "cortex_m"


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        target: the compiler's name of it.
        tools: the prefix of gcc and of nm.
        flags: gcc's.
        sources: what starts the program.
        emulator: the command, to which the program's path is added.
    """

    target: str
    tools: str
    flags: tuple[str, ...]
    sources: tuple[Path, ...]
    emulator: tuple[str, ...]


def _cortex_m(cpu: str, board: str, *more: str) -> Machine:
    flags = (f"-mcpu={cpu}", "-mthumb", *more)
    script = _CORTEX_M / "memory.ld"
    link = ("-nostartfiles", "--specs=nosys.specs", f"-Wl,-T,{script}")
    emulator = ("qemu-system-arm", "-M", board, "-display", "none", "-monitor", "none")
    hosted = ("-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel")
    sources = (_CORTEX_M / "startup.c",)
    return Machine(cpu, "arm-none-eabi-", (*flags, *link), sources, (*emulator, *hosted))


_ALLOW = "-DALLOW_UNALIGNED"
_FAR = ("code_origin=0x10000000", "code_length=512K", "ram_origin=0x31000000", "ram_length=2M")

_RISCV32 = (
    *("-march=rv32imc", "-mabi=ilp32", "-static", "-nostdlib", "-fno-pic", "-no-pie"),
    f"-I{HERE / 'riscv32'}",
)

MACHINES: tuple[Machine, ...] = (
    _cortex_m("cortex-m0", "mps2-an385"),
    _cortex_m("cortex-m4", "mps2-an386", _ALLOW),
    _cortex_m(
        "cortex-m55", "mps3-an547", "-mfloat-abi=hard", _ALLOW, *(f"-Wl,--defsym={s}" for s in _FAR)
    ),
    Machine("aarch64", "aarch64-linux-gnu-", ("-static",), (), ("qemu-aarch64",)),
    Machine("armv7-a", "arm-linux-gnueabihf-", ("-static", "-mfpu=neon"), (), ("qemu-arm",)),
    Machine(
        "riscv32",
        "riscv64-linux-gnu-",
        _RISCV32,
        (HERE / "riscv32" / "start.c",),
        ("qemu-riscv32",),
    ),
)


def plugin(emulator: str, folder: Path) -> Path:
    """Build the counter for an emulator and return its path."""
    said = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)", said.stdout)
    assert found, said.stdout
    # Version 9 has another way to count in line, which the counter does not use, and asks for it.
    version = 1 if int(found[1]) < 9 else 2
    library = folder / f"counter{version}.so"
    if not library.exists():
        macro = f"-DPLUGIN_VERSION={version}"
        options = ("-O2", "-Wall", "-Wextra", "-shared", "-fPIC", macro)
        subprocess.run(["gcc", *options, HERE / "counter.c", "-o", library], check=True)
    return library
