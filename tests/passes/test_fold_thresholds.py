"""fold_thresholds: right at every accumulator there is, and honest about what rounding decides.

The oracle is the epilogue in scalar Python (`epilogues.Layer`), one rounded operation after the
other, at each n in turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from bnncc.certificate import LayerCertificate
from bnncc.ir.expression import Source
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, BinaryDense
from bnncc.ir.ops.shape import Pad
from bnncc.ir.types import Array, Element, Interval, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Outcome
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.levels import never
from bnncc.passes.thresholds import FLOATS
from tests.ir import orders
from tests.ir.sketch import INF, LARGEST, TINY, F, Sketch, ops
from tests.passes.applying import (
    GENERIC,
    apply,
    every_operand,
    level_at,
    same_text,
    same_values,
    step_tables,
)
from tests.passes.epilogues import (
    ALPHAS,
    AT_LEAST_0,
    BETA,
    GAMMA,
    HOSTILE,
    MEAN,
    SIGN,
    TIES,
    VARIANCE,
    Layer,
    Link,
    absolute,
    add,
    bn,
    clip,
    epilogues,
    hard_sigmoid,
    mul,
    prelu,
    tanh,
)

LENGTHS = [1, 2, 3, 7, 64, 65, 200]
NAMES = list(epilogues(Element.BIPOLAR, 1))
INTEGERS = [(Element.BIPOLAR, k) for k in LENGTHS] + [(Element.TERNARY, k) for k in (1, 2, 7, 64)]
INTEGERS += [(Element.U8, 1)]


def folded(graph: Graph) -> tuple[Graph, LayerCertificate, Outcome]:
    outcome = apply(FOLD_THRESHOLDS, graph)
    (certificate,) = outcome.certificates
    return apply(ELIMINATE_DEAD, outcome.graph).graph, certificate, outcome


def rows_of(graph: Graph, channels: int) -> Iterator[tuple[list[float], list[float]]]:
    thresholds, levels = step_tables(graph, "y")
    for c in range(channels):
        yield thresholds[c].tolist(), levels[c].tolist()


# --- Every accumulator ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("element", "k"), INTEGERS, ids=lambda v: str(getattr(v, "value", v)))
def test_every_accumulator(element: Element, k: int, name: str) -> None:
    layer = epilogues(element, k)[name]
    graph, certificate, outcome = folded(layer.graph())
    assert ops(graph) == ["BinaryDense", "Step"]
    assert graph.producers["y"].inputs[0] == "n"
    assert outcome.refusals == ()
    accumulators = layer.accumulators()
    constant, falling, zero, smallest = [], [], [], np.inf
    for c, (thresholds, levels) in enumerate(rows_of(graph, layer.channels)):
        wanted = [layer.level(n, c) for n in accumulators]
        found = [level_at(n, thresholds, levels) for n in accumulators]
        assert found == wanted, f"channel {c}"
        changes = np.diff(wanted)
        constant += [c] * (not changes.any())
        falling += [c] * bool(changes.any() and (changes <= 0).all())
        zero += [c] * (0.0 in wanted)
        for i in np.nonzero(changes)[0]:
            for n in (accumulators[i], accumulators[i + 1]):
                smallest = min(smallest, distance(layer, n, c))
    assert certificate.constant_channels == tuple(constant)
    assert certificate.falling_channels == tuple(falling)
    assert certificate.zero_reachable == (tuple(zero) if layer.to is Element.TERNARY else ())
    assert certificate.smallest_distance == (smallest if np.isfinite(smallest) else None)
    assert certificate.values_checked == len(accumulators) * layer.channels
    domain = certificate.domain
    assert (domain.kind, domain.element, domain.size) == ("enumerated", "i32", len(accumulators))
    assert (domain.low, domain.high) == (accumulators[0], accumulators[-1])


def distance(layer: Layer, n: int, c: int) -> float:
    thresholds = layer.step[0][c if len(layer.step[0]) > 1 else 0]
    value = float(layer.value(n, c))
    return min(abs(value - float(F(t))) for t in thresholds)


@pytest.mark.parametrize("name", ["sign(bn)", "three-level ties", "hardtanh", "prelu", "tanh"])
@pytest.mark.parametrize("k", [2, 7])
def test_every_uint8_accumulator_by_bisection(
    name: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnncc.passes.fold_thresholds._MOST_EVALUATIONS", 100)
    layer = epilogues(Element.U8, k)[name]
    graph, certificate, _ = folded(layer.graph())
    # PReLU with a negative slope is not monotone: there is no way but to enumerate.
    assert certificate.domain.kind == ("enumerated" if name == "prelu" else "bisected")
    accumulators = layer.accumulators()[:: 3 if k > 2 else 1]
    for c, row in enumerate(rows_of(graph, layer.channels)):
        for n in accumulators:
            assert level_at(n, *row) == layer.level(n, c)


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY, Element.U8])
def test_the_graph_runs_the_same_on_every_accumulator(element: Element) -> None:
    k = 2 if element is Element.U8 else 64
    layer = epilogues(element, k)["three-level sign(bn)"]
    sketch = layer.sketch()
    before = sketch.done("y")
    weights = np.ones((8, k), np.int8)
    before = with_weights(before, weights)
    graph, _, _ = folded(before)
    x = every_operand(element, k)
    same_values(before, graph, x=x)
    n = x.astype(int).sum(axis=1)
    reachable = {Element.BIPOLAR: k + 1, Element.TERNARY: 2 * k + 1, Element.U8: 255 * k + 1}
    assert len(set(n.tolist())) == reachable[element]


def with_weights(graph: Graph, weights: Array) -> Graph:
    weights.flags.writeable = False
    return dataclasses.replace(graph, constants={**graph.constants, "w": weights})


# --- Floats ---------------------------------------------------------------------------------------


def monotone_layers() -> dict[str, Layer]:
    layers = epilogues(Element.F32, 5)
    for name in ("prelu", "abs", "quantiser"):
        del layers[name]
    quantise = ([[-0.5, 0.25, 0.75]], [[0.0, 0.3, 0.6, 0.9]])
    layers["quantiser"] = Layer(Element.F32, 5, [HOSTILE, clip(-1, 1)], quantise, Element.F32)
    layers["relu chain"] = Layer(Element.F32, 5, [HOSTILE, prelu((0.0,) * 8), add((-0.1,) * 8)])
    # The largest floats overflow here, and infinity times a gamma of 0 is no number.
    layers["alpha above 1"] = Layer(Element.F32, 5, [mul((2.0,) * 8), HOSTILE])
    layers["rising and falling levels"] = Layer(
        Element.F32,
        5,
        [mul((1e3, -1e3, 0, 1, -1, 1e-3, 2, -2))],
        ([[-1, 0.5]], [[1, 0, -1]]),
        Element.TERNARY,
    )
    layers["far thresholds"] = Layer(
        Element.F32, 5, [mul((1e-30, 1e30, -1e30, 1e-38, 1, 3, 1e38, -1e-38))], ([[1]], [[-1, 1]])
    )
    return layers


@pytest.mark.parametrize("name", monotone_layers())
def test_every_float_threshold_and_the_float_below(name: str) -> None:
    layer = monotone_layers()[name]
    graph, certificate, outcome = folded(layer.graph())
    assert outcome.refusals == ()
    assert certificate.domain.kind == "bisected"
    assert (certificate.domain.element, certificate.domain.stride) == ("f32", 0)
    random = np.random.default_rng(0)
    anywhere = random.standard_normal(60) * 10.0 ** random.integers(-40, 38, 60)
    for c in range(layer.channels):
        t, v = (a[min(c, len(a) - 1)] for a in step_tables(graph, "y"))
        found = t[np.isfinite(t)]
        near = np.concatenate([found, np.nextafter(found, -INF), np.nextafter(found, INF)])
        ends = np.array([-LARGEST, -1, -TINY, -0.0, 0, TINY, 1, LARGEST], F)
        for n in np.concatenate([near, ends, anywhere.astype(F)]).tolist():
            if not np.isnan(layer.value(n, c)):
                assert level_at(n, t.tolist(), v.tolist()) == layer.level(n, c), (c, n)


def test_channels_stay_constant_where_floats_overflow() -> None:
    # At the ends of the domain 2 x is infinite, and times gamma 0 no number: still one level.
    layer = Layer(Element.F32, 5, [mul((2.0,) * 8), HOSTILE])
    graph, certificate, _ = folded(layer.graph())
    assert certificate.constant_channels == (2, 3)
    _, levels = step_tables(graph, "y")
    assert [row[0] for row in levels[2:4].tolist()] == [layer.level(0.0, 2), layer.level(0.0, 3)]


@pytest.mark.parametrize("link", [prelu((-0.5,) * 8), absolute()], ids=["prelu", "abs"])
def test_what_is_not_monotone_over_reals_becomes_the_root(link: Link) -> None:
    layer = Layer(Element.F32, 3, [link], ([[0.5]], [[-1, 1]]))
    graph = layer.graph()
    outcome = FOLD_THRESHOLDS.apply(graph, GENERIC)
    assert outcome.graph is graph
    assert outcome.refusals == ()
    (certificate,) = outcome.certificates
    assert certificate.root == graph.producers["y"].inputs[0]
    assert certificate.chain == "{t0 = Step(bipolar)(x0, p0, p1)}"
    assert certificate.domain.element == "f32"
    np.testing.assert_array_equal(certificate.thresholds, [[0.5]] * 8)


def test_what_follows_something_that_is_not_monotone_folds() -> None:
    layer = Layer(Element.F32, 3, [mul(GAMMA), absolute(), HOSTILE], SIGN, Element.TERNARY)
    before = layer.graph()
    graph, certificate, _ = folded(before)
    assert ops(graph) == ["BinaryDense", "Mul", "Abs", "Step"]
    assert graph.producers[certificate.root].op == ew.Abs()
    random = np.random.default_rng(3)
    same_values(before, graph, x=(random.standard_normal((500, 3)) * 4).astype(F))


def test_refuses_reals_whose_own_levels_rise_and_fall() -> None:
    layer = Layer(Element.F32, 3, [HOSTILE], ([[-0.5, 0.5]], [[-1, 1, -1]]))
    graph = layer.graph()
    outcome = FOLD_THRESHOLDS.apply(graph, GENERIC)
    assert outcome.graph is graph
    (refusal,) = outcome.refusals
    assert refusal.reason == "its chain over real values is not monotone in every channel"
    assert (refusal.node, refusal.origin) == ("y", ("the y",))
    assert outcome.certificates == ()


def test_two_activations_meet_in_the_root() -> None:
    # A shortcut: the sum of two layers, each rounded on its own, is what the thresholds are on.
    layer = Layer(Element.BIPOLAR, 7, [HOSTILE])
    sketch = layer.sketch()
    other = sketch(BinaryDense(), "x", "w", to="other")
    doubles = [sketch.const(row, "d", Element.F64) for row in (ALPHAS, [0.0] * 8, [0.0] * 8)]
    total = sketch(ew.Add(), "v", sketch(ew.Dequantize(), other, *doubles), to="r")
    normal = sketch.batch_norm(total, (GAMMA, [0.5] * 8, MEAN, VARIANCE))
    sketch(ew.Step(Element.BIPOLAR), sketch(ew.Clip(-1, 1), normal), *AT_LEAST_0, to="z")
    before = sketch.done("z", "r")
    outcome = apply(FOLD_THRESHOLDS, before)
    (certificate,) = [c for c in outcome.certificates if c.layer == "z"]
    assert certificate.root == "r"
    assert certificate.domain.kind == "bisected"
    after = apply(ELIMINATE_DEAD, outcome.graph).graph
    assert after.producers["z"].inputs[0] == "r"
    assert "Clip" not in ops(after)
    same_values(before, after, x=every_operand(Element.BIPOLAR, 7))


def test_kappa_leaves_a_threshold_on_the_product() -> None:
    # XNOR-Net: sign(bn(kappa * (alpha * n) + bias)), kappa another activation.
    s = Sketch(7, Element.BIPOLAR)
    random = np.random.default_rng(5)
    w = random.choice(np.array([-1, 1], np.int8), (8, 7))
    s(BinaryDense(), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    doubles = [s.const(row, "d", Element.F64) for row in (ALPHAS, [0.0] * 8, [0.0] * 8)]
    alpha_n = s(ew.Dequantize(), "n", *doubles)
    kappa = s.builder.input("kappa", TensorType((1, 1), Element.F32))
    scaled = s(ew.Mul(), alpha_n, kappa, to="kn")
    biased = s(ew.Add(), scaled, [0.1] * 8)
    s(ew.Step(Element.TERNARY), s.batch_norm(biased, (GAMMA, BETA, MEAN, VARIANCE)), *SIGN, to="y")
    before = s.done("y")
    graph, certificate, outcome = folded(before)
    assert outcome.refusals == ()
    assert certificate.root == "kn"
    assert ops(graph) == ["BinaryDense", "Dequantize", "Mul", "Step"]
    x = every_operand(Element.BIPOLAR, 7)
    for value in (0.0, 1e-4, 0.37, 1.0, 812.5):
        same_values(before, graph, x=x, kappa=np.full((len(x), 1), value, F))


def image_layer(layer: Layer, element: Element) -> Graph:
    """The layer's epilogue on [1, 8, 2, 3], over sums of a 3 x 3 window with zero padding."""
    window = Window((Axis(3, before=1, after=1),) * 2)
    s = Sketch(shape=(1, 5, 2, 3), element=element)
    w = np.random.default_rng(2).choice(np.array([-1, 1], np.int8), (8, 5, 3, 3))
    last = s(BinaryConv(window), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    doubles = [s.const(row, "d", Element.F64) for row in (ALPHAS, layer.shift, layer.slack)]
    last = s(ew.Dequantize(), last, *doubles)
    for link in layer.links:
        last = link.spell(s, last)
    s(ew.Step(layer.to), last, *layer.step, to="y")
    return s.done()


@pytest.mark.parametrize("name", ["sign(bn)", "three-level ties", "hardtanh"])
def test_images(name: str) -> None:
    # 45 terms, but fewer where the window reaches over the edge: sums of either parity.
    before = image_layer(epilogues(Element.TERNARY, 45)[name], Element.BIPOLAR)
    graph, certificate, _ = folded(before)
    assert ops(graph) == ["BinaryConv", "Step"]
    assert (certificate.domain.low, certificate.domain.high) == (-45, 45)
    assert certificate.domain.stride == 1
    x = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (200, 5, 2, 3))
    same_values(before, graph, x=x)


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.F32])
def test_a_step_that_never_changes(element: Element) -> None:
    # Where(x > 0, 1, 1), or a Clip of a sign to one value: recognised as a Step of one level.
    layer = Layer(element, 3, [HOSTILE], ([[]], [[1]]))
    graph, certificate, _ = folded(layer.graph())
    _, levels = step_tables(graph, "y")
    assert (levels == 1).all()
    assert certificate.constant_channels == tuple(range(8))


def test_a_step_of_equal_levels() -> None:
    layer = Layer(Element.F32, 3, [HOSTILE], ([[0.0]], [[1, 1]]))
    graph, certificate, _ = folded(layer.graph())
    _, levels = step_tables(graph, "y")
    assert (levels == 1).all()
    assert certificate.constant_channels == tuple(range(8))


# --- What is left in the graph --------------------------------------------------------------------


def test_in_text() -> None:
    layer = Layer(Element.BIPOLAR, 3, [add((-0.5, 5.0))], SIGN, Element.TERNARY, channels=2)
    s = Sketch(3, Element.BIPOLAR)
    s(BinaryDense(), "x", s.const(layer.weights, "w", Element.BIPOLAR), to="n")
    t = s.const([[1], [never(np.zeros(1, np.int32))]], "y.thresholds", Element.I32)
    v = s.const([[-1, 1], [1, 1]], "y.levels")
    origin = ["the v", "the t2", "the y"]
    s(ew.Step(Element.BIPOLAR), "n", t, v, to="y", origin=origin)
    graph, certificate, _ = folded(layer.graph())
    same_text(graph, s)
    assert certificate.origin == tuple(origin)
    assert certificate.layer == "y"
    assert certificate.root == "n"
    assert certificate.chain.endswith("; t2 = Step(ternary)(t1, p4, p5)}")


def test_two_readers_of_an_accumulator_are_folded_apart() -> None:
    layer = Layer(Element.BIPOLAR, 7, [HOSTILE])
    sketch = layer.sketch()
    sketch(ew.Step(Element.TERNARY), sketch(ew.Add(), "v", [0.5] * 8), *SIGN, to="z")
    before = sketch.done("y", "z")
    outcome = apply(FOLD_THRESHOLDS, before)
    assert [c.layer for c in outcome.certificates] == ["y", "z"]
    after = apply(ELIMINATE_DEAD, outcome.graph).graph
    assert ops(after) == ["BinaryDense", "Step", "Step"]
    same_values(before, after, x=every_operand(Element.BIPOLAR, 7))


def test_a_value_that_something_else_reads_stays() -> None:
    layer = Layer(Element.BIPOLAR, 7, [HOSTILE])
    before = layer.sketch().done("y", "v")
    after = folded(before)[0]
    assert ops(after) == ["BinaryDense", "Dequantize", "Step"]
    same_values(before, after, x=every_operand(Element.BIPOLAR, 7))


def two_layers(k: int) -> Graph:
    """A three-level sign of a sum of k terms, then the same again."""
    s = Sketch(k, Element.BIPOLAR)
    random = np.random.default_rng(k)
    last = "x"
    for i, width in enumerate((k, 5)):
        w = random.choice(np.array([-1, 1], np.int8), (5, width))
        n = s(BinaryDense(), last, s.const(w, "w", Element.BIPOLAR), to=f"n{i}")
        doubles = [s.const([v] * 5, "d", Element.F64) for v in (1.0, 0.0, 0.0)]
        value = s(ew.Dequantize(), n, *doubles)
        last = s(ew.Step(Element.TERNARY), value, *SIGN, to=f"s{i}")
    return s.done()


def test_zero_that_cannot_occur_narrows_what_follows() -> None:
    before = two_layers(3)
    outcome = apply(FOLD_THRESHOLDS, before)
    first, second = outcome.certificates
    assert (first.domain.stride, first.zero_reachable) == (2, ())
    # The first layer's results are bipolar, so that the second's sums of 5 are odd too.
    assert (second.domain.low, second.domain.high, second.domain.stride) == (-5, 5, 2)
    assert second.zero_reachable == ()
    assert outcome.graph.types["n1"].interval == Interval(-5, 5, 2)
    assert [outcome.graph.types[s].element for s in ("s0", "s1")] == [Element.BIPOLAR] * 2
    same_values(before, outcome.graph, x=every_operand(Element.BIPOLAR, 3))


@pytest.mark.parametrize(("value", "element"), [(0, Element.TERNARY), (1, Element.BIPOLAR)])
def test_zeros_put_round_bits_keep_their_two_planes(value: float, element: Element) -> None:
    s = Sketch(3, Element.BIPOLAR, shape=(1, 3, 2, 2))
    weights = s.const(np.ones((4, 3, 1, 1)), "weights", Element.BIPOLAR)
    n = s(BinaryConv(Window((Axis(1), Axis(1)))), "x", weights, to="n")
    s(ew.Step(Element.TERNARY), s(ew.Cast(Element.F32), n), *SIGN, to="bits")
    s(Pad((0, 0, 1, 1), (0, 0, 1, 1), value), "bits", to="y")
    graph = apply(FOLD_THRESHOLDS, s.done()).graph  # of three signs the sum is never 0
    assert graph.types["bits"].element is graph.types["y"].element is element


def test_zero_that_can_occur_keeps_three_levels() -> None:
    before = two_layers(4)
    outcome = apply(FOLD_THRESHOLDS, before)
    first, second = outcome.certificates
    assert first.zero_reachable == (0, 1, 2, 3, 4)
    assert (second.domain.low, second.domain.high, second.domain.stride) == (-5, 5, 1)
    assert outcome.graph.types["s0"].element is Element.TERNARY
    same_values(before, outcome.graph, x=every_operand(Element.BIPOLAR, 4))


def codes_to_bits() -> Graph:
    """uint8 codes, their affine map, a sign: the binarised input."""
    s = Sketch(3, Element.U8)
    real = s(ew.Mul(), s(ew.Cast(Element.F32), "x"), [1 / 127.5, -0.01, 0.0])
    s(ew.Step(Element.BIPOLAR), s(ew.Add(), real, [-1.0, 0.5, 0.5]), *AT_LEAST_0, to="y")
    return s.done()


def test_codes_become_thresholds_on_codes() -> None:
    before = codes_to_bits()
    graph, certificate, _ = folded(before)
    assert ops(graph) == ["Cast", "Step"]
    assert (certificate.domain.low, certificate.domain.high) == (0, 255)
    codes = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(3, axis=1)
    same_values(before, graph, x=codes)
    thresholds, levels = step_tables(graph, "y")
    assert levels.tolist() == [[-1, 1], [1, -1], [1, 1]]
    assert thresholds.dtype == np.int32


def test_nothing_to_fold() -> None:
    sketch = Sketch(3)
    sketch(ew.Step(Element.BIPOLAR), "x", *AT_LEAST_0, to="y")
    graph = sketch.done()
    outcome = FOLD_THRESHOLDS.apply(graph, GENERIC)
    assert outcome.graph is graph
    assert [c.layer for c in outcome.certificates] == ["y"]


@pytest.mark.parametrize("graph", [codes_to_bits(), two_layers(4)], ids=["codes", "ternary"])
def test_what_was_folded_is_not_folded_again(graph: Graph) -> None:
    once = FOLD_THRESHOLDS.apply(graph, GENERIC).graph
    assert FOLD_THRESHOLDS.apply(once, GENERIC).graph is once


# --- What rounding leaves open --------------------------------------------------------------------


def other_levels(layer: Layer, form: orders.Form, moved: float, n: Array) -> Array:
    """Return levels at n [N] or [N, C], BatchNorm in another form, sums off by `moved` slacks."""
    chain = layer.chain()
    n = n.reshape(len(n), -1)
    results: list[Array] = []
    pools = {Source.VARIABLE: [n], Source.PARAMETER: chain.parameters, Source.TERM: results}
    for term in chain.expression.terms:
        operands = [np.asarray(pools[o.source][o.index]) for o in term.operands]
        match term.op:
            case ew.Dequantize():
                exact = n * operands[1] + operands[2]
                own = exact.astype(F)
                off = (exact + moved * operands[3]).astype(F)
                # A float32 that rounds out of the slack is not one that the sum could be.
                inside = np.abs(off.astype(np.float64) - own) <= operands[3]
                results.append(np.where(inside, off, own))
            case ew.BatchNormalization(epsilon=epsilon):
                results.append(form(operands[0], operands[1:], epsilon))
            case _:
                results.append(term.op.evaluate(operands)[0])
    return results[-1]


def undecided_pairs(certificate: LayerCertificate, layer: Layer) -> set[tuple[int, int]]:
    pairs = set()
    for n in layer.accumulators():
        channel = np.arange(layer.channels)
        at = np.full(layer.channels, n)
        hit = certificate.is_undecided(channel, at, at)
        pairs |= {(int(c), n) for c in np.nonzero(hit)[0]}
    return pairs


def check_undecided(layer: Layer) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Assert that whatever another order decides otherwise is undecided; return both sets."""
    _, certificate, _ = folded(layer.graph())
    accumulators = layer.accumulators()
    own = np.array([[layer.level(n, c) for c in range(layer.channels)] for n in accumulators])
    differing: set[tuple[int, int]] = set()
    for form in (orders.onnx_runtime, *orders.FORMS):
        for moved in (-1.0, 0.0, 1.0):
            for i, c in np.argwhere(
                other_levels(layer, form, moved, np.array(accumulators)) != own
            ):
                differing.add((int(c), accumulators[i]))
    claimed = undecided_pairs(certificate, layer)
    assert differing <= claimed
    return differing, claimed


@pytest.mark.parametrize("name", ["ties", "three-level ties", "sign(bn)", "hardtanh", "alpha"])
@pytest.mark.parametrize("k", [7, 64])
def test_what_other_orders_decide_is_undecided(name: str, k: int) -> None:
    check_undecided(epilogues(Element.BIPOLAR, k)[name])


def test_slack_of_the_sum_is_part_of_it() -> None:
    layer = Layer(
        Element.TERNARY,
        31,
        [TIES],
        scale=(0.1,) * 8,
        shift=tuple(m / 3 for m in (0, 0, 1, -1, 2, -2, 3, 63)),
        slack=(0.0, 1e-6, 0.25, 0.3, 1.0, 10.0, 0.0, 0.0),
    )
    differing, claimed = check_undecided(layer)
    assert {c for c, _ in differing} >= {2, 3, 4}
    assert len(claimed) < 3 * len(differing)


def test_random_ties_are_found_and_little_else() -> None:
    # Means and betas such that thresholds fall on accumulators: about the worst there is.
    random = np.random.default_rng(17)
    channels = 64
    gamma, variance = random.uniform(0.1, 2, (2, channels)).astype(F)
    mean = random.integers(-5, 6, channels)
    layer = Layer(
        Element.TERNARY,
        9,
        [bn(gamma, np.zeros(channels), mean, variance)],
        SIGN,
        Element.TERNARY,
        channels=channels,
        scale=(1.0,) * channels,
        shift=(0.0,) * channels,
        slack=(0.0,) * channels,
    )
    differing, claimed = check_undecided(layer)
    # Only n = mean can be undecided, one accumulator a channel, and some of them are.
    assert differing
    assert claimed <= {(c, int(m)) for c, m in enumerate(mean)}


def near_misses() -> Layer:
    """|bn(n)| >= its own smallest value: constant for us, but not in another order."""
    gamma, beta, mean, variance = (0.7,) * 8, (0.3,) * 8, np.arange(8) / 7, (0.3,) * 8
    bare = Layer(Element.TERNARY, 9, [bn(gamma, beta, mean, variance), absolute()])
    lowest = [min(float(bare.value(n, c)) for n in bare.accumulators()) for c in range(8)]
    return Layer(Element.TERNARY, 9, bare.links, ([[t] for t in lowest], [[-1, 1]] * 8))


def test_near_misses_away_from_any_change_are_undecided() -> None:
    layer = near_misses()
    _, certificate, _ = folded(layer.graph())
    assert certificate.constant_channels == tuple(range(8))
    differing, _ = check_undecided(layer)
    assert differing


@pytest.mark.parametrize("k", [8, 9])
def test_nothing_is_undecided_without_rounding(k: int) -> None:
    layer = Layer(Element.BIPOLAR, k, [add((0.5, -0.5, 0, 1, -1, 2, 3, 4))], SIGN, Element.TERNARY)
    assert folded(layer.graph())[1].undecided == ()


@pytest.mark.parametrize("name", ["sign(bn)", "ties", "hardtanh", "hardsigmoid", "leaky", "bias"])
def test_floats_that_other_orders_decide_are_undecided(name: str) -> None:
    layer = epilogues(Element.F32, 3)[name]
    graph, certificate, _ = folded(layer.graph())
    thresholds, _ = step_tables(graph, "y")
    near = np.where(np.isfinite(thresholds[:, 0]), thresholds[:, 0], 0)
    steps = np.arange(-64, 65)[:, np.newaxis]
    n = FLOATS.at(FLOATS.index(near)[np.newaxis, :] + steps)
    own = np.array([[layer.level(float(v), c) for c, v in enumerate(row)] for row in n])
    found = 0
    for form in (orders.onnx_runtime, *orders.FORMS):
        rows, channels = np.nonzero(other_levels(layer, form, 0, n) != own)
        at = n[rows, channels].astype(np.float64)
        assert certificate.is_undecided(channels, at, at).all(), form.__name__
        found += len(rows)
    assert found or name == "bias"


SATURATING = {
    "": ([HOSTILE], 0.0),
    "hardtanh": ([HOSTILE, clip(-1, 1)], 0.0),
    "hardsigmoid": ([HOSTILE, hard_sigmoid(0.2, 0.5)], 0.5),
    "tanh": ([HOSTILE, tanh()], 0.0),
    "relu": ([HOSTILE, prelu((0.0,) * 8)], 0.25),
}


@pytest.mark.parametrize("name", SATURATING)
def test_floats_are_undecided_at_thresholds_only(name: str) -> None:
    links, threshold = SATURATING[name]
    layer = Layer(Element.F32, 3, links, ([[threshold]], [[-1, 1]]))
    graph, certificate, _ = folded(layer.graph())
    thresholds, _ = step_tables(graph, "y")
    for c in (0, 1, 5):  # with an ordinary threshold
        t = thresholds[c, :1].astype(np.float64)
        below = np.nextafter(thresholds[c, :1], -INF).astype(np.float64)
        assert certificate.is_undecided(np.array([c]), below, t).all()
        # A thousandth away rounding cannot matter, and further out even less: `verify` forgives
        # mismatches where a certificate says undecided, so that it must not say it lightly.
        for away in (1e-3, 1.0, 100.0, 1e6, -1e-3, -1.0, -100.0, -1e6):
            far = t + away * (np.abs(t) + 1)
            assert not certificate.is_undecided(np.array([c]), far, far).any(), (c, away)


def test_a_bias_that_a_gemm_adds_somewhere_leaves_a_real_sum_undecided() -> None:
    # 1e6 + x1 - 1e6 depends on where the bias stands among the terms, however small the terms are.
    s = Sketch(1)
    total = s(BinaryDense(), "x", s.const([[1]], "w", Element.BIPOLAR), to="n", origin=["gemm"])
    biased = s(ew.Add(), total, [1e6], to="v", origin=["gemm"])
    s(ew.Step(Element.BIPOLAR), biased, [[1e6 + 1]], [[-1, 1]], to="y")
    (certificate,) = apply(FOLD_THRESHOLDS, s.done()).certificates
    (entry,) = certificate.undecided
    assert entry.low < 0.9
    assert 1.1 < entry.high < 2
