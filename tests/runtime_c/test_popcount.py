"""bnn_popcount32 and 64, as an instruction and as arithmetic, against Python's integers."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from tests.runtime_c.driver import WARNINGS, Library, build_library

# x86-64 has the instruction since 2008 and compilers do not use it unless told. Elsewhere a
# processor has it or has not, and there is one build.
X86 = platform.machine() in ("x86_64", "AMD64")
BUILDS = {"arithmetic": "-mno-popcnt", "instruction": "-mpopcnt"} if X86 else {"default": "-O2"}


@pytest.fixture(scope="module", params=BUILDS)
def counting(request: pytest.FixtureRequest, cc: str, tmp_path_factory) -> Library:
    flags = ("-O2", "-std=c99", *WARNINGS, BUILDS[request.param])
    library = build_library(cc, tmp_path_factory.mktemp("popcount"), flags)
    if X86:
        assert library.has_popcount == (request.param == "instruction")
    return library


def _words(bits: int) -> list[int]:
    full = (1 << bits) - 1
    runs = [((1 << length) - 1) << at for length in range(bits + 1) for at in (0, bits - length)]
    striped = [full // (2**n + 1) if n else 0 for n in (1, 2, 4, 8, 16)]
    single = [1 << i for i in range(bits)]
    pairs = [1 << i | 1 << j for i in range(bits) for j in range(i)]
    edges = [*runs, *striped, *single, *pairs]
    return [word & full for word in (*edges, *(full ^ word for word in edges))]


@pytest.mark.parametrize("bits", [32, 64])
def test_edges(counting: Library, bits: int) -> None:
    words = _words(bits)
    counts = counting.each(f"popcount{bits}", "uint32", np.array(words, f"uint{bits}"))
    assert counts.tolist() == [word.bit_count() for word in words]


@pytest.mark.parametrize("bits", [32, 64])
def test_random_words_of_every_density(counting: Library, bits: int) -> None:
    random = np.random.default_rng(bits)
    density = random.random((200_000, 1))
    flags = random.random((200_000, bits)) < density
    words = np.packbits(flags, axis=1).view(f"uint{bits}")[:, 0]
    counts = counting.each(f"popcount{bits}", "uint32", words)
    assert np.array_equal(counts, flags.sum(axis=1))


def test_a_call_into_the_compilers_library_is_never_made(tool, tmp_path) -> None:
    # What the header exists for: __builtin_popcount is __popcountsi2 on a Cortex-M.
    cross = tool("arm-none-eabi-gcc")
    from tests.runtime_c.driver import RUNTIME, compiled

    source = (
        '#include "bnn_bits.h"\n'
        "uint32_t f(uint32_t v); uint32_t g(uint64_t v);\n"
        "uint32_t f(uint32_t v) { return bnn_popcount32(v); }\n"
        "uint32_t g(uint64_t v) { return bnn_popcount64(v); }\n"
    )
    for cpu in ("cortex-m0", "cortex-m4", "cortex-m33"):
        flags = ("-S", "-O2", f"-mcpu={cpu}", "-mthumb", f"-I{RUNTIME}")
        assembly = compiled(cross, source, tmp_path / f"{cpu}.s", *flags).read_text()
        assert "popcount" not in assembly.replace("bnn_popcount", "")
