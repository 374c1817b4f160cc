"""Planar numbers and pools of planes as C, and moves from and to other layouts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.program import (
    Argument,
    Constant,
    EdgesWork,
    Layer,
    NumbersWork,
    PlanarWork,
    Pointer,
    PoolPlanesWork,
    SharedWork,
)
from bnncc.backend.shared_sums import moved, sums_work
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.shared_sums import ClassSums, PoolPlanes, SharedConv
from bnncc.ir.storage import plane_count
from bnncc.ir.types import Array, ChannelsLast, Planar, TensorType

__all__ = ["numbers_work", "planar_places", "planar_work", "pool_work"]

_OF_REGISTERS = ("avx2", "avx512vl")
"""Slices of 256 bits for which the runtime has `bnn_numbers16_more`."""


def numbers_work(
    graph: Graph, node: Node, op: SharedConv, blank: Layer, name: str
) -> tuple[SharedWork, tuple[Constant, ...]]:
    """Return how a layer computes its numbers, and the arrays it reads.

    Args:
        graph: the packed graph.
        node: the layer.
        op: its operation.
        blank: its parameters: the planes and what the epilogue reads, and what that writes.
        name: the program's.
    """
    hint = blank.function
    work, constants = sums_work(graph, node, op, name, hint)
    tables = list(constants)
    given = graph.constants[node.inputs[3]].astype(np.int64)
    _, kinds = op.kinds()
    main = int(np.bincount(kinds.reshape(-1)).argmax())
    channels = np.array(op.firsts)[:, np.newaxis] + np.arange(op.k)
    base = given[:, main][channels] + op.factor * moved(graph, node, op)
    tables.append(constant(f"{hint}_base", base.astype(np.int32), "thresholds"))
    # n has to fit: base - factor * sum is right modulo 2^16. M is at most the sum of all classes.
    most = (op.factor << (work.width - (op.k > 1))) + int(np.abs(given).max())
    short = most < 1 << 15
    more = (given - given[:, main : main + 1]).astype(np.int32)
    edges, added = _edges(op, _placed(op, kinds, main), main, more, hint, looked_up=short)
    tables += added
    used = _used(op)
    stores = op.epilogue.stores
    gaps = not used.all() and any(not store.thresholds for store in stores)
    masked = not used.all() and any(store.thresholds for store in stores)
    if gaps:
        starts, runs = _gaps(used.reshape(-1, op.taps.lanes))
        tables += [
            constant(f"{hint}_gap_starts", starts, "parameters"),
            constant(f"{hint}_gap_runs", runs, "parameters"),
        ]
    if masked:
        words = np.packbits(used, bitorder="little").view("<u4")
        tables.append(constant(f"{hint}_used", words, "parameters"))
    kept = _kept(op)
    if (kept < op.k).any():
        tables.append(constant(f"{hint}_kept", kept, "parameters"))
    inputs, outputs = blank.inputs[1:], blank.outputs
    named = _names(inputs, outputs)
    numbers = NumbersWork(
        type="int16_t" if short else "int32_t",
        base=f"{hint}_base",
        factor=op.factor,
        divisor=op.divisor,
        planar=32 * op.taps.plane,
        reads_pixel=not all(store.thresholds for store in stores)
        or any(isinstance(graph.types[a.buffer.tensor].layout, Planar) for a in inputs),
        pointers=(
            *(
                Pointer(f"const {a.buffer.c_type}", a.name)
                for a in inputs
                if named[a.name] == a.name
            ),
            *(Pointer(a.buffer.c_type, a.name) for a in outputs),
        ),
        same=tuple(a for a, owner in named.items() if a != owner),
        kept=f"{hint}_kept" if (kept < op.k).any() else "",
        edges=edges,
        gaps=f"{hint}_gap" if gaps else "",
        used=f"{hint}_used" if masked else "",
        decisions=sum(plane_count(store.to) for store in stores if store.thresholds),
    )
    return replace(work, numbers=numbers), tuple(tables)


def planar_places(graph: Graph, blank: Layer) -> tuple[dict[str, str], dict[str, str]]:
    """Return where in C an epilogue reads its tensors.

    Returns:
        The C expression of the element at channel c and pixel p, by tensor; and what to call
        parameters, where that is another one that points to the same.
    """
    places: dict[str, str] = {}
    for argument in blank.inputs[1:]:
        kind = graph.types[argument.buffer.tensor]
        if isinstance(kind.layout, Planar):
            channel = f"c * {argument.buffer.shape[-1]}u + " if kind.shape[1] > 1 else ""
            places[argument.buffer.tensor] = f"{channel}p"
    return places, _names(blank.inputs[1:], blank.outputs)


def _names(inputs: tuple[Argument, ...], outputs: tuple[Argument, ...]) -> dict[str, str]:
    """Return what to call each input: as the output that overwrites it, if one does.

    A compiler that is told of two pointers to the same cannot tell that elements do not mix.
    """
    written = {a.buffer.pointer: a.name for a in outputs}
    return {a.name: written.get(a.buffer.pointer, a.name) for a in inputs}


def _edges(
    op: ClassSums, placed: Array, main: int, more: Array, hint: str, *, looked_up: bool
) -> tuple[EdgesWork | None, tuple[Constant, ...]]:
    """Return how pixels of other kinds than the main one add to their numbers, and the arrays.

    Args:
        op: the operation.
        placed: the kind of each lane of a plane.
        main: the kind that adds nothing.
        more: what a kind adds, int32 [O, kinds].
        hint: the start of the arrays' names.
        looked_up: whether numbers are of 16 bits, to which registers of kinds can be added.
    """
    places = placed.reshape(-1, op.taps.lanes)
    kinds = more.shape[1]
    if (places == main).all():
        return None, ()
    patterns, pattern = np.unique(places, axis=0, return_inverse=True)
    if looked_up and op.slices in _OF_REGISTERS and kinds <= 16 and len(patterns) <= 256:
        halves = np.zeros((len(more), 2, 16), np.uint8)
        halves[:, 0, :kinds], halves[:, 1, :kinds] = more & 255, more >> 8 & 255
        return EdgesWork(f"{hint}_edge", kinds, looked_up=True), (
            constant(f"{hint}_edge_patterns", pattern.reshape(-1).astype(np.uint8), "parameters"),
            constant(f"{hint}_edge_kinds", patterns.astype(np.uint8), "parameters"),
            constant(f"{hint}_edge_more", halves, "thresholds"),
        )
    block, lane = np.nonzero(places != main)
    starts = np.searchsorted(block, np.arange(len(places) + 1))
    return EdgesWork(f"{hint}_edge", kinds, looked_up=False), (
        constant(f"{hint}_edge_starts", starts.astype(np.uint16), "parameters"),
        constant(f"{hint}_edge_lanes", lane.astype(np.uint16), "parameters"),
        constant(f"{hint}_edge_kinds", places[block, lane].astype(np.uint8), "parameters"),
        constant(f"{hint}_edge_more", more, "thresholds"),
    )


def _used(op: ClassSums) -> Array:
    """Return which lanes are pixels, bool [lanes of a plane]."""
    return np.asarray(_placed(op, np.ones(op.taps.outputs, np.int64), 0) == 1)


def _placed(op: ClassSums, pixels: Array, other: int) -> Array:
    """Return an integer of each pixel [rows, columns] at its lane, and another everywhere else."""
    rows, columns = op.taps.outputs
    places = np.full(32 * op.taps.plane, other)
    places[: rows * op.taps.pitch].reshape(rows, op.taps.pitch)[:, :columns] = pixels
    return places


def _gaps(used: Array) -> tuple[Array, Array]:
    """Return the runs of lanes that are no pixels: uint16 [slices + 1] and [runs, 2], its ends."""
    starts, runs = [0], []
    for lanes in used:
        changes = np.flatnonzero(np.diff(np.concatenate([[True], lanes, [True]])))
        runs += changes.reshape(-1, 2).tolist()
        starts.append(len(runs))
    return np.array(starts, np.uint16), np.array(runs, np.uint16)


def _kept(op: ClassSums) -> Array:
    """Return how many channels of each group the next one does not compute, uint8 [groups]."""
    apart = np.diff([*op.firsts, op.firsts[-1] + op.k])
    return np.asarray(np.minimum(apart, op.k), np.uint8)


def planar_work(source: TensorType, result: TensorType) -> PlanarWork:
    """Return how numbers are moved to a planar layout or from one."""
    to_planar = isinstance(result.layout, Planar)
    planar, other = (result, source) if to_planar else (source, result)
    assert isinstance(planar.layout, Planar)  # the caller asked
    sizes = source.shape[2:]
    height, width = (*(1,) * (2 - len(sizes)), *sizes)
    pixels, channels = math.prod(sizes), source.shape[1]
    last = isinstance(other.layout, ChannelsLast)
    return PlanarWork(
        to_planar=to_planar,
        channels=channels,
        height=height,
        width=width,
        pitch=planar.layout.pitch,
        elements=planar.layout.elements(height),
        channel=1 if last else pixels,
        pixel=channels if last else 1,
    )


def pool_work(op: PoolPlanes, falls: str) -> PoolPlanesWork:
    """Return how planes are pooled; `falls` is the C name of the directions, or ""."""
    taps = op.taps
    used = taps.outputs[0] * taps.pitch
    return PoolPlanesWork(
        planes=len(taps.pads),
        channels=taps.channels,
        part=taps.part,
        copy_words=taps.copy_words,
        plane=taps.plane,
        words=-(-used // 32),
        tail=f"0x{(1 << used % 32) - 1:x}u" if used % 32 else "",
        offsets=tuple(taps.offsets().reshape(-1, taps.channels)[:, 0].tolist()),
        falls=falls,
    )
