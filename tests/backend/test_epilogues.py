"""Epilogues as C text: what is read from where, what becomes a literal, what a bit compares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bnncc.backend.epilogues import finish, rows
from bnncc.backend.program import Argument, Buffer, Constant, Finish
from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.graph import GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Epilogue, Map, Store
from bnncc.ir.types import CHANNELS_LAST, Array, Element, Stage, TensorType, real_layout

F32 = Element.F32
V = Operand(Source.VARIABLE, 0)
PLAIN = Expression(())


def finished(
    epilogue: Epilogue,
    shape: tuple[int, ...],
    others: tuple[TensorType, ...] = (),
    constants: tuple[Array, ...] = (),
    *,
    direct: bool = False,
) -> tuple[Finish, tuple[Constant, ...]]:
    """Return the C of an epilogue that follows x of this shape."""
    builder = GraphBuilder("one", Stage.PACKED)
    builder.input("x", TensorType(shape, F32, real_layout(shape)))
    names = [builder.input(f"other{i}", kind) for i, kind in enumerate(others)]
    for array in constants:
        element = {"float32": F32, "float64": Element.F64, "int32": Element.I32}[array.dtype.name]
        names.append(builder.constant("c", array, element))
    results = [f"y{i}" for i in range(len(epilogue.stores))]
    builder.results(Map(epilogue), ["x", *names], results)
    graph = builder.build(results)
    outputs = [
        Argument("y" if i == 0 else name, Buffer(name, "float", name, shape, 0))
        for i, name in enumerate(results)
    ]
    return finish(graph, epilogue, names, outputs, "m_layer0", places={}, direct=direct)


def added(variable: int = 1) -> Expression:
    return Expression((Term(ew.Add(), (V, Operand(Source.VARIABLE, variable))),))


TERM = Store(Operand(Source.TERM, 0), F32)


@pytest.mark.parametrize(
    ("shape", "other", "place"),
    [
        ((1, 6, 4, 5), (1, 6, 4, 5), "s1[p * 6u + c]"),
        ((1, 6, 4, 5), (1, 1, 4, 5), "s1[p]"),
        ((1, 6, 4, 5), (1, 6, 1, 1), "s1[c]"),
        ((1, 6, 4, 5), (1, 1, 1, 1), "s1[0]"),
        ((1, 6, 1, 1), (1, 6, 1, 1), "s1[c]"),
        ((1, 1, 4, 5), (1, 1, 4, 5), "s1[p * 1u + c]"),
        ((1, 6), (1, 6), "s1[c]"),
        ((1, 6), (1, 1), "s1[0]"),
        ((1, 6, 7), (1, 1, 7), "s1[p]"),
    ],
)
def test_where_another_tensor_is_read(
    shape: tuple[int, ...], other: tuple[int, ...], place: str
) -> None:
    kind = TensorType(other, F32, real_layout(other))
    done, constants = finished(Epilogue(added(), 1, 0, (TERM,)), shape, (kind,))
    assert [(s.name, s.value) for s in done.statements] == [("v1", place), ("t0", "v + v1")]
    assert constants == ()
    assert done.reads_channel == ("c]" in place)


def test_equal_rows_become_literals_and_others_arrays() -> None:
    same, held = rows("m_p0", np.full(5, 2.5, np.float32), "parameters")
    assert (same.literals, held) == (("2.5f",), ())
    values = np.array([0.0, -0.0], np.float32)
    different, (array,) = rows("m_p1", values, "parameters")
    assert (different.array, array.name, array.c_type, array.shape) == (
        "m_p1",
        "m_p1",
        "float",
        (2,),
    )
    wide, (table,) = rows("m_p2", np.arange(6.0).reshape(2, 3), "parameters")
    assert (wide.array, wide.width, table.c_type) == ("m_p2", 3, "double")
    none, empty = rows("m_p3", np.zeros((2, 0), np.float32), "parameters")
    assert (none.width, none.literals, empty) == (0, (), ())


def thresholds(planes: int, channels: int, count: int) -> Array:
    return np.arange(planes * channels * count).reshape(planes, channels, count).astype(np.int32)


@pytest.mark.parametrize(
    ("planes", "count", "expected"),
    [
        (1, 1, ("(v >= T[c])",)),
        (1, 2, ("(v >= T[c * 2u]) ^ (v >= T[c * 2u + 1u])",)),
        (2, 1, ("(v >= T[c])", "(v >= T[c + 3u])")),
        (
            2,
            2,
            (
                "(v >= T[c * 2u]) ^ (v >= T[c * 2u + 1u])",
                "(v >= T[c * 2u + 6u]) ^ (v >= T[c * 2u + 7u])",
            ),
        ),
    ],
)
def test_what_a_bit_compares(planes: int, count: int, expected: tuple[str, ...]) -> None:
    element = {1: Element.BIPOLAR, 2: Element.TERNARY}[planes]
    epilogue = Epilogue(PLAIN, 0, 0, (Store(V, element, count, 32),))
    done, constants = finished(epilogue, (1, 3, 2, 2), constants=(thresholds(planes, 3, count),))
    assert [c.name for c in constants] == ["m_layer0_thresholds"]
    texts = tuple(text.replace("m_layer0_thresholds", "T") for text in done.stores[0].decisions)
    assert texts == expected
    assert done.reads_channel
    store = done.stores[0]
    assert (store.target, store.value, store.word_bits) == ("y", "", 32)
    assert (store.words, store.plane) == (1, 4)


def test_limits_are_compared_the_other_way_round() -> None:
    epilogue = Epilogue(PLAIN, 0, 0, (Store(V, Element.BIPOLAR, 1, 64),))
    done, (limits,) = finished(epilogue, (1, 3), constants=(thresholds(1, 3, 1),), direct=True)
    assert limits.name == "m_layer0_limits"
    assert done.stores[0].decisions == ("(v <= m_layer0_limits[c])",)


def test_one_threshold_for_all_channels_is_a_literal() -> None:
    epilogue = Epilogue(PLAIN, 0, 0, (Store(V, Element.BIPOLAR, 1, 64),))
    same = np.full((1, 3, 1), 0.5, np.float32)
    done, constants = finished(epilogue, (1, 3), constants=(same,))
    assert done.stores[0].decisions == ("(v >= 0.5f)",)
    assert constants == ()
    assert not done.reads_channel


def test_every_store_has_a_target_and_thresholds_of_its_own() -> None:
    stores = (
        Store(V, Element.I32),
        Store(V, Element.BIPOLAR, 1, 32),
        TERM,
        Store(Operand(Source.TERM, 0), Element.TERNARY, 1, 32),
    )
    other = TensorType((1, 3, 2, 2), F32, CHANNELS_LAST)
    held = (thresholds(1, 3, 1), thresholds(2, 3, 1).astype(np.float32))
    done, constants = finished(Epilogue(added(), 1, 0, stores), (1, 3, 2, 2), (other,), held)
    assert [store.target for store in done.stores] == ["y", "y1", "y2", "y3"]
    assert [store.value for store in done.stores] == ["v", "", "t0", ""]
    names = [constant.name for constant in constants]
    assert names == ["m_layer0_thresholds1", "m_layer0_thresholds3"]
    for store, name in zip((done.stores[1], done.stores[3]), names, strict=True):
        assert all(name in decision for decision in store.decisions)
    assert all("t0" in decision for decision in done.stores[3].decisions)


def test_the_slack_of_a_dequantize_is_not_printed() -> None:
    operands = (V, *(Operand(Source.PARAMETER, i) for i in range(3)))
    epilogue = Epilogue(Expression((Term(ew.Dequantize(), operands),)), 0, 3, (TERM,))
    scale, shift, slack = (np.arange(3.0) + i for i in range(3))
    builder = GraphBuilder("one", Stage.PACKED)
    x = builder.input("x", TensorType((1, 3), Element.I32))
    names = [builder.constant("c", array, Element.F64) for array in (scale, shift, slack)]
    builder.results(Map(epilogue), [x, *names], ["y"])
    output = Argument("y", Buffer("y", "float", "y", (1, 3), 0))
    graph = builder.build(["y"])
    _, constants = finish(graph, epilogue, names, [output], "m", places={}, direct=False)
    assert [constant.name for constant in constants] == ["m_p0", "m_p1"]


def test_no_two_constants_share_a_name() -> None:
    terms = tuple(Term(ew.Mul(), (V, Operand(Source.PARAMETER, i))) for i in range(3))
    stores = tuple(Store(Operand(Source.TERM, i), Element.BIPOLAR, 1, 32) for i in range(3))
    given = [np.arange(3, dtype=np.float32) + i for i in range(3)]
    given += [thresholds(1, 3, 1).astype(np.float32)] * 3
    _, constants = finished(Epilogue(Expression(terms), 0, 3, stores), (1, 3), (), tuple(given))
    names = [constant.name for constant in constants]
    assert len(names) == 6
    assert all(a != b for a, b in itertools.combinations(names, 2))
