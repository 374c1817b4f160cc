"""Graphs of stage BINARY on images, for the tests of the kernels and of the C that they become."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnncc.ir.graph import Graph
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, Conv
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from bnncc.ir.types import Array, Element
from bnncc.ir.window import POINT, Axis, Window
from tests.ir.sketch import F, Sketch

PAD = Axis(3, 1, 1, 1, 1)
SAME = Window((PAD, PAD))
HALVED = Window((Axis(3, 2, 1, 1, 1), Axis(3, 2, 1, 1, 0)))


def bits_of(
    s: Sketch, x: str, to: str, element: Element = Element.BIPOLAR, channels: int = 1
) -> str:
    """Append a Step on a real tensor, its thresholds different from channel to channel."""
    signed = {Element.BIPOLAR: [-1, 1], Element.TERNARY: [-1, 0, 1]}
    levels = signed.get(element, range(element.largest_code + 1))
    shape = (channels, len(levels) - 1)
    thresholds = np.sort(np.random.default_rng(5).standard_normal(shape) * 2, axis=1)
    rows = [list(levels)] * channels
    return s(ew.Step(element), x, thresholds, rows, to=to, origin=[f"sign {to}"])


def binary(
    s: Sketch,
    x: str,
    channels: int,
    window: Window,
    to: str,
    *,
    groups: int = 1,
    pad: int = 0,
    zeros: str = "no",
) -> str:
    """Append a BinaryConv of random weights, and a scale and shift a channel where it counts.

    With "few" zeros among the weights, every third filter has one; "odd" weights and "bits" are
    sums of three planes.
    """
    random = np.random.default_rng(len(s.builder.nodes))
    depth = s.builder.types[x].shape[1] // groups
    w = random.choice(np.array([-1, 1], np.int8), (channels, depth, *window.kernel))
    if zeros == "many":
        w[random.random(w.shape) < 0.2] = 0
    elif zeros == "odd":
        w *= random.choice(np.array([1, 3, 5, 7], np.int8), w.shape)
    elif zeros == "bits":
        w = random.integers(-3, 4, w.shape).astype(np.int8)
    elif zeros == "few":
        w.reshape(channels, -1)[::3, -1] = 0
    several = {"no": Element.BIPOLAR, "odd": Element.S3, "bits": Element.S2}
    element = several.get(zeros, Element.TERNARY)
    name = s.const(w, "w", element)
    n = s(BinaryConv(window, groups, pad), x, name, to=f"{to}.n", origin=[f"the {to}"])
    if s.builder.types[n].element is Element.F32:
        return n
    rows = [random.standard_normal(channels), random.standard_normal(channels), np.zeros(channels)]
    rows[0][0] = 0
    f64 = [Element.F64] * 3
    return s(ew.Dequantize(), n, *rows, to=to, elements=f64, origin=[f"the {to}"])


def image(element: Element, shape: Sequence[int], seed: int = 0) -> Array:
    """Three samples of codes, or of reals of which many lie on thresholds near 0."""
    random = np.random.default_rng(seed)
    if element is Element.U8:
        x = random.integers(0, 256, (3, *shape[1:])).astype(np.uint8)
        x[0], x[1] = 0, 255
        return x
    x = (random.standard_normal((3, *shape[1:])) * 3).astype(F)
    x[0] = 0
    return x


CONVOLUTIONS = {
    "plain": (33, 9, 1),
    "one channel": (1, 1, 1),
    "depthwise": (6, 6, 6),
    "depthwise of two": (5, 10, 5),
    "ragged groups": (15, 33, 3),
    "groups of whole words": (128, 6, 2),
    "groups of part of a block": (64, 12, 4),
}
"""name -> channels in, channels out, groups."""

PLACES = {
    "inside": (Window((Axis(3), Axis(2))), (5, 4)),
    "padded": (SAME, (4, 5)),
    "stride": (HALVED, (5, 6)),
    "dilated": (Window((Axis(3, 1, 2, 2, 1), Axis(2, 1, 3, 0, 2))), (5, 6)),
    "1-D": (Window((Axis(5, 2, 1, 2, 1),)), (7,)),
    "point": (Window((Axis(1, 2), Axis(1, 3))), (4, 4)),
    "all": (Window((Axis(4), Axis(5))), (4, 5)),
}
"""name -> window, sizes."""

POOLS = {
    "max": MaxPool(HALVED),
    "average": AveragePool(HALVED),
    "average with padding": AveragePool(HALVED, count_include_pad=True),
    "global": ReduceMean((2, 3), keepdims=True),
    "flat": ReduceMean((2, 3), keepdims=False),
    "channels": ReduceMean((1,), keepdims=True),
    "everything": ReduceMean((1, 2, 3), keepdims=True),
    "rows, flat": ReduceMean((2,), keepdims=False),
    "channels, flat": ReduceMean((1,), keepdims=False),
    "channels and columns, flat": ReduceMean((1, 3), keepdims=False),
    "everything, flat": ReduceMean((1, 2, 3), keepdims=False),
}


def residual(seed: int = 0, *, downsampled: bool = False) -> Graph:
    """Two blocks of Bi-Real Net: the shortcut is real, what is convolved are signs."""
    s = Sketch(shape=(1, 34, 5, 6))
    random = np.random.default_rng(seed)
    last = "x"
    for i, window in enumerate((SAME, HALVED if downsampled else SAME)):
        signs_of = bits_of(s, last, f"s{i}", channels=34)
        y = binary(s, signs_of, 34, window, f"c{i}")
        gamma, beta, mean = random.uniform(-1, 1, (3, 34)).astype(F)
        y = s.batch_norm(y, (gamma, beta, mean, random.uniform(0.1, 2, 34).astype(F)))
        short = last
        if window is HALVED:
            # The last column has no full window either.
            axis = Axis(2, 2, ceil=True)
            pooled = s(AveragePool(Window((axis, Axis(2, 2)))), last, to="pooled")
            w = s.const(random.standard_normal((34, 34, 1, 1)), "short.w")
            short = s(Conv(Window((Axis(1), Axis(1)))), pooled, w, to="short")
        last = s(ew.Add(), y, short, to=f"sum{i}", origin=[f"add{i}"])
    slopes = random.standard_normal((34, 1, 1))
    return s.done(s(ew.PRelu(), last, slopes, to="y"))


def kappa() -> Graph:
    """XNOR-Net: the mean of |x| over the channels, filtered by a box, scales every pixel's sums."""
    s = Sketch(shape=(1, 33, 5, 6))
    magnitude = s(ReduceMean((1,), keepdims=True), s(ew.Abs(), "x"), to="mean")
    box = s.const(np.full((1, 1, 3, 3), 1 / 9), "box")
    kappa = s(Conv(SAME), magnitude, box, to="kappa")
    y = binary(s, bits_of(s, "x", "s", channels=33), 7, SAME, "n")
    s(ew.Mul(), y, kappa, to="y")
    bits_of(s, "y", "z", channels=7)
    return s.done("y", "z")


def moved_bits(element: Element = Element.BIPOLAR, value: int = -1) -> Graph:
    """Signs that are sliced, put together, padded and turned before they are convolved."""
    s = Sketch(shape=(1, 33, 4, 5))
    bits = bits_of(s, "x", "s", element, channels=33)
    both = s(Concat(1), bits, s(Slice((0, 1, 0, 0), (1, 4, 4, 5), (1, 1, 1, 1)), bits), to="both")
    padded = s(Pad((0, 0, 1, 1), (0, 0, 1, 0), value), both, to="padded")
    turned = s(Transpose((0, 1, 3, 2)), padded, to="turned")
    y = binary(s, turned, 5, SAME, "y")
    flat = s(Reshape((1, s.builder.types[turned].size)), turned, to="flat")
    return s.done(y, binary(s, flat, 3, POINT, "z"))
