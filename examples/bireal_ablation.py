"""Train a small Bi-Real Net on CIFAR-10, leave out one of its ideas at a time, and plot the errors.

    python examples/bireal_ablation.py --data cifar10.npz
    python examples/bireal_ablation.py --quick            # a minute, to see it work

The ideas: real shortcuts, ApproxSign, the magnitude-aware gradient, and initial weights from a real
network that clips. Writes ablation.png beside what every script writes.

Source: Liu et al. 2018, "Bi-Real Net", sec. 3 and the ablation of sec. 4.2, there on ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnncc.nn import approx_sign, float_twin, magnitude_aware, parameter_groups, ste
from bnncc.nn.models import bireal_cifar
from bnncc.nn.training import (
    ImageSet,
    Outcome,
    Plan,
    Recipe,
    flip_and_shift,
    linear_decay,
    load_cifar,
    option_parser,
    parse_options,
    plot_bars,
    run,
)

QUICK = {"depth": 5, "width": 8, "epochs": 2, "images": 1_000}


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Run the script and return what came out."""
    parser = option_parser(
        "Train a Bi-Real Net for CIFAR-10 without each of its ideas.",
        data=Path("../shared/data/cifar10_jpeg_subset/cifar10_jpeg_subset.npz"),
        out=Path("out/bireal_ablation"),
        epochs=30,
        batch_size=100,
        learning_rate=2e-3,
    )
    parser.add_argument("--depth", type=int, default=11, help="3 b + 2 for b blocks a stage")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    args = parse_options(parser, argv, QUICK)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameter_groups(model, args.learning_rate, glorot=False))

    plan = Plan(
        args.epochs, args.batch_size, optimizer, linear_decay, loss=nn.functional.cross_entropy
    )
    splits = load_cifar(args.data)
    assert isinstance(splits.train, ImageSet)
    splits = replace(splits, train=replace(splits.train, augment=flip_and_shift))
    network = partial(bireal_cifar, args.depth, width=args.width)
    outcomes = run("Bi-Real Net, one idea less at a time", ablation(network, plan), splits, args)
    if outcomes:
        errors: dict[str, list[float]] = {}
        for one in outcomes:
            errors.setdefault(one.name, []).append(100 * (1 - one.rows[-1].accuracy))
        means = {name: sum(values) / len(values) for name, values in errors.items()}
        plot_bars(means, "test error, %", args.out / "ablation.png")
    return outcomes


def ablation(network: Callable[..., nn.Module], plan: Plan) -> list[Recipe]:
    """Return real networks to start from, then binary ones: with all ideas, with one less, bare."""

    def recipe(name: str, start: str = "clip", **without: object) -> Recipe:
        ideas = {
            "shortcut": True,
            "estimator": approx_sign,
            "weight_estimator": magnitude_aware,
        }
        return Recipe(name, partial(network, **ideas | without), plan, start=start)

    def real(name: str, **options: object) -> Recipe:
        build = partial(network, **options)
        return Recipe(name, lambda: float_twin(build(), nn.Hardtanh), plan, compiled=False)

    return [
        real("clip"),
        real("clip_without_shortcuts", shortcut=False),
        recipe("bireal"),
        recipe("without_shortcuts", start="clip_without_shortcuts", shortcut=False),
        recipe("without_approx_sign", estimator=ste),
        recipe("without_magnitude", weight_estimator=ste),
        recipe("without_clip_start", start=""),
        recipe("without_any", start="", shortcut=False, estimator=ste, weight_estimator=ste),
    ]


if __name__ == "__main__":
    main()
