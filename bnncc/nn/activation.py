"""The binary activation."""

from __future__ import annotations

from torch import Tensor, nn

from bnncc.nn.binarize import bipolar_sign, straight_through_sign


class BinaryActivation(nn.Module):
    """Replaces each value by its sign, +1 for zero.

    In training mode the gradient is that of the hard tanh; in eval mode the sign is spelt in
    plain operations, which both ONNX exporters keep as `GreaterOrEqual` and `Where`.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", eq. 1, 4 and 5.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs of `x`: real, any shape, to bipolar of the same shape and type."""
        return straight_through_sign(x) if self.training else bipolar_sign(x)
