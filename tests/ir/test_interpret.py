"""The interpreter: any batch, any stage, and a place to look at and replace values."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Add, Mul, Neg
from bnncc.ir.ops.kernels import Epilogue, Map, Store, XnorConv
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import F, Sketch

WEIGHTS = np.array([[1, -1, 1], [2, 0, -1]], F)


def network() -> Graph:
    sketch = Sketch(3, stage=Stage.FLOAT)
    sketch(MatMul(), "x", sketch.const(WEIGHTS, "w"), to="z")
    sketch(Mul(), "z", [0.5, 4], to="m")
    sketch(Add(), "m", sketch.const([[10, 20]], "b"), to="y")
    return sketch.done("y", "z")


def batch(rows: int, channels: int = 3) -> Array:
    return np.arange(rows * channels, dtype=F).reshape(rows, channels)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_any_batch_is_its_rows_one_by_one(rows: int) -> None:
    graph, x = network(), batch(rows)
    result = interpret.run(graph, {"x": x})
    assert list(result) == ["y", "z"]
    for i, row in enumerate(x.tolist()):
        z = [sum(a * w for a, w in zip(row, ws, strict=True)) for ws in WEIGHTS.tolist()]
        assert result["z"][i].tolist() == z
        assert result["y"][i].tolist() == [z[0] * 0.5 + 10, z[1] * 4 + 20]


def convolutional() -> Graph:
    """A convolution with asymmetric padding, a bias of one value a channel, a pool."""
    sketch = Sketch(stage=Stage.FLOAT, shape=(1, 2, 5, 4))
    weights = np.arange(-27, 27).reshape(3, 2, 3, 3)
    window = Window((Axis(3, before=1), Axis(3, 1, 1, 1, 2)))
    sketch(Conv(window), "x", sketch.const(weights, "w"), to="z")
    sketch(Add(), "z", sketch.const([[[1]], [[-2]], [[3]]], "b"), to="s")
    sketch(MaxPool(Window((Axis(2, 2), Axis(2, 2)))), "s", to="y")
    return sketch.done("y")


def test_a_batch_of_images_is_its_images_one_by_one() -> None:
    x = np.random.default_rng(0).standard_normal((4, 2, 5, 4)).astype(F)
    together = interpret.run(convolutional(), {"x": x})["y"]
    assert together.shape == (4, 3, 2, 2)
    for i in range(len(x)):
        alone = interpret.run(convolutional(), {"x": x[i : i + 1]})["y"]
        np.testing.assert_array_equal(together[i : i + 1], alone, strict=True)
    assert interpret.run(convolutional(), {"x": x[:0]})["y"].shape == (0, 3, 2, 2)


def test_an_empty_batch() -> None:
    result = interpret.run(network(), {"x": batch(0)})
    assert result["y"].shape == (0, 2)


def test_feeds_are_taken_as_the_input_says_and_not_written() -> None:
    x = np.array([[1, 2, 3]], np.float64)
    kept = x.copy()
    stored = interpret.run_stored(network(), {"x": x})
    assert stored["x"].dtype == np.float32
    np.testing.assert_array_equal(x, kept)


def test_stored_holds_every_computed_tensor_and_no_constant() -> None:
    stored = interpret.run_stored(network(), {"x": batch(2)})
    assert list(stored) == ["x", "z", "m", "y"]


def test_observe_sees_each_result_once_in_order() -> None:
    seen: list[tuple[str, list]] = []

    def look(name: str, value: Array) -> Array:
        seen.append((name, value.tolist()))
        return value

    stored = interpret.run_stored(network(), {"x": batch(1)}, look)
    assert [name for name, _ in seen] == ["z", "m", "y"]
    assert all(value == stored[name].tolist() for name, value in seen)


def test_observe_replaces_what_goes_on() -> None:
    def force(name: str, value: Array) -> Array:
        return np.full_like(value, 100) if name == "z" else value

    stored = interpret.run_stored(network(), {"x": batch(2)}, force)
    assert stored["z"].tolist() == [[100, 100]] * 2
    assert stored["y"].tolist() == [[60, 420]] * 2


def test_packed_tensors_are_stored_packed_and_returned_logical() -> None:
    real = Sketch(33, stage=Stage.PACKED)
    value = Operand(Source.VARIABLE, 0)
    bits = Epilogue(Expression(()), 0, 0, (Store(value, Element.TERNARY, 1, 32),))
    real(Map(bits), "x", real.const(np.array([[[0]] * 33, [[1]] * 33], F), "t"), to="s")
    sums = Epilogue(Expression(()), 0, 0, (Store(value, Element.I32),))
    words = real.const(np.full((1, 2, 1), 0xFFFFFFFF), "w", Element.WORD32)
    base = real.const([33], "base", Element.I32)
    real(XnorConv(sums, "any", 1, 1, 33), "s", words, base, to="n")
    graph = real.done("s", "n")
    x = np.zeros((2, 33), F)
    x[0, :5], x[1] = 1, -0.5
    stored = interpret.run_stored(graph, {"x": x})
    assert stored["s"].tolist() == [[[0xFFFFFFFF, 1], [0b11111, 0]], [[0, 0], [0, 0]]]
    assert interpret.run(graph, {"x": x})["s"].tolist() == [[1] * 5 + [0] * 28, [-1] * 33]


def test_reshape_keeps_the_batch() -> None:
    sketch = Sketch(shape=(1, 2, 3))
    sketch(Reshape((1, 6)), "x", to="y")
    x = np.arange(24, dtype=F).reshape(4, 2, 3)
    assert interpret.run(sketch.done(), {"x": x})["y"].tolist() == x.reshape(4, 6).tolist()


def test_an_input_may_be_an_output() -> None:
    sketch = Sketch(3)
    sketch(Neg(), "x", to="y")
    x = batch(2)
    result = interpret.run(sketch.done("x", "y"), {"x": x})
    assert result["x"].tolist() == x.tolist()
    assert result["y"].tolist() == (-x).tolist()


def test_constants_broadcast_over_the_batch() -> None:
    sketch = Sketch(2)
    sketch(Mul(), "x", sketch.const([[1, -1]], "full"), to="y")
    result = interpret.run(sketch.done(), {"x": np.ones((3, 2), F)})
    assert result["y"].tolist() == [[1, -1]] * 3


def test_a_missing_feed_is_an_error() -> None:
    with pytest.raises(KeyError, match="x"):
        interpret.run(network(), {})
