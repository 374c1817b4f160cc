"""Which function translates which operator, and into what. What is not here is not supported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx
from onnx import TensorProto, helper

from bnncc.errors import Diagnostic, UnsupportedModelError, printable
from bnncc.frontends.onnx.report import Refusal, plural, quoted
from bnncc.frontends.tflite.elements import (
    arithmetic,
    clipped,
    dequantize,
    leaky_relu,
    prelu,
    softmax,
    unary,
)
from bnncc.frontends.tflite.larq import bconv, bmaxpool, dequantize_bits, quantize_bits
from bnncc.frontends.tflite.moves import (
    concatenate,
    mean,
    pad,
    reshape,
    slice_,
    strided_slice,
    transpose,
)
from bnncc.frontends.tflite.read import Network, Operator
from bnncc.frontends.tflite.site import Site, Translation, Value
from bnncc.frontends.tflite.windows import conv, depthwise_conv, fully_connected, pool

__all__ = ["CUSTOM", "TABLE", "Builtin", "translate"]

_OPSET = 17
_IR_VERSION = 8
_SHOWN = 3


@dataclass(frozen=True)
class Builtin:
    """An operator of a TensorFlow Lite file.

    Attributes:
        translate: appends the ONNX nodes that stand for it, or refuses.
        onnx: the ONNX operator that does its work, and with which it shares its limits.
    """

    translate: Callable[[Site], None]
    onnx: str


TABLE: Mapping[str, Builtin] = MappingProxyType(
    {
        "ABS": Builtin(unary("Abs"), "Abs"),
        "ADD": Builtin(arithmetic("Add", "AddOptions"), "Add"),
        "AVERAGE_POOL_2D": Builtin(pool("AveragePool"), "AveragePool"),
        "CONCATENATION": Builtin(concatenate, "Concat"),
        "CONV_2D": Builtin(conv, "Conv"),
        "DEPTHWISE_CONV_2D": Builtin(depthwise_conv, "Conv"),
        "DEQUANTIZE": Builtin(dequantize, "Cast"),
        "DIV": Builtin(arithmetic("Div", "DivOptions"), "Div"),
        "EXPAND_DIMS": Builtin(reshape, "Reshape"),
        "FULLY_CONNECTED": Builtin(fully_connected, "Gemm"),
        "HARD_SWISH": Builtin(unary("HardSwish"), "HardSwish"),
        "LEAKY_RELU": Builtin(leaky_relu, "LeakyRelu"),
        "LOGISTIC": Builtin(unary("Sigmoid"), "Sigmoid"),
        "LOG_SOFTMAX": Builtin(unary("LogSoftmax", axis=-1), "LogSoftmax"),
        "MAXIMUM": Builtin(arithmetic("Max", ""), "Max"),
        "MAX_POOL_2D": Builtin(pool("MaxPool"), "MaxPool"),
        "MEAN": Builtin(mean, "ReduceMean"),
        "MINIMUM": Builtin(arithmetic("Min", ""), "Min"),
        "MUL": Builtin(arithmetic("Mul", "MulOptions"), "Mul"),
        "NEG": Builtin(unary("Neg"), "Neg"),
        "PAD": Builtin(pad, "Pad"),
        "PADV2": Builtin(pad, "Pad"),
        "PRELU": Builtin(prelu, "PRelu"),
        "RELU": Builtin(unary("Relu"), "Relu"),
        "RELU6": Builtin(clipped(0, 6), "Clip"),
        "RELU_0_TO_1": Builtin(clipped(0, 1), "Clip"),
        "RELU_N1_TO_1": Builtin(clipped(-1, 1), "Clip"),
        "RESHAPE": Builtin(reshape, "Reshape"),
        "SIGN": Builtin(unary("Sign"), "Sign"),
        "SLICE": Builtin(slice_, "Slice"),
        "SOFTMAX": Builtin(softmax, "Softmax"),
        "SQUEEZE": Builtin(reshape, "Reshape"),
        "STRIDED_SLICE": Builtin(strided_slice, "Slice"),
        "SUB": Builtin(arithmetic("Sub", "SubOptions"), "Sub"),
        "TANH": Builtin(unary("Tanh"), "Tanh"),
        "TRANSPOSE": Builtin(transpose, "Transpose"),
    }
)
"""The built-in operators."""

CUSTOM: Mapping[str, Builtin] = MappingProxyType(
    {
        "LceBMaxPool2d": Builtin(bmaxpool, "MaxPool"),
        "LceBconv2d": Builtin(bconv, "Conv"),
        "LceDequantize": Builtin(dequantize_bits, "Identity"),
        "LceQuantize": Builtin(quantize_bits, "Where"),
    }
)
"""The custom operators: Larq Compute Engine's."""


def translate(network: Network) -> onnx.ModelProto:
    """Return the network as an ONNX model of standard operators, of float32 inputs and outputs.

    Raises:
        UnsupportedModelError: BNN007 all operators that are not in the tables; otherwise all that
            is wrong with those that are: BNN003, BNN005, BNN008.
    """
    _check_operators(network)
    translation = Translation(network)
    inputs = [_input(translation, place) for place in network.inputs]
    found: list[Diagnostic] = []
    failed: set[int] = set()
    for operator in network.operators:
        if failed.isdisjoint(operator.inputs):
            problem = _translated(translation, operator)
            if problem is None:
                continue
            found.append(problem)
        failed.update(operator.outputs)
    if found:
        raise UnsupportedModelError.of(found)
    outputs = [_output(translation, place) for place in network.outputs]
    if not outputs:
        raise UnsupportedModelError("BNN003", "the model has no outputs")
    graph = helper.make_graph(translation.nodes, "model", inputs, outputs, translation.constants)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)


def _entry(operator: Operator) -> Builtin | None:
    return (CUSTOM if operator.is_custom else TABLE).get(operator.name)


def _check_operators(network: Network) -> None:
    """Refuse the model if there are operators that nobody translates, all of them at once."""
    unknown: dict[str, list[str]] = {}
    for operator in network.operators:
        if _entry(operator) is None:
            kind = "custom operator" if operator.is_custom else "operator"
            results = [network.tensors[place].name for place in operator.outputs]
            unknown.setdefault(f"{kind} {printable(operator.name)}", []).extend(results)
    found = (
        Diagnostic("BNN007", f"{name} is not supported", _where(results))
        for name, results in unknown.items()
    )
    if unknown:
        raise UnsupportedModelError.of(found)


def _where(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    more = f" and {plural(len(shown) - _SHOWN, 'more')}" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _translated(translation: Translation, operator: Operator) -> Diagnostic | None:
    """Translate an operator; return why not if it cannot be."""
    if not operator.outputs:
        return Diagnostic("BNN003", f"an operator {printable(operator.name)} has no result")
    site = Site(translation, operator)
    entry = _entry(operator)
    assert entry is not None  # _check_operators asked
    try:
        made = any(place in translation.values for place in operator.outputs)
        if made:
            raise Refusal("BNN003", "its result is made twice")
        entry.translate(site)
    except Refusal as refusal:
        what = f"{operator.name}: {refusal.what}"
        return Diagnostic(refusal.code, what, printable(site.origin), refusal.why, refusal.help)
    return None


def _input(translation: Translation, place: int) -> onnx.ValueInfoProto:
    tensor = translation.network.tensors[place]
    name = translation.name_of(place)
    if tensor.element != "float32" or place in translation.values:
        what = f"input {quoted(name)} is {tensor.element}, not float32"
        if tensor.element == "float32":
            what = f"input {quoted(name)} is listed twice"
        raise UnsupportedModelError(
            "BNN008", what, help="convert the model with float32 inputs and outputs"
        )
    if tensor.shape[:1] != (1,):
        what = f"input {quoted(name)} holds more than one sample"
        raise UnsupportedModelError("BNN008", what, help="convert the model for a batch of 1")
    translation.values[place] = Value(name, tensor.shape)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor.shape)


def _output(translation: Translation, place: int) -> onnx.ValueInfoProto:
    value = translation.values.get(place)
    name = translation.name_of(place)
    if value is None:
        raise UnsupportedModelError("BNN003", f"nothing makes output {quoted(name)}")
    if value.is_bits:
        what = f"output {quoted(name)} is packed bits"
        raise UnsupportedModelError("BNN008", what, help="end the model with LceDequantize")
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, value.shape)
