"""absorb_pads: a Pad and a window are one window, to the bit, or stay two."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Pad
from bnncc.ir.types import Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.absorb_pads import ABSORB_PADS
from tests.ir.sketch import HARD, INF, LARGEST, F, Sketch, only, ops
from tests.passes.applying import GENERIC, apply, same_values

RANDOM = np.random.default_rng(6)
WEIGHTS = RANDOM.standard_normal((6, 2, 3, 3)).astype(F)
SQUARE = Window((Axis(3), Axis(3)))
UNEVEN = Pad((0, 0, 1, 0), (0, 0, 2, 3), 0.0)


def padded(pad: Pad, op: Op, *operands: object, shape: tuple = (1, 4, 7, 6)) -> Sketch:
    s = Sketch(stage=Stage.FLOAT, shape=shape)
    s(pad, "x", to="p", origin=["pad"])
    s(op, "p", *operands, to="y", origin=["layer"])
    return s


def images(shape: tuple = (4, 7, 6)) -> np.ndarray:
    x = RANDOM.standard_normal((6, *shape)).astype(F)
    x[4:] = RANDOM.choice(HARD[np.abs(HARD) < 1e18], (2, *shape))
    x[2][x[2] < 0] = -0.0
    return x


def absorbed(graph: Graph, shape: tuple = (4, 7, 6)) -> Graph:
    after = apply(ABSORB_PADS, graph).graph
    assert "Pad" not in ops(after)
    same_values(graph, after, x=images(shape))
    assert ABSORB_PADS.apply(after, GENERIC).graph is after
    return after


@pytest.mark.parametrize(
    "window",
    [
        SQUARE,
        Window((Axis(3, 2, before=1), Axis(3, 2, after=1))),
        Window((Axis(3, dilation=2), Axis(3, 3, dilation=3, before=2, after=1))),
    ],
    ids=["plain", "stride and padding", "dilation"],
)
def test_convolutions(window: Window) -> None:
    graph = padded(UNEVEN, Conv(window, 2), WEIGHTS).done()
    node = only(absorbed(graph), Conv)
    assert node.op.groups == 2
    for axis, old, before, after in zip(
        node.op.window.axes, window.axes, (1, 0), (2, 3), strict=True
    ):
        assert (axis.before, axis.after) == (old.before + before, old.after + after)
    assert node.origin == ("layer", "pad")


def test_one_dimension() -> None:
    pad = Pad((0, 0, 2), (0, 0, 1), 0.0)
    conv = Conv(Window((Axis(3, 2),)))
    graph = padded(pad, conv, WEIGHTS[:, :, 0], shape=(1, 2, 9)).done()
    absorbed(graph, (2, 9))


@pytest.mark.parametrize("value", [-INF, float(-LARGEST)])
def test_max_pools(value: float) -> None:
    pool = MaxPool(Window((Axis(3, 2, before=1), Axis(2, 2))))
    graph = padded(Pad((0, 0, 1, 1), (0, 0, 0, 1), float(value)), pool).done()
    absorbed(graph)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counts", [False, True])
def test_average_pools_count_the_padding(counts: bool, ceil: bool) -> None:
    pool = AveragePool(Window((Axis(3, 2, ceil=ceil), Axis(2, 2, ceil=ceil))), counts)
    graph = padded(Pad((0, 0, 1, 1), (0, 0, 0, 1), 0.0), pool).done()
    after = apply(ABSORB_PADS, graph).graph
    assert ops(after) == ["AveragePool"]
    assert only(after, AveragePool).op.count_include_pad
    same_values(graph, after, x=images())


def test_two_layers_absorb_one_pad() -> None:
    s = padded(UNEVEN, Conv(SQUARE, 2), WEIGHTS)
    s(Conv(Window((Axis(1), Axis(1)))), "p", np.ones((3, 4, 1, 1)), to="z")
    graph = s.done("y", "z")
    after = apply(ABSORB_PADS, graph).graph
    assert ops(after) == ["Conv", "Conv"]
    same_values(graph, after, x=images())


def test_pads_in_a_row() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 4, 7, 6))
    s(Conv(SQUARE, 2), s(UNEVEN, s(UNEVEN, "x")), WEIGHTS, to="y")
    node = only(absorbed(s.done()), Conv)
    assert [(a.before, a.after) for a in node.op.window.axes] == [(2, 4), (0, 6)]


# --- What stays -----------------------------------------------------------------------------------


def stays(graph: Graph) -> None:
    assert ABSORB_PADS.apply(graph, GENERIC).graph is graph


def around(value: float) -> Pad:
    return Pad((0, 0, 1, 1), (0, 0, 1, 1), value)


def test_another_value_stays() -> None:
    for value in (1.0, -1.0, INF, float(np.nextafter(F(0), F(1)))):
        stays(padded(around(value), Conv(SQUARE, 2), WEIGHTS).done())
    stays(padded(around(0.0), MaxPool(SQUARE)).done())
    stays(padded(around(-1e30), MaxPool(SQUARE)).done())
    stays(padded(around(1.0), AveragePool(SQUARE)).done())


def test_padded_channels_stay() -> None:
    pad = Pad((0, 1, 1, 1), (0, 1, 1, 1), 0.0)
    stays(padded(pad, Conv(SQUARE, 3), WEIGHTS).done())


def test_other_readers_need_the_image() -> None:
    s = padded(around(0.0), Conv(SQUARE, 2), WEIGHTS)
    s(ew.Relu(), "p", to="z")
    stays(s.done("y", "z"))
    stays(padded(around(0.0), Conv(SQUARE, 2), WEIGHTS).done("y", "p"))


def test_infinite_weights_make_numbers_of_zeros() -> None:
    weights = WEIGHTS.copy()
    weights[0, 0, 0, 0] = INF
    stays(padded(around(0.0), Conv(SQUARE, 2), weights).done())


def test_an_average_with_padding_of_its_own_stays() -> None:
    window = Window((Axis(3, before=1), Axis(3)))
    stays(padded(around(0.0), AveragePool(window)).done())


def test_windows_that_would_end_elsewhere_stay() -> None:
    # On 4 padded elements the second window starts inside; on 2, in the padding behind them.
    window = Window((Axis(1), Axis(2, 3, ceil=True)))
    graph = padded(Pad((0,) * 4, (0, 0, 0, 2), -INF), MaxPool(window), shape=(1, 4, 1, 2)).done()
    stays(graph)


def test_windows_that_would_see_nothing_stay() -> None:
    window = Window((Axis(1), Axis(2, 2)))
    graph = padded(Pad((0,) * 4, (0, 0, 0, 2), -INF), MaxPool(window), shape=(1, 4, 1, 2)).done()
    stays(graph)


def test_without_a_pad() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 4, 7, 6))
    s(Conv(SQUARE, 2), "x", WEIGHTS)
    stays(s.done())
