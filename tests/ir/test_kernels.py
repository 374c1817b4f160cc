"""The PACKED operations against loops over logical values and single bits.

Words are assembled here from Python integers, not by `bnncc.ir.storage`.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.elementwise import Add, Dequantize, Mul, Relu
from bnncc.ir.ops.kernels import Epilogue, Map, PackPlanes, RealDense, SignSum, XnorDense, compare
from bnncc.ir.types import DENSE, Array, Element, PackedChannels, Stage, TensorType
from tests.ir.oracles import PLANES, integers, plane_bit, scalar_dot, word_value
from tests.ir.sketch import F, same_bits

PLAIN = Expression(())
LENGTHS = [1, 2, 31, 32, 33, 64, 65, 130]


def words(values: list[int], word_bits: int) -> list[int]:
    """Return bits 0/1 as words, LSB first."""
    count = -(-len(values) // word_bits)
    long = sum(bit << i for i, bit in enumerate(values))
    return [long >> (j * word_bits) & ((1 << word_bits) - 1) for j in range(count)]


def packed(logical: Array, element: Element, word_bits: int) -> Array:
    """Return logical rows [N, C] as words [N, planes, W]."""
    rows = [
        [
            words([plane_bit(int(v), p, element) for v in row], word_bits)
            for p in range(PLANES[element])
        ]
        for row in logical
    ]
    return np.array(rows, f"uint{word_bits}")


def blocked(weights: Array, nr: int, word_bits: int) -> Array:
    """Return weights [O, K] as words [ceil(O / nr), W, nr]; channels past O are zero."""
    rows = [words([int(w > 0) for w in row], word_bits) for row in weights]
    blocks = -(-len(rows) // nr)
    result = np.zeros((blocks, len(rows[0]), nr), f"uint{word_bits}")
    for o, row in enumerate(rows):
        result[o // nr, :, o % nr] = row
    return result


def signs(random: np.random.Generator, *shape: int) -> Array:
    return random.choice(np.array([-1, 1], np.int8), shape)


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
    epilogue = Epilogue(expression, 2, Element.F32)
    value = np.array([[1, 2], [3, -4]], F)
    bias, factor = np.array([10, 20], F), np.array(0.5, F)
    same_bits(epilogue.store(value, [bias, factor]), np.array([[10.5, 21], [11.5, 18]], F))
    assert epilogue.operands == 2
    assert epilogue.result((1, 2)) == TensorType((1, 2), Element.F32)
    assert str(epilogue) == f"{{t0 = Mul(x0, p1); t1 = Add(t0, p0)}} -> {Element.F32.value}"


@pytest.mark.parametrize("word_bits", [32, 64])
@pytest.mark.parametrize("channels", [1, 33, 65])
def test_epilogue_stores_bits(channels: int, word_bits: int) -> None:
    random = np.random.default_rng(channels)
    relu = Expression((Term(Relu(), (Operand(Source.VARIABLE, 0),)),))
    thresholds = np.sort(random.standard_normal((2, channels, 2)).astype(F), axis=2)
    epilogue = Epilogue(relu, 0, Element.TERNARY, 2, word_bits)
    value = random.standard_normal((4, channels)).astype(F)
    stored = epilogue.store(value, [thresholds])
    kind = epilogue.result((1, channels))
    assert kind == TensorType((1, channels), Element.TERNARY, PackedChannels(word_bits, 2))
    for n, p in np.ndindex(4, 2):
        expected = 0
        for c in range(channels):
            v = max(float(value[n, c]), 0.0)
            parity = sum(v >= t for t in thresholds[p, c].tolist()) % 2
            expected |= parity << c
        assert word_value(stored[n, p], word_bits) == expected
    assert epilogue.operands == 1


# --- XnorDense ------------------------------------------------------------------------------------


def _base(element: Element, weights: Array) -> Array:
    """The accumulator without mismatches, as the docstring's table says."""
    o, k = weights.shape
    if element is not Element.U8:
        return np.full(o, k, np.int32)
    return np.array([255 * (k + int(row.sum())) // 2 for row in weights.astype(int)], np.int32)


@pytest.mark.parametrize("nr", [1, 4, 8])
@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_xnor_dense_is_the_dot_product(element: Element, k: int, nr: int) -> None:
    random = np.random.default_rng(k + nr)
    word_bits = 64 if nr == 4 else 32
    weights = signs(random, 5, k)
    weights[0], weights[1] = 1, -1
    x = integers(element, 5, k, random)
    op = XnorDense(Epilogue(PLAIN, 0, Element.I32), "any", 5, nr, direct=False)
    operands = [packed(x, element, word_bits), blocked(weights, nr, word_bits)]
    (n,) = op.evaluate([*operands, _base(element, weights)])
    expected = [
        [sum(int(a) * int(w) for a, w in zip(row, ws, strict=True)) for ws in weights] for row in x
    ]
    np.testing.assert_array_equal(n, np.array(expected, np.int32), strict=True)


def test_xnor_dense_then_a_real_epilogue() -> None:
    random = np.random.default_rng(0)
    weights, x = signs(random, 3, 40), signs(random, 4, 40)
    affine = Expression(
        (
            Term(
                Dequantize(),
                (Operand(Source.VARIABLE, 0), *(Operand(Source.PARAMETER, i) for i in range(3))),
            ),
        )
    )
    op = XnorDense(Epilogue(affine, 3, Element.F32), "any", 3, 4, direct=False)
    scale, shift = np.array([0.5, -0.25, 2.0]), np.array([1.0, 0.0, -3.0])
    base = _base(Element.BIPOLAR, weights)
    operands = [packed(x, Element.BIPOLAR, 32), blocked(weights, 4, 32), base]
    (y,) = op.evaluate([*operands, scale, shift, np.zeros(3)])
    expected = (x.astype(int) @ weights.T.astype(int)) * scale + shift
    same_bits(y, expected.astype(F))


@pytest.mark.parametrize("element", PLANES, ids=lambda e: e.value)
def test_direct_limits_are_on_weighted_mismatches(element: Element) -> None:
    random = np.random.default_rng(1)
    k, o = 37, 33
    weights, x = signs(random, o, k), integers(element, 8, k, random)
    most = k * (255 if element is Element.U8 else PLANES[element])
    limits = np.sort(random.integers(-1, most + 1, (2, o, 2)), axis=2).astype(np.int32)
    epilogue = Epilogue(PLAIN, 0, Element.TERNARY, 2, 32)
    op = XnorDense(epilogue, "any", o, 8, direct=True)
    (stored,) = op.evaluate([packed(x, element, 32), blocked(weights, 8, 32), limits])
    for n, p in np.ndindex(8, 2):
        expected = 0
        for c in range(o):
            mismatches = 0
            for j in range(k):
                wanted = int(weights[c, j] > 0)
                for plane in range(PLANES[element]):
                    differs = plane_bit(int(x[n, j]), plane, element) != wanted
                    mismatches += differs << (plane if element is Element.U8 else 0)
            parity = sum(mismatches <= int(limit) for limit in limits[p, c]) % 2
            expected |= parity << c
        assert word_value(stored[n, p], 32) == expected


def test_xnor_dense_counts_unused_bits_as_they_are() -> None:
    # Equal junk in both tails cancels, other junk does not: zero tails are a precondition that
    # the interpreter must not paper over.
    x = np.array([[[0b0101]]], np.uint32)
    weights = np.array([[[0b0110]]], np.uint32)
    op = XnorDense(Epilogue(PLAIN, 0, Element.I32), "any", 1, 1, direct=False)
    base = np.array([4], np.int32)
    assert op.evaluate([x, weights, base])[0].tolist() == [[0]]
    junk = np.uint32(1 << 31)
    assert op.evaluate([x | junk, weights | junk, base])[0].tolist() == [[0]]
    assert op.evaluate([x | junk, weights, base])[0].tolist() == [[-2]]


# --- Sums over reals ------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 63, 64, 65])
@pytest.mark.parametrize("nr", [8, 32])
def test_sign_sum(k: int, nr: int) -> None:
    random = np.random.default_rng(k)
    o = 11
    weights = signs(random, o, k)
    x = (random.standard_normal((3, k)) * 10.0 ** random.integers(-3, 4, (3, k))).astype(F)
    blocks = -(-o // nr)
    stored = np.zeros((blocks, k), f"uint{nr}")
    for (c, j), weight in np.ndenumerate(weights):
        stored[c // nr, j] |= np.array(int(weight > 0) << (c % nr), stored.dtype)
    op = SignSum(Epilogue(PLAIN, 0, Element.F32), "any", o, nr)
    (y,) = op.evaluate([x, stored])
    same_bits(y, np.array([[scalar_dot(row, w) for w in weights] for row in x], F))
    assert op.infer(
        [TensorType((1, k), Element.F32), TensorType(stored.shape, Element.WORD32)]
    ) == (TensorType((1, o), Element.F32),)


@pytest.mark.parametrize("nr", [1, 4, 8])
def test_real_dense(nr: int) -> None:
    random = np.random.default_rng(nr)
    o, k = 6, 17
    weights = random.standard_normal((o, k)).astype(F)
    x = random.standard_normal((3, k)).astype(F)
    tiles = np.zeros((-(-o // nr), k, nr), F)
    for (c, j), weight in np.ndenumerate(weights):
        tiles[c // nr, j, c % nr] = weight
    op = RealDense(Epilogue(PLAIN, 0, Element.F32), "any", o, nr)
    (y,) = op.evaluate([x, tiles])
    same_bits(y, np.array([[scalar_dot(row, w) for w in weights] for row in x], F))


@pytest.mark.parametrize("element", [Element.F32, Element.I32, Element.U8])
def test_map_is_its_epilogue(element: Element) -> None:
    x = np.array([[0, 1, 2], [3, 4, 5]], element.dtype)
    op = Map(Epilogue(PLAIN, 0, Element.BIPOLAR, 1, 32))
    thresholds = np.array([[[1], [2], [3]]], np.int32)
    (stored,) = op.evaluate([x, thresholds])
    assert stored.tolist() == [[[0b000]], [[0b111]]]
    (kind,) = op.infer([TensorType((1, 3), element), TensorType((1, 3, 1), Element.I32)])
    assert kind == TensorType((1, 3), Element.BIPOLAR, PackedChannels(32, 1))


@given(st.lists(st.integers(0, 255), min_size=1, max_size=70), st.sampled_from([32, 64]))
def test_pack_planes(codes: list[int], word_bits: int) -> None:
    (stored,) = PackPlanes(word_bits).evaluate([np.array([codes], np.uint8)])
    for plane in range(8):
        expected = sum((code >> plane & 1) << c for c, code in enumerate(codes))
        assert word_value(stored[0, plane], word_bits) == expected
    (kind,) = PackPlanes(word_bits).infer([TensorType((1, len(codes)), Element.U8)])
    assert kind.layout == PackedChannels(word_bits, 8)


# --- Types ----------------------------------------------------------------------------------------

REAL = Epilogue(PLAIN, 0, Element.F32)
BITS = TensorType((1, 40), Element.BIPOLAR, PackedChannels(32, 1))
ROW = TensorType((1, 40), Element.F32)


def of(element: Element, *shape: int) -> TensorType:
    return TensorType(shape, element)


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (Map(REAL), [BITS], "Map reads dense tensors"),
        (PackPlanes(32), [ROW], "PackPlanes reads dense u8"),
        (PackPlanes(32), [BITS], "PackPlanes reads dense u8"),
        (XnorDense(REAL, "k", 5, 4, False), [ROW, of(Element.WORD32, 2, 2, 4)], "packed channels"),
        (XnorDense(REAL, "k", 5, 4, False), [BITS, of(Element.WORD32, 1, 2, 4)], "do not fit"),
        (XnorDense(REAL, "k", 5, 4, False), [BITS, of(Element.WORD32, 2, 1, 4)], "do not fit"),
        (SignSum(REAL, "k", 5, 4), [ROW, of(Element.WORD8, 2, 39)], "do not fit"),
        (SignSum(REAL, "k", 5, 4), [of(Element.U8, 1, 40), of(Element.WORD8, 2, 40)], "dense f32"),
        (SignSum(REAL, "k", 5, 4), [BITS, of(Element.WORD8, 2, 40)], "dense f32"),
        (RealDense(REAL, "k", 5, 4), [ROW, of(Element.F32, 2, 39, 4)], "do not fit"),
        (RealDense(REAL, "k", 5, 4), [ROW, of(Element.F32, 1, 40, 4)], "do not fit"),
    ],
)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


def test_kernels_are_for_lowered_stages_only() -> None:
    for op in (Map, PackPlanes, XnorDense, SignSum, RealDense):
        assert op.stages == {Stage.BINARY, Stage.PACKED}
    assert REAL.result((1, 3)).layout == DENSE
