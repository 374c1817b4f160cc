"""What to look at while a binary network trains: do signs still flip, do gradients still pass?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bnncc.nn.activations import BinaryActivation
from bnncc.nn.estimators import bipolar_sign
from bnncc.nn.layers import BinaryLayer

Signs: TypeAlias = Mapping[str, Tensor]
"""The signs of latent weights by the name of their layer: bool, true for +1."""


def snapshot_signs(module: nn.Module) -> Signs:
    """Return the signs of all latent weights, to be compared with later ones by `flip_rate`."""
    return {name: bipolar_sign(layer.weight.detach()) > 0 for name, layer in _layers(module)}


def flip_rate(before: Signs, after: Signs) -> dict[str, float]:
    """Return, for each binary layer, the share of its weights whose sign is another one.

    A rate that stays near 0.5 means that a layer does not settle, one of 0 from the start that it
    does not learn. What `sum(rates.values())` of every epoch converges to is what one looks at.

    Args:
        before: an earlier snapshot.
        after: a later one of the same model.

    Raises:
        ValueError: if the snapshots are of different layers.
    """
    if before.keys() != after.keys():
        raise ValueError(
            f"snapshots of different models: {sorted(before.keys() ^ after.keys())} are in one only"
        )
    return {name: _share(signs != after[name]) for name, signs in before.items()}


def share_at_clip(module: nn.Module) -> dict[str, float]:
    """Return, for each binary layer, the share of latent weights with |w| >= 1: those clipped."""
    return {name: _share(layer.weight.detach().abs() >= 1.0) for name, layer in _layers(module)}


def share_in_window(module: nn.Module, x: Tensor) -> dict[str, float]:
    """Return, for each sign of activations, the share of what it decides with |x| <= 1.

    Gradients pass only there: a share near 0 starves all layers before it.

    Args:
        module: the model, in either mode; the forward pass on `x` is made without gradients, and
            in training mode updates BatchNorm's running statistics as any does.
        x: a batch.

    Returns:
        The share by the name of the `BinaryActivation`, or of the binary layer with an
        `activation`; of several calls of one, the last.
    """
    shares: dict[str, float] = {}

    def look_as(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            (values,) = args
            decided = layer.decided(values) if isinstance(layer, BinaryActivation) else values
            shares[name] = _share(decided.abs() <= 1.0)

        return look

    hooks = [
        layer.register_forward_pre_hook(look_as(name))
        for name, layer in module.named_modules()
        if isinstance(layer, BinaryActivation)
        or (isinstance(layer, BinaryLayer) and layer.activation is not None)
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return shares


def _layers(module: nn.Module) -> list[tuple[str, BinaryLayer]]:
    return [(name, one) for name, one in module.named_modules() if isinstance(one, BinaryLayer)]


def _share(mask: Tensor) -> float:
    return mask.float().mean().item()
