"""`bnncc compile`: the files, every option, what is printed, and the JSON."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from onnx import helper

from bnncc.cli import compiled
from bnncc.compiler import Options
from bnncc.pipeline import PIPELINE
from bnncc.verification import api
from tests.cli.builders import files_in, make_model, pure_json, save


def test_writes_two_files_and_says_where(run, model, tmp_path):
    result = run("compile", model, "-o", "out/deep")
    assert (result.exit_code, result.stderr) == (0, "")
    assert files_in(tmp_path / "out") == ["deep", "deep/small.c", "deep/small.h"]
    assert "  header      out/deep/small.h\n  source      out/deep/small.c\n" in result.stdout


def test_the_default_folder_is_the_current_one(run, model, tmp_path):
    assert run("compile", model).exit_code == 0
    assert files_in(tmp_path) == ["small.c", "small.h", "small.onnx"]


def test_says_what_became_of_the_model(run, model):
    lines = run("compile", model, "--target", "generic").stdout.splitlines()
    assert lines[0] == "Compiled small for generic"
    assert "  layers      3: 2 with binary weights, 1 computed on bits" in lines
    (flash,) = (line for line in lines if line.startswith("  flash "))
    kinds = lines[lines.index(flash) + 1 : next(i for i, x in enumerate(lines) if "RAM" in x)]
    sizes = {line[:32].strip(): int(line[32:].replace(",", "")) for line in kinds}
    assert {"binary weights", "real weights"} <= sizes.keys()
    total = sum(sizes.values())
    ratio = f"{3340 / total:.1f}x"
    assert flash == f"  flash       {total:,} bytes of constants; the model had 3,340 ({ratio})"
    assert any(line.startswith("  RAM ") and "bytes of arena" in line for line in lines)
    (took,) = (line for line in lines if line.startswith("  took "))
    assert all(phase in took for phase in ("read ", "passes ", "emit ", "peak memory "))
    assert '  - batch dimension "batch" of input "x" fixed to 1' in lines


def test_the_last_line_is_a_command_that_checks_the_same_compile(run, model, monkeypatch):
    seen = []

    def verify(path, options, **_):
        seen.append((Path(path), options))
        raise KeyboardInterrupt

    options = ["--target", "generic", "--input", "x=uint8:0.5,-1", "--sign-zero", "plus"]
    options += ["--insert-sign", "--insert-sign-at", "last"]
    last = run("compile", model, *options, "--shape", "x=1x32").stdout.splitlines()[-1]
    monkeypatch.setattr(api, "verify", verify)
    words = shlex.split(last.partition(": ")[2])
    assert words[:2] == ["bnncc", "verify"]
    assert run(*words[1:]).exit_code == 130
    expected = Options("", "generic", ("x=uint8:0.5,-1",), "plus", {"x": (1, 32)}, True, ("last",))
    assert seen == [(model, expected)]


def test_the_last_line_quotes_for_the_shell(run, tmp_path):
    path = save(make_model(), tmp_path / "my model; rm -rf.onnx")
    last = run("compile", path, "-o", "out").stdout.splitlines()[-1]
    assert shlex.split(last.partition(": ")[2]) == ["bnncc", "verify", str(path)]


def test_name(run, model, tmp_path):
    assert run("compile", model, "--name", "../Keyword Spotter", "-o", "out").exit_code == 0
    assert files_in(tmp_path / "out") == ["keyword_spotter.c", "keyword_spotter.h"]


def test_target(run, model):
    texts = {}
    for target in ("generic", "x86-64"):
        assert run("compile", model, "--target", target).exit_code == 0
        texts[target] = model.with_name("small.c").read_text(encoding="utf-8")
        assert f"--target {target}" in texts[target]
    assert "_w32__scalar" in texts["generic"]
    assert "_w64__scalar" in texts["x86-64"]


@pytest.mark.parametrize("name", ["", "x="])
def test_input(run, model, name):
    result = run("compile", model, "--input", f"{name}uint8:0.0078125,-1", "--json")
    value = pure_json(result.stdout)
    assert value["inputs"][0]["c_type"] == "uint8_t"
    assert value["report"]["layers"][0]["activations"] == "u8"


def test_input_for_each_of_several(run, tmp_path):
    two = make_model()
    two.graph.node.append(helper.make_node("MatMul", ["other", "w0"], ["z"]))
    two.graph.input.append(helper.make_tensor_value_info("other", 1, ["batch", 32]))
    two.graph.output.append(helper.make_tensor_value_info("z", 1, ["batch", 16]))
    path = save(two, tmp_path / "two.onnx")
    words = ["--input", "x=uint8:0.5,0", "--input", "other=uint8:0.25,0", "--json"]
    value = pure_json(run("compile", path, *words).stdout)
    kinds = {port["name"]: port["c_type"] for port in value["inputs"]}
    assert kinds == {"x": "uint8_t", "other": "uint8_t"}
    result = run("compile", path, "--input", "uint8:0.5,0")
    assert result.exit_code == 2
    assert result.stderr.startswith("error[BNN021]: which input?\n")


def with_sign():
    """Return the model with ONNX Sign, which has three levels, in place of comparisons."""
    model = make_model(real_last=False)  # so that both signs become bits
    nodes = [node for node in model.graph.node if node.op_type == "MatMul"]
    signs = [helper.make_node("Sign", [f"n{i}"], [f"bits{i}"]) for i in (0, 1)]
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], signs[0], nodes[1], signs[1], nodes[2]])
    return model


@pytest.mark.parametrize(
    ("choice", "assumed"),
    [
        ("auto", ["bits0: sign(0) is taken as +1, not 0"]),
        ("plus", [f"bits{i}: sign(0) is taken as +1, not 0" for i in (0, 1)]),
        ("minus", [f"bits{i}: sign(0) is taken as -1, not 0" for i in (0, 1)]),
        ("exact", []),
    ],
)
def test_sign_zero(run, tmp_path, choice, assumed):
    path = save(with_sign(), tmp_path / "sign.onnx")
    result = run("compile", path, "--sign-zero", choice)
    assert result.exit_code == 0, result.stderr
    listed = result.stdout.partition("\nAssumed\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in listed.splitlines()] == [f"- {text}" for text in assumed]


def test_shape(run, tmp_path):
    model = make_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    path = save(model, tmp_path / "open.onnx")
    refused = run("compile", path)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error[BNN006]")
    value = pure_json(run("compile", path, "--shape", "x=1x32", "--json").stdout)
    assert value["inputs"][0]["shape"] == [1, 32]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        *((text, "is not a shape") for text in ("x", "x=", "=1x32", "x=1x0", "x=1x-1", "x=1X32")),
        *((text, "is not a shape") for text in ("x=1x32 ", "x=1x٣", "x=1x" + "9" * 5000, "1x32")),
    ],
)
def test_shape_that_is_none(run, model, tmp_path, shape, why):
    result = run("compile", model, "--shape", shape)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith('error[BNN020]: "')
    assert why in result.stderr
    assert "help:  for an image of 28 by 28 pixels as one row: --shape image=1x784" in result.stderr
    assert files_in(tmp_path) == ["small.onnx"]


def test_two_shapes_for_one_input(run, model):
    result = run("compile", model, "--shape", "x=1x32", "--shape", "x=1x16")
    assert result.exit_code == 2
    assert result.stderr == (
        'error[BNN020]: two shapes are given for input "x"\n  help:  give each input one --shape\n'
    )


def test_certificate(run, model, tmp_path):
    result = run("compile", model, "--certificate", "proof/cert.json")
    assert "  certificate proof/cert.json\n" in result.stdout
    text = (tmp_path / "proof" / "cert.json").read_text(encoding="utf-8")
    assert json.loads(text)["format"] == "bnncc certificate 1"


def test_dump_dir(run, model, tmp_path):
    assert run("compile", model, "--dump-dir", "stages").exit_code == 0
    assert len(files_in(tmp_path / "stages")) == len(PIPELINE) + 1


def test_json(run, model, tmp_path):
    words = ["compile", model, "-o", "out", "--certificate", "cert.json", "--json"]
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    value = pure_json(result.stdout)
    top = ["header", "source", "certificate", "inputs", "outputs", "report", "warnings"]
    assert list(value) == [*top, "peak_memory_bytes"]
    assert value["warnings"] == []
    assert (value["header"], value["source"]) == ("out/small.h", "out/small.c")
    assert value["certificate"] == "cert.json"
    assert value["inputs"] == [
        {"name": "x", "parameter": "input", "c_type": "float", "shape": [1, 32]}
    ]
    report = value["report"]
    assert [layer["name"] for layer in report["layers"]] == ["first", "hidden", "last"]
    assert report["flash_bytes"] == sum(report["constant_bytes"].values())
    assert value["peak_memory_bytes"] > 1_000_000
    again = pure_json(run(*words).stdout)
    for measured in (value, again):
        del measured["peak_memory_bytes"], measured["report"]["seconds"]
    assert json.dumps(value) == json.dumps(again)


def test_json_without_a_certificate(run, model):
    assert pure_json(run("compile", model, "--json").stdout)["certificate"] is None


def test_peak_memory_elsewhere(monkeypatch):
    def read_text(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr("sys.platform", "darwin")  # counts bytes, Linux counts units of 1024
    as_bytes = compiled._peak_memory()
    monkeypatch.setattr("sys.platform", "linux")
    assert 1000 < as_bytes <= compiled._peak_memory() / 1024
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows
    assert compiled._peak_memory() is None
