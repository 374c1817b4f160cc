"""Statistics that break compilers: BatchNorm, its parts, and what each sample is normalised by."""

from __future__ import annotations

import numpy as np

from bnncc.ir.types import Array
from tests.fuzz.blocks.signs import sign
from tests.fuzz.net import Net

__all__ = ["affine", "batch_norm", "own_norm", "sample_norm", "tame", "wrapped_norm"]

_LARGEST = 2.0**12


def tame(net: Net) -> None:
    """Keep values where nothing overflows, by a factor that is exact."""
    most = net.bounded(net.x)
    if most > _LARGEST:
        net.follow("Mul", net.constant(2.0 ** -np.ceil(np.log2(most))))


# --- By constants ---------------------------------------------------------------------------------


def batch_norm(net: Net) -> None:
    """A BatchNorm of statistics that break compilers, put on values that the channel takes."""
    channels = net.channels
    gamma, beta, mean, variance = _statistics(net)
    if net.chance(0.3):
        gamma[:] = np.where(gamma < 0, -1, 1)
    operands = [net.constant(row) for row in (gamma, beta, mean, variance)]
    assert gamma.shape == (channels,)
    net.follow("BatchNormalization", *operands, epsilon=net.pick((1e-5, 1e-4, 1e-3, 2.0**-10)))
    tame(net)


def _statistics(net: Net) -> list[Array]:
    """Return gamma, beta, mean, variance [C], each channel of a kind of its own.

    Of twelve channels: three with a mean that the channel's values hit (a tie, beta 0), one whose
    threshold is such a value by way of beta, one without gamma, one with tiny gamma, one with tiny
    variance, one with a mean far off, one whose scale is a power of two.
    """
    channels, values = net.channels, net.by_channel()
    taken = net.ties()[np.arange(channels), net.random.integers(0, values.shape[1], channels)]
    spread = values.std(axis=1).astype(np.float64) + 1e-3
    gamma = net.random.normal(0, 1, channels)
    beta = net.random.normal(0, 0.5, channels)
    mean = values.mean(axis=1) + net.random.normal(0, 0.3, channels) * spread
    variance = spread**2 * net.random.uniform(0.3, 2, channels)
    kind = net.random.integers(0, 12, channels)
    if net.dyadic:
        kind[net.random.random(channels) < 0.5] = 9
    mean[kind <= 3] = taken[kind <= 3]
    beta[kind <= 2] = 0
    slope = (gamma / np.sqrt(variance + 1e-5)).astype(np.float32)
    beta[kind == 3] = ((mean.astype(np.float32) - taken) * slope)[kind == 3]
    gamma[kind == 4] = net.random.choice([0.0, -0.0], (kind == 4).sum())
    gamma[kind == 5] *= 1e-30
    variance[kind == 6] = net.random.choice([0.0, 1e-12, 6e-8], (kind == 6).sum())
    mean[kind == 7] += net.random.choice([-1e4, 1e4], (kind == 7).sum()) * spread[kind == 7]
    exact = kind == 9
    gamma[exact] = net.random.choice([-2, -1, -0.5, 0.5, 1, 2], exact.sum())
    variance[exact] = 1 - 2.0**-10  # with an epsilon of 2^-10, the scale is gamma itself
    mean[exact] = taken[exact]
    beta[exact] = net.random.choice([-1, -0.5, 0, 0, 0.25, 1], exact.sum())
    return [row.astype(np.float32) for row in (gamma, beta, mean, variance)]


def affine(net: Net) -> None:
    """A constant added, subtracted, multiplied or divided by, a value a channel or one for all."""
    op = net.pick(("Mul", "Mul", "Add", "Add", "Sub", "Div"))
    row = net.reals(net.channels if net.chance(0.6) else 1)
    if op in ("Add", "Sub") and net.chance(0.4) and row.size == net.channels:
        values = net.ties()
        row = values[np.arange(net.channels), net.between(0, values.shape[1] - 1)]
        row = -row if op == "Add" else row
    if op == "Div":
        row = np.where(np.abs(row) < 0.1, np.float32(0.5), row)
    operand = net.along(row) if row.size > 1 else row.reshape([1] * net.between(0, 1))
    inputs = [net.x, net.constant(operand)]
    if op in ("Mul", "Add", "Sub") and net.chance(0.3):
        inputs.reverse()
    net.x = net.node(op, inputs)
    tame(net)


def wrapped_norm(net: Net) -> None:
    """BatchNorm of a row, with an axis added for it, as FINN has it."""
    if net.spatial:
        batch_norm(net)
        return
    net.follow("Unsqueeze", net.constant([2], np.int64))
    batch_norm(net)
    net.follow("Squeeze", net.constant([2], np.int64))


# --- By each sample's own statistics --------------------------------------------------------------


def own_norm(net: Net) -> None:
    """One of ONNX's normalisations of each sample."""
    channels, axes = net.channels, len(net.spatial)
    forms = ["lp", "layer"] + (["instance", "layer", "mean"] if axes else [])
    if axes and net.opset >= 21:  # until then, onnx deprecates it
        forms.append("group")
    form = net.pick(forms)
    epsilon = net.pick((1e-5, 1e-3))
    if form == "lp":
        # The channels' row of each pixel, or a line of pixels.
        net.follow("LpNormalization", axis=net.between(1, axes + 1), p=net.pick((1, 2)))
    elif form == "layer":
        axis = net.between(1, axes + 1)
        scale = net.constant(net.reals(*net.shape[axis:]))
        bias = [net.constant(net.reals(*net.shape[axis:]))] if net.chance(0.7) else []
        net.follow("LayerNormalization", scale, *bias, axis=axis, epsilon=epsilon)
    elif form == "instance":
        operands = [net.constant(net.reals(channels)) for _ in range(2)]
        net.follow("InstanceNormalization", *operands, epsilon=epsilon)
    elif form == "mean":
        chosen = net.pick((list(range(2, axes + 2)), list(range(1, axes + 2))))
        # ONNX Runtime leaves out the epsilon of ONNX, which matters where little varies.
        if net.values[net.x].std(axis=tuple(chosen), dtype=np.float64).min() > 1e-2:
            net.follow("MeanVarianceNormalization", axes=[0, *chosen])
    else:
        groups = net.pick([d for d in range(1, channels + 1) if channels % d == 0])
        operands = [net.constant(net.reals(channels)) for _ in range(2)]
        net.follow("GroupNormalization", *operands, num_groups=groups, epsilon=epsilon)
    tame(net)


def sample_norm(net: Net) -> None:
    """A sign of what its own sample's mean, and perhaps deviation, was taken from (RBNN)."""
    rank = len(net.shape)
    axes = net.pick((list(range(1, rank)), list(range(2, rank)) or [1], [1]))
    centred = net.node("Sub", [net.x, net.reduced("ReduceMean", net.x, axes)])
    net.x = centred
    if net.chance(0.6):
        square = net.node("Mul", [centred, centred])
        variance = net.reduced("ReduceMean", square, axes)
        shifted = net.node("Add", [variance, net.constant(net.pick((1e-5, 2.0**-10)))])
        net.follow("Div", net.node("Sqrt", [shifted]))
    if net.chance(0.8):
        sign(net)
