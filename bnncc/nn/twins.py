"""The float twin of a binary network: what to compare it with, and what to start it from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from bnncc.nn.activations import BinaryActivation
from bnncc.nn.layers import BinaryConv1d, BinaryConv2d, BinaryLayer, BinaryLinear


def float_twin(module: nn.Module, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Return the same network in reals: ordinary layers, and `activation` for each sign.

    Names, shapes and latent weights stay, so that where no layer has a scale of its own

        twin = float_twin(model, nn.Hardtanh)
        ...  # train it
        model.load_state_dict(twin.state_dict())

    starts the binary network from the real one that clips to [-1, 1], as Bi-Real Net does: the
    clip is closer to the sign than the ReLU is. A layer with an `activation` of its own
    becomes the two, one after the other, under its name.

    Args:
        module: a network, or one layer; it is not changed.
        activation: makes what stands for each sign.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 3.3, "Initialization".
    """
    root = nn.ModuleDict({"twin": copy.deepcopy(module)})
    # Duplicates included: a layer used under two names has to be replaced under both.
    twins: dict[nn.Module, nn.Module] = {}
    for path, layer in list(root.named_modules(remove_duplicate=False)):
        if isinstance(layer, BinaryLayer | BinaryActivation):
            if layer not in twins:
                twins[layer] = _twin(layer, activation)
            root.set_submodule(path, twins[layer])
    return root["twin"]


def _twin(layer: BinaryLayer | BinaryActivation, activation: Callable[[], nn.Module]) -> nn.Module:
    """Return what stands for `layer`, in its mode, with its own parameters."""
    if isinstance(layer, BinaryActivation):
        return activation().train(layer.training)
    real = _real_layer(layer)
    real.weight = layer.weight
    real.register_parameter("bias", layer.bias)
    twin = real if layer.activation is None else nn.Sequential(activation(), real)
    return twin.train(layer.training)


def _real_layer(layer: BinaryLayer) -> nn.Module:
    # On "meta" nothing is allocated and no random number drawn for the weights replaced later.
    match layer:
        case BinaryLinear():
            return nn.Linear(layer.in_features, layer.out_features, device="meta")
        case BinaryConv1d() | BinaryConv2d():
            sizes: dict[str, Any] = {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "groups": layer.groups,
            }
            make: Any = nn.Conv1d if isinstance(layer, BinaryConv1d) else nn.Conv2d
            conv: nn.Module = make(
                layer.in_channels, layer.out_channels, layer.kernel_size, **sizes, device="meta"
            )
            return conv
        case _:
            raise TypeError(f"no float twin is known for {type(layer).__name__}")
