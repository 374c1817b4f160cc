"""What nobody may miss, on stderr, behind everything else that a command prints."""

from __future__ import annotations

import contextlib
import warnings as python_warnings
from collections.abc import Iterator, Sequence

from rich import box
from rich.panel import Panel
from rich.text import Text

from bnncc.cli.console import messages, safe
from bnncc.errors import Diagnostic
from bnncc.report import LostSignWarning

__all__ = ["show_warnings", "shown_not_warned"]


@contextlib.contextmanager
def shown_not_warned() -> Iterator[None]:
    """Keep quiet, in the block, what `show_warnings` says in full at the end."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", LostSignWarning)
        yield


def show_warnings(warnings: Sequence[Diagnostic]) -> None:
    """Print a panel for each warning."""
    console = messages()
    for warning in warnings:
        title = f"WARNING {warning.code}"
        console.print()
        console.print(Panel(_text(warning), box=box.HEAVY, title=title, border_style="bold red"))


def _text(warning: Diagnostic) -> Text:
    text = Text(safe(warning.what))
    text.stylize("bold")
    for label, aspect in (("where", warning.where), ("why", warning.why), ("help", warning.help)):
        text.append(f"\n\n{label}: ", "cyan")
        text.append(safe(aspect))
    return text
