"""Lower to kernels: fuse every layer with what follows it, choose a kernel, pack its weights.

Before: `%n = BinaryDense(%x, %W); %y = Step(%n, t, v)`
After:  `%y = XnorDense(%x, packed weights, limits)`, with %x and %y in PackedChannels

Before: `%n = BinaryDense(%x, %W); %v = Dequantize(%n, ...); %y = Add(%v, b)`
After:  `%y = XnorDense(%x, packed weights, K)` with the expression {Dequantize; Add} as epilogue

and so on for sums over reals (SignSum), real weights (RealDense) and chains that follow no layer
(Map). A tensor is stored if a layer or the interface reads it; everything else lives in registers.
Exact: an epilogue is the chain's own operations; n >= t iff the mismatches are
<= floor((base - t) / factor); a Step with several thresholds is the parity of comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.errors import Diagnostic, UnsupportedModelError, printable
from bnncc.ir.expression import Chain, Expression, root_of, trace
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.kernels import Epilogue, Map, PackPlanes, RealDense, SignSum, XnorDense
from bnncc.ir.ops.linear import BinaryDense, MatMul
from bnncc.ir.storage import pack_bits, plane_count, to_planes
from bnncc.ir.types import Array, Element, Stage, TensorType
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.levels import never, simplified
from bnncc.targets import Target, select

__all__ = ["LOWER_KERNELS", "plane_thresholds"]

_WORDS = {8: Element.WORD8, 32: Element.WORD32, 64: Element.WORD64}
_LINEAR = (BinaryDense, MatMul)


@dataclass(frozen=True)
class _Group:
    """A stored tensor and how it comes about: a layer (or none), then an elementwise chain.

    Attributes:
        output: the stored tensor.
        layer: the linear node, or None for a chain on a stored tensor.
        chain: from the layer's result or the stored tensor to the output; None if empty.
    """

    output: str
    layer: Node | None
    chain: Chain | None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that the group computes."""
        layer = (self.layer,) if self.layer else ()
        return (*layer, *(self.chain.nodes if self.chain else ()))

    @property
    def origin(self) -> tuple[str, ...]:
        """The source model's nodes."""
        return tuple(dict.fromkeys(name for node in self.nodes for name in node.origin))


def _apply(graph: Graph, context: Context) -> Outcome:
    groups = {group.output: group for group in _groups(graph)}
    lowering = _Lowering(Rewrite(graph), context.target)
    for node in graph.nodes:
        group = groups.get(node.output)
        if group:
            lowering.rewrite.replace(node, lowering.lower(group))
        elif isinstance(node.op, (*_LINEAR, Elementwise)):
            lowering.rewrite.replace(node, ())
    return Outcome(lowering.rewrite.finish())


def _groups(graph: Graph) -> list[_Group]:
    """Return one group for each tensor that is stored and that a layer or chain computes.

    Raises:
        UnsupportedModelError: BNN030, for all chains that no kernel computes.
    """
    stored = set(graph.outputs)
    for node in graph.nodes:
        if not isinstance(node.op, Elementwise):
            stored.update(graph.variables(node))
    chains: dict[str, Chain] = {}
    problems: list[Diagnostic] = []
    for node in graph.nodes:
        if node.output in stored and isinstance(node.op, Elementwise):
            chain = _chain_to(graph, node.output)
            if isinstance(chain, Chain):
                chains[node.output] = chain
            else:
                problems.append(_no_kernel(node, chain))
    if problems:
        raise UnsupportedModelError.of(problems)
    readers = Counter(chain.root for chain in chains.values())
    layers = {n.output for n in graph.nodes if isinstance(n.op, _LINEAR)}
    alone = {r for r, count in readers.items() if count == 1 and r in layers - stored}
    groups: list[_Group] = []
    for node in graph.nodes:
        if node.output in chains:
            chain = chains[node.output]
            layer = graph.producers[chain.root] if chain.root in alone else None
            groups.append(_Group(node.output, layer, chain))
        elif isinstance(node.op, _LINEAR) and node.output not in alone:
            groups.append(_Group(node.output, node, None))
    return groups


def _chain_to(graph: Graph, output: str) -> Chain | str:
    """Return the chain that computes a tensor, or why there is none."""
    root = root_of(graph, output)
    if root is None:
        return "two activations meet in it"
    return trace(graph, output, root) or "its constants vary within a channel"


def _no_kernel(node: Node, why: str) -> Diagnostic:
    where = ", ".join(printable(name) for name in node.origin)
    what = f"no kernel computes {node.op.name} here"
    help_ = "`bnncc compile --dump-dir DIR` writes the graph around it, pass by pass"
    return Diagnostic("BNN030", what, where, why, help_)


class _Lowering:
    """Turns groups into kernel nodes, for one graph and target."""

    def __init__(self, rewrite: Rewrite, target: Target) -> None:
        self.rewrite = rewrite
        self.target = target
        self._planes: dict[str, str] = {}

    def lower(self, group: _Group) -> list[Node]:
        """Return the nodes that compute the group's output."""
        if group.layer is None:
            assert group.chain is not None  # a group has a layer or a chain
            epilogue, operands = self._epilogue(group)
            inputs = (group.chain.root, *operands)
            return [self.rewrite.node(Map(epilogue), inputs, group.output, group.origin)]
        match group.layer.op:
            case MatMul():
                return [self._real(group, group.layer)]
            case _:
                x = self.rewrite.graph.types[group.layer.inputs[0]]
                if x.element is Element.F32:
                    return [self._sign_sum(group, group.layer)]
                return self._xnor(group, group.layer, x)

    def _epilogue(self, group: _Group) -> tuple[Epilogue, tuple[str, ...]]:
        """Return the group's epilogue and the names of its operands."""
        kind = self.rewrite.graph.types[group.output]
        if group.chain is None:
            return Epilogue(Expression(()), 0, kind.element), ()
        if kind.element not in (Element.BIPOLAR, Element.TERNARY):
            expression = group.chain.expression
            return Epilogue(expression, len(group.chain.names), kind.element), self._parameters(
                group.chain
            )
        before, step = group.chain.before_last()
        thresholds = plane_thresholds(step[0], step[1], kind.element, kind.shape[-1])
        held = Element.F32 if thresholds.dtype == np.float32 else Element.I32
        name = self.rewrite.constant(f"{group.output}.decisions", thresholds, held)
        epilogue = Epilogue(
            before.expression,
            len(before.names),
            kind.element,
            thresholds.shape[-1],
            self.target.word_bits,
        )
        return epilogue, (*self._parameters(before), name)

    def _parameters(self, chain: Chain) -> tuple[str, ...]:
        """Return constants that hold the chain's parameters in their per-channel shapes."""
        graph = self.rewrite.graph
        names = []
        for name, value in zip(chain.names, chain.parameters, strict=True):
            if graph.types[name].shape == value.shape:
                names.append(name)
            else:
                kind = TensorType(value.shape, graph.types[name].element)
                names.append(self.rewrite.constant(f"{name}.row", value, kind))
        return tuple(names)

    def _real(self, group: _Group, layer: Node) -> Node:
        weights = self.rewrite.graph.constants[layer.inputs[1]]
        kernel = select("real_dense", len(weights), self.target).kernel
        epilogue, operands = self._epilogue(group)
        tiles = _tiled(weights, kernel.nr).transpose(0, 2, 1)
        name = self.rewrite.constant(f"{layer.inputs[1]}.tiles", tiles, Element.F32)
        op = RealDense(epilogue, kernel.symbol, len(weights), kernel.nr)
        inputs = (layer.inputs[0], name, *operands)
        return self.rewrite.node(op, inputs, group.output, group.origin)

    def _sign_sum(self, group: _Group, layer: Node) -> Node:
        weights = self.rewrite.graph.constants[layer.inputs[1]]
        kernel = select("sign_sum", len(weights), self.target).kernel
        epilogue, operands = self._epilogue(group)
        lanes = _tiled(weights > 0, kernel.nr).transpose(0, 2, 1)
        words = pack_bits(lanes, kernel.nr)[..., 0]
        name = self.rewrite.constant(f"{layer.inputs[1]}.packed", words, _WORDS[kernel.nr])
        op = SignSum(epilogue, kernel.symbol, len(weights), kernel.nr)
        inputs = (layer.inputs[0], name, *operands)
        return self.rewrite.node(op, inputs, group.output, group.origin)

    def _xnor(self, group: _Group, layer: Node, x: TensorType) -> list[Node]:
        weights = self.rewrite.graph.constants[layer.inputs[1]]
        kernel = select("xnor_dense", len(weights), self.target).kernel
        nodes, source = self._packed(layer.inputs[0], x, group.origin)
        rows = _tiled(pack_bits(weights > 0, kernel.word_bits), kernel.nr)
        tiles = rows.transpose(0, 2, 1)
        name = self.rewrite.constant(f"{layer.inputs[1]}.packed", tiles, _WORDS[kernel.word_bits])
        epilogue, operands = self._epilogue(group)
        base = _base(weights, x.element)
        direct = bool(epilogue.thresholds) and not epilogue.expression.terms
        if direct:
            limits = _limits(self.rewrite.value(operands[-1]), base, x)
            extra = [self.rewrite.constant(f"{group.output}.limits", limits, _narrowest(limits))]
        else:
            extra = [self.rewrite.constant(f"{group.output}.base", base, Element.I32), *operands]
        op = XnorDense(epilogue, kernel.symbol, len(weights), kernel.nr, direct)
        inputs = (source, name, *extra)
        return [*nodes, self.rewrite.node(op, inputs, group.output, group.origin)]

    def _packed(self, x: str, kind: TensorType, origin: Sequence[str]) -> tuple[list[Node], str]:
        """Return the tensor that holds x in bitplanes, and the node that packs it if it is new."""
        if kind.element is not Element.U8:
            return [], x
        if x in self._planes:
            return [], self._planes[x]
        name = self._planes[x] = self.rewrite.fresh(f"{x}.planes")
        return [self.rewrite.node(PackPlanes(self.target.word_bits), (x,), name, origin)], name


def _tiled(rows: Array, nr: int) -> Array:
    """Return rows [O, ...] as [ceil(O / nr), nr, ...], padded with zeros."""
    missing = -len(rows) % nr
    padded = np.pad(rows, ((0, missing), *((0, 0),) * (rows.ndim - 1)))
    return padded.reshape(-1, nr, *rows.shape[1:])


def _base(weights: Array, element: Element) -> Array:
    """Return the accumulator of each channel at zero mismatches, int32 [O] (see XnorDense)."""
    k = weights.shape[1]
    if element is Element.U8:
        return np.asarray(255 * (k + weights.sum(axis=1, dtype=np.int64)) // 2, np.int32)
    return np.full(len(weights), k, np.int32)


def _limits(thresholds: Array, base: Array, x: TensorType) -> Array:
    """Return limits [P, O, T] so that n >= threshold iff weighted mismatches <= limit."""
    factor = 2 if x.element is Element.BIPOLAR else 1
    planes = plane_count(x.element)
    most = x.shape[-1] * (255 if x.element is Element.U8 else planes)
    exact = (base[:, np.newaxis] - thresholds.astype(np.int64)) // factor
    return np.asarray(np.clip(exact, -1, most))


def _narrowest(limits: Array) -> Element:
    return Element.I16 if limits.max(initial=0) <= np.iinfo(np.int16).max else Element.I32


def plane_thresholds(thresholds: Array, levels: Array, element: Element, channels: int) -> Array:
    """Return [planes, channels, T]: plane p's bit is the parity of value >= thresholds[p, c, j].

    Args:
        thresholds: a Step's, [channels or 1, S].
        levels: [channels or 1, S + 1], in {-1, +1} or {-1, 0, +1}.
        element: BIPOLAR or TERNARY, which says what the planes are.
        channels: how many channels the result has.
    """
    bits = to_planes(levels.T, element).transpose(1, 2, 0)
    planes = [_as_parity(*simplified(thresholds, plane)) for plane in bits]
    most = max(1, *(plane.shape[1] for plane in planes))
    filled = [
        np.pad(plane, ((0, 0), (0, most - plane.shape[1])), constant_values=never(thresholds))
        for plane in planes
    ]
    shape = (len(planes), channels, most)
    return np.ascontiguousarray(np.broadcast_to(np.stack(filled), shape))


def _as_parity(thresholds: Array, bits: Array) -> Array:
    """Return thresholds of which an odd number is passed exactly where the bit is 1.

    Bits alternate at every used threshold; a channel that starts at 1 gets one always passed.
    """
    starts_set = bits[:, :1]
    if not starts_set.any():
        return thresholds
    always = -np.inf if thresholds.dtype == np.float32 else np.iinfo(thresholds.dtype).min
    first = np.where(starts_set, always, never(thresholds)).astype(thresholds.dtype)
    widened = np.sort(np.concatenate([first, thresholds], axis=1), axis=1)
    used = int((widened != never(thresholds)).sum(axis=1).max(initial=0))
    return widened[:, :used]


LOWER_KERNELS = Pass("lower_kernels", _apply, requires=Stage.BINARY)
