"""Compile a model: read, lower, print, write. The public entry point behind `bnncc.compile`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnncc._version import __version__
from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.backend.names import comment, identifier
from bnncc.backend.program import Program
from bnncc.certificate import Certificate, InsertedSign
from bnncc.errors import ToolchainError, UsageError, printable
from bnncc.frontends.inputs import InputSpec, declare_inputs, parse_input_spec
from bnncc.ir.graph import Graph
from bnncc.ir.text import format_graph
from bnncc.layouts import Choice, Goal, Optimize, Problem, Size, choose, size_of
from bnncc.passes.base import Context, Family, SignZero
from bnncc.pipeline import PIPELINE, Lowered, run_pipeline
from bnncc.report import LostSignWarning, Report, find_suspects, make_report
from bnncc.report.layers import titles
from bnncc.report.parameters import parameter_names
from bnncc.targets import Target, costs_of, host_target, target_named

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from bnncc.frontends.onnx import Imported

__all__ = [
    "Artifact",
    "Compilation",
    "Options",
    "compile",
    "compile_in_memory",
    "warn_of_suspects",
]

_NO_SUSPECTS = (
    "--insert-sign: no layer seems to have lost its sign; --insert-sign-at LAYER inserts one anyway"
)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        name: prefix of the C identifiers and of the files; "" takes the model file's name, or the
            name of the module's class.
        target: a name of `bnncc targets`; "" stands for this machine's.
        inputs: inputs as bytes, each as `[NAME=]uint8:SCALE,OFFSET` or with int8.
        sign_zero: "auto", "plus", "minus" or "exact", see `SignZero`.
        shapes: shapes of inputs whose dimensions the model leaves open.
        insert_sign: whether to put a Sign on the input of every layer that `Report.suspects`
            names: the C, and what `verify` compares with, are then the model so repaired.
        insert_sign_at: layers, as reports call them or by their nodes, whose input gets one.
        kernels: kernel families, each as `[LAYER=]FAMILY`, see `Family`; without a layer it is that
            of all others, which else are "auto": the compiler chooses.
        optimize: what it chooses by, "speed" or "size", see `Optimize`.
        max_flash, max_ram: bytes that the C may take, code (an estimate) and stack included; None
            for any.
        dump_dir: where to write the graph after every pass, or None.
    """

    name: str = ""
    target: str = ""
    inputs: tuple[str, ...] = ()
    sign_zero: str = "auto"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    insert_sign: bool = False
    insert_sign_at: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    optimize: str = Optimize.SPEED.value
    max_flash: int | None = None
    max_ram: int | None = None
    dump_dir: Path | None = None


@dataclass(frozen=True, eq=False)
class Compilation:
    """Everything known of a compiled model, in memory.

    Attributes:
        program: the C program; `header` and `source` are its text.
        lowered: the packed graph and what the passes had to say.
        certificate, report: see there.
        target: what it was compiled for.
        size: of flash and RAM, the code's an estimate.
        inputs: the inputs declared as bytes, by name.
        oracle: the user's own model, batch 1, for verify; with `certificate.edits` made in it.
    """

    program: Program
    header: str
    source: str
    lowered: Lowered
    certificate: Certificate
    report: Report
    target: Target
    size: Size
    inputs: Mapping[str, InputSpec]
    oracle: onnx.ModelProto


@dataclass(frozen=True, eq=False)
class Artifact:
    """A compiled model on disk: two C files, and everything known of them."""

    header: Path
    source: Path
    compilation: Compilation

    @property
    def report(self) -> Report:
        """What the compile has to tell."""
        return self.compilation.report

    @property
    def certificate(self) -> Certificate:
        """What was proven of each layer."""
        return self.compilation.certificate


def compile(
    model: str | os.PathLike[str] | nn.Module,
    output: str | os.PathLike[str] = ".",
    options: Options | None = None,
    *,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    progress: Progress = lambda *_: None,
) -> Artifact:
    """Compile a model to NAME.h and NAME.c in the folder `output`, which is made if missing.

    Args:
        model: an ONNX file, a .pt2 archive of torch.export, a .tflite file of Larq Compute Engine,
            or a PyTorch module.
        output: a folder.
        options: how; the defaults suit this machine.
        example_inputs: for a module, a tensor for each argument of its forward, with batch 1.
        certificate: where to write the certificate as JSON, if anywhere.
        progress: see `Progress`.

    Returns:
        The artifact; nothing is written unless everything is.

    Raises:
        UnsupportedModelError, UsageError, ToolchainError, InternalError: see `bnncc.errors`.

    Warns:
        LostSignWarning: the file is probably not the model that was trained; `Report.suspects`.
    """
    done = compile_in_memory(model, options, progress, example_inputs=example_inputs)
    warn_of_suspects(done)
    folder = Path(output)
    header, source = (folder / f"{done.program.name}.{suffix}" for suffix in ("h", "c"))
    files = {header: done.header, source: done.source}
    if certificate is not None:
        if Path(certificate) in files:
            what = "the certificate would overwrite the C"
            raise UsageError("BNN020", what, where=str(certificate))
        plain = done.certificate.as_json()
        files[Path(certificate)] = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    _write_all(files)
    return Artifact(header, source, done)


def compile_in_memory(
    model: str | os.PathLike[str] | nn.Module,
    options: Options | None = None,
    progress: Progress = lambda *_: None,
    *,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
) -> Compilation:
    """Compile a model without writing anything (but `options.dump_dir`).

    Raises:
        As `compile`.
    """
    options = options or Options()
    model_name, read = _reader(model, example_inputs)
    target = target_named(options.target) if options.target else host_target()
    sign_zero, families = _sign_zero(options.sign_zero), _families(options.kernels)
    goal = _goal(options)
    declared = _declared(options.inputs)
    name = identifier(options.name or model_name.split(".")[0])
    clock = _Clock()

    progress("reading the model", 0, len(PIPELINE) + 2)
    imported = read(options.shapes)
    clock.lap("read")
    context = Context(target, sign_zero, _by_node(families, imported))

    def pipeline(graph: Graph, goal: Goal) -> Lowered:
        def chosen(graph: Graph, context: Context) -> Choice:
            return choose(Problem.of(graph, context), goal)

        return run_pipeline(graph, context, _observer(graph, options.dump_dir, progress), chosen)

    imported, edits, notes = _repaired(
        imported, options, declared, lambda graph: pipeline(graph, Goal())
    )
    graph = declare_inputs(imported.graph, declared)
    lowered = pipeline(graph, goal)
    clock.lap("passes")

    progress("writing C", len(PIPELINE) + 1, len(PIPELINE) + 2)
    banner = _banner(model_name, imported.sha256, options, target, edits)
    program = lower(lowered.graph, name, banner)
    header, source = render_header(program), render_source(program)
    clock.lap("emit")

    only = imported.graph.inputs[0] if imported.graph.inputs else ""
    return Compilation(
        program=program,
        header=header,
        source=source,
        lowered=lowered,
        certificate=Certificate(
            imported.sha256, __version__, lowered.assumptions, lowered.certificates, edits
        ),
        report=make_report(
            graph,
            lowered,
            program,
            target=target.name,
            notes=(*imported.notes, *notes),
            seconds=clock.seconds,
            parameters=parameter_names(imported.source),
            edits=edits,
        ),
        target=target,
        size=size_of(program, costs_of(target)),
        inputs={input_name or only: spec for input_name, spec in declared.items()},
        oracle=imported.source,
    )


def warn_of_suspects(done: Compilation) -> None:
    """Warn, in the way of Python, if the file is probably not the model that was trained."""
    for warning in done.report.warnings:
        text = f"{warning.what}. {warning.where}. {warning.why}. {warning.help}"
        warnings.warn(f"{warning.code}: {text}", LostSignWarning, stacklevel=3)


def _repaired(
    imported: Imported,
    options: Options,
    declared: Mapping[str, InputSpec],
    pipeline: Callable[[Graph], Lowered],
) -> tuple[Imported, tuple[InsertedSign, ...], tuple[str, ...]]:
    """Return the model with the signs that the user wants put back, these, and notes."""
    if not (options.insert_sign or options.insert_sign_at):
        return imported, (), ()
    from bnncc.frontends.onnx.repair import insert_signs  # onnx takes half a second to import

    parameters = parameter_names(imported.source)
    called = titles(imported.graph, parameters)
    chosen = _layers_named(called, imported.graph, options.insert_sign_at)
    notes: tuple[str, ...] = ()
    if options.insert_sign:
        graph = declare_inputs(imported.graph, declared)
        found = find_suspects(graph, pipeline(graph), parameters)
        chosen |= {suspect.result: suspect.layer for suspect in found}
        notes = () if found else (_NO_SUSPECTS,)
    return *insert_signs(imported, chosen), notes


def _by_node(families: Mapping[str, Family], imported: Imported) -> dict[str, Family]:
    """Return kernel families by the source node of each layer, "*" standing for all others.

    Raises:
        UsageError: BNN020, a layer is not there.
    """
    graph = imported.graph
    named = {layer: family for layer, family in families.items() if layer != "*"}
    found = {"*": families["*"]} if "*" in families else {}
    if named:
        called = titles(graph, parameter_names(imported.source))
        for layer, family in named.items():
            results = _layers_named(called, graph, [layer])
            found |= {graph.producers[result].origin[0]: family for result in results}
    return found


def _layers_named(called: Mapping[str, str], graph: Graph, layers: Sequence[str]) -> dict[str, str]:
    """Return what layers that the user names are called, by the tensors of their sums.

    Raises:
        UsageError: BNN020, a layer is not there.
    """
    chosen: dict[str, str] = {}
    own = {result: (title, graph.producers[result].origin[0]) for result, title in called.items()}
    for wanted in layers:
        found = [result for result, names in own.items() if wanted in names]
        if not found:
            known = ", ".join(dict.fromkeys(called.values())) or "none"
            what = f'no layer with weights is called "{printable(wanted)}"'
            raise UsageError("BNN020", what, help=f"the model's layers: {known}")
        chosen |= {result: called[result] for result in found}
    return chosen


def _reader(
    model: str | os.PathLike[str] | nn.Module, example_inputs: Tensor | Sequence[Tensor] | None
) -> tuple[str, Callable[[Mapping[str, tuple[int, ...]]], Imported]]:
    """Return what the model is called, and what reads it, given shapes of inputs."""
    from bnncc.frontends.torch import is_module, load_file, load_module  # these import onnx

    if is_module(model):
        if example_inputs is None:
            raise UsageError(
                "BNN022",
                "compiling a module needs example_inputs",
                help="bnncc.compile(module, example_inputs=(torch.zeros(1, 784),)), a tensor for "
                "each argument of forward",
            )
        return type(model).__name__, partial(load_module, model, example_inputs)
    if not isinstance(model, str | os.PathLike):
        what = f"a model is a file or a torch.nn.Module, not {type(model).__name__}"
        raise UsageError("BNN020", what)
    if example_inputs is not None:
        raise UsageError("BNN022", "example_inputs is given, but the model is a file")
    return Path(model).name, partial(load_file, Path(model))


class _Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Record the time since the last lap under `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now


def _declared(texts: Sequence[str]) -> dict[str, InputSpec]:
    specs = [parse_input_spec(text) for text in texts]
    names = [name for name, _ in specs]
    if len(set(names)) < len(names):
        raise UsageError("BNN021", "an input is declared twice", where="; ".join(texts))
    return dict(specs)


def _sign_zero(text: str) -> SignZero:
    try:
        return SignZero(text)
    except ValueError:
        known = ", ".join(choice.value for choice in SignZero)
        what = f'sign-zero cannot be "{text}"'
        raise UsageError("BNN020", what, help=f"choose one of: {known}") from None


def _goal(options: Options) -> Goal:
    try:
        optimize = Optimize(options.optimize)
    except ValueError:
        known = ", ".join(choice.value for choice in Optimize)
        what = f'nothing is optimised for "{printable(options.optimize)}"'
        raise UsageError("BNN020", what, help=f"choose one of: {known}") from None
    return Goal(optimize, options.max_flash, options.max_ram)


def _families(texts: Sequence[str]) -> dict[str, Family]:
    """Return the kernel families asked for, by layer; "*" stands for all."""
    found: dict[str, Family] = {}
    for text in texts:
        layer, _, family = text.rpartition("=")
        try:
            chosen = Family(family)
        except ValueError:
            known = ", ".join(choice.value for choice in Family)
            what = f'no kernel family is called "{printable(family)}"'
            raise UsageError("BNN020", what, help=f"choose one of: {known}") from None
        if found.setdefault(layer or "*", chosen) is not chosen:
            what = f'two kernel families are given for "{printable(layer or "*")}"'
            raise UsageError("BNN020", what, help="give each layer one --kernel")
    return found


def _banner(
    model_name: str,
    sha256: str,
    options: Options,
    target: Target,
    edits: Sequence[InsertedSign],
) -> list[str]:
    """Return the comment on top of both files: what made them, from what, how."""
    chosen = [f"--target {target.name}"]
    chosen += [f"--input {text}" for text in options.inputs]
    chosen += [f"--kernel {text}" for text in options.kernels]
    chosen += [f"--optimize {options.optimize}"] if options.optimize != Options.optimize else []
    for option, limit in (("flash", options.max_flash), ("ram", options.max_ram)):
        chosen += [f"--max-{option} {limit}"] if limit is not None else []
    chosen += [f"--sign-zero {options.sign_zero}"] if options.sign_zero != "auto" else []
    chosen += ["--insert-sign"] if options.insert_sign else []
    chosen += [f"--insert-sign-at {layer}" for layer in options.insert_sign_at]
    return [
        f"Generated by bnncc {__version__}; do not edit.",
        comment(f"model   {model_name}"),
        f"sha256  {sha256}",
        comment(f"options {' '.join(chosen)}"),
        *(comment(f"edited  Sign inserted on the input of {edit.layer}") for edit in edits),
    ]


def _observer(
    graph: Graph, dump_dir: Path | None, progress: Progress
) -> Callable[[str, Graph], None]:
    """Return what the pipeline calls after each pass: progress, and dumps where asked for."""
    names = [step.name for step in PIPELINE]
    count = 0

    def dump(stem: str, current: Graph) -> None:
        if dump_dir is not None:
            _write_all({dump_dir / f"{stem}.txt": format_graph(current)})

    def observe(name: str, current: Graph) -> None:
        nonlocal count
        count += 1
        following = names[count] if count < len(names) else "packing"
        progress(following, count + 1, len(names) + 2)
        dump(f"{count:02}_{name}", current)

    dump("00_imported", graph)
    progress(names[0], 1, len(names) + 2)
    return observe


def _write_all(files: Mapping[Path, str]) -> None:
    """Write all files or none: each beside its place first, then all moved there.

    Raises:
        ToolchainError: BNN050.
    """
    with contextlib.ExitStack() as undo:
        try:
            moves = [(_write_beside(path, text, undo), path) for path, text in files.items()]
            for temporary, path in moves:
                temporary.replace(path)
        except OSError as error:
            where = str(error.filename or next(iter(files)))
            why = error.strerror or str(error)
            raise ToolchainError(
                "BNN050", "cannot write the output", where=where, why=why
            ) from None
        undo.pop_all()


def _write_beside(path: Path, text: str, undo: contextlib.ExitStack) -> Path:
    for folder in _missing_folders(path.parent):
        folder.mkdir()
        undo.callback(_ignore_missing, folder.rmdir)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(temporary)
    undo.callback(_ignore_missing, beside.unlink)
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    beside.chmod(0o666 & ~_umask())
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder", str(path))
    return beside


def _missing_folders(folder: Path) -> Iterator[Path]:
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    yield from reversed(missing)


def _ignore_missing(action: Callable[[], Any]) -> None:
    with contextlib.suppress(OSError):
        action()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
