"""From a PyTorch module, or a file that PyTorch wrote, to a `Graph` of the FLOAT stage.

    kinds     what a file is, by its content
    archive   a .pt2 archive: scanned, and written anew with nothing in it but what was looked at
    program   the graph inside of it: which strings and operators torch may see
    isolate   a task in a process of its own: crashes, hangs and mutations stay there
    export    the tasks: torch.onnx.export of a module or an archive
    agree     whether what was exported computes what the module computes

Only `export` imports torch, and only in the child process. A module gets there by fork: no pickle,
and no limit on where its class was defined.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard

from bnncc.frontends.torch.kinds import FileKind, file_kind, refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bnncc.frontends.onnx import Imported

__all__ = ["is_module", "load_file", "load_module"]

_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def is_module(value: object) -> TypeGuard[nn.Module]:
    """Whether `value` is a torch.nn.Module. Never imports torch: who has a module has done so."""
    module_class = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    return module_class is not None and isinstance(value, module_class)


def load_file(path: Path, shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES) -> Imported:
    """Return the model in a file, whatever its suffix: ONNX, a .pt2 archive or TensorFlow Lite.

    Args:
        path: a file that nobody vouches for.
        shapes: for some inputs, by name, the shape with batch 1.

    Raises:
        UsageError, UnsupportedModelError: as `load_onnx`; UnsupportedModelError BNN013 a pickle or
            TorchScript, BNN014 an archive that is damaged or holds what is never loaded, BNN015 its
            export failed; ToolchainError BNN044 torch is needed and not installed.
    """
    from bnncc.frontends.onnx import load_onnx  # onnx takes half a second to import

    kind = file_kind(path)
    if kind is FileKind.ONNX:
        return load_onnx(path, shapes)
    if kind is FileKind.TFLITE:
        from bnncc.frontends.tflite import load_tflite

        return load_tflite(path, shapes)
    if kind is not FileKind.ARCHIVE:
        raise refuse_pickle(path, kind)
    from bnncc.frontends.torch.convert import archive_to_graph

    return archive_to_graph(path, shapes)


def load_module(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES,
) -> Imported:
    """Return a module as a graph for inputs of the shapes of `example_inputs`.

    The module is exported in eval mode, in a child process, and stays as it is.

    Args:
        module: the user's own object: its code is run.
        example_inputs: one tensor for each argument of `forward`, or the only one.
        shapes: as for `load_file`.

    Raises:
        UsageError: BNN022 `example_inputs` are no tensors.
        UnsupportedModelError: as `load_onnx`; BNN015 the export failed, or computes something else.
    """
    from bnncc.frontends.torch.convert import module_to_graph

    return module_to_graph(module, example_inputs, shapes)
