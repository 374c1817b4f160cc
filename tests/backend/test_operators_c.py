"""The operators of tests/frontends/operators.py in C: bit for bit what the interpreter stores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnncc.frontends.onnx import load_onnx
from bnncc.ir import interpret
from bnncc.ir.ops.kernels import Pool
from bnncc.passes.base import Context, SignZero
from bnncc.pipeline import run_pipeline
from bnncc.targets import target_named
from bnncc.verification.build import build_library
from bnncc.verification.run import CompiledModel
from tests.backend.toolchain import DIALECTS, WARNINGS, objects, together
from tests.backend.zoo import Emitted, print_c
from tests.frontends.builders import saved
from tests.frontends.operators import CASES, operands


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Emitted]:
    """Return every operator's program, which is the same for every target of 64-bit words."""
    folder = tmp_path_factory.mktemp("operators")
    context = Context(target_named("x86-64"), SignZero.AUTO)
    done = {}
    for i, (name, model) in enumerate(CASES.items()):
        graph = load_onnx(saved(model, folder)).graph
        done[name] = print_c(run_pipeline(graph, context).graph, f"m{i}")
    return done


def test_every_layer_stores_what_the_interpreter_stores(
    emitted: dict[str, Emitted], cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-O1")
    artifacts = [
        SimpleNamespace(
            target=target_named("generic"), program=e.program, header=e.header, source=e.source
        )
        for e in emitted.values()
    ]
    library = build_library(artifacts, tmp_path, compiler=cc)
    wrong = []
    for name, e in emitted.items():
        feeds = operands(name, CASES[name])
        expected = interpret.run_stored(e.graph, feeds)
        outputs, stored = CompiledModel(e.program, library).traced(**feeds)
        pairs = list(zip([buffer.tensor for buffer in e.program.results], stored, strict=True))
        pairs += zip(e.graph.outputs, outputs, strict=True)
        wrong += [
            f"{name}: {tensor}"
            for tensor, have in pairs
            if have.reshape(-1).view(np.uint8).tobytes()
            != np.ascontiguousarray(expected[tensor]).tobytes()
        ]
    assert wrong == []


@pytest.mark.parametrize("dialect", ["c99", "c++17"])
def test_no_warning(emitted: dict[str, Emitted], any_cc: str, tmp_path: Path, dialect: str) -> None:
    source = together(list(emitted.values()), tmp_path)
    objects(any_cc, [source], tmp_path, "-O1", *DIALECTS[dialect], *WARNINGS)


def test_every_pool_is_there(emitted: dict[str, Emitted]) -> None:
    nodes = [node for e in emitted.values() for node in e.graph.nodes]
    pools = {node.op.op.name for node in nodes if isinstance(node.op, Pool)}
    assert pools >= {"Interpolate", "ReduceMax", "ReduceMean", "ReduceSum"}
