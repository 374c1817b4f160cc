"""What a model may not hold: each finding names its node, and all come at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnncc.errors import UnsupportedModelError
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make

F = np.float32
ONES = np.ones((4, 3), F)
STATISTICS = {name: np.ones(4, F) for name in ("g", "b", "m", "v")}


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, folder)
    return str(caught.value)


def normalised(op: str = "bn", **changes: object) -> onnx.ModelProto:
    statistics = STATISTICS | {k: v for k, v in changes.items() if k in STATISTICS}
    attributes = {k: v for k, v in changes.items() if k not in STATISTICS}
    node = NODE("BatchNormalization", ["x", *statistics], ["y"], name=op, **attributes)
    return make(node, constants=statistics)


def referring() -> onnx.ModelProto:
    model = make(NODE("LeakyRelu", ["x"], ["y"], alpha=0.1, name="leaky"))
    model.graph.node[0].attribute[0].ref_attr_name = "slope"
    return model


def twice() -> onnx.ModelProto:
    model = make(NODE("Abs", ["x"], ["y"]))
    model.graph.input.append(model.graph.input[0])
    return model


# --- BNN003: contradictions -----------------------------------------------------------------------

CONTRADICTIONS = {
    "a bias of another length than the weights": (
        make(
            NODE("Conv", ["x", "w", "b"], ["y"], name="conv1"),
            inputs={"x": ["n", 4, 5, 5]},
            constants={"w": np.ones((2, 4, 3, 3), F), "b": np.ones(3, F)},
        ),
        'error[BNN003]: bias "b" of shape [3]\n'
        '  where: ONNX node "conv1"\n'
        "  why:   there are 2 output channels",
    ),
    "groups that do not divide the channels": (
        make(
            NODE("Conv", ["x", "w"], ["y"], name="conv1", group=3),
            inputs={"x": ["n", 12, 5, 5]},
            constants={"w": np.ones((2, 4, 3, 3), F)},
        ),
        'error[BNN003]: 2 channels of "w" in 3 groups\n  where: ONNX node "conv1"',
    ),
    "weights of other channels": (
        make(
            NODE("Conv", ["x", "w"], ["y"], name="conv1"),
            inputs={"x": ["n", 3, 5, 5]},
            constants={"w": np.ones((2, 4, 3, 3), F)},
        ),
        "error[BNN003]: operands of Conv: an input [1, 3, 5, 5] does not fit weights [2, 4, 3, 3]\n"
        '  where: ONNX node "conv1"',
    ),
    "a slope that is wider than its operand": (
        make(
            NODE("PRelu", ["x", "s"], ["y"], name="act"),
            inputs={"x": ["n", 1, 4]},
            constants={"s": np.ones((3, 1), F)},
        ),
        'error[BNN003]: the slope "s" of PRelu\n'
        '  where: ONNX node "act"\n'
        "  why:   [3, 1] does not broadcast to [1, 1, 4]",
    ),
    "an axis that is cut twice": (
        make(
            NODE("Slice", ["x"], ["y"], name="cut", starts=[0, 0], ends=[1, 1], axes=[1, 1]),
            opset=9,
        ),
        'error[BNN003]: Slice along [1, 1] of 2 dimensions\n  where: ONNX node "cut"',
    ),
    "more largest than there are": (
        make(NODE("TopK", ["x", "k"], ["y", "i"], name="top"), constants={"k": np.array([5])}),
        "error[BNN003]: shapes or element types contradict each other\n"
        '  where: ONNX node "top"\n'
        "  why:   Axis has less than the requested k elements.",
    ),
    "weights of another width": (
        make(NODE("MatMul", ["x", "w"], ["y"], name="mm"), constants={"w": np.ones((5, 3), F)}),
        "error[BNN003]: shapes or element types contradict each other\n"
        '  where: ONNX node "mm"\n'
        "  why:   Incompatible dimensions for matrix multiplication",
    ),
    "a bias of another length": (
        make(
            NODE("Gemm", ["x", "w", "b"], ["y"], name="fc"),
            constants={"w": ONES, "b": np.ones(7, F)},
        ),
        "error[BNN003]: operands of Gemm: shapes [1, 3] and [7] do not broadcast\n"
        '  where: ONNX node "fc"',
    ),
    "statistics of another length": (
        normalised(v=np.ones(7, F)),
        "error[BNN003]: shapes or element types contradict each other\n"
        '  where: ONNX node "bn"\n'
        "  why:   Dimension mismatch in unification between 7 and 4",
    ),
    "an axis that is not there": (
        make(NODE("Squeeze", ["x", "a"], ["y"]), constants={"a": np.array([5])}),
        "error[BNN003]: shapes or element types contradict each other\n"
        '  where: ONNX node "Squeeze(y)"\n'
        "  why:   Unexpected axis value: 5. Expected range [-2, 2)",
    ),
    "a cycle": (
        make(NODE("Add", ["x", "b"], ["a"], name="first"), NODE("Add", ["a", "x"], ["b"])),
        "error[BNN003]: the onnx checker rejects the model\n"
        '  where: ONNX node "first"\n'
        "  why:   Nodes in a graph must be topologically sorted, however input 'b' of node: "
        'name: "first" OpType: Add is not output of any previous nodes.',
    ),
    "an undefined operand": (
        make(NODE("Add", ["x", "nowhere"], ["y"])),
        "error[BNN003]: the onnx checker rejects the model\n"
        '  where: ONNX node "Add(y)"\n'
        "  why:   Nodes in a graph must be topologically sorted, however input 'nowhere' of node: "
        'name: "Add(y)" OpType: Add is not output of any previous nodes.',
    ),
    "a tensor computed twice": (
        make(NODE("Abs", ["x"], ["y"]), NODE("Neg", ["x"], ["y"])),
        "error[BNN003]: the onnx checker rejects the model\n"
        "  why:   Graph must be in single static assignment (SSA) form, however 'y' has been used "
        "as output names multiple times.",
    ),
    "a constant that is an input": (
        make(NODE("Constant", [], ["x"], value_float=1.0), NODE("Abs", ["x"], ["y"])),
        "error[BNN003]: the onnx checker rejects the model\n"
        "  why:   Graph must be in single static assignment (SSA) form, however 'x' has been used "
        "as output names multiple times.",
    ),
    "an output that nobody computes": (
        make(NODE("Abs", ["x"], ["y"]), outputs=["z"]),
        "error[BNN003]: the onnx checker rejects the model\n"
        "  why:   Graph output 'z' is not an output of any node in graph.",
    ),
    "no outputs": (
        make(NODE("Abs", ["x"], ["y"]), outputs=[]),
        "error[BNN003]: the model has no outputs",
    ),
    "an attribute of a function that is not there": (
        referring(),
        "error[BNN003]: attributes refer to those of a function, outside of any\n"
        '  where: ONNX node "leaky"',
    ),
    "two inputs of one name": (
        twice(),
        'error[BNN003]: two inputs are called "x"',
    ),
    "an axis that Squeeze 9 has not": (
        make(NODE("Squeeze", ["x"], ["y"], axes=[1, 5]), inputs={"x": [1, 1]}, opset=9),
        'error[BNN003]: Squeeze of [1, 1] at axes [1, 5]\n  where: ONNX node "Squeeze(y)"',
    ),
    "an axis that Unsqueeze 9 has not": (
        make(NODE("Unsqueeze", ["x"], ["y"], axes=[1, 7]), opset=9),
        'error[BNN003]: Unsqueeze of [1, 4] at axes [1, 7]\n  where: ONNX node "Unsqueeze(y)"',
    ),
    "an axis that Flatten has not": (
        make(NODE("Flatten", ["x"], ["y"], axis=-(2**63))),
        "error[BNN003]: Flatten of [1, 4] at axis -9223372036854775806\n"
        '  where: ONNX node "Flatten(y)"',
    ),
    "an attribute that is not there": (
        make(NODE("Abs", ["x"], ["y"], name="abs", slope=0.1)),
        "error[BNN003]: the onnx checker rejects the model\n"
        '  where: ONNX node "abs"\n'
        "  why:   Unrecognized attribute: slope for operator Abs",
    ),
    "broadcasting before opset 8": (
        make(NODE("Sum", ["x", "k"], ["y"]), constants={"k": F(1)}, opset=7),
        "error[BNN003]: operands of Sum\n"
        '  where: ONNX node "Sum(y)"\n'
        "  why:   they have 2 shapes, and broadcast only from opset 8 on",
    ),
    "another number of results": (  # at which the onnx library ends the process
        make(NODE("Split", ["x"], ["y", "z", "u"], axis=1, num_outputs=2), opset=18),
        'error[BNN003]: Split with 3 results and num_outputs 2\n  where: ONNX node "Split(y)"',
    ),
    "operands of two types": (
        make(NODE("Add", ["x", "i"], ["y"]), constants={"i": np.array([1])}),
        "error[BNN003]: shapes or element types contradict each other\n"
        '  where: ONNX node "Add(y)"\n'
        "  why:   B has inconsistent type tensor(int64)",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(case: str, tmp_path: Path) -> None:
    model, expected = CONTRADICTIONS[case]
    assert refusal(model, tmp_path) == expected


def test_outputs_listed_twice(tmp_path: Path) -> None:
    model = make(NODE("Abs", ["x"], ["y"]))
    model.graph.output.append(model.graph.output[0])
    assert refusal(model, tmp_path) == 'error[BNN003]: output "y" is listed twice'


@pytest.mark.parametrize("size", [4, 4000])
def test_two_tensors_of_one_name(size: int, tmp_path: Path) -> None:
    model = make(NODE("Mul", ["x", "w"], ["y"]), inputs={"x": ["n", size]})
    model.graph.initializer.extend(
        helper.make_tensor("w", TensorProto.FLOAT, [size], np.ones(size)) for _ in range(2)
    )
    assert refusal(model, tmp_path) == 'error[BNN003]: two tensors are called "w"'


def test_sparse_tensors(tmp_path: Path) -> None:
    model = make(NODE("Abs", ["x"], ["y"]))
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    assert refusal(model, tmp_path) == 'error[BNN008]: the model has sparse tensors: "s"'


def test_node_that_computes_a_constant_again(tmp_path: Path) -> None:
    for size in (4, 4000):  # a large one takes another way through the frontend
        model = make(
            NODE("Abs", ["x"], ["w"]),
            NODE("Mul", ["x", "w"], ["y"]),
            inputs={"x": ["n", size]},
            constants={"w": np.ones(size, F)},
        )
        assert refusal(model, tmp_path).startswith("error[BNN003]: the onnx checker rejects")


# --- BNN007: operators ----------------------------------------------------------------------------


def test_all_unsupported_operators_at_once(tmp_path: Path) -> None:
    model = make(
        *(NODE("Foo", [a], [b], name=f"foo{a}") for a, b in ("xa", "ab", "bc", "cd", "de")),
        NODE("Bar", ["e"], ["f"], domain="my.ops"),
        NODE("Sin", ["f"], ["g"]),
        NODE("ScatterND", ["g", "g", "g"], ["h"], name="assign"),
        NODE("Hardmax", ["h"], ["y"], name="tail"),
    )
    assert refusal(model, tmp_path) == (
        'error[BNN007]: operator "Foo" is not supported (5 nodes)\n'
        '  where: ONNX nodes "foox", "fooa", "foob" and 2 more\n'
        "  why:   ONNX has no operator of this name\n"
        "  help:  say it in operators that bnncc compiles, or compute it outside of the model\n"
        'error[BNN007]: operator "my.ops.Bar" is not supported (1 node)\n'
        '  where: ONNX node "Bar(f)"\n'
        "  why:   what it computes is defined outside of the file\n"
        "  help:  export without custom operators, so that standard ones spell out what it does\n"
        'error[BNN007]: operator "Sin" is not supported (1 node)\n'
        '  where: ONNX node "Sin(g)"\n'
        "  help:  say it in operators that bnncc compiles, or compute it outside of the model\n"
        'error[BNN007]: operator "ScatterND" is not supported (1 node)\n'
        '  where: ONNX node "assign"\n'
        "  why:   it writes to some places of a tensor, as an assignment x[...] = y does\n"
        "  help:  exporters say x[mask] = value this way: write x = torch.where(mask, value, x)\n"
        'error[BNN007]: operator "Hardmax" is not supported (1 node)\n'
        '  where: ONNX node "tail"\n'
        "  why:   it only marks the class that is ranked first\n"
        "  help:  export the model without it: its operand ranks the classes in the same order"
    )


def test_operator_that_the_opset_has_not_yet(tmp_path: Path) -> None:
    model = make(NODE("Round", ["x"], ["y"]), opset=9)
    assert refusal(model, tmp_path) == (
        'error[BNN007]: operator "Round" is not supported (1 node)\n'
        '  where: ONNX node "Round(y)"\n'
        "  why:   it is newer than opset 9, which the model names, or older\n"
        "  help:  say it in operators that bnncc compiles, or compute it outside of the model"
    )


def subgraph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, int],
    outputs: dict[str, int],
    shape: list[int] | None = None,
) -> onnx.GraphProto:
    sides = (
        [helper.make_tensor_value_info(name, element, shape) for name, element in side.items()]
        for side in (inputs, outputs)
    )
    return helper.make_graph(nodes, "inner", *sides)


BRANCH = subgraph([NODE("Abs", ["x"], ["r"])], {}, {"r": 1})
BODY = subgraph(
    [NODE("Identity", ["c"], ["more"]), NODE("Add", ["s", "s"], ["t"])],
    {"i": TensorProto.INT64, "c": TensorProto.BOOL, "s": 1},
    {"more": TensorProto.BOOL, "t": 1},
)
STEP = subgraph(
    [NODE("Add", ["s", "e"], ["t"]), NODE("Identity", ["t"], ["o"])],
    {"s": 1, "e": 1},
    {"t": 1, "o": 1},
)
TOTAL = NODE("GlobalAveragePool", ["x"], ["t"])
MASK = NODE("Greater", ["x", "zero"], ["mask"])
PLACES = NODE("NonZero", ["mask"], ["places"], name="places")
BYTES = {"s": F(0.1), "z": np.uint8(0), "zero": F(0)}
QUANTISE = NODE("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise")
DEQUANTISE = NODE("DequantizeLinear", ["r", "s", "z"], ["y"], name="dequantise")
ONE_PATH = "what it computes depends on the input, and generated C takes one path"
FIXED_SIZES = "how many values it gives depends on the input, and C has fixed sizes"
BESIDE_BITS = "it is part of an 8-bit quantisation that was put round a trained network, while"
LEFT = "PyTorch's exporter had no ONNX for it, and left PyTorch's own operator in the file"
WHERE = "exporters say x[mask] = value this way: write x = torch.where(mask, value, x)"

# What a model holds: the operators that are refused, and of each its node, why, and what to do.
UNSUPPORTED = {
    "If": (
        make(
            TOTAL,
            NODE("Cast", ["t"], ["c"], to=TensorProto.BOOL),
            NODE("If", ["c"], ["y"], name="branch", then_branch=BRANCH, else_branch=BRANCH),
            inputs={"x": [1, 1, 1, 1]},
        ),
        {"If": ("branch", ONE_PATH, "export without branches and loops")},
    ),
    "If by a constant": (
        make(
            NODE("If", ["c"], ["y"], name="branch", then_branch=BRANCH, else_branch=BRANCH),
            constants={"c": np.bool_(True)},
        ),
        {"If": ("branch", ONE_PATH, "export without branches and loops")},
    ),
    "Loop": (
        make(
            NODE("Loop", ["n", "c", "x"], ["y"], name="loop", body=BODY),
            constants={"n": np.int64(3), "c": np.bool_(True)},
        ),
        {"Loop": ("loop", ONE_PATH, "export without branches and loops")},
    ),
    "Scan": (
        make(NODE("Scan", ["x", "x"], ["f", "y"], name="scan", body=STEP, num_scan_inputs=1)),
        {"Scan": ("scan", ONE_PATH, "export without branches and loops")},
    ),
    "LSTM": (
        make(
            NODE("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=4),
            inputs={"x": [1, 1, 4]},
            constants={name: np.ones((1, 16, 4), F) for name in "wr"},
        ),
        {"LSTM": ("lstm", "it carries a state from step to step", "compile what comes before")},
    ),
    "an assignment under a mask": (
        make(
            MASK,
            PLACES,
            NODE("Transpose", ["places"], ["indices"]),
            NODE("ScatterND", ["x", "indices", "ones"], ["y"], name="assign"),
            constants={"zero": F(0), "ones": np.ones(3, F)},
        ),
        {
            "NonZero": ("places", FIXED_SIZES, WHERE),
            "ScatterND": ("assign", "it writes to some places of a tensor", WHERE),
        },
    ),
    "a selection under a mask": (
        make(MASK, NODE("Compress", ["x", "mask"], ["y"], name="pick"), constants={"zero": F(0)}),
        {"Compress": ("pick", FIXED_SIZES, WHERE)},
    ),
    "attention as one operator": (
        make(
            NODE("Attention", ["x", "x", "x"], ["y"], name="attend"),
            inputs={"x": [1, 2, 3, 4]},
            opset=23,
        ),
        {"Attention": ("attend", "it multiplies activations by one another", "keep attention in")},
    ),
    "Einsum": (
        make(NODE("Einsum", ["x", "x"], ["y"], name="sum", equation="bi,bi->bi")),
        {"Einsum": ("sum", "it stands for any product of tensors", "write it with torch.matmul")},
    ),
    "quantised and dequantised": (
        make(
            QUANTISE,
            NODE("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["r"], name="sums"),
            DEQUANTISE,
            constants=BYTES | {"w": np.ones((4, 4), np.uint8)},
        ),
        {
            "QuantizeLinear": ("quantise", BESIDE_BITS, "compile the model from before"),
            "QLinearMatMul": ("sums", BESIDE_BITS, "compile the model from before"),
            "DequantizeLinear": ("dequantise", BESIDE_BITS, "compile the model from before"),
        },
    ),
    "a quantised convolution": (
        make(
            QUANTISE,
            NODE("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["r"], name="sums"),
            DEQUANTISE,
            inputs={"x": ["n", 4, 5, 5]},
            constants=BYTES | {"w": np.ones((2, 4, 3, 3), np.uint8)},
        ),
        {
            "QuantizeLinear": ("quantise", BESIDE_BITS, "compile the model from before"),
            "QLinearConv": ("sums", BESIDE_BITS, "compile the model from before"),
            "DequantizeLinear": ("dequantise", BESIDE_BITS, "compile the model from before"),
        },
    ),
    "dynamic quantisation": (
        make(
            NODE("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="quantise"),
            NODE("MatMulInteger", ["q", "w", "z"], ["r"], name="sums"),
            NODE("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
            constants={"w": np.ones((4, 4), np.uint8)},
        ),
        {
            "DynamicQuantizeLinear": ("quantise", BESIDE_BITS, "compile the model from before"),
            "MatMulInteger": ("sums", BESIDE_BITS, "compile the model from before"),
        },
    ),
    "lists of tensors": (
        make(
            NODE("SequenceConstruct", ["x", "x"], ["l"], name="list"),
            NODE("ConcatFromSequence", ["l"], ["y"], name="join", axis=1),
        ),
        {
            "SequenceConstruct": ("list", "it handles lists of tensors", "pass each tensor"),
            "ConcatFromSequence": ("join", "it handles lists of tensors", "pass each tensor"),
        },
    ),
    "a graph that ONNX Runtime optimised": (
        make(NODE("FusedMatMul", ["x", "x"], ["y"], name="fused", domain="com.microsoft")),
        {
            "com.microsoft.FusedMatMul": (
                "fused",
                "it is ONNX Runtime's own, which its optimiser and quantiser write",
                "compile the model from before ONNX Runtime optimised",
            )
        },
    ),
    "what PyTorch could not export": (
        make(
            NODE("ATen", ["x"], ["a"], name="aten", domain="org.pytorch.aten"),
            NODE("PythonOp", ["a"], ["y"], name="python", domain="prim"),
        ),
        {
            "org.pytorch.aten.ATen": ("aten", LEFT, "export with torch.onnx.export("),
            "prim.PythonOp": ("python", LEFT, "export with torch.onnx.export("),
        },
    ),
    "trees": (
        make(NODE("TreeEnsembleRegressor", ["x"], ["y"], name="trees", domain="ai.onnx.ml")),
        {
            "ai.onnx.ml.TreeEnsembleRegressor": (
                "trees",
                "it is one of ONNX's",
                "export the network",
            )
        },
    ),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_operators(case: str, tmp_path: Path) -> None:
    """Each is named with its node, the reason and a way out, all at once."""
    model, expected = UNSUPPORTED[case]
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    found = caught.value.diagnostics
    assert [(d.code, d.what, d.where) for d in found] == [
        ("BNN007", f'operator "{name}" is not supported (1 node)', f'ONNX node "{node}"')
        for name, (node, _, _) in expected.items()
    ]
    for diagnostic, (_, why, help_text) in zip(found, expected.values(), strict=True):
        assert diagnostic.why.startswith(why)
        assert diagnostic.help.startswith(help_text)


# --- BNN008: uses ---------------------------------------------------------------------------------

IMAGE = {"x": ["n", 4, 5, 5]}
KERNELS = np.ones((2, 4, 3, 3), F)
BATCH = "the batch must stay in dimension 0, where it is 1"
WEIGHTS_VARY = "bnncc packs weights at compile time, so they must not depend on the input"

USES = {
    "Conv of weights from the input": (
        make(
            NODE("Conv", ["x", "w"], ["y"], name="dynamic"),
            inputs=IMAGE | {"w": [1, 4, 3, 3]},
        ),
        "Conv of operands other than an activation and constant weights",
        WEIGHTS_VARY,
    ),
    "Conv of a constant image": (
        make(
            NODE("Conv", ["c", "x"], ["y"]),
            inputs={"x": [1, 4, 3, 3]},
            constants={"c": np.ones((1, 4, 5, 5), F)},
        ),
        "Conv of operands other than an activation and constant weights",
        WEIGHTS_VARY,
    ),
    "Conv with a bias from the input": (
        make(
            NODE("Conv", ["x", "w", "b"], ["y"]),
            inputs=IMAGE | {"b": [1]},
            constants={"w": KERNELS[:1]},
        ),
        'operand "b" of Conv must be a constant',
        "it is computed from the model's input",
    ),
    "the places of a maximum": (
        make(
            NODE("MaxPool", ["x"], ["m", "where"], kernel_shape=[2, 2], name="pool"),
            NODE("Cast", ["where"], ["y"], to=TensorProto.FLOAT),
            inputs=IMAGE,
        ),
        'result "where" of MaxPool is used',
        "bnncc computes only its first result",
    ),
    "a mean over the batch": (
        make(NODE("ReduceMean", ["x"], ["y"], axes=[0, -1])),
        "ReduceMean of shape [1, 4] along axes [0, 1]",
        "dimension 0 is the batch, and generated C computes one sample a call",
    ),
    "a mean over everything": (
        make(NODE("ReduceMean", ["x"], ["y"]), opset=18),
        "ReduceMean of shape [1, 4] along axes [0, 1]",
        "dimension 0 is the batch, and generated C computes one sample a call",
    ),
    "a wide reflection": (
        make(
            NODE("Pad", ["x", "w"], ["y"], mode="reflect"),
            constants={"w": np.array([0, 4, 0, 1])},
        ),
        "Pad of 4 elements by 4 and 1 with mode reflect",
        "there are not so many to reflect",
    ),
    "several exponents": (
        make(NODE("Pow", ["x", "e"], ["y"]), constants={"e": np.array([1, 2, 2, 1], F)}),
        "Pow with more than one exponent",
        '"e" holds 2 different ones',
    ),
    "an odd exponent": (
        make(NODE("Pow", ["x", "e"], ["y"]), constants={"e": F(0.3)}),
        "Pow with exponent 0.300000012",
        "bnncc multiplies, takes roots and divides, accurately for multiples of 1/2 up to 16",
    ),
    "an exponent from the input": (
        make(NODE("Pow", ["e", "x"], ["y"]), constants={"e": F(2)}),
        'operand "x" of Pow must be a constant',
        "it is computed from the model's input",
    ),
    **{
        f"{op_type} of the batch": (
            make(NODE(op_type, ["x", *operands], ["y"], **attributes), constants=operands),
            what,
            BATCH,
        )
        for op_type, operands, attributes, what in (
            ("Split", {}, {"axis": 0}, "Split along dimension 0"),
            ("Gather", {"i": np.array([0])}, {"axis": -2}, "Gather along dimension 0"),
            ("Expand", {"s": np.array([2, 1])}, {}, "Expand of [1, 4] to [2, 4]"),
            ("Tile", {"r": np.array([2, 1])}, {}, "Tile of [1, 4] by [2, 1]"),
        )
    },
    "places from the input": (
        make(
            NODE("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
            NODE("Gather", ["x", "i"], ["y"], axis=1),
        ),
        'operand "i" of Gather must be a constant',
        "it is computed from the model's input",
    ),
    "Resize with cubes": (
        make(
            NODE("Resize", ["x", "", "s"], ["y"], mode="cubic"),
            inputs=IMAGE,
            constants={"s": np.array([1, 1, 2, 2], F)},
        ),
        'Resize with mode "cubic"',
        "bnncc takes the nearest pixels, or linear sums",
    ),
    "Resize of a region": (
        make(
            NODE(
                "Resize",
                ["x", "r", "s"],
                ["y"],
                coordinate_transformation_mode="tf_crop_and_resize",
            ),
            inputs=IMAGE,
            constants={"s": np.array([1, 1, 2, 2], F), "r": np.ones(8, F)},
        ),
        'Resize with coordinates "tf_crop_and_resize"',
        "bnncc has half_pixel, pytorch_half_pixel, align_corners, asymmetric, tf_half_pixel_for_nn",
    ),
    "Resize of channels": (
        make(
            NODE("Resize", ["x", "", "s"], ["y"], mode="linear"),
            inputs=IMAGE,
            constants={"s": np.array([1, 2, 2, 2], F)},
        ),
        "linear Resize of shape [1, 4, 5, 5]",
        "bnncc has it over one or two spatial axes",
    ),
    "Resize without aliases": (
        make(
            NODE("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1),
            inputs=IMAGE,
            constants={"s": np.array([1, 1, 0.5, 0.5], F)},
            opset=18,
        ),
        "Resize with antialias",
        "bnncc has it without",
    ),
    "ConvTranspose of nothing": (
        make(
            NODE(
                "ConvTranspose",
                ["x", "w"],
                ["y"],
                strides=[2, 2],
                output_padding=[1, 1],
                pads=[1, 1, 0, 0],
            ),
            inputs={"x": ["n", 4, 1, 1]},
            constants={"w": np.ones((4, 2, 1, 1), F)},
        ),
        'the result of ConvTranspose by "w" does not depend on its input',
        "pads cut off all outputs that do",
    ),
    "axes too far apart": (
        make(
            NODE("ReduceSum", ["x", "a"], ["y"]),
            inputs={"x": [1, 2, 3, 4, 5, 6]},
            constants={"a": np.array([2, 4])},
        ),
        "ReduceSum of shape [1, 2, 3, 4, 5, 6] along axes [2, 4]",
        "they lie too far apart",
    ),
    "a norm of the batch": (
        make(
            NODE("LayerNormalization", ["x", "g"], ["y"], axis=0),
            constants={"g": np.ones((1, 4), F)},
        ),
        "LayerNormalization over dimension 0",
        "it is the batch",
    ),
    "ConvTranspose of weights from the input": (
        make(NODE("ConvTranspose", ["x", "w"], ["y"]), inputs=IMAGE | {"w": [1, 4, 3, 3]}),
        'operand "w" of ConvTranspose must be a constant',
        "it is computed from the model's input",
    ),
    "negative pads": (
        make(NODE("Pad", ["x", "w"], ["y"]), constants={"w": np.array([0, -1, 0, 1])}),
        "Pad with negative widths",
        "they cut",
    ),
    "a padded batch": (
        make(NODE("Pad", ["x", "w"], ["y"]), constants={"w": np.array([0, 1, 1, 1])}),
        "Pad of the batch",
        BATCH,
    ),
    "pads from the input": (
        make(
            NODE("Cast", ["x"], ["i"], to=TensorProto.INT64),
            NODE("Flatten", ["i"], ["w"], axis=0),
            NODE("Squeeze", ["w", "zero"], ["s"]),
            NODE("Pad", ["x", "s"], ["y"]),
            constants={"zero": np.array([0])},
        ),
        "Cast from f32 to INT64",
        "activations are float32, or truth values on their way to float32",
    ),
    "samples joined": (
        make(NODE("Concat", ["x", "x"], ["y"], axis=-2)),
        "Concat along dimension 0",
        BATCH,
    ),
    "indices joined with numbers": (
        make(
            NODE("ArgMax", ["x"], ["i"], axis=1),
            NODE("Greater", ["x", "z"], ["c"]),
            NODE("Where", ["c", "p", "p"], ["w"]),
            NODE("Concat", ["i", "w"], ["y"], axis=1),
            constants={"z": F(0), "p": np.int64(2)},
            outputs={"y": TensorProto.INT64},
        ),
        "Concat of several element types",
        '"i" is i64, "w" is f32',
    ),
    "a batch that is turned": (
        make(NODE("Transpose", ["x"], ["y"])),
        "Transpose of the axes to [1, 0]",
        BATCH,
    ),
    "a slice of nothing": (
        make(
            NODE("Slice", ["x", "s", "e", "a"], ["y"]),
            constants={n: np.array([v]) for n, v in {"s": 3, "e": 2, "a": 1}.items()},
        ),
        "Slice of [1, 4] from [3] to [2]",
        "nothing is left",
    ),
    "a slice of samples": (
        make(NODE("Slice", ["x"], ["y"], starts=[1], ends=[2]), opset=9),
        "Slice of the batch",
        BATCH,
    ),
    "softmax over pixels": (
        make(NODE("Softmax", ["x"], ["y"], axis=1), inputs=IMAGE),
        "Softmax of shape [1, 4, 5, 5] along axis 1",
        "bnncc has it over the classes of [1, classes]",
    ),
    "softmax over the batch": (
        make(NODE("Softmax", ["x"], ["y"], axis=-2)),
        "Softmax of shape [1, 4] along axis 0",
        "bnncc has it over the classes of [1, classes]",
    ),
    "the last of the largest": (
        make(
            NODE("ArgMax", ["x"], ["y"], axis=1, select_last_index=1),
            outputs={"y": TensorProto.INT64},
        ),
        "ArgMax with select_last_index",
        "among equal values, bnncc takes the lowest index, as most frameworks do",
    ),
    "the largest of a batch": (
        make(NODE("ArgMax", ["x"], ["y"]), outputs={"y": TensorProto.INT64}),
        "ArgMax of shape [1, 4] along axis 0",
        "bnncc has it over the classes of [1, classes]",
    ),
    "the smallest": (
        make(NODE("TopK", ["x", "k"], ["y", "i"], largest=0), constants={"k": np.array([2])}),
        "TopK with largest=0",
        "bnncc finds the largest values, not the smallest",
    ),
    "the largest in any order": (
        make(NODE("TopK", ["x", "k"], ["y", "i"], sorted=0), constants={"k": np.array([2])}),
        "TopK with sorted=0",
        "bnncc sorts the values, which changes the order of the model's results",
    ),
    "indices to compute with": (
        make(
            NODE("ArgMax", ["x"], ["i"], axis=1),
            NODE("Greater", ["x", "z"], ["c"]),
            NODE("Where", ["c", "i", "p"], ["y"]),
            constants={"z": F(0), "p": np.int64(2)},
            outputs={"y": TensorProto.INT64},
        ),
        "element type of Where",
        '"i" holds indices, which bnncc passes on and does not compute on',
    ),
    "indices as numbers": (
        make(
            NODE("ArgMax", ["x"], ["i"], axis=1),
            NODE("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ),
        "Cast from i64 to FLOAT",
        "activations are float32, or truth values on their way to float32",
    ),
    "MatMul of activations": (
        make(NODE("MatMul", ["x", "x"], ["y"], name="attend"), inputs={"x": [1, 1]}),
        'MatMul of two activations, "x" and "x"',
        "bnncc packs weights at compile time; products of activations, as in attention, have none",
    ),
    "MatMul from the left": (
        make(NODE("MatMul", ["w", "x"], ["y"]), constants={"w": np.ones((1, 1), F)}),
        "MatMul of a constant and an activation",
        '"x" has shape [1, 4], and bnncc multiplies from the left only [batch, features, tokens]',
    ),
    "MatMul by a vector": (
        make(NODE("MatMul", ["x", "w"], ["y"]), constants={"w": np.ones(4, F)}),
        'weights "w" are not a matrix',
        "their shape is [4]",
    ),
    "Gemm transA": (
        make(
            NODE("Gemm", ["x", "w"], ["y"], transA=1),
            inputs={"x": [1, 1]},
            constants={"w": np.ones((1, 3), F)},
        ),
        "Gemm with transA",
        "the batch would be summed over",
    ),
    "an addend for each sample": (
        make(NODE("Add", ["x", "c"], ["y"]), constants={"c": np.ones((3, 4), F)}),
        "broadcasting of Add",
        "shapes [1, 4], [3, 4] broadcast along the batch, which is dimension 0",
    ),
    "a batch that moves": (
        make(NODE("Add", ["x", "c"], ["y"]), constants={"c": np.ones((2, 1, 4), F)}),
        "broadcasting of Add",
        "shapes [1, 4], [2, 1, 4] broadcast along the batch, which is dimension 0",
    ),
    "a batch that is split": (
        make(NODE("Reshape", ["x", "s"], ["y"]), constants={"s": np.array([2, 2])}),
        "Reshape from [1, 4] to [2, 2]",
        "the batch must stay in dimension 0, where it is 1",
    ),
    "a batch that is squeezed": (
        make(NODE("Squeeze", ["x"], ["y"])),
        "Squeeze from [1, 4] to [4]",
        "the batch must stay in dimension 0, where it is 1",
    ),
    "double precision": (
        make(
            NODE("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
            NODE("Mul", ["d", "c"], ["e"]),
            NODE("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
            constants={"c": np.float64(0.1)},
        ),
        "Cast computes DOUBLE",
        "activations are float32 or truth values",
    ),
    "integer division": (
        make(
            NODE("Greater", ["x", "z"], ["c"]),
            NODE("Where", ["c", "p", "n"], ["w"]),
            NODE("Div", ["w", "p"], ["q"]),
            NODE("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
            constants={"z": F(0), "p": np.int64(2), "n": np.int64(-1)},
        ),
        "Div computes INT64",
        "activations are float32 or truth values",
    ),
    "integers that float32 does not hold": (
        make(
            NODE("Greater", ["x", "z"], ["c"]),
            NODE("Where", ["c", "p", "n"], ["w"]),
            NODE("Cast", ["w"], ["y"], to=TensorProto.FLOAT),
            constants={"z": F(0), "p": np.int64(2**24 + 1), "n": np.int64(-1)},
        ),
        'constant "p" does not fit float32',
        "it is computed in int64, and float32 does not hold its values",
    ),
    "a bound for each channel": (
        make(NODE("Clip", ["x", "low"], ["y"]), constants={"low": np.zeros(4, F)}),
        "the bound min of Clip is a tensor of 4 values",
        "",
    ),
    "the mask of a Dropout": (
        make(
            NODE("Dropout", ["x"], ["d", "mask"], name="drop"),
            NODE("Where", ["mask", "d", "x"], ["y"]),
        ),
        'result "mask" of Dropout is used',
        "bnncc computes only its first result",
    ),
    "an input as output": (
        make(NODE("Abs", ["x"], ["y"]), outputs=["y", "x"]),
        'there is nothing to compute for output "x"',
        "it is one of the model's inputs",
    ),
    "an empty graph": (
        make(outputs=["x"]),
        'there is nothing to compute for output "x"',
        "it is one of the model's inputs",
    ),
    "a constant as output": (
        make(NODE("Abs", ["c"], ["y"]), constants={"c": np.ones(4, F)}),
        'there is nothing to compute for output "y"',
        "it does not depend on the model's input",
    ),
    "integer output": (
        make(
            NODE("Greater", ["x", "z"], ["c"]),
            NODE("Where", ["c", "p", "p"], ["y"]),
            constants={"z": F(0), "p": np.int64(2)},
            outputs={"y": TensorProto.INT64},
        ),
        'output "y" has element type INT64',
        "",
    ),
    "statistics from the input": (
        make(
            NODE("Flatten", ["x"], ["f"]),
            NODE("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"]),
            inputs={"x": [1, 1], "g": [1]},
            constants={n: np.ones(1, F) for n in "bmv"},
        ),
        'operand "g" of BatchNormalization must be a constant',
        "it is computed from the model's input",
    ),
}


@pytest.mark.parametrize("case", USES)
def test_unsupported_uses(case: str, tmp_path: Path) -> None:
    model, what, why = USES[case]
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    (found,) = caught.value.diagnostics
    assert (found.code, found.what, found.why) == ("BNN008", what, why)


def test_every_refused_node_is_reported_and_what_depends_on_it_is_not(tmp_path: Path) -> None:
    model = make(
        NODE("Cast", ["x"], ["a"], to=TensorProto.INT64, name="first"),
        NODE("Cast", ["a"], ["b"], to=TensorProto.FLOAT, name="after"),
        NODE("MatMul", ["x", "w"], ["c"], name="second"),
        NODE("Add", ["b", "c"], ["y"]),
        constants={"w": np.ones((4, 4), np.float32)},
    )
    model.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [np.nan] * 16)
    )
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    assert [(d.code, d.where) for d in caught.value.diagnostics] == [
        ("BNN008", 'ONNX node "first"'),
        ("BNN009", 'ONNX node "second"'),
    ]


# --- BNN009, BNN010: numbers ----------------------------------------------------------------------


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    weights = ONES.copy()
    weights[0] = np.nan, np.inf, -np.inf
    model = make(NODE("Gemm", ["x", "w"], ["y"], name="fc"), constants={"w": weights})
    assert refusal(model, tmp_path) == (
        'error[BNN009]: tensor "w" holds 1 NaN and 2 infinite values among 12 values\n'
        '  where: ONNX node "fc"\n'
        "  why:   no threshold can be read off a layer whose parameters are not numbers\n"
        "  help:  train again with a smaller learning rate, or export an earlier checkpoint"
    )


def test_latent_weights_that_are_not_numbers(tmp_path: Path) -> None:
    """Where(W >= 0, 1, -1) would quietly make a -1 of NaN."""
    weights = ONES.copy()
    weights[2, 2] = np.nan
    model = make(
        NODE("GreaterOrEqual", ["w", "zero"], ["c"], name="compare"),
        NODE("Where", ["c", "one", "minus"], ["b"]),
        NODE("MatMul", ["x", "b"], ["y"]),
        constants={"w": weights, "zero": F(0), "one": F(1), "minus": F(-1)},
    )
    assert refusal(model, tmp_path).startswith(
        'error[BNN009]: tensor "w" holds 1 NaN among 12 values\n  where: ONNX node "compare"\n'
    )


def test_computed_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = make(
        NODE("Log", ["w"], ["l"]),
        NODE("MatMul", ["x", "l"], ["y"], name="fc"),
        constants={"w": ONES * 0},
    )
    assert refusal(model, tmp_path).startswith(
        'error[BNN009]: tensor "l" holds 12 infinite values among 12 values\n'
        '  where: ONNX node "fc"\n'
    )


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_statistics_that_are_not_numbers(name: str, value: float, tmp_path: Path) -> None:
    model = normalised(**{name: np.array([1, 1, value, 1], F)})
    assert refusal(model, tmp_path).startswith(f'error[BNN009]: tensor "{name}" holds 1 ')


NOT_NUMBERS = [
    make(NODE("Gemm", ["x", "w"], ["y"], alpha=np.nan), constants={"w": ONES}),
    make(NODE("LeakyRelu", ["x"], ["y"], alpha=np.inf)),
    make(NODE("HardSigmoid", ["x"], ["y"], beta=-np.inf)),
    normalised(epsilon=np.nan),
    make(NODE("Clip", ["x", "low"], ["y"]), constants={"low": F(np.nan)}),
    make(NODE("Clip", ["x"], ["y"], max=np.nan), opset=9),
]


@pytest.mark.parametrize("model", NOT_NUMBERS, ids=range(len(NOT_NUMBERS)))
def test_attributes_that_are_not_numbers(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert refusal(model, tmp_path).startswith("error[BNN009]")


def test_infinite_bounds_of_constants_are_no_damage(tmp_path: Path) -> None:
    model = make(
        NODE("Clip", ["w", "low", "high"], ["c"]),
        NODE("MatMul", ["x", "c"], ["y"]),
        constants={"w": ONES, "low": F(-np.inf), "high": F(0.5)},
    )
    assert_agrees(load(model, tmp_path), {"x": hostile(1e10)})


@pytest.mark.parametrize(
    ("variance", "epsilon", "why"),
    [
        (
            [1, 0, -0.0, 2],
            0.0,
            "2 of 4 channels are negative, or zero with epsilon zero; "
            "channel 1 is 0 with epsilon 0",
        ),
        (
            [1, 2, -1e-6, 2],
            1e-5,
            "1 of 4 channels are negative, or zero with epsilon zero; "
            "channel 2 is -1e-06 with epsilon 1e-05",
        ),
        (
            [1e-6, 1, 1, 1],
            -1.0,
            "4 of 4 channels are negative, or zero with epsilon zero; "
            "channel 0 is 1e-06 with epsilon -1",
        ),
    ],
)
def test_variances_that_have_no_root(
    variance: list[float], epsilon: float, why: str, tmp_path: Path
) -> None:
    model = normalised(v=np.array(variance, F), epsilon=epsilon)
    assert refusal(model, tmp_path) == (
        'error[BNN010]: variance "v" cannot be normalised by\n'
        '  where: ONNX node "bn"\n'
        f"  why:   {why}\n"
        "  help:  export again from a checkpoint whose running statistics are intact"
    )


# --- BNN012: chance -------------------------------------------------------------------------------


def test_random_operators(tmp_path: Path) -> None:
    model = make(
        NODE("RandomUniformLike", ["x"], ["r"], name="RandomUniformLike_3"),
        NODE("RandomNormal", [], ["noise"], shape=[4], name="noise"),
        NODE("Less", ["x", "r"], ["c"]),
        NODE("Where", ["c", "noise", "x"], ["y"]),
    )
    assert refusal(model, tmp_path) == (
        "error[BNN012]: the model draws random numbers (2 nodes: RandomUniformLike, RandomNormal)\n"
        '  where: ONNX nodes "RandomUniformLike_3", "noise"\n'
        "  why:   stochastic binarisation or noise was left on, so there is nothing fixed to "
        "compile\n"
        "  help:  export in eval mode (model.eval()), with a sign in place of torch.bernoulli or "
        "torch.rand"
    )


@pytest.mark.parametrize(
    "draw",
    [
        NODE("Bernoulli", ["x"], ["r"], name="draw"),
        NODE("RandomNormalLike", ["x"], ["r"], name="draw"),
        NODE("RandomUniform", [], ["r"], name="draw", shape=[1, 4]),
        NODE("Multinomial", ["x"], ["r"], name="draw", sample_size=4),
    ],
    ids=lambda node: node.op_type,
)
def test_each_random_operator(draw: onnx.NodeProto, tmp_path: Path) -> None:
    """Though some read nothing, none is a constant."""
    model = make(draw, NODE("Cast", ["r"], ["y"], to=TensorProto.FLOAT), opset=15)
    assert refusal(model, tmp_path).startswith(
        f"error[BNN012]: the model draws random numbers (1 node: {draw.op_type})\n"
        '  where: ONNX node "draw"\n'
    )


def test_training_mode(tmp_path: Path) -> None:
    dropout = make(
        NODE("Dropout", ["x", "r", "t"], ["y"], name="drop"),
        constants={"r": F(0.5), "t": np.bool_(True)},
    )
    results = ["y", "m2", "v2"]
    newer = make(
        NODE("BatchNormalization", ["x", *STATISTICS], results, name="bn", training_mode=1),
        constants=STATISTICS,
    )
    older = make(
        NODE("BatchNormalization", ["x", *STATISTICS], [*results, "m3", "v3"], name="bn"),
        constants=STATISTICS,
        opset=9,
    )
    help_text = "  help:  export in eval mode: call model.eval() before torch.onnx.export"
    assert refusal(dropout, tmp_path) == (
        'error[BNN012]: Dropout in training mode\n  where: ONNX node "drop"\n'
        f"  why:   it draws random numbers, so that there is nothing fixed to compile\n{help_text}"
    )
    for model in (newer, older):
        assert refusal(model, tmp_path) == (
            'error[BNN012]: BatchNormalization in training mode\n  where: ONNX node "bn"\n'
            "  why:   it normalises by each batch's own statistics, so that nothing can be folded\n"
            f"{help_text}"
        )


# --- Names ----------------------------------------------------------------------------------------

NASTY = [
    "*/ system(0); /*",
    "a\nb\r\\\n#define x",
    "quote\" and \\ and '",
    "int",
    "名前\u202e\u0000\x1b[31m",
    "x" * 10_000,
    "t0",
    "@1@",
    " ",
    "y.sum",
    "%s%n",
]


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_nasty_names_are_kept_and_shown_safely(nasty: str, tmp_path: Path) -> None:
    nasty = nasty.replace("\0", "")
    x, w, b, h = (f"{nasty}{suffix}" for suffix in ("", "'", "''", "'''"))
    model = make(
        NODE("Neg", [w], [f"{w}-"], name=nasty),
        NODE("Gemm", [x, f"{w}-", b], [h], name=nasty),
        NODE("Sign", [h], [f"{nasty}!"], name=nasty),
        inputs={x: ["n", 4]},
        outputs=[f"{nasty}!"],
        constants={w: ONES, b: np.arange(3, dtype=F)},
    )
    imported = load(model, tmp_path)
    assert imported.graph.outputs == (f"{nasty}!",)
    assert h in imported.graph.types
    assert imported.graph.nodes[-1].origin == (nasty,)
    assert_agrees(imported, {x: hostile(1e10)})

    model.graph.node[2].op_type = "Nonsense" + nasty
    unknown = refusal(model, tmp_path)
    model.graph.node[2].op_type = "Sign"
    model.graph.node[2].input[0] = f"{nasty} missing"
    undefined = refusal(model, tmp_path)
    model.graph.node[2].input[0] = h
    model.graph.initializer[0].dims[:] = [3, 4]
    mismatch = refusal(model, tmp_path)
    for text in (unknown, undefined, mismatch):
        assert len(text) < 1000
        assert all(line.isprintable() for line in text.split("\n"))
        assert len(text.split("\n")) <= 4


def test_derived_names_give_way_to_the_model_s(tmp_path: Path) -> None:
    model = make(
        NODE("Gemm", ["x", "w", "b"], ["y"]),
        NODE("Abs", ["y"], ["y.sum"]),
        NODE("Neg", ["y.sum"], ["y.sum.1"]),
        NODE("Add", ["y.sum.1", "w.transposed"], ["out"]),
        outputs=["out"],
        constants={"w": ONES, "b": np.ones(3, F), "w.transposed": F(2)},
    )
    imported = load(model, tmp_path)
    assert [node.output for node in imported.graph.nodes] == [
        *("y.sum.2", "y", "y.sum", "y.sum.1", "out")
    ]
    assert_agrees(imported, {"x": hostile(1e10)})


@pytest.mark.parametrize("name", ["value_int", "value_ints", "value_float", "value_floats"])
def test_a_constant_that_refers_to_no_functions_attribute(name: str, tmp_path: Path) -> None:
    given = {"value_int": 0, "value_ints": [0], "value_float": 0.0, "value_floats": [0.0]}[name]
    model = make(NODE("Constant", [], ["c"], **{name: given}), NODE("Relu", ["x"], ["y"]))
    model.graph.node[0].attribute[0].ref_attr_name = "a"
    assert refusal(model, tmp_path).startswith("error[BNN003]: ")
