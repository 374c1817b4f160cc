"""One small model at least for each operator, each attribute and each form that opsets gave it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from bnncc.ir import interpret
from bnncc.ir.types import Array
from bnncc.verification.bounds import Bounds
from tests.frontends.builders import NODE, load, make, oracle

F = np.float32
RANDOM = np.random.default_rng(11)
ROW = RANDOM.standard_normal((4, 1, 1)).astype(F)
FACTORS = F([-2.5, 0.25, 0.5, 3.7]).reshape(4, 1, 1)
WHOLE = F([-2, 0, 1, 2]).reshape(4, 1, 1)
Shapes = Mapping[str, Sequence[int]]


def model(
    *nodes: onnx.NodeProto,
    shape: Sequence[int] = (4, 5, 6),
    opset: int = 17,
    inputs: Shapes | None = None,
    outputs: Mapping[str, int] | Sequence[str] = ("y",),
    **constants: object,
) -> onnx.ModelProto:
    """Return a model of x [n, *shape], or of the inputs given."""
    shapes = {"x": shape} if inputs is None else inputs
    return make(
        *nodes,
        inputs={name: ("n", *sizes) for name, sizes in shapes.items()},
        outputs=outputs,
        constants={name: np.asarray(value) for name, value in constants.items()},
        opset=opset,
    )


def one(op_type: str, opset: int = 17, **attributes: object) -> onnx.ModelProto:
    return model(NODE(op_type, ["x"], ["y"], **attributes), opset=opset)


def cast(name: str) -> onnx.NodeProto:
    return NODE("Cast", [name], ["y"], to=TensorProto.FLOAT)


# --- Layers ---------------------------------------------------------------------------------------

KERNELS = RANDOM.standard_normal((6, 2, 3, 2)).astype(F)
MATRIX = RANDOM.standard_normal((7, 5)).astype(F)
STATISTICS = {
    "gamma": F([-2.5, 0, 0.3, 1.7]),
    "beta": F([0.4, -1, 0, 2]),
    "mean": F([1, -0.1, 3, 0]),
    "variance": F([1e-6, 0.5, 8, 1]),
}


def _convolved(**attributes: object) -> onnx.ModelProto:
    return model(NODE("Conv", ["x", "w", "b"], ["y"], group=2, **attributes), w=KERNELS, b=BIAS)


def _normalised(opset: int, **attributes: object) -> onnx.ModelProto:
    node = NODE("BatchNormalization", ["x", *STATISTICS], ["y"], **attributes)
    return model(node, opset=opset, **STATISTICS)


def _dense(
    op_type: str, weights: Array, opset: int = 17, bias: Array | None = None, **attributes: object
) -> onnx.ModelProto:
    constants = {"w": weights} if bias is None else {"w": weights, "b": bias}
    node = NODE(op_type, ["x", *constants], ["y"], **attributes)
    return model(node, shape=(7,), opset=opset, **constants)


BIAS = F([0.1, -3, 0, 2, 1, -1])
LAYERS: dict[str, onnx.ModelProto] = {
    "Conv": _convolved(),
    "Conv with explicit pads": _convolved(
        pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2], kernel_shape=[3, 2]
    ),
    "Conv with resolved pads": _convolved(auto_pad="SAME_LOWER", strides=[1, 2]),
    "Gemm": _dense("Gemm", MATRIX),
    "Gemm scaled": _dense("Gemm", MATRIX.T, bias=BIAS[:5], transB=1, alpha=0.3, beta=-1.7),
    "Gemm 8": _dense("Gemm", MATRIX, 8, BIAS[:5]),
    "MatMul": _dense("MatMul", MATRIX),
    "BatchNormalization": _normalised(17, epsilon=1e-3),
    "BatchNormalization 8": _normalised(8),
}


# --- Functions of one real ------------------------------------------------------------------------

PLAIN = ["Abs", "Ceil", "Floor", "Identity", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Tanh"]
FUNCTIONS: dict[str, onnx.ModelProto] = {
    **{op_type: one(op_type) for op_type in PLAIN},
    "Clip": model(NODE("Clip", ["x", "low", "high"], ["y"]), low=F(-0.5), high=F(0.7)),
    "Clip 9": one("Clip", 9, min=-0.5, max=0.7),
    "Dropout": model(NODE("Dropout", ["x", "r", "t"], ["y"]), r=F(0.4), t=np.bool_(False)),
    "Dropout 9": one("Dropout", 9, ratio=0.3),
    "HardSigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "LeakyRelu": one("LeakyRelu", alpha=0.3),
    "Celu": one("Celu", alpha=0.7),
    "Elu": one("Elu"),
    "Elu scaled": one("Elu", 9, alpha=-1.7),
    "Erf": one("Erf"),
    "Exp": one("Exp"),
    "Gelu": one("Gelu", 20),
    "Gelu by tanh": one("Gelu", 20, approximate="tanh"),
    "HardSwish": one("HardSwish"),
    "Mish": one("Mish", 18),
    "Reciprocal": one("Reciprocal"),
    "Selu": one("Selu"),
    "Selu scaled": one("Selu", alpha=0.5, gamma=-2.0),
    "Shrink": one("Shrink", lambd=0.3, bias=0.1),
    "Softplus": one("Softplus"),
    "Softsign": one("Softsign"),
    "Swish": one("Swish", 24, alpha=1.5),
    "ThresholdedRelu": one("ThresholdedRelu", alpha=0.4),
    **{
        f"Pow {exponent}": model(NODE("Pow", ["x", "e"], ["y"]), e=F(exponent))
        for exponent in (1, 2, 3, 4, 7, -1, -2, -3)
    },
    "Pow of an integer": model(NODE("Pow", ["x", "e"], ["y"]), e=np.int64(2)),
}
# Of magnitudes: no numbers below 0.
ROOTS: dict[str, onnx.ModelProto] = {
    "Log": one("Log"),
    "ReduceLogSum": one("ReduceLogSum", 11, axes=[1]),
    "ReduceLogSum of an operand": model(
        NODE("ReduceLogSum", ["x", "axes"], ["y"], keepdims=0), opset=18, axes=np.int64([2, 3])
    ),
    "ReduceLogSum of nothing": one("ReduceLogSum", 18, noop_with_empty_axes=1),
    "Sqrt": one("Sqrt"),
    **{
        f"Pow {exponent}": model(NODE("Pow", ["x", "e"], ["y"]), e=F(exponent))
        for exponent in (0.5, -0.5, 1.5, -2.5)
    },
}


# --- Several operands, and how they broadcast -----------------------------------------------------


def _pair(op_type: str, a: Sequence[int], b: Sequence[int]) -> onnx.ModelProto:
    return model(NODE(op_type, ["a", "b"], ["y"]), inputs={"a": a, "b": b})


def _compared(op_type: str, a: Sequence[int], b: Sequence[int]) -> onnx.ModelProto:
    return model(NODE(op_type, ["a", "b"], ["c"]), cast("c"), inputs={"a": a, "b": b})


def _logic(op_type: str) -> onnx.ModelProto:
    second = [] if op_type == "Not" else ["q"]
    return model(
        NODE("Greater", ["a", "b"], ["p"]),
        NODE("Less", ["b", "zero"], ["q"]),
        NODE(op_type, ["p", *second], ["r"]),
        NODE("Where", ["r", "a", "b"], ["y"]),
        inputs={"a": (4, 5, 6), "b": (4, 5, 6)},
        zero=F(0),
    )


def _after_layers(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Return a model in which `a` and `b` are layers' results, and `c` their comparison."""
    return model(
        NODE("Conv", ["x", "w"], ["a"]),
        NODE("Greater", ["a", "zero"], ["c"]),
        NODE("Conv", ["x", "v"], ["b"]),
        *nodes,
        w=RANDOM.standard_normal((3, 4, 1, 1)).astype(F),
        v=RANDOM.standard_normal((3, 4, 1, 1)).astype(F),
        zero=F(0),
    )


BROADCASTS = [
    ((4, 5, 6), (4, 5, 6)),
    ((4, 5, 6), (1, 1, 1)),
    ((4, 1, 1), (4, 5, 6)),
    ((1, 5, 6), (4, 5, 6)),
    ((4, 5, 6), (4, 5, 1)),
    ((1, 1, 6), (4, 5, 6)),
    ((4, 1, 1), (1, 5, 6)),
    ((4, 5, 1), (1, 1, 6)),
    ((4,), (1,)),
]
PAIRS = ["Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"]
COMPARED = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
SEVERAL: dict[str, onnx.ModelProto] = {
    **{
        f"{op_type} of a row": model(NODE(op_type, ["x", "k"], ["y"]), k=FACTORS)
        for op_type in PAIRS
    },
    **{
        f"{op_type} of a row": model(
            NODE(op_type, ["x", "k"], ["c"]),
            NODE("Where", ["c", "k", "one"], ["y"]),
            k=WHOLE,
            one=F(1),
        )
        for op_type in COMPARED
    },
    **{
        f"{op_type} of comparisons": model(
            NODE("Greater", ["x", "k"], ["p"]),
            *([] if op_type == "Not" else [NODE("Less", ["x", "one"], ["q"])]),
            NODE(op_type, ["p"] if op_type == "Not" else ["p", "q"], ["r"]),
            cast("r"),
            k=WHOLE,
            one=F(1),
        )
        for op_type in ("And", "Equal", "Not", "Or", "Xor")
    },
    **{
        f"{op_type} of {list(a)} and {list(b)}": _pair(op_type, a, b)
        for op_type, (a, b) in zip(
            itertools.cycle(["Sub", "Mul", "Div", "Max", "Min", "Add"]), BROADCASTS, strict=False
        )
    },
    **{
        f"{op_type} of {list(a)} and {list(b)}": _compared(op_type, a, b)
        for op_type, (a, b) in zip(
            itertools.cycle(COMPARED),
            BROADCASTS,
            strict=False,
        )
    },
    **{op_type: _logic(op_type) for op_type in ("And", "Or", "Xor", "Not")},
    "ranks apart": model(
        NODE("Add", ["a", "b"], ["p"]),
        NODE("Mul", ["c", "p"], ["y"]),
        inputs={"a": (4, 5, 6), "b": (6,), "c": ()},
    ),
    "a constant of more axes": model(NODE("Sub", ["k", "x"], ["y"]), shape=(6,), k=ROW[None]),
    "a constant that widens": model(NODE("Sub", ["k", "x"], ["y"]), shape=(1, 5, 6), k=ROW[None]),
    "Max of one": model(NODE("Max", ["x"], ["y"])),
    "Max with a number": model(NODE("Max", ["low", "x"], ["y"]), low=F(-0.5)),
    "Min with a number": model(NODE("Min", ["x", "high"], ["y"]), high=F(0.5)),
    "Max and Min with rows": model(
        NODE("Max", ["x", "low"], ["m"]), NODE("Min", ["high", "m"], ["y"]), low=ROW - 1, high=ROW
    ),
    "Max of three": model(
        NODE("Max", ["a", "k", "b"], ["y"]), inputs={"a": (4, 5, 6), "b": (4, 1, 1)}, k=ROW
    ),
    **{
        f"{op_type} 7": model(
            NODE(op_type, ["a", "b"], ["y"]), inputs={"a": (4,), "b": (4,)}, opset=7
        )
        for op_type in ("Max", "Min", "Sum")
    },
    "Min 8": model(NODE("Min", ["a", "b"], ["y"]), inputs={"a": (4,), "b": (4,)}, opset=9),
    "Sum of three": model(
        NODE("Sum", ["a", "k", "b"], ["y"]), inputs={"a": (4, 5, 6), "b": (4, 5, 6)}, k=ROW
    ),
    "Where of activations": model(
        NODE("Less", ["a", "b"], ["c"]),
        NODE("Where", ["c", "b", "k"], ["y"]),
        inputs={"a": (1, 5, 6), "b": (4, 5, 6)},
        k=ROW,
    ),
    "Where of a constant mask": model(
        NODE("Where", ["m", "x", "k"], ["y"]), m=RANDOM.random((4, 5, 6)) > 0.5, k=F(7)
    ),
    "Where of a mask a channel": model(
        NODE("Where", ["m", "x", "k"], ["y"]), m=np.arange(4).reshape(4, 1, 1) % 2 > 0, k=F(7)
    ),
    "Where of wide masks": model(
        NODE("Greater", ["a", "zero"], ["c"]),
        NODE("Where", ["c", "b", "zero"], ["y"]),
        inputs={"a": (4, 5, 6), "b": (4, 1, 1)},
        zero=F(0),
    ),
    "Where of truth from another layer": _after_layers(NODE("Where", ["c", "b", "zero"], ["y"])),
    "truth that moves": _after_layers(
        NODE("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]),
        NODE("Transpose", ["b"], ["u"], perm=[0, 1, 3, 2]),
        NODE("Where", ["t", "u", "zero"], ["y"]),
    ),
    "PRelu of a slope for each pixel": model(
        NODE("PRelu", ["x", "s"], ["y"]), s=RANDOM.standard_normal((4, 5, 6)).astype(F)
    ),
    "PRelu of a computed slope": model(
        NODE("PRelu", ["a", "b"], ["y"]), inputs={"a": (4, 5, 6), "b": (4, 1, 1)}
    ),
    "Clip by half": model(NODE("Clip", ["x", "low", ""], ["y"]), low=F(0)),
}


TRUTHS: dict[str, onnx.ModelProto] = {
    "Equal of truth values": model(
        NODE("Greater", ["a", "b"], ["p"]),
        NODE("Greater", ["a", "zero"], ["q"]),
        NODE("Equal", ["p", "q"], ["r"]),
        cast("r"),
        inputs={"a": (4, 5, 6), "b": (4, 5, 6)},
        zero=F(0),
    ),
    "Cast to a truth value": model(NODE("Cast", ["x"], ["c"], to=TensorProto.BOOL), cast("c")),
}


# --- Reductions and normalisations ----------------------------------------------------------------


def _reduced(
    op_type: str, axes: Sequence[int], keepdims: int, shape: Sequence[int] = (4, 5, 6)
) -> onnx.ModelProto:
    node = NODE(op_type, ["x", "axes"], ["y"], keepdims=keepdims)
    return model(node, shape=shape, opset=18, axes=np.asarray(axes, np.int64))


AXES = [[1, 2, 3], [1], [2, 3], [-1], [2], [1, 3], [1, 2]]
REDUCED = ["ReduceSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceL1", "ReduceSumSquare"]
ALL_REDUCED = [*REDUCED, "ReduceL2"]
REDUCTIONS: dict[str, onnx.ModelProto] = {
    **{
        f"{op_type} of {axes}, keepdims {keepdims}": _reduced(op_type, axes, keepdims)
        for i, op_type in enumerate(REDUCED)
        for keepdims, axes in itertools.product((0, 1), AXES)
        if op_type == "ReduceSum" or (i + len(axes) + keepdims) % 2
    },
    "ReduceL2": _reduced("ReduceL2", [1], 1),
    "ReduceL2 of all": _reduced("ReduceL2", [1, 2, 3], 0),
    "ReduceSum of five axes": _reduced("ReduceSum", [2, 3], 0, (2, 3, 4, 5)),
    "ReduceMax of five axes": _reduced("ReduceMax", [1, 4], 1, (2, 3, 4, 5)),
    "ReduceMean of vectors": _reduced("ReduceMean", [-1], 0, (7,)),
    "ReduceMean of sequences": _reduced("ReduceMean", [-1], 1, (3, 7)),
    **{f"{op_type} 11": one(op_type, 11, axes=[1, 2], keepdims=0) for op_type in ALL_REDUCED},
    "ReduceMax 17": one("ReduceMax", 17, axes=[2, 3]),
    "ReduceSum 13 of nothing": one("ReduceSum", 13, noop_with_empty_axes=1),
    **{
        f"{op_type} 18 of nothing": one(op_type, 18, noop_with_empty_axes=1)
        for op_type in ALL_REDUCED
    },
    "InstanceNormalization": model(
        NODE("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3),
        s=F([1.5, -2, 0, 0.3]),
        b=F([0, 1, -2, 3]),
    ),
    "InstanceNormalization of lines": model(
        NODE("InstanceNormalization", ["x", "s", "b"], ["y"]),
        shape=(4, 9),
        s=F([1.5, -2, 0, 0.3]),
        b=F([0, 1, -2, 3]),
    ),
    "LayerNormalization": model(
        NODE("LayerNormalization", ["x", "s", "b"], ["y"], axis=1),
        s=RANDOM.standard_normal((4, 5, 6)).astype(F),
        b=RANDOM.standard_normal((4, 5, 6)).astype(F),
    ),
    "LayerNormalization of rows": model(
        NODE("LayerNormalization", ["x", "s"], ["y"], epsilon=1e-3), shape=(3, 8), s=np.ones(8, F)
    ),
    "LpNormalization": one("LpNormalization", axis=1, p=2),
    "LpNormalization 1": one("LpNormalization", axis=3, p=1),
    "MeanVarianceNormalization": one("MeanVarianceNormalization", axes=[2, 3]),
    "GroupNormalization": model(
        NODE("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=1e-2),
        s=F([1.5, -2, 0.5, 0.3]),
        b=F([0, 1, -2, 3]),
        opset=21,
    ),
    # What RBNN does before its sign: each sample by its own mean and deviation.
    "mean and deviation of a sample": model(
        NODE("ReduceMean", ["x"], ["m"], axes=[1, 2, 3]),
        NODE("Sub", ["x", "m"], ["c"]),
        NODE("Mul", ["c", "c"], ["s"]),
        NODE("ReduceMean", ["s"], ["v"], axes=[1, 2, 3]),
        NODE("Add", ["v", "e"], ["t"]),
        NODE("Sqrt", ["t"], ["d"]),
        NODE("Div", ["c", "d"], ["y"]),
        e=F(1e-5),
    ),
    "mean and deviation of a channel": model(
        NODE("ReduceMean", ["x"], ["m"], axes=[2, 3]),
        NODE("Sub", ["x", "m"], ["c"]),
        NODE("Pow", ["c", "two"], ["s"]),
        NODE("ReduceSum", ["s", "axes"], ["v"]),
        NODE("Sqrt", ["v"], ["d"]),
        NODE("Div", ["c", "d"], ["y"]),
        two=F(2),
        axes=np.int64([2, 3]),
    ),
    "a squeeze-excite gate": model(
        NODE("GlobalAveragePool", ["x"], ["g"]),
        NODE("Conv", ["g", "w", "b"], ["h"]),
        NODE("Relu", ["h"], ["r"]),
        NODE("Conv", ["r", "v"], ["o"]),
        NODE("HardSigmoid", ["o"], ["gate"]),
        NODE("Expand", ["gate", "sizes"], ["wide"]),
        NODE("Mul", ["wide", "x"], ["y"]),
        w=RANDOM.standard_normal((2, 4, 1, 1)).astype(F),
        b=RANDOM.standard_normal(2).astype(F),
        v=RANDOM.standard_normal((4, 2, 1, 1)).astype(F),
        sizes=np.int64([1, 4, 5, 6]),
    ),
}


# --- Pools and tails ------------------------------------------------------------------------------


def _pooled(op_type: str, opset: int = 19, **attributes: object) -> onnx.ModelProto:
    node = NODE(op_type, ["x"], ["y"], kernel_shape=[3, 2], **attributes)
    return model(node, shape=(3, 7, 6), opset=opset)


def _tail(op_type: str, opset: int, **attributes: object) -> onnx.ModelProto:
    elements = {"y": TensorProto.INT64 if op_type == "ArgMax" else TensorProto.FLOAT}
    node = NODE(op_type, ["x"], ["y"], **attributes)
    return model(node, shape=(7,), opset=opset, outputs=elements)


def _best(opset: int, **attributes: object) -> onnx.ModelProto:
    constants = {} if opset < 10 else {"k": np.int64([3])}
    node = NODE("TopK", ["x", *constants], ["y", "i"], **attributes)
    elements = {"y": TensorProto.FLOAT, "i": TensorProto.INT64}
    return model(node, shape=(7,), opset=opset, outputs=elements, **constants)


POOLS: dict[str, onnx.ModelProto] = {
    **{op_type: one(op_type) for op_type in ("GlobalAveragePool", "GlobalMaxPool")},
    "AveragePool 8": _pooled("AveragePool", 8),
    "AveragePool with explicit pads": _pooled(
        "AveragePool", pads=[1, 0, 2, 1], strides=[2, 1], ceil_mode=1
    ),
    "AveragePool of all taps": _pooled(
        "AveragePool", pads=[1, 0, 2, 1], dilations=[1, 2], count_include_pad=1
    ),
    "AveragePool with resolved pads": _pooled("AveragePool", auto_pad="SAME_UPPER"),
    "MaxPool 7": _pooled("MaxPool", 7),
    "MaxPool with explicit pads": _pooled(
        "MaxPool", pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2], ceil_mode=1
    ),
    "MaxPool with resolved pads": _pooled("MaxPool", auto_pad="SAME_UPPER"),
    **{
        f"{op_type} {opset}": _tail(op_type, opset, axis=1)
        for op_type in ("ArgMax", "LogSoftmax", "Softmax")
        for opset in (11, 13)
    },
    "Softmax of rows": model(NODE("Softmax", ["x"], ["y"], axis=2), shape=(1, 7)),
    "LogSoftmax of rows": model(NODE("LogSoftmax", ["x"], ["y"], axis=2), shape=(1, 7)),
    "ArgMax without its axis": _tail("ArgMax", 17, axis=-1, keepdims=0),
    "TopK": _best(17),
    "TopK 9": _best(9, k=3),
    "TopK of pixels": model(
        NODE("TopK", ["x", "k"], ["y", "i"], axis=1), shape=(7, 1, 1), k=np.int64([2])
    ),
}


# --- Movements ------------------------------------------------------------------------------------

SPLITS = ["a", "b", "c"]


def _split(opset: int, sizes: Sequence[int] | None, axis: int = 1) -> onnx.ModelProto:
    """Return a model that splits 6 channels, and joins them the other way round."""
    inputs, attributes, constants = ["x"], {"axis": axis}, {}
    if opset >= 13 and sizes:
        inputs, constants = ["x", "sizes"], {"sizes": np.asarray(sizes, np.int64)}
    elif opset >= 18:
        attributes["num_outputs"] = len(SPLITS)
    elif sizes:
        attributes["split"] = list(sizes)
    return model(
        NODE("Split", inputs, SPLITS, **attributes),
        NODE("Concat", SPLITS[::-1], ["y"], axis=axis),
        shape=(6, 7, 6),
        opset=opset,
        **constants,
    )


def _gather(indices: object, axis: int, shape: Sequence[int] = (4, 5, 6)) -> onnx.ModelProto:
    return model(NODE("Gather", ["x", "i"], ["y"], axis=axis), shape=shape, i=np.int64(indices))


def _expand(to: Sequence[int], shape: Sequence[int]) -> onnx.ModelProto:
    return model(NODE("Expand", ["x", "s"], ["y"]), shape=shape, s=np.int64(to))


def _cut(**operands: Sequence[int]) -> onnx.ModelProto:
    names = ("starts", "ends", "axes", "steps")
    arrays = {name: np.int64(operands[name]) for name in names}
    return model(NODE("Slice", ["x", *names], ["y"]), **arrays)


def _mirrored(mode: str, *widths: int) -> onnx.ModelProto:
    opset = 19 if mode == "wrap" else 17
    return model(NODE("Pad", ["x", "w"], ["y"], mode=mode), w=np.int64(widths), opset=opset)


MOVEMENTS: dict[str, onnx.ModelProto] = {
    "Flatten": one("Flatten", axis=-3),
    "Flatten an image": one("Flatten"),
    "Reshape by 0": model(
        NODE("Reshape", ["x", "s"], ["y"], allowzero=1), s=np.int64([1, 2, -1, 6])
    ),
    "Squeeze": model(NODE("Squeeze", ["x", "a"], ["y"]), shape=(1, 4, 1, 6), a=np.int64([1, -2])),
    "Squeeze 11": model(NODE("Squeeze", ["x"], ["y"], axes=[3]), shape=(4, 5, 1), opset=11),
    "Unsqueeze": model(NODE("Unsqueeze", ["x", "a"], ["y"]), shape=(5, 6), a=np.int64([-3])),
    "Unsqueeze 11": model(NODE("Unsqueeze", ["x"], ["y"], axes=[1, 4]), shape=(6, 5), opset=11),
    "Slice 9": one("Slice", 9, starts=[1, -3], ends=[3, 9], axes=[1, -1]),
    "Pad 9": one("Pad", 9, pads=[0, 1, 0, 2, 0, 0, 1, 0], value=0.25),
    "Pad of axes": model(
        NODE("Pad", ["x", "w", "v", "a"], ["y"]),
        opset=18,
        w=np.int64([1, 2, 0, 1]),
        v=F(-1.5),
        a=np.int64([-1, 2]),
    ),
    "Split": _split(17, None),
    "Split by an operand": _split(17, [1, 3, 2]),
    "Split by an attribute": _split(11, [1, 3, 2]),
    "Split of columns": _split(11, None, -1),
    "Split into num_outputs": _split(18, None, 2),
    "Split with one result": model(NODE("Split", ["x"], ["unread", "y"], axis=1)),
    "Gather one": _gather(2, 1),
    "Gather one row": _gather(-1, 2),
    "Gather ascending": _gather([0, 2], 1),
    "Gather in another order": _gather([3, 0, 2, 0, 1], 1),
    "Gather columns": _gather([5, 5, 0, 3], -1),
    "Gather a table": _gather([[0, 3], [2, -2]], 1),
    "Gather of vectors": _gather([6, 0, 0, 3], 1, (7,)),
    "Expand channels": _expand([1, 4, 5, 6], (1, 5, 6)),
    "Expand pixels": _expand([5, 6], (4, 1, 1)),
    "Expand ranks": _expand([1, 3, 4, 6], (6,)),
    "Expand nothing": _expand([1, 1], (4, 5, 6)),
    "Tile": model(NODE("Tile", ["x", "r"], ["y"]), r=np.int64([1, 2, 1, 3])),
    "Tile of vectors": model(NODE("Tile", ["x", "r"], ["y"]), shape=(5,), r=np.int64([1, 3])),
    "Tile nothing": model(NODE("Tile", ["x", "r"], ["y"]), r=np.int64([1, 1, 1, 1])),
    "DepthToSpace": model(NODE("DepthToSpace", ["x"], ["y"], blocksize=2), shape=(8, 3, 2)),
    "DepthToSpace by columns": model(
        NODE("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD"), shape=(12, 3, 2)
    ),
    "SpaceToDepth": model(NODE("SpaceToDepth", ["x"], ["y"], blocksize=2), shape=(3, 4, 6)),
    "Slice backwards": _cut(starts=[-1, 3], ends=[-(2**62), 0], axes=[1, 3], steps=[-1, -2]),
    "Pad reflecting": _mirrored("reflect", 0, 0, 2, 1, 0, 0, 0, 3),
    "Pad of the edge": _mirrored("edge", 0, 1, 2, 7, 0, 0, 0, 1),
    "Pad round and round": _mirrored("wrap", 0, 0, 2, 1, 0, 0, 0, 3),
    "channel shuffle": model(
        NODE("Reshape", ["x", "apart"], ["r"]),
        NODE("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        NODE("Reshape", ["t", "back"], ["y"]),
        apart=np.int64([1, 2, 2, 5, 6]),
        back=np.int64([1, 4, 5, 6]),
    ),
    "several inputs and outputs": model(
        NODE("Concat", ["a", "b"], ["p"], axis=1),
        NODE("Sub", ["a", "b"], ["q"]),
        NODE("ReduceMax", ["p"], ["r"], axes=[2, 3], keepdims=0),
        inputs={"a": (4, 5, 6), "b": (4, 5, 6)},
        outputs=("q", "r", "p"),
    ),
}


# --- Resampling -----------------------------------------------------------------------------------

COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
FACTORS = [(2, 3), (0.5, 0.5), (1.5, 1), (0.6, 2.7), (0.2, 0.17)]


def _resized(
    factors: Sequence[float] = (),
    sizes: Sequence[int] = (),
    opset: int = 17,
    **attributes: object,
) -> onnx.ModelProto:
    # The region of interest became optional in opset 13.
    inputs, constants = ["x", "roi", "", "sizes"], {"sizes": np.int64([1, 4, *sizes])}
    if factors:
        inputs, constants = ["x", "roi", "scales"], {"scales": F([1, 1, *factors])}
    node = NODE("Resize", inputs, ["y"], **attributes)
    return model(node, opset=opset, roi=F([]), **constants)


def _resizes() -> Iterator[tuple[str, onnx.ModelProto]]:
    for how, factors in itertools.product(COORDINATES, FACTORS):
        attributes = {"mode": "linear", "coordinate_transformation_mode": how}
        yield f"linear {how} {factors}", _resized(factors, **attributes)
    nearest = itertools.product([*COORDINATES, "tf_half_pixel_for_nn"], ROUNDINGS)
    for (how, rounding), factors in zip(nearest, itertools.cycle(FACTORS), strict=False):
        attributes = {"coordinate_transformation_mode": how, "nearest_mode": rounding}
        opset = 11 if how.startswith("tf") else 17  # it was taken out in opset 13
        made = _resized(factors, opset=opset, mode="nearest", **attributes)
        yield f"nearest {how} {rounding} {factors}", made
    yield "nearest to sizes", _resized(sizes=(7, 13))
    yield "linear to sizes", _resized(sizes=(7, 3), mode="linear")
    yield "linear to one pixel", _resized(sizes=(1, 1), mode="linear")
    yield "resized to itself", _resized(sizes=(5, 6), mode="linear")


RESIZES: dict[str, onnx.ModelProto] = {
    **{f"Resize {name}": made for name, made in _resizes()},
    "Resize of axes": model(
        NODE("Resize", ["x", "", "scales"], ["y"], axes=[2, 3], mode="nearest"),
        scales=F([2, 2]),
        opset=18,
    ),
    "Resize 10": model(
        NODE("Resize", ["x", "s"], ["y"], mode="nearest"), s=F([1, 1, 2, 3]), opset=10
    ),
    "Resize 10 smaller": model(
        NODE("Resize", ["x", "s"], ["y"], mode="nearest"), s=F([1, 1, 0.6, 0.5]), opset=10
    ),
    "Resize 10 linear": model(
        NODE("Resize", ["x", "s"], ["y"], mode="linear"), s=F([1, 1, 2, 1.5]), opset=10
    ),
    "Resize of lines": model(
        NODE("Resize", ["x", "", "s"], ["y"], mode="nearest"), shape=(4, 7), s=F([1, 1, 2])
    ),
    "Upsample": model(
        NODE("Upsample", ["x", "s"], ["y"], mode="nearest"), s=F([1, 1, 2, 3]), opset=9
    ),
    "Upsample 8": one("Upsample", 8, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
    "Upsample linear": model(
        NODE("Upsample", ["x", "s"], ["y"], mode="linear"), s=F([1, 1, 2, 2]), opset=9
    ),
}


# --- Transposed convolutions ----------------------------------------------------------------------


def _transposed(
    kernel: Sequence[int],
    groups: int = 1,
    shape: Sequence[int] = (4, 5, 6),
    *,
    bias: bool = False,
    **attributes: object,
) -> onnx.ModelProto:
    w = RANDOM.standard_normal((shape[0], 3, *kernel)).astype(F)
    constants: dict[str, Array] = {"w": w}
    if bias:
        constants["b"] = RANDOM.standard_normal(3 * groups).astype(F)
    node = NODE("ConvTranspose", ["x", *constants], ["y"], group=groups, **attributes)
    return model(node, shape=shape, **constants)


TRANSPOSED: dict[str, onnx.ModelProto] = {
    "ConvTranspose": _transposed((3, 3)),
    "ConvTranspose of a stated kernel": _transposed((3, 2), kernel_shape=[3, 2]),
    "ConvTranspose by 2": _transposed((2, 2), strides=[2, 2], bias=True),
    "ConvTranspose of 4 by 2": _transposed((4, 4), strides=[2, 2], pads=[1, 1, 1, 1], bias=True),
    "ConvTranspose of 3 by 2": _transposed(
        (3, 3), 2, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "ConvTranspose of 3 by 2 and 3": _transposed((3, 2), strides=[2, 3], pads=[0, 1, 2, 0]),
    "ConvTranspose with gaps": _transposed((2, 1), strides=[3, 4], bias=True),
    "ConvTranspose with gaps of 0": _transposed((1, 1), 4, strides=[2, 2], output_padding=[1, 0]),
    "ConvTranspose dilated": _transposed((3, 2), dilations=[2, 3]),
    "ConvTranspose dilated by 2": _transposed((3, 3), strides=[2, 2], dilations=[2, 3], bias=True),
    "ConvTranspose dilated by 4": _transposed((3, 2), strides=[4, 3], dilations=[2, 2]),
    "ConvTranspose of lines": _transposed((5,), 1, (4, 7), strides=[2], pads=[2, 1], bias=True),
    "ConvTranspose cut": _transposed((3, 3), strides=[2, 2], pads=[4, 3, 2, 5]),
    "ConvTranspose to a shape": _transposed((3, 3), strides=[2, 2], output_shape=[10, 11]),
    "ConvTranspose to a larger shape": _transposed((2, 2), strides=[2, 2], output_shape=[11, 12]),
    "ConvTranspose SAME_UPPER": _transposed((4, 3), strides=[1, 2], auto_pad="SAME_UPPER"),
    "ConvTranspose SAME_LOWER": _transposed((4, 3), strides=[1, 2], auto_pad="SAME_LOWER"),
    "ConvTranspose VALID": _transposed((3, 3), strides=[2, 2], auto_pad="VALID"),
}

CASES: dict[str, onnx.ModelProto] = {
    **LAYERS,
    **FUNCTIONS,
    **{f"{name} of magnitudes": made for name, made in ROOTS.items()},
    **SEVERAL,
    **TRUTHS,
    **REDUCTIONS,
    **POOLS,
    **MOVEMENTS,
    **RESIZES,
    **TRANSPOSED,
}


DIVIDES = ("Div", "Reciprocal", "Pow -")


def operands(name: str, made: onnx.ModelProto, rows: int = 3) -> dict[str, Array]:
    """Return values of a model's inputs: random, with zeros, ones and equal neighbours."""
    random = np.random.default_rng(len(name))
    feeds = {}
    for value in made.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim[1:]]
        x = 2 * random.standard_normal((rows, *shape))
        x = np.where(random.random(x.shape) < 0.2, np.rint(x), x).astype(F)
        if name.startswith(DIVIDES):
            x = np.where(np.abs(x) < F(0.1), F(0.5), x)
        feeds[value.name] = np.abs(x) + F(0.01) if name.endswith("of magnitudes") else x
    return feeds


# A sum of 120 values may be off by gamma_121 of their magnitudes, which add up to 190.
LOOSEST = 5e-3


def assert_values_agree(name: str, made: onnx.ModelProto, folder: Path) -> None:
    """Hold a model's outputs against ONNX Runtime's; `name` chooses its operands."""
    imported = load(made, folder)
    graph = imported.graph
    feeds = operands(name, made)
    seen = interpret.run_stored(graph, feeds)
    bounds = Bounds(graph, {}, seen, feeds.keys())
    expected = oracle(imported.source, feeds, graph.outputs)
    for output, truth in zip(graph.outputs, expected, strict=True):
        ours = seen[output]
        assert (ours.shape, ours.dtype) == (truth.shape, truth.dtype)
        allowed = np.broadcast_to(bounds.of(output), ours.shape)
        apart = np.abs(ours.astype(np.float64) - truth)
        assert (apart <= allowed).all(), (apart.max(), allowed[apart > allowed].min())
        assert (allowed <= LOOSEST * (1 + np.abs(truth))).all(), allowed.max()
