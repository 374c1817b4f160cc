"""The benchmark's own layers: they run, and do what they are labelled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnncc.errors import ToolchainError
from bnncc.verification.build import host_flags
from tests.bench.layers import FORMS, LayerCase, printed, variant
from tests.bench.measure import build, build_roof, measure
from tests.bench.roofs import ROOFS

CASES = [LayerCase(64, 4, form) for form in FORMS]


@pytest.mark.parametrize("text", ["x86-64", "x86-64:shared", *ROOFS])
def test_layers_are_measured(cc: str, tmp_path: Path, text: str) -> None:
    of = variant(text)
    try:
        host_flags((cc,), of.target)
    except ToolchainError as error:
        pytest.skip(str(error))
    built = build("here", of, cc, CASES, tmp_path)
    roofs = {text: build_roof(text, of.target, cc, tmp_path)} if text in ROOFS else {}
    rows, tops = measure([built], roofs, CASES, rounds=2)
    assert list(rows) == CASES
    for row in (*tops, *(row for found in rows.values() for row in found)):
        assert 0 < row.median <= row.best < 1e5
    assert len(tops) == (text in ROOFS)


def test_a_variant_is_a_target_with_some_of_its_kernels() -> None:
    case = LayerCase(64, 4)
    kernels = {
        text: printed(case, variant(text), "m").kernel
        for text in ("x86-64-v3", "x86-64-v3:scalar", "x86-64-avx512:avx512", "x86-64-v3:shared")
    }
    assert kernels == {
        "x86-64-v3": "bnn_xnor_4x64_w8__avx2",
        "x86-64-v3:scalar": "bnn_xnor_1x16_w64__scalar",
        "x86-64-avx512:avx512": "bnn_xnor_8x32_w32__avx512",
        "x86-64-v3:shared": "shared by 5, 256 lanes",
    }


def test_macs() -> None:
    assert LayerCase(64, 32).macs == 64 * 64 * 9 * 32 * 32
    assert str(LayerCase(64, 32)) == "64@32x32"
