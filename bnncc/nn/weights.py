"""What is done to the weights of a whole model: kept in range while training, baked after it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnncc.nn.linear import BinaryLinear


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
            if isinstance(layer, BinaryLinear):
                layer.weight.clamp_(-1.0, 1.0)


def bake_weights(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in which the binary layers are ordinary ones with +-1 weights.

    The copy computes what `module` computes, bit for bit, and does not train. It is for tools
    that cannot evaluate the binarisation inside a graph. `module` itself is not changed.

    Args:
        module: a model, or a single binary layer.
    """
    if isinstance(module, BinaryLinear):
        return module.to_linear()
    baked = copy.deepcopy(module)
    # Duplicates included: a layer used under two names has to be replaced under both.
    for path, layer in list(baked.named_modules(remove_duplicate=False)):
        if isinstance(layer, BinaryLinear):
            baked.set_submodule(path, layer.to_linear())
    return baked
