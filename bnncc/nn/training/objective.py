"""What the papers minimise, and how their learning rates fall."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["exponential_decay", "linear_decay", "square_hinge", "step_decay"]


def square_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of max(0, 1 - t * logits)^2, t being +1 for the true class and else -1.

    Args:
        logits: real [N, classes].
        labels: integers [N].

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 3.1 (the L2-SVM output layer).
    """
    targets = 2.0 * nn.functional.one_hot(labels.long(), logits.shape[1]) - 1.0
    return (1.0 - targets * logits).clamp(min=0.0).square().mean()


def exponential_decay(optimizer: Optimizer, epochs: int, final: float) -> LambdaLR:
    """Return the schedule of BinaryConnect and BNN: the same factor after every epoch.

    Args:
        optimizer: its groups keep their ratios.
        epochs: how many there are.
        final: the last epoch's learning rate, as a share of the first one's.
    """
    return LambdaLR(optimizer, lambda epoch: final ** (epoch / max(1, epochs - 1)))


def linear_decay(optimizer: Optimizer, epochs: int) -> LambdaLR:
    """Return the schedule of Bi-Real Net's published code: down to 0 in equal steps, an epoch each.

    The last epoch still learns, at 1 / epochs of the first one's rate.
    """
    return LambdaLR(optimizer, lambda epoch: max(0.0, 1.0 - epoch / epochs))


def step_decay(optimizer: Optimizer, at: Collection[int], factor: float = 0.1) -> LambdaLR:
    """Return the schedule of the Bi-Real Net paper: multiplied by `factor` after some epochs.

    Args:
        optimizer: its groups keep their ratios.
        at: after how many epochs; the paper's 18 layers train for 20, with (10, 15).
        factor: each time.
    """
    return LambdaLR(optimizer, lambda epoch: factor ** sum(epoch >= one for one in at))
