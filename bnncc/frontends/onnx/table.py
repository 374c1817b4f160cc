"""The table: how each ONNX operator is said in the IR. What is not here is not supported.

An entry gets a `Site` and appends one or more IR nodes, the last under the name of the ONNX result.
Where opsets differ (attributes that became operands), the entry takes either form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx

from bnncc.frontends.onnx.report import Refusal, element_name, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import (
    Abs,
    Add,
    And,
    BatchNormalization,
    Cast,
    Ceil,
    Clip,
    Div,
    Equal,
    Floor,
    Greater,
    GreaterOrEqual,
    HardSigmoid,
    Identity,
    LeakyRelu,
    Less,
    LessOrEqual,
    Mul,
    Neg,
    Not,
    Or,
    PRelu,
    Relu,
    Round,
    Sign,
    Sub,
    Tanh,
    Where,
)
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array, Element

__all__ = ["RANDOM", "TABLE"]

_LARGEST = float(np.finfo(np.float32).max)
_TRAINING_HELP = "export in eval mode: call model.eval() before torch.onnx.export"

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators that draw random numbers, whatever their operands."""


def _elementwise(op: Op, arity: int = 1) -> Callable[[Site], None]:
    """Return the entry of an operator that is an IR operation of the same operands."""

    def entry(site: Site) -> None:
        site.emit(op, [site.operand(i) for i in range(arity)])

    return entry


def _gemm(site: Site) -> None:
    """Alpha * x W + beta * C: each factor and the sum round on their own, as in ONNX Runtime."""
    if site.attribute("transA", 0):
        raise Refusal("BNN008", "Gemm with transA", why="the batch would be summed over")
    beta = np.float32(site.attribute("beta", 1.0))
    alpha = np.float32(site.attribute("alpha", 1.0))
    has_bias = site.has(2) and beta != 0
    steps = (["scaled"] if alpha != 1 else []) + (["biased"] if has_bias else [])
    # The last step carries the ONNX result's name, those before it names of their own.
    names = ["sum", *steps]
    given = [site.fresh(name) for name in names[:-1]] + [""]
    rows = bool(site.attribute("transB", 0))
    result = _product(site, rows, given.pop(0))
    if alpha != 1:
        factor = site.scope.constant(site.node.output[0], "alpha", np.asarray(alpha))
        result = site.emit(Mul(), [result, factor], given.pop(0))
    if has_bias:
        site.emit(Add(), [result, _bias(site, beta)], given.pop(0))


def _bias(site: Site, beta: np.float32) -> str:
    if beta == 1:
        return site.operand(2)
    if site.is_constant(2):
        scaled: Array = site.numbers(2) * beta
        return site.scope.constant(site.node.input[2], f"times{beta}", scaled)
    factor = site.scope.constant(site.node.output[0], "beta", np.asarray(beta))
    return site.emit(Mul(), [site.operand(2), factor], site.fresh("bias"))


def _matmul(site: Site) -> None:
    _product(site, are_rows=False, output="")


def _product(site: Site, are_rows: bool, output: str) -> str:
    op_type = site.node.op_type
    if not site.has(1) or site.is_constant(0) or not site.is_constant(1):
        raise Refusal(
            "BNN008",
            f"{op_type} of operands other than an activation and constant weights",
            why="bnncc packs weights at compile time, so they must not depend on the input",
        )
    x = site.operand(0)
    shape = site.type_of(x).shape
    if len(shape) != 2:
        why = f"{quoted(x)} has shape {list(shape)}, and bnncc multiplies [batch, features]"
        raise Refusal("BNN008", f"{op_type} of more than two dimensions", why=why)
    return site.emit(MatMul(), [x, site.weights(1, are_rows=are_rows)], output)


def _batch_normalization(site: Site) -> None:
    # Before opset 14, results beside the first are what says "training".
    says_training = site.opset < 14 and any(site.node.output[1:])
    if site.attribute("training_mode", 0) or says_training:
        what = "BatchNormalization in training mode"
        why = "it normalises by each batch's own statistics, so that nothing can be folded"
        raise Refusal("BNN012", what, why=why, help=_TRAINING_HELP)
    epsilon = np.float32(site.attribute("epsilon", 1e-5))
    statistics = [site.numbers(i) for i in range(1, 5)]
    variance = statistics[3]
    bad = (variance < 0) | (variance + epsilon <= 0)
    if bad.any():
        first = int(np.argmax(bad))
        raise Refusal(
            "BNN010",
            f"variance {quoted(site.node.input[4])} cannot be normalised by",
            why=f"{int(bad.sum())} of {bad.size} channels are negative, or zero with epsilon zero; "
            f"channel {first} is {variance.reshape(-1)[first]:.6g} with epsilon {epsilon:.6g}",
            help="export again from a checkpoint whose running statistics are intact",
        )
    site.emit(BatchNormalization(float(epsilon)), [site.operand(i) for i in range(5)])


def _dropout(site: Site) -> None:
    if site.has(2) and bool(site.array(2).any()):
        what = "Dropout in training mode"
        why = "it draws random numbers, so that there is nothing fixed to compile"
        raise Refusal("BNN012", what, why=why, help=_TRAINING_HELP)
    site.emit(Identity(), [site.operand(0)])


def _clip(site: Site) -> None:
    low = _bound(site, "min", 1, -_LARGEST)
    high = _bound(site, "max", 2, _LARGEST)
    site.emit(Clip(low, high), [site.operand(0)])


def _bound(site: Site, name: str, index: int, missing: float) -> float:
    """Return one of Clip's bounds, which may be infinite."""
    value = float(site.raw(name, missing))
    if site.has(index):
        array = site.array(index)
        if array.size != 1:
            raise Refusal("BNN008", f"the bound {name} of Clip is a tensor of {array.size} values")
        value = float(array.reshape(()))
    if np.isnan(value):
        raise Refusal("BNN009", f"the bound {name} of Clip is NaN")
    return value


def _leaky_relu(site: Site) -> None:
    site.emit(LeakyRelu(site.attribute("alpha", 0.01)), [site.operand(0)])


def _hard_sigmoid(site: Site) -> None:
    op = HardSigmoid(site.attribute("alpha", 0.2), site.attribute("beta", 0.5))
    site.emit(op, [site.operand(0)])


def _cast(site: Site) -> None:
    x = site.operand(0)
    source, target = site.type_of(x).element, site.attribute("to", 0)
    match source, target:
        case (Element.F32, onnx.TensorProto.FLOAT) | (Element.BOOL, onnx.TensorProto.BOOL):
            site.emit(Identity(), [x])
        case Element.BOOL, onnx.TensorProto.FLOAT:
            site.emit(Cast(Element.F32), [x])
        case _:
            what = f"Cast from {source.value} to {element_name(target)}"
            why = "activations are float32, or truth values on their way to float32"
            raise Refusal("BNN008", what, why=why)


def _reshape(site: Site) -> None:
    x = site.type_of(site.operand(0)).shape
    wanted = site.integers("shape", 1) or []
    if not site.attribute("allowzero", 0):
        if any(size == 0 for size in wanted[len(x) :]):
            raise Refusal("BNN003", f"Reshape of {list(x)} to {wanted}")
        wanted = [x[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        known = int(np.prod([size for size in wanted if size != -1], dtype=object))
        total = int(np.prod(x, dtype=object))
        wanted[wanted.index(-1)] = total // known if known else 0
    _reshape_to(site, wanted)


def _flatten(site: Site) -> None:
    x = site.type_of(site.operand(0)).shape
    axis = site.attribute("axis", 1)
    axis += len(x) if axis < 0 else 0
    if not 0 <= axis <= len(x):
        raise Refusal("BNN003", f"Flatten of {list(x)} at axis {axis}")
    _reshape_to(site, [int(np.prod(x[:axis])), int(np.prod(x[axis:]))])


def _squeeze(site: Site) -> None:
    x = site.type_of(site.operand(0)).shape
    axes = site.integers("axes", 1)
    if axes is None:
        gone = {axis for axis, size in enumerate(x) if size == 1}
    else:
        gone = {axis + len(x) if axis < 0 else axis for axis in axes}
    if not gone <= set(range(len(x))):
        raise Refusal("BNN003", f"Squeeze of {list(x)} at axes {axes}")
    _reshape_to(site, [size for axis, size in enumerate(x) if axis not in gone])


def _unsqueeze(site: Site) -> None:
    x = site.type_of(site.operand(0)).shape
    axes = site.integers("axes", 1) or []
    rank = len(x) + len(axes)
    added = {axis + rank if axis < 0 else axis for axis in axes}
    if len(added) != len(axes) or not added <= set(range(rank)):
        raise Refusal("BNN003", f"Unsqueeze of {list(x)} at axes {axes}")
    sizes = iter(x)
    _reshape_to(site, [1 if axis in added else next(sizes) for axis in range(rank)])


def _reshape_to(site: Site, shape: list[int]) -> None:
    x = site.operand(0)
    if shape[:1] != [1]:
        what = f"{site.node.op_type} from {list(site.type_of(x).shape)} to {shape}"
        why = "the batch must stay in dimension 0, where it is 1"
        raise Refusal("BNN008", what, why=why)
    site.emit(Reshape(tuple(shape)), [x])


def _softmax(*, log: bool) -> Callable[[Site], None]:
    """Return the entry of Softmax or LogSoftmax, whose axis defaulted to 1 and now to -1."""

    def entry(site: Site) -> None:
        shape = site.type_of(site.operand(0)).shape
        axis = site.attribute("axis", 1)
        if len(shape) != 2 or axis not in (1, -1):
            what = f"{site.node.op_type} of shape {list(shape)} along axis {axis}"
            raise Refusal("BNN008", what, why="bnncc has it over the classes of [1, classes]")
        site.emit(Softmax(log), [site.operand(0)])

    return entry


TABLE: Mapping[str, Callable[[Site], None]] = MappingProxyType(
    {
        "Abs": _elementwise(Abs()),
        "Add": _elementwise(Add(), 2),
        "And": _elementwise(And(), 2),
        "BatchNormalization": _batch_normalization,
        "Cast": _cast,
        "Ceil": _elementwise(Ceil()),
        "Clip": _clip,
        "Div": _elementwise(Div(), 2),
        "Dropout": _dropout,
        "Equal": _elementwise(Equal(), 2),
        "Flatten": _flatten,
        "Floor": _elementwise(Floor()),
        "Gemm": _gemm,
        "Greater": _elementwise(Greater(), 2),
        "GreaterOrEqual": _elementwise(GreaterOrEqual(), 2),
        "HardSigmoid": _hard_sigmoid,
        "Identity": _elementwise(Identity()),
        "LeakyRelu": _leaky_relu,
        "Less": _elementwise(Less(), 2),
        "LessOrEqual": _elementwise(LessOrEqual(), 2),
        "LogSoftmax": _softmax(log=True),
        "MatMul": _matmul,
        "Mul": _elementwise(Mul(), 2),
        "Neg": _elementwise(Neg()),
        "Not": _elementwise(Not()),
        "Or": _elementwise(Or(), 2),
        "PRelu": _elementwise(PRelu(), 2),
        "Relu": _elementwise(Relu()),
        "Reshape": _reshape,
        "Round": _elementwise(Round()),
        "Sign": _elementwise(Sign()),
        "Softmax": _softmax(log=False),
        "Squeeze": _squeeze,
        "Sub": _elementwise(Sub(), 2),
        "Tanh": _elementwise(Tanh()),
        "Unsqueeze": _unsqueeze,
        "Where": _elementwise(Where(), 3),
    }
)
