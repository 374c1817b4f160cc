"""The listing of operators holds all that the tables hold, and the README has it as it is."""

from __future__ import annotations

from collections import Counter

from bnncc.frontends.onnx.qonnx import ATTRIBUTES, OPERATORS
from bnncc.frontends.onnx.table import TABLE
from bnncc.frontends.tflite import table as tflite
from bnncc.report.coverage import coverage, markdown
from tests.report.readme import COMMAND, README, with_operators


def test_every_operator_is_listed_once() -> None:
    entries = [entry for row in coverage() for entry in row.operators]
    assert Counter(entry.name for entry in entries) == Counter([*TABLE, *OPERATORS])
    listed = [name for entry in entries for name in entry.tflite]
    assert Counter(listed) == Counter([*tflite.TABLE, *tflite.CUSTOM])
    assert {entry.name: entry.attributes for entry in entries}["Gemm"] == (
        "alpha",
        "beta",
        "transB",
    )
    assert OPERATORS.keys() == ATTRIBUTES.keys()


def test_no_cell_breaks_the_table() -> None:
    lines = markdown(coverage()).splitlines()
    assert len(lines) == 2 + len(coverage())
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_the_readme_has_the_table_as_it_is() -> None:
    text = README.read_text("utf-8")
    assert text == with_operators(text), f"{COMMAND} writes it"
