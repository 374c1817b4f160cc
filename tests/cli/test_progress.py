"""The progress bar: on a terminal, once the work lasts, and gone afterwards."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from bnncc.cli.progress import progress_bar


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, markup=False)


def wait_for(text, where):
    for _ in range(200):
        if text in where.file.getvalue():
            return
        time.sleep(0.02)
    raise AssertionError(where.file.getvalue())


def test_shows_what_is_being_done():
    screen = console(terminal=True)
    with progress_bar(screen, patience=0) as progress:
        progress("fold_thresholds", 3, 12)
        wait_for("fold thresholds", screen)
        progress("[red]x\x1b[31m", 4, 12)
        wait_for(r"[red]x\x1b[31m", screen)
    assert screen.file.getvalue().endswith("\x1b[2K")  # the line is wiped


def test_not_without_a_terminal():
    screen = console(terminal=False)
    with progress_bar(screen, patience=0) as progress:
        progress("fold_thresholds", 3, 12)
        time.sleep(0.1)
    assert screen.file.getvalue() == ""


def test_not_for_quick_work():
    screen = console(terminal=True)
    with progress_bar(screen, patience=30) as progress:
        progress("fold_thresholds", 3, 12)
    assert "fold" not in screen.file.getvalue()


def test_an_error_removes_it():
    screen = console(terminal=True)

    def work():
        with progress_bar(screen, patience=0) as progress:
            progress("first step", 0, 2)
            wait_for("first step", screen)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert screen.file.getvalue().endswith("\x1b[2K")
