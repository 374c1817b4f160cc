"""Lists become codes where asked, and where codes are smaller."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.backend.lower import lower
from bnncc.backend.memory import plan_memory
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.shared_sums import ClassSums, SharedSums
from bnncc.ir.types import Element, Stage
from bnncc.passes.base import Context, Family, Outcome
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.pipeline import run_pass
from bnncc.targets import target_named
from tests.ir.sketch import Sketch
from tests.passes.applying import staged
from tests.passes.convolutions import SAME, bits_of

M4 = target_named("cortex-m4")


def layer(out: int = 64, channels: int = 64, *, parts: int = 1, size: int = 16) -> Graph:
    """Return a layer of bits, by comparison, as shared sums."""
    s = Sketch(shape=(1, channels, size, size))
    w = np.random.default_rng(0).choice([-1, 1], (out, channels // parts, 3, 3)).astype(np.int8)
    x = bits_of(s, "x", "s", channels=channels)
    n = s(BinaryConv(SAME, parts, -1), x, s.const(w, "w", Element.BIPOLAR), to="n")
    t = s.const(np.zeros((out, 1)), "t", Element.I32)
    graph = s.done(s(Step(Element.BIPOLAR), n, t, [[-1, 1]] * out, to="y"))
    given = Context(M4, families={"*": Family.SHARED})
    packed = staged(LOWER_KERNELS.apply(graph, given).graph, Stage.PACKED)
    return SHARE_SUMS.apply(packed, given).graph


def lean(graph: Graph, families: dict[str, Family] | None = None) -> Outcome:
    return run_pass(LEAN_LISTS, graph, Context(M4, families=families or {"*": Family.LEAN}))


def sums_of(graph: Graph) -> tuple[SharedSums, tuple[int, ...]]:
    """Return a graph's one layer, and the bytes of its lists or codes and of its fours."""
    (node,) = (node for node in graph.nodes if isinstance(node.op, ClassSums))
    assert isinstance(node.op, SharedSums)
    return node.op, tuple(graph.types[name].nbytes for name in node.inputs[1:3])


@pytest.mark.parametrize(("out", "channels", "parts"), [(64, 64, 1), (64, 64, 2), (9, 150, 1)])
def test_codes_are_built_into_the_lists_they_came_from(out: int, channels: int, parts: int) -> None:
    before = layer(out, channels, parts=parts)
    after = lean(before).graph
    ready, built = (
        node.op.entries(*(graph.constants[name] for name in node.inputs[1:3])) * node.op.unit
        for graph in (before, after)
        for node in graph.nodes
        if isinstance(node.op, SharedSums)
    )
    assert np.array_equal(ready, built)


def test_flash_and_scratch() -> None:
    before, after = layer(), lean(layer()).graph
    assert sums_of(before)[1] == (15_576, 416)  # 13 groups of 576 planes, and what fills fours up
    op, (codes, fours) = sums_of(after)
    assert (op.k, codes, fours) == (5, 13 * 9 * 11 * 4, 416)  # 6 codes a word, 4608 bytes as bits
    (lists,) = op.scratch
    assert (lists.kind.element, lists.kind.nbytes) == (Element.WORD16, 2 * op.built)
    assert 576 < op.built <= 576 + 3 * 16


def test_scratch_is_in_the_arena_while_the_layer_runs() -> None:
    after = lean(layer()).graph
    plan, program = plan_memory(after), lower(after, "m", ())
    (place,) = plan.scratch.values()
    (argument,) = (a for found in program.layers for a in found.scratch)
    assert argument.buffer.pointer == f"(uint16_t *)(void *)&arena->words[{place // 8}]"
    (node,) = (node for node in after.nodes if isinstance(node.op, ClassSums))
    for name in (node.inputs[0], *node.outputs):
        start, size = plan.offsets[name], after.types[name].nbytes
        assert place + argument.buffer.nbytes <= start or start + size <= place
    assert place + argument.buffer.nbytes <= plan.arena_bytes


def test_only_where_asked() -> None:
    before = layer()
    (node,) = (node for node in before.nodes if isinstance(node.op, ClassSums))
    one = node.origin[0]
    assert lean(before, {"*": Family.SHARED}).graph is before
    assert lean(before, {"*": Family.SHARED, one: Family.LEAN}).graph is not before
    assert lean(before, {"*": Family.LEAN, one: Family.SHARED}).graph is before


def test_codes_that_are_larger_than_lists_are_refused() -> None:
    before = layer(7, 1)  # one code to a word, for each tap
    outcome = lean(before)
    assert outcome.graph is before
    (refusal,) = outcome.refusals
    assert refusal.reason == "no lists built: signs take 252 bytes, lists 168"


def test_lists_with_a_plane_twice_are_refused() -> None:
    before = layer()
    (node,) = (node for node in before.nodes if isinstance(node.op, ClassSums))
    lists = before.constants[node.inputs[1]].copy()
    lists[1] = lists[0]
    twice = Graph(
        **{**vars(before), "constants": {**before.constants, node.inputs[1]: lists}},
    )
    (refusal,) = LEAN_LISTS.apply(twice, Context(M4, families={"*": Family.LEAN})).refusals
    assert refusal.reason == "no lists built: a plane enters its lists more than once, or never"
