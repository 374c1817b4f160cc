"""Compile the generated C into a shared library that this process can load.

The library holds the model's own C, unchanged, and the harness of templates/harness.c.j2. Several
models may share one library, and one call of the compiler; they then share the runtime's text too.
"""

from __future__ import annotations

import functools
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bnncc.backend.amalgamate import amalgamate
from bnncc.backend.emit import render
from bnncc.compiler import Compilation
from bnncc.errors import ToolchainError, UsageError, printable
from bnncc.targets import Target, host_target

__all__ = ["build_library", "find_compiler", "host_flags", "machine_flags"]

_COMPILERS = ("cc", "gcc", "clang")
_NATIVE = "-march=native"
_FLAGS = ("-O3", "-std=c99", "-fPIC", "-shared")
_HARNESS = "bnn_harness.c"  # no model can be called that: identifiers never start with bnn_
_TIMEOUT_S = 900.0
# What changes results, or switches the whole process that loads the library to flush-to-zero. The
# generated C refuses some of these itself, but no compiler tells it about all.
_INEXACT = frozenset(
    {
        "-Ofast",
        "-fassociative-math",
        "-ffast-math",
        "-ffinite-math-only",
        "-fno-signed-zeros",
        "-freciprocal-math",
        "-fsingle-precision-constant",
        "-funsafe-math-optimizations",
        "-mdaz-ftz",
    }
)
_SHOWN_LINES = 20
_INDENT = "\n         "  # lines up with what follows `why:` in a printed Diagnostic


def find_compiler(compiler: str = "") -> tuple[str, ...]:
    """Return the command that runs the C compiler: a program that exists, and arguments.

    Args:
        compiler: a program or a command line such as "ccache gcc" or "zig cc"; where it is empty,
            the environment's CC counts, then the first of cc, gcc and clang that is there.

    Raises:
        ToolchainError: BNN040, if there is none; one asked for by name is never replaced.
    """
    if platform.system() == "Windows":
        raise ToolchainError(
            "BNN040",
            "the generated C cannot be built and run from Python on Windows yet",
            help="use WSL; `bnncc compile` works here, and its C is for any C99 compiler",
        )
    for text, origin in ((compiler, "as asked for"), (os.environ.get("CC", ""), "from CC")):
        if text.strip():
            return _command(text, origin)
    for name in _COMPILERS:
        path = shutil.which(name)
        if path:
            return (path,)
    raise ToolchainError(
        "BNN040",
        "no C compiler was found",
        why=f"none of {', '.join(_COMPILERS)} is on PATH",
        help="install gcc (Debian, Ubuntu: apt install gcc libc6-dev) or clang, or set CC",
    )


def _command(text: str, origin: str) -> tuple[str, ...]:
    """Return the command a text stands for: one program, spaces and all, or shell words."""
    whole = shutil.which(text)
    if whole:
        return (whole,)
    try:
        program, *arguments = shlex.split(text)
    except ValueError as error:  # an open quote, or nothing but a comment
        program, arguments, why = text, [], str(error)
    else:
        why = "it is not on PATH, or it may not be executed"
    path = shutil.which(program)
    if path:
        return (path, *arguments)
    raise ToolchainError(
        "BNN040",
        f'the C compiler "{printable(program)}" was not found',
        where=origin,
        why=why,
        help="install it, or name another one, such as gcc or clang, in CC",
    )


def host_flags(command: tuple[str, ...], target: Target) -> tuple[str, ...]:
    """Return the flags that let code for `target` use all this machine has.

    The target's own where it has some. Else -march=native where the target is this machine or any
    machine, and the compiler knows the flag. It changes the speed alone: no bit of a result depends
    on it (see runtime_c/bnn_real.h).

    Raises:
        ToolchainError: BNN041, if this machine lacks instructions that the target's code has.
    """
    if target.cflags:
        missing = sorted(set(target.macros) - _macros(command, _NATIVE))
        if missing:
            raise ToolchainError(
                "BNN041",
                f"this machine cannot run code for {target.name}",
                why=f"{_NATIVE} gives the C compiler no {', '.join(missing)}",
                help=f"compile for --target {host_target().name} to run it here",
            )
        return target.cflags
    at_home = target.name in ("generic", host_target().name)
    return (_NATIVE,) if at_home and _accepts(command, _NATIVE) else ()


def machine_flags(command: tuple[str, ...], targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the flags for code of several targets: those of the one with most of its own."""
    flags = [host_flags(command, target) for target in targets]
    own = [each for each, target in zip(flags, targets, strict=True) if target.cflags]
    return max(own, key=len) if own else min(flags, key=len)


@functools.cache
def _accepts(command: tuple[str, ...], flag: str) -> bool:
    """Whether the compiler takes a flag without an error or a warning."""
    arguments = [*command, "-Werror", flag, "-x", "c", "-fsyntax-only", os.devnull]
    return _run(arguments, _TIMEOUT_S)[0] == 0


@functools.cache
def _macros(command: tuple[str, ...], flag: str) -> frozenset[str]:
    """Return the names of all macros that the compiler defines with a flag; none if it fails."""
    arguments = [*command, flag, "-x", "c", "-dM", "-E", os.devnull]
    status, output = _run(arguments, _TIMEOUT_S)
    lines = output.splitlines() if status == 0 else []
    return frozenset(line.split()[1] for line in lines if line.startswith("#define "))


def build_library(
    compilations: Sequence[Compilation],
    folder: Path,
    *,
    compiler: str = "",
    timeout_s: float = _TIMEOUT_S,
) -> Path:
    """Return the path of the models' shared library, built in `folder` with -O3 for this machine.

    The environment's CFLAGS come last and win. Nothing else of `folder` is needed afterwards.

    Args:
        compilations: what to build, at least one; their names differ. Their targets may be other
            machines, their C is portable.
        folder: an existing one of the caller's own.
        compiler: see `find_compiler`.
        timeout_s: after which the compiler is stopped.

    Raises:
        UsageError: BNN020 if two models have one name, which is that of their C functions.
        ToolchainError: BNN040 without a compiler, BNN041 if it rejects the code or takes too long.
        OSError: the folder cannot be written.
    """
    _refuse_shared_names(compilations)
    command = find_compiler(compiler)
    machine = machine_flags(command, [compilation.target for compilation in compilations])
    flags = (*_FLAGS, *machine, *_environment_flags())
    _refuse_inexact((*command[1:], *flags))
    harness = "\n".join(render("harness.c.j2", c.program) for c in compilations)
    texts = {_HARNESS: harness, **dict(_sources(compilations))}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    library = folder / "model.so"
    arguments = [*command, *flags, os.fspath(folder / _HARNESS), "-o", os.fspath(library)]
    status, output = _run(arguments, timeout_s)
    if status != 0 or not library.is_file():
        raise ToolchainError(
            "BNN041",
            f"the C compiler rejected the code of {_listed(compilations)}",
            where=_without(folder, shlex.join(arguments)),
            why=_tail(_without(folder, output)) or f"it ended with status {status} and no message",
            help="CFLAGS, if set, must suit the compiler; CC names another one; a missing header "
            "means that the C library's development files are not installed (Debian: libc6-dev)",
        )
    return library


def _refuse_shared_names(compilations: Sequence[Compilation]) -> None:
    counts = Counter(compilation.program.name for compilation in compilations)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise UsageError(
            "BNN020",
            f"{count} of the models to load together are called {name}",
            help="give each a name of its own: bnncc.Options(name=...)",
        )


def _sources(compilations: Sequence[Compilation]) -> Iterator[tuple[str, str]]:
    """Yield the files of the models: name and text.

    The runtime's functions may be defined once a translation unit: of several models, the first
    brings what all of them need, and the others bring nothing.
    """
    runtime = ""
    if len(compilations) > 1:
        headers = dict.fromkeys(h for c in compilations for h in c.program.headers)
        runtime = amalgamate(headers)
    for index, compilation in enumerate(compilations):
        program, source = compilation.program, compilation.source
        if runtime:
            source = source.replace(program.runtime, "" if index else runtime, 1)
        yield f"{program.name}.h", compilation.header
        yield f"{program.name}.c", source


def _listed(compilations: Sequence[Compilation]) -> str:
    """Return the models' names, at most three of them."""
    names = [compilation.program.name for compilation in compilations]
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more models"


def _environment_flags() -> list[str]:
    text = os.environ.get("CFLAGS", "")
    try:
        return shlex.split(text)
    except ValueError as error:
        what = f'CFLAGS cannot be read: "{printable(text)}"'
        raise ToolchainError("BNN041", what, why=str(error)) from None


def _refuse_inexact(flags: tuple[str, ...]) -> None:
    found = [flag for flag in flags if flag in _INEXACT]
    if found:
        raise ToolchainError(
            "BNN041",
            f"{' '.join(found)} would change results",
            where="CFLAGS, or the compiler's own arguments",
            help="leave it out; the generated C promises the same bits whatever compiles it",
        )


def _run(arguments: list[str], timeout_s: float) -> tuple[int, str]:
    """Run a compiler and return its exit status and what it printed.

    It runs in a session of its own, so that stopping it also stops the processes it started: a
    driver's cc1 would go on, and hold the pipe open.

    Raises:
        ToolchainError: BNN041, if it cannot be started or takes too long.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        what = f'the C compiler "{printable(Path(arguments[0]).name)}" cannot be started'
        raise ToolchainError("BNN041", what, why=error.strerror or str(error)) from None
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            what = f"the C compiler did not finish within {timeout_s:g} s"
            raise ToolchainError("BNN041", what, help="try CFLAGS=-O1") from None
        except BaseException:  # Ctrl-C does not reach a session that is not the terminal's
            _stop(process)
            raise
    return process.returncode, output.decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def _without(folder: Path, text: str) -> str:
    return text.replace(f"{folder}{os.sep}", "")


def _tail(output: str) -> str:
    """Return the last lines of a compiler's output, indented, safe for a terminal."""
    lines = [line for line in output.splitlines() if line.strip()][-_SHOWN_LINES:]
    return _INDENT.join("".join(c if c.isprintable() else " " for c in line) for line in lines)
