"""The deterministic sign: reals to bipolar values, alone and with a gradient to train through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bipolar_sign(x: Tensor) -> Tensor:
    """Return +1 where `x >= 0` and -1 elsewhere, written in operations every exporter knows.

    Zero of either sign gives +1, unlike `torch.sign`, whose third level 0 fits in no bit. NaN
    compares false and gives -1. The gradient is zero everywhere: train with
    `straight_through_sign`.

    Args:
        x: real tensor of any shape and floating type, any range.

    Returns:
        Tensor of the shape and type of `x`, values in {-1, +1}.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", eq. 1.
    """
    # 0.0 rather than 0, and no cast where none is needed: both would be nodes of the exported
    # graph. Exactly GreaterOrEqual and Where remain.
    signs = torch.where(x >= 0.0, 1.0, -1.0)
    return signs if signs.dtype == x.dtype else signs.to(x.dtype)


class _StraightThroughSign(torch.autograd.Function):
    """`bipolar_sign` forwards, the derivative of the hard tanh backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() <= 1.0)
        return bipolar_sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        # Selected, not multiplied: an infinite gradient outside the window must give 0, not NaN.
        return torch.where(inside, gradient, 0.0)


def straight_through_sign(x: Tensor) -> Tensor:
    """Return `bipolar_sign(x)`, with the gradient of the hard tanh instead of zero.

    The gradient passes unchanged where |x| <= 1, both ends included, and is cancelled elsewhere.

    Args:
        x: real tensor of any shape and floating type, any range.

    Returns:
        Tensor of the shape and type of `x`, values in {-1, +1}.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", sec. 1.3, eq. 4 (the estimator) and
        eq. 5 (Htanh).
    """
    signs: Tensor = _StraightThroughSign.apply(x)  # type: ignore[no-untyped-call]  # torch's own
    return signs
