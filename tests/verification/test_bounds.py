"""Bounds hold for other orders of the same sums, are tight enough to fail, and know no others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF, gamma
from bnncc.ir.graph import Graph, Node
from bnncc.ir.interpret import run_stored
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, Conv, MatMul, matrix_conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ArgMax, ReduceMean, TopK
from bnncc.ir.ops.shape import Concat, Pad, Reshape
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array, Element, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.verification.bounds import Bounds
from tests.ir.sketch import F, Sketch

SAME = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))
SHAPE = (1, 6, 7, 7)


def bounded(graph: Graph, *known: str, seed: int = 0) -> tuple[Bounds, dict[str, Array]]:
    """Return bounds, and the tensors, of a graph run on hostile samples."""
    random = np.random.default_rng(seed)
    feeds = {
        name: (random.standard_normal((4, *kind.shape[1:])) * 2.0 ** random.integers(-9, 9)).astype(
            kind.element.dtype
        )
        for name, kind in ((name, graph.types[name]) for name in graph.inputs)
    }
    seen = run_stored(graph, feeds)
    return Bounds(graph, {}, seen, set(known)), seen


def weights(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


def inside(found: Array, bound: Array, truth: Array) -> None:
    assert np.isfinite(bound).all()
    assert (np.abs(found - truth) <= bound).all()


def doubles(seen: Mapping[str, Array], *names: str) -> list[Array]:
    return [seen[name].astype(np.float64) for name in names]


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_real_convolution_is_bounded_by_its_magnitudes(groups: int) -> None:
    s = Sketch(shape=SHAPE)
    w = weights(12, 6 // groups, 3, 3)
    s(Conv(SAME, groups), "x", s.const(w, "w"), to="y")
    bounds, seen = bounded(s.done())
    x, y = doubles(seen, "x", "y")
    truth = matrix_conv(x, w.astype(np.float64), SAME, groups)
    inside(y, bounds.of("y"), truth)
    magnitude = matrix_conv(np.abs(x), np.abs(w.astype(np.float64)), SAME, groups)
    assert (bounds.of("y") <= 3 * gamma(w[0].size + 2) * magnitude + 1e-40).all()


def test_a_sum_of_signs_is_a_real_sum_where_its_operand_is_real() -> None:
    s = Sketch(shape=SHAPE)
    w = np.where(weights(4, 6, 3, 3) < 0, np.int8(-1), np.int8(1))
    s(BinaryConv(SAME), "x", s.const(w, "w", Element.BIPOLAR), to="y")
    bounds, seen = bounded(s.done())
    x, y = doubles(seen, "x", "y")
    inside(y, bounds.of("y"), matrix_conv(x, w.astype(np.float64), SAME, 1))


def test_integers_are_exact_and_their_values_within_the_slack() -> None:
    s = Sketch(shape=SHAPE)
    b = s(ew.Step(Element.BIPOLAR), "x", [[0.0]], [[-1, 1]], to="b")
    w = s.const(np.where(weights(4, 6, 3, 3) < 0, -1, 1), "w", Element.BIPOLAR)
    n = s(BinaryConv(SAME), b, w, to="n")
    rows = [s.const(row, "d", Element.F64) for row in ([0.3] * 4, [0.0] * 4, [0, 1e-6, 0, 0])]
    s(ew.Dequantize(), n, *rows, to="y")
    bounds, _ = bounded(s.done(), "b")
    assert not bounds.of("n").any()
    np.testing.assert_array_equal(bounds.of("y").reshape(-1), [0, 1e-6, 0, 0])


def test_the_bias_may_join_a_sum_anywhere() -> None:
    def total(origin: str) -> Array:
        s = Sketch(shape=SHAPE)
        a = s(Conv(SAME), "x", s.const(weights(2, 6, 3, 3), "w"), to="a", origin=["conv"])
        s(ew.Add(), a, s.const(np.full((2, 1, 1), 1e6), "b"), to="y", origin=[origin])
        return bounded(s.done())[0].of("y")

    k = 6 * 9
    assert (total("conv") - total("other") >= 0.9 * gamma(k) * 1e6).all()


def test_uncertain_operands_grow_with_the_weights() -> None:
    s = Sketch(shape=SHAPE)
    a = s(Conv(SAME), "x", s.const(weights(6, 6, 3, 3), "w"), to="a")
    s(Conv(SAME), a, s.const(weights(2, 6, 3, 3, seed=2), "v"), to="y")
    graph = s.done()
    bounds, seen = bounded(graph)
    x, y, *constants = doubles({**seen, **graph.constants}, "x", "y", "w", "v")
    truth = matrix_conv(matrix_conv(x, constants[0], SAME, 1), constants[1], SAME, 1)
    inside(y, bounds.of("y"), truth)
    forced, _ = bounded(graph, "a")
    assert (forced.of("y") < bounds.of("y")).all()


# --- What several operands make -------------------------------------------------------------------


def residual() -> Graph:
    """BatchNorm of a layer plus a shortcut, times a gate of one value a sample."""
    s = Sketch(shape=SHAPE)
    skip = s.builder.input("skip", TensorType(SHAPE, Element.F32))
    a = s(Conv(SAME), "x", s.const(weights(6, 6, 3, 3), "w"), to="a")
    rows = [row.astype(F) for row in (weights(6), weights(6), weights(6), weights(6) ** 2)]
    b = s(ew.BatchNormalization(1e-5), a, *rows, to="b")
    r = s(ew.Add(), b, skip, to="r")
    gate = s(ReduceMean((1, 2, 3), keepdims=True), s(ew.Abs(), skip), to="gate")
    s(ew.Mul(), r, gate, to="y")
    return s.done()


def test_a_shortcut_and_a_gate_add_their_own_rounding() -> None:
    graph = residual()
    bounds, seen = bounded(graph)
    x, skip, y = doubles(seen, "x", "skip", "y")
    bn = graph.producers["b"]
    w, *rows = (graph.constants[n].astype(np.float64) for n in ("w", *bn.inputs[1:]))
    scale, beta, mean, variance = (row.reshape(-1, 1, 1) for row in rows)
    layer = matrix_conv(x, w, SAME, 1)
    r = (layer - mean) * scale / np.sqrt(variance + 1e-5) + beta + skip
    truth = r * np.abs(skip).mean(axis=(1, 2, 3), keepdims=True)
    inside(y, bounds.of("y"), truth)
    # No larger than some thousand roundings of what was added and multiplied.
    assert (bounds.of("y") < 1e-3 * (1 + np.abs(truth).max())).all()


def test_known_tensors_end_the_walk() -> None:
    bounds, seen = bounded(residual(), "b", "gate")
    sums, y = doubles(seen, "r", "y")
    assert not bounds.of("b").any()
    assert (bounds.of("r") == 0).all()  # both operands are the same bits on either side
    assert (bounds.of("y") == 0).all()
    partly, _ = bounded(residual(), "b")
    assert (partly.of("y") > 0).all()
    assert sums.shape == y.shape


# --- Means, pools and movements -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["global", "window", "padded"])
def test_a_mean_is_bounded_whatever_its_order(kind: str) -> None:
    s = Sketch(shape=SHAPE)
    window = Window((Axis(3, 2, 1, 1, 1),) * 2)
    op = {
        "global": ReduceMean((2, 3), keepdims=False),
        "window": AveragePool(window),
        "padded": AveragePool(window, count_include_pad=True),
    }[kind]
    s(op, "x", to="y")
    bounds, seen = bounded(s.done())
    x, y = doubles(seen, "x", "y")
    inside(y, bounds.of("y"), op.evaluate([x])[0])
    count = 49 if kind == "global" else 9
    assert (bounds.of("y") <= 3 * (count + 2) * UNIT_ROUNDOFF * np.abs(x).max()).all()


def test_what_only_moves_carries_its_bound_along() -> None:
    s = Sketch(shape=SHAPE)
    a = s(Conv(SAME), "x", s.const(weights(6, 6, 3, 3), "w"), to="a")
    s(MaxPool(Window((Axis(2, 2), Axis(2, 2)))), a, to="pool")
    s(Pad((0, 0, 1, 0), (0, 0, 0, 1), 7.0), a, to="pad")
    s(Concat(1), a, "x", to="both")
    s(Reshape((1, 6 * 49)), a, to="flat")
    bounds, _ = bounded(s.done("pool", "pad", "both", "flat"))
    e = bounds.of("a")
    windows = Window((Axis(2, 2), Axis(2, 2))).patches(e).max(axis=(2, 3))
    assert (bounds.of("pool") <= windows * (1 + 1e-6)).all()
    padded = bounds.of("pad")
    assert (padded[:, :, 0] == 0).all()
    assert (padded[:, :, :, -1] == 0).all()
    np.testing.assert_allclose(padded[:, :, 1:, :-1], e, rtol=1e-6)
    assert (bounds.of("both")[:, 6:] == 0).all()
    np.testing.assert_allclose(bounds.of("flat"), e.reshape(4, -1), rtol=1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_uncertain_scores(log: bool) -> None:
    s = Sketch(9)
    s(Softmax(log), s(MatMul(), "x", s.const(weights(5, 9), "w"), to="a"), to="y")
    graph = s.done()
    bounds, seen = bounded(graph, seed=3)
    x, y = doubles(seen, "x", "y")
    scores = x @ graph.constants["w"].astype(np.float64).T
    below = scores - scores.max(axis=1, keepdims=True)
    truth = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    inside(y, bounds.of("y"), truth if log else np.exp(truth))


# --- Decisions ------------------------------------------------------------------------------------


def step(x: Array, threshold: float) -> tuple[Graph, dict[str, Array]]:
    """A convolution of one tap, weight 3, then a Step and a MaxPool of its bits."""
    s = Sketch(shape=(1, 1, *x.shape[2:]))
    a = s(Conv(Window((Axis(1), Axis(1)))), "x", s.const(np.full((1, 1, 1, 1), 3), "w"), to="a")
    b = s(ew.Step(Element.BIPOLAR), a, [[threshold]], [[-1, 1]], to="b")
    s(MaxPool(Window((Axis(2, 2), Axis(2, 2)))), b, to="p")
    graph = s.done()
    return graph, run_stored(graph, {"x": x})


def test_a_bit_is_open_only_next_to_its_threshold() -> None:
    x = np.array([[[[0.1, 0.2], [-0.1, 0.3]]]], F)
    graph, seen = step(x, float(F(3) * F(0.1)))
    at = np.nonzero(np.ones((1, 1, 2, 2)))
    opened = Bounds(graph, {}, seen, set()).explains("b", at, -seen["b"][at])
    assert opened.tolist() == [True, False, False, False]
    forced = Bounds(graph, {}, seen, {"a"}).explains("b", at, -seen["b"][at])
    assert not forced.any()


@pytest.mark.parametrize(("others", "opened"), [(-1.0, True), (5.0, False), (0.1, True)])
def test_bits_of_a_pool_are_open_if_one_of_theirs_is(others: float, opened: bool) -> None:
    x = np.full((1, 1, 2, 2), others, F)
    x[0, 0, 0, 0] = 0.1
    graph, seen = step(x, float(F(3) * F(0.1)))
    bounds = Bounds(graph, {}, seen, set())
    at = tuple(np.zeros(1, np.intp) for _ in range(4))
    flipped = bounds.explains("p", at, -seen["p"][at])
    assert flipped.tolist() == [opened]  # a bit that is surely +1 decides the pool


def test_no_number_is_explained_by_nothing() -> None:
    s = Sketch(3)
    s(MatMul(), "x", s.const(weights(2, 3), "w"), to="y")
    bounds, seen = bounded(s.done())
    at = (np.zeros(2, np.intp), np.arange(2))
    truth = np.array([np.nan, seen["y"][0, 1]])
    assert bounds.explains("y", at, truth).tolist() == [False, True]


def test_ranks_may_change_among_equals_alone() -> None:
    s = Sketch(3)
    s(ArgMax(keepdims=False), "x", to="best")
    graph = s.done()
    seen = {"x": np.array([[1, 2, 2], [3, 1, 0]], F), "best": np.array([1, 0])}
    bounds = Bounds(graph, {}, seen, {"x"})
    at = (np.array([0, 0, 1, 1]),)
    truth = np.array([2, 0, 1, 7])
    assert bounds.explains("best", at, truth).tolist() == [True, False, False, False]


def test_the_best_scores_move_with_all_scores() -> None:
    s = Sketch(3)
    a = s(MatMul(), "x", s.const(np.eye(3), "w"), to="a")
    s.builder.nodes.append(Node(TopK(2), "top", (a,), ("values", "indices"), ("top",)))
    kinds = TopK(2).infer([s.builder.types["a"]])
    s.builder.types.update(zip(("values", "indices"), kinds, strict=True))
    bounds, _ = bounded(s.done("values", "indices"))
    assert (bounds.of("values") > 0).all()
    most = bounds.of("a").max(axis=1, keepdims=True)
    assert (bounds.of("values") <= most * (1 + 1e-6)).all()


# --- Inside of operators --------------------------------------------------------------------------


def centred(origin: str) -> Graph:
    """Return a variance of lines around their mean, the mean's node of another origin or not."""
    s = Sketch(shape=(1, 2, 9))
    mean = s(ReduceMean((2,), keepdims=True), "x", to="mean", origin=[origin])
    apart = s(ew.Sub(), "x", mean, to="apart", origin=["norm"])
    square = s(ew.Mul(), apart, apart, to="square", origin=["norm"])
    s(ReduceMean((2,), keepdims=True), square, to="variance", origin=["norm"])
    return s.done()


def test_an_operators_variance_may_be_a_difference_of_means() -> None:
    graph = centred("norm")
    x = (1000 + np.random.default_rng(3).standard_normal((50, 2, 9))).astype(F)
    seen = run_stored(graph, {"x": x})
    bound = Bounds(graph, {}, seen, {"x"}).of("variance")
    means = [np.mean(values, axis=2, keepdims=True, dtype=F) for values in (x * x, x)]
    other = means[0] - means[1] * means[1]
    inside(seen["variance"], bound, other)
    assert (np.abs(seen["variance"] - other) > 0.01).any()


def test_a_difference_of_means_may_have_no_root() -> None:
    """Of a sample that is one number everywhere, ONNX Runtime's GroupNormalization makes NaN."""
    s = Sketch(shape=(1, 1, 315))
    mean = s(ReduceMean((2,), keepdims=True), "x", to="mean", origin=["norm"])
    apart = s(ew.Sub(), "x", mean, to="apart", origin=["norm"])
    square = s(ew.Mul(), apart, apart, to="square", origin=["norm"])
    variance = s(ReduceMean((2,), keepdims=True), square, to="variance", origin=["norm"])
    root = s(ew.Sqrt(), s(ew.Add(), variance, 0.001, to="sum"), to="root")
    y = s(ew.Div(), apart, root, to="y")
    s(ew.Step(Element.BIPOLAR), y, [[-1.0]], [[-1, 1]], to="b")
    graph = s.done()
    seen = run_stored(graph, {"x": np.stack([np.full((1, 315), 255), np.eye(1, 315)]).astype(F)})
    bounds = Bounds(graph, {}, seen, {"x"})
    at = (np.array([0, 1]), np.zeros(2, np.intp), np.zeros(2, np.intp))
    assert bounds.explains("y", at, np.full(2, np.nan)).tolist() == [True, False]
    assert bounds.explains("b", at, -seen["b"][at]).tolist() == [True, False]
    known = {**seen, "y": np.full_like(seen["y"], np.nan)}  # the model's: what becomes of its bits?
    assert Bounds(graph, {}, known, {"y"}).explains("b", at, -seen["b"][at]).all()
    ours = Bounds(graph, {}, known, {"x"}).explains("b", at, -seen["b"][at])
    assert not ours.any()  # a NaN of our own excuses nothing


def test_a_variance_that_the_model_spells_out_is_what_it_says() -> None:
    graph = centred("another node")
    x = (1000 + np.random.default_rng(3).standard_normal((50, 2, 9))).astype(F)
    seen = run_stored(graph, {"x": x})
    known = {"x", "mean", "apart", "square"}
    assert Bounds(graph, {}, seen, known).of("variance").max() < 1e-4


def test_squares_below_the_normal_numbers_may_be_rounded_on_one_side() -> None:
    s = Sketch(shape=(1, 1, 3))
    square = s(ew.Mul(), "x", "x", origin=["norm"])
    s(ReduceMean((2,), keepdims=True), square, to="mean", origin=["norm"])
    graph = s.done()
    x = np.random.default_rng(4).standard_normal((50, 1, 3)).astype(F) * F(1e-21)
    seen = run_stored(graph, {"x": x})
    exact = (x.astype(np.float64) ** 2).mean(axis=2, keepdims=True)
    inside(seen["mean"], Bounds(graph, {}, seen, {"x"}).of("mean"), exact)


def test_what_moves_an_unbounded_value_is_unbounded() -> None:
    s = Sketch(shape=(1, 2, 3))
    mean = s(ReduceMean((2,), keepdims=True), "x")
    close = s(ew.Sub(), mean, s(ew.Mul(), mean, F(1 - 2.0**-22)))  # other orders may give 0
    s(Reshape((1, 3, 2)), s(ew.Div(), "x", close), to="moved")
    bounds, seen = bounded(s.done(), "x")
    assert np.isfinite(seen["moved"]).all()
    assert np.isposinf(bounds.of("moved")).all()


@pytest.mark.parametrize("op", [MatMul(), Conv(Window((Axis(1, 1),)))])
def test_sums_are_unbounded_where_an_unbounded_value_has_a_weight(op: MatMul | Conv) -> None:
    tail = () if op == MatMul() else (1,)
    s = Sketch(shape=(1, 3, *tail))
    mean = s(ReduceMean((1,), keepdims=True), "x")
    close = s(ew.Sub(), mean, s(ew.Mul(), mean, F(1 - 2.0**-22)))  # other orders may give 0
    both = s(Concat(1), s(ew.Div(), "x", close), "x")
    weight = np.array([[0, 0, 0, 1, -1, 1], [0, 1e-3, 0, 1, 1, 1]], F)
    s(op, both, s.const(weight.reshape(2, 6, *tail), "w"), to="y")
    bounds, _ = bounded(s.done(), "x")
    found = bounds.of("y").reshape(4, 2)
    assert (np.isfinite(found[:, 0]) & (found[:, 0] > 0)).all()
    assert np.isposinf(found[:, 1]).all()


def test_products_with_alpha_underflow_before_they_are_added() -> None:
    """The model rounds each alpha x among the subnormals, we the sum that alpha multiplies."""
    alpha = F(1 / 12)
    s = Sketch(shape=(1, 6, 4))
    signs = s.const(np.ones((1, 6, 3), np.int8), "w", Element.BIPOLAR)
    total = s(BinaryConv(Window((Axis(3),))), "x", signs, origin=["conv"])
    s(ew.Mul(), total, [alpha], to="y", origin=["conv"])
    graph = s.done()
    # 7 twelfths of the smallest number become 1, and 5 become 0.
    x = np.broadcast_to(np.reshape([7, 5], (2, 1, 1)) * 2.0**-149, (2, 6, 4)).astype(F)
    seen = run_stored(graph, {"x": x})
    bound = Bounds(graph, {}, seen, {"x"}).of("y")
    patches = np.stack([(x * alpha)[:, :, i : i + 3] for i in range(2)], axis=-1)
    model = patches.astype(np.float64).sum(axis=(1, 2)).reshape(2, 1, 2)
    assert (np.abs(seen["y"] - model) >= 7 * 2.0**-149).all()
    inside(seen["y"].astype(np.float64), bound, model)
    assert (bound <= 18 * 2.0**-148).all()
