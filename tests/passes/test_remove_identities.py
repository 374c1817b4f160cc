"""remove_identities: nodes that compute nothing go, unless the interface names their result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Add, Identity, Neg
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.remove_identities import REMOVE_IDENTITIES
from tests.ir.sketch import F, Sketch, ops
from tests.passes.applying import GENERIC, apply, same_text, same_values


def test_identities_and_reshapes_to_the_same_shape() -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    sketch(Identity(), "x", to="a")
    sketch(Reshape((1, 2)), "a", to="b")
    sketch(Neg(), "b", to="c")
    sketch(Identity(), "c", to="d")
    sketch(Add(), "d", "a", to="y")
    expected = Sketch(2, stage=Stage.FLOAT)
    expected(Neg(), "x", to="c")
    expected(Add(), "c", "x", to="y")
    graph = sketch.done()
    result = apply(REMOVE_IDENTITIES, graph).graph
    same_text(result, expected)
    same_values(graph, result, x=np.array([[1, -2], [3, 4]], F))


def test_reshapes_to_another_shape_stay() -> None:
    sketch = Sketch(shape=(1, 2, 2), stage=Stage.FLOAT)
    sketch(Reshape((1, 4)), "x", to="a")
    sketch(Neg(), "a", to="y")
    graph = sketch.done()
    assert REMOVE_IDENTITIES.apply(graph, GENERIC).graph is graph


def test_an_output_stays() -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    sketch(Identity(), "x", to="y")
    sketch(Identity(), "y", to="z")
    sketch(Neg(), "z", to="n")
    result = apply(REMOVE_IDENTITIES, sketch.done("y", "n")).graph
    assert ops(result) == ["Identity", "Neg"]
    assert result.producers["n"].inputs == ("y",)


def test_any_element() -> None:
    sketch = Sketch(2, Element.U8, stage=Stage.FLOAT)
    sketch(Identity(), sketch(Identity(), "x"), to="y")
    assert ops(apply(REMOVE_IDENTITIES, sketch.done()).graph) == ["Identity"]


IMAGE = (1, 2, 3, 4)


@pytest.mark.parametrize(
    "op",
    [
        Transpose((0, 1, 2, 3)),
        Pad((0, 0, 0, 0), (0, 0, 0, 0), 1.5),
        Slice((0, 0, 0, 0), IMAGE, (1, 1, 1, 1)),
        Slice((0, 0, 0, 0), IMAGE, (7, 1, 1, 1)),
        Concat(2),
        MaxPool(Window((Axis(1), Axis(1, dilation=3, ceil=True)))),
    ],
    ids=str,
)
def test_movements_by_nothing(op: Op) -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(op, sketch(op, "x"), to="a")
    sketch(Neg(), "a", to="b")
    sketch(op, "b", to="y")
    result = apply(REMOVE_IDENTITIES, sketch.done()).graph
    assert ops(result) == ["Neg", op.name]
    same_values(sketch.done(), result, x=image())


@pytest.mark.parametrize(
    "op",
    [
        Transpose((0, 1, 3, 2)),
        Pad((0, 0, 0, 0), (0, 0, 0, 1), 0.0),
        Slice((0, 0, 0, 0), (1, 2, 3, 2), (1, 1, 1, 2)),
        MaxPool(Window((Axis(1, stride=2), Axis(1)))),
        # A sum starts from +0, which makes +0 of -0.
        AveragePool(Window((Axis(1), Axis(1)))),
        ReduceMean((1,), keepdims=True),
    ],
    ids=str,
)
def test_what_computes_something_stays(op: Op) -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Neg(), sketch(op, "x"), to="y")
    graph = sketch.done()
    assert REMOVE_IDENTITIES.apply(graph, GENERIC).graph is graph


def test_a_concat_of_two_stays() -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Neg(), sketch(Concat(1), "x", "x"), to="y")
    graph = sketch.done()
    assert REMOVE_IDENTITIES.apply(graph, GENERIC).graph is graph


def test_transposes_that_cancel() -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Transpose((0, 2, 3, 1)), "x", to="a")
    sketch(Identity(), "a", to="b")
    sketch(Transpose((0, 3, 1, 2)), "b", to="c")
    sketch(Neg(), "c", to="y")
    expected = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    expected(Neg(), "x", to="y")
    same_text(apply(REMOVE_IDENTITIES, sketch.done()).graph, expected)


def test_transposes_and_reshapes_in_a_row_are_one() -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Transpose((0, 2, 3, 1)), "x", to="a")
    sketch(Transpose((0, 1, 3, 2)), "a", to="b")
    sketch(Neg(), "b", to="c")
    sketch(Reshape((1, 24)), "c", to="d")
    sketch(Reshape((1, 6, 4)), "d", to="e")
    sketch(Neg(), "e", to="y")
    graph = sketch.done()
    expected = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    expected(Transpose((0, 2, 1, 3)), "x", to="b", origin=["the a", "the b"])
    expected(Neg(), "b", to="c")
    expected(Reshape((1, 6, 4)), "c", to="e", origin=["the d", "the e"])
    expected(Neg(), "e", to="y")
    result = apply(REMOVE_IDENTITIES, graph).graph
    same_text(result, expected)
    same_values(graph, result, x=image())


def test_a_movement_that_others_read_stays() -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Reshape((1, 24)), "x", to="flat")
    sketch(Neg(), "flat", to="n")
    sketch(Reshape(IMAGE), "flat", to="again")
    sketch(Neg(), "again", to="y")
    graph = sketch.done("n", "y")
    result = apply(REMOVE_IDENTITIES, graph).graph
    assert ops(result) == ["Reshape", "Neg", "Neg"]
    same_values(graph, result, x=image())


def test_an_output_that_cancels_stays_under_its_name() -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    sketch(Reshape((1, 24)), "x", to="flat")
    sketch(Reshape(IMAGE), "flat", to="y")
    graph = sketch.done()
    result = apply(REMOVE_IDENTITIES, graph).graph
    assert ops(result) == ["Reshape"]
    assert result.producers["y"].inputs == ("x",)
    assert REMOVE_IDENTITIES.apply(result, GENERIC).graph is result


@given(
    st.lists(
        st.sampled_from(
            [
                Identity(),
                Neg(),
                *(Transpose((0, *perm)) for perm in itertools.permutations((1, 2, 3))),
                *(Reshape((1, *perm)) for perm in itertools.permutations((2, 3, 4))),
                Pad((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
            ]
        ),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_any_row_of_movements(chain: list[Op], data: st.DataObject) -> None:
    sketch = Sketch(shape=IMAGE, stage=Stage.FLOAT)
    names = ["x"]
    for op in chain:
        names.append(sketch(op, data.draw(st.sampled_from(names[-2:]))))
    kept = data.draw(st.sets(st.sampled_from(names[1:]), min_size=1))
    graph = sketch.done(*sorted(kept))
    result = apply(REMOVE_IDENTITIES, graph).graph
    same_values(graph, result, x=image())
    assert len(result.nodes) <= len(graph.nodes)
    assert REMOVE_IDENTITIES.apply(result, GENERIC).graph is result


def image() -> Array:
    return np.arange(48, dtype=F).reshape(2, *IMAGE[1:]) - 20
