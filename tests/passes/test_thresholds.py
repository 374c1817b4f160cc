"""Thresholds read off and bisected, against each other; domains against numpy's own floats."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.certificate import Certificate, Domain, LayerCertificate, SignOfZero, Undecided
from bnncc.ir.analysis.direction import UNKNOWN, directions
from bnncc.ir.expression import trace
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.types import Array, Element, Interval
from bnncc.passes.levels import element_for, never, simplified
from bnncc.passes.thresholds import FLOATS, Found, Integers, bisected, enumerated, scrutinised
from tests.ir.sketch import INF, LARGEST, TINY, F, Sketch
from tests.passes.applying import level_at
from tests.passes.epilogues import AT_LEAST_0, HOSTILE, SIGN, Layer, bn, clip, epilogues

# --- Domains --------------------------------------------------------------------------------------


@given(st.integers(-1000, 1000), st.integers(0, 100), st.integers(1, 5))
def test_integers_are_indexed_in_order(low: int, steps: int, stride: int) -> None:
    domain = Integers(Interval(low, low + steps * stride, stride))
    values = domain.at(np.arange(domain.size))
    assert values.tolist() == list(range(low, low + steps * stride + 1, stride))
    assert values.dtype == np.int32
    np.testing.assert_array_equal(domain.index(values), np.arange(domain.size))
    # Between two values: the next one up, as thresholds want it.
    for x in range(low, low + steps * stride + 1):
        expected = sum(1 for v in values.tolist() if v < x)
        assert domain.index(np.array([x])).tolist() == [expected]


def test_floats_are_all_of_them_in_order() -> None:
    middle = FLOATS.size // 2
    ends = FLOATS.at(np.array([0, 1, middle - 1, middle, middle + 1, FLOATS.size - 1]))
    below_largest = np.nextafter(LARGEST, F(0))
    assert ends.tolist() == [-LARGEST, -below_largest, -TINY, 0, TINY, LARGEST]
    assert FLOATS.size == 2 * (2**31 - 2**23) - 1  # both signs of every finite pattern, one zero


@given(st.integers(0, FLOATS.size - 2))
def test_floats_next_to_each_other_are_neighbours(index: int) -> None:
    low, high = FLOATS.at(np.array([index, index + 1]))
    assert np.nextafter(low, INF) == high
    assert FLOATS.index(np.array([low, high])).tolist() == [index, index + 1]


def test_both_zeros_have_one_index() -> None:
    a, b = FLOATS.index(np.array([0.0, -0.0], F)).tolist()
    assert a == b == FLOATS.size // 2
    assert FLOATS.index(np.array([INF, -INF])).tolist() == [FLOATS.size - 1, 0]


# --- Bisection equals enumeration -----------------------------------------------------------------


def normal(found: Found) -> tuple[list, list]:
    thresholds, levels = simplified(found.thresholds, found.levels)
    return thresholds.tolist(), levels.tolist()


@pytest.mark.parametrize(("element", "k"), [(Element.U8, 1), (Element.U8, 2), (Element.U8, 7)])
@pytest.mark.parametrize("name", epilogues(Element.U8, 1))
def test_bisection_equals_enumeration(element: Element, k: int, name: str) -> None:
    chain = epilogues(element, k)[name].chain()
    direction = directions(chain)
    monotone = np.nonzero(direction != UNKNOWN)[0]
    domain = Integers(Interval(-255 * k, 255 * k))
    for c in monotone.tolist():
        part = slice(c, c + 1)
        one = chain.of(part)
        read_off = enumerated(one, domain)
        searched = bisected(one, direction[part], domain)
        assert normal(searched) == normal(read_off), (c, str(chain.expression))
        assert searched.values_checked < read_off.values_checked


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_bisection_on_other_strides(stride: int) -> None:
    chain = Layer(Element.BIPOLAR, 64, [HOSTILE], SIGN, Element.TERNARY).chain()
    domain = Integers(Interval(-63, -63 + stride * 42, stride))
    assert normal(bisected(chain, directions(chain), domain)) == normal(enumerated(chain, domain))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_domains(size: int) -> None:
    chain = Layer(Element.BIPOLAR, 3, [HOSTILE], SIGN, Element.TERNARY).chain()
    for low in range(-3, 3):
        domain = Integers(Interval(low, low + size - 1))
        both = normal(bisected(chain, directions(chain), domain)), normal(enumerated(chain, domain))
        assert both[0] == both[1]


def test_bisection_ends_where_the_chain_is_no_number() -> None:
    """Beyond 1e38 the product overflows, and infinity times 0 hides the constant 1 of the maximum.

    Below it, a channel that falls is 1 as well, and so is one that never leaves the numbers.
    """
    s = Sketch(3)
    doubled = s(ew.Mul(), "x", [2.0, -2.0, 1.0])
    largest = s(ew.Max(), s(ew.Max(), doubled, s(ew.Mul(), doubled, [0.0])), [0.5])
    s(Step(Element.BIPOLAR), largest, *AT_LEAST_0, to="y")
    chain = trace(s.done("y"), "y", "x")
    assert chain is not None
    found = bisected(chain, directions(chain), FLOATS)
    assert found.levels.tolist() == [[1], [1], [1]]


def test_bisection_finds_thresholds_beside_what_is_no_number() -> None:
    s = Sketch(2)
    doubled = s(ew.Mul(), "x", [2.0, -2.0])
    largest = s(ew.Max(), doubled, s(ew.Mul(), doubled, [0.0]))
    s(Step(Element.BIPOLAR), largest, [[1e38]], [[-1.0, 1.0]], to="y")
    chain = trace(s.done("y"), "y", "x")
    assert chain is not None
    found = bisected(chain, directions(chain), FLOATS)
    half = F(1e38) / 2
    assert found.thresholds.tolist() == [[half], [np.nextafter(-half, INF)]]
    assert found.levels.tolist() == [[-1, 1], [1, -1]]


def test_enumeration_in_slices_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = epilogues(Element.BIPOLAR, 31)["abs"].chain()
    domain = Integers(Interval(-31, 31, 2))
    whole = enumerated(chain, domain)
    for at_once in (1, 70, 100):
        monkeypatch.setattr("bnncc.passes.thresholds._VALUES_AT_ONCE", at_once)
        sliced = enumerated(chain, domain)
        np.testing.assert_array_equal(sliced.thresholds, whole.thresholds)
        np.testing.assert_array_equal(sliced.levels, whole.levels)
        assert sliced.values_checked == whole.values_checked == 32 * 8


# --- levels ---------------------------------------------------------------------------------------


@st.composite
def steps(draw: st.DrawFn) -> tuple[Array, Array]:
    """Draw thresholds [R, T] and levels [R', T + 1] that broadcast, many of them superfluous."""
    rows, others = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1)]))
    count = draw(st.integers(0, 5))
    low, high = draw(st.sampled_from([(-1, 1), (0, 2), (-1, 0)]))
    row = st.lists(st.integers(-6, 6), min_size=count, max_size=count).map(sorted)
    level = st.lists(st.integers(low, high), min_size=count + 1, max_size=count + 1)
    element = draw(st.sampled_from([np.float32, np.int32]))
    thresholds = np.array(draw(st.lists(row, min_size=rows, max_size=rows)), element)
    levels = np.array(draw(st.lists(level, min_size=others, max_size=others)), F)
    return thresholds.reshape(rows, count), levels


def table(thresholds: Array, levels: Array) -> list[list[float]]:
    """The level at -9, -8, ..., 9 in every row, counted in Python."""
    rows = max(len(thresholds), len(levels))
    t, v = (np.broadcast_to(a, (rows, a.shape[1])).tolist() for a in (thresholds, levels))
    return [[level_at(x, t[r], v[r]) for x in range(-9, 10)] for r in range(rows)]


@given(steps())
def test_simplified_is_the_same_and_minimal(case: tuple[Array, Array]) -> None:
    thresholds, levels = case
    fewer, fewer_levels = simplified(thresholds, levels)
    rows = max(len(thresholds), len(levels))
    assert fewer.shape == (rows, fewer_levels.shape[1] - 1)
    assert fewer_levels.shape[0] == rows
    assert (fewer.dtype, fewer_levels.dtype) == (thresholds.dtype, levels.dtype)
    used = fewer != never(thresholds)
    # Equal thresholds in a row: the last level counts, so the table is the judge, not the levels.
    assert table(fewer, fewer_levels) == table(thresholds, levels)
    assert (fewer[:, 1:] >= fewer[:, :-1]).all()
    for r in range(rows):
        count = int(used[r].sum())
        assert used[r, :count].all()
        assert (np.diff(fewer_levels[r, : count + 1]) != 0).all()
        assert (fewer_levels[r, count:] == fewer_levels[r, count]).all()
    assert fewer.shape[1] == int(used.sum(axis=1).max(initial=0))


@pytest.mark.parametrize(
    ("levels", "element"),
    [
        ([[-1, 1]], Element.BIPOLAR),
        ([[1]], Element.BIPOLAR),
        ([[-1, 0, 1]], Element.TERNARY),
        ([[0]], Element.TERNARY),
        ([[-0.0, 1]], Element.TERNARY),
        ([[0, 0.5]], Element.F32),
        ([[-1, 1, 3]], Element.F32),
        ([[-1, 1.0000001]], Element.F32),
    ],
)
def test_element_for(levels: list, element: Element) -> None:
    assert element_for(np.array(levels, F)) is element


# --- Undecided ------------------------------------------------------------------------------------


def test_distances_are_to_the_nearest_threshold_on_both_sides() -> None:
    # v = n + 0.25: the change from n = -1 (v = -0.75) to n = 0 (v = 0.25) is 0.25 from 0.
    layer = Layer(Element.TERNARY, 4, [bn((1,), (0.25,), (0,), (1,), 0.0)], channels=1)
    domain = Integers(Interval(-4, 4))
    chain = layer.chain()
    distance, undecided = scrutinised(chain, enumerated(chain, domain), domain, directions(chain))
    assert distance == 0.25
    assert undecided == ()


def test_a_constant_channel_has_no_distance() -> None:
    layer = Layer(Element.TERNARY, 4, [bn((0,), (0.25,), (0,), (1,))], channels=1)
    domain = Integers(Interval(-4, 4))
    chain = layer.chain()
    distance, undecided = scrutinised(chain, enumerated(chain, domain), domain, directions(chain))
    assert distance is None
    assert undecided == ()


def test_undecided_floats_are_finite_and_inside_the_domain() -> None:
    # A jump inside the chain leaves everything behind it undecided, out to the largest float.
    inner = ([[-0.5, 0.5]], [[-1, 0, 1]])
    layer = Layer(Element.F32, 3, [bn((1,), (0.1,), (0,), (1,))], inner, Element.F32, channels=1)
    sketch = layer.sketch()
    outer = sketch.batch_norm("y", ([2.0], [0.1], [0.0], [1.0]))
    sketch(Step(Element.BIPOLAR), outer, *AT_LEAST_0, to="z")
    chain = trace(sketch.done("z"), "z", "n")
    assert chain is not None
    found = bisected(chain, directions(chain), FLOATS)
    _, undecided = scrutinised(chain, found, FLOATS, directions(chain))
    assert undecided != ()
    for entry in undecided:
        assert -LARGEST <= entry.low <= entry.high <= LARGEST


# --- Certificates ---------------------------------------------------------------------------------


def layer_certificate(undecided: Sequence[Undecided], distance: float = 0.5) -> LayerCertificate:
    return LayerCertificate(
        layer="y",
        root="n",
        origin=("fc",),
        chain="{}",
        domain=Domain("enumerated", "i32", -3, 3, 2, 4),
        values_checked=8,
        thresholds=np.array([[1], [never(np.zeros(1, np.int32))]], np.int32),
        levels=np.array([[-1, 1], [0.1, 0.1]], F),
        smallest_distance=distance,
        constant_channels=(1,),
        falling_channels=(),
        zero_reachable=(),
        undecided=tuple(undecided),
    )


def test_undecided_ranges_are_closed() -> None:
    certificate = layer_certificate([Undecided(0, -1, 3), Undecided(2, 7, 7)])
    channel = np.array([0, 0, 0, 0, 0, 1, 2, 2, 2])
    low = np.array([-9, -9, -1, 3, 4, 0, 6, 7, 8])
    high = np.array([-2, -1, -1, 9, 9, 0, 6, 7, 8])
    expected = [False, True, True, True, False, False, False, True, False]
    assert certificate.is_undecided(channel, low, high).tolist() == expected


def test_ranges_with_a_threshold_inside_are_undecided() -> None:
    # A float sum known to within low..high: where the threshold lies between, either may be right.
    certificate = layer_certificate([])
    channel = np.zeros(6, int)
    low, high = np.array([[0, 1], [0.5, 1.5], [1, 2], [-5, 0.9], [1, 1], [0.9, 0.9]]).T
    expected = [True, True, False, False, False, False]
    assert certificate.is_undecided(channel, low, high).tolist() == expected


def test_json_has_null_for_a_float_threshold_that_is_never_reached() -> None:
    thresholds = np.array([[0.1, np.inf]], F)
    layer = dataclasses.replace(layer_certificate([]), thresholds=thresholds)
    certificate = Certificate("ab", "0.1", (), (layer,))
    text = json.dumps(certificate.as_json(), allow_nan=False)
    assert json.loads(text)["layers"][0]["thresholds"] == [[float(F(0.1)), None]]


def test_json_is_json_and_floats_survive_it() -> None:
    layers = (layer_certificate([Undecided(0, -1, 3)], 1 / 3),)
    certificate = Certificate("ab", "0.1", (SignOfZero("y", 1),), layers)
    text = json.dumps(certificate.as_json(), allow_nan=False)
    (layer,) = json.loads(text)["layers"]
    assert layer["smallest_distance"] == 1 / 3
    assert layer["levels"] == layers[0].levels.tolist()
    assert layer["thresholds"] == layers[0].thresholds.tolist()
    assert layer["domain"]["stride"] == 2
    assert layer["undecided"] == [{"channel": 0, "low": -1, "high": 3}]


def test_json_of_a_layer_without_decisions_is_json() -> None:
    # RFC 8259 knows no Infinity, which is what Python would write for the distance.
    certificate = Certificate("ab", "0.1", (), (layer_certificate([], None),))
    json.dumps(certificate.as_json(), allow_nan=False)


def test_undecided_is_looked_for_at_every_change() -> None:
    # Three decisions at -1, 0 and 1; only the value at n = 0 (0 exactly, mean 0) is certain.
    layer = Layer(
        Element.TERNARY,
        4,
        [bn((1.1,), (0.0,), (0.3,), (0.7,)), clip(-2, 2)],
        ([[-1.0, 0.0, 1.0]], [[0.0, 1.0, 2.0, 3.0]]),
        Element.F32,
        channels=1,
    )
    chain = layer.chain()
    domain = Integers(Interval(-4, 4))
    values = sorted(float(layer.value(n, 0)) for n in range(-4, 5))
    on_a_value = ([[values[3], values[5]]], [[-1.0, 0.0, 1.0]])
    hit = Layer(Element.TERNARY, 4, layer.links, on_a_value, Element.TERNARY, channels=1).chain()
    assert scrutinised(chain, enumerated(chain, domain), domain, directions(chain))[1] == ()
    _, undecided = scrutinised(hit, enumerated(hit, domain), domain, directions(hit))
    assert {(u.low, u.high) for u in undecided} == {(-1, -1), (1, 1)}
