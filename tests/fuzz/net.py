"""An ONNX model under construction that knows the value of every tensor on the samples to come.

ONNX Runtime computes each node as it is added. So shapes need no rules of their own here, a node
that ONNX Runtime rejects fails where it is made, and statistics can be put where they hurt: on
values that a channel really takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnncc.frontends.onnx.runtime import open_session, run_session
from bnncc.ir.types import Array
from tests.fuzz.plan import Block

__all__ = ["Net", "grid"]

T = TypeVar("T")

# Odd, even, and beside the borders of words; small ones come more often, since they are fast.
WIDTHS = (*range(1, 10), *range(1, 10), 12, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 70)
# Operators whose float32 result is not a matter of correct rounding, or of one order of operations.
_LIBRARY = frozenset(
    {
        *("Celu", "Elu", "Erf", "Exp", "Gelu", "Log", "LogSoftmax", "Mish", "Pow", "ReduceLogSum"),
        *("Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh"),
    }
)
_APPROXIMATE = _LIBRARY | frozenset(
    {
        *("GroupNormalization", "InstanceNormalization", "LayerNormalization"),
        *("Reciprocal", "Sum"),
        *("LpNormalization", "MeanVarianceNormalization"),
        *("ReduceL2", "ReduceSumSquare"),
    }
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_SUMS = frozenset({"ReduceL1", "ReduceSum"})
# Reductions took their axes as an attribute before that opset, ReduceSum before 13.
_AXES_ARE_OPERANDS_SINCE = 18
_MOST_STEPS = 2.0**24  # float32 holds all integers up to there
_CRUMB = 2.0**-19  # sizes of weights that lie so near to each other are meant to be one


class Net:
    """A model under construction.

    Attributes:
        x: the tensor that the next block reads.
        opset: the version that the model declares.
        values: of every tensor that depends on an input, on all samples: [N, ...].
        fixed: the values of all others.
        dyadic: whether constants are small multiples of a power of two wherever that is possible.
        limit: the most channels, rows and columns.
        made: the results of blocks so far, the inputs first.
        outputs: what the model returns beside its last result.
        exact: tensors whose values depend on no order of summation.
    """

    def __init__(self, opset: int, limit: int, *, dyadic: bool) -> None:
        self.opset = opset
        self.limit = limit
        self.dyadic = dyadic
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.values: dict[str, Array] = {}
        self.fixed: dict[str, Array] = {}
        self.exact: set[str] = set()
        self.made: list[str] = []
        self.outputs: list[str] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._annotated: list[str] = []
        self._domains: set[str] = set()
        self._library: set[str] = set()  # what follows from functions whose last bits differ
        self.prefix = ""
        self._count = 0
        self.x = ""

    # --- Draws ------------------------------------------------------------------------------------

    def enter(self, block: Block) -> None:
        """Draw from a block's seed from now on."""
        self.random = np.random.default_rng([block.seed, *block.kind.encode()])

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of several things."""
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        """Return True that often."""
        return bool(self.random.random() < probability)

    def between(self, low: int, high: int) -> int:
        """Return an integer; both ends are possible."""
        return int(self.random.integers(low, high + 1))

    def width(self, most: int = WIDTHS[-1]) -> int:
        """Return a number of channels."""
        return max(1, min(self.pick(WIDTHS), most, self.limit))

    def reals(self, *shape: int) -> Array:
        """Return numbers around -2..2: multiples of 1/8 if the network is dyadic."""
        values = self.random.normal(0, 1, shape)
        if self.dyadic:
            values = np.clip(np.round(values * 8) / 8, -2, 2)
        return values.astype(np.float32)

    # --- Tensors ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `x`, batch 1 first."""
        return (1, *self.values[self.x].shape[1:])

    @property
    def spatial(self) -> tuple[int, ...]:
        """The lengths of the spatial axes of `x`."""
        return self.shape[2:]

    @property
    def channels(self) -> int:
        """The channels of `x`."""
        return self.shape[1]

    def along(self, row: Array, name: str = "") -> Array:
        """Return one value a channel [C] so that it broadcasts against `x`."""
        rank = self.values[name or self.x].ndim - 2
        shaped = row.reshape(-1, *[1] * rank)
        return shaped[np.newaxis] if self.chance(0.3) else shaped

    def by_channel(self) -> Array:
        """Return the values of `x` by channel: [C, M]."""
        return np.moveaxis(self.values[self.x], 1, 0).reshape(self.channels, -1)

    def ties(self) -> Array:
        """Return values by channel that a comparison with `x` ties with, [C, M].

        What comes out of a library's function is not among them: its last bit alone would decide.
        """
        rows = self.by_channel()
        return rows * np.float32(1 + 2.0**-10) if self.x in self._library else rows

    def bounded(self, name: str) -> float:
        """Return the largest magnitude of a tensor."""
        return float(np.abs(self.values[name].astype(np.float64)).max(initial=0))

    def fresh(self, what: str) -> str:
        """Return a name that is not taken."""
        self._count += 1
        return f"{self.prefix}{what}_{self._count}"

    def input(self, name: str, samples: Array, *, annotated: bool = False) -> str:
        """Declare an input with the values it takes, and make it `x`.

        Args:
            name: the input's.
            samples: float32 or uint8 [N, ...].
            annotated: whether FINN's annotation says that the float32 values are bytes.
        """
        self.inputs.append(_declared(name, samples[:1]))
        self.values[name] = samples
        self.exact.add(name)
        if annotated:
            self._annotated.append(name)
        self.x = name
        self.made.append(name)
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Return the name of a constant: an initializer, or the result of a Constant node."""
        array = np.asarray(values, dtype)
        name = self.fresh("c")
        if self.chance(0.15):
            value = numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            self.constants.append(numpy_helper.from_array(array, name))
        self.fixed[name] = array
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Append a node, compute it on all samples, and return its first result."""
        return self.results(op, inputs, outputs, **attributes)[0]

    def results(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Append a node, compute it on all samples, and return its results."""
        names = [self.fresh(op.lower()) for _ in range(outputs)]
        node = helper.make_node(op, inputs, names, self.fresh("n"), **attributes)
        self._compute(node)
        self.nodes.append(node)
        if self._is_exact(op, inputs, names[0], attributes):
            self.exact.update(names)
        if op in _LIBRARY or not self._library.isdisjoint(inputs):
            self._library.update(names)
        return names

    def foreign(
        self, op: str, domain: str, inputs: Sequence[str], values: Array, **attributes: Any
    ) -> str:
        """Append a node that ONNX Runtime does not know, and return its result.

        Args:
            op, domain, inputs, attributes: the node's.
            values: what it makes of its inputs, on all samples unless they are constants.
        """
        name = self.fresh(op.lower())
        self._domains.add(domain)
        node = helper.make_node(op, inputs, [name], self.fresh("n"), domain=domain, **attributes)
        self.nodes.append(node)
        varying = [read for read in inputs if read in self.values]
        (self.values if varying else self.fixed)[name] = values
        if self.exact.issuperset(varying):
            self.exact.add(name)
        if not self._library.isdisjoint(inputs):
            self._library.add(name)
        return name

    def reduced(self, op: str, name: str, axes: Sequence[int], *, keepdims: int = 1) -> str:
        """Append a reduction, its axes said as the opset says them, and return its result."""
        if op != "ReduceSum" and self.opset < _AXES_ARE_OPERANDS_SINCE:
            return self.node(op, [name], axes=list(axes), keepdims=keepdims)
        return self.node(op, [name, self.constant(axes, np.int64)], keepdims=keepdims)

    def shape_of(self, name: str) -> str:
        """Append a Shape, which depends on no value, and return its result."""
        shape = self.fresh("shape")
        self.nodes.append(helper.make_node("Shape", [name], [shape], self.fresh("n")))
        self.fixed[shape] = np.array([1, *self.values[name].shape[1:]], np.int64)
        return shape

    def known(self, name: str) -> Array:
        """Return the values of a tensor: of all samples if it depends on an input."""
        return self.values[name] if name in self.values else self.fixed[name]

    def follow(self, op: str, *operands: str, **attributes: Any) -> str:
        """Append a node to `x`, with further operands, and make its result `x`."""
        self.x = self.node(op, [self.x, *operands], **attributes)
        return self.x

    def _compute(self, node: onnx.NodeProto) -> None:
        read = [name for name in dict.fromkeys(node.input) if name]
        varying = [name for name in read if name in self.values]
        graph = helper.make_graph(
            [node],
            "node",
            [_declared(name, self.values[name][:1]) for name in varying],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(self.fixed[n], n) for n in read if n in self.fixed],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        session = open_session(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        count = len(next(iter(self.values.values()))) if varying else 1
        rows = [
            run_session(session, {name: self.values[name][i : i + 1] for name in varying})
            for i in range(count)
        ]
        for name, column in zip(node.output, zip(*rows, strict=True), strict=True):
            if varying:
                self.values[name] = np.concatenate(column)
            else:
                self.fixed[name] = column[0]

    def _is_exact(
        self, op: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any]
    ) -> bool:
        """Whether any implementation gives these values: no sum of the node rounds."""
        if output in self.fixed:
            return True
        if op in _APPROXIMATE or any(n in self.values and n not in self.exact for n in inputs):
            return False
        if op == "Resize" and attributes.get("mode") == "linear":
            return False
        if op in _PRODUCTS:
            return self._products_are_exact(inputs)
        if op in _SUMS:
            return self._mean_is_exact(inputs[0], 1, self._terms(inputs[0], output))
        if op in _MEANS:
            divisor = self._divisor(op, inputs[0], output, attributes)
            return self._mean_is_exact(inputs[0], divisor, divisor)
        return True

    def _products_are_exact(self, inputs: Sequence[str]) -> bool:
        """Whether every partial sum of products is an integer multiple that float32 holds."""
        if any(name and name not in self.fixed for name in inputs[1:]):
            return False
        weights = self.fixed[inputs[1]].astype(np.float64)
        sizes = np.unique(np.abs(weights))
        if (
            np.diff(sizes) < _CRUMB * sizes[1:]
        ).any():  # one alpha, which the compiler makes of them
            return False
        step = grid(self.values[inputs[0]]) * grid(weights)
        most = self.bounded(inputs[0]) * np.abs(weights).sum()
        if len(inputs) > 2 and inputs[2]:
            bias = self.fixed[inputs[2]].astype(np.float64)
            step = min(step, grid(bias))
            most += np.abs(bias).max(initial=0)
        return bool(most < step * _MOST_STEPS)

    def _divisor(self, op: str, x: str, output: str, attributes: Mapping[str, Any]) -> int:
        """Return what a mean divides its sums by, 0 where that differs from place to place."""
        if op != "AveragePool":
            return self._terms(x, output)
        varies = any(attributes.get("pads", ())) or attributes.get("ceil_mode", 0)
        return 0 if varies else int(np.prod(attributes["kernel_shape"]))

    def _terms(self, x: str, output: str) -> int:
        """Return how many values of `x` make one of `output`."""
        return self.values[x][0].size // self.values[output][0].size

    def _mean_is_exact(self, x: str, divisor: int, terms: int) -> bool:
        """Whether sums are exact, and dividing by the power of two is, or times its inverse."""
        is_power_of_two = divisor > 0 and divisor & (divisor - 1) == 0
        return is_power_of_two and self.bounded(x) * terms < grid(self.values[x]) * _MOST_STEPS

    # --- The result -------------------------------------------------------------------------------

    def model(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """Return the model, checked by onnx itself."""
        graph = helper.make_graph(
            self.nodes,
            "fuzzed",
            self.inputs,
            [_declared(name, self.values[name][:1]) for name in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self._domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 + (self.opset > 20))
        for name in self._annotated:
            note = model.graph.quantization_annotation.add(tensor_name=name)
            note.quant_parameter_tensor_names.add(key="finn_datatype", value="UINT8")
        onnx.checker.check_model(model, full_check=True)
        return model


def grid(values: Array) -> float:
    """Return the largest power of two that divides all values; infinity if all are 0.

    Worked: 0.75 = 3 * 2^-2 and 6 = 3 * 2^1 lie on the grid of 2^-2.
    """
    mantissas, exponents = np.frexp(values.astype(np.float64).reshape(-1))
    integers = np.abs((mantissas * 2.0**53).astype(np.int64))
    used = integers != 0
    if not used.any():
        return float("inf")
    lowest = integers[used] & -integers[used]
    return float(2.0 ** (np.log2(lowest.astype(np.float64)) + exponents[used] - 53).min())


def _declared(name: str, values: Array) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(values.dtype)
    return helper.make_tensor_value_info(name, element, values.shape)
