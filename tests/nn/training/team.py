"""What each of two processes does in test_parallel.py: train, and write down where it ended."""

import sys
from pathlib import Path

import torch
from torch import nn

from bnncc.nn import BinaryActivation, BinaryLinear
from bnncc.nn.training import Plan, count_correct, fit, linear_decay, processes, synthetic

IMAGES = synthetic((1, 8, 8), classes=5, train=96, test=30)


def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=5.0, momentum=0.9)


def plan():
    """Return the plan; its rate is so high that latent weights meet the clip."""
    return Plan(2, 16, optimizer, linear_decay)


def network(norms=True):
    torch.manual_seed(0)
    layers = [
        nn.Flatten(),
        BinaryLinear(64, 16),
        nn.BatchNorm1d(16) if norms else nn.Hardtanh(-8, 8),
        BinaryActivation(),
        BinaryLinear(16, 5, bias=True),
    ]
    return nn.Sequential(*layers)


def main(folder):
    torch.set_num_threads(1)
    with processes("cpu") as team:
        assert team.world == 2
        for name, norms in (("norms", True), ("plain", False)):
            model = network(norms)
            history = fit(model, IMAGES, plan(), team, checkpoint=folder / f"{name}.checkpoint")
            result = {
                "state": model.state_dict(),
                "losses": [figures.loss for figures in history.epochs],
                "accuracies": [figures.accuracy for figures in history.epochs],
                "correct": count_correct(model, IMAGES.test, team),
            }
            torch.save(result, folder / f"{name}{team.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
