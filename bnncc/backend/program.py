"""What the templates print: every number computed, every name chosen, nothing left to decide."""

from __future__ import annotations

from dataclasses import dataclass

from bnncc.backend.expressions import Statement
from bnncc.ir.types import Array

__all__ = [
    "Access",
    "Argument",
    "BitList",
    "BitRun",
    "Buffer",
    "ClassSum",
    "Constant",
    "Fill",
    "Finish",
    "GatherWork",
    "Gathered",
    "InterpolateWork",
    "Layer",
    "LinearWork",
    "ListsWork",
    "MoveWork",
    "Nest",
    "NumbersWork",
    "Part",
    "Piece",
    "PixelsWork",
    "PlanarWork",
    "Pointer",
    "PoolPlanesWork",
    "PoolWork",
    "Port",
    "Program",
    "SharedWork",
    "SliceFunction",
    "SliceFunctions",
    "Slide",
    "SpreadColumn",
    "SpreadRows",
    "SpreadWork",
    "Step",
    "Store",
    "TileWork",
    "WindowSumWork",
    "WordRun",
    "Work",
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
        aligned: whether it begins where a line of cache does.
    """

    name: str
    c_type: str
    shape: tuple[int, ...]
    values: Array
    kind: str
    aligned: bool = False

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
class TileWork(LinearWork):
    """A linear layer whose micro-kernel counts all taps of several pixels of a row in one call.

    What lies outside of the image is skipped. Pixels that see the same taps are of one kind, and
    are computed together, along a row or a column. What else differs between kinds is in tables by
    the row's kind, then the column's (see `bnn_first_of_kind`).

    Attributes:
        mr: pixels at once.
        word: bytes of a word of x.
        tap: bytes of x under a tap, in one group.
        joined: whether the taps of a row lie side by side in x, as they do in the weights.
        x_row, x_column: bytes of x from a row of taps, or a tap, to the next.
        tap_entries: elements of `weights` for one tap of a block.
        rows, columns: the first that sees all taps, the end of those, and how many kinds there are.
        tabled: whether the tables have a row for each kind, not one for all.
        outside: the C name of the mismatches [kinds of pixels][channels] outside; or "".
        limits: the C name of the limits [kinds of pixels][channels] that mismatches are compared
            with, where nothing else is done; or "".
        table_row: how many channels a row of these has.
        compare: the micro-kernel that does so.
        store: where the bits go then.
    """

    mr: int = 1
    word: int = 0
    tap: int = 0
    joined: bool = False
    x_row: int = 0
    x_column: int = 0
    tap_entries: int = 0
    rows: tuple[int, int, int] = (0, 1, 1)
    columns: tuple[int, int, int] = (0, 1, 1)
    tabled: bool = False
    outside: str = ""
    limits: str = ""
    table_row: int = 0
    compare: str = ""
    store: Store | None = None


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
        lanes: else how many of them are computed at once, which do not wait for one another.
    """

    start: str
    step: str
    finish: str
    value_type: str
    across: bool = False
    lanes: int = 8


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
class Piece:
    """Bits of a word of an operand, as they stand in a word of the result.

    The word, compressed, shifted, masked and expanded, in this order.

    Attributes:
        operand: its number.
        word: of the operand's pixel.
        left, right: by how many bits it is shifted.
        mask: what of it stays; 0 for all, where nothing else is left.
        compressed: how often every second bit alone is taken, from bit `from_bit` on.
        expanded: how often every bit is put in the place of two, the first then being `to_bit`.
    """

    operand: int
    word: int
    left: int = 0
    right: int = 0
    mask: int = 0
    compressed: int = 0
    from_bit: int = 0
    expanded: int = 0
    to_bit: int = 0


@dataclass(frozen=True)
class WordRun:
    """`count` words of a result's pixel from `first` on: pieces, or-ed; 0 without any.

    The pieces are those of the first word; each further one has those of the words behind them.
    """

    first: int
    count: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class BitRun:
    """`count` bits that move one by one, the i-th from first + step * i to to_first + to_step * i.

    Attributes:
        operand: its number.
        count, first, step, to_first, to_step: see above; bits are counted in a pixel's words.
    """

    operand: int
    count: int
    first: int
    step: int
    to_first: int
    to_step: int

    @property
    def end(self) -> int:
        """A place here behind which there is no further bit."""
        return self.to_first + self.to_step * self.count


@dataclass(frozen=True)
class BitList:
    """Bits of an operand that move one by one by a table.

    Attributes:
        operand: its number.
        places: the C name of where each of them is: there, and here in its word.
        ends: the C name of where the list of each word here ends.
    """

    operand: int
    places: str
    ends: str


@dataclass(frozen=True)
class Gathered:
    """An operand of a gather of bits.

    Attributes:
        name: the parameter that points to it.
        pixel: words of one pixel of one plane.
        plane: words from one plane to the next; 0 where its one plane is all of the result's.
    """

    name: str
    pixel: int
    plane: int


@dataclass(frozen=True)
class GatherWork:
    """Chosen channels and pixels of packed images.

    Attributes:
        operands: what is read.
        word_bits, planes, pixel, plane: of the result, as in `Access`.
        counts: of the loops i0, i1, ... over the result's pixels.
        source, target: C expressions of the operands' pixel and of the result's.
        words: all words of a pixel, in order.
        bits, lists: what is or-ed into them.
    """

    operands: tuple[Gathered, ...]
    word_bits: int
    planes: int
    pixel: int
    plane: int
    counts: tuple[int, ...]
    source: str
    target: str
    words: tuple[WordRun, ...]
    bits: tuple[BitRun, ...]
    lists: tuple[BitList, ...]

    @property
    def expands(self) -> bool:
        """Whether bits of any word are put apart or together."""
        return any(piece.compressed or piece.expanded for run in self.words for piece in run.pieces)


@dataclass(frozen=True)
class SpreadColumn:
    """A copy of planes for the taps of one column.

    Attributes:
        to: the word where it starts.
        bit: of the image, where its first row starts.
        value: a word of it, from one of all copies that start in this row; "" where it takes more.
        column: of the taps.
        masks: what a word keeps and what is set, for each until they repeat; "" is nothing.
        phase, moved: of a row's every other column: which ones, and by how many of them further on.
    """

    to: int
    bit: int
    value: str
    column: int
    masks: tuple[tuple[str, str], ...]
    phase: int
    moved: int


@dataclass(frozen=True)
class SpreadRows:
    """The copies that start in one row, at bit `bit` of the image."""

    bit: int
    columns: tuple[SpreadColumn, ...]


@dataclass(frozen=True)
class SpreadWork:
    """Planes copied for the taps of a window, see `bnncc.ir.taps.TapPlanes`.

    Words of x and of the copies have 32 bits, and those in which they are computed `bits`.

    Attributes:
        form: "moved" where a copy is the plane moved by some bits; else "rows" where a word of the
            image has its whole row, "halved" where that has every other column, "paired" where two
            such rows of 32 bits make a word of 32 in the copy, "wide" where every other column of a
            word of 64 is one of 32 in the copy, and rows are several; else "single".
        bits, load: see above, and the function that loads such a word from any bit.
        planes, channels: of an element, and how many there are.
        x_words, image: words of one in x, and those that hold pixels.
        last, behind: the last word of the image, while it is copied, and the bits of it that do
            not, to be set; "" if there are none.
        guard, buffer: words in front of a plane, and all words, while it is copied.
        outside: a word of what lies outside of the image.
        pads: where that varies, bit p says what it is in plane p; else 0.
        fills: words of `fill` for planes in which nothing is set; others follow.
        groups: the copies.
        keep, fill: the C names of the masks [columns of taps][words of a row], where form is
            "single".
        period: words of a row.
        whole, tail, tail_words: of a copy's plane: words that are used as a whole, the bits used of
            one more, "" if there is none, and how many words of 32 bits hold these.
        used, copy_words: words of 32 bits that hold its bits, and all; those from `cleared` on are
            cleared first.
        half: words to the complement; 0 if there is none.
        part: words of the copies from one plane of an element to the next.
        zeros: the word where a plane of zeros starts.
        plane: words of one plane of the result.
        rows, row_bits, stride, pitch: of a copy: its rows, bits of x from one to the next, and from
            one column to the next, and bits from one of its rows to the next.
        row_mask: those bits of a row that are in one word of 32.
        by_bytes: whether planes may be written byte by byte.
        step: words of x from one band to the next, where copies are made for one at a time; else 0.
    """

    form: str
    bits: int
    load: str
    planes: int
    channels: int
    x_words: int
    image: int
    behind: str
    last: int
    guard: int
    buffer: int
    outside: str
    pads: int
    fills: int
    groups: tuple[SpreadRows, ...]
    keep: str
    fill: str
    period: int
    whole: int
    tail: str
    tail_words: int
    used: int
    cleared: int
    copy_words: int
    half: int
    part: int
    zeros: int
    plane: int
    rows: int
    row_bits: int
    stride: int
    pitch: int
    row_mask: str
    by_bytes: bool
    step: int

    @property
    def guard_words(self) -> int:
        """Words of 32 bits in front of a plane."""
        return self.guard * self.bits // 32

    @property
    def buffer_words(self) -> int:
        """Words of 32 bits of a plane and what lies outside of it."""
        return self.buffer * self.bits // 32

    @property
    def band_words(self) -> int:
        """Words of `bits` bits of x from one band to the next."""
        return self.step * 32 // self.bits


@dataclass(frozen=True)
class ClassSum:
    """The function that sums a class: a width, a form of lists, and room for carries.

    Attributes:
        program: the C name of the program.
        bits: of the sum.
        wide, unit: whether places are numbers of 32 bits, and how many bytes 1 stands for.
        carries: how many there are at most.
        parts: lists of a class, of planes that count 2^i.
        planes, part_bytes: of an element, and from one to the next.
        codes: whether plane p of an element counts 2^p times as much as the first.
    """

    program: str
    bits: int
    wide: int
    unit: int
    carries: int
    parts: int = 1
    planes: int = 1
    part_bytes: int = 0
    codes: bool = False

    @property
    def weighted(self) -> bool:
        """Whether there is more than one list of single bits."""
        return self.parts * self.planes > 1

    @property
    def function(self) -> str:
        """Its C name."""
        form = "_wide" * self.wide + (f"_by{self.unit}" if self.unit > 1 else "")
        form += f"_{self.parts}x{self.planes}" * self.weighted
        form += f"_{'codes' if self.codes else 'planes'}{self.part_bytes}" * (self.planes > 1)
        return f"{self.program}_class_sum_{self.bits}{form}"


@dataclass(frozen=True)
class ListsWork:
    """How the lists of a group's classes are built, see `bnncc.ir.classes.PlaneCodes`.

    Attributes:
        function: that builds them, for groups of k channels and entries of some width.
        k, wide: of these; whether entries have 32 bits, not 16.
        codes, words: the C name of the planes' codes, and how many words a group has.
        places: the C name of where the planes of each tap start.
        start: C of what the planes of a group have more.
        taps, depth: how many there are, and planes that a channel sees under each.
        step, inverted: from one plane to the next, and to its complement.
        zeros: where a plane of zeros starts.
    """

    function: str
    k: int
    wide: int
    codes: str
    words: int
    places: str
    start: str
    taps: int
    depth: int
    step: int
    inverted: int
    zeros: int


@dataclass(frozen=True)
class SliceFunction:
    """A function on numbers in bit slices: an adder, or one that takes the double of one away.

    Attributes:
        program: the C name of the program.
        kind: "add" or "less_twice".
        bits: of the operands, or of the first.
        narrow, after: of an adder's second operand and its result, where these are not as many, and
            one more; else 0.
    """

    program: str
    kind: str
    bits: int
    narrow: int = 0
    after: int = 0

    @property
    def function(self) -> str:
        """Its C name."""
        more = f"_{self.narrow}_{self.after}" * (self.narrow > 0)
        return f"{self.program}_{self.kind}_{self.bits}{more}"

    def step(self, *operands: str) -> Step:
        """Return a call."""
        return Step(f"{self.function}({', '.join(operands)})", self)


@dataclass(frozen=True)
class SliceFunctions:
    """Functions on bit slices that layers share, one a width."""

    program: str
    lists: tuple[ListsWork, ...] = ()
    class_sums: tuple[ClassSum, ...] = ()
    adds: tuple[SliceFunction, ...] = ()
    less_twice: tuple[SliceFunction, ...] = ()


@dataclass(frozen=True)
class Step:
    """A call on numbers in slices; or, if `channel` >= 0, the number that decides that channel."""

    text: str
    function: SliceFunction | None = None
    channel: int = -1


@dataclass(frozen=True)
class Pointer:
    """A parameter of a function that a layer calls: `name` points to elements of a C type."""

    c_type: str
    name: str


@dataclass(frozen=True)
class EdgesWork:
    """What pixels add to their numbers of which some taps lie outside of the image.

    Attributes:
        name: the start of the C names of its arrays.
        kinds: of pixels, the one that adds nothing included.
        looked_up: whether a register at a time looks up what its lanes add, of slices that have one
            of few patterns of kinds; else lanes are listed, and of each slice where its own start.
    """

    name: str
    kinds: int
    looked_up: bool


@dataclass(frozen=True)
class NumbersWork:
    """Numbers made of sums in slices, with an epilogue: (base - factor * sum) / divisor.

    Attributes:
        type: the C type that holds base - factor * sum.
        base: the C name of a row's base.
        factor, divisor: see above.
        planar: elements of a channel.
        reads_pixel: whether anything depends on the pixel's number `p`.
        pointers: to what the epilogue reads and writes; the rest of the layer's parameters, `same`,
            point to one of them.
        kept: the C name of how many channels of each group the next does not compute; "" for all.
        edges: what pixels of some kinds add to their numbers, if there are several kinds.
        gaps: the start of the C names of runs of elements that are no pixels, and of where each
            slice's start; "" if there are none.
        used: the C name of the bits that are pixels; "" if all are.
        decisions: how many bits are made of a number.
    """

    type: str
    base: str
    factor: int
    divisor: int
    planar: int
    reads_pixel: bool
    pointers: tuple[Pointer, ...]
    same: tuple[str, ...]
    kept: str
    edges: EdgesWork | None
    gaps: str
    used: str
    decisions: int


_SLICES_OF_A_CLASS_SUM = 700
"""More than gcc and clang keep where nothing is optimised: 486 slices of 8 bytes, 650 of 4."""

_SLICES_OF_A_WEIGHTED_SUM, _ADDRESSES_OF_A_WEIGHTED_SUM = 820, 2000
"""The same with several lists or planes, the second in bytes.

Found were 5096 bytes with slices of 4, 6424 of 8, 13008 of 16 and 17304 of 32.
"""


@dataclass(frozen=True)
class SharedWork:
    """A layer's sums on bit slices, see `bnncc.ir.ops.shared_sums`.

    Attributes:
        k, classes, groups: channels in a group, its classes, how many groups there are.
        blocks, slice_bytes, lanes: slices in a plane, bytes and bits of one.
        bands, band_blocks: parts that copies are made for one by one, and slices in one.
        width: bits of a channel's sum.
        class_sum: the function for one class.
        list_type, limit_type: C types of the elements of arrays.
        built: how a group's list is built; None where all are at hand.
        steps: from classes to channels.
        firsts: the C name of the first channel of each group; "" where that is group * k.
        plane_words: words of a plane of the result.
        masked: whether there are pixels of several kinds, or bits that are none.
        kinds, planes, comparisons: of limits.
        plane_stride: words from one of a channel's planes to the next.
        numbers: how numbers are made of the sums; None where they are only compared with limits.
    """

    k: int
    classes: int
    groups: int
    blocks: int
    bands: int
    band_blocks: int
    slice_bytes: int
    lanes: int
    width: int
    class_sum: ClassSum
    list_type: str
    steps: tuple[Step, ...]
    firsts: str
    plane_words: int
    built: ListsWork | None = None
    limit_type: str = ""
    masked: bool = False
    kinds: int = 0
    planes: int = 0
    comparisons: int = 0
    plane_stride: int = 0
    numbers: NumbersWork | None = None

    @property
    def class_width(self) -> int:
        """Slices to hold the sum of a class in, which may be more than a channel's needs."""
        return max(self.width, self.class_sum.bits)

    @property
    def stack_bytes(self) -> int:
        """A bound on its local arrays and, without optimisation, every slice of a class sum."""
        sums = self.classes * self.class_width + (self.classes // 4 + 1) * self.width
        slices, addresses = _SLICES_OF_A_CLASS_SUM, 0
        if self.class_sum.weighted:
            slices, addresses = _SLICES_OF_A_WEIGHTED_SUM, _ADDRESSES_OF_A_WEIGHTED_SUM
        lane = 12 + 4 * self.numbers.decisions if self.numbers else 0
        return self.slice_bytes * (sums + slices) + addresses + lane * self.lanes


@dataclass(frozen=True)
class PixelsWork:
    """Words of channels into planes of pixels, or back.

    Attributes:
        to_planes: which of the two.
        channels, height, width: of the image.
        planes: bitplanes of an element.
        pitch, plane_words: of the planes of pixels.
        word_bits, words: of the packed channels: of a word, and words of one pixel.
    """

    to_planes: bool
    channels: int
    height: int
    width: int
    planes: int
    pitch: int
    plane_words: int
    word_bits: int
    words: int


@dataclass(frozen=True)
class PoolPlanesWork:
    """Planes pooled, of copies for the taps of a window.

    Attributes:
        planes, channels: of an element, and how many there are.
        part: words of the copies from one plane of an element to the next.
        copy_words, plane: words of a plane of a copy, and of the result.
        words, tail: of these, those in use, and the used bits of the last; "" if all are.
        offsets: the byte at which each tap's first plane starts.
        falls: the C name of which channels take the smallest; "" if none does.
    """

    planes: int
    channels: int
    part: int
    copy_words: int
    plane: int
    words: int
    tail: str
    offsets: tuple[int, ...]
    falls: str


@dataclass(frozen=True)
class PlanarWork:
    """Numbers of pixels side by side made of others, or the other way around.

    Attributes:
        to_planar: which of the two.
        channels, height, width: of the image.
        pitch, elements: from one planar row to the next, and of a channel.
        channel, pixel: from one to the next in the other layout.
    """

    to_planar: bool
    channels: int
    height: int
    width: int
    pitch: int
    elements: int
    channel: int
    pixel: int


Work = (
    LinearWork
    | WindowSumWork
    | PoolWork
    | InterpolateWork
    | MoveWork
    | GatherWork
    | SpreadWork
    | SharedWork
    | PixelsWork
    | PlanarWork
    | PoolPlanesWork
)
"""What a template may need to know of what it prints."""


@dataclass(frozen=True)
class Layer:
    """One loop nest: a static function and its call.

    Attributes:
        function: its C name.
        template: the file under templates/layers that prints its body.
        summary: lines of the comment above it.
        name: the first of the source nodes, for reports and profiles.
        inputs, outputs, scratch: its parameters, in order; the last hold nothing before and after.
        constants: its arrays.
        channels: of the result.
        nest: the loops over pixels.
        work: what it does there, if the template needs to know.
        copies: how it copies planes to its scratch, if it does, band after band.
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
    scratch: tuple[Argument, ...] = ()
    constants: tuple[Constant, ...] = ()
    channels: int = 0
    nest: Nest = Nest()
    work: Work | None = None
    copies: SpreadWork | None = None
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


_STACK_BYTES = 2048


@dataclass(frozen=True)
class Program:
    """A whole model.

    Attributes:
        name: the prefix of its C identifiers; `macro` is the same in upper case.
        banner: lines of the comment on top of both files.
        inputs, outputs: its ports.
        layers: in the order they run.
        arena_bytes, arena_lower_bound: see MemoryPlan.
        headers: the runtime's headers that it needs.
        runtime: their text, amalgamated.
        slices: functions that layers share.
    """

    name: str
    macro: str
    banner: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[Layer, ...]
    arena_bytes: int
    arena_lower_bound: int
    headers: tuple[str, ...]
    runtime: str
    slices: SliceFunctions

    @property
    def arena_words(self) -> int:
        """The arena's size in 64-bit words; at least 1, since C has no empty array."""
        return max(1, self.arena_bytes // 8)

    @property
    def stack_bytes(self) -> int:
        """A bound on the stack of a call; most layers keep a few sums."""
        shared = (layer.work for layer in self.layers if isinstance(layer.work, SharedWork))
        return _STACK_BYTES + max((work.stack_bytes for work in shared), default=0)

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
