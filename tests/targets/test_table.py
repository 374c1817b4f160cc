"""The table of targets: sane rows, and errors that name what there is."""

from __future__ import annotations

import platform
import re
import subprocess

import pytest

from bnncc.errors import UsageError
from bnncc.targets import TARGETS, Target, host_target, load_kernels, table, target_named

EACH_TARGET = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def test_names_are_distinct_and_ordered_from_the_most_general() -> None:
    names = [target.name for target in TARGETS]
    assert len(set(names)) == len(names)
    assert names[0] == "generic"


@EACH_TARGET
def test_a_row_is_sane(target: Target) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", target.name)  # to be typed after --target
    assert target.description
    assert not target.description.endswith(".")
    assert target.word_bits in {32, 64}
    assert target.lanes >= 1


@EACH_TARGET
def test_the_isas_end_in_the_one_that_is_total(target: Target) -> None:
    assert target.isas[-1] == "scalar"
    assert len(set(target.isas)) == len(target.isas)
    assert set(target.isas) <= {kernel.isa for kernel in load_kernels()}


@EACH_TARGET
def test_compilers_define_the_macros_with_the_flags(target: Target, tool) -> None:
    assert bool(target.macros) == bool(target.cflags)
    if target.macros and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("this compiler is not one for x86-64")
    for compiler in ("gcc", "clang") if target.macros else ():
        command = [tool(compiler), *target.cflags, "-dM", "-E", "-x", "c", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert set(target.macros) <= set(done.stdout.split())


@EACH_TARGET
def test_a_target_is_found_by_its_name(target: Target) -> None:
    assert target_named(target.name) is target


@pytest.mark.parametrize("name", ["", "x86", "X86-64", "avx2", "generic ", "cortex-m99"])
def test_an_unknown_target_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        target_named(name)
    known = ", ".join(target.name for target in TARGETS)
    assert str(caught.value) == (
        f'error[BNN020]: unknown target "{name}"\n  help:  choose one of: {known}'
    )
    assert caught.value.exit_code == 2


def test_an_unknown_target_is_printed_without_control_characters() -> None:
    with pytest.raises(UsageError) as caught:
        target_named("\x1b[31mred\x1b[0m")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "x86-64"),
        ("AMD64", "x86-64"),
        ("aarch64", "aarch64"),
        ("arm64", "aarch64"),
        ("riscv64", "generic"),
        ("armv7l", "generic"),
        ("", "generic"),
    ],
)
def test_the_host(monkeypatch: pytest.MonkeyPatch, machine: str, name: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert host_target().name == name


def test_every_host_is_in_the_table() -> None:
    assert set(table._HOSTS.values()) <= {target.name for target in TARGETS}
