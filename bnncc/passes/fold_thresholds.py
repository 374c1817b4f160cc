"""Fold everything between a layer's accumulator and its Step into thresholds on the accumulator.

Before: `%n = BinaryDense(...); %v = Dequantize(%n, ...); %b = BatchNormalization(%v, ...);
        %y = Step(%b, thresholds, levels)`
After:  `%y = Step(%n, integer thresholds a channel, levels a channel)`

By evaluation, not by algebra: the chain's own float32 operations run on every value of the
accumulator, and the thresholds are read off. So gamma < 0, gamma = 0, any activation, chains that
are not monotone and any number of levels need no case of their own, and solving for a threshold,
which rounds differently from the model, never happens. Where the domain is real, or too large to
enumerate, every operation of the chain must be monotone; then bisection over representable values
ends at the same thresholds. Each fold leaves a `LayerCertificate`.

The accumulator is the farthest single tensor that the Step is a function of. Where several
activations meet on the way, as layer and shortcut do, that is the tensor they meet in, and where a
real chain is not monotone it is the last tensor below what is not: as much folds as can be proven.

Refuses: Steps over reals whose own levels both rise and fall.
"""

from __future__ import annotations

import numpy as np

from bnncc.certificate import Domain, LayerCertificate
from bnncc.ir.analysis.direction import UNKNOWN, directions
from bnncc.ir.analysis.rounding import bias_slack
from bnncc.ir.expression import Chain, chains_to
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Cast, Step
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Concat, Movement, Pad
from bnncc.ir.types import Array, Element, Interval, Stage
from bnncc.passes.base import Context, Outcome, Pass, Refusal
from bnncc.passes.levels import element_for
from bnncc.passes.thresholds import (
    FLOATS,
    Floats,
    Found,
    Integers,
    bisected,
    enumerated,
    scrutinised,
)

__all__ = ["FOLD_THRESHOLDS"]

_MOST_EVALUATIONS = 1 << 26
"""Domains of more (channel, value) pairs are bisected if the chain allows."""


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    refusals: list[Refusal] = []
    certificates: list[LayerCertificate] = []
    for node in graph.nodes:
        if not isinstance(node.op, Step):
            continue
        certificate = _certified(rewrite, node)
        if certificate is None:
            reason = "its chain over real values is not monotone in every channel"
            refusals.append(Refusal(node.name, node.origin, reason))
            continue
        certificates.append(certificate)
        if _over_codes(graph, node.inputs[0]) != certificate.root:
            rewrite.replace(node, _folded(rewrite, node, certificate))
    return Outcome(rewrite.finish(), tuple(refusals), tuple(certificates))


def _certified(rewrite: Rewrite, node: Node) -> LayerCertificate | None:
    """Return the proof over the farthest root from which thresholds can be found, if any."""
    graph = rewrite.graph
    for chain in chains_to(graph, node.output):
        if graph.types[chain.root].element is Element.BOOL:
            continue  # a truth value has no threshold; what it follows from is farther or nearer
        certificate = _certify(graph, node, chain, _domain(rewrite, chain.root))
        if certificate is not None:
            return certificate
    return None


def _over_codes(graph: Graph, name: str) -> str:
    """Return the codes of which a tensor is the Cast that a folded Step reads, else the tensor."""
    node = graph.producers.get(name)
    return node.inputs[0] if node and node.op == Cast(Element.I32) else name


def _domain(rewrite: Rewrite, root: str) -> Integers | Floats:
    """Return the values of a root, given what the layers above were folded to.

    A Step found never to give 0 has become BIPOLAR, which halves the accumulators below it.
    """
    kind = rewrite.type_of(root)
    if kind.element is Element.U8:
        return Integers(Interval(0, 255))
    if kind.element is Element.I8:
        return Integers(Interval(-128, 127))
    if kind.interval is None:
        return FLOATS
    layer = rewrite.graph.producers[root]
    (reached,) = layer.op.infer([rewrite.type_of(name) for name in layer.inputs])
    assert reached.interval is not None  # the layer's element does not change
    return Integers(reached.interval)


def _certify(
    graph: Graph, node: Node, chain: Chain, domain: Integers | Floats
) -> LayerCertificate | None:
    """Return thresholds and their proof; None if the domain is real and the chain not monotone."""
    direction = directions(chain)
    monotone = not (direction == UNKNOWN).any()
    small = domain.size * chain.channels <= _MOST_EVALUATIONS
    if isinstance(domain, Integers) and (small or not monotone):
        kind, found = "enumerated", enumerated(chain, domain)
    elif monotone:
        kind, found = "bisected", bisected(chain, direction, domain)
    else:
        return None
    slack = bias_slack(graph, chain)
    distance, undecided = scrutinised(chain, found, domain, direction, slack)
    constant = (found.levels == found.levels[:, :1]).all(axis=1)
    falls = (np.diff(found.levels, axis=1) <= 0).all(axis=1) & ~constant
    return LayerCertificate(
        layer=node.output,
        root=chain.root,
        origin=tuple(dict.fromkeys(name for n in chain.nodes for name in n.origin)),
        chain=str(chain.expression),
        domain=_describe(kind, domain),
        values_checked=found.values_checked,
        thresholds=found.thresholds,
        levels=found.levels,
        smallest_distance=distance,
        constant_channels=_indices(constant),
        falling_channels=_indices(falls),
        zero_reachable=_zero_reachable(graph, node, found),
        undecided=undecided,
    )


def _describe(kind: str, domain: Integers | Floats) -> Domain:
    if isinstance(domain, Integers):
        interval = domain.interval
        return Domain(kind, "i32", interval.low, interval.high, interval.stride, domain.size)
    largest = float(np.finfo(np.float32).max)
    return Domain(kind, "f32", -largest, largest, 0, domain.size)


def _zero_reachable(graph: Graph, node: Node, found: Found) -> tuple[int, ...]:
    """Return the channels in which a {-1, 0, +1} Step gives 0 for some accumulator."""
    if element_for(graph.constants[node.inputs[2]]) is not Element.TERNARY:
        return ()
    return _indices((found.levels == 0).any(axis=1))


def _indices(flags: Array) -> tuple[int, ...]:
    return tuple(np.nonzero(flags)[0].tolist())


def _folded(rewrite: Rewrite, node: Node, proof: LayerCertificate) -> list[Node]:
    """Return the Step on the accumulator; its element narrows if a level never occurs."""
    assert isinstance(node.op, Step)  # _apply asked
    root_element = rewrite.type_of(proof.root).element
    nodes: list[Node] = []
    root = proof.root
    if root_element in (Element.U8, Element.I8):
        root = rewrite.fresh(f"{node.output}.code")
        nodes.append(rewrite.node(Cast(Element.I32), (proof.root,), root, node.origin))
    op = node.op
    if op == Step(Element.TERNARY) and not _joined(rewrite.graph, node.output):
        op = Step(element_for(proof.levels))
    held = Element.F32 if root_element is Element.F32 else Element.I32
    t = rewrite.constant(f"{node.output}.thresholds", proof.thresholds, held)
    v = rewrite.constant(f"{node.output}.levels", proof.levels, Element.F32)
    return [*nodes, rewrite.node(op, (root, t, v), node.output, proof.origin)]


def _joined(graph: Graph, name: str) -> bool:
    """Whether bits that may be 0 come to stand beside a tensor's own: they take two planes each."""
    for reader in graph.consumers[name]:
        if isinstance(reader.op, Concat) or (isinstance(reader.op, Pad) and reader.op.value == 0):
            return True
        if isinstance(reader.op, Movement | MaxPool) and _joined(graph, reader.output):
            return True
    return False


FOLD_THRESHOLDS = Pass("fold_thresholds", _apply, requires=Stage.BINARY)
