"""Which operators bnncc takes, from which source formats, and how they run: the tables as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bnncc.frontends.onnx import qonnx
from bnncc.frontends.onnx.operator import Family
from bnncc.frontends.onnx.table import TABLE
from bnncc.frontends.tflite import table as tflite

__all__ = ["Entry", "Row", "coverage", "markdown", "with_attributes"]

_HEAD = (
    "",
    "ONNX (attributes)",
    "limits",
    "between binary layers",
    "TFLite, Larq",
    "PyTorch",
)


@dataclass(frozen=True)
class Entry:
    """One operator of ONNX, or of QONNX.

    Attributes:
        name: its type.
        attributes: those that may differ from their default.
        tflite: operators of TensorFlow Lite and Larq Compute Engine that become it.
        torch: functions and modules of PyTorch that do the same.
    """

    name: str
    attributes: tuple[str, ...]
    tflite: tuple[str, ...]
    torch: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Operators that are taken alike; see `Family`."""

    title: str
    limits: str
    bits: str
    operators: tuple[Entry, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain lists and strings."""
        return asdict(self)


def coverage() -> list[Row]:
    """Return every operator that is taken, in rows in the order of the tables."""
    sources: dict[str, list[str]] = defaultdict(list)
    for name, builtin in (*tflite.TABLE.items(), *tflite.CUSTOM.items()):
        sources[builtin.onnx].append(name)
    families: dict[Family, list[Entry]] = defaultdict(list)
    for name, operator in TABLE.items():
        entry = Entry(name, operator.attributes, tuple(sources[name]), operator.torch)
        families[operator.family].append(entry)
    for name, attributes in qonnx.ATTRIBUTES.items():
        families[qonnx.FAMILY].append(Entry(name, attributes, (), ()))
    return [
        Row(family.title, family.limits, family.bits.value, tuple(entries))
        for family, entries in families.items()
    ]


def markdown(rows: Iterable[Row]) -> str:
    """Return rows as a table of GitHub's Markdown, each line with its newline."""
    lines = [_HEAD, tuple("---" for _ in _HEAD), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    tflite_names = (name for entry in row.operators for name in entry.tflite)
    torch_names = (name for entry in row.operators for name in entry.torch)
    onnx_names = with_attributes(row.operators)
    frontends = (", ".join(names) for names in (tflite_names, torch_names))
    return row.title, onnx_names, row.limits, row.bits, *frontends


def with_attributes(operators: Iterable[Entry]) -> str:
    """Return the names of operators, and behind those that share attributes what these are."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in operators:
        alike[tuple(sorted(entry.attributes))].append(entry.name)
    return "; ".join(
        f"{', '.join(names)} ({', '.join(attributes)})" if attributes else ", ".join(names)
        for attributes, names in alike.items()
    )
