"""Finding a C compiler, and building a model with it."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bnncc.backend.emit import render
from bnncc.compiler import Compilation
from bnncc.errors import ToolchainError
from bnncc.targets import host_target, target_named
from bnncc.verification.build import build_library, find_compiler, host_flags, machine_flags
from tests.models import compilation, mlp

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Werror"
Programs = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CFLAGS", raising=False)


@pytest.fixture(scope="module")
def model() -> Compilation:
    return compilation(mlp((9, 3), 0))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """`programs("gcc", "cc")` makes these the only programs on PATH; returns their folder."""
    folder = tmp_path / "some programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(*names: str, script: str = "exit 0") -> Path:
        for name in names:
            path = folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        return folder

    return make


# --- Which compiler -------------------------------------------------------------------------------


def test_the_argument_wins_over_cc_and_cc_over_what_is_installed(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = programs("cc", "gcc", "clang", "tcc")
    monkeypatch.setenv("CC", "clang")
    assert find_compiler("tcc") == (str(folder / "tcc"),)
    assert find_compiler() == (str(folder / "clang"),)
    monkeypatch.setenv("CC", "  ")
    assert find_compiler() == (str(folder / "cc"),)


def test_gcc_comes_before_clang(programs: Programs) -> None:
    folder = programs("clang", "gcc")
    assert find_compiler() == (str(folder / "gcc"),)


def test_a_compiler_may_have_arguments(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs("ccache", "zig")
    assert find_compiler("ccache gcc '-DX=a b'") == (str(folder / "ccache"), "gcc", "-DX=a b")
    monkeypatch.setenv("CC", "zig cc")
    assert find_compiler() == (str(folder / "zig"), "cc")


def test_a_path_with_spaces_is_one_program(programs: Programs) -> None:
    path = str(programs("gcc") / "gcc")
    assert " " in path
    assert find_compiler(path) == (path,)
    assert find_compiler(f"'{path}' -m64") == (path, "-m64")


def test_no_compiler_at_all(programs: Programs) -> None:
    with pytest.raises(ToolchainError) as caught:
        find_compiler()
    assert str(caught.value) == (
        "error[BNN040]: no C compiler was found\n"
        "  why:   none of cc, gcc, clang is on PATH\n"
        "  help:  install gcc (Debian, Ubuntu: apt install gcc libc6-dev) or clang, or set CC"
    )


@pytest.mark.parametrize(("by_argument", "origin"), [(True, "as asked for"), (False, "from CC")])
def test_a_compiler_asked_for_is_not_replaced_by_another(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, by_argument: bool, origin: str
) -> None:
    programs("cc", "gcc")
    text = "icc\x1b -O2"
    if not by_argument:
        monkeypatch.setenv("CC", text)
    with pytest.raises(ToolchainError) as caught:
        find_compiler(text if by_argument else "")
    assert str(caught.value) == (
        'error[BNN040]: the C compiler "icc\\x1b" was not found\n'
        f"  where: {origin}\n"
        "  why:   it is not on PATH, or it may not be executed\n"
        "  help:  install it, or name another one, such as gcc or clang, in CC"
    )


def test_an_open_quote(programs: Programs) -> None:
    programs("gcc")
    with pytest.raises(ToolchainError) as caught:
        find_compiler("gcc '-O2")
    assert str(caught.value) == (
        'error[BNN040]: the C compiler "gcc \'-O2" was not found\n'
        "  where: as asked for\n"
        "  why:   No closing quotation\n"
        "  help:  install it, or name another one, such as gcc or clang, in CC"
    )


def test_windows_is_refused(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs("gcc")
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(ToolchainError) as caught:
        find_compiler("gcc")
    assert str(caught.value) == (
        "error[BNN040]: the generated C cannot be built and run from Python on Windows yet\n"
        "  help:  use WSL; `bnncc compile` works here, and its C is for any C99 compiler"
    )


# --- Which flags ----------------------------------------------------------------------------------


def test_code_for_this_machine_uses_all_it_has(programs: Programs) -> None:
    (command,) = programs("cc").iterdir()
    for target in (host_target(), target_named("generic")):
        assert host_flags((str(command),), target) == ("-march=native",)
    assert host_flags((str(command),), target_named("cortex-m4")) == ()


def test_a_flag_that_the_compiler_rejects_is_left_out(programs: Programs) -> None:
    (command,) = programs("cc", script='case "$*" in *-march*) exit 1;; esac').iterdir()
    assert host_flags((str(command),), host_target()) == ()


def test_a_target_with_flags_of_its_own_gets_these(programs: Programs) -> None:
    target = target_named("x86-64-v3")
    (command,) = programs("cc", script='echo "#define __AVX2__ 1"').iterdir()
    assert host_flags((str(command),), target) == target.cflags


def test_code_that_this_machine_cannot_run_is_refused(programs: Programs) -> None:
    (command,) = programs("cc", script='echo "#define __AVX512F__ 1"').iterdir()
    with pytest.raises(ToolchainError) as caught:
        host_flags((str(command),), target_named("x86-64-avx512"))
    assert str(caught.value) == (
        "error[BNN041]: this machine cannot run code for x86-64-avx512\n"
        "  why:   -march=native gives the C compiler no __AVX512BW__, __AVX512VPOPCNTDQ__\n"
        f"  help:  compile for --target {host_target().name} to run it here"
    )


def test_models_for_several_targets_share_the_flags_of_the_one_that_needs_most(
    programs: Programs,
) -> None:
    wide, narrow = target_named("x86-64-avx512"), target_named("x86-64-v3")
    defined = "; ".join(f"echo '#define {m} 1'" for m in (*wide.macros, *narrow.macros))
    (command,) = programs("cc", script=defined).iterdir()
    plain = target_named("generic")
    for targets in ([wide, narrow, plain], [plain, narrow, wide]):
        assert machine_flags((str(command),), targets) == wide.cflags
    assert machine_flags((str(command),), [plain, narrow]) == narrow.cflags
    assert machine_flags((str(command),), [plain, target_named("cortex-m4")]) == ()


def test_every_compiler_here_knows_this_machine(cc: str) -> None:
    assert host_flags((cc,), target_named("generic")) == ("-march=native",)


def test_cflags_come_last(
    model: Compilation, any_cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {any_cc} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CFLAGS", "-O1 '-DNAME=a b'")
    build_library([model], tmp_path, compiler=f"{wrapper} -DFIRST")
    (call,) = [line for line in (tmp_path / "calls").read_text().splitlines() if "-shared" in line]
    words = call.split()
    assert words[0] == "-DFIRST"
    assert words.index("-O3") < words.index("-march=native") < words.index("-O1")
    assert "-DNAME=a b" in call


@pytest.mark.parametrize(
    ("cflags", "arguments"),
    [
        ("-g -Ofast", ""),
        ("-ffast-math", " -O2"),
        ("", " -funsafe-math-optimizations"),
        ("-fno-signed-zeros", " -fassociative-math"),
    ],
)
def test_flags_that_change_results_are_refused(
    model: Compilation, any_cc: str, tmp_path: Path, cflags: str, arguments: str
) -> None:
    unsafe = [f for f in f"{arguments} {cflags}".split() if f not in ("-g", "-O2")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CFLAGS", cflags)
        with pytest.raises(ToolchainError) as caught:
            build_library([model], tmp_path, compiler=any_cc + arguments)
    assert str(caught.value) == (
        f"error[BNN041]: {' '.join(unsafe)} would change results\n"
        "  where: CFLAGS, or the compiler's own arguments\n"
        "  help:  leave it out; the generated C promises the same bits whatever compiles it"
    )
    assert list(tmp_path.iterdir()) == []


def test_cflags_with_an_open_quote(
    model: Compilation, any_cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-DX='1")
    with pytest.raises(ToolchainError) as caught:
        build_library([model], tmp_path, compiler=any_cc)
    assert str(caught.value) == (
        'error[BNN041]: CFLAGS cannot be read: "-DX=\'1"\n  why:   No closing quotation'
    )


# --- Building -------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [mlp((9, 5, 3), 1), mlp((70, 9), 2, uint8=True, alpha=True)])
def test_model_and_harness_compile_without_a_warning(
    graph, cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for standard in ("-std=c99", "-std=c11"):
        monkeypatch.setenv("CFLAGS", f"{STRICT} {standard}")
        assert build_library([compilation(graph)], tmp_path, compiler=cc).is_file()


def test_several_models_compile_together_without_a_warning(
    cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", STRICT)
    graphs = [mlp((9, 5, 3), 1), mlp((70, 9), 2, uint8=True, alpha=True)]
    models = [compilation(graph, name=f"m{i}") for i, graph in enumerate(graphs)]
    assert build_library(models, tmp_path, compiler=cc).is_file()


def test_code_for_another_machine_is_built_for_both(programs: Programs, tmp_path: Path) -> None:
    folder = programs("cc", script=f'echo "$*" >> {tmp_path}/calls')
    models = [compilation(mlp((9, 3), 0), t, name=f"m{t[-1]}") for t in ("generic", "cortex-m4")]
    for order in (models, models[::-1]):
        with pytest.raises(ToolchainError, match="no message"):
            build_library(order, tmp_path, compiler=str(folder / "cc"))
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if "-shared" in line]
    assert len(calls) == 2
    assert not any("-march=native" in call for call in calls)


@pytest.mark.parametrize(
    ("count", "listed"), [(1, "m0"), (3, "m0, m1, m2"), (4, "m0, m1 and 2 more models")]
)
def test_the_models_that_a_compiler_rejects_are_named(
    any_cc: str, tmp_path: Path, count: int, listed: str
) -> None:
    models = [compilation(mlp((9, 3), 0), name=f"m{i}") for i in range(count)]
    models[-1] = dataclasses.replace(models[-1], source="#error broken\n")
    with pytest.raises(ToolchainError) as caught:
        build_library(models, tmp_path, compiler=any_cc)
    assert caught.value.diagnostics[0].what == f"the C compiler rejected the code of {listed}"


@pytest.mark.parametrize("name", ["time", "string", "stdint", "stddef", "stdlib"])
def test_a_model_may_be_called_like_a_system_header(any_cc: str, tmp_path: Path, name: str) -> None:
    model = compilation(mlp((9, 3), 0), name=name)
    assert build_library([model], tmp_path, compiler=any_cc).is_file()


def test_the_harness_is_no_part_of_the_product(model: Compilation) -> None:
    assert "harness" not in model.header + model.source
    assert "_POSIX_C_SOURCE" in render("harness.c.j2", model.program)


def test_what_the_compiler_says_is_shown(model: Compilation, cc: str, tmp_path: Path) -> None:
    lines = model.source.splitlines()
    many = "\n".join(f"#error complaint {i}" for i in range(100))
    broken = dataclasses.replace(model, source=f"{model.source}\n{many}\n")
    with pytest.raises(ToolchainError) as caught:
        build_library([broken], tmp_path, compiler=cc)
    (found,) = caught.value.diagnostics
    assert (found.code, found.what) == ("BNN041", "the C compiler rejected the code of model")
    shown = found.why.split("\n         ")
    assert len(shown) == 20
    assert str(tmp_path) not in str(caught.value)
    assert found.where.startswith(f"{cc} -O3 -std=c99 -fPIC -shared")
    assert found.where.endswith(" bnn_harness.c -o model.so")
    assert any("complaint" in line and f"model.c:{len(lines)}" not in line for line in shown)


def test_a_compiler_that_fails_without_a_word(
    model: Compilation, programs: Programs, tmp_path: Path
) -> None:
    programs("cc", script='case "$*" in *-shared*) exit 7;; esac')
    with pytest.raises(ToolchainError, match="it ended with status 7 and no message"):
        build_library([model], tmp_path)


def test_a_compiler_that_writes_nothing(
    model: Compilation, programs: Programs, tmp_path: Path
) -> None:
    programs("cc")
    with pytest.raises(ToolchainError, match="it ended with status 0 and no message"):
        build_library([model], tmp_path)


def test_a_compiler_that_is_no_program(
    model: Compilation, programs: Programs, tmp_path: Path
) -> None:
    (programs("cc") / "cc").write_bytes(b"\x7fELF\x00garbage")
    with pytest.raises(ToolchainError) as caught:
        build_library([model], tmp_path)
    assert caught.value.code == "BNN041"
    assert caught.value.diagnostics[0].what == 'the C compiler "cc" cannot be started'
    assert caught.value.diagnostics[0].why == "Exec format error"


def test_a_compiler_that_hangs_is_stopped_with_all_it_started(
    programs: Programs, tmp_path: Path
) -> None:
    sleep = shutil.which("sleep", path=os.defpath)
    programs("cc", script=f"{sleep} 600 &\necho $! > {tmp_path}/child\nwait")
    model = compilation(mlp((9, 3), 0), "cortex-m4")  # no flag to try out first
    started = time.monotonic()
    with pytest.raises(ToolchainError) as caught:
        build_library([model], tmp_path, timeout_s=1)
    assert str(caught.value) == (
        "error[BNN041]: the C compiler did not finish within 1 s\n  help:  try CFLAGS=-O1"
    )
    assert time.monotonic() - started < 60
    _await_end(int((tmp_path / "child").read_text()))


def _await_end(process: int) -> None:
    """Wait until a process that is not our child is gone, or a zombie that nobody collects."""
    for _ in range(500):
        try:
            os.kill(process, 0)
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    pytest.fail(f"process {process} still runs")
