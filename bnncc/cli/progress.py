"""A progress bar on stderr, for people who wait: on a terminal, once the work has lasted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bnncc.cli.console import messages
from bnncc.errors import printable

__all__ = ["progress_bar"]

_PATIENCE = 0.4
"""Seconds that pass before the bar appears: most models are done by then."""


@contextlib.contextmanager
def progress_bar(
    console: Console | None = None, patience: float = _PATIENCE
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function to call with what is being done, how many steps are done, and of how many.

    The bar appears after `patience` seconds, by itself even if a single step takes longer, and
    disappears with the block. Where stderr is no terminal there is none.
    """
    console = console or messages()
    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("starting", total=None)
    lock = threading.Lock()
    finished = False

    def show() -> None:
        with lock:
            if not finished:
                bar.start()

    def report(what: str, done: int, total: int) -> None:
        description = printable(what.replace("_", " "))
        bar.update(task, description=description, completed=done, total=total)

    timer = threading.Timer(patience, show)
    timer.daemon = True
    timer.start()
    try:
        yield report
    finally:
        timer.cancel()
        with lock:
            finished = True
            bar.stop()
