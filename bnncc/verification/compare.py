"""Hold what bnncc made of a model against the model itself, layer by layer.

    oracle (ONNX Runtime)  ~  interpret(folded)    each layer on the oracle's own inputs to it
    interpret(packed)      =  the C                 end to end, every stored value, bit for bit

The first line is teacher-forced: a flip in one layer is counted once, there, and does not spread.
It may differ only where float32 itself does not decide: another order of the same sum could give
another bit, and the certificate and the inputs say so. The second line allows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnncc.certificate import LayerCertificate
from bnncc.compiler import Compilation
from bnncc.errors import printable
from bnncc.ir.analysis.rounding import gamma, softmax_bound, spread
from bnncc.ir.expression import root_of, trace
from bnncc.ir.graph import Graph
from bnncc.ir.interpret import run_stored
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.storage import decode, encode
from bnncc.ir.types import Array, Element
from bnncc.verification.data import Samples
from bnncc.verification.oracle import Oracle
from bnncc.verification.run import CompiledModel

__all__ = ["LayerCheck", "OutputCheck", "Verification", "compare"]

_ROWS_AT_ONCE = 500


@dataclass
class LayerCheck:
    """One stored tensor of the compiled model.

    Attributes:
        name: the tensor, by its name in the source model.
        compared: bits compared with the float reference; 0 where the tensor is not quantised.
        mismatches: differ though float32 decides: a failure.
        undecided: differ within float32 rounding of a decision.
        assumed: differ where the reference is exactly 0 and sign(0) was assumed.
        c_mismatches: stored values of the C that differ from the interpreter: a failure.
        first: where the first failure is, "" if there is none.
    """

    name: str
    compared: int = 0
    mismatches: int = 0
    undecided: int = 0
    assumed: int = 0
    c_mismatches: int = 0
    first: str = ""


@dataclass
class OutputCheck:
    """One output of the model.

    Attributes:
        name: by its name in the source model.
        values: how many were compared.
        mismatches: on the oracle's own inputs to the last layer, beyond what rounding explains.
        c_mismatches: of the C against the interpreter: a failure.
        max_abs_error: of the C against the oracle, end to end.
        top1_agreement: how often both rank the same class first, if it is a vector of scores.
        accuracy_reference, accuracy_c: with labels.
    """

    name: str
    values: int = 0
    mismatches: int = 0
    c_mismatches: int = 0
    max_abs_error: float = 0.0
    top1_agreement: float | None = None
    accuracy_reference: float | None = None
    accuracy_c: float | None = None


@dataclass(frozen=True)
class Verification:
    """The result of a verification; `ok` is the verdict."""

    samples: int
    source: str
    compiler: str
    layers: tuple[LayerCheck, ...]
    outputs: tuple[OutputCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs that float32 rounding or a stated assumption does not explain."""
        failed = [check.mismatches or check.c_mismatches for check in self.layers]
        failed += [check.mismatches or check.c_mismatches for check in self.outputs]
        return not any(failed)

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return {"ok": self.ok} | asdict(self)


class _Comparison:
    """One verification under way."""

    def __init__(self, compilation: Compilation, model: CompiledModel, samples: Samples) -> None:
        self.compilation = compilation
        self.model = model
        self.samples = samples
        self.folded: Graph = compilation.lowered.folded
        self.packed: Graph = compilation.lowered.graph
        self.certificates: Mapping[str, LayerCertificate] = {
            c.layer: c for c in compilation.certificate.layers
        }
        self.assumes_sign = bool(compilation.certificate.assumptions)
        names = [layer.y.tensor for layer in compilation.program.layers]
        self.layers = {name: LayerCheck(printable(name)) for name in names}
        self.outputs = {name: OutputCheck(printable(name)) for name in self.packed.outputs}
        # Everything stored that the oracle has too is compared there, and taken from there on.
        points = [name for name in names if name in self.folded.types]
        self.oracle = Oracle(compilation.oracle, [*self.certificates, *points])
        self.top1: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self.outputs}

    def run(self, rows: slice) -> None:
        """Compare some of the samples."""
        compiled = {name: array[rows] for name, array in self.samples.compiled.items()}
        oracle = self.oracle.run({n: array[rows] for n, array in self.samples.oracle.items()})
        self._reference(compiled, oracle, rows.start)
        results = self._generated(compiled, rows.start)
        for name, check in self.outputs.items():
            error = np.abs(results[name].astype(np.float64) - oracle[name]).max(initial=0.0)
            check.max_abs_error = max(check.max_abs_error, float(error))
            check.values += results[name].size
            self.top1[name].append((_ranked(oracle[name]), _ranked(results[name])))

    def _reference(
        self, feeds: Mapping[str, Array], oracle: Mapping[str, Array], first: int
    ) -> None:
        """Run the folded graph on the oracle's own tensors, and compare each with the oracle's."""
        seen: dict[str, Array] = {}

        def observe(name: str, value: Array) -> Array:
            seen[name] = value
            if name in oracle:
                truth = oracle[name].reshape(value.shape)
                if name in self.certificates:
                    self._bits(name, decode(value, self.folded.types[name]), truth, seen, first)
                elif value.dtype == np.float32:
                    self._reals(name, value, truth, seen, first)
                kind = self.folded.types[name]
                if kind.element is Element.BIPOLAR:  # which cannot hold the oracle's sign(0)
                    truth = np.where(truth == 0, value, truth)
                seen[name] = encode(truth, kind)
            return seen[name]

        seen.update({n: encode(a, self.folded.types[n]) for n, a in feeds.items()})
        run_stored(self.folded, feeds, observe)

    def _bits(
        self, name: str, ours: Array, truth: Array, seen: Mapping[str, Array], first: int
    ) -> None:
        """Count the bits of a quantised tensor that differ, by reason."""
        check = self.layers.setdefault(name, LayerCheck(printable(name)))
        check.compared += ours.size
        row, channel = np.nonzero((ours != truth).reshape(len(ours), -1))
        if not len(row):
            return
        flat = truth.reshape(len(ours), -1)
        assumed = (flat[row, channel] == 0) & self.assumes_sign
        undecided = self._undecided(self.certificates[name], row, channel, seen) & ~assumed
        failed = ~assumed & ~undecided
        check.assumed += int(assumed.sum())
        check.undecided += int(undecided.sum())
        check.mismatches += int(failed.sum())
        if failed.any() and not check.first:
            at = int(np.argmax(failed))
            check.first = f"sample {first + row[at]}, channel {channel[at]}"

    def _undecided(
        self, proof: LayerCertificate, row: Array, channel: Array, seen: Mapping[str, Array]
    ) -> Array:
        """Return which differing bits another float32 order of the same layer could give."""
        root = seen[proof.root].reshape(len(seen[proof.root]), -1)
        value = root[row, channel].astype(np.float64)
        radius = self._reordering(proof.root, seen)
        reach = radius[row, channel] if radius is not None else 0.0
        return proof.is_undecided(channel, value - reach, value + reach)

    def _reordering(self, name: str, seen: Mapping[str, Array]) -> Array | None:
        """Return how far a float32 sum over these inputs could move in another order [N, O]."""
        node = self.folded.producers.get(name)
        if node is None or not isinstance(node.op, (BinaryDense, MatMul)):
            return None
        x, weights = seen[node.inputs[0]], self.folded.constants[node.inputs[1]]
        if x.dtype != np.float32:
            return None
        magnitude = np.abs(x.astype(np.float64)) @ np.abs(weights.T.astype(np.float64))
        return np.asarray(2 * gamma(weights.shape[1] + 2) * magnitude)

    def _reals(
        self, name: str, ours: Array, truth: Array, seen: Mapping[str, Array], first: int
    ) -> None:
        """Count the values that no order of float32 operations explains."""
        with np.errstate(invalid="ignore"):
            apart = np.abs(ours.astype(np.float64) - truth)
        wrong = apart > self._explained(name, ours, seen)
        check = self.outputs.get(name) or self.layers[name]
        check.mismatches += int(wrong.sum())
        if wrong.any() and name in self.layers and not self.layers[name].first:
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            self.layers[name].first = f"sample {first + at[0]}, value {list(map(int, at[1:]))}"

    def _explained(self, name: str, ours: Array, seen: Mapping[str, Array]) -> Array | float:
        """Return how far another float32 evaluation of a real tensor may lie from ours."""
        node = self.folded.producers[name]
        if isinstance(node.op, Softmax):
            return softmax_bound(ours, log=node.op.log)
        root = root_of(self.folded, name)
        reordered = self._reordering(root, seen) if root else None
        slack: Array | float = 0.0 if reordered is None else reordered
        chain = trace(self.folded, name, root) if root and root != name else None
        return slack if chain is None else spread(chain, seen[chain.root], slack)[1]

    def _generated(self, feeds: Mapping[str, Array], first: int) -> dict[str, Array]:
        """Run the C, compare all it stores with the packed graph, and return its outputs."""
        stored = run_stored(self.packed, feeds)
        ordered = [feeds[name] for name in self.packed.inputs]
        results, trace_ = self.model.traced(*ordered)
        for layer, actual in zip(self.compilation.program.layers, trace_, strict=True):
            expected = stored[layer.y.tensor]
            wrong = _bitwise(expected) != _bitwise(actual.reshape(expected.shape))
            check = self.layers[layer.y.tensor]
            check.c_mismatches += int(wrong.sum())
            if wrong.any() and not check.first:
                at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                check.first = f"sample {first + at[0]}, stored value {list(map(int, at[1:]))}"
        outputs = dict(zip(self.packed.outputs, results, strict=True))
        for name, value in outputs.items():
            wrong = _bitwise(stored[name]) != _bitwise(value)
            self.outputs[name].c_mismatches += int(wrong.sum())
        return outputs

    def finish(self) -> None:
        """Compute the scores that need all samples."""
        labels = self.samples.labels
        for name, check in self.outputs.items():
            pairs = self.top1[name]
            reference, generated = (np.concatenate(column) for column in zip(*pairs, strict=True))
            if reference.ndim == 1 and self.packed.types[name].shape[-1] > 1:
                check.top1_agreement = float((reference == generated).mean())
                if labels is not None:
                    check.accuracy_reference = float((reference == labels).mean())
                    check.accuracy_c = float((generated == labels).mean())


def _ranked(scores: Array) -> Array:
    """Return the first-ranked class of each row [N, C], the lowest index among equals."""
    return scores.argmax(axis=1) if scores.ndim == 2 else scores[:0].reshape(0, 1)


def _bitwise(values: Array) -> Array:
    """Return floats as their bits, so that -0 and +0, and NaNs, compare as stored."""
    return values.view(np.uint32) if values.dtype == np.float32 else values


def compare(
    compilation: Compilation,
    model: CompiledModel,
    samples: Samples,
    compiler: str,
    progress: Callable[[str, int, int], None],
) -> Verification:
    """Return how the compiled model compares with its source on the given samples."""
    comparison = _Comparison(compilation, model, samples)
    for rows in _chunks(samples.count):
        progress("comparing samples", rows.start, samples.count)
        comparison.run(rows)
    comparison.finish()
    layers: Sequence[LayerCheck] = tuple(comparison.layers.values())
    return Verification(
        samples.count, samples.source, compiler, tuple(layers), tuple(comparison.outputs.values())
    )


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))
