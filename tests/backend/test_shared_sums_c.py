"""Kernel family B in C: layers store what the interpreter does, on every kind of slice."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnncc.backend.lower import lower
from bnncc.backend.program import SharedWork, SpreadWork
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shared_sums import ClassSums, SharedConv, SharedSums
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes import roll_rows
from bnncc.passes.base import Context, Family
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lean_lists import LEAN_LISTS
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.passes.roll_rows import ROLL_ROWS
from bnncc.passes.share_sums import SHARE_SUMS
from bnncc.passes.sharing import Grouping
from bnncc.pipeline import run_pass
from bnncc.targets import target_named
from tests.backend.test_conv_c import PLACES, ZEROS, Operand, built, convolved, same
from tests.backend.toolchain import DIALECTS, WARNINGS, frames_of, objects, together, write
from tests.backend.zoo import Emitted, print_c
from tests.ir.sketch import Sketch
from tests.passes.applying import staged
from tests.passes.convolutions import HALVED, SAME, binary, bits_of, image, kappa, residual

WIDE: dict[str, tuple[Window, tuple[int, ...]]] = {
    "a word": (Window((Axis(3, before=1, after=1), Axis(3, before=1, after=1))), (5, 32)),
    "two words": (Window((Axis(3, before=1, after=1), Axis(3, before=1, after=1))), (4, 40)),
    "three words": (Window((Axis(3, before=1, after=1), Axis(3, before=1, after=1))), (3, 70)),
    "half a word": (Window((Axis(3, before=1, after=1), Axis(3, before=1, after=1))), (16, 16)),
    "halved": (Window((Axis(3, 2, before=1, after=1), Axis(3, 2, before=1, after=1))), (6, 66)),
    "halved of two": (
        Window((Axis(3, 2, before=1, after=1), Axis(3, 2, before=1, after=1))),
        (5, 128),
    ),
    "halved, far apart": (Window((Axis(2, 2), Axis(4, 2, 19, 31, 30))), (5, 120)),
    "halved in a word": (Window((Axis(3, 2, 1, 1, 1), Axis(3, 2, 1, 1, 1))), (7, 30)),
    "fewer words": (Window((Axis(3), Axis(3))), (6, 18)),
}


PADS = {
    Element.BIPOLAR: (0, -1, 1),
    Element.TERNARY: (0, -1, 1),
    Element.U1: (0, 1),
    Element.U2: (0, 2),
    Element.U3: (5, 0),
    Element.U8: (0, 7),
}
"""What layers may read, and what taps outside of the image then hold."""

KINDS: list[tuple[str, Operand, str]] = [
    ("padded", (Element.TERNARY, 0, "no"), "limits"),
    ("half a word", (Element.U2, 2, "no"), "bits"),
    ("halved", (Element.U2, 1, "few"), "limits"),
    ("1-D", (Element.BIPOLAR, 0, "few"), "limits"),
    ("stride", (Element.U8, 7, "many"), "both"),
    ("dilated", (Element.U3, 5, "odd"), "limits"),
    ("two words", (Element.BIPOLAR, 0, "many"), "numbers"),
    ("halved in a word", (Element.TERNARY, 1, "bits"), "both"),
]
"""Elements and weights of several bits: where, what, and how the layer ends."""


def shared(
    graph: Graph, target: str, family: Family = Family.SHARED, *, whole: bool = False
) -> Graph:
    """Return a graph with its layers of bits as shared sums, checked by running both.

    Args:
        graph: of the BINARY stage.
        target: a target's name.
        family: SHARED or LEAN.
        whole: whether copies are always for all rows.
    """
    context = Context(target_named(target), families={"*": family})
    packed = LOWER_KERNELS.apply(CANONICAL_AFFINE.apply(graph, context).graph, context).graph
    packed = staged(packed, Stage.PACKED)
    for step in (SHARE_SUMS, *(() if whole else (ROLL_ROWS,)), LEAN_LISTS):
        packed = run_pass(step, packed, context).graph
    return packed


def cases() -> Iterator[tuple[str, Graph]]:
    layers = ("plain", "ragged groups")
    pads = itertools.cycle([0, -1, 1, 0])
    for place, name in itertools.product([*PLACES, *WIDE], layers):
        pad = next(pads)
        where = (PLACES | WIDE)[place]
        if where[0].axes:
            graph = convolved(name, where, (Element.BIPOLAR, pad, "no"), "limits")
            yield f"{name}, {place}, pad {pad}", graph


def kinds() -> Iterator[tuple[str, Graph]]:
    """Yield a layer for each of KINDS."""
    names = itertools.cycle(("plain", "ragged groups"))
    for (place, operand, ending), name in zip(KINDS, names, strict=False):
        what = f"{name}, {place}, {operand[0].value} pad {operand[1]} zeros {operand[2]}, {ending}"
        yield what, convolved(name, (PLACES | WIDE)[place], operand, ending)
    yield "zeros alike", alike(zeros=True)
    for channels in (200, 600):
        yield f"{channels} planes with zeros", with_zeros(channels)


def every_kind() -> Iterator[tuple[str, Graph]]:
    """Yield a layer of every element and every kind of weights on every window and grouping."""
    operands = itertools.cycle(
        (element, pad, zeros)
        for element, pads in PADS.items()
        for pad, zeros in itertools.product(pads, ZEROS)
    )
    endings = itertools.cycle(["limits", "numbers", "both", "bits"])
    names = ("plain", "ragged groups", "depthwise", "depthwise of two", "one channel")
    for place, name in 2 * [*itertools.product(PLACES | WIDE, names)]:
        operand, ending = next(operands), next(endings)
        what = f"{name}, {place}, {operand[0].value} pad {operand[1]} zeros {operand[2]}, {ending}"
        yield what, convolved(name, (PLACES | WIDE)[place], operand, ending)


def numbers() -> Iterator[tuple[str, Graph]]:
    """Yield layers that store numbers, or bits of what follows them."""
    pads = itertools.cycle([0, -1, 1, 0])
    endings = itertools.cycle(["both", "numbers"])
    for place, name in itertools.product([*PLACES, *WIDE], ("plain", "ragged groups")):
        where = (PLACES | WIDE)[place]
        pad, ending = next(pads), next(endings)
        if where[0].axes:
            graph = convolved(name, where, (Element.BIPOLAR, pad, "no"), ending)
            yield f"{name}, {place}, pad {pad}, {ending}", graph
    yield "shortcuts", residual()
    yield "shortcuts around fewer pixels", residual(downsampled=True)
    yield "a scale a pixel", kappa()
    yield "a scale a channel", gated((5, 6), SAME)
    yield "a scale a channel of rows", gated((7,), Window((Axis(3, before=1, after=1),)))
    yield "hostile", hostile()
    yield "many planes alike", alike()
    for element, falling in itertools.product((Element.BIPOLAR, Element.TERNARY), (False, True)):
        yield f"pools of {element.value}, {falling}", pooled(element, falling=falling)


def gated(sizes: tuple[int, ...], window: Window) -> Graph:
    """Return a layer scaled by a number a channel, and shifted by one of each pixel."""
    s = Sketch(shape=(1, 33, *sizes))
    axes = tuple(range(2, 2 + len(sizes)))
    mean = s(ReduceMean(axes, keepdims=True), "x", to="mean")
    gate = s(ew.HardSigmoid(0.2, 0.5), mean, to="gate")
    y = binary(s, bits_of(s, "x", "s", channels=33), 33, window, "n")
    image = np.random.default_rng(0).standard_normal((1, 33, *sizes))
    return s.done(s(ew.Add(), s(ew.Mul(), y, gate, to="z"), s.const(image, "image"), to="y"))


def hostile() -> Graph:
    """Return several results of one layer, behind slopes and scales of every sign."""
    s = Sketch(shape=(1, 40, 6, 20))
    random = np.random.default_rng(0)
    y = binary(s, bits_of(s, "x", "s", channels=40), 13, SAME, "n")
    gamma, beta, mean = random.uniform(-1, 1, (3, 13)).astype(np.float32)
    gamma[::4] = 0
    y = s.batch_norm(y, (gamma, beta, mean, random.uniform(0.1, 2, 13).astype(np.float32)))
    slopes = random.standard_normal((13, 1, 1))
    bent = s(ew.PRelu(), y, slopes, to="bent")
    bits = [
        bits_of(s, bent, f"b{i}", e, 13) for i, e in enumerate((Element.BIPOLAR, Element.TERNARY))
    ]
    # What the layers behind read, not the caller.
    ends = [binary(s, b, 3, Window((Axis(1), Axis(1))), f"e{i}") for i, b in enumerate(bits)]
    return s.done(s(ew.Neg(), bent, to="neg"), *ends)


def pooled(element: Element, *, falling: bool) -> Graph:
    """Return a layer whose bits are pooled, the smallest in some channels."""
    s = Sketch(shape=(1, 34, 6, 22))
    y = binary(s, bits_of(s, "x", "s", channels=34), 9, SAME, "a")
    bits = bits_of(s, y, "b", element, 9)
    directions = [s.const(np.where(np.arange(9) % 3, 1, -1), "d", Element.BIPOLAR)]
    halved = Window((Axis(2, 2), Axis(2, 2))) if falling else HALVED
    pool = s(MaxPool(halved), bits, *(directions if falling else ()), to="p")
    return s.done(binary(s, pool, 3, SAME, "y"))


def alike(*, zeros: bool = False) -> Graph:
    """Return filters that are the same: one class has all planes, and sums more than 16 bits."""
    s = Sketch(shape=(1, 4100, 3, 4))
    x = bits_of(s, "x", "s", channels=4100)
    w = np.ones((7, 4100, 1, 1), np.int8)
    w[:, ::3] = -1
    if zeros:
        w[::2, 1::3] = 0
    element = Element.TERNARY if zeros else Element.BIPOLAR
    n = s(BinaryConv(Window((Axis(1), Axis(1))), 1, 0), x, s.const(w, "w", element), to="n")
    rows = [np.linspace(-1, 1, 7), np.zeros(7), np.zeros(7)]
    return s.done(s(ew.Dequantize(), n, *rows, to="y", elements=[Element.F64] * 3))


def with_zeros(channels: int) -> Graph:
    """Return 9 filters of so many channels and one tap, a third of whose weights is 0."""
    s = Sketch(shape=(1, channels, 3, 4))
    point = Window((Axis(1), Axis(1)))
    y = binary(s, bits_of(s, "x", "s", channels=channels), 9, point, "a", zeros="many")
    return s.done(y, bits_of(s, y, "b", Element.TERNARY, 9))


def many_planes() -> Graph:
    """Return a layer whose planes start beyond what 16 bits reach, at any byte."""
    s = Sketch(shape=(1, 1200, 5, 6))
    n = s(BinaryConv(SAME, 1, -1), bits_of(s, "x", "s", channels=1200), _signs(s, 3, 1200), to="n")
    t = s.const([[-9], [0], [7]], "t", Element.I32)
    bits = s(ew.Step(Element.BIPOLAR), n, t, [[-1, 1]] * 3, to="b")
    return s.done(s(BinaryConv(SAME, 1, -1), bits, _signs(s, 2, 3), to="y"))


def always() -> Graph:
    """Return a layer of one channel that is always 1, its sum being up to all bits of a class."""
    point = Window((Axis(1), Axis(1)))
    s = Sketch(shape=(1, 31, 3, 4))
    x = bits_of(s, "x", "s", channels=31)
    w = s.const(np.ones((1, 31, 1, 1)), "w", Element.BIPOLAR)
    n = s(BinaryConv(point, 1, 0), x, w, to="n")
    bits = s(ew.Step(Element.BIPOLAR), n, s.const([[-31]], "t", Element.I32), [[-1, 1]], to="b")
    one = s.const(np.ones((1, 1, 1, 1)), "one", Element.BIPOLAR)
    return s.done(s(BinaryConv(point, 1, 0), bits, one, to="y"))


def _signs(s: Sketch, out: int, channels: int) -> str:
    signs = np.random.default_rng(out).choice(np.array([-1, 1], np.int8), (out, channels, 3, 3))
    return s.const(signs, f"w{out}", Element.BIPOLAR)


SLICES = [
    *("generic", "x86-64", "cortex-m4", "x86-64-v3", "x86-64-avx512"),
    *("aarch64", "cortex-m55"),
]


NUMBERS = ["generic", "x86-64", "x86-64-v3", "x86-64-avx512"]


def sparing(targets: list[str], *usual: str) -> list[Any]:
    """Return the targets, all but the usual ones slow."""
    return [
        pytest.param(target, marks=() if target in usual else pytest.mark.slow)
        for target in targets
    ]


def test_every_form_of_copies_is_among_the_cases() -> None:
    works = [
        layer.copies or layer.work
        for _, graph in cases()
        for layer in lower(shared(graph, "x86-64-v3"), "m", ()).layers
    ]
    found = {work.form for work in works if isinstance(work, SpreadWork)}
    assert found == {"moved", "rows", "halved", "paired", "wide", "single"}


@pytest.mark.parametrize("target", sparing(SLICES, "cortex-m4", "x86-64-v3"))
def test_every_word(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    models: dict[str, Emitted] = {}
    for i, (what, graph) in enumerate((*cases(), *kinds(), ("always", always()))):
        packed = shared(graph, target)
        assert any(isinstance(node.op, ClassSums) for node in packed.nodes), what
        models[what] = print_c(packed, f"m{i}")
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["generic", "x86-64-v3", "x86-64-avx512", "aarch64"])
@pytest.mark.parametrize("grouping", [Grouping(4, False), Grouping(3, True), Grouping(4, True)])
def test_every_kind(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, grouping: Grouping
) -> None:
    """In groups of some size, with classes of zeros or without, whatever would be best."""
    monkeypatch.setattr(
        "bnncc.passes.share_sums.best_grouping",
        lambda channels, load, addition, zeros: grouping._replace(k=min(channels, grouping.k)),
    )
    packed = {what: shared(graph, target) for what, graph in every_kind()}
    sharing = {
        what: graph
        for what, graph in packed.items()
        if any(isinstance(node.op, ClassSums) for node in graph.nodes)
    }
    assert len(sharing) >= len(packed) - 2  # single weights that happen to be 0 share nothing
    models = {what: print_c(graph, f"m{i}") for i, (what, graph) in enumerate(sharing.items())}
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


@pytest.mark.parametrize("target", sparing(NUMBERS, "x86-64-v3"))
def test_every_number(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    models: dict[str, Emitted] = {}
    for i, (what, graph) in enumerate(numbers()):
        packed = shared(graph, target)
        assert any(isinstance(node.op, SharedConv) for node in packed.nodes), what
        models[what] = print_c(packed, f"m{i}")
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", [Family.SHARED, Family.LEAN], ids=lambda family: family.value)
@pytest.mark.parametrize("target", SLICES)
def test_every_band(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, family: Family
) -> None:
    monkeypatch.setattr(roll_rows, "_MORE", math.inf)
    monkeypatch.setattr(roll_rows, "_MORE_LEAN", math.inf)
    models: dict[str, Emitted] = {}
    for what, graph in (*high(), *cases(), *numbers()):
        packed = shared(graph, target, family)
        if any(isinstance(node.op, ClassSums) and node.op.taps.band for node in packed.nodes):
            models[what] = print_c(packed, f"m{len(models)}")
    assert {what for what, _ in high()} <= models.keys()
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


@pytest.mark.parametrize("target", sparing(["generic", "cortex-m4", "x86-64"], "cortex-m4"))
def test_bands(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(roll_rows, "_MORE", math.inf)
    monkeypatch.setattr(roll_rows, "_MORE_LEAN", math.inf)
    models: dict[str, Emitted] = {}
    for i, (what, graph) in enumerate(high()):
        packed = shared(graph, target, (Family.SHARED, Family.LEAN)[i % 2])
        assert any(isinstance(node.op, ClassSums) and node.op.taps.band for node in packed.nodes)
        models[what] = print_c(packed, f"m{i}")
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


def high() -> Iterator[tuple[str, Graph]]:
    """Yield layers of several bands, with rows of every kind, on every kind of slice."""
    windows = {
        "moved": (Window((Axis(3, before=1, after=1),) * 2), (70, 13)),
        "rows of words": (
            Window((Axis(5, before=2, after=2), Axis(3, before=1, after=1))),
            (19, 37),
        ),
        "halved": (Window((Axis(3, 2, 1, 1, 1),) * 2), (67, 30)),
        "rows in part": (Window((Axis(3), Axis(3))), (69, 18)),
        "single": (Window((Axis(3, 3, 2, 2, 2),) * 2), (99, 40)),
        "far above": (Window((Axis(2, 1, 40, 40, 0), Axis(1))), (70, 8)),
    }
    pads = itertools.cycle([1, -1, 0])
    endings = itertools.cycle(["limits", "both"])
    for what, where in windows.items():
        pad, ending = next(pads), next(endings)
        graph = convolved("plain", where, (Element.BIPOLAR, pad, "no"), ending)
        yield f"{what}, pad {pad}, {ending}", graph
    for what, element, pad in (("halved", Element.U2, 2), ("moved", Element.TERNARY, 0)):
        operand = (element, pad, "many")
        yield f"{what}, {element.value}", convolved("plain", windows[what], operand, "both")


@pytest.mark.slow
@pytest.mark.parametrize("target", SLICES)
def test_every_list_built(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    models: dict[str, Emitted] = {}
    for what, graph in (*cases(), *numbers()):
        packed = shared(graph, target, Family.LEAN)
        if any(isinstance(node.op, ClassSums) and node.op.built for node in packed.nodes):
            models[what] = print_c(packed, f"m{len(models)}")
    assert len(models) > 40
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


@pytest.mark.parametrize("target", sparing(["generic", "cortex-m4", "x86-64-v3"], "cortex-m4"))
def test_lists_are_built(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    models: dict[str, Emitted] = {}
    for i, (what, graph) in enumerate(lean_cases()):
        packed = shared(graph, target, Family.LEAN, whole=True)
        assert any(isinstance(node.op, ClassSums) and node.op.built for node in packed.nodes), what
        models[what] = print_c(packed, f"m{i}")
    assert wrong_words(models, target, tool("gcc"), tmp_path, monkeypatch) == []


def lean_cases() -> Iterator[tuple[str, Graph]]:
    """Yield layers with groups of 1 to 6 channels, in parts, and lists of both widths."""
    yield "lists of 32 bits", many_planes()
    for k, (out, channels, parts) in enumerate(
        [(1, 70, 1), (2, 70, 1), (3, 9, 1), (18, 40, 2), (10, 150, 1), (12, 400, 1)], 1
    ):
        yield f"groups of about {k}", grouped(out, channels, parts)


def grouped(out: int, channels: int, parts: int) -> Graph:
    """Return a layer in parts that have no plane in common."""
    s = Sketch(shape=(1, channels, 5, 6))
    w = np.random.default_rng(out).choice([-1, 1], (out, channels // parts, 3, 3)).astype(np.int8)
    x = bits_of(s, "x", "s", channels=channels)
    n = s(BinaryConv(SAME, parts, 0), x, s.const(w, "w", Element.BIPOLAR), to="n")
    t = s.const(np.arange(out)[:, np.newaxis] - 3, "t", Element.I32)
    bits = s(ew.Step(Element.BIPOLAR), n, t, [[-1, 1]] * out, to="b")
    return s.done(s(BinaryConv(SAME, 1, -1), bits, _signs(s, 2, out), to="y"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "target", "family"),
    [
        ("gcc", "x86-64-v3", Family.SHARED),
        ("clang", "generic", Family.SHARED),
        ("gcc", "cortex-m4", Family.LEAN),
        ("clang", "x86-64", Family.LEAN),
    ],
)
def test_no_warning(tool, tmp_path: Path, compiler: str, target: str, family: Family) -> None:
    graphs = [shared(graph, target, family) for _, graph in (*cases(), *kinds(), *numbers())]
    source = together((print_c(graph, f"m{i}") for i, graph in enumerate(graphs)), tmp_path)
    flags = (*target_named(target).cflags, *DIALECTS["c99"], *WARNINGS)
    objects(tool(compiler), [source], tmp_path, "-O1", *flags)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["generic", "x86-64", "x86-64-v3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_stack_stays_under_the_headers_figure(
    tool, tmp_path: Path, compiler: str, target: str
) -> None:
    """Without optimisation, in which every slice of a function has a place of its own."""
    models = [print_c(shared(graph, target), f"m{i}") for i, (_, graph) in enumerate(kinds())]
    paths = [write(model, tmp_path) for model in models]
    flags = ("-O0", "-std=c99", "-fstack-usage", *target_named(target).cflags)
    objects(tool(compiler), paths, tmp_path, *flags)
    for path, model in zip(paths, models, strict=True):
        frames = frames_of(tmp_path / f"{path.stem}.su")
        layers = {name for name in frames if re.fullmatch(r"m\d+_layer\d+", name)}
        run = frames[f"{model.program.name}_run"]
        others = [size for name, size in frames.items() if name not in layers]
        deepest = run + max(frames[name] for name in layers) + max(others)
        assert deepest <= model.program.stack_bytes, frames


def test_numbers_of_an_overlapping_group_are_made_once() -> None:
    """A shortcut that a sum overwrites must not be added twice."""
    packed = shared(residual(), "generic")
    (_, last) = (node for node in packed.nodes if isinstance(node.op, SharedConv))
    op = last.op
    assert isinstance(op, SharedConv)
    assert any(b < a + op.k for a, b in itertools.pairwise(op.firsts))
    emitted = print_c(packed, "m")
    (layer,) = (v for v in emitted.program.layers if v.outputs[0].buffer.tensor == last.outputs[0])
    assert isinstance(layer.work, SharedWork)
    assert layer.work.numbers is not None
    assert layer.work.numbers.same  # it is overwritten
    assert layer.work.numbers.kept


def test_there_is_room_for_sums_of_classes_that_are_wider_than_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A class is summed in five slices at least; a channel of one plane takes three."""
    monkeypatch.setattr(
        "bnncc.passes.share_sums.best_grouping",
        lambda channels, load, addition, zeros: Grouping(min(channels, 3), False),
    )
    operand = (Element.BIPOLAR, 0, "no")
    graph = convolved("one channel", PLACES["inside"], operand, "limits")
    works = [layer.work for layer in print_c(shared(graph, "generic"), "m").program.layers]
    sums = [work for work in works if isinstance(work, SharedWork)]
    assert any(work.width < work.class_sum.bits for work in sums)
    assert all(work.class_width >= max(work.width, work.class_sum.bits) for work in sums)


def wrong_words(
    models: dict[str, Emitted],
    target: str,
    compiler: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Return what the C stores otherwise than the interpreter."""
    flags = " ".join(target_named(target).cflags)
    monkeypatch.setenv("CFLAGS", f"-O1 {flags}")
    packed = shared(many_planes(), target, whole=True)
    models["many planes"] = print_c(packed, f"m{len(models)}")
    sums = [node for node in packed.nodes if isinstance(node.op, SharedSums)]
    wide = [packed.types[node.inputs[1]].element for node in sums]
    assert (Element.WORD32 in wide) is not target_named(target).slices.aligned
    functions = built(models, compiler, folder)
    wrong = []
    for what, e in models.items():
        feeds = {n: image(e.graph.types[n].element, e.graph.types[n].shape) for n in e.graph.inputs}
        expected = interpret.run_stored(e.graph, feeds)
        outputs, stored = functions[what].traced(*feeds.values())
        pairs = list(zip([b.tensor for b in e.program.results], stored, strict=True))
        assert pairs
        pairs += zip(e.graph.outputs, outputs, strict=True)
        wrong += [f"{what}: {name}" for name, have in pairs if not same(have, expected[name])]
    return wrong
