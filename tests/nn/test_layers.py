"""The layers, in both modes: values, gradients, refusals."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402
    Alpha,
    BinaryActivation,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    Factorised,
    RPReLU,
    RSign,
    approx_sign,
    magnitude_aware,
    ste,
    stochastic,
)

ESTIMATORS = [ste, approx_sign, magnitude_aware, stochastic]
WEIGHT = [[0.5, -0.25, 0.0], [-2.0, -0.0, 1.0]]


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer():
    """A 3 -> 2 layer with a bias, a zero of either sign and a weight outside the window."""
    layer = BinaryLinear(3, 2, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        layer.bias.copy_(torch.tensor([10.0, -20.0]))
    return layer


# --- Dense layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_linear_multiplies_by_the_signs(layer, training):
    layer.train(training)

    outputs = layer(torch.tensor([[1.0, 2.0, 4.0]]))

    assert outputs.tolist() == [[1 - 2 + 4 + 10, -1 + 2 + 4 - 20]]


def test_linear_has_no_bias_by_default():
    assert BinaryLinear(3, 2).bias is None


def test_linear_gradient_is_windowed_for_weights_and_signed_for_inputs(layer):
    x = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)

    layer(x).backward(torch.tensor([[3.0, 5.0]]))

    # Row by row upstream * x; the weight -2 is outside the window.
    assert layer.weight.grad.tolist() == [[3.0, 6.0, 12.0], [0.0, 10.0, 20.0]]
    assert x.grad.tolist() == [[3 - 5, -3 + 5, 3 + 5]]
    assert layer.bias.grad.tolist() == [3.0, 5.0]


def test_linear_makes_its_input_binary_if_asked():
    layer = BinaryLinear(3, 1, activation=approx_sign)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    x = torch.tensor([[0.25, -0.5, 7.0]], requires_grad=True)

    outputs = layer(x)
    outputs.backward()

    assert outputs.tolist() == [[1 - 1 + 1]]
    assert x.grad.tolist() == [[1.5, 1.0, 0.0]]


def test_eval_mode_gives_latent_weights_no_gradient(layer):
    layer.eval()

    layer(torch.ones(1, 3)).sum().backward()

    assert layer.weight.grad is None
    assert layer.bias.grad is not None


# --- What holds for all layers --------------------------------------------------------------------

LAYERS = {
    "linear": (lambda **options: BinaryLinear(6, 4, **options), (2, 6)),
    "conv1d": (lambda **options: BinaryConv1d(6, 4, 3, 2, 1, **options), (2, 6, 9)),
    "conv2d": (lambda **options: BinaryConv2d(6, 4, 3, 2, 1, **options), (2, 6, 9, 7)),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_those_of_torch_on_binary_weights(kind, estimator):
    make, shape = LAYERS[kind]
    layer = make(estimator=estimator, bias=True).eval()
    x = random(*shape).sign()

    plain = super(type(layer).__mro__[1], layer).forward  # torch's own, on the weights as they are
    expected_weight = estimator(layer.weight, False)
    outputs = layer(x)
    with torch.no_grad():
        layer.weight.copy_(expected_weight)

    assert torch.equal(plain(x), outputs)


@pytest.mark.parametrize("kind", LAYERS)
def test_estimators_but_one_evaluate_alike(kind):
    """So that what is shown of one of them in eval mode is shown of all three."""
    make, shape = LAYERS[kind]
    state = make().state_dict()
    x = random(*shape)
    outputs = []
    for estimator in (ste, approx_sign, stochastic):
        layer = make(estimator=estimator).eval()
        layer.load_state_dict(state)
        outputs.append(layer(x))

    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("make_scale", [lambda: None, Alpha, lambda: Factorised(4)])
def test_training_and_evaluation_compute_the_same(kind, make_scale):
    make, shape = LAYERS[kind]
    layer = make(scale=make_scale(), bias=True, activation=ste)
    x = random(*shape)

    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", LAYERS)
def test_weight_gradient_is_the_estimators_of_the_convolutions(kind, estimator):
    """The chain rule by hand: torch's gradient of the binary weights, through the estimator."""
    make, shape = LAYERS[kind]
    layer = make(estimator=functools.partial(estimator))
    if estimator is stochastic:
        generator = torch.Generator()
        layer.estimator = functools.partial(stochastic, generator=generator.manual_seed(7))
    x = random(*shape)
    y = layer(x)
    upstream = random(*y.shape, seed=2)
    y.backward(upstream)

    latent = layer.weight.detach().clone().requires_grad_()
    if estimator is stochastic:
        generator.manual_seed(7)
    binary = layer.estimator(latent, True)
    leaf = binary.detach().requires_grad_()
    layer.linear(x, leaf, None).backward(upstream)
    binary.backward(leaf.grad)

    assert torch.equal(latent.grad, layer.weight.grad)
    assert latent.grad.any()


@pytest.mark.parametrize("kind", LAYERS)
def test_state_holds_parameters_of_torchs_names(kind):
    make, _ = LAYERS[kind]

    assert list(make(bias=True, scale=Alpha()).state_dict()) == ["weight", "bias"]


def test_padding_with_another_value_is_refused():
    for make in (BinaryConv1d, BinaryConv2d):
        with pytest.raises(ValueError, match=r"^padding_value is -1, 0 or 1, not 2$"):
            make(3, 4, 3, padding=1, padding_value=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinaryActivation(magnitude_aware),
        lambda: RSign(3, magnitude_aware),
        lambda: BinaryLinear(3, 4, activation=magnitude_aware),
        lambda: BinaryConv1d(3, 4, 3, activation=magnitude_aware),
        lambda: BinaryConv2d(3, 4, 3, activation=magnitude_aware),
    ],
)
def test_magnitude_aware_is_refused_for_activations(make):
    message = "^magnitude_aware is for weights: its mean is over all axes but the first$"
    with pytest.raises(ValueError, match=message):
        make()


# --- Activations ----------------------------------------------------------------------------------


def test_activation_trains_through_the_window_and_evaluates_plainly():
    activation = BinaryActivation()
    x = torch.tensor([-1.5, -1.0, 0.0, 2.0], requires_grad=True)

    trained = activation.train()(x)
    trained.sum().backward()
    evaluated = activation.eval()(x)

    assert trained.tolist() == evaluated.tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert not evaluated.requires_grad


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_rsign_has_a_threshold_a_channel(shape):
    activation = RSign(3, approx_sign)
    with torch.no_grad():
        activation.threshold.copy_(torch.tensor([-0.5, 0.0, 0.25]))
    x = random(*shape)
    x[0, 2] = 0.25  # the threshold itself

    outputs = activation.train()(x)
    outputs.sum().backward()

    v = x.numpy() - np.reshape([-0.5, 0.0, 0.25], (3, *(1,) * (len(shape) - 2))).astype(np.float32)
    assert np.array_equal(np.where(v >= 0, 1, -1), outputs.detach())
    assert torch.equal(outputs, activation.eval()(x))
    slopes = np.where(np.abs(v) < 1, 2 - 2 * np.abs(v), 0)
    axes = (0, *range(2, len(shape)))
    # 60 terms below 2 at most, in float32.
    np.testing.assert_allclose(activation.threshold.grad, -slopes.sum(axes), atol=60 * 120 * 2**-24)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_rprelu_is_a_prelu_with_a_moved_corner(shape):
    activation = RPReLU(3)
    beta, gamma, zeta = np.float32([[0.5, -1.0, 0.0], [-0.25, 0.0, 0.5], [1.0, -2.0, 0.125]])
    with torch.no_grad():
        for name, values in (("beta", beta), ("gamma", gamma), ("zeta", zeta)):
            getattr(activation, name).copy_(torch.from_numpy(values))
    x = random(*shape)

    outputs = activation(x).detach().numpy()

    b, g, z = (one.reshape(3, *(1,) * (len(shape) - 2)) for one in (beta, gamma, zeta))
    moved = x.numpy() - g
    assert np.array_equal(np.where(moved > 0, moved, b * moved) + z, outputs)


def test_rprelu_starts_as_a_prelu():
    x = random(2, 3, 5)

    assert torch.equal(nn.PReLU(3)(x), RPReLU(3)(x))
