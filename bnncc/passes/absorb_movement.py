"""Let dense layers behind a flattened image read the image.

Before: `%f = Reshape([1, C * H * W])(%x); %s = Sign(%f); %y = MatMul(%s, %W)`
After:  `%s' = Sign(%x); %y' = Conv(window of the whole image)(%s', %W'); %y = Reshape([1, O])(%y')`

Images are kept channel by channel at each pixel, whatever the model says, so that flattening one in
the model's order would move every element, and bits out of their words. A dense layer has no need
of an order: the columns of its weights move instead, by the permutation that the Reshapes and
Transposes before it make of the numbers 0, 1, 2, ...

Exact but for the order of the layer's float32 sum, which becomes that of `Conv`. Elementwise
operations between by scalars alone commute with any movement, and move in front of it; where they
have constants a feature, or something else reads the flat tensor, everything stays.

Images that are inputs of the graph are dense: flattening them costs nothing. There the elementwise
operations before the Reshape move behind it, so that the layer reads what a Sign makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bnncc.ir.expression import Chain, chains_to, root_of
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.shape import Reshape, Transpose
from bnncc.ir.order import Order
from bnncc.ir.types import Array, Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Exactness, Outcome, Pass
from bnncc.passes.transplant import IMAGE, REORDERED, alone, transplanted

__all__ = ["ABSORB_MOVEMENT"]

_RANKS = (3, 4)


@dataclass(frozen=True)
class _Flattening:
    """How dense layers come by their input.

    Attributes:
        image: the tensor that is flattened, [1, C, *S].
        movements: the nodes that do, in order.
        chain: from their result to the layers' input, by scalars; None if that is their result.
    """

    image: str
    movements: tuple[Node, ...]
    chain: Chain | None


def _apply(graph: Graph, _: Context) -> Outcome:
    while True:  # what moves behind one Reshape may stand before another
        moved = _flat_inputs(graph)
        if moved is graph:
            break
        graph = moved
    rewrite = Rewrite(graph)
    orders: dict[str, Order] = {}
    for x in dict.fromkeys(n.inputs[0] for n in graph.nodes if isinstance(n.op, MatMul)):
        flattening = _flattening(graph, x)
        if flattening and _only_dense_layers_read(graph, x):
            orders |= _absorb(rewrite, x, flattening)
    return Outcome(rewrite.finish(), orders=orders)


def _by_scalars(graph: Graph, x: str) -> Iterator[Chain]:
    """Yield x as chains, the farthest first, whose constants are one value for all channels."""
    for chain in chains_to(graph, x):
        single = [_single(p) for p in chain.parameters]
        rows = any(term.op.channel_operands for term in chain.expression.terms)
        if not rows and all(value is not None for value in single):
            yield dataclasses.replace(chain, parameters=tuple(v for v in single if v is not None))


def _single(parameter: Array) -> Array | None:
    """Return the one value that a parameter has in every channel, -0 and 0 being two; or None."""
    first = parameter.reshape(-1)[:1]
    same = parameter.tobytes() == first.tobytes() * parameter.size
    return first.reshape(()) if same else None


def _only_dense_layers_read(graph: Graph, x: str) -> bool:
    readers = graph.consumers[x]
    dense = all(isinstance(r.op, MatMul) and graph.is_constant(r.inputs[1]) for r in readers)
    return dense and x not in graph.outputs


def _flattening(graph: Graph, x: str) -> _Flattening | None:
    """Return how the input of dense layers is flattened from a layer's image, or None."""
    chain = None
    if not isinstance(_maker(graph, x), Reshape | Transpose):
        chains = (c for c in _by_scalars(graph, x) if alone(graph, c))
        moved = (c for c in chains if isinstance(_maker(graph, c.root), Reshape | Transpose))
        chain = next(moved, None)
        if chain is None:
            return None
    movements: list[Node] = []
    image = chain.root if chain else x
    while isinstance(_maker(graph, image), Reshape | Transpose):
        if movements and (len(graph.consumers[image]) > 1 or image in graph.outputs):
            return None
        movements.insert(0, graph.producers[image])
        image = movements[0].inputs[0]
    shape = graph.types[image].shape
    made_by_a_layer = root_of(graph, image) in graph.producers
    # A Reshape of an image of one pixel moves nothing: sink_reshapes deals with it.
    moves = len(shape) in _RANKS and (int(np.prod(shape[2:])) > 1 or len(movements) > 1)
    return _Flattening(image, tuple(movements), chain) if made_by_a_layer and moves else None


def _maker(graph: Graph, name: str) -> object:
    node = graph.producers.get(name)
    return node.op if node else None


def _absorb(rewrite: Rewrite, x: str, flattening: _Flattening) -> dict[str, Order]:
    """Replace the dense layers that read x by convolutions over the image.

    Returns:
        The orders of tensors, see `Outcome`.
    """
    graph = rewrite.graph
    chain, image = flattening.chain, flattening.image
    for node in (*flattening.movements, *(chain.nodes if chain else ())):
        rewrite.replace(node, ())
    first: list[Node] = []
    in_order = all(isinstance(node.op, Reshape) for node in flattening.movements)
    if chain:
        suffix = IMAGE if in_order else REORDERED
        first = transplanted(rewrite, chain, image, suffix, rewrite.fresh(f"{x}{suffix}"))
        image = first[-1].output
    places = _places(graph, flattening)
    moved = [name for node in flattening.movements for name in node.origin]
    order = _image_order(graph, flattening)
    orders = {} if in_order else {node.output: order for node in first}
    for layer in graph.consumers[x]:
        rewrite.replace(layer, [*first, *_over_image(rewrite, layer, image, places, moved)])
        first = []
    return orders


def _places(graph: Graph, flattening: _Flattening) -> Array:
    """Return the place in the image, in C order, of every element of the flat tensor, int64 [K]."""
    shape = graph.types[flattening.image].shape
    places: Array = np.arange(np.prod(shape)).reshape(shape)
    for node in flattening.movements:
        (places,) = node.op.evaluate([places])
    return places.reshape(-1)


def _image_order(graph: Graph, flattening: _Flattening) -> Order:
    """Return the order in which the image holds the elements of the flat tensor."""
    order = Order()
    for node in reversed(flattening.movements):
        if isinstance(node.op, Transpose):
            moved = graph.types[node.output].shape[1:]
            order = order.then(moved, [int(axis) - 1 for axis in np.argsort(node.op.perm)[1:]])
    return order


def _over_image(
    rewrite: Rewrite, layer: Node, image: str, places: Array, moved: Sequence[str]
) -> list[Node]:
    """Return a dense layer as the convolution of a whole image, and its result as it was."""
    weights = rewrite.value(layer.inputs[1])
    _, channels, *sizes = rewrite.type_of(image).shape
    permuted = np.empty_like(weights)
    permuted[:, places] = weights
    w = rewrite.constant(
        f"{layer.inputs[1]}{IMAGE}",
        permuted.reshape(len(weights), channels, *sizes),
        Element.F32,
    )
    window = Window(tuple(Axis(size) for size in sizes))
    wide = rewrite.fresh(f"{layer.output}{IMAGE}")
    # A bias is told by the layer's origin: the movement's own goes to the Reshape.
    conv = rewrite.node(Conv(window), (image, w), wide, layer.origin)
    flat = Reshape((1, len(weights)))
    return [conv, rewrite.node(flat, (wide,), layer.output, (*layer.origin, *moved))]


def _flat_inputs(graph: Graph) -> Graph:
    """Move elementwise operations on the graph's inputs behind the Reshape that flattens them."""
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        if not isinstance(node.op, Reshape) or len(node.op.shape) != 2:
            continue
        x = node.inputs[0]
        chain = next(_by_scalars(graph, x), None)
        if chain is None or root_of(graph, x) in graph.producers:
            continue
        if not _ends_in(graph, chain, node):
            continue
        for link in chain.nodes:
            rewrite.replace(link, ())
        flat = rewrite.fresh(f"{chain.root}.flat")
        first = rewrite.node(node.op, (chain.root,), flat, node.origin)
        rest = transplanted(rewrite, chain, flat, ".flat", node.output)
        rewrite.replace(node, [first, *rest])
    return rewrite.finish()


def _ends_in(graph: Graph, chain: Chain, reader: Node) -> bool:
    """Whether what the chain computes is read by the chain itself, and in the end by `reader`."""
    made = {node.output for node in chain.nodes}
    inside = {node.name for node in (*chain.nodes, reader)}
    read = {r.name for name in made for r in graph.consumers[name]}
    return read <= inside and made.isdisjoint(graph.outputs)


ABSORB_MOVEMENT = Pass(
    "absorb_movement", _apply, requires=Stage.FLOAT, exactness=Exactness.REDUCTION_ORDER
)
