"""The closed set of codes: each is explained, raised somewhere, and triggered by a test."""

from __future__ import annotations

import re
from pathlib import Path

from bnncc.errors import EXPLANATIONS, UnsupportedModelError, UsageError, printable

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"BNN\d{3}")


def codes_in(folder: str, *, quoted: bool, without: str) -> set[str]:
    """Return the codes that the Python files of a folder name, one file left out."""
    pattern = re.compile(r'"BNN\d{3}"') if quoted else CODE
    return {
        found.strip('"')
        for path in (ROOT / folder).rglob("*.py")
        if path.name != without
        for found in pattern.findall(path.read_text(encoding="utf-8"))
    }


def test_every_code_is_raised_and_every_raised_code_is_explained() -> None:
    assert codes_in("bnncc", quoted=True, without="errors.py") == set(EXPLANATIONS)


def test_every_code_is_triggered_by_a_test() -> None:
    assert set(EXPLANATIONS) <= codes_in("tests", quoted=False, without="test_errors.py")


def test_codes_are_listed_in_order() -> None:
    assert list(EXPLANATIONS) == sorted(EXPLANATIONS)


def test_all_diagnostics_of_a_model_are_printed() -> None:
    first = UnsupportedModelError("BNN007", "one", where="a", why="b", help="c").diagnostics[0]
    second = UnsupportedModelError("BNN008", "two").diagnostics[0]
    assert str(UnsupportedModelError.of([first, second])) == (
        "error[BNN007]: one\n  where: a\n  why:   b\n  help:  c\nerror[BNN008]: two"
    )
    assert UsageError("BNN020", "x").exit_code == 2


def test_names_are_safe_to_print() -> None:
    assert printable("a\n\x1b[31m") == "a\\n\\x1b[31m"
    assert len(printable("x" * 10_000)) == 80
