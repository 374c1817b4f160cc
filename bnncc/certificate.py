"""The certificate: what was proven of each folded layer, in a form that a checker can read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnncc.errors import printable
from bnncc.ir.types import Array

__all__ = [
    "Assumption",
    "Bounded",
    "Certificate",
    "Domain",
    "InsertedSign",
    "LayerCertificate",
    "SignOfZero",
    "Undecided",
]


@dataclass(frozen=True)
class SignOfZero:
    """An assumption: the sign that `tensor` holds is taken as `value`, -1 or +1, where it is 0.

    Attributes:
        tensor: what the model calls it.
        value: -1 or +1.
        undefined: whether the model's own value there is not 0 but no number, as of x / |x|.
        levels: what the tensor holds below 0, at 0 and above, as far as that is not -1, 0 and +1
            but a multiple of the sign, or one that is shifted.
    """

    tensor: str
    value: int
    undefined: bool = False
    levels: tuple[float, float, float] = (-1.0, 0.0, 1.0)

    def __str__(self) -> str:
        instead = "though the model's is no number" if self.undefined else "not 0"
        return f"{printable(self.tensor)}: sign(0) is taken as {self.value:+d}, {instead}"


@dataclass(frozen=True)
class Bounded:
    """An assumption: no value of `tensor` reaches +-`limit`, from where on `result` is another."""

    tensor: str
    limit: float
    result: str

    def __str__(self) -> str:
        return (
            f"{printable(self.tensor)}: values stay below {self.limit:g} in magnitude, from where "
            f"on {printable(self.result)} is made of roundings"
        )


Assumption = SignOfZero | Bounded
"""What a compiled model takes for granted beyond the model it was made of."""


@dataclass(frozen=True)
class InsertedSign:
    """An edit: a Sign that the model file does not have, put on `tensor` where `layer` reads it."""

    layer: str
    tensor: str

    def __str__(self) -> str:
        return (
            f"{printable(self.layer)}: a Sign was inserted on its input, {printable(self.tensor)}, "
            "which the model file does not have"
        )


@dataclass(frozen=True)
class Domain:
    """The values of a layer's accumulator, and how thresholds over them were found.

    Attributes:
        kind: "enumerated" (the chain was run on every value) or "bisected" (the chain is monotone
            in every channel, so that each threshold follows from its two neighbours).
        element: "i32" or "f32".
        low, high, stride: the integers, or the finite float32 range with stride 0.
        size: how many values there are, per channel.
    """

    kind: str
    element: str
    low: float
    high: float
    stride: int
    size: int


@dataclass(frozen=True)
class Undecided:
    """Accumulators low..high of one channel that another float32 order could decide otherwise."""

    channel: int
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LayerCertificate:
    """What was proven of one Step.

    Attributes:
        layer: the Step's result, the tensor that verify compares.
        root: the accumulator's tensor.
        origin: the source model's nodes.
        chain: the folded computation, as text.
        domain: the accumulator's values.
        values_checked: how many (channel, value) pairs the chain was evaluated on.
        thresholds: the channel's levels change where the accumulator reaches these, [C, T];
            unused places hold a value above the domain (null in JSON where that is infinite).
        levels: [C, T + 1].
        smallest_distance: between the chain's value and a decision, over all neighbours of one;
            None where there is no decision.
        constant_channels: channels whose level never changes.
        falling_channels: channels whose level falls as the accumulator rises.
        zero_reachable: channels in which sign(0) occurs.
        undecided: see `Undecided`.
    """

    layer: str
    root: str
    origin: tuple[str, ...]
    chain: str
    domain: Domain
    values_checked: int
    thresholds: Array
    levels: Array
    smallest_distance: float | None
    constant_channels: tuple[int, ...]
    falling_channels: tuple[int, ...]
    zero_reachable: tuple[int, ...]
    undecided: tuple[Undecided, ...]

    def is_undecided(self, channel: Array, low: Array, high: Array) -> Array:
        """Return which of the accumulator ranges low..high of the given channels are undecided.

        A range is, if a threshold lies in it, or an accumulator that rounding alone leaves open.
        """
        thresholds = self.thresholds[np.minimum(channel, len(self.thresholds) - 1)]
        first, last = (np.broadcast_to(end, channel.shape)[:, np.newaxis] for end in (low, high))
        hit = np.asarray(((first < thresholds) & (thresholds <= last)).any(axis=1))
        for entry in self.undecided:
            hit |= (channel == entry.channel) & (low <= entry.high) & (high >= entry.low)
        return hit


@dataclass(frozen=True)
class Certificate:
    """All layers of a model, with what the proof rests on.

    Attributes:
        model_sha256: of the model file, before any edit.
        bnncc_version: what made the certificate.
        assumptions: see `Assumption`.
        layers: what was proven of each Step.
        edits: what the user had changed in the model: with any, nothing here is a proof about the
            file, but about the file so edited.
    """

    model_sha256: str
    bnncc_version: str
    assumptions: tuple[Assumption, ...]
    layers: tuple[LayerCertificate, ...]
    edits: tuple[InsertedSign, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings; floats round-trip exactly."""
        of = ", of the model file with the edits" if self.edits else ""
        return {
            "format": "bnncc certificate 1",
            "model_sha256": self.model_sha256,
            "bnncc_version": self.bnncc_version,
            "reference": "ONNX Runtime float32, optimisations off, operation by operation, no fma"
            + of,
            "edits": [asdict(edit) | {"what": str(edit)} for edit in self.edits],
            "assumptions": [str(assumption) for assumption in self.assumptions],
            "layers": [_layer_json(layer) for layer in self.layers],
        }


def _layer_json(layer: LayerCertificate) -> dict[str, Any]:
    plain = {k: v for k, v in vars(layer).items() if k not in ("thresholds", "levels")}
    return plain | {
        "domain": asdict(layer.domain),
        "undecided": [asdict(entry) for entry in layer.undecided],
        "thresholds": [
            [t if np.isfinite(t) else None for t in row] for row in layer.thresholds.tolist()
        ],
        "levels": layer.levels.tolist(),
    }
