"""Files that PyTorch writes: archives are scanned before they are loaded, pickles never are."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251 - to write hostile files; nothing here is read by it
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bnncc
from bnncc import UnsupportedModelError
from bnncc.frontends.torch import load_file
from bnncc.frontends.torch.archive import rewrite
from bnncc.frontends.torch.kinds import FileKind, file_kind
from tests.frontends.test_torch_modules import IMAGE, ZERO, ConvNet, Net, images, whole_numbers


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    return Net()


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (ZERO.repeat(2, 1),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


@pytest.fixture
def marker(tmp_path) -> Path:
    """What hostile files would create."""
    return tmp_path / "executed"


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def edited(archive: Path, to: Path, changes: dict, *, drop=()) -> Path:
    """Write a copy with some entries replaced or added; a function edits the JSON of an entry."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(to, "w") as target:
        left = dict(changes)
        for name in source.namelist():
            content, inner = source.read(name), name.split("/", 1)[1]
            change = left.pop(inner, None)
            if callable(change):
                document = json.loads(content)
                change(document)
                change = json.dumps(document)
            if inner not in drop:
                target.writestr(name, content if change is None else change)
        for inner, content in left.items():
            target.writestr(f"net/{inner}", content)
    return to


def refusal(path: Path) -> bnncc.BnnccError:
    with pytest.raises(UnsupportedModelError) as caught:
        load_file(path)
    return caught.value


# --- Archives that are loaded ---------------------------------------------------------------------


def test_round_trip(model, archive, tmp_path, any_cc):
    code = "import sys, bnncc; bnncc.compile(*sys.argv[1:]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, archive, tmp_path], check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.c", "net.h"]
    renamed = tmp_path / "whatever.bin"
    renamed.write_bytes(archive.read_bytes())
    artifact = bnncc.compile(renamed, tmp_path)
    assert any("batch" in note for note in artifact.report.notes)
    compiled = bnncc.load(artifact, compiler=any_cc)
    x = whole_numbers(20)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    got = np.concatenate([np.asarray(compiled(row[None])).reshape(1, -1) for row in x])
    assert np.array_equal(expected, got)
    kinds = [layer.weights for layer in artifact.report.layers]
    assert kinds == ["binary", "binary"]


def test_a_convolutional_network_from_the_command_line(tmp_path, any_cc):
    """Shortcut, strides, groups, pools: a batch that the archive leaves open is fixed to 1."""
    torch.manual_seed(3)
    model = ConvNet()
    batch = torch.export.Dim("batch")
    example = IMAGE.repeat(2, 1, 1, 1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "convnet.pt2")
    command = [sys.executable, "-m", "bnncc", "compile", "convnet.pt2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"convnet.pt2", "convnet.c", "convnet.h"}
    artifact = bnncc.compile(tmp_path / "convnet.pt2", tmp_path)
    assert (tmp_path / "convnet.c").read_text() == artifact.compilation.source
    x = images(20)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    got = bnncc.load(artifact, compiler=any_cc)(x)
    # The real stem, BatchNorm and head round in another order in PyTorch; no bit flips here.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert bnncc.verify(artifact, samples=8).ok


def test_the_pickle_of_example_inputs_is_never_read(archive, tmp_path, marker):
    content = io.BytesIO()
    torch.save(Hostile(marker), content)
    sample = {"data/sample_inputs/model.pt": content.getvalue(), "extra/note": b"hello"}
    path = edited(archive, tmp_path / "evil.pt2", sample)
    assert load_file(path).graph.outputs
    assert not marker.exists()


# --- Archives that are not ------------------------------------------------------------------------

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def first_node(document):
    return document["graph_module"]["graph"]["nodes"][0]


def hostile_size(document):
    values = document["graph_module"]["graph"]["tensor_values"]
    size = {"as_expr": {"expr_str": "__import__('os').system('echo')", "hint": {"as_int": 1}}}
    next(iter(values.values()))["sizes"][0] = size


def hostile_operator(document):
    first_node(document)["target"] = "torch.os.system"


def hostile_name(document):
    first_node(document)["name"] = "x=print()"


def hostile_tree(document):
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace("builtins.dict", "enum.Enum")


def hostile_key(document):
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"})
    tree = [1, {"type": "builtins.dict", "context": context, "children_spec": []}]
    signature["out_spec"] = json.dumps(tree)


def power(document):
    values = document["graph_module"]["graph"]["tensor_values"]
    size = {"as_expr": {"expr_str": "9**9**9", "hint": {"as_int": 1}}}
    next(iter(values.values()))["sizes"][0] = size


def pickled_weight(document):
    next(iter(document["config"].values()))["use_pickle"] = True


def endless_weight(document):
    tensor = next(iter(document["config"].values()))["tensor_meta"]
    tensor["sizes"] = [{"as_int": 2**40}, {"as_int": 2**40}]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({PROGRAM: hostile_size}, "the symbolic size \"__import__('os').system('echo')\" is none"),
        ({PROGRAM: power}, 'the symbolic size "9**9**9" is none'),
        ({PROGRAM: hostile_operator}, 'the operator "torch.os.system" is none'),
        ({PROGRAM: hostile_name}, 'the name "x=print()" is none'),
        ({PROGRAM: hostile_tree}, 'an argument is of type "enum.Enum"'),
        ({PROGRAM: hostile_key}, "a key of an argument is no text"),
        ({PROGRAM: b"["}, "it is not JSON"),
        ({PROGRAM: b"[" * 200_000}, "it is not JSON"),
        ({WEIGHTS: pickled_weight}, 'tensor "first.weight" is a pickle'),
        ({WEIGHTS: endless_weight}, "elements; the limit is"),
        ({WEIGHTS: b"[]"}, "it does not read as torch.export.save writes it"),
        ({"data/constants/opaque_obj_0": b"?"}, 'entry "net/data/constants/opaque_obj_0": it is a'),
        ({"data/weights/model.pt": b"?"}, "an older PyTorch wrote it, with weights as a pickle"),
        ({"data/aotinductor/model/x.so": b"?"}, "it is compiled code, to be loaded and run"),
        ({"data/x.pkl": b"?"}, 'entry "net/data/x.pkl": it is a pickle'),
        ({"data/unknown": b"?"}, 'entry "net/data/unknown": nobody knows what it is for'),
        ({"../escape": b"?"}, 'entry "net/../escape" lies outside of the archive'),
        ({"..\\escape": b"?"}, "lies outside of the archive"),
        ({"byteorder": b"big"}, 'entry "net/byteorder" does not say "little"'),
    ],
)
def test_hostile_archives(archive, tmp_path, marker, changes, why):
    error = refusal(edited(archive, tmp_path / "evil.pt2", changes))
    assert error.code == "BNN014"
    assert why in error.diagnostics[0].why
    assert error.diagnostics[0].help


def test_the_whole_message(archive, tmp_path):
    path = edited(archive, tmp_path / "evil.pt2", {"data/constants/custom_obj_0": b"?"})
    assert str(refusal(path)) == (
        f'error[BNN014]: the archive "{path}" is not loaded\n'
        '  why:   entry "net/data/constants/custom_obj_0": it is a pickled object\n'
        "  help:  export the model to ONNX where it was made: torch.onnx.export(program, ...)"
    )


def test_guards_are_code_and_left_out(archive, tmp_path):
    def guard(document):
        document["guards_code"] = ["__import__('os').system('echo')"]

    clean = tmp_path / "clean.pt2"
    rewrite(edited(archive, tmp_path / "evil.pt2", {PROGRAM: guard}), clean)
    with zipfile.ZipFile(clean) as written:
        program = json.loads(written.read("model/models/model.json"))
        assert written.read("model/data/sample_inputs/model.pt") == b""
    assert program["guards_code"] == []
    assert "stack_trace" not in json.dumps(program)


def test_cut_short(archive, tmp_path):
    content = archive.read_bytes()
    path = tmp_path / "short.pt2"
    for length in (0, 2, 10, 500, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        error = refusal(path)
        assert error.code == "BNN014", length
        assert "cut short or damaged" in str(error)
    path.unlink()
    assert refusal(path).code == "BNN001"
    path.mkdir()
    assert refusal(path).code in ("BNN001", "BNN014")


def test_damaged_content_is_noticed(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[300] ^= 1
    path = tmp_path / "flipped.pt2"
    path.write_bytes(content)
    assert refusal(path).code == "BNN014"


def test_bombs(archive, tmp_path, monkeypatch):
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("net/archive_format", "pt2")
        target.writestr("net/models/model.json", b" " * (2**26 + 1))
    assert refusal(path).code == "BNN005"
    monkeypatch.setattr("bnncc.frontends.torch.archive.MAX_TENSOR_BYTES", 1000)
    error = refusal(archive)
    assert error.code == "BNN005"
    assert "claim" in str(error)


def test_twice_the_same_name(archive, tmp_path):
    path = tmp_path / "twice.pt2"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr(zipfile.ZipFile(archive).namelist()[0], b"?")
    assert "is there twice" in str(refusal(path))


def test_an_old_archive(tmp_path):
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as target:
        for name in ("version", "serialized_exported_program.json", "serialized_state_dict.pt"):
            target.writestr(name, "7")
    error = refusal(path)
    assert "an older PyTorch wrote it" in str(error)
    assert "save it again with PyTorch 2.9 or newer" in str(error)


def test_without_torch(archive, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(bnncc.ToolchainError) as caught:
        load_file(archive)
    assert str(caught.value) == (
        f'error[BNN044]: "{archive}" is a torch.export archive, and PyTorch is not installed\n'
        "  why:   PyTorch converts such archives to ONNX\n"
        '  help:  pip install "bnncc[torch]", or export the model to ONNX where you have it'
    )


# --- Pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pkl", ".onnx", ".pt2", ""])
@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 0"])
def test_pickles_are_never_loaded(form, suffix, tmp_path, marker):
    path = tmp_path / f"net{suffix}"
    if form == "protocol 0":
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=0))
    else:
        torch.save(Hostile(marker), path, _use_new_zipfile_serialization=form == "zip")
    error = refusal(path)
    assert not marker.exists()
    if form == "zip" or (form == "legacy" and suffix != ".pt2"):
        assert error.code == "BNN013"
    elif suffix == ".pt2":
        assert error.code == "BNN014"
    else:
        assert error.code == ("BNN002" if suffix in (".onnx", "") else "BNN013")


def test_the_two_lines_for_a_checkpoint(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert file_kind(path) is FileKind.PICKLE
    assert str(refusal(path)) == (
        f'error[BNN013]: "{path}" is a pickle, as torch.save writes them\n'
        "  why:   unpickling runs code from the file, so bnncc never does; often it holds no "
        "network\n"
        "  help:  where the model is defined, run these two lines, and compile model.onnx:\n"
        f"           model.load_state_dict(torch.load({str(path)!r}, weights_only=True))\n"
        '           torch.onnx.export(model.eval(), (example_input,), "model.onnx", dynamo=True)'
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    error = refusal(path)
    assert error.code == "BNN013"
    assert "is a TorchScript archive" in str(error)
    assert f"model = torch.jit.load({str(path)!r}).eval()" in str(error)


def test_an_onnx_file_of_any_name(tmp_path):
    inner = io.BytesIO()
    torch.onnx.export(nn.ReLU().eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False).save(
        inner
    )
    for name in ("net.pt", "net", "net.model"):
        (tmp_path / name).write_bytes(inner.getvalue())
        assert load_file(tmp_path / name).graph.outputs
