"""Classes merged into channels: every sum is what its channel's pattern says, and fits its bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.backend.merges import Merge, merge
from bnncc.ir.classes import class_patterns
from bnncc.ir.ops.shared_sums import ClassSums
from bnncc.ir.types import Array

GROUPS = [(k, False) for k in range(1, 8)] + [(k, True) for k in range(1, 5)]


class Sums(ClassSums):
    """All that merging asks a layer for."""

    def __init__(self, k: int, *, ternary: bool) -> None:
        vars(self).update(k=k, ternary=ternary)


def merged(found: Merge, sums: Array) -> Array:
    """Return each channel's number, less `more`, by taking each step on the sums of classes."""
    held = {f"sums[{i}]": int(value) for i, value in enumerate(sums)}
    assert max(held.values()) < 1 << found.bits
    channels = np.full(len(found.more), -1, np.int64)
    for step in found.steps:
        if step.channel >= 0:
            value = held[step.text]
            assert value < (1 << found.width) - 1  # a limit can be above it
            channels[step.channel] = value - found.more[step.channel]
        elif function := step.function:
            to, *names = step.text[step.text.index("(") + 1 : -1].split(", ")
            x, y = (held[name] for name in names)
            assert x < 1 << function.bits
            if function.kind == "less_twice":
                assert y < 1 << (function.bits - 1)
                held[to] = x - 2 * y + (1 << function.bits)
            else:
                assert y < 1 << (function.narrow or function.bits)
                held[to] = x + y
                assert x + y < 1 << (function.after or function.bits + 1)
    return channels


@pytest.mark.parametrize(("k", "ternary"), GROUPS)
def test_classes_that_are_as_large_as_they_can_be(k: int, ternary: bool) -> None:
    patterns = class_patterns(k, ternary=ternary).astype(np.int64)
    most = np.arange(30, 30 + len(patterns))
    found = merge(Sums(k, ternary=ternary), most[np.newaxis], "m")
    for chosen in np.vstack([patterns.T > 0, patterns.T < 0, np.ones(len(most), bool)]):
        assert (merged(found, most * chosen) == (most * chosen) @ patterns).all()


@given(st.sampled_from(GROUPS), st.data())
def test_any_sums(group: tuple[int, bool], data: st.DataObject) -> None:
    """Several groups of one layer, each with sizes of classes of its own."""
    k, ternary = group
    patterns = class_patterns(k, ternary=ternary).astype(np.int64)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scale = data.draw(st.sampled_from([1, 31, 32, 1000, 60000]))
    most = (scale * random.random((2, len(patterns))) ** 4).round().astype(np.int64)
    found = merge(Sums(k, ternary=ternary), most, "m")
    for row in most:
        sums = random.integers(0, row + 1)
        assert (merged(found, sums) == sums @ patterns).all()
        assert (merged(found, row) == row @ patterns).all()
