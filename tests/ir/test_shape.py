"""Movements put elements where PyTorch puts them, and leave the batch alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.shape import (
    Concat,
    Expand,
    Gather,
    Movement,
    Pad,
    Reshape,
    Slice,
    Transpose,
)
from bnncc.ir.types import Array, Element, Stage, TensorType

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
ELEMENTS = st.sampled_from([Element.F32, Element.U8, Element.BOOL, Element.BIPOLAR])


def sample(shape: tuple[int, ...], element: Element, batch: int = 2) -> Array:
    """Return values of the element, [batch, *shape]."""
    rng = np.random.default_rng(len(shape))
    if element is Element.BIPOLAR:
        return (2 * rng.integers(0, 2, (batch, *shape)) - 1).astype(np.int8)
    return rng.integers(0, 200, (batch, *shape)).astype(element.dtype)


def check(op: Movement, x: list[Array], element: Element, expected: torch.Tensor) -> None:
    """`op` gives `expected`, in C order, and infers its shape for a batch of 1."""
    (y,) = op.evaluate(x)
    np.testing.assert_array_equal(y, expected.numpy())
    assert y.dtype == x[0].dtype
    assert y.flags.c_contiguous
    (kind,) = op.infer([TensorType((1, *part.shape[1:]), element) for part in x])
    assert kind == TensorType((1, *y.shape[1:]), element)


def test_reshape_keeps_order_and_batch() -> None:
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (y,) = Reshape((1, 2, 6)).evaluate([x])
    expected = [[[b * 12 + i * 6 + j for j in range(6)] for i in range(2)] for b in range(2)]
    assert y.tolist() == expected


def test_reshape_infers_the_operands_element() -> None:
    x = TensorType((1, 2, 6), Element.U8)
    assert Reshape((1, 12)).infer([x]) == (TensorType((1, 12), Element.U8),)
    assert Reshape.stages == set(Stage)


@pytest.mark.parametrize(
    ("shape", "to"),
    [((1, 6), (1, 5)), ((1, 6), (2, 3)), ((2, 3), (1, 6)), ((1, 6), ()), ((1, 0), (1, 1))],
)
def test_reshape_refuses(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    with pytest.raises(OpError, match="cannot reshape"):
        Reshape(to).infer([TensorType(shape, Element.F32)])


@given(SHAPES, ELEMENTS, st.data())
def test_transpose(shape: tuple[int, ...], element: Element, data: st.DataObject) -> None:
    perm = (0, *data.draw(st.permutations(range(1, len(shape) + 1))))
    x = sample(shape, element)
    check(Transpose(perm), [x], element, torch.from_numpy(x).permute(perm))


@given(SHAPES, ELEMENTS, st.data())
def test_pad(shape: tuple[int, ...], element: Element, data: st.DataObject) -> None:
    widths = st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)).map(tuple)
    before, after = data.draw(widths), data.draw(widths)
    value = {Element.BOOL: True, Element.BIPOLAR: -1, Element.U8: 255}.get(element, -2.5)
    x = sample(shape, element)
    pairs = [width for pair in zip(before[::-1], after[::-1], strict=True) for width in pair]
    expected = functional.pad(torch.from_numpy(x), pairs, value=value)
    check(Pad((0, *before), (0, *after), value), [x], element, expected)


@given(SHAPES, ELEMENTS, st.data())
def test_slice(shape: tuple[int, ...], element: Element, data: st.DataObject) -> None:
    ranges = []
    for extent in shape:
        start = data.draw(st.integers(0, extent - 1))
        end = data.draw(st.integers(start + 1, extent))
        ranges.append(range(start, end, data.draw(st.integers(1, 3))))
    x = sample(shape, element)
    whole = (slice(None), *(slice(r.start, r.stop, r.step) for r in ranges))
    op = Slice(
        (0, *(r.start for r in ranges)), (1, *map(len, ranges)), (1, *(r.step for r in ranges))
    )
    check(op, [x], element, torch.from_numpy(x[whole].copy()))


@given(SHAPES, ELEMENTS, st.data())
def test_concat(shape: tuple[int, ...], element: Element, data: st.DataObject) -> None:
    axis = data.draw(st.integers(1, len(shape)))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parts = [sample((*shape[: axis - 1], size, *shape[axis:]), element) for size in sizes]
    expected = torch.cat([torch.from_numpy(part) for part in parts], axis)
    check(Concat(axis), parts, element, expected)


def test_concat_repeats_a_constant_for_each_sample() -> None:
    x, constant = sample((2, 3), Element.F32, 3), sample((1, 3), Element.F32, 1)
    (y,) = Concat(1).evaluate([constant, x])
    assert y.shape == (3, 3, 3)
    assert all((part == constant[0]).all() for part in y[:, :1])
    np.testing.assert_array_equal(y[:, 1:], x)


BIPOLAR, TERNARY = (TensorType((1, 2, 3), e) for e in (Element.BIPOLAR, Element.TERNARY))


@pytest.mark.parametrize(
    ("op", "operands", "element"),
    [
        (Concat(1), [BIPOLAR, BIPOLAR], Element.BIPOLAR),
        (Concat(2), [BIPOLAR, TERNARY, BIPOLAR], Element.TERNARY),
        (Pad((0, 1, 0), (0, 0, 0), 1), [BIPOLAR], Element.BIPOLAR),
        (Pad((0, 1, 0), (0, 0, 0), 0), [BIPOLAR], Element.TERNARY),
        (Pad((0, 1, 0), (0, 0, 0), 0), [TERNARY], Element.TERNARY),
    ],
    ids=str,
)
def test_signs_among_zeros_are_ternary(
    op: Movement, operands: list[TensorType], element: Element
) -> None:
    (kind,) = op.infer(operands)
    (y,) = op.evaluate([sample(x.shape[1:], x.element) for x in operands])
    assert (kind.element, kind.shape[1:], y.dtype) == (element, y.shape[1:], element.dtype)


def test_movements_are_known_before_kernels_are() -> None:
    for op in (Concat, Pad, Slice, Transpose):
        assert issubclass(op, Movement)
        assert op.stages == {Stage.FLOAT, Stage.BINARY}
    assert issubclass(Reshape, Movement)


IMAGE = TensorType((1, 2, 5), Element.F32)


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        (Transpose((1, 0, 2)), [IMAGE]),
        (Transpose((0, 1)), [IMAGE]),
        (Transpose((0, 1, 1)), [IMAGE]),
        (Transpose((0, 1, 3)), [IMAGE]),
        (Pad((0, 0), (0, 0), 0), [IMAGE]),
        (Pad((0, 0, 1), (0, 0), 0), [IMAGE]),
        (Pad((0, 0, -1), (0, 0, 1), 0), [IMAGE]),
        (Pad((1, 0, 0), (0, 0, 0), 0), [IMAGE]),
        (Pad((0, 0, 0), (1, 0, 0), 0), [IMAGE]),
        (Pad((0, 1), (0, 1), 2), [TensorType((1, 2), Element.BIPOLAR)]),
        (Pad((0, 1), (0, 1), 2), [TensorType((1, 2), Element.TERNARY)]),
        (Pad((0, 1), (0, 1), 0.5), [TensorType((1, 2), Element.U8)]),
        (Slice((0, 0), (1, 2), (1, 1)), [IMAGE]),
        (Slice((0, 0, 0), (1, 2), (1, 1, 1)), [IMAGE]),
        (Slice((0, 0, 1), (1, 2, 5), (1, 1, 1)), [IMAGE]),
        (Slice((0, 0, 0), (1, 2, 3), (1, 1, 3)), [IMAGE]),
        (Slice((0, 0, -1), (1, 2, 1), (1, 1, 1)), [IMAGE]),
        (Slice((0, 0, 4), (1, 2, 2), (1, 1, -1)), [IMAGE]),
        (Slice((0, 0, 0), (1, 2, 0), (1, 1, 1)), [IMAGE]),
        (Slice((1, 0, 0), (1, 2, 5), (1, 1, 1)), [TensorType((2, 2, 5), Element.F32)]),
        (Concat(0), [IMAGE, IMAGE]),
        (Concat(3), [IMAGE, IMAGE]),
        (Concat(1), []),
        (Concat(1), [IMAGE, TensorType((1, 2, 4), Element.F32)]),
        (Concat(1), [IMAGE, TensorType((1, 2), Element.F32)]),
        (Concat(1), [IMAGE, TensorType((2, 2, 5), Element.F32)]),
        (Concat(1), [IMAGE, TensorType((1, 2, 5), Element.U8)]),
        (Concat(1), [BIPOLAR, TensorType((1, 2, 3), Element.U1)]),
    ],
    ids=str,
)
def test_refuses(op: Movement, operands: list[TensorType]) -> None:
    with pytest.raises(OpError):
        op.infer(operands)


@given(SHAPES, ELEMENTS, st.data())
def test_gather_chooses_places_of_every_axis(
    shape: tuple[int, ...], element: Element, data: st.DataObject
) -> None:
    places = [
        tuple(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5)))
        for size in shape
    ]
    x = sample(shape, element)
    expected = torch.from_numpy(x)
    for axis, chosen in enumerate(places, start=1):
        expected = expected.index_select(axis, torch.tensor(chosen))
    check(Gather(((0,), *places)), [x], element, expected)


@given(SHAPES, ELEMENTS, st.data())
def test_expand_repeats_what_is_single(
    shape: tuple[int, ...], element: Element, data: st.DataObject
) -> None:
    wide = tuple(data.draw(st.integers(1, 4)) if size == 1 else size for size in shape)
    x = sample(shape, element)
    check(Expand((1, *wide)), [x], element, torch.from_numpy(x).expand(2, *wide))


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Gather(((0,), (3,), (0,))), "reaches out of"),
        (Gather(((0,), (-1,), (0,))), "reaches out of"),
        (Gather(((0,), (), (0,))), "reaches out of"),
        (Gather(((0, 0), (0,), (0,))), "chooses among the batch"),
        (Gather(((0,), (0,))), "does not fit"),
        (Expand((1, 4, 5)), "cannot expand"),
        (Expand((2, 3, 1)), "cannot expand"),
        (Expand((1, 3)), "does not fit"),
    ],
)
def test_chosen_and_repeated_places_must_exist(op: Movement, text: str) -> None:
    with pytest.raises(OpError, match=text):
        op.infer([TensorType((1, 3, 1), Element.F32)])
