"""The networks of the BNN paper: bipolar weights and activations, only the input real."""

from __future__ import annotations

from torch import nn

from bnncc.nn.activations import BinaryActivation
from bnncc.nn.estimators import ste
from bnncc.nn.models.plain import Style, mlp, vgg

_STYLE = Style("sign", BinaryActivation, ste)


def bnn_mlp(
    hidden: int = 4096,
    layers: int = 3,
    *,
    in_features: int = 784,
    classes: int = 10,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
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
        input_dropout: the same of the inputs.

    Raises:
        ValueError: if `layers` is below 1.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", appendix, "MLP on MNIST (Theano)".
    """
    return mlp(
        _STYLE,
        hidden=hidden,
        layers=layers,
        in_features=in_features,
        classes=classes,
        dropout=dropout,
        input_dropout=input_dropout,
    )


def bnn_vgg(
    width: int = 128, *, size: int = 32, in_channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """Return the convolutional network that the BNN paper trains on CIFAR-10.

    2x128C3 - MP2 - 2x256C3 - MP2 - 2x512C3 - MP2 - 2x1024FC - 10, each layer followed by BatchNorm
    and, but for the last, BinaryActivation; pools stand before BatchNorm. Layers are named conv1,
    bn1, sign1, ... Input: real [N, in_channels, size, size]. Output: real logits [N, classes].

    Args:
        width: channels of the first two layers; the others are multiples of it.
        size: rows and columns of the image, a multiple of 8.
        in_channels: channels of the image.
        classes: the number of outputs.

    Raises:
        ValueError: if `size` is not a multiple of 8.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", appendix, "ConvNet on CIFAR-10
        (Theano)".
    """
    return vgg(_STYLE, width, size, in_channels, classes)
