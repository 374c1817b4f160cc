"""`bnncc.verify` and `bnncc.load`: the public entry points to running the generated C."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnncc.compiler import (
    Artifact,
    Compilation,
    Options,
    Progress,
    compile_in_memory,
    warn_of_suspects,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bnncc.backend.program import Program
    from bnncc.ir.types import Array
    from bnncc.verification.result import Verification
    from bnncc.verification.run import CompiledModel

__all__ = ["load", "verify"]

_FEWEST, _MOST = 4, 256
_MACS = 5_000_000_000


def load(compiled: Artifact | Compilation, *, compiler: str = "") -> CompiledModel:
    """Return the compiled model as a callable on numpy arrays; builds the C for this machine.

    Args:
        compiled: what `bnncc.compile` returned.
        compiler: a C compiler's command; by default the environment's CC, or cc, gcc, clang.

    Raises:
        ToolchainError: BNN040 no compiler, BNN041 it failed.
    """
    from bnncc.verification.run import load as load_compiled  # cffi is needed here alone

    return load_compiled(compiled, compiler=compiler)


def verify(
    model: str | os.PathLike[str] | nn.Module | Artifact | Compilation,
    options: Options | None = None,
    *,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    data: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    samples: int | None = None,
    seed: int = 0,
    compiler: str = "",
    progress: Progress = lambda *_: None,
) -> Verification:
    """Hold the generated C against the float model, layer by layer.

    Args:
        model: what `bnncc.compile` takes, which is compiled first, or what it returned.
        options: how to compile.
        example_inputs: as for `compile`.
        data: an .npz file or arrays by input name, with `labels` if there are any; all samples in
            it are used. None takes random samples.
        samples: how many random samples; by default 256, fewer where one alone takes long.
        seed: of the random samples.
        compiler: as for `load`.
        progress: as for `compile`.

    Raises:
        As `compile` and `load`; UsageError BNN061 if the data does not fit. A difference is no
        exception: it is the result's `ok`.

    Warns:
        LostSignWarning: as `compile`.
    """
    from bnncc.verification.build import find_compiler
    from bnncc.verification.compare import compare  # onnxruntime takes a while to import
    from bnncc.verification.data import load_samples, random_samples

    if isinstance(model, Artifact):
        compilation = model.compilation
    elif isinstance(model, Compilation):
        compilation = model
    else:
        compilation = compile_in_memory(model, options, progress, example_inputs=example_inputs)
        warn_of_suspects(compilation)
    graph = compilation.lowered.graph
    command = find_compiler(compiler)
    if data is None:
        count = _sample_count(compilation.program) if samples is None else samples
        chosen = random_samples(graph, compilation.inputs, count, seed)
    else:
        chosen = load_samples(graph, compilation.inputs, data)
    built = load(compilation, compiler=compiler)
    name = " ".join([Path(command[0]).name, *command[1:]])
    found = compare(compilation, built, chosen, name, progress)
    report = compilation.report
    return dataclasses.replace(found, edits=report.edits, warnings=report.warnings)


def _sample_count(program: Program) -> int:
    """Return how many random samples take about a minute: our numpy definitions are slow."""
    return max(_FEWEST, min(_MOST, _MACS // max(1, program.binary_macs + program.real_macs)))
