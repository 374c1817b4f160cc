"""binarise_weights on levels of any grid: k-bit activations, ternary and two-valued weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import PoolBits, XnorConv
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, MatMul, WindowSum
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Exactness
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from bnncc.passes.transplant import source_name
from bnncc.pipeline import PIPELINE
from tests.ir.orders import fma
from tests.ir.sketch import F, Sketch, only, ops
from tests.passes import images
from tests.passes.applying import GENERIC, apply
from tests.passes.images import bits_in, conv, summed

LEVELS: dict[str, tuple[float, ...]] = {
    "bipolar": (-1, 1),
    "ternary": (-1, 0, 1),
    "scaled": (-0.3, 0.3),
    "scaled ternary": (-0.3, 0, 0.3),
    "0 and 1": (0, 1),
    "two off zero": (0.2, 0.9),
    "sign off zero": (-0.4, 0.1, 0.6),
    "2 bits": (0, 0.5, 1, 1.5),
    "2 bits of thirds": tuple(i / 3 for i in range(4)),
    "signed": (-1, -0.5, 0, 0.5),
    "missing levels": (0, 0.25, 1.75),
    "4 bits": tuple(i / 15 for i in range(16)),
    "falling": (1, 0.5, 0),
}
SEVERAL = {
    "2 bits": [-3, -1, 1, 3],
    "4 bits": list(range(-15, 16, 2)),
    "integers": list(range(-7, 8)),
    "3-bit codes": [-7, -5, -3, -1, 1, 3, 5, 7],
}
"""name -> the integers that weights are made of"""
KINDS = ["binary", "ternary", "two values", *SEVERAL]
WITH_OFFSETS = ("two values", "3-bit codes")
OFF_ZERO = ("two off zero", "sign off zero")

GROUPS = {"one group": (1, 5, 4), "two groups": (2, 3, 3), "depthwise": (5, 1, 2)}
"""name -> (groups, channels in, channels out, of each)"""


def weights_of(kind: str, shape: Sequence[int], seed: int = 3) -> Array:
    """Return weights whose channels have their own magnitudes, some of them powers of two."""
    random = np.random.default_rng(seed)
    w = random.choice(np.array([-1, 1], F), tuple(shape))
    alpha = np.array([1, 0.5, 0.1, 0, 1 / 3, 3])
    if kind == "ternary":
        w *= random.integers(0, 2, w.shape).astype(F)
        w.reshape(len(w), -1)[:, 0] = 1
    if kind in SEVERAL:
        w = random.choice(np.array(SEVERAL[kind], F), w.shape)
        w.reshape(len(w), -1)[:, 0], w.reshape(len(w), -1)[:, -1] = (
            SEVERAL[kind][0],
            SEVERAL[kind][-1],
        )
    w = images.scaled(alpha, w)
    if kind in ("two values", "3-bit codes"):
        offset = np.resize(np.array([0.25, -0.5, 0.01, 1, 0, -3], F), len(w))
        w = w + offset.reshape(-1, *(1,) * (w.ndim - 1))
    return w


def layer(
    name: str, groups: str, levels: Sequence[float], kind: str, *, bias: bool = False
) -> Sketch:
    window, sizes = images.WINDOWS[name]
    count, depth, outs = GROUPS[groups]
    s = Sketch(shape=(1, count * depth, *sizes))
    w = weights_of(kind, (count * outs, depth, *window.kernel))
    conv(s, bits_in(s, levels), w, window, count, bias=np.arange(len(w)) / 3 if bias else None)
    return s


def binarised(before: Graph) -> Graph:
    outcome = apply(BINARISE_WEIGHTS, before)
    assert outcome.refusals == ()
    return apply(ELIMINATE_DEAD, outcome.graph).graph


def around_thresholds(shape: Sequence[int], seed: int) -> Array:
    """Return reals on, below and between thresholds that lie in halves from 0."""
    random = np.random.default_rng(seed)
    x = (random.integers(-2, 16, (6, *shape[1:])) / 2).astype(F)
    x[0], x[1] = -1, 100
    x[3] = np.nextafter(x[3], F(-np.inf))
    return x


def check(before: Graph, after: Graph, count: int, *, exact: bool = True) -> None:
    """Hold the layer's value to the sum of its real terms in double, and to float32's own."""
    value = after.producers["y"]
    x = around_thresholds(before.types["x"].shape, 8)
    stored, model = (interpret.run_stored(g, {"x": x}) for g in (after, before))
    w = before.constants["w"]
    window = only(after, BinaryConv).op.window
    wanted = summed(model["s"], w, window, count)
    slack = after.constants[value.inputs[-1]].reshape(-1, *(1,) * len(window.axes))
    assert (np.abs(stored["y"] - wanted) <= slack + 1e-7 * np.abs(wanted)).all()
    assert (np.abs(stored["y"].astype(np.float64) - model["y"]) <= slack).all()
    if exact:
        assert (slack == 0).any()
    n = stored[value.inputs[0]]
    pad = only(after, BinaryConv).op.pad
    signs = after.constants["w.sign"]
    integers = stored[only(after, BinaryConv).inputs[0]].astype(np.int64)
    np.testing.assert_array_equal(n, summed(integers, signs, window, count, pad))
    assert differences(before, after, Exactness.REDUCTION_ORDER) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["3x3", "3x3 padded", "asymmetric", "dilated 1-D"])
def test_convolutions_of_levels(name: str, levels: str, kind: str) -> None:
    before = layer(name, "two groups", LEVELS[levels], kind).done()
    after = binarised(before)
    two = kind in WITH_OFFSETS
    assert ops(after) == [
        "Step",
        *(["WindowSum"] if two else []),
        "BinaryConv",
        "DequantizeTwo" if two else "Dequantize",
    ]
    elements = {"ternary": Element.TERNARY, "2 bits": Element.S2, "4 bits": Element.S4}
    elements |= {"integers": Element.S3, "3-bit codes": Element.S3}
    assert after.types["w.sign"].element is elements.get(kind, Element.BIPOLAR)
    window, sizes = images.WINDOWS[name]
    border = levels in OFF_ZERO and window.is_padded(sizes)
    assert (after.constants["y.shift"].ndim > 1) == border
    rounds = levels in ("2 bits of thirds", "4 bits", "scaled", "scaled ternary", *OFF_ZERO)
    check(before, after, 2, exact=not rounds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", GROUPS)
def test_groups_of_levels(groups: str, kind: str) -> None:
    before = layer("3x3 padded", groups, LEVELS["sign off zero"], kind).done()
    after = binarised(before)
    count = GROUPS[groups][0]
    if kind in WITH_OFFSETS:
        sums = only(after, WindowSum)
        channels = 1 if count == 1 else before.types["y"].shape[1]
        assert sums.op == WindowSum(images.WINDOWS["3x3 padded"][0], count, 0, channels)
        assert after.types[sums.output].shape[1] == channels
    check(before, after, count, exact=False)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_dense_layers_of_levels(kind: str, levels: str) -> None:
    s = Sketch(17)
    w = weights_of(kind, (6, 17))
    s(MatMul(), bits_in(s, LEVELS[levels]), s.const(w, "w"), to="y", origin=["fc"])
    before = s.done()
    after = binarised(before)
    assert only(after, BinaryDense).origin == ("fc",)
    check(before, after, 1, exact=False)


@pytest.mark.parametrize("levels", ["ternary", "2 bits", "signed", "0 and 1", "missing levels"])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_values_that_no_order_changes(kind: str, levels: str) -> None:
    """Where every float32 order gives the same, the reference does too: to the bit."""
    before = layer("3x3 padded", "one group", LEVELS[levels], kind).done()
    after = binarised(before)
    slack = after.constants[after.producers["y"].inputs[-1]]
    sure = slack == 0
    assert sure[[0, 1, 3]].all()
    assert not sure[2]
    x = around_thresholds(before.types["x"].shape, 9)
    old, new = (interpret.run(g, {"x": x})["y"] for g in (before, after))
    np.testing.assert_array_equal(new[:, sure], old[:, sure])


def test_two_values_in_text() -> None:
    s = Sketch(4)
    w = s.const([[0.75, 0.25, 0.25, 0.75], [-1, -1, 1, -1]], "w")
    s(MatMul(), bits_in(s), w, to="y", origin=["fc"])
    after = binarised(s.done())
    value = after.producers["y"]
    assert value.inputs == ("y.acc", "y.total", "y.scale", "y.weight", "y.shift", "y.slack")
    scale, weight, shift, slack = (after.constants[name].tolist() for name in value.inputs[2:])
    assert (scale, weight, shift, slack) == ([0.25, 1], [0.5, 0], [0, 0], [0, 0])
    assert [n.name for n in after.nodes] == ["s", "y.total", "y.acc", "y"]
    assert after.producers["y.total"].inputs == ("s",)


def test_real_activations_of_two_values_stay_real() -> None:
    s = Sketch(3)
    s(MatMul(), "x", s.const([[0.75, 0.25, 0.25], [-1, -1, 1]], "w"), to="y", origin=["fc"])
    graph = s.done()
    outcome = BINARISE_WEIGHTS.apply(graph, GENERIC)
    assert outcome.graph is graph
    reason = "1 of 2 output channels have weights other than +-alpha"
    assert [(r.node, r.reason) for r in outcome.refusals] == [("y", reason)]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_codes_of_a_camera(kind: str) -> None:
    """Bytes under (u - mean) / std: no code stands for the 0 around the image."""
    window, sizes = images.WINDOWS["3x3 padded"]
    s = Sketch(element=Element.U8, shape=(1, 3, *sizes))
    real = s(ew.Div(), s(ew.Sub(), s(ew.Cast(Element.F32), "x"), 120.5), 64.0, to="s")
    w = weights_of(kind, (6, 3, 3, 3))
    conv(s, real, w, window)
    before = s.done()
    after = binarised(before)
    x = np.random.default_rng(2).integers(0, 256, (5, 3, *sizes)).astype(np.uint8)
    x[0], x[1] = 0, 255
    old, new = (interpret.run_stored(g, {"x": x}) for g in (before, after))
    wanted = summed(old["s"], w, window, 1)
    slack = after.constants["y.slack"].reshape(-1, 1, 1)
    assert (np.abs(new["y"] - wanted) <= slack).all()
    assert (np.abs(new["y"].astype(np.float64) - old["y"]) <= slack).all()
    assert (slack[[0, 1, 3]] == 0).all()
    np.testing.assert_array_equal(new["y"][:, [0, 1, 3]], old["y"][:, [0, 1, 3]])


@given(st.sampled_from(sorted(LEVELS)), st.sampled_from(KINDS), st.data())
def test_no_order_of_summing_lies_further_off_than_the_slack(
    levels: str, kind: str, data: st.DataObject
) -> None:
    seed, k = data.draw(st.integers(0, 2**32)), data.draw(st.integers(4, 8))
    random = np.random.default_rng(seed)
    w = weights_of(kind, (6, k), seed)
    s = Sketch(k)
    s(MatMul(), bits_in(s, LEVELS[levels]), s.const(w, "w"), to="y", origin=["fc"])
    before = s.done()
    after = binarised(before)
    x = (random.integers(-1, 16, (4, k)) / 2).astype(F)
    terms = interpret.run_stored(before, {"x": x})["s"]
    own = interpret.run(after, {"x": x})["y"]
    slack = after.constants[after.producers["y"].inputs[-1]]
    for _ in range(8):
        order = random.permutation(k)
        plain = np.zeros((4, 6), F)
        fused = np.zeros((4, 6), F)
        for i in order:
            plain += terms[:, i : i + 1] * w[:, i]
            fused = fma(*np.broadcast_arrays(terms[:, i : i + 1], w[:, i], fused))
        for other in (plain, fused):
            assert (np.abs(other.astype(np.float64) - own) <= slack).all()


def test_sums_that_float32_does_not_hold_are_refused() -> None:
    s = Sketch(65794)
    w = np.where(np.arange(65794) % 2, F(0.75), F(0.25))[np.newaxis]
    s(MatMul(), bits_in(s), s.const(w, "w"), to="y", origin=["fc"])
    (refusal,) = apply(BINARISE_WEIGHTS, s.done()).refusals
    assert refusal.reason.startswith("its 65794 terms could sum to more")


# --- Whole networks -------------------------------------------------------------------------------


def two_layers(levels: Sequence[float], kind: str, *, pool: bool) -> Graph:
    """Two convolutions of levels, hostile statistics and perhaps a pool between them.

    All weights and levels are multiples of powers of two, so that no sum rounds.
    """
    random = np.random.default_rng(4)
    s = Sketch(shape=(1, 6, 6, 5))
    x = bits_in(s, levels)
    integers = {"ternary": [-1, 0, 1], "two values": [-0.25, 0.75], **SEVERAL}.get(kind, [-1, 1])
    for i, count in enumerate((6, 4)):
        w = random.choice(np.array(integers), (count, 6, 3, 3)) * 2.0 ** -(i + 1)
        x = conv(s, x, w, images.WINDOWS["3x3 padded"][0], to=f"y{i}")
        if i:
            break
        gamma = np.array([1, -1, 0, 0.5, -3, 2], F)
        stats = (gamma, random.standard_normal(6).astype(F), np.zeros(6, F), np.full(6, 9, F))
        x = s.batch_norm(x, stats, to="normal")
        if pool:
            x = s(MaxPool(Window((Axis(2, 2), Axis(2, 1)))), x, to="pool")
        ts = [np.linspace(-1, 1, len(levels) - 1) + 0.1 * c for c in range(6)]
        s(ew.Step(Element.F32), x, ts, [list(levels)] * 6, to="s1", origin=["act1"])
        x = "s1"
    return s.done()


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("kind", ["binary", "ternary", "two values", "2 bits", "integers"])
@pytest.mark.parametrize("levels", [(0, 0.5, 1, 1.5), (-1, -0.5, 0, 0.5), (0.25, 0.5), (0, 1, 7)])
def test_networks_of_levels(levels: Sequence[float], kind: str, pool: bool) -> None:
    before = two_layers(levels, kind, pool=pool)
    after = before
    certificates = []
    for step in PIPELINE[PIPELINE.index(BINARISE_WEIGHTS) :]:
        outcome = apply(step, after)
        after = outcome.graph
        certificates += outcome.certificates
        assert not outcome.refusals
    (proof,) = (c for c in certificates if c.layer.startswith("s1"))
    assert source_name(proof.layer) == "s1"
    # Over the accumulator where it alone makes the value, else over the value.
    border = 0 not in levels
    assert (proof.domain.element == "f32") == (border or kind == "two values")
    kernels = [n for n in after.nodes if isinstance(n.op, XnorConv)]
    assert len(kernels) == 2
    assert any(isinstance(n.op, PoolBits) for n in after.nodes) == pool
    for seed in range(3):
        x = around_thresholds((1, 6, 6, 5), seed)
        old, new = (interpret.run(g, {"x": x})["y1"] for g in (before, after))
        np.testing.assert_array_equal(new, old)
