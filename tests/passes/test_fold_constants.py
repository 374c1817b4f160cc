"""fold_constants: what depends on no input becomes a constant, as its operation defines it."""

from __future__ import annotations

import numpy as np

from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Add, Greater, Mul, Neg, Sign, Where
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage
from bnncc.passes.fold_constants import FOLD_CONSTANTS
from tests.ir.sketch import F, Sketch, ops
from tests.passes.applying import GENERIC, apply, outputs, same_text


def in_graph_signs() -> Graph:
    """Weights as latent reals, their sign and scale computed in the graph."""
    sketch = Sketch(2, stage=Stage.FLOAT)
    latent = sketch.const([[0.5, -2]], "latent")
    sketch(Sign(), latent, to="signs")
    sketch(Mul(), "signs", sketch.const(0.25, "alpha"), to="w")
    sketch(MatMul(), "x", "w", to="y")
    return sketch.done()


def test_a_chain_of_constants() -> None:
    expected = Sketch(2, stage=Stage.FLOAT)
    w = expected.const([[0.25, -0.25]], "w")
    expected(MatMul(), "x", w, to="y")
    graph = in_graph_signs()
    folded = apply(FOLD_CONSTANTS, graph).graph
    same_text(folded, expected)
    assert folded.producers["y"] is graph.producers["y"]


def test_every_element_type() -> None:
    sketch = Sketch(3, stage=Stage.FLOAT)
    truth = sketch(Greater(), sketch.const([[1, 2, 3]]), 1.5, to="truth")
    chosen = sketch(Where(), truth, sketch.const(10), sketch.const(20), to="chosen")
    sketch(Add(), "x", chosen, to="y")
    folded = apply(FOLD_CONSTANTS, sketch.done()).graph
    assert ops(folded) == ["Add"]
    assert folded.constants["chosen"].tolist() == [[20, 10, 10]]
    assert set(folded.constants) == {"chosen"}


def test_reshapes_of_constants() -> None:
    sketch = Sketch(4, stage=Stage.FLOAT)
    sketch(Add(), "x", sketch(Reshape((1, 4)), [[[1, 2], [3, 4]]], to="flat"), to="y")
    folded = apply(FOLD_CONSTANTS, sketch.done()).graph
    assert ops(folded) == ["Add"]
    assert folded.constants["flat"].tolist() == [[1, 2, 3, 4]]


def test_an_output_stays_computed() -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    sketch(Neg(), sketch.const([[1, -2]], "k"), to="n")
    sketch(Add(), "x", "n", to="y")
    folded = apply(FOLD_CONSTANTS, sketch.done("y", "n")).graph
    assert ops(folded) == ["Neg", "Add"]
    y, n = outputs(folded, x=np.zeros((1, 2), F))
    assert y.tolist() == n.tolist() == [[-1, 2]]


def test_a_constant_with_two_readers_serves_both() -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    sketch(Neg(), sketch.const([[1, -2]], "k"), to="n")
    sketch(Add(), "x", "n", to="a")
    sketch(Mul(), "a", "n", to="y")
    folded = apply(FOLD_CONSTANTS, sketch.done()).graph
    assert ops(folded) == ["Add", "Mul"]
    assert set(folded.constants) == {"n"}
    assert folded.types["n"].element is Element.F32


def test_nothing_constant_nothing_done() -> None:
    sketch = Sketch(2, stage=Stage.FLOAT)
    sketch(Add(), "x", [1, 2], to="y")
    graph = sketch.done()
    assert FOLD_CONSTANTS.apply(graph, GENERIC).graph is graph
