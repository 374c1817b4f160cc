"""The table: how each ONNX operator is said in the IR. What is not here is not supported.

An entry gets a `Site` and appends one or more IR nodes, the last under the name of the ONNX result.
Where opsets differ (attributes that became operands), the entry takes either form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from bnncc.frontends.onnx.elements import (
    batch_normalization,
    cast,
    clip,
    dropout,
    elementwise,
    hard_sigmoid,
    leaky_relu,
    prelu,
)
from bnncc.frontends.onnx.layers import conv, gemm, matmul
from bnncc.frontends.onnx.moves import (
    concat,
    flatten,
    pad,
    reshape,
    slice_,
    squeeze,
    transpose,
    unsqueeze,
)
from bnncc.frontends.onnx.reductions import arg_max, reduce_mean, softmax, top_k
from bnncc.frontends.onnx.site import Site
from bnncc.frontends.onnx.windows import (
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
)
from bnncc.ir.ops.elementwise import (
    Abs,
    Add,
    And,
    Ceil,
    Div,
    Equal,
    Floor,
    Greater,
    GreaterOrEqual,
    Identity,
    Less,
    LessOrEqual,
    Mul,
    Neg,
    Not,
    Or,
    Relu,
    Round,
    Sigmoid,
    Sign,
    Sub,
    Tanh,
    Where,
)

__all__ = ["RANDOM", "TABLE"]

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

TABLE: Mapping[str, Callable[[Site], None]] = MappingProxyType(
    {
        "Abs": elementwise(Abs()),
        "Add": elementwise(Add(), 2),
        "And": elementwise(And(), 2),
        "ArgMax": arg_max,
        "AveragePool": average_pool,
        "BatchNormalization": batch_normalization,
        "Cast": cast,
        "Ceil": elementwise(Ceil()),
        "Clip": clip,
        "Concat": concat,
        "Conv": conv,
        "Div": elementwise(Div(), 2),
        "Dropout": dropout,
        "Equal": elementwise(Equal(), 2),
        "Flatten": flatten,
        "Floor": elementwise(Floor()),
        "Gemm": gemm,
        "GlobalAveragePool": global_average_pool,
        "GlobalMaxPool": global_max_pool,
        "Greater": elementwise(Greater(), 2),
        "GreaterOrEqual": elementwise(GreaterOrEqual(), 2),
        "HardSigmoid": hard_sigmoid,
        "Identity": elementwise(Identity()),
        "LeakyRelu": leaky_relu,
        "Less": elementwise(Less(), 2),
        "LessOrEqual": elementwise(LessOrEqual(), 2),
        "LogSoftmax": softmax(log=True),
        "MatMul": matmul,
        "MaxPool": max_pool,
        "Mul": elementwise(Mul(), 2),
        "Neg": elementwise(Neg()),
        "Not": elementwise(Not()),
        "Or": elementwise(Or(), 2),
        "PRelu": prelu,
        "Pad": pad,
        "ReduceMean": reduce_mean,
        "Relu": elementwise(Relu()),
        "Reshape": reshape,
        "Round": elementwise(Round()),
        "Sigmoid": elementwise(Sigmoid()),
        "Sign": elementwise(Sign()),
        "Slice": slice_,
        "Softmax": softmax(log=False),
        "Squeeze": squeeze,
        "Sub": elementwise(Sub(), 2),
        "Tanh": elementwise(Tanh()),
        "TopK": top_k,
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
        "Where": elementwise(Where(), 3),
    }
)
