"""The real factors that multiply the sums of a binary layer.

A scale multiplies after the sum, not the weights before it: a sum of +-1 is an integer, exact in
float32, and one product is one rounding, whatever order a library sums in.

`Alpha` and `AbsMean` are both called alpha in texts and differ: for the weights 0.2 and -0.6 the
first is 0.4 and the second 0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnncc.nn.estimators import mean_magnitude

if TYPE_CHECKING:
    from bnncc.nn.layers import BinaryLayer


class Scale(nn.Module):
    """What every scale is: a module that a binary layer asks for factors of its sums."""

    def forward(self, x: Tensor, layer: BinaryLayer) -> tuple[Tensor, ...]:
        """Return what the sums are multiplied by, one factor after the other.

        Each broadcasts with the sums: [..., channels_out] of a dense layer, [N, channels_out, *S]
        of a convolution.

        Args:
            x: what the layer was given, before it made it binary.
            layer: whose sums they are.
        """
        raise NotImplementedError

    def bake(self, weight: Tensor) -> None:
        """Keep what depends on the latent `weight`, which is about to become bipolar."""


class Alpha(Scale):
    """alpha = mean |w| of each output channel, as XNOR-Net's paper has it.

    It is what makes alpha * sign(w) closest to w in the sense of least squares. Gradients pass
    through the mean.

    Source:
        Rastegari et al. 2016, "XNOR-Net", eq. 6.
    """

    baked: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("baked", None)

    def of(self, weight: Tensor) -> Tensor:
        """Return alpha, real [channels_out, 1, ...], of the latent weights."""
        return mean_magnitude(weight)

    def forward(self, x: Tensor, layer: BinaryLayer) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return alpha."""
        return (self.of(layer.weight) if self.baked is None else self.baked,)

    def bake(self, weight: Tensor) -> None:
        """Keep the alpha of `weight`."""
        self.baked = self.of(weight).detach().clone()


class AbsMean(Alpha):
    """|mean w| of each output channel, as some texts and implementations have it.

    Not the paper's: where weights are balanced it is near zero, and the layer with it.
    """

    def of(self, weight: Tensor) -> Tensor:
        """Return |mean w|, real [channels_out, 1, ...], of the latent weights."""
        mean = weight.flatten(1).mean(1).abs()
        return mean.reshape(-1, *(1,) * (weight.dim() - 2))


class AlphaKappa(Alpha):
    """alpha, and kappa for each output pixel: the mean of |x| under the window.

    kappa is K of the paper: A, the mean of |x| over the channels, filtered with a box of ones
    over kernel_h * kernel_w; taps on the padding count as 0. For a dense layer it is the mean of
    |x| over the features.

    It needs the reals that the layer makes binary itself: give the layer `activation`.

    Source:
        Rastegari et al. 2016, "XNOR-Net", eq. 11.
    """

    def forward(self, x: Tensor, layer: BinaryLayer) -> tuple[Tensor, ...]:
        """Return kappa and alpha."""
        return layer.window_mean(x.abs()), *super().forward(x, layer)


class Factorised(Scale):
    """A learned factor for each output channel, times one for each place along each axis.

    Args:
        channels: channels_out of the layer.
        size: the outputs of the layer along each spatial axis; none for a factor a channel alone,
            which suits images of any size and dense layers.

    Source:
        Bulat and Tzimiropoulos 2019, "XNOR-Net++", sec. 3: case 4, the outer product of alpha, beta
        and gamma; case 1 where `size` is empty.
    """

    def __init__(self, channels: int, *size: int) -> None:
        super().__init__()
        self.channels = nn.Parameter(torch.ones(channels))
        self.places = nn.ParameterList(torch.ones(length) for length in size)

    def forward(self, x: Tensor, layer: BinaryLayer) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return the outer product of all factors."""
        axes = layer.weight.dim() - 2
        factors = self.channels.reshape(-1, *(1,) * axes)
        for axis, along in enumerate(self.places):
            factors = factors * along.reshape(-1, *(1,) * (axes - 1 - axis))
        return (factors,)
