"""Training by epochs: gradients, clipping, the choice of an epoch by validation, and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bnncc.nn.diagnostics import flip_rate, snapshot_signs
from bnncc.nn.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bnncc.nn.training.data import Images, Splits
from bnncc.nn.training.history import EpochFigures, History
from bnncc.nn.training.objective import square_hinge
from bnncc.nn.training.parallel import Processes
from bnncc.nn.weights import clip_weights_

__all__ = [
    "Plan",
    "count_correct",
    "fit",
    "recalibrate_statistics",
    "seed_everything",
    "train_epoch",
]

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[Batches, int], Batches]
"""Given minibatches and how many there are, returns them unchanged, showing how far it got."""


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        epochs: how many there are; the schedule depends on it.
        batch_size: of a minibatch, over all processes together.
        optimizer: makes the optimiser of a model's parameters.
        schedule: makes the schedule, stepped after each epoch, from the optimiser and the epochs.
        loss: of logits [N, classes] and labels [N], a mean over the minibatch.
        seed: of everything random but the initial weights, which are the model's own.
        recalibrate: whether to take BatchNorm's statistics anew before each validation, which
            weights that are random while training need.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int], LRScheduler]
    loss: Loss = square_hinge
    seed: int = 0
    recalibrate: bool = False


def seed_everything(*numbers: int) -> torch.Generator:
    """Seed torch's global generators, and return another one with the same seed.

    The numbers, such as a seed and an epoch, are hashed: neighbours give unrelated streams.
    """
    # With their count, since a SeedSequence takes (1,) and (1, 0) for the same.
    sequence = np.random.SeedSequence((len(numbers), *numbers))
    seed = int(sequence.generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def train_epoch(model: nn.Module, batches: Batches, loss: Loss, optimizer: Optimizer) -> float:
    """Take one step a minibatch, clip the latent weights after each, and return the mean loss.

    Args:
        model: on the device of the minibatches; left in training mode.
        batches: inputs and labels, at least one minibatch.
        loss: of logits and labels.
        optimizer: of the model's parameters.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", algorithm 1.
    """
    model.train()
    losses: list[Tensor] = []
    for images, labels in batches:
        optimizer.zero_grad()
        value = loss(model(images), labels)
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        clip_weights_(model)
        losses.append(value.detach())  # .item() here would make a GPU wait at every step
    return torch.stack(losses).mean().item()


def count_correct(model: nn.Module, images: Images, team: Processes) -> int:
    """Return how many of all images the model, put in eval mode, puts in their class.

    Of equal logits the first wins. Every process counts its share and gets the total.
    """
    model.eval()
    correct = 0
    with torch.no_grad():
        for batch, labels in images.in_order(rank=team.rank, world=team.world):
            correct += int((model(batch).argmax(1) == labels).sum())
    return int(team.total(correct)[0])


def recalibrate_statistics(model: nn.Module, batches: Batches) -> None:
    """Replace BatchNorm's running statistics by the averages over `batches`, in place.

    Everything but BatchNorm runs as in eval mode, so that the statistics are those of the
    deterministic weights. The model is left in eval mode.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all minibatches since the reset
        norm.train()
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def fit(
    model: nn.Module,
    images: Splits,
    plan: Plan,
    team: Processes,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop_after: int = 0,
    watch: Watch = lambda batches, _: batches,
    on_epoch: Callable[[EpochFigures], None] = lambda _: None,
) -> History:
    """Train `model` and leave it as it was after its best epoch on the validation images.

    Everything random in an epoch follows from the plan's seed, the epoch and the process's rank,
    so that a resumed training gives the bits of one that was never interrupted, on the same
    machine with as many threads and processes.

    Args:
        model: on `team.device`, trained in place; left in eval mode.
        images: to learn from, and to choose the epoch by; the test images are not looked at.
        plan: how.
        team: this process and its fellows.
        checkpoint: a file to write after every epoch.
        resume: whether to go on from `checkpoint`, if it exists.
        stop_after: stop when this epoch is done, to resume another time; 0 for the last one.
        watch: shows progress within an epoch.
        on_epoch: called after each epoch, in every process.

    Raises:
        ValueError: if the checkpoint is of another plan or another model, or there is no epoch.
    """
    if plan.epochs < 1:
        raise ValueError(f"a training has at least 1 epoch, not {plan.epochs}")
    optimizer = plan.optimizer(model)
    state = TrainingState(model, optimizer, plan.schedule(optimizer, plan.epochs))
    # What the schedule and the minibatches depend on: with others there is nothing to go on from.
    identity = {"epochs": plan.epochs, "batch_size": plan.batch_size, "seed": plan.seed}
    if checkpoint is not None and resume and checkpoint.exists():
        load_checkpoint(checkpoint, state, identity)
    stepping = team.wrap(model)
    for epoch in range(len(state.epochs) + 1, min(stop_after or plan.epochs, plan.epochs) + 1):
        start = time.perf_counter()
        rate = optimizer.param_groups[-1]["lr"]
        signs = snapshot_signs(model)
        loss = _learn(
            epoch, stepping, optimizer, train=images.train, plan=plan, team=team, watch=watch
        )
        flips = flip_rate(signs, snapshot_signs(model))
        correct = count_correct(model, images.validation, team)
        accuracy = correct / len(images.validation)
        seconds = time.perf_counter() - start
        state.finish(EpochFigures(epoch, loss, accuracy, rate, flips, seconds))
        if checkpoint is not None and team.leads:
            save_checkpoint(checkpoint, state, identity)
        on_epoch(state.epochs[-1])
    model.load_state_dict(state.best)
    model.eval()
    return state.history


def _learn(
    epoch: int,
    stepping: nn.Module,
    optimizer: Optimizer,
    *,
    train: Images,
    plan: Plan,
    team: Processes,
    watch: Watch,
) -> float:
    """Take an epoch's steps, bring BatchNorm's statistics together, and return the mean loss."""

    def minibatches() -> Batches:
        order = seed_everything(plan.seed, epoch)
        seed_everything(plan.seed, epoch, team.rank + 1)  # dropout differs between processes
        return train.batches(plan.batch_size, order, team.rank, team.world)

    shown = watch(minibatches(), len(train) // plan.batch_size)
    loss = train_epoch(stepping, shown, plan.loss, optimizer)
    if plan.recalibrate:
        recalibrate_statistics(stepping, minibatches())
    team.average_statistics(stepping)
    return team.total(loss)[0] / team.world
