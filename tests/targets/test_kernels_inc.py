"""kernels.inc as Python reads it; tests/runtime_c holds it against what C reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bnncc import resources
from bnncc.errors import InternalError
from bnncc.targets import Kernel, kernel_named, load_kernels

RUNTIME = resources.runtime_dir()
_DEFINES = "BNN_(?:NEVER_)?INLINE void"
EACH_KERNEL = pytest.mark.parametrize("kernel", load_kernels(), ids=str)


def test_symbols_are_distinct() -> None:
    symbols = [kernel.symbol for kernel in load_kernels()]
    assert len(set(symbols)) == len(symbols)


@EACH_KERNEL
def test_a_symbol_says_what_its_row_says(kernel: Kernel) -> None:
    # bnn_<what it computes>_<mr>x<nr>[_w<word_bits>]__<isa>
    words = f"_w{kernel.word_bits}" if kernel.computes == "xnor" else ""
    expected = f"bnn_{kernel.computes}_{kernel.mr}x{kernel.nr}{words}__{kernel.isa}"
    assert kernel.symbol == str(kernel) == expected
    assert kernel_named(expected) is kernel
    assert (kernel.mr > 1) == kernel.is_tile


@EACH_KERNEL
def test_a_row_is_sane(kernel: Kernel) -> None:
    assert kernel.mr >= 1
    assert kernel.word_bits in {8, 16, 32, 64}
    assert kernel.nr & (kernel.nr - 1) == 0  # blocks fill words of results without a rest
    if kernel.operation == "sign_sum":
        assert kernel.word_bits == kernel.nr


@EACH_KERNEL
def test_a_header_defines_its_kernels(kernel: Kernel) -> None:
    text = (RUNTIME / kernel.header).read_text(encoding="utf-8")
    assert re.search(rf"^{_DEFINES} {kernel.symbol}\(size_t ", text, re.MULTILINE)
    compare = re.search(rf"^{_DEFINES} {kernel.bits_symbol}\(size_t ", text, re.MULTILINE)
    assert compare or not kernel.is_tile
    assert kernel.header == f"kernels/{kernel.computes}_{kernel.isa}.h"


def test_no_kernel_has_another_name() -> None:
    with pytest.raises(InternalError, match="no kernel is called bnn_xnor_9x9"):
        kernel_named("bnn_xnor_9x9")


def test_every_kernel_of_a_header_has_a_row() -> None:
    symbols = {kernel.symbol for kernel in load_kernels()}
    symbols |= {kernel.bits_symbol for kernel in load_kernels() if kernel.is_tile}
    for header in {kernel.header for kernel in load_kernels()}:
        text = (RUNTIME / header).read_text(encoding="utf-8")
        defined = re.findall(rf"^{_DEFINES} (\w+x\w+__\w+)\(", text, re.MULTILINE)
        assert defined
        assert set(defined) <= symbols


def test_the_file_has_nothing_but_a_comment_and_rows() -> None:
    text = (RUNTIME / "kernels.inc").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line]
    assert all(line.startswith("BNN_KERNEL(") for line in lines)
    assert len(lines) == len(load_kernels())


# --- A file that cannot be read -------------------------------------------------------------------

_COMMENT = "/* BNN_KERNEL(operation, isa, symbol, header, mr, nr, word_bits) */\n"
_ROW = "BNN_KERNEL(xnor, scalar, bnn_f, kernels/f.h, 1, 4, 32)\n"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator:
    """read(text) is what load_kernels makes of a kernels.inc of that text."""
    monkeypatch.setattr(resources, "runtime_dir", lambda: tmp_path)

    def parse(text: str) -> tuple[Kernel, ...]:
        (tmp_path / "kernels.inc").write_text(text, encoding="utf-8")
        load_kernels.cache_clear()
        return load_kernels()

    yield parse
    load_kernels.cache_clear()


def test_rows_are_read_in_order(read) -> None:
    second = _ROW.replace("bnn_f", "bnn_g").replace("32)", "64)")
    assert read(_COMMENT + _ROW + second) == (
        Kernel("xnor", "scalar", "bnn_f", "kernels/f.h", 1, 4, 32),
        Kernel("xnor", "scalar", "bnn_g", "kernels/f.h", 1, 4, 64),
    )


@pytest.mark.parametrize(
    "row",
    [
        _ROW.replace(", 32)", ")"),
        _ROW.replace(", 32)", ", 32, 0)"),
        _ROW.replace("4,", "four,"),
        _ROW.replace(")", ");"),
        _ROW.replace(", ", ","),
        _ROW.replace("kernels/f.h", '"kernels/f.h"'),
        _ROW.replace(")\n", ") \n"),
        _ROW.replace("bnn_f", ""),
        _ROW.replace("BNN_KERNEL(", "BNN_KERNEL (") * 2,
        "",
    ],
)
def test_a_row_that_cannot_be_read_is_never_passed_over(read, row: str) -> None:
    before = _COMMENT + _ROW if row.startswith("BNN_KERNEL(") else _COMMENT
    with pytest.raises(InternalError, match=r"kernels\.inc holds a row that cannot be") as error:
        read(before + row)
    assert error.value.code == "BNN091"


@pytest.mark.parametrize("row", [" " + _ROW, _ROW.replace("BNN_KERNEL(", "BNN_KERNEL (")])
def test_a_row_that_c_would_read_is_not_passed_over(read, row: str) -> None:
    with pytest.raises(InternalError):
        read(_COMMENT + _ROW + row)


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "runtime_dir", lambda: tmp_path)
    load_kernels.cache_clear()
    try:
        with pytest.raises(FileNotFoundError):
            load_kernels()
    finally:
        load_kernels.cache_clear()
