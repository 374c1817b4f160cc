"""The dense layer with binary weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnncc.nn.binarize import bipolar_sign, straight_through_sign


class BinaryLinear(nn.Linear):
    """A dense layer that multiplies by the signs of its weights.

    `weight` holds latent reals, float [out_features, in_features]. The optimiser moves them, the
    forward pass sees their signs only, and `bnncc.nn.clip_weights_` keeps them in [-1, 1]. In
    training mode the signs let the gradient through; in eval mode they are plain operations, so
    that an exported model holds the latent reals and the operations which binarise them.

    The activations are taken as they come: put a `BinaryActivation` before the layer to make
    them bipolar too.

    Args:
        in_features: K, the number of inputs of each output.
        out_features: the number of outputs.
        bias: whether to add a real bias. Off by default: a BatchNorm behind the layer has one.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", sec. 2.3 (binary weights forwards and backwards,
        the update on the latent reals).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Linear's name for it
        """Return `input @ signs(weight).T + bias`.

        Args:
            input: real [..., in_features].

        Returns:
            Real [..., out_features]; integers in [-K, K] where `input` is bipolar and there is
            no bias.
        """
        binarize = straight_through_sign if self.training else bipolar_sign
        return nn.functional.linear(input, binarize(self.weight), self.bias)

    def to_linear(self) -> nn.Linear:
        """Return an ordinary dense layer with the signs as its weights; it does not train."""
        # On "meta" nothing is allocated and no random number drawn for the weights replaced below.
        baked = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        with torch.no_grad():
            baked.weight = nn.Parameter(bipolar_sign(self.weight), requires_grad=False)
            if self.bias is not None:
                baked.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return baked.train(self.training)
