"""The cost model is as near to measurements as it says, and near enough to choose right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bnncc.layouts.code import parts_of_program
from bnncc.layouts.costs import code_bytes, time_of
from bnncc.layouts.work import work_of
from bnncc.passes.base import Family
from bnncc.targets import TARGETS, costs_of, fitted, host_target, target_named
from tests.bench.costs import written
from tests.bench.costs.__main__ import by_layer, cases_of, measured
from tests.bench.costs.cases import LARGE, SMALL, Case, printed
from tests.bench.costs.fit import fit, fit_by_kind
from tests.bench.costs.measure import FAMILIES, code_sizes, zoo_sizes
from tests.bench.costs.timing import HOSTED
from tests.bench.instructions.machines import MACHINES

COUNTED = [machine.target for machine in MACHINES]

MEDIAN, WORST = 0.04, 0.35
"""How far predicted instructions are off those counted, of a layer with its moves; the worst are
sums of floating point by software, which take a time that depends on the numbers."""


def test_a_fit_finds_what_things_take() -> None:
    random = np.random.default_rng(0)
    truth = {"a: x": 3.0, "a: y": 0.0, "b: z": 250.0}
    rows = []
    for _ in range(20):
        x, y, z = random.uniform(1, 9, 3)
        rows += [({"a: x": x, "a: y": y}, 3 * x), ({"b: z": z}, 250 * z)]
    assert fit_by_kind(rows) == pytest.approx(truth)
    together = [({**a, **b}, m + n) for (a, m), (b, n) in zip(rows[::2], rows[1::2], strict=True)]
    assert fit(together) == pytest.approx(truth, rel=0.01, abs=0.01)


def test_what_takes_nothing_is_never_negative() -> None:
    rows = [({"a: x": 1.0, "a: y": 1.0}, 100.0), ({"a: x": 2.0, "a: y": 1.0}, 50.0)]
    assert min(fit(rows).values()) >= 0


def test_constants_are_written_as_they_are_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fitted, "__file__", str(tmp_path / "fitted.py"))
    monkeypatch.setattr(fitted, "FITTED", fitted.FITTED)
    held = dict(fitted.FITTED)
    changed = dataclasses.replace(held["cortex-m4"], unit="hours")
    written.write("cortex-m4", changed)
    scope: dict[str, object] = {}
    exec((tmp_path / "fitted.py").read_text(encoding="utf-8"), scope)
    assert scope["FITTED"] == {**held, "cortex-m4": changed}


def priced(target: str, cases: tuple[Case, ...]) -> None:
    """Assert that all that is done in cases has a price."""
    costs = costs_of(target_named(target))
    for case in cases:
        for family in FAMILIES:
            program = printed(case, family, target_named(target)).program
            done = {name for layer in program.layers for name in work_of(layer)}
            assert done <= set(costs.time), f"{case} {family}"
            assert all(n in costs.code for n in parts_of_program(program)), f"{case} {family}"


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_everything_has_a_price(target: str) -> None:
    priced(target, (SMALL[0], SMALL[8], SMALL[13]))


@pytest.mark.slow
@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_every_layer_has_a_price(target: str) -> None:
    priced(target, SMALL + LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("target", COUNTED)
def test_predicted_instructions(tool, tmp_path: Path, target: str) -> None:
    machine = next(m for m in MACHINES if m.target == target)
    for program in (f"{machine.tools}gcc", machine.emulator[0], "gcc"):
        tool(program)
    costs = costs_of(target_named(target))
    layers = by_layer(measured(target, cases_of(target), tmp_path, 0))
    told = {key: sum(time_of(r.work, costs) for r in rows) for key, rows in layers.items()}
    took = {key: sum(row.units for row in rows) for key, rows in layers.items()}
    off = np.abs([told[key] / took[key] - 1 for key in layers])
    assert np.median(off) < MEDIAN
    assert off.max() < WORST
    for case in dict.fromkeys(case for case, _ in layers):
        dense, shared = ((case, family) for family in (Family.DENSE, Family.SHARED))
        if abs(took[dense] - took[shared]) > WORST * max(took[dense], took[shared]):
            assert (told[dense] < told[shared]) == (took[dense] < took[shared]), str(case)


@pytest.mark.slow
@pytest.mark.parametrize("target", COUNTED)
def test_predicted_code(tool, tmp_path: Path, target: str) -> None:
    machine = next(m for m in MACHINES if m.target == target)
    tool(f"{machine.tools}gcc")
    costs = costs_of(target_named(target))
    layers = [
        code_bytes(built.parts, costs) / built.size - 1
        for built in code_sizes(target, SMALL[::4], tmp_path)
    ]
    assert np.median(np.abs(layers)) < 0.06
    assert np.abs(layers).max() < 0.25
    # Of the zoo's small programs, one layer that is inlined or is not is a large share.
    for built in zoo_sizes(target, tmp_path):
        assert abs(code_bytes(built.parts, costs) - built.size) < 0.25 * built.size + 400


def test_layers_are_timed_here(tool, tmp_path: Path) -> None:
    """For the target that every x86 machine runs."""
    tool("gcc")
    if host_target().name not in HOSTED:
        pytest.skip("needs x86")
    rows = measured(host_target().name, (SMALL[9],), tmp_path, 1)
    assert {row.family for row in rows} == {*FAMILIES, Family.LEAN}
    assert all(0 < row.units < 1e8 for row in rows)
