"""One ONNX node at its place in the graph, as the functions of the table see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from bnncc.errors import Diagnostic
from bnncc.frontends.onnx.constants import not_finite
from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import Refusal, origin, quoted
from bnncc.ir.graph import GraphBuilder
from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.elementwise import Elementwise, Identity
from bnncc.ir.ops.shape import Expand, Movement, Reshape
from bnncc.ir.types import Array, Element, TensorType
from bnncc.ir.window import Window

__all__ = ["Damaged", "Scope", "Site", "transposed"]

_TILE = 64  # 64 x 64 float32 stay in the first-level cache


class Damaged(Exception):  # noqa: N818 - findings on their way to the report
    """Constants that are not numbers; the findings are complete."""

    def __init__(self, found: list[Diagnostic]) -> None:
        super().__init__()
        self.found = found


def transposed(matrix: Array) -> Array:
    """Return the transpose of a matrix in C order, without a copy if it is there already."""
    if matrix.T.flags.c_contiguous:
        return matrix.T
    # Tile by tile, each cache line is read once: a third of the time of a plain copy at 4096.
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    for row in range(0, matrix.shape[0], _TILE):
        for column in range(0, matrix.shape[1], _TILE):
            tile = matrix[row : row + _TILE, column : column + _TILE]
            result[column : column + _TILE, row : row + _TILE] = tile.T
    return result


class Scope:
    """The graph that is being built, and the constants it may draw on."""

    def __init__(
        self, builder: GraphBuilder, tensors: Mapping[str, Array], reserved: Collection[str]
    ) -> None:
        """Start from ONNX constants by name; no name of `reserved` is given to anything else."""
        self.builder = builder
        self.tensors = tensors
        self._reserved = set(reserved)
        self._constants: dict[tuple[str, str], str] = {}
        self.expanded: dict[str, str] = {}
        """What some tensors merely repeat."""

    def fresh(self, hint: str) -> str:
        """Return a name that starts with `hint` and that neither graph uses."""
        name, suffix = hint, 1
        while name in self._reserved or name in self.builder.types:
            name, suffix = f"{hint}.{suffix}", suffix + 1
        return name

    def constant(self, name: str, form: str, array: Array) -> str:
        """Return the IR's name of the ONNX constant `name` in some `form`, adding it once.

        Args:
            name: the ONNX name; the IR uses it too if `form` is empty.
            form: how `array` was derived from the constant, empty if not at all.
            array: float32 or bool.
        """
        key = (name, form)
        if key not in self._constants:
            element = Element.BOOL if array.dtype == np.bool_ else Element.F32
            given = self.fresh(f"{name}.{form}") if form else name
            # asarray, for ascontiguousarray would turn a scalar into a vector.
            stored = np.asarray(array, order="C")
            self._constants[key] = self.builder.constant(given, stored, element)
        return self._constants[key]


class Site:
    """A node with its operands at hand; `emit` and its kin append to the graph."""

    def __init__(self, scope: Scope, node: onnx.NodeProto, opset: int) -> None:
        """Look at `node`, all of whose variable operands are in the graph already."""
        self.scope = scope
        self.node = node
        self.opset = opset
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def has(self, index: int) -> bool:
        """Whether the optional operand is there."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def is_constant(self, index: int) -> bool:
        """Whether the operand is a constant."""
        return self.node.input[index] in self.scope.tensors

    def type_of(self, name: str) -> TensorType:
        """Return the type of a tensor of the graph."""
        return self.scope.builder.types[name]

    def raw(self, name: str, default: Any) -> Any:
        """Return an attribute's value, whatever it is."""
        return self.attributes.get(name, default)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value; a number that is not finite is refused."""
        value = self.raw(name, default)
        if isinstance(value, float) and not np.isfinite(value):
            raise Refusal("BNN009", f"attribute {quoted(name)} is {value}")
        return value

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a string."""
        value = self.raw(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return a list of integers that older opsets keep in an attribute, newer in an operand."""
        if name in self.attributes:
            return [int(i) for i in self.attributes[name]]
        return [int(i) for i in self.array(index).reshape(-1)] if self.has(index) else None

    def array(self, index: int) -> Array:
        """Return a constant operand's value, as the model has it."""
        name = self.node.input[index]
        if name not in self.scope.tensors:
            what = f"operand {quoted(name)} of {self.node.op_type} must be a constant"
            raise Refusal("BNN008", what, why="it is computed from the model's input")
        return self.scope.tensors[name]

    def numbers(self, index: int) -> Array:
        """Return a constant operand as float32 or bool.

        Raises:
            Refusal: BNN008 it has another element type, and float32 does not hold its values.
            Damaged: BNN009 it holds NaN or infinity.
        """
        array = self.array(index)
        damage = not_finite(self.node.input[index], array, [self.node])
        if damage:
            raise Damaged([damage])
        return array if array.dtype == np.bool_ else self._exact(array, index)

    def _exact(self, array: Array, index: int) -> Array:
        if array.dtype == np.float32:
            return array
        name = quoted(self.node.input[index])
        if array.dtype.kind not in "fiu" or array.dtype == np.float16:
            raise Refusal("BNN008", f"constant {name} has element type {array.dtype}")
        # Out of range gives an infinity, which no finite number equals.
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float32)
        if not np.array_equal(rounded.astype(np.float64), array.astype(np.float64)):
            why = f"it is computed in {array.dtype}, and float32 does not hold its values"
            raise Refusal("BNN008", f"constant {name} does not fit float32", why=why)
        return rounded

    def operand(self, index: int) -> str:
        """Return the IR's name of an operand, variable or constant."""
        if index >= len(self.node.input) or not self.node.input[index]:
            raise Refusal("BNN003", f"operand {index} of {self.node.op_type} is missing")
        name = self.node.input[index]
        if self.is_constant(index):
            return self.scope.constant(name, "", self.numbers(index))
        return str(name)

    def weights(self, index: int, *, are_rows: bool) -> str:
        """Return the IR's name of a constant matrix as [outputs, inputs].

        Args:
            index: which operand.
            are_rows: whether the model has it as [outputs, inputs] already.
        """
        array = self.numbers(index)
        name = self.node.input[index]
        if array.ndim != 2:
            why = f"their shape is {list(array.shape)}"
            raise Refusal("BNN008", f"weights {quoted(name)} are not a matrix", why=why)
        if are_rows:
            return self.scope.constant(name, "", array)
        return self.scope.constant(name, "transposed", transposed(array))

    def fresh(self, form: str) -> str:
        """Return a name for a part of what the node computes."""
        return self.scope.fresh(f"{self.node.output[0]}.{form}")

    def scalar(self, value: float) -> str:
        """Return the IR's name of a number that is not among the model's constants."""
        number = np.float32(value)
        return self.scope.constant(self.node.output[0], f"{number}", np.asarray(number))

    def part(self, op: Op, *operands: str) -> str:
        """Append a step on the way to the node's result, and return its name."""
        return self.emit(op, list(operands), self.fresh(op.name.lower()))

    def axis(self, given: int, rank: int) -> int:
        """Return an axis of a tensor, counted from the front."""
        return self.axes([given], rank)[0]

    def axes(self, given: Sequence[int], rank: int) -> list[int]:
        """Return axes of a tensor, negative ones counted from the back, none twice."""
        axes = [axis + rank if axis < 0 else axis for axis in given]
        if len(set(axes)) != len(axes) or any(not 0 <= axis < rank for axis in axes):
            what = f"{self.node.op_type} along {list(given)} of {rank} dimensions"
            raise Refusal("BNN003", what)
        return axes

    def check_fits(self, window: Window, sizes: Sequence[int]) -> None:
        """Refuse a window that is larger than the operand with its pads."""
        try:
            window.outputs(sizes)
        except OpError as error:
            raise Refusal("BNN003", f"operands of {self.node.op_type}: {error}") from error

    def emit(self, op: Op, operands: list[str], output: str = "") -> str:
        """Append `op`, by default as the node's result, and return the result's name.

        Raises:
            Refusal: BNN003 the operands contradict each other, BNN005 the result is too large,
                BNN008 their types or batches are not what the operation takes.
        """
        return self.emit_results(op, operands, [output or self.node.output[0]])[0]

    def emit_results(self, op: Op, operands: list[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Append `op` with a result for each of `outputs`; as `emit` otherwise."""
        builder = self.scope.builder
        if isinstance(op, Elementwise):
            self._check_elementwise(op, operands)
            operands = self._aligned(op, operands)
        types = [builder.types[name] for name in operands]
        self._check_indices(op, operands)
        try:
            kinds = op.infer(types)
        except OpError as error:
            raise Refusal("BNN003", f"operands of {self.node.op_type}: {error}") from error
        nbytes = max(kind.nbytes for kind in kinds)
        if nbytes > MAX_TENSOR_BYTES:
            what = f"{self.node.op_type} computes {nbytes} bytes"
            raise Refusal("BNN005", what, why=f"the limit is {MAX_TENSOR_BYTES} bytes")
        return builder.results(op, operands, outputs, [origin(self.node)])

    def _check_indices(self, op: Op, operands: list[str]) -> None:
        """Refuse to compute with the int64 results of ArgMax and TopK, which may only move."""
        for name in operands:
            integer = self.type_of(name).element is Element.I64
            if integer and not isinstance(op, (Movement, Identity)):
                why = f"{quoted(name)} holds indices, which bnncc passes on and does not compute on"
                raise Refusal("BNN008", f"element type of {self.node.op_type}", why=why)

    def _check_elementwise(self, op: Elementwise, operands: list[str]) -> None:
        builder = self.scope.builder
        for name in operands:
            found, wanted = builder.types[name].element, op.operand_element
            if wanted is not None and found is not wanted:
                why = f"{quoted(name)} is {found.value}, and bnncc has {op.name} of {wanted.value}"
                raise Refusal("BNN008", f"element type of {self.node.op_type}", why=why)

    def _aligned(self, op: Elementwise, operands: list[str]) -> list[str]:
        """Return operands of one rank that broadcast as the model's do, and as kernels read them.

        Axis 0 of every variable is the batch, and stays where it is. A kernel walks over one
        operand of the result's shape, and reads others that have one value a pixel, a channel or a
        sample: what varies otherwise is spread out.
        """
        if op.name == "BatchNormalization" or not operands:
            return operands
        builder = self.scope.builder
        rank = max(len(builder.types[name].shape) for name in operands)
        constants = [builder.types[n].shape for n in operands if n in builder.constants]
        if any(len(shape) == rank and rank > 0 and shape[0] != 1 for shape in constants):
            shapes = ", ".join(f"{list(builder.types[name].shape)}" for name in operands)
            why = f"shapes {shapes} broadcast along the batch, which is dimension 0"
            raise Refusal("BNN008", f"broadcasting of {self.node.op_type}", why=why)
        given = [self._of_rank(name, rank) for name in operands]
        shape = self._broadcast(given)
        for name in dict.fromkeys(given):  # an Expand that changes nothing here
            source = self.scope.expanded.get(name, name)
            bare = [source if other == name else other for other in given]
            same_rank = len(self.type_of(source).shape) == rank
            if source != name and same_rank and self._broadcast(bare) == shape:
                given = bare
        return self._spread(given, shape)

    def _of_rank(self, name: str, rank: int) -> str:
        """Return a variable with axes of size 1 behind the batch, where numpy puts them."""
        shape = self.type_of(name).shape
        if name in self.scope.builder.constants or len(shape) == rank:
            return name
        wider = (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])
        return self.emit(Reshape(wider), [name], self.fresh("aligned"))

    def _broadcast(self, operands: Sequence[str]) -> tuple[int, ...]:
        shapes = [self.type_of(name).shape for name in operands]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError as error:
            text = " and ".join(str(list(shape)) for shape in shapes)
            what = f"operands of {self.node.op_type}: shapes {text} do not broadcast"
            raise Refusal("BNN003", what) from error

    def _spread(self, operands: list[str], shape: tuple[int, ...]) -> list[str]:
        """Return operands among which no variable varies along some axes within a channel only."""
        variables = [n for n in operands if n not in self.scope.builder.constants]
        wanted = {name: self._read_at(name, shape) for name in variables}
        if variables and shape not in wanted.values():
            wanted[variables[0]] = shape
        found = {
            name: self.emit(Expand(target), [name], self.fresh("spread"))
            for name, target in wanted.items()
            if target != self.type_of(name).shape
        }
        return [found.get(name, name) for name in operands]

    def _read_at(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in which a kernel can read a variable beside a result of `shape`."""
        own = self.type_of(name).shape
        if own[2:] in (shape[2:], (1,) * len(shape[2:])):
            return own
        return (*own[:2], *shape[2:])
