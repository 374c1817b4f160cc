"""One operator at a time: what it reads, and the ONNX nodes that stand for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import Refusal, dimensions, quoted
from bnncc.frontends.tflite.read import Network, Operator, Tensor, integers_of
from bnncc.ir.types import Array

__all__ = ["CHANNELS_FIRST", "CHANNELS_LAST", "WORD_BITS", "Site", "Translation", "Value"]

CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)
WORD_BITS = 32
"""How many bits Larq Compute Engine packs into an element."""

_NUMPY = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "int64": "<i8", "bool": "?"}
_ACTIVATIONS = {0: "", 1: "Relu", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
_MOVES = ("Transpose", "Reshape", "Pad")
_CLIPS = {"RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}


@dataclass(frozen=True)
class Value:
    """A tensor of the model in ONNX.

    Attributes:
        name: in ONNX.
        shape: as the file has it, channels last; of packed bits, as they are unpacked.
        is_bits: whether the file holds it as packed bits; in ONNX it is -1 and +1.
    """

    name: str
    shape: tuple[int, ...]
    is_bits: bool = False


class Translation:
    """The ONNX model in the making."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.values: dict[int, Value] = {}
        self.arrays: dict[int, Array] = {}
        self._taken: dict[str, int] = {"": 0}  # and how often a suffix was needed
        self._bytes = 0
        # What the interface is called is not up to any other tensor.
        self._names = {place: self.fresh(name) for place, name in network.names.items()}

    def fresh(self, hint: str) -> str:
        """Return a name not taken yet, `hint` itself if that is free."""
        name = hint
        while name in self._taken:
            self._taken[hint] += 1
            name = f"{hint}.{self._taken[hint]}"
        self._taken[name] = 0
        return name

    def name_of(self, place: int) -> str:
        """Return what a tensor is called in ONNX: as in the signature, or by its own name."""
        if place not in self._names:
            self._names[place] = self.fresh(self.network.tensors[place].name or f"tensor_{place}")
        return self._names[place]

    def constant(self, name: str, array: Array) -> str:
        """Add a constant and return its name.

        Raises:
            UnsupportedModelError: as `count`.
        """
        self.count(array)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def count(self, array: Array) -> None:
        """Note an array that is kept.

        Raises:
            UnsupportedModelError: BNN005, at once: any number of operators may share one constant
                of the file, so that going on would cost as much each time.
        """
        self._bytes += array.nbytes
        if self._bytes > MAX_TENSOR_BYTES:
            what = f"the model's constants take {self._bytes} bytes, one for each use"
            why = f"the limit is {MAX_TENSOR_BYTES} bytes"
            raise UnsupportedModelError("BNN005", what, why=why)


class Site:
    """An operator to translate.

    Its function reads operands and options, emits nodes, and ends with `finish`.
    """

    def __init__(self, translation: Translation, operator: Operator) -> None:
        self._translation = translation
        self.operator = operator
        self._emitted: dict[str, onnx.NodeProto] = {}

    @property
    def origin(self) -> str:
        """What the user calls the operator: TensorFlow Lite names none, so by its result.

        Where the converter fused several, that is called "one;another": the first one's layer.
        """
        return self._translation.name_of(self.operator.outputs[0]).split(";")[0]

    @property
    def result(self) -> Tensor:
        """The operator's first result as the file declares it."""
        return self._translation.network.tensors[self.operator.outputs[0]]

    # --- What it reads ---------------------------------------------------------------------------

    def has(self, place: int) -> bool:
        """Whether the operator has an operand at a place."""
        inputs = self.operator.inputs
        return place < len(inputs) and inputs[place] >= 0

    def tensor(self, place: int) -> Tensor:
        """Return an operand as the file declares it.

        Raises:
            Refusal: BNN003 it is left out, BNN008 its kind cannot be used.
        """
        if not self.has(place):
            raise Refusal("BNN003", f"its operand {place} is missing")
        tensor = self._translation.network.tensors[self.operator.inputs[place]]
        if tensor.refused:
            raise Refusal("BNN008", f"tensor {quoted(tensor.name)}: {tensor.refused}")
        return tensor

    def array(self, place: int, *elements: str) -> Array:
        """Return a constant operand, of one of some element types ("float32" unless said).

        Raises:
            Refusal: BNN003 it does not hold what it declares, BNN008 it is computed, or of another
                type.
        """
        tensor = self.tensor(place)
        found = self._translation.arrays.get(self.operator.inputs[place])
        if found is not None:
            return found
        if tensor.element not in (elements or ("float32",)):
            raise _another_type(tensor)
        if tensor.data is None:
            raise Refusal("BNN008", f"its operand {quoted(tensor.name)} is not a constant")
        dtype = np.dtype(_NUMPY[tensor.element])
        if tensor.data.size != tensor.count * dtype.itemsize:
            what = f"tensor {quoted(tensor.name)} holds {tensor.data.size} bytes, not the "
            raise Refusal("BNN003", f"{what}{dimensions(tensor.shape)} values it declares")
        return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)

    def integers(self, place: int) -> tuple[int, ...]:
        """Return a constant operand of integers, whatever its shape.

        Raises:
            Refusal: as `array`.
        """
        return tuple(int(i) for i in self.array(place, "int32", "int64").reshape(-1))

    def value(self, place: int) -> Value:
        """Return a float32 operand, a constant as one too.

        Raises:
            Refusal: BNN003 nothing makes it, BNN008 it is of another type.
        """
        tensor, index = self.tensor(place), self.operator.inputs[place]
        translation = self._translation
        if index not in translation.values:
            if tensor.data is None and index not in translation.arrays:
                raise Refusal("BNN003", f"nothing makes its operand {quoted(tensor.name)}")
            name = translation.constant(translation.name_of(index), self.array(place))
            translation.values[index] = Value(name, tensor.shape)
        value = translation.values[index]
        if value.is_bits:
            what = f"its operand {quoted(tensor.name)} is packed bits"
            raise Refusal("BNN008", what, why="only Larq Compute Engine's operators work on those")
        if tensor.element != "float32":
            raise _another_type(tensor)
        return value

    def bits(self, place: int) -> Value:
        """Return an operand of packed bits, in ONNX -1 and +1.

        Raises:
            Refusal: BNN003 nothing makes it, BNN008 it is none.
        """
        tensor = self.tensor(place)
        value = self._translation.values.get(self.operator.inputs[place])
        if value is None or not value.is_bits:
            what = f"its operand {quoted(tensor.name)} is not made by an operator on packed bits"
            raise Refusal("BNN008", what)
        return value

    def option(self, kind: str, field: str) -> int:
        """Return an integer option, 0 where the operator has none at all.

        Raises:
            Refusal: BNN003 its options are those of another operator.
        """
        return int(self._options(kind).get(field, 0))

    def number(self, kind: str, field: str) -> float:
        """Return an option that is a number; otherwise as `option`."""
        return float(self._options(kind).get(field, 0))

    def vector(self, kind: str, field: str) -> tuple[int, ...]:
        """Return an option that is a vector of integers; otherwise as `option`."""
        return tuple(self._options(kind).get(field, ()))

    def _options(self, kind: str) -> Mapping[str, Any]:
        if self.operator.kind not in ("", kind):
            raise Refusal("BNN003", f"its options are {self.operator.kind}, not {kind}")
        return self.operator.options

    def custom(self, *keys: str) -> dict[str, int]:
        """Return options of a custom operator, all of them integers.

        Raises:
            Refusal: BNN003 one is missing, or damaged.
        """
        try:
            return integers_of(self.operator.custom, keys)
        except ValueError as error:
            raise Refusal("BNN003", "its options cannot be read", why=str(error)) from error

    # --- What it becomes -------------------------------------------------------------------------

    def constant(self, role: str, array: Array) -> str:
        """Add a constant that the file does not have like that, and return its name."""
        translation = self._translation
        return translation.constant(translation.fresh(f"{self.origin}/{role}"), array)

    def scalar(self, value: float) -> str:
        """Add a float32 scalar and return its name."""
        return self.constant("scalar", np.asarray(value, np.float32))

    def emit(self, op: str, inputs: Iterable[str], **attributes: Any) -> str:
        """Append a node, and return its result's name.

        The first that computes speaks for the operator.
        """
        translation = self._translation
        result = translation.fresh(f"{self.origin}/{op}")
        speaks = op not in _MOVES and not any(n.name == self.origin for n in self._emitted.values())
        name = self.origin if speaks else result
        node = helper.make_node(op, list(inputs), [result], name=name, **attributes)
        translation.nodes.append(node)
        self._emitted[result] = node
        return result

    def transposed(self, name: str, perm: Sequence[int]) -> str:
        """Append a Transpose, and return its result's name."""
        return self.emit("Transpose", [name], perm=list(perm))

    def activated(self, name: str, kind: int) -> str:
        """Append a fused activation function, by its number, and return its result's name.

        Raises:
            Refusal: BNN008 it is not supported.
        """
        activation = _ACTIVATIONS.get(kind, f"number {kind}")
        if activation in _CLIPS:
            low, high = _CLIPS[activation]
            return self.emit("Clip", [name, self.scalar(low), self.scalar(high)])
        if activation not in ("", "Relu"):
            raise Refusal("BNN008", f"its fused activation {activation} is not supported")
        return self.emit(activation, [name]) if activation else name

    def finish(self, name: str, shape: Sequence[int], *, is_bits: bool = False) -> None:
        """Take a node's result as the operator's own.

        Args:
            name: of an ONNX tensor.
            shape: channels last, unpacked.
            is_bits: whether the file holds it as packed bits.

        Raises:
            Refusal: BNN003 the file declares another shape, BNN008 another type.
        """
        translation, shape = self._translation, tuple(shape)
        if len(self.operator.outputs) != 1:
            raise Refusal("BNN003", f"it has {len(self.operator.outputs)} results")
        place, tensor = self.operator.outputs[0], self.result
        if tensor.element != ("int32" if is_bits else "float32"):
            raise _another_type(tensor)
        packed = (*shape[:-1], math.ceil(shape[-1] / WORD_BITS)) if is_bits else shape
        if tensor.shape != packed:
            what = f"it gives {dimensions(packed)} elements, and the file says "
            raise Refusal("BNN003", f"{what}{dimensions(tensor.shape)}")
        result = translation.name_of(place)
        if name in self._emitted:
            self._emitted[name].output[0] = result
        else:
            translation.nodes.append(helper.make_node("Identity", [name], [result], name=result))
        translation.values[place] = Value(result, shape, is_bits)

    def fix(self, array: Array) -> None:
        """Take an array as the operator's result, for good."""
        self._translation.count(array)
        self._translation.arrays[self.operator.outputs[0]] = array


def _another_type(tensor: Tensor) -> Refusal:
    integer = tensor.element in ("int8", "uint8", "int16")
    return Refusal(
        "BNN008",
        f"tensor {quoted(tensor.name)} is {tensor.element}",
        why="the model was quantised to integers" if integer else "",
        help="convert the model without integer quantisation: its binary layers stay binary"
        if integer
        else "",
    )
