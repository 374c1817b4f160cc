"""The generated C, run from Python, computes what the interpreter computes, bit for bit."""

from __future__ import annotations

import dataclasses
import functools
import gc
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bnncc.compiler import Artifact, Compilation
from bnncc.errors import ToolchainError, UsageError
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.interpret import run_stored
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array, Element, TensorType
from bnncc.verification.run import CompiledModel, load, load_many
from tests.models import add_sign, batch_norm, compilation, mlp, samples


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CFLAGS", raising=False)


def real_layers() -> Graph:
    """Real weights, BatchNorm, sign, and real weights again: every sum is one of float32."""
    rng = np.random.default_rng(5)
    build = GraphBuilder("real")
    x = build.input("x", TensorType((1, 70), Element.F32))
    for i, (k, channels) in enumerate([(70, 65), (65, 17)]):
        weights = rng.normal(0, 1, (channels, k)).astype(np.float32)
        w = build.constant(f"w{i}", weights, Element.F32)
        x = build.node(MatMul(), [x, w], f"fc{i}")
        x = batch_norm(build, x, k**0.5, rng, f"bn{i}")
        x = add_sign(build, x, f"sign{i}") if i == 0 else x
    return build.build([x])


def tails() -> Graph:
    """Both softmaxes, of scores that differ by little and by more than exp can tell apart."""
    rng = np.random.default_rng(8)
    build = GraphBuilder("tails")
    x = build.input("x", TensorType((1, 33), Element.F32))
    outputs = []
    for log, spread in ((False, 1), (True, 1), (False, 1e3), (True, 1e3)):
        weights = rng.normal(0, spread, (7, 33)).astype(np.float32)
        w = build.constant(f"w{log}{spread}", weights, Element.F32)
        scores = build.node(MatMul(), [x, w], f"scores{log}{spread}")
        outputs.append(build.node(Softmax(log), [scores], f"y{log}{spread}"))
    return build.build(outputs)


def two_ports() -> Graph:
    """Two inputs, two outputs, names that are no identifiers, an image, a reshaped output."""
    rng = np.random.default_rng(6)
    build = GraphBuilder("two")
    image = build.input("the image/0", TensorType((1, 1, 2, 5), Element.F32))
    vector = build.input("v", TensorType((1, 5), Element.F32))
    flat = build.node(Reshape((1, 10)), [image], "flat")
    signs = build.constant("signs", rng.choice(np.float32([-1, 1]), (6, 10)), Element.F32)
    reals = build.constant("reals", rng.normal(0, 1, (3, 5)), Element.F32)
    six = build.node(MatMul(), [flat, signs], "six")
    boxed = build.node(Reshape((1, 2, 3)), [six], "boxed")
    three = build.node(MatMul(), [vector, reals], "three")
    return build.build([boxed, three])


def hidden_output() -> Graph:
    """A sign that is an output and goes on."""
    rng = np.random.default_rng(7)
    build = GraphBuilder("hidden")
    x = build.input("x", TensorType((1, 33), Element.F32))
    for i, (k, channels) in enumerate([(33, 35), (35, 3)]):
        weights = rng.choice(np.float32([-1, 1]), (channels, k))
        w = build.constant(f"w{i}", weights, Element.F32)
        x = build.node(MatMul(), [x, w], f"fc{i}")
        x = add_sign(build, x, f"sign{i}") if i == 0 else x
    return build.build(["sign0", x])


def channel_levels() -> Graph:
    """A sign after BatchNorm as the output: three levels, of which gamma 0 leaves a channel one."""
    build = GraphBuilder("levels")
    x = build.input("x", TensorType((1, 83), Element.F32))
    x = batch_norm(build, x, 0.5, np.random.default_rng(9), "bn")
    return build.build([add_sign(build, x, "y", "sign")])


GRAPHS = {
    "where": lambda: mlp((784, 65, 33, 10), 1),
    "alpha": lambda: mlp((70, 65, 33, 17), 3, alpha=True),
    "sign, alpha": lambda: mlp((70, 1, 9, 3), 2, sign="sign", alpha=True),
    "uint8": lambda: mlp((65, 16, 17), 3, uint8=True),
    "uint8, sign, alpha, sums": lambda: mlp(
        (20, 63, 5), 4, uint8=True, sign="sign", alpha=True, affine=False
    ),
    "whole words, sums": lambda: mlp((64, 128, 64, 8), 5, affine=False),
    "one of each": lambda: mlp((1, 1, 1), 6),
    "real": real_layers,
    "two ports": two_ports,
    "tails": tails,
    "hidden output": hidden_output,
    "channel levels": channel_levels,
}


@functools.cache
def compiled(name: str, target: str = "x86-64") -> Compilation:
    """Return one of GRAPHS, compiled once for all tests; nothing in it can be changed."""
    return compilation(GRAPHS[name](), target)


@pytest.fixture(scope="module")
def done() -> Compilation:
    return compiled("alpha")


@pytest.fixture(scope="module")
def model(done: Compilation) -> CompiledModel:
    return load(done)


@pytest.fixture(scope="module")
def double(any_cc: str) -> CompiledModel:
    return load(compiled("two ports"))


def assert_same_bits(actual: Array, expected: Array, what: str = "") -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), what
    octets = (np.ascontiguousarray(a).view(np.uint8) for a in (actual, expected))
    np.testing.assert_array_equal(*octets, err_msg=what)


def assert_computes(loaded: CompiledModel, done: Compilation, x: dict[str, Array]) -> None:
    """Outputs and every layer are the interpreter's, by position, by name, and traced."""
    packed = done.lowered.graph
    reference = run_stored(packed, x)
    results = loaded(*x.values())
    outputs, layers = loaded.traced(**x)
    for found in (results if isinstance(results, tuple) else (results,), outputs):
        for array, name in zip(found, packed.outputs, strict=True):
            assert_same_bits(array, reference[name], name)
    stored = [output.buffer.tensor for layer in done.program.layers for output in layer.outputs]
    for array, name in zip(layers, stored, strict=True):
        assert_same_bits(array, reference[name], name)


# --- The same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("target", ["x86-64", "generic"])
def test_outputs_and_every_layer_are_the_interpreters(cc: str, name: str, target: str) -> None:
    done = compiled(name, target)
    loaded = load(done, compiler=cc)
    for batch in (0, 1, 7):
        assert_computes(loaded, done, samples(done.lowered.graph, batch, batch))


@pytest.mark.parametrize(
    "flags",
    [
        "-O0",
        "-O3 -march=native",
        "-std=gnu99 -O3 -march=native",
        "-std=gnu99 -O3 -march=native -ffp-contract=fast",
    ],
)
@pytest.mark.parametrize("name", ["real", "alpha", "uint8"])
def test_no_flag_changes_a_bit(
    cc: str, name: str, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The trap: one fused multiply-add rounds once where the model rounds twice. gcc makes them
    # unasked in its default mode, which is gnu17, and its vectoriser looks through barriers.
    monkeypatch.setenv("CFLAGS", flags)
    done = compiled(name)
    assert_computes(load(done, compiler=cc), done, samples(done.lowered.graph, 64, 8))


def test_two_models_of_one_name_at_a_time() -> None:
    both = [compilation(mlp((9, 5), seed, affine=False)) for seed in (1, 2)]
    loaded = [load(done) for done in both]
    for model, done in zip(loaded, both, strict=True):
        assert_computes(model, done, samples(done.lowered.graph, 5, 0))


def test_models_of_one_library_compute_what_each_computes_alone(cc: str) -> None:
    # Between them they need every part of the runtime, the first one not even half of it.
    names = ("where", "uint8, sign, alpha, sums", "tails", "two ports", "channel levels")
    several = [compilation(GRAPHS[key](), name=f"model{i}") for i, key in enumerate(names)]
    artifact = Artifact(Path("nowhere.h"), Path("nowhere.c"), several[0])
    loaded = load_many([artifact, *several[1:]], compiler=cc)
    for model, done in zip(loaded, several, strict=True):
        assert_computes(model, done, samples(done.lowered.graph, 5, 0))


def test_models_of_one_library_go_away_one_by_one() -> None:
    several = [compilation(mlp((9, 5), seed, affine=False), name=f"m{seed}") for seed in (1, 2)]
    loaded = load_many(several)
    del loaded[0]
    gc.collect()
    assert_computes(loaded[0], several[1], samples(several[1].lowered.graph, 5, 0))


def test_models_of_one_library_need_names_of_their_own() -> None:
    both = [compilation(mlp((9, 5), seed, affine=False)) for seed in (1, 2)]
    with pytest.raises(UsageError) as caught:
        load_many(both)
    assert str(caught.value) == (
        "error[BNN020]: 2 of the models to load together are called model\n"
        "  help:  give each a name of its own: bnncc.Options(name=...)"
    )


def test_no_model_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert load_many([]) == []


def test_an_artifact_is_loaded_from_memory(done: Compilation, model: CompiledModel) -> None:
    artifact = Artifact(Path("nowhere.h"), Path("nowhere.c"), done)
    x = np.ones((2, 70), np.float32)
    assert_same_bits(load(artifact)(x), model(x))


# --- What goes in ---------------------------------------------------------------------------------


def test_inputs_and_outputs_are_described(double: CompiledModel, model: CompiledModel) -> None:
    assert [(s.name, s.shape, s.dtype) for s in double.inputs] == [
        ("the image/0", (1, 2, 5), np.float32),
        ("v", (5,), np.float32),
    ]
    assert [(s.name, s.shape, s.dtype) for s in double.outputs] == [
        ("boxed", (2, 3), np.float32),
        ("three", (3,), np.float32),
    ]
    assert repr(double) == (
        "<CompiledModel model: (the image/0: float32 [N, 1, 2, 5], v: float32 [N, 5]) -> "
        "(boxed: float32 [N, 2, 3], three: float32 [N, 3])>"
    )
    assert model.arena_bytes > 0


def test_inputs_by_position_and_by_name(double: CompiledModel) -> None:
    image, vector = samples(compiled("two ports").lowered.graph, 3, 0).values()
    expected = double(image, vector)
    assert isinstance(expected, tuple)
    for given in (double(image, v=vector), double(v=vector, **{"the image/0": image})):
        for a, b in zip(given, expected, strict=True):
            assert_same_bits(a, b)


def _strided(x: Array) -> Array:
    wide = np.zeros((x.shape[0] * 2, x.shape[1] * 3), x.dtype)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def _misaligned(x: Array) -> Array:
    octets = np.zeros(x.nbytes + 1, np.uint8)
    moved = octets[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    assert not moved.flags.aligned
    return moved


@pytest.mark.parametrize(
    "form",
    [
        _strided,
        _misaligned,
        np.asfortranarray,
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(x.dtype.newbyteorder("S")),
        lambda x: np.broadcast_to(x[:1], x.shape),
    ],
    ids=["strided", "misaligned", "fortran", "reversed", "byte-swapped", "broadcast"],
)
def test_any_memory_layout_is_taken_and_left_alone(model: CompiledModel, form) -> None:
    x = form(samples(mlp((70, 3), 0), 4, 0)["x"])
    values = np.array(x, np.float32)
    x.flags.writeable = False
    assert_same_bits(model(x), model(values))
    np.testing.assert_array_equal(x, values)


def test_what_numpy_can_make_an_array_of_is_taken(model: CompiledModel) -> None:
    x = np.ones((2, 70), np.float32)
    assert_same_bits(model(memoryview(x)), model(x))
    assert_same_bits(model([row for row in x]), model(x))  # noqa: C416 - a list is the point


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_, object])
def test_another_element_type_is_refused(model: CompiledModel, dtype: type) -> None:
    with pytest.raises(UsageError) as caught:
        model(np.ones((2, 70), dtype))
    assert str(caught.value) == (
        'error[BNN042]: input "x" has the wrong element type\n'
        f"  why:   expected float32 [N, 70], given {np.dtype(dtype)} [2, 70]\n"
        "  help:  x.astype(np.float32); nothing is converted silently, since that can change values"
    )


def test_reals_for_codes_are_refused() -> None:
    codes = load(compilation(mlp((5, 3), 0, uint8=True)))
    with pytest.raises(UsageError) as caught:
        codes(np.ones((2, 5), np.float32))
    assert str(caught.value) == (
        'error[BNN042]: input "x" has the wrong element type\n'
        "  why:   expected uint8 [N, 5], given float32 [2, 5]\n"
        "  help:  give the integer codes that --input declared; casting real values would "
        "truncate them"
    )


def test_a_sample_without_a_batch_is_refused(model: CompiledModel) -> None:
    with pytest.raises(UsageError) as caught:
        model(np.ones(70, np.float32))
    assert str(caught.value) == (
        'error[BNN042]: input "x" has the wrong shape\n'
        "  why:   expected float32 [N, 70], given float32 [70]\n"
        "  help:  give a single sample a batch axis: x[np.newaxis]"
    )


@pytest.mark.parametrize("shape", [(), (2, 69), (70, 2), (2, 70, 1), (1, 2, 70), (140,), (0, 0)])
def test_another_shape_is_refused(model: CompiledModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        model(np.ones(shape, np.float32))
    assert str(caught.value) == (
        'error[BNN042]: input "x" has the wrong shape\n'
        f"  why:   expected float32 [N, 70], given float32 [{', '.join(map(str, shape))}]"
    )


def test_rows_of_different_lengths_are_refused(model: CompiledModel) -> None:
    with pytest.raises(UsageError, match=r'error\[BNN042\]: input "x" is not an array\n  why: '):
        model([[1.0, 2.0], [3.0]])


def test_different_batches_are_refused(double: CompiledModel) -> None:
    with pytest.raises(UsageError) as caught:
        double(np.ones((2, 1, 2, 5), np.float32), np.ones((3, 5), np.float32))
    assert str(caught.value) == (
        "error[BNN042]: the inputs have different batches\n  where: the image/0: 2, v: 3"
    )


@pytest.mark.parametrize(
    ("positions", "names", "given"),
    [
        (0, [], "none"),
        (1, [], "1 by position"),
        (3, [], "3 by position"),
        (1, ["the image/0"], "1 by position, the image/0"),
        (1, ["v", "w"], "1 by position, v, w"),
        (2, ["v"], "2 by position, v"),
    ],
)
def test_missing_and_unknown_inputs_are_refused(
    double: CompiledModel, positions: int, names: list[str], given: str
) -> None:
    x = np.ones((1, 5), np.float32)
    with pytest.raises(UsageError) as caught:
        double(*[x] * positions, **dict.fromkeys(names, x))
    assert str(caught.value) == (
        "error[BNN042]: model takes 2 inputs\n"
        "  where: the image/0: float32 [N, 1, 2, 5], v: float32 [N, 5]\n"
        f"  why:   given: {given}"
    )


# --- Threads and time -----------------------------------------------------------------------------


def test_calls_at_the_same_time_do_not_mix(done: Compilation, model: CompiledModel) -> None:
    batches = [samples(mlp((70, 3), 0), 50 + i, i)["x"] for i in range(24)]
    expected = [model.traced(x) for x in batches]
    with ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(model, x) for x in batches]
        traced = [pool.submit(model.traced, x) for x in batches]
    for (outputs, layers), call, trace in zip(expected, plain, traced, strict=True):
        assert_same_bits(call.result(), outputs[0])
        for a, b in zip(trace.result()[1], layers, strict=True):
            assert_same_bits(a, b)


def test_other_threads_run_during_a_call(done: Compilation) -> None:
    # No clock decides: the C announces itself in the input, which is not copied, and goes on only
    # once Python has answered there. If the call kept Python's lock, nobody could.
    wait = """
  ((float *)input)[1] = 1.0f;
  for (volatile uint64_t turn = 0; turn < (uint64_t)1 << 33; ++turn) {
    if (((const volatile float *)input)[0] != 0.0f) {
      return 0;
    }
  }
  return 1;
}
"""
    before, _, after = done.source.rpartition("  return 0;\n}\n")
    model = load(dataclasses.replace(done, source=before + wait + after))
    x = np.zeros((1, 70), np.float32)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model, x)
        while x[0, 1] == 0 and not call.done():
            time.sleep(0.001)
        x[0, 0] = 1
        assert call.result(timeout=120).shape == (1, 17)


def test_time_is_taken_in_c(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((20, 70), np.float32)
    started = time.perf_counter_ns()
    taken = model.nanoseconds_per_sample(x, repeats=5)
    assert 0 < taken * 20 * 5 <= time.perf_counter_ns() - started
    assert model.nanoseconds_per_sample(x=x) > 0


@pytest.mark.parametrize(("batch", "repeats"), [(0, 1), (1, 0)])
def test_there_must_be_something_to_take_the_time_of(
    model: CompiledModel, batch: int, repeats: int
) -> None:
    with pytest.raises(UsageError) as caught:
        model.nanoseconds_per_sample(np.zeros((batch, 70), np.float32), repeats=repeats)
    assert str(caught.value) == (
        "error[BNN042]: there is nothing to take the time of\n"
        "  where: <CompiledModel model: (x: float32 [N, 70]) -> (y: float32 [N, 17])>"
    )


# --- What can go wrong, and what is left behind ---------------------------------------------------


def test_a_status_other_than_zero_is_an_error(done: Compilation) -> None:
    before, _, after = done.source.rpartition("  return 0;\n}\n")
    failing = load(dataclasses.replace(done, source=f"{before}  return 1;\n}}\n{after}"))
    x = np.zeros((1, 70), np.float32)
    for call in (failing, failing.traced, failing.nanoseconds_per_sample):
        with pytest.raises(ToolchainError) as caught:
            call(x)
        assert str(caught.value) == "error[BNN043]: model_run failed\n  why:   it returned 1"
    assert failing(x[:0]).shape == (0, 17)


def test_nothing_is_left_behind_and_nothing_needed(
    done: Compilation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work, elsewhere):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    loaded = load(done)
    assert list(work.iterdir()) == []
    monkeypatch.chdir(elsewhere)
    assert loaded(np.zeros((1, 70), np.float32)).shape == (1, 17)
    assert list(elsewhere.iterdir()) == []
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(work) in maps.read_text()
    del loaded
    gc.collect()
    if maps.exists():
        assert str(work) not in maps.read_text()


def test_a_model_that_goes_away_during_a_call_stays_until_its_end(done: Compilation) -> None:
    batches = [np.zeros((2000, 70), np.float32) for _ in range(4)]
    loaded = [load(done)]
    expected = loaded[0](batches[0])
    ready = threading.Barrier(5)

    def call(x: Array, held: list[CompiledModel]) -> Array:
        bound = held[0]
        ready.wait()
        return bound(x)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, x, list(loaded)) for x in batches]
        ready.wait()
        loaded.clear()
        gc.collect()
        for result in calls:
            assert_same_bits(result.result(), expected)


def test_a_failed_build_leaves_nothing_behind(
    done: Compilation, any_cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ToolchainError, match="BNN041"):
        load(dataclasses.replace(done, source="#error broken\n"), compiler=any_cc)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler(done: Compilation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolchainError, match=r"^error\[BNN040\]: no C compiler was found\n"):
        load(done)


def test_a_missing_temporary_folder(
    done: Compilation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(ToolchainError) as caught:
        load(done)
    first, where, *rest = str(caught.value).splitlines()
    assert first == "error[BNN050]: there is no temporary folder to build the C in"
    assert where.startswith("  where: /no/such/folder/bnncc-")
    assert rest == [
        "  why:   No such file or directory",
        "  help:  point TMPDIR to a folder that can be written to",
    ]


def test_a_library_for_another_machine(
    done: Compilation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        'case "$*" in *-shared*) echo no library > "$last";; esac\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        load(done, compiler=str(compiler))
    (found,) = caught.value.diagnostics
    assert found.code == "BNN041"
    assert found.what == "the library built from model cannot be loaded"
    assert found.help == (
        "CC and CFLAGS must build for this Python's own machine, and TMPDIR must be on a file "
        "system that allows execution"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["cc"]
