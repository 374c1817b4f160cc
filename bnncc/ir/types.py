"""Tensor types: logical shape and element first, storage (layout) apart."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "DENSE",
    "Array",
    "Dense",
    "Element",
    "Interval",
    "Layout",
    "PackedChannels",
    "Stage",
    "TensorType",
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
    U8 = "u8"
    BOOL = "bool"
    BIPOLAR = "bipolar"
    TERNARY = "ternary"
    WORD8 = "word8"
    WORD32 = "word32"
    WORD64 = "word64"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of one element in DENSE layout; BIPOLAR and TERNARY are int8."""
        return np.dtype(_DTYPES[self])


_DTYPES: dict[Element, str] = {
    Element.F64: "float64",
    Element.F32: "float32",
    Element.I64: "int64",
    Element.I32: "int32",
    Element.I16: "int16",
    Element.U8: "uint8",
    Element.BOOL: "bool",
    Element.BIPOLAR: "int8",
    Element.TERNARY: "int8",
    Element.WORD8: "uint8",
    Element.WORD32: "uint32",
    Element.WORD64: "uint64",
}


@dataclass(frozen=True)
class Dense:
    """One array element a tensor element, C order, NHWC for images."""

    def __str__(self) -> str:
        return "dense"


DENSE = Dense()


@dataclass(frozen=True)
class PackedChannels:
    """Bitplanes packed along the last axis (channels), kernel family A.

    A logical [..., C] tensor is stored as [..., planes, ceil(C / word_bits)] words. Channel c is
    bit c % word_bits of word c / word_bits, least significant bit first; unused bits of the last
    word are 0. BIPOLAR has one plane, bit 1 standing for +1; TERNARY has two, x >= 0 and x > 0;
    U8 has eight, plane j holding bit j.
    """

    word_bits: int
    planes: int

    def __str__(self) -> str:
        return f"packed{self.word_bits}x{self.planes}"

    def words(self, channels: int) -> int:
        """Return how many words one plane of `channels` bits takes."""
        return -(-channels // self.word_bits)


Layout = Dense | PackedChannels


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

    Axis 0 of every activation is the batch and has size 1: generated C computes one sample a call.
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
        case PackedChannels() as layout:
            return (*kind.shape[:-1], layout.planes, layout.words(kind.shape[-1]))


def storage_dtype(kind: TensorType) -> np.dtype[Any]:
    """Return the numpy type of the array that stores a tensor of this type."""
    match kind.layout:
        case Dense():
            return kind.element.dtype
        case PackedChannels() as layout:
            return np.dtype(f"uint{layout.word_bits}")
