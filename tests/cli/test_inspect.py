"""`bnncc inspect`: the layers, why some are not on bits, the sizes, and nothing written."""

from __future__ import annotations

import dataclasses
import re

import pytest

from bnncc.cli.compiled import show_inspection
from bnncc.cli.console import results
from bnncc.compiler import Options, compile_in_memory
from tests.cli.builders import files_in, make_codes, make_float, make_model, pure_json, save

HOSTILE = "[red]x[/red]\x1b[31m"


def test_writes_nothing(run, model, tmp_path):
    assert run("inspect", model).exit_code == 0
    assert files_in(tmp_path) == ["small.onnx"]


def table(text):
    """Return the rows below the heading, spaces made one."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    rows = lines[first : lines.index("", first)]
    return [" ".join(line.split()) for line in rows]


def test_layers(run, model):
    text = run("inspect", model, "--target", "generic", columns=100).stdout
    lines = text.splitlines()
    assert lines[0] == "small.onnx for generic"
    assert lines[1:3] == ["  input       x: float[1][32]", "  output      y: float[1][4]"]
    assert table(text) == [
        "layer shape MACs sums of reads stores weights",
        "first 32 -> 16 512 +-x (1) reals bits 2.0 kB -> 64 B",
        "hidden 16 -> 16 256 bits bits reals 1.0 kB -> 64 B",
        "last 16 -> 4 64 real (2) reals reals 256 B -> 512 B",
    ]


def test_layers_of_images(run, images):
    words = ["--target", "generic", "--kernel", "dense"]
    text = run("inspect", images, *words, columns=100).stdout
    assert table(text)[1:] == [
        "conv1 3x3 pad 1, 3 -> 8, 8x8 14 k real (1) reals reals+bits 864 B -> 864 B",
        "node_Conv 3x3 pad 1, 8 -> 8, 8x8 37 k bits bits bits 2.3 kB -> 288 B",
        "node_Conv 3x3/2 pad 0+1, 8 depthwise, 4x4 1.2 k bits bits bits 288 B -> 1.2 kB",
        "node_Gemm_9 128 -> 4 512 bits bits reals 2.0 kB -> 256 B",
    ]
    assert max(map(len, text.splitlines())) <= 100


def test_layers_of_codes(run, tmp_path):
    text = run("inspect", save(make_codes(), tmp_path / "codes.onnx"), columns=100).stdout
    assert table(text)[1:] == [
        "first 32 -> 32 1.0 k +-x (1) reals codes 4.1 kB -> 128 B",
        "second 32 -> 4 128 bits codes reals 512 B -> 64 B",
    ]


def test_narrow_terminals_leave_columns_out(run, images):
    text = run("inspect", images, "--target", "generic", columns=80).stdout
    assert table(text)[:2] == [
        "layer shape MACs sums of weights",
        "conv1 3x3 pad 1, 3 -> 8, 8x8 14 k real (1) 864 B -> 864 B",
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_why_not_bits(run, model):
    text = run("inspect", model, columns=100).stdout
    reasons = text.partition("\nNot on bits\n")[2].partition("\n\n")[0].splitlines()
    assert reasons == [
        "  (1) its input is the model's own, in float; --input uint8:SCALE,OFFSET takes bytes",
        "  (2) 4 of 4 output channels have weights other than +-alpha",
    ]
    assert "Left as it was" not in text  # the layers' reasons are not said twice


def test_totals(run, model):
    text = run("inspect", model).stdout
    assert "  layers      3: 2 with binary weights, 1 computed on bits\n" in text
    work = text.partition("  work        ")[2].splitlines()[:4]
    assert [" ".join(line.split()) for line in work] == [
        "832 MACs a sample, 30.8 % of them on bits",
        "on bits 256",
        "additions +-x 512",
        "real 64",
    ]
    assert "\nNote\n" in text


def test_work_between_layers(run, images):
    text = run("inspect", images, "--kernel", "dense").stdout
    assert "  gather of bits             512 elements in 1 pass\n" in text
    assert "  move                       196 elements in 2 passes\n" in text


def test_gains_little(run, images):
    text = run("inspect", images, "--target", "generic", "--kernel", "dense").stdout
    said = " ".join(text.partition("\nGains little\n")[2].partition("\n\n")[0].split())
    assert said == (
        "- 26 % of the MACs are in float, additions of +-x included: conv1 (26 %). However fast "
        "bits are, this network gains at most a factor of 3.8 over float "
        "- words are mostly padding: with fewer than 4 MACs in each, bits gain no time over float: "
        "node_Conv (1, weights 4x as large)"
    )


def test_an_arena_above_its_bound_says_how_far(run, model, capsys):
    done = compile_in_memory(model, Options())
    report = dataclasses.replace(done.report, arena_bytes=1050, arena_lower_bound=1000)
    shown = dataclasses.replace(done, report=report)
    show_inspection(results(), shown, model, with_graph=False, with_kernels=False)
    text = capsys.readouterr().out
    assert "  RAM         1,050 bytes of arena; no plan takes fewer than 1,000 (+5.0 %)\n" in text


def test_many_assumptions_are_cut_short(run, model, capsys):
    done = compile_in_memory(model, Options())
    report = dataclasses.replace(done.report, assumptions=tuple(f"sign{i}" for i in range(9)))
    shown = dataclasses.replace(done, report=report)
    show_inspection(results(), shown, model, with_graph=False, with_kernels=False)
    listed = capsys.readouterr().out.partition("\nAssumed\n")[2].partition("\n\n")[0].splitlines()
    assert listed == [f"  - sign{i}" for i in range(6)] + ["  - and 3 more, see --json"]


def test_other_refusals_are_listed(run, model, capsys):
    done = compile_in_memory(model, Options())
    refusals = (*done.report.refusals, ("ge9, where9", "the chain has two readers"))
    report = dataclasses.replace(done.report, refusals=refusals, layers=())
    other = dataclasses.replace(done, report=report)
    show_inspection(results(), other, model, with_graph=False, with_kernels=False)
    text = capsys.readouterr().out
    assert "The model has no layer with weights." in text
    assert "  - ge9, where9: the chain has two readers" in text


def test_graph(run, model):
    text = run("inspect", model, "--graph").stdout
    assert "\ngraph %small stage=packed\n" in text
    assert "= XnorConv(" in text
    assert "stage=packed" not in run("inspect", model).stdout


def test_json(run, model):
    value = pure_json(run("inspect", model, "--json").stdout)
    assert list(value) == ["inputs", "outputs", "report", "warnings"]
    assert value["outputs"][0]["name"] == "y"
    with_graph = pure_json(run("inspect", model, "--json", "--graph").stdout)
    assert list(with_graph) == ["inputs", "outputs", "report", "warnings", "graph"]


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
    for whole in ("2.0kB->64B", "1.0kB->", "256B->512B", "16->16", "+-x(1)", "bits"):
        assert whole in together
    narrow = "".join(line.split(" ")[0] for line in text.splitlines())
    assert names[0] in narrow


def test_the_options_of_a_model(run, model):
    words = ["--name", "n", "--target", "cortex-m4", "--input", "uint8:1,0", "--sign-zero", "exact"]
    value = pure_json(run("inspect", model, *words, "--shape", "x=1x32", "--json").stdout)
    assert (value["report"]["model"], value["report"]["target"]) == ("n", "cortex-m4")
    assert value["inputs"][0]["c_type"] == "uint8_t"


def test_kernel_of_one_layer_by_the_name_that_inspect_gives_it(run, images):
    words = ["--target", "generic", "--kernel", "dense"]
    text = run("inspect", images, "--kernel", "node_Conv=shared", *words).stdout
    assert "copies for taps" in text
    assert "copies for taps" not in run("inspect", images, *words).stdout


def kernels(text):
    """Return the rows of the table of kernels, spaces made one, and what follows them."""
    lines = text.partition("\nKernels\n")[2].splitlines()
    end = lines.index("")
    return [" ".join(line.split()) for line in lines[1:end]], lines[end:]


def test_kernels_of_each_layer(run, images):
    words = ["--target", "cortex-m4", "--kernels"]
    rows, _ = kernels(run("inspect", images, *words).stdout)
    first, second, third, *more = rows
    assert re.fullmatch(r"node_Conv dense( [\d,]+){3}", first)
    assert re.fullmatch(r"\* shared( [\d,]+){3}", second)
    assert re.fullmatch(r"lean( [\d,]+){3}", third)
    assert any(re.fullmatch(r"node_Gemm_9 \* dense( [\d,]+){3}", row) for row in more)
    assert any(row.endswith("moved") or " moved to pixels " in row for row in more)
    demanded, _ = kernels(run("inspect", images, *words, "--kernel", "dense").stdout)
    assert demanded[0].startswith("node_Conv * dense, as demanded ")
    assert not any(" moved " in row for row in demanded)


def test_kernels_say_what_cannot_be_and_what_everything_takes(run, model):
    rows, rest = kernels(run("inspect", model, "--target", "cortex-m4", "--kernels").stdout)
    text = "\n".join(rest)
    assert re.fullmatch(r"hidden \* dense \(1\)( [\d,]+){3}", *rows)
    assert "  (1) no shared sums: a dense layer has one pixel, and lanes are pixels" in text
    assert re.search(r"predicted +[\d,]+ instructions for these, of a call", text)
    assert re.search(r"flash +[\d,]+ bytes: [\d,]+ constants, about [\d,]+ code", text)
    assert re.search(r"RAM +[\d,]+ bytes: [\d,]+ arena, at most [\d,]+ stack", text)


def test_kernels_as_json(run, images):
    words = ["--target", "cortex-m4", "--json"]
    assert "kernels" not in pure_json(run("inspect", images, *words).stdout)
    value = pure_json(run("inspect", images, *words, "--kernels").stdout)["kernels"]
    assert value["unit"] == "instructions"
    layer, *_ = value["layers"]
    assert (layer["name"], layer["demanded"], layer["chosen"]) == ("node_Conv", "auto", "shared")
    dense, shared, lean = layer["candidates"]
    assert shared["time"] < lean["time"] < dense["time"]
    assert lean["flash"] < shared["flash"]
    assert {move["to"] for move in value["moves"]} == {"pixels", "channels"}
    moved = sum(move["time"] for move in value["moves"])
    taken = [
        next(c["time"] for c in layer["candidates"] if c["family"] == layer["chosen"])
        for layer in value["layers"]
    ]
    assert value["predicted_time"] == pytest.approx(moved + sum(taken))


def test_refused_kernels_as_json(run, model):
    value = pure_json(run("inspect", model, "--json", "--kernels").stdout)["kernels"]
    assert [layer["candidates"][1] for layer in value["layers"]] == [
        {
            "family": "shared",
            "refused": "no shared sums: a dense layer has one pixel, and lanes are pixels",
        }
    ]


def test_a_model_without_bits_has_no_kernels_to_choose(run, tmp_path):
    path = save(make_float(), tmp_path / "floats.onnx")
    assert "No layer sums bits." in run("inspect", path, "--kernels").stdout


@pytest.mark.parametrize("text", ["64KB", "-1", "1.5M", "", "K"])
def test_limits_are_bytes(run, images, text):
    done = run("inspect", images, f"--max-flash={text}")
    assert done.exit_code == 2
    assert f'--max-flash: "{text}" is no number of bytes' in done.stderr


def test_limits(run, images):
    words = ["--target", "cortex-m4", "--json", "--kernels"]

    def taken(*more):
        value = pure_json(run("inspect", images, *words, *more).stdout)["kernels"]
        flash = value["constant_bytes"] + value["code_bytes"]
        return flash, value["arena_bytes"] + value["stack_bytes"], value["predicted_time"]

    fast, small = taken(), taken("--optimize", "size")
    assert small[0] < fast[0] and small[2] > fast[2]  # noqa: PT018
    assert taken("--max-flash", str(small[0])) == small
    assert taken("--max-flash", "1M", "--max-ram", "64k") == fast
    done = run("inspect", images, "--target", "cortex-m4", "--max-flash", "1K")
    assert done.exit_code == 1
    assert "error[BNN031]: the program does not fit into 1,024 bytes of flash" in done.stderr
    assert f"the least that fits: --max-flash {small[0]}" in done.stderr


def test_kernel_of_a_layer_that_is_not_there(run, images):
    done = run("inspect", images, "--kernel", "conv9=shared")
    assert done.exit_code == 2
    assert 'no layer with weights is called "conv9"' in done.stderr
