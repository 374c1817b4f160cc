"""Run a graph of any stage in numpy: the reference that every pass and the C are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bnncc.ir.graph import Graph
from bnncc.ir.storage import decode, encode
from bnncc.ir.types import Array

__all__ = ["run", "run_stored"]


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the graph's outputs as logical arrays.

    Args:
        graph: a graph of any stage.
        feeds: a logical array for each graph input, of its shape but any batch N on axis 0.

    Returns:
        For each output name a logical array with the same batch.
    """
    stored = run_stored(graph, feeds)
    return {name: decode(stored[name], graph.types[name]) for name in graph.outputs}


def run_stored(
    graph: Graph,
    feeds: Mapping[str, Array],
    observe: Callable[[str, Array], Array] | None = None,
) -> dict[str, Array]:
    """Return every tensor the graph computes, in its storage layout, constants left out.

    Args:
        graph: a graph of any stage.
        feeds: as for `run`.
        observe: called with each computed tensor's name and stored value; what it returns goes on
            in its place (teacher forcing: verify puts the oracle's own values there).
    """
    env: dict[str, Array] = {name: encode(feeds[name], graph.types[name]) for name in graph.inputs}
    for node in graph.nodes:
        operands = [
            graph.constants[name] if name in graph.constants else env[name] for name in node.inputs
        ]
        for name, value in zip(node.outputs, node.op.evaluate(operands), strict=True):
            env[name] = observe(name, value) if observe else value
    return env
