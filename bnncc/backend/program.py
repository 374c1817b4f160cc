"""What the templates print: every number computed, every name chosen, nothing left to decide."""

from __future__ import annotations

from dataclasses import dataclass

from bnncc.backend.expressions import Statement
from bnncc.ir.types import Array

__all__ = [
    "Access",
    "Argument",
    "Buffer",
    "Constant",
    "Fill",
    "Finish",
    "InterpolateWork",
    "Layer",
    "LinearWork",
    "MoveWork",
    "Nest",
    "Part",
    "PoolWork",
    "Port",
    "Program",
    "Slide",
    "Store",
    "WindowSumWork",
]


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
    """Where the tensor called `tensor` lives: `pointer` is a C expression of type `c_type *`.

    Attributes:
        tensor: its name in the packed graph.
        c_type: of one element.
        pointer: see above.
        shape: as stored.
        nbytes: of the whole.
    """

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
class Argument:
    """A parameter of a layer's function: `name` points to `buffer`.

    `alone` says that nothing written through another of the layer's parameters lies there.
    """

    name: str
    buffer: Buffer
    alone: bool = True


@dataclass(frozen=True)
class Store:
    """A result: the C expression of a number, or for each bitplane the comparisons of its bit.

    Attributes:
        target: the parameter that points to it.
        value: of a number; "" for bits.
        decisions: for each plane, comparisons whose parity is the bit; empty for numbers.
        word_bits: of packed words.
        words: that one plane of one pixel takes.
        plane: words from one plane to the next.
    """

    target: str
    value: str
    decisions: tuple[str, ...] = ()
    word_bits: int = 0
    words: int = 0
    plane: int = 0


@dataclass(frozen=True)
class Finish:
    """What follows a value `v` of channel `c` at pixel `p`: statements, then stores.

    Attributes:
        statements: the epilogue's expression.
        stores: at least one.
        reads_channel: whether anything depends on the channel's number `c`.
    """

    statements: tuple[Statement, ...]
    stores: tuple[Store, ...]
    reads_channel: bool = True


@dataclass(frozen=True)
class Slide:
    """A window along one spatial axis of an image: see `bnncc.ir.window.Axis`.

    Attributes:
        outputs, size: of the axis, behind and before the window.
        kernel, stride, dilation, before: of the window.
        partial: whether some outputs see less than the whole kernel.
    """

    outputs: int = 1
    size: int = 1
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    partial: bool = False


@dataclass(frozen=True)
class Nest:
    """The loops over an image's pixels, rows `y` outside of columns `x`, and a window's taps.

    Attributes:
        y, x: the axes; a missing one has a single output and a single tap.
        pixel: elements, or words of one plane, that one pixel of the input takes.
    """

    y: Slide = Slide()
    x: Slide = Slide()
    pixel: int = 1

    @property
    def pixels(self) -> int:
        """How many pixels the result has."""
        return self.y.outputs * self.x.outputs

    @property
    def plane(self) -> int:
        """Elements of the whole input image, or words of one plane of it."""
        return self.y.size * self.x.size * self.pixel

    @property
    def partial(self) -> bool:
        """Whether some pixels see less than the whole kernel."""
        return self.y.partial or self.x.partial

    @property
    def taps(self) -> int:
        """How many taps the whole window has."""
        return self.y.kernel * self.x.kernel


@dataclass(frozen=True)
class LinearWork:
    """A linear layer: what it takes to fill one block of sums.

    Attributes:
        kernel: the micro-kernel's symbol.
        weights: the C name of the weights.
        nr: output channels a block.
        blocks: of each group.
        groups: how many there are.
        depth: elements or words of one group at one tap.
        entry: elements of `weights` for one of these: nr, or 1 where a word holds nr weights.
        sum_type: of one sum.
        value: the C expression of the n-th value.
        value_type: its type.
        planes: of x.
        plane_shift: what each further plane of x is shifted by.
        base: the accumulator of a pixel that skips taps: this times the taps inside; 0 if none is
            skipped.
        fill: the C name of what taps outside hold, one row a plane; "" if there are none.
        zeros: the C name of the table of weights that are 0, and its length.
        pad: what a 0 among the weights finds outside of the image.
        word_bits: of the words of x.
        parts: what the mismatches with each part of the weights count; the blocks of one part
            follow those of the part before.
    """

    kernel: str
    weights: str
    nr: int
    blocks: int
    groups: int
    depth: int
    entry: int
    sum_type: str
    value: str
    value_type: str
    planes: int = 1
    plane_shift: int = 0
    base: int = 0
    fill: str = ""
    zeros: str = ""
    zero_count: int = 0
    pad: int = 0
    word_bits: int = 0
    parts: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class WindowSumWork:
    """Sums of packed integers: always + inside * (taps inside) + factor * (bits that are 1).

    Attributes:
        groups: how many there are.
        repeats: how many channels of the result hold each group's sum.
        depth: words of one group at one tap.
        word_bits: of a word.
        planes, plane_shift: of x, as in `LinearWork`.
        factor, inside, always: see above; `inside` counts a tap.
    """

    groups: int
    repeats: int
    depth: int
    word_bits: int
    planes: int
    plane_shift: int
    factor: int
    inside: int
    always: int


@dataclass(frozen=True)
class PoolWork:
    """A pool of numbers.

    Attributes:
        start: each value before the first tap.
        step: the C expression of a value after one more element `e`.
        finish: of the value after all taps.
        value_type: of a value.
        across: whether the channels are taken together too.
        divisors: the C name of one divisor a pixel, or "".
    """

    start: str
    step: str
    finish: str
    value_type: str
    across: bool = False


@dataclass(frozen=True)
class InterpolateWork:
    """A weighted sum of pixels.

    Attributes:
        taps: the C expressions of each one's first element in x, and of its weight.
        value: of channel c's value; the i-th tap's pixel is `x{i}`, its weight `w{i}`.
    """

    taps: tuple[tuple[str, str], ...]
    value: str


@dataclass(frozen=True)
class Access:
    """How an element (channel c, pixel p) of a stored tensor is read or written.

    Attributes:
        kind: "numbers", or "bits" in packed words.
        channel, pixel: for numbers, elements from one channel or pixel to the next; for bits, the
            words of one pixel are `pixel`, and `plane` words lie between planes.
        planes, word_bits, plane: of bits.
        group, group_words: channels in one group, and its words.
    """

    kind: str
    channel: int = 0
    pixel: int = 0
    planes: int = 0
    word_bits: int = 0
    plane: int = 0
    group: int = 0
    group_words: int = 0


@dataclass(frozen=True)
class Part:
    """A box of elements that moves: loops over i0 (channels) and i1, i2, ... (the other axes).

    Attributes:
        source: the parameter read.
        read: how.
        counts: the loops' lengths.
        channel, pixel: C expressions of the source's channel and pixel.
        to_channel, to_pixel: of the result's.
    """

    source: str
    read: Access
    counts: tuple[int, ...]
    channel: str
    pixel: str
    to_channel: str
    to_pixel: str


@dataclass(frozen=True)
class Fill:
    """`count` elements or words of a result, from `start` on: the i-th becomes `value`, in C."""

    start: int
    count: int
    value: str


@dataclass(frozen=True)
class MoveWork:
    """A movement of elements: fills, then parts.

    Attributes:
        write: how the result is written.
        fills: what is there first, where the parts do not cover all of it.
        held: of packed bits, the bit of each plane that a fill left where a part will move in.
        parts: what moves.
    """

    write: Access
    fills: tuple[Fill, ...]
    held: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Layer:
    """One loop nest: a static function and its call.

    Attributes:
        function: its C name.
        template: the file under templates/layers that prints its body.
        summary: lines of the comment above it.
        name: the first of the source nodes, for reports and profiles.
        inputs, outputs: its parameters, in order.
        constants: its arrays.
        channels: of the result.
        nest: the loops over pixels.
        work: what it does there, if the template needs to know.
        finish: see `Finish`; None for layers without an epilogue.
        call: the runtime function that does it all, or "".
        binary_macs, real_macs: multiply-accumulates a call, by kind.
    """

    function: str
    template: str
    summary: tuple[str, ...]
    name: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    constants: tuple[Constant, ...] = ()
    channels: int = 0
    nest: Nest = Nest()
    work: LinearWork | WindowSumWork | PoolWork | InterpolateWork | MoveWork | None = None
    finish: Finish | None = None
    call: str = ""
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
    def results(self) -> tuple[Buffer, ...]:
        """What the layers store, in the order in which they do."""
        return tuple(result.buffer for layer in self.layers for result in layer.outputs)

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
