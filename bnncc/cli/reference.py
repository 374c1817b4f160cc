"""What can be looked up without a model: error codes and targets."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

from bnncc.cli.console import items, plain_table, print_json, show_table
from bnncc.errors import EXPLANATIONS, UsageError, printable
from bnncc.targets import TARGETS, Kernel, Target, host_target, load_kernels, select

__all__ = ["explain", "list_targets"]

_WIDEST_TEXT = 88
_WIDE_LAYER = 4096
"""Channels of a layer that is wide enough for the widest kernel."""


def explain(console: Console, code: str | None, *, as_json: bool) -> None:
    """Print what an error code means, or each code with the first sentence of that.

    Raises:
        UsageError: BNN020, there is no such code.
    """
    if code is None:
        _list_codes(console, as_json=as_json)
        return
    known = code.strip().upper()
    text = EXPLANATIONS.get(known)
    if text is None:
        what = f'no error has the code "{printable(code)}"'
        raise UsageError("BNN020", what, help="`bnncc explain` lists all codes")
    if as_json:
        print_json({"code": known, "explanation": text})
    else:
        console.print(Text(known, style="bold"))
        console.print(Text(text), width=min(console.width, _WIDEST_TEXT))


def _list_codes(console: Console, *, as_json: bool) -> None:
    if as_json:
        codes = [{"code": code, "explanation": text} for code, text in EXPLANATIONS.items()]
        print_json({"codes": codes})
        return
    console.print(Text("Error codes; `bnncc explain CODE` says more of one.", style="bold"))
    items(console, "", [(code, _first_sentence(text)) for code, text in EXPLANATIONS.items()])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def list_targets(console: Console, *, as_json: bool) -> None:
    """Print every target with the kernels that wide layers use there."""
    if as_json:
        host = host_target().name
        print_json({"host": host, "targets": [_target_json(target) for target in TARGETS]})
        return
    columns = [("target", "fixed"), ("words", "fixed"), ("for", "text")]
    table = plain_table(*columns, ("kernels of wide layers", "fixed"))
    for target in TARGETS:
        here = target == host_target()
        description = f"{'this machine: ' if here else ''}{target.description}"
        kernels = "\n".join(kernel.symbol for kernel in _kernels(target))
        name = Text(target.name, style="bold green" if here else "bold")
        table.add_row(name, f"{target.word_bits}-bit", description, kernels)
    show_table(console, table)


def _kernels(target: Target) -> list[Kernel]:
    operations = dict.fromkeys(kernel.computes for kernel in load_kernels())
    return [select(operation, _WIDE_LAYER, target).kernel for operation in operations]


def _target_json(target: Target) -> dict[str, Any]:
    kernels = [
        {"operation": kernel.computes, "symbol": kernel.symbol, "isa": kernel.isa}
        for kernel in _kernels(target)
    ]
    return {
        "name": target.name,
        "description": target.description,
        "word_bits": target.word_bits,
        "isas": list(target.isas),
        "kernels": kernels,
    }
