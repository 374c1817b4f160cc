"""The commands: what each takes, and the one call it makes."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from bnncc._version import __version__
from bnncc.cli import compiled, reference, verified
from bnncc.cli.console import print_json, results
from bnncc.cli.failures import exit_code, reported
from bnncc.cli.options import (
    HERE,
    NONE_DECLARED,
    AsJson,
    CertificateFile,
    DataFile,
    DumpFolder,
    Inputs,
    InsertSign,
    InsertSignAt,
    Kernels,
    MaxFlash,
    MaxRam,
    ModelFile,
    Name,
    OptimizeFor,
    OutputFolder,
    Samples,
    Seed,
    Shapes,
    SignOfZero,
    TargetName,
    options_of,
)
from bnncc.cli.progress import progress_bar
from bnncc.cli.warned import show_warnings, shown_not_warned
from bnncc.compiler import Options, compile_in_memory
from bnncc.compiler import compile as compile_model

__all__ = ["app", "main"]

app = typer.Typer(
    name="bnncc",
    help="Compile trained binary neural networks to exact, dependency-free C.",
    epilog="Start with: bnncc inspect MODEL",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line, and leave the process with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names hold what a terminal may not
    try:
        app(prog_name="bnncc")
    except Exception as error:  # noqa: BLE001 - the last place that can turn one into a message
        sys.exit(exit_code(error, as_json=False))


def _version(wanted: bool) -> None:
    if wanted:
        with reported(as_json=False):
            typer.echo(f"bnncc {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command("compile")
def _compile(
    model: ModelFile,
    *,
    output: OutputFolder = HERE,
    name: Name = "",
    target: TargetName = "",
    inputs: Inputs = NONE_DECLARED,
    sign_zero: SignOfZero = "auto",
    shapes: Shapes = NONE_DECLARED,
    insert_sign: InsertSign = False,
    insert_sign_at: InsertSignAt = NONE_DECLARED,
    kernels: Kernels = NONE_DECLARED,
    optimize: OptimizeFor = Options.optimize,
    max_flash: MaxFlash = None,
    max_ram: MaxRam = None,
    certificate: CertificateFile = None,
    dump_dir: DumpFolder = None,
    as_json: AsJson = False,
) -> None:
    """Compile MODEL to two C files, NAME.h and NAME.c."""
    with reported(as_json):
        options = options_of(
            name=name,
            target=target,
            inputs=inputs,
            sign_zero=sign_zero,
            shapes=shapes,
            insert_sign=insert_sign,
            insert_sign_at=insert_sign_at,
            kernels=kernels,
            optimize=optimize,
            max_flash=max_flash,
            max_ram=max_ram,
            dump_dir=dump_dir,
        )
        with progress_bar() as progress, shown_not_warned():
            artifact = compile_model(
                model, output, options, certificate=certificate, progress=progress
            )
        if as_json:
            print_json(compiled.artifact_json(artifact, certificate))
        else:
            compiled.show_artifact(results(), artifact, model, options, certificate)
        show_warnings(artifact.report.warnings)


@app.command("inspect")
def _inspect(
    model: ModelFile,
    *,
    name: Name = "",
    target: TargetName = "",
    inputs: Inputs = NONE_DECLARED,
    sign_zero: SignOfZero = "auto",
    shapes: Shapes = NONE_DECLARED,
    insert_sign: InsertSign = False,
    insert_sign_at: InsertSignAt = NONE_DECLARED,
    kernels: Kernels = NONE_DECLARED,
    optimize: OptimizeFor = Options.optimize,
    max_flash: MaxFlash = None,
    max_ram: MaxRam = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Also print the packed graph, operation by operation.")
    ] = False,
    with_kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Also print which kernels each layer of bits takes, what the others would take, "
            "and where tensors change their layout.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what becomes bits, what does not and why, and all sizes. Writes nothing."""
    with reported(as_json):
        options = options_of(
            name=name,
            target=target,
            inputs=inputs,
            sign_zero=sign_zero,
            shapes=shapes,
            insert_sign=insert_sign,
            insert_sign_at=insert_sign_at,
            kernels=kernels,
            optimize=optimize,
            max_flash=max_flash,
            max_ram=max_ram,
        )
        with progress_bar() as progress:
            compilation = compile_in_memory(model, options, progress)
        if as_json:
            print_json(
                compiled.inspection_json(compilation, with_graph=graph, with_kernels=with_kernels)
            )
        else:
            compiled.show_inspection(
                results(), compilation, model, with_graph=graph, with_kernels=with_kernels
            )
        show_warnings(compilation.report.warnings)


@app.command("verify")
def _verify(
    model: ModelFile,
    *,
    name: Name = "",
    target: TargetName = "",
    inputs: Inputs = NONE_DECLARED,
    sign_zero: SignOfZero = "auto",
    shapes: Shapes = NONE_DECLARED,
    insert_sign: InsertSign = False,
    insert_sign_at: InsertSignAt = NONE_DECLARED,
    kernels: Kernels = NONE_DECLARED,
    optimize: OptimizeFor = Options.optimize,
    max_flash: MaxFlash = None,
    max_ram: MaxRam = None,
    data: DataFile = None,
    samples: Samples = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Build the C here, and compare it with MODEL bit by bit.

    Exit code 3 says that they differ.
    """
    with reported(as_json):
        from bnncc.verification.api import verify

        options = options_of(
            name=name,
            target=target,
            inputs=inputs,
            sign_zero=sign_zero,
            shapes=shapes,
            insert_sign=insert_sign,
            insert_sign_at=insert_sign_at,
            kernels=kernels,
            optimize=optimize,
            max_flash=max_flash,
            max_ram=max_ram,
        )
        chosen = verified.samples_of(data, samples, seed)
        with progress_bar() as progress, shown_not_warned():
            verification = verify(model, options, progress=progress, **chosen)
        if as_json:
            print_json(verified.verification_json(verification))
        else:
            verified.show_verification(results(), verification, model)
        show_warnings(verification.warnings)
        verified.demand_success(verification)


@app.command("explain")
def _explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="An error code such as BNN012.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain an error code, or list all of them."""
    with reported(as_json):
        reference.explain(results(), code, as_json=as_json)


@app.command("operators")
def _operators(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="An operator, as ONNX, TFLite or PyTorch has it."),
    ] = None,
    *,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of the README.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the operators that bnncc takes, with attributes and limits, or look one up."""
    with reported(as_json):
        from bnncc.cli.operators import list_operators

        list_operators(results(), name, as_json=as_json, as_markdown=as_markdown)


@app.command("targets")
def _targets(as_json: AsJson = False) -> None:
    """List what C can be generated for, and the kernels used there."""
    with reported(as_json):
        reference.list_targets(results(), as_json=as_json)
