"""Graphs are immutable, and `Rewrite` changes what it says and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnncc.ir.check import violations
from bnncc.ir.graph import Graph, GraphBuilder, Node, Rewrite, frozen_array
from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.elementwise import Abs, Add, Identity, Mul, Neg, Relu, Step
from bnncc.ir.ops.linear import BinaryDense
from bnncc.ir.ops.reduce import TopK
from bnncc.ir.text import format_graph
from bnncc.ir.types import Element, Interval, TensorType
from tests.ir.sketch import F, Sketch, ops

ROW = TensorType((1, 4), Element.F32)


def chain() -> Graph:
    """x -> Neg a -> Abs b -> Relu c -> Add d, with a constant."""
    sketch = Sketch()
    sketch(Neg(), "x", to="a")
    sketch(Abs(), "a", to="b")
    sketch(Relu(), "b", to="c")
    sketch(Add(), "c", sketch.const([1, 2, 3, 4], "k"), to="d")
    return sketch.done()


def node_of(graph: Graph, name: str) -> Node:
    return graph.producers[name]


# --- Graph and GraphBuilder -----------------------------------------------------------------------


def test_graphs_cannot_be_changed() -> None:
    graph = chain()
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes = ()  # type: ignore[misc] # that is the point
    for mapping in (graph.types, graph.constants, graph.producers, graph.consumers):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["a"] = None  # type: ignore[index] # that is the point
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["k"][0] = 9


def test_the_builder_going_on_does_not_reach_a_built_graph() -> None:
    sketch = Sketch()
    sketch(Neg(), "x", to="a")
    graph = sketch.done("a")
    sketch(Abs(), "a", to="b")
    sketch.builder.input("late", ROW)
    assert (ops(graph), graph.inputs, set(graph.types)) == (["Neg"], ("x",), {"x", "a"})


def test_frozen_array_shares_what_is_read_only() -> None:
    array = np.arange(3)
    frozen = frozen_array(array)
    assert not frozen.flags.writeable
    assert array.flags.writeable
    assert frozen_array(frozen) is frozen


def test_producers_and_consumers() -> None:
    sketch = Sketch()
    sketch(Add(), "x", "x", to="a")
    sketch(Mul(), "a", "x", to="b")
    graph = sketch.done("b", "a")
    assert [n.name for n in graph.consumers["x"]] == ["a", "b"]
    assert [n.name for n in graph.consumers["a"]] == ["b"]
    assert graph.consumers["b"] == ()
    assert "x" not in graph.producers
    assert graph.producers["b"].op == Mul()
    assert graph.variables(graph.producers["a"]) == ("x",)
    assert graph.is_constant("x") is False


def test_two_graphs_are_equal_only_if_they_are_one() -> None:
    assert chain() != chain()
    graph = chain()
    assert graph == graph  # noqa: PLR0124 # __eq__ is what is tested


def test_builder_infers_types_and_origins() -> None:
    builder = GraphBuilder("b")
    builder.input("x", ROW)
    builder.node(Neg(), ["x"], "a")
    builder.node(Neg(), ["a"], "b", ["one", "two"])
    graph = builder.build(["b"])
    assert graph.types["b"] == ROW
    assert [node.origin for node in graph.nodes] == [("a",), ("one", "two")]
    assert [node.name for node in graph.nodes] == ["a", "b"]


def test_builder_takes_nodes_with_several_results() -> None:
    builder = GraphBuilder("b")
    builder.input("x", ROW)
    assert builder.results(TopK(2), ["x"], ["values", "places"], ["one"]) == ("values", "places")
    builder.results(Neg(), ["values"], ["y"])
    graph = builder.build(["places", "y"])
    assert graph.types["places"] == TensorType((1, 2), Element.I64)
    assert graph.producers["values"] is graph.producers["places"]
    assert [(node.name, node.origin) for node in graph.nodes] == [
        ("values", ("one",)),
        ("y", ("y",)),
    ]
    assert violations(graph) == []


def test_builder_refuses_operands_that_do_not_fit() -> None:
    sketch = Sketch()
    with pytest.raises(OpError, match="do not broadcast"):
        sketch(Add(), "x", [1, 2, 3])


def test_constants_get_names_of_their_own() -> None:
    sketch = Sketch()
    names = [sketch.const(i, "x") for i in range(3)]
    assert names == ["x.1", "x.2", "x.3"]
    sketch(Add(), sketch(Add(), "x", names[0]), names[2], to="y")
    graph = sketch.done()
    assert {n: float(v) for n, v in graph.constants.items()} == {"x.1": 0, "x.3": 2}
    assert violations(graph) == []


def test_constants_are_cast_to_their_element() -> None:
    builder = GraphBuilder("b")
    name = builder.constant("k", np.array([1, 0, 2]), Element.F32)
    assert builder.constants[name].dtype == np.float32
    assert builder.types[name] == TensorType((3,), Element.F32)


def test_constants_that_nothing_reads_are_left_out() -> None:
    sketch = Sketch()
    sketch.const([1, 2], "stray")
    sketch(Neg(), "x", to="y")
    graph = sketch.done()
    assert (dict(graph.constants), set(graph.types)) == ({}, {"x", "y"})


def test_a_constant_that_is_an_output_stays() -> None:
    sketch = Sketch()
    kept = sketch.const([1, 2], "kept")
    sketch(Neg(), "x", to="y")
    assert set(sketch.done("y", kept).constants) == {"kept"}


# --- Rewrite --------------------------------------------------------------------------------------


def test_the_same_object_comes_back_when_nothing_is_replaced() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    assert rewrite.finish() is graph
    rewrite.constant("unused", np.zeros(2, F), Element.F32)
    rewrite.node(Neg(), ("x",), rewrite.fresh("unused"), ("nobody",))
    assert rewrite.finish() is graph


def test_replace_keeps_the_rest_and_leaves_the_original_alone() -> None:
    graph = chain()
    text = format_graph(graph)
    rewrite = Rewrite(graph)
    old = node_of(graph, "b")
    first = rewrite.node(Relu(), ("a",), rewrite.fresh("b"), old.origin)
    rewrite.replace(old, [first, rewrite.node(Neg(), (first.output,), "b", ("x", "x", "y"))])
    after = rewrite.finish()
    assert format_graph(graph) == text
    assert ops(after) == ["Neg", "Relu", "Neg", "Relu", "Add"]
    assert violations(after) == []
    assert node_of(after, "a") is node_of(graph, "a")
    assert node_of(after, "d") is node_of(graph, "d")
    assert after.constants["k"] is graph.constants["k"]
    assert node_of(after, "b").origin == ("x", "y")
    assert first.output == "b.1"


def test_replace_by_nothing_drops_what_only_it_read() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    old = node_of(graph, "d")
    rewrite.replace(old, [rewrite.node(Neg(), ("c",), "d", old.origin)])
    assert dict(rewrite.finish().constants) == {}


def test_fresh_names_are_reserved_by_what_takes_them() -> None:
    rewrite = Rewrite(chain())
    assert rewrite.fresh("new") == "new"
    assert rewrite.fresh("a") == "a.1"
    rewrite.constant("a", np.zeros(1, F), Element.F32)
    assert rewrite.fresh("a") == "a.2"
    assert rewrite.constant("a", np.zeros(1, F), Element.F32) == "a.2"
    rewrite.node(Neg(), ("x",), "a.3", ("n",))
    assert rewrite.fresh("a") == "a.4"


def test_value_and_type_of_what_was_added() -> None:
    rewrite = Rewrite(chain())
    name = rewrite.constant("n", np.array([1, 2]), Element.I32)
    assert rewrite.value(name).tolist() == [1, 2]
    assert rewrite.value(name).dtype == np.int32
    assert not rewrite.value(name).flags.writeable
    assert rewrite.type_of(name) == TensorType((2,), Element.I32)
    assert rewrite.value("k").tolist() == [1, 2, 3, 4]
    assert rewrite.type_of("x") == ROW


def test_bypass_hands_the_readers_on() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    rewrite.bypass(node_of(graph, "b"), "a")
    after = rewrite.finish()
    assert ops(after) == ["Neg", "Relu", "Add"]
    assert node_of(after, "c").inputs == ("a",)
    assert "b" not in after.types


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_bypassing_a_row_of_nodes_in_any_order(order: tuple[str, ...]) -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    for name in order:
        node = node_of(graph, name)
        rewrite.bypass(node, node.inputs[0])
    after = rewrite.finish()
    assert node_of(after, "d").inputs == ("x", "k")
    assert ops(after) == ["Add"]


def test_bypass_reaches_new_nodes_too() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    rewrite.bypass(node_of(graph, "b"), "a")
    old = node_of(graph, "c")
    rewrite.replace(old, [rewrite.node(Identity(), ("b",), "c", old.origin)])
    assert node_of(rewrite.finish(), "c").inputs == ("a",)


def test_fix_makes_a_constant_of_the_result() -> None:
    sketch = Sketch()
    k = sketch.const([1, -2, 3, -4], "k")
    sketch(Neg(), k, to="negated")
    sketch(Add(), "x", "negated", to="y")
    graph = sketch.done()
    rewrite = Rewrite(graph)
    rewrite.fix(node_of(graph, "negated"), -graph.constants["k"])
    after = rewrite.finish()
    assert ops(after) == ["Add"]
    assert {n: v.tolist() for n, v in after.constants.items()} == {"negated": [-1, 2, -3, 4]}
    assert not after.constants["negated"].flags.writeable
    assert violations(after) == []


def test_types_below_a_change_follow_it() -> None:
    # x becomes bipolar where it was ternary: the accumulator's interval halves.
    sketch = Sketch()
    sketch(Step(Element.TERNARY), "x", [[0, 1]], [[-1, 0, 1]], to="s")
    sketch(BinaryDense(), "s", sketch.const(np.ones((2, 4)), "w", Element.BIPOLAR), to="n")
    graph = sketch.done()
    assert graph.types["n"].interval == Interval(-4, 4)
    rewrite = Rewrite(graph)
    old = node_of(graph, "s")
    t = rewrite.constant("t", np.array([[0]], F), Element.F32)
    v = rewrite.constant("v", np.array([[-1, 1]], F), Element.F32)
    rewrite.replace(old, [rewrite.node(Step(Element.BIPOLAR), ("x", t, v), "s", old.origin)])
    after = rewrite.finish()
    assert after.types["n"].interval == Interval(-4, 4, 2)
    assert violations(after) == []


def test_nodes_are_put_in_order() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    added = [rewrite.node(Abs(), ("x",), "p", ("p",)), rewrite.node(Relu(), ("p",), "c", ("c",))]
    # The replacement of the first node reads what the replacement of the third makes.
    rewrite.replace(node_of(graph, "a"), added[1:])
    rewrite.replace(node_of(graph, "b"), [])
    rewrite.replace(node_of(graph, "c"), added[:1])
    after = rewrite.finish()
    assert [n.name for n in after.nodes] == ["p", "c", "d"]
    assert violations(after) == []


def test_a_cycle_is_an_error() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    rewrite.replace(node_of(graph, "a"), [rewrite.node(Neg(), ("c",), "a", ("loop",))])
    with pytest.raises(ValueError, match=r"nodes form a cycle: \['a', 'b', 'c', 'd'\]"):
        rewrite.finish()


def test_several_nodes_replaced_at_once() -> None:
    graph = chain()
    rewrite = Rewrite(graph)
    for name in "abc":
        old = node_of(graph, name)
        rewrite.replace(old, [rewrite.node(Neg(), old.inputs, name, old.origin)])
    assert ops(rewrite.finish()) == ["Neg", "Neg", "Neg", "Add"]
