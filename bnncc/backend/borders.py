"""Constant images most of whose pixels are alike: each kind of row and column is stored once.

What a padded layer adds a pixel differs at the image's borders alone: of 3x3 taps there are three
kinds of rows and three of columns, whatever the size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bnncc.backend.program import Constant
from bnncc.ir.types import Array

__all__ = ["Bordered", "bordered"]

_KIND = "parameters"


@dataclass(frozen=True)
class Bordered:
    """An image [1, *S, C] as a table [rows, columns, C] of those that differ.

    Attributes:
        table: the values.
        kinds: which of its rows, and of its columns, each of the image's is; none where there is
            only one.
        place: the C expression of the table's element for channel c of pixel p.
    """

    table: Constant
    kinds: tuple[Constant, ...]
    place: str


def bordered(name: str, image: Array) -> Bordered | None:
    """Return a constant image as a table, if that takes fewer bytes.

    Args:
        name: of the table; those of the kinds start with it.
        image: [1, *S, C] with one or two spatial axes.
    """
    if image.ndim not in (3, 4) or image.shape[0] != 1:
        return None
    height, width, channels = math.prod(image.shape[1:-2]), *image.shape[-2:]
    whole = image.reshape(height, width, channels)
    row = _kinds(whole)
    some = whole[np.unique(row, return_index=True)[1]]
    column = _kinds(some.transpose(1, 0, 2))
    table = np.ascontiguousarray(some[:, np.unique(column, return_index=True)[1]])
    kinds: list[Constant] = []
    terms: list[str] = []
    for kind, suffix, index, pixels in (
        (row, "rows", f"p / {width}u" if height > 1 else "0", table.shape[1] * channels),
        (column, "columns", f"p % {width}u" if height > 1 else "p", channels),
    ):
        if kind.max() > 0:
            held = Constant(f"{name}_{suffix}", _c_type(kind), kind.shape, kind, _KIND)
            kinds.append(held)
            terms.append(f"{held.name}[{index}]" + (f" * {pixels}u" if pixels > 1 else ""))
    if table.nbytes + sum(held.nbytes for held in kinds) >= image.nbytes:
        return None
    c_type = {"float32": "float"}.get(table.dtype.name, f"{table.dtype.name}_t")
    place = " + ".join([*terms, *(["c"] if channels > 1 else [])]) or "0"
    return Bordered(Constant(name, c_type, table.shape, table, _KIND), tuple(kinds), place)


def _kinds(rows: Array) -> Array:
    """Return a number for each row, the same for the same bits, in order of appearance."""
    bits = np.ascontiguousarray(rows.reshape(len(rows), -1)).view(np.uint8)
    _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return number.astype(np.uint8 if number.max() < 1 << 8 else np.uint16)


def _c_type(kind: Array) -> str:
    return f"{kind.dtype.name}_t"
