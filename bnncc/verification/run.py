"""Run a compiled model on numpy arrays: the generated C itself, through cffi."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import numpy.typing as npt

from bnncc.backend.program import Port, Program
from bnncc.compiler import Artifact, Compilation
from bnncc.errors import ToolchainError, UsageError, printable
from bnncc.ir.types import Array
from bnncc.verification.build import build_library

__all__ = ["CompiledModel", "TensorSpec", "load", "load_many"]

_NO_MEMORY = 2
_FAILED = 2**64 - 1


def load(artifact: Artifact | Compilation, *, compiler: str = "") -> CompiledModel:
    """Build the generated C for this machine and return it as a callable.

    Args and Raises as for `load_many`, which does it.
    """
    (model,) = load_many([artifact], compiler=compiler)
    return model


def load_many(
    artifacts: Sequence[Artifact | Compilation], *, compiler: str = ""
) -> list[CompiledModel]:
    """Build several models' generated C with one call of the compiler; return them as callables.

    The build leaves no file behind, not even while a model is in use. The library that the models
    share stays in memory as long as any of them.

    Args:
        artifacts: what `bnncc.compile` returned, each for a model of another name.
        compiler: a C compiler, such as "clang" or "ccache gcc"; by default the environment's CC,
            then cc, gcc or clang. The environment's CFLAGS are used too.

    Raises:
        UsageError: BNN020 two models have one name.
        ToolchainError: BNN040 no compiler, BNN041 it failed, BNN050 no temporary folder.
    """
    compilations = [a.compilation if isinstance(a, Artifact) else a for a in artifacts]
    if not compilations:
        return []
    try:
        with tempfile.TemporaryDirectory(prefix="bnncc-", ignore_cleanup_errors=True) as folder:
            library = build_library(compilations, Path(folder), compiler=compiler)
            return [CompiledModel(each.program, library) for each in compilations]
    except OSError as error:
        raise ToolchainError(
            "BNN050",
            "there is no temporary folder to build the C in",
            where=printable(str(error.filename or "")),
            why=error.strerror or str(error),
            help="point TMPDIR to a folder that can be written to",
        ) from None


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name in the source model, a sample's shape, its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{printable(self.name)}: {_described(self.dtype, ('N', *self.shape))}"


class CompiledModel:
    """A model as C, loaded: call it with one array an input, any batch on axis 0.

    Calls from several threads run at the same time; Python's global lock is released meanwhile.
    Arrays go in without being copied if they are contiguous, and are never written to.

    Attributes:
        inputs, outputs: what it takes and returns, see `TensorSpec`.
        arena_bytes: the memory that one call works in.
    """

    def __init__(self, program: Program, library: Path) -> None:
        """Load the model of `program` from a library that `build_library` made.

        The library's file may be deleted afterwards.
        """
        self.inputs = tuple(map(_spec, program.inputs))
        self.outputs = tuple(map(_spec, program.outputs))
        self._program = program
        self._trace = np.dtype(
            [
                (str(i), _dtype(result.c_type), result.shape[1:])
                for i, result in enumerate(program.results)
            ]
        )
        self._ffi: Any = cffi.FFI()  # cffi has no types
        self._ffi.cdef(_declarations(program))
        try:
            self._c: Any = self._ffi.dlopen(os.fspath(library))
        except OSError as error:
            raise ToolchainError(
                "BNN041",
                f"the library built from {program.name} cannot be loaded",
                why=str(error),
                help="CC and CFLAGS must build for this Python's own machine, and TMPDIR must be "
                "on a file system that allows execution",
            ) from None
        # Not at exit: daemon threads may still be inside a call then.
        weakref.finalize(self, self._ffi.dlclose, self._c).atexit = False
        self.arena_bytes: int = self._function("arena_bytes")()

    def __call__(
        self, /, *inputs: npt.ArrayLike, **named: npt.ArrayLike
    ) -> Array | tuple[Array, ...]:
        """Return the outputs for a batch of samples: an array, or a tuple if there are several.

        Args:
            *inputs: float32 or uint8 [N, ...], as `self.inputs` says, N >= 0.
            **named: the same, by the input's name in the source model.

        Raises:
            UsageError: BNN042, an array is missing or has another shape or element type.
            ToolchainError: BNN043, the C reported a failure.
        """
        arrays, outputs = self._prepared(inputs, named)
        pointers = self._pointers(arrays, outputs)
        self._check(self._function("run")(len(outputs[0]), *pointers))
        return outputs if len(outputs) > 1 else outputs[0]

    def traced(
        self, /, *inputs: npt.ArrayLike, **named: npt.ArrayLike
    ) -> tuple[tuple[Array, ...], list[Array]]:
        """Return the outputs, and what the layers of the program stored.

        The i-th array is [N, ...] in the storage shape and type of `program.results[i]`: packed
        words for bits. Args and Raises as for a call.
        """
        arrays, outputs = self._prepared(inputs, named)
        samples = len(outputs[0])
        trace = _unwritten((samples,), self._trace)
        pointers = self._pointers(arrays, outputs)
        buffer = self._ffi.from_buffer(trace)
        self._check(self._function("trace")(samples, *pointers, buffer))
        return outputs, [trace[name].copy() for name in self._trace.names or ()]

    def nanoseconds_per_sample(
        self, /, *inputs: npt.ArrayLike, repeats: int = 10, **named: npt.ArrayLike
    ) -> float:
        """Return how long the C takes for one sample: the fastest run of the batch, divided by N.

        Args:
            *inputs: as for a call, N >= 1. Small models need a batch that takes microseconds.
            repeats: how many times to run it, at least 1.
            **named: as for a call.

        Raises:
            UsageError, ToolchainError: as for a call.
        """
        arrays, outputs = self._prepared(inputs, named)
        samples = len(outputs[0])
        if samples == 0 or repeats < 1:
            raise UsageError("BNN042", "there is nothing to take the time of", where=repr(self))
        best = self._function("time")(samples, repeats, *self._pointers(arrays, outputs))
        self._check(1 if best == _FAILED else 0)
        return int(best) / samples

    def __repr__(self) -> str:
        takes, gives = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<CompiledModel {self._program.name}: ({takes}) -> ({gives})>"

    def _prepared(
        self, inputs: Sequence[npt.ArrayLike], named: Mapping[str, npt.ArrayLike]
    ) -> tuple[list[Array], tuple[Array, ...]]:
        """Return the checked inputs and as yet empty outputs, all with the same batch."""
        given = zip(self.inputs, self._bound(inputs, named), strict=True)
        arrays = [_checked(spec, value) for spec, value in given]
        samples = len(arrays[0])  # a model has an input: without one there is nothing to compile
        if any(len(array) != samples for array in arrays):
            batches = zip(self.inputs, arrays, strict=True)
            each = ", ".join(f"{printable(spec.name)}: {len(array)}" for spec, array in batches)
            raise UsageError("BNN042", "the inputs have different batches", where=each)
        return arrays, tuple(_unwritten((samples, *s.shape), s.dtype) for s in self.outputs)

    def _bound(
        self, inputs: Sequence[npt.ArrayLike], named: Mapping[str, npt.ArrayLike]
    ) -> list[npt.ArrayLike]:
        """Return one value an input, in order, from those given by position and by name."""
        names = [spec.name for spec in self.inputs]
        free = names[len(inputs) :]
        if len(inputs) > len(names) or set(free) != set(named):
            given = [f"{len(inputs)} by position"] if inputs else []
            given += [printable(name) for name in named]
            raise UsageError(
                "BNN042",
                f"{self._program.name} takes {len(names)} input{'s' if len(names) > 1 else ''}",
                where=", ".join(map(str, self.inputs)),
                why=f"given: {', '.join(given) or 'none'}",
            )
        return [*inputs, *(named[name] for name in free)]

    def _pointers(self, arrays: Sequence[Array], outputs: Sequence[Array]) -> list[Any]:
        ports = (*self._program.inputs, *self._program.outputs)
        return [
            self._ffi.from_buffer(f"{port.c_type}[]", array)
            for port, array in zip(ports, (*arrays, *outputs), strict=True)
        ]

    def _function(self, verb: str) -> Any:
        return getattr(self._c, f"bnn_harness_{verb}_{self._program.name}")

    def _check(self, status: int) -> None:
        if status == _NO_MEMORY:
            raise MemoryError(f"no {self.arena_bytes} bytes for the arena")
        if status != 0:
            raise ToolchainError(
                "BNN043", f"{self._program.name}_run failed", why=f"it returned {status}"
            )


def _dtype(c_type: str) -> np.dtype[Any]:
    real = {"float": "float32", "double": "float64"}
    return np.dtype(real.get(c_type, c_type.removesuffix("_t")))


def _spec(port: Port) -> TensorSpec:
    return TensorSpec(port.tensor, port.shape[1:], _dtype(port.c_type))


def _declarations(program: Program) -> str:
    """Return what harness.c.j2 exports, for cffi."""
    pointers = [f"const {port.c_type} *" for port in program.inputs]
    pointers += [f"{port.c_type} *" for port in program.outputs]
    ports = ", ".join(pointers)
    name = program.name
    return f"""
        size_t bnn_harness_arena_bytes_{name}(void);
        int bnn_harness_run_{name}(size_t samples, {ports});
        int bnn_harness_trace_{name}(size_t samples, {ports}, void *trace);
        uint64_t bnn_harness_time_{name}(size_t samples, size_t repeats, {ports});
    """


def _described(dtype: np.dtype[Any], shape: Sequence[object]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"


def _unwritten(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array of rubbish, so that an element which the C leaves out does not look right."""
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = 0xA5
    return array


def _checked(spec: TensorSpec, value: npt.ArrayLike) -> Array:
    """Return an input as a contiguous, aligned array of exactly the element type that C reads."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        what = f'input "{printable(spec.name)}" is not an array'
        raise UsageError("BNN042", what, why=str(error)) from None
    if array.dtype.newbyteorder("=") != spec.dtype:
        raise _misfit(spec, array, "element type", _dtype_help(spec))
    if array.shape == spec.shape:
        raise _misfit(spec, array, "shape", "give a single sample a batch axis: x[np.newaxis]")
    if array.ndim == 0 or array.shape[1:] != spec.shape:
        raise _misfit(spec, array, "shape")
    return np.require(array, spec.dtype, ["C_CONTIGUOUS", "ALIGNED"])


def _misfit(spec: TensorSpec, array: Array, what: str, help: str = "") -> UsageError:
    expected = _described(spec.dtype, ("N", *spec.shape))
    given = _described(array.dtype, array.shape)
    return UsageError(
        "BNN042",
        f'input "{printable(spec.name)}" has the wrong {what}',
        why=f"expected {expected}, given {given}",
        help=help,
    )


def _dtype_help(spec: TensorSpec) -> str:
    if spec.dtype == np.float32:
        return "x.astype(np.float32); nothing is converted silently, since that can change values"
    return "give the integer codes that --input declared; casting real values would truncate them"
