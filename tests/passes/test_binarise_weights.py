"""binarise_weights: binary by value, exact on integers, and a slack that covers every summation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir import interpret
from bnncc.ir.analysis.rounding import spread
from bnncc.ir.expression import trace
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Exactness
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.equivalence import differences
from tests.ir.oracles import f32
from tests.ir.orders import fma
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes import images
from tests.passes.applying import GENERIC, apply, same_text

# --- Graphs ---------------------------------------------------------------------------------------


def bits_in(sketch: Sketch, levels: Sequence[float] = (-1, 1), to: str = "s") -> str:
    """Append a Step on x with these levels, thresholds around 0."""
    thresholds = [[0.5 * i for i in range(len(levels) - 1)]]
    return sketch(ew.Step(Element.F32), "x", thresholds, [levels], to=to, origin=["act"])


def network(
    weights: object,
    *,
    levels: Sequence[float] = (-1, 1),
    bias: object = None,
    bias_origin: str = "fc",
) -> Sketch:
    w = np.array(weights, F)
    s = Sketch(w.shape[1])
    steps = bits_in(s, levels)
    y = s(MatMul(), steps, s.const(w, "w"), to="z" if bias is not None else "y", origin=["fc"])
    if bias is not None:
        s(ew.Add(), y, s.const(bias, "b"), to="y", origin=[bias_origin])
    return s


def test_in_text() -> None:
    before = network([[0.5, -0.5, 0.5], [-2, -2, 2]])
    expected = Sketch(3)
    t, v = expected.const([[0.0]], "c"), expected.const([[-1.0, 1.0]], "c")
    expected(ew.Step(Element.BIPOLAR), "x", t, v, to="s", origin=["act"])
    w = expected.const([[1, -1, 1], [-1, -1, 1]], "w.sign", Element.BIPOLAR)
    n = expected(BinaryDense(), "s", w, to="y.acc", origin=["fc"])
    rows = (("scale", [0.5, 2]), ("shift", [0, -0.0]), ("slack", [0, 0]))
    doubles = [expected.const(value, f"y.{name}", Element.F64) for name, value in rows]
    expected(ew.Dequantize(), n, *doubles, to="y", origin=["fc"])
    same_text(apply(BINARISE_WEIGHTS, before.done()).graph, expected)


@pytest.mark.parametrize("levels", [(-1, 1), (1, -1), (-1, 0, 1), (0, 1, -1)])
def test_values_of_binary_layers(levels: Sequence[float]) -> None:
    random = np.random.default_rng(0)
    alpha = np.array([1, 0.5, 0.1, 1 / 3, 0], F)
    w = random.choice(np.array([-1, 1], F), (5, 33)) * alpha[:, np.newaxis]
    before = network(w, levels=levels).done()
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["Step", "BinaryDense", "Dequantize"]
    ternary = 0 in levels
    assert after.types["s"].element is (Element.TERNARY if ternary else Element.BIPOLAR)
    x = random.standard_normal((20, 33)).astype(F)
    stored = interpret.run_stored(after, {"x": x})
    bits = interpret.run_stored(before, {"x": x})["s"]
    signs = np.where(w < 0, -1, 1)
    n = [[sum(int(a * b) for a, b in zip(row, s, strict=True)) for s in signs] for row in bits]
    np.testing.assert_array_equal(stored["y.acc"], n)
    expected = [[f32(v * float(a)) for v, a in zip(row, alpha, strict=True)] for row in n]
    np.testing.assert_array_equal(stored["y"], np.array(expected, F))


def test_refuses_rows_of_values_on_no_grid() -> None:
    graph = network([[1, 0.3717, 1, -1], [1, -1, 1, 1]]).done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    assert outcome.graph is graph
    (refusal,) = outcome.refusals
    assert refusal.reason == "1 of 2 output channels have weights other than +-alpha"
    assert (refusal.node, refusal.origin) == ("y", ("fc",))


def test_few_weights_are_on_a_grid_by_chance() -> None:
    graph = network([[1, 0.5, 1], [1, -1, 1]]).done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    assert outcome.graph is graph
    (refusal,) = outcome.refusals
    assert refusal.reason == "1 of 2 output channels have weights other than +-alpha"
    four = BINARISE_WEIGHTS.apply(network([[1, 0.5, 1, 1], [1, -1, 1, 1]]).done(), GENERIC)
    assert four.refusals == ()


@pytest.mark.parametrize(("k", "accepted"), [(65793, True), (65794, False)])
def test_refuses_sums_beyond_what_float32_holds(k: int, accepted: bool) -> None:
    graph = network(np.ones((1, k), F)).done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    if accepted:
        assert outcome.refusals == ()
        assert "BinaryDense" in ops(outcome.graph)
    else:
        reason = "its 65794 terms could sum to more than float32 holds exactly (2^24)"
        assert [r.reason for r in outcome.refusals] == [reason]
        assert outcome.graph is graph


def test_computed_weights_are_no_layer_of_ours() -> None:
    s = Sketch(3)
    w = s(ew.Sign(), s.const(np.ones((1, 3)), "latent"), to="w")
    s(MatMul(), bits_in(s), w, to="y")
    graph = s.done()
    assert BINARISE_WEIGHTS.apply(graph, GENERIC).graph is graph


# --- Readers --------------------------------------------------------------------------------------


def test_a_step_with_real_readers_gets_a_twin() -> None:
    s = network([[1, -1, 1]])
    s(ew.Mul(), "s", 0.25, to="real")
    before = s.done("y", "real")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert [n.name for n in after.nodes] == ["s", "s.integers", "y.acc", "y", "real"]
    assert after.producers["s.integers"].inputs == after.producers["s"].inputs
    assert after.producers["s.integers"].origin == ("act",)
    assert after.types["s"].element is Element.F32
    assert after.types["s.integers"].element is Element.BIPOLAR
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(F)
    old, new = (interpret.run(g, {"x": x}) for g in (before, after))
    for name in old:
        np.testing.assert_array_equal(old[name], new[name])


def test_a_step_that_is_an_output_gets_a_twin() -> None:
    after = apply(BINARISE_WEIGHTS, network([[1, -1, 1]]).done("y", "s")).graph
    assert after.types["s"].element is Element.F32
    assert after.types["s.integers"].element is Element.BIPOLAR


def test_binary_and_other_layers_on_one_step() -> None:
    s = network([[1, -1, 1]])
    s(MatMul(), "s", s.const([[2, 2, -2], [1, 1, 1]], "v"), to="z")
    s(MatMul(), "s", s.const([[0.3, 0.5, 1]], "u"), to="r")
    outcome = apply(BINARISE_WEIGHTS, s.done("y", "z", "r"))
    after = outcome.graph
    assert [r.node for r in outcome.refusals] == ["r"]
    # One twin, made once, for both binary layers.
    assert sorted(ops(after)) == sorted(
        ["Step", "Step", "BinaryDense", "Dequantize", "BinaryDense", "Dequantize", "MatMul"]
    )
    assert {n.inputs[0] for n in after.nodes if n.op == BinaryDense()} == {"s.integers"}
    assert only(after, MatMul).inputs[0] == "s"


def test_only_binary_readers_share_the_step_itself() -> None:
    s = network([[1, -1, 1]])
    s(MatMul(), "s", s.const([[2, 2, -2]], "v"), to="z")
    after = apply(BINARISE_WEIGHTS, s.done("y", "z")).graph
    assert ops(after).count("Step") == 1


@pytest.mark.parametrize(
    "levels", [(-1, 0, 0.3, 1.4), (0, 1, 2.5, 100), (0.5,), tuple(2.0**i for i in range(6))]
)
def test_levels_on_no_grid_stay_real(levels: Sequence[float]) -> None:
    before = network([[0.5, -0.5, 0.5]], levels=levels).done()
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["Step", "BinaryDense", "Mul"]
    assert after.types["s"].element is Element.F32


def test_real_activations() -> None:
    s = Sketch(3)
    s(MatMul(), "x", s.const([[1, -1, 1]], "w"), to="one")
    s(MatMul(), "x", s.const([[0.3, -0.3, -0.3]], "v"), to="scaled")
    before = s.done("one", "scaled")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["BinaryDense", "BinaryDense", "Mul"]
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(F)
    old, new = (interpret.run(g, {"x": x}) for g in (before, after))
    np.testing.assert_array_equal(old["one"], new["one"])
    assert (old["scaled"] != new["scaled"]).any()
    assert differences(before, after, Exactness.REDUCTION_ORDER) == []


def test_refuses_crumbs_over_reals() -> None:
    # No slack is there to bound them: over reals, +-alpha must be +-alpha.
    w = np.array([[0.3, -0.3, F(0.3) * F(1 - 2**-22)], [1, 1, -1]], F)
    s = Sketch(3)
    s(MatMul(), "x", s.const(w, "w"), to="y", origin=["fc"])
    graph = s.done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    assert outcome.graph is graph
    reason = "its weights are +-alpha but for rounding, and its input is real"
    assert [(r.node, r.origin, r.reason) for r in outcome.refusals] == [("y", ("fc",), reason)]
    # Over bits they are bounded, and taken.
    assert "BinaryDense" in ops(apply(BINARISE_WEIGHTS, network(w).done()).graph)


# --- Codes ----------------------------------------------------------------------------------------

Spelling = tuple[str, list[tuple[ew.Elementwise | Reshape, tuple]]]

AFFINE: dict[str, list[tuple]] = {
    "codes": [],
    "u / 255": [(ew.Div(), 255.0)],
    "u * (1 / 255)": [(ew.Mul(), 1 / 255)],
    "2 u / 255 - 1": [(ew.Mul(), 2 / 255), (ew.Sub(), 1.0)],
    "u / 128 - 1": [(ew.Mul(), 1 / 128), (ew.Add(), -1.0)],
    "(u / 255 - mean) / std": [(ew.Div(), 255.0), (ew.Sub(), 0.1307), (ew.Div(), 0.3081)],
    "1 - u / 256": [(ew.Mul(), 1 / 256), ("1 -",)],
    "-u": [(ew.Neg(),)],
    "u + u": [("doubled",)],
    "relu that does nothing": [(ew.Relu(),), (ew.Mul(), 0.5)],
    "an identity": [(ew.Identity(),), (ew.Sub(), 0.5)],
}


def coded(
    spelling: Sequence[tuple], weights: Array, bias: object = None, shape: Sequence[int] = ()
) -> Sketch:
    """x: U8 -> Cast -> the spelling -> Reshape -> MatMul "y" (-> Add)."""
    k = weights.shape[1]
    s = Sketch(k, Element.U8, shape=shape)
    last = s(ew.Cast(Element.F32), "x")
    if shape:
        last = s(Reshape((1, k)), last, to="flat", origin=["flatten"])
    for op, *constants in spelling:
        match op:
            case "1 -":
                last = s(ew.Sub(), 1.0, last)
            case "doubled":
                last = s(ew.Add(), last, last)
            case _:
                last = s(op, last, *constants)
    last = s(MatMul(), last, s.const(weights, "w"), to="z", origin=["fc"])
    if bias is not None:
        s(ew.Add(), last, s.const(bias, "b"), to="y", origin=["fc"])
    return s


def decoded(graph: Graph, codes: Array) -> Array:
    """Return the reals that a MatMul of the graph reads, for the codes."""
    return interpret.run_stored(graph, {"x": codes})[only(graph, MatMul).inputs[0]]


@pytest.mark.parametrize("name", AFFINE)
def test_affine_codes_are_summed_as_integers(name: str) -> None:
    random = np.random.default_rng(1)
    w = random.choice(np.array([-1, 1], F), (6, 9)) * np.array(
        [[1], [0.5], [0.1], [3], [0], [1]], F
    )
    before = coded(AFFINE[name], w).done("z")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert only(after, BinaryDense).inputs[0] == "x"
    codes = random.integers(0, 256, (40, 9)).astype(np.uint8)
    codes[0], codes[1] = 0, 255
    stored = interpret.run_stored(after, {"x": codes})
    signs = np.where(w < 0, -1, 1)
    np.testing.assert_array_equal(stored["z.acc"], codes.astype(int) @ signs.T)
    real = decoded(before, codes).astype(np.float64)
    slack = after.constants["z.slack"]
    exact = real @ w.T.astype(np.float64)
    assert (np.abs(stored["z"] - exact) <= slack).all()
    rounded = np.abs(stored["z"] - interpret.run(before, {"x": codes})["z"].astype(np.float64))
    assert (rounded <= slack).all()
    if name in ("codes", "u / 128 - 1", "1 - u / 256", "-u", "u + u"):
        assert slack[[0, 1, 3, 4, 5]].tolist() == [0] * 5  # all but alpha 0.1
    assert differences(before, after, Exactness.REDUCTION_ORDER) == []


@pytest.mark.parametrize(
    "spelling",
    [
        [(ew.Clip(0, 200),)],
        [(ew.Sub(), 100.0), (ew.Relu(),)],
        [(ew.Mul(), [0.5, 0.25, 0.5])],
        [(ew.Sub(), 100.0), (ew.Abs(),)],
        [(ew.Mul(), 0.0)],
        [(ew.Tanh(),)],
        [(ew.Mul(), 1 / 255), (ew.Round(),)],
    ],
    ids=["clip", "relu", "a constant a channel", "abs", "constant", "tanh", "round"],
)
def test_other_maps_of_codes_stay_real(spelling: list) -> None:
    before = coded(spelling, np.array([[1, -1, 1]], F)).done("z")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert after.types[only(after, BinaryDense).inputs[0]].element is Element.F32
    codes = np.array([[0, 100, 255], [255, 255, 255], [7, 9, 200]], np.uint8)
    old, new = (interpret.run(g, {"x": codes})["z"] for g in (before, after))
    np.testing.assert_array_equal(old, new)


def test_reshapes_move_to_the_codes() -> None:
    w = np.array([[1, -1, 1, 1, -1, -1]], F)
    before = coded([(ew.Mul(), 0.5)], w, shape=(1, 2, 3)).done("z")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert only(after, BinaryDense).inputs[0] == "flat.codes"
    assert after.producers["flat.codes"].inputs == ("x",)
    assert after.producers["flat.codes"].origin == ("flatten",)
    codes = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    old, new = (interpret.run(g, {"x": codes})["z"] for g in (before, after))
    np.testing.assert_array_equal(old, new)


def test_origins_of_the_decoding_go_to_the_layer() -> None:
    before = coded(AFFINE["(u / 255 - mean) / std"], np.array([[1, -1, 1]], F)).done("z")
    after = apply(BINARISE_WEIGHTS, before).graph
    decoding = [node.origin[0] for node in before.nodes[:-1]]
    assert only(after, BinaryDense).origin == ("fc", *decoding)


def test_two_layers_share_the_reshaped_codes() -> None:
    w = np.array([[1, -1, 1, 1, -1, -1]], F)
    s = coded([(ew.Mul(), 0.5)], w, shape=(1, 2, 3))
    s(MatMul(), s.builder.nodes[-1].inputs[0], s.const(-w, "v"), to="other")
    after = apply(BINARISE_WEIGHTS, s.done("z", "other")).graph
    assert {n.inputs[0] for n in after.nodes if n.op == BinaryDense()} == {"flat.codes"}
    assert ops(after).count("Reshape") == 2  # the reals' own, dead now, and the codes'


# --- Slack ----------------------------------------------------------------------------------------


def sums(terms: Sequence[np.float32], random: np.random.Generator) -> Iterator[np.float32]:
    """Yield float32 sums of the terms: in every order, and over random trees."""
    short = len(terms) <= 5
    orders = (
        itertools.permutations(terms) if short else (random.permutation(terms) for _ in [0] * 99)
    )
    for order in orders:
        total = order[0]
        for term in order[1:]:
            total = f32(float(total) + float(term))
        yield total
    for _ in range(20):
        pool = list(terms)
        while len(pool) > 1:
            a = pool.pop(random.integers(len(pool)))
            b = pool.pop(random.integers(len(pool)))
            pool.append(f32(float(a) + float(b)))
        yield pool[0]


def fused(x: Array, w: Array, start: np.float32) -> np.float32:
    total = start
    for a, b in zip(x, w, strict=True):
        total = fma(np.asarray(a), np.asarray(b), np.asarray(total))[()]
    return total


def every_value(x: Array, w: Array, bias: float | None, random: np.random.Generator) -> set[float]:
    """Return what frameworks could make of sum(w x) + bias, in any order, fused or not."""
    products = [f32(float(a) * float(b)) for a, b in zip(x, w, strict=True)]
    found: set[float] = set()
    if bias is None:
        found.update(float(v) for v in sums(products, random))
        found.add(float(fused(x, w, F(0))))
    else:
        b = F(bias)
        found.update(float(v) for v in sums([*products, b], random))  # inside the sum, anywhere
        found.update(float(f32(float(v) + float(b))) for v in sums(products, random))
        found.add(float(fused(x, w, b)))
        found.add(float(f32(float(fused(x, w, F(0))) + float(b))))
    return found


def check_slack(graph: Graph, feeds: Array, reals: Array, w: Array, bias: Array | None) -> Array:
    """Assert that no evaluation lies further off than the bound; return whether any differs."""
    after = apply(BINARISE_WEIGHTS, graph).graph
    output = graph.outputs[0]
    chain = trace(after, output, "z.acc")
    assert chain is not None
    n = interpret.run_stored(after, {"x": feeds})["z.acc"]
    own, bound = spread(chain, n)
    slack = after.constants["z.slack"]
    differs = np.zeros(len(w), bool)
    random = np.random.default_rng(0)
    for i, c in np.ndindex(*n.shape):
        values = every_value(reals[i], w[c], None if bias is None else bias[c], random)
        apart = max(abs(v - own[i, c]) for v in values)
        assert apart <= bound[i, c], (i, c, values)
        differs[c] |= apart > 0
    assert not differs[slack == 0].any(), "slack is 0 where orders differ"
    return differs


ALPHA = np.array([1, 0.5, 3, 0.1, 1 / 3, 1 + 2**-23, 0, 7e-5], F)[:, np.newaxis]


@pytest.mark.parametrize("levels", [(-1, 1), (-1, 0, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_slack_of_bipolar_and_ternary_layers(levels: Sequence[float], bias: bool) -> None:
    random = np.random.default_rng(4)
    k = 5
    w = random.choice(np.array([-1, 1], F), (8, k)) * ALPHA
    # The last biases need bits that the sums do not have room for.
    b = np.array([0.25, -2, 8, 0.3, 1, 0, 5, 1e-9], F) if bias else None
    s = Sketch(k)
    z = s(MatMul(), bits_in(s, levels), s.const(w, "w"), to="z", origin=["fc"])
    if b is not None:
        s(ew.Add(), z, s.const(b, "b"), to="y", origin=["fc"])
    graph = s.done()
    x = random.choice(np.array([-1, 0.25, 1], F), (12, k))
    reals = interpret.run_stored(graph, {"x": x})["s"]
    differs = check_slack(graph, x, reals, w, b)
    after = apply(BINARISE_WEIGHTS, graph).graph
    slack = after.constants["z.slack"]
    assert slack[[0, 1, 2, 6]].tolist() == [0] * 4  # a power of two, small multiples, all zero
    assert (slack[[3, 4, 5, 7]] > 0).all()
    assert differs[3]


@pytest.mark.parametrize("name", ["codes", "u / 128 - 1", "u / 255", "2 u / 255 - 1"])
@pytest.mark.parametrize("bias", [False, True])
def test_slack_of_codes(name: str, bias: bool) -> None:
    random = np.random.default_rng(5)
    k = 4
    w = random.choice(np.array([-1, 1], F), (8, k)) * ALPHA
    b = np.array([0.25, -2, 8, 0.3, 1, 0, 5, 1e-9], F) if bias else None
    s = coded(AFFINE[name], w, b)
    graph = s.done("y" if bias else "z")
    codes = random.integers(0, 256, (6, k)).astype(np.uint8)
    check_slack(graph, codes, decoded(graph, codes), w, b)


def test_slack_of_crumbs() -> None:
    random = np.random.default_rng(6)
    k = 5
    signs = random.choice(np.array([-1, 1], F), (8, k))
    w = signs * ALPHA * (1 - random.integers(0, 8, (8, k)).astype(F) * F(2**-24))
    s = Sketch(k)
    s(MatMul(), bits_in(s), s.const(w.astype(F), "w"), to="z", origin=["fc"])
    graph = s.done()
    x = random.standard_normal((12, k)).astype(F)
    reals = interpret.run_stored(graph, {"x": x})["s"]
    differs = check_slack(graph, x, reals, w.astype(F), None)
    assert differs[[0, 1, 2]].any()


@given(
    st.floats(2**-20, 100, width=32),
    st.integers(1, 5),
    st.none() | st.floats(-4, 4, width=32),
    st.integers(0, 2**32),
)
def test_slack_of_any_alpha_and_bias(alpha: float, k: int, bias: float | None, seed: int) -> None:
    random = np.random.default_rng(seed)
    w = random.choice(np.array([-1, 1], F), (1, k)) * F(alpha)
    s = Sketch(k)
    z = s(MatMul(), bits_in(s), s.const(w, "w"), to="z", origin=["fc"])
    b = None if bias is None else np.array([bias], F)
    if b is not None:
        s(ew.Add(), z, s.const(b, "b"), to="y", origin=["fc"])
    graph = s.done()
    x = random.choice(np.array([-1, 1], F), (3, k))
    check_slack(graph, x, np.where(x >= 0, F(1), F(-1)), w, b)


def test_a_bias_of_another_node_is_no_part_of_the_sum() -> None:
    w = [[1.0, -1.0]]
    apart = apply(BINARISE_WEIGHTS, network(w, bias=[0.1], bias_origin="add").done()).graph
    inside = apply(BINARISE_WEIGHTS, network(w, bias=[0.1]).done()).graph
    assert apart.constants["z.slack"].tolist() == [0]
    assert inside.constants["z.slack"][0] > 0


@pytest.mark.parametrize("alpha", [0.5, -4, 0.3])
def test_a_bias_behind_a_gemms_alpha_is_taken_in_units_of_the_sum(alpha: float) -> None:
    slack = []
    for factor, bias in ((alpha, 0.1), (None, 0.1 / alpha)):
        s = Sketch(3)
        sum_ = s(MatMul(), bits_in(s), s.const(np.ones((2, 3)), "w"), to="z", origin=["fc"])
        scaled = s(ew.Mul(), sum_, F(factor), origin=["fc"]) if factor else sum_
        s(ew.Add(), scaled, np.array([bias, 0], F), to="y", origin=["fc"])
        slack.append(apply(BINARISE_WEIGHTS, s.done()).graph.constants["z.slack"])
    np.testing.assert_allclose(slack[0], slack[1], rtol=1e-6)  # float32 holds no 0.1 / alpha
    assert slack[0][0] > 0 == slack[0][1]


def test_slack_is_no_wild_overestimate() -> None:
    w = np.full((1, 64), 0.1, F)
    after = apply(BINARISE_WEIGHTS, network(w).done()).graph
    assert 0 < after.constants["y.slack"][0] < 100 * 2**-24 * 6.4


# --- Images ---------------------------------------------------------------------------------------

GROUPS = {"one group": (1, 5, 4), "two groups": (2, 3, 3), "depthwise": (5, 1, 2)}
"""name -> (groups, channels in, channels out, of each)"""


def image_layer(
    window: Window, sizes: tuple[int, ...], groups: str, levels: Sequence[float], alpha: Array
) -> tuple[Sketch, Array]:
    random = np.random.default_rng(7)
    count, depth, outs = GROUPS[groups]
    w = images.scaled(alpha, images.signs(random, (count * outs, depth, *window.kernel)))
    s = Sketch(shape=(1, count * depth, *sizes))
    images.conv(s, images.bits_in(s, levels), w, window, count)
    return s, w


@pytest.mark.parametrize("levels", [(-1, 1), (-1, 0, 1)])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", images.WINDOWS)
def test_convolutions_of_bits(name: str, groups: str, levels: Sequence[float]) -> None:
    window, sizes = images.WINDOWS[name]
    alpha = np.array([1, 0.5, 0.1, 0, 1 / 3, 3], F)
    s, w = image_layer(window, sizes, groups, levels, alpha)
    before = s.done()
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["Step", "BinaryConv", "Dequantize"]
    count = GROUPS[groups][0]
    assert only(after, BinaryConv).op == BinaryConv(window, count, 0)
    sign = after.constants["w.sign"]
    assert sign.shape == w.shape
    assert after.types["w.sign"].element is Element.BIPOLAR
    x = images.images(np.random.default_rng(8), before.types["x"].shape)
    stored = interpret.run_stored(after, {"x": x})
    model = interpret.run_stored(before, {"x": x})
    n = images.summed(model["s"], sign, window, count)
    np.testing.assert_array_equal(stored["y.acc"], n)
    column = (-1, *(1,) * len(sizes))
    factors = np.resize(alpha, len(w)).reshape(column).astype(np.float64)
    np.testing.assert_array_equal(stored["y"], (n * factors).astype(F))
    slack = after.constants["y.slack"].reshape(column)
    apart = np.abs(stored["y"].astype(np.float64) - model["y"])
    assert (apart <= slack).all()
    exact = np.isin(np.resize(alpha, len(w)), [1, 0.5, 0, 3]).reshape(column)
    assert ((slack == 0) == (exact | (w[0].size == 1))).all()
    assert differences(before, after, Exactness.REDUCTION_ORDER) == []


@given(images.convolutions(), st.sampled_from([(-1, 1), (-1, 0, 1)]), st.integers(0, 2**32))
def test_any_convolution_of_bits(
    case: tuple[Window, int, tuple[int, ...], tuple[int, ...]], levels: Sequence[float], seed: int
) -> None:
    window, groups, shape, weights = case
    random = np.random.default_rng(seed)
    w = images.scaled(np.array([0.25, 2]), images.signs(random, weights))
    s = Sketch(shape=shape)
    images.conv(s, images.bits_in(s, levels), w, window, groups)
    before = s.done()
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["Step", "BinaryConv", "Dequantize"]
    x = images.images(random, shape)
    old, new = (interpret.run(g, {"x": x})["y"] for g in (before, after))
    np.testing.assert_array_equal(new, old)


def test_a_convolution_of_reals() -> None:
    random = np.random.default_rng(9)
    window, sizes = images.WINDOWS["3x3 padded"]
    w = images.scaled(np.array([1, 2, 4]), images.signs(random, (6, 2, 3, 3)))
    s = Sketch(shape=(1, 6, *sizes))
    images.conv(s, "x", w, window, 3)
    images.conv(s, "x", np.sign(w), window, 3, to="z")
    before = s.done("y", "z")
    after = apply(BINARISE_WEIGHTS, before).graph
    assert ops(after) == ["BinaryConv", "Mul", "BinaryConv"]
    assert after.constants["y.alpha"].shape == (6, 1, 1)
    x = images.images(random, (1, 6, *sizes))
    old, new = (interpret.run(g, {"x": x}) for g in (before, after))
    for name in old:  # alpha is a power of two, and the order of summing that of Conv
        np.testing.assert_array_equal(new[name], old[name])


@pytest.mark.parametrize(("depth", "accepted"), [(7310, True), (7311, False)])
def test_refuses_images_of_sums_beyond_what_float32_holds(depth: int, accepted: bool) -> None:
    window, sizes = images.WINDOWS["3x3 padded"]
    s = Sketch(shape=(1, depth, *sizes))
    images.conv(s, images.bits_in(s), np.ones((1, depth, 3, 3)), window)
    outcome = BINARISE_WEIGHTS.apply(s.done(), GENERIC)
    assert ("BinaryConv" in ops(outcome.graph)) == accepted
    reason = "its 65799 terms could sum to more than float32 holds exactly (2^24)"
    assert [r.reason for r in outcome.refusals] == [] if accepted else [reason]


def holed(alpha: float) -> Array:
    """Return weights [3, 8, 3, 3] of +-alpha, with two zeros in one channel."""
    w = images.signs(np.random.default_rng(10), (3, 8, 3, 3)) * F(alpha)
    w[1, 3, 0, 2] = w[1, 5, 1, 1] = 0
    return w


@pytest.mark.parametrize("alpha", [0.5, 0.1])
@pytest.mark.parametrize("levels", [(-1, 1), (-1, 0, 1)])
def test_zero_weights_over_bits(levels: Sequence[float], alpha: float) -> None:
    window, sizes = images.WINDOWS["3x3 padded"]
    s = Sketch(shape=(1, 8, *sizes))
    images.conv(s, images.bits_in(s, levels), holed(alpha), window)
    before = s.done()
    outcome = apply(BINARISE_WEIGHTS, before)
    after = outcome.graph
    assert outcome.refusals == ()
    assert ops(after) == ["Step", "BinaryConv", "Dequantize"]
    assert after.types["w.sign"].element is Element.TERNARY
    np.testing.assert_array_equal(after.constants["w.sign"], np.sign(holed(alpha)))
    x = images.images(np.random.default_rng(8), before.types["x"].shape)
    stored, model = (interpret.run_stored(g, {"x": x}) for g in (after, before))
    n = images.summed(model["s"], np.sign(holed(alpha)), window, 1)
    np.testing.assert_array_equal(stored["y.acc"], n)
    np.testing.assert_array_equal(stored["y"], (n * float(F(alpha))).astype(F))
    slack = after.constants["y.slack"].reshape(-1, 1, 1)
    assert (np.abs(stored["y"].astype(np.float64) - model["y"]) <= slack).all()
    assert (slack == 0).all() == (alpha == 0.5)


def test_zero_weights_over_reals_are_refused() -> None:
    reason = "1 of 3 output channels have weights other than +-alpha, 1 of them with zeros"
    window, sizes = images.WINDOWS["3x3"]
    s = Sketch(shape=(1, 8, *sizes))
    images.conv(s, "x", holed(0.5), window)
    graph = s.done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    assert [(r.node, r.reason) for r in outcome.refusals] == [("y", reason)]
    assert outcome.graph is graph


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_slack_of_images(bias: bool, zeros: bool) -> None:
    """No order of summing what the taps hold, nor any place of the bias in it, is further off."""
    random = np.random.default_rng(12)
    window = Window((Axis(2, 1, 1, 1, 0), Axis(2, 1, 1, 0, 1)))
    depth = 4 if zeros else 1
    w = images.scaled(ALPHA[:, 0], images.signs(random, (8, depth, 2, 2)))
    if zeros:
        w[:, 2, 1, 1] = 0
    b = np.array([0.25, -2, 8, 0.3, 1, 0, 5, 1e-9], F) if bias else None
    s = Sketch(shape=(1, depth, 2, 2))
    images.conv(s, images.bits_in(s), w, window, bias=b)
    graph = s.done()
    x = random.choice(np.array([-1, 1], F), (3, depth, 2, 2))
    after = apply(BINARISE_WEIGHTS, graph).graph
    assert "BinaryConv" in ops(after)
    layer = only(after, BinaryConv).output
    chain = trace(after, "y", layer)
    assert chain is not None
    n = interpret.run_stored(after, {"x": x})[layer]
    own, bound = spread(chain, np.moveaxis(n, 1, -1).reshape(-1, 8))
    taps = images.seen(np.where(x >= 0, F(1), F(-1)), window)
    rows = np.moveaxis(taps, (1, 2), (-2, -1)).reshape(-1, depth * 4).astype(F)
    slack = after.constants[only(after, ew.Dequantize).inputs[3]]
    differs = np.zeros(8, bool)
    for i, c in np.ndindex(*own.shape):
        values = every_value(rows[i], w[c].reshape(-1), None if b is None else b[c], random)
        apart = max(abs(v - own[i, c]) for v in values)
        assert apart <= bound[i, c]
        differs[c] |= apart > 0
    assert not differs[slack == 0].any()
    # A power of two and a small multiple never round: a bound that is no wild guess is 0 there.
    assert slack[[0, 1, 2, 6]].tolist() == [0] * 4
