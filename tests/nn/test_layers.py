"""The layers, in both modes, and what is done to the weights of a whole model."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402  # torch may be missing
    BinaryActivation,
    BinaryLinear,
    bake_weights,
    clip_weights_,
)

WEIGHT = [[0.5, -0.25, 0.0], [-2.0, -0.0, 1.0]]
SIGNS = [[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]


@pytest.fixture
def layer():
    """A 3 -> 2 layer with a bias, a zero of either sign and a weight outside the window."""
    layer = BinaryLinear(3, 2, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        layer.bias.copy_(torch.tensor([10.0, -20.0]))
    return layer


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


def test_eval_mode_gives_latent_weights_no_gradient(layer):
    layer.eval()

    layer(torch.ones(1, 3)).sum().backward()

    assert layer.weight.grad is None
    assert layer.bias.grad is not None


def test_activation_trains_through_the_window_and_evaluates_plainly():
    activation = BinaryActivation()
    x = torch.tensor([-1.5, -1.0, 0.0, 2.0], requires_grad=True)

    trained = activation.train()(x)
    trained.sum().backward()
    evaluated = activation.eval()(x)

    assert trained.tolist() == evaluated.tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert not evaluated.requires_grad


def test_clip_clamps_latent_weights_and_nothing_else(layer):
    plain = nn.Linear(1, 1)
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        plain.weight.fill_(7.0)
        norm.weight.fill_(-7.0)
        layer.weight[0] = torch.tensor([1.0, 1.0 + 2.0**-23, -1.0])
    before = layer.weight.data_ptr()

    clip_weights_(nn.Sequential(plain, nn.Sequential(layer, norm)))

    assert layer.weight.tolist() == [[1.0, 1.0, -1.0], [-1.0, 0.0, 1.0]]
    assert before == layer.weight.data_ptr()
    assert layer.weight.requires_grad
    assert layer.bias.tolist() == [10.0, -20.0]
    assert plain.weight.tolist() == [[7.0]]
    assert norm.weight.tolist() == [-7.0, -7.0]


def test_clip_takes_a_single_layer(layer):
    clip_weights_(layer)

    assert layer.weight.abs().max() == 1.0


def test_bake_gives_ordinary_layers_with_the_same_outputs(layer):
    model = nn.Sequential(nn.Sequential(layer, BinaryActivation()), BinaryLinear(2, 4)).eval()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    baked = bake_weights(model)

    assert type(baked[0][0]) is nn.Linear
    assert baked[0][0].weight.tolist() == SIGNS
    assert not any(isinstance(part, BinaryLinear) for part in baked.modules())
    assert not any(part.training for part in baked.modules())
    assert torch.equal(model(x), baked(x))


def test_bake_leaves_the_model_and_the_generator_alone(layer):
    model = nn.Sequential(layer)
    state = torch.get_rng_state()

    baked = bake_weights(model)
    with torch.no_grad():
        baked[0].bias.zero_()

    assert model[0] is layer
    assert layer.weight.tolist() == WEIGHT
    assert layer.bias.tolist() == [10.0, -20.0]
    assert torch.equal(state, torch.get_rng_state())


def test_bake_replaces_a_layer_under_all_its_names():
    square = BinaryLinear(2, 2)

    baked = bake_weights(nn.ModuleDict({"first": square, "second": square}))

    assert [type(baked[name]) for name in ("first", "second")] == [nn.Linear, nn.Linear]


def test_bake_takes_a_single_layer(layer):
    assert bake_weights(layer).weight.tolist() == SIGNS
