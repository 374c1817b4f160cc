"""The blocks of fuzzed networks. Each reads `net.x`, appends nodes, and replaces it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from bnncc.ir.types import Array
from tests.fuzz.net import Net

__all__ = ["BLOCKS", "STEMS", "TAILS"]

_MOST_MACS = 400_000
_LARGEST = 2.0**12

# --- Inputs ---------------------------------------------------------------------------------------


def stem_shape(net: Net, kind: str) -> tuple[int, ...]:
    """Return the shape of a sample of the input."""
    lengths = {"dense": 0, "1d": 1, "2d": 2}[kind]
    most = {0: 70, 1: 33, 2: 8}[lengths]
    spatial = [min(net.between(1, 13), net.limit) for _ in range(lengths)]
    return (net.width(most), *spatial)


STEMS = ("dense", "1d", "2d")

# --- Linear layers --------------------------------------------------------------------------------


class Window:
    """Attributes of a convolution or pool over the spatial axes of `net.x`, always valid."""

    def __init__(self, net: Net, *, pool: bool = False) -> None:
        spatial = net.spatial
        self.kernel = [min(net.pick((1, 2, 3, 3, 3, 4, 5)), length + 2) for length in spatial]
        self.strides = [net.pick((1, 1, 1, 2, 3)) for _ in spatial]
        self.dilations = [net.pick((1, 1, 1, 1, 2, 3)) for _ in spatial]
        if net.chance(0.3):
            self.strides = [1] * len(spatial)
        self.before, self.after = ([0] * len(spatial) for _ in range(2))
        for axis, length in enumerate(spatial):
            reach = self.reach(axis)
            most = self.kernel[axis] - 1 if pool else reach + 1
            style = net.pick(("none", "same", "any"))
            if style == "same":
                self.before[axis] = min(reach // 2, most)
                self.after[axis] = min(reach - reach // 2, most)
            elif style == "any":
                self.before[axis] = net.between(0, min(most, 4))
                self.after[axis] = net.between(0, min(most, 4))
            self._fit(axis, length, most)

    def reach(self, axis: int) -> int:
        """Return how far the last tap of a window lies from the first."""
        return self.dilations[axis] * (self.kernel[axis] - 1)

    def _fit(self, axis: int, length: int, most: int) -> None:
        """Make the padded axis as long as the window at least, by pads or a smaller window."""
        missing = self.reach(axis) + 1 - length - self.before[axis] - self.after[axis]
        if missing <= 0:
            return
        self.after[axis] = min(self.after[axis] + missing, most)
        if self.reach(axis) + 1 > length + self.before[axis] + self.after[axis]:
            self.kernel[axis] = self.dilations[axis] = 1
            self.before[axis] = self.after[axis] = 0

    def ceil(self, net: Net) -> int:
        """Return a ceil_mode, 0 where onnx and ONNX Runtime count windows differently.

        They do where the last window would start behind the input, in its padding.
        """
        for axis, length in enumerate(net.spatial):
            padded = length + self.before[axis] + self.after[axis]
            steps = -(-(padded - self.reach(axis) - 1) // self.strides[axis])
            if steps * self.strides[axis] >= length + self.before[axis]:
                return 0
        return net.between(0, 1)

    def attributes(self, *, pads: bool = True) -> dict[str, list[int]]:
        """Return the ONNX attributes."""
        found = {"kernel_shape": self.kernel, "strides": self.strides, "dilations": self.dilations}
        return found | ({"pads": [*self.before, *self.after]} if pads else {})


def conv(net: Net) -> None:
    """A convolution of real weights."""
    _convolution(net, _real_weights)


def binary_conv(net: Net) -> None:
    """A convolution of binary weights, mostly of signs."""
    if not _is_bits(net.values[net.x]) and net.chance(0.7):
        sign(net)
    _convolution(net, _binary_weights)


def depthwise(net: Net) -> None:
    """A convolution of each channel by itself, of binary or real weights."""
    if net.chance(0.5):
        sign(net)
    weights = net.pick((_binary_weights, _real_weights))
    _convolution(net, weights, groups=net.channels)


def pointwise(net: Net) -> None:
    """A convolution of one tap."""
    if not net.spatial:
        dense(net)
        return
    weights = net.pick((_binary_weights, _real_weights))
    filters = weights(net, (net.width(), net.channels, *[1] * len(net.spatial)))
    net.follow("Conv", filters)
    _tame(net)


def _convolution(net: Net, weights: Callable[[Net, tuple[int, ...]], str], groups: int = 0) -> None:
    if not net.spatial:
        _dense(net, weights)
        return
    window = Window(net)
    groups = groups or _groups(net)
    each = net.channels // groups
    taps = prod(window.kernel) * each * prod(net.spatial)
    most = max(1, _MOST_MACS // taps // groups)
    channels = groups * max(1, min(net.width() // groups, most))
    filters = weights(net, (channels, each, *window.kernel))
    has_bias = net.chance(0.3)
    bias = [net.constant(net.reals(channels))] if has_bias else []
    pads = True
    if any(window.before + window.after) and net.chance(0.4):
        _pad(net, window, net.pick((-1.0, 0.0, 1.0)))
        pads = False
    attributes = window.attributes(pads=pads)
    if pads and net.chance(0.15):
        del attributes["pads"]
        attributes["auto_pad"] = net.pick(("SAME_UPPER", "SAME_LOWER", "VALID"))
        spans = [window.reach(a) < length for a, length in enumerate(net.spatial)]
        if attributes["auto_pad"] == "VALID" and not all(spans):
            attributes["auto_pad"] = "SAME_UPPER"
        attributes["dilations"] = [1] * len(net.spatial)
    net.follow("Conv", filters, *bias, group=groups, **attributes)
    _tame(net)


def _groups(net: Net) -> int:
    divisors = [d for d in range(1, net.channels + 1) if net.channels % d == 0]
    return net.pick(divisors) if net.chance(0.25) else 1


def _pad(net: Net, window: Window, value: float) -> None:
    pads = [0, 0, *window.before, 0, 0, *window.after]
    operands = [net.constant(pads, np.int64)]
    if value or net.chance(0.5):
        operands.append(net.constant(value))
    net.follow("Pad", *operands, mode="constant")


def dense(net: Net) -> None:
    """A dense layer: of signs and binary weights mostly."""
    if net.chance(0.6):
        binary_dense(net)
    else:
        _dense(net, _real_weights)


def binary_dense(net: Net) -> None:
    """A dense layer of binary weights, mostly of signs."""
    if not _is_bits(net.values[net.x]) and net.chance(0.7):
        sign(net)
    _dense(net, _binary_weights)


def _dense(net: Net, weights: Callable[[Net, tuple[int, ...]], str]) -> None:
    flatten(net)
    channels = net.width(max(1, _MOST_MACS // net.channels))
    rows = weights(net, (channels, net.channels))
    if net.chance(0.5):
        bias = [net.constant(net.reals(channels))] if net.chance(0.5) else []
        scales = {}
        if net.chance(0.15):
            scales = {"alpha": net.pick((0.5, 2.0, -1.0)), "beta": net.pick((1.0, 0.5))}
        net.follow("Gemm", rows, *bias, transB=1, **scales)
    else:
        net.follow("MatMul", net.node("Transpose", [rows], perm=[1, 0]))
        if net.chance(0.3):
            net.follow("Add", net.constant(net.reals(channels)))
    _tame(net)


def _real_weights(net: Net, shape: tuple[int, ...]) -> str:
    return net.constant(net.reals(*shape))


_BINARY_FORMS = (
    *("plain", "plain", "alpha", "alpha"),
    *("crumbs", "one alpha", "sign", "mean", "where"),
)


def _binary_weights(net: Net, shape: tuple[int, ...]) -> str:
    """Return weights of one magnitude a channel, as exporters spell them."""
    signs = net.random.choice(np.float32([-1, 1]), shape)
    if net.chance(0.1):
        signs[net.random.random(shape) < 0.05] = 0
    rest = [1] * (len(shape) - 1)
    form = net.pick(
        ("plain", "plain", "alpha", "alpha", "crumbs", "one alpha", "sign", "mean", "where")
    )
    if form in ("alpha", "crumbs", "one alpha"):
        count = 1 if form == "one alpha" else shape[0]
        alpha = net.random.uniform(0.01, 0.5, (count, *rest))
        alpha = 2.0 ** np.round(np.log2(alpha)) if net.dyadic else alpha
        signs = signs * alpha.astype(np.float32)
        if form == "crumbs" and not net.dyadic:  # what a straight-through estimator leaves
            signs *= 1 + net.random.integers(-4, 5, shape).astype(np.float32) * np.float32(2.0**-23)
        return net.constant(signs)
    if form == "plain":
        return net.constant(signs)
    latent = net.constant(signs * np.float32(net.random.uniform(0.1, 1, shape)))
    if form == "where":
        above = net.node("GreaterOrEqual", [latent, net.constant(0.0)])
        return net.node("Where", [above, net.constant(1.0), net.constant(-1.0)])
    bits = net.node("Sign", [latent])
    if form == "sign":
        return bits
    size = net.node("Abs", [latent])
    axes = list(range(1, len(shape)))
    return net.node("Mul", [bits, _mean(net, size, axes)])


def _mean(net: Net, name: str, axes: Sequence[int], *, keepdims: int = 1) -> str:
    if net.opset < 18:
        return net.node("ReduceMean", [name], axes=list(axes), keepdims=keepdims)
    return net.node("ReduceMean", [name, net.constant(axes, np.int64)], keepdims=keepdims)


def _tame(net: Net) -> None:
    """Keep values where nothing overflows, by a factor that is exact."""
    most = net.bounded(net.x)
    if most > _LARGEST:
        net.follow("Mul", net.constant(2.0 ** -np.ceil(np.log2(most))))


# --- Statistics -----------------------------------------------------------------------------------


def batch_norm(net: Net) -> None:
    """A BatchNorm of statistics that break compilers, put on values that the channel takes."""
    channels = net.channels
    gamma, beta, mean, variance = _statistics(net)
    if net.chance(0.3):
        gamma[:] = np.where(gamma < 0, -1, 1)
    operands = [net.constant(row) for row in (gamma, beta, mean, variance)]
    assert gamma.shape == (channels,)
    net.follow("BatchNormalization", *operands, epsilon=net.pick((1e-5, 1e-4, 1e-3, 2.0**-10)))
    _tame(net)


def _statistics(net: Net) -> list[Array]:
    """Return gamma, beta, mean, variance [C], each channel of a kind of its own.

    Of twelve channels: three with a mean that the channel's values hit (a tie, beta 0), one whose
    threshold is such a value by way of beta, one without gamma, one with tiny gamma, one with tiny
    variance, one with a mean far off, one whose scale is a power of two.
    """
    channels, values = net.channels, _by_channel(net)
    taken = values[np.arange(channels), net.random.integers(0, values.shape[1], channels)]
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


def _by_channel(net: Net) -> Array:
    """Return the values of `net.x` by channel: [C, M]."""
    return np.moveaxis(net.values[net.x], 1, 0).reshape(net.channels, -1)


def affine(net: Net) -> None:
    """A constant added, subtracted, multiplied or divided by, a value a channel or one for all."""
    op = net.pick(("Mul", "Mul", "Add", "Add", "Sub", "Div"))
    row = net.reals(net.channels if net.chance(0.6) else 1)
    if op in ("Add", "Sub") and net.chance(0.4) and row.size == net.channels:
        values = _by_channel(net)
        row = values[np.arange(net.channels), net.between(0, values.shape[1] - 1)]
        row = -row if op == "Add" else row
    if op == "Div":
        row = np.where(np.abs(row) < 0.1, np.float32(0.5), row)
    operand = net.along(row) if row.size > 1 else row.reshape([1] * net.between(0, 1))
    inputs = [net.x, net.constant(operand)]
    if op in ("Mul", "Add", "Sub") and net.chance(0.3):
        inputs.reverse()
    net.x = net.node(op, inputs)
    _tame(net)


# --- Activations ----------------------------------------------------------------------------------


def activation(net: Net) -> None:
    """A function of one value."""
    choices = (_relu, _prelu, _prelu, _leaky, _clip, _clip, _hard_sigmoid, _abs, _neg)
    net.pick(choices)(net)


def _relu(net: Net) -> None:
    net.follow("Relu")


def _prelu(net: Net) -> None:
    slopes = net.reals(net.channels) if net.chance(0.7) else net.reals(1)
    shaped = slopes.reshape(-1, *[1] * len(net.spatial))
    net.follow("PRelu", net.constant(shaped))


def _leaky(net: Net) -> None:
    net.follow("LeakyRelu", alpha=net.pick((0.01, 0.25, -0.5, 1.5)))


_BOUNDS = ((-1.0, 1.0), (-1.0, 1.0), (0.0, 6.0), (-0.5, 2.0), (None, 1.0), (0.0, None))


def _clip(net: Net) -> None:
    low, high = net.pick(_BOUNDS)
    if low is None:
        net.follow("Clip", "", net.constant(high))
    elif high is None:
        net.follow("Clip", net.constant(low))
    else:
        net.follow("Clip", net.constant(low), net.constant(high))


def _hard_sigmoid(net: Net) -> None:
    alpha, beta = net.pick(((0.2, 0.5), (1 / 6, 0.5), (0.5, 0.5), (0.25, 0.5)))
    net.follow("HardSigmoid", alpha=alpha, beta=beta)


def _abs(net: Net) -> None:
    net.follow("Abs")


def _neg(net: Net) -> None:
    net.follow("Neg")


def squash(net: Net) -> None:
    """A sigmoid or tanh."""
    net.follow(net.pick(("Sigmoid", "Tanh")))


def sign(net: Net) -> None:
    """One of the spellings of sign."""
    net.pick(_SIGNS)(net)


def scaled_sign(net: Net) -> None:
    """A sign times a scale, the same for all or each channel's own."""
    sign(net)
    row = np.abs(net.reals(net.channels if net.chance(0.5) else 1)) + np.float32(0.125)
    net.follow("Mul", net.constant(net.along(row) if row.size > 1 else row))


def quantise(net: Net) -> None:
    """A few levels: DoReFa's quantiser, a ternariser, a step to 0 or 1."""
    form = net.pick(("rounded", "ternary", "unit"))
    if form == "rounded":
        most = net.pick((1.0, 2.0, 3.0, 7.0))
        net.follow("Clip", net.constant(0.0), net.constant(1.0))
        net.follow("Mul", net.constant(most))
        net.follow(net.pick(("Round", "Floor", "Ceil")))
        net.follow("Div", net.constant(most))
    elif form == "ternary":
        above = net.node("Greater", [net.x, net.constant(0.5)])
        below = net.node("Less", [net.x, net.constant(-0.5)])
        rest = net.node("Where", [below, net.constant(-1.0), net.constant(0.0)])
        net.x = net.node("Where", [above, net.constant(1.0), rest])
    else:
        sign(net)
        net.follow("Relu")


def shifted_sign(net: Net) -> None:
    """A sign with a threshold a channel, some of them values that the channel takes."""
    values = _by_channel(net)
    rows = values[np.arange(net.channels), net.between(0, values.shape[1] - 1)]
    net.follow("Sub", net.constant(net.along(rows)))
    sign(net)


def _zero(net: Net) -> str:
    return net.constant(net.pick((0.0, 0.0, -0.0)))


def _sign(net: Net) -> None:
    net.follow("Sign")


def _where(net: Net) -> None:
    op, swapped = net.pick(
        (("GreaterOrEqual", False), ("Greater", False), ("Less", True), ("LessOrEqual", True))
    )
    if net.chance(0.2):  # the constant first
        condition = net.node(op, [_zero(net), net.x])
        swapped = not swapped
    else:
        condition = net.node(op, [net.x, _zero(net)])
    branches = [net.constant(-1.0 if swapped else 1.0), net.constant(1.0 if swapped else -1.0)]
    net.x = net.node("Where", [condition, *branches])


def _cast(net: Net) -> None:
    op = net.pick(("GreaterOrEqual", "Greater"))
    net.x = net.node("Cast", [net.node(op, [net.x, _zero(net)])], to=1)
    net.follow("Mul", net.constant(2.0))
    net.follow("Sub", net.constant(1.0))


def _clipped(net: Net) -> None:
    net.follow("Clip", net.constant(-1.0), net.constant(1.0))
    _sign(net)


def _tanh_sign(net: Net) -> None:
    x = net.x
    net.follow("Tanh")
    _sign(net)
    sizes = np.abs(net.values[x][net.values[x] != 0])
    if x in net.exact and (sizes > 1e-30).all():
        net.exact.add(net.x)  # a tanh may round, and a subnormal one to 0, but not to another sign


def _nudged(net: Net) -> None:
    _sign(net)
    net.follow("Add", net.constant(net.pick((0.1, 0.5, -0.25))))
    _sign(net)


def _equal(net: Net) -> None:
    signs = net.node("Sign", [net.x])
    zero = net.node("Equal", [signs, net.constant(0.0)])
    net.x = net.node("Where", [zero, net.constant(net.pick((1.0, -1.0))), signs])


def _rounded(net: Net) -> None:
    net.follow("HardSigmoid", alpha=0.5, beta=0.5)
    net.follow("Round")
    net.follow("Mul", net.constant(2.0))
    net.follow("Sub", net.constant(1.0))


def _residue(net: Net) -> None:
    """Sign(x) - e + e with e = Clip(x): what a straight-through estimator leaves."""
    estimate = net.node("Clip", [net.x, net.constant(-1.0), net.constant(1.0)])
    signs = net.node("Sign", [net.x])
    net.x = net.node("Sub", [signs, estimate])
    net.follow("Add", estimate)


def _polynomial(net: Net) -> None:
    """The same with Bi-Real's piecewise polynomial."""
    x = net.x
    square = net.node("Mul", [x, x])
    double = net.node("Mul", [x, net.constant(2.0)])
    rising, falling = (net.node(op, [double, square]) for op in ("Add", "Sub"))
    inner = net.node("Less", [x, net.constant(0.0)])
    middle = net.node("Where", [inner, rising, falling])
    low = net.node("Less", [x, net.constant(-1.0)])
    left = net.node("Where", [low, net.constant(-1.0), middle])
    high = net.node("GreaterOrEqual", [x, net.constant(1.0)])
    estimate = net.node("Where", [high, net.constant(1.0), left])
    net.x = net.node("Sub", [net.node("Sign", [x]), estimate])
    net.follow("Add", estimate)


def _whole(net: Net) -> None:
    """The same with the tensor itself, where it is small enough to vanish."""
    if net.bounded(net.x) > 1:
        _clipped(net)
        return
    x = net.x
    net.x = net.node("Sub", [net.node("Sign", [x]), x])
    net.follow("Add", x)


def _quotient(net: Net) -> None:
    """x / |x|, which is no number at 0."""
    if (net.values[net.x] == 0).any():
        _equal(net)
    else:
        net.x = net.node("Div", [net.x, net.node("Abs", [net.x])])


def _filled(net: Net) -> None:
    """Where between branches as large as the tensor."""
    condition = net.node("GreaterOrEqual", [net.x, _zero(net)])
    ones = np.ones(net.shape, np.float32)
    net.x = net.node("Where", [condition, net.constant(ones), net.constant(-ones)])


def _compared(net: Net) -> None:
    """A clamp made of comparisons, as Brevitas exports it, and a sign."""
    above = net.node("Greater", [net.x, net.constant(1.0)])
    net.x = net.node("Where", [above, net.constant(1.0), net.x])
    below = net.node("Less", [net.x, net.constant(-1.0)])
    net.x = net.node("Where", [below, net.constant(-1.0), net.x])
    _where(net)


_SIGNS = (
    _where,
    _where,
    _where,
    _sign,
    _sign,
    _cast,
    _clipped,
    _nudged,
    _equal,
    _rounded,
    _residue,
    _polynomial,
    _tanh_sign,
    _whole,
    _quotient,
    _filled,
    _compared,
)


def _is_bits(values: Array) -> bool:
    return bool((np.abs(values) == 1).all())


# --- Pools ----------------------------------------------------------------------------------------


def max_pool(net: Net) -> None:
    """A MaxPool, before or after whatever comes."""
    if net.spatial:
        source, window = net.x, Window(net, pool=True)
        net.follow("MaxPool", ceil_mode=window.ceil(net), **window.attributes())
        if net.bounded(net.x) > _LARGEST:  # a window of padding alone, which has no largest value
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
        net.x = _mean(net, net.x, range(2, len(net.shape)), keepdims=net.between(0, 1))
    else:
        net.follow(form)


def pool_sign(net: Net) -> None:
    """BatchNorm, MaxPool and sign in any order."""
    steps = [batch_norm, max_pool, sign]
    net.random.shuffle(steps)  # type: ignore[arg-type]  # shuffle takes any list
    for step in steps:
        step(net)


# --- Several tensors ------------------------------------------------------------------------------


def residual(net: Net) -> None:
    """A sign, a convolution and a BatchNorm beside a real shortcut, added."""
    shortcut = net.x
    sign(net)
    stride = net.pick((1, 1, 2)) if net.spatial else 1
    keep = stride == 1 or net.chance(0.3)
    before = net.channels
    channels = before if keep else min(2 * before, 70)
    if net.channels * channels * prod(net.spatial) * 9 > 4 * _MOST_MACS:
        return
    _same_conv(net, channels, 3, stride, _binary_weights)
    if net.chance(0.8):
        batch_norm(net)
    main, net.x = net.x, shortcut
    if stride > 1 and (channels == before or net.chance(0.5)):
        _stepped_shortcut(net, stride, channels - before)
    elif stride > 1:
        _same_conv(net, channels, 1, stride, _real_weights)
        batch_norm(net)
    inputs = [main, net.x]
    if net.chance(0.5):
        inputs.reverse()
    net.x = net.node("Add", inputs)
    if net.chance(0.4):
        activation(net)
    _tame(net)


def _same_conv(
    net: Net,
    channels: int,
    kernel: int,
    stride: int,
    weights: Callable[[Net, tuple[int, ...]], str],
) -> None:
    if not net.spatial:
        net.follow("MatMul", net.node("Transpose", [weights(net, (channels, net.channels))]))
        return
    axes = len(net.spatial)
    filters = weights(net, (channels, net.channels, *[kernel] * axes))
    pads = [kernel // 2] * (2 * axes)
    net.follow("Conv", filters, strides=[stride] * axes, pads=pads)


def _stepped_shortcut(net: Net, stride: int, added: int) -> None:
    """x[:, :, ::stride, ::stride], and channels of zeros on both sides (ResNet's option A)."""
    axes = list(range(2, len(net.shape)))
    starts, ends = [0] * len(axes), [2**31] * len(axes)
    rows = (starts, ends, axes, [stride] * len(axes))
    net.follow("Slice", *(net.constant(row, np.int64) for row in rows))
    if added:
        left = net.between(0, added)
        none = [0] * len(axes)
        pads = [0, left, *none, 0, added - left, *none]
        net.follow("Pad", net.constant(pads, np.int64), net.constant(0.0))


def kappa(net: Net) -> None:
    """XNOR-Net's convolution: signs and alpha * sign(W), times the box-filtered mean of |x|."""
    if not net.spatial:
        dense(net)
        return
    if net.chance(0.7):
        batch_norm(net)
    window = Window(net)
    taps = prod(window.kernel) * net.channels * prod(net.spatial)
    channels = max(1, min(net.width(), _MOST_MACS // taps))
    mean = _mean(net, net.node("Abs", [net.x]), [1])
    box = np.full((1, 1, *window.kernel), 1 / prod(window.kernel), np.float32)
    scale = net.node("Conv", [mean, net.constant(box)], **window.attributes())
    sign(net)
    filters = _binary_weights(net, (channels, net.channels, *window.kernel))
    net.follow("Conv", filters, **window.attributes())
    net.follow("Mul", scale)
    _tame(net)


def concat(net: Net) -> None:
    """Two branches from one tensor, side by side."""
    source = net.x
    branches = []
    for _ in range(net.between(2, 3) if net.channels <= 48 else 1):
        net.x = source
        net.pick((sign, activation, affine, _untouched))(net)
        branches.append(net.x)
    axis = 1 if net.chance(0.8) else net.between(1, len(net.shape) - 1)
    net.x = net.node("Concat", branches, axis=axis)


def _untouched(net: Net) -> None:
    """A branch that is the tensor itself."""


def gate(net: Net) -> None:
    """Squeeze-and-excite: each channel times a function of its mean."""
    if not net.spatial:
        return
    source, channels = net.x, net.channels
    net.follow("GlobalAveragePool")
    flatten(net)
    net.follow("Gemm", _real_weights(net, (channels, channels)), transB=1)
    net.follow(net.pick(("Sigmoid", "HardSigmoid")))
    shape = net.constant([1, channels, *[1] * (len(net.values[source].shape) - 2)], np.int64)
    scale = net.node("Reshape", [net.x, shape])
    net.x = net.node("Mul", [source, scale])


# --- Shapes ---------------------------------------------------------------------------------------


def flatten(net: Net) -> None:
    """All of a sample in one row, as exporters spell it."""
    if not net.spatial:
        return
    form = net.pick(("Flatten", "Flatten", "Reshape", "numbers"))
    if form == "Flatten":
        net.follow("Flatten", axis=1)
    else:
        size = -1 if form == "Reshape" else prod(net.shape)
        net.follow("Reshape", net.constant([1, size], np.int64))


def crop(net: Net) -> None:
    """A Slice of any axis but the batch."""
    axis = net.between(1, len(net.shape) - 1)
    length = net.shape[axis]
    start = net.between(0, length - 1)
    end = net.between(start + 1, length)
    if net.chance(0.3):
        start -= length
    end = end if start >= 0 or end < length else 2**62
    rows = ([start], [end], [axis], [net.pick((1, 1, 2, 3))])
    net.follow("Slice", *(net.constant(row, np.int64) for row in rows))


def border(net: Net) -> None:
    """A Pad of a constant around the spatial axes."""
    if net.spatial:
        axes = len(net.spatial)
        pads = [0, 0, *(net.between(0, 2) for _ in range(axes))]
        pads += [0, 0, *(net.between(0, 2) for _ in range(axes))]
        value = net.constant(net.pick((0.0, 1.0, -1.0, 0.5)))
        net.follow("Pad", net.constant(pads, np.int64), value, mode="constant")


def transpose(net: Net) -> None:
    """Channels last, something there, and back; or axes that trade places."""
    rank = len(net.shape)
    if rank < 3:
        return
    last = [0, *range(2, rank), 1]
    if net.chance(0.6):
        net.follow("Transpose", perm=last)
        net.follow(net.pick(("Relu", "Sign", "Neg", "Abs")))
        net.follow("Transpose", perm=[0, rank - 1, *range(1, rank - 1)])
    else:
        net.follow("Transpose", perm=[0, *map(int, net.random.permutation(range(1, rank)))])


def reshape(net: Net) -> None:
    """The same values as channels and a row, or an axis added or removed."""
    size = prod(net.shape)
    if len(net.shape) == 3 and net.chance(0.5):
        net.follow("Unsqueeze", net.constant([net.pick((2, 3, -1))], np.int64))
        return
    if len(net.shape) > 2 and 1 in net.shape[2:] and net.chance(0.5):
        axis = 2 + net.shape[2:].index(1)
        net.follow("Squeeze", net.constant([axis], np.int64))
        return
    divisors = [d for d in range(1, min(size, 70) + 1) if size % d == 0]
    channels = net.pick(divisors)
    net.follow("Reshape", net.constant([1, channels, -1], np.int64))


def noise(net: Net) -> None:
    """What exporters leave: Identity and Dropout in eval mode."""
    net.follow(net.pick(("Identity", "Dropout")))


# --- Tails ----------------------------------------------------------------------------------------


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
    net.x = net.node("TopK", [net.x, count], outputs=2, axis=net.pick((1, -1)))


def nothing(net: Net) -> None:
    """No tail: the last block's own result."""


BLOCKS: dict[str, Callable[[Net], None]] = {
    block.__name__: block
    for block in (
        sign,
        batch_norm,
        binary_dense,
        dense,
        affine,
        activation,
        scaled_sign,
        shifted_sign,
        quantise,
        noise,
        binary_conv,
        conv,
        depthwise,
        pointwise,
        max_pool,
        average_pool,
        global_pool,
        pool_sign,
        residual,
        kappa,
        concat,
        gate,
        squash,
        flatten,
        crop,
        border,
        transpose,
        reshape,
    )
}
TAILS: dict[str, Callable[[Net], None]] = {
    tail.__name__: tail for tail in (nothing, classifier, probabilities, decision, ranking)
}
