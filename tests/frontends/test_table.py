"""The table of operators is true: each attribute, operand and opset is taken as said, or refused.

ONNX's own schemas say what there is, the models of tests/frontends/operators.py use what is taken,
and ONNX Runtime says what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.operator import Bits
from bnncc.frontends.onnx.table import TABLE
from tests.frontends.between import can_stand_between, is_on_bits
from tests.frontends.builders import NODE, load
from tests.frontends.operators import CASES, assert_values_agree, model

OLDEST, NEWEST = 7, 26


def _history() -> dict[str, dict[int, onnx.defs.OpSchema]]:
    """Return the schemas that an opset from the oldest to the newest has, by since when."""
    found: dict[str, dict[int, onnx.defs.OpSchema]] = {}
    for op_type in TABLE:
        for opset in range(OLDEST, NEWEST + 1):
            if onnx.defs.has(op_type, opset, ""):
                schema = onnx.defs.get_schema(op_type, opset, "")
                if not schema.deprecated:
                    found.setdefault(op_type, {})[schema.since_version] = schema
    return found


SCHEMAS = _history()
ATTRIBUTES = {
    op_type: {n for s in SCHEMAS[op_type].values() for n in s.attributes} for op_type in TABLE
}
OPERANDS = {
    op_type: {i.name for s in SCHEMAS[op_type].values() for i in s.inputs} for op_type in TABLE
}


def uses(op_type: str) -> Iterator[tuple[str, onnx.NodeProto, onnx.defs.OpSchema]]:
    """Yield every node of that type in the models, the model's name, and its schema."""
    for name, made in CASES.items():
        for node in made.graph.node:
            if node.op_type == op_type:
                opset = made.opset_import[0].version
                yield name, node, onnx.defs.get_schema(op_type, opset, "")


def restamped(name: str, opset: int) -> onnx.ModelProto | None:
    """Return a model as of another opset, or None if the onnx library has no such model."""
    made = onnx.ModelProto()
    made.CopyFrom(CASES[name])
    made.opset_import[0].version = opset
    for value in made.graph.output:  # whose shapes the checker insists on
        value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ()))
    try:
        onnx.checker.check_model(made)
    except onnx.checker.ValidationError:
        return None
    for value, before in zip(made.graph.output, CASES[name].graph.output, strict=True):
        value.CopyFrom(before)
    return made


@pytest.mark.parametrize("op_type", TABLE)
def test_every_attribute_that_is_taken_is_used_with_another_value_than_the_default(
    op_type: str,
) -> None:
    used = {
        attribute.name
        for _, node, schema in uses(op_type)
        for attribute in node.attribute
        if helper.get_attribute_value(attribute)
        != helper.get_attribute_value(schema.attributes[attribute.name].default_value)
    }
    assert set(TABLE[op_type].attributes) <= used & ATTRIBUTES[op_type]


@pytest.mark.parametrize("op_type", TABLE)
def test_every_operand_is_used(op_type: str) -> None:
    used = {
        schema.inputs[min(i, len(schema.inputs) - 1)].name
        for _, node, schema in uses(op_type)
        for i, operand in enumerate(node.input)
        if operand
    }
    assert OPERANDS[op_type] - {*TABLE[op_type].idle} <= used


@pytest.mark.parametrize("op_type", TABLE)
def test_every_version_of_an_operator_computes_what_onnx_runtime_does(
    op_type: str, tmp_path: Path
) -> None:
    for since in SCHEMAS[op_type]:
        opset = max(since, OLDEST)
        for name in dict.fromkeys(name for name, *_ in uses(op_type)):
            made = restamped(name, opset)
            if made is not None and is_taken(made, tmp_path):
                assert_values_agree(name, made, tmp_path)
                break
        else:
            pytest.fail(f"no model has {op_type} of opset {since}")


def is_taken(made: onnx.ModelProto, folder: Path) -> bool:
    try:
        load(made, folder)
    except UnsupportedModelError:
        return False
    return True


# --- What is not taken ----------------------------------------------------------------------------

OTHERS = {"auto_pad": "VALID", "keep_aspect_ratio_policy": "not_larger", "round_mode": "down"}
"""Values other than the default, of attributes that are strings."""
# Of these, few models can have another value at all.
REFUSED = {
    ("BatchNormalization", "training_mode"): model(
        NODE("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], training_mode=1),
        s=np.ones(4, np.float32),
    ),
    ("Gemm", "transA"): model(
        NODE("Gemm", ["x", "w"], ["y"], transA=1), shape=(7,), w=np.ones((1, 3), np.float32)
    ),
    ("Resize", "keep_aspect_ratio_policy"): model(
        NODE("Resize", ["x", "", "", "s"], ["y"], keep_aspect_ratio_policy="not_larger"),
        s=np.int64([1, 4, 9, 9]),
        opset=18,
    ),
}
SAID = {
    "keep_aspect_ratio_policy": "keeps the aspect ratio",
    "stash_type": "type",
    "training_mode": "training mode",
}
"""How a refusal speaks of an attribute, if not by its name."""


def unusual(op_type: str, attribute: str) -> tuple[str, onnx.ModelProto]:
    """Return a model in which the operator's attribute has another value than by default.

    Its name comes first.
    """
    if (op_type, attribute) in REFUSED:
        return op_type, REFUSED[op_type, attribute]
    opsets = [v for v, schema in SCHEMAS[op_type].items() if attribute in schema.attributes]
    for opset in opsets:
        for name, *_ in uses(op_type):
            made = restamped(name, max(opset, OLDEST))
            if made is not None:
                _set(made, op_type, attribute)
                return name, made
    raise AssertionError(f"no model can have {op_type} with {attribute}")


def _set(made: onnx.ModelProto, op_type: str, attribute: str) -> None:
    schema = onnx.defs.get_schema(op_type, made.opset_import[0].version, "")
    default = helper.get_attribute_value(schema.attributes[attribute].default_value)
    other = OTHERS.get(attribute) or (1 if default is None else type(default)(not default))
    node = next(node for node in made.graph.node if node.op_type == op_type)
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, other)])


@pytest.mark.parametrize("op_type", TABLE)
def test_no_other_attribute_is_ignored(op_type: str, tmp_path: Path) -> None:
    operator = TABLE[op_type]
    for attribute in sorted(ATTRIBUTES[op_type] - {*operator.attributes, *operator.idle}):
        _, made = unusual(op_type, attribute)
        with pytest.raises(UnsupportedModelError) as caught:
            load(made, tmp_path)
        (found,) = caught.value.diagnostics
        assert found.code in ("BNN008", "BNN012")
        assert SAID.get(attribute, attribute) in found.what


@pytest.mark.parametrize("op_type", [name for name, operator in TABLE.items() if operator.idle])
def test_what_is_idle_changes_nothing(op_type: str, tmp_path: Path) -> None:
    idle = {*TABLE[op_type].idle}
    assert idle <= ATTRIBUTES[op_type] | OPERANDS[op_type]
    for attribute in sorted(idle & ATTRIBUTES[op_type]):
        assert_values_agree(*unusual(op_type, attribute), tmp_path)


# --- Bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op_type", TABLE)
def test_what_an_operator_becomes_between_binary_layers(op_type: str, tmp_path: Path) -> None:
    claimed = TABLE[op_type].family.bits
    names = dict.fromkeys(name for name, *_ in uses(op_type) if can_stand_between(CASES[name]))
    if claimed is Bits.REALS:
        alone = next(name for name in names if len(CASES[name].graph.node) == 1)
        for kind in (Bits.STAYS, Bits.FOLDS):
            assert not is_on_bits(CASES[alone], kind, tmp_path)
    else:
        assert any(is_on_bits(CASES[name], claimed, tmp_path) for name in names)
