"""Names of moved tensors lead back to the model's own."""

from __future__ import annotations

import pytest

from bnncc.passes.transplant import same_order, source_name


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("y", "y"),
        ("y.unpooled", "y"),
        ("y.image", "y"),
        ("y.reordered.3", "y"),
        ("y.image.unpooled.1", "y"),
        ("y.flat.2", "y"),
        ("y.unpooled.unpooled", "y"),
        ("/layer.image/Sign_output_0", "/layer.image/Sign_output_0"),
        ("y.1", "y.1"),
        ("y.imagery", "y.imagery"),
    ],
)
def test_source_names(name: str, source: str) -> None:
    assert source_name(name) == source


@pytest.mark.parametrize(
    ("name", "source"),
    [("y.flat", "y"), ("y.image.integers.1", "y"), ("y.unpooled", "y.unpooled"), ("y", "y")],
)
def test_names_of_what_holds_the_same_elements(name: str, source: str) -> None:
    assert same_order(name) == source
