"""The same model gives the same bytes: in another process, under another hash seed, elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnncc

ROOT = Path(bnncc.__file__).resolve().parents[1]

# Prints every file of the zoo and of an ONNX model, so that a difference can be read.
_PROGRAM = """
import sys
from bnncc.compiler import Options, compile_in_memory
from tests.backend.zoo import MODELS, TARGETS, emitted

for i, model in enumerate(MODELS):
    e = emitted(model, TARGETS[i % 2])
    print(e.header, e.source)
done = compile_in_memory(sys.argv[1], Options(target="generic", inputs=("uint8:0.01,-1",)))
print(done.header, done.source, done.certificate.as_json())
"""


def _model() -> onnx.ModelProto:
    """Return a small network with several layers of each kind of constant."""
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {}
    nodes = []
    x = "x"
    for i, (k, channels) in enumerate([(20, 11), (11, 9), (9, 4)]):
        weights = random.choice(np.float32([-1, 1]), (k, channels)) * np.float32(0.5)
        constants[f"w{i}"] = weights
        for role in ("scale", "bias", "mean", "var"):
            constants[f"{role}{i}"] = random.uniform(0.5, 2, channels).astype(np.float32)
        statistics = [f"{role}{i}" for role in ("scale", "bias", "mean", "var")]
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"fc{i}"))
        norm = helper.make_node("BatchNormalization", [f"m{i}", *statistics], [f"b{i}"])
        nodes.append(norm)
        x = f"b{i}"
        if i < 2:
            nodes.append(helper.make_node("Sign", [x], [f"s{i}"]))
            x = f"s{i}"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 20])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _save(folder: Path, name: str = "net.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(_model().SerializeToString())
    return path


def _started(path: Path, seed: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _PROGRAM, path.name]
    return subprocess.Popen(
        command, cwd=path.parent, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_another_process_hash_seed_and_folder_give_the_same_bytes(tmp_path: Path) -> None:
    folders = {"0": "one", "1": "another/folder", "4242": "a third"}
    started = [_started(_save(tmp_path / folder), seed) for seed, folder in folders.items()]
    first, *others = [process.communicate()[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(first) > 3000
    for other in others:
        assert other == first


def test_no_time_host_user_or_path_is_printed(tmp_path: Path) -> None:
    done = bnncc.compile(_save(tmp_path / "secret-folder"), tmp_path / "out")
    text = done.header.read_text() + done.source.read_text()
    for hidden in ("secret-folder", str(tmp_path), str(ROOT), os.uname().nodename):
        assert hidden not in text
    assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d:\d\d", text)


@pytest.mark.parametrize(
    "name",
    [
        "net.onnx",
        "a b'\"c.onnx",
        "*? ??!.onnx",
        "line\nbreak.onnx",
        "模型.onnx",
        "*\\ int injected; \\*.onnx",
        "stdint.onnx",
    ],
)
def test_hostile_file_names(any_cc: str, tmp_path: Path, name: str) -> None:
    done = bnncc.compile(_save(tmp_path, name), tmp_path / "out")
    command = [any_cc, "-c", "-std=c99", "-Wall", "-Wextra", "-Werror", "-I", done.header.parent]
    compiled = subprocess.run(
        [*command, done.source, "-o", tmp_path / "net.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    tame = bnncc.compile(_save(tmp_path / "tame"), tmp_path / "out2", bnncc.Options(name="tame"))
    code = _code(done.source.read_text(), done.compilation.program.name)
    assert code == _code(tame.source.read_text(), "tame")


def _code(text: str, name: str) -> str:
    """Return the text without comments, under the name `model`."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return text.replace(name.upper(), "MODEL").replace(f"{name}_", "model_").replace(name, "model")
