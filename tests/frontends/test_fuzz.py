"""Whatever the file holds, the frontend answers with a graph or a coded error, and soon."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.errors import BnnccError, InternalError
from bnncc.frontends.onnx import load_onnx
from bnncc.ir.check import violations
from tests.frontends.builders import NODE, make

F = np.float32

# Everything the frontend does once: literals, shape chains, folding, transposing, every attribute.
NETWORK = make(
    NODE("Shape", ["x"], ["s"]),
    NODE("Constant", [], ["zero"], value_int=0),
    NODE("Gather", ["s", "zero"], ["n"], axis=0),
    NODE("Unsqueeze", ["n", "axis"], ["n1"]),
    NODE("Concat", ["n1", "rest"], ["target"], axis=0),
    NODE("Reshape", ["x", "target"], ["f"]),
    NODE("Abs", ["w"], ["a"]),
    NODE("ReduceMean", ["a"], ["mean_a"], axes=[1], keepdims=1),
    NODE("Sign", ["w"], ["sign"]),
    NODE("Mul", ["sign", "mean_a"], ["scaled"]),
    NODE("Transpose", ["scaled"], ["t"], perm=[1, 0]),
    NODE("Gemm", ["f", "t", "b"], ["h"], alpha=2.0),
    NODE("BatchNormalization", ["h", "g", "b", "b", "v"], ["bn"], epsilon=1e-4),
    NODE("Dropout", ["bn"], ["d"]),
    NODE("Clip", ["d", "", "one"], ["c"]),
    NODE("GreaterOrEqual", ["c", "null"], ["ge"]),
    NODE("Where", ["ge", "one", "null"], ["y"]),
    constants={
        "axis": np.array([0]),
        "rest": np.array([-1]),
        "w": np.linspace(-1, 1, 12, dtype=F).reshape(3, 4),
        **{name: np.array([0.5, -1, 2], F) for name in "gb"},
        "v": np.ones(3, F),
        "one": F(1),
        "null": F(0),
    },
)
CONTENT = NETWORK.SerializeToString()

# Every operator with axes, windows or ranks.
IMAGES = make(
    NODE("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
    NODE("Pad", ["t", "widths", "one"], ["p"]),
    NODE("Conv", ["p", "w", "b"], ["c"], group=2, dilations=[2, 1], strides=[1, 2], pads=[1] * 4),
    NODE("PRelu", ["c", "slope"], ["r"]),
    NODE("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], ceil_mode=1),
    NODE("AveragePool", ["m"], ["a"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    NODE("Slice", ["a", "zero", "two", "zero"], ["s"]),
    NODE("Concat", ["a", "s"], ["j"], axis=1),
    NODE("ReduceMean", ["j"], ["kappa"], axes=[1]),
    NODE("Mul", ["j", "kappa"], ["scaled"]),
    NODE("GlobalAveragePool", ["scaled"], ["g"]),
    NODE("Softmax", ["g"], ["soft"], axis=1),
    NODE("ArgMax", ["soft"], ["class"], axis=1, keepdims=0),
    NODE("Flatten", ["soft"], ["f"]),
    NODE("TopK", ["f", "two"], ["y", "indices"], axis=1),
    inputs={"x": ("n", 5, 6, 2)},
    outputs={"y": 1, "indices": 7, "class": 7},
    constants={
        "widths": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "w": np.linspace(-1, 1, 16, dtype=F).reshape(4, 1, 2, 2),
        "b": np.array([0.5, -1, 2, 0], F),
        "slope": np.array([0.5, -1, 2, 0], F).reshape(4, 1, 1),
        "one": F(1),
        "zero": np.array([0]),
        "two": np.array([2]),
    },
)
CONTENTS = [CONTENT, IMAGES.SerializeToString()]
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})


def answers(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        error = None
        try:
            imported = load_onnx(path)
        except InternalError:
            raise
        except BnnccError as refusal:
            error = refusal
    if error is None:
        assert violations(imported.graph) == []
    else:
        assert error.diagnostics
        assert all(line.isprintable() for line in str(error).split("\n"))


@given(
    st.lists(
        st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=8
    )
)
def test_corrupted_bytes(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for position, byte in changes:
        content[position] = byte
    answers(bytes(content))


@given(st.integers(0, len(CONTENT)), st.binary(max_size=20), st.integers(0, 40))
def test_spliced_bytes(position: int, inserted: bytes, removed: int) -> None:
    answers(CONTENT[:position] + inserted + CONTENT[position + removed :])


def _messages(message: object) -> Iterator[object]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(part)


def _value(field: object, names: list[str], draw: st.DrawFn) -> object:
    """Return something that a field of this type may hold."""
    if field.name == "op_type":
        return draw(st.sampled_from(OPERATORS))
    if field.type == field.TYPE_STRING:
        return draw(st.sampled_from([*names, "", "@0@"]))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return draw(st.floats(width=32))
    if field.type == field.TYPE_BYTES:
        return draw(st.binary(max_size=48))
    if field.type == field.TYPE_ENUM:
        return draw(st.sampled_from(sorted(field.enum_type.values_by_number)))
    bits = 32 if field.type == field.TYPE_INT32 else 64
    largest = 2 ** (bits - 1) - 1
    if field.type == field.TYPE_UINT64:
        return draw(st.integers(0, largest))
    return draw(st.integers(-2, 30) | st.integers(-largest - 1, largest))


@st.composite
def rewritten(draw: st.DrawFn) -> bytes:
    """Return a model with one to four fields changed: still protobuf, hardly still a model."""
    model = onnx.ModelProto.FromString(draw(st.sampled_from(CONTENTS)))
    names = sorted({name for node in model.graph.node for name in (*node.input, *node.output)})
    for _ in range(draw(st.integers(1, 4))):
        message = draw(st.sampled_from(list(_messages(model))))
        field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
        held = getattr(message, field.name)
        is_list = hasattr(held, "extend")
        if is_list and len(held) and draw(st.booleans()):
            del held[draw(st.integers(0, len(held) - 1))]
        elif field.type == field.TYPE_MESSAGE and is_list:
            held.append(draw(st.sampled_from(list(held))) if len(held) else held.add())
        elif field.type == field.TYPE_MESSAGE:
            held.SetInParent()
        elif is_list:
            held.append(_value(field, names, draw))
        else:
            setattr(message, field.name, _value(field, names, draw))
    return model.SerializeToString()


@given(rewritten())
def test_rewritten_fields(content: bytes) -> None:
    answers(content)


@pytest.mark.parametrize("content", CONTENTS)
def test_the_networks_themselves_are_fine(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert violations(load_onnx(tmp_path / "model.onnx").graph) == []
