"""The arena: no byte belongs to two live tensors, whatever the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnncc.backend.memory import ALIGNMENT, MemoryPlan, is_alias, plan_memory
from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.graph import Graph, GraphBuilder, Node
from bnncc.ir.ops.kernels import Epilogue, Fused, Map, Move, Store
from bnncc.ir.ops.shape import Concat, Movement, Pad, Reshape, Slice, Transpose
from bnncc.ir.storage import encode
from bnncc.ir.types import (
    CHANNELS_LAST,
    DENSE,
    Array,
    Element,
    Layout,
    PackedChannels,
    Stage,
    TensorType,
    real_layout,
)
from tests.backend.zoo import MODELS, TARGETS, emitted

F32 = Element.F32
REALS = Store(Operand(Source.VARIABLE, 0), F32)
SUMS = Store(Operand(Source.VARIABLE, 0), Element.I32)
BITS = Store(Operand(Source.VARIABLE, 0), Element.BIPOLAR, thresholds=1, word_bits=32)


@dataclass(frozen=True)
class Layer(Fused):
    """A kernel of any result shape that reads its first operand everywhere."""

    result: tuple[int, ...]

    @property
    def own_operands(self) -> int:
        return 1

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        return self.result

    def values(self, operands: Sequence[Array]) -> Array:
        raise AssertionError("a plan runs nothing")


class Net:
    """A PACKED graph under construction; results are named t0, t1, ..."""

    def __init__(self) -> None:
        self.builder = GraphBuilder("net", Stage.PACKED)

    def input(self, *shape: int) -> str:
        return self.builder.input("x", TensorType((1, *shape), F32, real_layout((1, *shape))))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.types[name].shape

    def layer(
        self, x: str, *shape: int, shortcuts: Sequence[str] = (), stores: Sequence[Store] = (REALS,)
    ) -> tuple[str, ...]:
        """Append a layer, or without a shape a map, that also reads `shortcuts` elementwise."""
        epilogue = Epilogue(Expression(()), len(shortcuts), 0, tuple(stores))
        op = Layer(epilogue, (1, *shape)) if shape else Map(epilogue)
        thresholds = [
            self.builder.constant("c", np.zeros((1, op.shape([self.builder.types[x]])[1], 1)), F32)
            for store in stores
            if store.thresholds
        ]
        first = len(self.builder.types)
        names = [f"t{first + i}" for i in range(len(stores))]
        return self.builder.results(op, [x, *shortcuts, *thresholds], names)

    def reals(self, x: str, *shape: int, shortcuts: Sequence[str] = ()) -> str:
        """Append a layer with one result, numbers."""
        return self.layer(x, *shape, shortcuts=shortcuts)[0]

    def move(self, op: Movement | None, to: Layout, *xs: str) -> str:
        sources = tuple(self.builder.types[x] for x in xs)
        return self.builder.node(Move(op, sources, to), xs, f"t{len(self.builder.types)}")

    def build(self, *outputs: str) -> Graph:
        return self.builder.build(outputs)


# --- The checker ----------------------------------------------------------------------------------


def check(graph: Graph) -> MemoryPlan:
    plan = plan_memory(graph)
    _Machine(graph, plan).run()
    assert plan.lower_bound == _live_bytes(graph, plan) <= plan.arena_bytes
    return plan


class _Machine:
    """Runs a graph on a memory that remembers, byte by byte, whose value it holds."""

    def __init__(self, graph: Graph, plan: MemoryPlan) -> None:
        self.graph, self.plan = graph, plan
        self.arena: list[str | None] = [None] * plan.arena_bytes
        self.outside = {*graph.inputs, *graph.outputs, *graph.constants}
        # Whose value a buffer outside the arena holds.
        self.holds = {name: name for name in graph.inputs}
        # Moves that need no code: their results are their operands' values.
        self.same: dict[str, str] = {}

    def run(self) -> None:
        for node in self.graph.nodes:
            x = node.inputs[0]
            if isinstance(node.op, Move) and node.outputs[0] in self.plan.aliases:
                assert self._owner(node.output) == self._owner(x)
                assert _keeps_random_bytes(node.op, self.graph.types[x])
                self.same[node.output] = self.same.get(x, x)
            else:
                self._read(node)
                self._use(node)
                self._write(node)
        for name in self.graph.outputs:
            assert self.holds[name] == name, f"the output {name} holds {self.holds[name]}"

    def _owner(self, name: str) -> str:
        owner = self.plan.aliases.get(name, name)
        assert owner not in self.plan.aliases, "an alias of an alias"
        return owner

    def _span(self, name: str) -> range | None:
        """Return a tensor's bytes in the arena; None if it lives outside."""
        if self._owner(name) in self.outside:
            return None
        start, size = self.plan.offsets[self._owner(name)], self.graph.types[name].nbytes
        assert start % ALIGNMENT == 0
        assert start + size <= self.plan.arena_bytes
        return range(start, start + size)

    def _read(self, node: Node) -> None:
        for i, name in enumerate(node.inputs):
            if name in self.graph.constants:
                continue
            span = self._span(name)
            found = (
                {self.holds[self._owner(name)]}
                if span is None
                else set(self.arena[span.start : span.stop])
            )
            assert found == {self.same.get(name, name)}, f"{node.name} reads {name}: {found}"
            for result in node.outputs:
                written = self._span(result)
                if span and written and span.start < written.stop and written.start < span.stop:
                    assert span == written
                    assert _may_lie_on_top(
                        node, i, self.graph.types[result], self.graph.types[name]
                    )

    def _use(self, node: Node) -> None:
        """Overwrite what the node needs while it runs: nothing that it reads or writes."""
        own = [span for name in (*node.inputs, *node.outputs) if (span := self._held(name))]
        for scratch in node.op.scratch:
            start = self.plan.scratch[node.name, scratch.name]
            span = range(start, start + scratch.kind.nbytes)
            assert start % ALIGNMENT == 0
            assert span.stop <= self.plan.arena_bytes
            assert all(span.stop <= s.start or s.stop <= span.start for s in own)
            own.append(span)
            self.arena[span.start : span.stop] = [scratch.name] * len(span)

    def _held(self, name: str) -> range | None:
        return None if name in self.graph.constants else self._span(name)

    def _write(self, node: Node) -> None:
        for name in node.outputs:
            span = self._span(name)
            if span is None:
                assert name in self.graph.outputs, f"{name} lies in what is not its own"
                self.holds[name] = name
            else:
                self.arena[span.start : span.stop] = [name] * len(span)
        for name in node.outputs:
            if span := self._span(name):
                assert set(self.arena[span.start : span.stop]) == {name}


def _may_lie_on_top(node: Node, i: int, result: TensorType, operand: TensorType) -> bool:
    """Whether operand i is read at the very place where a number of the same type is written."""
    if not isinstance(node.op, Fused):
        return False
    own = node.op.own_operands
    first = 0 if isinstance(node.op, Map) else own
    if not first <= i < own + node.op.epilogue.variables:
        return False
    return replace(result, interval=None) == replace(operand, interval=None) and (
        result.layout in {DENSE, CHANNELS_LAST}
    )


def _keeps_random_bytes(op: Move, x: TensorType) -> bool:
    """Whether a move leaves the stored form of four random operands as it is."""
    chance = np.random.default_rng(0)
    values = {Element.BIPOLAR: [-1, 1], Element.TERNARY: [-1, 0, 1]}.get(x.element, range(256))
    stored = [encode(chance.choice(np.array(values), x.shape), x) for _ in range(4)]
    return all(np.array_equal(a.reshape(-1), op.evaluate([a])[0].reshape(-1)) for a in stored)


def _live_bytes(graph: Graph, plan: MemoryPlan) -> int:
    """Return the largest sum of what is alive at once, from births, last uses and scratch."""
    outside = {*graph.inputs, *graph.outputs, *graph.constants}
    spans: dict[str, list[int]] = {}
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            spans.setdefault(plan.aliases.get(name, name), []).append(step)
    size = {name: -(-graph.types[name].nbytes // 8) * 8 for name in spans}
    passing = [sum(-(-s.kind.nbytes // 8) * 8 for s in node.op.scratch) for node in graph.nodes]
    return max(
        own + sum(size[n] for n, s in spans.items() if n not in outside and min(s) <= t <= max(s))
        for t, own in enumerate(passing)
    )


# --- Any graph ------------------------------------------------------------------------------------

SHAPES = [(12,), (5,), (3, 4), (12, 1), (1, 12), (40,)]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A graph grown layer by layer; tensors may be read again at any later time."""
    net = Net()
    tensors = [net.input(12)]
    for _ in range(draw(st.integers(1, 12))):
        x = draw(st.sampled_from(tensors[-4:]))
        kind = net.builder.types[x]
        choice = draw(st.sampled_from(["layer", "layer", "map", "move"]))
        if choice == "move":
            shapes = [(1, *s) for s in SHAPES if np.prod(s) == kind.size]
            to = draw(st.sampled_from(shapes))
            layout = draw(st.sampled_from([DENSE, real_layout(to)]))
            tensors.append(net.move(Reshape(to), layout, x))
            continue
        if kind.layout != real_layout(kind.shape):
            x = net.move(None, real_layout(kind.shape), x)
        shape = kind.shape[1:] if choice == "map" else draw(st.sampled_from(SHAPES))
        alike = [name for name in tensors if net.shape(name) == (1, *shape)]
        shortcuts = draw(st.lists(st.sampled_from(alike), max_size=2)) if alike else []
        stores = draw(st.lists(st.sampled_from([REALS, SUMS, BITS]), min_size=1, max_size=3))
        results = net.layer(
            x, *(() if choice == "map" else shape), shortcuts=shortcuts, stores=stores
        )
        tensors += [name for name in results if net.builder.types[name].element is F32]
    last = net.reals(tensors[-1], 3)
    others = tensors[1:]
    also = draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
    return net.build(last, *also)


@settings(max_examples=300)
@given(graphs())
def test_no_tensor_is_overwritten_while_it_lives(graph: Graph) -> None:
    check(graph)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_real_models_reach_the_lower_bound(model: str, target: str) -> None:
    e = emitted(model, target)
    plan = check(e.graph)
    assert plan.arena_bytes == plan.lower_bound
    assert (e.program.arena_bytes, e.program.arena_lower_bound) == (plan.arena_bytes,) * 2


# --- Networks -------------------------------------------------------------------------------------


def _chain(*sizes: int) -> Graph:
    net = Net()
    x = net.input(sizes[0])
    for channels in sizes[1:]:
        x = net.reals(x, channels)
    return net.build(x)


def _neighbours(sizes: list[int]) -> int:
    """Return the bytes of a chain's two largest neighbours: even ones from the bottom of the arena
    upward and odd ones from its top downward never meet."""
    inner = [-(-4 * size // 8) * 8 for size in sizes[1:-1]]
    return max((a + b for a, b in pairwise([*inner, 0])), default=0)


@pytest.mark.parametrize(
    "sizes",
    [
        [5, 5],
        [784, 512, 512, 512, 10],
        [784, 4096, 1000, 10],
        [100, 64, 32, 16, 8, 4],
        [4, 8, 16, 32, 64],
        [784, 512, 256, 256, 512, 10],  # greedy by size takes a third more
    ],
)
def test_a_chain_takes_its_two_largest_neighbours(sizes: list[int]) -> None:
    assert check(_chain(*sizes)).arena_bytes == _neighbours(sizes)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=20))
def test_every_chain_takes_its_two_largest_neighbours(sizes: list[int]) -> None:
    assert check(_chain(*sizes)).arena_bytes == _neighbours(sizes)


def _bireal(blocks: Sequence[int], size: int) -> Graph:
    """Bi-Real Net: every binary convolution has a real shortcut, pooled and convolved where the
    image shrinks (Liu et al. 2018). Sizes are divided by 4: the checker counts bytes."""
    net = Net()
    x = net.input(3, 4 * size, 4 * size)
    x = net.reals(x, 16, 2 * size, 2 * size)
    x, bits = net.layer(x, 16, size, size, stores=[REALS, BITS])
    for level, count in enumerate(blocks):
        channels, side = 16 << level, size >> level
        for block in range(2 * count):
            if level and not block:
                pooled = net.reals(x, channels // 2, side, side)
                x = net.reals(pooled, channels, side, side)
            x, bits = net.layer(bits, channels, side, side, shortcuts=[x], stores=[REALS, BITS])
    return net.build(net.reals(net.reals(x, channels), 10))


def _resnet(blocks: int, size: int) -> Graph:
    """A binary ResNet for CIFAR: a shortcut round every two convolutions."""
    net = Net()
    x, bits = net.layer(net.input(3, size, size), 16, size, size, stores=[REALS, BITS])
    for level in range(3):
        channels, side = 16 << level, size >> level
        for block in range(blocks):
            shortcut = net.reals(x, channels, side, side) if level and not block else x
            (inner,) = net.layer(bits, channels, side, side, stores=[BITS])
            x, bits = net.layer(
                inner, channels, side, side, shortcuts=[shortcut], stores=[REALS, BITS]
            )
    return net.build(net.reals(net.reals(x, 64), 10))


def _densenet(blocks: int, size: int) -> Graph:
    """Every layer's result is appended to what all later layers of its block read."""
    net = Net()
    x = net.reals(net.input(3, size, size), 16, size, size)
    for level in range(3):
        side = size >> level
        for _ in range(blocks):
            (bits,) = net.layer(x, stores=[BITS])
            grown = net.reals(bits, 12, side, side)
            x = net.move(Concat(1), CHANNELS_LAST, x, grown)
        x = net.reals(x, net.shape(x)[1] // 2, side // 2, side // 2)
    return net.build(net.reals(x, 10))


def _branches(blocks: int, size: int) -> Graph:
    """Four branches of different depth and width from one tensor, then their concatenation."""
    net = Net()
    x = net.reals(net.input(3, size, size), 32, size, size)
    for _ in range(blocks):
        ends = []
        for depth, width in enumerate([16, 24, 8, 4]):
            end = x
            for _ in range(depth + 1):
                end = net.reals(end, width, size, size)
            ends.append(end)
        x = net.move(Concat(1), CHANNELS_LAST, *ends)
    return net.build(net.reals(x, 10))


@pytest.mark.parametrize(
    ("graph", "bound"),
    [
        (lambda: _bireal([2, 2, 2, 2], 14), 64 * 28**2 + 16 * 14 * 14 * 4 + 14 * 14 * 4),
        (lambda: _bireal([3, 4, 6, 3], 14), 64 * 28**2 + 16 * 14 * 14 * 4 + 14 * 14 * 4),
    ],
    ids=["bireal18", "bireal34"],
)
def test_in_a_bireal_net_the_stem_is_the_most_that_lives(
    graph: Callable[[], Graph], bound: int
) -> None:
    """The stem's image, and after its pool the shortcut and its bits; no later layer needs more."""
    plan = check(graph())
    assert plan.arena_bytes == plan.lower_bound == bound


@pytest.mark.parametrize(
    "graph",
    [
        *(_resnet(blocks, 16) for blocks in (1, 3, 9)),
        *(_densenet(blocks, 8) for blocks in (2, 4, 8)),
        *(_branches(blocks, 6) for blocks in (1, 2, 4)),
    ],
    ids=lambda graph: f"{len(graph.nodes)} nodes",
)
def test_networks_come_within_five_percent_of_the_bound(graph: Graph) -> None:
    plan = check(graph)
    assert plan.arena_bytes <= 1.05 * plan.lower_bound


# --- In place -------------------------------------------------------------------------------------


def test_a_map_in_the_middle_of_a_chain_works_in_place() -> None:
    net = Net()
    a = net.reals(net.input(10))  # reads the caller's input: not in place
    b = net.reals(a)
    c = net.reals(b)
    plan = check(net.build(net.reals(c)))
    assert plan.aliases == {b: a, c: a}
    assert plan.arena_bytes == 40


def test_a_map_whose_operand_is_read_later_works_elsewhere() -> None:
    net = Net()
    a = net.reals(net.input(10))
    b = net.reals(a)
    c = net.reals(a)
    plan = check(net.build(*(net.reals(t) for t in (b, c))))
    assert b not in plan.aliases
    assert plan.aliases.get(c) == a


def test_a_sum_lies_on_top_of_the_shortcut_that_dies_there_and_its_bits_elsewhere() -> None:
    net = Net()
    shortcut, bits = net.layer(net.input(8), 16, 7, 7, stores=[REALS, BITS])
    y, more = net.layer(bits, 16, 7, 7, shortcuts=[shortcut], stores=[REALS, BITS])
    plan = check(net.build(net.reals(more, 3, shortcuts=()), net.reals(y, 4)))
    assert plan.aliases == {y: shortcut}
    assert plan.arena_bytes == plan.lower_bound == 4 * 16 * 49 + 2 * (4 * 49 + 4)


def test_what_a_window_runs_over_is_not_overwritten() -> None:
    net = Net()
    x = net.reals(net.input(8), 16)
    y = net.reals(x, 16)  # as large as x, but reads all of it for each element
    z = net.reals(y, 16, shortcuts=[y])  # so does this, beside reading it elementwise
    assert check(net.build(net.reals(z, 3))).aliases == {}


def test_a_shortcut_that_is_read_later_is_not_overwritten() -> None:
    net = Net()
    shortcut = net.reals(net.input(8), 16)
    x = net.reals(shortcut, 5)
    y = net.reals(x, 16, shortcuts=[shortcut])
    z = net.reals(y, 16, shortcuts=[shortcut])
    assert check(net.build(net.reals(z, 3))).aliases == {z: shortcut}


def test_a_shortcut_of_other_shape_or_element_is_not_overwritten() -> None:
    net = Net()
    sums, row = net.layer(net.input(8), 16, stores=[SUMS])[0], net.reals("x", 16)
    y = net.reals(row, 16, shortcuts=[sums])
    broadcast = net.reals(y, 16, 1)
    z = net.reals(y, 16, 3, shortcuts=[broadcast])
    assert check(net.build(net.reals(z, 3))).aliases == {}


def test_packed_bits_are_not_overwritten_a_word_holds_many() -> None:
    net = Net()
    x, bits = net.layer(net.input(8), 32, stores=[REALS, BITS])
    (y,) = net.layer(x, 32, shortcuts=[bits], stores=[BITS])
    assert check(net.build(net.reals(y, 3))).aliases == {}


def test_several_results_take_over_several_shortcuts() -> None:
    net = Net()
    a, b = net.reals(net.input(8), 16), net.reals("x", 16)
    x = net.reals("x", 5)
    results = net.layer(x, 16, shortcuts=[a, b], stores=[REALS, REALS, REALS])
    plan = check(net.build(*(net.reals(r, 3) for r in results)))
    assert plan.aliases == {results[0]: a, results[1]: b}


@pytest.mark.parametrize("role", ["input", "output", "constant"])
def test_what_lies_outside_of_the_arena_is_not_overwritten(role: str) -> None:
    net = Net()
    x = net.input(16)
    constant = net.builder.constant("k", np.ones((1, 16)), F32)
    first = net.reals(x, 16)
    y = net.reals(
        net.reals(x, 5), 16, shortcuts=[{"input": x, "output": first}.get(role, constant)]
    )
    plan = check(net.build(net.reals(y, 3), first))
    assert plan.aliases == {}


def test_a_result_that_the_caller_owns_is_not_in_the_arena() -> None:
    net = Net()
    x = net.reals(net.input(8), 16)
    y = net.reals(x)
    plan = check(net.build(y))
    assert (plan.aliases, list(plan.offsets)) == ({}, [x])


def test_a_graph_without_intermediates_needs_no_arena() -> None:
    plan = check(_chain(3, 4))
    assert (plan.arena_bytes, plan.lower_bound, dict(plan.offsets)) == (0, 0, {})


# --- Moves that need no code ----------------------------------------------------------------------


def test_a_shortcut_that_is_also_the_operand_under_another_shape_is_not_overwritten() -> None:
    net = Net()
    shortcut = net.reals(net.input(8), 16)
    flat = net.move(Reshape((1, 16, 1)), CHANNELS_LAST, shortcut)
    y = net.reals(flat, 16, shortcuts=[shortcut])
    assert check(net.build(net.reals(y, 3))).aliases == {flat: shortcut}


def test_what_is_read_later_under_another_shape_is_not_overwritten() -> None:
    net = Net()
    a = net.reals(net.input(16))
    image = net.move(Reshape((1, 16, 1)), CHANNELS_LAST, a)
    b = net.reals(a)
    plan = check(net.build(net.reals(image, 3), net.reals(b, 3)))
    assert plan.aliases == {image: a}


def test_a_constant_is_moved_by_code() -> None:
    net = Net()
    constant = net.builder.constant("k", np.ones((1, 16)), F32)
    moved = net.move(Reshape((1, 16, 1)), CHANNELS_LAST, constant)
    y = net.reals(net.input(16), 16, 1, shortcuts=[moved])
    assert check(net.build(net.reals(y, 3))).aliases == {y: moved}


BITS32, BITS64 = PackedChannels(32, 1), PackedChannels(32, 1, groups=2)


@pytest.mark.parametrize(
    ("op", "kind", "to", "expected"),
    [
        (None, TensorType((1, 3, 4), F32), CHANNELS_LAST, False),
        (None, TensorType((1, 1, 4, 4), F32), CHANNELS_LAST, True),
        (None, TensorType((1, 5, 1, 1), F32), CHANNELS_LAST, True),
        (None, TensorType((1, 300, 1), Element.U8, CHANNELS_LAST), DENSE, True),
        (None, TensorType((1, 3, 4), F32, CHANNELS_LAST), DENSE, False),
        (Reshape((1, 12)), TensorType((1, 3, 4), F32), DENSE, True),
        (Reshape((1, 12)), TensorType((1, 3, 4), F32, CHANNELS_LAST), DENSE, False),
        (Reshape((1, 12)), TensorType((1, 12, 1, 1), F32, CHANNELS_LAST), DENSE, True),
        (Transpose((0, 2, 1)), TensorType((1, 3, 4), F32, CHANNELS_LAST), DENSE, True),
        (Transpose((0, 2, 1)), TensorType((1, 3, 4), F32), DENSE, False),
        (Slice((0, 0), (1, 5), (1, 1)), TensorType((1, 5), F32), DENSE, True),
        (Slice((0, 1), (1, 4), (1, 1)), TensorType((1, 5), F32), DENSE, False),
        (Pad((0, 0), (0, 1), 0), TensorType((1, 5), F32), DENSE, False),
        (Reshape((1, 40)), TensorType((1, 40, 1, 1), Element.BIPOLAR, BITS32), BITS32, True),
        (Reshape((1, 80)), TensorType((1, 40, 2), Element.BIPOLAR, BITS32), BITS32, False),
        (Reshape((1, 6)), TensorType((1, 3, 2), Element.U8, PackedChannels(8, 8)), BITS32, False),
        (None, TensorType((1, 64, 3), Element.BIPOLAR, BITS32), BITS64, True),
        (None, TensorType((1, 40, 3), Element.BIPOLAR, BITS32), BITS64, False),
        # An unused bit is 0, and so is the bit of a -1.
        (Pad((0, 0), (0, 2), -1), TensorType((1, 5), Element.BIPOLAR, BITS32), BITS32, True),
        (Pad((0, 0), (0, 2), 1), TensorType((1, 5), Element.BIPOLAR, BITS32), BITS32, False),
        (Pad((0, 1), (0, 0), -1), TensorType((1, 1), Element.BIPOLAR, BITS32), BITS32, False),
        (Slice((0, 0), (1, 4), (1, 1)), TensorType((1, 5), Element.BIPOLAR, BITS32), BITS32, False),
    ],
)
def test_a_move_that_leaves_every_bit_where_it_was_needs_no_code(
    op: Movement | None, kind: TensorType, to: Layout, *, expected: bool
) -> None:
    net = Net()
    net.builder.input("x", kind)
    net.move(op, to, "x")
    graph = net.build(net.move(None, to, net.builder.nodes[0].output))
    assert is_alias(graph, graph.nodes[0]) is expected
    move = graph.nodes[0].op
    assert isinstance(move, Move)
    y = graph.types[graph.nodes[0].output]
    assert (kind.nbytes == y.nbytes and _keeps_random_bytes(move, kind)) is expected
