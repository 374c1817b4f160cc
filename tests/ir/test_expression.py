"""Chains traced out of graphs: what they compute, their parameters, and what is not a chain."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.expression import (
    Chain,
    Expression,
    Source,
    chain_to,
    chains_to,
    per_channel,
    root_of,
    trace,
)
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import (
    Abs,
    Add,
    BatchNormalization,
    Cast,
    Clip,
    Greater,
    Mul,
    Neg,
    PRelu,
    Relu,
    Sign,
    Step,
    Sub,
    Where,
)
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, TensorType
from tests.ir.sketch import F, Sketch, same_bits

RANDOM = np.random.default_rng(11)
STATS = tuple(RANDOM.uniform(0.5, 2, 4).astype(F) for _ in range(4))


def traced(graph: Graph, root: str = "x") -> Chain:
    chain = trace(graph, graph.outputs[0], root)
    assert chain is not None
    return chain


def agrees(graph: Graph, root: str = "x") -> Chain:
    """Assert that the chain computes what the graph computes, on [N, C]; return it."""
    chain = traced(graph, root)
    x = RANDOM.standard_normal((9, graph.types[root].shape[-1])).astype(F)
    same_bits(chain.evaluate(x), interpret.run(graph, {"x": x})[graph.outputs[0]])
    return chain


# --- per_channel ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constant", "shape", "becomes"),
    [
        ((), (1, 4), ()),
        ((1,), (1, 4), ()),
        ((1, 1, 1), (1, 4), ()),
        ((4,), (1, 4), (4,)),
        ((1, 4), (1, 4), (4,)),
        ((1, 1, 4), (1, 4), None),  # the result would have another rank
        ((1,), (1, 1), ()),
        ((4, 1), (1, 4), None),
        ((2, 4), (1, 4), None),
        ((3,), (1, 4), None),
        ((4, 1), (1, 4, 5), (4,)),
        ((1, 4, 1), (1, 4, 5), (4,)),
        ((4, 1, 1), (1, 4, 5, 5), (4,)),
        ((1, 4, 1, 1), (1, 4, 5, 5), (4,)),
        ((1, 1, 1, 1), (1, 4, 5, 5), ()),
        ((5,), (1, 4, 5, 5), None),
        ((1, 1, 1, 5), (1, 4, 5, 5), None),
        ((5, 1), (1, 4, 5, 5), None),
        ((4, 5, 1), (1, 4, 5, 5), None),
        # As numpy broadcasts, these lie along the last axis, however many channels there are.
        ((4,), (1, 4, 4, 4), None),
        ((4, 1), (1, 4, 4, 4), None),
        ((4, 1, 1), (1, 4, 4, 4), (4,)),
    ],
)
def test_per_channel(constant: tuple, shape: tuple, becomes: tuple | None) -> None:
    array = np.arange(np.prod(constant, dtype=int), dtype=F).reshape(constant)
    found = per_channel(array, shape)
    if becomes is None:
        assert found is None
        return
    assert found is not None
    assert found.shape == becomes
    image = np.zeros(shape, F)
    column = found.reshape(-1, *(1,) * (len(shape) - 2))
    np.testing.assert_array_equal(image + column, (image + array).reshape(shape), strict=True)


# --- What is a chain ------------------------------------------------------------------------------


def test_a_line() -> None:
    sketch = Sketch()
    a = sketch(Mul(), "x", [1, 2, 3, 4])
    b = sketch.batch_norm(a, STATS)
    sketch(Clip(-1, 1), sketch(Add(), b, 0.5), to="y")
    chain = agrees(sketch.done())
    assert [node.op.name for node in chain.nodes] == ["Mul", "BatchNormalization", "Add", "Clip"]
    assert [p.shape for p in chain.parameters] == [(4,)] * 5 + [()]
    assert chain.root == "x"
    assert chain.channels == 4


def test_a_diamond_computes_the_shared_term_once() -> None:
    sketch = Sketch()
    top = sketch(Mul(), "x", [1, -1, 2, -2])
    left, right = sketch(Relu(), top), sketch(Sub(), top, "x")
    sketch(Add(), left, right, to="y")
    chain = agrees(sketch.done())
    assert str(chain.expression) == (
        "{t0 = Mul(x0, p0); t1 = Relu(t0); t2 = Sub(t0, x0); t3 = Add(t1, t2)}"
    )


def test_a_deep_diamond_is_linear_work() -> None:
    sketch = Sketch()
    last = "x"
    for _ in range(200):
        last = sketch(Mul(), sketch(Add(), last, last), 0.5)
    chain = agrees(sketch.done())
    assert len(chain.nodes) == 400


def test_one_constant_in_several_places_is_one_parameter() -> None:
    sketch = Sketch()
    shared = sketch.const([1, 2, 3, 4])
    sketch(Mul(), sketch(Add(), "x", shared), shared, to="y")
    chain = agrees(sketch.done())
    assert len(chain.parameters) == 1
    assert str(chain.expression) == "{t0 = Add(x0, p0); t1 = Mul(t0, p0)}"


def test_constants_on_either_side() -> None:
    sketch = Sketch()
    sketch(Sub(), [1, 2, 3, 4], "x", to="y")
    chain = agrees(sketch.done())
    assert [o.source for o in chain.expression.terms[0].operands] == [
        Source.PARAMETER,
        Source.VARIABLE,
    ]


def test_truth_values_on_the_way() -> None:
    sketch = Sketch()
    up = sketch(Greater(), "x", [0, 1, -1, 0.5])
    sketch(Add(), sketch(Cast(Element.F32), up), sketch(Where(), up, "x", -1.0), to="y")
    agrees(sketch.done())


def test_a_step_brings_its_rows() -> None:
    sketch = Sketch()
    rows = np.sort(RANDOM.standard_normal((4, 2)).astype(F), axis=1)
    values = RANDOM.standard_normal((4, 3)).astype(F)
    one = sketch(Step(Element.F32), "x", rows, values)
    sketch(Step(Element.F32), one, [[0]], [[-1, 1]], to="y")
    chain = agrees(sketch.done())
    assert [p.shape for p in chain.parameters] == [(4, 2), (4, 3), (1, 1), (1, 2)]


def test_the_root_may_lie_inside_the_graph() -> None:
    sketch = Sketch()
    sketch(MatMul(), "x", np.ones((4, 4)), to="z")
    sketch(Neg(), sketch(Abs(), "z"), to="y")
    graph = sketch.done()
    chain = traced(graph, "z")
    assert chain.evaluate(np.array([[1, -2, 3, -4]], F)).tolist() == [[-1, -2, -3, -4]]
    assert trace(graph, "y", "x") is None


def on_images(graph: Graph) -> Chain:
    """Assert that the chain, run on [M, C], computes what the graph computes on images."""
    chain = traced(graph)
    _, channels, *sizes = graph.types["x"].shape
    x = RANDOM.standard_normal((3, channels, *sizes)).astype(F)
    rows = np.moveaxis(x, 1, -1)
    y = chain.evaluate(rows.reshape(-1, channels)).reshape(rows.shape)
    same_bits(np.moveaxis(y, -1, 1), interpret.run(graph, {"x": x})[graph.outputs[0]])
    return chain


@pytest.mark.parametrize("sizes", [(5,), (3, 5)])
def test_images(sizes: tuple[int, ...]) -> None:
    sketch = Sketch(shape=(1, 4, *sizes))
    column = (4, *(1,) * len(sizes))
    a = sketch(Mul(), "x", np.arange(4).reshape(column))
    b = sketch.batch_norm(sketch(Add(), a, RANDOM.random((1, *column))), STATS)
    thresholds = np.sort(RANDOM.standard_normal((4, 2)).astype(F), axis=1)
    one = sketch(Step(Element.F32), sketch(Clip(-1, 1), b), thresholds, RANDOM.random((4, 3)))
    sketch(Mul(), one, 2.0, to="y")
    chain = on_images(sketch.done())
    assert chain.channels == 4
    assert [p.shape for p in chain.parameters] == [(4,)] * 6 + [(4, 2), (4, 3), ()]


# --- What is not ----------------------------------------------------------------------------------


def test_refuses_constants_that_vary_within_a_channel() -> None:
    sketch = Sketch(shape=(1, 2, 3))
    sketch(Add(), "x", np.arange(6).reshape(1, 2, 3), to="y")
    assert trace(sketch.done(), "y", "x") is None


@pytest.mark.parametrize("shape", [(4,), (1, 1, 1, 4), (4, 1), (1, 4, 4, 1)])
def test_refuses_constants_along_spatial_axes(shape: tuple[int, ...]) -> None:
    sketch = Sketch(shape=(1, 4, 4, 4))
    sketch(Add(), "x", np.arange(np.prod(shape)).reshape(shape), to="y")
    assert trace(sketch.done(), "y", "x") is None


def test_pixels_as_channels() -> None:
    """Every constant that broadcasts, as it applies to each pixel of each channel in C order."""
    s = Sketch(shape=(1, 2, 2, 3))
    random = np.random.default_rng(1)
    constants = [
        random.standard_normal(shape).astype(F)
        for shape in ((), (2, 1, 1), (1, 1, 2, 1), (3,), (1, 2, 2, 3))
    ]
    y = "x"
    for constant in constants:
        y = s(Add(), s(Mul(), y, constant), constant)
    y = s(BatchNormalization(1e-5), y, *random.uniform(0.5, 2, (4, 2)).astype(F))
    y = s(Step(Element.F32), y, [[0.0], [0.5]], [[-2, 1], [-1, 3]])
    graph = s.done(y)
    assert trace(graph, y, "x") is None
    chain = trace(graph, y, "x", pixels=True)
    assert chain is not None
    assert chain.channels == 12
    x = random.standard_normal((5, 2, 2, 3)).astype(F)
    expected = interpret.run(graph, {"x": x})[y].reshape(5, 12)
    np.testing.assert_array_equal(chain.evaluate(x.reshape(5, 12)), expected)
    half = chain.of(slice(6, 12))
    np.testing.assert_array_equal(half.evaluate(x.reshape(5, 12)[:, 6:]), expected[:, 6:])


def test_constants_of_another_size_are_no_pixels() -> None:
    s = Sketch(shape=(1, 1, 1, 1))
    y = s(Mul(), "x", np.ones((2, 1, 3), F))
    assert trace(s.done(y), y, "x", pixels=True) is None


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (4, 2, 2), (2, 2), (2,), (1, 4, 1, 2)])
def test_one_value_spelled_out_over_a_shape(shape: tuple[int, ...]) -> None:
    sketch = Sketch(shape=(1, 4, 2, 2))
    sketch(Where(), sketch(Greater(), "x", np.zeros(shape)), np.full(shape, 0.5), "x", to="y")
    chain = on_images(sketch.done())
    assert all(p.shape in ((), (4,)) for p in chain.parameters)


def test_a_row_spelled_out_over_a_shape() -> None:
    sketch = Sketch(shape=(1, 4, 2, 3))
    values = np.broadcast_to(np.arange(4, dtype=F).reshape(4, 1, 1), (4, 2, 3))
    sketch(Add(), "x", values, to="y")
    chain = on_images(sketch.done())
    assert chain.parameters[0].tolist() == [0, 1, 2, 3]


def test_zeros_of_both_signs_are_two_values() -> None:
    constant = np.array([[[0.0, -0.0]]], F)
    assert per_channel(constant, (1, 1, 2)) is None
    assert per_channel(np.array([[[True, False]]]), (1, 1, 2)) is None


def test_refuses_a_root_that_is_broadcast() -> None:
    sketch = Sketch(shape=(1, 1))
    sketch(Add(), "x", [1, 2, 3], to="y")
    assert trace(sketch.done(), "y", "x") is None
    more_axes = Sketch(4)
    more_axes(Mul(), "x", np.ones((1, 1, 1, 1)), to="y")
    assert trace(more_axes.done(), "y", "x") is None


def test_refuses_other_operations_on_the_way() -> None:
    sketch = Sketch()
    sketch(Neg(), sketch(Reshape((1, 4)), "x"), to="y")
    assert trace(sketch.done(), "y", "x") is None


def test_refuses_a_second_activation() -> None:
    sketch = Sketch()
    other = sketch.builder.input("other", sketch.builder.types["x"])
    sketch(Add(), "x", other, to="y")
    graph = sketch.done()
    assert trace(graph, "y", "x") is None
    assert root_of(graph, "y") == "y"
    assert chain_to(graph, "y") is None


def test_the_root_itself_is_no_chain() -> None:
    sketch = Sketch()
    sketch(Neg(), "x", to="y")
    assert trace(sketch.done(), "x", "x") is None


# --- root_of --------------------------------------------------------------------------------------


def test_root_of_climbs_through_elementwise_operations_only() -> None:
    sketch = Sketch()
    sketch(MatMul(), "x", np.ones((4, 4)), to="z")
    a = sketch(Neg(), "z")
    sketch(Add(), sketch(Abs(), a), sketch(Mul(), a, "z"), to="y")
    graph = sketch.done()
    assert root_of(graph, "y") == "z"
    assert root_of(graph, a) == "z"
    assert root_of(graph, "z") == "z"
    assert root_of(graph, "x") == "x"


def test_activations_that_meet_are_the_root() -> None:
    # A shortcut: the sum itself is the last tensor that all below has in common.
    s = Sketch()
    s(MatMul(), "x", np.ones((4, 4)), to="z")
    r = s(Add(), s.batch_norm("z", STATS), s(Relu(), "x"), to="r")
    s(Sign(), s(Clip(-1, 1), r), to="y")
    graph = s.done()
    assert root_of(graph, "y") == "r"
    assert root_of(graph, "r") == "r"
    chain = chain_to(graph, "y")
    assert chain is not None
    assert [node.op.name for node in chain.nodes] == ["Clip", "Sign"]
    assert chain_to(graph, "r") is None


def test_paths_of_any_length_back_to_one_tensor() -> None:
    # A straight-through estimator's residue, (sign(x) - e(x)) + e(x), twice.
    s = Sketch()
    s(MatMul(), "x", np.ones((4, 4)), to="z")
    last = "z"
    for i in range(2):
        e = s(Clip(-1, 1), s(Mul(), last, s(Abs(), last)))
        last = s(Add(), s(Sub(), s(Sign(), last), e), e, to=f"y{i}")
    graph = s.done()
    assert root_of(graph, "y1") == "z"
    chain = chain_to(graph, "y1")
    assert chain is not None
    assert len(chain.nodes) == 12


def test_an_activation_that_scales_another_is_no_constant() -> None:
    # XNOR-Net's kappa: what is compared with a threshold is fl(kappa * n).
    s = Sketch(shape=(1, 4, 2, 2))
    kappa = s(Abs(), s.builder.input("map", TensorType((1, 1, 2, 2), Element.F32)))
    scaled = s(Mul(), s(Neg(), "x"), kappa, to="kn")
    s(Sign(), s.batch_norm(s(Add(), scaled, np.ones((4, 1, 1))), STATS), to="y")
    graph = s.done()
    assert root_of(graph, "y") == scaled
    chain = chain_to(graph, "y")
    assert chain is not None
    assert (chain.root, len(chain.nodes)) == (scaled, 3)


def test_two_inputs_of_the_graph_are_two_roots() -> None:
    s = Sketch()
    other = s.builder.input("other", s.builder.types["x"])
    s(Sub(), s(Neg(), "x"), s(Neg(), other), to="y")
    assert root_of(s.done(), "y") == "y"


def test_a_chain_starts_below_a_constant_that_varies_within_a_channel() -> None:
    s = Sketch(shape=(1, 4, 2, 2))
    placed = s(Mul(), s(Neg(), "x"), RANDOM.random((4, 2, 2)))
    top = s(Relu(), s.batch_norm(placed, STATS))
    s(Sub(), top, s(Abs(), top), to="y")
    graph = s.done()
    assert root_of(graph, "y") == "x"
    chain = chain_to(graph, "y")
    assert chain is not None
    assert chain.root == placed
    assert [c.root for c in chains_to(graph, "y")] == [placed, placed_norm(graph), top]


def placed_norm(graph: Graph) -> str:
    (node,) = (n for n in graph.nodes if isinstance(n.op, BatchNormalization))
    return node.output


def test_a_chain_starts_below_a_broadcast() -> None:
    s = Sketch(shape=(1, 1))
    wide = s(Add(), s(Neg(), "x"), [1, 2, 3])
    s(Relu(), s(Mul(), wide, 2.0), to="y")
    graph = s.done()
    assert root_of(graph, "y") == "x"
    chain = chain_to(graph, "y")
    assert chain is not None
    assert chain.root == wide


def test_no_chain_if_the_last_operation_is_none() -> None:
    s = Sketch(shape=(1, 4, 2, 2))
    s(Mul(), s(Neg(), "x"), RANDOM.random((4, 2, 2)), to="y")
    assert chain_to(s.done(), "y") is None


def test_a_tower_of_shortcuts_is_linear_work() -> None:
    s = Sketch()
    last = "x"
    for _ in range(1000):
        last = s(Add(), s(Relu(), last), last)
    graph = s.done()
    start = time.perf_counter()
    assert root_of(graph, last) == "x"
    chain = chain_to(graph, last)
    assert chain is not None
    assert len(chain.nodes) == 2000
    assert time.perf_counter() - start < 2  # quadratic work takes a minute


# --- Chain ----------------------------------------------------------------------------------------


def long_chain() -> Chain:
    sketch = Sketch()
    a = sketch.batch_norm(sketch(PRelu(), "x", [0.5, -1, 0, 2]), STATS)
    thresholds = np.sort(RANDOM.standard_normal((4, 2)).astype(F), axis=1)
    sketch(Step(Element.F32), sketch(Mul(), a, 3.0), thresholds, RANDOM.random((4, 3)), to="y")
    return traced(sketch.done())


@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(2, 4), slice(0, 4)])
def test_some_of_the_channels(part: slice) -> None:
    chain = long_chain()
    x = RANDOM.standard_normal((20, 4)).astype(F)
    some = chain.of(part)
    assert some.channels == part.stop - part.start
    same_bits(some.evaluate(x[:, part]), chain.evaluate(x)[:, part])


def test_before_last_is_the_operand_of_the_last_term() -> None:
    chain = long_chain()
    x = RANDOM.standard_normal((20, 4)).astype(F)
    before, (thresholds, levels) = chain.before_last()
    assert [node.op.name for node in before.nodes] == ["PRelu", "BatchNormalization", "Mul"]
    assert len(before.names) == len(before.parameters) == 6
    (stepped,) = Step(Element.F32).evaluate([before.evaluate(x), thresholds, levels])
    same_bits(stepped, chain.evaluate(x))


def test_before_last_keeps_a_parameter_that_earlier_terms_share() -> None:
    sketch = Sketch()
    first, shared = sketch.const([1, 2, 3, 4]), sketch.const([5, 6, 7, 8])
    sketch(Mul(), sketch(Add(), sketch(Sub(), "x", shared), first), shared, to="y")
    chain = traced(sketch.done())
    before, own = chain.before_last()
    assert [p.tolist() for p in own] == [[5, 6, 7, 8]]
    x = np.zeros((1, 4), F)
    assert before.evaluate(x).tolist() == [[-4, -4, -4, -4]]


def test_before_last_of_one_term_is_the_root() -> None:
    sketch = Sketch()
    sketch(Step(Element.BIPOLAR), "x", [[0]], [[-1, 1]], to="y")
    before, own = traced(sketch.done()).before_last()
    assert (before.expression, before.parameters, before.nodes) == (Expression(()), (), ())
    assert [p.tolist() for p in own] == [[[0]], [[-1, 1]]]
    x = np.array([[3]], F)
    assert before.evaluate(x) is x


def test_values_of_every_term() -> None:
    sketch = Sketch(1)
    sketch(Abs(), sketch(Neg(), sketch(Add(), "x", 1.0)), to="y")
    chain = traced(sketch.done())
    values = chain.expression.values([np.array([[2]], F)], chain.parameters)
    assert [float(v[0, 0]) for v in values] == [3, -3, 3]


def test_batch_norm_parameters_reach_their_places() -> None:
    # Statistics of one tensor in several roles: the operands' order must survive.
    sketch = Sketch()
    a, b = sketch.const([1, 2, 3, 4]), sketch.const([4, 3, 2, 1])
    sketch(BatchNormalization(1e-5), "x", a, b, a, b, to="y")
    chain = agrees(sketch.done())
    assert [o.index for o in chain.expression.terms[0].operands[1:]] == [0, 1, 0, 1]
