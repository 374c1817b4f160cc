"""Storage against bit arithmetic on Python integers: every bit in its place, every tail zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnncc.ir import storage
from bnncc.ir.types import (
    CHANNELS_LAST,
    DENSE,
    Array,
    Element,
    PackedChannels,
    Planar,
    TensorType,
    real_layout,
    storage_dtype,
    storage_shape,
)
from tests.ir.oracles import CODES, PLANES, VALUES, plane_bit, word_value


@st.composite
def packed(draw: st.DrawFn) -> tuple[Array, TensorType]:
    element = draw(st.sampled_from(sorted(PLANES, key=lambda e: e.value)))
    groups, depth = draw(
        st.tuples(st.just(1), st.integers(1, 130))
        | st.tuples(st.integers(2, 5), st.integers(1, 34))
        | st.tuples(st.just(2), st.sampled_from([32, 63, 64, 65]))
    )
    sizes = draw(st.lists(st.integers(1, 3), max_size=2))
    batch = draw(st.sampled_from([1, 3]))
    word_bits = draw(st.sampled_from([32, 64]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (groups * depth, *sizes)
    logical = random.choice(np.array(VALUES[element], element.dtype), (batch, *shape))
    layout = PackedChannels(word_bits, PLANES[element], groups)
    return logical, TensorType((1, *shape), element, layout)


@given(packed())
def test_round_trip_and_every_bit_in_its_place(case: tuple[Array, TensorType]) -> None:
    logical, kind = case
    layout = kind.layout
    assert isinstance(layout, PackedChannels)
    stored = storage.encode(logical, kind)
    channels, *sizes = logical.shape[1:]
    depth = channels // layout.groups
    words = -(-depth // layout.word_bits)
    assert stored.dtype == storage_dtype(kind) == np.dtype(f"uint{layout.word_bits}")
    assert storage_shape(kind) == (1, layout.planes, *sizes, layout.groups * words)
    assert stored.shape == (len(logical), *storage_shape(kind)[1:])
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(storage.decode(stored, kind), logical, strict=True)
    for n, plane, *pixel in np.ndindex(len(logical), layout.planes, *sizes):
        row = stored[(n, plane, *pixel)]
        for group in range(layout.groups):
            members = logical[(n, slice(group * depth, (group + 1) * depth), *pixel)]
            # Compared as one number, so that the tail's bits are compared with 0 as well.
            expected = sum(
                plane_bit(int(value), plane, kind.element) << c for c, value in enumerate(members)
            )
            own = row[group * words : (group + 1) * words]
            assert word_value(own, layout.word_bits) == expected


@pytest.mark.parametrize("word_bits", [32, 64])
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130])
def test_one_hot_channels(channels: int, word_bits: int) -> None:
    logical = np.where(np.eye(channels, dtype=bool), 1, -1).astype(np.int8)
    kind = TensorType((1, channels), Element.BIPOLAR, PackedChannels(word_bits, 1))
    stored = storage.encode(logical, kind)
    for c in range(channels):
        words = [0] * -(-channels // word_bits)
        words[c // word_bits] = 1 << (c % word_bits)
        assert stored[c, 0].tolist() == words


@given(st.lists(st.booleans(), min_size=1, max_size=130), st.sampled_from([8, 32, 64]))
@example([True] * 64, 64)
@example([True] * 65, 64)
def test_pack_bits_is_lsb_first(drawn: list[bool], word_bits: int) -> None:
    bits = np.array(drawn)
    words = storage.pack_bits(bits, word_bits)
    written_down = "".join("1" if bit else "0" for bit in reversed(drawn))
    assert word_value(words, word_bits) == int(written_down, 2)
    np.testing.assert_array_equal(storage.unpack_bits(words, len(bits)), bits.astype(np.uint8))


def test_packing_reads_any_memory_order() -> None:
    bits = np.arange(128).reshape(2, 64) % 5 < 2
    strided = np.asfortranarray(np.repeat(bits, 2, axis=1))[:, ::2]
    np.testing.assert_array_equal(storage.pack_bits(strided, 64), storage.pack_bits(bits, 64))
    words = storage.pack_bits(bits, 32)
    backwards = np.ascontiguousarray(words[::-1])[::-1]
    np.testing.assert_array_equal(storage.unpack_bits(backwards, 64), bits.astype(np.uint8))


def test_ternary_planes_are_x_at_least_0_and_x_above_0() -> None:
    planes = storage.to_planes(np.array([[-1, 0, 1]], np.int8), Element.TERNARY)
    assert planes.tolist() == [[[False, True, True], [False, False, True]]]


@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_plane_sums_are_the_values(element: Element) -> None:
    # DESIGN I3: the value is the weighted sum of the planes taken as -1 and +1, halved but for
    # one plane, plus (2^k - 1) / 2 for codes.
    values = np.array(VALUES[element], element.dtype)
    bipolar = 2 * storage.to_planes(values[np.newaxis], element)[0].astype(int) - 1
    total = [
        sum(
            (bipolar[p, c] << p) if element in CODES else bipolar[p, c]
            for p in range(PLANES[element])
        )
        for c in range(len(values))
    ]
    own = {Element.BIPOLAR: (1, 0), Element.TERNARY: (2, 0)}
    scaled = own.get(element) or (2, (1 << CODES[element]) - 1)
    assert [(t + scaled[1]) / scaled[0] for t in total] == values.tolist()
    assert storage.plane_count(element) == PLANES[element]


@pytest.mark.parametrize("element", [Element.F32, Element.I32, Element.BOOL])
def test_other_elements_have_no_planes(element: Element) -> None:
    with pytest.raises(ValueError, match="has no bitplanes"):
        storage.to_planes(np.zeros((1, 3), element.dtype), element)
    with pytest.raises(ValueError, match="has no bitplanes"):
        storage.from_planes(np.zeros((1, 1, 3), np.uint8), element)


@pytest.mark.parametrize("element", list(Element), ids=lambda e: e.value)
def test_dense_storage_is_the_array_itself(element: Element) -> None:
    kind = TensorType((1, 3), element)
    logical = np.array([[1, 0, 1]], element.dtype)
    stored = storage.encode(logical, kind)
    np.testing.assert_array_equal(stored, logical, strict=True)
    np.testing.assert_array_equal(storage.decode(stored, kind), logical, strict=True)
    assert kind.nbytes == 3 * element.dtype.itemsize
    assert (kind.size, str(kind)) == (3, f"{element.value}[1x3]")


def test_dense_storage_is_contiguous_and_of_the_declared_element() -> None:
    stored = storage.encode(np.arange(6.0).reshape(3, 2).T, TensorType((1, 3), Element.F32))
    assert stored.flags.c_contiguous
    assert stored.dtype == np.float32


@pytest.mark.parametrize("element", [Element.F32, Element.I32, Element.U8, Element.BIPOLAR])
@pytest.mark.parametrize("sizes", [(), (5,), (2, 3), (1, 1)])
def test_channels_last_puts_the_channels_of_a_pixel_side_by_side(
    sizes: tuple[int, ...], element: Element
) -> None:
    kind = TensorType((1, 4, *sizes), element, CHANNELS_LAST)
    logical = np.arange(2 * kind.size).reshape(2, 4, *sizes).astype(element.dtype)
    stored = storage.encode(logical, kind)
    assert storage_shape(kind) == (1, *sizes, 4)
    assert (stored.shape, stored.dtype) == ((2, *sizes, 4), element.dtype)
    assert stored.flags.c_contiguous
    for n, c, *pixel in np.ndindex(*logical.shape):
        assert stored[(n, *pixel, c)] == logical[(n, c, *pixel)]
    decoded = storage.decode(stored, kind)
    np.testing.assert_array_equal(decoded, logical, strict=True)
    assert decoded.flags.c_contiguous
    assert kind.nbytes == kind.size * element.dtype.itemsize
    shape = "x".join(map(str, kind.shape))
    assert str(kind) == f"{element.value}[{shape}] channels-last"


def test_numbers_of_images_have_their_channels_last() -> None:
    assert [real_layout((1, 4)), real_layout((1,))] == [DENSE, DENSE]
    assert [real_layout((1, 4, 7)), real_layout((1, 4, 1, 1))] == [CHANNELS_LAST] * 2


@pytest.mark.parametrize("element", [Element.F32, Element.I32])
@pytest.mark.parametrize(
    ("sizes", "elements"), [((5,), 32), ((2, 3), 32), ((5, 7), 64), ((1, 1), 32), ((8, 8), 64)]
)
def test_planar_numbers_lie_where_planes_have_bits(
    sizes: tuple[int, ...], elements: int, element: Element
) -> None:
    kind = TensorType((1, 3, *sizes), element, Planar(8, 32))
    logical = 1 + np.arange(2 * kind.size).reshape(2, 3, *sizes).astype(element.dtype)
    stored = storage.encode(logical, kind)
    assert storage_shape(kind) == (1, 3, elements)
    assert (stored.shape, stored.dtype) == ((2, 3, elements), element.dtype)
    for n, c, *pixel in np.ndindex(*logical.shape):
        y, x = (0, *pixel)[-2:]
        assert stored[n, c, 8 * y + x] == logical[(n, c, *pixel)]
    assert (stored != 0).sum() == logical.size
    np.testing.assert_array_equal(storage.decode(stored, kind), logical, strict=True)
    shape = "x".join(map(str, kind.shape))
    assert str(kind) == f"{element.value}[{shape}] planar8"


def test_planes_lie_outside_of_pixels() -> None:
    # Two pixels of one channel: 2 has plane 1 set, 128 has plane 7 set.
    kind = TensorType((1, 1, 2), Element.U8, PackedChannels(32, 8))
    stored = storage.encode(np.array([[[2, 128]]], np.uint8), kind)
    assert stored[0, :, :, 0].tolist() == [[0, 0], [1, 0], *[[0, 0]] * 5, [0, 1]]


@pytest.mark.parametrize(
    ("channels", "word_bits", "element", "nbytes"),
    [
        (1, 32, Element.BIPOLAR, 4),
        (32, 32, Element.BIPOLAR, 4),
        (33, 32, Element.BIPOLAR, 8),
        (33, 64, Element.TERNARY, 16),
        (784, 64, Element.U8, 8 * 13 * 8),
    ],
)
def test_packed_bytes(channels: int, word_bits: int, element: Element, nbytes: int) -> None:
    kind = TensorType((1, channels), element, PackedChannels(word_bits, PLANES[element]))
    assert kind.nbytes == nbytes
    assert str(kind) == f"{element.value}[1x{channels}] packed{word_bits}x{PLANES[element]}"


def test_each_group_starts_on_a_word_of_its_own() -> None:
    layout = PackedChannels(32, 2, 3)
    kind = TensorType((1, 15, 4, 2), Element.TERNARY, layout)
    assert layout.words(15) == 3
    assert kind.nbytes == 2 * 4 * 2 * 3 * 4
    assert str(kind) == "ternary[1x15x4x2] packed32x2 in 3 groups"
