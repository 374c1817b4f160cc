"""What tests of layers on images share: convolutions in few words, and their sums spelled out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv
from bnncc.ir.types import Array, Element
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import F, Sketch
from tests.ir.windows import output_places, windows_and_sizes, within

WINDOWS: dict[str, tuple[Window, tuple[int, ...]]] = {
    "3x3": (Window((Axis(3), Axis(3))), (5, 6)),
    "3x3 padded": (Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1))), (4, 5)),
    "1x1 stride 2": (Window((Axis(1, 2), Axis(1, 2))), (5, 4)),
    "asymmetric": (Window((Axis(2, 2, 1, 0, 1), Axis(3, 2, 1, 2, 0))), (5, 5)),
    "dilated 1-D": (Window((Axis(3, 1, 2, 2, 2),)), (7,)),
    "larger than its input": (Window((Axis(5, 1, 1, 2, 2), Axis(5, 1, 1, 2, 2))), (2, 3)),
}
"""name -> (window, spatial sizes)"""


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Window, int, tuple[int, ...], tuple[int, ...]]:
    """Draw a window of any rank, groups, and the shapes of x and of the weights."""
    window, sizes = draw(windows_and_sizes())
    groups, depth, count = draw(st.tuples(*[st.integers(1, 3)] * 3))
    shape = (1, groups * depth, *sizes)
    return window, groups, shape, (groups * count, depth, *window.kernel)


def seen(x: Array, window: Window, pad: float = 0) -> Array:
    """Return what each output's taps hold, [N, C, taps, *outputs]; outside of the input `pad`."""
    sizes = x.shape[2:]
    found = np.full((*x.shape[:2], window.taps, *window.outputs(sizes)), pad, np.float64)
    for output, taps in output_places(window, sizes):
        for k, place in enumerate(taps):
            if within(place, sizes):
                found[(..., k, *output)] = x[(..., *place)]
    return found


def summed(x: Array, weights: Array, window: Window, groups: int, pad: float = 0) -> Array:
    """Return the convolution in double, exact for integers and small multiples of powers of 2."""
    taps = seen(x, window, pad)
    depth, per_group = weights.shape[1], len(weights) // groups
    rows = weights.reshape(len(weights), depth, -1).astype(np.float64)
    results = []
    for o, row in enumerate(rows):
        first = o // per_group * depth
        part = taps[:, first : first + depth]
        results.append(np.einsum("nck...,ck->n...", part, row))
    return np.stack(results, axis=1)


def bits_in(sketch: Sketch, levels: Sequence[float] = (-1, 1), to: str = "s") -> str:
    """Append a Step on x with these levels, thresholds from 0 in halves."""
    thresholds = [[0.5 * i for i in range(len(levels) - 1)]]
    return sketch(ew.Step(Element.F32), "x", thresholds, [levels], to=to, origin=["act"])


def conv(
    sketch: Sketch,
    x: str,
    weights: object,
    window: Window,
    groups: int = 1,
    *,
    bias: object = None,
    to: str = "y",
) -> str:
    """Append a convolution, and a bias of the same source node."""
    w = np.asarray(weights, F)
    last = to if bias is None else f"{to}.conv"
    sketch(Conv(window, groups), x, sketch.const(w, "w"), to=last, origin=[f"the {to}"])
    if bias is None:
        return last
    b = np.asarray(bias, F).reshape(-1, *(1,) * len(window.axes))
    return sketch(ew.Add(), last, sketch.const(b, "b"), to=to, origin=[f"the {to}"])


def signs(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.choice(np.array([-1, 1], F), tuple(shape))


def scaled(alpha: Array, weights: Array) -> Array:
    """Return weights with their channels times alpha, repeated as often as needed."""
    factors = np.resize(alpha.astype(F), len(weights))
    return weights * factors.reshape(-1, *(1,) * (weights.ndim - 1))


def images(random: np.random.Generator, shape: Sequence[int], count: int = 6) -> Array:
    """Return reals [count, ...]: all below 0, all above, one-hot, on and just below 0, random."""
    x = random.standard_normal((count, *shape[1:])).astype(F)
    x[0], x[1], x[2] = -1, 1, -1
    x[2].flat[x[2].size // 2] = 1
    x[3] = np.where(x[3] < 0, -np.finfo(F).smallest_subnormal, F(0))
    return x
