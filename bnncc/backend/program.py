"""What the templates print: every number computed, every name chosen, nothing left to decide."""

from __future__ import annotations

from dataclasses import dataclass

from bnncc.backend.expressions import Statement
from bnncc.ir.types import Array

__all__ = ["Buffer", "Constant", "Finish", "Layer", "Port", "Program"]


@dataclass(frozen=True, eq=False)
class Constant:
    """A `static const` array.

    Attributes:
        name: its C identifier.
        c_type: of one element.
        shape: for the comment.
        values: its numbers.
        kind: "binary weights", "real weights", "thresholds" or "parameters", for the report.
    """

    name: str
    c_type: str
    shape: tuple[int, ...]
    values: Array
    kind: str

    @property
    def count(self) -> int:
        """How many elements it has."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """How many bytes of flash it takes."""
        return int(self.values.nbytes)


@dataclass(frozen=True)
class Buffer:
    """Where the tensor called `tensor` lives: `pointer` is a C expression of type `c_type *`."""

    tensor: str
    c_type: str
    pointer: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def dimensions(self) -> str:
        """The shape for a comment, such as `[1][8]`."""
        return "".join(f"[{n}]" for n in self.shape)


@dataclass(frozen=True)
class Finish:
    """What follows a value `v` of channel `c`: statements, then a store of a real or of bits.

    Attributes:
        statements: the epilogue's expression.
        result: the C expression of the stored or compared value.
        decisions: for each plane, the comparisons whose parity is the bit; empty for reals.
        word_bits: of the packed result.
        words: of each packed plane.
        reads_channel: whether anything depends on the channel's number `c`.
    """

    statements: tuple[Statement, ...]
    result: str
    decisions: tuple[str, ...]
    word_bits: int
    words: int
    reads_channel: bool = True


@dataclass(frozen=True)
class Layer:
    """One loop nest: a static function and its call.

    Attributes:
        function: its C name.
        template: the file under templates/layers that prints its body.
        summary: lines of the comment above it.
        name: the first of the source nodes, for reports and profiles.
        x, y: what it reads and writes.
        constants: its arrays.
        weights: the C name of the weights, or "".
        base: the C expression of the accumulator at no mismatches, or "".
        kernel: the micro-kernel's symbol, or "".
        k: the reduction length, in elements or words of x.
        channels: O.
        nr, blocks: output channels a block, and how many blocks.
        planes: of x.
        plane_shift: what each further plane of x is shifted by.
        factor: of the mismatches in the accumulator.
        finish: see `Finish`; None for layers without an epilogue.
        binary_macs, real_macs: multiply-accumulates a call, by kind.
    """

    function: str
    template: str
    summary: tuple[str, ...]
    name: str
    x: Buffer
    y: Buffer
    constants: tuple[Constant, ...] = ()
    weights: str = ""
    base: str = ""
    kernel: str = ""
    k: int = 0
    channels: int = 0
    nr: int = 1
    blocks: int = 0
    planes: int = 1
    plane_shift: int = 0
    factor: int = 1
    finish: Finish | None = None
    binary_macs: int = 0
    real_macs: int = 0


@dataclass(frozen=True)
class Port:
    """An input or output of the model: its C parameter, and its name in the model."""

    parameter: str
    macro: str
    c_type: str
    shape: tuple[int, ...]
    size: int
    tensor: str


@dataclass(frozen=True)
class Program:
    """A whole model.

    Attributes:
        name: the prefix of its C identifiers; `macro` is the same in upper case.
        banner: lines of the comment on top of both files.
        inputs, outputs: its ports.
        layers: in the order they run.
        arena_bytes, arena_lower_bound: see MemoryPlan.
        runtime: the text of the runtime headers it needs, amalgamated.
    """

    name: str
    macro: str
    banner: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[Layer, ...]
    arena_bytes: int
    arena_lower_bound: int
    runtime: str

    @property
    def arena_words(self) -> int:
        """The arena's size in 64-bit words; at least 1, since C has no empty array."""
        return max(1, self.arena_bytes // 8)

    @property
    def constant_bytes(self) -> dict[str, int]:
        """Bytes of flash taken by constants, by kind."""
        total: dict[str, int] = {}
        for layer in self.layers:
            for constant in layer.constants:
                total[constant.kind] = total.get(constant.kind, 0) + constant.nbytes
        return total

    @property
    def binary_macs(self) -> int:
        """Multiply-accumulates with binary weights, a sample."""
        return sum(layer.binary_macs for layer in self.layers)

    @property
    def real_macs(self) -> int:
        """Multiply-accumulates with real weights, a sample."""
        return sum(layer.real_macs for layer in self.layers)
