"""Hold what bnncc made of a model against the model itself, layer by layer.

    oracle (ONNX Runtime)  ~  interpret(folded)    each layer on the oracle's own inputs to it
    interpret(folded)      =  interpret(packed)     end to end, every stored value, exactly
    interpret(packed)      =  the C                 end to end, every stored word, bit for bit

The first line is teacher-forced: a flip in one layer is counted once, there, and does not spread.
It may differ only where float32 itself does not decide: another order of the same sum could give
another bit, and the certificate and the inputs say so. The others allow nothing.

Where sign(0) was assumed, the oracle of the first line assumes it too, so that all else is still
compared strictly; what the user sees, scores and accuracy, is compared with the model as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from bnncc.certificate import LayerCertificate
from bnncc.compiler import Compilation
from bnncc.errors import printable
from bnncc.ir.analysis.rounding import bias_slack, gamma, softmax_bound, spread
from bnncc.ir.expression import root_of, trace
from bnncc.ir.graph import Graph
from bnncc.ir.interpret import run_stored
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.ops.softmax import Softmax
from bnncc.ir.storage import decode, encode
from bnncc.ir.types import Array
from bnncc.verification.data import Samples
from bnncc.verification.oracle import Oracle, raw_name
from bnncc.verification.result import LayerCheck, OutputCheck, Verification
from bnncc.verification.run import CompiledModel

__all__ = ["compare"]

_ROWS_AT_ONCE = 500


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
        self.assumed = {a.tensor for a in compilation.certificate.assumptions}
        names = [layer.y.tensor for layer in compilation.program.layers]
        self.layers = {name: LayerCheck(printable(name)) for name in names}
        self.outputs = {name: OutputCheck(printable(name)) for name in self.packed.outputs}
        # Everything stored that the oracle has too is compared there, and taken from there on.
        points = [name for name in names if name in self.folded.types]
        self.twins = _twins(self.certificates)
        wanted = [*self.certificates, *self.twins.values(), *points]
        assumptions = compilation.certificate.assumptions
        self.oracle = Oracle(compilation.oracle, wanted, assumptions)
        self.plain = Oracle(compilation.oracle) if assumptions else self.oracle
        self.top1: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self.outputs}

    def run(self, rows: slice) -> None:
        """Compare some of the samples."""
        compiled = {name: array[rows] for name, array in self.samples.compiled.items()}
        fed = {name: array[rows] for name, array in self.samples.oracle.items()}
        oracle = self.oracle.run(fed)
        self._reference(compiled, oracle, rows.start)
        results = self._generated(compiled, rows.start)
        plain = oracle if self.plain is self.oracle else self.plain.run(fed)
        for name, check in self.outputs.items():
            error = _distance(results[name], plain[name]).max(initial=0.0)
            check.max_abs_error = float(np.maximum(check.max_abs_error, error))  # keeps a NaN
            check.values += results[name].size
            self.top1[name].append((_ranked(plain[name]), _ranked(results[name])))

    def _reference(
        self, feeds: Mapping[str, Array], oracle: Mapping[str, Array], first: int
    ) -> None:
        """Run the folded graph on the oracle's own tensors, and compare each with the oracle's."""
        seen: dict[str, Array] = {}

        def observe(name: str, value: Array) -> Array:
            seen[name] = value
            source = self.twins.get(name, name)
            if source in oracle:
                truth = oracle[source].reshape(value.shape)
                if name in self.certificates:
                    self._bits(name, decode(value, self.folded.types[name]), truth, seen, first)
                elif value.dtype == np.float32:
                    self._reals(name, value, truth, seen, first)
                if source in self.assumed:
                    zeros = int((oracle[raw_name(source)] == 0).sum())
                    self.layers.setdefault(name, LayerCheck(printable(name))).assumed += zeros
                seen[name] = encode(truth, self.folded.types[name])
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
        undecided = self._undecided(self.certificates[name], row, channel, seen)
        failed = ~undecided
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
        # Not "apart > bound": no comparison with NaN holds, and a NaN must not pass.
        wrong = ~(_distance(ours, truth) <= self._explained(name, ours, seen))
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
        if chain is None:
            return slack
        return spread(chain, seen[chain.root], slack + bias_slack(self.folded, chain))[1]

    def _generated(self, feeds: Mapping[str, Array], first: int) -> dict[str, Array]:
        """Run the C, compare all it stores with the packed graph, and return its outputs."""
        stored = run_stored(self.packed, feeds)
        folded = run_stored(self.folded, feeds)
        ordered = [feeds[name] for name in self.packed.inputs]
        results, trace_ = self.model.traced(*ordered)
        for layer, actual in zip(self.compilation.program.layers, trace_, strict=True):
            name = layer.y.tensor
            expected = stored[name]
            wrong = _bitwise(expected) != _bitwise(actual.reshape(expected.shape))
            if name in folded and not wrong.any():
                is_ = decode(expected, self.packed.types[name])
                wrong = _distance(is_, decode(folded[name], self.folded.types[name])) != 0
            check = self.layers[name]
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


def _twins(certificates: Mapping[str, LayerCertificate]) -> dict[str, str]:
    """Return the tensors of bits beside a real tensor of the same sign, by the real one's name.

    Passes make them where others than binary layers read a sign; the model has the real one alone.
    """
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    found: dict[str, str] = {}
    for name, proof in certificates.items():
        key = (proof.root, proof.origin)
        known = first.setdefault(key, name)
        if known != name:
            twin, source = (name, known) if name.startswith(known) else (known, name)
            found[twin] = source
    return found


def _distance(a: Array, b: Array) -> Array:
    """Return |a - b| in float64; 0 where both are the same infinity or both are NaN."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))


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
