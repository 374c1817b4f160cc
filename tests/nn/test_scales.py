"""Scales, against hand-computed cases and the papers' formulas written out in numpy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnncc.nn import (  # noqa: E402  # torch may be missing
    AbsMean,
    Alpha,
    AlphaKappa,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    Factorised,
    magnitude_aware,
    ste,
)


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(layer, seed=1):
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed + i))
    return layer


# --- Alpha, in its two meanings -------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "expected"), [(Alpha(), 0.4), (AbsMean(), 0.2)])
def test_two_definitions_of_alpha_by_hand(scale, expected):
    """Of 0.2, 0.2, -0.6, -0.6: mean |w| is 1.6 / 4, |mean w| is |-0.8| / 4."""
    filters = torch.tensor([[[[0.2, 0.2], [-0.6, -0.6]]]])
    layer = BinaryConv2d(1, 1, 2, scale=scale)
    with torch.no_grad():
        layer.weight.copy_(filters)

    (alpha,) = scale(torch.zeros(1, 1, 2, 2), layer)
    outputs = layer(torch.tensor([[[[1.0, 1.0], [1.0, -1.0]]]]))

    assert alpha.item() == pytest.approx(expected, rel=2.0**-22)  # of decimals in float32
    assert outputs.item() == alpha.item() * 2.0


@pytest.mark.parametrize("training", [True, False])
def test_alpha_scales_each_output_before_the_bias(training):
    layer = BinaryLinear(3, 2, bias=True, scale=Alpha()).train(training)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.25, 0.0], [-2.0, -0.5, 0.5]]))
        layer.bias.copy_(torch.tensor([10.0, -20.0]))

    outputs = layer(torch.tensor([[1.0, 2.0, 4.0]]))

    assert outputs.tolist() == [[3 * 0.25 + 10, 1 - 20]]


def test_alpha_gradient_passes_through_sign_and_mean():
    """XNOR-Net's sec. 3.1 with the sum that the derivative of a mean is."""
    layer = filled(BinaryLinear(7, 3, scale=Alpha())).double()
    x, upstream = random(5, 7, seed=5).double(), random(5, 3, seed=6).double()

    layer(x).backward(upstream)

    w, to_binary = layer.weight.detach().numpy(), (upstream.T @ x).numpy()  # dL / d (alpha sign w)
    signs = np.where(w >= 0, 1, -1)
    alpha = np.abs(w).mean(1, keepdims=True)
    through_mean = (to_binary * signs).sum(1, keepdims=True) * np.sign(w) / 7
    expected = to_binary * alpha * (np.abs(w) <= 1) + through_mean
    # Sums of 7 and 5 terms in another order, of magnitudes near 10.
    np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-13, atol=1e-13)


def test_magnitude_aware_is_alpha_that_is_held_constant():
    scaled, aware = BinaryLinear(7, 3, scale=Alpha()), BinaryLinear(7, 3, estimator=magnitude_aware)
    filled(scaled)
    filled(aware)
    x = random(5, 7, seed=5)

    # The one rounds alpha * n, the other sums +-alpha: at most 8 roundings of numbers below 16.
    torch.testing.assert_close(scaled(x), aware(x), rtol=0, atol=8 * 16 * 2.0**-24)
    assert not torch.allclose(
        torch.autograd.grad(scaled(x).sum(), scaled.weight)[0],
        torch.autograd.grad(aware(x).sum(), aware.weight)[0],
    )


# --- Kappa ----------------------------------------------------------------------------------------


def kappa_2d(x, kernel, stride, padding):
    """Return XNOR-Net's K of one image [C, H, W]: A filtered with a box, window by window."""
    a = np.pad(np.abs(x).sum(0) / len(x), [(padding[0],) * 2, (padding[1],) * 2])
    rows = (a.shape[0] - kernel[0]) // stride[0] + 1
    columns = (a.shape[1] - kernel[1]) // stride[1] + 1
    k = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            k[i, j] = a[top : top + kernel[0], left : left + kernel[1]].sum()
    return k / (kernel[0] * kernel[1])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), (1, 1), (1, 1)), ((2, 3), (1, 2), (0, 1)), ((5, 5), (2, 2), (2, 2))],
)
@pytest.mark.parametrize("training", [True, False])
def test_alpha_kappa_is_equation_11(training, kernel, stride, padding):
    layer = BinaryConv2d(
        3, 4, kernel, stride, padding, bias=True, activation=ste, scale=AlphaKappa()
    )
    filled(layer).double().train(training)
    x = random(2, 3, 7, 6, seed=9).double()

    outputs = layer(x).detach().numpy()

    weight = layer.weight.detach()
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    bits = torch.where(x >= 0, 1.0, -1.0).double()
    sums = torch.nn.functional.conv2d(bits, signs, None, stride, padding).numpy()
    for image, n, y in zip(x.numpy(), sums, outputs, strict=True):
        k = kappa_2d(image, kernel, stride, padding)
        for c, w in enumerate(weight.numpy()):
            expected = n[c] * k * np.abs(w).mean() + layer.bias[c].item()
            np.testing.assert_allclose(y[c], expected, rtol=0, atol=1e-12)  # of sums below 100


def test_alpha_kappa_of_a_dense_layer_is_the_mean_of_its_features():
    layer = BinaryLinear(4, 1, activation=ste, scale=AlphaKappa())
    with torch.no_grad():
        layer.weight.fill_(0.5)

    outputs = layer(torch.tensor([[1.0, -3.0, 0.5, 1.5]]))

    assert outputs.tolist() == [[(1 - 1 + 1 + 1) * 1.5 * 0.5]]


def test_alpha_kappa_of_a_sequence():
    layer = BinaryConv1d(2, 1, 3, padding=1, activation=ste, scale=AlphaKappa())
    with torch.no_grad():
        layer.weight.fill_(0.5)

    outputs = layer(torch.tensor([[[1.0, -3.0, 2.0], [1.0, 1.0, -4.0]]]))

    # A = 1 2 3, K = 1 2 5/3; sums of signs 2 2 0.
    assert outputs.tolist() == [[[2 * 1 * 0.5, 2 * 2 * 0.5, 0]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "AlphaKappa needs the reals that become binary: give the layer `activation`"),
        (
            {"activation": ste, "groups": 2},
            r"needs groups = 1 and dilation = 1, not groups = 2 and dilation = \(1, 1\)",
        ),
        (
            {"activation": ste, "dilation": (1, 2)},
            r"needs groups = 1 and dilation = 1, not groups = 1 and dilation = \(1, 2\)",
        ),
    ],
)
def test_alpha_kappa_is_refused_where_equation_11_says_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        BinaryConv2d(4, 4, 3, scale=AlphaKappa(), **options)


def test_alpha_kappa_is_refused_by_a_dense_layer_without_activation():
    with pytest.raises(ValueError, match="give the layer `activation` instead of a Binary"):
        BinaryLinear(4, 4, scale=AlphaKappa())


# --- Learned scales -------------------------------------------------------------------------------


def test_factorised_is_an_outer_product():
    scale = filled(Factorised(4, 5, 6))
    layer = filled(BinaryConv2d(3, 4, 3, padding=1), seed=10)
    x = random(2, 3, 5, 6, seed=20)
    unscaled = layer(x)

    layer.scale = scale
    outputs = layer(x)

    alpha, beta, gamma = (parameter.detach().numpy() for parameter in scale.parameters())
    factors = np.einsum("c,h,w->chw", alpha, beta, gamma)
    # Two roundings of the factors, and one of the product, here and there.
    np.testing.assert_allclose(
        outputs.detach(), unscaled.detach().numpy() * factors, rtol=6 * 2.0**-24, atol=0
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (BinaryLinear(3, 4, scale=Factorised(4)), (2, 3)),
        (BinaryConv1d(3, 4, 3, scale=Factorised(4)), (2, 3, 9)),
        (BinaryConv2d(3, 4, 3, scale=Factorised(4)), (2, 3, 9, 8)),
    ],
)
def test_factor_of_channels_alone_fits_any_layer(layer, shape):
    factors = torch.tensor([1.0, -2.0, 0.0, 0.5])
    x = random(*shape)
    unscaled = layer(x)

    with torch.no_grad():
        layer.scale.channels.copy_(factors)

    expected = unscaled * factors.reshape(1, -1, *(1,) * (len(shape) - 2))
    assert torch.equal(expected, layer(x))


def test_factorised_starts_at_one_and_learns():
    layer = BinaryConv2d(3, 4, 3, padding=1, scale=Factorised(4, 5, 5))

    layer(random(2, 3, 5, 5)).square().sum().backward()

    for factors in layer.scale.parameters():
        assert (factors == 1).all()
        assert factors.grad.all()
