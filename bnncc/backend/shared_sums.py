"""Kernel family B as C: copies of planes, lists of classes, and their sums and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bnncc.backend.epilogues import constant
from bnncc.backend.merges import merge
from bnncc.backend.program import (
    ClassSum,
    Constant,
    ListsWork,
    PixelsWork,
    SharedWork,
    SliceFunction,
    SliceFunctions,
)
from bnncc.ir.graph import Graph, Node
from bnncc.ir.ops.shared_sums import ClassSums, SharedSums
from bnncc.ir.types import Array, Element, PackedChannels, PixelPlanes, TensorType

__all__ = [
    "moved",
    "pixels_work",
    "shared_work",
    "slice_functions",
    "slice_headers",
    "sums_work",
]


def slice_headers(op: ClassSums) -> list[str]:
    """Return the runtime's headers that a layer needs, in order."""
    aligned = [] if op.taps.by_row else ["slices/aligned.h"]
    lists = ["bnn_lists.h"] if op.built else []
    copies = ["bnn_spread.h"] if op.taps.band else []
    return [*copies, *aligned, f"slices/{op.slices}.h", "bnn_slices.h", *lists]


# --- Sums -----------------------------------------------------------------------------------------


def shared_work(
    graph: Graph, node: Node, op: SharedSums, name: str, hint: str
) -> tuple[SharedWork, tuple[Constant, ...]]:
    """Return how a layer computes its bits, and the arrays it reads.

    Args:
        graph: the packed graph.
        node: the layer.
        op: its operation.
        name: the program's.
        hint: the start of the arrays' names.
    """
    work, constants = sums_work(graph, node, op, name, hint)
    starts, kinds, masks = _borders(op)
    decisions = _decisions(op, graph.constants[node.inputs[3]], moved(graph, node, op), work.width)
    limits = constant(f"{hint}_limits", decisions, "thresholds")
    tables = [*constants, limits]
    if masks is not None:
        tables += [
            constant(f"{hint}_starts", starts, "parameters"),
            constant(f"{hint}_kinds", kinds, "parameters"),
            constant(f"{hint}_masks", masks, "parameters"),
        ]
    done = replace(
        work,
        limit_type=limits.c_type,
        masked=masks is not None,
        kinds=decisions.shape[-1],
        planes=decisions.shape[2],
        comparisons=decisions.shape[3],
        plane_stride=op.taps.plane * op.channels,
    )
    return done, tuple(tables)


def sums_work(
    graph: Graph, node: Node, op: ClassSums, name: str, hint: str
) -> tuple[SharedWork, tuple[Constant, ...]]:
    """Return how a layer computes its sums, see `shared_work`."""
    lists, fours = (graph.constants[operand] for operand in node.inputs[1:3])
    merged = merge(op, op.class_sums(lists, fours), name)
    built, tables = _built(op, lists, name, hint) if op.built else (None, ())
    wide = bool(built.wide) if built else lists.itemsize == 4
    constants = [
        *(tables or (constant(f"{hint}_list", lists, "binary weights"),)),
        constant(f"{hint}_fours", fours, "binary weights"),
    ]
    regular = all(first == i * op.k for i, first in enumerate(op.firsts))
    if not regular:
        firsts = np.array(op.firsts, np.uint16)
        constants.append(constant(f"{hint}_firsts", firsts, "parameters"))
    planes = len(op.taps.pads)
    class_sum = ClassSum(
        name,
        merged.bits,
        int(wide),
        op.unit,
        int(fours.max()) // 4 + 4,
        parts=op.parts,
        planes=planes,
        part_bytes=4 * op.taps.part if planes > 1 else 0,
        codes=op.of_codes and planes > 1,
    )
    work = SharedWork(
        k=op.k,
        classes=op.classes,
        groups=len(op.firsts),
        blocks=32 * op.taps.plane // op.taps.lanes,
        bands=op.taps.bands,
        band_blocks=32 * op.taps.held // op.taps.lanes,
        slice_bytes=op.taps.lanes // 8,
        lanes=op.taps.lanes,
        width=merged.width,
        class_sum=class_sum,
        list_type="uint32_t" if wide else "uint16_t",
        built=built,
        steps=merged.steps,
        firsts="" if regular else constants[-1].name,
        plane_words=op.taps.plane,
    )
    return work, tuple(constants)


def _built(
    op: ClassSums, codes: Array, name: str, hint: str
) -> tuple[ListsWork, tuple[Constant, ...]]:
    """Return how lists are built, and the arrays for it; see `shared_work` for the arguments."""
    taps, held, element = op.taps, op.codes, op.built_element
    places = taps.offsets().reshape(held.taps, -1)[:, 0] // op.unit
    step = 4 * taps.copy_words // op.unit
    parts = taps.channels // held.depth  # groups of the convolution, alike but for their planes
    start = f"group / {len(op.firsts) // parts}u * {held.depth * step}u" if parts > 1 else "0"
    tables = (
        constant(f"{hint}_codes", codes, "binary weights"),
        constant(f"{hint}_places", places.astype(element.dtype), "parameters"),
    )
    wide = int(element is Element.WORD32)
    work = ListsWork(
        function=f"{name}_lists_{op.k}{'_wide' * wide}",
        k=op.k,
        wide=wide,
        codes=tables[0].name,
        words=held.words,
        places=tables[1].name,
        start=start,
        taps=held.taps,
        depth=held.depth,
        step=step,
        inverted=4 * taps.half // op.unit,
        zeros=taps.zeros // op.unit,
    )
    return work, tables


def slice_functions(name: str, works: Sequence[SharedWork]) -> SliceFunctions:
    """Return the functions that the layers of a program share, each for a width."""
    sums: dict[str, ClassSum] = {}
    functions: set[SliceFunction] = set()
    for work in works:
        one = work.class_sum
        same = sums.get(one.function)
        if same is None or same.carries < one.carries:
            sums[one.function] = one
        functions.update(step.function for step in work.steps if step.function)
    lists = {work.built.function: work.built for work in works if work.built}
    order = sorted(sums, key=lambda function: (sums[function].bits, function))
    merging = sorted(functions, key=lambda f: (f.bits, f.narrow, f.after))
    return SliceFunctions(
        name,
        tuple(lists[function] for function in sorted(lists)),
        tuple(sums[function] for function in order),
        tuple(f for f in merging if f.kind == "add"),
        tuple(f for f in merging if f.kind == "less_twice"),
    )


def moved(graph: Graph, node: Node, op: ClassSums) -> Array:
    """Return by how much each channel's sum is more than M, int64 [groups, k].

    M has all that a channel sees inverted, and less what that is.
    """
    most = op.class_sums(*(graph.constants[operand] for operand in node.inputs[1:3]))
    more: Array = merge(op, most, "").more - most @ (op.patterns < 0)
    return more


def _decisions(op: SharedSums, limits: Array, more: Array, width: int) -> Array:
    """Return what sums are compared with, [groups, k, planes, T, kinds]: the bit is sum < limit."""
    channels = np.array(op.firsts)[:, np.newaxis] + np.arange(op.k)
    result = np.moveaxis(limits.astype(np.int64)[:, channels], 0, 2)
    result = result + 1 + more[:, :, np.newaxis, np.newaxis, np.newaxis]
    clipped = np.clip(result, 0, (1 << width) - 1)
    return np.ascontiguousarray(clipped.astype(np.uint16 if width <= 16 else np.uint32))


def _borders(op: SharedSums) -> tuple[Array, Array, Array | None]:
    """Return the kinds of pixels in each slice.

    Returns:
        uint16 [slices + 1], where each slice's entries start; of each, uint8 its kind and
        uint32 [lanes / 32] its pixels. The last is None where all bits are pixels of one kind.
    """
    taps = op.taps
    _, kinds = op.kinds()
    rows, columns = taps.outputs
    places = np.full(32 * taps.plane, -1)
    places[: rows * taps.pitch].reshape(rows, taps.pitch)[:, :columns] = kinds
    if (places == 0).all():
        return np.zeros(0, np.uint16), np.zeros(0, np.uint8), None
    starts, found, masks = [0], [], []
    for lanes in places.reshape(-1, taps.lanes):
        for kind in np.unique(lanes[lanes >= 0]):
            found.append(kind)
            masks.append(np.packbits(lanes == kind, bitorder="little").view("<u4"))
        starts.append(len(found))
    return np.array(starts, np.uint16), np.array(found, np.uint8), np.array(masks)


# --- Between words of channels and planes ---------------------------------------------------------


def pixels_work(source: TensorType, result: TensorType) -> PixelsWork:
    """Return how packed channels become planes of pixels, or the other way around."""
    sizes: Sequence[int] = source.shape[2:]
    height, width = (*(1,) * (2 - len(sizes)), *sizes)
    packed, planes = source.layout, result.layout
    to_planes = isinstance(planes, PixelPlanes)
    if not to_planes:
        packed, planes = planes, packed
    assert isinstance(packed, PackedChannels) and isinstance(planes, PixelPlanes)  # noqa: PT018
    channels = source.shape[1]
    return PixelsWork(
        to_planes=to_planes,
        channels=channels,
        height=height,
        width=width,
        planes=planes.planes,
        pitch=planes.pitch,
        plane_words=planes.words(height),
        word_bits=packed.word_bits,
        words=packed.words(channels),
    )
