"""Which taps of a window lie in the image, counted one by one, and the kinds of outputs."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pytest

from bnncc.ir.window import Axis
from tests.runtime_c.driver import WARNINGS, compiled

_SOURCE = """
#include "bnn_window.h"

void taps(size_t start, size_t before, size_t size, size_t dilation, size_t kernel, size_t *ends);
void taps(size_t start, size_t before, size_t size, size_t dilation, size_t kernel, size_t *ends) {
  ends[0] = bnn_first_tap(start, before, dilation);
  ends[1] = bnn_end_tap(ends[0], start, before + size, dilation, kernel);
}

size_t first_of_kind(size_t kind, size_t first, size_t end);
size_t first_of_kind(size_t kind, size_t first, size_t end) {
  return bnn_first_of_kind(kind, first, end);
}
"""


class Taps:
    """The two functions, called as the generated C calls them."""

    def __init__(self, cc: str, folder: Path) -> None:
        flags = ("-shared", "-fPIC", "-O2", "-std=c99", *WARNINGS)
        path = compiled(cc, _SOURCE, folder / "window.so", *flags)
        self._call = ctypes.CDLL(str(path)).taps
        self.first_of_kind = ctypes.CDLL(str(path)).first_of_kind

    def __call__(self, axis: Axis, output: int, size: int) -> range:
        ends = (ctypes.c_size_t * 2)()
        given = (output * axis.stride, axis.before, size, axis.dilation, axis.kernel)
        self._call(*map(ctypes.c_size_t, given), ends)
        return range(ends[0], ends[1])


@pytest.fixture(scope="module")
def taps(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Taps:
    return Taps(cc, tmp_path_factory.mktemp("window"))


def _counted(axis: Axis, output: int, size: int) -> list[int]:
    places = [output * axis.stride - axis.before + k * axis.dilation for k in range(axis.kernel)]
    return [k for k, place in enumerate(places) if 0 <= place < size]


def test_every_small_window(taps: Taps) -> None:
    seen = set()
    for size, kernel, stride, dilation, before in itertools.product(
        (1, 2, 3, 5), (1, 2, 3, 4), (1, 2, 3), (1, 2, 3), (0, 1, 2, 4)
    ):
        axis = Axis(kernel, stride, dilation, before)
        # As far as the last window that begins inside; what lies behind it sees nothing.
        for output in range((size + before - 1) // stride + 2):
            inside = _counted(axis, output, size)
            found = taps(axis, output, size)
            assert list(found) == inside, (axis, output, size)
            assert found.start <= found.stop  # so that a difference of the two counts
            seen.add(("none", "some", "all")[(len(inside) > 0) + (len(inside) == kernel)])
    assert seen == {"none", "some", "all"}


def test_an_empty_range_begins_where_it_ends(taps: Taps) -> None:
    # Dilated so far that the image lies between two taps.
    assert taps(Axis(2, 1, 4, 2), 0, 2) == range(1, 1)
    # Beyond the end, where rounding up may put the last window of a pool.
    assert len(taps(Axis(2, 3), 2, 4)) == 0


def test_large_images(taps: Taps) -> None:
    axis = Axis(7, 2, 3, 9)
    for output in (0, 1, 4, 5, 30_000, 49_990, 49_999, 50_004):
        assert list(taps(axis, output, 100_000)) == _counted(axis, output, 100_000)


@pytest.mark.parametrize(("outputs", "first", "end"), [(9, 2, 7), (4, 0, 4), (5, 0, 3), (3, 1, 3)])
def test_kinds_of_outputs(taps: Taps, outputs: int, first: int, end: int) -> None:
    kinds = [[o] for o in range(first)] + [list(range(first, end))]
    kinds += [[o] for o in range(end, outputs)]
    sizes = ctypes.c_size_t(first), ctypes.c_size_t(end)
    starts = [taps.first_of_kind(ctypes.c_size_t(k), *sizes) for k in range(len(kinds) + 1)]
    found = [list(range(*pair)) for pair in itertools.pairwise(starts)]
    assert found == kinds


def test_without_outputs_that_see_all_taps_the_first_kind_is_empty(taps: Taps) -> None:
    sizes = ctypes.c_size_t(0), ctypes.c_size_t(0)
    assert [taps.first_of_kind(ctypes.c_size_t(k), *sizes) for k in range(4)] == [0, 0, 1, 2]
