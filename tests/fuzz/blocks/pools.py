"""Pools, and reductions of any axes."""

from __future__ import annotations

from tests.fuzz.blocks.norms import batch_norm, tame
from tests.fuzz.blocks.signs import sign
from tests.fuzz.blocks.window import Window
from tests.fuzz.net import Net

__all__ = ["average_pool", "global_pool", "max_pool", "pool_sign", "reduction"]


def max_pool(net: Net) -> None:
    """A MaxPool, before or after whatever comes."""
    if not net.spatial:
        return
    source, window = net.x, Window(net, pool=True)
    attributes = window.attributes()
    ceil = window.ceil(net)
    apart = any(s > k for s, k in zip(window.strides, window.kernel, strict=True))
    if net.chance(0.15) and not apart and not any(d > 1 for d in window.dilations):
        del attributes["pads"]
        attributes["auto_pad"] = net.pick(("SAME_UPPER", "SAME_LOWER"))
        ceil = 0
    net.follow("MaxPool", ceil_mode=ceil, **attributes)
    if net.bounded(net.x) > 2.0**13:  # a window of padding alone, which has no largest value
        net.x = source


def average_pool(net: Net) -> None:
    """An AveragePool."""
    if net.spatial:
        window = Window(net, pool=True)
        attributes = window.attributes()
        del attributes["dilations"]
        window.dilations = [1] * len(net.spatial)
        net.follow(
            "AveragePool",
            ceil_mode=window.ceil(net),
            count_include_pad=net.between(0, 1),
            **attributes,
        )


def global_pool(net: Net) -> None:
    """The mean or the largest of each channel."""
    if not net.spatial:
        return
    form = net.pick(("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"))
    if form == "ReduceMean":
        axes = list(range(2, len(net.shape)))
        net.x = net.reduced(form, net.x, axes, keepdims=net.between(0, 1))
    else:
        net.follow(form)


def reduction(net: Net) -> None:
    """A reduction of some axes, kept as ones or not."""
    rank = len(net.shape)
    count = net.between(1, rank - 1)
    axes = sorted(map(int, net.random.choice(range(1, rank), count, replace=False)))
    ops = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2")
    op = net.pick((*ops, "ReduceSumSquare", "ReduceLogSum"))
    if op == "ReduceLogSum":
        net.follow("Abs")
        net.follow("Add", net.constant(0.5))
    keepdims = 1 if count == rank - 1 else net.between(0, 1)  # else no channels would be left
    if net.chance(0.2):
        axes = [axis - rank for axis in axes]
    net.x = net.reduced(op, net.x, axes, keepdims=keepdims)
    tame(net)


def pool_sign(net: Net) -> None:
    """BatchNorm, MaxPool and sign in any order."""
    steps = [batch_norm, max_pool, sign]
    net.random.shuffle(steps)  # type: ignore[arg-type]  # shuffle takes any list
    for step in steps:
        step(net)
