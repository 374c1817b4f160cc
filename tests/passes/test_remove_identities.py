"""remove_identities: nodes that compute nothing go, unless the interface names their result."""

from __future__ import annotations

import numpy as np

from bnncc.ir.ops.elementwise import Add, Identity, Neg
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage
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
