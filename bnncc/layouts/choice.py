"""The choice of layouts for a network: the fastest or the smallest, within limits."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from bnncc.backend.program import Layer, Program
from bnncc.errors import Diagnostic, UnsupportedModelError, printable
from bnncc.layouts.costs import Cost, Size, size_of
from bnncc.layouts.problem import Barred, Conversion, Either, Price, Problem
from bnncc.passes.base import Family, Pixels

__all__ = ["Choice", "Goal", "Optimize", "choose"]


class Optimize(enum.Enum):
    """What to spend least of."""

    SPEED = "speed"
    """Time."""
    SIZE = "size"
    """Flash; then the RAM of layers, then time."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of a program.

    Attributes:
        optimize: see there.
        max_flash, max_ram: bytes that it may take; None where that is not asked.
    """

    optimize: Optimize = Optimize.SPEED
    max_flash: int | None = None
    max_ram: int | None = None


@dataclass(frozen=True)
class Choice:
    """Which layers are computed on planes of pixels.

    Attributes:
        unit: of times.
        pixels: those.
        eithers: what there was to choose.
        moved: the tensors that are moved between the layouts, and what that takes.
    """

    unit: str
    pixels: Pixels
    eithers: tuple[Either, ...]
    moved: tuple[tuple[Conversion, Cost], ...]

    @property
    def asked(self) -> Pixels:
        """Those that are to be computed so, or to be refused: it was demanded."""
        demanded = {Family.SHARED, Family.LEAN}
        refused = (e for e in self.eithers if e.demanded in demanded and not e.slices)
        return {**self.pixels, **{e.result: e.demanded for e in refused}}

    @property
    def time(self) -> float:
        """What all that was chosen takes, moves included."""
        chosen = sum(either.taken(self.pixels).time for either in self.eithers)
        return chosen + sum(cost.time for _, cost in self.moved)

    def family(self, either: Either) -> Family:
        """Return the family of a layer as chosen."""
        return self.pixels.get(either.result, Family.DENSE)


def choose(problem: Problem, goal: Goal) -> Choice:
    """Return the cheapest choice within the limits, each try measured on its program.

    Raises:
        UnsupportedModelError: BNN031, nothing that was tried fits.
    """
    if goal.max_flash is not None or goal.max_ram is not None:
        pixels = _fitting(problem, goal)
    elif goal.optimize is Optimize.SIZE:
        pixels = _smallest(problem)
    else:
        pixels = problem.cheapest(_time())
    moved = tuple(problem.moved(pixels))
    return Choice(problem.costs.unit, pixels, problem.eithers, moved)


# --- Prices ---------------------------------------------------------------------------------------

_PARTS = 1024
"""Of a unit of time, or of a byte's price in it, that prices count."""


def _time(price_of_flash: float = 0.0) -> Price:
    """Return a price of time, and of flash in units of time a byte."""
    return lambda cost: round(_PARTS * (cost.time + price_of_flash * cost.flash))


def _size(cost: Cost) -> int:
    """Return a price of flash, then RAM, then time: none of them ever makes up for one before."""
    return (cost.flash << 128) + (cost.ram << 64) + _time()(cost)


def _smallest(problem: Problem, barred: Barred = frozenset()) -> Pixels:
    """Return the choice of least flash of what is not barred.

    No layer's price holds the functions that all shared sums call, so that a few of them may gain
    less than these take: measured is without any, too.
    """
    some, none = problem.cheapest(_size, barred), _demanded(problem)
    if some == none:
        return some
    sizes = [(problem.size(pixels), pixels) for pixels in (none, some)]
    return min(sizes, key=lambda pair: (pair[0].flash, pair[0].ram))[1]


def _demanded(problem: Problem) -> Pixels:
    """Return the choice of as few on planes as were demanded."""
    return problem.cheapest(
        _size, frozenset((e.result, family) for e in problem.eithers for family in e.slices)
    )


# --- Limits ---------------------------------------------------------------------------------------


def _within(problem: Problem, goal: Goal, most: int | None, barred: Barred) -> Pixels | None:
    """Return the best choice, of at most so many predicted bytes of flash; None if none is."""
    if goal.optimize is Optimize.SIZE:
        return None if most is not None else _smallest(problem, barred)
    pixels = problem.cheapest(_time(), barred)
    if most is None or problem.total(pixels).flash <= most:
        return pixels
    least = problem.cheapest(_size, barred)
    if problem.total(least).flash > most:
        return None
    return _promoted(problem, _traded(problem, most, barred, least), most, barred)


_HALVINGS = 30


def _traded(problem: Problem, most: int, barred: Barred, least: Pixels) -> Pixels:
    """Return the fastest choice that fits for any price of flash; `least` fits."""
    low, high = 0.0, 1e-6
    while problem.total(problem.cheapest(_time(high), barred)).flash > most and high < 1e12:
        low, high = high, 8 * high
    best = least
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        pixels = problem.cheapest(_time(middle), barred)
        total = problem.total(pixels)
        if total.flash > most:
            low = middle
        else:
            high = middle
            best = min(best, pixels, key=lambda p: problem.total(p).time)
    return best


def _promoted(problem: Problem, pixels: Pixels, most: int, barred: Barred) -> Pixels:
    """Return a choice that is no slower, with more layers on planes where they still fit.

    Prices of flash find only choices that are best for some price; what is left over is spent here.
    """
    free = (e for e in problem.eithers if e.demanded is Family.AUTO and not e.pool)
    steps = [(e, family) for e in free for family in e.slices if (e.result, family) not in barred]
    for either, family in sorted(steps, key=lambda step: _gain(*step), reverse=True):
        more = {**pixels, either.result: family}
        total = problem.total(more)
        if total.flash <= most and total.time < problem.total(pixels).time:
            pixels = more
    return pixels


def _gain(either: Either, family: Family) -> float:
    """Return the time that a byte of flash saves."""
    dense, slices = either.dense, either.slices[family]
    return (dense.time - slices.time) / max(1, slices.flash - dense.flash)


def _fitting(problem: Problem, goal: Goal) -> Pixels:
    """Return the best choice found of which the program fits.

    Raises:
        UnsupportedModelError: BNN031.
    """
    barred = _too_large(problem, goal.max_ram)
    most: int | None = None
    while True:
        pixels = _within(problem, goal, most, barred)
        last = pixels is None  # by prediction; the smallest may fit nevertheless
        pixels = _smallest(problem, barred) if pixels is None else pixels
        size = problem.size(pixels)
        if goal.max_ram is not None and size.ram > goal.max_ram:
            more = _largest(problem, pixels)
            if not more:
                break
            barred |= more
        elif goal.max_flash is not None and size.flash > goal.max_flash:
            if last:
                break
            most = problem.total(pixels).flash - (size.flash - goal.max_flash)
        else:
            return pixels
    raise UnsupportedModelError.of(_refusals(problem, goal))


def _too_large(problem: Problem, most: int | None) -> Barred:
    """Return those that alone take more RAM than there is."""
    return frozenset(
        (e.result, family)
        for e in problem.eithers
        for family, cost in e.slices.items()
        if e.demanded is Family.AUTO and most is not None and cost.ram > most
    )


def _largest(problem: Problem, pixels: Pixels) -> Barred:
    """Return those of a choice that take the most RAM, of what need not be as it is."""
    free = [e for e in problem.eithers if e.result in pixels and e.demanded is Family.AUTO]
    taken = {(e.result, pixels[e.result]): e.taken(pixels).ram for e in free}
    most = max(taken.values(), default=0)
    return frozenset(one for one, ram in taken.items() if ram == most)


# --- Refusals -------------------------------------------------------------------------------------


def _refusals(problem: Problem, goal: Goal) -> list[Diagnostic]:
    """Return why nothing fits: a diagnostic for each limit that is too low by itself."""
    small = problem.program(_smallest(problem))
    dense = problem.program(_demanded(problem))
    size, least = size_of(small, problem.costs), size_of(dense, problem.costs)
    if least.ram > size.ram:
        dense, least = small, size
    found: list[Diagnostic] = []
    if goal.max_flash is not None and size.flash > goal.max_flash:
        found.append(_too_much("flash", size.flash, goal.max_flash, _flash_text(small, size)))
    if goal.max_ram is not None and least.ram > goal.max_ram:
        found.append(_too_much("RAM", least.ram, goal.max_ram, _ram_text(dense, least)))
    if found:
        return found
    what = "no choice of kernels fits both into the flash and into the RAM"
    why = f"what takes the least flash takes {_sizes(size)}; the least RAM, {_sizes(least)}"
    return [Diagnostic("BNN031", what, why=why, help="raise one of --max-flash and --max-ram")]


def _too_much(kind: str, least: int, limit: int, why: str) -> Diagnostic:
    what = f"the program does not fit into {limit:,} bytes of {kind}"
    option = f"--max-{kind.lower()}"
    return Diagnostic("BNN031", what, why=why, help=f"the least that fits: {option} {least}")


def _sizes(size: Size) -> str:
    return f"{size.flash:,} bytes of flash and {size.ram:,} of RAM"


_NAMED = 3


def _flash_text(program: Program, size: Size) -> str:
    layers = _most((sum(c.nbytes for c in layer.constants), layer) for layer in program.layers)
    return (
        f"the smallest takes {size.flash:,} bytes: {size.constants:,} of constants and about "
        f"{size.code:,} of code; the most is for {layers}"
    )


def _ram_text(program: Program, size: Size) -> str:
    outside = {port.tensor for port in program.inputs + program.outputs}
    layers = _most((_together(layer, outside), layer) for layer in program.layers)
    return (
        f"the smallest takes {size.ram:,} bytes: {size.arena:,} of arena and at most "
        f"{size.stack:,} of stack; the most is read and written by {layers}"
    )


def _together(layer: Layer, outside: set[str]) -> int:
    """Return the bytes of the arena that a layer reads and writes."""
    arguments = layer.inputs + layer.outputs + layer.scratch
    sizes = {a.buffer.tensor: a.buffer.nbytes for a in arguments}
    return sum(size for tensor, size in sizes.items() if tensor not in outside)


def _most(sizes: Iterable[tuple[int, Layer]]) -> str:
    """Return the names of the layers with the largest sizes."""
    largest = sorted(sizes, key=lambda pair: -pair[0])[:_NAMED]
    return ", ".join(f"{printable(layer.name)} ({size:,})" for size, layer in largest)
