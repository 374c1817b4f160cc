"""The runtime headers as one text: everything once, nothing to look for elsewhere."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from bnncc import resources
from bnncc.backend.amalgamate import amalgamate
from tests.backend.toolchain import DIALECTS, WARNINGS, run
from tests.runtime_c.driver import flags_of

RUNTIME = resources.runtime_dir()
HEADERS = sorted(str(path.relative_to(RUNTIME)) for path in RUNTIME.rglob("*.h"))
SLICES = [header for header in HEADERS if header.startswith("slices/")]
"""Each says what a slice is, in its own way: a program has one."""
SHARED = ("bnn_slices.h", "bnn_planar.h")
"""What needs to know that."""
PORTABLE = [h for h in HEADERS if not flags_of(h) and h not in (*SLICES, *SHARED)]
TOGETHER = [h for h in HEADERS if h not in SLICES]
_DEFINED = re.compile(r"^(?:BNN_INLINE .*?(\w+)\(|#define (\w+))", re.MULTILINE)


def _definitions(text: str) -> set[str]:
    return {function or macro for function, macro in _DEFINED.findall(text)}


@pytest.mark.parametrize("header", HEADERS)
def test_no_local_include_and_no_guard_is_left(header: str) -> None:
    text = amalgamate([header])
    assert '#include "' not in text
    assert not re.search(r"BNN_\w+_H\b", text)
    assert text.endswith("\n")
    assert text.count("#if") == text.count("#endif")


def test_everything_stands_once_and_nothing_is_lost() -> None:
    text = amalgamate(TOGETHER)
    for header in TOGETHER:
        own = (RUNTIME / header).read_text(encoding="utf-8")
        for name in _definitions(own):
            if name.endswith("_H"):
                continue
            defined = re.compile(rf"^(?:BNN_INLINE .*\b{name}\(|#define {name}\b)", re.MULTILINE)
            assert len(defined.findall(text)) == len(defined.findall(own)), name


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_order_compiles(any_cc: str, tmp_path: Path, count: int) -> None:
    # What a header needs comes before it, whichever is asked for first.
    orders = list(itertools.permutations(PORTABLE, count))[:: 1 + 5 * (count - 1)]
    for i, order in enumerate(orders):
        source = tmp_path / f"order{i}.c"
        source.write_text(amalgamate(order) + "int main(void) { return 0; }\n", encoding="utf-8")
    sources = sorted(tmp_path.iterdir())
    run(any_cc, "-fsyntax-only", "-std=c99", *WARNINGS, *sources)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_of_it_compiles_without_a_warning(cc: str, tmp_path: Path, dialect: str) -> None:
    source = tmp_path / "all.c"
    text = amalgamate(PORTABLE) + "int main(void);\nint main(void) { return 0; }\n"
    source.write_text(text, encoding="utf-8")
    run(cc, "-fsyntax-only", *DIALECTS[dialect], *WARNINGS, source)


def test_asking_twice_changes_nothing() -> None:
    assert amalgamate([*HEADERS, *HEADERS]) == amalgamate(HEADERS)
    assert amalgamate(["bnn_bits.h"]).startswith(amalgamate(["bnn_config.h"]))


def test_the_comment_above_a_guard_stays() -> None:
    assert amalgamate(["bnn_bits.h"]).count("/* Population count") == 1
