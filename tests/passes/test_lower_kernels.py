"""lower_kernels: every packed bit, limit and base against the logical weights and thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bnncc.errors import UnsupportedModelError
from bnncc.ir import interpret
from bnncc.ir.check import violations
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import (
    GatherBits,
    Map,
    Move,
    PackPlanes,
    RealConv,
    SignSum,
    XnorConv,
)
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Reshape, Transpose
from bnncc.ir.types import (
    CHANNELS_LAST,
    DENSE,
    Array,
    Element,
    PackedChannels,
    Stage,
    TensorType,
)
from bnncc.passes.eliminate_dead import ELIMINATE_DEAD
from bnncc.passes.fold_thresholds import FOLD_THRESHOLDS
from bnncc.passes.levels import never
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import load_kernels, target_named
from tests.ir.oracles import CODES, EXTREMES, PADS, PLANES, integers, plane_bit
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
from tests.passes.convolutions import (
    CONVOLUTIONS,
    HALVED,
    PLACES,
    POOLS,
    SAME,
    binary,
    bits_of,
    image,
    kappa,
    moved_bits,
    residual,
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
    node = only(after, XnorConv)
    assert isinstance(node.op, XnorConv)
    weights = before.constants["w"]
    words = after.constants[node.inputs[1]]
    word_bits, nr = target_named(target).word_bits, node.op.nr
    assert words.dtype == np.dtype(f"uint{word_bits}")
    assert words.shape == (-(-channels // nr), -(-k // word_bits), nr)
    assert node.op.channels == channels
    kernel = next(kn for kn in load_kernels() if kn.symbol == node.op.kernel)
    assert (kernel.operation, kernel.nr, kernel.word_bits) == ("xnor", nr, word_bits)
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
    node = only(after, RealConv)
    assert isinstance(node.op, RealConv)
    tiles, nr = after.constants[node.inputs[1]], node.op.nr
    for block, j, lane in np.ndindex(*tiles.shape):
        c = block * nr + lane
        assert tiles[block, j, lane] == (weights[c, j] if c < 11 else 0)
    same_values(before, after, x=random.standard_normal((5, 7)).astype(F))


# --- Limits ---------------------------------------------------------------------------------------


def mismatches_of(x: Array, weights: Array, element: Element) -> int:
    """Bits of x's planes that differ from the weights', each plane weighted as the kernel does."""
    return sum(
        (plane_bit(int(v), p, element) != int(w > 0)) << (p if element in CODES else 0)
        for v, w in zip(x, weights, strict=True)
        for p in range(PLANES[element])
    )


@pytest.mark.parametrize("element", INTEGERS, ids=lambda e: e.value)
@pytest.mark.parametrize("to", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
def test_limits_at_every_mismatch_count(element: Element, to: Element) -> None:
    k = {Element.U8: 2}.get(element, 19)
    before = grounded(thresholds_on_sums(element, k, 40, to=to).done())
    after = lowered(before)
    node = only(after, XnorConv)
    assert isinstance(node.op, XnorConv)
    assert node.op.direct
    limits = after.constants[node.inputs[2]].astype(int)
    assert limits.shape[:2] == (PLANES[to], 40)
    weights = before.constants["w"]
    step = before.producers["y"]
    thresholds, levels = (before.constants[name].tolist() for name in step.inputs[1:])
    x = every_operand(element, k)
    for c in range(40):
        rows = x if element in CODES else (x.astype(int) * weights[c]).astype(x.dtype)
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
    assert narrow.constants[only(narrow, XnorConv).inputs[2]].dtype == np.int16
    # 130 codes: 255 * 130 mismatches do not fit 16 bits.
    s = Sketch(130, Element.U8)
    n = s(BinaryDense(), "x", s.const(np.ones((1, 130)), "w", Element.BIPOLAR))
    levels = [[-1, 1]]
    s(ew.Step(Element.BIPOLAR), n, s.const([[-33000]], "t", Element.I32), levels, to="y")
    before = s.done()
    wide = lowered(before)
    assert wide.constants[only(wide, XnorConv).inputs[2]].dtype == np.int32
    assert "PackPlanes" in ops(wide)
    x = np.random.default_rng(0).integers(0, 256, (4, 130)).astype(np.uint8)
    x[0], x[1] = 0, 255
    same_values(before, wide, x=x)


# --- Epilogues ------------------------------------------------------------------------------------


def given_as_numbers(graph: Graph, output: str) -> list[str]:
    """Return what gives the caller an output: bits have to be unpacked."""
    return ["Move"] if graph.types[output].element in (Element.BIPOLAR, Element.TERNARY) else []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", list(epilogues(Element.BIPOLAR, 1)))
def test_folded_epilogues(name: str, target: str) -> None:
    for element in (Element.BIPOLAR, Element.TERNARY):
        layer = epilogues(element, 33)[name]
        folded = apply(ELIMINATE_DEAD, apply(FOLD_THRESHOLDS, layer.graph()).graph).graph
        folded = grounded(folded)
        after = lowered(folded, target)
        assert ops(after) == ["Map", "XnorConv", *given_as_numbers(after, "y")]
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
    kernels = {Element.F32: ["SignSum"], Element.U8: ["PackPlanes", "XnorConv"]}
    assert ops(after) == [
        *kernels.get(element, ["Map", "XnorConv"]),
        *given_as_numbers(after, "y"),
    ]


def test_origins_of_a_whole_layer() -> None:
    layer = epilogues(Element.BIPOLAR, 5)["hardtanh"]
    after = lowered(grounded(layer.graph()))
    first, node, move = after.nodes
    assert first.origin == ("ground",)
    assert node.origin == move.origin == ("the n", "the v", "the t2", "the t3", "the y")


def test_two_chains_over_one_sum_are_one_kernel_with_two_results() -> None:
    layer = Layer(Element.BIPOLAR, 9, [])
    s = layer.sketch()
    s(ew.Add(), "v", [0.5] * 8, to="z")
    before = grounded(s.done("y", "z"))
    after = lowered(before)
    assert ops(after) == ["Map", "XnorConv", "Move"]
    bits, z = only(after, XnorConv).outputs
    assert (after.types[bits].element, z) == (Element.BIPOLAR, "z")
    same_values(before, after, x=every_operand(Element.BIPOLAR, 9))


def test_a_sum_that_is_an_output_is_stored() -> None:
    before = Layer(Element.TERNARY, 9, [], SIGN, Element.TERNARY).sketch().done("y", "n")
    before = grounded(before)
    after = lowered(before)
    assert ops(after) == ["Map", "XnorConv", "Move"]
    n, _ = only(after, XnorConv).outputs
    assert (n, after.types[n].element) == ("n", Element.I32)
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
    assert ops(after) == ["Map", "XnorConv"]
    same_values(before, after, x=np.random.default_rng(0).standard_normal((9, 33)).astype(F))


def test_reshapes_move_between_kernels() -> None:
    s = Sketch(shape=(1, 2, 3))
    s(MatMul(), s(Reshape((1, 6)), s(ew.Relu(), "x")), s.const(np.ones((2, 6)), "w"), to="y")
    before = s.done()
    after = lowered(before)
    assert ops(after) == ["Move", "Map", "Move", "RealConv"]
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
    node = only(after, RealConv)
    assert [after.types[n].shape for n in node.inputs[2:]] == [(2,), (), (2,)]
    same_values(before, after, x=np.ones((2, 3), F))


# --- Images ---------------------------------------------------------------------------------------


def kernels_of(graph: Graph) -> list[str]:
    """Return the kernels that compute; what changes a layout is left out."""
    return [
        node.op.name
        for node in graph.nodes
        if not (isinstance(node.op, PackPlanes) or (isinstance(node.op, Move) and not node.op.op))
    ]


def same_images(before: Graph, target: str = "x86-64") -> Graph:
    """Lower a graph of one input "x"; both compute the same, to the bit."""
    after = lowered(before, target)
    kind = before.types["x"]
    same_values(before, after, x=image(kind.element, kind.shape))
    return after


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_binary_convolutions(name: str, place: str, target: str) -> None:
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = PLACES[place]
    for element in (*INTEGERS, Element.F32):
        pads = {Element.F32: (0,)}.get(element) or (*PADS[element][:2], PADS[element][-1])
        for pad, zeros in itertools.product(pads, ("no", "few", "many", "odd", "bits")):
            if zeros != "no" and element is Element.F32:
                continue
            source = element if element in (Element.U8, Element.F32) else Element.F32
            s = Sketch(element=source, shape=(1, channels, *sizes))
            x = "x"
            if source is not element:
                x = bits_of(s, "x", "s", element, channels)
            y = binary(s, x, out, window, "y", groups=groups, pad=pad, zeros=zeros)
            bits_of(s, y, "z", Element.TERNARY, out)
            after = same_images(s.done(y, "z"), target)
            wanted = "SignSum" if element is Element.F32 else "XnorConv"
            assert kernels_of(after)[-1] == wanted


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_real_convolutions(name: str, place: str) -> None:
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = PLACES[place]
    s = Sketch(shape=(1, channels, *sizes))
    w = np.random.default_rng(0).standard_normal((out, channels // groups, *window.kernel))
    s(Conv(window, groups), "x", s.const(w, "w"), to="y")
    bits_of(s, "y", "z", channels=out)
    assert kernels_of(same_images(s.done("y", "z"))) == ["RealConv"]


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
def test_thresholds_on_sums_become_limits_unless_taps_are_skipped(element: Element) -> None:
    for pad, zeros in itertools.product((-1, 0, 1), (0, 0.2)):
        s = Sketch(shape=(1, 9, 4, 5))
        x = bits_of(s, "x", "s", element, 9)
        w = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (7, 9, 3, 3))
        w[0, 0, 0, 0] = 0 if zeros else 1
        held = s.const(w, "w", Element.TERNARY if zeros else Element.BIPOLAR)
        n = s(BinaryConv(SAME, 1, pad), x, held)
        t = np.random.default_rng(1).integers(-30, 30, (7, 1))
        s(ew.Step(Element.BIPOLAR), n, s.const(t, "t", Element.I32), [[-1, 1]] * 7, to="y")
        op = only(same_images(s.done("y")), XnorConv).op
        assert isinstance(op, XnorConv)
        assert (op.direct, op.skip) == (not zeros and pad != 0, pad == 0)
        assert op.zeros == bool(zeros)


def test_a_shortcut_is_added_by_the_layer_that_comes_last() -> None:
    after = same_images(residual())
    assert kernels_of(after) == ["Map", "XnorConv", "XnorConv"]
    first, second = (node for node in after.nodes if isinstance(node.op, XnorConv))
    # The first block stores its sum, for the next shortcut, and the bits that are convolved next.
    kinds = [after.types[name] for name in first.outputs]
    assert [kind.element for kind in kinds] == [Element.F32, Element.BIPOLAR]
    assert isinstance(second.op, XnorConv)
    assert second.op.epilogue.variables == 1
    assert first.outputs[0] in second.inputs


def test_a_downsampled_shortcut_is_computed_first() -> None:
    after = same_images(residual(downsampled=True))
    assert kernels_of(after) == ["Map", "XnorConv", "XnorConv", "Pool", "RealConv"]
    node = only(after, RealConv)
    assert isinstance(node.op, RealConv)
    assert [term.op.name for term in node.op.epilogue.expression.terms][:1] == ["Add"]


def test_kappa_broadcasts_over_the_channels() -> None:
    after = same_images(kappa())
    # One pass over x takes its absolute values and its signs.
    assert kernels_of(after) == ["Map", "Pool", "RealConv", "XnorConv"]
    assert after.types["kappa"].shape == (1, 1, 5, 6)


def test_a_squeezed_branch_broadcasts_over_the_pixels() -> None:
    s = Sketch(shape=(1, 6, 4, 5))
    pooled = s(ReduceMean((2, 3), keepdims=True), "x")
    gate = s(ew.HardSigmoid(0.2, 0.5), pooled, to="gate")
    s(ew.Mul(), gate, "x", to="y")
    after = same_images(s.done("y"))
    assert kernels_of(after) == ["Pool", "Map"]
    assert after.types["gate"].shape == (1, 6, 1, 1)


@pytest.mark.parametrize(
    "shape",
    [
        *((1, 2, 3, 4), (2, 3, 4), (1, 2, 3, 1), (2, 1, 4), (1, 1, 3, 4), (3, 4), (1, 4, 4)),
        *((4,), (3, 1), (1, 1, 1, 4), (1, 1, 3, 1), (2, 1, 1)),
    ],
    ids=str,
)
def test_constants_within_a_channel(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    sizes = (4, 4) if shape == (1, 4, 4) else (3, 4)
    s = Sketch(shape=(1, 2, *sizes))
    s(ew.Mul(), "x", random.standard_normal(shape).astype(F), to="y")
    bits_of(s, "y", "z", channels=2)
    before = s.done("y", "z")
    after = same_images(before)
    assert kernels_of(after) == ["Map"]
    op = only(after, Map).op
    assert isinstance(op, Map)
    assert op.epilogue.variables == (0 if shape == (2, 1, 1) else 1)
    constants = [after.types[name].shape for name in after.constants]
    # Generated C knows the whole tensor, one value a pixel and one a channel.
    assert all(len(s) < 4 or s[2:] in (sizes, (1, 1)) for s in constants)


@pytest.mark.parametrize("name", POOLS)
def test_pools_continue_with_what_follows(name: str) -> None:
    s = Sketch(shape=(1, 33, 5, 6))
    pooled = s(POOLS[name], "x", to="p")
    y = s(ew.Mul(), pooled, -1.5, to="y")
    outputs = ["p", y]
    shape = s.builder.types[pooled].shape
    if len(shape) > 1:
        outputs.append(bits_of(s, y, "z", channels=shape[1]))
    after = same_images(s.done(*outputs))
    # Without the channels' axis another one takes its place, which a kernel cannot know.
    dropped = ("channels, flat", "channels and columns, flat", "everything, flat")
    assert kernels_of(after) == (["Pool", "Move", "Map"] if name in dropped else ["Pool"])


@pytest.mark.parametrize(
    "element", [Element.BIPOLAR, Element.TERNARY, Element.U2], ids=lambda e: e.value
)
@pytest.mark.parametrize("falling", [False, True])
def test_pools_of_bits(element: Element, falling: bool) -> None:
    s = Sketch(shape=(1, 70, 5, 6))
    bits = bits_of(s, "x", "s", element, 70)
    direction = np.where(np.arange(70) % 3, 1, -1)
    operands = [s.const(direction, "d", Element.BIPOLAR)] if falling else []
    pooled = s(MaxPool(HALVED), bits, *operands, to="p")
    y = binary(s, pooled, 5, SAME, "y")
    after = same_images(s.done(y, "p"))
    assert kernels_of(after) == ["Map", "PoolBits", "XnorConv"]


def test_bits_are_moved_into_groups_once_for_two_layers() -> None:
    s = Sketch(shape=(1, 15, 4, 5))
    bits = bits_of(s, "x", "s", channels=15)
    a, b = (binary(s, bits, 6, SAME, name, groups=3) for name in "ab")
    after = same_images(s.done(a, b))
    into_groups = only(after, GatherBits)
    assert after.types[into_groups.output].layout == PackedChannels(64, 1, 3)


def test_movements_keep_bits_packed() -> None:
    after = same_images(moved_bits())
    moves = [n for n in after.nodes if isinstance(n.op, GatherBits | Move) and n.inputs != ("x",)]
    kinds = [after.types[n.output] for n in moves if n.output not in after.outputs]
    assert [n.op.name for n in moves[: len(kinds)]] == ["GatherBits", "Move", "Move", "Move"]
    assert all(isinstance(kind.layout, PackedChannels) for kind in kinds)


def test_a_result_in_another_layout_keeps_its_name() -> None:
    s = Sketch(shape=(1, 3, 4, 5))
    w = s.const(np.random.default_rng(0).standard_normal((3, 3, 3, 3)), "w")
    s(Conv(SAME), "x", w, to="a")
    s(Conv(SAME), s(ew.Relu(), "a", to="r"), w, to="y")
    after = same_images(s.done("a", "y"))
    assert after.types["a"].layout == after.types["y"].layout == DENSE
    # The second layer reads what the first stored, not what the caller gets.
    second = [node for node in after.nodes if isinstance(node.op, RealConv)][1]
    assert after.types[second.inputs[0]].layout == CHANNELS_LAST


def test_an_input_that_only_moves() -> None:
    s = Sketch(shape=(1, 3, 4, 5), element=Element.U8)
    s(Transpose((0, 2, 3, 1)), "x", to="y")
    s(Reshape((1, 60)), "x", to="z")
    after = same_images(s.done("y", "z"))
    assert set(ops(after)) == {"Move"}


# --- Refusals -------------------------------------------------------------------------------------


def refusals(graph: Graph) -> list[str]:
    with pytest.raises(UnsupportedModelError) as caught:
        LOWER_KERNELS.apply(graph, context())
    assert caught.value.code == "BNN030"
    return [f"{d.what}: {d.where}: {d.why}" for d in caught.value.diagnostics]


def test_refuses_what_no_kernel_computes_all_at_once() -> None:
    s = Sketch(shape=(1, 3, 1, 1))
    other = s.builder.input("z", TensorType((1, 1, 2, 2), Element.F32))
    row = s.builder.input("row", TensorType((1, 1, 1, 2), Element.F32))
    s(ew.Add(), "x", other, to="sum", origin=["outer\n"])
    s(ew.Mul(), other, row, to="y", origin=["scale"])
    assert refusals(s.done("sum", "y")) == [
        "no kernel computes Add here: outer\\n: none of its operands has the shape of its result",
        "no kernel computes Mul here: scale: an operand of shape 1x1x1x2 varies along some axes "
        "only",
    ]


def test_pack_planes_is_named_after_its_tensor() -> None:
    after = lowered(thresholds_on_sums(Element.U8, 3, 2).done())
    node = only(after, PackPlanes)
    assert (node.inputs, node.output) == (("x",), "x.planes")
    stored = interpret.run_stored(after, {"x": np.array([[1, 2, 128]], np.uint8)})["x.planes"]
    assert stored.tolist() == [[[1], [2], [0], [0], [0], [0], [0], [4]]]
