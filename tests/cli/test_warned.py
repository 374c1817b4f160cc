"""What nobody may miss: a lost sign, as every command shows it, and a model that is not binary."""

from __future__ import annotations

import json
import warnings

import pytest

from bnncc.cli.verified import _verdict
from bnncc.errors import Diagnostic
from bnncc.verification.result import Verification
from tests.cli.builders import make_float, make_lost_sign, make_model, pure_json, save

COMMANDS = [
    ["compile", "net.onnx", "-o", "out"],
    ["inspect", "net.onnx"],
    ["verify", "net.onnx", "--samples", "4"],
]
ACCUSED = (
    'second: its weights are binary, its input is real, made by Clip "clip": clipped to both sides '
    "of 0, as a hardtanh leaves it right before a sign"
)


@pytest.fixture
def lost(tmp_path, run):
    save(make_lost_sign(), tmp_path / "net.onnx")
    return run


def panel(text):
    """Return what a panel holds, on one line."""
    lines = [line.strip("┃ ") for line in text.splitlines() if line.startswith("┃")]
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_lost_sign_is_the_last_thing_said(lost, words, as_json):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the panel says it all, once
        result = lost(*words, *(["--json"] if as_json else []))
    assert result.exit_code == 0
    assert "━ WARNING BNN016 ━" in result.stderr
    assert max(map(len, result.stderr.splitlines())) <= 80
    said = panel(result.stderr)
    assert said.startswith("the exporter has probably lost a sign: a layer with binary weights")
    assert f"where: {ACCUSED}" in said
    assert "--insert-sign" in said
    if as_json:
        value = pure_json(result.stdout)
        assert [(w["code"], w["where"]) for w in value["warnings"]] == [("BNN016", ACCUSED)]
    else:
        assert "WARNING" not in result.stdout


def test_a_verdict_about_a_file_that_is_suspected(lost):
    assert "VERIFIED: the C computes the file's outputs" in lost(*COMMANDS[2]).stdout


@pytest.mark.parametrize("option", [["--insert-sign"], ["--insert-sign-at", "second"]])
def test_the_repaired_model_is_named_as_such(lost, tmp_path, option):
    edit = "second: a Sign was inserted on its input, t_, which the model file does not have"
    for words in COMMANDS:
        result = lost(*words, *option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert edit in " ".join(result.stdout.split())
    assert result.stdout.rstrip().endswith("are the repaired model's own.")
    compiled = lost(*COMMANDS[0], *option, "--certificate", "certificate.json")
    last = compiled.stdout.splitlines()[-1]
    assert last.startswith("Next, prove that the C is the repaired model: bnncc verify net.onnx")
    assert last.endswith(" ".join(option))
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    assert certificate["edits"] == [{"layer": "second", "tensor": "t_", "what": edit}]
    for words in COMMANDS[:2]:
        assert pure_json(lost(*words, *option, "--json").stdout)["report"]["edits"] == [edit]
    assert pure_json(lost(*COMMANDS[2], *option, "--json").stdout)["edits"] == [edit]


def test_nothing_is_suspected(run, tmp_path):
    save(make_model(), tmp_path / "net.onnx")
    result = run("inspect", "net.onnx", "--insert-sign")
    assert (result.exit_code, result.stderr) == (0, "")
    said = " ".join(result.stdout.split())
    assert "--insert-sign: no layer seems to have lost its sign; --insert-sign-at LAYER" in said
    assert "Edited" not in said


def test_a_layer_that_is_not_there(lost):
    result = lost("compile", "net.onnx", "--insert-sign-at", "third\x1b[31m")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'error[BNN020]: no layer with weights is called "third\\x1b[31m"\n'
        "  help:  the model's layers: first, second\n"
    )


@pytest.mark.parametrize("words", COMMANDS[:2], ids=lambda words: words[0])
def test_a_plain_float_model_is_named_as_such(run, tmp_path, words):
    save(make_float(), tmp_path / "net.onnx")
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    said = " ".join(result.stdout.partition("\nNot a binary network\n")[2].split())
    assert said.startswith(
        "- no layer has binary weights: this is a plain float model, whatever it is called. The C "
        "computes it, in float32, with all of its 1,152 MACs; it gets neither smaller nor faster."
    )
    assert "Gains little" not in result.stdout


def test_names_cannot_speak_to_the_terminal(run, tmp_path):
    model = make_lost_sign()
    model.graph.node[1].name = "clip[red]\x1b[31m"
    save(model, tmp_path / "net.onnx")
    stderr = run("inspect", "net.onnx").stderr
    assert {c for c in stderr if not c.isprintable()} == {"\n"}
    assert r"clip[red]\x1b[31m" in panel(stderr)


def test_verdicts_claim_no_more_than_was_compared():
    doubt = Diagnostic("BNN016", "lost")
    texts = [
        _verdict(Verification(1, "random", "cc", (), (), edits, doubts)).plain
        for edits, doubts in (((), ()), (("edit",), ()), ((), (doubt,)), (("edit",), (doubt,)))
    ]
    model, repaired, file, half = (text.partition("computes the ")[2] for text in texts)
    assert model.startswith("model's outputs")
    assert repaired.startswith("repaired model's outputs")
    assert file.startswith("file's outputs")
    assert half.startswith("repaired model's outputs")
