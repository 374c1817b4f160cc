"""bnn_expand and bnn_compress, bit by bit."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.runtime_c.driver import RUNTIME, WARNINGS, compiled

SOURCE = '#include "bnn_expand.h"\n' + "".join(
    f"uint{bits}_t {name}{bits}(uint{bits}_t v);\n"
    f"uint{bits}_t {name}{bits}(uint{bits}_t v) {{ return bnn_{name}_w{bits}(v); }}\n"
    for name in ("expand", "compress")
    for bits in (32, 64)
)


@pytest.fixture(scope="module")
def functions(cc: str, tmp_path_factory) -> ctypes.CDLL:
    path: Path = tmp_path_factory.mktemp("expand") / "expand.so"
    flags = ("-shared", "-fPIC", "-O2", "-std=c99", f"-I{RUNTIME}", *WARNINGS)
    return ctypes.CDLL(str(compiled(cc, SOURCE, path, *flags)))


@pytest.mark.parametrize("bits", [32, 64])
def test_expand_and_compress(functions: ctypes.CDLL, bits: int) -> None:
    random = np.random.default_rng(bits)
    words = [*(1 << i for i in range(bits)), 0, (1 << bits) - 1]
    words += [int.from_bytes(random.bytes(bits // 8), "little") for _ in range(1000)]
    c_type = {32: ctypes.c_uint32, 64: ctypes.c_uint64}[bits]
    expand, compress = (functions[f"{name}{bits}"] for name in ("expand", "compress"))
    for function in (expand, compress):
        function.argtypes, function.restype = [c_type], c_type
    for word in words:
        half = [word >> i & 1 for i in range(bits // 2)]
        assert expand(word) == sum(bit << (2 * i) for i, bit in enumerate(half))
        even = [word >> i & 1 for i in range(0, bits, 2)]
        assert compress(word) == sum(bit << i for i, bit in enumerate(even))
