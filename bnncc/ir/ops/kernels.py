"""Operations of the PACKED stage: each is one loop nest in the generated C.

Every one ends in an `Epilogue`: what happens to a value between the sum and the store, in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.expression import Expression
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.linear import sequential_dot
from bnncc.ir.storage import pack_bits, plane_count, to_planes, unpack_bits
from bnncc.ir.types import DENSE, Array, Element, PackedChannels, Stage, TensorType

__all__ = ["Epilogue", "Map", "PackPlanes", "RealDense", "SignSum", "XnorDense"]

_LOWERED = frozenset({Stage.BINARY, Stage.PACKED})


@dataclass(frozen=True)
class Epilogue:
    """What a kernel does with each value: an expression, then a store of reals or of bits.

    Bits: plane p of channel c is the parity of the comparisons value >= thresholds[p, c, j] over j.
    One comparison serves every monotone rising channel; two serve one that rises and falls again.

    Attributes:
        expression: from the value, as variable 0, and the parameters.
        parameters: how many operands the expression reads, each [] or [C].
        to: F32 or I32, stored as they are, or BIPOLAR or TERNARY, stored as packed bits.
        thresholds: T, the length of the thresholds' last axis; 0 for reals.
        word_bits: of the packed words; 0 for reals.
    """

    expression: Expression
    parameters: int
    to: Element
    thresholds: int = 0
    word_bits: int = 0

    @property
    def operands(self) -> int:
        """How many of the kernel's last operands belong to the epilogue."""
        return self.parameters + (1 if self.thresholds else 0)

    def result(self, shape: tuple[int, ...]) -> TensorType:
        """Return the stored tensor's type."""
        if not self.thresholds:
            return TensorType(shape, self.to)
        layout = PackedChannels(self.word_bits, plane_count(self.to))
        return TensorType(shape, self.to, layout)

    def store(self, value: Array, operands: Sequence[Array]) -> Array:
        """Return the stored form of values [N, C], given the epilogue's operands."""
        result = self.expression.evaluate([value], operands[: self.parameters])
        if not self.thresholds:
            return result.astype(self.to.dtype)
        return pack_bits(compare(result, operands[-1]), self.word_bits)

    def __str__(self) -> str:
        thresholds = f" >= {self.thresholds}" if self.thresholds else ""
        return f"{self.expression}{thresholds} -> {self.to.value}"


def compare(value: Array, thresholds: Array) -> Array:
    """Return bool [N, P, C]: the parity over j of value[N, C] >= thresholds[P, C, j]."""
    planes, channels, count = thresholds.shape
    bits = np.zeros((value.shape[0], planes, channels), dtype=bool)
    for j in range(count):
        bits ^= value[:, np.newaxis, :] >= thresholds[:, :, j]
    return bits


@dataclass(frozen=True)
class _Kernel(Op):
    """What the kernels share: stages, and an epilogue over the last operands."""

    epilogue: Epilogue

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def _split(self, operands: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        count = len(operands) - self.epilogue.operands
        return operands[:count], operands[count:]


@dataclass(frozen=True)
class Map(_Kernel):
    """The epilogue alone, on each element of x [N, C]: F32, I32 or U8."""

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the stored type."""
        if operands[0].layout != DENSE:
            raise OpError("Map reads dense tensors")
        return (self.epilogue.result(operands[0].shape),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored values."""
        (x,), rest = self._split(operands)
        return (self.epilogue.store(x, rest),)


@dataclass(frozen=True)
class PackPlanes(Op):
    """The bitplanes of x: U8 [N, C] as eight planes of packed words."""

    word_bits: int

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return x in PackedChannels."""
        (x,) = operands
        if x.layout != DENSE or x.element is not Element.U8:
            raise OpError("PackPlanes reads dense u8")
        return (TensorType(x.shape, x.element, PackedChannels(self.word_bits, 8)),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the packed planes [N, 8, words]."""
        return (pack_bits(to_planes(operands[0], Element.U8), self.word_bits),)


@dataclass(frozen=True)
class XnorDense(_Kernel):
    """n[c] = base[c] - factor * sum_p 2^(p * shift) * mismatches_p[c], then the epilogue.

    Operands (x: PackedChannels [N, K], weights: words [ceil(O / nr), words, nr], base: I32 [O],
    then the epilogue's). mismatches_p is popcount(x_p XOR w) over the words of plane p. A bipolar
    dot product is K - 2 * mismatches, and a k-bit code is a sum of bipolar planes, so that:

    | x       | base                           | factor | shift |
    | BIPOLAR | K                              | 2      | 0     |
    | TERNARY | K                              | 1      | 0     |
    | U8      | 255 * (K + sum_k w_k) / 2      | 1      | 1     |

    With `direct`, there is no base operand and the epilogue's thresholds are limits on the weighted
    mismatches M instead: n >= t iff M <= limit; the expression is empty.

    Attributes:
        kernel: the micro-kernel's symbol in runtime_c.
        channels: O.
        nr: output channels in one block of weights; those past O are zero.
        direct: see above.
    """

    kernel: str
    channels: int
    nr: int
    direct: bool

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the stored type [N, O]."""
        x, weights = operands[:2]
        if not isinstance(x.layout, PackedChannels):
            raise OpError("XnorDense reads packed channels")
        words = x.layout.words(x.shape[-1])
        blocks = -(-self.channels // self.nr)
        if weights.shape != (blocks, words, self.nr):
            raise OpError(f"weights {weights} do not fit an input {x}")
        return (self.epilogue.result((x.shape[0], self.channels)),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored values, computed from the words as they are, unused bits included."""
        (x, weights, *base), rest = self._split(operands)
        mismatches = _weighted_mismatches(x, weights)[:, : self.channels]
        if self.direct:
            return (pack_bits(_within(mismatches, rest[-1]), self.epilogue.word_bits),)
        factor = 2 if x.shape[1] == 1 else 1
        n = (base[0] - factor * mismatches).astype(np.int32)
        return (self.epilogue.store(n, rest),)


def _within(mismatches: Array, limits: Array) -> Array:
    """Return the parity over j of mismatches <= limits[..., j]: -M >= -limit."""
    return compare(-mismatches, -limits.astype(np.int64))


def _weighted_mismatches(x: Array, weights: Array) -> Array:
    """Return M = sum_p 2^(p * shift) * popcount(x_p XOR w) for all channels, int64 [N, O].

    popcount(a XOR b) = popcount(a) + popcount(b) - 2 popcount(a AND b), and the last is a dot
    product of zeros and ones, exact in float32 up to 2^24 bits.
    """
    batch, planes, words = x.shape
    bits = words * x.dtype.itemsize * 8
    rows = np.ascontiguousarray(weights.transpose(0, 2, 1)).reshape(-1, words)
    w = unpack_bits(rows, bits).astype(np.float32)
    total = np.zeros((batch, len(rows)), dtype=np.int64)
    for p in range(planes):
        a = unpack_bits(x[:, p], bits).astype(np.float32)
        mismatches = a.sum(axis=1)[:, np.newaxis] + w.sum(axis=1) - 2 * (a @ w.T)
        total += mismatches.astype(np.int64) << (p if planes == 8 else 0)
    return total


@dataclass(frozen=True)
class SignSum(_Kernel):
    """s[c] = sum_k w[c, k] x[k] in float32 from k = 0 upward, w in {-1, +1}, then the epilogue.

    Operands (x: F32 [N, K], weights: words of nr bits [ceil(O / nr), K], the epilogue's). Bit j of
    block b's k-th word is the weight of output channel b * nr + j, 1 standing for +1.

    Attributes:
        kernel, channels, nr: as in `XnorDense`.
    """

    kernel: str
    channels: int
    nr: int

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the stored type [N, O]."""
        x, weights = operands[:2]
        if weights.shape != (-(-self.channels // self.nr), x.shape[-1]):
            raise OpError(f"weights {weights} do not fit an input {x}")
        if x.element is not Element.F32 or x.layout != DENSE:
            raise OpError("SignSum reads dense f32")
        return (self.epilogue.result((x.shape[0], self.channels)),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored values."""
        (x, weights), rest = self._split(operands)
        lanes = unpack_bits(weights[..., np.newaxis], self.nr).transpose(0, 2, 1)
        signs = 2 * lanes.reshape(-1, weights.shape[1]).astype(np.float32) - 1
        return (self.epilogue.store(sequential_dot(x, signs[: self.channels]), rest),)


@dataclass(frozen=True)
class RealDense(_Kernel):
    """y[c] = sum_k w[c, k] x[k] in float32, from k = 0 upward, then the epilogue.

    Operands (x: F32 [N, K], weights: F32 [ceil(O / nr), K, nr], then the epilogue's).

    Attributes:
        kernel, channels, nr: as in `XnorDense`.
    """

    kernel: str
    channels: int
    nr: int

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the stored type [N, O]."""
        x, weights = operands[:2]
        if weights.shape != (-(-self.channels // self.nr), x.shape[-1], self.nr):
            raise OpError(f"weights {weights} do not fit an input {x}")
        return (self.epilogue.result((x.shape[0], self.channels)),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored values."""
        (x, weights), rest = self._split(operands)
        rows = weights.transpose(0, 2, 1).reshape(-1, weights.shape[1])
        return (self.epilogue.store(sequential_dot(x, rows[: self.channels]), rest),)
