"""The whole state of a training in one file, so that an interruption loses an epoch at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bnncc.nn.training.history import EpochFigures, History

__all__ = ["TrainingState", "load_checkpoint", "save_checkpoint"]


@dataclass(eq=False)
class TrainingState:
    """A training between two epochs.

    There is no state of random generators in it: each epoch seeds them from the plan's seed and
    its own number.

    Attributes:
        model: with the parameters as they are now.
        optimizer: of these parameters.
        schedule: of the optimiser.
        epochs: the figures of those done.
        best: the model's state_dict after the best of them, copied.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    epochs: list[EpochFigures] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def history(self) -> History:
        """The epochs done."""
        return History(tuple(self.epochs))

    def finish(self, figures: EpochFigures) -> None:
        """Step the schedule, note an epoch's figures, and keep the model if it is the best."""
        self.schedule.step()
        self.epochs.append(figures)
        if self.history.best is figures:
            state = self.model.state_dict()
            self.best = {name: value.detach().clone() for name, value in state.items()}


def save_checkpoint(path: Path, state: TrainingState, plan: Mapping[str, int]) -> None:
    """Write the file anew, at once: whoever reads it sees the old one or the new one, whole.

    Args:
        path: the file; its folder is created.
        state: what to write.
        plan: numbers that must be the same where training goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "epochs": [asdict(figures) for figures in state.epochs],
        "best": state.best,
        "plan": dict(plan),
    }
    torch.save(content, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: Path, state: TrainingState, plan: Mapping[str, int]) -> None:
    """Put `state` into the one that a file holds.

    Args:
        path: what `save_checkpoint` wrote.
        state: of the same model, optimiser and schedule; changed in place.
        plan: numbers that must be those of the file.

    Raises:
        ValueError: if they are not, or the file is of another model.
    """
    # weights_only: tensors, numbers and strings; no code of the file's is run.
    content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    for name, value in plan.items():
        if content["plan"][name] != value:
            raise ValueError(
                f"{path} was written with {name} = {content['plan'][name]}, not {value}: "
                "resume with the same, or start anew without --resume"
            )
    try:
        state.model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} is of another model: {error}") from error
    state.optimizer.load_state_dict(content["optimizer"])
    state.schedule.load_state_dict(content["schedule"])
    state.epochs = [EpochFigures(**figures) for figures in content["epochs"]]
    state.best = content["best"]
