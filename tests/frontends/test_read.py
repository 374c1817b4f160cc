"""Damaged and hostile files: refused with a code, never followed out of their folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, numpy_helper

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import load_onnx, read
from bnncc.ir import interpret
from tests.frontends.builders import NODE, load, make, saved

F = np.float32
WEIGHTS = np.where(np.arange(12).reshape(4, 3) % 5 < 2, F(-1), F(1))
NETWORK = make(
    NODE("MatMul", ["x", "w"], ["s"], name="fc"),
    NODE("Sign", ["s"], ["y"], name="act"),
    constants={"w": WEIGHTS},
)


def refusal(path: Path) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx(path)
    return caught.value


# --- BNN001 ---------------------------------------------------------------------------------------


def test_missing_file() -> None:
    assert str(refusal(Path("no/such.onnx"))) == ('error[BNN001]: there is no file "no/such.onnx"')


def test_folder(tmp_path: Path) -> None:
    assert str(refusal(tmp_path)) == f'error[BNN001]: "{tmp_path}" is not a file'


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert refusal(tmp_path / "pipe.onnx").code == "BNN001"


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = saved(NETWORK, tmp_path)
    monkeypatch.setattr(Path, "read_bytes", denied)
    error = refusal(path)
    assert error.code == "BNN001"
    assert error.diagnostics[0].why == "[Errno 13] Permission denied"


def test_path_is_shown_whole_and_safe() -> None:
    assert refusal(Path("a\0b")).code == "BNN001"
    assert '"a\\nb"' in str(refusal(Path("a\nb")))
    assert "/".join(["deep"] * 50) in str(refusal(Path("deep/" * 50 + "x")))


# --- BNN002 ---------------------------------------------------------------------------------------


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    content = NETWORK.SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert refusal(path).code == "BNN002", length


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    assert str(refusal(path)) == (
        f'error[BNN002]: "{path}" is not an ONNX model\n'
        "  why:   it lacks ir_version, graph, opset_import: the file is empty\n"
        "  help:  export the model again with torch.onnx.export, and copy it as a binary file"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04rest", "it is a zip archive, such as torch.save and torch.export.save write"),
        (b"\x80\x02}q\x00.", "it is a pickle, such as older torch.save wrote; bnncc never loads"),
        (b"\x1c\0\0\0TFL3", "it is a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, such as Keras writes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"import torch\nmodel = torch.nn.Linear(4, 3)\n", "it holds 43 bytes that do not parse"),
    ],
)
def test_other_formats(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "BNN002"
    assert error.diagnostics[0].why.startswith(why)


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    rng = np.random.default_rng(3)
    for length in (1, 2, 3, 10, 100, 1000):
        for _ in range(20):
            path.write_bytes(rng.bytes(length))
            assert refusal(path).code == "BNN002"


@pytest.mark.parametrize("name", [b"act", b"w", b"made", b"x"])
def test_names_that_are_no_text(name: bytes, tmp_path: Path) -> None:
    content = NETWORK.SerializeToString()
    path = tmp_path / "damaged.onnx"
    tag = bytes([len(name)]) + name
    path.write_bytes(content.replace(tag, bytes([len(name)]) + b"\xff" * len(name)))
    error = refusal(path)
    assert error.code == "BNN002"
    assert error.diagnostics[0].why == "a name in it is not UTF-8 text: the file is damaged"


# --- BNN005 ---------------------------------------------------------------------------------------


def test_large_file_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)
    assert str(refusal(path)) == (
        f'error[BNN005]: the file "{path}" has 2147483649 bytes\n'
        "  why:   the limit is 2147483648 bytes"
    )


def test_tensor_that_claims_too_much(tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(NETWORK)
    model.graph.initializer[0].dims[:] = [2**30, 2**30]
    assert refusal(saved(model, tmp_path)).code == "BNN005"


@pytest.mark.parametrize(
    ("dims", "what"),
    [
        ([4, 4], 'tensor "w" does not hold the 4x4 values it declares'),
        ([-1, 3], 'tensor "w" does not hold the -1x3 values it declares'),
        ([0], 'tensor "w" does not hold the 0 values it declares'),
    ],
)
def test_tensor_that_is_not_what_it_declares(dims: list[int], what: str, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(NETWORK)
    model.graph.initializer[0].dims[:] = dims
    error = refusal(saved(model, tmp_path))
    assert error.code == "BNN003"
    assert error.diagnostics[0].what == what


def test_bool_of_other_bytes_is_true(tmp_path: Path) -> None:
    mask = TensorProto(name="m", data_type=TensorProto.BOOL, dims=[4], raw_data=b"\0\1\2\xff")
    model = make(NODE("Where", ["m", "x", "z"], ["y"]), constants={"z": F(0)})
    model.graph.initializer.append(mask)
    x = np.ones((1, 4), F)
    y = interpret.run(load(model, tmp_path).graph, {"x": x})["y"]
    assert y.tolist() == [[0, 1, 1, 1]]


def test_string_tensor(tmp_path: Path) -> None:
    model = make(NODE("Abs", ["x"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "s"))
    error = refusal(saved(model, tmp_path))
    assert str(error) == 'error[BNN008]: tensor "s" has element type STRING'


# --- BNN004: external data ------------------------------------------------------------------------


def external(
    folder: Path, location: str, change: Callable[[TensorProto], None] | None = None
) -> Path:
    """Write NETWORK into `folder`, its weights said to be at `location`."""
    model = onnx.ModelProto()
    model.CopyFrom(NETWORK)
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location, offset=0, length=WEIGHTS.nbytes)
    tensor.ClearField("raw_data")
    if change:
        change(tensor)
    return saved(model, folder)


def set_entry(key: str, value: str | None) -> Callable[[TensorProto], None]:
    def change(tensor: TensorProto) -> None:
        kept = [(e.key, e.value) for e in tensor.external_data if e.key != key]
        del tensor.external_data[:]
        for name, text in [*kept, *([(key, value)] if value is not None else [])]:
            tensor.external_data.add(key=name, value=text)

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with what is no business of the model beside it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    return tmp_path / "model"


def test_external_data_is_the_model_s_data(folder: Path) -> None:
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = external(folder, "w.bin")
    imported = load_onnx(path)
    embedded = load(NETWORK, folder.parent)
    np.testing.assert_array_equal(
        imported.graph.constants["w.transposed"], embedded.graph.constants["w.transposed"]
    )
    assert numpy_helper.to_array(imported.source.graph.initializer[0]).shape == (4, 3)
    assert not imported.source.graph.initializer[0].external_data
    expected = hashlib.sha256(path.read_bytes() + WEIGHTS.tobytes()).hexdigest()
    assert imported.sha256 == expected
    assert embedded.sha256 == hashlib.sha256(NETWORK.SerializeToString()).hexdigest()


def test_external_data_without_length_is_read_no_further_than_declared(folder: Path) -> None:
    with (folder / "w.bin").open("wb") as file:
        file.write(WEIGHTS.tobytes())
        file.truncate(2**40)  # sparse
    imported = load_onnx(external(folder, "w.bin", set_entry("length", None)))
    assert imported.graph.constants["w.transposed"].shape == (3, 4)


def test_external_data_in_a_subfolder_with_unknown_keys(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/w.bin").write_bytes(b"\0" * 8 + WEIGHTS.tobytes())

    def change(tensor: TensorProto) -> None:
        set_entry("offset", "8")(tensor)
        set_entry("prepacked_0", "1")(tensor)

    assert load_onnx(external(folder, "sub/w.bin", change)).graph.nodes


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "", ".", "absolute"])
def test_external_data_outside_the_folder(location: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    if location == "absolute":
        location = str(folder.parent / "secret.bin")
    error = refusal(external(folder, location))
    assert error.code == "BNN004"
    assert 'external data of tensor "w" cannot be read' in str(error)


def test_external_data_through_links(folder: Path) -> None:
    secret = folder.parent / "secret.bin"
    (folder / "symbolic.bin").symlink_to(secret)
    (folder / "hard.bin").hardlink_to(secret)
    (folder / "tunnel").symlink_to(folder.parent, target_is_directory=True)
    for location in ("symbolic.bin", "hard.bin", "tunnel/secret.bin"):
        assert refusal(external(folder, location)).code == "BNN004", location


def test_external_data_missing_short_or_no_file(folder: Path) -> None:
    (folder / "short.bin").write_bytes(WEIGHTS.tobytes()[:-1])
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for location in ("missing.bin", "short.bin", "folder", "pipe"):
        error = refusal(external(folder, location))
        assert error.code == "BNN004", location
        assert error.diagnostics[0].help.startswith("keep the files that were exported together")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-8"),
        ("offset", "1"),
        ("offset", "x"),
        ("length", "-1"),
        ("length", "4"),
        ("length", "many"),
        ("location", None),
    ],
)
def test_external_data_with_wrong_bounds(key: str, value: str | None, folder: Path) -> None:
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert refusal(external(folder, "w.bin", set_entry(key, value))).code == "BNN004"


def test_every_external_tensor_is_reported(folder: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(NETWORK)
    for name in ("v", "u"):
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(NETWORK.graph.initializer[0])
        tensor.name = name
        external_data_helper.set_external_data(tensor, f"{name}.bin")
        tensor.ClearField("raw_data")
    error = refusal(saved(model, folder))
    assert [d.what for d in error.diagnostics] == [
        f'external data of tensor "{name}" cannot be read' for name in ("v", "u")
    ]


def test_external_tensor_that_claims_too_much(folder: Path) -> None:
    def claim(tensor: TensorProto) -> None:
        tensor.dims[:] = [2**40]

    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert refusal(external(folder, "w.bin", claim)).code == "BNN005"


def test_tensors_that_cannot_be_external(folder: Path) -> None:
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())

    def text(tensor: TensorProto) -> None:
        tensor.data_type = TensorProto.STRING

    def negative(tensor: TensorProto) -> None:
        tensor.dims[0] = -4

    assert "STRING" in str(refusal(external(folder, "w.bin", text)))
    assert "negative" in str(refusal(external(folder, "w.bin", negative)))


def test_constant_nodes_may_be_external_too(folder: Path) -> None:
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = external(folder, "w.bin")
    model = onnx.load_model(path, load_external_data=False)
    node = model.graph.node.add(op_type="Constant", output=["w"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
        model.graph.initializer[0]
    )
    nodes = [model.graph.node[-1], *model.graph.node[:-1]]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    imported = load_onnx(saved(model, folder))
    np.testing.assert_array_equal(imported.graph.constants["w.transposed"], WEIGHTS.T)


def test_limit_is_what_the_module_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(read, "MAX_TENSOR_BYTES", 100)
    assert refusal(saved(NETWORK, tmp_path)).code == "BNN005"
