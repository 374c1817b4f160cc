"""`bnncc verify`: tables, verdict, JSON and exit code, of results made by hand and of one real."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnncc.cli.verified import _percent
from bnncc.compiler import Options
from bnncc.verification import api
from bnncc.verification.result import LayerCheck, OutputCheck, Verification
from tests.cli.builders import make_model, pure_json, save


def passed(**changes):
    layers = (
        LayerCheck("planes"),
        LayerCheck("bits0", compared=4096),
        LayerCheck("bits1", compared=4096),
        LayerCheck("y"),
    )
    outputs = (OutputCheck("y", values=1024, max_abs_error=2.5e-7, top1_agreement=1.0),)
    values = {"samples": 256, "source": "random", "compiler": "gcc 12", "layers": layers}
    return Verification(**(values | {"outputs": outputs} | changes))


@pytest.fixture
def fake(monkeypatch):
    """`fake(verification)` makes the command return it; `fake.calls` is what it was asked."""

    class Fake:
        def __init__(self):
            self.calls = []

        def __call__(self, verification):
            def verify(model, options=None, **rest):
                self.calls.append((Path(model), options, rest))
                rest["progress"]("comparing samples", 1, 2)
                return verification

            monkeypatch.setattr(api, "verify", verify)

    return Fake()


def rows(text, first):
    return [line.split() for line in text.splitlines() if line.startswith(first)]


def test_success(run, model, fake):
    fake(passed())
    result = run("verify", model)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "small.onnx: 256 random samples, C built with gcc 12"
    assert rows(result.stdout, "bits") == [[f"bits{i}", "4,096", *"0000"] for i in (0, 1)]
    assert rows(result.stdout, "planes") == [["planes", "-", *"0000"]]
    assert rows(result.stdout, "y ") == [["y", "1,024", "0", "0", "2.5e-07", "100.00", "%"]]
    assert lines[-1] == "VERIFIED: all 8,192 bits inside the network are the model's own."


def test_asks_for_what_the_options_say(run, model, fake):
    fake(passed())
    options = ["--name", "n", "--target", "generic", "--input", "uint8:1,0", "--sign-zero", "minus"]
    run("verify", model, *options, "--shape", "x=1x32", "--samples", "7", "--seed", "9")
    run("verify", model, "--data", "d.npz")
    (first, second) = fake.calls
    assert first[:2] == (model, Options("n", "generic", ("uint8:1,0",), "minus", {"x": (1, 32)}))
    for call, chosen in ((first, (None, 7, 9)), (second, (Path("d.npz"), None, 0))):
        assert tuple(call[2][name] for name in ("data", "samples", "seed")) == chosen


def test_what_is_excused_is_explained(run, model, fake):
    layers = (LayerCheck("bits0", 4096, undecided=3), LayerCheck("bits1", 4096, assumed=2))
    fake(passed(layers=layers))
    result = run("verify", model)
    assert result.exit_code == 0
    assert "  undecided the model's own float32 sum lies so close to the decision" in result.stdout
    assert "  assumed   the model computes sign(0) = 0 there" in result.stdout
    assert " ".join(result.stdout.split()).endswith(
        "VERIFIED: 8,187 of 8,192 bits inside the network are the model's own; "
        "the other 5 are explained above."
    )


def test_data_with_labels(run, model, fake):
    output = OutputCheck("y", 40, 0, 0, 0.0, 0.9, accuracy_reference=0.98765, accuracy_c=0.5)
    fake(passed(source="x\x1b.npz", samples=1, outputs=(output,)))
    text = run("verify", model, "--data", "x.npz").stdout
    assert r"small.onnx: 1 sample of x\x1b.npz, C built with gcc 12" in text
    assert "  accuracy    y: model 98.77 %, C 50.00 %\n" in text


def test_outputs_only(run, model, fake):
    fake(passed(layers=()))
    last = run("verify", model).stdout.splitlines()[-1]
    assert last == "VERIFIED: the C computes the model's outputs, up to float32 rounding."


def failed():
    layers = (
        LayerCheck("bits0", 4096, mismatches=3, first="sample 1, channel 2"),
        LayerCheck("bits1", 4096, c_mismatches=1234, first="sample 5, stored value [0]"),
        LayerCheck("y", c_mismatches=2, first="sample 7, stored value [3]"),
    )
    return passed(layers=layers, outputs=(OutputCheck("y", 1024, mismatches=1, c_mismatches=2),))


FAILURES = [
    ('layer "bits0" differs from the model in 3 values', "sample 1, channel 2"),
    ('the C of layer "bits1" is wrong in 1,234 values', "sample 5, stored value [0]"),
    ('output "y" differs from the model in 1 values', "sample 7, stored value [3]"),
    ('the C of output "y" is wrong in 2 values', "sample 7, stored value [3]"),
]


def test_failure(run, model, fake):
    fake(failed())
    result = run("verify", model)
    assert result.exit_code == 3
    last = result.stdout.splitlines()[-1]
    assert last == "FAILED: the C does not compute what the model computes."
    assert rows(result.stdout, "bits1") == [["bits1", "4,096", "0", "0", "0", "1,234"]]
    said = [f"error[BNN060]: {what}\n  where: {where}\n" for what, where in FAILURES]
    assert [text in result.stderr for text in said] == [True] * 4
    assert result.stderr.count("error[") == 4
    assert result.stderr.count("help:  this is a bug in bnncc") == 4


def test_failure_as_json(run, model, fake):
    fake(failed())
    result = run("verify", model, "--json")
    assert result.exit_code == 3
    value = pure_json(result.stdout)
    assert value["ok"] is False
    assert [(e["code"], e["what"], e["where"]) for e in value["error"]] == [
        ("BNN060", *failure) for failure in FAILURES
    ]
    assert "error[BNN060]" in result.stderr


def test_a_failure_that_names_nothing_still_fails(run, model, fake):
    class Stubborn(Verification):
        ok = False

    good = passed()
    fake(Stubborn(good.samples, good.source, good.compiler, good.layers, good.outputs))
    result = run("verify", model)
    assert result.exit_code == 3
    assert result.stderr.startswith("error[BNN060]: the C and the model differ\n")


def test_json(run, model, fake):
    output = OutputCheck("y", 10, max_abs_error=float("inf"), top1_agreement=float("nan"))
    fake(passed(outputs=(output,)))
    result = run("verify", model, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    value = pure_json(result.stdout)
    assert list(value) == [
        *("ok", "samples", "source", "compiler", "layers", "outputs", "edits", "warnings")
    ]
    assert value["outputs"][0]["max_abs_error"] is None
    assert value["outputs"][0]["top1_agreement"] is None


def test_names_cannot_speak_to_the_terminal(run, model, fake):
    name = "[red]x[/red]\x1b[31m"
    fake(passed(layers=(LayerCheck(name, 1, mismatches=1),), outputs=(OutputCheck(name, 1),)))
    result = run("verify", model)
    assert "\x1b" not in result.stdout + result.stderr
    assert r"[red]x[/red]\x1b[31m" in result.stdout
    assert r'layer "[red]x[/red]\x1b[31m" differs' in result.stderr


@pytest.mark.parametrize("columns", [80, 40])
def test_narrow_terminals(run, model, fake, columns):
    name = "/features/features.0/Sign_output_0"
    layers = (LayerCheck(name, 123_456_789, 0, 1_234, 1_234, 0),)
    outputs = (OutputCheck(name, 12_345_678, 0, 0, 1.23e-7, 0.999999),)
    fake(passed(layers=layers, outputs=outputs))
    text = run("verify", model, columns=columns).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert all(number in text for number in ("123,456,789", "12,345,678", "1.23e-07", "< 100 %"))


def test_percent():
    assert [_percent(x) for x in (None, 1.0, 0.99999, 0.5)] == [
        "-",
        "100.00 %",
        "< 100 %",
        "50.00 %",
    ]


@pytest.mark.parametrize("more", [("--samples", "3"), ("--seed", "0")])
def test_data_and_random_samples(run, model, more):
    result = run("verify", model, "--data", "d.npz", *more)
    assert result.exit_code == 2
    assert result.stderr.startswith("error[BNN020]: --samples and --seed choose random samples")


@pytest.mark.parametrize("words", [("--samples", "0"), ("--samples", "x"), ("--seed", "-1")])
def test_counts_that_are_none(run, model, words):
    result = run("verify", model, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words[0] in result.stderr


def test_for_real(run, tmp_path, any_cc, monkeypatch):
    model = save(make_model(real_last=False), tmp_path / "bits.onnx")
    monkeypatch.setenv("CC", any_cc)
    result = run("verify", model, "--samples", "5", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    value = pure_json(result.stdout)
    assert (value["ok"], value["samples"]) == (True, 5)
    assert {layer["name"]: layer["compared"] for layer in value["layers"]}.items() >= {
        ("bits0", 80),
        ("bits1", 80),
    }
    assert value["outputs"][0]["name"] == "y"
    missing = run("verify", model, "--data", "missing.npz", "--json")
    assert missing.exit_code == 2
    assert pure_json(missing.stdout)["error"][0]["code"] == "BNN061"
