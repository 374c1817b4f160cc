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

from bnncc.certificate import Bounded, LayerCertificate, SignOfZero
from bnncc.compiler import Compilation
from bnncc.errors import printable
from bnncc.ir.graph import Graph, Node
from bnncc.ir.interpret import run_stored
from bnncc.ir.ops.elementwise import Step
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Concat, Movement, Pad
from bnncc.ir.order import Order
from bnncc.ir.storage import decode, encode
from bnncc.ir.types import Array, Element
from bnncc.passes.transplant import same_order, source_name
from bnncc.verification.bounds import Bounds
from bnncc.verification.data import Samples
from bnncc.verification.oracle import Oracle, raw_name
from bnncc.verification.result import LayerCheck, OutputCheck, Verification
from bnncc.verification.run import CompiledModel

__all__ = ["compare"]

_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 1 << 28
"""What the tensors of all samples that are compared at once may take, in each of the graphs."""
_COMPARED = (
    Element.F32,
    Element.BIPOLAR,
    Element.TERNARY,
    Element.I64,
    *(element for element in Element if element.code_bits),
)


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
        assumptions = compilation.certificate.assumptions
        signs = [a for a in assumptions if isinstance(a, SignOfZero)]
        self.assumed = {a.tensor: np.float32(a.levels[1]) for a in signs}
        self.bounded = {a.result: a for a in assumptions if isinstance(a, Bounded)}
        self.stored = [result.tensor for result in compilation.program.results]
        self.layers = {name: LayerCheck(printable(name)) for name in self.stored}
        self.outputs = {name: OutputCheck(printable(name)) for name in self.packed.outputs}
        # Everything stored that the oracle has too is compared there, and taken from there on.
        points = [name for name in self.stored if name in self.folded.types]
        self.twins = _twins(self.certificates)
        self.orders = compilation.lowered.orders
        for name in (*self.certificates, *self.stored):
            same = same_order(self.twins.get(name, name))
            self.twins[name] = source_name(same) if same in self.orders else same
        roots = [bounded.tensor for bounded in self.bounded.values()]
        wanted = [*self.certificates, *self.twins.values(), *roots, *points]
        self.oracle = Oracle(compilation.oracle, wanted, signs)
        self.plain = Oracle(compilation.oracle) if signs else self.oracle
        self.top1: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self.outputs}

    def run(self, rows: slice) -> None:
        """Compare some of the samples."""
        compiled = {name: array[rows] for name, array in self.samples.compiled.items()}
        fed = {name: array[rows] for name, array in self.samples.oracle.items()}
        oracle = self.oracle.run(fed)
        _Forced(self, oracle, rows.start).run(compiled)
        results = self._generated(compiled, rows.start)
        plain = oracle if self.plain is self.oracle else self.plain.run(fed)
        for name, check in self.outputs.items():
            error = _distance(results[name], plain[name]).max(initial=0.0)
            check.max_abs_error = float(np.maximum(check.max_abs_error, error))  # keeps a NaN
            check.values += results[name].size
            self.top1[name].append((_ranked(plain[name]), _ranked(results[name])))

    def _generated(self, feeds: Mapping[str, Array], first: int) -> dict[str, Array]:
        """Run the C, compare all it stores with the packed graph, and return its outputs."""
        stored = run_stored(self.packed, feeds)
        folded = run_stored(self.folded, feeds)
        ordered = [feeds[name] for name in self.packed.inputs]
        results, trace_ = self.model.traced(*ordered)
        for name, actual in zip(self.stored, trace_, strict=True):
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
            if reference.ndim == 1:
                check.top1_agreement = float((reference == generated).mean())
                if labels is not None:
                    check.accuracy_reference = float((reference == labels).mean())
                    check.accuracy_c = float((generated == labels).mean())


class _Forced:
    """One run of the folded graph on the oracle's own tensors, each compared with the oracle's."""

    def __init__(self, comparison: _Comparison, oracle: Mapping[str, Array], first: int) -> None:
        self.comparison = comparison
        self.graph = comparison.folded
        self.oracle = oracle
        self.first = first
        self.seen: dict[str, Array] = {}
        self.known: set[str] = set()
        certificates = comparison.certificates
        self.bounds = Bounds(self.graph, certificates, self.seen, self.known)

    def run(self, feeds: Mapping[str, Array]) -> None:
        """Run a batch."""
        self.seen.update({n: encode(a, self.graph.types[n]) for n, a in feeds.items()})
        run_stored(self.graph, feeds, self._observe)

    def _observe(self, name: str, value: Array) -> Array:
        """Compare a tensor if the oracle has it, and go on with the oracle's values."""
        self.seen[name] = value
        kind = self.graph.types[name]
        source = self.comparison.twins.get(name, name)
        if source not in self.oracle or kind.element not in _COMPARED:
            return value
        truth = self._within_limits(name, source, value)
        step = _step_above(self.graph, name)
        if step is not None and isinstance(step.op, Step):
            truth = step.op.integers(truth)
        if kind.element is Element.F32 and name not in self.comparison.certificates:
            self._reals(name, value, truth)
        else:
            self._levels(name, value, truth)
        if source in self.comparison.assumed:
            raw = self.oracle[raw_name(source)]
            zero = self.comparison.assumed[source]
            self._check(name).assumed += int(((raw == zero) | np.isnan(raw)).sum())
        self.seen[name] = encode(truth, kind)
        self.known.add(name)
        return self.seen[name]

    def _within_limits(self, name: str, source: str, ours: Array) -> Array:
        """Return the oracle's tensor, but our own values where it left a range that was assumed."""
        order = self.comparison.orders.get(same_order(name), Order())
        truth: Array = order.of(self.oracle[source]).reshape(ours.shape)
        bounded = self.comparison.bounded.get(source)
        if bounded is None:
            return truth
        reached = self.oracle.get(bounded.tensor, self.seen.get(bounded.tensor))
        if reached is None:
            return truth
        beyond = np.abs(reached.reshape(ours.shape)) >= bounded.limit
        self._check(name).assumed += int(beyond.sum())
        return np.where(beyond, ours, truth) if beyond.any() else truth

    def _check(self, name: str) -> LayerCheck:
        return self.comparison.layers.setdefault(name, LayerCheck(printable(name)))

    def _levels(self, name: str, ours: Array, truth: Array) -> None:
        """Count the bits, levels or indices that differ, by reason."""
        check = self._check(name)
        check.compared += ours.size
        at = np.nonzero(ours != truth)
        if not len(at[0]):
            return
        undecided = self.bounds.explains(name, at, truth[at])
        check.undecided += int(undecided.sum())
        check.mismatches += int((~undecided).sum())
        if not undecided.all() and not check.first:
            failed = int(np.argmin(undecided))
            check.first = _place(self.first, [index[failed] for index in at])

    def _reals(self, name: str, ours: Array, truth: Array) -> None:
        """Count the values that no order of float32 operations explains."""
        at = np.nonzero(_distance(ours, truth) != 0)
        explained = self.bounds.explains(name, at, truth[at])
        check = self.comparison.outputs.get(name) or self._check(name)
        check.mismatches += int((~explained).sum())
        layer = self.comparison.layers.get(name)
        if layer is not None and not explained.all() and not layer.first:
            failed = int(np.argmin(explained))
            layer.first = _place(self.first, [index[failed] for index in at])


def _step_above(graph: Graph, name: str) -> Node | None:
    """Return a Step whose levels a tensor holds, through whatever moves or pools them.

    Where integers are joined, all of them stand for levels on one grid, and any of the Steps will
    do; of reals that are joined, none.
    """
    real = graph.types[name].element is Element.F32
    waiting = [name]
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is not None and isinstance(node.op, Step):
            return node
        if node is None or (real and isinstance(node.op, Concat | Pad)):
            continue
        if isinstance(node.op, Movement | MaxPool):
            waiting.extend(graph.variables(node))
    return None


def _place(first: int, index: Sequence[int]) -> str:
    """Return where a value is: its sample, channel and, in an image, pixel."""
    sample, *rest = map(int, index)
    text = f"sample {first + sample}"
    text += f", channel {rest[0]}" if rest else ""
    return text + (f", pixel {rest[1:]}" if rest[1:] else "")


def _twins(certificates: Mapping[str, LayerCertificate]) -> dict[str, str]:
    """Return the tensors of bits beside a real tensor of the same sign, by the real one's name.

    Passes make them where others than binary layers read a sign; the model has the real one alone.
    """
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, proof in certificates.items():
        alike.setdefault((proof.root, proof.origin), []).append(name)
    # One operator of the model may be several here, each with a Step of its own.
    return {
        twin: source
        for names in alike.values()
        for source in sorted(names, key=len, reverse=True)  # of several the shortest
        for twin in names
        if twin != source and twin.startswith(source)
    }


def _distance(a: Array, b: Array) -> Array:
    """Return |a - b| in float64; 0 where both are the same infinity or both are NaN."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))


def _ranked(result: Array) -> Array:
    """Return the first-ranked class of each sample [N], or [0, 1] if the result ranks nothing.

    Of scores [N, C], C > 1, it is the largest, the lowest index among equals; integers are a
    ranking already, [N] or [N, k].
    """
    if result.dtype == np.int64 and result.ndim in (1, 2) and result.size:
        return result.reshape(len(result), -1)[:, 0]
    if result.dtype != np.int64 and result.ndim == 2 and result.shape[1] > 1:
        return np.asarray(result.argmax(axis=1))
    return np.zeros((0, 1), np.int64)


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
    for rows in _chunks(samples.count, _rows_at_once(compilation)):
        progress("comparing samples", rows.start, samples.count)
        comparison.run(rows)
    comparison.finish()
    layers: Sequence[LayerCheck] = tuple(comparison.layers.values())
    return Verification(
        samples.count, samples.source, compiler, tuple(layers), tuple(comparison.outputs.values())
    )


def _rows_at_once(compilation: Compilation) -> int:
    """Return how many samples to hold at once, so that large images take no gigabytes."""
    graphs = (compilation.lowered.folded, compilation.lowered.graph)
    most = max(
        sum(kind.nbytes for name, kind in graph.types.items() if name not in graph.constants)
        for graph in graphs
    )
    return int(np.clip(_BYTES_AT_ONCE // max(most, 1), 1, _ROWS_AT_ONCE))


def _chunks(count: int, rows: int) -> Iterator[slice]:
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))
