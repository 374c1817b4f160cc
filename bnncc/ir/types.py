"""Tensor types: logical shape and element first, storage (layout) apart."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHANNELS_LAST",
    "DENSE",
    "Array",
    "ChannelsLast",
    "Dense",
    "Element",
    "Interval",
    "Layout",
    "PackedChannels",
    "PixelPlanes",
    "Planar",
    "Stage",
    "TensorType",
    "real_layout",
    "storage_dtype",
    "storage_shape",
]

Array = npt.NDArray[Any]


class Stage(enum.Enum):
    """How far a graph is on its way to C."""

    FLOAT = "float"
    BINARY = "binary"
    PACKED = "packed"


class Element(enum.Enum):
    """What one element of a tensor is. Values are the names used in dumps."""

    F64 = "f64"
    F32 = "f32"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U8 = "u8"
    U1 = "u1"
    U2 = "u2"
    U3 = "u3"
    U4 = "u4"
    S2 = "s2"
    S3 = "s3"
    S4 = "s4"
    BOOL = "bool"
    BIPOLAR = "bipolar"
    TERNARY = "ternary"
    WORD8 = "word8"
    WORD16 = "word16"
    WORD32 = "word32"
    WORD64 = "word64"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of one element in DENSE layout; int8 for all signed of few bits."""
        return np.dtype(_DTYPES[self])

    @property
    def code_bits(self) -> int:
        """How many bits an unsigned code has; 0 for everything that is no code."""
        return _CODE_BITS.get(self, 0)

    @property
    def largest_code(self) -> int:
        """The largest unsigned code."""
        return (1 << self.code_bits) - 1

    @property
    def largest_weight(self) -> int:
        """The largest magnitude of weights that are sums of bitplanes; 0 for all other elements."""
        return _LARGEST_WEIGHT.get(self, 0)


_DTYPES: dict[Element, str] = {
    Element.F64: "float64",
    Element.F32: "float32",
    Element.I64: "int64",
    Element.I32: "int32",
    Element.I16: "int16",
    Element.I8: "int8",
    Element.U8: "uint8",
    Element.U1: "uint8",
    Element.U2: "uint8",
    Element.U3: "uint8",
    Element.U4: "uint8",
    Element.S2: "int8",
    Element.S3: "int8",
    Element.S4: "int8",
    Element.BOOL: "bool",
    Element.BIPOLAR: "int8",
    Element.TERNARY: "int8",
    Element.WORD8: "uint8",
    Element.WORD16: "uint16",
    Element.WORD32: "uint32",
    Element.WORD64: "uint64",
}


_CODE_BITS = {Element.U1: 1, Element.U2: 2, Element.U3: 3, Element.U4: 4, Element.U8: 8}

_LARGEST_WEIGHT = {
    Element.BIPOLAR: 1,
    Element.TERNARY: 1,
    Element.S2: 3,
    Element.S3: 7,
    Element.S4: 15,
}


@dataclass(frozen=True)
class Dense:
    """One array element a tensor element, in C order of the logical shape."""

    def __str__(self) -> str:
        return "dense"


@dataclass(frozen=True)
class ChannelsLast:
    """A logical image [N, C, *S] stored as [N, *S, C]: what kernels read and write (NHWC)."""

    def __str__(self) -> str:
        return "channels-last"


DENSE = Dense()
CHANNELS_LAST = ChannelsLast()


@dataclass(frozen=True)
class PackedChannels:
    """Bitplanes packed along the channels, kernel family A.

    A logical [N, C, *S] tensor is stored as [N, planes, *S, words]: the planes apart, so that the
    words under one row of a kernel lie side by side. The words of each group of C / groups channels
    follow those of the group before; channel c of a group is bit c % word_bits of its word
    c / word_bits, least significant bit first; unused bits of a group's last word are 0. BIPOLAR
    has one plane, bit 1 standing for +1; TERNARY has two, x >= 0 and x > 0; a code of k
    bits has k, plane j holding bit j.
    """

    word_bits: int
    planes: int
    groups: int = 1

    def __str__(self) -> str:
        groups = f" in {self.groups} groups" if self.groups != 1 else ""
        return f"packed{self.word_bits}x{self.planes}{groups}"

    def words(self, channels: int) -> int:
        """Return how many words one plane of one pixel of `channels` bits takes."""
        return self.groups * -(-channels // self.groups // self.word_bits)


@dataclass(frozen=True)
class PixelPlanes:
    """Bitplanes of pixels, kernel family B: a bit of one channel at all pixels lies together.

    A logical [N, C, *S] tensor of at most two spatial axes is stored as words [N, planes, C, words]
    of 32 bits: pixel x of row y is bit y * pitch + x of its plane, least significant bit first.
    Planes are as in `PackedChannels`. Unused bits are 0, and every plane is filled up to whole
    slices of `lanes` bits.
    """

    pitch: int
    lanes: int
    planes: int = 1

    def __str__(self) -> str:
        return f"pixels{self.pitch}x{self.planes}"

    def words(self, rows: int) -> int:
        """Return how many words of 32 bits one plane of `rows` rows takes."""
        return -(-rows * self.pitch // self.lanes) * self.lanes // 32


@dataclass(frozen=True)
class Planar:
    """Numbers where `PixelPlanes` has bits: those of one channel at all pixels lie together.

    A logical [N, C, *S] tensor of at most two spatial axes is stored as [N, C, elements]: pixel x
    of row y is element y * pitch + x of its channel. Unused elements are 0, and every channel is
    filled up to whole slices of `lanes` elements.
    """

    pitch: int
    lanes: int

    def __str__(self) -> str:
        return f"planar{self.pitch}"

    def elements(self, rows: int) -> int:
        """Return how many elements a channel of `rows` rows takes."""
        return 32 * PixelPlanes(self.pitch, self.lanes).words(rows)


Layout = Dense | ChannelsLast | PackedChannels | PixelPlanes | Planar


def real_layout(shape: tuple[int, ...]) -> Layout:
    """Return the layout in which kernels keep a tensor of numbers: images with channels last."""
    return CHANNELS_LAST if len(shape) > 2 else DENSE


@dataclass(frozen=True)
class Interval:
    """The integers low, low + stride, ..., high: every value an accumulator can take."""

    low: int
    high: int
    stride: int = 1

    @property
    def size(self) -> int:
        """How many integers the interval holds."""
        return (self.high - self.low) // self.stride + 1

    def __str__(self) -> str:
        stride = f" by {self.stride}" if self.stride != 1 else ""
        return f"[{self.low}, {self.high}{stride}]"


@dataclass(frozen=True)
class TensorType:
    """Logical shape, element, storage layout and, for accumulators, the reachable integers.

    Shapes are [N, C, *S], channels on axis 1 before any spatial axes. Axis 0 of every activation is
    the batch and has size 1: generated C computes one sample a call.
    """

    shape: tuple[int, ...]
    element: Element
    layout: Layout = DENSE
    interval: Interval | None = None

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        layout = "" if self.layout == DENSE else f" {self.layout}"
        interval = f" in {self.interval}" if self.interval else ""
        return f"{self.element.value}[{shape}]{layout}{interval}"

    @property
    def size(self) -> int:
        """How many logical elements the tensor has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes the tensor takes in its storage layout."""
        return math.prod(storage_shape(self)) * storage_dtype(self).itemsize


def storage_shape(kind: TensorType) -> tuple[int, ...]:
    """Return the shape of the array that stores a tensor of this type."""
    match kind.layout:
        case Dense():
            return kind.shape
        case ChannelsLast():
            return (kind.shape[0], *kind.shape[2:], kind.shape[1])
        case PackedChannels() as layout:
            batch, channels, *sizes = kind.shape
            return (batch, layout.planes, *sizes, layout.words(channels))
        case PixelPlanes() as layout:
            batch, channels, *sizes = kind.shape
            return (batch, layout.planes, channels, layout.words(_rows(sizes)))
        case Planar() as layout:
            batch, channels, *sizes = kind.shape
            return (batch, channels, layout.elements(_rows(sizes)))


def _rows(sizes: Sequence[int]) -> int:
    """Return the rows of an image of at most two axes."""
    return sizes[0] if len(sizes) == 2 else 1


def storage_dtype(kind: TensorType) -> np.dtype[Any]:
    """Return the numpy type of the array that stores a tensor of this type."""
    match kind.layout:
        case Dense() | ChannelsLast() | Planar():
            return kind.element.dtype
        case PackedChannels() as layout:
            return np.dtype(f"uint{layout.word_bits}")
        case PixelPlanes():
            return np.dtype("uint32")
