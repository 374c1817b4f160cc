"""What layers take: time by the work they do, flash by their constants and code, RAM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bnncc.backend.planar import planar_work
from bnncc.backend.program import Layer, Program, SharedWork
from bnncc.backend.shared_sums import pixels_work
from bnncc.ir.types import (
    PackedChannels,
    PixelPlanes,
    Planar,
    TensorType,
)
from bnncc.layouts.code import Parts, parts_of_layer, parts_of_program
from bnncc.layouts.work import Work, moving, work_of
from bnncc.passes.share_sums import pitch_of
from bnncc.targets.costs import Costs

__all__ = [
    "Cost",
    "Size",
    "code_bytes",
    "cost_of_layers",
    "cost_of_move",
    "in_pixels",
    "size_of",
    "time_of",
]


@dataclass(frozen=True)
class Cost:
    """What layers take.

    Attributes:
        time: in the unit of the target's costs.
        flash: bytes, of constants and an estimate of the code.
        ram: bytes: of what they read and write at once, and of their stack.
    """

    time: float
    flash: int
    ram: int


@dataclass(frozen=True)
class Size:
    """What a whole program takes.

    Attributes:
        constants, code: bytes of flash, the latter an estimate.
        arena, stack: bytes of RAM, the latter a bound.
    """

    constants: int
    code: int
    arena: int
    stack: int

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.constants + self.code

    @property
    def ram(self) -> int:
        """Bytes of RAM."""
        return self.arena + self.stack


def time_of(work: Work, costs: Costs) -> float:
    """Return how long work takes."""
    return sum(costs.time[name] * count for name, count in work.items())


def code_bytes(parts: Parts, costs: Costs) -> int:
    """Return an estimate of bytes of code; kinds of layers that nobody measured are as others."""
    other = costs.code["other"]
    unknown = {name: 0.0 if ":" in name else other for name in parts}
    return round(sum(costs.code.get(n, unknown[n]) * count for n, count in parts.items()))


def cost_of_layers(layers: Sequence[Layer], costs: Costs) -> Cost:
    """Return what layers take that run one after the other; of their RAM, what the largest does."""
    return Cost(
        time=sum(time_of(work_of(layer), costs) for layer in layers),
        flash=sum(
            code_bytes(parts_of_layer(layer), costs) + sum(c.nbytes for c in layer.constants)
            for layer in layers
        ),
        ram=max(map(_ram, layers)),
    )


def _ram(layer: Layer) -> int:
    arguments = layer.inputs + layer.outputs + layer.scratch
    buffers = {a.buffer.tensor: a.buffer.nbytes for a in arguments}
    return sum(buffers.values()) + _stack(layer)


def _stack(layer: Layer) -> int:
    return layer.work.stack_bytes if isinstance(layer.work, SharedWork) else 0


def in_pixels(kind: TensorType, lanes: int) -> TensorType:
    """Return a tensor of packed bits, or of numbers, in the layout of pixels of the same."""
    if math.prod(kind.shape[2:]) == 1 and not isinstance(kind.layout, PackedChannels):
        return kind  # shared sums read and write one pixel as it is
    pitch = pitch_of(kind.shape[-1])
    if isinstance(kind.layout, PackedChannels):
        return replace(kind, layout=PixelPlanes(pitch, lanes, kind.layout.planes))
    return replace(kind, layout=Planar(pitch, lanes))


def cost_of_move(source: TensorType, result: TensorType, costs: Costs) -> Cost:
    """Return what a move between two layouts takes."""
    if source.layout == result.layout:
        return Cost(0, 0, 0)
    planar = Planar in {type(source.layout), type(result.layout)}
    work = planar_work(source, result) if planar else pixels_work(source, result)
    name = "planar" if planar else "pixels"
    return Cost(
        time_of(moving(work), costs),
        code_bytes({name: 1, "run: call": 1}, costs),
        source.nbytes + result.nbytes,
    )


def size_of(program: Program, costs: Costs) -> Size:
    """Return what a program takes."""
    return Size(
        constants=sum(program.constant_bytes.values()),
        code=code_bytes(parts_of_program(program), costs),
        arena=program.arena_bytes,
        stack=program.stack_bytes,
    )
