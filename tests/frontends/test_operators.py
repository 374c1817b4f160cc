"""Operators beyond layers and pools give ONNX Runtime's values, within what rounding allows.

The bounds are those of verify, which says of every tensor how far two float32 evaluations of the
model may lie apart: a wrong bound fails here as a wrong value does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnncc.ir import interpret
from bnncc.verification.bounds import Bounds
from tests.frontends.builders import load, oracle
from tests.frontends.operators import CASES, operands

# A sum of 120 values may be off by gamma_121 of their magnitudes, which add up to 190.
LOOSEST = 5e-3


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    imported = load(CASES[name], tmp_path)
    graph = imported.graph
    feeds = operands(name, CASES[name])
    seen = interpret.run_stored(graph, feeds)
    bounds = Bounds(graph, {}, seen, feeds.keys())
    expected = oracle(imported.source, feeds, graph.outputs)
    for output, truth in zip(graph.outputs, expected, strict=True):
        ours = seen[output]
        assert (ours.shape, ours.dtype) == (truth.shape, truth.dtype)
        allowed = np.broadcast_to(bounds.of(output), ours.shape)
        apart = np.abs(ours.astype(np.float64) - truth)
        assert (apart <= allowed).all(), (apart.max(), allowed[apart > allowed].min())
        assert (allowed <= LOOSEST * (1 + np.abs(truth))).all(), allowed.max()
