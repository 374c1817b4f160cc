"""What needs no model: `--version`, `--help`, `explain` and `targets`, and that they are quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bnncc import __version__
from bnncc.errors import EXPLANATIONS
from bnncc.targets import TARGETS, host_target, load_kernels
from tests.cli.builders import environment, pure_json


def test_version(run):
    assert run("--version").stdout == f"bnncc {__version__}\n"


def test_no_command_prints_the_help(run):
    result = run()
    text = result.stdout + result.stderr
    assert result.exit_code == 2
    commands = ("compile", "inspect", "verify", "explain", "operators", "targets")
    assert all(command in text for command in commands)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["compile", "inspect", "verify"])
def test_help_spells_out_the_options(run, command, flag):
    text = run(command, flag).stdout
    options = ["--input [NAME=]uint8:SCALE,OFFSET", "--sign-zero auto|plus|minus|exact"]
    options += ["--shape NAME=1x784", "--target TARGET", "--name NAME", "--json"]
    assert [option for option in options if option not in text] == []
    assert max(map(len, text.splitlines())) <= 80


def test_explain(run):
    for code in ("BNN012", "bnn012", " Bnn012 "):
        result = run("explain", code)
        assert result.exit_code == 0
        assert " ".join(result.stdout.split()) == f"BNN012 {EXPLANATIONS['BNN012']}"
        assert max(map(len, result.stdout.splitlines())) <= 80
    value = pure_json(run("explain", "bnn012", "--json").stdout)
    assert value == {"code": "BNN012", "explanation": EXPLANATIONS["BNN012"]}


def test_explain_lists_all_codes(run):
    text = run("explain").stdout
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  BNN")]
    assert listed == list(EXPLANATIONS)
    assert "  BNN002 The file is not an ONNX model or a .tflite file, or it is cut short.\n" in text
    codes = pure_json(run("explain", "--json").stdout)["codes"]
    assert {c["code"]: c["explanation"] for c in codes} == EXPLANATIONS


def test_explain_an_unknown_code(run):
    result = run("explain", "BNN\x1b999")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'error[BNN020]: no error has the code "BNN\\x1b999"\n'
        "  help:  `bnncc explain` lists all codes\n"
    )


@pytest.mark.parametrize("columns", [80, 150])
def test_targets(run, columns):
    text = run("targets", columns=columns).stdout
    assert max(map(len, text.splitlines())) <= columns
    assert "this machine" in text
    assert all(f"\n{target.name} " in text for target in TARGETS)
    assert {word for word in text.split() if word.startswith("bnn_")} <= {
        kernel.symbol for kernel in load_kernels()
    }


def test_targets_as_json(run):
    value = pure_json(run("targets", "--json").stdout)
    assert value["host"] == host_target().name
    assert [target["name"] for target in value["targets"]] == [target.name for target in TARGETS]
    operations = {kernel.computes for kernel in load_kernels()}
    for target in value["targets"]:
        assert {kernel["operation"] for kernel in target["kernels"]} == operations


def test_quick_commands_import_nothing_large():
    code = (
        "import sys; from bnncc.cli import main\n"
        "for words in ['--version'], ['--help'], ['explain'], ['explain', 'BNN1'], ['targets']:\n"
        "    sys.argv[1:] = words\n"
        "    try: main()\n"
        "    except SystemExit: print('done', *words)\n"
        "large = ('onnx', 'onnxruntime', 'onnxscript', 'torch', 'cffi')\n"
        "print([name for name in large if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.count("done ") == 5
    assert done.stdout.splitlines()[-1] == "[]"
