"""Train BinaryConnect's networks, deterministic and stochastic, and make C of both.

    python examples/binary_connect.py --data mnist                        # the MLP, on MNIST
    python examples/binary_connect.py --network vgg --data cifar10.npz    # the convolutional net
    python examples/binary_connect.py --quick                             # a minute, to see it work

Source: Courbariaux et al. 2015, "BinaryConnect": weights +-1 in the forward and the backward pass,
updates on latent reals clipped to [-1, 1], square hinge loss, exponentially decaying rates,
BatchNorm, no dropout, and the choice of the epoch by the last part of the training set. Adam as in
the code published with the paper, where its text has SGD. On CIFAR-10 the paper whitens its images
and takes 45 000; here they are scaled to [-1, 1), mirrored and shifted, and may be a small part.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnncc.nn import Estimator, float_twin, parameter_groups, ste, stochastic
from bnncc.nn.models import binary_connect_mlp, binary_connect_vgg
from bnncc.nn.training import (
    ImageSet,
    Outcome,
    Plan,
    Recipe,
    Splits,
    exponential_decay,
    flip_and_shift,
    load_cifar,
    load_mnist,
    option_parser,
    parse_options,
    run,
)

DATA = {
    "mlp": Path("../shared/data/mnist"),
    "vgg": Path("../shared/data/cifar10_jpeg_subset/cifar10_jpeg_subset.npz"),
}
QUICK = {"hidden": 256, "width": 8, "epochs": 10, "images": 6_000}


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Run the script and return what came out."""
    parser = option_parser(
        "Train BinaryConnect's networks and compile them.",
        out=Path("out/binary_connect"),
        epochs=20,
        batch_size=100,
        learning_rate=1e-3,
    )
    parser.add_argument("--network", choices=("mlp", "vgg"), default="mlp")
    parser.add_argument("--hidden", type=int, default=1024, help="width of the MLP")
    parser.add_argument("--width", type=int, default=32, help="channels of the VGG's first layer")
    args = parse_options(parser, argv, QUICK)

    binary = binary_plan(args)
    recipes = [
        Recipe("float_twin", lambda: float_twin(network(args, ste)()), plan(args), compiled=False),
        Recipe("deterministic", network(args, ste), binary),
        # While it trains, BatchNorm sees weights that are drawn anew at each step.
        Recipe("stochastic", network(args, stochastic), replace(binary, recalibrate=True)),
    ]
    return run(f"BinaryConnect, {args.network}", recipes, images(args), args)


def network(args: argparse.Namespace, estimator: Estimator) -> Callable[[], nn.Module]:
    """Return what makes the network that was asked for."""
    if args.network == "mlp":
        return partial(binary_connect_mlp, args.hidden, estimator=estimator)
    return partial(binary_connect_vgg, args.width, estimator=estimator)


def plan(args: argparse.Namespace) -> Plan:
    """Return how the float twin is trained."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), args.learning_rate, fused=True)

    return Plan(args.epochs, args.batch_size, optimizer, partial(exponential_decay, final=1e-2))


def binary_plan(args: argparse.Namespace) -> Plan:
    """Return how the binary networks are trained: faster, and with Glorot-scaled rates.

    Latent weights have the way to -1 or +1 to go, and where they are drawn at random, their signs
    are what was trained only once they have gone it.
    """

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, 10 * args.learning_rate, glorot=True)
        return torch.optim.Adam(groups, fused=True)

    return replace(plan(args), optimizer=optimizer)


def images(args: argparse.Namespace) -> Splits:
    """Return MNIST, or CIFAR-10 with augmentation."""
    data = args.data or DATA[args.network]
    if args.network == "mlp":
        return load_mnist(data, flat=True)
    splits = load_cifar(data)
    assert isinstance(splits.train, ImageSet)
    return replace(splits, train=replace(splits.train, augment=flip_and_shift))


if __name__ == "__main__":
    main()
