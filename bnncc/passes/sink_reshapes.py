"""Keep a dense layer's results images of one pixel, as long as anything follows from them.

Before: `%f = Reshape([1, C])(%x); %b = BatchNormalization(%f, ...); %y = MatMul(%b, %W)`
        with %x [1, C, 1, 1] made by a layer or pooled from one
After:  `%b' = BatchNormalization(%x, ...); %y' = Conv(1 x 1)(%b', %W'); %y = Reshape([1, O])(%y')`

A Reshape between a layer's accumulator and its Step would keep the thresholds from folding, and the
epilogue from the layer's kernel. Here it moves down, past everything elementwise and past further
dense layers, until something needs the flat tensor. Exact: channels stay channels, and a sum over
one tap runs over the channels in the order of the dense layer's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnncc.ir.expression import per_channel, root_of
from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.elementwise import Elementwise
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Axis, Window
from bnncc.passes.base import Context, Outcome, Pass
from bnncc.passes.transplant import IMAGE, fitted

__all__ = ["SINK_RESHAPES"]


def _apply(graph: Graph, _: Context) -> Outcome:
    rewrite = Rewrite(graph)
    images: dict[str, str] = {}
    moved: dict[str, Node] = {}
    for node in graph.nodes:
        if _is_start(graph, node):
            images[node.output] = node.inputs[0]
        elif _can_move(rewrite, node, images):
            image = rewrite.fresh(f"{node.output}{IMAGE}")
            moved[node.output] = _on_images(rewrite, node, images, image)
            images[node.output] = image
    for node in graph.nodes if moved else ():
        if node.outputs[0] not in images:
            continue
        new = [moved[node.output]] if node.output in moved else []
        stay = [r for r in graph.consumers[node.output] if r.outputs[0] not in moved]
        if stay or node.output in graph.outputs:
            flat = Reshape(graph.types[node.output].shape)
            new.append(rewrite.node(flat, (images[node.output],), node.output, node.origin))
        if node.output in moved or not new:
            rewrite.replace(node, new)
    return Outcome(rewrite.finish())


def _is_start(graph: Graph, node: Node) -> bool:
    """Whether the node drops the spatial axes, all 1, of what a layer made."""
    if not isinstance(node.op, Reshape):
        return False
    shape = graph.types[node.inputs[0]].shape
    if len(shape) < 3 or node.op.shape != shape[:2]:
        return False
    maker = graph.producers.get(root_of(graph, node.inputs[0]))
    return maker is not None and isinstance(maker.op, Conv | MaxPool)


def _can_move(rewrite: Rewrite, node: Node, images: Mapping[str, str]) -> bool:
    """Whether all that varies among the node's operands are images of one pixel, of one rank."""
    graph = rewrite.graph
    variables = graph.variables(node)
    if not variables or any(name not in images for name in variables):
        return False
    if isinstance(node.op, MatMul):
        return graph.is_constant(node.inputs[1])
    shapes = {graph.types[name].shape for name in (*variables, *node.outputs)}
    ranks = {len(rewrite.type_of(images[name]).shape) for name in variables}
    return isinstance(node.op, Elementwise) and len(shapes) == len(ranks) == 1


def _on_images(rewrite: Rewrite, node: Node, images: Mapping[str, str], image: str) -> Node:
    """Return the operation on images, its result called `image`."""
    graph = rewrite.graph
    root = images[graph.variables(node)[0]]
    if isinstance(node.op, MatMul):
        weights = rewrite.value(node.inputs[1])
        points = (1,) * (len(rewrite.type_of(root).shape) - 2)
        w = rewrite.constant(
            f"{node.inputs[1]}{IMAGE}", weights.reshape(*weights.shape, *points), Element.F32
        )
        window = Window((Axis(1),) * len(points))
        return rewrite.node(Conv(window), (root, w), image, node.origin)
    inputs = []
    for place, name in enumerate(node.inputs):
        if name in images:
            inputs.append(images[name])
            continue
        value = per_channel(graph.constants[name], graph.types[node.output].shape)
        assert value is not None  # it broadcasts to [1, C]
        inputs.append(fitted(rewrite, node, place, value, root))
    return rewrite.node(node.op, inputs, image, node.origin)


SINK_RESHAPES = Pass("sink_reshapes", _apply, requires=Stage.FLOAT)
