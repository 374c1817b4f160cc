"""The re-execution check: silent about honest passes, and never silent about sabotaged ones.

Each test applies a pass, breaks its result in one place in a way that changes what some input
gives, and expects to hear of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import SignSum, XnorConv
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, MatMul
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Exactness, Pass
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.equivalence import differences
from bnncc.passes.flip_falling import FLIP_FALLING
from bnncc.passes.fold_constants import FOLD_CONSTANTS
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.levels import never
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.recognise_steps import RECOGNISE_STEPS
from bnncc.passes.remove_identities import REMOVE_IDENTITIES
from bnncc.passes.resolve_sign_zero import RESOLVE_SIGN_ZERO
from bnncc.pipeline import PIPELINE
from tests.ir.sketch import INF, TINY, F, Sketch
from tests.passes.applying import GENERIC, apply, context, grounded, upto
from tests.passes.epilogues import SIGN, Layer, epilogues
from tests.passes.networks import networks

Sabotage = Iterator[tuple[str, Graph]]


def changed(graph: Graph, name: str, index: tuple[int, ...], value: object) -> Graph:
    """Return the graph with one element of a constant changed."""
    array = graph.constants[name].copy()
    array[index] = value
    array.flags.writeable = False
    return dataclasses.replace(graph, constants={**graph.constants, name: array})


def caught(step: Pass, before: Graph, broken: Sabotage) -> None:
    """Assert that every sabotaged graph is told from the one before the pass."""
    missed, count = [], 0
    for label, graph in broken:
        count += 1
        if not differences(before, graph, step.exactness):
            missed.append(label)
    assert count
    assert not missed, f"{len(missed)} of {count} went unnoticed: {missed[:5]}"


def element_by_element(graph: Graph, name: str, change: Callable[[Array], list]) -> Sabotage:
    """Yield the graph with each element of a constant changed in each of the ways there are."""
    for index, value in np.ndenumerate(graph.constants[name]):
        for new in change(value):
            yield f"{name}{list(index)} = {value} became {new}", changed(graph, name, index, new)


def either_side(value: Array) -> list:
    """The next integers or floats; nothing for a threshold that stands for never."""
    if value == never(np.asarray(value)):
        return []
    if value.dtype == np.float32:
        return [np.nextafter(value, INF), np.nextafter(value, -INF)]
    return [value + 1, value - 1]


# --- Honest passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(networks()))
@pytest.mark.parametrize("seed", [10, 20])
def test_silent_about_honest_passes(name: str, seed: int) -> None:
    for target, mode in (("generic", "auto"), ("x86-64", "plus"), ("generic", "exact")):
        given = context(target, mode)
        for step in PIPELINE:
            before = upto(step, networks(seed)[name], given)
            after = step.apply(before, given).graph
            assert differences(before, after, step.exactness) == []


def test_silent_about_the_same_object() -> None:
    graph = networks()["classic"]
    assert differences(graph, graph, Exactness.BITWISE) == []


# --- Dull sabotage: other numbers -----------------------------------------------------------------


def bump(value: Array) -> list:
    return [value + np.abs(value) * value.dtype.type(0.01) + value.dtype.type(0.01), -value - 1]


def flipped(value: Array) -> list:
    return [-value]


def test_fold_constants_with_another_value() -> None:
    before = networks()["everything"]
    after = apply(FOLD_CONSTANTS, before).graph
    (name,) = after.constants.keys() - before.constants.keys()
    caught(FOLD_CONSTANTS, before, element_by_element(after, name, bump))


def test_remove_identities_with_another_reader() -> None:
    s = Sketch(3, stage=Stage.FLOAT)
    a = s(ew.Neg(), "x", to="a")
    s(ew.Relu(), s(ew.Identity(), a), to="y")
    before = s.done()
    rewrite = Rewrite(before)
    identity = before.producers["t1"]
    rewrite.bypass(identity, "x")
    caught(REMOVE_IDENTITIES, before, iter([("past the Neg as well", rewrite.finish())]))


def moved_twice(start: str) -> Graph:
    """Return a movement that is read by others too, and then joined with one behind it."""
    s = Sketch(stage=Stage.FLOAT, shape=(1, 2, 3))
    s(Reshape((1, 3, 2)), s(ew.Neg(), "x", to=start) if start != "x" else start, to="moved")
    s(ew.Identity(), "moved", to="same")
    s(Reshape((1, 6)), "same", to="flat")
    s(ReduceMean((2,), keepdims=True), "same", to="mean")
    return s.done("flat", "mean")


@pytest.mark.parametrize("start", ["x", "negated"])
def test_what_one_side_reads_further_up_is_the_same_to_both(start: str) -> None:
    """Afterwards `flat` reads what `moved` is made of, and `mean` still reads `moved`."""
    before = moved_twice(start)
    after = apply(REMOVE_IDENTITIES, before).graph
    assert after.producers["flat"].inputs == (start,)
    assert after.producers["mean"].inputs == ("moved",)
    assert differences(before, after, Exactness.BITWISE) == []


def test_what_one_side_reads_too_far_up_is_noticed() -> None:
    before = moved_twice("negated")
    rewrite = Rewrite(apply(REMOVE_IDENTITIES, before).graph)
    flat = rewrite.graph.producers["flat"]
    rewrite.replace(flat, [rewrite.node(flat.op, ("x",), "flat", flat.origin)])
    assert len(differences(before, rewrite.finish(), Exactness.BITWISE)) == 1


def test_eliminate_dead_with_a_live_node_skipped() -> None:
    s = Sketch(3)
    a = s(ew.Clip(-1, 1), "x", to="a")
    s(ew.Add(), a, s.const([1, 2, 3], "bias"), to="b")
    s(ew.Relu(), "b", to="y")
    before = s.done()
    for skipped in ("a", "b"):
        rewrite = Rewrite(before)
        node = before.producers[skipped]
        rewrite.bypass(node, node.inputs[0])
        caught(ELIMINATE_DEAD, before, iter([(skipped, rewrite.finish())]))


def spelled_signs() -> dict[str, Graph]:
    """Quantisers before recognition, by the name of what spells them."""
    found = {}
    s = Sketch(3)
    s(ew.Sign(), "x", to="y")
    found["sign"] = s.done()
    s = Sketch(3)
    s(ew.Where(), s(ew.GreaterOrEqual(), "x", 0.0), 1.0, -1.0, to="y")
    found["where"] = s.done()
    s = Sketch(3)
    s(ew.Cast(Element.F32), s(ew.Greater(), "x", [0.5, -2.0, 1e-3]), to="y")
    found["rsign"] = s.done()
    s = Sketch(3)
    s(ew.Mul(), s(ew.Round(), s(ew.Clip(0, 3), "x")), 0.25, to="y")
    found["quantiser"] = s.done()
    return found


@pytest.mark.parametrize("name", spelled_signs())
def test_recognise_steps_with_another_level(name: str) -> None:
    before = spelled_signs()[name]
    after = apply(RECOGNISE_STEPS, before).graph
    reachable = 4 if name == "quantiser" else None  # what Clip's bounds exclude is no sabotage
    broken = element_by_element(after, "y.levels", bump)
    caught(RECOGNISE_STEPS, before, (b for b in broken if reachable is None or "4]" not in b[0]))


@pytest.mark.parametrize("name", ["sign", "where", "rsign"])
def test_recognise_steps_with_a_threshold_one_float_off(name: str) -> None:
    before = spelled_signs()[name]
    after = apply(RECOGNISE_STEPS, before).graph
    broken = element_by_element(after, "y.thresholds", either_side)
    # Moving +tiny down to 0 leaves the middle level without a float of its own: that counts too.
    caught(RECOGNISE_STEPS, before, broken)


@pytest.mark.parametrize("name", ["classic", "alpha", "three levels on codes", "everything"])
@pytest.mark.parametrize("what", ["sign", "scale", "shift"])
def test_binarise_weights_with_one_number_wrong(name: str, what: str) -> None:
    before = upto(BINARISE_WEIGHTS, networks()[name])
    after = apply(BINARISE_WEIGHTS, before).graph
    for constant in after.constants.keys() - before.constants.keys():
        if constant.endswith(f".{what}"):
            change = flipped if what == "sign" else bump
            caught(BINARISE_WEIGHTS, before, element_by_element(after, constant, change))


def test_binarise_weights_allows_for_the_order_of_a_sum_and_no_more() -> None:
    s = Sketch(40)
    random = np.random.default_rng(0)
    w = random.choice(np.array([-1, 1], F), (4, 40)) * F(0.3)
    s(MatMul(), "x", s.const(w, "w"), to="y")
    before = s.done()
    after = apply(BINARISE_WEIGHTS, before).graph
    alpha = after.constants["y.alpha"][0]

    def slightly(value: Array) -> list:
        return [value * F(1 + 1e-4), value * F(1 - 1e-4)]

    assert differences(before, after, Exactness.REDUCTION_ORDER) == []
    assert differences(before, after, Exactness.BITWISE) != []
    assert alpha == F(0.3)
    caught(BINARISE_WEIGHTS, before, element_by_element(after, "y.alpha", slightly))


@pytest.mark.parametrize("mode", ["plus", "minus"])
def test_resolve_sign_zero_with_another_decision(mode: str) -> None:
    s = Sketch(3)
    s(ew.Step(Element.TERNARY), "x", *SIGN, to="y")
    before = s.done()
    after = apply(RESOLVE_SIGN_ZERO, before, context(sign_zero=mode)).graph

    def elsewhere(value: Array) -> list:
        return [F(0.5), F(-0.5), F(1e-3), -3 * TINY, 3 * TINY]

    caught(RESOLVE_SIGN_ZERO, before, element_by_element(after, "y.thresholds", elsewhere))
    caught(RESOLVE_SIGN_ZERO, before, element_by_element(after, "y.levels", flipped))
    # Where sign(0) goes is the pass's own decision, and no difference.
    other = apply(RESOLVE_SIGN_ZERO, before, context(sign_zero="plus")).graph
    assert differences(before, other, Exactness.ASSUMPTION) == []
    assert differences(before, other, Exactness.BITWISE) != []


@pytest.mark.parametrize("name", ["classic", "three levels on codes", "everything"])
@pytest.mark.parametrize("what", [".scale", ".shift", ".alpha", ".negated"])
def test_canonical_affine_with_one_number_wrong(name: str, what: str) -> None:
    before = upto(CANONICAL_AFFINE, networks()[name])
    after = apply(CANONICAL_AFFINE, before).graph

    def wrong(value: Array) -> list:
        # A scale of 0 may be off by less than its shift rounds to: no input would tell.
        return [-value, value * F(1 + 1e-4)] if value else [F(1e-2)]

    for constant in after.constants.keys() - before.constants.keys():
        if constant.endswith(what):
            caught(CANONICAL_AFFINE, before, element_by_element(after, constant, wrong))


def test_canonical_affine_without_its_shift() -> None:
    before = upto(CANONICAL_AFFINE, networks()["classic"])
    after = apply(CANONICAL_AFFINE, before).graph
    add = after.producers[after.outputs[0]]
    rewrite = Rewrite(after)
    mul = after.producers[add.inputs[0]]
    rewrite.replace(mul, [])
    rewrite.replace(add, [Node(mul.op, add.name, mul.inputs, add.outputs, add.origin)])
    caught(CANONICAL_AFFINE, before, iter([("dropped", rewrite.finish())]))


# --- Sharp sabotage: decisions one accumulator off ------------------------------------------------


def moved_thresholds(graph: Graph, name: str, n: list[int]) -> Sabotage:
    """Yield the graph with each reachable threshold one accumulator further up or down."""
    stride = n[1] - n[0]

    def moved(value: Array) -> list:
        return [value + stride, value - stride] if n[0] < value <= n[-1] else []

    return element_by_element(graph, name, moved)


INTEGER_LAYERS = [
    (Element.BIPOLAR, 7, "sign(bn)"),
    (Element.BIPOLAR, 65, "quantiser"),
    (Element.TERNARY, 64, "three-level ties"),
    (Element.U8, 2, "prelu"),
]


@pytest.mark.parametrize(("element", "k", "name"), INTEGER_LAYERS)
def test_fold_thresholds_one_accumulator_off(element: Element, k: int, name: str) -> None:
    layer = epilogues(element, k)[name]
    before = layer.graph()
    after = apply(FOLD_THRESHOLDS, before).graph
    t = after.producers["y"].inputs[1]
    caught(FOLD_THRESHOLDS, before, moved_thresholds(after, t, layer.accumulators()))


@pytest.mark.parametrize(("element", "k", "name"), INTEGER_LAYERS)
def test_fold_thresholds_with_a_channel_upside_down(element: Element, k: int, name: str) -> None:
    layer = epilogues(element, k)[name]
    before = layer.graph()
    after = apply(FOLD_THRESHOLDS, before).graph
    v = after.producers["y"].inputs[2]

    def upside_down() -> Sabotage:
        levels = after.constants[v]
        for c, row in enumerate(levels):
            if (row != row[::-1]).any() and abs(row[0] - row[-1]) > 0:
                yield f"channel {c}", changed(after, v, (c,), row[::-1])

    caught(FOLD_THRESHOLDS, before, upside_down())


def test_fold_thresholds_one_float_off() -> None:
    before = epilogues(Element.F32, 5)["sign(bn)"].graph()
    after = apply(FOLD_THRESHOLDS, before).graph
    t = after.producers["y"].inputs[1]
    caught(FOLD_THRESHOLDS, before, element_by_element(after, t, either_side))


def thresholded(element: Element, k: int = 9, *, falls: bool) -> Graph:
    """Five channels with thresholds in the middle of what sums reach, falling but for the last."""
    channels = 5
    random = np.random.default_rng(k)
    s = Sketch(k, element)
    w = random.choice(np.array([-1, 1], np.int8), (channels, k))
    n = s(BinaryDense(), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    held = Element.F32 if element is Element.F32 else Element.I32
    thresholds = [[0.5 * c] for c in range(channels)]
    if held is Element.I32:
        thresholds = [[2 * c - 3] for c in range(channels)]  # odd, as sums of 9 are
    levels = [[1, -1] if falls and c < channels - 1 else [-1, 1] for c in range(channels)]
    s(ew.Step(Element.BIPOLAR), n, s.const(thresholds, "t", held), s.const(levels, "v"), to="y")
    return s.done()


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
@pytest.mark.parametrize("what", ["w", "t", "v"])
def test_flip_falling_with_one_number_wrong(element: Element, what: str) -> None:
    before = thresholded(element, falls=True)
    after = apply(FLIP_FALLING, before).graph
    stride = 2 if element is Element.BIPOLAR else 1
    change = flipped if what != "t" else lambda v: [v + stride, v - stride]
    caught(FLIP_FALLING, before, element_by_element(after, f"{what}.flipped", change))


@pytest.mark.parametrize("what", ["w", "t", "v"])
def test_flip_falling_over_floats_with_one_number_wrong(what: str) -> None:
    before = thresholded(Element.F32, 1, falls=True)
    after = apply(FLIP_FALLING, before).graph
    change = flipped if what != "t" else either_side
    caught(FLIP_FALLING, before, element_by_element(after, f"{what}.flipped", change))


def lowered(before: Graph) -> tuple[Graph, Node]:
    """Return the graph of kernels, and the one that has the layer's weights."""
    after = apply(LOWER_KERNELS, before).graph
    (node,) = (node for node in after.nodes if isinstance(node.op, XnorConv | SignSum))
    return after, node


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
def test_lower_kernels_with_one_weight_bit_flipped(element: Element) -> None:
    before = grounded(thresholded(element, falls=False))
    after, node = lowered(before)
    channels, k = before.constants["w"].shape

    def one_bit() -> Sabotage:
        words = after.constants[node.inputs[1]]
        nr = words.shape[-1]
        for c in range(channels):
            for j in range(k):
                index = (c // nr, 0, c % nr)
                value = words[index] ^ words.dtype.type(1 << j)
                yield f"weight {c}, {j}", changed(after, node.inputs[1], index, value)

    caught(LOWER_KERNELS, before, one_bit())


@pytest.mark.parametrize(
    "element", [Element.BIPOLAR, Element.TERNARY, Element.U8], ids=lambda e: e.value
)
def test_lower_kernels_with_a_limit_one_mismatch_off(element: Element) -> None:
    k = 3 if element is Element.U8 else 9
    before = grounded(thresholded(element, k, falls=False))
    after, node = lowered(before)
    # A limit of -1 is never reached, and so is one of -2.
    other_limits = lambda v: [v + 1, v - 1] if v >= 0 else [v + 1]  # noqa: E731
    caught(LOWER_KERNELS, before, element_by_element(after, node.inputs[2], other_limits))


def test_lower_kernels_with_a_decision_one_float_off() -> None:
    before = thresholded(Element.F32, 1, falls=False)
    after, node = lowered(before)
    caught(LOWER_KERNELS, before, element_by_element(after, node.inputs[-1], either_side))


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.U8], ids=lambda e: e.value)
def test_lower_kernels_with_a_base_off(element: Element) -> None:
    layer = Layer(element, 3, [])
    before = grounded(layer.sketch().done("v"))
    after, node = lowered(before)
    base = node.inputs[2]
    assert after.constants[base].dtype == np.int32
    caught(LOWER_KERNELS, before, element_by_element(after, base, either_side))


# --- Sabotage of the graph itself -----------------------------------------------------------------


def test_a_constant_changed_behind_an_unchanged_node() -> None:
    before = networks()["plain"]
    for name in before.constants:
        caught(ELIMINATE_DEAD, before, element_by_element(before, name, bump))


def test_operands_exchanged() -> None:
    s = Sketch(3)
    s(ew.Sub(), s(ew.Relu(), "x", to="a"), s(ew.Abs(), "x", to="b"), to="y")
    before = s.done()
    rewrite = Rewrite(before)
    rewrite.replace(
        before.producers["y"],
        [rewrite.node(ew.Sub(), ("b", "a"), "y", before.producers["y"].origin)],
    )
    caught(CANONICAL_AFFINE, before, iter([("b - a", rewrite.finish())]))


def test_another_operation() -> None:
    s = Sketch(3)
    s(ew.Relu(), "x", to="y")
    before = s.done()
    for op in (ew.LeakyRelu(0.01), ew.Identity(), ew.Clip(0, 1), ew.Abs(), ew.Neg()):
        rewrite = Rewrite(before)
        old = before.producers["y"]
        rewrite.replace(old, [rewrite.node(op, ("x",), "y", old.origin)])
        caught(CANONICAL_AFFINE, before, iter([(str(op), rewrite.finish())]))


def test_zeros_of_the_other_sign_are_a_difference() -> None:
    s = Sketch(3)
    s(ew.Add(), "x", 0.0, to="y")
    before = s.done()
    rewrite = Rewrite(before)
    old = before.producers["y"]
    rewrite.replace(old, [rewrite.node(ew.Identity(), ("x",), "y", old.origin)])
    caught(CANONICAL_AFFINE, before, iter([("x + 0 is not x", rewrite.finish())]))


def test_value_exactness_is_about_zeros_only() -> None:
    s = Sketch(3)
    s(ew.Add(), "x", 0.0, to="y")
    before = s.done()

    def instead(op: ew.Elementwise) -> list[str]:
        rewrite = Rewrite(before)
        old = before.producers["y"]
        rewrite.replace(old, [rewrite.node(op, ("x",), "y", old.origin)])
        return differences(before, rewrite.finish(), Exactness.VALUE)

    assert instead(ew.Identity()) == []
    for op in (ew.Neg(), ew.Abs(), ew.Relu(), ew.LeakyRelu(1 - 2**-24)):
        assert instead(op) != [], op


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_threshold_that_no_number_reaches_is_not_reached_by_infinity(level: float) -> None:
    """Channel 1 is constant; x / 0 is infinite. One comparison with infinity is noticed."""
    s = Sketch(2)
    quotient = s(ew.Div(), "x", [0.0, 0.0], to="quotient")
    s(ew.Step(Element.BIPOLAR), quotient, [[1.0], [INF]], [[1.0, -1.0], [level, level]], to="bits")
    s(BinaryDense(), "bits", s.const(np.ones((2, 2)), "weights", Element.BIPOLAR))
    before = s.done("bits", "t2")
    after = apply(LOWER_KERNELS, before).graph
    assert differences(before, after, Exactness.BITWISE) == []
    (name,) = (name for name in after.constants if "decisions" in name)
    unmet = np.isnan(after.constants[name])
    assert unmet.any()
    reached = changed(after, name, tuple(np.argwhere(unmet)[0]), INF)
    assert differences(before, reached, Exactness.BITWISE) != []


@pytest.mark.parametrize(("threshold", "differs"), [(-1, False), (-2, True)])
def test_a_layer_spreads_a_sign_of_no_number(threshold: float, differs: bool) -> None:
    """Roots of negative probes have no sign; what takes its place, the layer spreads."""
    spellings = (((), 1, [1, -1]), ((ew.Neg(),), np.nextafter(F(threshold), INF), [-1, 1]))
    graphs = []
    for i, (turns, at, levels) in enumerate(spellings):
        s = Sketch(2, shape=(1, 2, 3, 3))
        x = s(ew.Sqrt(), "x", to=f"root{i}")
        for op in turns:
            x = s(op, x, to=f"turned{i}")
        rows = [s.const([row], f"{i}.{len(row)}") for row in ([at], levels)]
        s(ew.Step(Element.BIPOLAR), x, *rows, to=f"bits{i}")
        weights = s.const(np.ones((2, 2, 3, 3)), "weights", Element.BIPOLAR)
        s(BinaryConv(Window((Axis(3, before=1, after=1),) * 2)), f"bits{i}", weights, to="n")
        graphs.append(s.done())
    assert bool(differences(*graphs, Exactness.BITWISE)) == differs


def test_messages_name_the_tensor_and_its_origin() -> None:
    s = Sketch(3)
    s(ew.Relu(), "x", to="y", origin=["layer1.relu"])
    before = s.done()
    rewrite = Rewrite(before)
    old = before.producers["y"]
    rewrite.replace(old, [rewrite.node(ew.Neg(), ("x",), "y", old.origin)])
    (message,) = differences(before, rewrite.finish(), Exactness.BITWISE)
    assert message.startswith("y differs in ")
    assert message.endswith(" values (layer1.relu)")


def test_a_difference_deep_inside_is_found_in_its_region() -> None:
    # The layers above squash everything to one bit; the region is fed its own values.
    before = upto(FOLD_THRESHOLDS, networks()["classic"])
    rewrite = Rewrite(before)
    old = before.producers["bn3"]
    gamma = rewrite.constant("g", before.constants[old.inputs[1]] * F(1.001), Element.F32)
    inputs = (old.inputs[0], gamma, *old.inputs[2:])
    rewrite.replace(old, [rewrite.node(old.op, inputs, "bn3", old.origin)])
    found = differences(before, rewrite.finish(), Exactness.BITWISE)
    assert [message.split()[0] for message in found] == ["bn3"]


def test_probes_do_not_depend_on_chance() -> None:
    before = upto(LOWER_KERNELS, networks()["everything"])
    after = LOWER_KERNELS.apply(before, GENERIC).graph
    name = next(n for n in after.constants if n.endswith(".base"))
    broken = changed(after, name, (0,), 12345)
    assert differences(before, broken, Exactness.BITWISE) == differences(
        before, broken, Exactness.BITWISE
    )
