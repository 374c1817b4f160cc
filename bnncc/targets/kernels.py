"""The kernel table, read from runtime_c/kernels.inc, and the pure choice of one for a layer."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from bnncc import resources
from bnncc.errors import InternalError
from bnncc.targets.table import Target

__all__ = ["Choice", "Kernel", "kernel_named", "load_kernels", "select"]

_ROW = re.compile(
    r"^BNN_KERNEL\((\w+), (\w+), (\w+), ([\w/.]+), (\d+), (\d+), (\d+)\)$", re.MULTILINE
)


_GAINS = {"scalar": 1, "avx2": 2, "avx512": 4}
"""How many output channels a kernel computes in the time of one in scalar code for the same target.

By `python -m tests.bench` on one Zen 5 core, in Gbin-MAC/s, gcc and clang, 64 to 512 channels: AVX2
630 to 770 and scalar code 180 to 470; AVX-512 2300 to 2900 and scalar code 130 to 950. Real
sums, the 7x7 stem of Bi-Real-18 with gcc: AVX2 2,310 us, AVX-512 1,040, scalar code for that 5,850.
"""


@dataclass(frozen=True)
class Kernel:
    """One row of kernels.inc.

    Attributes:
        operation: its contract: "xnor", "sign_sum" or "real_sum", or a tile of one: "xnor_tile".
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

    @property
    def computes(self) -> str:
        """What a layer asks for: a tile is another way to compute it."""
        return self.operation.removesuffix("_tile")

    @property
    def is_tile(self) -> bool:
        """Whether one call takes all taps of up to mr pixels."""
        return self.operation != self.computes

    @property
    def bits_symbol(self) -> str:
        """The C function of a tile that compares what it counts with limits."""
        return self.symbol.replace("bnn_xnor_", "bnn_xnor_bits_", 1)


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


def kernel_named(symbol: str) -> Kernel:
    """Return the kernel that a layer names.

    Raises:
        InternalError: BNN091, there is none of that name.
    """
    for kernel in load_kernels():
        if kernel.symbol == symbol:
            return kernel
    raise InternalError("BNN091", f"no kernel is called {symbol}")


def select(operation: str, channels_out: int, target: Target, *, grouped: bool = False) -> Choice:
    """Return the kernel for a layer: a pure function of the layer and the target.

    Args:
        operation: what the layer computes.
        channels_out: its output channels, O >= 1; those of one group, if it is `grouped`.
        target: what it runs on.
        grouped: whether it has several groups.

    Raises:
        InternalError: BNN091, if the scalar kernels do not cover the operation (they are total).
    """
    fitting: list[Kernel] = []
    rejected: list[tuple[Kernel, str]] = []
    for kernel in load_kernels():
        if kernel.computes != operation:
            continue
        misfit = _misfit(kernel, channels_out, target, grouped=grouped)
        if misfit:
            rejected.append((kernel, misfit))
        else:
            fitting.append(kernel)
    if not fitting:
        raise InternalError("BNN091", f"no kernel computes {operation} for {target.name}")
    best = min(fitting, key=lambda k: (_cost(k, channels_out), target.isas.index(k.isa), -k.nr))
    rejected += [
        (kernel, _drawback(kernel, best, channels_out)) for kernel in fitting if kernel is not best
    ]
    computed = _padded(best, channels_out)
    reason = f"widest for {target.name}: {computed} channels computed for {channels_out}"
    return Choice(best, reason, tuple(rejected))


def _padded(kernel: Kernel, channels_out: int) -> int:
    return -(-channels_out // kernel.nr) * kernel.nr


def _cost(kernel: Kernel, channels_out: int) -> float:
    """Return what a layer costs, in channels of scalar code."""
    return _padded(kernel, channels_out) / _GAINS[kernel.isa]


def _drawback(kernel: Kernel, best: Kernel, channels_out: int) -> str:
    """Return why a kernel that would do is not the best."""
    computed, least = _padded(kernel, channels_out), _padded(best, channels_out)
    if kernel.isa != best.isa:
        return f"takes as long as {_cost(kernel, channels_out):g} channels of scalar code"
    return f"computes {computed} channels, not {least}" if computed != least else "smaller"


def _misfit(kernel: Kernel, channels_out: int, target: Target, *, grouped: bool) -> str:
    """Return why a kernel cannot serve a layer on a target, or "" if it can."""
    if kernel.isa not in target.isas:
        return f"needs {kernel.isa}"
    if kernel.operation == "xnor" and kernel.word_bits != target.word_bits:
        return f"packs {kernel.word_bits}-bit words, the target {target.word_bits}-bit words"
    if kernel.is_tile and grouped and channels_out % kernel.nr:
        return f"computes {kernel.nr} channels at once, a group has {channels_out}"
    if kernel.computes != "xnor" and not kernel.is_tile and kernel.nr > target.lanes:
        return f"keeps {kernel.nr} sums, the target {target.lanes}"
    return ""
