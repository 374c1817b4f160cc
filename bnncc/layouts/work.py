"""How often a layer does what takes time: counted in the numbers that its template prints.

Only layers are counted that one of the two kernel families has and the other has not, and what
moves between their layouts; the rest of a network takes the same time whichever is chosen.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from bnncc.backend.program import (
    Layer,
    LinearWork,
    PixelsWork,
    PlanarWork,
    PoolPlanesWork,
    SharedWork,
    Slide,
    SpreadWork,
    TileWork,
)

__all__ = ["Work", "moving", "work_of"]

Work = Mapping[str, float]
"""What is done -> how often. Names begin with the kind of layer, which is measured as one."""


def work_of(layer: Layer) -> Work:
    """Return the work of a layer; nothing for layers that no kernel family has to itself."""
    match layer.work:
        case TileWork() as work if work.kernel.startswith("bnn_xnor"):
            return _tiles(layer, work)
        case LinearWork() as work if work.kernel.startswith("bnn_xnor"):
            return _linear(layer, work)
        case SpreadWork() as work:
            return _spread(work, 1)
        case SharedWork() as work:
            copies = _spread(layer.copies, work.bands) if layer.copies else {}
            return {**_sums(layer, work), **copies}
        case PixelsWork() | PlanarWork() as work:
            return moving(work)
        case PoolPlanesWork() as work:
            return _pool_planes(work)
        case _ if layer.template == "pool_bits.c.j2":
            return _pool_bits(layer)
        case _:
            return {}


# --- Family A -------------------------------------------------------------------------------------


def _inside(slide: Slide) -> list[int]:
    """Return how many taps of each output of an axis lie inside of the image."""
    starts = [o * slide.stride - slide.before for o in range(slide.outputs)]
    taps = [range(s, s + slide.kernel * slide.dilation, slide.dilation) for s in starts]
    return [sum(0 <= place < slide.size for place in places) for places in taps]


def _linear(layer: Layer, work: LinearWork) -> Work:
    """A call of the micro-kernel for each row of taps, or for each tap, of each block of sums."""
    nest, kind = layer.nest, f"xnor {work.nr}"
    times = work.groups * work.blocks * len(work.parts) * work.planes
    rows, columns = sum(_inside(nest.y)), sum(_inside(nest.x))
    if work.fill:
        rows, columns = nest.y.outputs * nest.y.kernel, nest.x.outputs * nest.x.kernel
    joined = nest.x.dilation == 1 and work.groups == 1 and not work.fill
    calls = rows * (nest.x.outputs if joined else columns) * times
    blocks = nest.pixels * work.groups * work.blocks
    done = {
        f"{kind}: word": rows * columns * times * work.depth * work.nr,
        f"{kind}: call": calls,
        f"{kind}: choice of padding": calls if work.fill else 0,
        f"{kind}: block": blocks,
        f"{kind}: value": blocks * work.nr,
    }
    return {**done, **_finish(layer, kind, blocks * work.nr)}


def _tiles(layer: Layer, work: TileWork) -> Work:
    """A call for each tile of pixels of a line of one kind, for all bytes under its window."""
    kind = f"tile {work.mr}x{work.nr}"
    blocks = work.groups * work.blocks * len(work.parts) * work.planes
    done: Counter[str] = Counter()
    for (height, rows), (width, columns) in _kinds(layer):
        line, lines = (height, 1) if width == 1 or layer.nest.x.outputs == 1 else (width, height)
        tiles = lines * -(-line // work.mr)
        size = rows * columns * work.tap
        done[f"{kind}: call"] += blocks * tiles
        done[f"{kind}: byte"] += blocks * tiles * size
        done[f"{kind}: byte of a pixel"] += blocks * lines * line * size
    pixels = layer.nest.pixels * work.groups * work.blocks
    done[f"{kind}: pixel"] = pixels
    if work.limits:
        return done
    done[f"{kind}: value"] = pixels * work.nr
    return {**done, **_finish(layer, kind, pixels * work.nr)}


def _kinds(layer: Layer) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the kinds of pixels: of each how many rows, with how many taps, and columns."""
    kinds = [list(Counter(_inside(slide)).items()) for slide in (layer.nest.y, layer.nest.x)]
    return [
        ((height, taps), (width, other))
        for (taps, height), (other, width) in itertools.product(*kinds)
    ]


def _pool_bits(layer: Layer) -> Work:
    nest = layer.nest
    taps = sum(_inside(nest.y)) * sum(_inside(nest.x)) * nest.pixel * layer.channels
    return {
        "pool of channels: tap": taps,
        "pool of channels: tap of several words": taps if nest.pixel > 1 else 0,
        "pool of channels: word": nest.pixels * nest.pixel * layer.channels,
        "pool of channels: pixel": nest.pixels,
    }


def _finish(layer: Layer, kind: str, values: int) -> Work:
    """The epilogue, for each of so many values."""
    assert layer.finish is not None  # such layers have one
    stores = layer.finish.stores
    bits = sum(len(store.decisions) for store in stores)
    return {
        f"{kind}: statement": values * len(layer.finish.statements),
        f"{kind}: number": values * sum(not store.decisions for store in stores),
        f"{kind}: decision": values * bits,
    }


# --- Family B -------------------------------------------------------------------------------------


def _spread(work: SpreadWork, bands: int) -> Work:
    """The words or rows of all copies, of each band; complements come with them."""
    kind = f"spread {work.form}"
    planes = work.planes * work.channels * bands
    copies = planes * sum(len(rows.columns) for rows in work.groups)
    done = {
        f"{kind}: plane": planes,
        f"{kind}: copy": copies,
        f"{kind}: word of a plane": planes * (work.image + work.buffer),
    }
    if work.form == "moved":
        return done | {f"{kind}: word": copies * (work.used * 32 // work.bits)}
    return done | {
        f"{kind}: row": planes * len(work.groups) * work.rows,
        f"{kind}: row of a copy": copies * work.rows,
    }


def _sums(layer: Layer, work: SharedWork) -> Work:
    """The planes of all classes, what makes channels of them, and what becomes of these."""
    times, groups = work.blocks, work.groups
    walks = work.classes * work.class_sum.parts * work.class_sum.planes
    fours = next(c.values for c in layer.constants if c.name.endswith("_fours"))
    entries = 4 * int(fours.sum(dtype=np.int64))
    built = work.built.taps * work.built.depth * groups * work.bands if work.built else 0
    bits = _bits_of_steps(work)
    channels = times * groups * work.k
    done = {
        "sums: plane": times * entries * work.class_sum.planes,
        "sums: entry that is built": built,
        "sums: class": times * groups * walks,
        "sums: bit of an addition": times * groups * bits["add"],
        "sums: bit of a difference": times * groups * bits["less_twice"],
        "sums: channel": channels,
    }
    if work.numbers is None:
        kinds = next((c.count for c in layer.constants if c.name.endswith("_kinds")), times)
        decisions = groups * work.k * kinds * work.planes * work.comparisons
        return done | {"sums: decision": decisions, "sums: bit of it": decisions * work.width}
    lanes = channels * work.lanes
    done |= {"sums: numbers": channels, "sums: bit of numbers": channels * work.width}
    ending = {
        name.replace("sums: decision", "sums: flag"): count
        for name, count in _finish(layer, "sums", lanes).items()
    }
    return done | ending | {"sums: lane": lanes}


def _bits_of_steps(work: SharedWork) -> Counter[str]:
    """Return the bits of what is added and taken away, by the kind of function."""
    bits = Counter[str]()
    for step in work.steps:
        if step.function:
            bits[step.function.kind] += step.function.bits
    return bits


def _pool_planes(work: PoolPlanesWork) -> Work:
    words = work.planes * work.channels * work.words
    return {
        "pool of planes: tap": words * len(work.offsets),
        "pool of planes: word": words,
        "pool of planes: plane": work.planes * work.channels,
    }


# --- Between the two ------------------------------------------------------------------------------


def moving(work: PixelsWork | PlanarWork) -> Work:
    """Return the work of a move between layouts."""
    if isinstance(work, PixelsWork):
        kind = "to planes" if work.to_planes else "from planes"
        times = work.planes * math.ceil(work.channels / 32)
        return {
            f"{kind}: square": times * work.plane_words,
            f"{kind}: pixel": times * work.height * work.width,
        }
    kind = "to planar" if work.to_planar else "from planar"
    rows = work.channels * work.height
    gaps = work.channels * work.elements - rows * work.width
    return {
        f"{kind}: element": rows * work.width,
        f"{kind}: row": rows,
        f"{kind}: gap": gaps if work.to_planar else 0,
    }
