"""Small TensorFlow Lite files, written with the schema package that the frontend reads with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from flatbuffers import flexbuffers

from bnncc.ir.types import Array

SAME, VALID = 0, 1
NUMPY = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "int64": "<i8", "int8": "i1"}
BCONV = {
    "stride_height": 1,
    "stride_width": 1,
    "dilation_height_factor": 1,
    "dilation_width_factor": 1,
    "padding": VALID,
    "pad_values": 0,
    "fused_activation_function": 0,
}


def packed(bipolar: Array) -> Array:
    """Return int32 words of the last axis: bit 0 is +1, the first element in the lowest bit."""
    *rest, count = bipolar.shape
    bits = np.zeros((*rest, -(-count // 32) * 32), np.uint64)
    bits[..., :count] = bipolar < 0
    words = bits.reshape(*rest, -1, 32) << np.arange(32, dtype=np.uint64)
    return words.sum(axis=-1).astype(np.uint32).view(np.int32)


@dataclass
class Flat:
    """A file in the making; operators are added in the order in which they run."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    operators: list[dict[str, Any]] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        element: str = "float32",
        *,
        name: str = "",
        data: bytes = b"",
        variable: bool = False,
    ) -> int:
        name = name or f"t{len(self.tensors)}"
        self.tensors.append(
            {"shape": shape, "element": element, "name": name, "data": data, "variable": variable}
        )
        return len(self.tensors) - 1

    def const(self, value: object, element: str = "float32", name: str = "") -> int:
        array = np.asarray(value, NUMPY[element])
        return self.tensor(array.shape, element, name=name, data=array.tobytes())

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: str = "",
        *,
        to: str = "",
        element: str = "float32",
        **fields: Any,
    ) -> int:
        """Append a built-in operator and return its result."""
        result = self.tensor(shape, element, name=to)
        self.operators.append(
            {"name": name, "in": inputs, "out": [result], "options": options, "fields": fields}
        )
        return result

    def larq(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: dict[str, Any] | None = None,
        *,
        to: str = "",
        element: str = "float32",
    ) -> int:
        """Append a custom operator and return its result; `shape` is as stored."""
        result = self.tensor(shape, element, name=to)
        custom = flexbuffers.Dumps(options) if options else b""
        self.operators.append({"name": name, "in": inputs, "out": [result], "custom": custom})
        return result

    def quantize(self, x: int, to: str = "") -> int:
        *rest, channels = self.tensors[x]["shape"]
        return self.larq("LceQuantize", [x], (*rest, -(-channels // 32)), to=to, element="int32")

    def done(
        self, inputs: Sequence[int], outputs: Sequence[int], names: dict[str, int] | None = None
    ) -> bytes:
        """Return the file; `names` are the signature's, of inputs and outputs."""
        b = flatbuffers.Builder(1024)
        codes = list(dict.fromkeys((o["name"], "custom" in o) for o in self.operators))
        subgraph = _table(
            b,
            "SubGraph",
            Tensors=_offsets(b, [self._tensor(b, i) for i in range(len(self.tensors))]),
            Inputs=_numbers(b, inputs),
            Outputs=_numbers(b, outputs),
            Operators=_offsets(b, [_operator(b, o, codes) for o in self.operators]),
        )
        buffers = [_table(b, "Buffer")]
        for tensor in self.tensors:
            data = b.CreateNumpyVector(np.frombuffer(tensor["data"], np.uint8))
            buffers.append(
                _table(b, "Buffer", Data=data) if tensor["data"] else _table(b, "Buffer")
            )
        fields = {
            "Version": 3,
            "OperatorCodes": _offsets(b, [_code(b, *code) for code in codes]),
            "Subgraphs": _offsets(b, [subgraph]),
            "Buffers": _offsets(b, buffers),
        }
        if names:
            fields["SignatureDefs"] = _offsets(b, [_signature(b, names, inputs)])
        b.Finish(_table(b, "Model", **fields), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _tensor(self, b: flatbuffers.Builder, place: int) -> int:
        tensor = self.tensors[place]
        return _table(
            b,
            "Tensor",
            Shape=_numbers(b, tensor["shape"]),
            Type=getattr(tflite.TensorType, tensor["element"].upper()),
            Buffer=place + 1,
            Name=b.CreateString(tensor["name"]),
            IsVariable=tensor["variable"],
        )


def _table(b: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(b)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(b, value)
    return getattr(tflite, f"{kind}End")(b)


def _numbers(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    return b.CreateNumpyVector(np.array(values, np.int32))


def _offsets(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _code(b: flatbuffers.Builder, name: str, is_custom: bool) -> int:
    number = tflite.BuiltinOperator.CUSTOM if is_custom else getattr(tflite.BuiltinOperator, name)
    fields = {"CustomCode": b.CreateString(name)} if is_custom else {}
    return _table(
        b, "OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, **fields
    )


def _operator(b: flatbuffers.Builder, operator: dict[str, Any], codes: list) -> int:
    fields = {
        "OpcodeIndex": codes.index((operator["name"], "custom" in operator)),
        "Inputs": _numbers(b, operator["in"]),
        "Outputs": _numbers(b, operator["out"]),
    }
    if kind := operator.get("options"):
        vectors = {k: _numbers(b, v) for k, v in operator["fields"].items() if isinstance(v, list)}
        fields["BuiltinOptions"] = _table(b, kind, **{**operator["fields"], **vectors})
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, kind)
    if operator.get("custom"):
        fields["CustomOptions"] = b.CreateByteVector(operator["custom"])
    return _table(b, "Operator", **fields)


def _signature(b: flatbuffers.Builder, names: dict[str, int], inputs: Sequence[int]) -> int:
    maps: dict[bool, list[int]] = {True: [], False: []}
    for name, place in names.items():
        entry = _table(b, "TensorMap", Name=b.CreateString(name), TensorIndex=place)
        maps[place in inputs].append(entry)
    vectors = {"Inputs": _offsets(b, maps[True]), "Outputs": _offsets(b, maps[False])}
    return _table(b, "SignatureDef", **vectors)
