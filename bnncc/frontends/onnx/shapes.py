"""Fixed shapes for the graph inputs: batch 1, and nothing unknown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx

from bnncc.errors import Diagnostic, UnsupportedModelError, UsageError, printable
from bnncc.frontends.onnx.read import ITEM_BYTES, MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import Refusal, dimensions, element_name, quoted

__all__ = ["fix_inputs"]

_FREE_INITIALIZERS = 4  # the IR version from which on initializers need not be inputs


def fix_inputs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Give every graph input a fixed shape with batch 1, and return a note for each change.

    An input with an initializer is a constant: old exporters list all of them.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for i in reversed(range(len(model.graph.input))):
        if model.graph.input[i].name in constants:
            del model.graph.input[i]
    model.ir_version = max(model.ir_version, _FREE_INITIALIZERS)
    inputs = list(model.graph.input)
    for name in shapes:
        if name not in {value.name for value in inputs}:
            known = ", ".join(quoted(value.name) for value in inputs)
            what = f"--shape names {quoted(name)}, which is no input of the model"
            raise UsageError("BNN020", what, help=f"inputs are {known}")
    repeated = [name for name, n in Counter(v.name for v in model.graph.input).items() if n > 1]
    if repeated:
        raise UnsupportedModelError("BNN003", f"two inputs are called {quoted(repeated[0])}")
    notes: list[str] = []
    found: list[Diagnostic] = []
    for value in inputs:
        done = _fix_input(value, shapes.get(value.name))
        if isinstance(done, Diagnostic):
            found.append(done)
        else:
            notes += done
    if found:
        raise UnsupportedModelError.of(found)
    return notes


def _fix_input(
    value: onnx.ValueInfoProto, override: tuple[int, ...] | None
) -> list[str] | Diagnostic:
    """Fix one input's shape; return notes, or why it cannot be done."""
    try:
        _check_input_type(value)
        return list(_fix_shape(value, override))
    except Refusal as refusal:
        return refusal.diagnostic("")


def _fix_shape(value: onnx.ValueInfoProto, override: tuple[int, ...] | None) -> Iterator[str]:
    tensor = value.type.tensor_type
    declared = [_size(dimension) for dimension in tensor.shape.dim]
    if override is not None:
        _check_override(value.name, override, declared if tensor.HasField("shape") else None)
        shape = override
    else:
        shape = _fixed_shape(value.name, declared)
    for axis, size in enumerate(shape):
        before = declared[axis] if axis < len(declared) else "unknown"
        if before != size and axis == 0:
            shown = "of unknown size" if before == "unknown" else _shown(before)
            yield f"batch dimension {shown} of input {quoted(value.name)} fixed to 1"
        elif before != size:
            name = f"dimension {axis} ({_shown(before)}) of input {quoted(value.name)}"
            yield f"{name} fixed to {size} by --shape"
    if math.prod(shape) * ITEM_BYTES[tensor.elem_type] > MAX_TENSOR_BYTES:
        what = f"input {quoted(value.name)} has the shape {dimensions(shape)}"
        raise Refusal("BNN005", what, why=f"the limit is {MAX_TENSOR_BYTES} bytes")
    tensor.ClearField("shape")
    for size in shape:
        tensor.shape.dim.add(dim_value=size)


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    """Return a dimension's size, or its name, or "unknown"; 0 and -1 stand for unknown too."""
    if dimension.HasField("dim_value") and dimension.dim_value > 0:
        return dimension.dim_value
    return dimension.dim_param or "unknown"


def _shown(size: int | str) -> str:
    return str(size) if isinstance(size, int) or size == "unknown" else quoted(size)


def _check_input_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value") or "nothing"
    if kind != "tensor_type":
        what = f"input {quoted(value.name)} is not a tensor"
        raise Refusal("BNN008", what, why=f"its type is {kind.removesuffix('_type')}")
    element = value.type.tensor_type.elem_type
    if element not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
        raise Refusal(
            "BNN008",
            f"input {quoted(value.name)} has element type {element_name(element)}",
            why="bnncc compiles models whose inputs are FLOAT, UINT8 or INT8",
            help="export in float32; bytes are declared with --input uint8:SCALE,OFFSET",
        )


def _check_override(
    name: str, override: Sequence[int], declared: Sequence[int | str] | None
) -> None:
    shown = f"--shape {printable(name)}={dimensions(override)}"
    if not override or override[0] != 1 or any(size < 1 for size in override):
        why = "the first dimension is the batch, and must be 1; no other may be below 1"
        raise UsageError("BNN020", f"{shown} is not a shape that bnncc compiles", why=why)
    fixed = list(declared[1:]) if declared is not None else list(override[1:])
    agrees = len(fixed) == len(override) - 1 and all(
        isinstance(size, str) or size == wanted
        for size, wanted in zip(fixed, override[1:], strict=True)
    )
    if not agrees:
        why = f"the model declares {dimensions(['batch', *fixed])}"
        raise UsageError("BNN020", f"{shown} contradicts the model", why=why)


def _fixed_shape(name: str, declared: Sequence[int | str]) -> tuple[int, ...]:
    if not declared:
        raise Refusal(
            "BNN006",
            f"the shape of input {quoted(name)} is not known",
            help=f"say it as in --shape {printable(name)}=1x784, the batch being 1",
        )
    batch, *others = declared
    if isinstance(batch, int) and batch != 1:
        shape = f"{printable(name)}={dimensions([1, *others])}"
        raise Refusal(
            "BNN006",
            f"input {quoted(name)} has a fixed batch of {batch}",
            why="generated C computes one sample a call; dimension 0 is taken as the batch",
            help=f"export with batch 1 or a dynamic batch, or try --shape {shape}",
        )
    for axis, size in enumerate(others, start=1):
        if isinstance(size, str):
            example = dimensions([1, *(28 if isinstance(s, str) else s for s in others)])
            raise Refusal(
                "BNN006",
                f"dimension {axis} ({_shown(size)}) of input {quoted(name)} is not known",
                why="C code has fixed shapes; only the batch, dimension 0, may be left open",
                help=f"say it as in --shape {printable(name)}={example}, or export it fixed",
            )
    return (1, *(size for size in others if isinstance(size, int)))
