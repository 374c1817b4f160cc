"""What a network does not gain from its bits, said before anybody wonders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bnncc.report.layers import Arithmetic, LayerReport

__all__ = ["Caution", "cautions"]

_MOST_IN_FLOAT = 1 / 4
"""Share of the MACs in float above which a network gains little.

With it, Amdahl's law leaves at most a factor of 4 over float however fast bits are: what 8-bit
integers give in vector registers, without training for bits.
"""

_FEWEST_MACS_PER_WORD = 4
"""MACs a word below which bits gain nothing over float.

Three operations (xor, popcount, add) take a word's m MACs, two (multiply, add) take one float's. A
vector register holds half as many 64-bit words as floats: at m = 3 both are equally fast.
"""

_FEW_LEVELS = 4
_LONG_ROW = 16
"""Rows of at least so many weights with at most so many values were quantised by somebody."""

_NAMED = 3
"""Layers that a text names; the data names all."""


@dataclass(frozen=True)
class Caution:
    """A reason for which the network gains little.

    Attributes:
        kind: "plain float", "few levels", "real work", "real input" or "few bits".
        text: for people.
        layers: the source nodes that it is about; empty for the whole network.
    """

    kind: str
    text: str
    layers: tuple[str, ...] = ()


def cautions(layers: Sequence[LayerReport], suspected: Collection[str] = ()) -> tuple[Caution, ...]:
    """Return what is to be said of a network's layers, the weightiest first.

    Args:
        layers: all of them.
        suspected: the names of those that `suspects` accuses, which says all of their inputs.
    """
    if not layers:
        return ()
    few = tuple(_few_levels(layers))
    if not few and all(layer.weights == "real" for layer in layers):
        return (_plain_float(layers),)
    meant = [layer for layer in layers[1:] if layer.name not in suspected]
    return (*few, *_real_work(layers), *_real_inputs(meant), *_few_bits(layers))


def _plain_float(layers: Sequence[LayerReport]) -> Caution:
    """Say that a model is not binary, whatever it is called; the layers are all of its own."""
    macs = sum(layer.macs for layer in layers)
    text = (
        "no layer has binary weights: this is a plain float model, whatever it is called. The C "
        f"computes it, in float32, with all of its {macs:,} MACs; it gets neither smaller "
        "nor faster. If you trained binary weights, the file holds what they are made of instead: "
        "export a model whose forward takes their sign, as in functional.linear(x, weight.sign())"
    )
    return Caution("plain float", text)


def _few_levels(layers: Sequence[LayerReport]) -> Iterator[Caution]:
    """Yield on quantised weights that are not packed; short rows may have few by chance."""
    found = [
        n for n in layers if n.weights == "real" and n.levels <= _FEW_LEVELS and n.k >= _LONG_ROW
    ]
    if not found:
        return
    most = max(layer.levels for layer in found)
    names = _listed([n.title for n in found[:_NAMED]], found)
    text = (
        f"weights of up to {most} values a channel are computed in float, since bnncc packs "
        f"only +-alpha where a layer's input is real: {names}"
    )
    yield Caution("few levels", text, tuple(layer.name for layer in found))


def _real_work(layers: Sequence[LayerReport]) -> Iterator[Caution]:
    real = [layer for layer in layers if layer.arithmetic is not Arithmetic.BITS]
    total = sum(layer.macs for layer in layers)
    share = sum(layer.macs for layer in real) / total
    if share <= _MOST_IN_FLOAT:
        return
    largest = sorted(real, key=lambda layer: -layer.macs)
    parts = [f"{n.title} ({_percent(n.macs / total)})" for n in largest[:_NAMED]]
    if share == 1:
        text = (
            "all MACs are in float, additions of +-x included: they take no less time than before"
        )
    else:
        text = (
            f"{_percent(share)} of the MACs are in float, additions of +-x included: "
            f"{_listed(parts, real)}. However fast bits are, this network gains at most a factor "
            f"of {1 / share:.1f} over float"
        )
    yield Caution("real work", text, tuple(layer.name for layer in largest))


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _real_inputs(layers: Sequence[LayerReport]) -> Iterator[Caution]:
    """Yield on layers behind the first with binary weights and real inputs that seem meant so.

    Box filters, such as the one that makes XNOR-Net's kappa, are meant to read reals.
    """
    found = [n for n in layers if n.arithmetic is Arithmetic.SIGNS and n.levels > 1]
    if not found:
        return
    text = (
        f"binary weights meet real inputs in {_listed([n.title for n in found[:_NAMED]], found)}: "
        "the weights are packed, the sums stay float additions. That is how BinaryConnect and BWN "
        "work, and nothing here speaks against it. Were the activations to be binary too, the "
        "exporter lost their sign, and --insert-sign-at LAYER puts it back"
    )
    yield Caution("real input", text, tuple(layer.name for layer in found))


def _few_bits(layers: Sequence[LayerReport]) -> Iterator[Caution]:
    found = [
        n
        for n in layers
        if n.arithmetic is Arithmetic.BITS and n.macs_per_word < _FEWEST_MACS_PER_WORD
    ]
    if not found:
        return
    parts = [f"{n.title} ({n.macs_per_word:.2g}{_growth(n)})" for n in found[:_NAMED]]
    text = (
        f"words are mostly padding: with fewer than {_FEWEST_MACS_PER_WORD} MACs in each, bits "
        f"gain no time over float: {_listed(parts, found)}"
    )
    yield Caution("few bits", text, tuple(layer.name for layer in found))


def _growth(layer: LayerReport) -> str:
    ratio = layer.packed_bytes / layer.source_bytes
    return f", weights {ratio:.0f}x as large" if ratio >= 2 else ""


def _listed(parts: Sequence[str], layers: Sequence[LayerReport]) -> str:
    more = len(layers) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")
