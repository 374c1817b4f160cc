"""The generated C: what it may contain, and that every compiler takes it without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnncc import resources
from bnncc.backend.expressions import is_emittable
from bnncc.backend.memory import is_alias, plan_memory
from bnncc.backend.names import comment
from bnncc.backend.program import Layer, LinearWork
from bnncc.ir.graph import Node
from bnncc.ir.ops import elementwise as ew
from bnncc.targets import load_kernels
from tests.backend import zoo
from tests.backend.toolchain import (
    CORTEX_M4,
    CORTEX_M4F,
    CROSS,
    DIALECTS,
    WARNINGS,
    frames_of,
    objects,
    run,
    write,
)
from tests.backend.zoo import MODELS, TARGETS, Emitted, emitted

EACH_MODEL = pytest.mark.parametrize("model", MODELS)
EACH_TARGET = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, list[Path]]:
    """The files of the whole zoo, by target."""
    folder = tmp_path_factory.mktemp("zoo")
    return {
        target: [write(emitted(model, target), folder / target) for model in MODELS]
        for target in TARGETS
    }


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


# --- The zoo is worth its name --------------------------------------------------------------------


def _layers() -> list[Layer]:
    programs = [emitted(model, target).program for model in MODELS for target in TARGETS]
    return [layer for program in programs for layer in program.layers]


def test_the_zoo_has_every_template() -> None:
    folder = resources.templates_dir() / "layers"
    shared = {"common.c.j2", "decide.c.j2", "numbers.c.j2", "zeros.c.j2"}
    elsewhere = {"tiles.c.j2"}  # test_tiles_c.py
    templates = {path.name for path in folder.iterdir()} - shared - elsewhere
    assert {layer.template for layer in _layers()} == templates


def _linear() -> list[tuple[Layer, LinearWork]]:
    return [(layer, layer.work) for layer in _layers() if isinstance(layer.work, LinearWork)]


def test_the_zoo_has_every_kernel() -> None:
    used = {work.kernel for _, work in _linear()}
    assert {kernel.symbol for kernel in load_kernels() if not kernel.is_tile} == used


def test_the_zoo_has_every_form_of_a_binary_layer() -> None:
    xnor = [(layer, work) for layer, work in _linear() if "xnor" in work.kernel]
    kinds = {(work.planes, work.value == "(int32_t)m[n]", _decides(layer)) for layer, work in xnor}
    for planes in (1, 2, 8):
        assert (planes, True, True) in kinds  # direct
        assert (planes, False, False) in kinds  # with a base
    works = [work for _, work in xnor]
    for what in ("base", "fill", "zeros"):
        assert {bool(getattr(work, what)) for work in works} == {False, True}, what
    assert {len(work.parts) for work in works} == {1, 2}
    assert {work.groups > 1 for work in works} == {False, True}
    decisions = [store.decisions for layer, _ in xnor for store in layer.finish.stores]
    assert any(" ^ " in decision for some in decisions for decision in some)
    assert any(len(some) == 2 for some in decisions)
    assert any(len(layer.outputs) == 2 for layer, _ in xnor)


def _decides(layer: Layer) -> bool:
    return any(store.decisions for store in layer.finish.stores)


def test_the_zoo_has_every_operation_that_c_has_a_form_for() -> None:
    graphs = [emitted(model, target).graph for model in MODELS for target in TARGETS]
    epilogues = [
        node.op.epilogue for graph in graphs for node in graph.nodes if hasattr(node.op, "epilogue")
    ]
    used = {type(term.op) for epilogue in epilogues for term in epilogue.expression.terms}
    samples = {
        ew.Cast: ew.Cast(ew.Element.F32),
        ew.Step: ew.Step(ew.Element.F32),
        ew.LeakyRelu: ew.LeakyRelu(0.1),
        ew.Clip: ew.Clip(0, 1),
        ew.HardSigmoid: ew.HardSigmoid(0.2, 0.5),
        ew.Power: ew.Power(1),
        ew.BatchNormalization: ew.BatchNormalization(1e-5),
    }
    public = [getattr(ew, name) for name in ew.__all__]
    kinds = [kind for kind in public if isinstance(kind, type) and kind is not ew.Elementwise]
    ops = [samples[kind] if kind in samples else kind() for kind in kinds]
    # A Sign has become a Step by then; test_expressions.py has it.
    assert {type(op) for op in ops if is_emittable(op)} - {ew.Sign} <= used


# --- What it contains -----------------------------------------------------------------------------


@EACH_MODEL
@EACH_TARGET
def test_nothing_but_what_firmware_may_have(model: str, target: str) -> None:
    e = emitted(model, target)
    for text in (e.header, e.source):
        code = without_comments(text)
        assert not re.search(
            r"malloc|alloca|\bfree\b|printf|stdio|stdlib|assert|errno|\bgoto\b", code
        )
        assert "//" not in code
        assert "\t" not in text
        assert text.isascii()
        assert text.endswith("\n")
        assert not re.search(r"[ \t]+$", text, re.MULTILINE)
    includes = re.findall(r"#include (\S+)", e.header + e.source)
    system = {f"<{name}.h>" for name in ("float", "math", "stddef", "stdint", "string")}
    allowed = system | {f'"{e.name}.h"'}
    assert set(includes) <= allowed
    assert includes.count(f'"{e.name}.h"') == 1


@EACH_MODEL
@EACH_TARGET
def test_each_layer_is_introduced(model: str, target: str) -> None:
    e = emitted(model, target)
    for layer, node in zip(e.program.layers, _printed_nodes(e), strict=True):
        head = e.source[: e.source.index(f"BNN_LAYER void {layer.function}(")]
        introduction = head[head.rindex("\n\n/* " + comment(node.origin[0])) :]
        assert all(origin in introduction for origin in node.origin)
        assert all(str(e.graph.types[name]) in introduction for name in node.outputs)
        if isinstance(layer.work, LinearWork):
            assert layer.work.kernel in introduction


def _printed_nodes(e: Emitted) -> list[Node]:
    aliases = plan_memory(e.graph).aliases
    return [n for n in e.graph.nodes if not (is_alias(e.graph, n) and n.output in aliases)]


@EACH_MODEL
@EACH_TARGET
def test_the_header_says_what_is_so(model: str, target: str) -> None:
    e = emitted(model, target)
    macros = dict(re.findall(r"#define (\w+) (\d+)$", e.header, re.MULTILINE))
    prefix = e.name.upper()
    graph, program = e.graph, e.program
    for names, ports in ((graph.inputs, program.inputs), (graph.outputs, program.outputs)):
        for name, port in zip(names, ports, strict=True):
            assert int(macros[f"{prefix}_{port.macro}_SIZE"]) == graph.types[name].size
    assert int(macros[f"{prefix}_ARENA_BYTES"]) == program.arena_bytes
    assert int(macros[f"{prefix}_FLASH_BYTES"]) == sum(
        constant.nbytes for layer in program.layers for constant in layer.constants
    )
    assert f"uint64_t words[{max(1, program.arena_bytes // 8)}];" in e.header


# --- Compilers ------------------------------------------------------------------------------------


# Some warnings come from the optimiser; those of a dialect come from the front end.
MATRIX = {
    "c99": ("-O2", *DIALECTS["c99"]),
    "c11": ("-fsyntax-only", *DIALECTS["c11"]),
    "c++17": ("-fsyntax-only", *DIALECTS["c++17"]),
}
# arm-none-eabi-g++ comes with its gcc; a g++ for aarch64 is a package of its own.
CROSS_MATRIX = [
    *(("arm-none-eabi-gcc", dialect) for dialect in DIALECTS),
    *(("aarch64-linux-gnu-gcc", dialect) for dialect in ("c99", "c11")),
]


@EACH_TARGET
@pytest.mark.parametrize("dialect", MATRIX)
def test_no_warning(cc: str, sources, tmp_path: Path, target: str, dialect: str) -> None:
    objects(cc, sources[target], tmp_path, *MATRIX[dialect], *WARNINGS)


@EACH_TARGET
@pytest.mark.parametrize("build", CROSS_MATRIX, ids="-".join)
def test_no_warning_from_cross_compilers(
    tool, sources, tmp_path: Path, target: str, build: tuple[str, str]
) -> None:
    compiler, dialect = build
    flags = (*CROSS[compiler], *MATRIX[dialect], *WARNINGS)
    objects(tool(compiler), sources[target], tmp_path, *flags)


@pytest.mark.slow
@EACH_TARGET
@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os", "-O3 -march=native", "-O3 -std=gnu17"])
def test_no_warning_at_any_level(cc: str, sources, tmp_path: Path, target: str, level: str) -> None:
    objects(cc, sources[target], tmp_path, "-std=c99", *level.split(), *WARNINGS)


@EACH_TARGET
def test_cppcheck_finds_nothing(tool, sources, target: str) -> None:
    run(
        tool("cppcheck"),
        "--enable=warning,performance,portability",
        "--error-exitcode=1",
        "--std=c99",
        "--quiet",
        "--inline-suppr",
        # The system's own headers: cppcheck does not need them and says so.
        "--suppress=missingIncludeSystem",
        *sources[target],
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_headers_compile_alone_and_twice(cc: str, sources, tmp_path: Path, dialect: str) -> None:
    folder = sources["x86-64"][0].parent
    main = tmp_path / "main.c"
    lines = [f'#include "{model}.h"\n#include "{model}.h"\n' for model in MODELS]
    main.write_text("".join(lines) + "int main(void);\nint main(void) { return 0; }\n")
    run(cc, "-fsyntax-only", *DIALECTS[dialect], *WARNINGS, f"-I{folder}", main)


@pytest.mark.parametrize("language", ["c", "c++"])
def test_a_cpp_program_links_with_it(cc: str, sources, tmp_path: Path, language: str) -> None:
    source = next(path for path in sources["x86-64"] if path.stem == "through")
    model = objects(cc, [source], tmp_path, "-x", language, *WARNINGS)
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "through.h"\n'
        "int main() {\n  static through_arena arena;\n"
        "  const float in[THROUGH_INPUT_SIZE] = {1, -2, 3};\n  float out[THROUGH_OUTPUT_SIZE];\n"
        "  if (through_run(in, out, &arena) != 0) return 1;\n"
        "  if (through_run(nullptr, out, &arena) != 1) return 2;\n"
        "  if (through_run(in, nullptr, &arena) != 1) return 3;\n"
        "  if (through_run(in, out, nullptr) != 1) return 4;\n"
        "  return out[0] == 1 && out[1] == -2 && out[2] == 3 ? 0 : 5;\n}\n"
    )
    program = tmp_path / "program"
    run(cc, "-x", "c++", "-c", f"-I{source.parent}", main, "-o", tmp_path / "main.o")
    run(cc, tmp_path / "main.o", *model, "-o", program)
    run(program)


# --- Objects --------------------------------------------------------------------------------------

# What a freestanding compiler may call for loops and struct copies.
_LIBRARY = {"memcpy", "memset", "memmove", "memcmp"}
_ARM_ARITHMETIC = re.compile(
    r"__aeabi_\w+|__(add|sub|mul|div|float|fix|trunc|cmp|un|g[te]|l[te])\w+"
)


def _symbols(nm: str, path: Path) -> list[tuple[str, str]]:
    lines = run(nm, "--format=posix", path).stdout.splitlines()
    return [(parts[1], parts[0]) for parts in map(str.split, lines)]


def test_objects_export_one_function_and_no_variable(
    cc: str, tool, sources, tmp_path: Path
) -> None:
    # At -O0, where nothing that is not needed goes away.
    for path in objects(cc, sources["x86-64"], tmp_path, "-O0", "-std=c99", "-fno-pic"):
        symbols = _symbols(tool("nm"), path)
        assert [name for kind, name in symbols if kind.isupper() and kind != "U"] == [
            f"{path.stem}_run"
        ]
        assert not [s for s in symbols if s[0] in "BbDdCcGgSs"], path.stem
        assert {name for kind, name in symbols if kind == "U"} <= _LIBRARY


def test_firmware_objects_need_arithmetic_at_most(tool, sources, tmp_path: Path) -> None:
    compiler, nm = tool("arm-none-eabi-gcc"), tool("arm-none-eabi-nm")
    for path in objects(compiler, sources["cortex-m4"], tmp_path, "-Os", "-std=c99", *CORTEX_M4):
        symbols = _symbols(nm, path)
        assert not [s for s in symbols if s[0] in "BbDdCcGgSs"], path.stem
        undefined = {name for kind, name in symbols if kind == "U"} - _LIBRARY
        assert all(_ARM_ARITHMETIC.fullmatch(name) for name in undefined), undefined


def test_flash_bytes_are_those_of_the_object(tool, sources, tmp_path: Path) -> None:
    # At -O0, where no constant is merged, dropped or added.
    for path in objects(tool("gcc"), sources["cortex-m4"], tmp_path, "-O0", "-std=c99", "-fno-pic"):
        lines = run(tool("nm"), "--format=posix", path).stdout.splitlines()
        constants = [line.split() for line in lines if re.search(r"_layer\d+_\w+ r ", line)]
        size = sum(int(parts[3], 16) for parts in constants)
        assert size == sum(emitted(path.stem, "cortex-m4").program.constant_bytes.values())


_LEVELS = [
    ("gcc", "x86-64", "-O0"),
    ("gcc", "x86-64", "-O3 -march=native"),
    ("arm-none-eabi-gcc", "cortex-m4", " ".join(("-O0", *CORTEX_M4))),
    ("arm-none-eabi-gcc", "cortex-m4", " ".join(("-O3", *CORTEX_M4F))),
]
_MORE_LEVELS = [
    ("gcc", "x86-64", "-O2"),
    ("gcc", "x86-64", "-O1 -fno-inline"),
    ("arm-none-eabi-gcc", "cortex-m4", " ".join(("-Os", *CORTEX_M4))),
]


@pytest.mark.parametrize(
    "build",
    [*_LEVELS, *(pytest.param(level, marks=pytest.mark.slow) for level in _MORE_LEVELS)],
    ids=" ".join,
)
def test_the_stack_stays_under_the_headers_figure(
    tool, sources, tmp_path: Path, build: tuple[str, str, str]
) -> None:
    compiler, target, level = build
    flags = (*level.split(), "-std=c99", "-fstack-usage")
    objects(tool(compiler), sources[target], tmp_path, *flags)
    kernels = {kernel.symbol for kernel in load_kernels()}
    for path in sources[target]:
        frames = frames_of(tmp_path / f"{path.stem}.su")
        # run calls a layer, a layer calls a kernel, a kernel calls a function of one expression.
        levels = [
            [name for name in frames if re.fullmatch(rf"{path.stem}_run", name)],
            [name for name in frames if re.fullmatch(rf"{path.stem}_layer\d+", name)],
            [name for name in frames if name in kernels or "pack_planes" in name],
        ]
        levels.append(list(frames.keys() - set().union(*levels)))
        deepest = sum(max((frames[name] for name in names), default=0) for names in levels)
        promised = int(re.search(r"_STACK_BYTES (\d+)", emitted(path.stem, target).header)[1])
        assert deepest <= promised, frames


# --- Hostile names --------------------------------------------------------------------------------

HOSTILE = [
    "*/ #error injected /*",
    "line\nbreak",
    "back\\slash",
    "*\\ int injected; \\*",
    "trailing\\",
    "??/ trigraph",
    "int",
    "quote\" and ' tick",
    "模型 é \u2028",
    "%s%n {{ program.name }} {% raw %}",
    "x" * 10_000,
    "\0\x07\x1b[31m",
]


def _named(name: str) -> Emitted:
    """Return a model whose every tensor and node bears a name, compiled under that name."""
    net = zoo.Net(20, prefix=name)
    x = net.sign(net.input(f"{name} input", 34))
    x = net.sign(net.batch_norm(net.dense(x, 9)))
    y = net.op(ew.Add(), net.dense(x, 4), net.constant([1, 2, 3, 4]), name=f"{name} output")
    return zoo.emit(zoo.Model(net.build(y)), "named", "x86-64")


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:30])
def test_hostile_names_change_nothing_but_comments(cc: str, tmp_path: Path, name: str) -> None:
    actual, tame = _named(name), _named("tame")
    assert without_comments(actual.source) == without_comments(tame.source)
    assert without_comments(actual.header) == without_comments(tame.header)
    source = write(actual, tmp_path)
    assert max(map(len, actual.source.splitlines())) < 400
    for dialect in ("c99", "c++17"):
        objects(cc, [source], tmp_path, *DIALECTS[dialect], "-Wtrigraphs", *WARNINGS)


@pytest.mark.parametrize(
    "name",
    # A NAME.h in a folder given by -I is found for <NAME.h>.
    [
        *("int", "bnn_bits", "9", "", "float", "..", "-o", "modèle", "a" * 300),
        *("stdint", "stddef_", "features", "limits"),
    ],
)
def test_a_hostile_model_name_gives_files_that_build(
    any_cc: str, tmp_path: Path, name: str
) -> None:
    from bnncc.backend.names import identifier

    model = zoo.emit(MODELS["maps"](), identifier(name), "x86-64")
    source = write(model, tmp_path / "lib")
    assert source.parent == tmp_path / "lib"
    caller = tmp_path / "lib" / "caller_.c"
    # As a user writes it, who reads limits.h and the model's header.
    caller.write_text(f'#include <limits.h>\n#include "{model.name}.h"\nint top = INT_MAX;\n')
    objects(any_cc, [source, caller], tmp_path / "out", f"-I{source.parent}", "-std=c99")
