"""Whether the exported graph computes what the module computes.

Both exporters can lose what a module does: an assignment to `.data` in forward, for instance, which
much published BNN code contains, leaves no trace in a traced graph. `verify` cannot see it, since
its oracle is the exported model. So the module itself is run on a few inputs.
"""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from bnncc.ir import interpret
from bnncc.ir.graph import Graph
from bnncc.ir.types import Array

__all__ = ["Agreement", "agreement"]

_ROUNDING = 1e-3
"""Relative to the largest output: more than reordered float32 sums differ without a flipped bit."""

_ANOTHER = 0.1
"""Relative to the outputs' norm. Rounding flips the few bits next to a decision, and in most
samples none; a network that differs by so much in *every* sample is another one."""

_LARGE = 2**20
"""Constants and inputs of so many elements make a network large: a sample takes a second."""

_ENOUGH = 2
"""Of a large network, so many random samples are run if they are equal; else all."""

_NAME = re.compile(r"(?P<side>in|out)_(?P<sample>\d+)_(?P<position>\d+)")


class Agreement(enum.Enum):
    """What the comparison found."""

    EQUAL = "equal up to rounding"
    CLOSE = "some outputs differ"
    ANOTHER = "another function"
    UNKNOWN = "not comparable"


def agreement(graph: Graph, samples: Path) -> Agreement:
    """Compare a graph with what the child process saw the module compute.

    Args:
        graph: the FLOAT stage.
        samples: the .npz file that `export_module` wrote.
    """
    known = _errors(graph, samples)
    if not known:
        return Agreement.UNKNOWN
    # The first is the user's example: often zeros, of which much is zero whatever is computed.
    random = known[1:] or known
    if all(norm > _ANOTHER for _, norm in random):
        return Agreement.ANOTHER
    if any(largest > _ROUNDING for largest, _ in known):
        return Agreement.CLOSE
    return Agreement.EQUAL


def _errors(graph: Graph, samples: Path) -> list[tuple[float, float]]:
    """Return the errors of the samples that can be compared, the user's example first."""
    elements = [array.size for array in graph.constants.values()]
    elements += [graph.types[name].size for name in graph.inputs]
    large = sum(elements) > _LARGE
    known: list[tuple[float, float]] = []
    for sample in _samples(samples):
        error = _error(graph, *sample)
        known += [] if error is None else [error]
        equal = sum(largest <= _ROUNDING for largest, _ in known[1:])
        if large and equal == _ENOUGH:
            break
    return known


def _samples(path: Path) -> list[tuple[list[Array], list[Array]]]:
    sides: dict[int, dict[str, list[Array]]] = defaultdict(lambda: {"in": [], "out": []})
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:  # in the order of their positions
            if match := _NAME.fullmatch(name):
                sides[int(match["sample"])][match["side"]].append(arrays[name])
    return [(side["in"], side["out"]) for side in sides.values()]


def _error(graph: Graph, inputs: list[Array], outputs: list[Array]) -> tuple[float, float] | None:
    """Return the largest error and the error's norm, relative to the outputs'; None: other shapes.

    Both are infinite where one side is finite and the other is not.
    """
    kinds = [graph.types[name].shape for name in graph.inputs]
    if [x.shape for x in inputs] != kinds or len(outputs) != len(graph.outputs):
        return None
    computed = interpret.run(graph, dict(zip(graph.inputs, inputs, strict=True)))
    ours = [np.asarray(computed[name], np.float64) for name in graph.outputs]
    theirs = [np.asarray(y, np.float64) for y in outputs]
    if [y.shape for y in ours] != [y.shape for y in theirs]:
        return None
    a, b = (np.concatenate([y.ravel() for y in side]) for side in (ours, theirs))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return (np.inf, np.inf)
    finite = np.isfinite(b)
    a, b = a[finite], b[finite]
    scale = float(np.abs(b).max(initial=0.0)) or 1.0
    norm = float(np.linalg.norm(b)) or 1.0
    return float(np.abs(a - b).max(initial=0.0)) / scale, float(np.linalg.norm(a - b)) / norm
