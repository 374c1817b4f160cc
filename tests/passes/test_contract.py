"""What every pass promises, on networks that give each of them something to do."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.types import Stage
from bnncc.passes.base import Family, Pass
from bnncc.pipeline import PIPELINE, run_pass
from tests.passes.applying import GENERIC, after, apply, fingerprint, staged, upto
from tests.passes.networks import networks

GIVEN = dataclasses.replace(GENERIC, families={"*": Family.SHARED, "conv3": Family.LEAN})
"""Every pass then has something to do."""
NAMES = list(networks())
PASSES = pytest.mark.parametrize("step", PIPELINE, ids=lambda step: step.name)
NETWORKS = pytest.mark.parametrize("name", NAMES)


@functools.cache
def before(step: Pass, name: str) -> Graph:
    """Return a network as the pass finds it."""
    return upto(step, networks()[name], GIVEN)


@NETWORKS
def test_networks_are_well_formed(name: str) -> None:
    # In-graph weights are no activations, and are gone before anything looks at batches.
    assert [v for v in violations(networks()[name]) if not v.startswith("W7")] == []


@NETWORKS
@PASSES
def test_pure_and_well_formed(step: Pass, name: str) -> None:
    apply(step, before(step, name), GIVEN)


@NETWORKS
@PASSES
def test_meaning_is_kept(step: Pass, name: str) -> None:
    run_pass(step, before(step, name), GIVEN)


@NETWORKS
@PASSES
def test_a_second_application_changes_nothing(step: Pass, name: str) -> None:
    once = step.apply(before(step, name), GIVEN).graph
    assert step.apply(once, GIVEN).graph is once


@NETWORKS
@PASSES
def test_the_same_object_where_nothing_changed(step: Pass, name: str) -> None:
    graph = before(step, name)
    result = step.apply(graph, GIVEN).graph
    assert (result is graph) == (fingerprint(result) == fingerprint(graph))


@NETWORKS
@PASSES
def test_deterministic(step: Pass, name: str) -> None:
    first = step.apply(before(step, name), GIVEN)
    second = step.apply(upto(step, networks()[name], GIVEN), GIVEN)
    assert fingerprint(first.graph) == fingerprint(second.graph)
    assert (first.refusals, first.assumptions) == (second.refusals, second.assumptions)
    assert [vars(c).keys() for c in first.certificates] == [
        vars(c).keys() for c in second.certificates
    ]


def origins(graph: Graph) -> set[str]:
    return {name for node in graph.nodes for name in node.origin}


@NETWORKS
@PASSES
def test_origins_are_not_made_up(step: Pass, name: str) -> None:
    graph = before(step, name)
    result = step.apply(graph, GIVEN).graph
    assert origins(result) <= origins(graph)
    assert all(len(set(node.origin)) == len(node.origin) for node in result.nodes)


@NETWORKS
def test_origins_of_everything_that_computes_reach_the_end(name: str) -> None:
    graph = networks()[name]
    packed = after(PIPELINE[-1], graph, GIVEN).graph
    # What folds to a constant or computes nothing leaves no node to speak for.
    gone = {"q1", "dropout", "transpose"}
    assert origins(graph) - gone <= origins(packed) | {"flatten"}


@NETWORKS
@PASSES
def test_surviving_tensors_keep_shape_and_meaning(step: Pass, name: str) -> None:
    graph = before(step, name)
    result = step.apply(graph, GIVEN).graph
    for tensor in graph.types.keys() & result.types.keys():
        assert graph.types[tensor].shape == result.types[tensor].shape


@PASSES
def test_some_network_gives_it_something_to_do(step: Pass) -> None:
    assert any(step.apply(before(step, n), GIVEN).graph is not before(step, n) for n in NAMES)


def test_passes_have_names_of_their_own_and_stages_in_order() -> None:
    assert len({step.name for step in PIPELINE}) == len(set(PIPELINE))
    order = list(Stage)
    stages = [order.index(step.requires) for step in PIPELINE]
    assert stages == sorted(stages)


@NETWORKS
def test_the_pipeline_ends_in_kernels_only(name: str) -> None:
    packed = after(PIPELINE[-1], networks()[name], GIVEN).graph
    assert violations(staged(packed, Stage.PACKED)) == []
    assert packed.stage is Stage.PACKED
