"""eliminate_dead: only what the outputs need stays."""

from __future__ import annotations

from bnncc.ir.ops.elementwise import Add, Mul, Neg, Relu
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from tests.ir.sketch import Sketch, ops
from tests.passes.applying import GENERIC, apply, same_text


def test_a_dead_chain_goes_with_its_constants() -> None:
    sketch = Sketch(2)
    sketch(Relu(), "x", to="live")
    sketch(Add(), "x", sketch.const([1, 2], "k"), to="dead")
    sketch(Mul(), "dead", "live", to="deader")
    sketch(Neg(), "live", to="y")
    expected = Sketch(2)
    expected(Relu(), "x", to="live")
    expected(Neg(), "live", to="y")
    same_text(apply(ELIMINATE_DEAD, sketch.done("y")).graph, expected)


def test_an_output_nobody_reads_is_alive() -> None:
    sketch = Sketch(2)
    sketch(Relu(), "x", to="a")
    sketch(Neg(), "a", to="b")
    graph = sketch.done("b", "a")
    assert ELIMINATE_DEAD.apply(graph, GENERIC).graph is graph


def test_an_unused_input_stays_for_the_interface() -> None:
    sketch = Sketch(2)
    sketch.builder.input("unused", sketch.builder.types["x"])
    sketch(Neg(), "unused", to="dead")
    sketch(Neg(), "x", to="y")
    graph = apply(ELIMINATE_DEAD, sketch.done("y")).graph
    assert graph.inputs == ("x", "unused")
    assert ops(graph) == ["Neg"]
