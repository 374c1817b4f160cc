"""Literals, parsed back by real compilers to the same bits."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnncc.backend.literals import initialiser, literal
from bnncc.ir.types import Array
from tests.backend.toolchain import WARNINGS, run

C_TYPES = {
    "uint8": "uint8_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "float32": "float",
    "float64": "double",
}
DIALECTS = {"c": "c99", "c++": "c++17"}

# As in bnn_real.h, which every model has in it.
_SPECIAL = (
    "#include <stdint.h>\n"
    "#define BNN_INFINITY __builtin_inff()\n"
    '#define BNN_NAN __builtin_nanf("")\n'
)


def read_back(compiler: str, folder: Path, arrays: dict[str, Array], language: str = "c") -> None:
    """Print arrays, let a compiler read them, and compare all bits."""
    lines = [_SPECIAL]
    for name, array in arrays.items():
        prefix = 'extern "C" ' if language == "c++" else ""
        c_type = C_TYPES[array.dtype.name]
        lines.append(f"{prefix}const {c_type} {name}[{array.size}];" if not prefix else "")
        lines.append(
            f"{prefix}const {c_type} {name}[{array.size}] = {{\n  {initialiser(array)}\n}};"
        )
    source = folder / "literals.c"
    source.write_text("\n".join([*lines, ""]), encoding="utf-8")
    library = folder / f"literals{len(list(folder.iterdir()))}.so"  # a fresh name: dlopen caches
    flags = ("-shared", "-fPIC", "-x", language, f"-std={DIALECTS[language]}", *WARNINGS)
    run(compiler, *flags, source, "-o", library)
    handle = ctypes.CDLL(str(library))
    for name, array in arrays.items():
        kind = ctypes.c_char * array.nbytes
        actual = np.frombuffer(kind.in_dll(handle, name), array.dtype)
        wrong = np.flatnonzero(
            actual.view(f"u{array.itemsize}") != array.view(f"u{array.itemsize}")
        )
        assert not wrong.size, [
            (array[i], literal(array[i : i + 1].reshape(()))) for i in wrong[:5]
        ]


def _integers(dtype: str) -> Array:
    limits = np.iinfo(dtype)
    random = np.random.default_rng(limits.bits)
    drawn = random.integers(limits.min, limits.max, 2000, dtype, endpoint=True)
    edges = [limits.min, limits.min + 1, 0, 1, limits.max - 1, limits.max]
    return np.concatenate([np.array(edges, dtype), drawn])


def _floats(dtype: str) -> Array:
    limits = np.finfo(dtype)
    bits = np.dtype(f"u{limits.dtype.itemsize}")
    random = np.random.default_rng(limits.bits)
    anywhere = random.integers(0, np.iinfo(bits).max, 10_000, bits, endpoint=True).view(dtype)
    subnormal = random.integers(0, 1 << limits.nmant, 2000, bits).view(dtype)
    small = limits.smallest_subnormal
    edges = [
        0,
        small,
        2 * small,
        limits.tiny - small,
        limits.tiny,
        1,
        0.1,
        1e10,
        16777216,
        16777217,
    ]
    edges += [np.nextafter(limits.max, np.array(0, dtype)), limits.max, np.inf]
    integral = np.arange(-20, 20)
    values = np.concatenate([np.array([*edges, *integral], dtype), anywhere, subnormal])
    values = values[~np.isnan(values)]
    return np.concatenate([values, -values])


@pytest.mark.parametrize("language", DIALECTS)
def test_compilers_read_the_same_numbers(cc: str, tmp_path: Path, language: str) -> None:
    arrays = {
        **{f"{name}s": _integers(name) for name in C_TYPES if "int" in name},
        **{f"{name}s": _floats(name) for name in C_TYPES if "float" in name},
    }
    assert (np.signbit(arrays["float32s"]) & (arrays["float32s"] == 0)).any()  # -0.0 is in it
    read_back(cc, tmp_path, arrays, language)


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("dtype", C_TYPES)
def test_any_numbers(any_cc: str, tmp_path_factory, dtype: str, data: st.DataObject) -> None:
    elements = {"allow_nan": False} if "float" in dtype else {}
    array = data.draw(hnp.arrays(dtype, st.integers(1, 40), elements=elements or None))
    read_back(any_cc, tmp_path_factory.mktemp("literals"), {"values": array})


@given(st.floats(width=32, allow_nan=False))
def test_a_float_literal_has_a_point_and_a_suffix(value: float) -> None:
    text = literal(np.float32(value).reshape(()))
    if np.isinf(np.float32(value)):
        assert text.lstrip("-") == "BNN_INFINITY"
        return
    assert text.endswith("f")
    assert set(text) & set(".e")
    assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


def test_the_lowest_integer_is_an_int(any_cc: str, tmp_path: Path) -> None:
    # -2147483648 would be a long, or in C90 unsigned: its minus is an operator.
    lowest = literal(np.array(np.iinfo(np.int32).min, np.int32))
    source = tmp_path / "lowest.c"
    source.write_text(f"typedef char is_int[sizeof({lowest}) == sizeof(int) ? 1 : -1];\n")
    run(any_cc, "-fsyntax-only", "-std=c99", *WARNINGS, source)


def test_a_literal_is_that_of_the_initialiser() -> None:
    for name in C_TYPES:
        array = (_integers if "int" in name else _floats)(name)[:50]
        texts = [literal(value.reshape(())) for value in array]
        assert initialiser(array).replace("\n  ", " ") == ", ".join(texts)


def test_lines_are_short_and_the_order_is_that_of_c() -> None:
    array = np.arange(1000, dtype=np.int32).reshape(10, 20, 5)
    lines = initialiser(array).split("\n")
    assert max(map(len, lines)) <= 100
    numbers = [int(text) for line in lines for text in line.split(",") if text.strip()]
    assert numbers == list(range(1000))


def test_types_without_a_form_are_refused() -> None:
    for dtype in ("int64", "complex64", "float16"):
        with pytest.raises(ValueError, match="no literals for"):
            literal(np.zeros((), dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_number_has_a_literal(any_cc: str, tmp_path: Path, dtype: str) -> None:
    read_back(any_cc, tmp_path, {"values": np.array([np.nan, 1, -np.inf, np.nan], dtype)})
