"""Pools against loops over their taps, torch and ONNX Runtime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.types import Array, Element, PackedChannels, TensorType
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.oracles import EXTREMES, divided, f32
from tests.ir.sketch import HARD, INF, F, same_bits
from tests.ir.windows import (
    onnx_attributes,
    output_places,
    pads_below_kernel,
    pads_half_kernel,
    runtime,
    sees,
    whole_numbers,
    windows_and_sizes,
    within,
)

Drawn = tuple[Window, tuple[int, ...]]


def seen_by_all(drawn: Drawn) -> bool:
    return all(sees(axis, size) for axis, size in zip(drawn[0].axes, drawn[1], strict=True))


pools = windows_and_sizes(ceil=True).filter(seen_by_all)
runtime_pools = windows_and_sizes(least=1, ceil=True, pads=pads_below_kernel).filter(seen_by_all)
torch_pools = windows_and_sizes(least=2, ceil=True, pads=pads_half_kernel).filter(seen_by_all)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def extreme(values: list[float], falls: bool) -> float:
    """Return the first of the largest, or of the smallest; the first NaN before anything."""
    best = values[0]
    for value in values[1:]:
        better = value < best if falls else value > best
        if not math.isnan(best) and (better or math.isnan(value)):
            best = value
    return best


def extremes(x: Array, window: Window, directions: Array) -> Array:
    y = np.zeros((*x.shape[:2], *window.outputs(x.shape[2:])), x.dtype)
    for output, taps in output_places(window, x.shape[2:]):
        inside = [place for place in taps if within(place, x.shape[2:])]
        for n, c in np.ndindex(x.shape[:2]):
            values = [x[(n, c, *place)].item() for place in inside]
            y[(n, c, *output)] = extreme(values, directions[c] < 0)
    return y


# --- MaxPool --------------------------------------------------------------------------------------


@given(pools, seeds, st.sampled_from(list(EXTREMES)), st.booleans())
def test_extremes_of_bits_and_codes(
    drawn: Drawn, random: np.random.Generator, element: Element, directed: bool
) -> None:
    window, sizes = drawn
    x = random.choice(np.array(EXTREMES[element], element.dtype), (2, 3, *sizes))
    directions = np.array([1, -1, random.choice([-1, 1])], np.int8)
    operands = [x, directions] if directed else [x]
    kinds = [TensorType(x.shape, element), TensorType((3,), Element.BIPOLAR)][: len(operands)]
    (y,) = MaxPool(window).evaluate(operands)
    expected = extremes(x, window, directions if directed else np.ones(3))
    np.testing.assert_array_equal(y, expected, strict=True)
    assert MaxPool(window).infer(kinds) == (TensorType(y.shape, element),)


VALUES = [[0.0, -0.0], [0.0, -0.0, np.nan], [INF, -INF, 1], HARD]


@given(pools, seeds, st.sampled_from(VALUES), st.booleans())
def test_extremes_of_reals_to_the_bit(
    drawn: Drawn, random: np.random.Generator, choice: object, directed: bool
) -> None:
    # Of +0 and -0, which are equal, the first: otherwise C could not have the same bits.
    window, sizes = drawn
    values = np.array(choice, F)
    x = random.choice(values, (2, 3, *sizes))
    directions = np.array([1, -1, 1], np.int8)
    (y,) = MaxPool(window).evaluate([x, directions] if directed else [x])
    same_bits(y, extremes(x, window, directions if directed else np.ones(3)))


def test_the_first_of_zeros_wins_in_a_long_row() -> None:
    # Long enough for numpy's vector reduction, whose order is its own.
    x = np.zeros((1, 2, 40), F)
    x[0, 0, 0] = x[0, 1, 1:] = -0.0
    window = Window((Axis(40),))
    for directions in ([1, 1], [-1, -1]):
        (y,) = MaxPool(window).evaluate([x, np.array(directions, np.int8)])
        same_bits(y, np.array([[[-0.0], [0.0]]], F))


@given(runtime_pools, seeds, st.sampled_from([12, 19, 22]))
def test_maximum_as_in_onnx_runtime(drawn: Drawn, random: np.random.Generator, opset: int) -> None:
    window, sizes = drawn
    x = random.standard_normal((2, 3, *sizes)).astype(F)
    attributes = {**onnx_attributes(window), "ceil_mode": int(window.axes[0].ceil)}
    theirs = runtime("MaxPool", [x], opset, **attributes)
    same_bits(MaxPool(window).evaluate([x])[0], theirs)


def torch_arguments(window: Window) -> dict[str, Any]:
    return {
        "kernel_size": window.kernel,
        "stride": [axis.stride for axis in window.axes],
        "padding": [axis.before for axis in window.axes],
        "ceil_mode": window.axes[0].ceil,
    }


@given(torch_pools, seeds)
def test_maximum_as_in_torch(drawn: Drawn, random: np.random.Generator) -> None:
    window, sizes = drawn
    x = random.choice(
        np.array([np.nan, INF, -INF, 1, 2, 3], F), (2, 3, *sizes), p=[0.1, 0.1, 0.5, *[0.1] * 3]
    )
    theirs = functional.max_pool2d(
        torch.from_numpy(x), **torch_arguments(window), dilation=[a.dilation for a in window.axes]
    )
    same_bits(MaxPool(window).evaluate([x])[0], theirs.numpy())


# --- AveragePool ----------------------------------------------------------------------------------


@given(pools, seeds, st.booleans())
def test_averages_round_in_order(drawn: Drawn, random: np.random.Generator, padding: bool) -> None:
    window, sizes = drawn
    shape = (2, 2, *sizes)
    x = (random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)).astype(F)
    x[random.random(shape) < 0.1] = random.choice([0.0, -0.0, INF, -INF, np.nan])
    (y,) = AveragePool(window, padding).evaluate([x])
    expected = np.zeros_like(y)
    for output, taps in output_places(window, sizes):
        stated = [
            all(
                -a.before <= p < s + a.after
                for p, s, a in zip(place, sizes, window.axes, strict=True)
            )
            for place in taps
        ]
        inside = [place for place in taps if within(place, sizes)]
        for n, c in np.ndindex(shape[:2]):
            total = F(0)
            for place in inside:
                total = f32(float(total) + float(x[(n, c, *place)]))
            count = sum(stated) if padding else len(inside)
            expected[(n, c, *output)] = f32(divided(float(total), count))
    same_bits(y, expected)
    assert AveragePool(window, padding).infer([TensorType(x.shape, Element.F32)]) == (
        TensorType(y.shape, Element.F32),
    )


@given(runtime_pools, seeds, st.booleans(), st.sampled_from([10, 19, 22]))
def test_averages_as_in_onnx_runtime(
    drawn: Drawn, random: np.random.Generator, padding: bool, opset: int
) -> None:
    # Sums of whole numbers are exact in any order, and both divide once: equal.
    window, sizes = drawn
    attributes = {**onnx_attributes(window), "ceil_mode": int(window.axes[0].ceil)}
    if opset < 19:
        assume(all(axis.dilation == 1 for axis in window.axes))
        del attributes["dilations"]
    x = whole_numbers(random, (2, 3, *sizes))
    theirs = runtime("AveragePool", [x], opset, count_include_pad=int(padding), **attributes)
    (y,) = AveragePool(window, padding).evaluate([x])
    np.testing.assert_array_equal(y, theirs, strict=True)


@given(
    windows_and_sizes(least=2, ceil=True, pads=pads_half_kernel, dilation=1), seeds, st.booleans()
)
def test_averages_as_in_torch(drawn: Drawn, random: np.random.Generator, padding: bool) -> None:
    window, sizes = drawn
    x = whole_numbers(random, (2, 3, *sizes))
    theirs = functional.avg_pool2d(
        torch.from_numpy(x), **torch_arguments(window), count_include_pad=padding
    )
    (y,) = AveragePool(window, padding).evaluate([x])
    np.testing.assert_array_equal(y, theirs.numpy(), strict=True)


def test_ceil_counts_the_padding_that_the_window_states_and_no_more() -> None:
    # The last of the windows of 3 by 2 over 4 + 1 + 1 places reaches one place beyond them.
    window = Window((Axis(3, 2, 1, 1, 1, ceil=True),))
    assert AveragePool(window, count_include_pad=True).divisors((4,)).tolist() == [3, 3, 2]
    assert AveragePool(window).divisors((4,)).tolist() == [2, 3, 1]


# --- Refusals -------------------------------------------------------------------------------------

TWO = Window((Axis(2),))
BEYOND = Window((Axis(2, dilation=2, before=1, after=1),))


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (MaxPool(TWO), [TensorType((1, 2, 5), Element.I32)], "cannot order i32"),
        (MaxPool(TWO), [TensorType((2,), Element.F32)], "a dense operand with channels"),
        (
            MaxPool(TWO),
            [TensorType((1, 2, 5), Element.BIPOLAR, PackedChannels(32, 1))],
            "a dense operand with channels",
        ),
        (MaxPool(TWO), [TensorType((1, 2, 1), Element.F32)], "a window of 2 does not fit"),
        (MaxPool(TWO), [TensorType((1, 2, 5, 5), Element.F32)], "1 axes do not fit"),
        (
            MaxPool(TWO),
            [TensorType((1, 2, 5), Element.F32), TensorType((3,), Element.BIPOLAR)],
            "directions do not fit",
        ),
        (
            MaxPool(TWO),
            [TensorType((1, 2, 5), Element.F32), TensorType((2,), Element.F32)],
            "directions do not fit",
        ),
        (AveragePool(TWO), [TensorType((1, 2, 5), Element.U8)], "needs an f32 operand"),
        # ONNX Runtime gives the lowest float and 0 there, torch -inf and NaN.
        (MaxPool(BEYOND), [TensorType((1, 2, 1), Element.F32)], "sees nothing of an input"),
        (AveragePool(BEYOND), [TensorType((1, 2, 1), Element.F32)], "sees nothing of an input"),
    ],
)
def test_refuses(op: Op, operands: list[TensorType], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        op.infer(operands)


def test_a_point_pools_nothing() -> None:
    x = np.array([[1.5, -2]], F)
    for op in (MaxPool(POINT), AveragePool(POINT)):
        same_bits(op.evaluate([x])[0], x)


def test_text() -> None:
    assert str(MaxPool(TWO)) == "MaxPool(window=[2])"
    assert str(AveragePool(TWO)) == "AveragePool(window=[2], count_include_pad=False)"
