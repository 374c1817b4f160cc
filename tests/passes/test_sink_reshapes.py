"""sink_reshapes: what follows a layer's pixel stays a pixel, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.sink_reshapes import SINK_RESHAPES
from tests.ir.sketch import F, Sketch, ops
from tests.passes.applying import GENERIC, apply, same_values
from tests.passes.epilogues import BETA, GAMMA, MEAN, VARIANCE

RANDOM = np.random.default_rng(9)
WHOLE = Window((Axis(4), Axis(4)))
FLAT = Reshape((1, 8))


def reals(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(F)


def pixel() -> Sketch:
    """A layer over a whole image, "v" [1, 8, 1, 1], and its result flat, "f" [1, 8]."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 4))
    s(Conv(WHOLE), "x", reals(8, 3, 4, 4), to="v", origin=["conv"])
    s(FLAT, "v", to="f", origin=["flatten"])
    return s


def sunk(graph: Graph) -> Graph:
    after = apply(SINK_RESHAPES, graph).graph
    assert SINK_RESHAPES.apply(after, GENERIC).graph is after
    _, channels, *sizes = graph.types["x"].shape
    same_values(graph, after, x=reals(40, channels, *sizes))
    return after


def batch_norm(s: Sketch, x: str, to: str = "") -> str:
    return s.batch_norm(x, (GAMMA, BETA, MEAN, VARIANCE), to=to)


def test_a_whole_head() -> None:
    s = pixel()
    b = s(ew.Add(), "f", reals(8), to="b", origin=["conv"])
    a = s(ew.Sign(), batch_norm(s, b, "n"), to="a", origin=["act"])
    s(MatMul(), a, s.const(reals(5, 8), "w"), to="m", origin=["fc"])
    s(ew.Add(), "m", reals(1, 5), to="y", origin=["fc"])
    after = sunk(s.done())
    assert ops(after) == ["Conv", "Add", "BatchNormalization", "Sign", "Conv", "Add", "Reshape"]
    assert [n.output for n in after.nodes] == [
        *("v", "b.image", "n.image", "a.image", "m.image", "y.image", "y"),
    ]
    assert [n.origin for n in after.nodes][:4] == [("conv",), ("conv",), ("the n",), ("act",)]
    assert after.nodes[4].origin == after.nodes[5].origin == ("fc",)
    point = Conv(Window((Axis(1), Axis(1))))
    assert after.nodes[4].op == point


def test_every_constant_finds_its_channel() -> None:
    s = pixel()
    a = s(ew.PRelu(), s(ew.Mul(), reals(1, 8), "f"), reals(8))
    a = s(ew.Sub(), s(ew.Div(), a, reals(1, 1)), 0.5)
    s(ew.Where(), s(ew.Greater(), a, reals(8)), a, reals(1, 8), to="y")
    after = sunk(s.done())
    assert ops(after)[-1] == "Reshape"
    assert ops(after).count("Reshape") == 1


def test_paths_that_part_and_meet() -> None:
    s = pixel()
    e = s(ew.Clip(-1, 1), "f")
    s(ew.Add(), s(ew.Sub(), s(ew.Sign(), "f"), e), e, to="y")
    assert ops(sunk(s.done())) == ["Conv", "Clip", "Sign", "Sub", "Add", "Reshape"]


def test_two_pixels_that_meet() -> None:
    s = pixel()
    s(Conv(WHOLE), "x", reals(8, 3, 4, 4), to="u")
    s(ew.Add(), s(FLAT, "u"), s(ew.Relu(), "f"), to="y")
    assert ops(sunk(s.done())) == ["Conv", "Conv", "Relu", "Add", "Reshape"]


def test_what_follows_a_pool_of_a_layer() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 4))
    v = s(Conv(Window((Axis(1), Axis(1)))), "x", reals(8, 3, 1, 1))
    s(ew.Sign(), batch_norm(s, s(FLAT, s(MaxPool(WHOLE), v))), to="y")
    assert ops(sunk(s.done())) == ["Conv", "MaxPool", "BatchNormalization", "Sign", "Reshape"]


def test_one_dimension() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4))
    v = s(Conv(Window((Axis(4),))), "x", reals(8, 3, 4))
    s(MatMul(), s(ew.Add(), s(FLAT, v), reals(8)), s.const(reals(5, 8), "w"), to="y")
    after = sunk(s.done())
    assert ops(after) == ["Conv", "Add", "Conv", "Reshape"]
    assert after.nodes[2].op == Conv(Window((Axis(1),)))


def test_what_needs_the_flat_tensor_gets_it() -> None:
    s = pixel()
    b = batch_norm(s, "f", "b")
    s(Softmax(1), b, to="p")
    s(ew.Sign(), b, to="y")
    after = sunk(s.done("p", "y", "b"))
    assert sorted(ops(after)) == [
        *("BatchNormalization", "Conv", "Reshape", "Reshape", "Sign", "Softmax"),
    ]
    assert after.types["b"].shape == after.types["y"].shape == (1, 8)


def test_the_flat_tensor_itself_may_be_needed() -> None:
    s = pixel()
    s(ew.Sign(), "f", to="y")
    after = sunk(s.done("y", "f"))
    assert ops(after) == ["Conv", "Reshape", "Sign", "Reshape"]


# --- What stays -----------------------------------------------------------------------------------


def stays(s: Sketch, *outputs: str) -> None:
    graph = s.done(*outputs)
    assert SINK_RESHAPES.apply(graph, GENERIC).graph is graph


def test_nothing_follows() -> None:
    stays(pixel())
    s = pixel()
    s(Softmax(1), "f", to="y")
    stays(s)


def test_a_pixel_that_no_layer_made() -> None:
    # Nothing could fold into an average's epilogue.
    s = Sketch(stage=Stage.FLOAT, shape=(1, 8, 4, 4))
    s(ew.Sign(), s(FLAT, s(AveragePool(WHOLE), "x")))
    stays(s)
    s = Sketch(stage=Stage.FLOAT, shape=(1, 8, 1, 1))
    s(ew.Sign(), s(FLAT, s(ew.Relu(), "x")))
    stays(s)


def test_an_image_of_more_pixels() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 2, 2))
    v = s(Conv(Window((Axis(1), Axis(1)))), "x", reals(2, 3, 1, 1))
    s(ew.Sign(), s(FLAT, v))
    stays(s)


@pytest.mark.parametrize("flat", [(8,), (1, 8)])
def test_a_broadcast(flat: tuple[int, ...]) -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 4))
    v = s(Conv(WHOLE), "x", reals(1, 3, 4, 4))
    s(ew.Add(), s(Reshape((1, 1)), v), reals(*flat))
    stays(s)


def test_a_second_activation_that_is_flat() -> None:
    s = pixel()
    other = s.builder.input("other", s.builder.types["f"])
    s(ew.Add(), "f", other)
    stays(s)
