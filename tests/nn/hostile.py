"""What training leaves in BatchNorm, at its worst: gammas of either sign and zero, and ties."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["hostile_", "margins"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def hostile_(model: nn.Module, x: Tensor, seed: int) -> nn.Module:
    """Give the model BatchNorm statistics of activations on `x`, off by a little; in eval mode.

    Latent weights and all other parameters are random. About half of the gammas are negative. In
    every BatchNorm channel 0 has gamma = 0 and beta = 0, and so sits on the decision, and channel 1
    has gamma = 0 and beta = -1/4, and so never flips.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1, generator=random)
        for norm in norms:
            norm.momentum = None  # of the batches to come, the plain mean
        model.train()(x)
        model.eval()
        for norm in norms:
            spread = norm.running_var.sqrt()
            norm.running_mean += 0.2 * spread * torch.randn(spread.shape, generator=random)
            norm.running_var *= torch.rand(spread.shape, generator=random) + 0.5
            norm.weight[:2] = 0.0
            norm.bias[:2] = torch.tensor([0.0, -0.25])
    return model


def margins(model: nn.Module, x: Tensor) -> Tensor:
    """Return, for each sample, how close an output of a BatchNorm comes to 0, channel 0 apart.

    What is far beyond what rounding moves says that a sign is the same in any float32 arithmetic.
    """
    closest: list[Tensor] = []

    def look(norm: nn.Module, _args: object, y: Tensor) -> None:
        assert not y[:, 0].any()  # exactly on the decision
        closest.append(y[:, 1:].abs().flatten(1).amin(1))

    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, NORMS)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return torch.stack(closest).amin(0)
