"""Run a task in a process of its own: what it breaks, it breaks there.

The child is a fork wherever that is safe, so that any object gets there as it is: no pickle, and
classes of a notebook or of `__main__` are as good as any. What comes back are files and JSON.

A fork has one thread, while locks and thread pools of the parent's others stay as they were. So the
child computes with a single thread, prints into a file, and is given a deadline.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Failure", "can_fork", "isolated"]

_FAILURE = "failure.json"
_DONE = "done"
_TRACE = "trace.txt"
_LOG = "log.txt"
_GRACE = 1.0
"""Seconds between the child's own deadline, when it says where it hangs, and its end."""

_FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<name>.*)$', re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple(
    str(path) for path in (Path(os.__file__).parent, "<frozen", "<string>", "<eval_with_key")
)


@dataclass(frozen=True)
class Failure:
    """Why a task did not end well.

    Attributes:
        kind: "raised", "signal", "exit" or "timeout".
        what: the exception's type, the signal's name, the exit code or the seconds.
        message: of the exception, or the last line that the process printed.
        where: the innermost line of code that belongs to no library, as `forward, net.py:12`.
    """

    kind: str
    what: str
    message: str = ""
    where: str = ""


def can_fork() -> bool:
    """Whether a fork of this process is safe. Not on macOS, whose own libraries do not allow it."""
    return sys.platform != "darwin" and hasattr(os, "fork")


@contextlib.contextmanager
def isolated(task: Callable[[Path], None], seconds: float) -> Iterator[Path | Failure]:
    """Run `task` on an empty folder in another process.

    Args:
        task: what to run. Without fork, it is pickled.
        seconds: how long it may take.

    Yields:
        The folder with what the task wrote, which is deleted on leaving; or how the task failed.
    """
    with tempfile.TemporaryDirectory(prefix="bnncc-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        yield _run(task, folder, seconds) or folder / "out"


def _run(task: Callable[[Path], None], folder: Path, seconds: float) -> Failure | None:
    process = _process_class()(target=_child, args=(task, folder, seconds), daemon=True)
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks of processes with threads; see above.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except Exception as error:  # noqa: BLE001 - whatever pickling the user's objects raises
        return Failure("raised", type(error).__name__, _one_line(str(error)))
    try:
        process.join(seconds + _GRACE)
        late = process.is_alive()
    finally:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    return (
        None if (folder / _DONE).exists() and code == 0 else _failure(folder, late, code, seconds)
    )


def _process_class() -> Callable[..., Any]:
    # In two calls: type checkers know what a context has by its literal name alone.
    if can_fork():
        return multiprocessing.get_context("fork").Process
    return multiprocessing.get_context("spawn").Process


def _failure(folder: Path, late: bool, code: int | None, seconds: float) -> Failure:
    if (folder / _FAILURE).exists():
        return Failure(**json.loads((folder / _FAILURE).read_text(encoding="utf-8")))
    trace, log = (_text(folder / name) for name in (_TRACE, _LOG))
    where = _users_own((m["file"], int(m["line"]), m["name"]) for m in _FRAME.finditer(trace))
    printed = log.strip().splitlines()
    message = _one_line(printed[-1]) if printed else ""
    if late:
        return Failure("timeout", f"{seconds:g}", where=where)
    if code is not None and code < 0:
        return Failure("signal", signal.Signals(-code).name, message, where)
    return Failure("exit", str(code), message, where)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _child(task: Callable[[Path], None], folder: Path, seconds: float) -> None:
    _keep_quiet(folder / _LOG)
    trace = (folder / _TRACE).open("w")
    faulthandler.enable(file=trace, all_threads=False)
    faulthandler.dump_traceback_later(seconds, file=trace)
    try:
        task(folder / "out")
    except BaseException as error:  # noqa: BLE001 - SystemExit of the user's code, too
        (folder / _FAILURE).write_text(json.dumps(asdict(_raised(error))), encoding="utf-8")
    else:
        (folder / _DONE).touch()
    faulthandler.cancel_dump_traceback_later()
    faulthandler.disable()
    # Not sys.exit: what the parent registered to be done at its exit is not for the child to do.
    os._exit(0)


def _keep_quiet(log: Path) -> None:
    """Let everything that the process prints, also from C, go to a file; leave no core file."""
    file = log.open("w", buffering=1, encoding="utf-8", errors="replace")
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _raised(error: BaseException) -> Failure:
    """Describe an exception by its root: exporters wrap what the user's code raised."""
    seen = {id(error)}
    while (inner := error.__cause__ or error.__context__) is not None and id(inner) not in seen:
        error = inner
        seen.add(id(error))
    frames = traceback.extract_tb(error.__traceback__)
    where = _users_own((f.filename, f.lineno or 0, f.name) for f in reversed(frames))
    return Failure("raised", type(error).__name__, _one_line(str(error)), where)


def _users_own(frames: Iterator[tuple[str, int, str]]) -> str:
    """Return the first frame, innermost first, that is neither ours nor a library's."""
    for file, line, name in frames:
        if not file.startswith((_OURS, *_LIBRARIES)) and "site-packages" not in file:
            return f"{name}, {Path(file).name}:{line}"
    return ""


def _one_line(text: str) -> str:
    return " ".join(_COLOURS.sub("", text).split())
