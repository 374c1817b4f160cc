"""Plain stacks of binary layers: what BinaryConnect and the BNN have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from bnncc.nn.estimators import Estimator
from bnncc.nn.layers import BinaryConv2d, BinaryLinear

EPS = 1e-4  # of BatchNorm, in the code of both papers


@dataclass(frozen=True)
class Style:
    """What tells one paper's stack from another's.

    Attributes:
        name: of the activations in the graph.
        activation: makes one.
        estimator: of the weights.
    """

    name: str
    activation: Callable[[], nn.Module]
    estimator: Estimator


def mlp(
    style: Style,
    *,
    hidden: int,
    layers: int,
    in_features: int,
    classes: int,
    dropout: float,
    input_dropout: float,
) -> nn.Sequential:
    """Return `layers` times [BinaryLinear, BatchNorm, activation], then BinaryLinear, BatchNorm.

    Raises:
        ValueError: if `layers` is below 1.
    """
    if layers < 1:
        raise ValueError(f"an MLP needs at least 1 hidden layer, not {layers}")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if input_dropout > 0.0:
        modules["drop0"] = nn.Dropout(input_dropout)
    width = in_features
    for i in range(1, layers + 1):
        _dense(modules, style, i, width, hidden)
        modules[f"{style.name}{i}"] = style.activation()
        if dropout > 0.0:
            modules[f"drop{i}"] = nn.Dropout(dropout)
        width = hidden
    _dense(modules, style, layers + 1, width, classes)
    return nn.Sequential(modules)


def vgg(style: Style, width: int, size: int, in_channels: int, classes: int) -> nn.Sequential:
    """Return 2 x C3 - MP2 three times, the width doubling, then 2 x FC and the classes.

    Raises:
        ValueError: if three halvings do not divide `size`.
    """
    if size % 8 or size < 8:
        raise ValueError(f"three pools halve the image: its size is a multiple of 8, not {size}")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for i in range(1, 7):
        outputs = width << (i - 1) // 2
        modules[f"conv{i}"] = BinaryConv2d(
            channels, outputs, 3, padding=1, estimator=style.estimator
        )
        if i % 2 == 0:
            modules[f"pool{i}"] = nn.MaxPool2d(2)  # of sums, as in the papers: before BatchNorm
        modules[f"bn{i}"] = nn.BatchNorm2d(outputs, eps=EPS)
        modules[f"{style.name}{i}"] = style.activation()
        channels = outputs
    modules["flatten"] = nn.Flatten()
    inputs = channels * (size // 8) ** 2
    for i in (7, 8):
        _dense(modules, style, i, inputs, 8 * width)
        modules[f"{style.name}{i}"] = style.activation()
        inputs = 8 * width
    _dense(modules, style, 9, inputs, classes)
    return nn.Sequential(modules)


def _dense(
    modules: OrderedDict[str, nn.Module], style: Style, i: int, inputs: int, outputs: int
) -> None:
    modules[f"fc{i}"] = BinaryLinear(inputs, outputs, estimator=style.estimator)
    modules[f"bn{i}"] = nn.BatchNorm1d(outputs, eps=EPS)
