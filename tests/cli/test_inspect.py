"""`bnncc inspect`: the layers, why some are not on bits, the sizes, and nothing written."""

from __future__ import annotations

import dataclasses

import pytest

from bnncc.cli.compiled import show_inspection
from bnncc.cli.console import results
from bnncc.compiler import Options, compile_in_memory
from tests.cli.builders import files_in, make_model, pure_json, save

HOSTILE = "[red]x[/red]\x1b[31m"


def test_writes_nothing(run, model, tmp_path):
    assert run("inspect", model).exit_code == 0
    assert files_in(tmp_path) == ["small.onnx"]


def test_layers(run, model):
    lines = run("inspect", model, "--target", "generic", columns=120).stdout.splitlines()
    assert lines[0] == "small.onnx for generic"
    assert lines[1:3] == ["  input       x: float[1][32]", "  output      y: float[1][4]"]
    table = [" ".join(line.split()) for line in lines[4:8]]
    assert table == [
        "layer K x channels weights input kernel bytes",
        "first 32 x 16 binary f32 sign_sum scalar (1) 2.0 kB -> 64 B",
        "hidden 16 x 16 binary bipolar xnor_dense scalar 1.0 kB -> 64 B",
        "last 16 x 4 real f32 real_dense scalar (2) 256 B -> 512 B",
    ]


def test_why_not_bits(run, model):
    text = run("inspect", model).stdout
    reasons = text.partition("\nNot on bits\n")[2].partition("\n\n")[0].splitlines()
    assert reasons == [
        "  (1) its input is real: packed weights, float additions",
        "  (2) 4 of 4 output channels have weights other than +-alpha",
    ]
    assert "Left as it was" not in text  # the layers' reasons are not said twice


def test_totals(run, model):
    text = run("inspect", model).stdout
    assert "  layers      3: 2 with binary weights, 1 computed on bits\n" in text
    assert "  work        768 binary and 64 real MACs a sample\n" in text
    assert "\nNote\n" in text


def test_other_refusals_are_listed(run, model, capsys):
    done = compile_in_memory(model, Options())
    refusals = (*done.report.refusals, ("ge9, where9", "the chain has two readers"))
    report = dataclasses.replace(done.report, refusals=refusals, layers=())
    other = dataclasses.replace(done, report=report)
    show_inspection(results(), other, model, with_graph=False)
    text = capsys.readouterr().out
    assert "The model has no layer with weights." in text
    assert "  - ge9, where9: the chain has two readers" in text


def test_a_real_layer_without_a_reason_is_not_called_binary(run, model, capsys):
    done = compile_in_memory(model, Options())
    layers = tuple(dataclasses.replace(layer, reason="") for layer in done.report.layers)
    report = dataclasses.replace(done.report, layers=layers)
    show_inspection(results(), dataclasses.replace(done, report=report), model, with_graph=False)
    text = capsys.readouterr().out
    assert "  (1) its weights are real" in text
    assert "2 computed on bits" in text


def test_graph(run, model):
    text = run("inspect", model, "--graph").stdout
    assert "\ngraph %small stage=packed\n" in text
    assert "= XnorDense(" in text
    assert "stage=packed" not in run("inspect", model).stdout


def test_json(run, model):
    value = pure_json(run("inspect", model, "--json").stdout)
    assert list(value) == ["inputs", "outputs", "report"]
    assert value["outputs"][0]["name"] == "y"
    with_graph = pure_json(run("inspect", model, "--json", "--graph").stdout)
    assert list(with_graph) == ["inputs", "outputs", "report", "graph"]


def test_names_cannot_speak_to_the_terminal(run, tmp_path):
    names = (HOSTILE, "tab\tand\nline\r:smile:", "\u202eright to left" + "y" * 200)
    path = save(make_model(names, "in" + HOSTILE), tmp_path / "hostile.onnx")
    for result in (run("inspect", path, "--graph", columns=200), run("compile", path)):
        assert result.exit_code == 0, result.stderr
        controls = {c for c in result.stdout if not c.isprintable()} - {"\n"}
        assert controls == set()
    shown = run("inspect", path, columns=300).stdout
    assert r"[red]x[/red]\x1b[31m" in shown
    assert r"in[red]x[/red]\x1b[31m: float[1][32]" in shown
    assert r"tab\tand\nline\r:smile:" in shown
    assert r"\u202eright to left" in shown


@pytest.mark.parametrize("columns", [80, 40])
def test_narrow_terminals(run, tmp_path, columns):
    names = ("/features/features.0/conv1/MatMul_quantised", "hidden", "/classifier/6/MatMul")
    path = save(make_model(names), tmp_path / "small.onnx")
    text = run("inspect", path, "--target", "generic", columns=columns).stdout
    assert max(map(len, text.splitlines())) <= 80
    together = "".join(text.split())
    for whole in ("2.0kB->64B", "1.0kB->", "256B->512B", "16x16", "binary", "bipolar"):
        assert whole in together
    narrow = "".join(line[:14].strip() for line in text.splitlines() if line[:1] != " ")
    assert names[0] in narrow


def test_the_options_of_a_model(run, model):
    words = ["--name", "n", "--target", "cortex-m4", "--input", "uint8:1,0", "--sign-zero", "exact"]
    value = pure_json(run("inspect", model, *words, "--shape", "x=1x32", "--json").stdout)
    assert (value["report"]["model"], value["report"]["target"]) == ("n", "cortex-m4")
    assert value["inputs"][0]["c_type"] == "uint8_t"
