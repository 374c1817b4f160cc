"""Layers computed in tiles: every stored word is the interpreter's, for every form of a layer."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnncc.backend.program import TileWork
from bnncc.errors import ToolchainError
from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.canonical_affine import CANONICAL_AFFINE
from bnncc.passes.lower_kernels import LOWER_KERNELS
from bnncc.targets import Target, kernels, target_named
from bnncc.verification.build import build_library, host_flags
from bnncc.verification.run import CompiledModel
from tests.backend.test_conv_c import same
from tests.backend.toolchain import DIALECTS, WARNINGS, objects, together, write
from tests.backend.zoo import Emitted, print_c
from tests.conftest import HOST_COMPILERS
from tests.ir.sketch import Sketch
from tests.passes.applying import context, staged
from tests.passes.convolutions import PLACES, SAME, binary, bits_of, image

BIPOLAR, TERNARY = Element.BIPOLAR, Element.TERNARY
U2, U8 = Element.U2, Element.U8
TARGETS = ("x86-64-v3", "x86-64-avx512")
USUAL = {("gcc", "x86-64-avx512")}

LAYERS = {
    "plain": (33, 9, 1),
    "a word": (64, 64, 1),
    "ragged": (70, 100, 1),
    "groups of tiles": (128, 128, 2),
    "groups of parts of words": (40, 64, 2),
    "one block a group": (192, 96, 3),
}
"""name -> channels in, channels out, groups."""

WIDE = {
    "several tiles": (SAME, (3, 21)),
    "tall": (SAME, (21, 3)),
    "a column": (SAME, (9, 1)),
    "a pixel": (SAME, (1, 1)),
    "no full window": (Window((Axis(5, 1, 1, 2, 2), Axis(5, 1, 1, 2, 2))), (3, 4)),
    "columns without taps": (Window((Axis(3, 1, 1, 1, 1), Axis(1, 1, 1, 2, 2))), (4, 5)),
    "1-D of several tiles": (Window((Axis(5, 1, 1, 2, 2),)), (30,)),
    "dense": (Window(()), ()),
}
"""Places where tiles begin and end, beside those of the other layers."""

OPERANDS = {
    "bits": (BIPOLAR, 0, "no"),
    "bits, -1": (BIPOLAR, -1, "no"),
    "bits, +1": (BIPOLAR, 1, "no"),
    "few zeros": (BIPOLAR, 0, "few"),
    "few zeros, +1": (BIPOLAR, 1, "few"),
    "ternary weights, -1": (BIPOLAR, -1, "many"),
    "ternary": (TERNARY, 0, "many"),
    "ternary, +1": (TERNARY, 1, "few"),
    "codes": (U2, 2, "no"),
    "bytes": (U8, 7, "odd"),
    "weights of bits": (BIPOLAR, 0, "bits"),
}
"""name -> what is convolved, what taps outside hold, zeros among the weights."""

ENDINGS = ("numbers", "limits", "two limits", "both")


def _layer(name: str, place: str, operand: str, ending: str) -> Graph:
    """Return a layer that ends in numbers, in one comparison a bit or two, in numbers and bits."""
    channels, out, groups = LAYERS[name]
    window, sizes = (PLACES | WIDE)[place]
    element, pad, zeros = OPERANDS[operand]
    s = Sketch(element=U8 if element is U8 else Element.F32, shape=(1, channels, *sizes))
    x = "x" if element is U8 else bits_of(s, "x", "s", element, channels)
    y = binary(s, x, out, window, "y", groups=groups, pad=pad, zeros=zeros)
    if ending == "numbers":
        return s.done(y)
    if ending == "both":
        return s.done(y, bits_of(s, y, "b", BIPOLAR, out))
    n = s.builder.nodes[-1].inputs[0]
    levels, steps = (BIPOLAR, 1) if ending == "limits" else (TERNARY, 2)
    t = np.sort(np.random.default_rng(0).integers(-9, 9, (out, steps)))
    t[1::5] = np.iinfo(np.int32).max  # never
    t[2::5] = np.iinfo(np.int32).min  # always
    held = s.const(t, "t", Element.I32)
    rows = [[-1, 1] if levels is BIPOLAR else [-1, 0, 1]] * out
    return s.done(s(ew.Step(levels), n, held, rows, to="b"))


def _real(name: str, place: str, ending: str) -> Graph:
    """Return a layer of real weights on real activations."""
    channels, out, groups = LAYERS[name]
    window, sizes = (PLACES | WIDE)[place]
    s = Sketch(shape=(1, channels, *sizes))
    random = np.random.default_rng(channels)
    w = s.const(random.standard_normal((out, channels // groups, *window.kernel)), "w")
    y = s(Conv(window, groups), "x", w, to="y")
    return s.done(y) if ending == "numbers" else s.done(y, bits_of(s, y, "b", BIPOLAR, out))


@functools.cache
def graphs() -> dict[str, Graph]:
    """Return layers: every place with every operand, and every form of each."""
    endings, layers = itertools.cycle(ENDINGS[1:]), itertools.cycle(LAYERS)
    cases: Iterator[tuple[str, str, str, str]] = itertools.chain(
        (
            (next(layers), place, operand, next(endings))
            for place, operand in itertools.product(PLACES | WIDE, OPERANDS)
        ),
        itertools.product(LAYERS, ("padded", "stride"), ("bits", "bits, -1"), ENDINGS),
    )
    binary_layers = {f"{', '.join(case)} ({i})": _layer(*case) for i, case in enumerate(cases)}
    reals = itertools.chain(
        ((next(layers), *case) for case in itertools.product(PLACES | WIDE, ("numbers", "both"))),
        itertools.product(LAYERS, ("padded", "stride"), ("both",)),
    )
    return binary_layers | {f"real, {', '.join(case)}": _real(*case) for case in reals}


@functools.cache
def programs(target: str) -> dict[str, Emitted]:
    """Return the graphs in C, with tiles wherever one can be."""
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_GAINS", {"scalar": 1, "avx2": 100, "avx512": 100})
        for i, (what, graph) in enumerate(graphs().items()):
            affine = CANONICAL_AFFINE.apply(graph, context(target)).graph
            packed = LOWER_KERNELS.apply(affine, context(target)).graph
            done[what] = print_c(staged(packed, Stage.PACKED), f"m{i}")
    return done


def _works(target: str) -> dict[str, TileWork]:
    works = {
        what: [layer.work for layer in e.program.layers if isinstance(layer.work, TileWork)]
        for what, e in programs(target).items()
    }
    return {what: found[0] for what, found in works.items() if found}


def _skip_without(command: str, target: Target) -> None:
    try:
        host_flags((command,), target)
    except ToolchainError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("compiler", "target"),
    [
        pytest.param(c, t, marks=() if (c, t) in USUAL else pytest.mark.slow)
        for c, t in itertools.product(HOST_COMPILERS, TARGETS)
    ],
)
def test_every_layer_stores_what_the_interpreter_stores(
    tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, target: str
) -> None:
    monkeypatch.setenv("CFLAGS", "-O1")
    _skip_without(tool(compiler), target_named(target))
    models = programs(target)
    artifacts = [
        SimpleNamespace(
            target=target_named(target), program=e.program, header=e.header, source=e.source
        )
        for e in models.values()
    ]
    library = build_library(artifacts, tmp_path, compiler=tool(compiler))
    wrong = []
    for what, e in models.items():
        feeds = {n: image(e.graph.types[n].element, e.graph.types[n].shape) for n in e.graph.inputs}
        expected = interpret.run_stored(e.graph, feeds)
        outputs, stored = CompiledModel(e.program, library).traced(*feeds.values())
        pairs = list(zip([b.tensor for b in e.program.results], stored, strict=True))
        pairs += zip(e.graph.outputs, outputs, strict=True)
        wrong += [f"{what}: {name}" for name, have in pairs if not same(have, expected[name])]
    assert wrong == []


@pytest.mark.parametrize("dialect", ["c99", "c++17"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_warning(cc: str, tmp_path: Path, target: str, dialect: str) -> None:
    flags = (*target_named(target).cflags, "-O0" if dialect == "c99" else "-fsyntax-only")
    source = together(programs(target).values(), tmp_path)
    objects(cc, [source], tmp_path, *flags, *DIALECTS[dialect], *WARNINGS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_of_a_tile_is_there(target: str) -> None:
    works = _works(target)
    assert len(works) > len(graphs()) * 0.9
    layers = [layer for e in programs(target).values() for layer in e.program.layers]
    tiled = {layer.template for layer in layers if isinstance(layer.work, TileWork)}
    assert tiled == {"tiles.c.j2"}
    used = {work.kernel for work in works.values()}
    isa = target_named(target).isas[0]
    assert used == {k.symbol for k in kernels.load_kernels() if k.isa == isa}
    forms = {
        (
            "compared" if w.limits else "summed",
            "outside" if w.outside else "skipped" if w.rows[2] + w.columns[2] > 2 else "inside",
            w.groups > 1,
            w.joined,
        )
        for w in works.values()
    }
    for ending, grouped in itertools.product(("compared", "summed"), (False, True)):
        assert {(ending, border, grouped, not grouped) for border in ("inside", "skipped")} <= forms
    assert {("summed", "outside", grouped, not grouped) for grouped in (False, True)} <= forms
    assert {w.zero_count > 0 for w in works.values()} == {False, True}
    assert {(1,), (1, 1), (1, 2, 4), (1, 2, 3)} <= {w.parts for w in works.values()}
    assert {1, 2, 8} <= {w.planes for w in works.values()}


def test_without_its_instructions_a_model_says_what_it_needs(cc: str, tmp_path: Path) -> None:
    emitted = programs("x86-64-v3")
    what = next(name for name in _works("x86-64-v3"))
    source = write(emitted[what], tmp_path)
    with pytest.raises(AssertionError, match=r"this file is for AVX2: -march=x86-64-v3"):
        objects(cc, [source], tmp_path, "-O1")


def test_a_long_reduction_is_not_compared_in_16_bits() -> None:
    for depth, compared in ((32767, True), (32768, False)):
        s = Sketch(shape=(1, depth))
        n = binary(s, bits_of(s, "x", "s", channels=depth), 32, Window(()), "y")
        assert n == "y"
        t = s.const(np.zeros((32, 1)), "t", Element.I32)
        sums = s.builder.nodes[-1].inputs[0]
        graph = s.done(s(ew.Step(BIPOLAR), sums, t, [[-1, 1]] * 32, to="b"))
        packed = LOWER_KERNELS.apply(graph, context("x86-64-avx512")).graph
        program = print_c(replace(packed, stage=Stage.PACKED), "m").program
        (work,) = (layer.work for layer in program.layers if isinstance(layer.work, TileWork))
        assert bool(work.limits) is compared
