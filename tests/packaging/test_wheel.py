"""The wheel works where nothing else of this repository exists.

The sources git would commit are copied, built (sdist first, the wheel from the sdist) and deleted
again; the wheel goes into a clean environment, and a model is compiled from an unrelated folder.
Nothing is downloaded: the clean environment sees the dependencies installed here, and not bnncc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
BIN = "Scripts" if os.name == "nt" else "bin"


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Return stdout of `command`; on failure fail the test with all that it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the built sdist and wheel; the sources they came from are gone."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: asks git which files belong to the repository")
    checkout = tmp_path_factory.mktemp("copy") / "checkout"
    command = ("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard")
    for name in filter(None, run(command, ROOT).split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    dist = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, checkout], dist)
    shutil.rmtree(checkout)
    return dist


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a clean environment that holds the wheel and sees its dependencies."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run([sys.executable, "-m", "venv", environment], environment.parent)
    python = environment / BIN / "python"
    (wheel,) = distributions.glob("*.whl")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run([python, *install, wheel], environment.parent)
    # A .pth line adds the folder behind the environment's own, and does not read the .pth files in
    # it, so the editable install of the checkout there stays out of sight.
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([python, "-c", purelib], environment.parent).strip())
    here = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "dependencies.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    return environment / BIN


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A binary MLP 32-16-4 with hostile BatchNorm: gamma below zero, tiny variances."""
    rng = np.random.default_rng(7)
    scalars = {"plus": 1.0, "minus": -1.0, "zero": 0.0}
    constants = {name: np.array(value, np.float32) for name, value in scalars.items()}
    for layer, (wide, narrow) in enumerate([(32, 16), (16, 4)]):
        constants[f"w{layer}"] = rng.choice([-1, 1], (wide, narrow)).astype(np.float32)
        constants[f"gamma{layer}"] = rng.normal(0, 1, narrow).astype(np.float32)
        constants[f"beta{layer}"] = rng.normal(0, 1, narrow).astype(np.float32)
        constants[f"mean{layer}"] = rng.normal(0, 4, narrow).astype(np.float32)
        constants[f"variance{layer}"] = rng.uniform(1e-3, 30, narrow).astype(np.float32)

    def normalise(layer: int, source: str, target: str) -> onnx.NodeProto:
        parameters = [f"{name}{layer}" for name in ("gamma", "beta", "mean", "variance")]
        return helper.make_node("BatchNormalization", [source, *parameters], [target])

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["n0"]),
            normalise(0, "n0", "y0"),
            helper.make_node("GreaterOrEqual", ["y0", "zero"], ["positive"]),
            helper.make_node("Where", ["positive", "plus", "minus"], ["bits"]),
            helper.make_node("MatMul", ["bits", "w1"], ["n1"]),
            normalise(1, "n1", "y"),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "tiny.onnx"
    onnx.save(proto, path)
    return path


def test_sdist_can_be_tested(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        top = {Path(name).parts[1] for name in opened.getnames() if len(Path(name).parts) > 1}
    assert {"bnncc", "templates", "runtime_c", "tests", "examples", "Makefile", "LICENSE"} <= top


def test_wheel_holds_the_package_and_its_data_only(distributions: Path) -> None:
    (archive,) = distributions.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bnncc"}
    for folder in ("templates", "runtime_c"):
        shipped = {n.removeprefix("bnncc/_data/") for n in names if f"_data/{folder}/" in n}
        own = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert shipped == own


def test_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import bnncc; print(bnncc.__file__); print(bnncc.__version__)"
    place, version = run([installed / "python", "-c", code], tmp_path).splitlines()
    assert Path(place).is_relative_to(installed.parent)
    assert version in run([installed / "bnncc", "--version"], tmp_path)


def test_compiles_a_model_from_an_unrelated_folder(
    installed: Path, model: Path, tmp_path: Path, cc: str
) -> None:
    work = tmp_path / "elsewhere"
    work.mkdir()
    run([installed / "bnncc", "compile", model, "-o", "out", "--name", "tiny"], work)
    assert sorted(path.name for path in (work / "out").iterdir()) == ["tiny.c", "tiny.h"]
    assert re.search(r"\btiny_run\(", (work / "out" / "tiny.h").read_text(encoding="utf-8"))
    strict = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    run([cc, *strict, "-c", "out/tiny.c", "-o", "tiny.o"], work)
    assert (work / "tiny.o").stat().st_size > 0
