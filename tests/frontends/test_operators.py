"""Operators give ONNX Runtime's values, within what rounding allows.

The bounds are those of verify, which says of every tensor how far two float32 evaluations of the
model may lie apart: a wrong bound fails here as a wrong value does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frontends.operators import CASES, assert_values_agree


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    assert_values_agree(name, CASES[name], tmp_path)
