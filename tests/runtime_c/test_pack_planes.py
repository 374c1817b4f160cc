"""bnn_pack_planes: bit p of byte c is bit c of plane p, and tails are zero."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.runtime_c.driver import Array, Guarded, Library


def _planes(x: Array, word_bits: int, words: int) -> list[list[int]]:
    mask = (1 << word_bits) - 1
    planes = [sum((code >> p & 1) << c for c, code in enumerate(x.tolist())) for p in range(8)]
    assert all(plane < 1 << (words * word_bits) for plane in planes)
    return [[plane >> (word_bits * w) & mask for w in range(words)] for plane in planes]


@pytest.mark.parametrize("word_bits", [32, 64])
def test_every_length(library: Library, word_bits: int) -> None:
    random = np.random.default_rng(word_bits)
    for count in [*range(1, 201), 784]:
        words = -(-count // word_bits)
        x = random.integers(0, 256, count).astype(np.uint8)
        actual = library.pack_planes(word_bits, x, words)
        assert actual.tolist() == _planes(x, word_bits, words), count


@pytest.mark.parametrize("word_bits", [32, 64])
@pytest.mark.parametrize("code", [0, 1, 0x80, 0xAA, 0xFF])
def test_equal_bytes(library: Library, word_bits: int, code: int) -> None:
    for count in (1, word_bits - 1, word_bits, word_bits + 1):
        words = -(-count // word_bits)
        x = np.full(count, code, np.uint8)
        assert library.pack_planes(word_bits, x, words).tolist() == _planes(x, word_bits, words)


@pytest.mark.parametrize("word_bits", [32, 64])
def test_planes_lie_a_stride_apart_and_what_is_between_stays(
    library: Library, word_bits: int
) -> None:
    # A pixel of an image: the planes of the whole image lie further apart than its own words.
    random = np.random.default_rng(0)
    call = getattr(library.handle, f"pack_planes_{word_bits}")
    for count, stride in ((1, 3), (word_bits, 2), (word_bits + 1, 2), (3 * word_bits - 1, 7)):
        words = -(-count // word_bits)
        codes = Guarded.of(random.integers(0, 256, count).astype(np.uint8))
        before = random.integers(0, 1 << 32, (8, stride)).astype(f"uint{word_bits}")
        out = Guarded.of(before)
        call(ctypes.c_size_t(count), ctypes.c_size_t(stride), codes.pointer, out.pointer)
        planes = out.checked().reshape(8, stride)
        assert planes[:, :words].tolist() == _planes(codes.array, word_bits, words)
        np.testing.assert_array_equal(planes[:, words:], before[:, words:])
