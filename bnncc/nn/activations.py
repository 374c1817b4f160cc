"""Activations: the sign as a module, and ReActNet's two with learned shifts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnncc.nn.estimators import Estimator, check_for_activations, ste


class BinaryActivation(nn.Module):
    """Replaces each value by its sign, +1 for zero.

    In training mode the gradient is the estimator's; in eval mode the sign is spelt in plain
    operations, which both ONNX exporters keep as `GreaterOrEqual` and `Where`.

    Args:
        estimator: the sign and its gradient.

    Raises:
        ValueError: if `estimator` is `magnitude_aware`.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", eq. 1.
    """

    def __init__(self, estimator: Estimator = ste) -> None:
        super().__init__()
        check_for_activations(estimator)
        self.estimator = estimator

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs of `x`: real, any shape, to bipolar of the same shape and type."""
        return self.estimator(self.decided(x), self.training)

    def decided(self, x: Tensor) -> Tensor:
        """Return what is compared with zero."""
        return x


class RSign(BinaryActivation):
    """The sign with a learned threshold for each channel: +1 where x >= alpha_c.

    (The paper writes x > alpha_c; here, as everywhere, the threshold itself gives +1.)

    Args:
        channels: of the input [N, channels, *S].
        estimator: the sign and its gradient; the thresholds get the negative of it.

    Source:
        Liu et al. 2020, "ReActNet", sec. 4.2 (RSign).
    """

    def __init__(self, channels: int, estimator: Estimator = ste) -> None:
        super().__init__(estimator)
        self.threshold = nn.Parameter(torch.zeros(channels))

    def decided(self, x: Tensor) -> Tensor:
        """Return `x - threshold`, which is compared with zero."""
        return x - _per_channel(self.threshold, x)


class RPReLU(nn.Module):
    """A PReLU whose corner is moved, for each channel, to (gamma, zeta).

    y = x - gamma + zeta where x > gamma, and beta * (x - gamma) + zeta elsewhere; beta, gamma and
    zeta are learned.

    Args:
        channels: of the input [N, channels, *S].

    Source:
        Liu et al. 2020, "ReActNet", sec. 4.2 (RPReLU).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((channels,), 0.25))  # PReLU's own start
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.zeta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of `x`: real [N, channels, *S] to the same."""
        moved = nn.functional.prelu(x - _per_channel(self.gamma, x), self.beta)
        return moved + _per_channel(self.zeta, x)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (x.dim() - 2))
