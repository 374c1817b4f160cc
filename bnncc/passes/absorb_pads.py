"""Let windows reach over the edge where the model pads first.

Before: `%p = Pad(%x, 0 round the spatial axes); %y = Conv(%p, %W)`
After:  `%y = Conv(%x, %W)` whose window reaches that much further.

Exact, every operation rounded as before:
- Conv: a tap on 0 adds +-0 to a sum that started from +0, which changes nothing.
- MaxPool of a Pad with -inf, or the lowest float there is: what is padded is never the largest.
- AveragePool of a Pad with 0: as for Conv; the padding counts, as `count_include_pad` says.

Every reader must be such a layer, or the padded image is needed anyway. Where a window would round
its number of outputs up otherwise than on the padded image, or see nothing but padding, the Pad
stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from bnncc.ir.graph import Graph, Node, Rewrite
from bnncc.ir.ops.base import OpError
from bnncc.ir.ops.linear import Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Pad
from bnncc.ir.types import Element, Stage
from bnncc.ir.window import Window
from bnncc.passes.base import Context, Outcome, Pass

__all__ = ["ABSORB_PADS"]

_LOWEST = float(np.finfo(np.float32).min)


def _apply(graph: Graph, _: Context) -> Outcome:
    while True:  # a Pad of a Pad is absorbed after it
        absorbed = _absorbed(graph)
        if absorbed is graph:
            return Outcome(graph)
        graph = absorbed


def _absorbed(graph: Graph) -> Graph:
    rewrite = Rewrite(graph)
    for node in graph.nodes:
        if not isinstance(node.op, Pad) or node.output in graph.outputs:
            continue
        layers = [
            _absorbing(graph, node, node.op, reader) for reader in graph.consumers[node.output]
        ]
        if layers and all(layers):
            rewrite.replace(node, ())
            for old, new in zip(graph.consumers[node.output], layers, strict=True):
                assert new is not None  # all of them are
                rewrite.replace(old, [new])
    return rewrite.finish()


def _absorbing(graph: Graph, node: Node, pad: Pad, reader: Node) -> Node | None:
    """Return a reader of a Pad that pads for itself, or None if there is none that is the same."""
    x = graph.types[node.inputs[0]]
    reads_it_once = reader.inputs.count(node.output) == 1 and reader.inputs[0] == node.output
    if not reads_it_once or x.element is not Element.F32 or any((*pad.before[:2], *pad.after[:2])):
        return None
    match reader.op:
        case Conv(window=window) if pad.value == 0 and _is_finite(graph, reader.inputs[1]):
            op: Conv | MaxPool | AveragePool = dataclasses.replace(
                reader.op, window=_wider(window, pad)
            )
        case MaxPool(window=window) if pad.value <= _LOWEST:
            op = MaxPool(_wider(window, pad))
        case AveragePool(window=window) if pad.value == 0 and not _pads(window):
            op = AveragePool(_wider(window, pad), count_include_pad=True)
        case _:
            return None
    try:
        (kind,) = op.infer([x, *(graph.types[name] for name in reader.inputs[1:])])
    except OpError:
        return None
    if kind.shape != graph.types[reader.output].shape:
        return None
    inputs = (node.inputs[0], *reader.inputs[1:])
    origin = tuple(dict.fromkeys((*reader.origin, *node.origin)))
    return Node(op, reader.name, inputs, reader.outputs, origin)


def _is_finite(graph: Graph, weights: str) -> bool:
    """Whether 0 times every weight is 0."""
    return graph.is_constant(weights) and bool(np.isfinite(graph.constants[weights]).all())


def _pads(window: Window) -> bool:
    return any(axis.before or axis.after for axis in window.axes)


def _wider(window: Window, pad: Pad) -> Window:
    """Return the window as it slides over the image that is not padded."""
    widths: Sequence[tuple[int, int]] = list(zip(pad.before[2:], pad.after[2:], strict=True))
    return Window(
        tuple(
            dataclasses.replace(axis, before=axis.before + before, after=axis.after + after)
            for axis, (before, after) in zip(window.axes, widths, strict=True)
        )
    )


ABSORB_PADS = Pass("absorb_pads", _apply, requires=Stage.FLOAT)
