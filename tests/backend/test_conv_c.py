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

from bnncc import resources
from bnncc.backend.program import LinearWork, MoveWork, Program
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import target_named
from bnncc.verification.build import build_library
from bnncc.verification.run import CompiledModel
from tests.backend.toolchain import DIALECTS, WARNINGS, objects, write
from tests.backend.zoo import TARGETS, Emitted, print_c
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

BIPOLAR, TERNARY, U8, F32 = Element.BIPOLAR, Element.TERNARY, Element.U8, Element.F32

# What is convolved, what taps outside hold, and the share of zeros among the weights.
OPERANDS = [
    *((BIPOLAR, 0, 0), (TERNARY, 0, 0), (U8, 0, 0), (F32, 0, 0)),
    *((BIPOLAR, 1, 0), (TERNARY, -1, 0), (U8, 7, 0)),
    *((BIPOLAR, 0, 0.2), (TERNARY, 0, 0.2), (U8, 0, 0.2)),
    *((BIPOLAR, -1, 0.2), (TERNARY, 1, 0.2), (U8, 200, 0.2)),
]


def _convolved(name: str, place: str, operand: tuple[Element, int, float], ending: str) -> Graph:
    """Return one binary layer that ends in numbers, in bits, in limits, or in all of it."""
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = PLACES[place]
    element, pad, zeros = operand
    s = Sketch(element=U8 if element is U8 else F32, shape=(1, channels, *sizes))
    x = bits_of(s, "x", "s", element, channels) if element in (BIPOLAR, TERNARY) else "x"
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
    """Yield every window with every grouping, each with other operands and endings."""
    endings = itertools.cycle(["numbers", "bits", "limits", "both"])
    operands = itertools.cycle(OPERANDS)
    for name, place in itertools.product(CONVOLUTIONS, PLACES):
        for _ in range(3):
            operand, ending = next(operands), next(endings)
            what = f"{name}, {place}, {operand[0].value} pad {operand[1]} zeros {operand[2]}"
            yield f"{what}, {ending}", _convolved(name, place, operand, ending)
        # One step aside, or every third operand would meet the same windows only.
        next(endings)


def _real(name: str, place: str) -> Graph:
    channels, out, groups = CONVOLUTIONS[name]
    window, sizes = PLACES[place]
    s = Sketch(shape=(1, channels, *sizes))
    w = np.random.default_rng(0).standard_normal((out, channels // groups, *window.kernel))
    s(Conv(window, groups), "x", s.const(w, "w"), to="y")
    return s.done("y", bits_of(s, "y", "z", channels=out))


def _pooled(op: MaxPool | AveragePool | ReduceMean, sizes: tuple[int, ...], channels: int) -> Graph:
    s = Sketch(shape=(1, channels, *sizes))
    pooled = s(op, "x", to="p")
    y = s(ew.Mul(), pooled, -1.5, to="y")
    shape = s.builder.types[pooled].shape
    bits = [bits_of(s, y, "z", channels=shape[1])] if len(shape) > 1 else []
    return s.done("p", y, *bits)


TALL = Window((Axis(3, 1, 1, 1, 1), Axis(2)))
WIDE = Window((Axis(2), Axis(3, 2, 1, 1, 1)))
LINE = Window((Axis(3, 2, 1, 1, 1),))
CEIL = Window((Axis(2, 2, ceil=True), Axis(3, 2, 1, 1, 0, ceil=True)))


def _pools() -> Iterator[tuple[str, Graph]]:
    for name, op in POOLS.items():
        yield f"pool {name}", _pooled(op, (5, 6), 33)
    for window, sizes in ((TALL, (5, 6)), (WIDE, (5, 6)), (LINE, (7,)), (CEIL, (5, 6))):
        for kind in (MaxPool(window), AveragePool(window), AveragePool(window, True)):
            yield f"{kind} on {sizes}", _pooled(kind, sizes, 8)
    yield "1-D mean", _pooled(ReduceMean((2,), keepdims=True), (7,), 9)
    yield "1-D mean of channels", _pooled(ReduceMean((1,), keepdims=True), (7,), 9)
    s = Sketch(element=U8, shape=(1, 5, 5, 6))
    pooled = s(MaxPool(HALVED), "x")
    yield "pool of codes", s.done(s(ew.Cast(F32), pooled, to="y"), pooled)
    for element, falling in itertools.product((BIPOLAR, TERNARY), (False, True)):
        s = Sketch(shape=(1, 70, 5, 6))
        bits = bits_of(s, "x", "s", element, 70)
        direction = [s.const(np.where(np.arange(70) % 3, 1, -1), "d", BIPOLAR)] if falling else []
        pooled = s(MaxPool(HALVED), bits, *direction, to="p")
        yield f"pool of {element.value} bits", s.done(binary(s, pooled, 5, SAME, "y"), pooled)


def _movements() -> Iterator[tuple[str, Graph]]:
    for element, value in ((BIPOLAR, -1), (BIPOLAR, 1), (TERNARY, -1), (TERNARY, 0), (TERNARY, 1)):
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
    s = Sketch(shape=(1, 3, 4, 5))
    extra = s.const(np.random.default_rng(0).standard_normal((1, 2, 4, 5)), "extra")
    yield "a constant among the operands", s.done(s(Concat(1), "x", extra, to="y"))


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
    found = [*_sweep(), *_pools(), *_movements(), *_constants(), *_interfaces()]
    places = itertools.product(CONVOLUTIONS, PLACES)
    found += [(f"real, {name}, {place}", _real(name, place)) for name, place in places]
    return {f"{what} ({i})": graph for i, (what, graph) in enumerate(found)}


@functools.cache
def programs(target: str) -> dict[str, Emitted]:
    """Return the graphs in C."""
    done = {}
    for i, (what, graph) in enumerate(graphs().items()):
        packed = LOWER_KERNELS.apply(graph, context(target)).graph
        done[what] = print_c(staged(packed, Stage.PACKED), f"m{i}")
    return done


@pytest.fixture(scope="module", params=TARGETS)
def emitted(request: pytest.FixtureRequest) -> dict[str, Emitted]:
    return programs(request.param)


@pytest.fixture
def built(
    emitted: dict[str, Emitted], cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, CompiledModel]:
    """Return the programs as callables."""
    monkeypatch.setenv("CFLAGS", "-O1")
    target = target_named("generic")
    artifacts = [
        SimpleNamespace(target=target, program=e.program, header=e.header, source=e.source)
        for e in emitted.values()
    ]
    library = build_library(artifacts, tmp_path, compiler=cc)
    return {what: CompiledModel(e.program, library) for what, e in emitted.items()}


def test_every_layer_stores_what_the_interpreter_stores(
    emitted: dict[str, Emitted], built: dict[str, CompiledModel]
) -> None:
    wrong = []
    for what, e in emitted.items():
        feeds = {n: image(e.graph.types[n].element, e.graph.types[n].shape) for n in e.graph.inputs}
        expected = interpret.run_stored(e.graph, feeds)
        outputs, stored = built[what].traced(*feeds.values())
        pairs = list(zip([buffer.tensor for buffer in e.program.results], stored, strict=True))
        pairs += zip(e.graph.outputs, outputs, strict=True)
        wrong += [f"{what}: {name}" for name, have in pairs if not _same(have, expected[name])]
    assert wrong == []


def _same(have: Array, want: Array) -> bool:
    """Whether two arrays are the same to the last bit; one NaN is as good as another."""
    have = have.reshape(want.shape)
    if have.dtype != want.dtype:
        return False
    equal = have.view(f"u{have.itemsize}") == np.ascontiguousarray(want).view(f"u{want.itemsize}")
    if have.dtype.kind == "f":
        equal |= np.isnan(have) & np.isnan(want)
    return bool(equal.all())


@pytest.mark.parametrize("dialect", ["c99", "c++17"])
def test_no_warning(emitted: dict[str, Emitted], cc: str, tmp_path: Path, dialect: str) -> None:
    # One file for all, since most of each would be the runtime.
    source = _together(list(emitted.values()), tmp_path)
    level = "-O2" if dialect == "c99" else "-fsyntax-only"
    objects(cc, [source], tmp_path, level, *DIALECTS[dialect], *WARNINGS)


def test_no_warning_from_a_cross_compiler(
    emitted: dict[str, Emitted], tool, tmp_path: Path
) -> None:
    source = _together(list(emitted.values()), tmp_path)
    flags = ("-mcpu=cortex-m4", "-mthumb", "-O2", *DIALECTS["c99"], *WARNINGS)
    objects(tool("arm-none-eabi-gcc"), [source], tmp_path, *flags)


def _together(models: list[Emitted], folder: Path) -> Path:
    """Write all models into one C file, behind one runtime."""
    from bnncc.backend.amalgamate import amalgamate

    root = resources.runtime_dir()
    headers = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.h"))
    texts = [amalgamate(headers)]
    for e in models:
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


def test_every_form_of_a_linear_layer_is_there() -> None:
    forms = {
        (w.planes, bool(w.base), bool(w.fill), bool(w.zeros), w.groups > 1)
        for w in _linear("x86-64")
        if w.sum_type != "float"
    }
    for planes, grouped, zeros in itertools.product((1, 2, 8), (False, True), (False, True)):
        assert (planes, False, True, zeros, grouped) in forms  # filled
        assert (planes, False, False, zeros, grouped) in forms  # nothing outside
        if planes < 8:
            assert (planes, True, False, zeros, grouped) in forms  # skipped


def test_every_form_of_a_movement_is_there() -> None:
    layers = [layer for e in programs("x86-64").values() for layer in e.program.layers]
    moves = [layer.work for layer in layers if isinstance(layer.work, MoveWork)]
    kinds = {(p.read.kind, w.write.kind, w.write.planes) for w in moves for p in w.parts}
    assert {("numbers", "numbers", 0), ("bits", "numbers", 0), ("bits", "bits", 1)} <= kinds
    assert {("bits", "bits", 2), ("bits", "bits", 8)} <= kinds


def test_every_template_but_calls_is_there() -> None:
    folder = resources.templates_dir() / "layers"
    names = {path.name for path in folder.iterdir()} - {"common.c.j2", "call.c.j2"}
    used: set[str] = set()
    for program in _programs():
        used |= {layer.template for layer in program.layers}
    assert used == names


def _programs() -> list[Program]:
    return [e.program for target in TARGETS for e in programs(target).values()]
