"""Give layers of bits the kernels of family B: sums on bit slices, shared by output channels.

Before: `%y = XnorConv(%x, packed weights, limits)`, %x and %y in PackedChannels
After:  `%p = Move(%x)` to PixelPlanes; `%t = Spread(%p)`; `%y = SharedSums(%t, lists, limits)`, in
        PixelPlanes, with a Move back for readers that want PackedChannels

Before: `%r, %y = XnorConv(%x, packed weights, %s)` with an epilogue that adds a shortcut %s
After:  `%r, %y = SharedConv(%t, lists, base, %s)` with the same epilogue, %r and %s in Planar

Layers that follow one another hand on planes of pixels and planar numbers, without the Moves;
pools of bits between them become `PoolPlanes`.
Elements of several planes and weights of several bits take the same kernels: planes of an element
share one list, and weights are sums of signs times powers of two, see `sharing`.
Exact: M is counted in another order; where taps lie outside of the image and count nothing, the
planes of single bits hold -1 there, and the limits or bases of such pixels make up for what that
adds. Elements of several planes have a 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.kernels import Epilogue, GatherBits, MismatchScale, Move, PoolBits, XnorConv
from bnncc.ir.ops.shared_sums import ClassSums, PoolPlanes, SharedConv, SharedSums, Spread
from bnncc.ir.storage import decode, encode, plane_count, to_planes, unpack_bits
from bnncc.ir.taps import TapPlanes
from bnncc.ir.types import (
    DENSE,
    Array,
    Element,
    Layout,
    PackedChannels,
    PixelPlanes,
    Planar,
    Stage,
)
from bnncc.ir.window import Window
from bnncc.passes.base import Context, Outcome, Pass, Refusal
from bnncc.passes.eliminate_dead import without_dead
from bnncc.passes.packing import accumulator_base
from bnncc.passes.sharing import (
    Lists,
    best_grouping,
    group_starts,
    listed,
    loads,
)
from bnncc.targets import Target

__all__ = ["SHARE_SUMS", "pitch_of", "regroups"]

_LARGEST_LIMIT = 1 << 24
"""No sum exceeds it."""


def _apply(graph: Graph, context: Context) -> Outcome:
    sharing = _Sharing(Rewrite(graph), context.target)
    refusals: list[Refusal] = []
    for node in graph.nodes:
        reason = "not asked for"
        if isinstance(node.op, XnorConv) and context.shares(node.outputs[0], node.origin):
            reason = _misfit(node.op) or sharing.share(node, node.op)
            if reason:
                refusals.append(Refusal(node.name, node.origin, f"no shared sums: {reason}"))
        if isinstance(node.op, PoolBits) and context.pools_planes(node.output):
            reason = "" if sharing.pool(node, node.op) else reason
        if reason:
            sharing.keep(node)
    shared = sharing.rewrite.finish()
    return Outcome(graph if shared is graph else without_dead(shared), tuple(refusals))


def _misfit(op: XnorConv) -> str:
    """Return why a layer cannot take shared sums, or ""."""
    return "" if op.window.axes else "a dense layer has one pixel, and lanes are pixels"


def _compares(epilogue: Epilogue) -> bool:
    """Whether nothing but comparisons of the accumulator is wanted: those are done on slices."""
    stores = epilogue.stores
    return len(stores) == 1 and not epilogue.expression.terms and bool(stores[0].thresholds)


def pitch_of(width: int) -> int:
    """Return how many bits a row of `width` pixels takes: whole words, or a part of one."""
    return next((bits for bits in (8, 16) if width <= bits), -(-width // 32) * 32)


def regroups(graph: Graph, name: str) -> bool:
    """Whether bits are those of another tensor, but that each group has words of its own."""
    node, kind = graph.producers.get(name), graph.types[name]
    if node is None or not isinstance(kind.layout, PackedChannels) or kind.layout.groups == 1:
        return False
    match node.op:
        case Move(op=None):
            pass
        case GatherBits(channels=channels, places=None):
            if channels != tuple((0, c) for c in range(kind.shape[1])):
                return False
        case _:
            return False
    plain = replace(kind, layout=replace(kind.layout, groups=1))
    return graph.types[node.inputs[0]] == plain


class _Sums(NamedTuple):
    """The attributes of `ClassSums`, in order."""

    taps: TapPlanes
    channels: int
    k: int
    firsts: tuple[int, ...]
    depth: int
    slices: str
    unit: int
    skip: bool


class _Kinds(TypedDict):
    """More of them: of elements of several planes, and weights of several bits."""

    parts: int
    of_codes: bool
    levels: int
    ternary: bool


@dataclass(frozen=True, eq=False)
class _Layer:
    """What is known of a layer that shares sums.

    Attributes:
        op: the layer as it was.
        element: of what it reads.
        weights: its integers, [O, depth, *kernel].
        lists: of its sums.
        totals: what all that a channel sums counts, int64 [O].
        kinds: of its elements and weights.
    """

    op: XnorConv
    element: Element
    weights: Array
    lists: Lists
    totals: Array
    kinds: _Kinds

    @property
    def scale(self) -> tuple[int, int]:
        """Factor and divisor of n = (base - factor * M) / divisor.

        n is K - 2 * M for single bits, and K - M for all others; of twice that, the first is half.
        """
        bipolar = self.element is Element.BIPOLAR
        return 1 + (bipolar and not self.lists.doubled), 1 + (not bipolar and self.lists.doubled)

    def base(self, shared: ClassSums) -> Array:
        """Return what n is without mismatches, before the division, int64 [O, kinds].

        Where taps outside of the image count nothing, planes of single bits hold -1 there.
        """
        divisor = self.scale[1]
        inside, _ = shared.kinds()
        taps = np.moveaxis(self.weights, 1, -1).sum(axis=-1).reshape(len(self.weights), -1)
        outside = divisor * (taps @ ~inside.T)
        base = self.totals
        if self.element.code_bits:
            weights = divisor * self.weights.reshape(len(base), -1).sum(axis=1)
            base = self.element.largest_code * (base + weights) // 2
        elif self.element is Element.BIPOLAR and self.lists.doubled:
            base = base // 2
        return np.asarray(base[:, np.newaxis] + outside)

    def thresholds(self, held: Array) -> Array:
        """Return int64 [planes, O, T] so that n >= threshold, of an epilogue's."""
        if not self.op.direct:
            return held.astype(np.int64)
        scale = MismatchScale.of(self.op.parts, bipolar=self.element is Element.BIPOLAR)
        base = accumulator_base(self.weights, self.element, self.op.parts)[:, np.newaxis]
        return -((scale.factor * held.astype(np.int64) - base) // scale.divisor)


class _Sharing:
    """Turns layers into shared sums, for one graph and target.

    A tensor of the graph may be held twice: as other kernels have it, and on planes or planar.
    """

    def __init__(self, rewrite: Rewrite, target: Target) -> None:
        self.rewrite = rewrite
        self.graph = rewrite.graph
        self.slices = target.slices
        self.word_bits = target.word_bits
        self._made: set[str] = set()  # results of shared sums
        self._pixels: dict[tuple[str, Layout], str] = {}  # tensors in layouts of pixels
        self._before: dict[str, str] = {}  # results of shared sums in their layout before

    def keep(self, node: Node) -> None:
        """Give a node that stays its operands in the layouts that it had them in."""
        if isinstance(node.op, Move) and node.op.op is None and node.inputs[0] in self._made:
            kind = self.rewrite.type_of(node.inputs[0])
            if isinstance(kind.layout, Planar):
                move = Move(None, (kind,), node.op.to)
                new = self.rewrite.node(move, node.inputs, node.output, node.origin)
                self.rewrite.replace(node, [new])
                return
        moved: list[Node] = []
        for name in node.inputs:
            if name in self._made and name not in self._before:
                kind, layout = self.rewrite.type_of(name), self.graph.types[name].layout
                made = self.rewrite.fresh(f"{name}.{layout}")
                move = Move(None, (kind,), layout)
                moved.append(self.rewrite.node(move, (name,), made, node.origin))
                self._before[name] = made
        inputs = tuple(self._before.get(name, name) for name in node.inputs)
        if inputs != node.inputs:
            new = self.rewrite.results(node.op, inputs, node.outputs, node.origin)
            self.rewrite.replace(node, [*moved, new])

    def pool(self, node: Node, op: PoolBits) -> bool:
        """Pool planes that shared sums have made, where they can be; return whether they are."""
        name, *mask = node.inputs
        x = self.graph.types[name]
        if name not in self._made or op.codes:
            return False
        y = self.graph.types[node.output]
        pads = (0,) * plane_count(x.element)
        taps = self._taps(op.window, x.shape[2:], x.shape[1], y.shape[-1], pads)
        falls: tuple[str, ...] = ()
        if mask:
            if not taps.inside().all():
                return False
            directions = unpack_bits(self.graph.constants[mask[0]], x.shape[1])
            falls = (self.rewrite.constant(f"{mask[0]}.channels", directions, Element.U8),)
        made = self.rewrite.fresh(f"{name}.taps")
        spread = self.rewrite.node(Spread(taps, self._pitch(name)), (name,), made, node.origin)
        pooled = PoolPlanes(taps, x.element)
        last = self.rewrite.node(pooled, (made, *falls), node.output, node.origin)
        self._keep_made(node)
        self.rewrite.replace(node, [spread, last])
        return True

    def _keep_made(self, node: Node) -> None:
        for name in node.outputs:
            self._made.add(name)
            self._pixels[name, self.rewrite.type_of(name).layout] = name

    def share(self, node: Node, op: XnorConv) -> str:
        """Replace a layer; or return why not."""
        x, y = self.graph.types[node.inputs[0]], self.graph.types[node.outputs[0]]
        skip = op.skip and x.element is Element.BIPOLAR
        copies = self._taps(op.window, x.shape[2:], x.shape[1], y.shape[-1], _pads(x.element, op))
        taps = replace(copies, inverted=True)
        own = [self.graph.constants[name] for name in node.inputs[1 : op.own_operands]]
        weights = op.integers(own)
        elements = plane_count(x.element)
        load = loads(weights, op.groups, elements)
        grouping = best_grouping(
            op.channels // op.groups, load, self.slices.addition, zeros=not weights.all()
        )
        k = grouping.k
        firsts = group_starts(op.channels, op.groups, k)
        lists = listed(weights, taps, firsts, grouping, op.groups, codes=op.codes)
        if isinstance(lists, str):
            return lists
        totals = np.zeros(op.channels, np.int64)
        for first, total in zip(firsts, lists.totals, strict=True):
            totals[first : first + k] = total  # where groups overlap, the last one's channels count
        kinds = _Kinds(
            parts=lists.parts, of_codes=op.codes, levels=op.levels, ternary=grouping.ternary
        )
        layer = _Layer(op, x.element, weights, lists, totals, kinds)
        sums = _Sums(
            *(taps, op.channels, k, firsts, weights[0].size, self.slices.header, lists.unit, skip),
        )
        new, read = self._as_pixels(
            self._ungrouped(node.inputs[0]),
            PixelPlanes(pitch_of(x.shape[-1]), taps.lanes, elements),
            node.origin,
        )
        constant = self.rewrite.constant
        name = node.inputs[1]
        word = {2: Element.WORD16, 4: Element.WORD32}[lists.entries.dtype.itemsize]
        operands = (
            constant(f"{name}.list", lists.entries, word),
            constant(f"{name}.fours", lists.fours, Element.WORD16),
        )
        made = self.rewrite.fresh(f"{node.inputs[0]}.taps")
        spread = self.rewrite.node(Spread(taps, self._pitch(read)), (read,), made, node.origin)
        ending = self._limited if _compares(op.epilogue) else self._finished
        more, last = ending(node, layer, sums, (spread.output, *operands))
        self._keep_made(node)
        self.rewrite.replace(node, [*new, spread, *more, last])
        return ""

    def _limited(
        self, node: Node, layer: _Layer, sums: _Sums, operands: tuple[str, ...]
    ) -> tuple[list[Node], Node]:
        """Return the layer as bits by comparison of M."""
        shared = SharedSums(*sums, layer.op.epilogue.stores[0].to, **layer.kinds)
        factor, divisor = layer.scale
        thresholds = layer.thresholds(self.graph.constants[node.inputs[-1]])[..., np.newaxis]
        base = layer.base(shared)[:, np.newaxis]
        limits = np.clip((base - divisor * thresholds) // factor, -1, _LARGEST_LIMIT)
        name = f"{node.output}.limits"
        held = self.rewrite.constant(name, limits.astype(np.int32), Element.I32)
        return [], self.rewrite.node(shared, (*operands, held), node.output, node.origin)

    def _finished(
        self, node: Node, layer: _Layer, sums: _Sums, operands: tuple[str, ...]
    ) -> tuple[list[Node], Node]:
        """Return the layer with its epilogue, behind what gives it its operands."""
        op = layer.op
        shared = SharedConv(op.epilogue, *sums, *layer.scale, **layer.kinds)
        base = layer.base(shared).astype(np.int32)
        held = self.rewrite.constant(f"{node.outputs[0]}.bases", base, Element.I32)
        own, variables = op.own_operands, op.epilogue.variables
        new: list[Node] = []
        read: list[str] = []
        for name in node.inputs[own : own + variables]:
            moved, planar = self._as_planar(name, shared, node.origin)
            new += moved
            read.append(planar)
        inputs = (*operands, held, *read, *node.inputs[own + variables :])
        return new, self.rewrite.results(shared, inputs, node.outputs, node.origin)

    def _as_planar(
        self, name: str, op: SharedConv, origin: tuple[str, ...]
    ) -> tuple[list[Node], str]:
        """Return a tensor that an epilogue reads in its layout, behind the node that moves it."""
        kind = self.graph.types[name]
        one_pixel = math.prod(kind.shape[2:]) == 1
        layout: Layout = DENSE if one_pixel else op.planar
        if name in self.graph.constants:
            to = replace(kind, layout=layout)
            value = encode(decode(self.graph.constants[name], kind), to)
            return [], self.rewrite.constant(f"{name}.planar", value, to)
        return self._as_pixels(name, layout, origin)

    def _taps(
        self,
        window: Window,
        sizes: tuple[int, ...],
        channels: int,
        width: int,
        pads: tuple[int, ...],
    ) -> TapPlanes:
        """Return the copies of planes for a window of which the result has some width."""
        return TapPlanes(
            window,
            sizes,
            channels,
            pads,
            pitch_of(width),
            self.slices.lanes,
            by_row=not self.slices.aligned,
            inverted=False,
            word_bits=self.word_bits,
        )

    def _ungrouped(self, name: str) -> str:
        """Return the tensor of which `name` holds the channels, each group in words of its own."""
        return self.graph.producers[name].inputs[0] if regroups(self.graph, name) else name

    def _as_pixels(
        self, name: str, layout: Layout, origin: tuple[str, ...]
    ) -> tuple[list[Node], str]:
        """Return a tensor in a layout of pixels, behind the nodes that move it there, if any."""
        if (name, layout) in self._pixels:
            return [], self._pixels[name, layout]
        kind, new = self.rewrite.type_of(name), []
        made = self.rewrite.fresh(f"{name}.{layout}")
        self._pixels[name, layout] = made
        if isinstance(kind.layout, PackedChannels) and kind.layout.groups > 1:
            channels = tuple((0, c) for c in range(kind.shape[1]))
            together = GatherBits((kind,), channels, None, replace(kind.layout, groups=1))
            plain = self.rewrite.fresh(f"{name}.ungrouped")
            new = [self.rewrite.node(together, (name,), plain, origin)]
            name, kind = plain, self.rewrite.type_of(plain)
        move = self.rewrite.node(Move(None, (kind,), layout), (name,), made, origin)
        return [*new, move], made

    def _pitch(self, planes: str) -> int:
        layout = self.rewrite.type_of(planes).layout
        assert isinstance(layout, PixelPlanes)  # _as_planes made it
        return layout.pitch


def _pads(element: Element, op: XnorConv) -> tuple[int, ...]:
    """Return what each plane of an element holds outside of the image.

    0 is an element of its own in several planes; for single bits, see `_Layer.base`.
    """
    pad = np.array([[-1 if op.skip and element is Element.BIPOLAR else op.pad]])
    return tuple(int(bit) for bit in to_planes(pad.astype(element.dtype), element).reshape(-1))


SHARE_SUMS = Pass("share_sums", _apply, requires=Stage.PACKED)
