"""How many instructions a binary multiply-accumulate takes in generated code, at most.

Counts are exact, but follow the compiler's version: a ceiling that a newer one breaks says so.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnncc.ir.types import Element
from bnncc.passes.base import Family
from tests.bench.instructions.cases import Case, random_weights, trained_cases
from tests.bench.instructions.machines import MACHINES, Machine
from tests.bench.instructions.measure import count

CEILINGS = {
    "cortex-m0": {64: 0.113, 128: 0.098},
    "cortex-m4": {64: 0.081, 128: 0.0655},
    "cortex-m55": {64: 0.0266, 128: 0.0214},
    "aarch64": {64: 0.0130, 128: 0.0108},
    "armv7-a": {64: 0.0186, 128: 0.0145},
    "riscv32": {64: 0.0985, 128: 0.0855},
}
"""Target -> channels -> instructions per MAC of a 3x3 layer, 16x16 outputs, padded with -1."""

OTHERS = {
    "cortex-m0": {"zero": 0.128, "strided": 0.156, "valid": 0.145},
    "cortex-m4": {"zero": 0.093, "strided": 0.0905, "valid": 0.0835},
    "cortex-m55": {"zero": 0.0316, "strided": 0.0364, "valid": 0.0286},
    "aarch64": {"zero": 0.0160, "strided": 0.0195, "valid": 0.0151},
    "armv7-a": {"zero": 0.0246, "strided": 0.0292, "valid": 0.0210},
    "riscv32": {"zero": 0.109, "strided": 0.138, "valid": 0.129},
}
"""The same for 64 channels: padded with 0, of stride 2, and not padded."""

SEVERAL = {
    "cortex-m4": {"codes": 0.161, "ternary": 0.115},
    "aarch64": {"codes": 0.0264, "ternary": 0.0192},
}
"""The same for 64 channels: codes of 2 bits, and single bits where a third of the weights is 0."""

STEPS = [(target, channels) for target, row in CEILINGS.items() for channels in row]


def machine_of(target: str, tool) -> Machine:
    machine = next(m for m in MACHINES if m.target == target)
    for program in (f"{machine.tools}gcc", machine.emulator[0], "gcc"):
        tool(program)
    return machine


def test_a_layer_is_counted(tool, tmp_path: Path) -> None:
    found = count(machine_of("cortex-m4", tool), Case("random", random_weights(64)), tmp_path)
    assert 0.04 < found.per_mac <= CEILINGS["cortex-m4"][64]
    assert found.instructions == sum(n for _, n in found.functions)
    assert found.flash[0] < 20_000
    assert found.flash[1] < 6_000
    assert found.ram == 2 * 2_048 + 4_616  # planes, and copies for 4 rows


def test_lean_lists_are_counted(tool, tmp_path: Path) -> None:
    case = Case("random", random_weights(64), family=Family.LEAN)
    found = count(machine_of("cortex-m4", tool), case, tmp_path)
    assert found.per_mac <= 0.096
    assert found.flash[0] < 5_800
    assert found.ram == 2 * 2_048 + 7_696 + 1_208  # planes, copies for 8 rows, one group's lists


@pytest.mark.slow
@pytest.mark.parametrize(("target", "channels"), STEPS)
def test_ceiling(tool, tmp_path: Path, target: str, channels: int) -> None:
    case = Case("random", random_weights(channels))
    assert count(machine_of(target, tool), case, tmp_path).per_mac <= CEILINGS[target][channels]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zero", "strided", "valid"])
@pytest.mark.parametrize("target", OTHERS)
def test_other_forms(tool, tmp_path: Path, target: str, form: str) -> None:
    case = Case("random", random_weights(64), form)
    assert count(machine_of(target, tool), case, tmp_path).per_mac <= OTHERS[target][form]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["codes", "ternary"])
@pytest.mark.parametrize("target", SEVERAL)
def test_several_bits(tool, tmp_path: Path, target: str, what: str) -> None:
    """Dense kernels take seven and a half times as many and more: 7.6 for codes on Cortex-M4."""
    machine = machine_of(target, tool)
    weights = random_weights(64, 1 / 3 if what == "ternary" else 0)
    case = Case("random", weights, reads=Element.U2 if what == "codes" else Element.BIPOLAR)
    sharing = count(machine, case, tmp_path / "shared")
    dense = count(machine, replace(case, family=Family.DENSE), tmp_path / "dense")
    assert sharing.per_mac <= SEVERAL[target][what]
    assert 7.5 * sharing.per_mac < dense.per_mac


@pytest.mark.slow
def test_trained_weights(tool, tmp_path: Path, shared_dir: Path) -> None:
    model = shared_dir / "models" / "trained" / "bnnpynq_cnv_trained.torchscript.onnx"
    found = {
        case.weights.shape[0]: count(machine_of("cortex-m4", tool), case, tmp_path).per_mac
        for case in trained_cases(model)
    }
    assert list(found) == [64, 128, 256]
    # Their classes differ more in size than random ones: sums may be a bit wider.
    assert all(found[c] <= 1.03 * CEILINGS["cortex-m4"][c] for c in (64, 128))
