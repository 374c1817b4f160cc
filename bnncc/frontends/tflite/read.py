"""Read a TensorFlow Lite file that may be damaged or hostile.

The flatbuffers package follows whatever offsets a file holds, and where they lead out of it, Python
raises one of a few errors. All of the file that is needed is taken into plain values here, its
sizes bounded and its references checked, so that nothing else meets them.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from flatbuffers import flexbuffers

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import path_text, plural
from bnncc.ir.types import Array

__all__ = ["MAGIC", "Network", "Operator", "Tensor", "integers_of", "read_network"]

MAGIC = b"TFL3"
"""What a file holds from its fifth byte on."""

# No network has more than this. A file can name one long part any number of times, so that its size
# alone bounds neither time nor memory.
_MOST = 1 << 14
_MOST_OPERANDS = 256
_MOST_AXES = 8
_LONGEST_NAME = 1 << 12
_LONGEST_OPTIONS = 1 << 12

_DAMAGE = (
    struct.error,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
    OverflowError,
    NotImplementedError,
)
"""What the flatbuffers package raises for offsets and lengths that are none."""

_ELEMENTS = {
    number: name.lower() for name, number in vars(tflite.TensorType).items() if name.isupper()
}
_BUILTINS = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if name.isupper()
}
_KINDS = {number: name for name, number in vars(tflite.BuiltinOptions).items() if name[0] != "_"}

# The options that anything here asks for, by the table that holds them.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AddOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "Conv2DOptions": (
        *("Padding", "StrideH", "StrideW", "FusedActivationFunction"),
        *("DilationHFactor", "DilationWFactor"),
    ),
    "DepthwiseConv2DOptions": (
        *("Padding", "StrideH", "StrideW", "FusedActivationFunction"),
        *("DilationHFactor", "DilationWFactor", "DepthMultiplier"),
    ),
    "DivOptions": ("FusedActivationFunction",),
    "FullyConnectedOptions": ("FusedActivationFunction", "WeightsFormat", "KeepNumDims"),
    "LeakyReluOptions": ("Alpha",),
    "MulOptions": ("FusedActivationFunction",),
    "Pool2DOptions": (
        *("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth"),
        "FusedActivationFunction",
    ),
    "ReducerOptions": ("KeepDims",),
    "ReshapeOptions": ("NewShapeAsNumpy",),
    "SoftmaxOptions": ("Beta",),
    "StridedSliceOptions": (
        *("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
        "Offset",
    ),
    "SubOptions": ("FusedActivationFunction",),
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor as the file declares it.

    Attributes:
        name: the user's, not unique; mostly the path of the Keras layer.
        shape: extents, all at least 1.
        element: such as "float32", or "int32" for packed bits.
        data: of a constant, uint8, in C order, little endian; None for anything computed.
        refused: why a tensor of its kind cannot be used, or "".
    """

    name: str
    shape: tuple[int, ...]
    element: str
    data: Array | None
    refused: str

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator at work.

    Attributes:
        name: of a built-in one such as "CONV_2D", or of a custom one such as "LceBconv2d".
        is_custom: whether it is a custom one.
        inputs, outputs: places of tensors; -1 where an operand is left out.
        kind: the table that its options are in, such as "Conv2DOptions"; "" without one.
        options: what is known of them.
        custom: the options of a custom operator, a flexbuffer.
    """

    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str
    options: Mapping[str, Any]
    custom: bytes


@dataclass(frozen=True, eq=False)
class Network:
    """The main subgraph of a file.

    Attributes:
        tensors, operators: all of them, the latter in the order in which they run.
        inputs, outputs: places of tensors.
        names: what the file's signature calls inputs and outputs, by their places.
        sha256: of the file.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: Mapping[int, str]
    sha256: str


def read_network(path: Path) -> Network:
    """Return the network in a file.

    Raises:
        UnsupportedModelError: BNN001 not readable, BNN002 damaged, BNN005 too large.
    """
    shown = path_text(path)
    try:
        size = path.stat().st_size
        if size > MAX_TENSOR_BYTES:
            why = f"the limit is {MAX_TENSOR_BYTES} bytes"
            raise UnsupportedModelError("BNN005", f"the file {shown} has {size} bytes", why=why)
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnsupportedModelError("BNN001", f"cannot read {shown}", why=str(error)) from error
    with _undamaged(shown, content):
        return _network(content)


@contextmanager
def _undamaged(shown: str, content: bytes) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise UnsupportedModelError(
            "BNN002",
            f"{shown} is not a TensorFlow Lite model",
            why=f"its {plural(len(content), 'byte')} start like one, but do not hold together: "
            "the file is cut short or damaged",
            help="convert the model again, and copy it as a binary file",
        ) from error


def _network(content: bytes) -> Network:
    if content[4:8] != MAGIC:
        raise ValueError("another file")
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    if graph is None:
        raise ValueError("no subgraph")
    count = _bounded(graph.TensorsLength())
    tensors = tuple(_tensor(model, graph.Tensors(i), content) for i in range(count))
    declared = sum(tensor.count for tensor in tensors if tensor.data is None)
    if declared * 4 > MAX_TENSOR_BYTES:
        raise UnsupportedModelError(
            "BNN005",
            f"the model's tensors claim {declared * 4} bytes",
            why=f"the limit is {MAX_TENSOR_BYTES} bytes",
        )
    codes = [_code(model.OperatorCodes(i)) for i in range(_bounded(model.OperatorCodesLength()))]
    return Network(
        tensors,
        tuple(
            _operator(graph.Operators(i), codes, count)
            for i in range(_bounded(graph.OperatorsLength()))
        ),
        _places(graph.InputsAsNumpy(), count),
        _places(graph.OutputsAsNumpy(), count),
        _signature(model, count),
        hashlib.sha256(content).hexdigest(),
    )


def _bounded(count: int) -> int:
    if not 0 <= count <= _MOST:
        raise ValueError(f"{count} entries")
    return count


def _vector(vector: Any) -> tuple[int, ...]:
    """Return a short vector of integers; the package gives 0 for one that is left out."""
    if not isinstance(vector, np.ndarray):
        return ()
    if len(vector) > _MOST_OPERANDS:
        raise ValueError(f"{len(vector)} operands")
    return tuple(map(int, vector))


def _places(vector: Any, count: int) -> tuple[int, ...]:
    places = _vector(vector)
    if any(not 0 <= place < count for place in places):
        raise ValueError("no such tensor")
    return places


def _text(value: bytes | None) -> str:
    if len(value or b"") > _LONGEST_NAME:
        raise ValueError("no name is that long")
    return (value or b"").decode("utf-8", "replace")


def _tensor(model: Any, tensor: Any, content: bytes) -> Tensor:
    shape = _vector(tensor.ShapeAsNumpy())
    if len(shape) > _MOST_AXES or any(size < 1 for size in shape):
        raise ValueError(f"no shape: {shape}")
    refused = ""
    if tensor.Sparsity() is not None:
        refused = "it is stored as a sparse tensor"
    elif tensor.IsVariable():
        refused = "it keeps its value from one run to the next"
    return Tensor(
        _text(tensor.Name()),
        shape,
        _ELEMENTS.get(tensor.Type(), "of an unknown type"),
        _data(model.Buffers(tensor.Buffer()), content),
        refused,
    )


def _data(buffer: Any, content: bytes) -> Array | None:
    """Return what a buffer holds, in place or, in large files, behind the flatbuffer; or None.

    Nothing is copied: any number of tensors may share a buffer.
    """
    if buffer is None:
        raise ValueError("no such buffer")
    if buffer.Offset() > 1:
        start, size = buffer.Offset(), buffer.Size()
        if start + size > len(content):
            raise ValueError("a buffer ends behind the file")
        return np.frombuffer(content, np.uint8, size, start)
    return np.asarray(buffer.DataAsNumpy()) if buffer.DataLength() else None


def _code(code: Any) -> tuple[str, bool]:
    """Return an operator's name, and whether it is a custom one.

    Numbers up to 127 are in an older field of a byte, which newer files fill too.
    """
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _BUILTINS.get(number, f"builtin {number}")
    return (_text(code.CustomCode()), True) if name == "CUSTOM" else (name, False)


def _operator(operator: Any, codes: list[tuple[str, bool]], count: int) -> Operator:
    place = operator.OpcodeIndex()
    if place >= len(codes):
        raise ValueError("no such operator")
    name, is_custom = codes[place]
    inputs = _vector(operator.InputsAsNumpy())
    if any(not -1 <= i < count for i in inputs):
        raise ValueError("no such tensor")
    custom = operator.CustomOptionsAsNumpy()
    if isinstance(custom, np.ndarray) and len(custom) > _LONGEST_OPTIONS:
        raise ValueError("no options are that long")
    kind = _KINDS.get(operator.BuiltinOptionsType(), "").replace("NONE", "")
    return Operator(
        name,
        is_custom,
        inputs,
        _places(operator.OutputsAsNumpy(), count),
        kind,
        _options(operator, kind),
        bytes(custom) if isinstance(custom, np.ndarray) else b"",
    )


def _options(operator: Any, kind: str) -> dict[str, Any]:
    if kind not in _FIELDS:
        return {}
    table = operator.BuiltinOptions()
    options = getattr(tflite, kind)()
    options.Init(table.Bytes, table.Pos)
    values = {field: getattr(options, field)() for field in _FIELDS[kind]}
    return {
        field.removesuffix("AsNumpy"): _vector(value) if field.endswith("AsNumpy") else value
        for field, value in values.items()
    }


def _signature(model: Any, count: int) -> dict[int, str]:
    """Return the names of inputs and outputs in the first signature, if there is one."""
    if not model.SignatureDefsLength():
        return {}
    signature = model.SignatureDefs(0)
    maps = [signature.Inputs(i) for i in range(_bounded(signature.InputsLength()))]
    maps += [signature.Outputs(i) for i in range(_bounded(signature.OutputsLength()))]
    names = {entry.TensorIndex(): _text(entry.Name()) for entry in maps}
    return {place: name for place, name in names.items() if place < count and name}


def integers_of(flexbuffer: bytes, keys: tuple[str, ...]) -> dict[str, int]:
    """Return the integers under `keys` in a flexbuffer that is a map.

    Raises:
        ValueError: it is no map, lacks one of them, or is damaged.
    """
    try:
        root = flexbuffers.GetRoot(flexbuffer)
        if not root.IsMap:
            raise ValueError("no map")
        return {key: _integer(root.AsMap, key) for key in keys}
    except _DAMAGE as error:
        raise ValueError(f"{error}") from error


def _integer(found: Any, key: str) -> int:
    try:
        value = found[key]
    except KeyError:
        raise ValueError(f"{key} is missing") from None
    if not value.IsInt:
        raise ValueError(f"{key} is no integer")
    return int(value.AsInt)
