"""`python -m tests.report.readme` writes the table of operators into the README anew."""

from __future__ import annotations

import re
from pathlib import Path

import bnncc
from bnncc.report.coverage import coverage, markdown

README = Path(bnncc.__file__).parents[1] / "README.md"
COMMAND = "python -m tests.report.readme"
FIRST, LAST = f"<!-- operators: {COMMAND} -->\n", "<!-- end of operators -->\n"


def with_operators(text: str) -> str:
    """Return the README's text with the table of now between its two marks."""
    new, count = re.subn(
        f"(?s)({re.escape(FIRST)}).*?({re.escape(LAST)})",
        lambda marks: f"{marks[1]}\n{markdown(coverage())}\n{marks[2]}",
        text,
    )
    assert count == 1, "the README has no place for the table of operators"
    return new


if __name__ == "__main__":
    README.write_text(with_operators(README.read_text("utf-8")), "utf-8", newline="\n")
