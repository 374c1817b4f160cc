"""The entries of the table compute what ONNX Runtime computes, in every form opsets gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bnncc.ir import interpret
from bnncc.ir.types import Array
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make, oracle

F = np.float32
# A negative, a zero, a vanishing and an ordinary factor, one a channel.
FACTORS = np.array([-2.5, 0.0, 1e-20, 3.7], F)
LIMITS = np.array([0.0, 1.0, 0.5, -0.0], F)
WEIGHTS = np.array([[1, -1, 1, 1], [-1, -1, 0.3, 1], [1e-20, 7, -3, 2.5]], F)
BIAS = np.array([0.1, -3e5, 0.0], F)
STATISTICS = {
    "gamma": FACTORS,
    "beta": FACTORS[::-1].copy(),
    "mean": np.array([3.0, -1e-3, 1e5, 0.0], F),
    "variance": np.array([1e-12, 6e-8, 1e8, 0.0], F),
}
BN_INPUTS = ["x", *STATISTICS]

SIMPLE = ["Abs", "Ceil", "Floor", "Identity", "Neg", "Round", "Sign"]
ARITHMETIC = ["Add", "Sub", "Mul", "Div"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


def _compare(op_type: str, opset: int = 17) -> onnx.ModelProto:
    return make(
        NODE(op_type, ["x", "limits"], ["c"]),
        NODE("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        constants={"limits": LIMITS},
        opset=opset,
    )


def _logic(op_type: str) -> onnx.ModelProto:
    second = ["b"] if op_type != "Not" else []
    return make(
        NODE("Greater", ["x", "limits"], ["a"]),
        NODE("Less", ["x", "factors"], ["b"]),
        NODE(op_type, ["a", *second], ["c"]),
        NODE("Where", ["c", "x", "limits"], ["y"]),
        constants={"limits": LIMITS, "factors": FACTORS},
    )


def _clip(opset: int, low: float | None, high: float | None) -> onnx.ModelProto:
    if opset < 11:
        bounds = {"min": low, "max": high}
        attributes = {name: value for name, value in bounds.items() if value is not None}
        return make(NODE("Clip", ["x"], ["y"], **attributes), opset=opset)
    constants = {n: F(v) for n, v in (("low", low), ("high", high)) if v is not None}
    inputs = ["x", "low" if low is not None else "", *(["high"] if high is not None else [])]
    return make(NODE("Clip", inputs, ["y"]), constants=constants, opset=opset)


def _shaped(op_type: str, opset: int, shape: list[int], **extra: object) -> onnx.ModelProto:
    """Return a model that reshapes [1, 4] by way of `shape`, the axes or sizes."""
    inputs, constants, attributes = ["x"], {}, dict(extra)
    if op_type == "Reshape" or opset >= 13:
        inputs.append("shape")
        constants["shape"] = np.array(shape, np.int64)
    else:
        attributes["axes"] = shape
    nodes = [NODE(op_type, inputs, ["r"], **attributes), NODE("Abs", ["r"], ["y"])]
    return make(*nodes, constants=constants, opset=opset)


def _image(
    *nodes: onnx.NodeProto,
    shape: tuple[int, ...] = (4, 5, 6),
    opset: int = 17,
    outputs: Mapping[str, int] | Sequence[str] = ("y",),
    **constants: object,
) -> onnx.ModelProto:
    """Return a model of x [n, *shape]."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return make(*nodes, inputs={"x": ("n", *shape)}, constants=arrays, opset=opset, outputs=outputs)


def _normalised(*shape: int) -> onnx.ModelProto:
    return _image(NODE("BatchNormalization", BN_INPUTS, ["y"]), shape=shape, **STATISTICS)


def _cut(opset: int, **attributes: list[int]) -> onnx.ModelProto:
    """Return a model that slices x [n, 4, 5, 6], by attributes or by operands."""
    if opset < 10:
        return _image(NODE("Slice", ["x"], ["y"], **attributes), opset=opset)
    names = ("starts", "ends", "axes", "steps")
    inputs = [name if name in attributes else "" for name in names]
    return _image(NODE("Slice", ["x", *inputs], ["y"]), opset=opset, **attributes)


KERNELS = np.random.default_rng(5).standard_normal((6, 2, 3, 2)).astype(F)
MEANS = {
    "all but the batch": {"axes": [1, 2, 3]},
    "channels": {"axes": [1]},
    "pixels": {"axes": [-1, -2], "keepdims": 0},
    "one axis": {"axes": [2], "keepdims": 1},
}


def _mean(opset: int, axes: list[int], keepdims: int = 1) -> onnx.ModelProto:
    if opset < 18:
        node = NODE("ReduceMean", ["x"], ["y"], axes=axes, keepdims=keepdims)
        return _image(node, opset=opset)
    node = NODE("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)
    return _image(node, opset=opset, axes=np.asarray(axes, np.int64))


SHAPED: dict[str, onnx.ModelProto] = {
    "Add over channels": _image(NODE("Add", ["x", "c"], ["y"]), c=FACTORS.reshape(4, 1, 1)),
    "Add over pixels": _image(
        NODE("Add", ["x", "c"], ["y"]), c=np.arange(30, dtype=F).reshape(1, 1, 5, 6)
    ),
    "ArgMax": _image(NODE("ArgMax", ["x"], ["y"], axis=1), shape=(7,), outputs={"y": 7}),
    "ArgMax flat": _image(
        NODE("ArgMax", ["x"], ["y"], axis=-1, keepdims=0), shape=(7,), outputs={"y": 7}, opset=9
    ),
    "ArgMax of an image": _image(
        NODE("ArgMax", ["x"], ["y"], axis=1), shape=(7, 1, 1), outputs={"y": 7}
    ),
    "ArgMax of an image, flat": _image(
        NODE("ArgMax", ["x"], ["y"], axis=-3, keepdims=0), shape=(7, 1, 1), outputs={"y": 7}
    ),
    "ArgMax moved": _image(
        NODE("ArgMax", ["x"], ["i"], axis=1),
        NODE("Flatten", ["i"], ["y"]),
        shape=(7, 1, 1),
        outputs={"y": 7},
    ),
    "AveragePool": _image(NODE("AveragePool", ["x"], ["y"], kernel_shape=[3, 2])),
    "AveragePool 10": _image(
        NODE("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        opset=10,
    ),
    "BatchNormalization of vectors": _normalised(4, 9),
    "BatchNormalization of images": _normalised(4, 3, 2),
    "Concat": _image(NODE("Concat", ["x", "c", "x"], ["y"], axis=1), c=np.ones((1, 2, 5, 6), F)),
    "Concat from the back": _image(NODE("Concat", ["x", "x"], ["y"], axis=-1), opset=9),
    "Concat of one": _image(NODE("Concat", ["x"], ["y"], axis=2)),
    "Conv": _image(NODE("Conv", ["x", "w"], ["y"], group=2), w=KERNELS),
    "Conv with a bias": _image(
        NODE("Conv", ["x", "w", "b"], ["y"], group=2, pads=[1, 0, 2, 1], strides=[2, 1]),
        w=KERNELS,
        b=FACTORS[[0, 1, 2, 3, 3, 2]],
        opset=9,
    ),
    "Conv of vectors": _image(
        NODE("Conv", ["x", "w", "b"], ["y"], dilations=[2], pads=[1, 3]),
        shape=(2, 9),
        w=KERNELS[:, :, :, 0],
        b=KERNELS[:, 0, 0, 0],
    ),
    "Conv twice with one bias": _image(
        NODE("Conv", ["x", "w", "b"], ["c"], group=2),
        NODE("Reshape", ["c", "s"], ["r"]),
        NODE("Conv", ["r", "v", "b"], ["y"], group=2),
        w=KERNELS,
        b=KERNELS[:, 0, 0, 0],
        s=[1, 6, -1],
        v=np.ones((6, 3, 2), F),
    ),
    "Conv by channels": _image(
        NODE("Conv", ["x", "w"], ["y"], group=4, kernel_shape=[3, 2]), w=KERNELS[:4, :1]
    ),
    "GlobalAveragePool": _image(NODE("GlobalAveragePool", ["x"], ["y"])),
    "GlobalAveragePool of vectors": _image(NODE("GlobalAveragePool", ["x"], ["y"]), shape=(4, 9)),
    "GlobalMaxPool": _image(NODE("GlobalMaxPool", ["x"], ["y"])),
    "GlobalMaxPool of vectors": _image(NODE("GlobalMaxPool", ["x"], ["y"]), shape=(4, 9)),
    "MaxPool": _image(NODE("MaxPool", ["x"], ["y"], kernel_shape=[3, 2])),
    "MaxPool 9": _image(
        NODE("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 0, 0, 1], storage_order=1),
        opset=9,
    ),
    "Mul of a gate": _image(
        NODE("GlobalMaxPool", ["x"], ["gate"]), NODE("Mul", ["x", "gate"], ["y"])
    ),
    "Mul of kappa": _image(
        NODE("Slice", ["x", "from", "to", "axis"], ["kappa"]),
        NODE("Mul", ["kappa", "x"], ["y"]),
        **{"from": [1], "to": [2], "axis": [1]},
    ),
    "PRelu over channels": _image(NODE("PRelu", ["x", "f"], ["y"]), f=FACTORS.reshape(4, 1, 1)),
    "Pad": _image(NODE("Pad", ["x", "w", "v"], ["y"]), w=[0, 0, 1, 0, 0, 2, 0, 3], v=F(-1.5)),
    "Pad 9": _image(NODE("Pad", ["x"], ["y"], pads=[0, 1, 0, 0, 0, 0, 0, 1], value=0.25), opset=9),
    "Pad 9 by nothing": _image(NODE("Pad", ["x"], ["y"], pads=[0] * 8), opset=9),
    "Pad of axes": _image(
        NODE("Pad", ["x", "w", "", "a"], ["y"]), w=[1, 2, 0, 1], a=[-1, 2], opset=18
    ),
    "Pad of truth values": _image(
        NODE("Greater", ["x", "zero"], ["c"]),
        NODE("Pad", ["c", "w", "v"], ["p"]),
        NODE("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
        zero=F(0),
        w=[0, 0, 0, 0, 0, 0, 1, 0],
        v=np.bool_(True),
    ),
    **{
        f"ReduceMean {opset} {name}": _mean(opset, **attributes)
        for name, attributes in MEANS.items()
        for opset in (9, 18)
    },
    "ReduceMean of nothing": _image(
        NODE("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1), opset=18
    ),
    "ReduceMean of no axes": _image(
        NODE("ReduceMean", ["x", "a"], ["y"], noop_with_empty_axes=1),
        a=np.zeros(0, np.int64),
        opset=18,
    ),
    "Slice": _cut(17, starts=[1, 5], ends=[-1, 2**63 - 1], axes=[1, -1], steps=[2, 1]),
    "Slice without axes": _cut(10, starts=[0, 1, -3], ends=[1, 3, 9]),
    "Slice ::2": _cut(13, starts=[0, 0], ends=[2**62, 2**62], axes=[2, 3], steps=[2, 2]),
    "Slice 9": _cut(9, starts=[-3, 0], ends=[-1, 1], axes=[1, 0]),
    "TopK": _image(
        NODE("TopK", ["x", "k"], ["v", "y"]), shape=(7,), k=[3], outputs={"v": 1, "y": 7}
    ),
    "TopK 9": _image(NODE("TopK", ["x"], ["y", "i"], axis=1, k=7), shape=(7,), opset=9),
    "TopK 10": _image(
        NODE("TopK", ["x", "k"], ["v", "y"], axis=-1), shape=(7,), k=[1], opset=10, outputs={"y": 7}
    ),
    "TopK of an image": _image(
        NODE("TopK", ["x", "k"], ["v", "y"], axis=1),
        shape=(7, 1, 1),
        k=[2],
        outputs={"y": 7, "v": 1},
    ),
    "Transpose": _image(NODE("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])),
    "Transpose of truth values": _image(
        NODE("Less", ["x", "zero"], ["c"]),
        NODE("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
        NODE("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
        shape=(3, 4),
        zero=F(0),
    ),
    "Flatten of an image": _image(NODE("Flatten", ["x"], ["y"])),
    "Reshape of an image": _image(
        NODE("Reshape", ["x", "s"], ["r"]),
        NODE("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        NODE("Reshape", ["t", "back"], ["y"]),
        s=[0, 2, 2, 5, 6],
        back=[0, -1, 5, 6],
    ),
}

CASES: dict[str, onnx.ModelProto] = {
    **{op: make(NODE(op, ["x"], ["y"])) for op in SIMPLE},
    **{
        op: make(
            NODE(op, ["x", "f"], ["p"]),
            NODE(op, ["f", "x"], ["q"]),
            NODE(op, ["p", "q"], ["y"]),
            constants={"f": FACTORS},
        )
        for op in ARITHMETIC
    },
    **{op: _compare(op) for op in COMPARISONS},
    "Greater 9": _compare("Greater", 9),
    "Less 9": _compare("Less", 9),
    "Equal 11": _compare("Equal", 11),
    "Cast": make(NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT)),
    "Where int64": make(
        NODE("Greater", ["x", "zero"], ["c"]),
        NODE("Where", ["c", "plus", "minus"], ["w"]),
        NODE("Cast", ["w"], ["y"], to=TensorProto.FLOAT),
        constants={"zero": F(0), "plus": np.int64(1), "minus": np.int64(-1)},
    ),
    "LeakyRelu": make(NODE("LeakyRelu", ["x"], ["y"], alpha=0.3)),
    "LeakyRelu falling": make(NODE("LeakyRelu", ["x"], ["y"], alpha=-0.3)),
    "LeakyRelu default": make(NODE("LeakyRelu", ["x"], ["y"])),
    "BatchNormalization": make(NODE("BatchNormalization", BN_INPUTS, ["y"]), constants=STATISTICS),
    "BatchNormalization 9": make(
        NODE("BatchNormalization", BN_INPUTS, ["y"], epsilon=1e-4), constants=STATISTICS, opset=9
    ),
    "Dropout 9 with mask": make(NODE("Dropout", ["x"], ["y", "mask"], ratio=0.3), opset=9),
    "Dropout": make(
        NODE("Dropout", ["x", "r", "t"], ["y"]), constants={"r": F(0.5), "t": np.bool_(False)}
    ),
    "Gemm": make(NODE("Gemm", ["x", "w"], ["y"], transB=1), constants={"w": WEIGHTS}),
    "Gemm KN": make(NODE("Gemm", ["x", "w"], ["y"]), constants={"w": WEIGHTS.T.copy()}),
    "Gemm 9": make(
        NODE("Gemm", ["x", "w", "b"], ["y"], transB=1),
        constants={"w": WEIGHTS, "b": BIAS},
        opset=9,
    ),
    "Gemm scaled": make(
        NODE("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.3, beta=-1.7),
        constants={"w": WEIGHTS, "b": BIAS.reshape(1, 3)},
    ),
    "Gemm beta 0": make(
        NODE("Gemm", ["x", "w", "b"], ["y"], transB=1, beta=0.0),
        constants={"w": WEIGHTS, "b": BIAS},
    ),
    "Gemm with a residual": make(
        NODE("Gemm", ["x", "w", "x"], ["y"], beta=0.3),
        constants={"w": np.eye(4, dtype=F)[::-1].copy()},
    ),
    "MatMul": make(NODE("MatMul", ["x", "w"], ["y"]), constants={"w": WEIGHTS.T.copy()}),
    "MatMul of a transposed constant": make(
        NODE("Transpose", ["w"], ["t"], perm=[1, 0]),
        NODE("MatMul", ["x", "t"], ["y"]),
        constants={"w": WEIGHTS},
    ),
    "Flatten": make(NODE("Flatten", ["x"], ["y"]), inputs={"x": ("n", 2, 2)}),
    "Flatten -1": make(NODE("Flatten", ["x"], ["y"], axis=-1), inputs={"x": (1, 1, 4)}),
    "Reshape": _shaped("Reshape", 17, [0, -1, 2]),
    "Reshape allowzero": _shaped("Reshape", 17, [1, 2, -1], allowzero=1),
    "Unsqueeze": _shaped("Unsqueeze", 17, [-1, 1]),
    "Unsqueeze 9": _shaped("Unsqueeze", 9, [1, 3]),
    "Squeeze": make(
        NODE("Squeeze", ["x", "a"], ["y"]),
        inputs={"x": ("n", 1, 4, 1)},
        constants={"a": np.array([1, -1])},
    ),
    "Squeeze 9": make(
        NODE("Squeeze", ["x"], ["y"], axes=[1, 3]), inputs={"x": ("n", 1, 4, 1)}, opset=9
    ),
}

# The two disagree on the sign of a zero result: where an operand equals a bound the IR takes the
# bound, and ONNX Runtime's Where adds +0 to what it selects.
ZERO_SIGNS_DIFFER: dict[str, onnx.ModelProto] = {
    **{op: _logic(op) for op in ("And", "Or", "Not")},
    "Where": make(
        NODE("Where", ["mask", "x", "f"], ["y"]),
        constants={"mask": np.array([True, False, True, False]), "f": FACTORS},
    ),
    "Relu": make(NODE("Relu", ["x"], ["y"])),
    "PRelu": make(NODE("PRelu", ["x", "f"], ["y"]), constants={"f": FACTORS}),
    "PRelu 9": make(NODE("PRelu", ["x", "f"], ["y"]), constants={"f": FACTORS}, opset=9),
    "HardSigmoid": make(NODE("HardSigmoid", ["x"], ["y"])),
    "HardSigmoid sloped": make(NODE("HardSigmoid", ["x"], ["y"], alpha=-0.5, beta=0.1)),
    "Clip": _clip(17, -1.0, 1.0),
    "Clip 9": _clip(9, -1.0, 1.0),
    "Clip 9 open": _clip(9, None, 0.0),
    "Clip 11": _clip(11, 0.0, 1.0),
    "Clip high": _clip(17, None, 2.5),
    "Clip low": _clip(17, 2.5, None),
    "Clip nothing": _clip(17, None, None),
    "Clip crossed": _clip(17, 2.0, 1.0),
    "Clip infinite": _clip(17, -np.inf, np.inf),
}


@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    imported = load(CASES[name], tmp_path)
    x = hostile(1e10 if name.startswith(("Gemm", "MatMul")) else np.inf)
    assert_agrees(imported, {"x": x.reshape(-1, *imported.graph.types["x"].shape[1:])})


@pytest.mark.parametrize("name", ZERO_SIGNS_DIFFER)
def test_values_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    imported = load(ZERO_SIGNS_DIFFER[name], tmp_path)
    assert_agrees(imported, {"x": hostile()}, zero_signs=False)


TOKENS: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], list[str]]] = {
    "MatMul": ([NODE("MatMul", ["x", "w"], ["y"])], (5, 4), ["Transpose", "Conv", "Transpose"]),
    "MatMul of a vector's tokens": (
        [NODE("MatMul", ["x", "w"], ["y"])],
        (1, 4),
        ["Transpose", "Conv", "Transpose"],
    ),
    "MatMul of an image": (
        [NODE("MatMul", ["x", "w"], ["y"])],
        (2, 3, 4),
        ["Transpose", "Conv", "Transpose"],
    ),
    "MatMul of windows": (
        [NODE("MatMul", ["x", "w"], ["y"])],
        (2, 3, 2, 4),
        ["Reshape", "Transpose", "Conv", "Transpose", "Reshape"],
    ),
    "MatMul from the left": ([NODE("MatMul", ["v", "x"], ["y"])], (4, 5), ["Conv"]),
    "both with one matrix": (
        [
            NODE("MatMul", ["x", "w"], ["a"]),
            NODE("MatMul", ["v", "x"], ["b"]),
            NODE("MatMul", ["a", "v"], ["c"]),
            NODE("Mul", ["b", "c"], ["y"]),
        ],
        (4, 4),
        [*["Transpose", "Conv", "Transpose"], "Conv", *["Transpose", "Conv", "Transpose"], "Mul"],
    ),
}


@pytest.mark.parametrize("name", TOKENS)
def test_dense_layers_over_tokens(name: str, tmp_path: Path) -> None:
    nodes, shape, expected = TOKENS[name]
    matrix = WEIGHTS.T.copy()
    constants = {"w": matrix, "v": WEIGHTS}
    if len(nodes) > 1:
        constants = {"w": np.vstack([WEIGHTS, FACTORS]), "v": np.vstack([FACTORS, WEIGHTS])}
    used = {i for node in nodes for i in node.input}
    given = {name: value for name, value in constants.items() if name in used}
    imported = load(make(*nodes, inputs={"x": ("n", *shape)}, constants=given), tmp_path)
    assert [node.op.name for node in imported.graph.nodes] == expected
    x = np.random.default_rng(2).choice(hostile(1e5).reshape(-1), (3, *shape))
    assert_agrees(imported, {"x": x})


@pytest.mark.parametrize("name", SHAPED)
def test_images_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    imported = load(SHAPED[name], tmp_path)
    shape = imported.graph.types["x"].shape[1:]
    values = hostile(1e10).reshape(-1)
    x = np.random.default_rng(2).choice(values, (3, *shape))
    assert_agrees(imported, {"x": x})


@pytest.mark.parametrize(
    ("opset", "shape", "axis"),
    [
        (9, (10,), None),
        (9, (10,), 1),
        (9, (2, 3, 4), None),
        (9, (5, 2, 3), 1),
        (9, (1, 2, 3), -2),
        (13, (10,), None),
        (13, (10,), 1),
        (13, (10, 1, 1), 1),
        (13, (1, 1, 10), None),
        (26, (1, 10), -1),
    ],
)
@pytest.mark.parametrize("op_type", ["LogSoftmax", "Softmax"])
def test_softmax_over_all_there_is(
    op_type: str, opset: int, shape: tuple[int, ...], axis: int | None, tmp_path: Path
) -> None:
    attributes = {} if axis is None else {"axis": axis}
    imported = load(
        _image(NODE(op_type, ["x"], ["y"], **attributes), shape=shape, opset=opset), tmp_path
    )
    x = np.random.default_rng(0).normal(0, 9, (20, *shape)).astype(F)
    (expected,) = oracle(imported.source, {"x": x}, ["y"])
    actual = interpret.run(imported.graph, {"x": x})["y"]
    # Both libraries' exponentials and logarithms are within a few units, as are the sums of 24.
    np.testing.assert_allclose(actual, expected, rtol=32 * 2.0**-24, atol=32 * 2.0**-24)


def test_sigmoid_is_within_rounding_of_onnx_runtimes(tmp_path: Path) -> None:
    imported = load(make(NODE("Sigmoid", ["x"], ["y"])), tmp_path)
    x = np.linspace(-30, 30, 40_000, dtype=F).reshape(-1, 4)
    (expected,) = oracle(imported.source, {"x": x}, ["y"])
    actual = interpret.run(imported.graph, {"x": x})["y"]
    # ONNX Runtime's is a rational function, off by 3 units of 2^-24 near x = 4.6, and 0 below -18.
    assert (np.abs(actual - expected.astype(np.float64)) <= 2.0**-22).all()


def test_tanh_is_within_six_units_of_onnx_runtimes(tmp_path: Path) -> None:
    # ONNX Runtime's own float32 Tanh is up to 5.2 units off; the reference's is within one.
    imported = load(make(NODE("Tanh", ["x"], ["y"])), tmp_path)
    x = np.linspace(-12, 12, 40_000, dtype=F).reshape(-1, 4)
    (expected,) = oracle(imported.source, {"x": x}, ["y"])
    actual = interpret.run(imported.graph, {"x": x})["y"]
    assert (np.abs(actual - expected.astype(np.float64)) <= 6 * np.spacing(np.abs(actual))).all()


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21, 26])
def test_one_network_in_every_opset(opset: int, tmp_path: Path) -> None:
    """The operators whose form changed over the years, behind one another."""
    by_attribute = opset < 13
    axes = {} if by_attribute else {"axes": np.array([1])}
    clip = _clip(opset, -1.0, 1.0).graph
    mean_axes = {"axes": [1]} if opset < 18 else {}
    nodes = [
        NODE("Sign", ["w"], ["s"]),
        NODE("Abs", ["w"], ["a"]),
        NODE(
            "ReduceMean", ["a", *(["one"] if opset >= 18 else [])], ["m"], keepdims=1, **mean_axes
        ),
        NODE("Mul", ["s", "m"], ["ws"]),
        NODE("Gemm", ["x", "ws", "b"], ["g"], transB=1),
        NODE("Unsqueeze", ["g", *axes], ["u"], **({"axes": [1]} if by_attribute else {})),
        NODE("Squeeze", ["u", *axes], ["q"], **({"axes": [1]} if by_attribute else {})),
        NODE("BatchNormalization", ["q", "gamma", "beta", "mean", "variance"], ["n"]),
        NODE("Dropout", ["n"], ["d"]),
        NODE("Clip", ["d", *clip.node[0].input[1:]], ["c"]),
        NODE("Sign", ["c"], ["y"]),
    ]
    if by_attribute and opset < 11:
        nodes[-2].attribute.extend(clip.node[0].attribute)
    constants = {n: a[:3] for n, a in STATISTICS.items()} | {"w": WEIGHTS, "b": BIAS} | axes
    constants |= {"one": np.array([1])} if opset >= 18 else {}
    model = make(*nodes, constants=constants, opset=opset)
    model.graph.initializer.extend(clip.initializer)
    imported = load(model, tmp_path)
    assert [node.op.name for node in imported.graph.nodes] == [
        *("MatMul", "Add", "Reshape", "Reshape", "BatchNormalization", "Identity", "Clip", "Sign"),
    ]
    assert_agrees(imported, {"x": hostile(1e10)}, zero_signs=False)


@pytest.mark.parametrize("opset", range(7, 27))
def test_one_convolutional_network_in_every_opset(opset: int, tmp_path: Path) -> None:
    """Attributes became operands one by one; axes, steps and modes came on the way."""
    constants: dict[str, Array] = {"w": KERNELS[:, :2, :, :], "b": KERNELS[:, 0, 0, 0]}

    def given(operand: str, value: list[int], since: int) -> tuple[list[str], dict[str, object]]:
        """Return the operand or the attribute, whichever this opset has."""
        if opset < since:
            return [], {operand: value}
        constants[operand] = np.asarray(value, np.int64)
        return [operand], {}

    pads, pads_attribute = given("pads", [0, 0, 1, 0, 0, 0, 0, 1], 11)
    starts, starts_attribute = given("starts", [1], 10)
    ends, ends_attribute = given("ends", [3], 10)
    axes, axes_attribute = given("axes", [1], 10)
    reduced, reduced_attribute = ([], {"axes": [1]})
    if opset >= 18:
        reduced, reduced_attribute, constants["reduced"] = ["reduced"], {}, np.array([1])
    k, k_attribute = ([], {"k": 2})
    if opset >= 10:
        k, k_attribute, constants["k"] = ["k"], {}, np.array([2])
    model = make(
        NODE("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        NODE("Pad", ["t", *pads], ["p"], **pads_attribute),
        NODE("Conv", ["p", "w", "b"], ["c"], group=2, strides=[1, 2]),
        NODE("MaxPool", ["c"], ["m"], kernel_shape=[2, 2], pads=[0, 1, 0, 0]),
        NODE(
            "Slice",
            ["m", *starts, *ends, *axes],
            ["s"],
            **starts_attribute,
            **ends_attribute,
            **axes_attribute,
        ),
        NODE("Concat", ["m", "s"], ["j"], axis=1),
        NODE("ReduceMean", ["j", *reduced], ["kappa"], keepdims=1, **reduced_attribute),
        NODE("Mul", ["j", "kappa"], ["scaled"]),
        NODE("AveragePool", ["scaled"], ["a"], kernel_shape=[2, 2], count_include_pad=1),
        NODE("GlobalAveragePool", ["a"], ["g"]),
        NODE("Flatten", ["g"], ["f"]),
        NODE("TopK", ["f", *k], ["y", "i"], axis=1, **k_attribute),
        NODE("ArgMax", ["f"], ["first"], axis=1),
        inputs={"x": ("n", 5, 7, 4)},
        outputs={"y": 1, "i": 7, "first": 7},
        constants=constants,
        opset=opset,
    )
    imported = load(model, tmp_path)
    assert [node.op.name for node in imported.graph.nodes] == [
        *("Transpose", "Pad", "Conv", "Add", "MaxPool", "Slice", "Concat", "ReduceMean", "Mul"),
        *("AveragePool", "ReduceMean", "Reshape", "TopK", "ArgMax"),
    ]
    assert imported.graph.producers["i"] is imported.graph.producers["y"]
    assert_agrees(imported, {"x": np.random.default_rng(1).normal(size=(3, 5, 7, 4)).astype(F)})


def test_a_flat_channel_is_normalised_by_onnx_runtimes_own_roundings(tmp_path: Path) -> None:
    """Its deviation is epsilon's alone: what x * s and bias - mean * s round is large beside it."""
    values = np.array([1.2e-7, -3.4, 0.1, 77.7], F)
    flat = np.ones((1, 4, 2, 2), F) * values[:, np.newaxis, np.newaxis]
    scale, bias = np.array([-0.25, -1, 0.3, 2], F), np.array([0.125, 0.5, -0.7, 3], F)
    model = make(
        NODE("InstanceNormalization", ["x", "scale", "bias"], ["y"]),
        inputs={"x": (1, 4, 2, 2)},
        constants={"scale": scale, "bias": bias},
    )
    imported = load(model, tmp_path)
    (expected,) = oracle(imported.source, {"x": flat}, ["y"])
    np.testing.assert_array_equal(interpret.run(imported.graph, {"x": flat})["y"], expected)


@pytest.mark.parametrize("exponent", [2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 40), (1, 20, 2, 1), (1, 20, 1, 2)])
def test_squares_and_cubes(shape: tuple[int, ...], exponent: int, tmp_path: Path) -> None:
    model = make(
        NODE("Pow", ["x", "exponent"], ["y"]),
        inputs={"x": shape},
        constants={"exponent": np.array(exponent, F)},
    )
    imported = load(model, tmp_path)
    x = np.random.default_rng(1).normal(size=(8, *shape[1:])).astype(F)
    (expected,) = oracle(imported.source, {"x": x}, ["y"])
    apart = 0 if shape[-1] > 1 else 1  # C's pow is nearer to the power than products are
    np.testing.assert_array_max_ulp(interpret.run(imported.graph, {"x": x})["y"], expected, apart)


@pytest.mark.parametrize("p", [1, 2])
def test_a_line_whose_length_is_no_number_above_0_is_0(p: int, tmp_path: Path) -> None:
    model = make(NODE("LpNormalization", ["x"], ["y"], p=p, axis=1), inputs={"x": (1, 2)})
    imported = load(model, tmp_path)
    x = np.array([[0, 0], [8e-43, 0], [1e-30, -1e-30], [3, -4], [-2e-23, 1e-45]], F)
    (expected,) = oracle(imported.source, {"x": x}, ["y"])
    np.testing.assert_array_equal(interpret.run(imported.graph, {"x": x})["y"], expected)
