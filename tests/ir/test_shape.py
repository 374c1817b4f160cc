"""Reshape keeps the elements in C order, and the batch."""

from __future__ import annotations

import numpy as np
import pytest

from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage, TensorType


def test_keeps_order_and_batch() -> None:
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (y,) = Reshape((1, 2, 6)).evaluate([x])
    expected = [[[b * 12 + i * 6 + j for j in range(6)] for i in range(2)] for b in range(2)]
    assert y.tolist() == expected


def test_infers_the_operands_element() -> None:
    x = TensorType((1, 2, 6), Element.U8)
    assert Reshape((1, 12)).infer([x]) == (TensorType((1, 12), Element.U8),)
    assert Reshape.stages == set(Stage)


@pytest.mark.parametrize(
    ("shape", "to"),
    [((1, 6), (1, 5)), ((1, 6), (2, 3)), ((2, 3), (1, 6)), ((1, 6), ()), ((1, 0), (1, 1))],
)
def test_refuses(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    with pytest.raises(OpError, match="cannot reshape"):
        Reshape(to).infer([TensorType(shape, Element.F32)])
