"""The two files of a model in a program of their own, under sanitisers and on other processors.

Results are those of the interpreter on the packed graph, bit for bit.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bnncc.ir import interpret
from tests.backend.toolchain import CORTEX_M4, CORTEX_M4F, assert_same_bits, run
from tests.backend.zoo import MODELS, emitted, inputs
from tests.e2e.standalone import from_bytes, to_bytes, write_sources

SAMPLES = 60
CORTEX_M = Path(__file__).parent / "cortex_m"
SANITISE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
EACH_MODEL = pytest.mark.parametrize("model", MODELS)


@dataclass(frozen=True)
class Build:
    """One way to build and run the program.

    Attributes:
        compiler: its name.
        target: what the C was generated for.
        flags: for compiling and linking.
        emulator: what runs the result, if the machine itself does not.
    """

    compiler: str
    target: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join((Path(self.compiler).name, self.target, *self.emulator))


BUILDS = [
    Build("gcc", "x86-64", ("-O1", "-std=c99", *SANITISE)),
    Build("clang", "cortex-m4", ("-O1", "-std=c99", *SANITISE)),
    # Nothing but a level: the dialect in which gcc fuses, and every loop vectorised.
    Build("gcc", "x86-64", ("-O3", "-march=native")),
    Build("aarch64-linux-gnu-gcc", "aarch64", ("-O3", "-static"), ("qemu-aarch64",)),
]
MORE_BUILDS = [
    Build("clang", "x86-64", ("-O1", "-std=c99", *SANITISE)),
    Build("gcc", "cortex-m4", ("-O1", "-std=c99", *SANITISE)),
    # Reading a byte of the arena that this call has not written is an error.
    Build("clang", "x86-64", ("-O1", "-g", "-fsanitize=memory", "-fno-sanitize-recover=all")),
    Build("gcc", "x86-64", ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all")),
    Build("clang", "x86-64", ("-O3", "-march=native", "-ffp-contract=fast")),
    Build("gcc", "cortex-m4", ("-O3", "-march=native", "-flto")),
    Build("aarch64-linux-gnu-gcc", "generic", ("-O2", "-static", "-std=c99"), ("qemu-aarch64",)),
    Build("arm-linux-gnueabihf-gcc", "armv7-a", ("-O3", "-static", "-mfpu=neon"), ("qemu-arm",)),
    # It has fused multiply-adds as well.
    Build(
        "arm-linux-gnueabihf-gcc", "generic", ("-O3", "-static", "-mfpu=neon-vfpv4"), ("qemu-arm",)
    ),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory, tool) -> Callable[[Build], Sequence[str]]:
    """programs(build) is the command that runs the program, built once."""
    made: dict[Build, Sequence[str]] = {}

    def command(build: Build) -> Sequence[str]:
        if build not in made:
            folder = tmp_path_factory.mktemp("standalone")
            sources = write_sources(folder, build.target)
            program = folder / "program"
            run(tool(build.compiler), *build.flags, *sources, "-o", program)
            made[build] = (*map(tool, build.emulator), str(program))
        return made[build]

    return command


def check(command: Sequence[str], model: str, target: str, folder: Path) -> None:
    """Run one model's samples through the program and through the interpreter."""
    graph = emitted(model, target).graph
    feeds = inputs(graph, SAMPLES, seed=len(model))
    given, taken = folder / "in.bin", folder / "out.bin"
    given.write_bytes(to_bytes(graph, feeds))
    arguments = [*command, model, str(given), str(taken)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    assert (done.stdout, done.stderr) == ("", "")
    assert_same_bits(from_bytes(graph, taken.read_bytes()), interpret.run(graph, feeds))


@EACH_MODEL
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_standalone(programs, tmp_path: Path, build: Build, model: str) -> None:
    check(programs(build), model, build.target, tmp_path)


@pytest.mark.slow
@EACH_MODEL
@pytest.mark.parametrize("build", MORE_BUILDS, ids=str)
def test_standalone_built_otherwise(programs, tmp_path: Path, build: Build, model: str) -> None:
    check(programs(build), model, build.target, tmp_path)


@pytest.fixture(scope="module", params=["soft", "hard"])
def firmware(request: pytest.FixtureRequest, tmp_path_factory, tool) -> Sequence[str]:
    """The command that runs all models on an emulated Cortex-M4, without and with its FPU."""
    flags = CORTEX_M4 if request.param == "soft" else CORTEX_M4F
    folder = tmp_path_factory.mktemp("firmware")
    sources = write_sources(folder, "cortex-m4", firmware=True)
    image = folder / "firmware.elf"
    run(
        tool("arm-none-eabi-gcc"),
        *flags,
        *("-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"),
        *("-nostartfiles", "-nostdlib", f"-T{CORTEX_M / 'memory.ld'}"),
        *(CORTEX_M / "startup.c", *sources, "-lc", "-lgcc"),
        *("-o", image),
    )
    emulator = tool("qemu-system-arm")
    silent = ("-nographic", "-monitor", "none", "-serial", "none")
    semihosting = ("-semihosting-config", "enable=on,target=native")
    return emulator, "-M", "mps2-an386", *silent, *semihosting, "-kernel", str(image)


@EACH_MODEL
def test_cortex_m4(firmware: Sequence[str], tmp_path: Path, model: str) -> None:
    # Unaligned access traps there, and the stack that a call takes is measured.
    graph = emitted(model, "cortex-m4").graph
    feeds = inputs(graph, 8, seed=len(model))
    which = bytes([list(MODELS).index(model)])
    (tmp_path / "in.bin").write_bytes(which + to_bytes(graph, feeds))
    done = subprocess.run(
        firmware, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    results = from_bytes(graph, (tmp_path / "out.bin").read_bytes())
    assert_same_bits(results, interpret.run(graph, feeds))


def test_the_program_tells_right_from_wrong(programs, tmp_path: Path) -> None:
    # Without this, the tests above would pass on outputs that are compared with themselves.
    graph = emitted("reals", "x86-64").graph
    feeds = inputs(graph, 4)
    given, taken = tmp_path / "in.bin", tmp_path / "out.bin"
    given.write_bytes(to_bytes(graph, feeds))
    run(*programs(BUILDS[0]), "reals", given, taken)
    (name,) = graph.inputs
    other = {name: feeds[name][::-1]}
    with pytest.raises(AssertionError):
        assert_same_bits(from_bytes(graph, taken.read_bytes()), interpret.run(graph, other))
