"""Every exception as a message on stderr, a JSON object on stdout where asked for, an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.text import Text

from bnncc.cli.console import messages, print_json, safe
from bnncc.errors import (
    BnnccError,
    Diagnostic,
    InternalError,
    ToolchainError,
    UnsupportedModelError,
)

__all__ = ["diagnostics_json", "exit_code", "reported", "show_diagnostics"]

# As a shell reports a program that the signal ended: 128 + SIGINT, 128 + SIGPIPE.
_INTERRUPTED = 130
_NOBODY_READS = 141

_LABEL = re.compile(r"^  (where|why|help): ", re.MULTILINE)
_TRACEBACK = "BNNCC_TRACEBACK"


@contextlib.contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Turn what the block raises into a message and `typer.Exit` with the exit code."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a full disk is found out here, not at exit
    except (typer.Exit, typer.Abort):
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - none is lost: all are shown
        raise typer.Exit(exit_code(error, as_json)) from None


def exit_code(error: BaseException, as_json: bool) -> int:
    """Report an exception, and return the exit code for it."""
    match error:
        case KeyboardInterrupt():
            return _INTERRUPTED
        case BrokenPipeError():
            _discard_stdout()
            return _NOBODY_READS
        case BnnccError():
            known = error
        case _:
            known = _as_known(error)
            if os.environ.get(_TRACEBACK) == "1":
                trace = "".join(traceback.format_exception(error))
                messages().print(Text(safe(trace)), soft_wrap=True)
    show_diagnostics(known.diagnostics)
    if as_json:
        with contextlib.suppress(OSError):  # stdout may be what failed
            print_json({"error": diagnostics_json(known.diagnostics)})
    return known.exit_code


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Print diagnostics on stderr; on a terminal in colour, with how to learn more."""
    console = messages()
    for diagnostic in diagnostics:
        text = Text(safe(str(diagnostic)))
        text.stylize("bold red", 0, len(f"error[{diagnostic.code}]"))
        text.highlight_regex(_LABEL, "cyan")
        console.print(text, soft_wrap=True)
    if console.is_terminal:
        codes = dict.fromkeys(diagnostic.code for diagnostic in diagnostics)
        commands = ", ".join(f"bnncc explain {code}" for code in codes)
        console.print(Text(f"more: {commands}", style="dim"), soft_wrap=True)


def diagnostics_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    """Return diagnostics as plain dictionaries."""
    return [asdict(diagnostic) for diagnostic in diagnostics]


def _as_known(error: BaseException) -> BnnccError:
    """Return what nobody expected, as one of our own errors."""
    if isinstance(error, MemoryError):
        return UnsupportedModelError("BNN005", "there is not enough memory for this model")
    if isinstance(error, OSError) and not error.filename:
        what = "the output cannot be written"
        return ToolchainError("BNN050", what, why=error.strerror or str(error))
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f", at {frame.filename}:{frame.lineno} ({frame.name})" for frame in last)
    return InternalError(
        "BNN091",
        "bnncc stopped on something unexpected; this is a bug in bnncc, not in your model",
        where=f"{type(error).__name__}{place}",
        why=str(error),
        help=f"set {_TRACEBACK}=1, run the same command again, and report what it prints",
    )


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, for the interpreter not to trip over it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
