"""The signs and their gradients, against the papers' formulas written out in numpy."""

import functools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnncc.nn import (  # noqa: E402  # torch may be missing
    approx_sign,
    bipolar_sign,
    magnitude_aware,
    ste,
    stochastic,
)

SMALLEST = 2.0**-149
ABOVE_ONE = 1.0 + 2.0**-23
BELOW_ONE = 1.0 - 2.0**-24
DETERMINISTIC = [ste, approx_sign]
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
STE_GRADIENTS = [
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
APPROX_GRADIENTS = [
    (-math.inf, 0.0),
    (-2.5, 0.0),
    (-1.0, 0.0),
    (-BELOW_ONE, 2.0**-23),
    (-0.75, 0.5),
    (-0.25, 1.5),
    (-0.0, 2.0),
    (0.0, 2.0),
    (0.25, 1.5),
    (0.5, 1.0),
    (BELOW_ONE, 2.0**-23),
    (1.0, 0.0),
    (2.5, 0.0),
    (math.inf, 0.0),
    (math.nan, 0.0),
]


def random(*shape, seed=1, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient_of(estimator, x, upstream):
    """Return the gradient that reaches x when `upstream` reaches the values."""
    leaf = x.clone().requires_grad_()
    estimator(leaf, True).backward(upstream)
    return leaf.grad


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", DETERMINISTIC)
@pytest.mark.parametrize(("x", "expected"), SIGNS)
def test_sign_has_two_levels_and_zero_is_plus_one(estimator, training, x, expected):
    assert expected == estimator(torch.tensor(x), training).item()
    assert expected == bipolar_sign(torch.tensor(x)).item()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", [*DETERMINISTIC, stochastic])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sign_keeps_shape_and_type(estimator, training, dtype):
    signs = estimator(torch.tensor([[-2.0, 1.0, 1.5]], dtype=dtype), training)

    assert dtype == signs.dtype
    assert signs.tolist() == [[-1.0, 1.0, 1.0]]


@pytest.mark.parametrize("estimator", [*DETERMINISTIC, magnitude_aware, stochastic])
def test_evaluation_has_no_autograd_function(estimator):
    values = estimator(torch.full((2, 3), 0.5, requires_grad=True), False)

    assert not values.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_magnitude_aware_is_the_mean_magnitude_with_the_sign(training):
    weight = torch.tensor([[0.25, -0.75, 0.0, -1.0], [-0.5, -0.0, 2.0, 3.5]])

    values = magnitude_aware(weight, training)

    assert values.tolist() == [[0.5, -0.5, 0.5, -0.5], [-1.5, 1.5, 1.5, 1.5]]


def test_magnitude_aware_takes_the_mean_of_a_whole_filter():
    weight = random(3, 4, 2, 5)

    values = magnitude_aware(weight).numpy()

    for channel, given in zip(values, weight.numpy(), strict=True):
        # The mean of 40 magnitudes, summed in whatever order: 40 roundings of 2^-24 at most.
        np.testing.assert_allclose(np.abs(channel), np.abs(given).mean(), rtol=40 * 2.0**-24)
        assert ((channel > 0) == (given >= 0)).all()


# --- Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [ste, stochastic])
@pytest.mark.parametrize(("x", "window"), STE_GRADIENTS)
@pytest.mark.parametrize("upstream", [1.0, -3.5])
def test_straight_through_passes_within_one_of_zero(estimator, x, window, upstream):
    gradient = gradient_of(estimator, torch.tensor(x), torch.tensor(upstream))

    assert window * upstream == gradient.item()


@pytest.mark.parametrize(("x", "slope"), APPROX_GRADIENTS)
@pytest.mark.parametrize("upstream", [1.0, -3.5])
def test_approx_sign_passes_by_two_lines(x, slope, upstream):
    gradient = gradient_of(approx_sign, torch.tensor(x), torch.tensor(upstream))

    assert slope * upstream == gradient.item()


def straight_through(x, upstream):
    """Return the gradient of BNN's equation 4."""
    return np.where(np.abs(x) <= 1, upstream, 0.0)


def two_parabolas(x, upstream):
    """Return the gradient of Bi-Real Net's ApproxSign."""
    slope = np.zeros_like(x)
    left, right = (x >= -1) & (x < 0), (x >= 0) & (x < 1)
    slope[left] = 2 + 2 * x[left]
    slope[right] = 2 - 2 * x[right]
    return upstream * slope


@pytest.mark.parametrize(
    ("estimator", "formula"), [(ste, straight_through), (approx_sign, two_parabolas)]
)
def test_gradient_is_the_papers_at_random_points(estimator, formula):
    x, upstream = random(1000, scale=0.8).double(), random(1000, seed=2).double()

    gradient = gradient_of(estimator, x, upstream)

    expected = formula(x.numpy(), upstream.numpy())
    assert 0 < (expected == 0).sum() < 500
    # The slope is one rounding of a number up to 2, the product another.
    np.testing.assert_allclose(gradient, expected, rtol=2.0**-50, atol=0)


@pytest.mark.parametrize(
    ("estimator", "smooth"),
    [
        (ste, torch.nn.functional.hardtanh),
        (
            approx_sign,
            lambda x: torch.where(
                x.abs() >= 1, x.sign(), torch.where(x < 0, 2 * x + x * x, 2 * x - x * x)
            ),
        ),
    ],
)
def test_gradient_is_that_of_the_function_it_stands_for(estimator, smooth):
    """The formulas are derivatives of something that rises from -1 to 1: by finite differences."""
    away_from_corners = torch.tensor([-1.7, -0.9, -0.4, -0.1, 0.1, 0.3, 0.8, 1.6]).double()
    x = away_from_corners.clone().requires_grad_()

    assert torch.autograd.gradcheck(smooth, x)
    smooth(x).sum().backward()

    gradient = gradient_of(estimator, away_from_corners, torch.ones(8).double())
    torch.testing.assert_close(gradient, x.grad, rtol=2.0**-50, atol=0)


@pytest.mark.parametrize("estimator", [ste, approx_sign, stochastic])
def test_infinite_gradient_outside_the_window_is_cancelled(estimator):
    gradient = gradient_of(estimator, torch.tensor([2.0, 0.5]), torch.tensor([math.inf, math.inf]))

    assert gradient.tolist() == [0.0, math.inf]


def test_magnitude_aware_gradient_is_the_papers():
    weight, upstream = random(3, 4, 5, scale=0.8).double(), random(3, 4, 5, seed=2).double()
    weight[0, 0, :2] = torch.tensor([1.0, -1.0])

    gradient = gradient_of(magnitude_aware, weight, upstream)

    for got, w, g in zip(gradient.numpy(), weight.numpy(), upstream.numpy(), strict=True):
        alpha = np.abs(w).sum() / w.size
        expected = np.where(np.abs(w) <= 1, g * alpha, 0.0)
        # 20 roundings of the mean at most, and one of the product.
        np.testing.assert_allclose(got, expected, rtol=21 * 2.0**-53, atol=0)
    assert gradient[0, 0, :2].all()  # clipped weights still move
    assert not gradient.all()


# --- The stochastic one ---------------------------------------------------------------------------


def test_stochastic_has_the_probability_of_the_hard_sigmoid():
    draws = 20_000
    points = torch.tensor([-0.9, -0.5, -0.125, 0.0, 0.25, 0.75])
    generator = torch.Generator().manual_seed(0)

    values = stochastic(points.expand(draws, -1), True, generator)

    assert values.unique().tolist() == [-1.0, 1.0]
    hits = (values > 0).sum(0).numpy()
    p = (points.numpy() + 1) / 2
    # A binomial count is within 4.5 standard deviations in all but 7 of a million draws.
    assert (np.abs(hits - draws * p) <= 4.5 * np.sqrt(draws * p * (1 - p))).all()


@pytest.mark.parametrize(("x", "expected"), [(1.0, 1.0), (7.0, 1.0), (-1.0, -1.0), (-7.0, -1.0)])
def test_stochastic_is_certain_at_the_ends(x, expected):
    values = stochastic(torch.full((10_000,), x), True, torch.Generator().manual_seed(0))

    assert (values == expected).all()


def test_stochastic_is_the_sign_in_evaluation():
    x = torch.tensor([-0.01, -0.0, 0.01])

    assert stochastic(x, False).tolist() == [-1.0, 1.0, 1.0]


def test_stochastic_draws_from_the_generator_that_it_is_given():
    x = torch.zeros(64)
    state = torch.get_rng_state()

    first, second, third = (
        functools.partial(stochastic, generator=torch.Generator().manual_seed(seed))(x, True)
        for seed in (1, 1, 2)
    )

    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(state, torch.get_rng_state())


def test_stochastic_draws_anew_every_time():
    x = torch.zeros(64)
    generator = torch.Generator().manual_seed(3)

    assert not torch.equal(stochastic(x, True, generator), stochastic(x, True, generator))
