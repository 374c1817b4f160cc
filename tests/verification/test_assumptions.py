"""What is taken for granted is counted, and does not hide anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bnncc
from bnncc.compiler import Options, compile_in_memory
from tests.frontends.builders import NODE, make, saved

F = np.float32
WEIGHTS = np.where(np.arange(12).reshape(4, 3) % 5 < 2, F(-1), F(1))
X = np.array([[0, 0, 0, 0], [-0.0, 1, -1, 2], [0.5, 0, -3, -1e-30]], F)


@pytest.mark.parametrize("spelling", ["sign", "x / |x|"])
@pytest.mark.parametrize("value", ["plus", "minus"])
def test_every_zero_is_counted(spelling: str, value: str, tmp_path: Path) -> None:
    """ONNX Runtime gives 0, or NaN; the compiled model +1 or -1; all else is compared."""
    if spelling == "sign":
        nodes = [NODE("Sign", ["x"], ["s"], "sign")]
    else:
        nodes = [NODE("Abs", ["x"], ["a"], "abs"), NODE("Div", ["x", "a"], ["s"], "div")]
    model = make(*nodes, NODE("MatMul", ["s", "w"], ["y"], "fc"), constants={"w": WEIGHTS})
    done = compile_in_memory(saved(model, tmp_path), Options(sign_zero=value))
    result = bnncc.verify(done, data={"x": X})
    assert result.ok
    (layer,) = (layer for layer in result.layers if layer.compared)
    assert (layer.compared, layer.assumed) == (12, int((X == 0).sum()))
    assert layer.undecided == 0
    signs = np.where(X == 0, 1 if value == "plus" else -1, np.sign(X))
    np.testing.assert_array_equal(bnncc.load(done)(X), signs @ WEIGHTS)
