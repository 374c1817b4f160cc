"""Numbers as C literals that parse back to the same bits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bnncc.ir.types import Array

__all__ = ["initialiser", "literal"]

_WIDTH = 96
_MANY = 4096
_FORMATS = {
    np.dtype(np.uint8): "0x%02xu",
    np.dtype(np.uint32): "0x%08xu",
    np.dtype(np.uint64): "0x%016xu",
    np.dtype(np.float32): "%#.9gf",
}
"""How the literals of large arrays are printed: weights, that is."""


def literal(value: Array) -> str:
    """Return one number (a 0-d array) as a literal."""
    return next(iter(_literals(value.reshape(1))))


def initialiser(values: Array) -> str:
    """Return the numbers of an array, C order, separated by commas on lines of about 96 columns."""
    flat = values.reshape(-1)
    many = flat.size > _MANY and flat.dtype in _FORMATS and bool(np.isfinite(flat).all())
    texts = _many(flat) if many else list(_literals(flat))
    widest = max(map(len, texts), default=1)
    each = max(1, _WIDTH // (widest + 2))
    lines = (", ".join(texts[i : i + each]) for i in range(0, len(texts), each))
    return ",\n  ".join(lines)


def _many(values: Array) -> list[str]:
    """Return the literals of a large array of finite numbers, ten times as fast."""
    one = _FORMATS[values.dtype] + " "
    return ((one * values.size) % tuple(values.tolist())).split()


def _literals(values: Array) -> Iterable[str]:
    match values.dtype.name:
        case "uint8" | "uint32" | "uint64":
            digits = values.dtype.itemsize * 2
            return (f"0x{v:0{digits}x}u" for v in values.tolist())
        case "bool":
            return (str(int(v)) for v in values.tolist())
        case "uint16":
            return (f"{v}u" for v in values.tolist())
        case "int16":
            return map(str, values.tolist())
        case "int32":
            return (str(v) if v > _LOWEST else f"(-{-v - 1} - 1)" for v in values.tolist())
        case "float32":
            return (_real(v, 9, "f", "BNN_INFINITY", "BNN_NAN") for v in values.tolist())
        case "float64":
            special = "(double)BNN_INFINITY", "(double)BNN_NAN"
            return (_real(v, 17, "", *special) for v in values.tolist())
    raise ValueError(f"no literals for {values.dtype}")


_LOWEST = np.iinfo(np.int32).min


def _real(value: float, digits: int, suffix: str, infinity: str, nan: str) -> str:
    """Return a decimal that rounds to the same value: 9 digits for float, 17 for double.

    Of all NaNs, which nothing tells apart, it is the one that C has by name.
    """
    if np.isnan(value):
        return nan
    if np.isinf(value):
        return infinity if value > 0 else f"-{infinity}"
    text = f"{value:.{digits}g}"
    if not set(text) & set(".e"):
        text += ".0"
    return text + suffix
