"""Train LeNet-5 in XNOR-Net's form on MNIST, with and without kappa, and make C of both.

    python examples/xnor_lenet5.py --data mnist       # the four .gz files lie there
    python examples/xnor_lenet5.py --quick            # a minute, to see it work

Source: Rastegari et al. 2016, "XNOR-Net": alpha = mean |w| a channel, kappa = mean |x| a window,
the first and the last layer real. The paper has no MNIST figure; the 0.77 % that one compares with
is of the implementation at github.com/jiecaoyu/XNOR-Net-PyTorch, without kappa, whose training this
follows: Adam at 0.01, falling to a thousandth (there in steps), and cross entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnncc.nn import float_twin, parameter_groups
from bnncc.nn.models import xnor_lenet5
from bnncc.nn.training import (
    Outcome,
    Plan,
    Recipe,
    exponential_decay,
    load_mnist,
    option_parser,
    parse_options,
    run,
)

QUICK = {"epochs": 2, "images": 6_000}


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Run the script and return what came out."""
    parser = option_parser(
        "Train XNOR-Net's LeNet-5 on MNIST and compile it.",
        data=Path("../shared/data/mnist"),
        out=Path("out/xnor_lenet5"),
        epochs=15,
        batch_size=128,
        learning_rate=1e-2,
    )
    args = parse_options(parser, argv, QUICK)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, args.learning_rate, glorot=False, weight_decay=1e-5)
        return torch.optim.Adam(groups, fused=True)

    plan = Plan(
        args.epochs,
        args.batch_size,
        optimizer,
        partial(exponential_decay, final=1e-3),
        loss=nn.functional.cross_entropy,
    )
    recipes = [
        Recipe("float_twin", lambda: float_twin(xnor_lenet5()), plan, compiled=False),
        Recipe("lenet5_alpha", xnor_lenet5, plan),
        Recipe("lenet5_alpha_kappa", partial(xnor_lenet5, kappa=True), plan),
    ]
    return run("MNIST, LeNet-5", recipes, load_mnist(args.data, flat=False), args)


if __name__ == "__main__":
    main()
