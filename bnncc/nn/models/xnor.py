"""The networks of the XNOR-Net paper: bipolar weights and activations, with real scales.

The first and the last layer are real, as in the paper. A binary layer makes its own input binary,
which is what kappa needs: BatchNorm, then sign, convolution and scale in one `BinaryConv2d`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from bnncc.nn.estimators import ste
from bnncc.nn.layers import BinaryConv2d, BinaryLinear
from bnncc.nn.scales import Alpha, AlphaKappa, Scale


def xnor_lenet5(*, kappa: bool = False, classes: int = 10) -> nn.Sequential:
    """Return LeNet-5 in the form of XNOR-Net, for MNIST.

    20C5 - MP2 - 50C5 - MP2 - 500FC - 10FC, of which the two in the middle are binary, each with
    BatchNorm before and ReLU behind. Input: real [N, 1, 28, 28]. Output: real logits [N, classes].

    Args:
        kappa: whether binary layers multiply by kappa as well as by alpha.
        classes: the number of outputs.

    Source:
        Rastegari et al. 2016, "XNOR-Net", sec. 3.2, for the layers; the LeNet-5 of Caffe, which
        implementations of the paper train on MNIST, for their sizes.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(1, 20, 5),
            bn1=nn.BatchNorm2d(20, eps=1e-4),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            bn2=nn.BatchNorm2d(20, eps=1e-4),
            conv2=BinaryConv2d(20, 50, 5, bias=True, activation=ste, scale=_scale(kappa)),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            bn3=nn.BatchNorm2d(50, eps=1e-4),
            flatten=nn.Flatten(),
            fc3=BinaryLinear(50 * 4 * 4, 500, bias=True, activation=ste, scale=_scale(kappa)),
            relu3=nn.ReLU(),
            fc4=nn.Linear(500, classes),
        )
    )


# Of each binary layer: channels in multiples of 32, kernel, padding, and whether a pool follows.
_ALEXNET = (
    (8, 5, 2, True),
    (12, 3, 1, False),
    (12, 3, 1, False),
    (8, 3, 1, True),
    (128, 6, 0, False),
    (128, 1, 0, False),
)


def xnor_alexnet(*, kappa: bool = False, classes: int = 1000, width: int = 32) -> nn.Sequential:
    """Return the AlexNet of XNOR-Net.

    11x11 convolution; 256C5 - MP3 - 384C3 - 384C3 - 256C3 - MP3 - 4096C6 - 4096C1 in bits, each
    after BatchNorm, and a real classifier; the dense layers are convolutions that see the whole
    image.
    Input: real [N, 3, 224, 224]. Output: real logits [N, classes].

    Args:
        kappa: whether binary layers multiply by kappa as well as by alpha.
        classes: the number of outputs.
        width: a third of the channels of the first layer; all others are multiples of it.

    Source:
        Rastegari et al. 2016, "XNOR-Net", sec. 4.2, and the code published with it
        (models/alexnetxnor.lua).
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 3 * width, 11, stride=4, padding=2),
        bn1=nn.BatchNorm2d(3 * width, eps=1e-5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(3, 2),
    )
    channels = 3 * width
    for i, (factor, kernel, padding, pool) in enumerate(_ALEXNET, start=2):
        modules[f"bn{i}"] = nn.BatchNorm2d(channels, eps=1e-4)
        modules[f"conv{i}"] = BinaryConv2d(
            channels,
            factor * width,
            kernel,
            padding=padding,
            bias=True,
            activation=ste,
            scale=_scale(kappa),
        )
        if pool:
            modules[f"pool{i}"] = nn.MaxPool2d(3, 2)
        channels = factor * width
    modules["bn8"] = nn.BatchNorm2d(channels, eps=1e-3)
    modules["relu8"] = nn.ReLU()
    modules["conv8"] = nn.Conv2d(channels, classes, 1)
    modules["flatten"] = nn.Flatten()
    return nn.Sequential(modules)


class XnorBasicBlock(nn.Module):
    """Two times [BatchNorm, sign, binary 3x3 convolution], and a shortcut around both.

    Where the shape changes, the shortcut is a real 1x1 convolution and BatchNorm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution, 1 or 2.
        kappa: whether the convolutions multiply by kappa as well as by alpha.

    Source:
        Rastegari et al. 2016, "XNOR-Net", sec. 3.2 (the order of layers), in the basic block of He
        et al. 2016, "Identity Mappings in Deep Residual Networks".
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, kappa: bool = False
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv3x3(in_channels, out_channels, stride, kappa)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels, 1, kappa)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: real [N, in_channels, H, W] to [N, out_channels, H', W']."""
        y: Tensor = self.conv2(self.bn2(self.conv1(self.bn1(x)))) + self.shortcut(x)
        return y


def xnor_resnet18(*, kappa: bool = False, classes: int = 1000, width: int = 64) -> nn.Sequential:
    """Return ResNet-18 in the form of XNOR-Net: 4 stages of 2 blocks of 2 binary convolutions.

    Input: real [N, 3, H, W], 224 x 224 in the paper. Output: real logits [N, classes].

    Args:
        kappa: whether binary layers multiply by kappa as well as by alpha.
        classes: the number of outputs.
        width: channels of the first stage; each stage doubles them.

    Source:
        Rastegari et al. 2016, "XNOR-Net", sec. 4.2 (ResNet-18).
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(3, 2, 1),
    )
    channels = width
    for stage in range(4):
        outputs = width << stage
        modules[f"layer{stage + 1}"] = nn.Sequential(
            XnorBasicBlock(channels, outputs, 2 if stage else 1, kappa=kappa),
            XnorBasicBlock(outputs, outputs, kappa=kappa),
        )
        channels = outputs
    modules["bn2"] = nn.BatchNorm2d(channels)
    modules["relu2"] = nn.ReLU()
    modules["mean"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(modules)


def _scale(kappa: bool) -> Scale:
    return AlphaKappa() if kappa else Alpha()


def _conv3x3(in_channels: int, out_channels: int, stride: int, kappa: bool) -> BinaryConv2d:
    return BinaryConv2d(
        in_channels, out_channels, 3, stride, padding=1, activation=ste, scale=_scale(kappa)
    )
