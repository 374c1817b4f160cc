"""The tasks of the child process: torch.onnx.export of a module, or of a scanned archive."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import onnx_ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

__all__ = ["MODEL", "SAMPLES", "TRACED", "export_archive", "export_module"]

MODEL = "model.onnx"
"""The exported model, perhaps with external data beside it."""

SAMPLES = "samples.npz"
"""Arrays `in_I_J` and `out_I_J`: what the module computes, for each I-th sample."""

TRACED = "traced.json"
"""Why the model was traced; written only if it was."""

_RANDOM_SAMPLES = 8
_SCRIPT_OPSET = 17

_SMALL, _LARGE = 8, 2**20
"""Constants of so many elements are folded, to at most so many: shapes, and fills of a shape."""


def export_module(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """Write MODEL, SAMPLES and perhaps TRACED. `module` is changed: it must be a copy."""
    _prepare()
    for tensor in (*module.parameters(), *module.buffers(), *inputs):
        if tensor.is_shared():  # type: ignore[no-untyped-call]  # torch's own
            tensor.data = tensor.data.clone()  # memory that a fork does not copy
    module.eval()
    _export(module, inputs, folder)
    _strip(folder / MODEL)
    _write_samples(module, inputs, folder / SAMPLES)


def export_archive(archive: Path, folder: Path) -> None:
    """Write MODEL from an archive of which nothing is left that torch would unpickle or run."""
    _prepare()
    torch.load = _never  # noqa: TID251 - the last line of defence, not a use
    program = torch.export.load(archive)
    # Its own decompositions make the training IR functional, and keep Gemm and BatchNormalization.
    exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    _save(exported, folder / MODEL)
    _strip(folder / MODEL)


def _never(*_arguments: Any, **_options: Any) -> NoReturn:
    raise RuntimeError("the archive asks for unpickling")


def _prepare() -> None:
    torch.set_num_threads(1)  # the parent's thread pool did not come along
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """Export by torch.export, or by tracing if that fails."""
    with torch.no_grad():
        # What forward sets up in its first call, and its parameters as it leaves them.
        module(*(x.clone() for x in inputs))
    try:
        with _data_in_the_graph():
            exported = torch.onnx.export(module, inputs, dynamo=True, optimize=False, verbose=False)
        _save(exported, folder / MODEL)
    except Exception as error:  # noqa: BLE001 - raised below, unless tracing does it
        try:
            _trace(module, inputs, folder / MODEL)
        except Exception:  # noqa: BLE001 - the first exporter's word is the one that helps
            raise error from error.__cause__
        (folder / TRACED).write_text(json.dumps(type(error).__name__), encoding="utf-8")


@contextlib.contextmanager
def _data_in_the_graph() -> Iterator[None]:
    """Let exporters see assignments to `.data` in forward, which they lose otherwise.

    The BNN code that most people started from binarises in this way: activations by
    `x.data = sign(x.data)`, and weights by `weight.data = sign(weight.org)`. The first becomes a
    copy into `x`. The second has been done already, by the first call.
    """

    def assign(tensor: Tensor, value: Tensor) -> None:
        if not isinstance(tensor, nn.Parameter):
            with torch.no_grad():
                tensor.copy_(value)

    original = Tensor.data
    Tensor.data = property(Tensor.detach, assign)  # type: ignore[assignment]  # property, as it was
    try:
        yield
    finally:
        Tensor.data = original


def _trace(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    with torch.no_grad():
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=False,
            opset_version=_SCRIPT_OPSET,
            do_constant_folding=False,
            # As it is, in eval mode, but without fusing BatchNorm.
            training=torch.onnx.TrainingMode.PRESERVE,
        )


def _save(exported: Any, path: Path) -> None:
    """Write an ONNX program, with shapes and casts of known tensors spelled out.

    Not its own optimisation: that would fuse BatchNorm into the layer before it, and thereby round
    anew. Of what is folded here, nothing is large enough to hold weights.
    """
    optimizer.fold_constants(
        exported.model,
        onnx_shape_inference=True,
        input_size_limit=_SMALL,
        output_size_limit=_LARGE,
    )
    _drop_zero_biases(exported.model.graph)
    optimizer.remove_unused_nodes(exported.model)
    exported.save(path, external_data=True)


def _drop_zero_biases(graph: onnx_ir.Graph) -> None:
    """Remove the zeros that the exporter adds to every convolution without a bias.

    Sums stay what the module computes, but for the sign of a zero. Without them a layer's sums are
    whole numbers times a scale, and nothing is added to them at run time.
    """
    for node in graph:
        if node.op_type != "Conv" or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = onnx_ir.convenience.get_const_tensor(node.inputs[2])
        if bias is not None and not bias.numpy().any():
            node.replace_input_with(2, None)


def _strip(path: Path) -> None:
    """Remove what says where and by whom the model was written: same module, same file."""
    model = onnx.load(path, load_external_data=False)
    owners = [model, model.graph, *model.functions]
    for graph in (model.graph, *model.functions):
        owners += graph.node
    owners += [*model.graph.input, *model.graph.output, *model.graph.value_info]
    owners += model.graph.initializer
    for owner in owners:
        for field in ("metadata_props", "doc_string"):
            owner.ClearField(field)
    onnx.save(model, path)


def _write_samples(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Run the module on the example and on random inputs like it, as far as it takes those."""
    arrays: dict[str, Any] = {}
    for i in range(1 + _RANDOM_SAMPLES):
        sample = [_like(x) if i and x.is_floating_point() else x.clone() for x in inputs]
        given = [x.detach().numpy().copy() for x in sample]  # forward may write to it
        try:
            with torch.no_grad():
                outputs = _leaves(module(*sample))
        except Exception:  # noqa: BLE001 - inputs outside of its domain; or the exporter left it so
            continue
        arrays |= {f"in_{i}_{j}": x for j, x in enumerate(given)}
        arrays |= {f"out_{i}_{j}": y.detach().numpy() for j, y in enumerate(outputs)}
    np.savez(path, **arrays)


def _like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype)


def _leaves(value: object) -> list[Tensor]:
    """Return the tensors of nested outputs in the order of the exporters."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [leaf for item in value for leaf in _leaves(item)]
    return []
