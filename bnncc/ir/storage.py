"""Between logical values and the arrays that store them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnncc.ir.types import (
    Array,
    ChannelsLast,
    Dense,
    Element,
    PackedChannels,
    PixelPlanes,
    Planar,
    TensorType,
)

__all__ = [
    "decode",
    "encode",
    "from_planar",
    "from_planes",
    "pack_bits",
    "pack_pixels",
    "pack_planes",
    "plane_count",
    "to_planar",
    "to_planes",
    "unpack_bits",
    "unpack_pixels",
    "unpack_planes",
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
    """Return the bitplanes of logical values [N, ...] as bool [N, planes, ...]."""
    match element:
        case Element.BIPOLAR:
            return (logical > 0)[:, np.newaxis]
        case Element.TERNARY:
            return np.stack([logical >= 0, logical > 0], axis=1)
        case _ if element.code_bits:
            planes = [(logical >> shift) & 1 != 0 for shift in range(element.code_bits)]
            return np.stack(planes, axis=1)
    raise ValueError(f"{element.value} has no bitplanes")


def from_planes(bits: Array, element: Element) -> Array:
    """Return logical values [N, ...] from bitplanes 0/1 [N, planes, ...]; inverts `to_planes`."""
    match element:
        case Element.BIPOLAR:
            return (2 * bits[:, 0].astype(np.int8) - 1).astype(np.int8)
        case Element.TERNARY:
            return np.asarray(bits.astype(np.int8).sum(axis=1) - 1, np.int8)
        case _ if element.code_bits:
            weights = 1 << np.arange(element.code_bits)
            weights = weights.reshape(-1, *(1,) * (bits.ndim - 2))
            return np.asarray((bits * weights).sum(axis=1), np.uint8)
    raise ValueError(f"{element.value} has no bitplanes")


def plane_count(element: Element) -> int:
    """Return how many bitplanes an element takes."""
    return {Element.BIPOLAR: 1, Element.TERNARY: 2}.get(element) or element.code_bits


def pack_planes(planes: Array, layout: PackedChannels) -> Array:
    """Return bool planes [N, planes, C, *S] as words [N, planes, *S, words]."""
    last = np.moveaxis(planes, 2, -1)
    grouped = last.reshape(*last.shape[:-1], layout.groups, last.shape[-1] // layout.groups)
    words = pack_bits(grouped, layout.word_bits)
    return words.reshape(*last.shape[:-1], layout.words(last.shape[-1]))


def unpack_planes(words: Array, layout: PackedChannels, channels: int) -> Array:
    """Return planes 0/1 [N, planes, C, *S] from words; the inverse of `pack_planes`."""
    grouped = words.reshape(*words.shape[:-1], layout.groups, words.shape[-1] // layout.groups)
    bits = unpack_bits(grouped, channels // layout.groups)
    return np.moveaxis(bits.reshape(*words.shape[:-1], channels), -1, 2)


def pack_pixels(planes: Array, layout: PixelPlanes) -> Array:
    """Return bool planes [N, planes, C, *S] as words [N, planes, C, words] of 32 bits."""
    rows = planes.reshape(*planes.shape[:3], *(1,) * (5 - planes.ndim), *planes.shape[3:])
    height, width = rows.shape[3:]
    bits = layout.words(height) * 32
    wide = np.pad(rows, [(0, 0)] * 4 + [(0, layout.pitch - width)])
    flat = wide.reshape(*wide.shape[:3], -1)
    return pack_bits(np.pad(flat, [(0, 0)] * 3 + [(0, bits - flat.shape[-1])]), 32)


def unpack_pixels(words: Array, layout: PixelPlanes, sizes: Sequence[int]) -> Array:
    """Return planes 0/1 [N, planes, C, *sizes] from words; the inverse of `pack_pixels`."""
    height, width = (*(1,) * (2 - len(sizes)), *sizes)
    bits = unpack_bits(words, height * layout.pitch)
    rows = bits.reshape(*words.shape[:3], height, layout.pitch)[..., :width]
    return np.ascontiguousarray(rows).reshape(*words.shape[:3], *sizes)


def to_planar(logical: Array, layout: Planar) -> Array:
    """Return numbers [N, C, *S] as they are stored, [N, C, elements]."""
    rows = logical.reshape(*logical.shape[:2], *(1,) * (4 - logical.ndim), *logical.shape[2:])
    height, width = rows.shape[2:]
    wide = np.pad(rows, [(0, 0)] * 3 + [(0, layout.pitch - width)])
    flat = wide.reshape(*wide.shape[:2], -1)
    unused = layout.elements(height) - flat.shape[-1]
    return np.ascontiguousarray(np.pad(flat, [(0, 0)] * 2 + [(0, unused)]))


def from_planar(stored: Array, layout: Planar, sizes: Sequence[int]) -> Array:
    """Return numbers [N, C, *sizes]; the inverse of `to_planar`."""
    height, width = (*(1,) * (2 - len(sizes)), *sizes)
    rows = stored[..., : height * layout.pitch].reshape(*stored.shape[:2], height, layout.pitch)
    return np.ascontiguousarray(rows[..., :width]).reshape(*stored.shape[:2], *sizes)


def encode(logical: Array, kind: TensorType) -> Array:
    """Return the array that stores `logical` (any batch on axis 0) in the type's layout."""
    match kind.layout:
        case Dense():
            return np.ascontiguousarray(logical, dtype=kind.element.dtype)
        case ChannelsLast():
            last = np.moveaxis(logical, 1, -1)
            return np.ascontiguousarray(last, dtype=kind.element.dtype)
        case PackedChannels() as layout:
            return pack_planes(to_planes(logical, kind.element), layout)
        case PixelPlanes() as layout:
            return pack_pixels(to_planes(logical, kind.element), layout)
        case Planar() as layout:
            return to_planar(logical.astype(kind.element.dtype, copy=False), layout)


def decode(stored: Array, kind: TensorType) -> Array:
    """Return the logical values of `stored`; the inverse of `encode`."""
    match kind.layout:
        case Dense():
            return stored
        case ChannelsLast():
            return np.ascontiguousarray(np.moveaxis(stored, -1, 1))
        case PackedChannels() as layout:
            return from_planes(unpack_planes(stored, layout, kind.shape[1]), kind.element)
        case PixelPlanes() as layout:
            return from_planes(unpack_pixels(stored, layout, kind.shape[2:]), kind.element)
        case Planar() as layout:
            return from_planar(stored, layout, kind.shape[2:])
