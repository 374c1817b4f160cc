"""Each well-formedness rule: graphs that keep it, and graphs that break it and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bnncc.ir.check import violations
from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.graph import Graph, Node, Rewrite, frozen_array
from bnncc.ir.ops.elementwise import Add, Neg, Relu, Step
from bnncc.ir.ops.kernels import Epilogue, Map, Store
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.types import DENSE, Array, Element, Interval, PackedChannels, Stage, TensorType
from tests.ir.sketch import F, Sketch

WEIGHTS = np.array([[1, -1, 0.5, 2], [0, 1, 2, 3]], F)
ROW = TensorType((1, 4), Element.F32)


def good(stage: Stage = Stage.BINARY) -> Graph:
    """z = x W, y = relu(z + b): every rule has something to look at."""
    sketch = Sketch(stage=stage)
    sketch(MatMul(), "x", sketch.const(WEIGHTS, "w"), to="z")
    sketch(Add(), "z", sketch.const([1, 2], "b"), to="s")
    sketch(Relu(), "s", to="y")
    return sketch.done("y", "z")


def edited(graph: Graph, **changes: Any) -> Graph:
    return dataclasses.replace(graph, **changes)


def with_node(graph: Graph, at: int, **changes: Any) -> Graph:
    nodes = list(graph.nodes)
    nodes[at] = dataclasses.replace(nodes[at], **changes)
    return edited(graph, nodes=tuple(nodes))


def with_type(graph: Graph, name: str, **changes: Any) -> Graph:
    kind = dataclasses.replace(graph.types[name], **changes)
    return edited(graph, types={**graph.types, name: kind})


def with_constant(graph: Graph, name: str, array: Array) -> Graph:
    return edited(graph, constants={**graph.constants, name: frozen_array(array)})


def without_type(graph: Graph, name: str) -> Graph:
    return edited(graph, types={n: k for n, k in graph.types.items() if n != name})


def one_operand_twice() -> Graph:
    sketch = Sketch()
    sketch(Add(), "x", "x")
    return sketch.done()


def packed_constant() -> Graph:
    """A constant whose array has its layout's shape, not its logical one."""
    sketch = Sketch(3)
    sketch(BinaryDense(), "x", sketch.const([[1, -1, 1]], "w", Element.BIPOLAR), to="n")
    sketch(Relu(), "n", to="y")
    rewrite = Rewrite(sketch.done())
    kind = TensorType((2, 40), Element.BIPOLAR, PackedChannels(32, 1))
    rewrite.constant("packed", np.zeros((2, 1, 2), np.uint32), kind)
    return edited(rewrite.graph, types=rewrite._types, constants=rewrite._constants)


def mapped() -> Graph:
    sketch = Sketch(3, stage=Stage.PACKED)
    store = Store(Operand(Source.VARIABLE, 0), Element.BIPOLAR, 1, 32)
    epilogue = Epilogue(Expression(()), 0, 0, (store,))
    sketch(Map(epilogue), "x", sketch.const([[[1], [2], [3]]], "t"), to="y")
    return sketch.done()


def stepped() -> Graph:
    sketch = Sketch()
    sketch(Step(Element.BIPOLAR), "x", [[0]], [[-1, 1]], to="y")
    return sketch.done()


ACCEPTED = {
    "several uses, several outputs": good(),
    "at stage float": good(Stage.FLOAT),
    "one operand twice": one_operand_twice(),
    "kernels at stage packed": mapped(),
    "kernels at stage binary": edited(mapped(), stage=Stage.BINARY),
    "steps at stage binary": stepped(),
    "an unused input": edited(
        good(), inputs=("x", "u"), types={**good().types, "u": ROW}, outputs=("y", "z")
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name: str) -> None:
    assert violations(ACCEPTED[name]) == []


def test_accepts_constants_in_packed_layout() -> None:
    assert [v for v in violations(packed_constant()) if not v.startswith("W8")] == []


first, second, third = good().nodes

REJECTED: list[tuple[str, Graph, list[str]]] = [  # what breaks, how, and every message's start
    (
        "W1 read before it is defined",
        edited(good(), nodes=(second, first, third)),
        ["W1: s reads z before it is defined"],
    ),
    (
        "W1 read before it is defined, by itself",
        with_node(one_operand_twice(), 0, inputs=("t0", "x")),
        ["W1: t0 reads t0 before it is defined"],
    ),
    (
        "W1 an output that nothing defines",
        edited(good(), outputs=("y", "z", "nowhere")),
        ["W1: output nowhere is never defined"],
    ),
    (
        "W2 a tensor made twice",
        edited(good(), nodes=(*good().nodes, dataclasses.replace(third, name="again"))),
        ["W2: y is defined 2 times"],
    ),
    (
        "W2 a constant made by a node as well",
        with_constant(good(), "y", np.zeros((1, 2), F)),
        ["W2: y is defined 2 times"],
    ),
    (
        "W2 a constant that is an input",
        with_constant(good(), "x", np.zeros((1, 4), F)),
        ["W2: x is defined 2 times"],
    ),
    (
        "W2 two nodes of one name",
        with_node(good(), 2, name="s"),
        ["W2: 2 nodes are called s"],
    ),
    (
        "W3 another shape",
        with_type(good(), "y", shape=(1, 3)),
        ["W3: y is recorded as"],
    ),
    (
        "W3 another interval",
        with_type(good(), "y", interval=Interval(0, 1)),
        ["W3: y is recorded as"],
    ),
    (
        "W3 operands that do not fit",
        with_node(good(), 2, op=MatMul(), inputs=("s", "w")),
        ["W3: y: an input [1, 2] does not fit weights [2, 4]"],
    ),
    ("W3 no type", without_type(good(), "y"), ["W3: y: no type is recorded for"]),
    (
        "W4 writable",
        edited(good(), constants={**good().constants, "b": np.array([1, 2], F)}),
        ["W4: constant b can be written"],
    ),
    (
        "W4 stored in another type",
        with_constant(good(), "b", np.array([1, 2], np.float64)),
        ["W4: constant b is float64(2,), not f32[2]"],
    ),
    (
        "W4 stored in another shape",
        with_constant(good(), "b", np.array([[1, 2]], F)),
        ["W4: constant b is float32(1, 2), not f32[2]"],
    ),
    ("W5 no origin", with_node(good(), 1, origin=()), ["W5: s has no origin"]),
    (
        "W6 a Step at stage float",
        edited(stepped(), stage=Stage.FLOAT),
        ["W6: y: Step is not allowed at stage float"],
    ),
    (
        "W6 float operations at stage packed",
        edited(good(), stage=Stage.PACKED),
        [
            "W6: z: MatMul is not allowed at stage packed",
            "W6: s: Add is not allowed at stage packed",
            "W6: y: Relu is not allowed at stage packed",
        ],
    ),
    (
        "W7 an output is an input",
        edited(good(), outputs=("y", "z", "x")),
        ["W7: output x is not the result of a node"],
    ),
    (
        "W7 an output is a constant",
        edited(good(), outputs=("y", "z", "b")),
        ["W7: output b is not the result of a node"],
    ),
    (
        "W7 no node at all",
        Sketch().builder.build(["x"]),
        ["W7: output x is not the result of a node"],
    ),
    ("W7 an output twice", edited(good(), outputs=("y", "y")), ["W7: an output is listed twice"]),
    (
        "W7 an input twice",
        edited(good(), inputs=("x", "x")),
        ["W2: x is defined 2 times", "W7: an input is listed twice"],
    ),
    (
        "W8 a constant that nothing reads",
        edited(
            with_constant(good(), "stray", np.zeros(1, F)),
            types={**good().types, "stray": TensorType((1,), Element.F32)},
        ),
        ["W8: stray is recorded but not used"],
    ),
    (
        "W8 a type of nothing",
        edited(good(), types={**good().types, "stray": ROW}),
        ["W8: stray is recorded but not used"],
    ),
]


@pytest.mark.parametrize(("name", "graph", "expected"), REJECTED)
def test_rejects(name: str, graph: Graph, expected: list[str]) -> None:
    found = violations(graph)
    assert len(found) == len(expected), found
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start)


@pytest.mark.parametrize("shape", [(2, 4), (), (0, 4)])
def test_w7_rejects_activations_without_a_batch_of_1(shape: tuple[int, ...]) -> None:
    sketch = Sketch(shape=(1, 4))
    sketch(Neg(), "x", to="y")
    graph = sketch.done()
    types = {name: TensorType(shape, Element.F32, DENSE) for name in graph.types}
    problem = f"has shape {list(shape)}: axis 0 must be a batch of 1"
    assert violations(edited(graph, types=types)) == [f"W7: x {problem}", f"W7: y {problem}"]


def test_a_constant_without_a_type_is_reported_not_raised() -> None:
    found = violations(without_type(good(), "b"))
    assert "W4: constant b has no type" in found
    (problem,) = (v for v in found if v.startswith("W3"))
    assert problem.startswith("W3: s: no type is recorded for")
    assert "'b'" in problem


def test_every_problem_is_reported_at_once() -> None:
    graph = with_node(with_node(good(), 1, origin=()), 2, name="s")
    graph = edited(graph, outputs=("y", "y", "nowhere"))
    assert sorted({v[:2] for v in violations(graph)}) == ["W1", "W2", "W5", "W7"]


def test_nodes_are_what_they_say() -> None:
    with pytest.raises(ValueError, match="too many values"):
        _ = Node(Neg(), "n", ("x",), ("a", "b"), ("n",)).output
