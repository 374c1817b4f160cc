"""What the epochs of a training came to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EpochFigures", "History"]


@dataclass(frozen=True)
class EpochFigures:
    """What an epoch came to.

    Attributes:
        epoch: its number, from 1.
        loss: mean over its minibatches.
        accuracy: share of the validation images put in their class, after it.
        learning_rate: of the last parameter group, during it.
        flips: by binary layer, the share of its weights whose sign it changed.
        seconds: it took, the validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    flips: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of one training, in order, at least one."""

    epochs: tuple[EpochFigures, ...]

    @property
    def best(self) -> EpochFigures:
        """The first of the epochs with the highest accuracy on the validation images."""
        return max(self.epochs, key=lambda figures: figures.accuracy)
