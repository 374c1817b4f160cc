"""Does a pass keep the meaning? Re-execute what it rewrote, before and after, on chosen values.

The rewritten nodes fall into regions, cut at every tensor that exists on both sides. Each region is
run on values made for its own boundary: random, all +1, all -1, one-hot, and such that accumulators
land on and next to their thresholds, where a wrong threshold shows. Regions compose, so that
together they speak for the whole graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF, gamma
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.elementwise import Clip, HardSigmoid, Sign, Step, Tanh
from bnncc.ir.ops.kernels import Map
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.storage import decode, encode
from bnncc.ir.types import Array, Element, TensorType
from bnncc.passes.base import Exactness
from bnncc.passes.levels import never

__all__ = ["differences"]

_RANDOM_ROWS = 6
_THRESHOLD_CHANNELS = 16
_THRESHOLD_COLUMNS = 4
_WHOLE_DOMAIN = 256
_NARROWEST_FIRST = (
    Element.BIPOLAR,
    Element.TERNARY,
    Element.BOOL,
    Element.U8,
    Element.I32,
    Element.F32,
)
_CRUMBS = 2.0**-19
"""Relative difference that weights taken for one alpha can make (see binarise_weights)."""


@dataclass(frozen=True)
class _Region:
    """Nodes rewritten together: `old` in the graph before, `new` in the graph after."""

    old: tuple[Node, ...]
    new: tuple[Node, ...]

    @property
    def origin(self) -> str:
        """The source nodes, for messages."""
        names = dict.fromkeys(name for node in (*self.old, *self.new) for name in node.origin)
        return ", ".join(names)


def differences(before: Graph, after: Graph, exactness: Exactness) -> list[str]:
    """Return what the two graphs compute differently, region by region; [] if nothing."""
    found = [
        f"constant {name} changed"
        for name in before.constants.keys() & after.constants.keys()
        if not _same_constant(before.constants[name], after.constants[name])
    ]
    for region in _regions(before, after):
        feeds = _probes(before, after, region)
        old = _execute(before, region.old, feeds)
        new = _execute(after, region.new, feeds)
        for name in old.keys() & (new.keys() | after.constants.keys()):
            if name in feeds:
                continue
            was = decode(old[name], before.types[name])
            is_ = after.constants[name] if name in after.constants else new[name]
            is_ = decode(is_, after.types[name])
            slack = _slack(before, name, old, exactness)
            wrong = _mismatches(was, np.broadcast_to(is_, was.shape), exactness, slack)
            if wrong:
                found.append(f"{name} differs in {wrong} of {was.size} values ({region.origin})")
    return sorted(found)


def _same_constant(was: Array, is_: Array) -> bool:
    return was is is_ or (was.shape == is_.shape and was.tobytes() == is_.tobytes())


def _regions(before: Graph, after: Graph) -> list[_Region]:
    """Return the rewritten nodes in groups that share tensors existing on one side only."""
    kept = {id(node) for node in before.nodes} & {id(node) for node in after.nodes}
    changed = [(graph, n) for graph in (before, after) for n in graph.nodes if id(n) not in kept]
    common = before.types.keys() & after.types.keys()
    parent = list(range(len(changed)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner: dict[tuple[str, bool], int] = {}
    for i, (_, node) in enumerate(changed):
        made_here = set(node.outputs)
        for name in {*node.inputs, *node.outputs}:
            # Two nodes that make the same tensor, before and after, belong together too.
            if name not in common or name in made_here:
                key = (name, name in common)
                parent[find(i)] = find(owner.setdefault(key, i))
    groups: dict[int, list[tuple[Graph, Node]]] = {}
    for i, entry in enumerate(changed):
        groups.setdefault(find(i), []).append(entry)
    return [_grown(before, after, members) for members in groups.values()]


def _grown(before: Graph, after: Graph, members: Sequence[tuple[Graph, Node]]) -> _Region:
    """Return the region, grown upward until both sides start from the same tensors.

    A rewritten layer may read something further up than the original did, as the codes of which the
    original read the affine map: fed independently, the two sides would not agree.
    """
    old = {n.name: n for graph, n in members if graph is before}
    new = {n.name: n for graph, n in members if graph is after}
    depth = {name: i for i, node in enumerate(before.nodes) for name in node.outputs}
    while old and new:
        apart = _boundary(before, old.values()) ^ _boundary(after, new.values())
        # The deepest first: what lies further up may turn out to be common then.
        deepest = max(apart, key=lambda name: depth.get(name, -1), default="")
        if depth.get(deepest, -1) < 0:
            break
        for graph, nodes in ((before, old), (after, new)):
            if deepest in _boundary(graph, nodes.values()):
                producer = graph.producers[deepest]
                nodes[producer.name] = producer
    return _Region(
        tuple(n for n in before.nodes if n.name in old),
        tuple(n for n in after.nodes if n.name in new),
    )


def _boundary(graph: Graph, nodes: Iterable[Node]) -> set[str]:
    nodes = tuple(nodes)
    made = {name for node in nodes for name in node.outputs}
    return {name for node in nodes for name in graph.variables(node)} - made


def _execute(graph: Graph, nodes: Sequence[Node], feeds: Mapping[str, Array]) -> dict[str, Array]:
    env = {n: encode(v, graph.types[n]) for n, v in feeds.items() if n in graph.types}
    for node in nodes:
        operands = [graph.constants[n] if n in graph.constants else env[n] for n in node.inputs]
        env.update(zip(node.outputs, node.op.evaluate(operands), strict=True))
    return env


def _slack(
    graph: Graph, name: str, env: Mapping[str, Array], exactness: Exactness
) -> Array | float:
    """Return how far a float32 sum may move when its order changes: gamma_K * sum |x w|."""
    node = graph.producers.get(name)
    if exactness is not Exactness.REDUCTION_ORDER or not node or not isinstance(node.op, MatMul):
        return 0.0
    x, weights = env[node.inputs[0]], graph.constants[node.inputs[1]]
    magnitude = np.abs(x) @ np.abs(weights).T  # its own rounding: the 8 below
    bound = (gamma(2 * weights.shape[1] + 8) + _CRUMBS) * magnitude
    if any(fed.dtype == np.uint8 for fed in env.values()):
        # Codes may be decoded 4 u of the largest off the affine map (see binarise_weights).
        bound += 8 * UNIT_ROUNDOFF * np.abs(x).max(initial=0) * np.abs(weights).sum(axis=1)
    return np.asarray(bound)


def _mismatches(was: Array, is_: Array, exactness: Exactness, slack: Array | float) -> int:
    """Return how many values differ by more than the pass's exactness allows."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(was.astype(np.float64) - is_.astype(np.float64)) > slack
    if was.dtype == is_.dtype == np.float32 and np.ndim(slack) == 0:
        apart = was.view(np.uint32) != is_.astype(np.float32).view(np.uint32)
        apart &= ~(np.isnan(was) & np.isnan(is_))
        if exactness is Exactness.VALUE:
            apart &= was != is_
    if exactness is Exactness.ASSUMPTION:
        apart &= was != 0
    return int(apart.sum())


def _probes(before: Graph, after: Graph, region: _Region) -> dict[str, Array]:
    """Return chosen values [N, ...] for every tensor that either side of the region reads."""
    names = sorted(_boundary(before, region.old) | _boundary(after, region.new))
    kinds = {name: _narrower(before, after, name) for name in names}
    crafted: dict[str, list[Array]] = {name: [] for name in names}
    for graph, nodes in ((before, region.old), (after, region.new)):
        for node in nodes:
            name, chosen = _crafted(graph, node, kinds)
            crafted.get(name, []).extend(chosen)
    rows = 4 + _RANDOM_ROWS + max(map(len, crafted.values()), default=0)
    feeds = {name: _values(kinds[name], rows, seed) for seed, name in enumerate(names)}
    for name, chosen in crafted.items():
        if chosen:
            feeds[name][rows - len(chosen) :] = chosen
    return {name: _reachable(before, name, values) for name, values in feeds.items()}


def _reachable(graph: Graph, name: str, values: Array) -> Array:
    """Return values clipped to what the operation that makes the tensor can give."""
    node = graph.producers.get(name)
    match node.op if node else None:
        case Clip(low=low, high=high):
            return np.clip(values, np.float32(min(low, high)), np.float32(high))
        case HardSigmoid():
            return np.clip(values, np.float32(0), np.float32(1))
        case Tanh():
            return np.clip(values, np.float32(-1), np.float32(1))
        case _:
            return values


def _narrower(before: Graph, after: Graph, name: str) -> TensorType:
    """Return the type that admits fewer values: a pass may prove that some never occur."""
    kinds = [graph.types[name] for graph in (before, after) if name in graph.types]
    return min(
        kinds,
        key=lambda kind: (
            _NARROWEST_FIRST.index(kind.element),
            kind.interval.size if kind.interval else 0,
        ),
    )


def _values(kind: TensorType, rows: int, seed: int) -> Array:
    """Return rows of logical values: all low, all high, one-hot, zero or alternating, random."""
    random = np.random.default_rng(seed)
    shape = (rows, *kind.shape[1:])
    size = int(np.prod(kind.shape[1:]))
    one_hot = (np.arange(size) == size // 2).reshape(kind.shape[1:])
    match kind.element:
        case Element.BIPOLAR:
            values = random.choice(np.array([-1, 1], np.int8), shape)
            values[0], values[1], values[2] = -1, 1, np.where(one_hot, 1, -1)
        case Element.TERNARY:
            values = random.integers(-1, 2, shape, dtype=np.int8)
            values[0], values[1], values[2] = -1, 1, one_hot
        case Element.BOOL:
            values = random.integers(0, 2, shape).astype(bool)
        case Element.U8:
            values = random.integers(0, 256, shape).astype(np.uint8)
            values[0], values[1], values[2] = 0, 255, np.where(one_hot, 255, 0)
        case Element.I32:
            values = _integers(kind, shape, random)
        case _:
            scale = 2.0 ** random.integers(-6, 7, (rows, *(1,) * (len(shape) - 1)))
            values = (random.standard_normal(shape) * scale).astype(np.float32)
            values[0], values[1], values[2], values[3] = -1, 1, one_hot, -0.0
    return values


def _integers(kind: TensorType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    interval = kind.interval
    if interval is None:
        return random.integers(-1000, 1001, shape, dtype=np.int32)
    index = random.integers(0, interval.size, shape)
    index[0], index[1] = 0, interval.size - 1
    return (interval.low + interval.stride * index).astype(np.int32)


def _crafted(graph: Graph, node: Node, kinds: Mapping[str, TensorType]) -> tuple[str, list[Array]]:
    """Return (name, rows): values of a boundary tensor at and below a node's decisions."""
    source = node.inputs[0]
    if isinstance(node.op, Sign) and source in kinds:
        tiny = np.nextafter(np.float32(0), np.float32(1))
        return source, _at_thresholds(np.array([[-tiny, 0, tiny]], np.float32), kinds[source])
    if isinstance(node.op, Map) and node.op.epilogue.thresholds and source in kinds:
        decisions = graph.constants[node.inputs[-1]]
        if not node.op.epilogue.expression.terms:
            return source, _at_thresholds(np.concatenate(list(decisions), axis=1), kinds[source])
    if not isinstance(node.op, Step) or not graph.constants[node.inputs[1]].size:
        return "", []
    thresholds = graph.constants[node.inputs[1]]
    if source in kinds:
        return source, _at_thresholds(thresholds, kinds[source])
    dense = graph.producers[source]
    if isinstance(dense.op, BinaryDense) and dense.inputs[0] in kinds:
        x = dense.inputs[0]
        return x, _reaching(graph.constants[dense.inputs[1]], thresholds, kinds[x])
    return "", []


def _at_thresholds(thresholds: Array, kind: TensorType) -> list[Array]:
    """Return rows that hold every channel's thresholds, and the values just below them.

    A small domain of integers is returned whole.
    """
    interval = kind.interval
    if kind.element is Element.U8 or (interval and interval.size <= _WHOLE_DOMAIN):
        values = range(256) if interval is None else range(interval.low, interval.high + 1)
        stride = interval.stride if interval else 1
        return [np.full(kind.shape[1:], v) for v in values[::stride]]
    rows: list[Array] = []
    for column in thresholds.T[:_THRESHOLD_COLUMNS]:
        if kind.element is Element.F32:
            finite = np.where(np.isfinite(column), column, 0).astype(np.float32)
            near = [finite, np.nextafter(finite, np.float32(-np.inf))]
        elif interval is not None and thresholds.dtype == np.int32:
            low, high, stride = interval.low, interval.high, interval.stride
            on_stride = low - (low - column.astype(np.int64)) // stride * stride
            reached = np.clip(on_stride, low, high).astype(np.int32)
            near = [reached, np.clip(reached - stride, low, high)]
        else:
            continue
        rows += [np.broadcast_to(row, kind.shape[1:]) for row in near]
    return rows


def _reaching(weights: Array, thresholds: Array, kind: TensorType) -> list[Array]:
    """Return inputs for which single channels' sums land on a threshold, and just below it."""
    channels = len(weights)
    rows: list[Array] = []
    for c in np.linspace(0, channels - 1, min(channels, _THRESHOLD_CHANNELS), dtype=int):
        for threshold in thresholds[min(c, len(thresholds) - 1)][:_THRESHOLD_COLUMNS]:
            if threshold != never(thresholds) and np.isfinite(threshold):
                made = _summing_to(weights[c], threshold, kind.element)
                rows += [row.reshape(kind.shape[1:]) for row in made]
    return rows


def _summing_to(w: Array, threshold: np.generic, element: Element) -> list[Array]:
    """Return inputs x with sum(w x) at the threshold, or the nearest sum there is, and below it.

    Bits start from the largest sum, x = w, and flip until it has come down. A real sum is one term
    and zeros, which never rounds.
    """
    k = len(w)
    if element is Element.F32:
        below = np.nextafter(threshold, np.float32(-np.inf))
        return [np.where(np.arange(k) == 0, w * t, np.float32(0)) for t in (threshold, below)]
    rows: list[Array] = []
    for target in (int(threshold), int(threshold) - 1):
        if element is Element.U8:
            best = np.where(w > 0, 255, 0).astype(np.int64)
            over = max(0, min(255 * k, 255 * int((w > 0).sum()) - target))
            step = np.clip(over - 255 * np.arange(k), 0, 255)
            rows.append((best - w.astype(np.int64) * step).astype(np.uint8))
            continue
        over = max(0, min(2 * k, k - target))
        x = np.where(np.arange(k) < over // 2, -w, w).astype(np.int8)
        if element is Element.TERNARY and over % 2:
            x[over // 2] = 0
        rows.append(x)
        if element is Element.BIPOLAR:
            rows.append(np.where(np.arange(k) < min(k, over // 2 + 1), -w, w).astype(np.int8))
    return rows
