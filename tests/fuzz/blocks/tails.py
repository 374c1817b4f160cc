"""How fuzzed networks end."""

from __future__ import annotations

import numpy as np

from tests.fuzz.blocks.layers import dense
from tests.fuzz.blocks.norms import batch_norm
from tests.fuzz.blocks.pools import global_pool
from tests.fuzz.net import Net

__all__ = ["classifier", "decision", "heads", "mask", "nothing", "probabilities", "ranking"]


def classifier(net: Net) -> None:
    """Scores of classes."""
    if net.spatial and net.chance(0.5):
        global_pool(net)
    dense(net)
    if net.chance(0.4):
        batch_norm(net)


def probabilities(net: Net) -> None:
    """Softmax or its logarithm of scores."""
    classifier(net)
    net.follow(net.pick(("Softmax", "LogSoftmax")), axis=net.pick((1, -1)))


def decision(net: Net) -> None:
    """The best class."""
    classifier(net)
    net.follow("ArgMax", axis=net.pick((1, -1)), keepdims=net.between(0, 1))


def ranking(net: Net) -> None:
    """The best classes and their scores."""
    classifier(net)
    count = net.constant([net.between(1, min(5, net.channels))], np.int64)
    results = net.results("TopK", [net.x, count], 2, axis=net.pick((1, -1)))
    net.x = results[0]
    net.outputs.append(results[1])


def heads(net: Net) -> None:
    """Two classifiers of one tensor, and its sum."""
    source = net.x
    for _ in range(2):
        net.x = source
        classifier(net)
        net.outputs.append(net.x)
    net.x = net.reduced("ReduceSum", source, list(range(1, net.values[source].ndim)))


def mask(net: Net) -> None:
    """Which scores are positive, as numbers."""
    classifier(net)
    net.follow("Greater", net.constant(0.0))
    net.follow("Cast", to=1)


def nothing(net: Net) -> None:
    """No tail: the last block's own result."""
