"""The command line in this process and in another, in a folder that holds one small model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bnncc.cli import app
from tests.cli.builders import environment, make_images, make_model, save

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """`small.onnx` in an otherwise empty folder, which is the working folder too."""
    return save(make_model(), tmp_path / "small.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """`images.onnx`: a residual convolutional network."""
    return save(make_images(), tmp_path / "images.onnx")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("compile", "small.onnx")` runs a command in this process, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "NO_COLOR", "BNNCC_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*words: str | Path, columns: int = 80) -> Result:
        monkeypatch.setenv("COLUMNS", str(columns))
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """`process("compile", "small.onnx")` runs `bnncc` as people do: another process, real pipes."""

    def start(
        *words: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.run(
            [sys.executable, "-m", "bnncc", *map(str, words)],
            cwd=tmp_path,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return start
