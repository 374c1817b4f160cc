"""The PACKED operations against the logical ones, and against loops over single bits.

Words are assembled here from Python integers, not by `bnncc.ir.storage`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.elementwise import Add, Dequantize, Mul, Relu, Step
from bnncc.ir.ops.kernels import (
    Epilogue,
    GatherBits,
    Map,
    Move,
    PackPlanes,
    Pool,
    PoolBits,
    RealConv,
    SignSum,
    Store,
    SumUnderWindow,
    XnorConv,
    compare,
)
from bnncc.ir.ops.linear import BinaryConv, Conv, WindowSum
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Concat, Movement, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import (
    CHANNELS_LAST,
    DENSE,
    Array,
    Element,
    Layout,
    PackedChannels,
    Stage,
    TensorType,
    real_layout,
)
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.oracles import (
    CODES,
    EXTREMES,
    PADS,
    PLANES,
    VALUES,
    integers,
    plane_bit,
    scalar_dot,
    word_value,
)
from tests.ir.sketch import F, same_bits
from tests.ir.windows import pads_below_kernel, windows_and_sizes

PLAIN = Expression(())
LENGTHS = [1, 2, 31, 32, 33, 64, 65, 130]
VALUE = Operand(Source.VARIABLE, 0)


def parameter(index: int) -> Operand:
    return Operand(Source.PARAMETER, index)


def plain(element: Element) -> Epilogue:
    """Store the value as it is."""
    return Epilogue(PLAIN, 0, 0, (Store(VALUE, element),))


def into_bits(element: Element, thresholds: int = 1, word_bits: int = 32) -> Epilogue:
    """Store the value's bits."""
    return Epilogue(PLAIN, 0, 0, (Store(VALUE, element, thresholds, word_bits),))


def words(values: list[int], word_bits: int) -> list[int]:
    """Return bits 0/1 as words, LSB first."""
    count = -(-len(values) // word_bits)
    long = sum(bit << i for i, bit in enumerate(values))
    return [long >> (j * word_bits) & ((1 << word_bits) - 1) for j in range(count)]


def group_words(values: list[int], word_bits: int, groups: int) -> list[int]:
    """Return bits 0/1 as words, each group's in words of its own."""
    depth = len(values) // groups
    parts = [words(values[g * depth : (g + 1) * depth], word_bits) for g in range(groups)]
    return [word for part in parts for word in part]


def packed(logical: Array, element: Element, word_bits: int, groups: int = 1) -> Array:
    """Return logical values [N, C, *S] as words [N, planes, *S, W]."""
    planes, sizes = PLANES[element], logical.shape[2:]
    layout = PackedChannels(word_bits, planes, groups)
    shape = (len(logical), planes, *sizes, layout.words(logical.shape[1]))
    result = np.zeros(shape, f"uint{word_bits}")
    for n, p, *pixel in np.ndindex(*shape[:-1]):
        values = logical[(n, slice(None), *pixel)].tolist()
        bits = [plane_bit(value, p, element) for value in values]
        result[(n, p, *pixel)] = group_words(bits, word_bits, groups)
    return result


def blocked(weights: Array, nr: int, word_bits: int, groups: int = 1) -> Array:
    """Return weights [O, D, *kernel] as words [blocks, taps * W, nr], 0 taken for +1.

    Each group's channels fill blocks of their own; what is missing of the last is zero.
    """
    flat = weights.reshape(*weights.shape[:2], -1)
    rows = [[word for tap in w.T >= 0 for word in words(tap.tolist(), word_bits)] for w in flat]
    count = len(rows) // groups
    blocks = -(-count // nr)
    result = np.zeros((groups * blocks, len(rows[0]), nr), f"uint{word_bits}")
    for o, row in enumerate(rows):
        group, channel = divmod(o, count)
        result[group * blocks + channel // nr, :, channel % nr] = row
    return result


def signs(random: np.random.Generator, *shape: int) -> Array:
    return random.choice(np.array([-1, 1], np.int8), shape)


def last(logical: Array) -> Array:
    """Return [N, C, *S] as [N, *S, C]."""
    return np.moveaxis(logical, 1, -1)


def stored(logical: Array, element: Element, layout: Layout) -> Array:
    """Return logical values [N, C, *S] as a layout has them."""
    if isinstance(layout, PackedChannels):
        return packed(logical, element, layout.word_bits, layout.groups)
    return last(logical) if layout == CHANNELS_LAST else logical


# --- compare and Epilogue -------------------------------------------------------------------------


def test_compare_is_the_parity_of_thresholds_reached() -> None:
    thresholds = np.array([[[-2, 1, 3], [0, 2, 9]], [[0, 1, 2], [5, 5, 5]]], np.int32)
    value = np.arange(-4, 11, dtype=np.int32)[:, np.newaxis].repeat(2, axis=1)
    bits = compare(value, thresholds)
    for n, p, c in np.ndindex(*bits.shape):
        reached = sum(1 for t in thresholds[p, c].tolist() if int(value[n, c]) >= t)
        assert bits[n, p, c] == (reached % 2 == 1)


def test_epilogue_stores_reals_as_they_are() -> None:
    expression = Expression(
        (
            Term(Mul(), (Operand(Source.VARIABLE, 0), Operand(Source.PARAMETER, 1))),
            Term(Add(), (Operand(Source.TERM, 0), Operand(Source.PARAMETER, 0))),
        )
    )
    epilogue = Epilogue(expression, 0, 2, (Store(Operand(Source.TERM, 1), Element.F32),))
    value = np.array([[1, 2], [3, -4]], F)
    bias, factor = np.array([10, 20], F), np.array(0.5, F)
    (result,) = epilogue.store(value, [bias, factor])
    same_bits(result, np.array([[10.5, 21], [11.5, 18]], F))
    assert epilogue.operands == 2
    assert epilogue.results((1, 2)) == (TensorType((1, 2), Element.F32),)
    assert str(epilogue) == "{t0 = Mul(x0, p1); t1 = Add(t0, p0)} t1 -> f32"


@pytest.mark.parametrize("word_bits", [32, 64])
@pytest.mark.parametrize("channels", [1, 33, 65])
def test_epilogue_stores_bits(channels: int, word_bits: int) -> None:
    random = np.random.default_rng(channels)
    relu = Expression((Term(Relu(), (Operand(Source.VARIABLE, 0),)),))
    thresholds = np.sort(random.standard_normal((2, channels, 2)).astype(F), axis=2)
    store = Store(Operand(Source.TERM, 0), Element.TERNARY, 2, word_bits)
    epilogue = Epilogue(relu, 0, 0, (store,))
    assert str(epilogue) == "{t0 = Relu(x0)} t0 >= 2 -> ternary"
    value = random.standard_normal((4, channels)).astype(F)
    (bits,) = epilogue.store(value, [thresholds])
    (kind,) = epilogue.results((1, channels))
    assert kind == TensorType((1, channels), Element.TERNARY, PackedChannels(word_bits, 2))
    for n, p in np.ndindex(4, 2):
        expected = 0
        for c in range(channels):
            v = max(float(value[n, c]), 0.0)
            parity = sum(v >= t for t in thresholds[p, c].tolist()) % 2
            expected |= parity << c
        assert word_value(bits[n, p], word_bits) == expected
    assert epilogue.operands == 1


NAMES = {"full": (2, 3, 5), "pixel": (2, 3, 1), "channel": (1, 1, 5)}
"""How another tensor broadcasts to values [N, W, C] of two samples, three pixels, five channels."""


def test_epilogue_stores_numbers_and_bits_of_a_value_and_its_terms() -> None:
    # What a residual block needs: the sum, its bits, and the accumulator itself.
    terms = (
        Term(Mul(), (VALUE, parameter(0))),
        Term(Add(), (Operand(Source.TERM, 0), Operand(Source.VARIABLE, 1))),
    )
    total = Operand(Source.TERM, 1)
    stores = (
        Store(total, Element.BIPOLAR, 1, 32),
        Store(VALUE, Element.I32),
        Store(total, Element.F32),
        Store(Operand(Source.TERM, 0), Element.TERNARY, 2, 64),
    )
    epilogue = Epilogue(Expression(terms), 1, 1, stores)
    assert epilogue.operands == 4
    random = np.random.default_rng(0)
    value = random.integers(-9, 10, (2, 3, 5)).astype(F)
    shortcut, scale = random.standard_normal((2, 3, 5)).astype(F), random.standard_normal(5)
    rising = random.standard_normal((1, 5, 1)).astype(F)
    levels = np.sort(random.standard_normal((2, 5, 2)), axis=2).astype(F)
    first, second, third, fourth = epilogue.store(
        value, [shortcut, scale.astype(F), rising, levels]
    )
    scaled = value * scale.astype(F)
    same_bits(third, scaled + shortcut)
    np.testing.assert_array_equal(second, value.astype(np.int32), strict=True)
    assert [a.dtype for a in (first, fourth)] == [np.uint32, np.uint64]
    for n, pixel in np.ndindex(2, 3):
        bits = [int(v >= t) for v, t in zip(third[n, pixel], rising[0, :, 0], strict=True)]
        assert word_value(first[n, 0, pixel], 32) == sum(b << c for c, b in enumerate(bits))
        for p in range(2):
            expected = sum(
                int(((scaled[n, pixel, c] >= levels[p, c]).sum()) % 2) << c for c in range(5)
            )
            assert word_value(fourth[n, p, pixel], 64) == expected
    assert epilogue.results((1, 5, 3)) == (
        TensorType((1, 5, 3), Element.BIPOLAR, PackedChannels(32, 1)),
        TensorType((1, 5, 3), Element.I32, CHANNELS_LAST),
        TensorType((1, 5, 3), Element.F32, CHANNELS_LAST),
        TensorType((1, 5, 3), Element.TERNARY, PackedChannels(64, 2)),
    )


@pytest.mark.parametrize("names", list(itertools.product(NAMES, NAMES)), ids="-".join)
def test_other_tensors_broadcast_to_the_value(names: tuple[str, str]) -> None:
    random = np.random.default_rng(1)
    terms = (
        Term(Mul(), (VALUE, Operand(Source.VARIABLE, 2))),
        Term(Add(), (Operand(Source.TERM, 0), Operand(Source.VARIABLE, 1))),
    )
    store = Store(Operand(Source.TERM, 1), Element.F32)
    epilogue = Epilogue(Expression(terms), 2, 0, (store,))
    value, a, b = (
        random.standard_normal(shape).astype(F) for shape in ((2, 3, 5), *map(NAMES.get, names))
    )
    (result,) = epilogue.store(value, [a, b])
    for n, pixel, c in np.ndindex(2, 3, 5):
        at = [
            array[tuple(np.minimum((n, pixel, c), np.array(array.shape) - 1))] for array in (a, b)
        ]
        assert result[n, pixel, c] == F(F(value[n, pixel, c] * at[1]) + at[0])


# --- Windows --------------------------------------------------------------------------------------

PADDED = Window((Axis(3, 1, 1, 1, 1), Axis(3, 2, 1, 1, 0)))
GROUPS = {
    "one": (1, 37, 9),
    "depthwise": (6, 1, 1),
    "multiplied depthwise": (3, 1, 5),
    "ragged": (3, 5, 11),
    "whole words": (2, 64, 3),
}
"""name -> groups, input channels and output channels of each."""


@dataclass(frozen=True)
class Layer:
    """A convolution: its window and sizes, its groups, and what they hold."""

    window: Window
    sizes: tuple[int, ...]
    groups: int
    depth: int
    count: int

    def x(self, element: Element, random: np.random.Generator) -> Array:
        """Values [2, C, *S], some of them all low and all high."""
        values = np.array(EXTREMES[element], element.dtype)
        x = random.choice(values, (2, self.groups * self.depth, *self.sizes))
        x[:, ::5] = values[0]
        x[:, 1::5] = values[-1]
        return x

    @property
    def channels(self) -> int:
        return self.groups * self.count

    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return (self.channels, self.depth, *self.window.kernel)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    window, sizes = draw(windows_and_sizes())
    groups, depth, count = draw(
        st.sampled_from(list(GROUPS.values())) | st.tuples(*[st.integers(1, 4)] * 3)
    )
    return Layer(window, sizes, groups, depth, count)


# --- XnorConv -------------------------------------------------------------------------------------


def _base(element: Element, weights: Array) -> Array:
    """The accumulator without mismatches, as the docstring's table says."""
    rows = weights.reshape(len(weights), -1)
    o, k = rows.shape
    if element not in CODES:
        return np.full(o, k, np.int32)
    most = (1 << CODES[element]) - 1
    return np.array([most * (k + int(row.sum())) // 2 for row in rows.astype(int)], np.int32)


def _zeros(weights: Array) -> Array:
    """A row (channel, *tap, channel of the group) for each weight that is 0."""
    found = [(o, *tap, c) for (o, c, *tap), w in np.ndenumerate(weights) if w == 0]
    return np.array(found, np.int32).reshape(len(found), weights.ndim)


def xnor(
    layer: Layer,
    epilogue: Epilogue,
    element: Element,
    weights: Array,
    *,
    nr: int = 8,
    word_bits: int = 32,
    pad: int = 0,
) -> tuple[XnorConv, list[Array], list[TensorType]]:
    """Return the kernel as lower_kernels has it, its own operands behind x, and all their types."""
    skip = pad == 0 and element not in CODES and layer.window.is_padded(layer.sizes)
    zeros = _zeros(weights)
    op = XnorConv(
        epilogue,
        "any",
        layer.channels,
        nr,
        layer.depth,
        layer.window,
        layer.groups,
        False,
        skip,
        pad,
        bool(len(zeros)),
        bool(element.code_bits),
    )
    own = [blocked(weights, nr, word_bits, layer.groups)]
    if not skip:
        own.append(_base(element, np.where(weights == 0, 1, weights)))
    if len(zeros):
        own.append(zeros)
    groups = layer.groups if layer.depth % word_bits else 1
    layout = PackedChannels(word_bits, PLANES[element], groups)
    shape = (1, layer.groups * layer.depth, *layer.sizes)
    held = {32: Element.WORD32, 64: Element.WORD64}[word_bits]
    kinds = [
        TensorType(shape, element, layout),
        TensorType(own[0].shape, held),
        *(TensorType(a.shape, Element.I32) for a in own[1:]),
    ]
    return op, own, kinds


def accumulators(layer: Layer, x: Array, weights: Array, pad: int = 0) -> Array:
    """The logical layer's, int32 [N, *S, O]."""
    return last(BinaryConv(layer.window, layer.groups, pad).evaluate([x, weights])[0])


@given(layers(), st.data())
def test_xnor_conv_is_the_logical_convolution(layer: Layer, data: st.DataObject) -> None:
    element = data.draw(st.sampled_from(sorted(PLANES, key=lambda e: e.value)))
    nr, word_bits = data.draw(st.sampled_from([(1, 32), (4, 32), (8, 64)]))
    pad = data.draw(st.sampled_from(PADS[element]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = signs(random, *layer.shape())
    if data.draw(st.booleans()):
        weights[random.random(weights.shape) < 0.1] = 0
    x = layer.x(element, random)
    op, own, kinds = xnor(
        layer, plain(Element.I32), element, weights, nr=nr, word_bits=word_bits, pad=pad
    )
    layout = kinds[0].layout
    assert isinstance(layout, PackedChannels)
    (n,) = op.evaluate([packed(x, element, word_bits, layout.groups), *own])
    np.testing.assert_array_equal(n, accumulators(layer, x, weights, pad), strict=True)
    (kind,) = op.infer(kinds)
    assert kind.shape == (1, layer.channels, *layer.window.outputs(layer.sizes))
    assert n.shape[1:] == (*kind.shape[2:], kind.shape[1])


@pytest.mark.parametrize("pad", [0, -1, 1])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
def test_xnor_conv_with_padding_and_zeros_among_the_weights(
    element: Element, groups: str, pad: int
) -> None:
    random = np.random.default_rng(pad + 1)
    layer = Layer(PADDED, (4, 5), *GROUPS[groups])
    weights, x = signs(random, *layer.shape()), layer.x(element, random)
    weights[random.random(weights.shape) < 0.2] = 0
    op, own, kinds = xnor(layer, plain(Element.I32), element, weights, pad=pad)
    assert op.zeros
    assert op.skip == (pad == 0)
    layout = kinds[0].layout
    assert isinstance(layout, PackedChannels)
    (n,) = op.evaluate([packed(x, element, 32, layout.groups), *own])
    np.testing.assert_array_equal(n, accumulators(layer, x, weights, pad), strict=True)


@pytest.mark.parametrize("pad", [0, 1, 77, 255])
@pytest.mark.parametrize("zeros", [False, True])
def test_xnor_conv_on_codes_padded_with_a_code(zeros: bool, pad: int) -> None:
    random = np.random.default_rng(pad)
    layer = Layer(PADDED, (4, 5), *GROUPS["ragged"])
    weights, x = signs(random, *layer.shape()), layer.x(Element.U8, random)
    if zeros:
        weights[random.random(weights.shape) < 0.2] = 0
    op, own, _ = xnor(layer, plain(Element.I32), Element.U8, weights, pad=pad)
    (n,) = op.evaluate([packed(x, Element.U8, 32, 3), *own])
    np.testing.assert_array_equal(n, accumulators(layer, x, weights, pad), strict=True)


# The docstring's table, for weights in several parts.
PARTS = [(1, 1), (1, 2), (1, 2, 4), (1, 2, 3)]


def parted(
    layer: Layer, element: Element, parts: tuple[int, ...], random: np.random.Generator, pad: int
) -> tuple[XnorConv, list[Array], Array]:
    """Return the kernel, its own operands behind x, and the weights that the parts sum to."""
    half = 1 if sum(parts) % 2 else 2
    planes = [signs(random, *layer.shape()) for _ in parts]
    weights = sum(p * plane.astype(int) for p, plane in zip(parts, planes, strict=True)) // half
    k = layer.depth * layer.window.taps
    if element in CODES:
        total = weights.reshape(layer.channels, -1).sum(axis=1)
        base = ((1 << CODES[element]) - 1) * (sum(parts) * k + half * total) // 2
    else:
        bipolar = element is Element.BIPOLAR
        base = np.full(layer.channels, sum(parts) * k // (half if bipolar else 1))
    skip = pad == 0 and element not in CODES and layer.window.is_padded(layer.sizes)
    op = XnorConv(
        plain(Element.I32),
        "any",
        layer.channels,
        4,
        layer.depth,
        layer.window,
        layer.groups,
        skip=skip,
        pad=pad,
        codes=element in CODES,
        parts=parts,
    )
    words = [blocked(plane, 4, 32, layer.groups) for plane in planes]
    own = [np.concatenate(words), *([] if skip else [base.astype(np.int32)])]
    return op, own, weights


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_xnor_conv_of_weights_in_parts(element: Element, parts: tuple[int, ...]) -> None:
    random = np.random.default_rng(sum(parts))
    for groups, pad in itertools.product(GROUPS.values(), PADS[element]):
        layer = Layer(PADDED, (4, 5), *groups)
        op, own, weights = parted(layer, element, parts, random, pad)
        x = layer.x(element, random)
        shared = layer.groups if layer.depth % 32 else 1
        (n,) = op.evaluate([packed(x, element, 32, shared), *own])
        depth = layer.depth * layer.groups
        expected = np.zeros((2, layer.channels, *PADDED.outputs((4, 5))), int)
        held = PADDED.patches(x.astype(int), pad).reshape(2, depth, 9, *PADDED.outputs((4, 5)))
        for o in range(layer.channels):
            first = o // layer.count * layer.depth
            seen = held[:, first : first + layer.depth]
            w = weights[o].reshape(layer.depth, 9)
            expected[:, o] = np.einsum("ncthw,ct->nhw", seen, w)
        np.testing.assert_array_equal(n, last(expected).astype(np.int32), strict=True)


@given(layers(), st.data())
def test_sums_under_a_window(layer: Layer, data: st.DataObject) -> None:
    element = data.draw(st.sampled_from(sorted(PLANES, key=lambda e: e.value)))
    pad = data.draw(st.sampled_from(PADS[element]))
    word_bits = data.draw(st.sampled_from([32, 64]))
    channels = layer.groups * data.draw(st.integers(1, 3))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = layer.x(element, random)
    logical = WindowSum(layer.window, layer.groups, pad, channels)
    op = SumUnderWindow(plain(Element.I32), logical, element, layer.depth)
    groups = layer.groups if layer.depth % word_bits else 1
    (sums,) = op.evaluate([packed(x, element, word_bits, groups)])
    np.testing.assert_array_equal(sums, last(logical.evaluate([x])[0]), strict=True)
    layout = PackedChannels(word_bits, PLANES[element], groups)
    (kind,) = op.infer([TensorType((1, *x.shape[1:]), element, layout)])
    assert (kind.shape, kind.element) == ((1, channels, *sums.shape[1:-1]), Element.I32)


@pytest.mark.parametrize("nr", [1, 4, 8])
@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_xnor_dense_is_the_dot_product(element: Element, k: int, nr: int) -> None:
    random = np.random.default_rng(k + nr)
    word_bits = 64 if nr == 4 else 32
    weights = signs(random, 5, k)
    weights[0], weights[1] = 1, -1
    x = integers(element, 5, k, random)
    op = XnorConv(plain(Element.I32), "any", 5, nr, k, codes=element in CODES)
    operands = [packed(x, element, word_bits), blocked(weights, nr, word_bits)]
    (n,) = op.evaluate([*operands, _base(element, weights)])
    expected = [
        [sum(int(a) * int(w) for a, w in zip(row, ws, strict=True)) for ws in weights] for row in x
    ]
    np.testing.assert_array_equal(n, np.array(expected, np.int32), strict=True)


@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("part", [8, 32])
def test_xnor_reads_words_in_parts(part: int, k: int) -> None:
    random = np.random.default_rng(k)
    x, w = signs(random, 3, k), signs(random, 5, k)
    op = XnorConv(plain(Element.I32), "any", 5, 4, k)
    whole = -(-k // 64) * 64 - k  # words of x are zero past K, and so are their parts
    parts = blocked(w, 4, 64)
    narrow = [np.ascontiguousarray(b.T).view(f"<u{part // 8}").T for b in parts]
    base = np.full(5, k, np.int32)
    weights = np.ascontiguousarray(narrow)
    assert weights.shape[1] == (k + whole) // part
    kind = TensorType((3, k), Element.BIPOLAR, PackedChannels(64, 1))
    held = TensorType(weights.shape, {8: Element.WORD8, 32: Element.WORD32}[part])
    assert op.shape([kind, held, TensorType((5,), Element.I32)]) == (3, 5)
    (n,) = op.evaluate([packed(x, Element.BIPOLAR, 64), weights, base])
    assert np.array_equal(n, x.astype(int) @ w.T.astype(int))


def test_xnor_dense_then_a_real_epilogue() -> None:
    random = np.random.default_rng(0)
    weights, x = signs(random, 3, 40), signs(random, 4, 40)
    affine = Expression((Term(Dequantize(), (VALUE, *map(parameter, range(3)))),))
    store = Store(Operand(Source.TERM, 0), Element.F32)
    op = XnorConv(Epilogue(affine, 0, 3, (store,)), "any", 3, 4, 40)
    scale, shift = np.array([0.5, -0.25, 2.0]), np.array([1.0, 0.0, -3.0])
    base = _base(Element.BIPOLAR, weights)
    operands = [packed(x, Element.BIPOLAR, 32), blocked(weights, 4, 32), base]
    (y,) = op.evaluate([*operands, scale, shift, np.zeros(3)])
    expected = (x.astype(int) @ weights.T.astype(int)) * scale + shift
    same_bits(y, expected.astype(F))


def test_a_shortcut_is_added_in_the_epilogue_of_a_convolution() -> None:
    random = np.random.default_rng(3)
    layer = Layer(PADDED, (4, 5), *GROUPS["ragged"])
    weights, x = signs(random, *layer.shape()), layer.x(Element.BIPOLAR, random)
    terms = (
        Term(Dequantize(), (VALUE, *map(parameter, range(3)))),
        Term(Add(), (Operand(Source.TERM, 0), Operand(Source.VARIABLE, 1))),
    )
    total = Operand(Source.TERM, 1)
    stores = (Store(total, Element.F32), Store(total, Element.BIPOLAR, 1, 32))
    epilogue = Epilogue(Expression(terms), 1, 3, stores)
    op, own, kinds = xnor(layer, epilogue, Element.BIPOLAR, weights)
    n = accumulators(layer, x, weights)
    scale, shift = (random.standard_normal(layer.channels) for _ in range(2))
    shortcut = random.standard_normal(n.shape).astype(F)
    thresholds = np.zeros((1, layer.channels, 1), F)
    rest = [shortcut, scale, shift, np.zeros(layer.channels), thresholds]
    y, bits = op.evaluate([packed(x, Element.BIPOLAR, 32, 3), *own, *rest])
    expected = (n * scale + shift).astype(F) + shortcut
    same_bits(y, expected)
    signs_of = np.where(np.moveaxis(expected, -1, 1) >= 0, 1, -1)
    np.testing.assert_array_equal(bits, packed(signs_of, Element.BIPOLAR, 32), strict=True)
    row = TensorType((layer.channels,), Element.F64)
    given = [TensorType((1, layer.channels, *n.shape[1:-1]), Element.F32, CHANNELS_LAST)]
    given += [row, row, row, TensorType(thresholds.shape, Element.F32)]
    assert [kind.element for kind in op.infer([*kinds, *given])] == [Element.F32, Element.BIPOLAR]


@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_direct_limits_are_on_weighted_mismatches(element: Element) -> None:
    random = np.random.default_rng(1)
    k, o = 37, 33
    weights, x = signs(random, o, k), integers(element, 8, k, random)
    most = k * (element.largest_code or PLANES[element])
    limits = np.sort(random.integers(-1, most + 1, (2, o, 2)), axis=2).astype(np.int32)
    codes = element in CODES
    op = XnorConv(into_bits(Element.TERNARY, 2), "any", o, 8, k, direct=True, codes=codes)
    (bits,) = op.evaluate([packed(x, element, 32), blocked(weights, 8, 32), limits])
    for n, p in np.ndindex(8, 2):
        expected = 0
        for c in range(o):
            mismatches = 0
            for j in range(k):
                wanted = int(weights[c, j] > 0)
                for plane in range(PLANES[element]):
                    differs = plane_bit(int(x[n, j]), plane, element) != wanted
                    mismatches += differs << (plane if element in CODES else 0)
            parity = sum(mismatches <= int(limit) for limit in limits[p, c]) % 2
            expected |= parity << c
        assert word_value(bits[n, p], 32) == expected


@pytest.mark.parametrize("pad", [-1, 1])
def test_direct_limits_under_a_window(pad: int) -> None:
    # n = K - 2 M, so that n >= t iff M <= (K - t) / 2.
    random = np.random.default_rng(pad + 1)
    layer = Layer(PADDED, (4, 5), *GROUPS["ragged"])
    weights, x = signs(random, *layer.shape()), layer.x(Element.BIPOLAR, random)
    k = layer.depth * layer.window.taps
    limits = random.integers(-1, k + 1, (1, layer.channels, 1)).astype(np.int16)
    op = XnorConv(
        into_bits(Element.BIPOLAR), "any", layer.channels, 4, 5, PADDED, 3, direct=True, pad=pad
    )
    (bits,) = op.evaluate([packed(x, Element.BIPOLAR, 32, 3), blocked(weights, 4, 32, 3), limits])
    n = accumulators(layer, x, weights, pad)
    expected = np.where(n >= k - 2 * limits[0, :, 0].astype(int), 1, -1)
    np.testing.assert_array_equal(
        bits, packed(np.moveaxis(expected, -1, 1), Element.BIPOLAR, 32), strict=True
    )


def test_xnor_conv_counts_unused_bits_as_they_are() -> None:
    # Equal junk in both tails cancels, other junk does not: zero tails are a precondition that
    # the interpreter must not paper over.
    x = np.array([[[0b0101]]], np.uint32)
    weights = np.array([[[0b0110]]], np.uint32)
    op = XnorConv(plain(Element.I32), "any", 1, 1, 4)
    base = np.array([4], np.int32)
    assert op.evaluate([x, weights, base])[0].tolist() == [[0]]
    junk = np.uint32(1 << 31)
    assert op.evaluate([x | junk, weights | junk, base])[0].tolist() == [[0]]
    assert op.evaluate([x | junk, weights, base])[0].tolist() == [[-2]]


# --- Sums over reals ------------------------------------------------------------------------------


def sign_words(weights: Array, nr: int, groups: int = 1) -> Array:
    """Return signs [O, D, *kernel] as words of nr bits [blocks, taps * D]."""
    rows = last(weights).reshape(len(weights), -1)
    count = len(rows) // groups
    blocks = -(-count // nr)
    result = np.zeros((groups * blocks, rows.shape[1]), f"uint{nr}")
    for (o, j), weight in np.ndenumerate(rows):
        group, c = divmod(o, count)
        lane = np.array(int(weight > 0) << (c % nr), result.dtype)
        result[group * blocks + c // nr, j] |= lane
    return result


def tiles(weights: Array, nr: int, groups: int = 1) -> Array:
    """Return reals [O, D, *kernel] as [blocks, taps * D, nr]."""
    rows = last(weights).reshape(len(weights), -1)
    count = len(rows) // groups
    blocks = -(-count // nr)
    result = np.zeros((groups * blocks, rows.shape[1], nr), F)
    for (o, j), weight in np.ndenumerate(rows):
        group, c = divmod(o, count)
        result[group * blocks + c // nr, j, c % nr] = weight
    return result


def reals(layer: Layer, random: np.random.Generator) -> Array:
    """Values [2, C, *S] of very different sizes: every order of summing gives another result."""
    shape = (2, layer.groups * layer.depth, *layer.sizes)
    return (random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)).astype(F)


@given(layers(), st.sampled_from([8, 32]), st.integers(0, 2**32))
def test_sign_sum_is_the_logical_convolution(layer: Layer, nr: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, x = signs(random, *layer.shape()), reals(layer, random)
    op = SignSum(
        plain(Element.F32), "any", layer.channels, nr, layer.depth, layer.window, layer.groups
    )
    held = sign_words(weights, nr, layer.groups)
    (y,) = op.evaluate([last(x), held])
    (expected,) = BinaryConv(layer.window, layer.groups).evaluate([x, weights])
    same_bits(y, last(expected))
    kind = TensorType((1, *x.shape[1:]), Element.F32, real_layout(x.shape))
    shape = (1, *expected.shape[1:])
    assert op.infer([kind, TensorType(held.shape, Element.WORD32)]) == (
        TensorType(shape, Element.F32, real_layout(shape)),
    )


@given(layers(), st.sampled_from([1, 4, 8]), st.integers(0, 2**32))
def test_real_conv_is_the_logical_convolution(layer: Layer, nr: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, x = random.standard_normal(layer.shape()).astype(F), reals(layer, random)
    op = RealConv(
        plain(Element.F32), "any", layer.channels, nr, layer.depth, layer.window, layer.groups
    )
    (y,) = op.evaluate([last(x), tiles(weights, nr, layer.groups)])
    same_bits(y, last(Conv(layer.window, layer.groups).evaluate([x, weights])[0]))


@pytest.mark.parametrize("k", [1, 2, 63, 64, 65])
@pytest.mark.parametrize("nr", [8, 32])
def test_sign_sum_without_a_window(k: int, nr: int) -> None:
    random = np.random.default_rng(k)
    weights = signs(random, 11, k)
    x = (random.standard_normal((3, k)) * 10.0 ** random.integers(-3, 4, (3, k))).astype(F)
    op = SignSum(plain(Element.F32), "any", 11, nr, k)
    held = sign_words(weights, nr)
    (y,) = op.evaluate([x, held])
    same_bits(y, np.array([[scalar_dot(row, w) for w in weights] for row in x], F))
    assert op.infer([TensorType((1, k), Element.F32), TensorType(held.shape, Element.WORD32)]) == (
        TensorType((1, 11), Element.F32),
    )


@pytest.mark.parametrize("nr", [1, 4, 8])
def test_real_conv_without_a_window(nr: int) -> None:
    random = np.random.default_rng(nr)
    weights = random.standard_normal((6, 17)).astype(F)
    x = random.standard_normal((3, 17)).astype(F)
    op = RealConv(plain(Element.F32), "any", 6, nr, 17)
    (y,) = op.evaluate([x, tiles(weights, nr)])
    same_bits(y, np.array([[scalar_dot(row, w) for w in weights] for row in x], F))


# --- Without a linear layer -----------------------------------------------------------------------


@pytest.mark.parametrize("element", [Element.F32, Element.I32, Element.U8])
def test_map_is_its_epilogue(element: Element) -> None:
    x = np.array([[0, 1, 2], [3, 4, 5]], element.dtype)
    op = Map(into_bits(Element.BIPOLAR))
    thresholds = np.array([[[1], [2], [3]]], np.int32)
    (bits,) = op.evaluate([x, thresholds])
    assert bits.tolist() == [[[0b000]], [[0b111]]]
    (kind,) = op.infer([TensorType((1, 3), element), TensorType((1, 3, 1), Element.I32)])
    assert kind == TensorType((1, 3), Element.BIPOLAR, PackedChannels(32, 1))


def test_map_on_an_image_has_a_parameter_a_channel() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 33, 2, 3)).astype(F)
    row, thresholds = random.standard_normal(33).astype(F), np.zeros((1, 33, 1), F)
    term = Term(Mul(), (VALUE, parameter(0)))
    product = Operand(Source.TERM, 0)
    stores = (Store(product, Element.F32), Store(product, Element.BIPOLAR, 1, 32))
    op = Map(Epilogue(Expression((term,)), 0, 1, stores))
    y, bits = op.evaluate([last(x), row, thresholds])
    expected = x * row[:, np.newaxis, np.newaxis]
    same_bits(y, last(expected))
    signs_of = np.where(expected >= 0, 1, -1)
    np.testing.assert_array_equal(bits, packed(signs_of, Element.BIPOLAR, 32), strict=True)


def test_map_of_a_step_with_rows() -> None:
    # A Step whose result is numbers stays a term, its operands rows [C, T].
    thresholds = np.array([[0, 2], [1, 3]], F)
    levels = np.array([[-1, 0, 5], [2, 1, 0]], F)
    term = Term(Step(Element.F32), (VALUE, parameter(0), parameter(1)))
    store = Store(Operand(Source.TERM, 0), Element.F32)
    op = Map(Epilogue(Expression((term,)), 0, 2, (store,)))
    x = np.array([[[[-1, 0, 2, 3]], [[0, 1, 3, 9]]]], F)
    (y,) = op.evaluate([last(x), thresholds, levels])
    same_bits(y, last(np.array([[[[-1, 0, 5, 5]], [[2, 1, 0, 0]]]], F)))


POOLS = {
    "max": (MaxPool(PADDED), Element.F32),
    "max of codes": (MaxPool(PADDED), Element.U8),
    "average": (AveragePool(PADDED), Element.F32),
    "average with padding": (AveragePool(PADDED, count_include_pad=True), Element.F32),
    "average ceil": (AveragePool(Window((Axis(2, 2, ceil=True),) * 2)), Element.F32),
    "global": (ReduceMean((2, 3), keepdims=True), Element.F32),
    "over rows": (ReduceMean((2,), keepdims=True), Element.F32),
    "over columns": (ReduceMean((3,), keepdims=True), Element.F32),
    "over channels": (ReduceMean((1,), keepdims=True), Element.F32),
    "over everything": (ReduceMean((1, 2, 3), keepdims=True), Element.F32),
    "1-D": (MaxPool(Window((Axis(3, 1, 2, 2, 2),))), Element.F32),
}


@pytest.mark.parametrize("name", POOLS)
def test_pool_is_the_logical_pool(name: str) -> None:
    op, element = POOLS[name]
    random = np.random.default_rng(0)
    sizes = (7,) if name == "1-D" else (5, 7)
    x = (random.standard_normal((2, 11, *sizes)) * 100).astype(element.dtype)
    if element is Element.F32:
        x[0, 0], x[0, 1, 0] = -0.0, np.nan
    pool = Pool(plain(element), op)
    (y,) = pool.evaluate([last(x)])
    (expected,) = op.evaluate([x])
    np.testing.assert_array_equal(y, last(expected), strict=True)
    if element is Element.F32:
        same_bits(y, last(expected))
    (kind,) = pool.infer([TensorType((1, *x.shape[1:]), element, CHANNELS_LAST)])
    assert kind == TensorType((1, *expected.shape[1:]), element, CHANNELS_LAST)


def test_pool_stores_bits_and_numbers() -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((2, 33, 5, 4)).astype(F)
    stores = (Store(VALUE, Element.F32), Store(VALUE, Element.BIPOLAR, 1, 64))
    pool = Pool(Epilogue(PLAIN, 0, 0, stores), MaxPool(PADDED))
    thresholds = random.standard_normal((1, 33, 1)).astype(F)
    y, bits = pool.evaluate([last(x), thresholds])
    (expected,) = MaxPool(PADDED).evaluate([x])
    same_bits(y, last(expected))
    signs_of = np.where(expected >= thresholds.reshape(33, 1, 1), 1, -1)
    np.testing.assert_array_equal(bits, packed(signs_of, Element.BIPOLAR, 64), strict=True)


@given(windows_and_sizes(least=1, ceil=True, pads=pads_below_kernel, dilation=1), st.data())
def test_pool_bits_is_max_pool(window: tuple[Window, tuple[int, ...]], data: st.DataObject) -> None:
    slide, sizes = window
    element = data.draw(st.sampled_from(sorted(PLANES, key=lambda e: e.value)))
    op = PoolBits(slide, element in CODES)
    groups, depth = data.draw(st.sampled_from([(1, 37), (1, 1), (3, 5), (2, 33)]))
    word_bits = data.draw(st.sampled_from([32, 64]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    channels = groups * depth
    x = random.choice(np.array(VALUES[element], element.dtype), (2, channels, *sizes))
    direction = signs(random, channels)
    operands = [packed(x, element, word_bits, groups)]
    logical = [x]
    if data.draw(st.booleans()):
        falls = group_words((direction < 0).astype(int).tolist(), word_bits, groups)
        operands.append(np.array(falls, f"uint{word_bits}"))
        logical.append(direction)
    (y,) = op.evaluate(operands)
    (expected,) = MaxPool(slide).evaluate(logical)
    wanted = packed(expected, element, word_bits, groups)
    np.testing.assert_array_equal(y, wanted, strict=True)
    layout = PackedChannels(word_bits, PLANES[element], groups)
    given_kind = TensorType((1, *x.shape[1:]), element, layout)
    (kind,) = op.infer([given_kind])
    assert kind == TensorType((1, *expected.shape[1:]), element, layout)


MOVEMENTS: dict[str, tuple[Movement | None, int]] = {
    "as it is": (None, 1),
    "reshape": (Reshape((1, 10, 12)), 1),
    "flatten": (Reshape((1, 120)), 1),
    "transpose": (Transpose((0, 2, 3, 1)), 1),
    "pad": (Pad((0, 2, 2, 0), (0, 0, 1, 3), 1), 1),
    "slice": (Slice((0, 1, 0, 1), (1, 4, 2, 2), (1, 1, 2, 2)), 1),
    "concat channels": (Concat(1), 2),
    "concat rows": (Concat(2), 3),
}


@pytest.mark.parametrize("element", [*PLANES, Element.F32, Element.I32], ids=lambda e: e.value)
@pytest.mark.parametrize("name", MOVEMENTS)
def test_move_is_the_logical_movement_between_layouts(name: str, element: Element) -> None:
    op, count = MOVEMENTS[name]
    random = np.random.default_rng(2)
    values = np.array(VALUES.get(element, range(-99, 99)), element.dtype)
    parts = [random.choice(values, (2, 6, 4, 5)) for _ in range(count)]
    expected = op.evaluate(parts)[0] if op else parts[0]
    kind = TensorType((1, *parts[0].shape[1:]), element)
    layouts: list[Layout] = [DENSE, CHANNELS_LAST]
    packings = [DENSE, CHANNELS_LAST]
    if element in PLANES:
        layouts += [PackedChannels(32, PLANES[element], groups) for groups in (1, 3)]
        packings += [PackedChannels(64, PLANES[element], groups) for groups in (1, 2)]
    for source, to in itertools.product(layouts, packings):
        # Several operands need not be stored alike.
        froms = [source, *layouts][:count]
        kinds = tuple(TensorType(kind.shape, element, layout) for layout in froms)
        move = Move(op, kinds, to)
        held = [stored(x, element, layout) for x, layout in zip(parts, froms, strict=True)]
        (y,) = move.evaluate(held)
        np.testing.assert_array_equal(y, stored(expected, element, to), strict=True)
        assert move.infer(kinds) == (TensorType((1, *expected.shape[1:]), element, to),)


@pytest.mark.parametrize(
    ("op", "elements"),
    [
        (Concat(2), (Element.BIPOLAR, Element.TERNARY)),
        (Concat(1), (Element.TERNARY, Element.BIPOLAR)),
        (Pad((0, 0, 1, 0), (0, 0, 0, 1), 0), (Element.BIPOLAR,)),
    ],
)
def test_move_makes_ternary_of_bits_beside_zeros(
    op: Movement, elements: tuple[Element, ...]
) -> None:
    random = np.random.default_rng(3)
    parts = [random.choice(np.array(VALUES[e], np.int8), (2, 3, 4, 5)) for e in elements]
    kinds = [TensorType((1, 3, 4, 5), e, PackedChannels(32, PLANES[e])) for e in elements]
    move = Move(op, tuple(kinds), PackedChannels(64, 2))
    held = [stored(x, k.element, k.layout) for x, k in zip(parts, kinds, strict=True)]
    (y,) = move.evaluate(held)
    expected = stored(op.evaluate(parts)[0], Element.TERNARY, PackedChannels(64, 2))
    np.testing.assert_array_equal(y, expected, strict=True)
    assert move.infer(kinds)[0].element is Element.TERNARY


def test_move_says_what_it_does() -> None:
    kind = TensorType((1, 6), Element.F32)
    assert str(Move(None, (kind,), CHANNELS_LAST)) == "Move(as it is, to=channels-last)"
    assert str(Move(Concat(1), (kind, kind), DENSE)) == "Move(Concat(axis=1), to=dense)"


@given(st.data())
def test_gather_bits_chooses_channels_and_places(data: st.DataObject) -> None:
    element = data.draw(st.sampled_from(sorted(PLANES, key=lambda e: e.value)))
    word_bits = data.draw(st.sampled_from([32, 64]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = tuple(data.draw(st.lists(st.integers(1, 4), max_size=2)))
    groups = data.draw(st.lists(st.sampled_from([1, 3]), min_size=1, max_size=3))
    counts = [data.draw(st.integers(1, 23)) * 3 for _ in groups]
    parts = [
        random.choice(np.array(VALUES[element], element.dtype), (2, count, *sizes))
        for count in counts
    ]
    operands = random.integers(0, len(parts), 3 * data.draw(st.integers(1, 30))).tolist()
    channels = tuple((s, int(random.integers(counts[s]))) for s in operands)
    places = None
    if data.draw(st.booleans()):
        places = tuple(tuple(random.integers(0, size, 3).tolist()) for size in sizes)
    kinds = tuple(
        TensorType((1, *x.shape[1:]), element, PackedChannels(word_bits, PLANES[element], g))
        for x, g in zip(parts, groups, strict=True)
    )
    to = PackedChannels(word_bits, PLANES[element], data.draw(st.sampled_from([1, 3])))
    op = GatherBits(kinds, channels, places, to)
    wanted = np.stack([parts[s][:, k] for s, k in channels], axis=1)
    for axis, chosen in enumerate(places or (), start=2):
        wanted = np.stack([wanted.take(place, axis) for place in chosen], axis)
    (y,) = op.evaluate(
        [packed(x, element, word_bits, g) for x, g in zip(parts, groups, strict=True)]
    )
    np.testing.assert_array_equal(y, packed(wanted, element, word_bits, to.groups), strict=True)
    assert op.infer(kinds) == (TensorType((1, *wanted.shape[1:]), element, to),)


def test_signs_gathered_beside_zeros_are_ternary() -> None:
    signed, three = np.array([[-1, 1]], np.int8), np.array([[0, 1, -1]], np.int8)
    kinds = tuple(
        TensorType(x.shape, element, PackedChannels(32, PLANES[element]))
        for x, element in ((signed, Element.BIPOLAR), (three, Element.TERNARY))
    )
    op = GatherBits(kinds, ((1, 0), (0, 1), (0, 0), (1, 2)), None, PackedChannels(32, 2))
    (y,) = op.evaluate([np.array([[[0b10]]], np.uint32), np.array([[[0b011], [0b010]]], np.uint32)])
    assert y.tolist() == [[[0b0011], [0b0010]]]  # 0, 1, -1, -1
    (kind,) = op.infer(kinds)
    assert kind.element is Element.TERNARY


def test_gather_bits_says_what_it_does() -> None:
    op = GatherBits((BIT_IMAGE,), ((0, 5), (0, 1)), None, PackedChannels(32, 1))
    assert str(op) == "GatherBits(2 of 6 channels, to=packed32x1)"
    cut = GatherBits((BIT_IMAGE, BIT_IMAGE), ((1, 5),), ((0, 1), (2,)), PackedChannels(32, 1))
    assert str(cut) == "GatherBits(1 of 6 + 6 channels, 2 x 1, to=packed32x1)"


@given(st.lists(st.integers(0, 255), min_size=1, max_size=70), st.sampled_from([32, 64]))
def test_pack_planes(codes: list[int], word_bits: int) -> None:
    (planes,) = PackPlanes(word_bits).evaluate([np.array([codes], np.uint8)])
    for plane in range(8):
        expected = sum((code >> plane & 1) << c for c, code in enumerate(codes))
        assert word_value(planes[0, plane], word_bits) == expected
    (kind,) = PackPlanes(word_bits).infer([TensorType((1, len(codes)), Element.U8)])
    assert kind.layout == PackedChannels(word_bits, 8)


@pytest.mark.parametrize("word_bits", [32, 64])
def test_pack_planes_of_an_image(word_bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (2, 67, 2, 3)).astype(np.uint8)
    (planes,) = PackPlanes(word_bits).evaluate([last(codes)])
    np.testing.assert_array_equal(planes, packed(codes, Element.U8, word_bits), strict=True)


# --- Types ----------------------------------------------------------------------------------------

BIPOLAR = Element.BIPOLAR
REAL = plain(Element.F32)
BITS = TensorType((1, 40), Element.BIPOLAR, PackedChannels(32, 1))
ROW = TensorType((1, 40), Element.F32)
IMAGE = TensorType((1, 6, 4, 5), Element.F32, CHANNELS_LAST)
BIT_IMAGE = TensorType((1, 6, 4, 5), Element.BIPOLAR, PackedChannels(32, 1, 2))
PLUS = Expression((Term(Add(), (VALUE, Operand(Source.VARIABLE, 1))),))
SHORTCUT = Epilogue(PLUS, 1, 0, (Store(Operand(Source.TERM, 0), Element.F32),))


def of(element: Element, *shape: int) -> TensorType:
    return TensorType(shape, element)


W32 = Element.WORD32
ONE = PackedChannels(32, 1)
BASE = of(Element.I32, 5)
REFUSALS: list[tuple[Op, list[TensorType], str]] = [
    (Map(REAL), [BITS], "Map reads numbers"),
    (Map(REAL), [of(Element.F32, 1, 6, 4, 5)], "images with channels last"),
    (Map(REAL), [ROW, ROW], "Map takes 1 operands"),
    (Map(SHORTCUT), [ROW], "Map takes 2 operands"),
    (Map(SHORTCUT), [ROW, of(Element.F32, 1, 39)], "do not broadcast"),
    (Map(SHORTCUT), [of(Element.F32, 1, 1), ROW], "does not broadcast to"),
    (PackPlanes(32), [ROW], "PackPlanes reads u8"),
    (PackPlanes(32), [BITS], "PackPlanes reads u8"),
    (PackPlanes(32), [of(Element.U8, 1, 3, 2, 2)], "images with channels last"),
    (Pool(REAL, MaxPool(PADDED)), [BIT_IMAGE], "Pool reads numbers"),
    (PoolBits(PADDED), [IMAGE], "PoolBits reads packed channels"),
    (PoolBits(PADDED), [BIT_IMAGE, of(W32, 1)], "the mask does not fit"),
    (Move(None, (ROW,), DENSE), [BITS], "is not stored as"),
    (GatherBits((BITS,), ((0, 1),), None, ONE), [BIT_IMAGE], "is not stored as"),
    (GatherBits((BITS,), ((0, 40),), None, ONE), [BITS], "reaches out"),
    (GatherBits((BITS,), ((1, 0),), None, ONE), [BITS], "reaches out"),
    (GatherBits((BITS, BIT_IMAGE), ((0, 1),), None, ONE), [BITS, BIT_IMAGE], "one size"),
    (GatherBits((BIT_IMAGE,), ((0, 1),), ((0, 4), (0,)), ONE), [BIT_IMAGE], "reaches out"),
    (GatherBits((BIT_IMAGE,), ((0, 1),), ((0,),), ONE), [BIT_IMAGE], "reaches out"),
    (XnorConv(REAL, "k", 5, 4, 40), [ROW, of(W32, 2, 2, 4), BASE], "packed channels"),
    (XnorConv(REAL, "k", 5, 4, 40), [BITS, of(W32, 1, 2, 4), BASE], "do not fit"),
    (XnorConv(REAL, "k", 5, 4, 40), [BITS, of(W32, 2, 1, 4), BASE], "do not fit"),
    (XnorConv(REAL, "k", 5, 4, 40), [BITS, of(W32, 2, 2, 4)], "takes 3 operands"),
    (XnorConv(REAL, "k", 5, 4, 39), [BITS, of(W32, 2, 2, 4), BASE], "do not fit"),
    (
        XnorConv(REAL, "k", 6, 4, 2, PADDED, 3),
        [BIT_IMAGE, of(W32, 3, 9, 4), of(Element.I32, 6)],
        "groups of 2 channels are not words",
    ),
    (
        XnorConv(REAL, "k", 5, 4, 40, parts=(1, 1)),
        [BITS, of(W32, 2, 2, 4), BASE],
        "do not fit",
    ),
    (SumUnderWindow(REAL, WindowSum(PADDED), BIPOLAR, 6), [IMAGE], "reads packed bipolar"),
    (SumUnderWindow(REAL, WindowSum(PADDED), Element.U2, 6), [BIT_IMAGE], "reads packed u2"),
    (SumUnderWindow(REAL, WindowSum(PADDED), BIPOLAR, 5), [BIT_IMAGE], "of 5 channels do not fit"),
    (SumUnderWindow(REAL, WindowSum(PADDED, 3), BIPOLAR, 2), [BIT_IMAGE], "are not words"),
    (SumUnderWindow(REAL, WindowSum(PADDED, 2), BIPOLAR, 3), [BIT_IMAGE], "1 sums of 2 groups"),
    (SignSum(REAL, "k", 5, 4, 40), [ROW, of(Element.WORD8, 2, 39)], "do not fit"),
    (SignSum(REAL, "k", 5, 4, 40), [of(Element.U8, 1, 40), of(Element.WORD8, 2, 40)], "reads f32"),
    (SignSum(REAL, "k", 5, 4, 40), [BITS, of(Element.WORD8, 2, 40)], "reads f32"),
    (RealConv(REAL, "k", 5, 4, 40), [ROW, of(Element.F32, 2, 39, 4)], "do not fit"),
    (RealConv(REAL, "k", 5, 4, 40), [ROW, of(Element.F32, 1, 40, 4)], "do not fit"),
    (
        RealConv(REAL, "k", 4, 4, 6, PADDED),
        [of(Element.F32, 1, 6, 4, 5), of(Element.F32, 1, 54, 4)],
        "channels last",
    ),
]


@pytest.mark.parametrize(("op", "operands", "reason"), REFUSALS)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


def test_the_window_of_a_dense_layer_is_a_point() -> None:
    op = RealConv(REAL, "k", 5, 4, 40)
    assert (op.window, op.groups, op.blocks) == (POINT, 1, 2)
    assert op.infer([ROW, of(Element.F32, 2, 40, 4)]) == (of(Element.F32, 1, 5),)


def test_kernels_are_for_lowered_stages_only() -> None:
    for op in (Map, Move, GatherBits, PackPlanes, Pool, PoolBits, XnorConv, SignSum, RealConv):
        assert op.stages == {Stage.BINARY, Stage.PACKED}
    assert REAL.results((1, 3))[0].layout == DENSE
    assert REAL.results((1, 3, 2))[0].layout == CHANNELS_LAST
