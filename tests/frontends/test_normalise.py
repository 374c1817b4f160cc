"""Shapes, versions, functions and metadata: one form, whatever the exporter wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnncc.errors import UnsupportedModelError, UsageError
from bnncc.frontends.onnx import runtime
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make, value

F = np.float32


def absolute(shape: list[int | str | None] | None, **options: object) -> onnx.ModelProto:
    return make(NODE("Abs", ["x"], ["y"]), inputs={"x": shape}, **options)


def message(model: onnx.ModelProto, folder: Path, **options: object) -> str:
    with pytest.raises((UnsupportedModelError, UsageError)) as caught:
        load(model, folder, **options)
    return str(caught.value)


# --- Shapes ---------------------------------------------------------------------------------------


def test_constant_batch_of_one_needs_no_note(tmp_path: Path) -> None:
    imported = load(absolute([1, 4]), tmp_path)
    assert imported.notes == ()
    assert str(imported.graph.types["y"]) == "f32[1x4]"


@pytest.mark.parametrize(
    ("batch", "shown"),
    [("batch", '"batch"'), (None, "of unknown size"), (0, "of unknown size"), ("a\nb", '"a\\nb"')],
)
def test_open_batch_is_fixed_with_a_note(
    batch: int | str | None, shown: str, tmp_path: Path
) -> None:
    imported = load(absolute([batch, 4]), tmp_path)
    assert imported.notes == (f'batch dimension {shown} of input "x" fixed to 1',)
    for tensor in (imported.source.graph.input[0], imported.source.graph.output[0]):
        assert [d.dim_value for d in tensor.type.tensor_type.shape.dim] == [1, 4]


def test_fixed_batch(tmp_path: Path) -> None:
    assert message(absolute([8, 4]), tmp_path) == (
        'error[BNN006]: input "x" has a fixed batch of 8\n'
        "  why:   generated C computes one sample a call; dimension 0 is taken as the batch\n"
        "  help:  export with batch 1 or a dynamic batch, or try --shape x=1x4"
    )
    imported = load(absolute([8, 4]), tmp_path, shapes={"x": (1, 4)})
    assert imported.notes == ('batch dimension 8 of input "x" fixed to 1',)


def test_unknown_dimension(tmp_path: Path) -> None:
    model = absolute(["batch", 1, "height", None])
    assert message(model, tmp_path) == (
        'error[BNN006]: dimension 2 ("height") of input "x" is not known\n'
        "  why:   C code has fixed shapes; only the batch, dimension 0, may be left open\n"
        "  help:  say it as in --shape x=1x1x28x28, or export it fixed"
    )
    imported = load(model, tmp_path, shapes={"x": (1, 1, 7, 9)})
    assert imported.graph.types["x"].shape == (1, 1, 7, 9)
    assert imported.notes == (
        'batch dimension "batch" of input "x" fixed to 1',
        'dimension 2 ("height") of input "x" fixed to 7 by --shape',
        'dimension 3 (unknown) of input "x" fixed to 9 by --shape',
    )


def test_unknown_rank(tmp_path: Path) -> None:
    assert message(absolute(None), tmp_path) == (
        'error[BNN006]: the shape of input "x" is not known\n'
        "  help:  say it as in --shape x=1x784, the batch being 1"
    )
    assert load(absolute(None), tmp_path, shapes={"x": (1, 5)}).graph.types["y"].shape == (1, 5)


def test_scalar_input(tmp_path: Path) -> None:
    assert message(absolute([]), tmp_path).startswith("error[BNN006]")


def test_every_input_is_reported(tmp_path: Path) -> None:
    model = make(NODE("Add", ["a", "b"], ["y"]), inputs={"a": [2, 3], "b": ["n", "m"]})
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    assert [d.what for d in caught.value.diagnostics] == [
        'input "a" has a fixed batch of 2',
        'dimension 1 ("m") of input "b" is not known',
    ]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"z": (1, 4)}, '--shape names "z", which is no input of the model\n  help:  inputs are'),
        ({"x": (2, 4)}, "--shape x=2x4 is not a shape that bnncc compiles"),
        ({"x": (1, 0)}, "--shape x=1x0 is not a shape that bnncc compiles"),
        ({"x": ()}, "--shape x=scalar is not a shape that bnncc compiles"),
        ({"x": (1, 5)}, "--shape x=1x5 contradicts the model\n  why:   the model declares batchx4"),
        ({"x": (1, 4, 1)}, "--shape x=1x4x1 contradicts the model"),
    ],
)
def test_shapes_that_do_not_fit(
    shapes: dict[str, tuple[int, ...]], expected: str, tmp_path: Path
) -> None:
    found = message(absolute(["batch", 4]), tmp_path, shapes=shapes)
    assert found.startswith(f"error[BNN020]: {expected}")


def test_input_too_large_for_anything(tmp_path: Path) -> None:
    found = message(absolute(None), tmp_path, shapes={"x": (1, 2**70)})
    assert found.startswith('error[BNN005]: input "x" has the shape 1x1180591620717411303424')


def test_exported_shapes_of_another_batch_do_not_matter(tmp_path: Path) -> None:
    model = make(NODE("Abs", ["x"], ["a"]), NODE("Neg", ["a"], ["y"]))
    model.graph.value_info.append(value("a", [8, 4]))
    model.graph.output[0].CopyFrom(value("y", [8, 4]))
    assert_agrees(load(model, tmp_path), {"x": hostile()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: setattr(t.tensor_type, "elem_type", TensorProto.INT64), "element type INT64"),
        (
            lambda t: setattr(t.tensor_type, "elem_type", TensorProto.FLOAT16),
            "element type FLOAT16",
        ),
        (lambda t: setattr(t.tensor_type, "elem_type", 0), "element type UNDEFINED"),
        (lambda t: setattr(t.tensor_type, "elem_type", 99), "element type number 99"),
        (lambda t: t.sequence_type.elem_type.tensor_type.SetInParent(), "not a tensor"),
        (lambda t: t.optional_type.elem_type.tensor_type.SetInParent(), "not a tensor"),
        (lambda t: t.Clear(), "not a tensor"),
    ],
)
def test_inputs_of_other_types(change, expected: str, tmp_path: Path) -> None:
    model = absolute(["batch", 4])
    change(model.graph.input[0].type)
    found = message(model, tmp_path)
    assert found.startswith("error[BNN008]")
    assert '"x"' in found
    assert expected in found


# --- Versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [6, 99])
def test_opsets_out_of_range(opset: int, tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    assert message(absolute([1, 4], opset=opset), tmp_path) == (
        f"error[BNN008]: the model uses opset {opset}\n"
        f"  why:   bnncc reads opsets 7 to {newest} (as far as the installed onnx)\n"
        "  help:  export again with opset_version=17 or newer"
    )


def test_two_or_no_standard_opsets(tmp_path: Path) -> None:
    model = absolute([1, 4])
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    assert "the model uses no standard opset" in message(model, tmp_path)
    model.opset_import[1].version = 17
    assert load(model, tmp_path).graph.nodes
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("custom", 1))
    assert "the model uses no standard opset" in message(model, tmp_path)


@pytest.mark.parametrize("ir_version", [2, 99])
def test_ir_versions_out_of_range(ir_version: int, tmp_path: Path) -> None:
    found = message(absolute([1, 4], ir_version=ir_version), tmp_path)
    assert found.startswith(f"error[BNN008]: the model has ONNX IR version {ir_version}\n")


def test_versions_newer_than_onnx_runtime_reads(tmp_path: Path) -> None:
    newest = {"opset": onnx.defs.onnx_opset_version(), "ir_version": onnx.IR_VERSION}
    imported = load(absolute([1, 4], **newest), tmp_path)
    assert_agrees(imported, {"x": hostile()})  # which loads the source in ONNX Runtime
    assert all("ONNX Runtime's newest" in note for note in imported.notes)


def test_operator_newer_than_onnx_runtime_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_newest", lambda *_: 13)
    model = make(NODE("LeakyRelu", ["x"], ["y"]), opset=23)  # its schema of opset 16 is the last
    assert message(model, tmp_path) == (
        'error[BNN008]: operator "LeakyRelu" of opset 23 is newer than ONNX Runtime reads\n'
        "  why:   the installed onnxruntime reads opsets up to 13\n"
        "  help:  export with opset_version=13 or older, or update onnxruntime"
    )


def test_initializers_that_are_inputs_are_constants(tmp_path: Path) -> None:
    """IR version 3 demanded it, and old exporters went on with it."""
    constants = {"w": np.eye(4, dtype=F)}
    inputs = {"x": ["n", 4], "w": [4, 4]}
    model = make(
        NODE("MatMul", ["x", "w"], ["y"]),
        inputs=inputs,
        constants=constants,
        opset=9,
        ir_version=3,
    )
    imported = load(model, tmp_path)
    assert imported.graph.inputs == ("x",)
    assert_agrees(imported, {"x": hostile(1e10)})


# --- Functions and metadata -----------------------------------------------------------------------


def binariser(opset: int = 17) -> onnx.FunctionProto:
    nodes = [
        NODE("Constant", [], ["zero"], value=numpy_helper.from_array(F(0))),
        NODE("Constant", [], ["one"], value=numpy_helper.from_array(F(1))),
        NODE("Neg", ["one"], ["minus"]),
        NODE("GreaterOrEqual", ["a", "zero"], ["c"]),
        NODE("Where", ["c", "one", "minus"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_function("local", "Binarise", ["a"], ["b"], nodes, opsets)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make(
        NODE("Binarise", ["w"], ["wb"], domain="local"),
        NODE("MatMul", ["x", "wb"], ["s"]),
        NODE("Binarise", ["s"], ["y"], domain="local"),
        constants={"w": rng.standard_normal((4, 300), F)},
    )
    model.functions.append(binariser())
    model.opset_import.append(helper.make_opsetid("local", 1))
    imported = load(model, tmp_path)
    assert "2 calls of local functions inlined" in imported.notes
    assert [node.op.name for node in imported.graph.nodes] == ["MatMul", "GreaterOrEqual", "Where"]
    assert set(np.unique(imported.graph.constants["wb.transposed"])) == {-1, 1}
    assert_agrees(imported, {"x": hostile(1e10)})


def test_functions_of_another_opset_are_not_guessed_at(tmp_path: Path) -> None:
    model = make(NODE("Binarise", ["x"], ["y"], domain="local"))
    model.functions.append(binariser(18))
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert 'operator "local.Binarise" is not supported (1 node)' in message(model, tmp_path)


def test_functions_that_multiply_without_end(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = make(NODE("F0", ["x"], ["y"], domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    for i in range(40):
        inner = (f"F{i + 1}", "local") if i < 39 else ("Abs", "")
        nodes = [NODE(inner[0], [a], [b], domain=inner[1]) for a, b in ("pq", "qr")]
        name = f"F{i}"
        model.functions.append(helper.make_function("local", name, ["p"], ["r"], nodes, opsets))
    assert message(model, tmp_path).startswith(
        f"error[BNN005]: the model's local functions expand to {2**40} nodes"
    )


def test_functions_that_call_themselves(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("local", 1)]
    nodes = [NODE("F", ["p"], ["r"], domain="local")]
    model = make(NODE("F", ["x"], ["y"], domain="local"))
    model.opset_import.append(opsets[0])
    model.functions.append(helper.make_function("local", "F", ["p"], ["r"], nodes, opsets))
    assert message(model, tmp_path) == (
        "error[BNN003]: local functions call each other more than 100 deep"
    )


def test_nothing_of_the_author_s_machine_is_left(tmp_path: Path) -> None:
    model = make(NODE("Abs", ["x"], ["y"]), constants={"unused": F(1)})
    model.functions.append(binariser())
    parts = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output]
    for part in [*parts, *model.graph.initializer, *model.functions]:
        part.doc_string = "someone/train.py"
        part.metadata_props.add(key="trace", value="someone/train.py")
    imported = load(model, tmp_path)
    assert b"someone" not in imported.source.SerializeToString()
