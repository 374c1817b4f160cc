"""What there is to choose in a network: layers of two kernel families, and moves between them.

Every layer and pool of bits that can be computed either way gets one of two labels, packed
channels or planes of pixels. It costs what its label costs; a tensor that is made in one layout
and read in the other is moved, once, however many read it. On planes of pixels, lists lie in flash
or are built: the cheaper of the two for the price that is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from bnncc.backend.lower import lower
from bnncc.backend.program import Layer, Program, SharedWork
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.kernels import PoolBits, XnorConv
from bnncc.layouts.costs import Cost, Size, cost_of_layers, cost_of_move, in_pixels, size_of
from bnncc.layouts.cuts import Tie, cheapest_labels
from bnncc.passes.base import Context, Family, Outcome, Pixels
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.roll_rows import ROLL_ROWS
from bnncc.passes.share_sums import SHARE_SUMS, regroups
from bnncc.targets import Costs, costs_of

__all__ = ["Barred", "Conversion", "Either", "Price", "Problem", "Total"]

_NEVER = 1 << 400
"""More than any network costs, whatever is counted."""

Price = Callable[[Cost], int]
"""What to spend least of, in whole numbers, so that sums are exact."""

Barred = frozenset[tuple[str, Family]]
"""First results, and families on planes of pixels that may not be chosen for them."""


@dataclass(frozen=True)
class Either:
    """A layer, or a pool of bits, and what it takes in each family.

    Attributes:
        result: its first.
        origin: its source nodes.
        pool: whether it is a pool.
        demanded: the family that the user asked for.
        dense: what it takes on packed channels.
        slices: what it takes on planes of pixels, in each family that it could have there; empty
            where it cannot.
        refusal: why it cannot, or "".
    """

    result: str
    origin: tuple[str, ...]
    pool: bool
    demanded: Family
    dense: Cost
    slices: Mapping[Family, Cost]
    refusal: str

    def taken(self, pixels: Pixels) -> Cost:
        """Return what it takes as chosen."""
        family = pixels.get(self.result)
        return self.dense if family is None else self.slices[family]

    def best(self, price: Price, barred: Barred) -> Family | None:
        """Return the cheapest family on planes of pixels; None if none may be chosen.

        What the user demanded is not barred.
        """
        free = self.demanded is not Family.AUTO
        open_ = (f for f in self.slices if free or (self.result, f) not in barred)
        return min(open_, key=lambda family: price(self.slices[family]), default=None)

    def prices(self, price: Price, barred: Barred) -> tuple[int, int]:
        """Return what the labels cost; one that may not be chosen costs too much."""
        best = self.best(price, barred)
        if best is None:
            return price(self.dense), _NEVER
        demanded = self.demanded is not Family.AUTO  # and not DENSE, which nothing else is best of
        return _NEVER if demanded else price(self.dense), price(self.slices[best])


@dataclass(frozen=True)
class Conversion:
    """A tensor that may have to be moved: made by one, read by others.

    Attributes:
        tensor: its name.
        maker, readers: indices of eithers, counted from 1; 0 stands for all other nodes.
        there, back: what moving it takes, to pixels and to channels.
    """

    tensor: str
    maker: int
    readers: tuple[int, ...]
    there: Cost
    back: Cost

    def paid(self, labels: Sequence[bool]) -> Cost | None:
        """Return what it takes, given the label of each index, or None if it is not moved."""
        made = labels[self.maker]
        if all(labels[reader] == made for reader in self.readers):
            return None
        return self.back if made else self.there


@dataclass(frozen=True)
class Total:
    """What was predicted of labels: time, and flash of all that the labels decide."""

    time: float
    flash: int


@dataclass(frozen=True, eq=False)
class Problem:
    """A network before its layouts are chosen.

    Attributes:
        graph: PACKED, every layer on packed channels.
        context: what the user asked for.
        costs: of the target.
        eithers, conversions: what there is to choose, and to pay.
    """

    graph: Graph
    context: Context
    costs: Costs
    eithers: tuple[Either, ...]
    conversions: tuple[Conversion, ...]

    @classmethod
    def of(cls, graph: Graph, context: Context) -> Problem:
        """Return what there is to choose in a graph."""
        costs = costs_of(context.target)
        eithers = tuple(_eithers(graph, context, costs))
        conversions = tuple(_conversions(graph, eithers, costs, context.target.slices.lanes))
        return cls(graph, context, costs, eithers, conversions)

    def cheapest(self, price: Price, barred: Barred = frozenset()) -> Pixels:
        """Return what is to be computed on planes of pixels, for the least price.

        Args:
            price: see there.
            barred: what may not be chosen, unless it was demanded.
        """
        prices = [(0, _NEVER), *(e.prices(price, barred) for e in self.eithers)]
        ties = [Tie(c.maker, c.readers, price(c.there), price(c.back)) for c in self.conversions]
        pools = {e.result: i for i, e in enumerate(self.eithers, 1) if e.pool}
        for node in self.graph.nodes:
            if (pool := pools.get(node.outputs[0])) is not None:  # it needs planes to read
                maker = self._indices[node.inputs[0]]
                ties.append(Tie(maker, (pool,), _NEVER, 0))
        labels = cheapest_labels(prices, ties)[1:]
        best = ((e.result, e.best(price, barred)) for e in compress(self.eithers, labels))
        return {result: family for result, family in best if family is not None}

    @property
    def _indices(self) -> Mapping[str, int]:
        return _indices(self.graph, self.eithers)

    def moved(self, pixels: Pixels) -> list[tuple[Conversion, Cost]]:
        """Return the tensors that are moved, and what that takes."""
        labels = [False, *(e.result in pixels for e in self.eithers)]
        paid = ((c, c.paid(labels)) for c in self.conversions)
        return [(c, cost) for c, cost in paid if cost is not None]

    def total(self, pixels: Pixels) -> Total:
        """Return what is predicted."""
        all_of = [e.taken(pixels) for e in self.eithers]
        all_of += [cost for _, cost in self.moved(pixels)]
        return Total(sum(c.time for c in all_of), sum(c.flash for c in all_of))

    def program(self, pixels: Pixels) -> Program:
        """Return the program for a choice."""
        return lower(_in_pixels(self.graph, self.context, pixels).graph, self.graph.name, ())

    def size(self, pixels: Pixels) -> Size:
        """Return what the program for a choice takes."""
        return size_of(self.program(pixels), self.costs)


def _in_pixels(graph: Graph, context: Context, pixels: Pixels) -> Outcome:
    """Return what the passes make of a graph that give layers kernels of family B."""
    return _stored(SHARE_SUMS.apply(graph, replace(context, pixels=pixels)), context, pixels)


def _stored(shared: Outcome, context: Context, pixels: Pixels) -> Outcome:
    """Return what follows on shared sums: whether their copies and lists are stored whole."""
    chosen, graph, refusals = replace(context, pixels=pixels), shared.graph, shared.refusals
    for step in (ROLL_ROWS, LEAN_LISTS):
        outcome = step.apply(graph, chosen)
        graph = outcome.graph
        refusals += outcome.refusals
    return Outcome(graph, refusals)


def _eithers(graph: Graph, context: Context, costs: Costs) -> Iterator[Either]:
    """Yield what can be computed either way, and layers of bits that were found not to be."""
    nodes = [node for node in graph.nodes if isinstance(node.op, XnorConv | PoolBits)]
    wanted = [node for node in nodes if context.demanded(node.origin) is not Family.DENSE]
    everything = {
        family: {node.outputs[0]: family for node in wanted}
        for family in (Family.SHARED, Family.LEAN)
    }
    chosen = replace(context, pixels=everything[Family.SHARED])
    sums = SHARE_SUMS.apply(graph, chosen)  # the same for both, and what takes time
    outcomes = {family: _stored(sums, context, pixels) for family, pixels in everything.items()}
    refusals = {family: {r.node: r.reason for r in o.refusals} for family, o in outcomes.items()}
    dense = _by_result(graph)
    programs = {
        family: dense if outcome.graph is graph else _by_result(outcome.graph)
        for family, outcome in outcomes.items()
    }
    for node in nodes:
        result = node.outputs[0]
        pool = isinstance(node.op, PoolBits)
        demanded = Family.AUTO if pool else context.demanded(node.origin)
        slices = {f: _on_slices(program, result) for f, program in programs.items()}
        reason = refusals[Family.SHARED].get(node.name, "")
        if demanded is Family.LEAN:
            reason = refusals[Family.LEAN].get(node.name, "")
            slices.pop(Family.SHARED)
        elif demanded is Family.SHARED or not _builds(programs[Family.LEAN][result]):
            slices.pop(Family.LEAN)
        taken = {f: cost_of_layers(layers, costs) for f, layers in slices.items() if layers}
        if taken or not pool:
            cost = cost_of_layers([dense[result]], costs)
            yield Either(result, node.origin, pool, demanded, cost, taken, reason)


def _on_slices(program: Mapping[str, Layer], result: str) -> list[Layer]:
    """Return the layers that make a result on planes of pixels; none if it is not made so."""
    layer = program[result]
    if layer.template not in ("shared_sums.c.j2", "pool_planes.c.j2"):
        return []
    copied = program.get(layer.inputs[0].buffer.tensor)
    return [copied, layer] if copied and copied.template == "spread.c.j2" else [layer]


def _builds(layer: Layer) -> bool:
    """Whether a layer builds its lists."""
    return isinstance(layer.work, SharedWork) and layer.work.built is not None


def _by_result(graph: Graph) -> dict[str, Layer]:
    layers = lower(graph, graph.name, ()).layers
    return {layer.outputs[0].buffer.tensor: layer for layer in layers}


def _indices(graph: Graph, eithers: Sequence[Either]) -> dict[str, int]:
    """Return the index of what makes each tensor; 0 for what is not chosen."""
    by_result = {either.result: i for i, either in enumerate(eithers, 1)}
    return {
        name: by_result.get(node.outputs[0], 0) for node in graph.nodes for name in node.outputs
    } | dict.fromkeys((*graph.inputs, *graph.constants), 0)


def _conversions(
    graph: Graph, eithers: Sequence[Either], costs: Costs, lanes: int
) -> Iterator[Conversion]:
    indices = _indices(graph, eithers)
    for name, kind in graph.types.items():
        if graph.is_constant(name) or regroups(graph, name):
            continue
        readers = {_reading(node, name, indices) for node, name in _readers(graph, name)}
        readers |= {0} if name in graph.outputs else set()
        if not indices[name] and readers <= {0}:
            continue
        pixels = in_pixels(kind, lanes)
        there, back = cost_of_move(kind, pixels, costs), cost_of_move(pixels, kind, costs)
        yield Conversion(name, indices[name], tuple(sorted(readers)), there, back)


def _readers(graph: Graph, name: str) -> Iterator[tuple[Node, str]]:
    """Yield who reads a tensor, and what as: perhaps with words of its own for each group."""
    for node in graph.consumers[name]:
        if regroups(graph, node.outputs[0]):
            yield from ((reader, node.output) for reader in graph.consumers[node.output])
        else:
            yield node, name


def _reading(node: Node, name: str, indices: Mapping[str, int]) -> int:
    """Return the index of a reader, 0 if it reads the tensor in a layout that is not chosen."""
    index = indices[node.outputs[0]]
    if isinstance(node.op, XnorConv):
        own = node.op.own_operands
        read = (node.inputs[0], *node.inputs[own : own + node.op.epilogue.variables])
        return index if name in read else 0
    return index if node.inputs[0] == name else 0
