"""Read a model file that may be damaged or hostile: bounded, and never outside its own folder."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # untyped
from onnx import external_data_helper, numpy_helper

from bnncc.errors import Diagnostic, UnsupportedModelError
from bnncc.frontends.onnx.report import (
    dimensions,
    element_name,
    library_text,
    path_text,
    plural,
    quoted,
)
from bnncc.ir.types import Array

__all__ = ["ITEM_BYTES", "MAX_TENSOR_BYTES", "ModelFile", "read_model", "tensor_array"]

MAX_TENSOR_BYTES = 2**31
"""More than this is taken neither for a file, nor for its tensors, nor for computed constants."""

_HELP_EXPORT = "export the model again with torch.onnx.export, and copy it as a binary file"

# What people hand over instead, by its first bytes.
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "it is a zip archive, such as torch.save and torch.export.save write"),
    (0, b"\x80\x02", "it is a pickle, such as older torch.save wrote; bnncc never loads one"),
    (4, b"TFL3", "it is a TensorFlow Lite model"),
    (0, b"\x89HDF\r\n", "it is an HDF5 file, such as Keras writes"),
    (0, b"version https://git-lfs", "it is a Git LFS pointer: run git lfs pull"),
)

ITEM_BYTES: dict[int, int] = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.INT16: 2,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.UINT16: 2,
    onnx.TensorProto.UINT32: 4,
    onnx.TensorProto.UINT64: 8,
}
"""How many bytes one element of each type takes that a tensor here may have."""


@dataclass(frozen=True)
class ModelFile:
    """A parsed model, external tensors loaded, and the SHA-256 of everything read for it."""

    model: onnx.ModelProto
    sha256: str


def read_model(path: Path) -> ModelFile:
    """Return the model at `path`, with the tensors of external files loaded into it.

    Raises:
        UnsupportedModelError: BNN001 not readable, BNN002 not ONNX or cut short, BNN004 external
            data missing, short or outside the folder, BNN005 too large.
    """
    content = _content(path)
    digest = hashlib.sha256(content)
    model = _parse(path, content)
    del content  # as large as the model itself
    external = _load_external(path, model)
    for tensor in sorted(external, key=lambda tensor: tensor.name):
        digest.update(tensor.raw_data)
    return ModelFile(model, digest.hexdigest())


def _content(path: Path) -> bytes:
    shown = path_text(path)
    try:
        if not path.exists():
            raise UnsupportedModelError("BNN001", f"there is no file {shown}")
        if not path.is_file():
            raise UnsupportedModelError("BNN001", f"{shown} is not a file")
        size = path.stat().st_size
        if size > MAX_TENSOR_BYTES:
            raise _too_large(f"the file {shown} has {size} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnsupportedModelError("BNN001", f"cannot read {shown}", why=str(error)) from error


def _too_large(what: str) -> UnsupportedModelError:
    return UnsupportedModelError("BNN005", what, why=f"the limit is {MAX_TENSOR_BYTES} bytes")


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    for offset, magic, why in _OTHER_FORMATS:
        if content[offset : offset + len(magic)] == magic:
            raise _not_onnx(path, why)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        why = f"it holds {plural(len(content), 'byte')} that do not parse as a protobuf model"
        raise _not_onnx(path, why) from error
    # Protobuf parses any prefix that ends between two fields, and much that never was a model.
    present = {
        "ir_version": model.HasField("ir_version"),
        "graph": model.HasField("graph"),
        "opset_import": len(model.opset_import) > 0,
    }
    missing = [field for field, is_there in present.items() if not is_there]
    if missing:
        raise _not_onnx(path, f"it lacks {', '.join(missing)}: {_emptiness(content)}")
    if not _is_text(model):
        raise _not_onnx(path, "a name in it is not UTF-8 text: the file is damaged")
    return model


def _is_text(message: Message) -> bool:
    """Whether every string is one; protobuf hands out other bytes as they are, as `bytes`."""
    if isinstance(message, onnx.TensorProto):
        # Its other fields are numbers, too many to look at.
        return _is_str(message.name) and all(map(_is_text, message.external_data))
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        values = [value] if isinstance(value, str | bytes | Message) else value
        is_text = _is_text if field.type == field.TYPE_MESSAGE else _is_str
        if not all(map(is_text, values)):
            return False
    return True


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _emptiness(content: bytes) -> str:
    return "the file is cut short, or no ONNX model" if content else "the file is empty"


def _not_onnx(path: Path, why: str) -> UnsupportedModelError:
    what = f"{path_text(path)} is not an ONNX model"
    return UnsupportedModelError("BNN002", what, why=why, help=_HELP_EXPORT)


def _tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from graph.initializer
                yield from _tensors(graph.node)


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    yield from _tensors(model.graph.node)
    for function in model.functions:
        yield from _tensors(function.node)


def _load_external(path: Path, model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Load every external tensor, and return those that were external.

    The onnx library refuses absolute paths, `..`, links out of the folder and files that end
    early. What it does not bound is how much a tensor may claim, so that is done before.
    """
    declared = 0
    external: list[onnx.TensorProto] = []
    for tensor in _all_tensors(model):
        if tensor.data_type in ITEM_BYTES and all(size >= 0 for size in tensor.dims):
            declared += _declared_bytes(tensor)
        if external_data_helper.uses_external_data(tensor):
            external.append(tensor)
    if declared > MAX_TENSOR_BYTES:
        raise _too_large(f"the tensors of {path_text(path)} claim {declared} bytes")
    found = [problem for tensor in external if (problem := _load_one(tensor, path.parent))]
    if found:
        raise UnsupportedModelError.of(found)
    return external


def _load_one(tensor: onnx.TensorProto, folder: Path) -> Diagnostic | None:
    try:
        _bound(tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown keys, which the library ignores
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    except (onnx.checker.ValidationError, OSError, ValueError, RuntimeError) as error:
        return Diagnostic(
            "BNN004",
            f"external data of tensor {quoted(tensor.name)} cannot be read",
            why=library_text(error, {}),
            help="keep the files that were exported together in one folder, as they were",
        )
    return None


def _bound(tensor: onnx.TensorProto) -> None:
    """Let the library read as many bytes as the tensor declares, and not to the end of the file."""
    if tensor.data_type not in ITEM_BYTES:
        raise ValueError(f"element type {element_name(tensor.data_type)} is not supported")
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"it has a negative dimension in {dimensions(tensor.dims)}")
    expected = _declared_bytes(tensor)
    length = {entry.key: entry.value for entry in tensor.external_data}.get("length")
    if length is None:
        tensor.external_data.add(key="length", value=str(expected))
    elif int(length) != expected:
        kind = f"{dimensions(tensor.dims)} {element_name(tensor.data_type)}"
        raise ValueError(f"{kind} takes {expected} bytes, but the model says {int(length)}")


def _declared_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes the tensor's dimensions and element type take."""
    sizes: Iterable[int] = tensor.dims
    return math.prod(sizes) * ITEM_BYTES[tensor.data_type]


def tensor_array(tensor: onnx.TensorProto) -> Array:
    """Return the tensor's values, read-only and as large as it declares.

    Raises:
        UnsupportedModelError: BNN003 it holds more or less than it declares, BNN008 its element
            type is one that no operation here takes.
    """
    shown = f"tensor {quoted(tensor.name)}"
    if tensor.data_type not in ITEM_BYTES:
        kind = element_name(tensor.data_type)
        raise UnsupportedModelError("BNN008", f"{shown} has element type {kind}")
    try:
        array = numpy_helper.to_array(tensor)
        if array.shape != tuple(tensor.dims):  # -1 would be taken as "whatever fits"
            raise ValueError(f"it holds {array.shape}")
    except (ValueError, TypeError, OverflowError) as error:
        shape = dimensions(tensor.dims)
        what = f"{shown} does not hold the {shape} values it declares"
        raise UnsupportedModelError("BNN003", what, why=library_text(error, {})) from error
    if array.dtype == np.bool_:
        # A byte other than 0 and 1 is no bool, and numpy does not look.
        array = np.asarray(array.view(np.uint8) != 0)
    array.flags.writeable = False
    return array
