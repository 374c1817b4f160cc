"""borders: constant images as tables of the rows and columns that differ."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.backend.borders import Bordered, bordered
from bnncc.ir.types import Array
from tests.ir.sketch import F


def read(found: Bordered, p: int, c: int) -> np.generic:
    """Return what C reads for channel c of pixel p."""
    tables = {k.name: k.values.astype(int) for k in found.kinds}
    place = re.sub(r"(\d)u", r"\1", found.place).replace("/", "//")
    value: np.generic = found.table.values.reshape(-1)[eval(place, {"p": p, "c": c, **tables})]
    return value


def check(image: Array) -> Bordered:
    """Assert that a table is smaller and reads as the image does; return it."""
    found = bordered("t", image)
    assert found is not None
    assert found.table.nbytes + sum(k.nbytes for k in found.kinds) < image.nbytes
    pixels = image.reshape(-1, image.shape[-1])
    for p, c in np.ndindex(*pixels.shape):
        assert read(found, p, c).tobytes() == pixels[p, c].tobytes()
    return found


def image_of(rows: list[int], columns: list[int], channels: int = 5) -> Array:
    """Return an image of which each kind of row and column has other values."""
    kinds = np.random.default_rng(0).standard_normal((9, 9, channels)).astype(F)
    return kinds[np.ix_(rows, columns)][np.newaxis]


def test_a_border_around_an_image() -> None:
    found = check(image_of([0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2]))
    assert found.table.shape == (3, 3, 5)
    assert [k.values.tolist() for k in found.kinds] == [[0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2]]
    assert [k.c_type for k in found.kinds] == ["uint8_t"] * 2
    assert found.place == "t_rows[p / 6u] * 15u + t_columns[p % 6u] * 5u + c"


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        ([0, 0, 0, 0], [0, 0, 0], "c"),
        ([0, 1, 1, 1, 1, 1, 1], [0, 0, 0], "t_rows[p / 3u] * 5u + c"),
        ([0, 0, 0, 0], [0, 1, 1, 1, 1], "t_columns[p % 5u] * 5u + c"),
        # In order of appearance, wherever they come back.
        ([3, 1, 3, 1, 3, 1], [7, 7, 7, 2, 7], "t_rows[p / 5u] * 10u + t_columns[p % 5u] * 5u + c"),
    ],
    ids=str,
)
def test_one_kind_needs_no_index(rows: list[int], columns: list[int], place: str) -> None:
    assert check(image_of(rows, columns)).place == place


def test_a_row_of_pixels() -> None:
    found = check(image_of([0], [0, 1, 1, 1, 1, 1, 2])[0])
    assert found.place == "t_columns[p] * 5u + c"


def test_zeros_of_both_signs_differ() -> None:
    image = np.zeros((1, 6, 6, 3), F)
    image[0, 2, 4, 1] = -0.0
    assert check(image).table.shape == (2, 2, 3)


def test_more_than_256_kinds() -> None:
    image = np.zeros((1, 300, 2, 40), F)
    image[0, :, :, 0] = np.arange(300)[:, np.newaxis]
    found = check(image)
    assert [k.c_type for k in found.kinds] == ["uint16_t"]


@pytest.mark.parametrize(
    "image",
    [
        image_of([0, 1, 2, 3], [0, 1, 2]),
        np.zeros((1, 5), F),
        np.zeros((1, 2, 3, 4, 5), F),
        np.zeros((2, 4, 4, 3), F),
        np.zeros((1, 1, 1, 3), F),
    ],
    ids=["all differ", "no pixels", "three axes", "a batch", "one pixel"],
)
def test_other_tensors_stay_whole(image: Array) -> None:
    assert bordered("t", image) is None


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_any_image(rows: list[int], columns: list[int], channels: int) -> None:
    image = image_of(rows, columns, channels)
    found = bordered("t", image)
    kinds = len(set(rows)) * len(set(columns))
    index = sum(len(k) for k in (rows, columns) if len(set(k)) > 1)
    table = kinds * channels * 4 + index
    assert (found is not None) == (table < image.nbytes)
    if found is not None:
        check(image)
