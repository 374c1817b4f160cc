"""The passes in order, and the runner that holds each to the contract on every compile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bnncc.certificate import Assumption, LayerCertificate
from bnncc.errors import InternalError, printable
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.interpret import run as interpret
from bnncc.ir.order import Order
from bnncc.ir.types import Array, Element, Stage, TensorType
from bnncc.layouts import Choice
from bnncc.passes.absorb_movement import ABSORB_MOVEMENT
from bnncc.passes.absorb_pads import ABSORB_PADS
from bnncc.passes.base import Context, Outcome, Pass, Refusal
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.canonical_pools import CANONICAL_POOLS
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from bnncc.passes.flip_falling import FLIP_FALLING
from bnncc.passes.fold_constants import FOLD_CONSTANTS
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.hoist_shortcuts import HOIST_SHORTCUTS
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.recognise_steps import RECOGNISE_STEPS
from bnncc.passes.remove_identities import REMOVE_IDENTITIES
from bnncc.passes.resolve_scaled_zero import RESOLVE_SCALED_ZERO
from bnncc.passes.resolve_sign_zero import RESOLVE_SIGN_ZERO
from bnncc.passes.roll_rows import ROLL_ROWS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.passes.sink_pools import SINK_POOLS
from bnncc.passes.sink_reshapes import SINK_RESHAPES
from bnncc.passes.sink_transposes import SINK_TRANSPOSES

__all__ = ["PIPELINE", "Lowered", "run_pass", "run_pipeline"]

PIPELINE: tuple[Pass, ...] = (
    FOLD_CONSTANTS,  # so that weights and statistics are values, however they are spelled
    REMOVE_IDENTITIES,  # so that chains are not interrupted by nodes that compute nothing
    SINK_TRANSPOSES,  # layers then meet their pads and signs, wherever the model keeps channels
    CANONICAL_POOLS,  # once channels come first: pools pad for themselves, and order bits
    ABSORB_PADS,  # so that layers pad for themselves, before anything reasons about their borders
    ABSORB_MOVEMENT,  # dense layers read images as they lie in memory, and see the signs before
    SINK_RESHAPES,  # after the convolutions that dense layers became: nothing parts them from Steps
    RECOGNISE_STEPS,  # every quantiser becomes a Step before anything asks what a layer reads
    ELIMINATE_DEAD,  # what a recognised Step no longer needs, which is no less work to look at
    RESOLVE_SCALED_ZERO,  # two levels are one plane, three are two: before anything counts them
    BINARISE_WEIGHTS,  # needs Steps: a layer is integer if its input is
    ELIMINATE_DEAD,  # Steps of which integers were made, or their chains have two readers
    SINK_POOLS,  # needs to know which Steps make bits; then they follow an accumulator
    RESOLVE_SIGN_ZERO,  # needs to know which Steps follow an accumulator
    FOLD_THRESHOLDS,  # needs the model's own chain, so before anything is rewritten in it
    ELIMINATE_DEAD,  # the chains that the thresholds replaced, or accumulators have two readers
    FLIP_FALLING,  # needs thresholds on accumulators that nothing else reads
    CANONICAL_AFFINE,  # what could not be folded, in the form that epilogues take
    HOIST_SHORTCUTS,  # last, for kernels are made of what comes before them in the graph
    LOWER_KERNELS,  # takes every node that is left into a kernel, or refuses
    SHARE_SUMS,  # gives layers that have a kernel each by then the other family's, where chosen
    ROLL_ROWS,  # needs the copies, and lists of all groups: their entries move
    LEAN_LISTS,  # needs the lists, to hold what can be built against what is ready
)

_WHOLE_GRAPH_ROWS = 4
_LARGE_GRAPH = 1 << 18
"""Elements of activations above which one row of the whole graph is check enough."""


@dataclass(frozen=True)
class Lowered:
    """What the pipeline returns.

    Attributes:
        graph: at stage PACKED.
        folded: the graph once thresholds were folded, for verify: its accumulators are those of the
            certificates.
        choice: which layouts were chosen, where that was left to the compiler.
        certificates, refusals, assumptions, orders: of all passes, in order.
    """

    graph: Graph
    folded: Graph
    choice: Choice | None
    certificates: tuple[LayerCertificate, ...]
    refusals: tuple[Refusal, ...]
    assumptions: tuple[Assumption, ...]
    orders: Mapping[str, Order]


def run_pass(step: Pass, graph: Graph, context: Context) -> Outcome:
    """Return what the pass makes of the graph, after checking that it kept its contract.

    Raises:
        InternalError: BNN090, if it broke it.
    """
    outcome = step.apply(graph, context)
    if outcome.graph is graph:
        return outcome
    broken = violations(outcome.graph)
    if (outcome.graph.inputs, outcome.graph.outputs) != (graph.inputs, graph.outputs):
        broken.append("the graph's interface changed")
    broken = broken or differences(graph, outcome.graph, step.exactness)
    if broken:
        raise InternalError(
            "BNN090",
            f"pass {step.name} broke its contract",
            why="; ".join(broken[:5]),
            help="compile again with --dump-dir and report the files",
        )
    return outcome


def run_pipeline(
    graph: Graph,
    context: Context,
    observe: Callable[[str, Graph], None] = lambda *_: None,
    choose: Callable[[Graph, Context], Choice] | None = None,
) -> Lowered:
    """Lower a FLOAT graph to PACKED.

    Args:
        graph: well-formed, at stage FLOAT.
        context: what the user asked for.
        observe: called with each pass's name and the graph it left.
        choose: given the graph before its layouts are chosen, chooses them; without it, only layers
            of which family B was demanded take it.

    Raises:
        UnsupportedModelError: a layer has no kernel, or what `choose` raises.
        InternalError: a pass broke its contract.
    """
    outcomes: list[Outcome] = []
    folded, choice = graph, None
    for step in PIPELINE:
        if step.requires is not graph.stage:
            graph = _promoted(graph, step.requires)
        if step is SHARE_SUMS and choose is not None:
            choice = choose(graph, context)
            context = dataclasses.replace(context, pixels=choice.asked)
        outcome = run_pass(step, graph, context)
        graph = outcome.graph
        outcomes.append(outcome)
        observe(step.name, graph)
        if step is ELIMINATE_DEAD:
            folded = graph
    packed = _promoted(graph, Stage.PACKED)
    _check_whole(folded, packed)
    return Lowered(
        packed,
        folded,
        choice,
        tuple(c for o in outcomes for c in o.certificates),
        tuple(r for o in outcomes for r in o.refusals),
        tuple(a for o in outcomes for a in o.assumptions),
        {name: order for o in outcomes for name, order in o.orders.items()},
    )


def _promoted(graph: Graph, stage: Stage) -> Graph:
    promoted = dataclasses.replace(graph, stage=stage)
    broken = violations(promoted)
    if broken:
        raise InternalError("BNN090", f"no graph of stage {stage.value}", why="; ".join(broken))
    return promoted


def _check_whole(before: Graph, after: Graph) -> None:
    """Run both graphs from input to output: what region by region holds must hold end to end."""
    random = np.random.default_rng(0)
    elements = sum(before.types[name].size for name in before.producers)
    rows = 1 if elements > _LARGE_GRAPH else _WHOLE_GRAPH_ROWS
    feeds = {name: _random_input(before.types[name], rows, random) for name in before.inputs}
    expected, actual = interpret(before, feeds), interpret(after, feeds)
    for name in before.outputs:
        if not np.array_equal(expected[name], actual[name], equal_nan=True):
            raise InternalError("BNN090", f"the packed graph computes another {printable(name)}")


def _random_input(kind: TensorType, rows: int, random: np.random.Generator) -> Array:
    shape = (rows, *kind.shape[1:])
    if kind.element in (Element.U8, Element.I8):
        whole = np.iinfo(kind.element.dtype)
        return random.integers(whole.min, whole.max + 1, shape).astype(kind.element.dtype)
    return random.uniform(-1, 1, shape).astype(kind.element.dtype)
