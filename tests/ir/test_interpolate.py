"""Interpolation: PyTorch's images, ONNX Runtime's order of roundings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.interpolate import Between, Interpolate
from bnncc.ir.types import Element, TensorType

F = np.float32
DOUBLED = Between((0, 0, 1, 1, 2, 2), (0, 1, 1, 2, 2, 2), ((1, 0), (0.5, 0.5)) * 3)
THIRDS = Between((0, 1), (1, 2), ((0.1, 0.9), (0.7, 0.3)))


def test_doubling_is_what_pytorch_makes_of_it() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(F)
    (y,) = Interpolate((DOUBLED, DOUBLED)).evaluate([x])
    corners = functional.interpolate(
        torch.from_numpy(x), size=(5, 5), mode="bilinear", align_corners=True
    )
    # Halves are exact: nothing but the order of three sums is left.
    np.testing.assert_allclose(y[..., :5, :5], corners.numpy(), atol=4 * 2.0**-24 * np.abs(x).max())


def test_every_operation_is_rounded_in_the_stated_order() -> None:
    x = np.random.default_rng(1).standard_normal((1, 1, 3, 3)).astype(F)
    (y,) = Interpolate((THIRDS, DOUBLED)).evaluate([x])
    for row, column in np.ndindex(2, 6):
        total = None
        for i in range(2):
            for j in range(2):
                rows, columns = (THIRDS.first, THIRDS.second)[i], (DOUBLED.first, DOUBLED.second)[j]
                weight = F(F(THIRDS.weights[row][i]) * F(DOUBLED.weights[column][j]))
                term = F(weight * x[0, 0, rows[row], columns[column]])
                total = term if total is None else F(total + term)
        assert y[0, 0, row, column] == total


def test_lines() -> None:
    (y,) = Interpolate((THIRDS,)).evaluate([F([[[1, 2, 4]]])])
    first, second = F(0.1) * F(1) + F(0.9) * F(2), F(0.7) * F(2) + F(0.3) * F(4)
    assert y.tolist() == [[[first, second]]]


@pytest.mark.parametrize(
    ("axes", "shape", "text"),
    [
        ((DOUBLED,), (1, 2, 2), "reaches out of"),
        ((DOUBLED,), (1, 2, 3, 3), "do not fit"),
        ((DOUBLED,) * 3, (1, 2, 3, 3, 3), "do not fit"),
    ],
)
def test_places_must_exist(axes: tuple[Between, ...], shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(OpError, match=text):
        Interpolate(axes).infer([TensorType(shape, Element.F32)])
    with pytest.raises(OpError, match="needs a dense f32"):
        Interpolate(axes).infer([TensorType(shape, Element.U8)])


def test_the_type_has_as_many_pixels_as_there_are_places() -> None:
    (kind,) = Interpolate((DOUBLED, THIRDS)).infer([TensorType((1, 5, 3, 4), Element.F32)])
    assert kind == TensorType((1, 5, 6, 2), Element.F32)
