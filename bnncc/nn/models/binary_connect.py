"""The networks of the BinaryConnect paper: bipolar weights, real activations."""

from __future__ import annotations

from torch import nn

from bnncc.nn.estimators import Estimator, ste
from bnncc.nn.models.plain import Style, mlp, vgg


def binary_connect_mlp(
    hidden: int = 1024,
    layers: int = 3,
    *,
    in_features: int = 784,
    classes: int = 10,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    estimator: Estimator = ste,
) -> nn.Sequential:
    """Return the multi-layer perceptron that BinaryConnect trains on MNIST.

    `layers` times [BinaryLinear, BatchNorm, ReLU], then BinaryLinear and BatchNorm, named fc1, bn1,
    relu1, ... Input: real [N, in_features]. Output: real logits [N, classes].

    Args:
        hidden: the width of the hidden layers.
        layers: the number of hidden layers, at least 1.
        in_features: the number of real inputs.
        classes: the number of outputs.
        dropout: the share of hidden activations set to zero while training; 0 adds no layer.
        input_dropout: the same of the inputs.
        estimator: `ste` for the deterministic variant, `stochastic` for the other. (The paper
            evaluates the latter with its real weights; here evaluation takes their signs, so
            that there is a binary network at the end.)

    Raises:
        ValueError: if `layers` is below 1.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 3.1.
    """
    style = Style("relu", nn.ReLU, estimator)
    return mlp(
        style,
        hidden=hidden,
        layers=layers,
        in_features=in_features,
        classes=classes,
        dropout=dropout,
        input_dropout=input_dropout,
    )


def binary_connect_vgg(
    width: int = 128,
    *,
    size: int = 32,
    in_channels: int = 3,
    classes: int = 10,
    estimator: Estimator = ste,
) -> nn.Sequential:
    """Return the convolutional network that BinaryConnect trains on CIFAR-10.

    2x128C3 - MP2 - 2x256C3 - MP2 - 2x512C3 - MP2 - 2x1024FC - 10, each layer followed by BatchNorm
    and, but for the last, ReLU; pools stand before BatchNorm. Layers are named conv1, bn1, relu1...
    Input: real [N, in_channels, size, size]. Output: real logits [N, classes].

    Args:
        width: channels of the first two layers; the others are multiples of it.
        size: rows and columns of the image, a multiple of 8.
        in_channels: channels of the image.
        classes: the number of outputs.
        estimator: `ste` for the deterministic variant, `stochastic` for the other.

    Raises:
        ValueError: if `size` is not a multiple of 8.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 3.2.
    """
    return vgg(Style("relu", nn.ReLU, estimator), width, size, in_channels, classes)
