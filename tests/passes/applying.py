"""Apply one pass, or the pipeline up to one, holding it to what every pass promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from bnncc.ir import interpret
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.text import format_graph
from bnncc.ir.types import Array, Element, Stage, TensorType
from bnncc.passes.base import Context, Outcome, Pass, SignZero
from bnncc.passes.transplant import source_name
from bnncc.pipeline import PIPELINE
from bnncc.targets import target_named
from tests.ir.sketch import Sketch, bits

GENERIC = Context(target_named("generic"))


def context(target: str = "generic", sign_zero: str = "auto") -> Context:
    return Context(target_named(target), SignZero(sign_zero))


def fingerprint(graph: Graph) -> tuple[str, tuple[bytes, ...]]:
    """Return everything a graph holds: its text, and its constants to the last bit."""
    return format_graph(graph), tuple(array.tobytes() for array in graph.constants.values())


def apply(step: Pass, graph: Graph, given: Context = GENERIC) -> Outcome:
    """Return what the pass makes of a graph, checked for form, interface and purity."""
    before = fingerprint(graph)
    outcome = step.apply(graph, given)
    assert fingerprint(graph) == before, "the pass changed the graph it was given"
    assert violations(outcome.graph) == []
    assert (outcome.graph.inputs, outcome.graph.outputs) == (graph.inputs, graph.outputs)
    assert outcome.graph.stage is graph.stage
    assert_orders(graph, outcome)
    return outcome


def assert_orders(before: Graph, outcome: Outcome) -> None:
    """Assert that tensors hold what they did, in the orders that the pass states."""
    stated = {n: o for n, o in outcome.orders.items() if n in outcome.graph.types}
    if not stated:
        return
    random = np.random.default_rng(8)
    feeds = {
        name: random.standard_normal((3, *before.types[name].shape[1:])).astype(np.float32)
        for name in before.inputs
    }
    old, new = (interpret.run_stored(g, feeds) for g in (before, outcome.graph))
    for name, order in stated.items():
        held = order.of(old[source_name(name)]).reshape(new[name].shape)
        np.testing.assert_array_equal(new[name], held, err_msg=name)


def staged(graph: Graph, stage: Stage) -> Graph:
    return graph if graph.stage is stage else dataclasses.replace(graph, stage=stage)


def upto(step: Pass, graph: Graph, given: Context = GENERIC) -> Graph:
    """Return the graph as the pass finds it in the pipeline."""
    for earlier in PIPELINE[: PIPELINE.index(step)]:
        graph = apply(earlier, staged(graph, earlier.requires), given).graph
    return staged(graph, step.requires)


def after(step: Pass, graph: Graph, given: Context = GENERIC) -> Outcome:
    """Return what the pass makes of a graph in its place in the pipeline."""
    return apply(step, upto(step, graph, given), given)


def same_text(actual: Graph, expected: Sketch | Graph, *outputs: str) -> None:
    """Assert that a graph is the expected one, by its text (constants up to 8 elements spelled)."""
    wanted = expected.done(*outputs) if isinstance(expected, Sketch) else expected
    assert format_graph(actual) == format_graph(wanted)


def outputs(graph: Graph, **feeds: Array) -> list[Array]:
    return list(interpret.run(graph, feeds).values())


def same_values(before: Graph, after_: Graph, **feeds: Array) -> None:
    """Assert that two graphs compute the same, floats to the bit; "x" may be `grounded`."""
    if before.inputs == ("reals",):
        feeds = {"reals": feeds["x"].astype(np.float32)}
    old, new = interpret.run(before, feeds), interpret.run(after_, feeds)
    assert list(old) == list(new)
    for name in old:
        if old[name].dtype == new[name].dtype == np.float32:
            np.testing.assert_array_equal(bits(new[name]), bits(old[name]), err_msg=name)
        else:
            np.testing.assert_array_equal(new[name], old[name], err_msg=name)


def grounded(graph: Graph) -> Graph:
    """Return the graph with an input "x" of bits made from real ones by a Step.

    Packed tensors are made by kernels; as inputs of a model they do not occur.
    """
    kind = graph.types["x"]
    levels = {Element.BIPOLAR: [-1, 1], Element.TERNARY: [-1, 0, 1]}.get(
        kind.element, list(range(kind.element.largest_code + 1))
    )
    if kind.element is Element.U8 or len(levels) == 1:
        return graph
    sketch = Sketch(kind.shape[-1], stage=graph.stage)
    builder = sketch.builder
    builder.inputs[:] = []
    del builder.types["x"]
    builder.input("reals", TensorType(kind.shape, Element.F32))
    thresholds = (np.array(levels[:-1]) + np.array(levels[1:])) / 2
    rows = sketch.const([thresholds], "ground.t"), sketch.const([levels], "ground.v")
    sketch(Step(kind.element), "reals", *rows, to="x", origin=["ground"])
    for name, array in graph.constants.items():
        builder.constants[name], builder.types[name] = array, graph.types[name]
    for node in graph.nodes:
        builder.node(node.op, node.inputs, node.output, node.origin)
    return builder.build(graph.outputs)


def every_operand(element: Element, k: int) -> Array:
    """Return rows [N, k] by which a layer of weights +1 reaches every accumulator there is."""
    if most := element.largest_code:
        total = np.arange(most * k + 1)
        return np.stack([np.clip(total - most * i, 0, most) for i in range(k)], 1).astype(np.uint8)
    ones = np.arange(k + 1)[:, np.newaxis]
    rows = np.where(np.arange(k) < ones, 1, -1)
    if element is Element.TERNARY:
        rows = np.concatenate([rows, np.where(np.arange(k) + 1 == ones, 0, rows)])
    return rows.astype(np.int8)


def step_tables(graph: Graph, output: str) -> tuple[Array, Array]:
    """Return the thresholds and levels of the Step that makes `output`."""
    node = graph.producers[output]
    thresholds, levels = (graph.constants[name] for name in node.inputs[1:])
    return thresholds, levels


def level_at(x: float, thresholds: Sequence[float], levels: Sequence[float]) -> float:
    """What a Step with these rows makes of x, counted in Python."""
    return float(levels[sum(1 for t in thresholds if t <= x)])
