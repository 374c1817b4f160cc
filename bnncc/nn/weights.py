"""What is done to the weights of a whole model: learning rates, clipping, baking."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from bnncc.nn.layers import BinaryLayer


def clip_weights_(module: nn.Module) -> None:
    """Clamp the latent weights of every binary layer in `module` to [-1, 1], in place.

    To be called after each step of the optimiser. Without it a latent weight grows without any
    effect on its sign and, once beyond the estimator's window, gets no gradient to come back by.
    Other parameters, biases and BatchNorm among them, are left alone.

    Args:
        module: a model, or a single binary layer.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 2.4.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, BinaryLayer):
                layer.weight.clamp_(-1.0, 1.0)


def parameter_groups(
    module: nn.Module,
    lr: float,
    glorot: bool = True,
    *,
    squared: bool = False,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimiser, with learning rates that suit binary weights.

    Latent weights live in [-1, 1] whatever their fans, while steps are as small as Glorot's
    initial weights would ask: so each binary layer's learning rate is multiplied by
    1 / sqrt(1.5 / (fan_in + fan_out)), the inverse of Glorot's coefficient. Binary weights get no
    weight decay: it would pull latent weights to where any noise flips them. The other parameters
    share one group, the last.

        optimizer = torch.optim.Adam(parameter_groups(model, lr=1e-3))

    Args:
        module: the model.
        lr: the learning rate of all other parameters.
        glorot: whether to scale the learning rates of binary weights at all.
        squared: whether to scale by the square, as the paper does for SGD with or without momentum;
            the coefficient itself is for Adam.
        weight_decay: of the other parameters.

    Returns:
        A group for each binary layer in the order of `module.modules()`, then one for the rest,
        with the keys "params", "lr" and "weight_decay". Every parameter is in exactly one.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 2.5 and the code published with it
        (`W_LR_scale="Glorot"`).
    """
    groups: list[dict[str, Any]] = []
    seen: set[torch.Tensor] = set()
    for layer in module.modules():
        if isinstance(layer, BinaryLayer) and layer.weight not in seen:
            scale = _inverse_glorot(layer.weight) if glorot else 1.0
            rate = lr * (scale**2 if squared else scale)
            groups.append({"params": [layer.weight], "lr": rate, "weight_decay": 0.0})
            seen.add(layer.weight)
    rest = [parameter for parameter in module.parameters() if parameter not in seen]
    return [*groups, {"params": rest, "lr": lr, "weight_decay": weight_decay}]


def _inverse_glorot(weight: torch.Tensor) -> float:
    """Return 1 / sqrt(1.5 / (fan_in + fan_out)) for weights [channels_out, channels_in, ...]."""
    taps = math.prod(weight.shape[2:])
    return math.sqrt((weight.shape[0] + weight.shape[1]) * taps / 1.5)


def bake_weights(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose binary layers hold binary weights instead of latent ones.

    The copy computes in eval mode what `module` computes, bit for bit, and does not train. It is
    for tools that cannot evaluate the binarisation inside a graph. `module` itself is not changed.

    Args:
        module: a model, or a single binary layer.
    """
    baked = copy.deepcopy(module)
    for layer in baked.modules():
        if isinstance(layer, BinaryLayer):
            layer.bake()
    return baked
