"""Bi-Real Net: binary convolutions, each with a real shortcut around it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bnncc.nn.activations import BinaryActivation
from bnncc.nn.estimators import Estimator, approx_sign, magnitude_aware
from bnncc.nn.layers import BinaryConv2d


@dataclass(frozen=True)
class _Choices:
    """What the paper's ablation switches.

    Attributes:
        shortcut: whether blocks have one.
        estimator: of the activations.
        weight_estimator: of the weights.
    """

    shortcut: bool = True
    estimator: Estimator = approx_sign
    weight_estimator: Estimator = magnitude_aware


class BiRealBlock(nn.Module):
    """Sign, binary 3x3 convolution, BatchNorm, and the sum with the real input.

    Where the shape changes, the shortcut is an average pool, a real 1x1 convolution and BatchNorm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the convolution, 1 or 2.
        shortcut: whether there is one; without it the block is an ordinary binary layer.
        estimator: of the activations.
        weight_estimator: of the weights.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 3.2, figure 3(b).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        shortcut: bool = True,
        estimator: Estimator = approx_sign,
        weight_estimator: Estimator = magnitude_aware,
    ) -> None:
        super().__init__()
        self.sign = BinaryActivation(estimator)
        self.conv = BinaryConv2d(
            in_channels, out_channels, 3, stride, padding=1, estimator=weight_estimator
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module | None = None
        if shortcut and stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif shortcut:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: real [N, in_channels, H, W] to [N, out_channels, H', W']."""
        y: Tensor = self.bn(self.conv(self.sign(x)))
        return y if self.shortcut is None else y + self.shortcut(x)


def bireal18(
    *,
    classes: int = 1000,
    width: int = 64,
    shortcut: bool = True,
    estimator: Estimator = approx_sign,
    weight_estimator: Estimator = magnitude_aware,
) -> nn.Sequential:
    """Return Bi-Real-18 for ImageNet: real first layer, 4 stages of 4 blocks, real last layer.

    Input: real [N, 3, H, W], 224 x 224 in the paper. Output: real logits [N, classes].

    Args:
        classes: the number of outputs.
        width: channels of the first stage; each stage doubles them.
        shortcut: whether blocks have one.
        estimator: of the activations.
        weight_estimator: of the weights.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 4.1.
    """
    choices = _Choices(shortcut, estimator, weight_estimator)
    return _image_net((4, 4, 4, 4), width, classes, choices)


def bireal34(
    *,
    classes: int = 1000,
    width: int = 64,
    shortcut: bool = True,
    estimator: Estimator = approx_sign,
    weight_estimator: Estimator = magnitude_aware,
) -> nn.Sequential:
    """Return Bi-Real-34 for ImageNet: as `bireal18`, with 6, 8, 12 and 6 blocks a stage.

    Input: real [N, 3, H, W], 224 x 224 in the paper. Output: real logits [N, classes].

    Args:
        classes: the number of outputs.
        width: channels of the first stage; each stage doubles them.
        shortcut: whether blocks have one.
        estimator: of the activations.
        weight_estimator: of the weights.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 4.1.
    """
    choices = _Choices(shortcut, estimator, weight_estimator)
    return _image_net((6, 8, 12, 6), width, classes, choices)


def bireal_cifar(
    depth: int = 20,
    *,
    width: int = 16,
    in_channels: int = 3,
    classes: int = 10,
    shortcut: bool = True,
    estimator: Estimator = approx_sign,
    weight_estimator: Estimator = magnitude_aware,
) -> nn.Sequential:
    """Return Bi-Real Net in the shape of the CIFAR ResNets: 3 stages at 32, 16 and 8 pixels.

    A real 3x3 convolution and BatchNorm, (depth - 2) / 3 blocks a stage, a mean over the image, a
    real dense layer. Input: real [N, in_channels, H, W]. Output: real logits [N, classes].

    Args:
        depth: layers with weights, shortcuts apart: 3 b + 2 for b blocks a stage.
        width: channels of the first stage; each stage doubles them.
        in_channels: channels of the image.
        classes: the number of outputs.
        shortcut: whether blocks have one.
        estimator: of the activations.
        weight_estimator: of the weights.

    Raises:
        ValueError: if `depth` is not 3 b + 2 for b >= 1.

    Source:
        Liu et al. 2018, "Bi-Real Net", for the blocks; He et al. 2016, "Deep Residual Learning",
        sec. 4.2, for the stages.
    """
    blocks, remainder = divmod(depth - 2, 3)
    if remainder or blocks < 1:
        raise ValueError(f"depth is 5, 8, 11 and so on, not {depth}")
    stem = [
        ("conv1", nn.Conv2d(in_channels, width, 3, padding=1, bias=False)),
        ("bn1", nn.BatchNorm2d(width)),
    ]
    choices = _Choices(shortcut, estimator, weight_estimator)
    return _network(stem, (blocks,) * 3, width, classes, choices)


def _image_net(blocks: Sequence[int], width: int, classes: int, choices: _Choices) -> nn.Sequential:
    stem = [
        ("conv1", nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)),
        ("bn1", nn.BatchNorm2d(width)),
        ("pool1", nn.MaxPool2d(3, 2, 1)),
    ]
    return _network(stem, blocks, width, classes, choices)


def _network(
    stem: Sequence[tuple[str, nn.Module]],
    blocks: Sequence[int],
    width: int,
    classes: int,
    choices: _Choices,
) -> nn.Sequential:
    """Return stem, stages named layer1, layer2, ... (as in torchvision), mean and classifier."""
    modules = OrderedDict(stem)
    channels = width
    for stage, count in enumerate(blocks):
        outputs = width << stage
        parts = []
        for i in range(count):
            stride = 2 if stage and not i else 1
            parts.append(
                BiRealBlock(
                    channels,
                    outputs,
                    stride,
                    shortcut=choices.shortcut,
                    estimator=choices.estimator,
                    weight_estimator=choices.weight_estimator,
                )
            )
            channels = outputs
        modules[f"layer{stage + 1}"] = nn.Sequential(*parts)
    modules["mean"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(modules)
