"""From a module or an archive to a graph: export in a child process, read the ONNX, compare."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import json
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnncc.errors import ToolchainError, UnsupportedModelError, UsageError, printable
from bnncc.frontends.onnx import Imported, load_onnx
from bnncc.frontends.onnx.report import path_text, plural
from bnncc.frontends.torch.agree import Agreement, agreement
from bnncc.frontends.torch.archive import rewrite
from bnncc.frontends.torch.isolate import Failure, can_fork, isolated

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORT_SECONDS", "archive_to_graph", "module_to_graph"]

EXPORT_SECONDS = 600.0
"""How long an export may take."""

_HELP_EXPORT = (
    'export it yourself with torch.onnx.export(module.eval(), (example_input,), "model.onnx"), '
    "and compile model.onnx"
)
_HELP_EXAMPLES = (
    "bnncc.compile(module, example_inputs=(torch.zeros(1, 784),)), a tensor for each argument of "
    "forward, with batch 1"
)
_LONGEST_MESSAGE = 300


def archive_to_graph(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Imported:
    """Return the model in a .pt2 archive; see `load_file`."""
    with tempfile.TemporaryDirectory(prefix="bnncc-") as folder:
        clean = Path(folder) / "model.pt2"
        rewrite(path, clean)
        if importlib.util.find_spec("torch") is None:
            raise ToolchainError(
                "BNN044",
                f"{path_text(path)} is a torch.export archive, and PyTorch is not installed",
                why="PyTorch converts such archives to ONNX",
                help='pip install "bnncc[torch]", or export the model to ONNX where you have it',
            )
        with isolated(functools.partial(_archive_task, clean), EXPORT_SECONDS) as result:
            if isinstance(result, Failure):
                raise _export_failed(path_text(path), result)
            return load_onnx(result / _MODEL, shapes)


def module_to_graph(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> Imported:
    """Return a module as a graph; see `load_module`."""
    inputs, samples = _one_sample(_tensors(example_inputs))
    shown = f"module {printable(type(module).__name__)}"
    if multiprocessing.current_process().daemon:
        what = f"{shown} cannot be exported from a daemon process, such as a Pool's worker"
        raise UnsupportedModelError("BNN015", what, help=_HELP_EXPORT)
    training = any(part.training for part in module.modules())
    task = functools.partial(_module_task, _portable(module), inputs)
    with isolated(task, EXPORT_SECONDS) as result:
        if isinstance(result, Failure):
            raise _export_failed(shown, result)
        imported = load_onnx(result / _MODEL, shapes)
        found = agreement(imported.graph, result / _SAMPLES)
        traced = (result / _TRACED).exists()
        why = json.loads((result / _TRACED).read_text(encoding="utf-8")) if traced else ""
    if found is Agreement.ANOTHER:
        raise UnsupportedModelError(
            "BNN015",
            f"what PyTorch exported from {shown} is not what it computes",
            why="on every one of a few random inputs, the exported graph gives other results; "
            "exporters lose assignments to .data, and branches that depend on values",
            help="write forward without them: x = x.sign(), not x.data = x.data.sign()",
        )
    notes = list(imported.notes)
    if training:
        notes.append("the module is in training mode, and was exported as in eval mode")
    if samples > 1:
        notes.append(f"example_inputs hold {samples} samples; the C takes one a call")
    if traced:
        notes.append(
            f"torch.export failed ({printable(why)}), so the module was traced: a branch that "
            "depends on values is taken as for the example inputs"
        )
    if found is Agreement.CLOSE:
        notes.append(
            "the module's own results differ from the exported graph's on some random inputs: "
            "rounding next to a decision, or the exporter changed something"
        )
    if found is Agreement.UNKNOWN:
        notes.append("the exported graph could not be compared with the module itself")
    return dataclasses.replace(imported, notes=tuple(notes))


# What the child writes; spelled here too, since bnncc.frontends.torch.export imports torch.
_MODEL, _SAMPLES, _TRACED = "model.onnx", "samples.npz", "traced.json"


def _module_task(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> None:
    from bnncc.frontends.torch.export import export_module

    export_module(module, inputs, folder)


def _archive_task(archive: Path, folder: Path) -> None:
    from bnncc.frontends.torch.export import export_archive

    export_archive(archive, folder)


def _tensors(example_inputs: Any) -> tuple[Tensor, ...]:
    from torch import Tensor

    given = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    if not isinstance(given, tuple | list) or not given:
        what = "example_inputs must be a tensor or a tuple of tensors"
        raise UsageError("BNN022", what, help=_HELP_EXAMPLES)
    for i, value in enumerate(given):
        if not isinstance(value, Tensor):
            what = f"example_inputs[{i}] is no tensor, but a {type(value).__name__}"
            raise UsageError("BNN022", what, help=_HELP_EXAMPLES)
    return tuple(given)


def _one_sample(inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int]:
    """Return the inputs with a batch of one, and how many samples there were."""
    inputs = tuple(x.detach().cpu() for x in inputs)
    batches = {x.shape[0] if x.dim() > 1 else 1 for x in inputs}
    if len(batches) == 1 and (samples := batches.pop()) > 1:
        return tuple(x[:1].clone() for x in inputs), samples
    return inputs, 1


def _portable(module: nn.Module) -> nn.Module:
    """Return the module, or a copy on the CPU where the child could not use it as it is.

    A fork cannot use a GPU; without fork, pickling would move the module's own tensors into shared
    memory.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if can_fork() and all(tensor.device.type == "cpu" for tensor in tensors):
        return module
    return copy.deepcopy(module).cpu()


def _export_failed(shown: str, failure: Failure) -> UnsupportedModelError:
    message = "".join(c if c.isprintable() else " " for c in failure.message)
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 3]}..."
    match failure.kind:
        case "signal":
            what = f"exporting {shown} ended the exporting process by {failure.what}"
            why = message or (
                "the system ended it, mostly for lack of memory"
                if failure.what == "SIGKILL"
                else "PyTorch, or code of the model, crashed"
            )
        case "timeout":
            seconds = plural(int(float(failure.what)), "second")
            what, why = f"exporting {shown} did not end within {seconds}", ""
        case "exit":
            what, why = f"exporting {shown} ended with exit code {failure.what}", message
        case _:
            what = f"PyTorch cannot export {shown}"
            why = f"{failure.what}: {message}" if message else failure.what
    return UnsupportedModelError(
        "BNN015", what, where=printable(failure.where), why=why, help=_HELP_EXPORT
    )
