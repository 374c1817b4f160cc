"""Train Bi-Real-18 on ImageNet with the paper's schedule, and make C of it.

    python examples/bireal_imagenet.py --data imagenet       # imagenet/{train,val}/CLASS/*.JPEG
    torchrun --nproc-per-node 8 examples/bireal_imagenet.py --data imagenet    # a GPU a process
    python examples/bireal_imagenet.py --synthetic --epochs 1 --batch-size 16    # made-up images
    python examples/bireal_imagenet.py --quick               # the same, smaller and narrower

Needs a GPU, or many, for anything but the last two. An epoch is chosen by ten images a class that
are held out of the training set; `val` is the test set.

Source: Liu et al. 2018, "Bi-Real Net", sec. 4.1: SGD with momentum 0.9 and no weight decay, 20
epochs with minibatches of 128, the rate 0.01 and a tenth of it after the 10th and the 15th epoch,
from the weights of a real network that clips. Of that one's three steps (ReLU, leaky clip, clip)
only the last is taken, with ResNet's settings. --adam trains as the PyTorch code that the authors
published later: from scratch, Adam at 0.001 falling linearly, label smoothing 0.1; there with 256
epochs and minibatches of 512.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnncc.nn import float_twin, parameter_groups
from bnncc.nn.models import bireal18
from bnncc.nn.training import (
    ImageFolder,
    Outcome,
    Plan,
    Recipe,
    Splits,
    linear_decay,
    option_parser,
    parse_options,
    run,
    step_decay,
    synthetic,
)

QUICK = {"synthetic": True, "size": 64, "width": 16, "epochs": 20, "batch_size": 16}
CLASSES, HELD_OUT = 1000, 10
FEW = 64  # synthetic images


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Run the script and return what came out."""
    parser = option_parser(
        "Train Bi-Real-18 on ImageNet and compile it.",
        out=Path("out/bireal_imagenet"),
        epochs=20,
        batch_size=128,
    )
    parser.add_argument("--adam", action="store_true", help="train as the authors' later code does")
    parser.add_argument(
        "--synthetic",
        action=argparse.BooleanOptionalAction,
        default=False,
        help=f"{FEW} made-up images instead",
    )
    parser.add_argument("--size", type=int, default=224, help="height and width of an image")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--workers", type=int, default=8, help="processes that decode images")
    args = parse_options(parser, argv, QUICK)
    recipes = from_scratch(args) if args.adam else from_clip(args)
    return run("ImageNet, Bi-Real-18", recipes, images(args), args)


def from_clip(args: argparse.Namespace) -> list[Recipe]:
    """Return the paper's training: a real network that clips, then the binary one from its weights.

    --learning-rate is that of the binary network; the real one has ResNet's.
    """

    def resnet(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def bireal(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, args.learning_rate or 0.01, glorot=False)
        return torch.optim.SGD(groups, momentum=0.9)

    def schedule(
        optimizer: torch.optim.Optimizer, epochs: int
    ) -> torch.optim.lr_scheduler.LambdaLR:
        return step_decay(optimizer, at=(epochs // 2, epochs * 3 // 4))

    plan = partial(
        Plan, args.epochs, args.batch_size, schedule=schedule, loss=nn.functional.cross_entropy
    )
    network = partial(bireal18, classes=CLASSES, width=args.width)
    clip = partial(float_twin, activation=nn.Hardtanh)
    return [
        Recipe("clip", lambda: clip(network()), plan(optimizer=resnet), compiled=False),
        Recipe("bireal18", network, plan(optimizer=bireal), start="clip"),
    ]


def from_scratch(args: argparse.Namespace) -> list[Recipe]:
    """Return the training of the authors' later code."""

    def adam(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, args.learning_rate or 1e-3, glorot=False)
        return torch.optim.Adam(groups)

    loss = partial(nn.functional.cross_entropy, label_smoothing=0.1)
    plan = Plan(args.epochs, args.batch_size, adam, linear_decay, loss=loss)
    return [Recipe("bireal18", partial(bireal18, classes=CLASSES, width=args.width), plan)]


def images(args: argparse.Namespace) -> Splits:
    """Return ImageNet from its folders, or synthetic images."""
    if args.synthetic:
        return synthetic((3, args.size, args.size), classes=10, train=FEW, test=FEW // 4)
    if args.data is None:
        raise SystemExit("give the folder of ImageNet with --data, or --synthetic")
    learn = ImageFolder.below(args.data / "train", args.size, args.workers)
    test = ImageFolder.below(args.data / "val", args.size, args.workers)
    held_out = HELD_OUT * len({label for _, label in learn.files})
    return Splits(learn[held_out:], learn[:held_out], test)


if __name__ == "__main__":
    main()
