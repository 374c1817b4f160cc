"""The pipeline end to end on random networks, and the runner that holds passes to contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnncc.certificate import LayerCertificate, SignOfZero
from bnncc.errors import InternalError, UnsupportedModelError
from bnncc.ir import interpret
from bnncc.ir.analysis.rounding import gamma, spread
from bnncc.ir.check import violations
from bnncc.ir.expression import root_of, trace
from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.text import format_graph
from bnncc.ir.types import Array, Element, Stage, TensorType
from bnncc.passes.base import Context, Exactness, Outcome, Pass
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.pipeline import PIPELINE, Lowered, run_pass, run_pipeline
from tests.ir.chains import FLOAT, extended
from tests.ir.sketch import F, Sketch, ops, same_bits
from tests.models import mlp, samples
from tests.passes.applying import GENERIC, context, fingerprint
from tests.passes.networks import networks

KERNELS = {"Map", "Move", "PackPlanes", "RealConv", "SignSum", "XnorConv"}


def equal(actual: Array, expected: Array) -> None:
    if actual.dtype == expected.dtype == np.float32:
        same_bits(actual, expected)
    else:
        np.testing.assert_array_equal(actual, expected, strict=True)


def hostile_samples(graph: Graph, seed: int) -> dict[str, Array]:
    """Random samples, the ends of the range, one-hot ones, zeros, and small integers (ties)."""
    feeds = samples(graph, 24, seed)
    for x in feeds.values():
        flat = x.reshape(len(x), -1)
        flat[0], flat[1], flat[2] = 0, 1, 0
        flat[2, 0] = 1
        flat[3] = 255 if x.dtype == np.uint8 else -1
        flat[4] = np.arange(flat.shape[1]) % 3
    return feeds


def check_packed(lowered: Lowered, feeds: dict[str, Array]) -> None:
    """Assert that the packed graph is the folded one to the bit."""
    expected, actual = (interpret.run(g, feeds) for g in (lowered.folded, lowered.graph))
    for name in expected:
        equal(actual[name], expected[name])


class Forced:
    """Runs the folded graph layer by layer on the float model's own values, and compares.

    Samples in which a zero was taken for +-1 by assumption go their own way from there on, and are
    left out of what follows.
    """

    def __init__(self, graph: Graph, lowered: Lowered, feeds: dict[str, Array]) -> None:
        self.lowered = lowered
        self.float_values = interpret.run_stored(graph, feeds)
        self.layers = {c.layer: c for c in lowered.certificates}
        self.rows = np.ones(len(next(iter(feeds.values()))), bool)
        self.flips = 0
        self.stored: dict[str, Array] = dict(feeds)
        interpret.run_stored(lowered.folded, feeds, self.observe)

    def observe(self, name: str, value: Array) -> Array:
        self.stored[name] = value
        if name not in self.layers:
            return value
        wanted = self.float_values[name]
        assumed = (wanted == 0) & (value != 0) & bool(self.lowered.assumptions)
        differs = (value.astype(F) != wanted) & ~assumed & self.rows[:, np.newaxis]
        self.flips += int(differs.sum())
        self.excuse(self.layers[name], differs)
        self.rows &= ~assumed.any(axis=1)
        return np.where(assumed, value, wanted).astype(value.dtype)

    def sum_slack(self, root: str) -> Array:
        """How far the float model's own order of summation may be off: no certificate knows."""
        layer = self.lowered.folded.producers.get(root)
        n = self.stored[root]
        if layer is None or n.dtype != np.float32:
            return np.zeros(n.shape)
        x = np.abs(self.stored[layer.inputs[0]].astype(np.float64))
        return np.broadcast_to(gamma(2 * x.shape[1] + 4) * x.sum(axis=1)[:, np.newaxis], n.shape)

    def excuse(self, certificate: LayerCertificate, differs: Array) -> None:
        """Assert that every differing bit is one that the certificate calls undecided."""
        n, slack = self.stored[certificate.root], self.sum_slack(certificate.root)
        rows, channels = np.nonzero(differs)
        low, high = ((n + side * slack)[rows, channels] for side in (-1, 1))
        thresholds = certificate.thresholds[channels]
        near = (thresholds >= low[:, np.newaxis]) & (thresholds <= high[:, np.newaxis])
        excused = near.any(axis=1) & (high > low)
        excused |= certificate.is_undecided(channels, low, high)
        assert excused.all(), (certificate.layer, rows[~excused][:3], channels[~excused][:3])


def check_float(graph: Graph, lowered: Lowered, feeds: dict[str, Array], *, exact: bool) -> Forced:
    """Assert that bits equal the float model's but where undecided, and reals within the bound."""
    forced = Forced(graph, lowered, feeds)
    folded = lowered.folded
    for name in folded.outputs:
        ours, theirs = (v[name][forced.rows] for v in (forced.stored, forced.float_values))
        if exact:
            equal(ours, theirs)
            continue
        root = root_of(folded, name)
        assert root is not None
        chain = trace(folded, name, root)
        n, slack = forced.stored[root], forced.sum_slack(root)
        bound = spread(chain, n, slack)[1] if chain else slack
        assert (np.abs(ours.astype(np.float64) - theirs) <= bound[forced.rows]).all(), name
    return forced


SIZES = st.lists(
    st.integers(1, 40) | st.sampled_from([31, 32, 33, 63, 64, 65]), min_size=2, max_size=5
)


CONTEXTS = st.builds(
    context,
    st.sampled_from(["generic", "x86-64"]),
    st.sampled_from(["auto", "plus", "minus", "exact"]),
)
KINDS = st.fixed_dictionaries(
    {
        "uint8": st.booleans(),
        "sign": st.sampled_from(["where", "sign"]),
        "alpha": st.booleans(),
        "affine": st.booleans(),
    }
)


@settings(report_multiple_bugs=False)
@given(SIZES, st.integers(0, 2**16), KINDS, CONTEXTS)
def test_random_networks(sizes: list[int], seed: int, kind: dict, given_: Context) -> None:
    graph = mlp(sizes, seed, **kind)
    text = fingerprint(graph)
    lowered = run_pipeline(graph, given_)
    assert fingerprint(graph) == text
    assert violations(lowered.graph) == []
    assert lowered.graph.stage is Stage.PACKED
    assert set(ops(lowered.graph)) <= KERNELS
    assert [c.layer for c in lowered.certificates] == [f"sign{i}" for i in range(1, len(sizes) - 1)]
    feeds = hostile_samples(graph, seed)
    check_packed(lowered, feeds)
    # With +-1 weights every sum over bits is the float model's own, to the bit.
    exact = not kind["alpha"] and not (kind["uint8"] and len(sizes) == 2)
    check_float(graph, lowered, feeds, exact=exact)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 1, 1], [1, 1], [1, 2, 1, 3]])
@pytest.mark.parametrize("uint8", [False, True])
def test_layers_whose_channels_are_all_constant(sizes: list[int], uint8: bool) -> None:
    # Among that many seeds there are layers without a single threshold.
    for seed in range(12):
        graph = mlp(sizes, seed, uint8=uint8)
        check_packed(run_pipeline(graph, GENERIC), hostile_samples(graph, seed))


@pytest.mark.parametrize("name", list(networks()))
@pytest.mark.parametrize("target", ["generic", "x86-64"])
@pytest.mark.parametrize("mode", ["auto", "plus", "minus", "exact"])
def test_named_networks(name: str, target: str, mode: str) -> None:
    graph = networks(30)[name]
    lowered = run_pipeline(graph, context(target, mode))
    assert violations(lowered.graph) == []
    check_packed(lowered, hostile_samples(graph, 0))


def test_float_bits_are_compared_not_excused() -> None:
    # The comparison above must fail where nothing is undecided: shift one decision.
    graph = mlp([20, 15, 4], 1)
    lowered = run_pipeline(graph, GENERIC)
    feeds = hostile_samples(graph, 1)
    assert check_float(graph, lowered, feeds, exact=True).flips == 0
    folded = lowered.folded
    (step,) = (n for n in folded.nodes if isinstance(n.op, ew.Step))
    thresholds = folded.constants[step.inputs[1]].copy()
    thresholds[np.isfinite(thresholds)] += 1
    thresholds.flags.writeable = False
    constants = {**folded.constants, step.inputs[1]: thresholds}
    broken = dataclasses.replace(lowered, folded=dataclasses.replace(folded, constants=constants))
    with pytest.raises(AssertionError, match="sign1"):
        check_float(graph, broken, feeds, exact=True)


def test_exact_codes_leave_nothing_undecided() -> None:
    # DESIGN: none undecided with uint8 input and +-1 weights, where the decoding is exact.
    for name in ("classic on codes", "three levels on codes"):
        graph = networks(31)[name]
        lowered = run_pipeline(graph, GENERIC)
        forced = check_float(graph, lowered, hostile_samples(graph, 0), exact=True)
        assert forced.flips == 0


def test_the_same_model_gives_the_same_graph() -> None:
    first, second = (run_pipeline(mlp([33, 17, 5], 7, uint8=True), GENERIC) for _ in range(2))
    assert fingerprint(first.graph) == fingerprint(second.graph)
    assert fingerprint(first.folded) == fingerprint(second.folded)


MIXED = np.array([[1, -1, 1], [1, 1, 1], [-1, 1, 1]], F)
"""Weights of layers between random chains: any +-1 will do, the chains are what is random."""


@st.composite
def mixed_networks(draw: st.DrawFn) -> Graph:
    """Draw one or two layers with any elementwise chains before and after, and perhaps a sign.

    Weights are +-1 or +-0.5, so that sums round alike in the float model and in ours.
    """
    s = Sketch(3, stage=Stage.FLOAT)
    x = "x"
    outputs: list[str] = []
    for _ in range(draw(st.integers(1, 2))):
        x = extended(draw, s, x, FLOAT, draw(st.integers(0, 3)))
        match draw(st.sampled_from(["sign", "where", "round", "none"])):
            case "sign":
                x = s(ew.Sign(), x)
            case "where":
                x = s(ew.Where(), s(ew.GreaterOrEqual(), x, 0.0), 1.0, -1.0)
            case "round":
                x = s(ew.Round(), s(ew.Clip(-1, 1), x))
        outputs += [x] if draw(st.booleans()) else []
        x = s(MatMul(), x, s.const(MIXED * F(draw(st.sampled_from([1, 0.5])))))
        x = extended(draw, s, x, FLOAT, draw(st.integers(0, 3)))
    outputs.append(x)
    return s.done(*dict.fromkeys(name for name in outputs if name != "x"))


def check_stated(graph: Graph, lowered: Lowered, x: Array) -> None:
    """Assert that PACKED is the float model, were sign(0) what the assumptions state."""
    stated = {assumption.tensor: assumption.value for assumption in lowered.assumptions}

    def forced(name: str, value: Array) -> Array:
        return np.where(value == 0, F(stated[name]), value) if name in stated else value

    expected = interpret.run_stored(graph, {"x": x}, forced)
    for name, value in interpret.run(lowered.graph, {"x": x}).items():
        np.testing.assert_array_equal(value.astype(F), expected[name].astype(F), err_msg=name)


@settings(report_multiple_bugs=False)
@given(mixed_networks(), st.sampled_from(["auto", "minus", "exact"]))
def test_any_chains_between_layers(graph: Graph, mode: str) -> None:
    try:
        lowered = run_pipeline(graph, context(sign_zero=mode))
    except UnsupportedModelError:
        return
    random = np.random.default_rng(0)
    x = np.concatenate([random.standard_normal((30, 3)), random.integers(-3, 4, (30, 3))]).astype(F)
    check_packed(lowered, {"x": x})
    check_stated(graph, lowered, x)


def signed(reader: str) -> Graph:
    """A sign that a binary layer reads, and something else as well."""
    s = Sketch(3, stage=Stage.FLOAT)
    sign = s(ew.Sign(), "x", to="s", origin=["sign"])
    s(MatMul(), sign, s.const(MIXED, "w"), to="y", origin=["fc"])
    real = np.array([[0.3, 0.5, 0.7]], F)
    match reader:
        case "nothing":
            return s.done("y")
        case "the interface":
            return s.done("y", "s")
        case "a real layer":
            s(MatMul(), sign, s.const(real, "r"), to="z")
        case "a residual sum":
            s(ew.Add(), sign, "x", to="z")
        case "a scale":
            s(ew.Mul(), sign, 0.5, to="z")
        case "an absolute value":
            s(ew.Abs(), sign, to="z")
        case "a scale, then a layer":
            s(MatMul(), s(ew.Mul(), sign, [0.5, 0.25, 2.0]), s.const(real, "r"), to="z")
        case "another sign of x":
            s(MatMul(), s(ew.Sign(), "x", to="t"), s.const(real, "r"), to="z")
    return s.done("y", "z")


READERS = ["nothing", "the interface", "a real layer", "a residual sum", "a scale"]
READERS += ["an absolute value", "a scale, then a layer", "another sign of x"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mode", ["auto", "plus", "minus", "exact"])
def test_one_sign_has_one_meaning(reader: str, mode: str) -> None:
    # `verify` gives the oracle the stated sign(0) and compares the rest strictly: whatever reads
    # the sign must have read the same.
    graph = signed(reader)
    lowered = run_pipeline(graph, context(sign_zero=mode))
    x = np.array([[0, 0, 0], [-0.0, 1, -1], [0.5, 0, -0.0]], F)
    check_packed(lowered, {"x": x})
    check_stated(graph, lowered, x)


# --- What the pipeline has to say -----------------------------------------------------------------


def test_observers_see_every_pass_in_order() -> None:
    seen: list[tuple[str, Graph]] = []
    graph = networks()["classic"]
    lowered = run_pipeline(graph, GENERIC, lambda name, g: seen.append((name, g)))
    assert [name for name, _ in seen] == [step.name for step in PIPELINE]
    graphs = dict(seen)
    assert graphs["eliminate_dead"] is lowered.folded
    assert format_graph(graphs["lower_kernels"]).replace("stage=binary", "stage=packed") == (
        format_graph(lowered.graph)
    )


def test_assumptions_name_the_tensor() -> None:
    real = mlp([9, 7, 3], 0, sign="sign")
    assert run_pipeline(real, context(sign_zero="auto")).assumptions == (SignOfZero("sign1", 1),)
    assert run_pipeline(real, context(sign_zero="exact")).assumptions == ()
    codes = mlp([9, 7, 3], 0, sign="sign", uint8=True)
    assert run_pipeline(codes, context(sign_zero="auto")).assumptions == ()
    assert run_pipeline(codes, context(sign_zero="minus")).assumptions == (SignOfZero("sign1", -1),)


def test_refusals_reach_the_caller() -> None:
    s = Sketch(6, stage=Stage.FLOAT)
    bits = s(ew.Sign(), "x", to="s")
    several = np.array([[1, 0.3717, -1, 1, 1, -1], [1, 1, 1, -1, 1, 1]], F)
    s(MatMul(), bits, s.const(several, "w"), to="y", origin=["fc"])
    lowered = run_pipeline(s.done(), GENERIC)
    assert [(r.node, r.origin) for r in lowered.refusals] == [("y", ("fc",))]
    assert "1 of 2 output channels have weights" in lowered.refusals[0].reason
    assert ops(lowered.graph) == ["Map", "RealConv"]


def test_a_graph_that_no_kernel_computes_is_refused() -> None:
    s = Sketch(stage=Stage.FLOAT, shape=(1, 3, 1))
    other = s.builder.input("other", TensorType((1, 1, 4), Element.F32))
    s(ew.Mul(), "x", other, to="y", origin=["gate"])
    why = "none of its operands has the shape of its result"
    with pytest.raises(UnsupportedModelError, match=why) as caught:
        run_pipeline(s.done(), GENERIC)
    assert caught.value.code == "BNN030"


def test_a_gate_of_the_same_shape_is_computed() -> None:
    s = Sketch(3, stage=Stage.FLOAT)
    a = s(MatMul(), "x", s.const(np.ones((3, 3)), "w"))
    s(ew.Mul(), a, "x", to="y", origin=["gate"])
    graph = s.done()
    lowered = run_pipeline(graph, GENERIC)
    check_packed(lowered, hostile_samples(graph, 0))


@pytest.mark.parametrize(("pixels", "rows"), [(8, 4), (512, 1)])
def test_large_graphs_are_run_whole_on_one_row(
    pixels: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def counted(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
        batches.append(len(feeds["x"]))
        return interpret.run(graph, feeds)

    monkeypatch.setattr("bnncc.pipeline.interpret", counted)
    s = Sketch(stage=Stage.FLOAT, shape=(1, 2, pixels, pixels))
    s(ew.Relu(), "x", to="y")
    run_pipeline(s.done(), GENERIC)
    assert batches == [rows, rows]


def test_several_inputs_and_outputs() -> None:
    s = Sketch(5, stage=Stage.FLOAT)
    other = s.builder.input("other", s.builder.types["x"])
    w = s.const(np.where(np.arange(15).reshape(3, 5) % 2, F(1), F(-1)), "w")
    s(ew.Sign(), s(MatMul(), "x", w), to="a")
    s(ew.Relu(), s(MatMul(), other, w), to="b")
    graph = s.done("b", "a")
    lowered = run_pipeline(graph, context(sign_zero="exact"))
    assert (lowered.graph.inputs, lowered.graph.outputs) == (("x", "other"), ("b", "a"))
    feeds = samples(graph, 9, 0)
    check_packed(lowered, feeds)
    expected = interpret.run(graph, feeds)
    for name, value in interpret.run(lowered.graph, feeds).items():
        np.testing.assert_array_equal(value, expected[name])


def test_hostile_names() -> None:
    s = Sketch(5, stage=Stage.FLOAT)
    names = ["*/", "a\nb", "x.1", "int", "%", "é" * 3000]
    last = "x"
    for i, name in enumerate(names):
        w = s.const(np.where(np.eye(5) > 0, F(-1), F(1)), f"{name}.sign")
        last = s(MatMul(), last, w, to=name, origin=[name])
        last = s(ew.Sign(), last, to=f"{name}.acc", origin=[name]) if i % 2 else last
    graph = s.done(last)
    lowered = run_pipeline(graph, context(sign_zero="exact"))
    feeds = samples(graph, 9, 0)
    check_packed(lowered, feeds)


# --- run_pass -------------------------------------------------------------------------------------

BEFORE = networks()["plain"]


def a_pass(change: Callable[[Graph], Graph], exactness: Exactness = Exactness.BITWISE) -> Pass:
    def change_it(graph: Graph, _: Context) -> Outcome:
        return Outcome(change(graph))

    return Pass("sabotage", change_it, Stage.FLOAT, exactness)


def broken(change: Callable[[Graph], Graph]) -> str:
    """Return why run_pass refuses what the change makes of a graph."""
    with pytest.raises(InternalError) as caught:
        run_pass(a_pass(change), BEFORE, GENERIC)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "BNN090"
    assert diagnostic.what == "pass sabotage broke its contract"
    assert "--dump-dir" in diagnostic.help
    assert caught.value.exit_code == 1
    return diagnostic.why


def another_activation(graph: Graph) -> Graph:
    rewrite = Rewrite(graph)
    node = next(n for n in graph.nodes if isinstance(n.op, ew.LeakyRelu))
    rewrite.replace(node, [rewrite.node(ew.Relu(), node.inputs, node.output, node.origin)])
    return rewrite.finish()


def test_a_pass_that_changes_meaning() -> None:
    why = broken(another_activation)
    assert "differs in" in why


def test_a_pass_that_changes_the_interface() -> None:
    s = Sketch(5, stage=Stage.FLOAT)
    s(ew.Relu(), "x", to="other")
    why = broken(lambda _: s.done())
    assert "the graph's interface changed" in why
    extra = broken(
        lambda graph: dataclasses.replace(graph, outputs=(*graph.outputs, graph.nodes[0].output))
    )
    assert extra == "the graph's interface changed"


def test_a_pass_that_leaves_an_ill_formed_graph() -> None:
    def without_origin(graph: Graph) -> Graph:
        first, *rest = graph.nodes
        return dataclasses.replace(graph, nodes=(dataclasses.replace(first, origin=()), *rest))

    assert broken(without_origin) == f"W5: {BEFORE.nodes[0].name} has no origin"
    assert broken(lambda g: dataclasses.replace(g, nodes=g.nodes[:-1])).startswith("W1: output y")


def test_a_pass_that_changes_the_stage_to_one_its_nodes_do_not_have() -> None:
    assert "W6" in broken(lambda g: dataclasses.replace(g, stage=Stage.PACKED))


def test_only_the_first_problems_are_listed() -> None:
    def no_origins(graph: Graph) -> Graph:
        nodes = tuple(dataclasses.replace(n, origin=()) for n in graph.nodes)
        return dataclasses.replace(graph, nodes=nodes * 3)

    assert len(broken(no_origins).split("; ")) == 5


def test_a_pass_that_does_nothing_is_not_re_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnncc.pipeline.differences", lambda *_: pytest.fail("re-executed"))
    outcome = run_pass(a_pass(lambda graph: graph), BEFORE, GENERIC)
    assert outcome.graph is BEFORE


def test_a_pass_may_be_as_inexact_as_it_says() -> None:
    def scaled(graph: Graph) -> Graph:
        """w x as 3 (w / 3) x: another rounding."""
        rewrite = Rewrite(graph)
        node = next(n for n in graph.nodes if isinstance(n.op, MatMul))
        third = rewrite.constant("third", graph.constants[node.inputs[1]] / F(3), Element.F32)
        three = rewrite.constant("three", np.asarray(F(3)), Element.F32)
        total = rewrite.node(MatMul(), (node.inputs[0], third), rewrite.fresh("sum"), node.origin)
        rewrite.replace(
            node,
            [total, rewrite.node(ew.Mul(), (total.output, three), node.output, node.origin)],
        )
        return rewrite.finish()

    assert "differs in" in broken(scaled)
    run_pass(a_pass(scaled, Exactness.REDUCTION_ORDER), BEFORE, GENERIC)


# --- The runner's own checks at the boundaries ----------------------------------------------------


def with_pipeline(monkeypatch: pytest.MonkeyPatch, *passes: Pass) -> None:
    monkeypatch.setattr("bnncc.pipeline.PIPELINE", passes)


def test_what_is_left_at_the_end_must_be_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    with_pipeline(monkeypatch, *PIPELINE[: PIPELINE.index(LOWER_KERNELS)])
    with pytest.raises(InternalError, match="no graph of stage packed") as caught:
        run_pipeline(networks()["classic"], GENERIC)
    assert caught.value.code == "BNN090"
    assert "W6" in caught.value.diagnostics[0].why


def test_packed_and_folded_are_compared_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def double_a_tile(graph: Graph) -> Graph:
        name = next(n for n in graph.constants if n.endswith(".tiles"))
        array = graph.constants[name] * F(2)
        array.flags.writeable = False
        return dataclasses.replace(graph, constants={**graph.constants, name: array})

    # Hidden from the check of the pass itself, to see that the one at the end stands alone.
    monkeypatch.setattr("bnncc.pipeline.differences", lambda *_: [])
    sabotage = dataclasses.replace(a_pass(double_a_tile), requires=Stage.BINARY)
    with_pipeline(monkeypatch, *PIPELINE, sabotage)
    with pytest.raises(InternalError, match="the packed graph computes another y") as caught:
        run_pipeline(BEFORE, GENERIC)
    assert caught.value.code == "BNN090"
