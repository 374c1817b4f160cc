"""What tests compare with: plain Python arithmetic, independent of the code under test."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from bnncc.ir.types import Array, Element

F = np.float32


def f32(value: float) -> np.float32:
    """Return the float32 nearest to a Python float, ties to even: rounded by struct, not numpy."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return F(np.copysign(np.inf, value))
    return F(rounded)


def divided(a: float, b: float) -> float:
    """Return a / b as IEEE has it, without Python's exception."""
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, math.copysign(1, a) * math.copysign(1, b))


def normalised(x: float, s: Sequence[float], epsilon: float) -> np.float32:
    """Return a batch-normalised x: ONNX Runtime's order, one rounding an operation."""
    gamma, beta, mean, variance = map(float, s)
    root = f32(math.sqrt(f32(variance + float(F(epsilon)))))
    scale = f32(gamma * float(f32(divided(1.0, float(root)))))
    shift = f32(beta - float(f32(mean * float(scale))))
    return f32(float(f32(x * float(scale))) + float(shift))


EXTREMES = {
    Element.BIPOLAR: [-1, 1],
    Element.TERNARY: [-1, 0, 1],
    Element.U1: [0, 1],
    Element.U2: [0, 1, 2, 3],
    Element.U3: [0, 3, 4, 7],
    Element.U4: [0, 1, 7, 8, 15],
    Element.U8: [0, 1, 127, 128, 254, 255],
}


def integers(element: Element, batch: int, k: int, random: np.random.Generator) -> Array:
    """Return rows of values: all low, all high, then random ones."""
    choice = np.array(EXTREMES[element], element.dtype)
    x = random.choice(choice, (batch, k))
    x[0], x[1] = choice[0], choice[-1]
    return x


def scalar_dot(x: Array, weights: Array) -> np.float32:
    """The sum from k = 0 upward, rounded by struct after every product and every addition."""
    total = F(0)
    for a, b in zip(x.tolist(), weights.tolist(), strict=True):
        total = f32(float(total) + float(f32(a * b)))
    return total


CODES = {Element.U1: 1, Element.U2: 2, Element.U3: 3, Element.U4: 4, Element.U8: 8}
"""element -> bits"""
PLANES = {Element.BIPOLAR: 1, Element.TERNARY: 2, **CODES}
VALUES: dict[Element, Sequence[int]] = {
    Element.BIPOLAR: [-1, 1],
    Element.TERNARY: [-1, 0, 1],
    **{element: range(1 << count) for element, count in CODES.items()},
}
PADS: dict[Element, Sequence[int]] = {
    Element.BIPOLAR: [0, -1, 1],
    Element.TERNARY: [0, -1, 1],
    **{element: EXTREMES[element] for element in CODES},
}


def plane_bit(value: int, plane: int, element: Element) -> int:
    """What DESIGN and `PackedChannels` say of one bit of one value."""
    if element in CODES:
        return value >> plane & 1
    return int(value > 0) if element is Element.BIPOLAR or plane == 1 else int(value >= 0)


def word_value(words: Array, word_bits: int) -> int:
    """A row of words as one long integer: bit i of word j is bit j * word_bits + i."""
    return sum(int(word) << (j * word_bits) for j, word in enumerate(words))
