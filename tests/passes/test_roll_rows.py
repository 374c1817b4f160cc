"""Copies for bands of rows: where they are made, what they hold, and what that saves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnncc.backend.lower import lower
from bnncc.backend.memory import plan_memory
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.shared_sums import SharedSums, Spread
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes import roll_rows
from bnncc.passes.base import Context, Family
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.roll_rows import ROLL_ROWS, bands, time_of_band
from bnncc.passes.share_sums import SHARE_SUMS, pitch_of
from bnncc.pipeline import run_pass
from bnncc.targets import target_named
from tests.ir.sketch import Sketch
from tests.passes.applying import staged
from tests.passes.convolutions import SAME, bits_of


def context(target: str, family: Family = Family.SHARED) -> Context:
    return Context(target_named(target), families={"*": family})


def layer(target: str, channels: int, size: int, window: Window = SAME) -> Graph:
    """Return a layer of bits, by comparison, as shared sums of whole images."""
    s = Sketch(shape=(1, channels, size, size))
    w = np.random.default_rng(0).choice([-1, 1], (channels, channels, 3, 3)).astype(np.int8)
    x = bits_of(s, "x", "s", channels=channels)
    n = s(BinaryConv(window, 1, -1), x, s.const(w, "w", Element.BIPOLAR), to="n")
    t = s.const(np.zeros((channels, 1)), "t", Element.I32)
    graph = s.done(s(Step(Element.BIPOLAR), n, t, [[-1, 1]] * channels, to="y"))
    packed = LOWER_KERNELS.apply(graph, context(target)).graph
    return SHARE_SUMS.apply(staged(packed, Stage.PACKED), context(target)).graph


def sums_of(graph: Graph) -> SharedSums:
    (op,) = (node.op for node in graph.nodes if isinstance(node.op, SharedSums))
    return op


@pytest.mark.parametrize(
    ("target", "channels", "size", "rows", "bytes_of"),
    [
        ("generic", 64, 32, 1, (147_584, 4_612)),
        ("generic", 64, 16, 2, (36_896, 4_612)),
        ("generic", 256, 8, 4, (36_872, 18_436)),
        ("cortex-m4", 64, 32, 2, (52_352, 6_152)),
        ("cortex-m4", 64, 16, 4, (13_856, 4_616)),
        ("cortex-m4", 128, 16, 2, (27_680, 6_148)),
        ("cortex-m55", 64, 32, 8, (52_352, 15_392)),
        ("x86-64", 64, 32, 4, (52_352, 9_232)),
        ("x86-64-v3", 64, 32, 8, (52_352, 15_392)),
        ("aarch64", 128, 32, 8, (104_576, 30_752)),
    ],
)
def test_bytes_of_copies(
    target: str, channels: int, size: int, rows: int, bytes_of: tuple[int, int]
) -> None:
    whole, copies = bytes_of
    before = layer(target, channels, size)
    assert 4 * sums_of(before).taps.words == whole
    after = sums_of(ROLL_ROWS.apply(before, context(target)).graph)
    (scratch,) = after.scratch
    assert (after.taps.band, scratch.kind.nbytes) == (rows, copies)
    assert time_of_band(sums_of(before), rows, lean=False) <= 0.03


def test_one_slice_stays_whole() -> None:
    for target, size in (("x86-64-v3", 16), ("cortex-m4", 5), ("aarch64", 8)):
        before = layer(target, 8, size)
        assert ROLL_ROWS.apply(before, context(target)).graph is before


@pytest.mark.parametrize(
    ("target", "size", "rows", "copies"),
    [("generic", 16, 8, 18_448), ("cortex-m4", 16, 8, 7_696), ("cortex-m4", 32, 6, 12_312)],
)
def test_lists_are_built_for_few_bands(target: str, size: int, rows: int, copies: int) -> None:
    before = layer(target, 64, size)
    after = sums_of(ROLL_ROWS.apply(before, context(target, Family.LEAN)).graph)
    assert (after.taps.band, 4 * after.taps.words) == (rows, copies)
    assert time_of_band(sums_of(before), rows, lean=True) <= 0.15


def test_copies_are_scratch_of_the_layer() -> None:
    before = layer("cortex-m4", 64, 32)
    after = run_pass(ROLL_ROWS, before, context("cortex-m4")).graph
    assert not any(isinstance(node.op, Spread) for node in after.nodes)
    plan, program = plan_memory(after), lower(after, "m", ())
    (place,) = plan.scratch.values()
    (argument,) = (a for found in program.layers for a in found.scratch)
    assert (argument.name, argument.buffer.nbytes) == ("copies", 6_152)
    (node,) = (node for node in after.nodes if isinstance(node.op, SharedSums))
    for name in (node.inputs[0], *node.outputs):
        start, size = plan.offsets[name], after.types[name].nbytes
        assert place + argument.buffer.nbytes <= start or start + size <= place


WINDOWS = {
    "same": Window((Axis(3, 1, 1, 1, 1),) * 2),
    "halved": Window((Axis(3, 2, 1, 1, 1),) * 2),
    "spaced": Window((Axis(3, 1, 2, 3, 0), Axis(2, 1, 2, 0, 1))),
    "in threes": Window((Axis(5, 3, 1, 2, 2), Axis(1))),
}


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("name", WINDOWS)
def test_bands_hold_what_all_rows_do(name: str, *, by_row: bool) -> None:
    """A tap's plane of a band is a part of its plane of all rows."""
    window, sizes = WINDOWS[name], (23, 19)
    pitch = pitch_of(window.axes[1].outputs(sizes[1]))
    whole = TapPlanes(window, sizes, 3, (1,), pitch, 32, by_row, inverted=True, word_bits=32)
    bits = np.random.default_rng(0).integers(0, 2, (2, 1, 3, *sizes)).astype(np.uint8)
    expected = whole.slices(whole.spread(bits), whole.offsets().reshape(-1))
    tried = list(bands(whole, pitch_of(sizes[1])))
    assert tried
    for rows in tried:
        taps = replace(whole, band=rows)
        parts = [
            taps.slices(taps.spread(bits, band), taps.offsets().reshape(-1))
            for band in range(taps.bands)
        ]
        assert all(part.shape[-1] == rows * taps.pitch for part in parts)
        found = np.concatenate(parts, axis=-1)
        used = whole.outputs[0] * whole.pitch
        assert np.array_equal(found[..., :used], expected[..., :used])


def test_a_smaller_band_takes_less_memory_and_more_time() -> None:
    op = sums_of(layer("cortex-m4", 64, 32))
    rows = [1, 2, 4, 8, 16]
    words = [replace(op.taps, band=n).words for n in rows]
    times = [time_of_band(op, n, lean=False) for n in rows]
    assert words == sorted(words)
    assert times == sorted(times, reverse=True)
    assert all(time_of_band(op, n, lean=True) > t for n, t in zip(rows, times, strict=True))


def test_every_band_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_rows, "_MORE", math.inf)
    for target in ("generic", "cortex-m4"):
        before = layer(target, 9, 14)
        after = run_pass(ROLL_ROWS, before, context(target)).graph
        assert sums_of(after).taps.bands == 7
