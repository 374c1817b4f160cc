"""PACKED operations: one micro-kernel each, fused with what follows it.

A fused kernel computes a value for every channel of every pixel, continues with its epilogue's
expression, in which it may read other stored tensors (a shortcut, say), and stores any number of
results, as numbers or as packed bits. Its arrays are in storage order: images as [N, *S, C].
"""

from __future__ import annotations

import abc
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnncc.ir.expression import Expression, Operand, Source
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.linear import WindowSum, matrix_conv, sequential_conv
from bnncc.ir.ops.pool import MaxPool, Pooling
from bnncc.ir.ops.shape import Movement
from bnncc.ir.storage import (
    decode,
    encode,
    from_planes,
    pack_bits,
    pack_planes,
    plane_count,
    to_planes,
    unpack_bits,
)
from bnncc.ir.types import (
    Array,
    Element,
    Layout,
    PackedChannels,
    PixelPlanes,
    Planar,
    Stage,
    TensorType,
    real_layout,
)
from bnncc.ir.window import POINT, Window

__all__ = [
    "Epilogue",
    "Fused",
    "GatherBits",
    "Linear",
    "Map",
    "MismatchScale",
    "Move",
    "PackPlanes",
    "Pool",
    "PoolBits",
    "RealConv",
    "SignSum",
    "Store",
    "SumUnderWindow",
    "XnorConv",
]

_LOWERED = frozenset({Stage.BINARY, Stage.PACKED})


@dataclass(frozen=True)
class Store:
    """One result of a fused kernel: a number, or bits by comparison with thresholds.

    Bits: plane p of channel c is the parity of the comparisons value >= thresholds[p, c, j] over j.
    One comparison serves every monotone rising channel; two serve one that rises and falls again.

    Attributes:
        source: the stored or compared value: variable 0, which is the kernel's own, or a term.
        to: F32 or I32, stored as they are, or BIPOLAR or TERNARY, stored as packed bits.
        thresholds: T, the length of the thresholds' last axis; 0 for numbers.
        word_bits: of the packed words; 0 for numbers.
    """

    source: Operand
    to: Element
    thresholds: int = 0
    word_bits: int = 0

    @property
    def layout(self) -> PackedChannels | None:
        """The layout of packed bits; None for numbers."""
        return PackedChannels(self.word_bits, plane_count(self.to)) if self.thresholds else None

    def __str__(self) -> str:
        thresholds = f" >= {self.thresholds}" if self.thresholds else ""
        return f"{self.source}{thresholds} -> {self.to.value}"


@dataclass(frozen=True)
class Epilogue:
    """What a kernel does with each value: an expression, then one store or several.

    Its operands are the kernel's last: other stored tensors (variables 1, 2, ... of the
    expression), parameters (each [] or [C], or a Step's rows), and thresholds [planes, C, T] for
    each store of bits, in the order of the stores.

    Attributes:
        expression: from the value, as variable 0, the other tensors and the parameters.
        variables: how many other tensors it reads; each broadcasts to the kernel's result.
        parameters: how many parameters it reads.
        stores: at least one.
    """

    expression: Expression
    variables: int
    parameters: int
    stores: tuple[Store, ...]

    @property
    def operands(self) -> int:
        """How many of the kernel's last operands belong to the epilogue."""
        return self.variables + self.parameters + sum(s.thresholds > 0 for s in self.stores)

    def results(self, shape: tuple[int, ...]) -> tuple[TensorType, ...]:
        """Return the stored tensors' types, each of logical shape `shape`."""
        return tuple(
            TensorType(shape, store.to, store.layout or real_layout(shape)) for store in self.stores
        )

    def store(self, value: Array, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored forms of values [N, *S, C], given the epilogue's operands."""
        channels = value.shape[-1]
        others = [np.broadcast_to(v, value.shape) for v in operands[: self.variables]]
        variables = [v.reshape(-1, channels) for v in (value, *others)]
        rest = operands[self.variables :]
        parameters, thresholds = rest[: self.parameters], iter(rest[self.parameters :])
        terms = self.expression.values(variables, parameters)
        results = []
        for store in self.stores:
            pool = variables if store.source.source is Source.VARIABLE else terms
            result = np.broadcast_to(pool[store.source.index], variables[0].shape)
            if store.layout is None:
                results.append(result.astype(store.to.dtype).reshape(value.shape))
            else:
                bits = compare(result, next(thresholds))
                results.append(_packed(bits, value.shape, store.layout))
        return tuple(results)

    def __str__(self) -> str:
        return f"{self.expression} {', '.join(map(str, self.stores))}"


def compare(value: Array, thresholds: Array) -> Array:
    """Return bool [M, P, C]: the parity over j of value[M, C] >= thresholds[P, C, j]."""
    planes, channels, count = thresholds.shape
    bits = np.zeros((value.shape[0], planes, channels), dtype=bool)
    for j in range(count):
        bits ^= value[:, np.newaxis, :] >= thresholds[:, :, j]
    return bits


def _packed(bits: Array, shape: tuple[int, ...], layout: PackedChannels) -> Array:
    """Return bits [N * S, P, C] of values of shape [N, *S, C] as words [N, P, *S, words]."""
    planes = bits.reshape(*shape[:-1], *bits.shape[1:])
    return pack_planes(np.moveaxis(planes, (-2, -1), (1, 2)), layout)


@dataclass(frozen=True)
class Fused(Op):
    """A kernel with an epilogue, which its last operands belong to."""

    epilogue: Epilogue

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    @abc.abstractmethod
    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return the logical shape [N, C, *S] of the values.

        Raises:
            OpError: the operands do not fit.
        """

    @abc.abstractmethod
    def values(self, operands: Sequence[Array]) -> Array:
        """Return the values [N, *S, C] before the epilogue, given the kernel's own operands."""

    @property
    @abc.abstractmethod
    def own_operands(self) -> int:
        """How many of the first operands are the kernel's own."""

    @property
    def elementwise_operands(self) -> range:
        """Which operands are read where, and only where, the results are written, and before."""
        return range(self.own_operands, self.own_operands + self.epilogue.variables)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the types of the stores."""
        own = self.own_operands
        if len(operands) != own + self.epilogue.operands:
            raise OpError(f"{self.name} takes {own + self.epilogue.operands} operands")
        shape = self.shape(operands[:own])
        for variable in operands[own : own + self.epilogue.variables]:
            if _broadcast(shape, variable.shape) != shape:
                raise OpError(f"{variable} does not broadcast to {list(shape)}")
        return self.epilogue.results(shape)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored results."""
        own = self.own_operands
        return self.epilogue.store(self.values(operands[:own]), operands[own:])


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise OpError(f"shapes {' and '.join(map(str, shapes))} do not broadcast") from error


@dataclass(frozen=True)
class Map(Fused):
    """The epilogue alone, on each element of x: F32, I32 or U8."""

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return the shape of x."""
        (x,) = operands
        if x.layout != real_layout(x.shape):
            raise OpError("Map reads numbers, images with channels last")
        return x.shape

    def values(self, operands: Sequence[Array]) -> Array:
        """Return x."""
        return operands[0]

    @property
    def own_operands(self) -> int:
        """X."""
        return 1

    @property
    def elementwise_operands(self) -> range:
        """X and the other tensors."""
        return range(1 + self.epilogue.variables)


@dataclass(frozen=True)
class Pool(Fused):
    """A pool or a reduction of numbers, whose definition is the logical operation's own."""

    op: Pooling

    @property
    def own_operands(self) -> int:
        """X."""
        return 1

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return the pooled shape."""
        (x,) = operands
        if x.layout != real_layout(x.shape):
            raise OpError("Pool reads numbers, images with channels last")
        return self.op.infer([TensorType(x.shape, x.element)])[0].shape

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the pooled values."""
        (result,) = self.op.evaluate([np.moveaxis(operands[0], -1, 1)])
        return np.moveaxis(result, 1, -1)


@dataclass(frozen=True)
class SumUnderWindow(Fused):
    """S = sum of packed integers over a window and the channels of a group, then the epilogue.

    Operands (x: PackedChannels [N, C, *S], the epilogue's). It counts the bits that are 1: each is
    2 in a BIPOLAR plane, 1 in a TERNARY's, 2^j in plane j of codes, and each element of the first
    two is 1 less than what its bits count.

    Attributes:
        op: which window, groups and padding, and how many channels the sums fill.
        element: of x.
        depth: channels of x in one group.
    """

    op: WindowSum
    element: Element
    depth: int

    @property
    def own_operands(self) -> int:
        """X."""
        return 1

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return [N, channels, *outputs]."""
        (x,) = operands
        layout, groups = x.layout, self.op.groups
        if not isinstance(layout, PackedChannels) or x.element is not self.element:
            raise OpError(f"{self.name} reads packed {self.element.value}")
        if x.shape[1] != groups * self.depth:
            raise OpError(f"{groups} groups of {self.depth} channels do not fit {x}")
        if groups > 1 and layout.groups != groups and self.depth % layout.word_bits:
            raise OpError(f"groups of {self.depth} channels are not words of {x}")
        return self.op.infer([TensorType(x.shape, x.element)])[0].shape

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the sums, from the words as they are, unused bits included."""
        (x,) = operands
        op = self.op
        bits = unpack_bits(x, x.shape[-1] * x.dtype.itemsize * 8)
        ones = bits.reshape(*bits.shape[:-1], op.groups, -1).sum(axis=-1, dtype=np.int64)
        if self.element.code_bits:
            pixels = sum(ones[:, p] << p for p in range(x.shape[1]))
        else:
            pixels = (2 // x.shape[1]) * ones.sum(axis=1) - self.depth
        taps = op.window.patches(np.moveaxis(pixels, -1, 1), op.pad * self.depth)
        sums = taps.sum(axis=tuple(range(2, 2 + len(op.window.axes))))
        repeated = np.repeat(sums, op.channels // op.groups, axis=1)
        return np.moveaxis(repeated, 1, -1).astype(np.int32)


@dataclass(frozen=True)
class PoolBits(Op):
    """MaxPool on packed integers: the largest, or the smallest where the mask's bit is set.

    Operands (x: PackedChannels [N, C, *S]), or (x, mask: words). Where the planes rise with x that
    is OR and AND of each: BIPOLAR has one, a TERNARY's are x >= 0 and x > 0.

    Attributes:
        window: as in `MaxPool`.
        codes: whether the planes are the bits of a code, which compares as a whole.
    """

    window: Window
    codes: bool = False

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return x's element and layout, [N, C, *outputs]."""
        x, *mask = operands
        if not isinstance(x.layout, PackedChannels):
            raise OpError("PoolBits reads packed channels")
        if any(m.shape != (x.layout.words(x.shape[1]),) for m in mask):
            raise OpError(f"the mask does not fit {x}")
        shape = (*x.shape[:2], *self.window.outputs(x.shape[2:]))
        return (TensorType(shape, x.element, x.layout),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the words of the pooled integers."""
        x, *mask = operands
        if self.codes:
            return (self._pooled_codes(x, mask),)
        images = np.moveaxis(x, -1, 2).reshape(-1, x.shape[-1], *x.shape[2:-1])
        axes = tuple(range(2, 2 + len(self.window.axes)))
        result = np.bitwise_or.reduce(self.window.patches(images), axis=axes)
        if mask:
            ones = np.iinfo(x.dtype).max
            every = np.bitwise_and.reduce(self.window.patches(images, ones), axis=axes)
            chosen = mask[0].reshape(-1, *(1,) * len(axes))
            result = (result & ~chosen) | (every & chosen)
        planes = result.reshape(*x.shape[:2], *result.shape[1:])
        return (np.ascontiguousarray(np.moveaxis(planes, 2, -1)),)

    def _pooled_codes(self, x: Array, mask: Sequence[Array]) -> Array:
        """Return the planes of the largest or smallest codes."""
        count = x.shape[-1] * x.dtype.itemsize * 8
        bits = np.moveaxis(unpack_bits(x, count), -1, 2)
        weights = (1 << np.arange(x.shape[1])).reshape(-1, *(1,) * (bits.ndim - 2))
        falls = unpack_bits(mask[0], count) if mask else np.zeros(count, np.uint8)
        direction = np.where(falls, np.int8(-1), np.int8(1))
        codes = (bits * weights).sum(axis=1).astype(np.uint8)
        (codes,) = MaxPool(self.window).evaluate([codes, direction])
        planes = codes[:, np.newaxis] & weights != 0
        return pack_planes(planes, PackedChannels(x.dtype.itemsize * 8, x.shape[1]))


@dataclass(frozen=True)
class Move(Op):
    """A movement of elements between tensors stored as `sources` say, into the layout `to`.

    With no operation it only changes the layout.
    """

    op: Movement | None
    sources: tuple[TensorType, ...]
    to: Layout

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the moved type."""
        for given, source in zip(operands, self.sources, strict=True):
            if (given.element, given.layout) != (source.element, source.layout):
                raise OpError(f"{given} is not stored as {source}")
            if isinstance(source.layout, PixelPlanes | Planar) and given.shape != source.shape:
                raise OpError(f"where the pixels of {given} lie follows from their own size")
        logical = [TensorType(x.shape, x.element) for x in operands]
        moved = self.op.infer(logical)[0] if self.op else logical[0]
        return (TensorType(moved.shape, moved.element, self.to),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the moved elements as stored."""
        logical = [decode(x, source) for x, source in zip(operands, self.sources, strict=True)]
        (moved,) = self.op.evaluate(logical) if self.op else logical
        shaped = zip(logical, self.sources, strict=True)
        dense = [TensorType((1, *x.shape[1:]), source.element) for x, source in shaped]
        element = self.op.infer(dense)[0].element if self.op else dense[0].element
        return (encode(moved, TensorType(moved.shape, element, self.to)),)

    def __str__(self) -> str:
        return f"{self.name}({self.op or 'as it is'}, to={self.to})"


@dataclass(frozen=True)
class GatherBits(Op):
    """y[c, i, j] = x_s[k, rows[i], columns[j]], (s, k) chosen for each channel c, of packed bits.

    Concat, split, shuffle and duplication of channels, all of them at once, and images that are cut
    or enlarged, without a look at single bits where whole words can move.

    Attributes:
        sources: the operands' types; BIPOLAR beside TERNARY makes TERNARY.
        channels: (s, k) for each channel c of the result.
        places: of each spatial axis of the result, where they are along that axis of the operands;
            None for all pixels of images of any size.
        to: the result's layout.
    """

    sources: tuple[TensorType, ...]
    channels: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, ...], ...] | None
    to: PackedChannels

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    @property
    def element(self) -> Element:
        """The result's."""
        elements = {source.element for source in self.sources}
        return elements.pop() if len(elements) == 1 else Element.TERNARY

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the gathered type."""
        sizes = operands[0].shape[2:]
        for given, source in zip(operands, self.sources, strict=True):
            same = (given.element, given.layout) == (source.element, source.layout)
            if not same or given.shape[1] != source.shape[1]:
                raise OpError(f"{given} is not stored as {source}")
            if given.shape[2:] != sizes:
                raise OpError(f"{self} gathers from images of one size")
        counts = [source.shape[1] for source in self.sources]
        within = all(s < len(counts) and k < counts[s] for s, k in self.channels)
        if self.places is not None:
            ends = tuple(max(places) for places in self.places)
            within &= len(ends) == len(sizes) and all(map(operator.lt, ends, sizes))
        if not within:
            raise OpError(f"{self} reaches out of its operands")
        spatial = sizes if self.places is None else tuple(map(len, self.places))
        return (TensorType((1, len(self.channels), *spatial), self.element, self.to),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the gathered elements as stored."""
        logical = [decode(x, source) for x, source in zip(operands, self.sources, strict=True)]
        batch = max(len(x) for x in logical)
        channels = [
            np.broadcast_to(logical[s][:, k], (batch, *logical[s].shape[2:]))
            for s, k in self.channels
        ]
        y = np.stack(channels, axis=1)
        for axis, places in enumerate(self.places or (), start=2):
            y = np.take(y, places, axis=axis)
        kind = TensorType((1, *y.shape[1:]), self.element, self.to)
        return (encode(y, kind),)

    def __str__(self) -> str:
        channels = " + ".join(str(source.shape[1]) for source in self.sources)
        sizes = "" if self.places is None else f", {' x '.join(str(len(p)) for p in self.places)}"
        return f"{self.name}({len(self.channels)} of {channels} channels{sizes}, to={self.to})"


@dataclass(frozen=True)
class PackPlanes(Op):
    """The bitplanes of x: U8 numbers [N, C, *S] as eight planes of packed words."""

    word_bits: int

    stages: ClassVar[frozenset[Stage]] = _LOWERED

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return x in PackedChannels."""
        (x,) = operands
        if x.layout != real_layout(x.shape) or x.element is not Element.U8:
            raise OpError("PackPlanes reads u8, images with channels last")
        return (TensorType(x.shape, x.element, PackedChannels(self.word_bits, 8)),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the packed planes [N, 8, *S, words]."""
        return (pack_bits(to_planes(operands[0], Element.U8), self.word_bits),)


@dataclass(frozen=True)
class Linear(Fused):
    """What the linear kernels share: a micro-kernel, and a window that slides over groups.

    Weights are in blocks of nr output channels of one group, [groups * ceil(O / groups / nr), ...],
    zero past the group's last channel; within a block the taps follow one another in C order, and
    within a tap the words or channels of the group.

    Attributes:
        kernel: the micro-kernel's symbol in runtime_c.
        channels: O.
        nr: output channels in one block of weights.
        depth: channels of x in one group.
        window, groups: as in `Conv`.
    """

    kernel: str
    channels: int
    nr: int
    depth: int
    window: Window = POINT
    groups: int = 1

    @property
    def own_operands(self) -> int:
        """X and the weights."""
        return 2

    @property
    def blocks(self) -> int:
        """How many blocks of weights there are."""
        return self.groups * -(-self.channels // self.groups // self.nr)

    def _result(self, x: TensorType) -> tuple[int, ...]:
        if x.shape[1] != self.groups * self.depth:
            raise OpError(f"{self.groups} groups of {self.depth} channels do not fit {x}")
        return (x.shape[0], self.channels, *self.window.outputs(x.shape[2:]))

    def _rows(self, lanes: Array) -> Array:
        """Return lanes [blocks, K, nr] as weights [O, K / taps, *kernel]."""
        count = self.channels // self.groups
        rows = lanes.transpose(0, 2, 1).reshape(self.groups, -1, lanes.shape[1])
        rows = rows[:, :count].reshape(self.channels, *self.window.kernel, -1)
        return np.moveaxis(rows, -1, 1)


@dataclass(frozen=True)
class MismatchScale:
    """How accumulators follow from mismatches, see `XnorConv`.

    Attributes:
        of_k: what the accumulator of bits without mismatches has, before the division, for each K.
        factor, divisor: n = (base - factor * M) / divisor.
    """

    of_k: int
    factor: int
    divisor: int

    @classmethod
    def of(cls, parts: Sequence[int], *, bipolar: bool) -> MismatchScale:
        """Return the scale for weights of these parts."""
        total = sum(parts)
        half = 2 - total % 2
        return cls(total // half, 2 // half, 1) if bipolar else cls(total, 1, half)


@dataclass(frozen=True)
class XnorConv(Linear):
    """n = (base - factor * M) / divisor, with M a weighted sum of mismatches; then the epilogue.

    Operands (x: PackedChannels [N, C, *S], weights: words [parts * blocks, taps * words, nr], base:
    I32 [O] unless `direct` or `skip`, zeros: I32 [Z, axes + 2] if `zeros`, then the epilogue's).
    The words of the weights may be narrower than those of x, of which they are the parts in order.

    The weights are (sum_i parts_i w_i) / h with w_i = +-1 and h = 2 where the parts' sum P is even,
    else 1: parts (1,) are +-1, and (1, 1) are -1, 0, +1. The blocks of one part follow those of the
    part before. M = sum_i parts_i sum_p 2^(p * shift) * popcount(x_p XOR w_i) over the words under
    the window. A bipolar dot product is K - 2 * mismatches, and a k-bit code is a sum of bipolar
    planes, so that:

    | x       | base                             | factor | divisor | shift |
    | BIPOLAR | P K / h                          | 2 / h  | 1       | 0     |
    | TERNARY | P K                              | 1      | h       | 0     |
    | codes   | (2^k - 1) * (P K + h sum w) / 2  | 1      | h       | 1     |

    The division is exact.

    Attributes:
        direct: there is no base, and the thresholds of the epilogue's one store, which has no
            expression, are limits on M instead: n >= t iff M <= limit.
        skip: taps outside of the image are left out; K is then the depth times the taps inside.
        pad: else, what these taps hold, see BinaryConv.
        zeros: whether some weights of a single part are 0. They are packed as +1, and each row
            (channel, *tap, channel of the group) of the operand takes its product away again.
        codes: whether the planes of x are the bits of a code.
        parts: see above.
    """

    direct: bool = False
    skip: bool = False
    pad: int = 0
    zeros: bool = False
    codes: bool = False
    parts: tuple[int, ...] = (1,)

    @property
    def own_operands(self) -> int:
        """X, the weights, and what the attributes say."""
        return 2 + (not self.direct and not self.skip) + self.zeros

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return [N, O, *outputs]."""
        x, weights, *_ = operands
        layout = x.layout
        if not isinstance(layout, PackedChannels):
            raise OpError("XnorConv reads packed channels")
        if self.groups > 1 and layout.groups != self.groups and self.depth % layout.word_bits:
            raise OpError(f"groups of {self.depth} channels are not words of {x}")
        parts_of_a_word = layout.word_bits // (weights.element.dtype.itemsize * 8)
        words = layout.words(x.shape[1]) // self.groups * parts_of_a_word
        blocks = len(self.parts) * self.blocks
        if weights.shape != (blocks, self.window.taps * words, self.nr):
            raise OpError(f"weights {weights} do not fit an input {x}")
        return self._result(x)

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the accumulators n, or with `direct` the weighted mismatches as -M."""
        x, weights, *rest = operands
        mismatches = self._mismatches(x, weights)
        if self.direct:
            return np.moveaxis(-mismatches, 1, -1)
        scale = MismatchScale.of(self.parts, bipolar=not self.codes and x.shape[1] == 1)
        if self.skip:
            base: Array = scale.of_k * self.depth * self.window.counts(x.shape[2:-1])
        else:
            base = rest.pop(0).astype(np.int64).reshape(-1, *(1,) * len(self.window.axes))
        n = (base - scale.factor * mismatches) // scale.divisor
        if self.zeros:
            n = self._without(n, x, rest[0])
        return np.moveaxis(n.astype(np.int32), 1, -1)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the stored results, from the words as they are, unused bits included."""
        if self.direct:  # M <= limit iff -M >= -limit
            operands = [*operands[:-1], -operands[-1].astype(np.int64)]
        return super().evaluate(operands)

    @property
    def levels(self) -> int:
        """How many values weights have."""
        return 3 if self.zeros else sum(self.parts) + 1

    def integers(self, operands: Sequence[Array]) -> Array:
        """Return the weights, int8 [O, depth, *kernel], given the own operands behind x."""
        words, *rest = operands
        planes = [
            2 * self._rows(_lanes(part, words.dtype.itemsize * 8))[:, : self.depth].astype(np.int32)
            for part in np.split(words, len(self.parts))
        ]
        total = sum(part * (plane - 1) for part, plane in zip(self.parts, planes, strict=True))
        weights = np.asarray(total // (2 - sum(self.parts) % 2), np.int8)
        if self.zeros:
            channel, *tap, c = rest[-1].T
            weights[(channel, c, *tap)] = 0
        return weights

    def _mismatches(self, x: Array, weights: Array) -> Array:
        """Return M, int64 [N, O, *outputs].

        popcount(a XOR b) = popcount(a) + popcount(b) - 2 popcount(a AND b), and the last is a dot
        product of zeros and ones, exact in float32 up to 2^24 bits.
        """
        bits = weights.dtype.itemsize * 8
        held = x.shape[-1] * x.dtype.itemsize * 8
        planes = [
            np.moveaxis(unpack_bits(x[:, p], held), -1, 1).astype(np.float32)
            for p in range(x.shape[1])
        ]
        total: Array = np.zeros((), np.int64)
        for factor, part in zip(self.parts, np.split(weights, len(self.parts)), strict=True):
            w = self._rows(_lanes(part, bits)).astype(np.float32)
            ones = self._ones(w, x.shape[2:-1])
            for p, a in enumerate(planes):
                mismatches = self._count(a, self._fill(p, a.shape[1]), w) + ones
                total = total + (factor * mismatches.astype(np.int64) << (p if self.codes else 0))
        return total

    def _ones(self, w: Array, sizes: Sequence[int]) -> Array:
        """Return popcount(w) under each window, [O, *outputs or 1s]."""
        counted = w.sum(axis=1)  # [O, *kernel]
        ends = tuple(range(1, counted.ndim))
        if self.skip:
            valid = self.window.valid(sizes).astype(np.float32)
            return np.asarray(np.tensordot(counted, valid, axes=len(ends)))
        return np.asarray(counted.sum(axis=ends).reshape(-1, *(1,) * len(ends)))

    def _count(self, a: Array, fill: Array, w: Array) -> Array:
        """Return popcount(a) - 2 popcount(a AND w) under each window, taps outside being `fill`."""
        ends = (1,) * (a.ndim - 2)
        weights = 1 - 2 * w
        inside = matrix_conv(a - fill.reshape(-1, *ends), weights, self.window, self.groups)
        rows = fill.reshape(self.groups, 1, -1) * weights.sum(axis=tuple(range(2, w.ndim))).reshape(
            self.groups, -1, w.shape[1]
        )
        outside: Array = rows.sum(axis=2).reshape(-1, *ends)
        return inside + outside

    def _fill(self, plane: int, count: int) -> Array:
        """Return what plane `plane` holds outside of the image, float32 [count] zeros and ones."""
        fill = np.zeros((self.groups, count // self.groups), np.float32)
        held = self.pad >> plane & 1 if self.codes else self.pad > 0
        if held and not self.skip:
            fill[:, : self.depth] = 1
        return fill.reshape(-1)

    def _without(self, n: Array, x: Array, zeros: Array) -> Array:
        """Return the accumulators without the products of weights that are 0."""
        planes = np.moveaxis(unpack_bits(x, x.shape[-1] * x.dtype.itemsize * 8), -1, 2)
        if self.codes:
            weights = (1 << np.arange(x.shape[1])).reshape(-1, *(1,) * (planes.ndim - 2))
            levels = (planes * weights).sum(axis=1)
        else:
            element = {1: Element.BIPOLAR, 2: Element.TERNARY}[x.shape[1]]
            levels = from_planes(planes, element).astype(np.int64)
        patches = self.window.patches(levels, self.pad)
        stride = x.shape[-1] * x.dtype.itemsize * 8 // self.groups
        result = n.copy()
        for channel, *tap, c in zeros.tolist():
            group = channel // (self.channels // self.groups)
            result[:, channel] -= patches[(slice(None), group * stride + c, *tap)]
        return result


def _lanes(words: Array, bits: int) -> Array:
    """Return words [blocks, W, nr] as zeros and ones [blocks, W * bits, nr]."""
    rows = np.ascontiguousarray(words.transpose(0, 2, 1))
    return unpack_bits(rows, rows.shape[-1] * bits).transpose(0, 2, 1)


@dataclass(frozen=True)
class SignSum(Linear):
    """s[c] = sum of +-x under the window in float32, in the order of `Conv`, then the epilogue.

    Operands (x: F32 [N, C, *S], weights: words of nr bits [blocks, taps * depth], the epilogue's).
    Bit j of block b's k-th word is the weight of the block's output channel j, 1 standing for +1.
    """

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return [N, O, *outputs]."""
        x, weights = operands
        if weights.shape != (self.blocks, self.window.taps * self.depth):
            raise OpError(f"weights {weights} do not fit an input {x}")
        if x.element is not Element.F32 or x.layout != real_layout(x.shape):
            raise OpError("SignSum reads f32, images with channels last")
        return self._result(x)

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the sums."""
        x, weights = operands
        lanes = unpack_bits(weights[..., np.newaxis], self.nr)
        signs = 2 * self._rows(lanes).astype(np.float32) - 1
        sums = sequential_conv(np.moveaxis(x, -1, 1), signs, self.window, self.groups)
        return np.moveaxis(sums, 1, -1)


@dataclass(frozen=True)
class RealConv(Linear):
    """y[c] = sum of w x under the window in float32, in the order of `Conv`, then the epilogue.

    Operands (x: F32 [N, C, *S], weights: F32 [blocks, taps * depth, nr], the epilogue's).
    """

    def shape(self, operands: Sequence[TensorType]) -> tuple[int, ...]:
        """Return [N, O, *outputs]."""
        x, weights = operands
        if weights.shape != (self.blocks, self.window.taps * self.depth, self.nr):
            raise OpError(f"weights {weights} do not fit an input {x}")
        if x.element is not Element.F32 or x.layout != real_layout(x.shape):
            raise OpError("RealConv reads f32, images with channels last")
        return self._result(x)

    def values(self, operands: Sequence[Array]) -> Array:
        """Return the sums."""
        x, weights = operands
        rows = self._rows(weights)
        sums = sequential_conv(np.moveaxis(x, -1, 1), rows, self.window, self.groups)
        return np.moveaxis(sums, 1, -1)
