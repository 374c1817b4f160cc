"""stdout for results, stderr for people, and everything printed in a form that is fit for both.

Names in a model are untrusted. They are shown without rich's markup and with control characters
escaped, so that no model can colour, move or overwrite what bnncc says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

__all__ = [
    "facts",
    "human_bytes",
    "human_count",
    "items",
    "messages",
    "plain_table",
    "print_json",
    "results",
    "safe",
    "show_table",
]

_NARROWEST_CONSOLE = 80
_LABEL_WIDTH = 11


class _Console(Console):
    """A rich console that leaves a broken pipe to `bnncc.cli.failures`."""

    def on_broken_pipe(self) -> None:
        """Pass on what rich caught; its own answer is to exit with code 1."""
        raise BrokenPipeError


def results() -> Console:
    """Return the console on stdout: at least 80 wide, since rich cuts tables that do not fit."""
    console = _Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, _NARROWEST_CONSOLE)
    return console


def messages() -> Console:
    """Return the console on stderr."""
    return _Console(stderr=True, markup=False, emoji=False, highlight=False)


def safe(text: str) -> str:
    """Return `text` with control characters escaped, but for ends of lines and tabs."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout. NaN and infinities, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _finite(element) for key, element in value.items()}
        case list() | tuple():
            return [_finite(element) for element in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def human_bytes(count: int) -> str:
    """Return a size in two or three digits, such as `1.6 MB`."""
    return _scaled(count, ("B", "kB", "MB", "GB"))


def human_count(count: int) -> str:
    """Return a number in two or three digits, such as `116 M`."""
    return _scaled(count, ("", "k", "M", "G", "T")).rstrip()


def _scaled(count: int, units: Sequence[str]) -> str:
    value, power = float(count), 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 1 if value < 9.95 and power else 0
    return f"{value:.{digits}f} {units[power]}"


def plain_table(*columns: tuple[str, str], gap: int = 2) -> Table:
    """Return a table without frame, narrow enough for 80 characters.

    Args:
        columns: of each the heading, and how it is laid out: "text" folds where the table would
            get too wide, "fixed" and "number" never do. Rich folds several columns anywhere in a
            word, so one at most should be text.
        gap: spaces between columns.
    """
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for heading, layout in columns:
        table.add_column(
            heading,
            justify="right" if layout == "number" else "left",
            no_wrap=layout in ("fixed", "number"),
            overflow="fold",
        )
    return table


@dataclass(frozen=True)
class _Unpadded:
    """A table without the spaces that rich puts behind the last cell of each line."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.table, options, pad=False):
            segments = list(line)
            while segments and not segments[-1].text.strip():
                segments.pop()
            yield from segments[:-1]
            for last in segments[-1:]:
                yield Segment(last.text.rstrip(), last.style)
            yield Segment.line()


def show_table(console: Console, table: Table) -> None:
    """Print a table."""
    console.print(_Unpadded(table))


def facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines. They are left whole, for paths and numbers to be copied from."""
    for label, value in rows:
        line = Text(f"  {label:<{_LABEL_WIDTH}} {safe(value)}")
        line.stylize("cyan", 2, 2 + len(label))
        console.print(line, soft_wrap=True)


def items(console: Console, title: str, entries: Sequence[tuple[str, str]]) -> None:
    """Print a titled list, each entry a mark and a text that wraps beside it; nothing if empty."""
    if not entries:
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, text in entries:
        grid.add_row(f"  {mark}", safe(text))
    console.print()
    if title:
        console.print(Text(title, style="bold"))
    show_table(console, grid)
