"""sink_transposes: images keep their channels first, to the bit, wherever the model has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.linear import BinaryConv, Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMean, ReduceSum
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.order import Order
from bnncc.ir.types import Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.absorb_pads import ABSORB_PADS
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.sink_transposes import SINK_TRANSPOSES
from bnncc.pipeline import run_pass
from tests.ir.sketch import HARD, F, Sketch, only, ops
from tests.passes.applying import GENERIC, after, apply, same_values
from tests.passes.images import signs

RANDOM = np.random.default_rng(11)
SHAPE = (1, 3, 5, 4)
LAST, FIRST = Transpose((0, 2, 3, 1)), Transpose((0, 3, 1, 2))
SINGLE = Window((Axis(1), Axis(1)))
SQUARE = Window((Axis(3), Axis(3)))
TABLES = tuple(RANDOM.standard_normal((4, 3)).astype(F))


def images(shape: tuple = SHAPE[1:]) -> np.ndarray:
    x = RANDOM.standard_normal((6, *shape)).astype(F)
    x[4:] = RANDOM.choice(HARD[np.abs(HARD) < 1e18], (2, *shape))
    return x


def layer(s: Sketch, x: str = "x", to: str = "n") -> str:
    w = s.const(RANDOM.standard_normal((3, s.builder.types[x].shape[1], 1, 1)).astype(F), "w")
    return s(Conv(SINGLE), x, w, to=to, origin=[to])


def between(body: Callable[[Sketch, str], str], shape: tuple = SHAPE) -> Graph:
    """Return a layer, `body` on its result with channels last, and another layer."""
    s = Sketch(stage=Stage.FLOAT, shape=shape)
    last = body(s, s(LAST, layer(s), to="t", origin=["to last"]))
    layer(s, s(FIRST, last, to="u", origin=["to first"]), "y")
    return s.done("y")


def sunk(graph: Graph) -> Graph:
    moved = apply(SINK_TRANSPOSES, graph).graph
    (kind,) = (graph.types[name] for name in graph.inputs)
    same_values(graph, moved, x=images(kind.shape[1:]))
    run_pass(SINK_TRANSPOSES, graph, GENERIC)
    assert SINK_TRANSPOSES.apply(moved, GENERIC).graph is moved
    return moved


def constant(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(F)


BODIES: dict[str, Callable[[Sketch, str], str]] = {
    "nothing": lambda s, t: t,
    "a chain": lambda s, t: s(ew.Sign(), s(ew.Add(), s(ew.Sign(), t), 0.1)),
    "a row": lambda s, t: s(ew.Mul(), t, constant(3)),
    "a row in front": lambda s, t: s(ew.Sub(), constant(1, 1, 1, 3), t),
    "a column": lambda s, t: s(ew.Add(), t, constant(5, 1, 1)),
    "a whole image": lambda s, t: s(ew.Add(), t, constant(5, 4, 3)),
    "a slope": lambda s, t: s(ew.PRelu(), t, constant(1, 1, 3)),
    "three operands": lambda s, t: s(
        ew.Where(), s(ew.Greater(), t, constant(3)), s(ew.Neg(), t), constant(4, 1)
    ),
    "two readers": lambda s, t: s(ew.Add(), s(ew.Relu(), t), s(ew.Tanh(), t)),
    "a pad": lambda s, t: s(Pad((0, 1, 0, 2), (0, 3, 1, 0), 1.0), t),
    "a slice": lambda s, t: s(Slice((0, 1, 0, 1), (1, 2, 4, 2), (1, 2, 1, 1)), t),
    "joined pixels": lambda s, t: s(Concat(1), t, s(ew.Relu(), t)),
    "joined channels": lambda s, t: s(Concat(3), t, s.const(constant(1, 5, 4, 2)), t),
    "a mean of channels": lambda s, t: s(ew.Sub(), t, s(ReduceMean((3,), keepdims=True), t)),
    "a sum of channels": lambda s, t: s(ew.Mul(), t, s(ReduceSum((3,), keepdims=True), t)),
    "a mean of a row": lambda s, t: s(ReduceMean((1,), keepdims=True), t),
    "another order": lambda s, t: s(
        Transpose((0, 2, 1, 3)), s(ew.Relu(), s(Transpose((0, 2, 1, 3)), t))
    ),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_lies_between_two_layers(body: Callable[[Sketch, str], str]) -> None:
    before = between(body)
    moved = sunk(before)
    assert not {"Transpose", "Reshape"} & set(ops(moved))
    assert sorted(ops(moved)) == sorted(op for op in ops(before) if op != "Transpose")


def test_the_order_of_what_moved_is_stated() -> None:
    """`apply` holds the tensor to it; verify compares it with the model's own then."""
    before = between(lambda s, t: s(ew.Relu(), s(ew.Sign(), t, to="signs")))
    outcome = apply(SINK_TRANSPOSES, before)
    assert set(outcome.orders) & set(outcome.graph.types) == {"signs.reordered"}
    assert outcome.orders["signs.reordered"] == Order().then((5, 4, 3), (2, 0, 1))


def test_the_last_result_is_called_as_in_the_model() -> None:
    """Verify compares it with the model's own then."""
    moved = sunk(between(lambda s, t: s(ew.Sign(), s(ew.Relu(), t), to="signs")))
    assert moved.producers["u"].op == ew.Sign()
    assert moved.producers["u"].origin == ("the signs",)


def test_constants_move_with_their_axes() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 1, 2))
    s(FIRST, s(ew.Mul(), s(LAST, layer(s)), [1.0, 2.0, 4.0], to="m"), to="u")
    graph = s.done("u")
    node = only(sunk(graph), ew.Mul)
    moved = sunk(graph).constants[node.inputs[1]]
    np.testing.assert_array_equal(moved, np.array([1, 2, 4], F).reshape(1, 3, 1, 1))


# --- Where they end -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Reshape((1, 60)), ReduceMean((1, 2), keepdims=False)], ids=str)
def test_in_front_of_what_needs_the_order(end: Op) -> None:
    """A sum over rows of pixels first would round otherwise."""
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    s(end, s(ew.Relu(), s(LAST, layer(s)), to="r"), to="y")
    graph = s.done("y")
    moved = sunk(graph)
    assert ops(moved) == ["Conv", "Relu", "Transpose", end.name]
    assert moved.nodes[2].output == "r"


def test_a_result_of_the_graph() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    r = s(ew.Relu(), s(LAST, layer(s), origin=["to last"]), to="r")
    layer(s, s(FIRST, r, to="u"), "y")
    moved = sunk(s.done("r", "y"))
    assert ops(moved) == ["Conv", "Relu", "Transpose", "Conv"]
    assert moved.producers["r"].op == LAST
    assert moved.producers["r"].origin == ("to last",)


def test_a_result_of_the_graph_that_is_an_image_again() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    t = s(LAST, layer(s))
    s(FIRST, t, to="u")
    s(FIRST, t, to="v")
    s(ew.Relu(), s(FIRST, t), to="y")
    moved = sunk(s.done("n", "u", "v", "y"))
    assert ops(moved) == ["Conv", "Reshape", "Reshape", "Relu"]


def test_nothing_to_do_for_the_transpose_of_a_layer() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    s(Reshape((1, 60)), s(LAST, layer(s)), to="y")
    graph = s.done("y")
    assert SINK_TRANSPOSES.apply(graph, GENERIC).graph is graph


@pytest.mark.parametrize(
    "op", [ew.BatchNormalization(1e-5), MaxPool(Window((Axis(2), Axis(2))))], ids=["rows", "pool"]
)
def test_channels_that_are_no_channels(op: Op) -> None:
    """Rows of statistics, and pools, belong to axis 1: here that is the height."""
    rows = [constant(5) ** 2 for _ in range(4)] if isinstance(op, ew.BatchNormalization) else []
    graph = between(lambda s, t: s(op, t, *rows))
    assert ops(sunk(graph)).count("Transpose") == 2


def test_rows_stay_on_their_axis() -> None:
    turned = Transpose((0, 1, 3, 2))
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    s(turned, s.batch_norm(s(turned, layer(s)), TABLES), to="y")
    assert ops(sunk(s.done("y"))) == ["Conv", "BatchNormalization"]


# --- Several operands -----------------------------------------------------------------------------


def test_a_shortcut_from_an_input_with_channels_last() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    n = layer(s, s(FIRST, "x", to="i"))
    both = s(ew.Add(), s(LAST, n), "x")
    layer(s, s(FIRST, both, to="u"), "y")
    moved = sunk(s.done("y"))
    assert ops(moved) == ["Transpose", "Conv", "Add", "Conv"]
    assert moved.producers["u"].inputs == ("n", "i")


def test_a_factor_for_each_channel() -> None:
    """Squeeze and excite: a computed row [1, 1, 1, C] moves for nothing."""
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    n = layer(s)
    row = s(MatMul(), s(ReduceMean((2, 3), keepdims=False), n), constant(3, 3), to="fc")
    gate = s(ew.Sigmoid(), s(Reshape((1, 1, 1, 3)), row))
    layer(s, s(FIRST, s(ew.Mul(), s(LAST, n), gate)), "y")
    moved = sunk(s.done("y"))
    assert "Transpose" not in ops(moved)
    assert moved.types[only(moved, ew.Mul).inputs[1]].shape == (1, 3, 1, 1)


def test_an_input_that_is_transposed_further_down() -> None:
    """Once that Transpose has moved up, to the input, it is the shortcut's as well."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    n = layer(s, s(FIRST, s(ew.Relu(), "x")))
    layer(s, s(FIRST, s(ew.Add(), s(LAST, n), "x")), "y")
    assert ops(sunk(s.done("y"))) == ["Transpose", "Relu", "Conv", "Add", "Conv"]


def test_another_image_that_nobody_transposes() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    n = layer(s)
    flat = s(MatMul(), s(ReduceMean((2, 3), keepdims=False), n), constant(60, 3))
    both = s(ew.Add(), s(LAST, n), s(Reshape((1, 5, 4, 3)), flat))
    layer(s, s(FIRST, both), "y")
    assert ops(sunk(s.done("y"))).count("Transpose") == 2


# --- Reshapes -------------------------------------------------------------------------------------


def test_reshapes_of_single_pixels_are_transposes() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 1, 1))
    t = s(Reshape((1, 1, 1, 3)), layer(s))
    t = s(ew.Sign(), s(ew.Mul(), t, constant(3)))
    layer(s, s(Reshape((1, 3, 1, 1)), t), "y")
    assert ops(sunk(s.done("y"))) == ["Conv", "Mul", "Sign", "Conv"]


def test_reshapes_of_single_channels_are_transposes() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    n = s(Conv(SINGLE), "x", constant(1, 3, 1, 1), to="n")
    t = s(ew.Add(), s(Reshape((1, 5, 4, 1)), n), constant(4, 1))
    s(Reshape((1, 20)), t, to="y")
    moved = sunk(s.done("y"))
    assert ops(moved) == ["Conv", "Add", "Reshape"]
    assert moved.types[only(moved, ew.Add).output].shape == (1, 1, 5, 4)


def test_other_reshapes_are_none() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    t = s(ew.Relu(), s(Reshape((1, 3, 4, 5)), layer(s)))
    s(Reshape(SHAPE), t, to="y")
    graph = s.done("y")
    assert SINK_TRANSPOSES.apply(graph, GENERIC).graph is graph


def test_a_layer_on_what_was_turned_makes_an_image_of_its_own() -> None:
    """As the layers of an MLP mixer, whose channels are pixels to every other layer."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 4))
    turn = Transpose((0, 2, 1))
    point = Conv(Window((Axis(1),)))
    first = s(point, "x", constant(3, 3, 1))
    second = s(point, s(turn, s(ew.Sign(), first)), constant(4, 4, 1))
    t = s(ew.Sign(), s(ew.Add(), s(turn, second), constant(4)))
    s(point, s(turn, t), constant(2, 4, 1), to="y")
    assert ops(sunk(s.done("y"))).count("Transpose") == 1


# --- Up -------------------------------------------------------------------------------------------


def test_scaled_inputs() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    a = s(ew.Sub(), s(ew.Mul(), "x", 2.0), constant(3), to="a")
    a = s(Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), a)
    layer(s, s(FIRST, a, to="i"), "y")
    moved = sunk(s.done("y"))
    assert ops(moved) == ["Transpose", "Mul", "Sub", "Pad", "Conv"]
    assert only(moved, Pad).op == Pad((0, 0, 1, 1), (0, 0, 1, 1), 0.0)
    assert moved.types[only(moved, ew.Sub).inputs[1]].shape == (1, 3, 1, 1)


def test_what_moved_up_is_named_after_what_it_holds() -> None:
    """So that verify finds it in the model, which may not have the Transpose at all."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    layer(s, s(FIRST, s(ew.Sign(), "x", to="bits"), to="i"), "y")
    done = SINK_TRANSPOSES.apply(s.done("y"), GENERIC)
    bits = only(done.graph, ew.Sign).output
    assert bits.startswith("bits")
    assert done.orders[bits] == Order().then((5, 4, 3), (2, 0, 1))


def test_a_result_that_moved_up_keeps_its_name() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    s(FIRST, s(ew.Sign(), "x"), to="y")
    assert only(sunk(s.done("y")), ew.Sign).output == "y"


def test_scaled_inputs_that_others_read() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 5, 4, 3))
    a = s(ew.Mul(), "x", constant(3), to="a")
    layer(s, s(FIRST, a), "y")
    graph = s.done("y", "a")
    assert SINK_TRANSPOSES.apply(graph, GENERIC).graph is graph


# --- What it is for -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_layer_on_bits_meets_its_padding(value: float) -> None:
    """As tf2onnx writes what Larq pads."""
    s = Sketch(stage=Stage.FLOAT, shape=SHAPE)
    t = s(ew.Sign(), s(LAST, layer(s)))
    t = s(ew.Sign(), s(ew.Add(), t, 0.1))
    t = s(Pad((0, 0, 1, 0), (0, 1, 1, 0), value), t)
    w = s.const(signs(RANDOM, (4, 3, 3, 3)), "w2")
    s(Conv(SQUARE), s(FIRST, t), w, to="y")
    graph = s.done("y")
    assert "Pad" in ops(sunk(graph))
    node = only(after(BINARISE_WEIGHTS, graph).graph, BinaryConv)
    assert isinstance(node.op, BinaryConv)
    assert node.op.pad == value
    assert node.op.window.axes == (Axis(3, after=1), Axis(3, before=1, after=1))
    if value == 0:
        assert "Pad" not in ops(after(ABSORB_PADS, graph).graph)


def test_two_images_of_which_either_could_follow_the_other() -> None:
    """A single channel or a single row: both are in the same order, and neither moves."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 2, 1, 1))
    turned = s(ew.Neg(), s(LAST, layer(s), to="t"))
    inner = s(Conv(SINGLE), turned, s.const(np.full((1, 1, 1, 1), F(0.3)), "inner"))
    total = s(ew.Relu(), s(ew.Add(), inner, turned))
    layer(s, s(FIRST, total), "y")
    sunk(s.done("y"))
