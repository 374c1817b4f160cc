"""absorb_movement: dense layers over images, with weights in the image's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.shape import Pad, Reshape, Transpose
from bnncc.ir.order import Order
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.absorb_movement import ABSORB_MOVEMENT
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes.applying import GENERIC, apply, same_values, staged

RANDOM = np.random.default_rng(8)
POINT_CONV = Conv(Window((Axis(1), Axis(1))))


def integers(*shape: int) -> Array:
    """Small integers: their sums are exact in any order."""
    return RANDOM.integers(-3, 4, shape).astype(F)


def image(*, shape: Sequence[int] = (1, 3, 4, 5)) -> Sketch:
    """A layer's result "v" [1, 3, ...]."""
    s = Sketch(stage=Stage.FLOAT, shape=shape)
    w = integers(3, shape[1], *(1,) * (len(shape) - 2))
    s(Conv(Window((Axis(1),) * (len(shape) - 2))), "x", w, to="v", origin=["conv"])
    return s


def flattened(s: Sketch, x: str, movements: Sequence[Op] = (Reshape((1, 60)),)) -> str:
    for op in movements:
        x = s(op, x, origin=["flatten"])
    return x


def dense(s: Sketch, x: str, *, to: str = "y", k: int = 60) -> str:
    return s(MatMul(), x, s.const(integers(7, k), f"w.{to}"), to=to, origin=["fc", "transpose"])


def absorbed(graph: Graph) -> Graph:
    outcome = apply(ABSORB_MOVEMENT, graph)
    assert differences(graph, outcome.graph, ABSORB_MOVEMENT.exactness) == []
    assert ABSORB_MOVEMENT.apply(outcome.graph, GENERIC).graph is outcome.graph
    _, channels, *sizes = graph.types["x"].shape
    same_values(graph, outcome.graph, x=integers(9, channels, *sizes))
    return alive(outcome.graph)


def alive(graph: Graph) -> Graph:
    return staged(apply(ELIMINATE_DEAD, staged(graph, Stage.BINARY)).graph, Stage.FLOAT)


MOVEMENTS: dict[str, list[Op]] = {
    "flatten": [Reshape((1, 60))],
    "channels last": [Transpose((0, 2, 3, 1)), Reshape((1, 60))],
    "transposed": [Transpose((0, 1, 3, 2)), Reshape((1, 60))],
    "in two steps": [Reshape((1, 3, 20)), Transpose((0, 2, 1)), Reshape((1, 60))],
    "regrouped": [Reshape((1, 6, 10)), Transpose((0, 2, 1)), Reshape((1, 2, 30)), Reshape((1, 60))],
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_every_movement(name: str) -> None:
    s = image()
    dense(s, flattened(s, "v", MOVEMENTS[name]))
    after = absorbed(s.done())
    assert ops(after) == ["Conv", "Conv", "Reshape"]
    assert after.nodes[1].op == Conv(Window((Axis(4), Axis(5))))
    assert [n.output for n in after.nodes] == ["v", "y.image", "y"]
    # A bias is known by its layer's origin.
    assert after.nodes[1].origin == ("fc", "transpose")
    assert after.nodes[2].origin == ("fc", "transpose", "flatten")


def test_one_dimension() -> None:
    s = image(shape=(1, 2, 20))
    dense(s, flattened(s, "v"))
    after = absorbed(s.done())
    assert after.nodes[1].op == Conv(Window((Axis(20),)))


def test_the_sum_runs_in_the_image_order() -> None:
    s = image()
    real = RANDOM.standard_normal((7, 60)).astype(F)
    s(MatMul(), flattened(s, "v"), real, to="y")
    graph = s.done()
    after = apply(ABSORB_MOVEMENT, graph).graph
    assert differences(graph, after, ABSORB_MOVEMENT.exactness) == []
    x = RANDOM.standard_normal((9, 3, 4, 5)).astype(F)
    old, new = (interpret.run(g, {"x": x})["y"] for g in (graph, after))
    assert (old != new).any()  # within the bound that `differences` allows


def residue(s: Sketch, x: str) -> str:
    e = s(ew.Clip(-1, 1), x)
    return s(ew.Add(), s(ew.Sub(), s(ew.Sign(), x), e), e)


def selected(s: Sketch, x: str) -> str:
    spelled_out = [np.full((1, 60), value) for value in (1.0, -1.0)]
    return s(ew.Where(), s(ew.GreaterOrEqual(), x, 0.0), *spelled_out)


BETWEEN: dict[str, Callable[[Sketch, str], str]] = {
    "sign": lambda s, x: s(ew.Sign(), x),
    "residue": residue,
    "constants spelled out": selected,
    "relu and scale": lambda s, x: s(ew.Mul(), s(ew.Relu(), x), np.full((1, 1), 0.5)),
    "round": lambda s, x: s(ew.Round(), s(ew.Clip(0, 1), x)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_elementwise_operations_between(name: str) -> None:
    s = image()
    last = BETWEEN[name](s, flattened(s, "v", MOVEMENTS["channels last"]))
    dense(s, last)
    graph = s.done()
    after = absorbed(graph)
    assert ops(after)[-2:] == ["Conv", "Reshape"]
    assert ops(after).count("Reshape") == 1
    layer = [n for n in after.nodes if isinstance(n.op, Conv)][1]
    assert layer.inputs[0] == f"{last}.reordered"
    assert after.types[layer.inputs[0]].shape == (1, 3, 4, 5)


def test_the_order_of_what_moved_is_stated() -> None:
    """`apply` holds the tensor to it; verify compares it with the model's own then."""
    s = image()
    flat = flattened(s, "v", (Transpose((0, 2, 3, 1)), Reshape((1, 60))))
    dense(s, s(ew.Sign(), flat, to="signs"))
    outcome = apply(ABSORB_MOVEMENT, s.done("y"))
    assert outcome.orders == {"signs.reordered": Order().then((4, 5, 3), (2, 0, 1))}


def test_layers_that_share_a_flat_image() -> None:
    s = image()
    flat = s(ew.Sign(), flattened(s, "v"))
    dense(s, flat)
    dense(s, flat, to="z")
    after = absorbed(s.done("y", "z"))
    assert ops(after) == ["Conv", "Sign", "Conv", "Reshape", "Conv", "Reshape"]
    assert after.nodes[1].output == f"{flat}.image"


def test_the_image_may_have_other_readers() -> None:
    s = image()
    dense(s, flattened(s, "v"))
    s(ew.Relu(), "v", to="r")
    assert "MatMul" not in ops(absorbed(s.done("y", "r")))


def test_a_transposed_pixel_is_absorbed_and_a_flattened_one_left() -> None:
    # sink_reshapes has what is left.
    s = image(shape=(1, 60, 1, 1))
    dense(s, flattened(s, "v", [Transpose((0, 2, 3, 1)), Reshape((1, 3))]), k=3)
    assert ops(absorbed(s.done())) == ["Conv", "Conv", "Reshape"]
    s = image(shape=(1, 60, 1, 1))
    dense(s, flattened(s, "v", [Reshape((1, 3))]), k=3)
    graph = s.done()
    assert ABSORB_MOVEMENT.apply(graph, GENERIC).graph is graph


# --- What stays -----------------------------------------------------------------------------------


def stays(s: Sketch, *outputs: str) -> None:
    graph = s.done(*outputs)
    assert ABSORB_MOVEMENT.apply(graph, GENERIC).graph is graph


def test_constants_a_feature_stay_on_the_flat_tensor() -> None:
    s = image()
    dense(s, s(ew.Sign(), s(ew.Sub(), flattened(s, "v"), np.arange(60))))
    stays(s)
    s = image()
    statistics = tuple(np.full(60, v) for v in (1.0, 0.0, 0.5, 1.0))
    dense(s, s.batch_norm(flattened(s, "v"), statistics))
    stays(s)


def test_zeros_of_both_signs_are_two_values() -> None:
    s = image()
    zeros = np.where(np.arange(60) % 2, F(0), -F(0))
    dense(s, s(ew.Sub(), flattened(s, "v"), zeros))
    stays(s)


def test_other_readers_need_the_flat_tensor() -> None:
    s = image()
    flat = flattened(s, "v")
    dense(s, s(ew.Sign(), flat, to="s"))
    s(ew.Relu(), flat, to="r")
    stays(s, "y", "r")
    s = image()
    flat = flattened(s, "v")
    dense(s, flat)
    stays(s, "y", flat)
    s = image()
    dense(s, s(ew.Sign(), flattened(s, "v"), to="s"))
    stays(s, "y", "s")
    s = image()
    moved = s(Transpose((0, 2, 3, 1)), "v")
    dense(s, flattened(s, moved))
    stays(s, "y", moved)


def test_a_padded_image_is_an_image() -> None:
    s = image()
    padded = s(Pad((0, 0, 0, 0), (0, 0, 0, 1), 0.0), "v")
    dense(s, flattened(s, padded, [Reshape((1, 72))]), k=72)
    assert ops(absorbed(s.done())) == ["Conv", "Pad", "Conv", "Reshape"]


# --- Inputs ---------------------------------------------------------------------------------------


def inputs(*links: Op) -> Sketch:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 5))
    last = "x"
    for op in links:
        last = s(op, last)
    dense(s, s(Reshape((1, 60)), last, to="flat", origin=["flatten"]))
    return s


def test_an_input_that_is_flattened_stays() -> None:
    stays(inputs())


def test_a_sign_of_the_input_moves_behind_the_reshape() -> None:
    graph = inputs(ew.Sign()).done()
    after = absorbed(graph)
    assert ops(after) == ["Reshape", "Sign", "MatMul"]
    assert [n.output for n in after.nodes] == ["x.flat", "flat", "y"]
    assert [n.origin for n in after.nodes][:2] == [("flatten",), ("the t0",)]


def test_a_sign_of_normalised_channels_moves_alone() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 5))
    normal = s(ew.Sub(), "x", np.arange(3).reshape(3, 1, 1), to="normal")
    dense(s, s(Reshape((1, 60)), residue(s, normal), to="flat"))
    after = absorbed(s.done())
    assert ops(after) == ["Sub", "Reshape", "Sign", "Clip", "Sub", "Add", "MatMul"]
    assert after.nodes[1].inputs == ("normal",)


def test_codes_are_flattened_as_codes() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 5), element=Element.U8)
    real = s(ew.Mul(), s(ew.Cast(Element.F32), "x"), 1 / 255)
    dense(s, s(Reshape((1, 60)), real, to="flat"))
    graph = s.done()
    after = apply(ABSORB_MOVEMENT, graph).graph
    assert ops(after) == ["Reshape", "Cast", "Mul", "MatMul"]
    assert after.types["x.flat"].element is Element.U8
    same_values(graph, after, x=RANDOM.integers(0, 256, (9, 3, 4, 5)).astype(np.uint8))


def test_an_input_whose_values_are_read_as_an_image_stays() -> None:
    s = inputs(ew.Sign())
    s(ew.Relu(), "t0", to="r")
    stays(s, "y", "r")


def test_weights_keep_their_columns() -> None:
    # One-hot images through one-hot weights: each column finds its element.
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4, 5))
    s(POINT_CONV, "x", np.eye(3).reshape(3, 3, 1, 1), to="v")
    s(MatMul(), flattened(s, "v", MOVEMENTS["channels last"]), np.eye(60), to="y")
    after = absorbed(s.done())
    weights = after.constants[only_wide(after)]
    x = np.eye(60, dtype=F).reshape(60, 3, 4, 5)
    expected = x.transpose(0, 2, 3, 1).reshape(60, 60)
    np.testing.assert_array_equal(interpret.run(after, {"x": x})["y"], expected)
    assert weights.shape == (60, 3, 4, 5)


def only_wide(graph: Graph) -> str:
    (node,) = (n for n in graph.nodes if isinstance(n.op, Conv) and n.op != POINT_CONV)
    return node.inputs[1]


def test_without_an_image() -> None:
    s = Sketch(60, stage=Stage.FLOAT)
    dense(s, s(ew.Sign(), "x"))
    stays(s)
    assert only(s.done(), MatMul).output == "y"
