"""Networks of the literature, built from the layers of this package."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from bnncc.nn.activation import BinaryActivation
from bnncc.nn.linear import BinaryLinear


def bnn_mlp(
    hidden: int = 4096,
    layers: int = 3,
    *,
    in_features: int = 784,
    classes: int = 10,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return the multi-layer perceptron that the BNN paper trains on MNIST.

    `layers` times [BinaryLinear, BatchNorm, BinaryActivation], then BinaryLinear and BatchNorm.
    The layers are named fc1, bn1, sign1, ... in the order they run, and the names reach the
    exported graph. Input: real [N, in_features], in [-1, 1] as the paper scales it. Output: real
    logits [N, classes].

    Args:
        hidden: the width of the hidden layers.
        layers: the number of hidden layers, at least 1.
        in_features: the number of real inputs.
        classes: the number of outputs.
        dropout: the share of hidden activations set to zero while training; 0 adds no layer.

    Raises:
        ValueError: if `layers` is below 1.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", appendix, "MLP on MNIST (Theano)".
    """
    if layers < 1:
        raise ValueError(f"bnn_mlp needs at least 1 hidden layer, not {layers}")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    width = in_features
    for i in range(1, layers + 1):
        modules[f"fc{i}"] = BinaryLinear(width, hidden)
        modules[f"bn{i}"] = nn.BatchNorm1d(hidden)
        modules[f"sign{i}"] = BinaryActivation()
        if dropout > 0.0:
            modules[f"drop{i}"] = nn.Dropout(dropout)
        width = hidden
    modules[f"fc{layers + 1}"] = BinaryLinear(width, classes)
    modules[f"bn{layers + 1}"] = nn.BatchNorm1d(classes)
    return nn.Sequential(modules)
