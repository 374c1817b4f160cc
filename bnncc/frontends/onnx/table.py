"""The table: how each ONNX operator is said in the IR. What is not here is not supported.

An entry gets a `Site` and appends one or more IR nodes, the last under the name of the ONNX result.
Where opsets differ (attributes that became operands), the entry takes either form. `bnncc
operators` prints the table; tests hold it against ONNX's schemas, ONNX Runtime and PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bnncc.frontends.onnx.activations import (
    celu,
    elu,
    gelu,
    hard_swish,
    largest,
    mish,
    power,
    reciprocal,
    selu,
    shrink,
    smallest,
    softplus,
    softsign,
    sum_,
    swish,
    thresholded_relu,
)
from bnncc.frontends.onnx.elements import (
    batch_normalization,
    cast,
    clip,
    dropout,
    elementwise,
    equal,
    hard_sigmoid,
    leaky_relu,
    prelu,
)
from bnncc.frontends.onnx.layers import conv, gemm, matmul
from bnncc.frontends.onnx.moves import (
    concat,
    depth_to_space,
    expand,
    flatten,
    gather,
    pad,
    reshape,
    slice_,
    space_to_depth,
    split,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from bnncc.frontends.onnx.norms import (
    group_norm,
    instance_norm,
    layer_norm,
    lp_norm,
    mean_variance_norm,
)
from bnncc.frontends.onnx.operator import Bits, Family, Operator
from bnncc.frontends.onnx.reductions import arg_max, reduction, softmax, top_k
from bnncc.frontends.onnx.resize import resize, upsample
from bnncc.frontends.onnx.transposed import conv_transpose
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
    Erf,
    Exp,
    Floor,
    Greater,
    GreaterOrEqual,
    Identity,
    Less,
    LessOrEqual,
    Log,
    Mul,
    Neg,
    Not,
    Or,
    Relu,
    Round,
    Sigmoid,
    Sign,
    Sqrt,
    Sub,
    Tanh,
    Where,
    Xor,
)
from bnncc.ir.ops.reduce import ReduceMax, ReduceMean, ReduceSum

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

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")

_CONVOLUTIONS = Family("convolutions", "over one or two axes; constant weights and bias", Bits.SUMS)
_DENSE = Family(
    "dense layers",
    "by constant weights; MatMul of tokens as well",
    Bits.SUMS,
)
_NORMS = Family("batch normalisation", "in inference mode", Bits.FOLDS)
_ARITHMETIC = Family("arithmetic", "any broadcasting but along the batch", Bits.FOLDS)
_FUNCTIONS = Family("functions", "Pow by one constant multiple of 1/2 up to 16", Bits.FOLDS)
_ACTIVATIONS = Family("activations", "", Bits.FOLDS)
_CHOICES = Family("comparisons and choices", "Cast among float32, bool and bytes", Bits.FOLDS)
_MAX_POOLS = Family("maxima of windows", "over one or two axes; values alone", Bits.STAYS)
_MEAN_POOLS = Family("means of windows", "over one or two axes", Bits.REALS)
_REDUCTIONS = Family("reductions", "not over the batch; constant axes", Bits.REALS)
_EXTREMA = Family(
    "extrema", "not over the batch; constant axes; on bits over whole images", Bits.STAYS
)
_SAMPLE_NORMS = Family("norms of a sample", "constant scale and bias", Bits.REALS)
_TAILS = Family(
    "tails of classifiers", "over the classes of [1, classes] or [1, classes, 1, 1]", Bits.REALS
)
_RESIZES = Family(
    "resampling", "nearest or linear, by constants; one or two axes if linear", Bits.STAYS
)
_MOVES = Family(
    "movement", "the batch stays in dimension 0; constant shapes and indices", Bits.STAYS
)
_IDENTITIES = Family("nothing at all", "", Bits.STAYS)

_REDUCED = ("axes", "keepdims", "noop_with_empty_axes")

TABLE: Mapping[str, Operator] = MappingProxyType(
    {
        "Conv": Operator(conv, _CONVOLUTIONS, (*_WINDOW, "group"), torch=("Conv1d", "Conv2d")),
        "ConvTranspose": Operator(
            conv_transpose,
            _CONVOLUTIONS,
            (*_WINDOW, "group", "output_padding", "output_shape"),
            torch=("ConvTranspose1d", "ConvTranspose2d"),
        ),
        "Gemm": Operator(gemm, _DENSE, ("alpha", "beta", "transB"), torch=("Linear",)),
        "MatMul": Operator(matmul, _DENSE, torch=("matmul",)),
        "BatchNormalization": Operator(
            batch_normalization,
            _NORMS,
            ("epsilon",),
            idle=("momentum",),
            torch=("BatchNorm1d", "BatchNorm2d"),
        ),
        "Abs": Operator(elementwise(Abs()), _ARITHMETIC, torch=("abs",)),
        "Add": Operator(elementwise(Add(), 2), _ARITHMETIC, torch=("add",)),
        "Div": Operator(elementwise(Div(), 2), _ARITHMETIC, torch=("div",)),
        "Max": Operator(largest, _ARITHMETIC, torch=("maximum",)),
        "Min": Operator(smallest, _ARITHMETIC, torch=("minimum",)),
        "Mul": Operator(elementwise(Mul(), 2), _ARITHMETIC, torch=("mul",)),
        "Neg": Operator(elementwise(Neg()), _ARITHMETIC, torch=("neg",)),
        "Sub": Operator(elementwise(Sub(), 2), _ARITHMETIC, torch=("sub",)),
        "Sum": Operator(sum_, _ARITHMETIC),
        "Ceil": Operator(elementwise(Ceil()), _FUNCTIONS, torch=("ceil",)),
        "Erf": Operator(elementwise(Erf()), _FUNCTIONS, torch=("erf",)),
        "Exp": Operator(elementwise(Exp()), _FUNCTIONS, torch=("exp",)),
        "Floor": Operator(elementwise(Floor()), _FUNCTIONS, torch=("floor",)),
        "Log": Operator(elementwise(Log()), _FUNCTIONS, torch=("log",)),
        "Pow": Operator(power, _FUNCTIONS, torch=("pow",)),
        "Reciprocal": Operator(reciprocal, _FUNCTIONS, torch=("reciprocal",)),
        "Round": Operator(elementwise(Round()), _FUNCTIONS, torch=("round",)),
        "Sign": Operator(elementwise(Sign()), _FUNCTIONS, torch=("sign",)),
        "Sqrt": Operator(elementwise(Sqrt()), _FUNCTIONS, torch=("sqrt",)),
        "Celu": Operator(celu, _ACTIVATIONS, ("alpha",), torch=("CELU",)),
        "Clip": Operator(clip, _ACTIVATIONS, ("max", "min"), torch=("Hardtanh", "ReLU6", "clamp")),
        "Elu": Operator(elu, _ACTIVATIONS, ("alpha",), torch=("ELU",)),
        "Gelu": Operator(gelu, _ACTIVATIONS, ("approximate",), torch=("GELU",)),
        "HardSigmoid": Operator(
            hard_sigmoid, _ACTIVATIONS, ("alpha", "beta"), torch=("Hardsigmoid",)
        ),
        "HardSwish": Operator(hard_swish, _ACTIVATIONS, torch=("Hardswish",)),
        "LeakyRelu": Operator(leaky_relu, _ACTIVATIONS, ("alpha",), torch=("LeakyReLU",)),
        "Mish": Operator(mish, _ACTIVATIONS, torch=("Mish",)),
        "PRelu": Operator(prelu, _ACTIVATIONS, torch=("PReLU",)),
        "Relu": Operator(elementwise(Relu()), _ACTIVATIONS, torch=("ReLU",)),
        "Selu": Operator(selu, _ACTIVATIONS, ("alpha", "gamma"), torch=("SELU",)),
        "Shrink": Operator(
            shrink, _ACTIVATIONS, ("bias", "lambd"), torch=("Hardshrink", "Softshrink")
        ),
        "Sigmoid": Operator(elementwise(Sigmoid()), _ACTIVATIONS, torch=("Sigmoid",)),
        "Softplus": Operator(softplus, _ACTIVATIONS, torch=("Softplus",)),
        "Softsign": Operator(softsign, _ACTIVATIONS, torch=("Softsign",)),
        "Swish": Operator(swish, _ACTIVATIONS, ("alpha",), torch=("SiLU",)),
        "Tanh": Operator(elementwise(Tanh()), _ACTIVATIONS, torch=("Tanh",)),
        "ThresholdedRelu": Operator(
            thresholded_relu, _ACTIVATIONS, ("alpha",), torch=("Threshold",)
        ),
        "And": Operator(elementwise(And(), 2), _CHOICES, torch=("logical_and",)),
        "Cast": Operator(cast, _CHOICES, ("to",)),
        "Equal": Operator(equal, _CHOICES, torch=("eq",)),
        "Greater": Operator(elementwise(Greater(), 2), _CHOICES, torch=("gt",)),
        "GreaterOrEqual": Operator(elementwise(GreaterOrEqual(), 2), _CHOICES, torch=("ge",)),
        "Less": Operator(elementwise(Less(), 2), _CHOICES, torch=("lt",)),
        "LessOrEqual": Operator(elementwise(LessOrEqual(), 2), _CHOICES, torch=("le",)),
        "Not": Operator(elementwise(Not()), _CHOICES, torch=("logical_not",)),
        "Or": Operator(elementwise(Or(), 2), _CHOICES, torch=("logical_or",)),
        "Where": Operator(elementwise(Where(), 3), _CHOICES, torch=("where",)),
        "Xor": Operator(elementwise(Xor(), 2), _CHOICES, torch=("logical_xor",)),
        "GlobalMaxPool": Operator(global_max_pool, _MAX_POOLS, torch=("AdaptiveMaxPool2d",)),
        "MaxPool": Operator(
            max_pool,
            _MAX_POOLS,
            (*_WINDOW, "ceil_mode"),
            idle=("storage_order",),
            torch=("MaxPool1d", "MaxPool2d"),
        ),
        "AveragePool": Operator(
            average_pool,
            _MEAN_POOLS,
            (*_WINDOW, "ceil_mode", "count_include_pad"),
            torch=("AvgPool1d", "AvgPool2d"),
        ),
        "GlobalAveragePool": Operator(
            global_average_pool, _MEAN_POOLS, torch=("AdaptiveAvgPool2d",)
        ),
        "ReduceL1": Operator(reduction(ReduceSum, Abs()), _REDUCTIONS, _REDUCED),
        "ReduceL2": Operator(reduction(ReduceSum, Mul(), last=Sqrt()), _REDUCTIONS, _REDUCED),
        "ReduceLogSum": Operator(reduction(ReduceSum, last=Log()), _REDUCTIONS, _REDUCED),
        "ReduceMax": Operator(reduction(ReduceMax), _EXTREMA, _REDUCED, torch=("amax",)),
        "ReduceMean": Operator(reduction(ReduceMean), _REDUCTIONS, _REDUCED, torch=("mean",)),
        "ReduceMin": Operator(
            reduction(ReduceMax, Neg(), last=Neg()), _EXTREMA, _REDUCED, torch=("amin",)
        ),
        "ReduceSum": Operator(reduction(ReduceSum), _REDUCTIONS, _REDUCED, torch=("sum",)),
        "ReduceSumSquare": Operator(reduction(ReduceSum, Mul()), _REDUCTIONS, _REDUCED),
        "GroupNormalization": Operator(
            group_norm, _SAMPLE_NORMS, ("epsilon", "num_groups"), torch=("GroupNorm",)
        ),
        "InstanceNormalization": Operator(
            instance_norm, _SAMPLE_NORMS, ("epsilon",), torch=("InstanceNorm2d",)
        ),
        "LayerNormalization": Operator(
            layer_norm, _SAMPLE_NORMS, ("axis", "epsilon"), torch=("LayerNorm",)
        ),
        "LpNormalization": Operator(lp_norm, _SAMPLE_NORMS, ("axis", "p")),
        "MeanVarianceNormalization": Operator(mean_variance_norm, _SAMPLE_NORMS, ("axes",)),
        "ArgMax": Operator(arg_max, _TAILS, ("axis", "keepdims"), torch=("argmax",)),
        "LogSoftmax": Operator(softmax(log=True), _TAILS, ("axis",), torch=("LogSoftmax",)),
        "Softmax": Operator(softmax(log=False), _TAILS, ("axis",), torch=("Softmax",)),
        "TopK": Operator(top_k, _TAILS, ("axis", "k"), torch=("topk",)),
        "Resize": Operator(
            resize,
            _RESIZES,
            ("axes", "coordinate_transformation_mode", "mode", "nearest_mode"),
            idle=("cubic_coeff_a", "extrapolation_value", "roi"),
            torch=("Upsample",),
        ),
        "Upsample": Operator(upsample, _RESIZES, ("mode", "scales")),
        "Concat": Operator(concat, _MOVES, ("axis",), torch=("cat",)),
        "DepthToSpace": Operator(
            depth_to_space, _MOVES, ("blocksize", "mode"), torch=("PixelShuffle",)
        ),
        "Expand": Operator(expand, _MOVES, torch=("broadcast_to",)),
        "Flatten": Operator(flatten, _MOVES, ("axis",)),
        "Gather": Operator(gather, _MOVES, ("axis",), torch=("index_select", "select")),
        "Pad": Operator(
            pad,
            _MOVES,
            ("mode", "pads", "value"),
            torch=("ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"),
        ),
        "Reshape": Operator(
            reshape, _MOVES, ("allowzero",), torch=("Flatten", "Unflatten", "reshape")
        ),
        "Slice": Operator(slice_, _MOVES, ("axes", "ends", "starts"), torch=("narrow",)),
        "SpaceToDepth": Operator(space_to_depth, _MOVES, ("blocksize",), torch=("PixelUnshuffle",)),
        "Split": Operator(
            split, _MOVES, ("axis", "num_outputs", "split"), torch=("chunk", "split")
        ),
        "Squeeze": Operator(squeeze, _MOVES, ("axes",), torch=("squeeze",)),
        "Tile": Operator(tile, _MOVES, torch=("tile",)),
        "Transpose": Operator(transpose, _MOVES, ("perm",), torch=("permute", "transpose")),
        "Unsqueeze": Operator(unsqueeze, _MOVES, ("axes",), torch=("unsqueeze",)),
        "Dropout": Operator(dropout, _IDENTITIES, idle=("ratio", "seed"), torch=("Dropout",)),
        "Identity": Operator(elementwise(Identity()), _IDENTITIES, torch=("Identity",)),
    }
)
