"""Constants are evaluated by ONNX Runtime, shapes from what is known, and nothing without bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import constants, site
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make, oracle, saved

F = np.float32
ROOT = Path(__file__).resolve().parents[2]


def operations(imported) -> list[str]:
    return [node.op.name for node in imported.graph.nodes]


def test_means_round_as_in_onnx_runtime(tmp_path: Path) -> None:
    """XNOR-Net's weights: sign(W) * mean(|W|), over enough values for the order to matter."""
    weights = np.random.default_rng(0).standard_normal((4, 5000), F).T.copy()
    model = make(
        NODE("Transpose", ["w"], ["t"]),
        NODE("Abs", ["t"], ["a"]),
        NODE("ReduceMean", ["a"], ["m"], axes=[1], keepdims=1),
        NODE("Sign", ["t"], ["s"]),
        NODE("Mul", ["s", "m"], ["ws"]),
        NODE("Gemm", ["x", "ws"], ["y"], transB=1),
        inputs={"x": ["n", 5000]},
        constants={"w": weights},
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["MatMul"]
    (expected,) = oracle(imported.source, {"x": np.zeros((1, 5000), F)}, ["ws"])
    np.testing.assert_array_equal(imported.graph.constants["ws"], expected)
    assert list(imported.graph.constants) == ["ws"]


def test_a_bias_of_zeros_in_the_type_of_the_input(tmp_path: Path) -> None:
    """What PyTorch's exporter, told not to optimise, adds to a convolution without a bias."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), F)
    model = make(
        NODE("CastLike", ["zero", "x"], ["typed"]),
        NODE("Expand", ["typed", "channels"], ["bias"]),
        NODE("Conv", ["x", "w", "bias"], ["y"]),
        inputs={"x": ["n", 3, 5, 5]},
        constants={"w": weights, "zero": np.float64(0), "channels": np.array([4])},
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["Conv", "Add"]
    assert_agrees(imported, {"x": np.random.default_rng(1).standard_normal((2, 3, 5, 5), F)})


def test_kernels_of_a_power_of_two(tmp_path: Path) -> None:
    """IR-Net's weights: standardised a filter, times 2 ** round(log2(mean |W|))."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), F)
    model = make(
        NODE("Reshape", ["w", "rows"], ["r"]),
        NODE("ReduceMean", ["r"], ["m"], axes=[1], keepdims=1),
        NODE("Sub", ["r", "m"], ["centred"]),
        NODE("Mul", ["centred", "centred"], ["squares"]),
        NODE("ReduceMean", ["squares"], ["v"], axes=[1], keepdims=1),
        NODE("Sqrt", ["v"], ["deviation"]),
        NODE("Div", ["centred", "deviation"], ["standard"]),
        NODE("Abs", ["standard"], ["a"]),
        NODE("ReduceMean", ["a"], ["alpha"], axes=[1], keepdims=1),
        NODE("Log", ["alpha"], ["log"]),
        NODE("Div", ["log", "log_two"], ["log2"]),
        NODE("Round", ["log2"], ["power"]),
        NODE("Pow", ["two", "power"], ["scale"]),
        NODE("Shape", ["standard"], ["shape"]),
        NODE("ConstantOfShape", ["shape"], ["zeros"]),
        NODE("GreaterOrEqual", ["standard", "zeros"], ["ge"]),
        NODE("Where", ["ge", "scale", "minus"], ["binary"]),
        NODE("ScatterND", ["binary", "place", "value"], ["patched"]),
        NODE("Gather", ["kernel", "order"], ["kernel_shape"]),
        NODE("ReduceProd", ["kernel_shape"], ["count"], keepdims=0),
        NODE("Cast", ["count"], ["real_count"], to=TensorProto.FLOAT),
        NODE("Div", ["patched", "real_count"], ["divided"]),
        NODE("Reshape", ["divided", "kernel_shape"], ["kernels"]),
        NODE("Conv", ["x", "kernels"], ["y"]),
        inputs={"x": ["n", 3, 4, 4]},
        constants={
            "w": weights,
            "rows": np.array([4, -1]),
            "log_two": np.log(F(2)),
            "two": F(2),
            "minus": F(-0.75),
            "place": np.array([[1, 1]]),
            "value": np.array([0.5], F),
            "kernel": np.array([3, 4]),
            "order": np.array([1, 0, 0, 0]),
        },
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["Conv"]
    (expected,) = oracle(imported.source, {"x": np.zeros((1, 3, 4, 4), F)}, ["kernels"])
    np.testing.assert_array_equal(imported.graph.constants["kernels"], expected)
    assert expected[1, 0, 0, 1] == F(0.5) / F(108)


def test_a_convolution_of_constants_is_one(tmp_path: Path) -> None:
    model = make(
        NODE("Conv", ["image", "w"], ["c"]),
        NODE("Add", ["x", "c"], ["y"]),
        inputs={"x": ["n", 2, 2, 2]},
        constants={"image": np.ones((1, 3, 4, 4), F), "w": np.ones((2, 3, 3, 3), F)},
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["Add"]
    assert (imported.graph.constants["c"] == 27).all()


def test_transposed_kernels_are_stored_in_order(tmp_path: Path) -> None:
    """What tf2onnx leaves of Keras' [height, width, in, out]."""
    kernels = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(F)
    model = make(
        NODE("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1]),
        NODE("Conv", ["x", "t"], ["y"]),
        inputs={"x": ["n", 4, 3, 3]},
        constants={"w": kernels},
    )
    stored = load(model, tmp_path).graph.constants["t"]
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, kernels.transpose(3, 2, 0, 1))


def test_shape_chains_of_the_script_exporter(tmp_path: Path) -> None:
    """x.view(x.size(0), -1), and a bias expanded to the batch."""
    model = make(
        NODE("Shape", ["x"], ["shape"]),
        NODE("Constant", [], ["zero"], value_int=0),
        NODE("Gather", ["shape", "zero"], ["n"], axis=0),
        NODE("Constant", [], ["axes"], value_ints=[0]),
        NODE("Unsqueeze", ["n", "axes"], ["n1"]),
        NODE("Constant", [], ["rest"], value_ints=[-1]),
        NODE("Concat", ["n1", "rest"], ["target"], axis=0),
        NODE("Reshape", ["x", "target"], ["flat"]),
        NODE("Shape", ["flat"], ["flat_shape"]),
        NODE("Expand", ["bias", "flat_shape"], ["wide"]),
        NODE("Add", ["flat", "wide"], ["y"]),
        inputs={"x": ["n", 2, 2]},
        constants={"bias": np.arange(4, dtype=F)},
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["Reshape", "Add"]
    assert imported.graph.constants["wide"].shape == (1, 4)
    assert_agrees(imported, {"x": hostile().reshape(-1, 2, 2)})


def test_shapes_that_become_known_only_by_values(tmp_path: Path) -> None:
    """Shape inference cannot follow the division; the value it gets after folding it can."""
    model = make(
        NODE("Shape", ["x"], ["s"], start=1),
        NODE("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        NODE("Sqrt", ["f"], ["r"]),
        NODE("Cast", ["r"], ["side"], to=TensorProto.INT64),
        NODE("Concat", ["minus", "side", "side"], ["target"], axis=0),
        NODE("Reshape", ["x", "target"], ["square"]),
        NODE("Shape", ["square"], ["square_shape"]),
        NODE("ConstantOfShape", ["square_shape"], ["zeros"]),
        NODE("Size", ["square"], ["size"]),
        NODE("Cast", ["size"], ["fsize"], to=TensorProto.FLOAT),
        NODE("Sub", ["square", "zeros"], ["difference"]),
        NODE("Mul", ["difference", "fsize"], ["y"]),
        constants={"minus": np.array([-1])},
    )
    imported = load(model, tmp_path)
    assert operations(imported) == ["Reshape", "Sub", "Mul"]
    assert imported.graph.constants["zeros"].shape == (1, 2, 2)
    assert_agrees(imported, {"x": hostile()})


def test_sizes_that_depend_on_values(tmp_path: Path) -> None:
    model = make(
        NODE("NonZero", ["mask"], ["where"]),
        NODE("Squeeze", ["where", "zero"], ["indices"]),
        NODE("Gather", ["table", "indices"], ["chosen"]),
        NODE("Add", ["x", "chosen"], ["y"]),
        constants={
            "mask": np.arange(2000) % 500 == 0,
            "table": np.arange(2000, dtype=F),
            "zero": np.array([0]),
        },
    )
    imported = load(model, tmp_path)
    assert imported.graph.constants["chosen"].tolist() == [0, 500, 1000, 1500]


def test_shared_and_transposed_constants_are_stored_once(tmp_path: Path) -> None:
    weights = np.arange(16, dtype=F).reshape(4, 4)
    model = make(
        NODE("Transpose", ["w"], ["t"], perm=[1, 0]),
        NODE("MatMul", ["x", "t"], ["a"]),
        NODE("Gemm", ["a", "w"], ["b"], transB=1),
        NODE("MatMul", ["b", "t"], ["c"]),
        NODE("Add", ["c", "w.transposed"], ["y"]),
        constants={"w": weights, "w.transposed": F(1)},
    )
    imported = load(model, tmp_path)
    assert set(imported.graph.constants) == {"t.transposed", "w", "w.transposed"}
    for name in ("t.transposed", "w"):
        np.testing.assert_array_equal(imported.graph.constants[name], weights)
        assert imported.graph.constants[name].flags.c_contiguous
    assert_agrees(imported, {"x": hostile(1e10)})


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (64, 64), (65, 129), (500, 1)])
def test_transposed(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape).astype(F)
    for given in (matrix, np.asfortranarray(matrix)):
        result = site.transposed(given)
        np.testing.assert_array_equal(result, matrix.T)
        assert result.flags.c_contiguous


def test_transposed_constant_as_an_operand_of_an_elementwise_operator(tmp_path: Path) -> None:
    model = make(
        NODE("Transpose", ["c"], ["t"]),
        NODE("Add", ["x", "t"], ["y"]),
        constants={"c": np.eye(4, 1, dtype=F)},
    )
    assert_agrees(load(model, tmp_path), {"x": hostile()})


def test_dead_nodes_do_not_matter(tmp_path: Path) -> None:
    model = make(
        NODE("Abs", ["x"], ["y"]),
        NODE("Softmax", ["x"], ["unused"]),
        NODE("RandomNormalLike", ["x"], ["noise"]),
        NODE("Abs", ["broken"], ["z"]),
        constants={"broken": np.array([np.nan, 1], F)},
    )
    assert operations(load(model, tmp_path)) == ["Abs"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_constants_computed_in_other_types(dtype: str, tmp_path: Path) -> None:
    model = make(
        NODE("Cast", ["c"], ["w"], to=TensorProto.FLOAT),
        NODE("Mul", ["x", "w"], ["y"]),
    )
    element = {"bfloat16": TensorProto.BFLOAT16}.get(dtype) or helper.np_dtype_to_tensor_dtype(
        np.dtype(dtype)
    )
    model.graph.initializer.append(helper.make_tensor("c", element, [4], [-1.5, 2, -0.25, 0]))
    imported = load(model, tmp_path)
    assert imported.graph.constants["w"].tolist() == [-1.5, 2, -0.25, 0]


def test_constants_are_read_only(tmp_path: Path) -> None:
    model = make(NODE("Mul", ["x", "w"], ["y"]), constants={"w": np.ones(4, F)})
    with pytest.raises(ValueError, match="read-only"):
        load(model, tmp_path).graph.constants["w"][0] = 2


# --- Bounds ---------------------------------------------------------------------------------------


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, folder)
    return str(caught.value)


def test_bombs_are_not_computed(tmp_path: Path) -> None:
    model = make(
        NODE("ConstantOfShape", ["s"], ["c"], name="bomb"),
        NODE("ReduceSum", ["c"], ["r"], keepdims=0, name="sum"),
        NODE("Add", ["x", "r"], ["y"]),
        constants={"s": np.array([2**20, 2**20])},
    )
    assert refusal(model, tmp_path) == (
        "error[BNN005]: computing the model's constants takes 4398046511108 bytes\n"
        '  where: ONNX nodes "bomb", "sum"\n'
        "  why:   the limit is 2147483648 bytes"
    )


def test_activations_have_the_same_bound(tmp_path: Path) -> None:
    model = make(
        NODE("Unsqueeze", ["x", "one"], ["u"]),
        NODE("Unsqueeze", ["x", "two"], ["v"]),
        NODE("Add", ["u", "v"], ["y"]),
        inputs={"x": ["n", 2**20]},
        constants={"one": np.array([1]), "two": np.array([2])},
    )
    assert refusal(model, tmp_path).startswith("error[BNN005]: Add computes 4398046511104 bytes")


def test_what_is_kept_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "MAX_TENSOR_BYTES", 100_000)
    nodes = [NODE("Neg", [f"w{i}"], [f"n{i}"]) for i in range(3)]
    nodes += [NODE("Mul", ["x" if i == 0 else f"m{i - 1}", f"n{i}"], [f"m{i}"]) for i in range(3)]
    model = make(
        *nodes,
        inputs={"x": ["n", 10_000]},
        outputs=["m2"],
        constants={f"w{i}": np.ones(10_000, F) for i in range(3)},
    )
    assert "computing the model's constants takes 120000 bytes" in refusal(model, tmp_path)


def test_sizes_that_stay_unknown(tmp_path: Path) -> None:
    model = make(
        NODE("SequenceConstruct", ["c", "c"], ["s"], name="pack"),
        NODE("SequenceAt", ["s", "zero"], ["a"]),
        NODE("Add", ["x", "a"], ["y"]),
        constants={"c": np.ones(4, F), "zero": np.int64(0)},
    )
    assert refusal(model, tmp_path) == (
        "error[BNN008]: SequenceConstruct cannot be computed at compile time\n"
        '  where: ONNX node "pack"\n'
        "  why:   the size of its result is not known before"
    )


def test_loops_are_not_computed(tmp_path: Path) -> None:
    model = make(
        NODE("Loop", ["n", "", "c"], ["l"], name="loop", body=make().graph),
        NODE("Add", ["x", "l"], ["y"]),
        constants={"n": np.int64(3), "c": F(0)},
    )
    assert refusal(model, tmp_path).startswith(
        'error[BNN007]: operator "Loop" is not supported (1 node)\n  where: ONNX node "loop"'
    )


def test_constants_that_cannot_be_computed(tmp_path: Path) -> None:
    model = make(
        NODE("Gather", ["table", "index"], ["g"], name="pick"),
        NODE("Mul", ["x", "g"], ["y"]),
        constants={"table": np.ones((2, 4), F), "index": np.int64(7)},
    )
    found = refusal(model, tmp_path)
    assert found.startswith(
        'error[BNN003]: constants behind "g" cannot be computed\n  where: ONNX node "pick"\n'
    )
    assert "out of data bounds" in found


# --- Size -----------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from pathlib import Path
from bnncc.frontends.onnx import load_onnx
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_onnx(Path(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_large_latent_weights_take_four_times_the_file(tmp_path: Path) -> None:
    """The file, its latent weights, the folded ones, and what Where takes for one layer."""
    nodes, tensors = [], {"zero": F(0), "one": F(1), "minus": F(-1)}
    for i in range(3):
        tensors[f"w{i}"] = np.random.default_rng(i).standard_normal((2048, 2048), F)
        nodes += [
            NODE("GreaterOrEqual", [f"w{i}", "zero"], [f"c{i}"]),
            NODE("Where", [f"c{i}", "one", "minus"], [f"b{i}"]),
            NODE("Gemm", [f"x{i}" if i else "x", f"b{i}"], [f"x{i + 1}"], transB=1),
        ]
    model = make(*nodes, inputs={"x": ["n", 2048]}, outputs=["x3"], constants=tensors)
    path = saved(model, tmp_path)
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 4.5 * path.stat().st_size
