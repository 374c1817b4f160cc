"""What `bnncc operators` prints: which operators of which frontend are taken, and how far."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from rich.console import Console

from bnncc.cli.console import items, print_json
from bnncc.errors import UsageError, printable
from bnncc.report.coverage import Entry, Row, coverage, markdown, with_attributes

__all__ = ["list_operators"]


def list_operators(console: Console, name: str | None, *, as_json: bool, as_markdown: bool) -> None:
    """Print all operators, or what is taken of one, whichever frontend calls it so.

    Raises:
        UsageError: BNN020, bnncc takes none of that name.
    """
    rows = coverage() if name is None else [_only(name)]
    if as_json:
        print_json({"operators": [row.as_json() for row in rows]})
    elif as_markdown:
        typer.echo(markdown(rows), nl=False)
    else:
        for row in rows:
            _show(console, row)


def _only(name: str) -> Row:
    """Return the row of one operator, with nothing else in it."""
    wanted = name.strip().lower()
    for row in coverage():
        found = tuple(entry for entry in row.operators if wanted in _names(entry))
        if found:
            return Row(row.title, row.limits, row.bits, found)
    what = f'bnncc takes no operator called "{printable(name)}"'
    raise UsageError("BNN020", what, help="`bnncc operators` lists all that it takes")


def _names(entry: Entry) -> Iterator[str]:
    return (name.lower() for name in (entry.name, *entry.tflite, *entry.torch))


def _show(console: Console, row: Row) -> None:
    lines = (
        ("ONNX", with_attributes(row.operators)),
        ("TFLite", ", ".join(name for entry in row.operators for name in entry.tflite)),
        ("PyTorch", ", ".join(name for entry in row.operators for name in entry.torch)),
        ("limits", row.limits),
        ("between binary layers", row.bits),
    )
    items(console, row.title, [(label, text) for label, text in lines if text])
