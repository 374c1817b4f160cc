"""Every failure: its code, the exit code, what goes to stderr and to stdout, what is left."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import numpy_helper

from bnncc.cli.failures import reported
from bnncc.errors import (
    Diagnostic,
    InternalError,
    ToolchainError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from tests.cli.builders import environment, files_in, make_model, pure_json, save


def damaged(what):
    """Return the bytes of a model that cannot be compiled."""
    model = make_model()
    weights = model.graph.initializer[2]
    match what:
        case "truncated":
            return model.SerializeToString()[:-100]
        case "text":
            return b"once upon a time"
        case "operator":
            model.graph.node[1].op_type = "Hardmax"
        case "dynamic":
            model.graph.input[0].type.tensor_type.shape.dim[1].Clear()
        case "nan":
            array = numpy_helper.to_array(weights).copy()
            array[3, 1] = np.nan
            weights.CopyFrom(numpy_helper.from_array(array, weights.name))
        case "shapes":
            array = numpy_helper.to_array(weights)[:-1]
            weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    return model.SerializeToString()


MODELS = {
    "text": "BNN002",
    "operator": "BNN007",
    "dynamic": "BNN006",
    "nan": "BNN009",
    "shapes": "BNN003",
}


@pytest.mark.parametrize("what", [*MODELS, "truncated"])
@pytest.mark.parametrize("command", ["compile", "inspect", "verify"])
def test_models_that_cannot_be_compiled(run, tmp_path, command, what):
    path = tmp_path / "bad.onnx"
    path.write_bytes(damaged(what))
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error[{MODELS.get(what, 'BNN00')}")
    assert "Traceback" not in result.stderr
    assert files_in(tmp_path) == ["bad.onnx"]
    as_json = run(command, path, "--json")
    assert as_json.exit_code == 1
    assert as_json.stderr == result.stderr
    (error, *_) = pure_json(as_json.stdout)["error"]
    assert list(error) == ["code", "what", "where", "why", "help"]
    assert f"error[{error['code']}]: {error['what']}\n" in result.stderr


def test_no_such_model(process, tmp_path):
    done = process("compile", "missing.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'error[BNN001]: there is no file "missing.onnx"\n'
    as_json = process("compile", "missing.onnx", "--json")
    assert (as_json.returncode, as_json.stderr) == (1, done.stderr)
    what = 'there is no file "missing.onnx"'
    error = {"code": "BNN001", "what": what, "where": "", "why": "", "help": ""}
    assert pure_json(as_json.stdout) == {"error": [error]}


def test_every_problem_of_a_model_at_once(run, tmp_path):
    model = make_model()
    model.graph.node[1].op_type = "Hardmax"
    model.graph.node[4].op_type = "Einsum"
    path = save(model, tmp_path / "bad.onnx")
    result = run("compile", path, "--json")
    assert result.stderr.count("error[BNN007]") == 2
    assert len(pure_json(result.stdout)["error"]) == 2


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--target", "z80\x1b"], 'error[BNN020]: unknown target "z80\\x1b"'),
        (["--sign-zero", "no"], 'error[BNN020]: sign-zero cannot be "no"'),
        (["--input", "int16:1,0"], 'error[BNN021]: "int16:1,0" does not declare an input'),
        (["--input", "uint8:0,0"], 'error[BNN021]: "uint8:0,0" does not declare an input'),
        (["--input", "q=uint8:1,0"], 'error[BNN021]: no float32 input is called "q"'),
        (["--shape", "q=1x2"], "error[BNN020]:"),
    ],
)
@pytest.mark.parametrize("command", ["compile", "inspect", "verify"])
def test_options_with_unknown_values(run, model, command, words, first):
    result = run(command, model, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(first)
    assert files_in(model.parent) == ["small.onnx"]


def test_output_that_cannot_be_written(process, model, tmp_path):
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    for words in (["-o", "file/out"], ["-o", "out", "--certificate", "file/c.json"]):
        done = process("compile", model, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error[BNN050]: cannot write the output\n  where: ")
        assert files_in(tmp_path) == ["file", "small.onnx"]
    done = process("compile", model, "-o", "out", "--dump-dir", "file/dumps")
    assert done.returncode == 1
    assert done.stderr.startswith("error[BNN050]")
    assert files_in(tmp_path) == ["file", "small.onnx"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize(
    "words", [["compile"], ["compile", "a", "b"], ["compile", "a", "--colour"], ["cook"], ["-x"]]
)
def test_usage(run, words):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def test_usage_for_real(process):
    done = process("compile")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: bnncc compile" in done.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (UnsupportedModelError, 1),
        (VerificationError, 3),
        (ToolchainError, 1),
        (InternalError, 1),
    ],
)
def test_exit_codes(run, model, monkeypatch, kind, code):
    def fail(*_, **__):
        raise kind.of(
            [Diagnostic("BNN041", "one\x1b", why="line 1\n\tline 2"), Diagnostic("BNN8", "[b]")]
        )

    monkeypatch.setattr("bnncc.cli.commands.compile_in_memory", fail)
    result = run("inspect", model)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.expandtabs() == (
        "error[BNN041]: one\\x1b\n  why:   line 1\n\tline 2\nerror[BNN8]: [b]\n".expandtabs()
    )


def test_the_unexpected(run, model, monkeypatch):
    monkeypatch.setattr("bnncc.cli.commands.compile_in_memory", lambda *_: 1 // 0)
    result = run("inspect", model, "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("error[BNN091]: bnncc stopped on something unexpected")
    assert "where: ZeroDivisionError, at " in result.stderr
    assert "help:  set BNNCC_TRACEBACK=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert pure_json(result.stdout)["error"][0]["code"] == "BNN091"
    monkeypatch.setenv("BNNCC_TRACEBACK", "1")
    result = run("inspect", model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert "\nerror[BNN091]" in result.stderr


def test_the_unexpected_before_a_command_runs(monkeypatch, capsys):
    def fail(**_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("bnncc.cli.commands.app", fail)
    with pytest.raises(SystemExit) as caught:
        sys.modules["bnncc.cli.commands"].main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error[BNN091]")


def test_no_memory(run, model, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("bnncc.cli.commands.compile_in_memory", fail)
    result = run("inspect", model)
    assert result.exit_code == 1
    assert result.stderr == "error[BNN005]: there is not enough memory for this model\n"


def test_interrupted(tmp_path):
    code = (
        "import signal, sys, time, bnncc.cli.commands as app\n"
        # A job in the background of a shell, as in CI, starts with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(*_):\n"
        "    print('working', flush=True); time.sleep(60)\n"
        "app.compile_in_memory = slow\n"
        "sys.argv[1:] = ['inspect', 'x.onnx']\n"
        "app.main()"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "working\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("words", [["explain"], ["explain", "--json"], ["--version"]])
def test_nobody_reads(process, words):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = process(*words, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("words", [["explain"], ["--version"]])
def test_the_disk_is_full(process, words):
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        done = process(*words, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "error[BNN050]: the output cannot be written\n  why:   No space left on device\n"
    )


def test_stdout_is_closed(model, tmp_path):
    command = f'"{sys.executable}" -m bnncc compile small.onnx >&-'
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert files_in(tmp_path) == ["small.c", "small.h", "small.onnx"]


def test_an_encoding_that_lacks_a_letter(process, tmp_path):
    save(make_model(("größe", "层", "last")), tmp_path / "größe.onnx")
    done = process("inspect", "größe.onnx", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout


def on_a_terminal(words, folder, **more):
    """Return (exit code, stdout, what a terminal at stderr was sent)."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "bnncc", *words]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(more),
            stdout=subprocess.PIPE,
            stderr=follower,
            check=False,
        )
        os.set_blocking(leader, False)
        time.sleep(0.05)
        shown = os.read(leader, 1 << 16).decode()
    finally:
        os.close(leader)
        os.close(follower)
    return done.returncode, done.stdout.decode(), shown.replace("\r\n", "\n")


def test_colours_on_a_terminal(tmp_path):
    code, out, shown = on_a_terminal(["inspect", "missing.onnx"], tmp_path)
    assert (code, out) == (1, "")
    assert shown.startswith("\x1b[1;31merror[BNN001]\x1b[0m: there is no file")
    assert "more: bnncc explain BNN001" in shown


def test_no_color(tmp_path):
    code, _, shown = on_a_terminal(["inspect", "missing.onnx"], tmp_path, NO_COLOR="1")
    assert code == 1
    assert "error[BNN001]" in shown
    assert "31m" not in shown


def test_results_without_a_terminal_are_plain(process, model):
    done = process("inspect", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


def test_reported_lets_exits_pass():
    import typer

    with pytest.raises(typer.Exit) as caught, reported(as_json=False):
        raise typer.Exit(7)
    assert caught.value.exit_code == 7
