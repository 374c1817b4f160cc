"""Quantisers of a few levels: DoReFa, PACT, LSQ, and those of QONNX and FINN.

ONNX Runtime does not know the custom operators. Their values here follow their specification
(qonnx.custom_op.general), in numpy and on its own: not what the compiler makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bnncc.ir.types import Array
from tests.fuzz.net import Net

__all__ = [
    "bipolar_quant",
    "dorefa",
    "from_integers",
    "learned",
    "multi_bit_quant",
    "multi_threshold",
    "offset_levels",
    "pact",
    "qonnx_quant",
    "quantise",
    "ternarise",
    "trunc",
    "unit_step",
]

_DOMAINS = ("onnx.brevitas", "qonnx.custom_op.general")
_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "ROUND_TO_ZERO": np.trunc,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}


# --- In standard operators ------------------------------------------------------------------------


def dorefa(net: Net) -> None:
    """DoReFa's quantiser of k bits: of 0..1, or of -1..1, by way of 0..1 or not."""
    most = float(2 ** net.between(1, 4) - 1)
    form = net.pick(("unsigned", "unsigned", "signed", "shifted"))
    low = 0.0 if form == "unsigned" else -1.0
    net.follow("Clip", net.constant(low), net.constant(1.0))
    if form == "shifted":
        net.follow("Mul", net.constant(0.5))
        net.follow("Add", net.constant(0.5))
    net.follow("Mul", net.constant(most))
    net.follow(net.pick(("Round", "Round", "Round", "Floor", "Ceil")))
    _divide(net, most)
    _uneven(net, most)
    if form == "shifted":
        net.follow("Mul", net.constant(2.0))
        net.follow("Sub", net.constant(1.0))


def _uneven(net: Net, steps: float) -> None:
    """Note that levels are no multiples of a power of two, even where all that are taken are."""
    if steps > 1 or not net.dyadic:
        net.exact.discard(net.x)


def _divide(net: Net, divisor: float) -> None:
    if net.chance(0.5):
        net.follow("Div", net.constant(divisor))
    else:
        net.follow("Mul", net.constant(1 / divisor))


def pact(net: Net) -> None:
    """PACT's: a learned clip, spelt as a Clip or by magnitudes, then k bits."""
    alpha = net.pick((1.0, 2.0, 4.0)) if net.dyadic else float(net.random.uniform(0.5, 4))
    steps = 2 ** net.between(1, 4) - 1
    if net.chance(0.5):
        net.follow("Clip", net.constant(0.0), net.constant(alpha))
    else:  # 0.5 * (|x| - |x - alpha| + alpha)
        beyond = net.node("Abs", [net.node("Sub", [net.x, net.constant(alpha)])])
        net.x = net.node("Sub", [net.node("Abs", [net.x]), beyond])
        net.follow("Add", net.constant(alpha))
        net.follow("Mul", net.constant(0.5))
    net.follow("Mul", net.constant(np.float32(steps) / np.float32(alpha)))
    net.follow("Round")
    net.follow("Mul", net.constant(np.float32(alpha) / np.float32(steps)))
    _uneven(net, steps)


def learned(net: Net) -> None:
    """LSQ's: divided by a learned step, clipped to the integers of k bits, rounded, and back."""
    bits = net.between(2, 4)
    low, high = (0, 2**bits - 1) if net.chance(0.5) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    step = net.pick((0.125, 0.5, 1.0)) if net.dyadic else float(net.random.uniform(0.05, 0.6))
    net.follow("Div", net.constant(step))
    net.follow("Clip", net.constant(float(low)), net.constant(float(high)))
    net.follow("Round")
    net.follow("Mul", net.constant(step))


def ternarise(net: Net) -> None:
    """Three levels by two comparisons."""
    above = net.node("Greater", [net.x, net.constant(0.5)])
    below = net.node(net.pick(("Less", "LessOrEqual")), [net.x, net.constant(-0.5)])
    if net.chance(0.5):
        rest = net.node("Where", [below, net.constant(-1.0), net.constant(0.0)])
        net.x = net.node("Where", [above, net.constant(1.0), rest])
    else:
        net.x = net.node("Sub", [net.node("Cast", [mask], to=1) for mask in (above, below)])


def unit_step(net: Net) -> None:
    """0 or 1."""
    above = net.node(net.pick(("Greater", "GreaterOrEqual")), [net.x, net.constant(0.25)])
    net.x = net.node("Cast", [above], to=1)


def offset_levels(net: Net) -> None:
    """alpha * (sign((x - beta) / alpha) + beta / alpha): AdaBin's two levels, far from +-1."""
    alpha = net.pick((0.5, 1.0, 2.0)) if net.dyadic else float(net.random.uniform(0.3, 2))
    beta = net.pick((-0.5, 0.25, 1.0)) if net.dyadic else float(net.random.normal(0, 0.5))
    net.follow("Sub", net.constant(beta))
    net.follow("Div", net.constant(alpha))
    above = net.node("GreaterOrEqual", [net.x, net.constant(0.0)])
    net.x = net.node("Where", [above, net.constant(1.0), net.constant(-1.0)])
    net.follow("Mul", net.constant(alpha))
    net.follow("Add", net.constant(beta))


def from_integers(net: Net) -> None:
    """Levels picked by nested comparisons with thresholds of each channel."""
    values = net.ties()
    count = net.between(2, 4)
    thresholds = np.sort(np.quantile(values, np.linspace(0.2, 0.8, count), axis=1), axis=0)
    result = net.constant(-1.0)
    for i, row in enumerate(thresholds.astype(np.float32)):
        above = net.node("GreaterOrEqual", [net.x, net.constant(net.along(row))])
        result = net.node("Where", [above, net.constant(float(i)), result])
    net.x = result


# --- QONNX and FINN -------------------------------------------------------------------------------


def _apply(net: Net, op: str, values: Array, *operands: str, domains: Any = _DOMAINS) -> str:
    return net.foreign(op, net.pick(domains), [net.x, *operands], values.astype(np.float32))


def _scale(net: Net) -> np.float32:
    return np.float32(net.pick((0.25, 0.5, 1.0)) if net.dyadic else net.random.uniform(0.05, 1))


def bipolar_quant(net: Net) -> None:
    """BipolarQuant: +-scale."""
    scale = _scale(net)
    values = np.where(net.values[net.x] >= 0, np.float32(1), np.float32(-1)) * scale
    net.x = _apply(net, "BipolarQuant", values, net.constant(scale))


def qonnx_quant(net: Net) -> None:
    """Quant of 1 to 4 bits."""
    net.x = multi_bit_quant(net, net.x, net.between(1, 4))


def multi_bit_quant(net: Net, name: str, bits: int) -> str:
    """Append a Quant of a tensor, an activation or weights, and return its result."""
    signed, narrow = net.chance(0.5), bits > 1 and net.chance(0.3)
    zero = np.float32(net.between(0, 2) if net.chance(0.2) and bits > 1 and not signed else 0)
    mode = net.pick(("ROUND", "ROUND", "ROUND", *_ROUNDINGS))
    x, scale = net.known(name), _scale(net)
    codes = x / scale + zero
    if signed and bits == 1:
        codes = np.where(codes >= 0, np.float32(1), np.float32(-1))
    else:
        low = -(2 ** (bits - 1)) + narrow if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        codes = _ROUNDINGS[mode](np.clip(codes, np.float32(low), np.float32(high)))
    values = ((codes - zero) * scale).astype(np.float32)
    operands = [net.constant(value) for value in (scale, zero, float(bits))]
    return net.foreign(
        net.pick(("Quant", "Quant", "IntQuant")),
        net.pick(_DOMAINS),
        [name, *operands],
        values,
        signed=int(signed),
        narrow=int(narrow),
        rounding_mode=mode,
    )


def trunc(net: Net) -> None:
    """Trunc, of version 1 or 2: the low bits of what a Quant left are dropped."""
    scale = np.float32(net.pick((0.25, 0.5, 1.0)))
    before = net.between(3, 6)
    after = net.between(1, before - 1)
    bound = float(2 ** (before - 1) - 1)
    net.follow("Clip", net.constant(-bound * scale), net.constant(bound * scale))
    ratio = np.float32(2.0 ** (before - after))
    codes = np.round(net.values[net.x] / scale) / ratio
    mode = net.pick(("FLOOR", "FLOOR", "ROUND", "CEIL"))
    attributes: dict[str, Any] = {"rounding_mode": mode}
    operands = [scale, 0.0, float(before)]
    if net.chance(0.6):
        operands.append(float(after))
    else:
        scale = scale * ratio
        operands += [scale, float(after)]
        attributes |= {"signed": 1, "narrow": net.between(0, 1)}
        low = -(2 ** (after - 1)) + attributes["narrow"]
        codes = np.clip(codes, np.float32(low), np.float32(2 ** (after - 1) - 1))
    net.x = net.foreign(
        "Trunc",
        net.pick(_DOMAINS),
        [net.x, *(net.constant(value) for value in operands)],
        (_ROUNDINGS[mode](codes) * scale).astype(np.float32),
        **attributes,
    )


def multi_threshold(net: Net) -> None:
    """FINN's MultiThreshold: how many of some thresholds x reaches, scaled and shifted."""
    x = net.values[net.x]
    channels = net.channels if net.chance(0.7) else 1
    rows = net.ties().reshape(channels, -1)
    steps = net.pick((1, 2, 3, 3, 7, 15))
    # Values that channels take are ties, and infinitely high thresholds are never reached.
    taken = net.random.integers(0, rows.shape[1], (channels, steps))
    thresholds = np.sort(np.take_along_axis(rows, taken, axis=1), axis=1)
    shape = (1, channels, *[1] * (x.ndim - 2))
    counts = sum((x >= column.reshape(shape)).astype(np.float32) for column in thresholds.T)
    scale = np.float32(net.pick((1.0, 1.0, 0.5, 2.0)))
    bias = np.float32(net.pick((0.0, 0.0, -1.0, -(steps // 2) * float(scale))))
    attributes = {"out_scale": float(scale), "out_bias": float(bias), "out_dtype": "INT4"}
    if x.ndim == 4 and net.chance(0.5):
        attributes["data_layout"] = "NCHW"
    net.x = net.foreign(
        "MultiThreshold",
        net.pick(("qonnx.custom_op.general", "finn.custom_op.general")),
        [net.x, net.constant(thresholds)],
        np.asarray(scale * counts + bias, np.float32),
        **attributes,
    )


QUANTISERS = (
    *(dorefa, dorefa, pact, learned, ternarise, unit_step, offset_levels, from_integers),
    *(bipolar_quant, qonnx_quant, qonnx_quant, trunc, multi_threshold),
)


def quantise(net: Net) -> None:
    """A few levels, by any of the quantisers."""
    net.pick(QUANTISERS)(net)
