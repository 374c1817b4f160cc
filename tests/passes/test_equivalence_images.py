"""The re-execution check on images: silent about honest passes, never about sabotaged ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from bnncc.frontends.onnx import load_onnx
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import XnorConv
from bnncc.ir.ops.linear import BinaryConv, Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Pad, Reshape
from bnncc.ir.types import Element, Stage, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Exactness
from bnncc.passes.binarise_weights import BINARISE_WEIGHTS
from bnncc.passes.equivalence import differences
from bnncc.passes.flip_falling import FLIP_FALLING
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.resolve_sign_zero import RESOLVE_SIGN_ZERO
from bnncc.pipeline import PIPELINE
from tests.frontends.builders import saved
from tests.ir.sketch import F, Sketch
from tests.passes.applying import apply, context, grounded, upto
from tests.passes.test_equivalence import Sabotage, caught, changed, either_side
from tests.verification.images import network

SAME = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))
LARGE = (64, 64)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return load_onnx(saved(network(3), tmp_path_factory.mktemp("model"))).graph


@pytest.mark.parametrize("target", ["generic", "x86-64"])
@pytest.mark.parametrize("mode", ["auto", "exact"])
def test_silent_about_honest_passes(graph: Graph, target: str, mode: str) -> None:
    given = context(target, mode)
    for step in PIPELINE:
        before = upto(step, graph, given)
        after = step.apply(before, given).graph
        assert differences(before, after, step.exactness) == []


def numbers_off(before: Graph, after: Graph) -> Sabotage:
    """Yield the graph with something wrong in each constant that the pass made."""
    for name in sorted(after.constants.keys() - before.constants.keys()):
        array = after.constants[name].copy()
        if ".levels" in name or name.endswith(".slack"):
            continue
        if name.endswith((".sign", ".flipped")) and array.dtype == np.int8:
            array.flat[3] *= -1
        elif array.dtype.kind == "u":
            array.flat[0] ^= np.asarray(4, array.dtype)
        elif array.dtype.kind == "i":
            array += 2
        else:
            array = array * array.dtype.type(1.01) + array.dtype.type(0.01)
        array.flags.writeable = False
        yield name, dataclasses.replace(after, constants={**after.constants, name: array})


@pytest.mark.parametrize(
    "step",
    [BINARISE_WEIGHTS, FOLD_THRESHOLDS, FLIP_FALLING, LOWER_KERNELS],
    ids=lambda step: step.name,
)
def test_one_number_wrong(graph: Graph, step: object) -> None:
    before = upto(step, graph)
    caught(step, before, numbers_off(before, apply(step, before).graph))


# --- Layers on images larger than what the check runs on ------------------------------------------


def layer(groups: int = 1, pad: int = 0, *, far: bool = False) -> Graph:
    """Four channels, falling but for the last; `far` thresholds no random bits reach."""
    channels = 6
    random = np.random.default_rng(groups)
    depth = channels // groups
    s = Sketch(shape=(1, channels, *LARGE), element=Element.BIPOLAR)
    w = random.choice(np.array([-1, 1], np.int8), (4, depth, 3, 3))
    s(BinaryConv(SAME, groups, pad), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    k = depth * 9
    thresholds = [[k - 5], [4 - k], [k - 3], [2 - k]] if far else [[1], [-1], [3], [-3]]
    levels = [[1, -1]] * 3 + [[-1, 1]]
    s(ew.Step(Element.BIPOLAR), "n", s.const(thresholds, "t", Element.I32), levels, to="y")
    return grounded(s.done())


def moved(graph: Graph, name: str) -> Sabotage:
    for index, value in np.ndenumerate(graph.constants[name]):
        for new in (value - 2, value + 2):
            yield f"{name}{list(index)} = {new}", changed(graph, name, index, new)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("pad", [0, -1])
def test_thresholds_that_random_bits_never_reach(groups: int, pad: int) -> None:
    before = layer(groups, pad, far=True)
    after = apply(FLIP_FALLING, before).graph
    (step,) = (n for n in after.nodes if n.output == "y")
    caught(FLIP_FALLING, before, moved(after, step.inputs[1]))
    before = after
    after = apply(LOWER_KERNELS, before).graph
    (kernel,) = (n for n in after.nodes if isinstance(n.op, XnorConv))
    caught(LOWER_KERNELS, before, moved(after, kernel.inputs[-1]))


@pytest.mark.parametrize("groups", [1, 2])
def test_every_weight_counts(groups: int) -> None:
    before = apply(FLIP_FALLING, layer(groups)).graph
    after = apply(LOWER_KERNELS, before).graph
    (kernel,) = (n for n in after.nodes if isinstance(n.op, XnorConv))
    words = after.constants[kernel.inputs[1]]
    op = kernel.op
    assert isinstance(op, XnorConv)

    def one_bit() -> Sabotage:
        for block, tap, lane in np.ndindex(*words.shape):
            if lane < 4 // groups:
                for c in range(op.depth):
                    index = (block, tap, lane)
                    value = words[index] ^ words.dtype.type(1 << c)
                    yield f"{index} {c}", changed(after, kernel.inputs[1], index, value)

    caught(LOWER_KERNELS, before, one_bit())


def instead(graph: Graph, old: Node, op: object) -> Graph:
    nodes = tuple(dataclasses.replace(n, op=op) if n is old else n for n in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes)


def windows() -> Iterator[tuple[str, Window]]:
    far, near = Axis(3, 1, 1, 2, 0), Axis(3, 1, 1, 0, 2)
    yield "up", Window((far, SAME.axes[1]))
    yield "down", Window((near, SAME.axes[1]))
    yield "left", Window((SAME.axes[0], far))
    yield "turned", Window((SAME.axes[0], near))


def test_another_window_or_pad() -> None:
    before = layer()
    after = apply(FLIP_FALLING, before).graph
    node = next(n for n in after.nodes if isinstance(n.op, BinaryConv))
    broken = [(name, instead(after, node, BinaryConv(window))) for name, window in windows()]
    broken += [(f"pad {p}", instead(after, node, BinaryConv(SAME, 1, p))) for p in (-1, 1)]
    caught(FLIP_FALLING, before, iter(broken))


def test_the_order_of_a_convolution_and_no_more() -> None:
    s = Sketch(shape=(1, 8, *LARGE))
    random = np.random.default_rng(5)
    w = random.choice(np.array([-1, 1], F), (4, 8, 3, 3)) * F(0.3)
    s(Conv(SAME), "x", s.const(w, "w"), to="y")
    before = s.done()
    after = apply(BINARISE_WEIGHTS, before).graph
    assert differences(before, after, Exactness.REDUCTION_ORDER) == []
    (alpha,) = (name for name in after.constants if "alpha" in name)
    wrong = [changed(after, alpha, (0,) * after.constants[alpha].ndim, F(0.3 * (1 + 1e-4)))]
    (sign,) = (name for name in after.constants if "sign" in name)
    wrong.append(changed(after, sign, (2, 3, 1, 1), -after.constants[sign][2, 3, 1, 1]))
    caught(BINARISE_WEIGHTS, before, ((str(i), g) for i, g in enumerate(wrong)))


def test_a_dense_layer_over_an_image_as_a_convolution() -> None:
    s = Sketch(shape=(1, 3, 4, 4))
    flat = s(Reshape((1, 48)), "x", to="flat")
    w = np.random.default_rng(1).standard_normal((5, 48)).astype(F)
    s(MatMul(), flat, s.const(w, "w"), to="y")
    before = s.done()

    def over_the_image(weights: np.ndarray) -> Graph:
        rewrite = Rewrite(before)
        image = rewrite.constant("v", weights, Element.F32)
        whole = Conv(Window((Axis(4), Axis(4))))
        summed = rewrite.node(whole, ("x", image), "pixel", ("o",))
        result = rewrite.node(Reshape((1, 5)), ("pixel",), "y", ("o",))
        rewrite.replace(before.producers["y"], [summed, result])
        rewrite.replace(before.producers["flat"], [])
        return rewrite.finish()

    right = w.reshape(5, 3, 4, 4)
    assert differences(before, over_the_image(right), Exactness.REDUCTION_ORDER) == []
    wrong = right.transpose(0, 1, 3, 2)
    caught(BINARISE_WEIGHTS, before, iter([("transposed", over_the_image(wrong))]))


def test_a_pad_of_ones_taken_into_the_layer() -> None:
    s = Sketch(shape=(1, 4, *LARGE))
    bits = s(ew.Step(Element.F32), "x", [[0.0]], [[-1, 1]], to="b")
    widths = (0, 0, 1, 1)
    padded = s(Pad(widths, widths, 1.0), bits, to="p")
    w = np.random.default_rng(2).choice(np.array([-1, 1], F), (3, 4, 3, 3))
    s(Conv(Window((Axis(3), Axis(3)))), padded, s.const(w, "w"), to="y")
    before = s.done()

    def absorbed(pad: int) -> Graph:
        rewrite = Rewrite(before)
        old = before.producers["b"]
        twin = rewrite.node(ew.Step(Element.BIPOLAR), old.inputs, "b.bits", ("o",))
        sign = rewrite.constant("sign", w.astype(np.int8), Element.BIPOLAR)
        n = rewrite.node(BinaryConv(SAME, 1, pad), ("b.bits", sign), "n", ("o",))
        value = rewrite.node(ew.Cast(Element.F32), ("n",), "y", ("o",))
        rewrite.replace(before.producers["y"], [twin, n, value])
        rewrite.replace(before.producers["p"], [])
        rewrite.replace(old, [])
        return rewrite.finish()

    assert differences(before, absorbed(1), Exactness.REDUCTION_ORDER) == []
    wrong = ((str(pad), absorbed(pad)) for pad in (0, -1))
    caught(BINARISE_WEIGHTS, before, wrong)


def test_directions_of_a_pool() -> None:
    s = Sketch(shape=(1, 3, *LARGE))
    bits = s(ew.Step(Element.BIPOLAR), "x", [[0.0]], [[-1, 1]], to="b")
    window = Window((Axis(2, 2), Axis(2, 2)))
    falls = s.const([1, -1, 1], "falls", Element.BIPOLAR)
    s(MaxPool(window), bits, falls, to="y")
    before = s.done()
    after = apply(LOWER_KERNELS, before).graph
    assert differences(before, after, Exactness.BITWISE) == []
    node = next(n for n in after.nodes if "PoolBits" in n.op.name)
    constants = [name for name in node.inputs if name in after.constants]
    if constants:
        (name,) = constants
        broken = [(name, changed(after, name, (0,), ~after.constants[name][0]))]
        caught(LOWER_KERNELS, before, iter(broken))


def test_real_thresholds_behind_a_convolution_of_signs() -> None:
    s = Sketch(shape=(1, 2, *LARGE))
    w = np.random.default_rng(4).choice(np.array([-1, 1], np.int8), (3, 2, 3, 3))
    s(BinaryConv(SAME), "x", s.const(w, "w", Element.BIPOLAR), to="n")
    thresholds = s.const([[0.1], [-7.5], [1e-20]], "t")
    s(ew.Step(Element.BIPOLAR), "n", thresholds, [[-1, 1]] * 3, to="y")
    before = s.done()
    after = apply(LOWER_KERNELS, before).graph
    (name,) = (n for n in after.constants if "decisions" in n)
    broken = (
        (f"{index} = {new}", changed(after, name, index, new))
        for index, value in np.ndenumerate(after.constants[name])
        for new in either_side(value)
    )
    caught(LOWER_KERNELS, before, broken)


@pytest.mark.parametrize("op", [ew.Add(), ew.Sub(), ew.Mul()], ids=lambda op: op.name)
@pytest.mark.parametrize("first", [True, False])
def test_thresholds_behind_a_shortcut(op: ew.Elementwise, first: bool) -> None:
    s = Sketch(shape=(1, 2, *LARGE))
    skip = s.builder.input("skip", TensorType((1, 3, *LARGE), Element.F32))
    w = np.random.default_rng(4).standard_normal((3, 2, 3, 3))
    layer = s(Conv(SAME), "x", s.const(w, "w"), to="n")
    r = s(op, *((skip, layer) if first else (layer, skip)), to="r")
    s(ew.Step(Element.BIPOLAR), r, s.const([[0.1], [-7.5], [1e4]], "t"), [[-1, 1]] * 3, to="y")
    before = s.done()
    after = apply(LOWER_KERNELS, before).graph
    (name,) = (n for n in after.constants if "decisions" in n)
    assert differences(before, after, Exactness.BITWISE) == []
    broken = (
        (f"{index} = {new}", changed(after, name, index, new))
        for index, value in np.ndenumerate(after.constants[name])
        for new in (value * F(1 - 1e-5), value * F(1 + 1e-5))
    )
    caught(LOWER_KERNELS, before, broken)


def test_what_a_sign_of_zero_becomes_on_images() -> None:
    s = Sketch(shape=(1, 2, *LARGE), stage=Stage.BINARY)
    tiny = np.finfo(F).smallest_subnormal
    s(ew.Step(Element.TERNARY), "x", [[0.0, tiny]], [[-1, 0, 1]], to="y")
    before = s.done()
    after = apply(RESOLVE_SIGN_ZERO, before, context(sign_zero="plus")).graph
    assert differences(before, after, Exactness.ASSUMPTION) == []
    assert differences(before, after, Exactness.BITWISE) != []
