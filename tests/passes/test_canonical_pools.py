"""canonical_pools: maxima over whole axes of images are pools, which bits have too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import PoolBits, XnorConv
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMax, ReduceMean
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.canonical_pools import CANONICAL_POOLS
from bnncc.pipeline import run_pipeline
from tests.ir.sketch import HARD, F, Sketch, only, same_bits
from tests.passes.applying import GENERIC, apply, same_text

SHAPE = (1, 2, 3, 4)


def reduced(axes: Sequence[int], *, keepdims: bool) -> Graph:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    s(ReduceMax(tuple(axes), keepdims), "x", to="y")
    return s.done()


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize(("axes", "kernel"), [((2, 3), (3, 4)), ((2,), (3, 1)), ((3,), (1, 4))])
def test_axes_of_an_image(axes: Sequence[int], kernel: Sequence[int], keepdims: bool) -> None:
    before = reduced(axes, keepdims=keepdims)
    after = apply(CANONICAL_POOLS, before).graph
    expected = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    pool = MaxPool(Window(tuple(map(Axis, kernel))))
    if keepdims:
        expected(pool, "x", to="y")
    else:
        wide = expected(pool, "x", to="y.pooled", origin=("the y",))
        expected(Reshape(before.types["y"].shape), wide, to="y")
    same_text(after, expected)
    x = np.random.default_rng(1).choice(
        np.append(HARD, [np.inf, -np.inf, np.nan]), (200, *SHAPE[1:])
    )
    x[0] = -np.inf
    old, new = (interpret.run(g, {"x": x.astype(F)})["y"] for g in (before, after))
    same_bits(new, old)


@pytest.mark.parametrize("axes", [(1,), (1, 2), (1, 2, 3)])
def test_maxima_over_channels_stay(axes: Sequence[int]) -> None:
    before = reduced(axes, keepdims=True)
    assert CANONICAL_POOLS.apply(before, GENERIC).graph is before


def test_means_stay() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    s(ReduceMean((2, 3), keepdims=True), "x", to="y")
    before = s.done()
    assert CANONICAL_POOLS.apply(before, GENERIC).graph is before


@pytest.mark.parametrize("signs_first", [False, True])
def test_a_maximum_of_signs_stays_bits(*, signs_first: bool) -> None:
    """Sign and maximum, in either order, between two layers."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 5, 5))
    latent = np.random.default_rng(5).standard_normal((8, 3, 1, 1)).astype(F)
    x = s(Conv(Window((Axis(1), Axis(1)))), "x", latent)
    largest = ReduceMax((2, 3), keepdims=False)
    for op in (ew.Sign(), largest) if signs_first else (largest, ew.Sign()):
        x = s(op, x)
    s(MatMul(), x, np.where(np.arange(24).reshape(3, 8) % 5 < 2, F(-0.5), F(0.5)), to="y")
    packed = run_pipeline(s.done(), GENERIC).graph
    assert packed.types[only(packed, PoolBits).output].element is Element.BIPOLAR
    assert only(packed, XnorConv).origin == ("the y",)
