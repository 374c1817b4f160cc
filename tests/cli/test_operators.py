"""`bnncc operators`: all that is taken, one operator by any of its names, and no other."""

from __future__ import annotations

import pytest

from bnncc.report.coverage import coverage, markdown
from tests.cli.builders import pure_json


@pytest.mark.parametrize("columns", [80, 150])
def test_all_are_listed(run, columns):
    result = run("operators", columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    words = set(result.stdout.replace(",", " ").replace(";", " ").split())
    for row in coverage():
        assert f"\n{row.title}\n" in result.stdout
        for entry in row.operators:
            assert words >= {entry.name, *entry.tflite, *entry.torch}


@pytest.mark.parametrize("name", ["Gemm", "gemm", "FULLY_CONNECTED", "Linear"])
def test_one_is_looked_up_by_any_of_its_names(run, name):
    assert run("operators", name).stdout == (
        "\n"
        "dense layers\n"
        "  ONNX                  Gemm (alpha, beta, transB)\n"
        "  TFLite                FULLY_CONNECTED\n"
        "  PyTorch               Linear\n"
        "  limits                by constant weights; MatMul of tokens as well\n"
        "  between binary layers XNOR and popcount\n"
    )


def test_as_json(run):
    value = pure_json(run("operators", "--json").stdout)["operators"]
    assert [row["title"] for row in value] == [row.title for row in coverage()]
    (dense,) = pure_json(run("operators", "matmul", "--json").stdout)["operators"]
    assert dense == {
        "title": "dense layers",
        "limits": "by constant weights; MatMul of tokens as well",
        "bits": "XNOR and popcount",
        "operators": [{"name": "MatMul", "attributes": [], "tflite": [], "torch": ["matmul"]}],
    }


def test_as_markdown(run):
    assert run("operators", "--markdown").stdout == markdown(coverage())


def test_an_operator_that_is_not_taken(run):
    result = run("operators", "Ein\x1bsum")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'error[BNN020]: bnncc takes no operator called "Ein\\x1bsum"\n'
        "  help:  `bnncc operators` lists all that it takes\n"
    )
