"""Values on which to re-execute what a pass rewrote: chosen for where wrong numbers show.

Each tensor of a region's boundary gets random rows and rows that are all low, all high, one-hot and
zero, and wherever a Step can be reached, rows that put its operand on a threshold and just below.

Re-execution happens on every compile, so it must cost little however large the network is:

- A region with images runs on smaller ones. Halving all extents of its boundary changes neither
  weights nor channels, and an image of 7 pixels a side still has borders, corners, an interior, and
  outputs of odd and even strides. Whatever an extent is written into (a Reshape, a Slice, a
  constant of that size) no longer fits the smaller image; such a region keeps its size.
- A region has as many rows as its multiply-accumulates allow, and never less than two.
- Crafted patches that reach thresholds lie side by side in one image, as far as windows allow.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.analysis.ranges import bounds_of, saturated
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.elementwise import Add, Mul, Sign, Step, Sub
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.types import Array, Element, Interval, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.passes.levels import never
from bnncc.passes.regions import Region, boundary, execute

__all__ = ["probes"]

_ROWS = 10
_FEWEST_ROWS = 2
_AIMED_ROWS = 2
_WORK = 1 << 28
"""How much to execute for one region, in multiply-accumulates of a matrix product."""
_WORK_OF_REAL_SUM = 16
"""What one in a sum of defined order costs: numpy takes it term by term, in float32."""
_WORK_OF_ELEMENT = 16
_FEWEST_PIXELS = 7
_SMALL = 1 << 14
"""Regions with no more elements than this run at full size."""
_THRESHOLD_CHANNELS = 16
_THRESHOLD_COLUMNS = 4
_DENSE_ROWS = 2 * _THRESHOLD_CHANNELS * _THRESHOLD_COLUMNS
_WHOLE_DOMAIN = 256
_NARROWEST_FIRST = (
    Element.BIPOLAR,
    Element.TERNARY,
    Element.BOOL,
    Element.U1,
    Element.U2,
    Element.U3,
    Element.U4,
    Element.U8,
    Element.WORD32,
    Element.I8,
    Element.I16,
    Element.I32,
    Element.I64,
    Element.F32,
    Element.F64,
)

_Types = Mapping[str, TensorType]


def probes(
    before: Graph, after: Graph, region: Region, *, any_order: bool = False
) -> dict[str, Array]:
    """Return chosen values [N, ...] for every tensor that either side of the region reads.

    Images may be smaller than in the graphs, all by one factor.

    Args:
        before: the graph before the pass.
        after: the graph after it.
        region: what will be run of both.
        any_order: whether real sums will be matrix products.
    """
    kinds, work = _sized(before, after, region, 1 if any_order else _WORK_OF_REAL_SUM)
    limit = int(np.clip(_WORK // max(work, 1), _FEWEST_ROWS, _ROWS))
    crafted: dict[str, list[Array]] = {name: [] for name in kinds}
    for graph, nodes in ((before, region.old), (after, region.new)):
        for node in nodes:
            name, chosen = _crafted(graph, node, kinds, limit)
            crafted.get(name, []).extend(chosen)
    rows = limit + max(map(len, crafted.values()), default=0)
    feeds = {name: _values(kind, rows, seed) for seed, (name, kind) in enumerate(kinds.items())}
    for name, chosen in crafted.items():
        if chosen:
            feeds[name][rows - len(chosen) :] = chosen
    feeds = {name: _reachable(before, name, values) for name, values in feeds.items()}
    return _aimed(before, region.old, feeds)


# --- How large ------------------------------------------------------------------------------------


def _sized(before: Graph, after: Graph, region: Region, real: int) -> tuple[_Types, int]:
    """Return the boundary's types, with images as small as the region allows, and one row's work.

    Boundary names are in ascending order, so that the same model gets the same values.
    """
    names = sorted(boundary(before, region.old) | boundary(after, region.new))
    full = {name: _narrower(before, after, name) for name in names}
    sides = ((before, region.old), (after, region.new))
    elements = sum(g.types[name].size for g, nodes in sides for n in nodes for name in n.outputs)
    largest = max((max(kind.shape[2:], default=1) for kind in full.values()), default=1)
    halvings = int(math.log2(max(1, largest / _FEWEST_PIXELS))) if elements > _SMALL else 0
    for shift in range(halvings, 0, -1):
        smaller = {name: _shrunk(kind, 1 << shift) for name, kind in full.items()}
        old, new = (_inferred(graph, nodes, smaller) for graph, nodes in sides)
        if old and new and _agree(old, new, after):
            return smaller, sum(
                _work(graph, nodes, {**graph.types, **types}, real)
                for (graph, nodes), types in zip(sides, (old, new), strict=True)
            )
    return full, sum(_work(graph, nodes, graph.types, real) for graph, nodes in sides)


def _agree(old: _Types, new: _Types, after: Graph) -> bool:
    """Whether what both sides compute has one shape; a constant cannot shrink."""
    shapes = {name: after.types[name].shape for name in after.constants.keys() & old.keys()}
    shapes |= {name: kind.shape for name, kind in new.items() if name in old}
    return all(old[name].shape == shape for name, shape in shapes.items())


def _shrunk(kind: TensorType, factor: int) -> TensorType:
    sizes = tuple(-(-size // factor) for size in kind.shape[2:])
    return dataclasses.replace(kind, shape=(*kind.shape[:2], *sizes))


def _inferred(graph: Graph, nodes: Sequence[Node], given: _Types) -> dict[str, TensorType]:
    """Return the types that follow from smaller ones on the boundary; {} if none do.

    An axis must keep enough pixels, or all it has: what was no broadcast may not become one.
    """
    types = {
        name: dataclasses.replace(graph.types[name], shape=kind.shape)
        for name, kind in given.items()
        if name in graph.types
    }
    for node in nodes:
        operands = [types[n] if n in types else graph.types[n] for n in node.inputs]
        try:
            results = node.op.infer(operands)
        except OpError:
            return {}
        types.update(zip(node.outputs, results, strict=True))
    return types if all(_kept(graph.types[name], kind) for name, kind in types.items()) else {}


def _kept(full: TensorType, smaller: TensorType) -> bool:
    return len(full.shape) == len(smaller.shape) and all(
        size == was or (axis > 1 and _FEWEST_PIXELS <= size < was)
        for axis, (was, size) in enumerate(zip(full.shape, smaller.shape, strict=True))
    )


def _work(graph: Graph, nodes: Sequence[Node], types: _Types, real: int) -> int:
    """Return about how much one row costs, in multiply-accumulates of a matrix product.

    One of a real sum costs `real`.
    """
    total = 0
    for node in nodes:
        results = [types[name] for name in node.outputs]
        pixels = max(math.prod(kind.shape[2:]) for kind in results)
        constants = [graph.constants[name].size for name in node.inputs if name in graph.constants]
        weights = max(constants, default=0)
        reads_reals = any(types[name].element is Element.F32 for name in graph.variables(node))
        total += weights * pixels * (real if reads_reals else 1)
        total += sum(kind.size for kind in results) * _WORK_OF_ELEMENT
    return total


# --- Values of one tensor -------------------------------------------------------------------------


def _reachable(graph: Graph, name: str, values: Array) -> Array:
    """Return values clipped to what the operations that make a real tensor can give.

    Of a clip that is spelled by magnitudes, that is what it gives of values that are not absurd.
    """
    if values.dtype != np.float32:
        return values
    bounds = bounds_of(graph, name)
    if bounds is None:
        found = saturated(graph, name)
        if found is None:
            return values
        bounds = found.low, found.high
    return np.clip(values, np.float32(bounds[0]), np.float32(bounds[1]))


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
    """Return rows of logical values: random, all low, all high, one-hot, zero, then random ones."""
    random = np.random.default_rng(seed)
    shape = (rows, *kind.shape[1:])
    size = int(np.prod(kind.shape[1:]))
    hot = (np.arange(size) == size // 2).reshape(kind.shape[1:])
    special: list[Array | float]
    match kind.element:
        case Element.BIPOLAR:
            values = random.choice(np.array([-1, 1], np.int8), shape)
            special = [-1, 1, np.where(hot, 1, -1)]
        case Element.TERNARY:
            values = random.integers(-1, 2, shape, dtype=np.int8)
            special = [-1, 1, hot]
        case Element.BOOL:
            values = random.integers(0, 2, shape).astype(bool)
            special = [False, True, hot]
        case _ if kind.element.code_bits:
            most = kind.element.largest_code
            values = random.integers(0, most + 1, shape).astype(np.uint8)
            special = [0, most, np.where(hot, most, 0)]
        case Element.WORD32:
            values = random.integers(0, 1 << 32, shape, dtype=np.uint32)
            special = [0, 0xFFFFFFFF, hot]
        case Element.I8 | Element.I16 | Element.I32 | Element.I64:
            values = _integers(kind, shape, random)
            special = []
        case _:
            scale = 2.0 ** random.integers(-6, 7, (rows, *(1,) * (len(shape) - 1)))
            values = (random.standard_normal(shape) * scale).astype(np.float32)
            special = [-1, 1, hot, -0.0]
    for row, value in zip(range(1, rows), special, strict=False):
        values[row] = value
    return values


def _integers(kind: TensorType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    interval = kind.interval
    if interval is None:
        most = min(1000, np.iinfo(kind.element.dtype).max)
        return random.integers(-most, most + 1, shape).astype(kind.element.dtype)
    index = random.integers(0, interval.size, shape)
    for row, end in zip(index[1:], (0, interval.size - 1), strict=False):
        row[...] = end
    return (interval.low + interval.stride * index).astype(kind.element.dtype)


# --- Thresholds -----------------------------------------------------------------------------------


def _crafted(graph: Graph, node: Node, kinds: _Types, limit: int) -> tuple[str, list[Array]]:
    """Return (name, rows): values of a boundary tensor at and below a node's decisions."""
    source = node.inputs[0] if node.inputs else ""
    if isinstance(node.op, Sign) and source in kinds:
        tiny = np.nextafter(np.float32(0), np.float32(1))
        return source, _at_thresholds(np.array([[-tiny, 0, tiny]], np.float32), kinds[source])
    if not isinstance(node.op, Step) or not graph.constants[node.inputs[1]].size:
        return "", []
    thresholds = graph.constants[node.inputs[1]]
    if source in kinds:
        return source, _at_thresholds(thresholds, kinds[source])
    layer = graph.producers[source]
    if isinstance(layer.op, BinaryConv) and layer.inputs[0] in kinds:
        x = layer.inputs[0]
        weights = graph.constants[layer.inputs[1]]
        return x, _Reaching(layer.op, weights, thresholds, kinds[x]).images(limit)
    return "", []


def _at_thresholds(thresholds: Array, kind: TensorType) -> list[Array]:
    """Return rows that hold every channel's thresholds, and the values just below them.

    A small domain of integers is covered whole. Pixels of an image take the values in turn.
    """
    interval = kind.interval
    channels = kind.shape[1] if len(kind.shape) > 1 else 1
    values: list[Array]
    if kind.element.code_bits or (interval and interval.size <= _WHOLE_DOMAIN):
        interval = interval or Interval(0, kind.element.largest_code)
        domain = range(interval.low, interval.high + 1)
        stride = interval.stride
        values = [np.full(channels, v) for v in domain[::stride]]
    else:
        near = (_near(column, kind) for column in thresholds.T[:_THRESHOLD_COLUMNS])
        values = [np.broadcast_to(row, channels) for rows in near for row in rows]
    if not values:
        return []
    pixels = math.prod(kind.shape[2:])
    turns = np.arange(-(-len(values) // pixels) * pixels) % len(values)
    images = np.stack(values)[turns].reshape(-1, pixels, channels).transpose(0, 2, 1)
    return list(images.reshape(-1, *kind.shape[1:]))


def _near(column: Array, kind: TensorType) -> list[Array]:
    """Return one threshold of each channel, or the nearest value there is, and the one below."""
    if kind.element is Element.F32:
        finite = np.where(np.isfinite(column), column, 0).astype(np.float32)
        return [finite, np.nextafter(finite, np.float32(-np.inf))]
    interval = kind.interval
    if interval is None or column.dtype != np.int32:
        return []
    low, high, stride = interval.low, interval.high, interval.stride
    on_stride = low - (low - column.astype(np.int64)) // stride * stride
    reached = np.clip(on_stride, low, high).astype(np.int32)
    return [reached, np.clip(reached - stride, low, high)]


def _aimed(graph: Graph, nodes: Sequence[Node], feeds: dict[str, Array]) -> dict[str, Array]:
    """Return the values with rows added in which sums and products are about at their thresholds.

    A Step on a layer's result plus a shortcut is brought there by the shortcut: t - layer. Whether
    the sum then rounds to t or next to it is all the same.
    """
    aims: dict[str, tuple[Node, Array]] = {}
    for node in nodes:
        if isinstance(node.op, Step) and node.inputs[0] not in feeds:
            maker = graph.producers[node.inputs[0]]
            free = _free_operand(graph, maker, feeds)
            thresholds = graph.constants[node.inputs[1]]
            if free and thresholds.dtype == np.float32 and thresholds.size:
                aims.setdefault(free, (maker, thresholds))
    if not aims:
        return feeds
    some = {name: values[:_AIMED_ROWS] for name, values in feeds.items()}
    env = execute(graph, nodes, some, any_order=True)
    rows = dict(some)
    for free, (maker, thresholds) in aims.items():
        place = maker.inputs.index(free)
        other = maker.inputs[1 - place]
        known = graph.constants.get(other, env.get(other))
        assert known is not None  # the maker has run
        target = _targets(thresholds, some[free].shape)
        with np.errstate(all="ignore"):
            match maker.op:
                case Mul():
                    value = target / known
                case Sub():
                    value = known - target if place else target + known
                case _:
                    value = target - known
        value = np.where(np.isfinite(value), value, some[free]).astype(np.float32)
        rows[free] = _reachable(graph, free, value)
    return {name: np.concatenate([values, rows[name]]) for name, values in feeds.items()}


def _free_operand(graph: Graph, maker: Node, feeds: Mapping[str, Array]) -> str:
    """Return the boundary's real operand of a sum or product that has its shape, or ""."""
    if not isinstance(maker.op, Add | Sub | Mul) or len(set(maker.inputs)) < 2:
        return ""
    shape = graph.types[maker.output].shape
    fits = (n for n in maker.inputs if n in feeds and graph.types[n].shape == shape)
    return next(fits, "")


def _targets(thresholds: Array, shape: tuple[int, ...]) -> Array:
    """Return, for each element, one of its channel's thresholds, or the float below it."""
    pixels = math.prod(shape[2:])
    turn = np.arange(shape[0] * pixels)
    columns = turn // 2 % thresholds.shape[1]
    at = thresholds[:, columns]
    either = np.where(turn % 2 == 1, np.nextafter(at, np.float32(-np.inf)), at)
    by_channel = np.broadcast_to(either, (shape[1], len(turn)))
    return np.moveaxis(by_channel.reshape(shape[1], shape[0], *shape[2:]), 0, 1)


@dataclass(frozen=True)
class _Slot:
    """One output pixel of a layer: which taps of its window lie in the image, and where."""

    taps: tuple[slice, ...]
    places: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class _Reaching:
    """Inputs of a binary layer for which single channels' sums land on a threshold, or just below.

    Each is a patch under one output pixel's window; windows that do not overlap share an image.
    Where windows reach over the border, half of the images have patches there too.
    """

    op: BinaryConv
    weights: Array
    thresholds: Array
    kind: TensorType

    def images(self, limit: int) -> list[Array]:
        """Return rows [C, *S], about `limit` of them where they are images."""
        sizes = self.kind.shape[2:]
        kinds = (True, False) if self.op.window.is_padded(sizes) else (True,)
        slots = [list(_slots(self.op.window, sizes, inside=inside)) for inside in kinds]
        slots = [some for some in slots if some]
        most = max(1, limit // max(1, len(slots))) if sizes else _DENSE_ROWS
        return [image for some in slots for image in self._filled(some, most)]

    def _filled(self, slots: Sequence[_Slot], most: int) -> Iterator[Array]:
        """Yield images with a patch in every slot."""
        targets = self._targets(most * len(slots))
        random = np.random.default_rng(len(targets))
        for start in range(0, len(targets), len(slots)):
            image = _background(self.kind, random)
            for target, slot in zip(targets[start : start + len(slots)], slots, strict=False):
                self._place(image, slot, *target)
            yield image

    def _targets(self, room: int) -> list[tuple[int, int, np.generic]]:
        """Return (channel, 1 for just below, threshold) for as many channels as fit."""
        each = 2 * min(self.thresholds.shape[1], _THRESHOLD_COLUMNS)
        count = min(len(self.weights), _THRESHOLD_CHANNELS, max(1, room // each))
        channels = np.linspace(0, len(self.weights) - 1, count, dtype=int).tolist()
        return [
            (c, below, threshold)
            for c in channels
            for threshold in self.thresholds[min(c, len(self.thresholds) - 1)][:_THRESHOLD_COLUMNS]
            if threshold != never(self.thresholds) and np.isfinite(threshold)
            for below in (0, 1)
        ]

    def _place(
        self, image: Array, slot: _Slot, channel: int, below: int, threshold: np.generic
    ) -> None:
        """Write a patch into the image that gives the slot's pixel of one channel its sum."""
        w = self.weights[channel]
        seen = w[(slice(None), *slot.taps)]
        if self.kind.element is not Element.F32:
            # What the taps outside add is the pad's, whatever the patch.
            outside = self.op.pad * (int(w.sum()) - int(seen.sum()))
            threshold = np.int64(int(threshold) - outside)
        patch = _summing_to(seen.reshape(-1), threshold, self.kind.element, below)
        depth = len(w)
        first = channel // (len(self.weights) // self.op.groups) * depth
        image[(slice(first, first + depth), *slot.places)] = patch.reshape(seen.shape)


def _slots(window: Window, sizes: Sequence[int], *, inside: bool) -> Iterator[_Slot]:
    """Yield output pixels whose windows do not overlap: those in the image, or from its border."""
    axes = [_places(axis, size, inside) for axis, size in zip(window.axes, sizes, strict=True)]
    for choice in itertools.product(*axes):
        yield _Slot(tuple(taps for taps, _ in choice), tuple(place for _, place in choice))


def _places(axis: Axis, size: int, inside: bool) -> list[tuple[slice, slice]]:
    """Return (taps inside of the image, where they lie) for some outputs along one axis."""
    first = -(-axis.before // axis.stride) if inside else 0
    found = []
    for output in range(first, axis.outputs(size), -(-axis.extent // axis.stride)):
        taps = axis.taps(output, size)
        if len(taps) == axis.kernel or (len(taps) and not inside):
            start = output * axis.stride - axis.before
            place = slice(
                start + taps[0] * axis.dilation, start + taps[-1] * axis.dilation + 1, axis.dilation
            )
            found.append((slice(taps.start, taps.stop), place))
    return found


def _background(kind: TensorType, random: np.random.Generator) -> Array:
    """Return an image for patches to be put into; of zeros for reals, which then do not round."""
    shape = kind.shape[1:]
    if kind.element is Element.F32:
        return np.zeros(shape, np.float32)
    values = random.integers(0, max(2, kind.element.largest_code + 1), shape)
    return (values if kind.element.code_bits else 2 * values - 1).astype(kind.element.dtype)


def _summing_to(w: Array, threshold: np.generic, element: Element, below: int) -> Array:
    """Return x with sum(w x) the smallest sum >= threshold, or for below 1 the largest under it.

    Or the nearest to that. Weights are -1, +1, and perhaps 0; for others see `_nearest_sum`. Bits
    start from the largest sum, x = w, and flip until it has come down. A real sum is one term and
    zeros, which never rounds.
    """
    order = np.argsort(w == 0, kind="stable")  # zeros last: they reach nothing
    k = int(np.count_nonzero(w))
    rank = np.empty(len(w), np.int64)
    rank[order] = np.arange(len(w))
    if element is Element.F32:
        value = np.nextafter(threshold, np.float32(-np.inf)) if below else threshold
        return np.where(rank == 0, w * value, 0).astype(np.float32)
    target = int(threshold) - below
    if np.abs(w).max() > 1:
        return _nearest_sum(w.astype(np.int64), target, element)
    if element.code_bits:
        most = element.largest_code
        best = np.where(w > 0, most, 0)
        over = max(0, min(most * k, most * int((w > 0).sum()) - target))
        return (best - w.astype(np.int64) * np.clip(over - most * rank, 0, most)).astype(np.uint8)
    over = max(0, min(2 * k, k - target))
    largest = np.where(w == 0, 1, w)
    if element is Element.TERNARY:
        x = np.where(rank < over // 2, -largest, largest)
        return np.where((rank == over // 2) & (over % 2 == 1), 0, x).astype(np.int8)
    flips = min(k, (over + below) // 2)  # of the sums on either side, the one asked for
    return np.where(rank < flips, -largest, largest).astype(np.int8)


def _nearest_sum(w: Array, target: int, element: Element) -> Array:
    """Return x whose sum(w x) is about the target: from the largest sum down, large weights first.

    What is too much after that is less than the smallest weight moves.
    """
    low, high = (0, element.largest_code) if element.code_bits else (-1, 1)
    step = 2 if element is Element.BIPOLAR else 1
    x = np.where(w >= 0, high, low)
    over = max(0, int((w * x).sum()) - target)
    for i in np.argsort(-np.abs(w), kind="stable").tolist():
        size = abs(int(w[i])) * step
        taken = min((high - low) // step, over // size) if size else 0
        x[i] -= int(np.sign(w[i])) * taken * step
        over -= taken * size
    return x.astype(element.dtype)
