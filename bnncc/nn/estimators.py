"""Signs that gradients pass: how a real becomes bipolar, and what its derivative is taken to be.

The derivative of the sign is zero wherever it exists, so training replaces it by that of another
function, the estimator. All of them take `(x, training)`, as `torch.nn.functional.dropout` does:

- `training=True` gives the values of the paper with its gradient, as an autograd function;
- `training=False` gives the deterministic values in plain operations, which every exporter knows,
  and no gradient.

Layers take an estimator as a callable: one of these, `functools.partial` of one, or your own of
the type `Estimator`.

+1 stands for zero everywhere: `torch.sign` has a third level there, which fits in no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Estimator: TypeAlias = Callable[[Tensor, bool], Tensor]
"""`(x, training)` to binary values of the shape and type of x."""


def bipolar_sign(x: Tensor) -> Tensor:
    """Return +1 where `x >= 0` and -1 elsewhere, written in operations every exporter knows.

    Zero of either sign gives +1. NaN compares false and gives -1. The gradient is zero everywhere:
    train with an estimator.

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


def mean_magnitude(weight: Tensor) -> Tensor:
    """Return the mean of |w| of each output channel: what XNOR-Net's paper calls alpha.

    Args:
        weight: real [channels_out, ...].

    Returns:
        Real [channels_out, 1, ...], one axis fewer than `weight`, so that it multiplies the outputs
        [..., channels_out] of a dense layer and [N, channels_out, *S] of a convolution as it is.

    Source:
        Rastegari et al. 2016, "XNOR-Net", eq. 6.
    """
    alpha = weight.abs().flatten(1).mean(1)
    return alpha.reshape(-1, *(1,) * (weight.dim() - 2))


def ste(x: Tensor, training: bool = True) -> Tensor:
    """Return the signs of `x`; the gradient is that of the hard tanh, the straight-through one.

    d sign / d x := 1 where |x| <= 1, both ends included, and 0 elsewhere.

    Args:
        x: real tensor of any shape and floating type, any range.
        training: whether gradients are to pass.

    Returns:
        Tensor of the shape and type of `x`, values in {-1, +1}.

    Source:
        Courbariaux et al. 2016, "Binarized Neural Networks", eq. 1 (the values), eq. 4 (the
        gradient) and eq. 5 (Htanh).
    """
    return _apply(_StraightThrough, x) if training else bipolar_sign(x)


def approx_sign(x: Tensor, training: bool = True) -> Tensor:
    """Return the signs of `x`; the gradient is that of two parabolas, closer to the sign's.

    d sign / d x := 2 + 2x where -1 <= x < 0, 2 - 2x where 0 <= x < 1, and 0 elsewhere: the
    derivative of 2x + x^2 and 2x - x^2, which rise from -1 to 1. Made for activations.

    Args:
        x: real tensor of any shape and floating type, any range.
        training: whether gradients are to pass.

    Returns:
        Tensor of the shape and type of `x`, values in {-1, +1}.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 3.3, "Approximation to the derivative of the sign
        function with respect to activations".
    """
    return _apply(_ApproxSign, x) if training else bipolar_sign(x)


def magnitude_aware(x: Tensor, training: bool = True) -> Tensor:
    """Return mean|w| * sign(w) of each output channel; the gradient knows the magnitude too.

    d value_i / d w_j := mean|w| where i = j and |w_i| <= 1, and 0 elsewhere: the mean is held
    constant. (With `ste` and the scale `Alpha` the values are the same, and the gradient also
    passes through the mean.) The paper writes |w| < 1; here both ends count, as in its code: a
    weight that clipping put on an end has to find back.

    Made for weights: the mean is over all axes but the first.

    Args:
        x: real weights [channels_out, ...].
        training: whether gradients are to pass.

    Returns:
        Tensor of the shape and type of `x`, two values of opposite sign a channel.

    Source:
        Liu et al. 2018, "Bi-Real Net", sec. 3.3, "Magnitude-aware gradient with respect to
        weights".
    """
    alpha = mean_magnitude(x).unsqueeze(1).detach()
    return alpha * ste(x, training)


def check_for_activations(estimator: Estimator | None) -> None:
    """Refuse an estimator that means nothing for activations.

    Raises:
        ValueError: if it is `magnitude_aware`, which would take each sample for a channel.
    """
    if estimator is magnitude_aware:
        raise ValueError("magnitude_aware is for weights: its mean is over all axes but the first")


def stochastic(
    x: Tensor, training: bool = True, generator: torch.Generator | None = None
) -> Tensor:
    """Return +1 with the probability clip((x + 1) / 2, 0, 1), else -1; in evaluation the sign.

    The mean of the values is the hard tanh of x, and the gradient is its derivative: 1 where
    |x| <= 1, else 0. On weights kept in [-1, 1] that is 1 everywhere, as BinaryConnect has it.

    Args:
        x: real tensor of any shape and floating type, any range.
        training: whether to draw, and to let gradients pass.
        generator: of the random numbers, on the device of `x`; PyTorch's own if None. To
            give one to a layer: `functools.partial(stochastic, generator=generator)`.

    Returns:
        Tensor of the shape and type of `x`, values in {-1, +1}.

    Source:
        Courbariaux et al. 2015, "BinaryConnect", eq. 2 (the values), eq. 3 (the hard sigmoid) and
        algorithm 1 (the gradient).
    """
    return _apply(_Stochastic, x, generator) if training else bipolar_sign(x)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    values: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]  # torch's own
    return values


class _StraightThrough(torch.autograd.Function):
    """The sign forwards, the derivative of the hard tanh backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() <= 1.0)
        return bipolar_sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        # Selected, not multiplied: an infinite gradient outside the window must give 0, not NaN.
        return torch.where(inside, gradient, 0.0)


class _ApproxSign(torch.autograd.Function):
    """The sign forwards, a triangle of height 2 backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return bipolar_sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        magnitude = x.abs()
        return torch.where(magnitude < 1.0, gradient * (2.0 - 2.0 * magnitude), 0.0)


class _Stochastic(torch.autograd.Function):
    """A random sign forwards, the derivative of its mean backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, generator: torch.Generator | None) -> Tensor:
        ctx.save_for_backward(x.abs() <= 1.0)
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        # uniform is in [0, 1), so that x >= 1 gives +1 always, and x <= -1 never.
        return torch.where(uniform < (x + 1.0) / 2.0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return torch.where(inside, gradient, 0.0), None
