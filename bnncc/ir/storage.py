"""Between logical values and the arrays that store them."""

from __future__ import annotations

import numpy as np

from bnncc.ir.types import Array, Dense, Element, PackedChannels, TensorType

__all__ = [
    "decode",
    "encode",
    "from_planes",
    "pack_bits",
    "plane_count",
    "to_planes",
    "unpack_bits",
]


def pack_bits(bits: Array, word_bits: int) -> Array:
    """Return `bits` (bool, [..., C]) packed along the last axis, LSB first, zero tails.

    Returns:
        uint{word_bits} [..., ceil(C / word_bits)].
    """
    channels = bits.shape[-1]
    tail = -channels % word_bits
    widths = [(0, 0)] * (bits.ndim - 1) + [(0, tail)]
    padded = np.pad(bits, widths) if tail else np.ascontiguousarray(bits)
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view(f"<u{word_bits // 8}")


def unpack_bits(words: Array, channels: int) -> Array:
    """Return the first `channels` bits of each row of `words` [..., W] as uint8 0 or 1."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=channels, bitorder="little")


def to_planes(logical: Array, element: Element) -> Array:
    """Return the bitplanes of logical values [..., C] as bool [..., planes, C]."""
    match element:
        case Element.BIPOLAR:
            return (logical > 0)[..., np.newaxis, :]
        case Element.TERNARY:
            return np.stack([logical >= 0, logical > 0], axis=-2)
        case Element.U8:
            shifts = np.arange(8, dtype=np.uint8)[:, np.newaxis]
            return np.asarray((logical[..., np.newaxis, :] >> shifts) & 1 != 0)
    raise ValueError(f"{element.value} has no bitplanes")


def from_planes(bits: Array, element: Element) -> Array:
    """Return logical values from bitplanes 0/1 [..., planes, C]; the inverse of `to_planes`."""
    match element:
        case Element.BIPOLAR:
            return (2 * bits[..., 0, :].astype(np.int8) - 1).astype(np.int8)
        case Element.TERNARY:
            return np.asarray(bits.astype(np.int8).sum(axis=-2) - 1, np.int8)
        case Element.U8:
            shifts = np.arange(8, dtype=np.uint8)[:, np.newaxis]
            return np.asarray((bits.astype(np.uint8) << shifts).sum(axis=-2), np.uint8)
    raise ValueError(f"{element.value} has no bitplanes")


def plane_count(element: Element) -> int:
    """Return how many bitplanes an element takes."""
    return {Element.BIPOLAR: 1, Element.TERNARY: 2, Element.U8: 8}[element]


def encode(logical: Array, kind: TensorType) -> Array:
    """Return the array that stores `logical` (any batch on axis 0) in the type's layout."""
    match kind.layout:
        case Dense():
            return np.ascontiguousarray(logical, dtype=kind.element.dtype)
        case PackedChannels(word_bits=word_bits):
            return pack_bits(to_planes(logical, kind.element), word_bits)


def decode(stored: Array, kind: TensorType) -> Array:
    """Return the logical values of `stored`; the inverse of `encode`."""
    match kind.layout:
        case Dense():
            return stored
        case PackedChannels():
            return from_planes(unpack_bits(stored, kind.shape[-1]), kind.element)
