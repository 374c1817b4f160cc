"""Small ONNX models, and ONNX Runtime's word on what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnncc.frontends.onnx import Imported, load_onnx
from bnncc.ir import interpret
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import Mul
from bnncc.ir.ops.linear import Conv, matrix_conv
from bnncc.ir.ops.pool import AveragePool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Movement
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.types import Array

NODE = helper.make_node


def value(name: str, shape: Sequence[int | str | None] | None, element: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def make(
    *nodes: onnx.NodeProto,
    inputs: Mapping[str, Sequence[int | str | None]] | None = None,
    outputs: Mapping[str, int] | Sequence[str] = ("y",),
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """Return a model; `x` of shape [batch, 4] is its input and `y` its output unless said."""
    inputs = {"x": ("batch", 4)} if inputs is None else inputs
    elements = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs, 1)
    graph = helper.make_graph(
        list(nodes),
        "made",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, None, element) for name, element in elements.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def load(model: onnx.ModelProto, folder: Path, **options) -> Imported:
    return load_onnx(saved(model, folder), **options)


def oracle(source: onnx.ModelProto, x: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """Return the tensors `names` as ONNX Runtime computes them, one sample at a time."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    samples = len(next(iter(x.values())))
    runs = [
        session.run(None, {name: array[i : i + 1] for name, array in x.items()})
        for i in range(samples)
    ]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def assert_agrees(imported: Imported, x: Mapping[str, Array], *, zero_signs: bool = True) -> None:
    """Each tensor that ONNX has too is the oracle's, given the oracle's own operands.

    Sums of products, and what follows inside the same ONNX node, may differ by rounding:
    gamma_K sum |x||w| on either side (Higham 2002, eq. 3.5). Everything else is the same bits, NaN
    payloads apart and, unless `zero_signs`, signs of zeros.
    """
    known = {name for node in imported.source.graph.node for name in node.output}
    names = [name for node in imported.graph.nodes for name in node.outputs if name in known]
    assert set(imported.graph.outputs) <= set(names)
    expected = dict(zip(names, oracle(imported.source, x, names), strict=True))
    forced = {**imported.graph.constants, **x}
    slack: dict[str, Array] = {}

    def observe(name: str, value: Array) -> Array:
        node = imported.graph.producers[name]
        operands = [forced[operand] for operand in node.inputs]
        rounding = _rounding(node.op, operands, [slack.get(n) for n in node.inputs], value)
        if name not in expected:
            slack[name] = rounding
            forced[name] = value
            return value
        reference = expected[name]
        if value.dtype == np.float32:  # small integers are among what the IR holds in it
            reference = reference.astype(np.float32)
        forced[name] = reference
        assert value.dtype == reference.dtype, name
        if rounding is None:
            np.testing.assert_array_equal(value, reference, err_msg=name)
            if zero_signs and value.dtype == np.float32:
                numbers = ~np.isnan(value)
                signs = np.signbit(value)[numbers], np.signbit(reference)[numbers]
                np.testing.assert_array_equal(*signs, err_msg=name)
        else:
            assert (np.abs(value - reference.astype(np.float64)) <= rounding).all(), name
        return reference

    interpret.run_stored(imported.graph, x, observe)


def _rounding(op: Op, operands: list[Array], before: list[Array | None], y: Array) -> Array | None:
    """Return how far two float32 evaluations of a node may be apart, or None if they may not."""
    unit, underflow = 2.0**-24, 2.0**-150
    if isinstance(op, (AveragePool, Conv, ReduceMean)):
        magnitudes, k = _terms(op, [np.abs(operand.astype(np.float64)) for operand in operands])
        return 2 * k * unit / (1 - k * unit) * magnitudes + 2 * k * underflow
    if isinstance(op, Softmax):
        # Exponentials and logarithms within 2 units, a sum of C terms, a difference or quotient.
        return 2 * (8 + y.shape[1]) * unit * (1 + np.abs(y.astype(np.float64)))
    slack = next((s for s in before if s is not None), None)
    if slack is None:
        return None
    if isinstance(op, Movement):
        return op.evaluate([slack])[0]
    grown = slack * np.abs(operands[1]) if isinstance(op, Mul) else slack
    return grown + 2 * unit * np.abs(y.astype(np.float64)) + underflow


def _terms(op: AveragePool | Conv | ReduceMean, x: list[Array]) -> tuple[Array, int]:
    """Return what the magnitudes of a sum's terms add up to, and how many roundings it takes."""
    match op:
        case Conv():
            return matrix_conv(x[0], x[1], op.window, op.groups), x[1][0].size
        case AveragePool():
            return op.evaluate(x)[0], op.window.taps + 1
        case ReduceMean():
            return x[0].mean(axis=op.axes, keepdims=op.keepdims), x[0][0].size + 1


def hostile(largest: float = np.inf) -> Array:
    """Return float32 [N, 4]: zeros of both signs, subnormals, halves, huge, and random values.

    Those above `largest` are left out, for sums that must not overflow.
    """
    tiny = np.finfo(np.float32).smallest_subnormal
    huge = np.finfo(np.float32).max
    special = [0.0, 1.0, 0.5, 1.5, 2.5, 1e-38, tiny, 2**23 + 0.5, 3e38, huge, 1e-20, 7.3]
    special += [0.49999997, 0.99999994, 1.0000001, 2**24, 1e10, 3.3333333]
    around = np.asarray([s * sign for s in special for sign in (1, -1)], dtype=np.float32)
    rng = np.random.default_rng(7)
    random = rng.standard_normal(64, dtype=np.float32) * 10.0 ** rng.integers(-6, 6, 64)
    values = np.concatenate([around, random.astype(np.float32)])
    values = values[np.abs(values) <= largest]
    return np.resize(values, (-(-len(values) // 4), 4))
