"""lower_kernels: every packed bit, limit and base against the logical weights and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.errors import UnsupportedModelError
from bnncc.ir import interpret
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Map, PackPlanes, RealDense, SignSum, XnorDense
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array, Element, Stage
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.levels import element_for, never
from bnncc.passes.lower_kernels import LOWER_KERNELS, plane_thresholds
from bnncc.targets import load_kernels, target_named
from tests.ir.oracles import EXTREMES, PLANES, integers, plane_bit
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes.applying import (
    apply,
    context,
    every_operand,
    grounded,
    level_at,
    same_values,
    staged,
)
from tests.passes.epilogues import SIGN, Layer, epilogues

TARGETS = ["generic", "x86-64"]
INTEGERS = list(EXTREMES)


def lowered(graph: Graph, target: str = "generic") -> Graph:
    """Return the graph in kernels, well-formed at stage PACKED too."""
    result = apply(LOWER_KERNELS, graph, context(target)).graph
    assert violations(staged(result, Stage.PACKED)) == []
    return result


def thresholds_on_sums(
    element: Element, k: int, channels: int, *, to: Element = Element.TERNARY, seed: int = 0
) -> Sketch:
    """x -> BinaryDense "n" -> Step "y", thresholds all over the interval and outside of it."""
    random = np.random.default_rng(seed)
    s = Sketch(k, element)
    w = random.choice(np.array([-1, 1], np.int8), (channels, k))
    n = s(BinaryDense(), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    interval = s.builder.types[n].interval
    assert interval is not None
    count = {Element.BIPOLAR: 1, Element.TERNARY: 2}[to]
    t = np.sort(random.integers(interval.low - 2, interval.high + 3, (channels, count)), axis=1)
    t[::5, -1] = never(np.zeros(1, np.int32))
    levels = random.choice(np.array([-1, 1] if count == 1 else [-1, 0, 1]), (channels, count + 1))
    s(ew.Step(to), n, s.const(t, "t", Element.I32), s.const(levels, "v"), to="y")
    return s


# --- Packed words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("k", "channels"), [(1, 1), (31, 3), (32, 8), (33, 9), (64, 5), (65, 17)])
def test_xnor_weights_bit_by_bit(k: int, channels: int, target: str) -> None:
    before = grounded(thresholds_on_sums(Element.BIPOLAR, k, channels, to=Element.BIPOLAR).done())
    after = lowered(before, target)
    node = only(after, XnorDense)
    assert isinstance(node.op, XnorDense)
    weights = before.constants["w"]
    words = after.constants[node.inputs[1]]
    word_bits, nr = target_named(target).word_bits, node.op.nr
    assert words.dtype == np.dtype(f"uint{word_bits}")
    assert words.shape == (-(-channels // nr), -(-k // word_bits), nr)
    assert node.op.channels == channels
    kernel = next(kn for kn in load_kernels() if kn.symbol == node.op.kernel)
    assert (kernel.operation, kernel.nr, kernel.word_bits) == ("xnor_dense", nr, word_bits)
    # Every bit there is, those of missing channels and beyond K included: these are 0.
    for block, w, lane in np.ndindex(*words.shape):
        value, c = int(words[block, w, lane]), block * nr + lane
        for bit in range(word_bits):
            position = w * word_bits + bit
            inside = c < channels and position < k
            expected = inside and weights[c, position] > 0
            assert value >> bit & 1 == expected, (c, position)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("k", "channels"), [(1, 1), (5, 8), (7, 9), (3, 33), (2, 65)])
def test_sign_sum_weights_bit_by_bit(k: int, channels: int, target: str) -> None:
    random = np.random.default_rng(k)
    weights = random.choice(np.array([-1, 1], np.int8), (channels, k))
    s = Sketch(k)
    s(BinaryDense(), "x", s.const(weights, "w", Element.BIPOLAR), to="y")
    before = s.done()
    after = lowered(before, target)
    node = only(after, SignSum)
    assert isinstance(node.op, SignSum)
    words, nr = after.constants[node.inputs[1]], node.op.nr
    assert words.shape == (-(-channels // nr), k)
    for block, j in np.ndindex(*words.shape):
        for lane in range(nr):
            c = block * nr + lane
            expected = c < channels and weights[c, j] > 0
            assert int(words[block, j]) >> lane & 1 == expected
    same_values(before, after, x=random.standard_normal((5, k)).astype(F))


@pytest.mark.parametrize("target", TARGETS)
def test_real_weights_tile_by_tile(target: str) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((11, 7)).astype(F)
    s = Sketch(7)
    s(MatMul(), "x", s.const(weights, "w"), to="y")
    before = s.done()
    after = lowered(before, target)
    node = only(after, RealDense)
    assert isinstance(node.op, RealDense)
    tiles, nr = after.constants[node.inputs[1]], node.op.nr
    for block, j, lane in np.ndindex(*tiles.shape):
        c = block * nr + lane
        assert tiles[block, j, lane] == (weights[c, j] if c < 11 else 0)
    same_values(before, after, x=random.standard_normal((5, 7)).astype(F))


# --- Limits ---------------------------------------------------------------------------------------


def mismatches_of(x: Array, weights: Array, element: Element) -> int:
    """Bits of x's planes that differ from the weights', each plane weighted as the kernel does."""
    return sum(
        (plane_bit(int(v), p, element) != int(w > 0)) << (p if element is Element.U8 else 0)
        for v, w in zip(x, weights, strict=True)
        for p in range(PLANES[element])
    )


@pytest.mark.parametrize("element", INTEGERS, ids=lambda e: e.value)
@pytest.mark.parametrize("to", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
def test_limits_at_every_mismatch_count(element: Element, to: Element) -> None:
    k = {Element.U8: 2}.get(element, 19)
    before = grounded(thresholds_on_sums(element, k, 40, to=to).done())
    after = lowered(before)
    node = only(after, XnorDense)
    assert isinstance(node.op, XnorDense)
    assert node.op.direct
    limits = after.constants[node.inputs[2]].astype(int)
    assert limits.shape[:2] == (PLANES[to], 40)
    weights = before.constants["w"]
    step = before.producers["y"]
    thresholds, levels = (before.constants[name].tolist() for name in step.inputs[1:])
    x = every_operand(element, k)
    for c in range(40):
        rows = (x.astype(int) * weights[c]).astype(x.dtype) if element is not Element.U8 else x
        seen = set()
        for row in rows:
            n = int(row.astype(int) @ weights[c].astype(int))
            m = mismatches_of(row, weights[c], element)
            if m in seen:
                continue
            seen.add(m)
            level = int(level_at(n, thresholds[c], levels[c]))
            for p in range(PLANES[to]):
                parity = sum(m <= limit for limit in limits[p, c].tolist()) % 2
                assert parity == plane_bit(level, p, to), (c, n, m)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("element", INTEGERS, ids=lambda e: e.value)
@pytest.mark.parametrize("k", [1, 2, 33, 64, 65])
def test_thresholds_on_sums_compute_the_same(element: Element, k: int, target: str) -> None:
    random = np.random.default_rng(k)
    for to in (Element.BIPOLAR, Element.TERNARY):
        before = grounded(thresholds_on_sums(element, k, 37, to=to, seed=k).done())
        after = lowered(before, target)
        same_values(before, after, x=integers(element, 64, k, random))


def test_limits_are_stored_as_narrow_as_they_fit() -> None:
    few = thresholds_on_sums(Element.BIPOLAR, 100, 3, to=Element.BIPOLAR).done()
    narrow = lowered(grounded(few))
    assert narrow.constants[only(narrow, XnorDense).inputs[2]].dtype == np.int16
    # 130 codes: 255 * 130 mismatches do not fit 16 bits.
    s = Sketch(130, Element.U8)
    n = s(BinaryDense(), "x", s.const(np.ones((1, 130)), "w", Element.BIPOLAR))
    levels = [[-1, 1]]
    s(ew.Step(Element.BIPOLAR), n, s.const([[-33000]], "t", Element.I32), levels, to="y")
    before = s.done()
    wide = lowered(before)
    assert wide.constants[only(wide, XnorDense).inputs[2]].dtype == np.int32
    assert "PackPlanes" in ops(wide)
    x = np.random.default_rng(0).integers(0, 256, (4, 130)).astype(np.uint8)
    x[0], x[1] = 0, 255
    same_values(before, wide, x=x)


# --- plane_thresholds -----------------------------------------------------------------------------


@st.composite
def stepped(draw: st.DrawFn) -> tuple[Array, Array, Element, int]:
    channels = 3
    rows = draw(st.sampled_from([1, channels]))
    count = draw(st.integers(0, 4))
    element = draw(st.sampled_from([np.float32, np.int32]))
    far = [never(np.zeros(1, element))] if count else []
    value = st.integers(-5, 5) | st.sampled_from([-5, *far])
    row = st.lists(value, min_size=count, max_size=count).map(sorted)
    values = draw(st.sampled_from([[-1, 1], [-1, 0, 1]]))
    level = st.lists(st.sampled_from(values), min_size=count + 1, max_size=count + 1)
    thresholds = np.array(draw(st.lists(row, min_size=rows, max_size=rows)), element)
    levels = np.array(draw(st.lists(level, min_size=rows, max_size=rows)), F)
    wanted = element_for(levels) if draw(st.booleans()) else Element.TERNARY
    return thresholds.reshape(rows, count), levels, wanted, channels


@given(stepped())
def test_planes_are_parities_of_comparisons(case: tuple[Array, Array, Element, int]) -> None:
    thresholds, levels, to, channels = case
    planes = plane_thresholds(thresholds, levels, to, channels)
    assert planes.shape[:2] == (PLANES[to], channels)
    assert planes.shape[2] >= 1
    assert planes.dtype == thresholds.dtype
    for c in range(channels):
        t, v = (a[min(c, len(a) - 1)].tolist() for a in (thresholds, levels))
        for x in range(-7, 8):
            for p in range(PLANES[to]):
                parity = sum(x >= limit for limit in planes[p, c].tolist()) % 2
                assert parity == plane_bit(int(level_at(x, t, v)), p, to)


def test_a_rising_channel_takes_one_comparison() -> None:
    t = np.array([[3], [5]], np.int32)
    planes = plane_thresholds(t, np.array([[-1, 1]] * 2, F), Element.BIPOLAR, 2)
    assert planes.tolist() == [[[3], [5]]]


# --- Epilogues ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", list(epilogues(Element.BIPOLAR, 1)))
def test_folded_epilogues(name: str, target: str) -> None:
    for element in (Element.BIPOLAR, Element.TERNARY):
        layer = epilogues(element, 33)[name]
        folded = apply(ELIMINATE_DEAD, apply(FOLD_THRESHOLDS, layer.graph()).graph).graph
        folded = grounded(folded)
        after = lowered(folded, target)
        assert ops(after) == ["Map", "XnorDense"]
        same_values(folded, after, x=every_operand(element, 33))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("element", [*INTEGERS, Element.F32], ids=lambda e: e.value)
@pytest.mark.parametrize("name", list(epilogues(Element.BIPOLAR, 1)))
def test_epilogues_that_were_not_folded(name: str, element: Element, target: str) -> None:
    random = np.random.default_rng(0)
    layer = epilogues(element, 5)[name]
    before = grounded(layer.graph())
    after = lowered(before, target)
    x = (random.standard_normal((40, 5)) * 4).astype(F)
    if element is not Element.F32:
        x = integers(element, 40, 5, random)
    same_values(before, after, x=x)
    kernels = {Element.F32: ["SignSum"], Element.U8: ["PackPlanes", "XnorDense"]}
    assert ops(after) == kernels.get(element, ["Map", "XnorDense"])


def test_origins_of_a_whole_layer() -> None:
    layer = epilogues(Element.BIPOLAR, 5)["hardtanh"]
    after = lowered(grounded(layer.graph()))
    first, node = after.nodes
    assert first.origin == ("ground",)
    assert node.origin == ("the n", "the v", "the t2", "the t3", "the y")


def test_a_sum_that_two_chains_read_is_stored() -> None:
    layer = Layer(Element.BIPOLAR, 9, [])
    s = layer.sketch()
    s(ew.Add(), "v", [0.5] * 8, to="z")
    before = grounded(s.done("y", "z"))
    after = lowered(before)
    assert ops(after) == ["Map", "XnorDense", "Map", "Map"]
    assert after.types["n"].element is Element.I32
    same_values(before, after, x=every_operand(Element.BIPOLAR, 9))


def test_a_sum_that_is_an_output_is_stored() -> None:
    before = Layer(Element.TERNARY, 9, [], SIGN, Element.TERNARY).sketch().done("y", "n")
    before = grounded(before)
    after = lowered(before)
    assert sorted(ops(after)) == ["Map", "Map", "XnorDense"]
    same_values(before, after, x=every_operand(Element.TERNARY, 9))


def test_codes_are_packed_once_for_two_layers() -> None:
    s = thresholds_on_sums(Element.U8, 5, 3)
    s(BinaryDense(), "x", s.const(np.ones((2, 5)), "v", Element.BIPOLAR), to="z")
    before = s.done("y", "z")
    after = lowered(before)
    assert ops(after).count("PackPlanes") == 1
    x = np.random.default_rng(0).integers(0, 256, (20, 5)).astype(np.uint8)
    same_values(before, after, x=x)


def test_an_input_step_becomes_a_map() -> None:
    s = Sketch(33)
    s(ew.Step(Element.BIPOLAR), "x", [[0.25]], [[-1, 1]], to="s")
    s(BinaryDense(), "s", s.const(np.ones((1, 33)), "w", Element.BIPOLAR), to="y")
    before = s.done()
    after = lowered(before)
    assert ops(after) == ["Map", "XnorDense"]
    assert isinstance(only(after, Map).op, Map)
    same_values(before, after, x=np.random.default_rng(0).standard_normal((9, 33)).astype(F))


def test_reshapes_stay_between_kernels() -> None:
    s = Sketch(shape=(1, 2, 3))
    s(MatMul(), s(Reshape((1, 6)), s(ew.Relu(), "x")), s.const(np.ones((2, 6)), "w"), to="y")
    before = s.done()
    after = lowered(before)
    assert ops(after) == ["Map", "Reshape", "RealDense"]
    same_values(before, after, x=np.random.default_rng(0).standard_normal((4, 2, 3)).astype(F))


def test_shared_weights_are_packed_for_each_layer() -> None:
    s = thresholds_on_sums(Element.BIPOLAR, 9, 9, to=Element.BIPOLAR)
    s(BinaryDense(), "y", "w", to="z")
    before = grounded(s.done("z"))
    after = lowered(before)
    same_values(before, after, x=every_operand(Element.BIPOLAR, 9))


def test_parameters_of_any_shape_become_rows() -> None:
    s = Sketch(3)
    last = s(MatMul(), "x", s.const(np.ones((2, 3)), "w"))
    last = s(ew.Mul(), last, [[2.0, 3.0]])
    last = s(ew.Add(), last, [[1.0]])
    s(ew.Add(), last, [5.0, 6.0], to="y")
    before = s.done()
    after = lowered(before)
    node = only(after, RealDense)
    assert [after.types[n].shape for n in node.inputs[2:]] == [(2,), (), (2,)]
    same_values(before, after, x=np.ones((2, 3), F))


# --- Refusals -------------------------------------------------------------------------------------


def refusals(graph: Graph) -> list[str]:
    with pytest.raises(UnsupportedModelError) as caught:
        LOWER_KERNELS.apply(graph, context())
    assert caught.value.code == "BNN030"
    return [f"{d.what}: {d.where}: {d.why}" for d in caught.value.diagnostics]


def test_refuses_what_no_kernel_computes_all_at_once() -> None:
    s = Sketch(3)
    other = s.builder.input("z", s.builder.types["x"])
    s(ew.Add(), "x", other, to="sum", origin=["residual\n"])
    a = s(MatMul(), "x", s.const(np.ones((3, 3)), "w"), to="a")
    s(ew.Mul(), a, "x", to="product", origin=["gate"])
    assert refusals(s.done("sum", "product")) == [
        "no kernel computes Add here: residual\\n: two activations meet in it",
        "no kernel computes Mul here: gate: two activations meet in it",
    ]


def test_refuses_constants_within_a_channel() -> None:
    s = Sketch(shape=(1, 2, 3))
    s(ew.Add(), "x", np.ones((1, 2, 3)), to="y", origin=["position"])
    assert refusals(s.done()) == [
        "no kernel computes Add here: position: its constants vary within a channel"
    ]


def test_pack_planes_is_named_after_its_tensor() -> None:
    after = lowered(thresholds_on_sums(Element.U8, 3, 2).done())
    node = only(after, PackPlanes)
    assert (node.inputs, node.output) == (("x",), "x.planes")
    stored = interpret.run_stored(after, {"x": np.array([[1, 2, 128]], np.uint8)})["x.planes"]
    assert stored.tolist() == [[[1], [2], [0], [0], [0], [0], [0], [4]]]
