"""The kernel table, read from runtime_c/kernels.inc, and the pure choice of one for a layer."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from bnncc import resources
from bnncc.errors import InternalError
from bnncc.targets.table import Target

__all__ = ["Choice", "Kernel", "load_kernels", "select"]

_ROW = re.compile(
    r"^BNN_KERNEL\((\w+), (\w+), (\w+), ([\w/.]+), (\d+), (\d+), (\d+)\)$", re.MULTILINE
)


@dataclass(frozen=True)
class Kernel:
    """One row of kernels.inc.

    Attributes:
        operation: what it computes: "xnor", "sign_sum" or "real_sum".
        isa: the instruction set it is written for; "scalar" is portable C.
        symbol: the C function.
        header: the file under runtime_c/ that defines it.
        mr, nr: rows (pixels) by output channels that one call computes.
        word_bits: of the words that weights are packed in; 32 for float weights.
    """

    operation: str
    isa: str
    symbol: str
    header: str
    mr: int
    nr: int
    word_bits: int

    def __str__(self) -> str:
        return self.symbol


@dataclass(frozen=True)
class Choice:
    """The kernel chosen for a layer, and why each other candidate was not."""

    kernel: Kernel
    reason: str
    rejected: tuple[tuple[Kernel, str], ...]


@functools.cache
def load_kernels() -> tuple[Kernel, ...]:
    """Return every row of kernels.inc in order."""
    text = (resources.runtime_dir() / "kernels.inc").read_text(encoding="utf-8")
    rows = [
        Kernel(operation, isa, symbol, header, int(mr), int(nr), int(word_bits))
        for operation, isa, symbol, header, mr, nr, word_bits in _ROW.findall(text)
    ]
    if not rows or len(rows) != len(re.findall(r"^\s*BNN_KERNEL\s*\(", text, re.MULTILINE)):
        raise InternalError("BNN091", "kernels.inc holds a row that cannot be read")
    return tuple(rows)


def select(operation: str, channels_out: int, target: Target) -> Choice:
    """Return the kernel for a layer: a pure function of the layer and the target.

    Args:
        operation: what the layer computes.
        channels_out: its output channels, O >= 1.
        target: what it runs on.

    Raises:
        InternalError: BNN091, if the scalar kernels do not cover the operation (they are total).
    """
    fitting: list[Kernel] = []
    rejected: list[tuple[Kernel, str]] = []
    for kernel in load_kernels():
        if kernel.operation != operation:
            continue
        misfit = _misfit(kernel, target)
        if misfit:
            rejected.append((kernel, misfit))
        else:
            fitting.append(kernel)
    if not fitting:
        raise InternalError("BNN091", f"no kernel computes {operation} for {target.name}")
    best = min(fitting, key=lambda k: (target.isas.index(k.isa), _padded(k, channels_out), -k.nr))
    cost = _padded(best, channels_out)
    for kernel in fitting:
        if kernel is not best:
            reason = f"computes {_padded(kernel, channels_out)} channels, not {cost}"
            rejected.append(
                (kernel, reason if _padded(kernel, channels_out) != cost else "smaller")
            )
    reason = f"widest for {target.name}: {cost} channels computed for {channels_out}"
    return Choice(best, reason, tuple(rejected))


def _padded(kernel: Kernel, channels_out: int) -> int:
    return -(-channels_out // kernel.nr) * kernel.nr


def _misfit(kernel: Kernel, target: Target) -> str:
    """Return why a kernel cannot serve a target, or "" if it can."""
    if kernel.isa not in target.isas:
        return f"needs {kernel.isa}"
    if kernel.operation == "xnor" and kernel.word_bits != target.word_bits:
        return f"packs {kernel.word_bits}-bit words, the target {target.word_bits}-bit words"
    if kernel.operation != "xnor" and kernel.nr > target.lanes:
        return f"keeps {kernel.nr} sums, the target {target.lanes}"
    return ""
