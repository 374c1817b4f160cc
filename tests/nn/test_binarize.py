"""The sign and its straight-through gradient, against the formulas, point by point."""

import math

import pytest

torch = pytest.importorskip("torch")

from bnncc.nn import bipolar_sign, straight_through_sign  # noqa: E402  # torch may be missing

SMALLEST = 2.0**-149
ABOVE_ONE = 1.0 + 2.0**-23
SIGNS = [
    (-math.inf, -1.0),
    (-3.0, -1.0),
    (-SMALLEST, -1.0),
    (-0.0, 1.0),
    (0.0, 1.0),
    (SMALLEST, 1.0),
    (3.0, 1.0),
    (math.inf, 1.0),
    (math.nan, -1.0),
]
GRADIENTS = [
    (-math.inf, 0.0),
    (-2.5, 0.0),
    (-ABOVE_ONE, 0.0),
    (-1.0, 1.0),
    (-0.25, 1.0),
    (-0.0, 1.0),
    (0.0, 1.0),
    (0.25, 1.0),
    (1.0, 1.0),
    (ABOVE_ONE, 0.0),
    (2.5, 0.0),
    (math.inf, 0.0),
    (math.nan, 0.0),
]


@pytest.mark.parametrize("sign", [bipolar_sign, straight_through_sign])
@pytest.mark.parametrize(("x", "expected"), SIGNS)
def test_sign_has_two_levels_and_zero_is_plus_one(sign, x, expected):
    assert expected == sign(torch.tensor(x)).item()


@pytest.mark.parametrize("sign", [bipolar_sign, straight_through_sign])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sign_keeps_shape_and_type(sign, dtype):
    signs = sign(torch.tensor([[-2.0, 0.0, 0.5]], dtype=dtype))

    assert dtype == signs.dtype
    assert signs.tolist() == [[-1.0, 1.0, 1.0]]


def test_plain_sign_has_no_gradient():
    x = torch.tensor([0.5], requires_grad=True)

    assert not bipolar_sign(x).requires_grad


@pytest.mark.parametrize(("x", "window"), GRADIENTS)
@pytest.mark.parametrize("upstream", [1.0, -3.5])
def test_gradient_passes_within_one_of_zero_and_nowhere_else(x, window, upstream):
    point = torch.tensor(x, requires_grad=True)

    straight_through_sign(point).backward(torch.tensor(upstream))

    assert window * upstream == point.grad.item()


def test_gradient_is_that_of_the_hard_tanh_at_random_points():
    x = 2.0 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    through_sign = x.clone().requires_grad_()
    through_hardtanh = x.clone().requires_grad_()

    straight_through_sign(through_sign).backward(upstream)
    torch.nn.functional.hardtanh(through_hardtanh).backward(upstream)

    assert 0 < (through_sign.grad == 0).sum() < 1000
    assert torch.equal(through_hardtanh.grad, through_sign.grad)


def test_infinite_gradient_outside_the_window_is_cancelled():
    x = torch.tensor([2.0, 0.5], requires_grad=True)

    straight_through_sign(x).backward(torch.tensor([math.inf, math.inf]))

    assert x.grad.tolist() == [0.0, math.inf]
