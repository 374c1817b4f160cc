"""sink_pools: max and min of bits where the model takes the maximum of reals, and then the sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.sink_pools import SINK_POOLS
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes.applying import GENERIC, apply, same_values
from tests.passes.epilogues import AT_LEAST_0, BETA, GAMMA, HOSTILE, MEAN, SIGN, VARIANCE

CHANNELS = 8
PAIRS = Window((Axis(2, 2),) * 2)
WINDOWS = {
    "2 by 2": PAIRS,
    "overlapping, padded": Window((Axis(3, 2, before=1, after=1),) * 2),
    "ceil": Window((Axis(2, 2, ceil=True), Axis(3, 2, ceil=True))),
    "gaps and one side": Window((Axis(2, 1, dilation=2), Axis(2, 3, before=1))),
}
Link = Callable[[Sketch, str], str]


def batch_norm(s: Sketch, x: str) -> str:
    return s.batch_norm(x, (GAMMA, BETA, MEAN, VARIANCE))


def convolved(s: Sketch, x: str = "x", *, to: str = "n") -> str:
    """A binary layer 5 -> 8, 3 x 3 with zero padding, and the real value of its sums."""
    w = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), (CHANNELS, 5, 3, 3))
    window = Window((Axis(3, before=1, after=1),) * 2)
    n = s(BinaryConv(window), x, s.const(w, "w", Element.BIPOLAR), to=to)
    rows = [s.const(row, "d", Element.F64) for row in ([0.3] * 8, [0.0] * 8, [0.0] * 8)]
    return s(ew.Dequantize(), n, *rows, to=f"{to}.value")


def network(links: list[Link], step: tuple = AT_LEAST_0, to: Element = Element.BIPOLAR) -> Sketch:
    """Layer - links, a pool among them - Step "y"."""
    s = Sketch(shape=(1, 5, 7, 9), element=Element.BIPOLAR)
    last = convolved(s)
    for link in links:
        last = link(s, last)
    s(ew.Step(to), last, *step, to="y", origin=["act"])
    return s


def pool(window: Window = PAIRS) -> Link:
    return lambda s, x: s(MaxPool(window), x, origin=["pool"])


def bits(count: int = 60) -> np.ndarray:
    return np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (count, 5, 7, 9))


def sunk(graph: Graph) -> Graph:
    """Return the graph after the pass, which must have done something, right."""
    outcome = apply(SINK_POOLS, graph)
    assert outcome.refusals == ()
    assert outcome.graph is not graph
    assert differences(graph, outcome.graph, SINK_POOLS.exactness) == []
    assert SINK_POOLS.apply(outcome.graph, GENERIC).graph is outcome.graph
    return outcome.graph


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("before", [True, False], ids=["bn, pool, sign", "pool, bn, sign"])
@pytest.mark.parametrize(
    ("step", "to"), [(AT_LEAST_0, Element.BIPOLAR), (SIGN, Element.TERNARY)], ids=["two", "three"]
)
def test_every_direction_at_once(name: str, before: bool, step: tuple, to: Element) -> None:
    # Channels 1, 5 and 7 fall, 2 and 3 have gamma 0: AND if BatchNorm is behind the pool only.
    links = [pool(WINDOWS[name])]
    links.insert(0 if before else 1, batch_norm)
    graph = network(links, step, to).done()
    after = sunk(graph)
    node = only(after, MaxPool)
    assert after.types["y"].element is to
    assert after.producers["y"] is node
    if before:
        assert len(node.inputs) == 1
    else:
        falls = after.constants[node.inputs[1]]
        assert falls.tolist() == [1, -1, 1, 1, 1, -1, 1, -1]
    same_values(graph, after, x=bits())


def test_then_thresholds_fold_onto_the_accumulator() -> None:
    graph = network([pool(), batch_norm], SIGN, Element.TERNARY).done()
    after = apply(ELIMINATE_DEAD, apply(FOLD_THRESHOLDS, sunk(graph)).graph).graph
    assert ops(after) == ["BinaryConv", "Step", "MaxPool"]
    same_values(graph, after, x=bits())


def test_names_and_origins() -> None:
    graph = network([pool(), batch_norm]).done()
    after = sunk(graph)
    assert [n.output for n in after.nodes] == ["n", "n.value", "t3.unpooled", "y.unpooled", "y"]
    assert [n.origin for n in after.nodes][2:] == [("the t3",), ("act",), ("pool",)]


def test_pools_in_a_row() -> None:
    second = Window((Axis(2, ceil=True), Axis(3, before=1, after=1)))
    graph = network([batch_norm, pool(), pool(second), lambda s, x: s(ew.Neg(), x)]).done()
    after = sunk(graph)
    assert ops(after)[-3:] == ["Step", "MaxPool", "MaxPool"]
    assert all(len(n.inputs) == 2 for n in after.nodes if isinstance(n.op, MaxPool))
    same_values(graph, after, x=bits())


def test_pools_with_a_chain_between_them() -> None:
    # Minimum, then maximum: each pool has a direction of its own.
    links = [pool(), lambda s, x: s(ew.Neg(), x), pool(Window((Axis(2),) * 2)), batch_norm]
    graph = network(links).done()
    after = sunk(graph)
    first, second = (n for n in after.nodes if isinstance(n.op, MaxPool))
    assert after.constants[second.inputs[1]].tolist() == [1, -1, 1, 1, 1, -1, 1, -1]
    assert after.constants[first.inputs[1]].tolist() == [-1, 1, 1, 1, -1, 1, -1, 1]
    same_values(graph, after, x=bits())


def test_every_constant_finds_its_channel() -> None:
    def links(s: Sketch, x: str) -> str:
        column = np.arange(-3, 5, dtype=F).reshape(8, 1, 1)
        scaled = s(ew.Mul(), x, column)
        spelled_out = np.broadcast_to(column / 3, (8, 3, 4))
        return s(ew.Sub(), s(ew.Add(), scaled, np.full((1, 1, 1, 1), 0.5)), spelled_out)

    graph = network([pool(), links]).done()
    same_values(graph, sunk(graph), x=bits())


def test_channels_in_one_dimension() -> None:
    s = Sketch(shape=(1, 3, 11))
    w = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(F)
    n = s(Conv(Window((Axis(3),))), "x", s.const(w))
    p = s(MaxPool(Window((Axis(2, 2, ceil=True),))), n)
    biased = s(ew.Mul(), p, np.array([[1], [-1], [0], [2]]))
    s(ew.Step(Element.BIPOLAR), biased, [[-0.5]], [[-1, 1]], to="y")
    graph = s.done()
    x = np.random.default_rng(2).standard_normal((50, 3, 11)).astype(F)
    same_values(graph, sunk(graph), x=x)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 0.0, -0.0])
def test_hostile_values_of_a_real_layer(value: float) -> None:
    s = Sketch(shape=(1, 1, 4, 4))
    n = s(Conv(Window((Axis(1),) * 2)), "x", s.const(np.ones((8, 1, 1, 1))))
    p = s(MaxPool(WINDOWS["overlapping, padded"]), n)
    negated = s(ew.Mul(), p, np.array([1, -1] * 4).reshape(8, 1, 1))
    s(ew.Step(Element.TERNARY), negated, *SIGN, to="y")
    graph = s.done()
    x = np.random.default_rng(0).standard_normal((40, 1, 4, 4)).astype(F)
    x[np.random.default_rng(1).random(x.shape) < 0.4] = value
    same_values(graph, sunk(graph), x=x)


# --- What stays -----------------------------------------------------------------------------------


def stays(graph: Graph) -> None:
    outcome = SINK_POOLS.apply(graph, GENERIC)
    assert outcome.graph is graph
    assert outcome.refusals == ()


def test_refuses_chains_that_turn() -> None:
    graph = network([pool(), lambda s, x: s(ew.PRelu(), x, np.full((8, 1, 1), -0.5))]).done()
    outcome = SINK_POOLS.apply(graph, GENERIC)
    assert outcome.graph is graph
    (refusal,) = outcome.refusals
    assert (refusal.node, refusal.origin) == ("y", ("act",))
    assert refusal.reason == (
        "its pool cannot follow it: what is between is not monotone in every channel"
    )


def test_a_pool_that_something_else_reads_stays() -> None:
    s = network([pool(), batch_norm])
    s(ew.Relu(), "t2", to="z")
    stays(s.done("y", "z"))
    stays(network([pool(), batch_norm]).done("y", "t2"))
    stays(network([pool(), batch_norm]).done("y", "t3"))


def test_a_pool_of_a_sum_with_a_shortcut_stays() -> None:
    s = Sketch(shape=(1, 5, 7, 9), element=Element.BIPOLAR)
    total = s(ew.Add(), convolved(s), convolved(s, to="m"))
    s(ew.Step(Element.BIPOLAR), s(MaxPool(PAIRS), total), *AT_LEAST_0)
    stays(s.done())


def test_a_pool_of_the_input_stays() -> None:
    s = Sketch(shape=(1, 5, 7, 9))
    s(ew.Step(Element.BIPOLAR), s(MaxPool(PAIRS), "x"), *AT_LEAST_0)
    stays(s.done())


def test_levels_that_are_reals_stay() -> None:
    stays(network([pool()], ([[0.0]], [[0, 1]]), Element.F32).done())


def test_a_sign_before_the_pool_stays() -> None:
    s = network([])
    s(MaxPool(PAIRS), "y", to="p")
    stays(s.done())


def test_without_a_pool() -> None:
    stays(network([batch_norm]).done())


def test_the_pool_as_defined() -> None:
    # By loops: the sign of the maximum, channel by channel.
    graph = network([pool(), batch_norm], SIGN, Element.TERNARY).done()
    after = sunk(graph)
    x = bits(4)
    n = interpret.run(network([]).done("n"), {"x": x})["n"]
    y = interpret.run(after, {"x": x})["y"]
    for i, c, row, column in np.ndindex(4, CHANNELS, 3, 4):
        window = n[i, c, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        value = float(max(F(v * 0.3) for v in window.reshape(-1).tolist()))
        normal = HOSTILE.value(value, c)
        assert y[i, c, row, column] == np.sign(normal)
