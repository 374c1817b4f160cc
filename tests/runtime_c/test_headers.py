"""Each header compiles alone, in C99 and C++17, and refuses options under which results change."""

from __future__ import annotations

import subprocess

import pytest

from tests.runtime_c.driver import RUNTIME, WARNINGS, compiled, flags_of

HEADERS = sorted(str(path.relative_to(RUNTIME)) for path in RUNTIME.rglob("*.h"))
DIALECTS = {
    "c99": ("-x", "c", "-std=c99", "-Wstrict-prototypes"),
    "c++17": ("-x", "c++", "-std=c++17"),
}


def check(compiler: str, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [compiler, "-fsyntax-only", f"-I{RUNTIME}", "-x", "c", *flags, "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


def assert_compiles(compiler: str, source: str, *flags: str) -> None:
    done = check(compiler, source, *flags)
    assert done.returncode == 0, done.stderr


def test_there_are_headers() -> None:
    assert {"bnn_config.h", "bnn_bits.h", "bnn_pack.h", "bnn_real.h"} <= set(HEADERS)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_header_compiles_alone_and_twice(cc: str, header: str, dialect: str) -> None:
    flags = (*DIALECTS[dialect], *WARNINGS, *flags_of(header))
    assert_compiles(cc, f'#include "{header}"\n' * 2, *flags)


@pytest.mark.parametrize("header", [h for h in HEADERS if h.startswith("kernels/") and flags_of(h)])
def test_a_header_without_its_instructions_names_the_flags(cc: str, header: str) -> None:
    done = check(cc, f'#include "{header}"\n')
    assert done.returncode != 0
    assert flags_of(header)[0] in done.stderr


@pytest.mark.parametrize("header", [h for h in HEADERS if not flags_of(h)])
@pytest.mark.parametrize("compiler", ["arm-none-eabi-gcc", "aarch64-linux-gnu-gcc"])
def test_header_compiles_alone_for_the_other_targets(tool, header: str, compiler: str) -> None:
    assert_compiles(tool(compiler), f'#include "{header}"\n', "-std=c99", *WARNINGS)


@pytest.mark.parametrize("header", HEADERS)
def test_everything_a_header_defines_is_ours(header: str) -> None:
    text = (RUNTIME / header).read_text(encoding="utf-8")
    defined = [line.split()[1].split("(")[0] for line in text.splitlines() if "#define" in line]
    assert defined
    assert all(name.startswith("BNN_") for name in defined)


def test_kernels_inc_compiles_wherever_bnn_kernel_is_defined(cc: str) -> None:
    # As declarations of a table, in a function, and twice in one file: no include guard in the way.
    macro = "#define BNN_KERNEL(operation, isa, symbol, header, mr, nr, word_bits)"
    source = (
        f"{macro} enum_##symbol,\nenum {{\n#include <kernels.inc>\nkernel_count }};\n"
        f"#undef BNN_KERNEL\n{macro} + 1\nint count(void);\nint count(void) {{ return 0\n"
        "#include <kernels.inc>\n; }\n"
        "typedef char same[sizeof(char[kernel_count]) > 0 ? 1 : -1];\n"
    )
    assert_compiles(cc, source, "-std=c99", *WARNINGS)


# --- Options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["-ffast-math", "-O2 -ffast-math", "-Ofast"])
def test_fast_math_is_refused(cc: str, flags: str) -> None:
    assert_refused(cc, *flags.split())


# gcc announces each part of -ffast-math by a macro of its own; clang announces only the whole.
@pytest.mark.parametrize(
    "flags",
    [
        "-funsafe-math-optimizations",
        "-fassociative-math -fno-signed-zeros -fno-trapping-math",
        "-freciprocal-math",
        "-fno-signed-zeros",
        "-ffinite-math-only",
    ],
)
def test_parts_of_fast_math_are_refused(tool, flags: str) -> None:
    assert_refused(tool("gcc"), *flags.split())


def assert_refused(compiler: str, *flags: str) -> None:
    done = check(compiler, '#include "bnn_config.h"\n', *flags)
    assert done.returncode != 0
    assert "change results" in done.stderr


def test_x87_arithmetic_is_refused(tool) -> None:
    if not compiles_for_32_bit_x86(tool("gcc")):
        pytest.xfail("this gcc is not one for x86")
    flags = ("-m32", "-mfpmath=387", "-mno-sse", "-ffreestanding")
    done = check(tool("gcc"), '#include "bnn_config.h"\n', *flags)
    assert done.returncode != 0
    assert "evaluated as float" in done.stderr
    flags = ("-m32", "-mfpmath=sse", "-msse2", "-ffreestanding")
    assert_compiles(tool("gcc"), '#include "bnn_config.h"\n', *flags)


def compiles_for_32_bit_x86(compiler: str) -> bool:
    return check(compiler, "int x;\n", "-m32", "-ffreestanding").returncode == 0


@pytest.mark.parametrize(
    "dialect",
    ["c99", "c11", "gnu99", "gnu11"],
)
@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("aarch64-linux-gnu-gcc", "-mcpu=cortex-a76"),
        ("arm-none-eabi-gcc", "-mcpu=cortex-m55 -mthumb -mfloat-abi=hard"),
    ],
)
def test_half_precision_hardware_is_not_refused(
    tool, compiler: str, flags: str, dialect: str
) -> None:
    # In the gnu dialects FLT_EVAL_METHOD is 16 there: _Float16 as itself, float as float.
    flags = f"{flags} -std={dialect}"
    assert_compiles(tool(compiler), '#include "bnn_config.h"\n', *flags.split())


def test_a_kernel_row_may_be_used_as_a_function(cc: str, tmp_path) -> None:
    # BNN_INLINE functions are static: two files that include them link.
    source = '#include "bnn_bits.h"\n#include "bnn_real.h"\nint main(void) { return 0; }\n'
    compiled(cc, source, tmp_path / "program", "-std=c99", *WARNINGS)
