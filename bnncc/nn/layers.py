"""Dense layers and convolutions with binary weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnncc.nn.estimators import Estimator, check_for_activations, ste
from bnncc.nn.scales import AlphaKappa, Scale


class BinaryLayer(nn.Module):
    """What binary layers share: latent weights, and how outputs come of them.

    `weight` holds latent reals. The optimiser moves them, the forward pass sees what `estimator`
    makes of them, and `bnncc.nn.clip_weights_` keeps them in [-1, 1]. In eval mode everything
    is plain operations, so that an exported model holds the latent reals and the operations
    which make them binary.

    The inputs are taken as they come unless `activation` is given: put a `BinaryActivation` before
    the layer to make them bipolar, or leave them real as BinaryConnect does.

    Attributes:
        weight: latent reals [channels_out, ...].
        bias: real [channels_out], or None.
        estimator: makes the weights binary.
        activation: makes the inputs binary, in the layer itself; None takes them as they come.
        scale: multiplies the sums, before the bias; None leaves them.
    """

    weight: Tensor
    bias: Any  # Tensor | None, which torch's own classes declare in two other ways
    estimator: Estimator
    activation: Estimator | None
    scale: Scale | None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name for it
        """Return `scale * linear(activation(input), estimator(weight)) + bias`.

        Args:
            input: real [..., in_features] or [N, channels_in, *S].

        Returns:
            Real [..., out_features] or [N, channels_out, *S']; integers in [-K, K] where the
            operands are bipolar and there is neither scale nor bias.
        """
        weight = self.estimator(self.weight, self.training)
        x = input if self.activation is None else self.activation(input, self.training)
        if self.scale is None:
            return self.linear(x, weight, self.bias)
        # Before the sums: kappa is at hand then where the C multiplies by it, as they come.
        factors = self.scale(input, self)
        y = self.linear(x, weight, None)
        for factor in factors:
            y = y * factor
        return y if self.bias is None else y + self.bias.reshape(-1, *(1,) * (weight.dim() - 2))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the sums of `x` and `weight`, and `bias`."""
        raise NotImplementedError

    def window_mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over all that an output sees: kappa of their magnitudes."""
        raise NotImplementedError

    def bake(self) -> None:
        """Put the binary weights in the place of the latent ones, for good; it does not train."""
        if self.estimator is as_they_are:
            return
        with torch.no_grad():
            if self.scale is not None:
                self.scale.bake(self.weight)
            self.weight = nn.Parameter(self.estimator(self.weight, False), requires_grad=False)
        self.estimator = as_they_are


def as_they_are(x: Tensor, training: bool) -> Tensor:  # noqa: ARG001  # an Estimator takes it
    """Return `x`: the estimator of weights that are binary already."""
    return x


class BinaryLinear(BinaryLayer, nn.Linear):
    """A dense layer that multiplies by the signs of its weights.

    Args:
        in_features: K, the number of inputs of each output.
        out_features: the number of outputs.
        bias: whether to add a real bias. Off by default: a BatchNorm behind the layer has one.
        estimator: makes the weights binary.
        activation: makes the inputs binary; None takes them as they come.
        scale: multiplies the sums.

    Raises:
        ValueError: if `activation` is `magnitude_aware`, or `AlphaKappa` is to work without one.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 2.3 (binary weights forwards and backwards,
        the update on the latent reals).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        estimator: Estimator = ste,
        activation: Estimator | None = None,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.estimator, self.activation, self.scale = estimator, activation, scale
        _check(scale, activation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return `x @ weight.T + bias`."""
        return F.linear(x, weight, bias)

    def window_mean(self, values: Tensor) -> Tensor:
        """Return the mean over the features, [..., 1]."""
        return values.mean(-1, keepdim=True)


class BinaryConv1d(BinaryLayer, nn.Conv1d):
    """A convolution of sequences that multiplies by the signs of its weights.

    Args:
        in_channels: channels of the input [N, in_channels, W].
        out_channels: channels of the output.
        kernel_size: taps.
        stride: step between windows.
        padding: taps added at each end.
        dilation: step between taps.
        groups: of channels that see only each other.
        bias: whether to add a real bias. Off by default: a BatchNorm behind the layer has one.
        padding_value: what the added taps hold: 0, as PyTorch pads; -1 or +1, which keep a bipolar
            input bipolar. The C skips taps that are 0 and stays on bits either way.
        estimator: makes the weights binary.
        activation: makes the inputs binary; None takes them as they come.
        scale: multiplies the sums.

    Raises:
        ValueError: if `padding_value` is another, `activation` is `magnitude_aware`, or
            `AlphaKappa` is to work without `activation`, with groups or with dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding_value: int = 0,
        estimator: Estimator = ste,
        activation: Estimator | None = None,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.estimator, self.activation, self.scale = estimator, activation, scale
        self.padding_value = _checked_padding(padding_value)
        _check(scale, activation, groups, self.dilation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of `x`, padded with the layer's value."""
        x, padding = _padded(x, self.padding, self.padding_value)
        return F.conv1d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def window_mean(self, values: Tensor) -> Tensor:
        """Return the mean over channels and taps, [N, 1, W']; padding counts as 0."""
        mean = values.mean(1, keepdim=True)
        return F.avg_pool1d(mean, self.kernel_size, self.stride, _numbers(self.padding))


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """A convolution of images that multiplies by the signs of its weights.

    Args:
        in_channels: channels of the input [N, in_channels, H, W].
        out_channels: channels of the output.
        kernel_size: rows and columns of a window, or one number for both, as for those below.
        stride: step between windows.
        padding: rows and columns added at each side.
        dilation: step between taps.
        groups: of channels that see only each other.
        bias: whether to add a real bias. Off by default: a BatchNorm behind the layer has one.
        padding_value: what the added taps hold: 0, as PyTorch pads; -1 or +1, which keep a bipolar
            input bipolar. The C skips taps that are 0 and stays on bits either way.
        estimator: makes the weights binary.
        activation: makes the inputs binary; None takes them as they come.
        scale: multiplies the sums.

    Raises:
        ValueError: if `padding_value` is another, `activation` is `magnitude_aware`, or
            `AlphaKappa` is to work without `activation`, with groups or with dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        *,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        padding_value: int = 0,
        estimator: Estimator = ste,
        activation: Estimator | None = None,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.estimator, self.activation, self.scale = estimator, activation, scale
        self.padding_value = _checked_padding(padding_value)
        _check(scale, activation, groups, self.dilation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of `x`, padded with the layer's value."""
        x, padding = _padded(x, self.padding, self.padding_value)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def window_mean(self, values: Tensor) -> Tensor:
        """Return the mean over channels and taps, [N, 1, H', W']; padding counts as 0."""
        mean = values.mean(1, keepdim=True)
        return F.avg_pool2d(mean, self.kernel_size, self.stride, _numbers(self.padding))


def _checked_padding(value: int) -> float:
    if value not in (-1, 0, 1):
        raise ValueError(f"padding_value is -1, 0 or 1, not {value}")
    return float(value)


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(padding, str):  # nn.ConvNd's type allows it, the constructors above do not
        raise TypeError(f"padding is a number for each axis, not {padding!r}")
    return padding


def _padded(
    x: Tensor, padding: str | tuple[int, ...], value: float
) -> tuple[Tensor, tuple[int, ...]]:
    """Return `x` with its pads if they are not 0, and the padding that is left to the operation."""
    sides = _numbers(padding)
    if not value or not any(sides):
        return x, sides
    pads = [pad for pad in reversed(sides) for _ in range(2)]
    return F.pad(x, pads, value=value), (0,) * len(sides)


def _check(
    scale: Scale | None,
    activation: Estimator | None,
    groups: int = 1,
    dilation: tuple[int, ...] = (),
) -> None:
    check_for_activations(activation)
    if not isinstance(scale, AlphaKappa):
        return
    if activation is None:
        raise ValueError(
            "AlphaKappa needs the reals that become binary: give the layer `activation` "
            "instead of a BinaryActivation before it"
        )
    if groups != 1 or any(step != 1 for step in dilation):
        raise ValueError(
            "AlphaKappa takes one mean a window: it needs groups = 1 and dilation = 1, "
            f"not groups = {groups} and dilation = {dilation}"
        )
