"""What `bnncc inspect --kernels` prints: the choice of kernels, and what was not chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from bnncc.cli.console import facts, items, plain_table, show_table
from bnncc.compiler import Compilation
from bnncc.errors import printable
from bnncc.layouts import Choice, Conversion, Cost, Either
from bnncc.passes.base import Family

__all__ = ["kernels_json", "show_kernels"]


def show_kernels(console: Console, compilation: Compilation) -> None:
    """Print a line for each layer and family, what is moved between them, and the sums."""
    choice = _choice(compilation)
    console.print()
    console.print(Text("Kernels", style="bold"))
    if not choice.eithers:
        console.print("No layer sums bits.")
        return
    names = _names(compilation)
    table = plain_table(
        ("layer", "text"),
        ("kernels", "fixed"),
        (choice.unit, "number"),
        ("flash", "number"),
        ("RAM", "number"),
    )
    reasons = list(dict.fromkeys(e.refusal for e in choice.eithers if e.refusal))
    for either in choice.eithers:
        title = names.get(either.result, printable(either.origin[0]))
        for row in _rows(choice, either, reasons):
            table.add_row(title, *row)
            title = ""
    for conversion, cost in choice.moved:
        moved = f"{printable(conversion.tensor)} moved"
        table.add_row(moved, _direction(choice, conversion), *_figures(cost))
    show_table(console, table)
    items(console, "", [(f"({i})", why) for i, why in enumerate(reasons, 1)])
    console.print()
    facts(console, _totals(compilation, choice))


def kernels_json(compilation: Compilation) -> dict[str, Any]:
    """Return the same as plain values."""
    choice, names = _choice(compilation), _names(compilation)
    size = compilation.size
    return {
        "unit": choice.unit,
        "layers": [_either_json(choice, either, names) for either in choice.eithers],
        "moves": [
            {
                "tensor": printable(conversion.tensor),
                "to": _direction(choice, conversion).removeprefix("to "),
                **_cost_json(cost),
            }
            for conversion, cost in choice.moved
        ],
        "predicted_time": choice.time,
        "constant_bytes": size.constants,
        "code_bytes": size.code,
        "arena_bytes": size.arena,
        "stack_bytes": size.stack,
    }


def _choice(compilation: Compilation) -> Choice:
    choice = compilation.lowered.choice
    assert choice is not None  # compile_in_memory makes one
    return choice


def _names(compilation: Compilation) -> Mapping[str, str]:
    """Return what reports call the layers, by the tensor that each makes."""
    titles = {layer.name: layer.title for layer in compilation.report.layers}
    eithers = _choice(compilation).eithers
    own = {e.result: printable(e.origin[0]) for e in eithers}
    pools = {e.result for e in eithers if e.pool}
    return {
        result: f"{name} (pool)" if result in pools else titles.get(name, name)
        for result, name in own.items()
    }


def _rows(choice: Choice, either: Either, reasons: list[str]) -> Iterator[tuple[Text | str, ...]]:
    """Yield the cells of each family, what was chosen marked."""
    note = f" ({reasons.index(either.refusal) + 1})" if either.refusal else ""
    for family, cost in ((Family.DENSE, either.dense), *either.slices.items()):
        chosen = family is choice.family(either)
        demanded = ", as demanded" if either.demanded is family else ""
        text = f"{'*' if chosen else ' '} {family.value}{demanded}{note}"
        yield Text(text, style="bold green" if chosen else ""), *_figures(cost)


def _figures(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.time:,.0f}", f"{cost.flash:,}", f"{cost.ram:,}"


def _direction(choice: Choice, conversion: Conversion) -> str:
    """Return which way a tensor is moved: from what its maker has to what a reader wants."""
    maker = choice.eithers[conversion.maker - 1].result if conversion.maker else ""
    return "to channels" if maker in choice.pixels else "to pixels"


def _totals(compilation: Compilation, choice: Choice) -> list[tuple[str, str]]:
    size = compilation.size
    return [
        ("predicted", f"{choice.time:,.0f} {choice.unit} for these, of a call"),
        ("flash", f"{size.flash:,} bytes: {size.constants:,} constants, about {size.code:,} code"),
        ("RAM", f"{size.ram:,} bytes: {size.arena:,} arena, at most {size.stack:,} stack"),
    ]


def _either_json(choice: Choice, either: Either, names: Mapping[str, str]) -> dict[str, Any]:
    candidates: list[dict[str, Any]] = [{"family": "dense", **_cost_json(either.dense)}]
    candidates += [{"family": f.value, **_cost_json(c)} for f, c in either.slices.items()]
    if not either.slices and either.refusal:
        lean = either.demanded is Family.LEAN
        family = Family.LEAN if lean else Family.SHARED
        candidates.append({"family": family.value, "refused": either.refusal})
    return {
        "name": names[either.result],
        "nodes": [printable(name) for name in either.origin],
        "pool": either.pool,
        "demanded": either.demanded.value,
        "chosen": choice.family(either).value,
        "candidates": candidates,
    }


def _cost_json(cost: Cost) -> dict[str, Any]:
    return {"time": cost.time, "flash": cost.flash, "ram": cost.ram}
