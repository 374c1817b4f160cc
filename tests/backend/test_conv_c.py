"""Images in C: every layer of the generated code stores, bit for bit, what the interpreter stores.

All programs are built with one call of each compiler, and without a warning.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnncc.backend.amalgamate import amalgamate
from bnncc.backend.program import GatherWork, LinearWork, MoveWork
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.interpolate import Between, Interpolate
from bnncc.ir.ops.linear import Conv, WindowSum
from bnncc.ir.ops.pool import AveragePool, MaxPool, Pooling
from bnncc.ir.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from bnncc.ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import target_named
from bnncc.verification.build import build_library
from bnncc.verification.run import CompiledModel
from tests.backend.toolchain import CORTEX_M4, DIALECTS, WARNINGS, objects, write
from tests.backend.zoo import TARGETS, Emitted, print_c
from tests.conftest import HOST_COMPILERS
from tests.ir.sketch import Sketch
from tests.passes.applying import context, staged
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
from tests.passes.gathers import gathers

BIPOLAR, TERNARY, F32 = Element.BIPOLAR, Element.TERNARY, Element.F32
U1, U2, U8 = Element.U1, Element.U2, Element.U8

ZEROS = ("no", "few", "many", "odd", "bits")

Operand = tuple[Element, int, str]
"""What is convolved, what taps outside hold, and how many zeros there are among the weights."""

OPERANDS: list[Operand] = [
    *((BIPOLAR, 0, "no"), (F32, 0, "no"), (U2, 2, "no"), (TERNARY, 0, "few"), (BIPOLAR, -1, "no")),
    *((TERNARY, 1, "many"), (U8, 7, "no"), (BIPOLAR, 1, "few"), (U8, 0, "many"), (U1, 0, "no")),
    (TERNARY, -1, "no"),
]


def convolved(
    name: str, place: tuple[Window, tuple[int, ...]], operand: Operand, ending: str
) -> Graph:
    """Return one binary layer that ends in numbers, in bits, in limits, or in all of it."""
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = place
    element, pad, zeros = operand
    s = Sketch(element=U8 if element is U8 else F32, shape=(1, channels, *sizes))
    x = "x" if element in (U8, F32) else bits_of(s, "x", "s", element, channels)
    y = binary(s, x, out, window, "y", groups=groups, pad=pad, zeros=zeros)
    match ending:
        case "numbers":
            return s.done(y)
        case "bits":
            # As another layer reads them, not as the caller does.
            point = Window(tuple(Axis(1) for _ in window.axes))
            return s.done(binary(s, bits_of(s, y, "b", TERNARY, out), 3, point, "z"))
        case "limits" if element is not F32:
            n = s.builder.nodes[-1].inputs[0]
            t = np.random.default_rng(0).integers(-9, 9, (out, 1))
            held = s.const(t, "t", Element.I32)
            point = Window(tuple(Axis(1) for _ in window.axes))
            bits = s(ew.Step(BIPOLAR), n, held, [[-1, 1]] * out, to="b")
            return s.done(binary(s, bits, 3, point, "z"))
        case _:
            return s.done(y, bits_of(s, y, "b", BIPOLAR, out))


def _sweep() -> Iterator[tuple[str, Graph]]:
    """Yield every window with every grouping, and every form that a binary layer has in C."""
    endings = itertools.cycle(["numbers", "bits", "limits", "both", "limits"])
    places = itertools.product(CONVOLUTIONS, PLACES)
    cases = [(*place, operand) for place, operand in zip(places, itertools.cycle(OPERANDS))]
    elements = {BIPOLAR: (0, 1), TERNARY: (0, 1), U8: (3,), U2: (2,)}
    for (element, pads), name, zeros in itertools.product(
        elements.items(), ("plain", "ragged groups"), ZEROS
    ):
        cases.append((name, "inside", (element, 0, zeros)))
        cases += [(name, "padded", (element, pad, zeros)) for pad in pads]
    for name, place, operand in cases:
        ending = next(endings)
        what = f"{name}, {place}, {operand[0].value} pad {operand[1]} zeros {operand[2]}"
        yield f"{what}, {ending}", convolved(name, PLACES[place], operand, ending)


def _window_sums() -> Iterator[tuple[str, Graph]]:
    pads = {BIPOLAR: (0, -1, 1), TERNARY: (0, -1, 1), U8: (0, 7), U2: (0, 3)}
    for element, groups in itertools.product(pads, (1, 3)):
        for pad, (place, (window, sizes)) in itertools.product(pads[element], SOME_PLACES.items()):
            s = Sketch(element=U8 if element is U8 else F32, shape=(1, 33, *sizes))
            x = "x" if element is U8 else bits_of(s, "x", "s", element, 33)
            total = s(WindowSum(window, groups, pad, 6 if groups > 1 else 1), x, to="total")
            real = s(ew.Cast(F32), total, to="real")
            name = f"sums of {element.value} in {groups} groups, {place} pad {pad}"
            yield name, s.done(total, s(ew.Mul(), real, 0.5, to="y"))


def _real(name: str, place: str) -> Graph:
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = PLACES[place]
    s = Sketch(shape=(1, channels, *sizes))
    w = np.random.default_rng(0).standard_normal((out, channels // groups, *window.kernel))
    s(Conv(window, groups), "x", s.const(w, "w"), to="y")
    return s.done("y", bits_of(s, "y", "z", channels=out))


def _pooled(op: Pooling, sizes: tuple[int, ...], channels: int) -> Graph:
    s = Sketch(shape=(1, channels, *sizes))
    pooled = s(op, "x", to="p")
    y = s(ew.Mul(), pooled, -1.5, to="y")
    shape = s.builder.types[pooled].shape
    bits = [bits_of(s, y, "z", channels=shape[1])] if len(shape) > 1 else []
    return s.done("p", y, *bits)


SOME_PLACES = {place: PLACES[place] for place in ("padded", "1-D")}
TALL = Window((Axis(3, 1, 1, 1, 1), Axis(2)))
WIDE = Window((Axis(2), Axis(3, 2, 1, 1, 1)))
LINE = Window((Axis(3, 2, 1, 1, 1),))
UP = Between(
    (0, 0, 1, 2, 3), (1, 1, 2, 3, 3), ((1, 0), (0.4, 0.6), (0.1, 0.9), (0.3, 0.7), (0.5, 0.5))
)
DOWN = Between((0, 2), (1, 3), ((0.25, 0.75), (0.1, 0.9)))
ONE = Between((2,), (3,), ((0.3, 0.7),))
CEIL = Window((Axis(2, 2, ceil=True), Axis(3, 2, 1, 1, 0, ceil=True)))


def _pools() -> Iterator[tuple[str, Graph]]:
    for name, op in POOLS.items():
        yield f"pool {name}", _pooled(op, (5, 6), 33)
    for window, sizes in ((TALL, (5, 6)), (WIDE, (5, 6)), (LINE, (7,)), (CEIL, (5, 6))):
        for kind in (MaxPool(window), AveragePool(window), AveragePool(window, True)):
            for channels in (8, 48, 96):
                yield f"{kind} on {sizes} of {channels}", _pooled(kind, sizes, channels)
    yield "1-D mean", _pooled(ReduceMean((2,), keepdims=True), (7,), 9)
    yield "1-D mean of channels", _pooled(ReduceMean((1,), keepdims=True), (7,), 9)
    for kind, axes in itertools.product((ReduceMax, ReduceSum), ((2, 3), (1,), (1, 3), (3,))):
        yield f"{kind.__name__} {axes}", _pooled(kind(axes, keepdims=True), (5, 6), 33)
    for axes in ((UP,), (UP, DOWN), (DOWN, UP), (DOWN, ONE)):
        sizes = (4, 5)[: len(axes)]
        yield f"interpolation of {axes}", _pooled(Interpolate(axes), sizes, 33)
    s = Sketch(element=U8, shape=(1, 5, 5, 6))
    pooled = s(MaxPool(HALVED), "x")
    yield "pool of codes", s.done(s(ew.Cast(F32), pooled, to="y"), pooled)
    for element, falling in itertools.product((BIPOLAR, TERNARY, U2), (False, True)):
        s = Sketch(shape=(1, 70, 5, 6))
        bits = bits_of(s, "x", "s", element, 70)
        direction = [s.const(np.where(np.arange(70) % 3, 1, -1), "d", BIPOLAR)] if falling else []
        pooled = s(MaxPool(HALVED), bits, *direction, to="p")
        yield f"pool of {element.value} bits", s.done(binary(s, pooled, 5, SAME, "y"), pooled)


def _movements() -> Iterator[tuple[str, Graph]]:
    values = {BIPOLAR: (-1, 1), TERNARY: (-1, 0, 1), U2: (0, 1, 3)}
    for element, value in ((e, v) for e, some in values.items() for v in some):
        yield f"{element.value} bits padded with {value}", moved_bits(element, value)
    s = Sketch(shape=(1, 3, 4, 5))
    a = s(Transpose((0, 3, 1, 2)), "x", to="turned")
    b = s(Pad((0, 1, 0, 2), (0, 0, 1, 0), -2.5), a, to="padded")
    c = s(Slice((0, 1, 1, 0), (1, 3, 2, 3), (1, 2, 1, 2)), b, to="cut")
    d = s(Concat(3), c, s(ew.Relu(), c), to="wide")
    e = s(Reshape((1, s.builder.types[d].size)), d, to="flat")
    yield "movements of numbers", s.done(a, b, c, d, e)
    s = Sketch(shape=(1, 3, 2, 2, 2))
    turned = s(Transpose((0, 4, 2, 1, 3)), "x", to="turned")
    yield "movements of five axes", s.done(turned, s(Reshape((1, 24)), turned, to="flat"))
    s = Sketch(element=U8, shape=(1, 3, 4, 5))
    padded = s(Pad((0, 0, 1, 1), (0, 0, 1, 0), 200), "x", to="padded")
    yield "movements of codes", s.done(padded, binary(s, padded, 5, SAME, "y"))
    for element in (F32, BIPOLAR, TERNARY):
        yield f"chosen places of {element.value}", _chosen(element)
    s = Sketch(shape=(1, 3, 4, 5))
    extra = s.const(np.random.default_rng(0).standard_normal((1, 2, 4, 5)), "extra")
    yield "a constant among the operands", s.done(s(Concat(1), "x", extra, to="y"))


def _chosen(element: Element) -> Graph:
    """Return places by rules of every kind, by tables, and repeated ones."""
    s = Sketch(shape=(1, 35, 4, 5))
    x = bits_of(s, "x", "s", element, 35) if element is not F32 else "x"
    rules = ((0,), tuple(range(1, 35, 2)), (0, 0, 1, 1, 2, 2), (0, 1, 2) * 2)
    a = s(Gather(rules), x, to="ruled")
    b = s(Gather(((0,), (16, 3, 3, 0), (5, 0, 1), (2,))), a, to="listed")
    c = s(Expand((1, 4, 3, 7)), b, to="wide")
    window = Window((Axis(1), Axis(1)))
    y = [binary(s, name, 3, window, f"{name}y") for name in (a, b, c)]
    return s.done(*y)


def _constants() -> Iterator[tuple[str, Graph]]:
    random = np.random.default_rng(0)
    for shape in ((1, 2, 3, 4), (1, 2, 3, 1), (3, 4), (1, 1, 1, 4), (2, 1, 1)):
        s = Sketch(shape=(1, 2, 3, 4))
        s(ew.Mul(), "x", random.standard_normal(shape), to="y")
        w = s.const(random.standard_normal((5, 2, 1, 1)), "w")
        s(Conv(Window((Axis(1), Axis(1)))), "y", w, to="z")
        yield f"constants {shape}", s.done("y", "z")
    s = Sketch(shape=(1, 6, 4, 5))
    gate = s(ew.HardSigmoid(0.2, 0.5), s(ReduceMean((2, 3), keepdims=True), "x"), to="gate")
    yield "a gate a channel", s.done(s(ew.Mul(), gate, "x", to="y"))


def _interfaces() -> Iterator[tuple[str, Graph]]:
    yield "residual", residual()
    yield "downsampled", residual(downsampled=True)
    yield "kappa", kappa()
    s = Sketch(shape=(1, 33, 1, 1))
    yield "a single pixel", s.done(binary(s, bits_of(s, "x", "s", channels=33), 4, SAME, "y"))
    s = Sketch(shape=(1, 1, 5, 4))
    y = binary(s, bits_of(s, "x", "s"), 1, SAME, "y")
    yield "a single channel", s.done(s(ew.Add(), y, "x", to="z"), y)
    s = Sketch(shape=(1, 40, 4, 5))
    w = s.const(np.random.default_rng(0).standard_normal((9, 40, 3, 3)), "w")
    sums = s(Conv(SAME), "x", w, to="sums")
    bits = [bits_of(s, sums, name, e, 9) for name, e in (("a", BIPOLAR), ("b", TERNARY))]
    z = s(ew.Neg(), s(ew.Abs(), sums), to="z")
    yield "four results of one layer", s.done("sums", *bits, z)
    s = Sketch(shape=(1, 40))
    x = bits_of(s, "x", "s", channels=40)
    yield "without spatial axes", s.done(binary(s, x, 9, Window(()), "y"), x)


@functools.cache
def graphs() -> dict[str, Graph]:
    """Return every graph of this file, by what it is."""
    found = [*_sweep(), *_window_sums(), *_pools(), *_movements(), *_constants(), *_interfaces()]
    found += gathers()
    found += [
        (f"real, {name}, {place}", _real(name, place))
        for name, place in zip(itertools.cycle(CONVOLUTIONS), [*PLACES, *PLACES], strict=False)
    ]
    return {f"{what} ({i})": graph for i, (what, graph) in enumerate(found)}


@functools.cache
def programs(target: str) -> dict[str, Emitted]:
    """Return the graphs in C."""
    done = {}
    for i, (what, graph) in enumerate(graphs().items()):
        affine = CANONICAL_AFFINE.apply(graph, context(target)).graph
        packed = LOWER_KERNELS.apply(affine, context(target)).graph
        done[what] = print_c(staged(packed, Stage.PACKED), f"m{i}")
    return done


def _pairs(*usual: tuple[str, str]) -> pytest.MarkDecorator:
    """Return the pairs of a compiler and a target, all but the usual ones slow."""
    every = itertools.product(HOST_COMPILERS, TARGETS)
    pairs = [pytest.param(*pair, marks=() if pair in usual else pytest.mark.slow) for pair in every]
    return pytest.mark.parametrize(("compiler", "target"), pairs)


@_pairs(("gcc", "x86-64"), ("clang", "cortex-m4"))
def test_every_layer_stores_what_the_interpreter_stores(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, target: str
) -> None:
    monkeypatch.setenv("CFLAGS", "-O1")
    compiled = built(programs(target), tool(compiler), tmp_path)
    wrong = []
    for what, e in programs(target).items():
        feeds = {n: image(e.graph.types[n].element, e.graph.types[n].shape) for n in e.graph.inputs}
        expected = interpret.run_stored(e.graph, feeds)
        outputs, stored = compiled[what].traced(*feeds.values())
        pairs = list(zip([buffer.tensor for buffer in e.program.results], stored, strict=True))
        pairs += zip(e.graph.outputs, outputs, strict=True)
        wrong += [f"{what}: {name}" for name, have in pairs if not same(have, expected[name])]
    assert wrong == []


def built(models: dict[str, Emitted], compiler: str, folder: Path) -> dict[str, CompiledModel]:
    """Return programs as callables."""
    target = target_named("generic")
    artifacts = [
        SimpleNamespace(target=target, program=e.program, header=e.header, source=e.source)
        for e in models.values()
    ]
    library = build_library(artifacts, folder, compiler=compiler)
    return {what: CompiledModel(e.program, library) for what, e in models.items()}


def same(have: Array, want: Array) -> bool:
    """Whether two arrays are the same to the last bit; one NaN is as good as another."""
    have = have.reshape(want.shape)
    if have.dtype != want.dtype:
        return False
    equal = have.view(f"u{have.itemsize}") == np.ascontiguousarray(want).view(f"u{want.itemsize}")
    if have.dtype.kind == "f":
        equal |= np.isnan(have) & np.isnan(want)
    return bool(equal.all())


@_pairs(("gcc", "cortex-m4"), ("clang", "x86-64"))
def test_no_warning(tool, tmp_path: Path, compiler: str, target: str) -> None:
    # One file for all, since most of each would be the runtime.
    source = _together(programs(target), tmp_path)
    objects(tool(compiler), [source], tmp_path, "-O1", *DIALECTS["c99"], *WARNINGS)


@_pairs(("clang", "cortex-m4"))
def test_no_warning_in_cpp(tool, tmp_path: Path, compiler: str, target: str) -> None:
    source = _together(programs(target), tmp_path)
    objects(tool(compiler), [source], tmp_path, "-fsyntax-only", *DIALECTS["c++17"], *WARNINGS)


@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=() if t == "cortex-m4" else pytest.mark.slow) for t in TARGETS]
)
def test_no_warning_from_a_cross_compiler(tool, tmp_path: Path, target: str) -> None:
    source = _together(programs(target), tmp_path)
    flags = ("-Os", *CORTEX_M4, *DIALECTS["c99"], *WARNINGS)
    objects(tool("arm-none-eabi-gcc"), [source], tmp_path, *flags)


def _together(models: dict[str, Emitted], folder: Path) -> Path:
    """Write all models into one C file, behind one runtime."""
    texts = [amalgamate(dict.fromkeys(h for e in models.values() for h in e.program.headers))]
    for e in models.values():
        write(e, folder)
        assert e.source.count(e.program.runtime) == 1
        texts.append(e.source.replace(e.program.runtime, ""))
    path = folder / "together.c"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


# --- What is swept covers the templates -----------------------------------------------------------


def _linear(target: str) -> list[LinearWork]:
    layers = [layer for e in programs(target).values() for layer in e.program.layers]
    return [layer.work for layer in layers if isinstance(layer.work, LinearWork)]


PARTS = {(1,): "no", (1, 1): "many", (1, 2, 4): "odd", (1, 2, 3): "bits"}


def test_every_form_of_a_linear_layer_is_there() -> None:
    forms = {
        (
            (w.planes, w.plane_shift),
            "skip" if w.base else "fill" if w.fill else "inside",
            "few" if w.zeros else PARTS[w.parts],
            w.groups > 1,
        )
        for w in _linear("x86-64")
        if w.sum_type != "float"
    }
    planes = [(1, 0), (2, 0), (2, 1), (8, 1)]
    for plane, grouped, zeros in itertools.product(planes, (False, True), ZEROS):
        outside = ("inside", "fill") if plane[1] else ("inside", "fill", "skip")
        assert {(plane, border, zeros, grouped) for border in outside} <= forms


def test_every_form_of_a_movement_is_there() -> None:
    layers = [layer for e in programs("x86-64").values() for layer in e.program.layers]
    moves = [layer.work for layer in layers if isinstance(layer.work, MoveWork)]
    kinds = {(p.read.kind, w.write.kind, w.write.planes) for w in moves for p in w.parts}
    assert {("numbers", "numbers", 0), ("bits", "numbers", 0), ("bits", "bits", 1)} <= kinds
    assert ("bits", "bits", 2) in kinds


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_of_a_gather_is_there(target: str) -> None:
    layers = [layer for e in programs(target).values() for layer in e.program.layers]
    works = [layer.work for layer in layers if isinstance(layer.work, GatherWork)]
    assert {1, 2, 8} == {w.planes for w in works}
    for planes in (1, 2):
        some = [w for w in works if w.planes == planes]
        pieces = {
            ("shifted" if p.left or p.right else "as it is", p.mask > 0, run.count > 1)
            for w in some
            for run in w.words
            for p in run.pieces
        }
        shifts = itertools.product(("shifted", "as it is"), (False, True))
        assert {(shift, mask, False) for shift, mask in shifts} <= pieces
        assert {("shifted", False, True), ("as it is", False, True)} <= pieces
        assert any(w.bits for w in some)
        assert any(w.lists for w in some)
        assert {len(w.counts) for w in some} == {1, 2}
    apart = {
        (p.compressed, p.expanded, p.mask > 0) for w in works for run in w.words for p in run.pieces
    }
    assert {(0, 1, False), (0, 1, True), (0, 2, False), (0, 3, False)} <= apart
    assert {(1, 0, False), (1, 0, True), (2, 0, False), (3, 0, False)} <= apart
    # One plane of signs serves both of the result.
    assert any(a.plane == 0 for w in works if w.planes == 2 for a in w.operands)
