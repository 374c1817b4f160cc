"""Convolutions and pools of any attributes are ONNX Runtime's, or refused where it has none."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import Imported
from bnncc.frontends.onnx.runtime import ERRORS
from bnncc.ir import interpret
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.types import Array
from bnncc.ir.window import Axis, Window
from tests.frontends.builders import NODE, load, make, oracle

F = np.float32
OPSETS = st.sampled_from([9, 10, 11, 12, 13, 17, 18, 19, 21, 22])


@st.composite
def windows(draw: st.DrawFn, most_pad: int, dilated: bool) -> tuple[list[int], dict[str, object]]:
    """Return the sizes of an image, and attributes of a window over it."""
    rank = draw(st.integers(1, 2))

    def each(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    attributes: dict[str, object] = {"kernel_shape": each(1, 4)}
    if draw(st.booleans()):
        attributes["strides"] = each(1, 4)
    auto = draw(st.sampled_from([None, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto:
        attributes["auto_pad"] = auto
    if auto in (None, "NOTSET") and draw(st.booleans()):
        attributes["pads"] = each(0, most_pad, 2 * rank)
    if dilated and draw(st.booleans()):
        attributes["dilations"] = each(1, 3)
    return each(1, 9), attributes


def whole_numbers(shape: tuple[int, ...]) -> Array:
    """Return small integers, of which every sum is exact in any order."""
    return np.random.default_rng(sum(shape)).integers(-9, 10, shape).astype(F)


def imported(model: onnx.ModelProto) -> Imported | None:
    """Return the model, or None if it is refused, which it must be for a reason."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return load(model, Path(folder))
        except UnsupportedModelError as error:
            refusal = str(error)
    # A window larger than the image has no results, and in ONNX Runtime at times some that it reads
    # beyond the image.
    known = ("does not fit", "the reference", "see nothing but padding")
    assert any(reason in refusal for reason in known) or not runs(model), refusal
    return None


def runs(model: onnx.ModelProto) -> bool:
    shape = [1, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    try:
        oracle(model, {"x": np.zeros(shape, F)}, ["y"])
    except ERRORS:
        return False
    return True


def same(model: onnx.ModelProto) -> Imported:
    """Both compute the same of whole numbers."""
    read = imported(model)
    assume(read is not None)
    assert read is not None
    x = whole_numbers((2, *read.graph.types["x"].shape[1:]))
    (expected,) = oracle(read.source, {"x": x}, ["y"])
    actual = interpret.run(read.graph, {"x": x})["y"]
    np.testing.assert_array_equal(actual, expected, strict=True)
    return read


@given(windows(5, dilated=True), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), OPSETS)
def test_convolutions(
    given_window: tuple[list[int], dict[str, object]],
    groups: int,
    channels_in: int,
    channels_out: int,
    opset: int,
) -> None:
    sizes, attributes = given_window
    kernel = attributes["kernel_shape"]
    constants = {
        "w": whole_numbers((channels_out * groups, channels_in, *kernel)),
        "b": whole_numbers((channels_out * groups,)),
    }
    node = NODE("Conv", ["x", "w", "b"], ["y"], group=groups, **attributes)
    inputs = {"x": ("n", channels_in * groups, *sizes)}
    read = same(make(node, inputs=inputs, constants=constants, opset=opset))
    assert [node.op.name for node in read.graph.nodes] == ["Conv", "Add"]
    assert {node.origin for node in read.graph.nodes} == {("Conv(y)",)}


@given(windows(3, dilated=True), st.booleans(), OPSETS)
def test_max_pools(
    given_window: tuple[list[int], dict[str, object]], ceil: bool, opset: int
) -> None:
    sizes, attributes = given_window
    if opset < 10:
        attributes = {n: value for n, value in attributes.items() if n != "dilations"}
    else:
        attributes = attributes | {"ceil_mode": int(ceil)}
    node = NODE("MaxPool", ["x"], ["y"], **attributes)
    same(make(node, inputs={"x": ("n", 2, *sizes)}, opset=opset))


@given(windows(3, dilated=True), st.booleans(), st.booleans(), OPSETS)
def test_average_pools(
    given_window: tuple[list[int], dict[str, object]], ceil: bool, include: bool, opset: int
) -> None:
    sizes, attributes = given_window
    attributes = attributes | {"count_include_pad": int(include)}
    if opset < 19:
        attributes.pop("dilations", None)
    if opset >= 10:
        attributes["ceil_mode"] = int(ceil)
    node = NODE("AveragePool", ["x"], ["y"], **attributes)
    same(make(node, inputs={"x": ("n", 2, *sizes)}, opset=opset))


# --- What the attributes mean ---------------------------------------------------------------------


def op_of(model: onnx.ModelProto, folder: Path) -> object:
    return load(model, folder).graph.nodes[0].op


def convolution(folder: Path, size: int, kernel: int, **attributes: object) -> Axis:
    """Return the axis of a 1-D convolution."""
    op = op_of(
        make(
            NODE("Conv", ["x", "w"], ["y"], **attributes),
            inputs={"x": ("n", 1, size)},
            constants={"w": np.ones((1, 1, kernel), F)},
        ),
        folder,
    )
    assert isinstance(op, Conv)
    return op.window.axes[0]


def test_auto_pad_becomes_pads(tmp_path: Path) -> None:
    upper = convolution(tmp_path, 5, 4, auto_pad="SAME_UPPER")
    lower = convolution(tmp_path, 5, 4, auto_pad="SAME_LOWER")
    valid = convolution(tmp_path, 5, 4, auto_pad="VALID")
    assert (upper, lower) == (Axis(4, before=1, after=2), Axis(4, before=2, after=1))
    assert valid == Axis(4)
    # Keras' 1x1 convolution with stride 2: the last column of an even image is not seen.
    assert convolution(tmp_path, 6, 1, auto_pad="SAME_UPPER", strides=[2]) == Axis(1, stride=2)


def test_pads_are_those_before_then_those_after(tmp_path: Path) -> None:
    model = make(
        NODE("MaxPool", ["x"], ["y"], kernel_shape=[5, 6], pads=[1, 2, 3, 4], strides=[2, 3]),
        inputs={"x": ("n", 1, 9, 9)},
    )
    axes = (Axis(5, 2, before=1, after=3), Axis(6, 3, before=2, after=4))
    assert op_of(model, tmp_path) == MaxPool(Window(axes))
    model.graph.node[0].op_type = "AveragePool"
    assert op_of(model, tmp_path) == AveragePool(Window(axes))


# --- Refusals -------------------------------------------------------------------------------------


def windowed(
    op_type: str, shape: tuple[int, ...] = (2, 5, 5), opset: int = 19, **attributes: object
) -> onnx.ModelProto:
    rank = len(shape) - 1
    inputs, constants = ["x"], {}
    if op_type == "Conv":
        inputs.append("w")
        constants["w"] = np.ones((4, 2, *(3,) * rank), F)
    elif not op_type.startswith("Global"):
        attributes = {"kernel_shape": [3] * rank} | attributes
    node = NODE(op_type, inputs, ["y"], name="layer3.0", **attributes)
    return make(node, inputs={"x": ("n", *shape)}, constants=constants, opset=opset)


REFERENCE = "ONNX Runtime, the reference, does not do there what ONNX says"
REFUSED = {
    "a volume": (
        windowed("Conv", (2, 5, 5, 5)),
        "BNN008",
        "Conv over 3 spatial axes",
        '"x" has shape [1, 2, 5, 5, 5], and bnncc has it over one or two',
    ),
    "a pooled volume": (
        windowed("MaxPool", (2, 5, 5, 5)),
        "BNN008",
        "MaxPool over 3 spatial axes",
        '"x" has shape [1, 2, 5, 5, 5], and bnncc has it over one or two',
    ),
    "an averaged volume": (
        windowed("GlobalAveragePool", (2, 5, 5, 5)),
        "BNN008",
        "GlobalAveragePool over 3 spatial axes",
        '"x" has shape [1, 2, 5, 5, 5], and bnncc has it over one or two',
    ),
    "dilations with SAME": (
        windowed("Conv", auto_pad="SAME_UPPER", dilations=[1, 2]),
        "BNN008",
        "Conv with auto_pad SAME_UPPER and dilations",
        REFERENCE,
    ),
    "dilations with SAME in a pool": (
        windowed("AveragePool", auto_pad="SAME_LOWER", dilations=[2, 1]),
        "BNN008",
        "AveragePool with auto_pad SAME_LOWER and dilations",
        REFERENCE,
    ),
    "windows that lie apart with SAME": (
        windowed("MaxPool", (2, 4, 4), auto_pad="SAME_UPPER", kernel_shape=[1, 1], strides=[1, 2]),
        "BNN008",
        "MaxPool with auto_pad SAME_UPPER and strides beyond the kernel",
        REFERENCE,
    ),
    "pads of pools": (
        windowed("MaxPool", pads=[0, 3, 0, 0]),
        "BNN008",
        "MaxPool with pads as large as the kernel",
        "ONNX Runtime, the reference, has no such pools",
    ),
    "windows in the padding": (
        windowed("MaxPool", (2, 1, 1), kernel_shape=[2, 2], dilations=[2, 2], pads=[1] * 4),
        "BNN008",
        "MaxPool with windows that see nothing but padding",
        "they have no value",
    ),
    "large pads": (
        windowed("Conv", pads=[2**21, 0, 0, 0]),
        "BNN008",
        "Conv with pads [2097152, 0, 0, 0]",
        "bnncc takes values from 0 to 1048576",
    ),
    "large pads all round": (
        windowed("Conv", pads=[2**20] * 4, strides=[2**20] * 2),
        "BNN005",
        "Conv pads a channel to 17592269930596 bytes",
        "the limit is 2147483648 bytes",
    ),
    "a window that does not fit": (
        windowed("MaxPool", (2, 2, 2)),
        "BNN003",
        "operands of MaxPool: a window of 3 does not fit an input of 2",
        "",
    ),
    "a kernel of another shape": (
        windowed("Conv", kernel_shape=[2, 3]),
        "BNN003",
        "Conv with kernel_shape [2, 3]",
        "the weights have kernels of shape [3, 3]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, tmp_path: Path) -> None:
    model, code, what, why = REFUSED[case]
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    (found,) = caught.value.diagnostics
    assert (found.code, found.what, found.why) == (code, what, why)
    assert found.where == 'ONNX node "layer3.0"'
