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


@pytest.mark.parametrize("scale", [0.8, -0.3])
@pytest.mark.parametrize("value", ["plus", "minus", "exact"])
def test_every_zero_of_a_scaled_sign_is_counted(scale: float, value: str, tmp_path: Path) -> None:
    """AdaBin's scale * (sign(x) + shift): what it holds at 0 is neither 0 nor one of the others."""
    model = make(
        NODE("Sign", ["x"], ["s"], "sign"),
        NODE("Add", ["s", "shift"], ["a"], "shifted"),
        NODE("Mul", ["a", "scale"], ["b"], "scaled"),
        NODE("MatMul", ["b", "w"], ["y"], "fc"),
        constants={"w": WEIGHTS, "shift": F(-0.15), "scale": F(scale)},
    )
    done = compile_in_memory(saved(model, tmp_path), Options(sign_zero=value))
    result = bnncc.verify(done, data={"x": X})
    assert result.ok, result.layers
    zeros = 0 if value == "exact" else int((X == 0).sum())
    assert sum(layer.assumed for layer in result.layers) == zeros
    (layer,) = done.report.layers
    assert layer.activations == ("u2" if value == "exact" else "u1")
    at_zero = {"plus": 1, "minus": -1, "exact": 0}[value]
    signs = np.where(X == 0, F(at_zero), np.sign(X))
    expected = ((signs + F(-0.15)) * F(scale)) @ WEIGHTS
    np.testing.assert_allclose(bnncc.load(done)(X), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1.0, 0.8])
@pytest.mark.parametrize("value", ["auto", "plus", "minus", "exact"])
@pytest.mark.parametrize(("op", "at_zero"), [("Greater", -1), ("GreaterOrEqual", 1)])
def test_an_assumption_holds_for_what_is_decided_by_the_sign(
    op: str, at_zero: int, value: str, scale: float, tmp_path: Path
) -> None:
    """Beside the layer, a comparison reads the sign, and has a layer of its own."""
    model = make(
        NODE("Sign", ["x"], ["s"], "sign"),
        NODE("Mul", ["s", "scale"], ["a"], "scaled"),
        NODE(op, ["a", "zero"], ["m"], "compared"),
        NODE("Where", ["m", "plus", "minus"], ["b"], "chosen"),
        NODE("MatMul", ["a", "w"], ["u"], "fc"),
        NODE("MatMul", ["b", "w"], ["v"], "beside"),
        NODE("Sub", ["u", "v"], ["y"], "difference"),
        constants={"w": WEIGHTS, "scale": F(scale), "zero": F(0), "plus": F(1), "minus": F(-1)},
    )
    done = compile_in_memory(saved(model, tmp_path), Options(sign_zero=value))
    result = bnncc.verify(done, data={"x": X})
    assert result.ok, result.layers
    taken = {"plus": 1, "auto": 1, "minus": -1}.get(value)
    signs = np.where(X == 0, F(taken or 0), np.sign(X))
    bits = np.where(X == 0, taken or at_zero, np.sign(X))
    expected = (F(scale) * signs - bits) @ WEIGHTS
    np.testing.assert_allclose(bnncc.load(done)(X), expected, rtol=0, atol=2e-6)
