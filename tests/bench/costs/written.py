"""The constants as a module of the compiler: `bnncc/targets/fitted.py`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bnncc.targets import Costs, fitted

__all__ = ["write"]

_HEAD = '''"""The constants of the cost model, written by `python -m tests.bench.costs --fit`."""

from __future__ import annotations

from collections.abc import Mapping

from bnncc.targets.costs import Costs

__all__ = ["FITTED"]

FITTED: Mapping[str, Costs] = {
'''


def write(name: str, costs: Costs) -> None:
    """Write the constants of one target, beside those of the others."""
    everything = {**fitted.FITTED, name: costs}
    text = (
        _HEAD + "".join(_row(target, each) for target, each in sorted(everything.items())) + "}\n"
    )
    path = Path(fitted.__file__)
    path.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", path], check=True)
    fitted.FITTED = everything


def _row(target: str, costs: Costs) -> str:
    fields = dataclasses.asdict(costs)
    return (
        f"{target!r}: Costs({costs.unit!r}, "
        f"{_mapping(fields['time'])}, {_mapping(fields['code'])}),\n"
    )


def _mapping(values: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{name!r}: {value!r}" for name, value in sorted(values.items())) + ",}"
