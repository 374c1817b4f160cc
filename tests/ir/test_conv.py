"""Convolutions against integer loops, scalar float32 loops, torch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.linear import (
    BinaryConv,
    BinaryDense,
    Conv,
    MatMul,
    WindowSum,
    matrix_conv,
    sequential_conv,
)
from bnncc.ir.types import Array, Element, Interval, TensorType
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.oracles import EXTREMES, PADS, scalar_dot
from tests.ir.sketch import HARD, F, same_bits
from tests.ir.windows import (
    onnx_attributes,
    output_places,
    runtime,
    whole_numbers,
    windows_and_sizes,
    within,
)

Index = tuple[int, ...]
Case = tuple[Window, int, Index, Index]


@st.composite
def cases(draw: st.DrawFn, least: int = 0) -> Case:
    """Draw a window, groups, and the shapes of x and of the weights."""
    window, sizes = draw(windows_and_sizes(least=least))
    groups, depth, count = draw(st.tuples(*[st.integers(1, 3)] * 3))
    batch = draw(st.integers(1, 2))
    shape = (batch, groups * depth, *sizes)
    return window, groups, shape, (groups * count, depth, *window.kernel)


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def terms(
    x: Array, weights: Array, window: Window, groups: int, pad: int | None = None
) -> Iterator[tuple[Index, list[Any], list[Any]]]:
    """Yield each result's index and its factors: over the taps, then the channels of the group.

    Taps outside of the input are left out, or hold `pad`.
    """
    depth, per_group = weights.shape[1], len(weights) // groups
    for output, taps in output_places(window, x.shape[2:]):
        for n, o in np.ndindex(len(x), len(weights)):
            left, right = [], []
            for k, place in zip(np.ndindex(window.kernel), taps, strict=True):
                inside = within(place, x.shape[2:])
                if not inside and pad is None:
                    continue
                for c in range(depth):
                    channel = o // per_group * depth + c
                    left.append(x[(n, channel, *place)].item() if inside else pad)
                    right.append(weights[(o, c, *k)].item())
            yield (n, o, *output), left, right


def real_sums(x: Array, weights: Array, window: Window, groups: int) -> Array:
    """Return the convolution, rounded by struct after every operation."""
    y = np.full((len(x), len(weights), *window.outputs(x.shape[2:])), np.nan, F)
    for index, left, right in terms(x, weights, window, groups):
        y[index] = scalar_dot(np.array(left), np.array(right))
    return y


def integer_sums(x: Array, weights: Array, window: Window, groups: int, pad: int) -> Array:
    """Return the convolution in Python's integers, as int32."""
    n = np.zeros((len(x), len(weights), *window.outputs(x.shape[2:])), np.int32)
    for index, left, right in terms(x, weights, window, groups, pad):
        n[index] = sum(a * b for a, b in zip(left, right, strict=True))
    return n


def torch_conv(x: Array, weights: Array, window: Window, groups: int) -> Array:
    """Return torch's convolution, with paddings of any symmetry spelled as a pad of its own."""
    pads = [amount for axis in window.axes[::-1] for amount in (axis.before, axis.after)]
    padded = functional.pad(torch.from_numpy(x), pads)
    conv = {1: functional.conv1d, 2: functional.conv2d}[len(window.axes)]
    strides = [axis.stride for axis in window.axes]
    dilations = [axis.dilation for axis in window.axes]
    w = torch.from_numpy(weights)
    return conv(padded, w, None, strides, 0, dilations, groups).numpy()


# --- Real sums ------------------------------------------------------------------------------------


@given(cases(least=1), seeds)
def test_whole_numbers_as_in_torch_and_onnx_runtime(
    case: Case, random: np.random.Generator
) -> None:
    # No sum of these rounds in any order: all three are equal.
    window, groups, shape, weight_shape = case
    x, weights = whole_numbers(random, shape), whole_numbers(random, weight_shape)
    (y,) = Conv(window, groups).evaluate([x, weights])
    np.testing.assert_array_equal(y, torch_conv(x, weights, window, groups), strict=True)
    theirs = runtime("Conv", [x, weights], 22, group=groups, **onnx_attributes(window))
    np.testing.assert_array_equal(y, theirs, strict=True)
    np.testing.assert_array_equal(y, matrix_conv(x, weights, window, groups))
    kinds = [TensorType(a.shape, Element.F32) for a in (x, weights)]
    assert Conv(window, groups).infer(kinds) == (TensorType(y.shape, Element.F32),)


def uneven(random: np.random.Generator, shape: Index) -> Array:
    """Return float32 values of very different size, some of them zeros of either sign."""
    x = random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)
    x[random.random(shape) < 0.2] = 0.0
    x[random.random(shape) < 0.2] = -0.0
    return x.astype(F)


@given(cases(), seeds, st.sampled_from(["uneven", "hard"]))
def test_real_sums_round_in_order(case: Case, random: np.random.Generator, values: str) -> None:
    window, groups, shape, weight_shape = case
    x = uneven(random, shape) if values == "uneven" else random.choice(HARD, shape)
    weights = uneven(random, weight_shape)
    (y,) = Conv(window, groups).evaluate([x, weights])
    same_bits(y, real_sums(x, weights, window, groups))


@given(cases(), seeds)
def test_real_sums_of_binary_weights_round_in_order(
    case: Case, random: np.random.Generator
) -> None:
    window, groups, shape, weight_shape = case
    x = uneven(random, shape)
    weights = random.integers(-1, 2, weight_shape).astype(np.int8)
    (y,) = BinaryConv(window, groups).evaluate([x, weights])
    same_bits(y, real_sums(x, weights, window, groups))


def test_the_order_matters_in_those_tests() -> None:
    random = np.random.default_rng(0)
    x, weights = uneven(random, (1, 3, 5, 5)), uneven(random, (4, 3, 3, 3))
    window = Window((Axis(3, 1, 1, 1, 1),) * 2)
    y = sequential_conv(x, weights, window, 1)
    channels_first = np.stack([real_sums(x[:, [c]], weights[:, [c]], window, 1) for c in range(3)])
    assert (y != channels_first[0] + channels_first[1] + channels_first[2]).any()
    turned = sequential_conv(x.swapaxes(2, 3), weights.swapaxes(2, 3), window, 1).swapaxes(2, 3)
    assert (y != turned).any()
    assert (y != torch_conv(x, weights, window, 1)).any()


def test_a_dense_layer_is_a_convolution_over_one_place() -> None:
    random = np.random.default_rng(1)
    x, weights = uneven(random, (3, 70)), uneven(random, (5, 70))
    places, kernels = x.reshape(3, 70, 1, 1), weights.reshape(5, 70, 1, 1)
    window = Window((Axis(1), Axis(1)))
    (y,) = Conv(window).evaluate([places, kernels])
    (dense,) = MatMul().evaluate([x, weights])
    same_bits(y[:, :, 0, 0], dense)
    flat = BinaryDense()
    assert isinstance(MatMul(), Conv)
    assert isinstance(flat, BinaryConv)
    assert (flat.window, flat.groups, flat.pad) == (POINT, 1, 0)
    assert [str(op) for op in (MatMul(), flat)] == ["MatMul", "BinaryDense"]


# --- Accumulators ---------------------------------------------------------------------------------

WEIGHTS = {
    Element.BIPOLAR: [-1, 1],
    Element.TERNARY: [-1, 0, 1],
    Element.S2: [-3, -1, 1, 3],
    Element.S4: [-15, -8, 0, 1, 15],
}


@st.composite
def binary_layers(draw: st.DrawFn) -> tuple[BinaryConv, list[TensorType]]:
    """Draw a layer and the types of its operands."""
    window, groups, shape, weight_shape = draw(cases())
    element = draw(st.sampled_from(list(PADS)))
    pad = draw(st.sampled_from(PADS[element]))
    kinds = [
        TensorType(shape, element),
        TensorType(weight_shape, draw(st.sampled_from(list(WEIGHTS)))),
    ]
    return BinaryConv(window, groups, pad), kinds


@given(binary_layers(), seeds)
def test_accumulators_are_exact_and_in_their_interval(
    layer: tuple[BinaryConv, list[TensorType]], random: np.random.Generator
) -> None:
    op, kinds = layer
    x = random.choice(np.array(EXTREMES[kinds[0].element], kinds[0].element.dtype), kinds[0].shape)
    weights = random.choice(np.array(WEIGHTS[kinds[1].element], np.int8), kinds[1].shape)
    (n,) = op.evaluate([x, weights])
    expected = integer_sums(x, weights, op.window, op.groups, op.pad)
    np.testing.assert_array_equal(n, expected, strict=True)
    (kind,) = op.infer(kinds)
    assert (kind.shape, kind.element) == (n.shape, Element.I32)
    assert kind.interval is not None
    assert kind.interval.low <= n.min() <= n.max() <= kind.interval.high
    assert not ((n - kind.interval.low) % kind.interval.stride).any()


@given(binary_layers())
def test_both_ends_of_the_interval_are_reached(
    layer: tuple[BinaryConv, list[TensorType]],
) -> None:
    op, (x_kind, w_kind) = layer
    sizes = x_kind.shape[2:]
    whole = (all(within(p, sizes) for p in taps) for _, taps in output_places(op.window, sizes))
    assume(any(whole))
    x = np.full(x_kind.shape, max(EXTREMES[x_kind.element]), x_kind.element.dtype)
    weights = np.full(w_kind.shape, max(WEIGHTS[w_kind.element]), np.int8)
    (highest,), (lowest,) = op.evaluate([x, weights]), op.evaluate([x, -weights])
    (kind,) = op.infer([x_kind, w_kind])
    assert kind.interval is not None
    assert (lowest.min(), highest.max()) == (kind.interval.low, kind.interval.high)


@given(cases(), st.sampled_from(list(PADS)), st.integers(1, 3), st.data())
def test_window_sums_are_those_of_a_filter_of_ones(
    case: Case, element: Element, repeats: int, data: st.DataObject
) -> None:
    window, groups, shape, (_, depth, *kernel) = case
    pad = data.draw(st.sampled_from(PADS[element]))
    random = data.draw(seeds)
    x = random.choice(np.array(EXTREMES[element], element.dtype), shape)
    op = WindowSum(window, groups, pad, groups * repeats)
    (sums,) = op.evaluate([x])
    ones = np.ones((groups * repeats, depth, *kernel), np.int8)
    np.testing.assert_array_equal(sums, integer_sums(x, ones, window, groups, pad), strict=True)
    (kind,) = op.infer([TensorType(shape, element)])
    assert (kind.shape, kind.element) == (sums.shape, Element.I32)
    assert kind.interval is not None
    assert kind.interval.low <= sums.min() <= sums.max() <= kind.interval.high
    assert (kind.interval.low == 0) == bool(element.code_bits)


@pytest.mark.parametrize(
    ("op", "x", "reason"),
    [
        (WindowSum(POINT), TensorType((1, 3), Element.F32), "cannot sum f32"),
        (WindowSum(POINT, pad=2), TensorType((1, 3), Element.BIPOLAR), "padded with 2"),
        (WindowSum(POINT, pad=4), TensorType((1, 3), Element.U2), "padded with 4"),
        (WindowSum(POINT, 2, channels=2), TensorType((1, 3), Element.U2), "do not fit"),
        (WindowSum(POINT, 3, channels=4), TensorType((1, 3), Element.U2), "4 sums of 3 groups"),
        (WindowSum(POINT), TensorType((1, 3, 4), Element.U2), "do not fit"),
    ],
)
def test_window_sums_refuse(op: WindowSum, x: TensorType, reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer([x])


def every_sum(op: BinaryConv, size: int, channels: int, values: list[int]) -> list[int]:
    """Return the sums that all inputs of one row can have under weights that are all values."""
    grid = np.array(np.meshgrid(*[values] * (size * channels))).reshape(size * channels, -1)
    x = grid.T.reshape(-1, channels, size).astype(np.int8)
    return sorted(set(op.evaluate([x, np.ones((1, channels, *op.window.kernel))])[0].flat))


BORDER = Window((Axis(2, before=1),))


@pytest.mark.parametrize(
    ("pad", "channels", "interval"),
    [
        # Skipped taps of an odd number of channels: both parities.
        (0, 1, Interval(-2, 2)),
        (0, 3, Interval(-6, 6)),
        (0, 2, Interval(-4, 4, 2)),
        (1, 1, Interval(-2, 2, 2)),
        (-1, 3, Interval(-6, 6, 2)),
    ],
)
def test_parity_at_padded_borders(pad: int, channels: int, interval: Interval) -> None:
    op = BinaryConv(BORDER, pad=pad)
    kinds = [TensorType((1, channels, 2), Element.BIPOLAR)]
    kinds.append(TensorType((1, channels, 2), Element.BIPOLAR))
    assert op.infer(kinds)[0].interval == interval
    reached = every_sum(op, 2, channels, [-1, 1])
    exact = range(interval.low, interval.high + 1, interval.stride)
    # Three channels give 6, 4, ..., -6 under the whole window and 3, 1, -1, -3 under one tap.
    expected = [n for n in exact if n % 2 == 0 or abs(n) <= channels]
    assert reached == expected


def test_odd_channels_keep_their_parity_where_no_tap_is_skipped() -> None:
    kinds = [TensorType((1, 3, 5), Element.BIPOLAR), TensorType((1, 3, 3), Element.BIPOLAR)]
    (inside,) = BinaryConv(Window((Axis(3),))).infer(kinds)
    assert inside.interval == Interval(-9, 9, 2)
    # A stride that never reaches the padding behind the input.
    (short,) = BinaryConv(Window((Axis(3, 2, after=1),))).infer(kinds)
    assert short.interval == Interval(-9, 9, 2)


def test_zeros_among_the_weights_reach_both_parities() -> None:
    kinds = [TensorType((1, 2), Element.BIPOLAR), TensorType((1, 2), Element.TERNARY)]
    (kind,) = BinaryDense().infer(kinds)
    assert kind.interval == Interval(-2, 2)
    x = np.array([[-1, -1], [-1, 1], [1, 1]], np.int8)
    weights = np.array([[1, 1], [1, 0], [0, 0]], np.int8)
    (n,) = BinaryDense().evaluate([x, weights])
    assert sorted(set(n.flat)) == [-2, -1, 0, 1, 2]


# --- Refusals and text ----------------------------------------------------------------------------


def kind(element: Element, *shape: int) -> TensorType:
    return TensorType(shape, element)


REAL, BITS, CODES = Element.F32, Element.BIPOLAR, Element.U8
THREE = Window((Axis(3),))


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (Conv(THREE), [kind(REAL, 1, 2, 5), kind(REAL, 4, 2, 2)], "does not fit weights"),
        (Conv(THREE), [kind(REAL, 1, 2, 5, 5), kind(REAL, 4, 2, 3, 3)], "does not fit weights"),
        (Conv(THREE), [kind(REAL, 1, 2, 5), kind(REAL, 4, 1, 3)], "does not fit weights"),
        (Conv(THREE, 2), [kind(REAL, 1, 2, 5), kind(REAL, 4, 2, 3)], "does not fit weights"),
        (Conv(THREE, 2), [kind(REAL, 1, 2, 5), kind(REAL, 3, 1, 3)], "does not fit weights"),
        (Conv(THREE), [kind(REAL, 1, 2, 2), kind(REAL, 4, 2, 3)], "a window of 3 does not fit"),
        (Conv(THREE), [kind(REAL, 1, 2, 5), kind(BITS, 4, 2, 3)], "needs f32 operands"),
        (
            BinaryConv(THREE),
            [kind(BITS, 1, 2, 5), kind(CODES, 4, 2, 3)],
            "needs weights that are sums",
        ),
        (BinaryConv(THREE, 1, 1), [kind(REAL, 1, 2, 5), kind(BITS, 4, 2, 3)], "f32 cannot be"),
        (BinaryConv(THREE, 1, 2), [kind(BITS, 1, 2, 5), kind(BITS, 4, 2, 3)], "padded with 2"),
        (BinaryConv(THREE, 1, -1), [kind(CODES, 1, 2, 5), kind(BITS, 4, 2, 3)], "padded with -1"),
        (BinaryConv(THREE, 1, 256), [kind(CODES, 1, 2, 5), kind(BITS, 4, 2, 3)], "with 256"),
        (BinaryConv(THREE), [kind(Element.I32, 1, 2, 5), kind(BITS, 4, 2, 3)], "cannot sum i32"),
    ],
)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


def test_text() -> None:
    window = Window((Axis(3, 2, 1, 1, 1), Axis(1)))
    assert str(Conv(window, 2)) == "Conv(window=[3/2 pad 1+1, 1], groups=2)"
    assert str(BinaryConv(window, pad=-1)).endswith("groups=1, pad=-1)")
