"""The arena: no byte belongs to two live tensors, whatever the graph."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnncc.backend.memory import ALIGNMENT, MemoryPlan, plan_memory
from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Epilogue, Map, RealDense
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage, TensorType
from tests.backend.zoo import MODELS, TARGETS, emitted

F32 = Element.F32
REALS = Epilogue(Expression((Term(ew.Relu(), (Operand(Source.VARIABLE, 0),)),)), 0, F32)
BITS = Epilogue(Expression(()), 0, Element.BIPOLAR, 1, 32)


class _Random:
    """A PACKED graph grown node by node; tensors may be read again at any later time."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.builder = GraphBuilder("random", Stage.PACKED)
        self.tensors = [self.builder.input("x", TensorType((1, 12), F32))]
        for i in range(draw(st.integers(1, 12))):
            self.grow(f"t{i}")
        self.add(Map(REALS), [self.tensors[-1]], "last")
        also = draw(st.lists(st.sampled_from(self.tensors[1:]), max_size=2))
        self.graph = self.builder.build(list(dict.fromkeys([*self._unread(), *also])))

    def grow(self, name: str) -> None:
        """Append a node: a layer, a map to reals or to bits, or a reshape."""
        x = self.draw(st.sampled_from(self.tensors[-4:]))
        kind = self.builder.types[x]
        choice = self.draw(st.sampled_from(["dense", "map", "map", "bits", "reshape"]))
        if choice == "reshape":
            shape = (1, kind.size) if len(kind.shape) > 2 else (1, 1, kind.size)
            self.add(Reshape(shape), [x], name)
        elif choice == "bits" and len(kind.shape) == 2:
            thresholds = np.zeros((1, kind.shape[1], 1), np.float32)
            self.add(Map(BITS), [x, self.builder.constant("c", thresholds, F32)], name, keep=False)
        elif choice == "dense" and len(kind.shape) == 2:
            channels = self.draw(st.sampled_from([1, 2, 3, 8, 12, 13, 40]))
            weights = np.zeros((-(-channels // 8), kind.shape[1], 8), np.float32)
            op = RealDense(REALS, "bnn_real_dense_1x8__scalar", channels, 8)
            self.add(op, [x, self.builder.constant("w", weights, F32)], name)
        else:
            self.add(Map(REALS), [x], name)

    def add(self, op, inputs: list[str], name: str, *, keep: bool = True) -> None:
        self.builder.node(op, inputs, name)
        if keep:
            self.tensors.append(name)

    def _unread(self) -> list[str]:
        read = {name for node in self.builder.nodes for name in node.inputs}
        return [name for name in self.tensors[1:] if name not in read]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    grown = _Random(draw)
    return grown.graph


def assert_no_clobbering(graph: Graph, plan: MemoryPlan) -> None:
    """Run the graph on a memory that remembers, byte by byte, whose value it holds."""
    owner_of_byte: list[str | None] = [None] * plan.arena_bytes
    outside = {*graph.inputs, *graph.outputs, *graph.constants}
    # Whose value a buffer outside the arena holds.
    holds = {name: name for name in graph.inputs}

    def place(name: str) -> tuple[str, range | None]:
        owner = plan.aliases.get(name, name)
        assert owner not in plan.aliases, "an alias of an alias"
        if owner in outside:
            return owner, None
        start = plan.offsets[owner]
        size = graph.types[name].nbytes
        assert start % ALIGNMENT == 0
        assert start + size <= plan.arena_bytes
        return owner, range(start, start + size)

    for node in graph.nodes:
        read = [name for name in node.inputs if name not in graph.constants]
        for name in read:
            owner, span = place(name)
            found = {holds[owner]} if span is None else {owner_of_byte[i] for i in span}
            assert found == {name}, f"{node.name} reads {name}: {found}"
        _, written = place(node.output)
        for name in read:
            _, span = place(name)
            if span is None or written is None:
                continue
            overlaps = span.start < written.stop and written.start < span.stop
            in_place = isinstance(node.op, Map) and span == written
            assert not overlaps or in_place, f"{node.name} writes over {name} while it reads"
        owner, span = place(node.output)
        if span is None:
            assert owner in graph.outputs, f"{node.name} writes to what is not its own"
            holds[owner] = node.output
        else:
            for i in span:
                owner_of_byte[i] = node.output
    for name in graph.outputs:
        assert holds[name] == name, f"the output {name} holds {holds[name]}"


def without_reshapes(graph: Graph) -> Graph:
    """Return the graph with the readers of every reshape reading its operand: the same bytes."""
    source: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, Reshape) and node.output not in graph.outputs:
            source[node.output] = source.get(node.inputs[0], node.inputs[0])
    nodes = tuple(
        replace(node, inputs=tuple(source.get(name, name) for name in node.inputs))
        for node in graph.nodes
        if node.output not in source
    )
    return replace(graph, nodes=nodes)


def check(graph: Graph) -> MemoryPlan:
    plan = plan_memory(graph)
    assert_no_clobbering(without_reshapes(graph), plan)
    assert plan.lower_bound <= plan.arena_bytes
    return plan


@settings(max_examples=300)
@given(graphs())
def test_no_tensor_is_overwritten_while_it_lives(graph: Graph) -> None:
    check(graph)


@settings(max_examples=200)
@given(graphs())
def test_the_lower_bound_is_one_and_the_plan_is_near(graph: Graph) -> None:
    plan = check(graph)
    assert plan.lower_bound == _live_bytes(graph, plan)
    # Greedy by size is no optimum; of 60 000 random sets of lifetimes the worst took half more.
    assert plan.arena_bytes <= 2 * plan.lower_bound


def _live_bytes(graph: Graph, plan: MemoryPlan) -> int:
    """Return the largest sum of tensors alive at once, from births and last uses."""
    outside = {*graph.inputs, *graph.outputs, *graph.constants}
    spans: dict[str, list[int]] = {}
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            spans.setdefault(plan.aliases.get(name, name), []).append(step)
    size = {name: -(-graph.types[name].nbytes // 8) * 8 for name in spans}
    steps = range(len(graph.nodes))
    return max(
        sum(size[n] for n, s in spans.items() if n not in outside and min(s) <= t <= max(s))
        for t in steps
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_real_models_reach_the_lower_bound(model: str, target: str) -> None:
    e = emitted(model, target)
    plan = check(e.graph)
    assert plan.arena_bytes == plan.lower_bound
    assert (e.program.arena_bytes, e.program.arena_lower_bound) == (plan.arena_bytes,) * 2


def _chain(*sizes: int) -> Graph:
    builder = GraphBuilder("chain", Stage.PACKED)
    x = builder.input("x", TensorType((1, sizes[0]), F32))
    for i, channels in enumerate(sizes[1:]):
        weights = np.zeros((-(-channels // 8), builder.types[x].size, 8), np.float32)
        op = RealDense(REALS, "bnn_real_dense_1x8__scalar", channels, 8)
        x = builder.node(op, [x, builder.constant("w", weights, F32)], f"t{i}")
    return builder.build([x])


def _neighbours(sizes: list[int]) -> int:
    """Return the bytes of a chain's two largest neighbours: even ones from the bottom of the arena
    upward and odd ones from its top downward never meet."""
    inner = [-(-4 * size // 8) * 8 for size in sizes[1:-1]]
    return max((a + b for a, b in pairwise([*inner, 0])), default=0)


_GREEDY = pytest.mark.xfail(
    reason="greedy by size is no optimum: 512-256-256-512 takes a third more"
)


@pytest.mark.parametrize(
    "sizes",
    [
        [5, 5],
        [784, 512, 512, 512, 10],
        [784, 4096, 1000, 10],
        [100, 64, 32, 16, 8, 4],
        [4, 8, 16, 32, 64],
        pytest.param([784, 512, 256, 256, 512, 10], marks=_GREEDY),
    ],
)
def test_a_chain_takes_its_two_largest_neighbours(sizes: list[int]) -> None:
    assert check(_chain(*sizes)).arena_bytes == _neighbours(sizes)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=10))
def test_a_chain_never_takes_twice_as_much(sizes: list[int]) -> None:
    plan = check(_chain(*sizes))
    assert plan.lower_bound == _neighbours(sizes)
    assert plan.arena_bytes <= 2 * plan.lower_bound


def test_a_map_in_the_middle_of_a_chain_works_in_place() -> None:
    builder = GraphBuilder("chain", Stage.PACKED)
    x = builder.input("x", TensorType((1, 10), F32))
    a = builder.node(Map(REALS), [x], "a")  # reads the caller's input: not in place
    b = builder.node(Map(REALS), [a], "b")
    c = builder.node(Map(REALS), [b], "c")
    graph = builder.build([builder.node(Map(REALS), [c], "y")])
    plan = check(graph)
    assert plan.aliases == {"b": "a", "c": "a"}
    assert plan.arena_bytes == 40


def test_a_map_whose_operand_is_read_later_works_elsewhere() -> None:
    builder = GraphBuilder("fork", Stage.PACKED)
    x = builder.input("x", TensorType((1, 10), F32))
    a = builder.node(Map(REALS), [x], "a")
    b = builder.node(Map(REALS), [a], "b")
    c = builder.node(Map(REALS), [a], "c")
    graph = builder.build([builder.node(Map(REALS), [t], f"{t}.y") for t in (b, c)])
    plan = check(graph)
    assert "b" not in plan.aliases
    assert plan.aliases.get("c") == "a"


def test_a_graph_without_intermediates_needs_no_arena() -> None:
    plan = check(_chain(3, 4))
    assert (plan.arena_bytes, plan.lower_bound, dict(plan.offsets)) == (0, 0, {})
