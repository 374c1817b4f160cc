"""What verify runs on: random samples, or the user's own from an .npz file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnncc.errors import UsageError, printable
from bnncc.frontends.inputs import InputSpec
from bnncc.ir.graph import Graph
from bnncc.ir.types import Array, Element, TensorType

__all__ = ["Samples", "load_samples", "random_samples"]

_LABELS = ("labels", "label", "y_true", "targets")


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs for the compiled model and for the oracle, and labels if there are any.

    Attributes:
        source: "random", or the file's name.
        compiled: by input name, as the C takes them.
        oracle: by input name, as the float model takes them.
        labels: int64 [N], or None.
    """

    source: str
    compiled: Mapping[str, Array]
    oracle: Mapping[str, Array]
    labels: Array | None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.compiled.values())))


def random_samples(graph: Graph, specs: Mapping[str, InputSpec], count: int, seed: int) -> Samples:
    """Return seeded samples: bytes uniform over their values, reals normal, some rounded to 1/8.

    Rounded values make sums that land exactly on decisions likelier.
    """
    random = np.random.default_rng(seed)
    compiled: dict[str, Array] = {}
    for name in graph.inputs:
        kind = graph.types[name]
        shape = (count, *kind.shape[1:])
        if kind.element in (Element.U8, Element.I8):
            whole = np.iinfo(kind.element.dtype)
            codes = random.integers(whole.min, whole.max + 1, shape)
            compiled[name] = codes.astype(kind.element.dtype)
        else:
            values = random.standard_normal(shape, np.float32)  # hundreds of images: no doubles
            values[::2] = np.round(values[::2] * 8) / 8
            compiled[name] = values
    return Samples("random", compiled, _decoded(compiled, specs), None)


def load_samples(
    graph: Graph,
    specs: Mapping[str, InputSpec],
    data: str | os.PathLike[str] | Mapping[str, Array],
    limit: int = 0,
) -> Samples:
    """Return the user's samples.

    Args:
        graph: whose inputs they feed.
        specs: its inputs declared as bytes.
        data: arrays by input name, or an .npz file of them; with one input, any one array that is
            not called labels. Each [N, ...] with as many elements a sample as the input has.
        limit: how many samples to take at most; 0 for all.

    Raises:
        UsageError: BNN061.
    """
    arrays, source = _arrays(data)
    labels = next((arrays.pop(name) for name in _LABELS if name in arrays), None)
    compiled = {
        name: _fitted(name, graph.types[name], _find(name, graph, arrays), specs.get(name))
        for name in graph.inputs
    }
    counts = {len(array) for array in compiled.values()}
    if len(counts) != 1 or 0 in counts:
        raise UsageError("BNN061", "the inputs hold different numbers of samples, or none")
    (count,) = counts
    if labels is not None and labels.reshape(-1).shape != (count,):
        what = f"{labels.size} labels do not fit {count} samples"
        raise UsageError("BNN061", what, where=source)
    taken = slice(0, limit or count)
    compiled = {name: array[taken] for name, array in compiled.items()}
    kept = None if labels is None else labels.reshape(-1)[taken].astype(np.int64)
    return Samples(source, compiled, _decoded(compiled, specs), kept)


def _arrays(data: str | os.PathLike[str] | Mapping[str, Array]) -> tuple[dict[str, Array], str]:
    if isinstance(data, Mapping):
        return dict(data), "arrays"
    path = Path(data)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, path.name
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        what = f"cannot read {printable(path.name)}"
        why = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            "BNN061", what, why=why, help="numpy.savez(file, x=inputs, labels=labels) writes one"
        ) from None


def _find(name: str, graph: Graph, arrays: Mapping[str, Array]) -> Array:
    if name in arrays:
        return arrays[name]
    candidates = {n: a for n, a in arrays.items() if a.ndim > 1}
    for common in ("x", "images", "inputs"):
        if len(graph.inputs) == 1 and common in candidates:
            return candidates[common]
    if len(graph.inputs) == 1 and len(candidates) == 1:
        return next(iter(candidates.values()))
    found = ", ".join(printable(n) for n in arrays) or "nothing"
    raise UsageError(
        "BNN061",
        f'no array for the input "{printable(name)}"',
        where=f"the data holds {found}",
        help=f'call the array "{printable(name)}", or "x" for a model with one input',
    )


def _fitted(name: str, kind: TensorType, array: Array, spec: InputSpec | None) -> Array:
    """Return the array as the compiled model takes it, values unchanged."""
    if array.ndim == 0 or array[:1].size != kind.size:
        wanted = "x".join(map(str, kind.shape[1:]))
        what = f'"{printable(name)}" takes [N, {wanted}], the data is {list(array.shape)}'
        raise UsageError("BNN061", what)
    shaped = array.reshape(len(array), *kind.shape[1:])
    if shaped.dtype == kind.element.dtype:
        return shaped
    if kind.element in (Element.U8, Element.I8) and shaped.dtype.kind == "f":
        own = spec is None  # the model itself takes bytes
        spec = spec or InputSpec(1, 0)
        whole = np.iinfo(kind.element.dtype)
        codes = np.rint((shaped.astype(np.float64) - spec.offset) / spec.scale)
        codes = np.clip(codes, whole.min, whole.max).astype(kind.element.dtype)
        if np.array_equal(spec.decode(codes), shaped.astype(np.float32)):
            return codes
        decoded = "" if own else " decoded by its --input"
        what = f'the values for "{printable(name)}" are not {codes.dtype} codes{decoded}'
        raise UsageError("BNN061", what)
    if kind.element is Element.F32 and shaped.dtype.kind == "f":
        return shaped.astype(np.float32)
    raise UsageError(
        "BNN061",
        f'"{printable(name)}" takes {kind.element.dtype}, the data is {shaped.dtype}',
        help=f"for bytes: --input {shaped.dtype}:SCALE,OFFSET"
        if shaped.dtype in (np.uint8, np.int8)
        else "",
    )


def _decoded(compiled: Mapping[str, Array], specs: Mapping[str, InputSpec]) -> dict[str, Array]:
    return {n: specs[n].decode(a) if n in specs else a for n, a in compiled.items()}
