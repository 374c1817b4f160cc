"""What is done to the weights of a whole model: learning rates, clipping, baking."""

import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402
    AbsMean,
    Alpha,
    AlphaKappa,
    BinaryActivation,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    Factorised,
    bake_weights,
    clip_weights_,
    magnitude_aware,
    parameter_groups,
    ste,
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


# --- Clipping -------------------------------------------------------------------------------------


def test_clip_clamps_latent_weights_and_nothing_else(layer):
    plain = nn.Linear(1, 1)
    norm = nn.BatchNorm1d(2)
    scaled = BinaryConv1d(2, 2, 1, scale=Factorised(2))
    with torch.no_grad():
        for parameter in (plain.weight, scaled.weight, scaled.scale.channels):
            parameter.fill_(7.0)
        norm.weight.fill_(-7.0)
        layer.weight[0] = torch.tensor([1.0, 1.0 + 2.0**-23, -1.0])
    before = layer.weight.data_ptr()

    clip_weights_(nn.Sequential(plain, nn.Sequential(layer, norm), scaled))

    assert layer.weight.tolist() == [[1.0, 1.0, -1.0], [-1.0, 0.0, 1.0]]
    assert before == layer.weight.data_ptr()
    assert layer.weight.requires_grad
    assert layer.bias.tolist() == [10.0, -20.0]
    assert plain.weight.tolist() == [[7.0]]
    assert norm.weight.tolist() == [-7.0, -7.0]
    assert scaled.weight.unique().tolist() == [1.0]
    assert scaled.scale.channels.tolist() == [7.0, 7.0]


def test_clip_takes_a_single_layer(layer):
    clip_weights_(layer)

    assert layer.weight.abs().max() == 1.0


# --- Learning rates -------------------------------------------------------------------------------


def network():
    return nn.Sequential(
        BinaryConv2d(3, 5, (3, 2)),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 4, 1),
        nn.Flatten(),
        BinaryLinear(784, 4096, bias=True, scale=Factorised(4096)),
    )


def test_learning_rates_are_divided_by_glorots_coefficients():
    """The coefficient of BinaryConnect's code is sqrt(1.5 / (fan_in + fan_out))."""
    conv, dense, rest = parameter_groups(network(), 0.5, weight_decay=1e-4)

    assert conv["lr"] == pytest.approx(0.5 / math.sqrt(1.5 / (3 * 6 + 5 * 6)))
    assert dense["lr"] == pytest.approx(0.5 / math.sqrt(1.5 / (784 + 4096)))
    assert rest["lr"] == 0.5
    assert [group["weight_decay"] for group in (conv, dense, rest)] == [0.0, 0.0, 1e-4]


def test_learning_rates_for_sgd_are_divided_by_the_squares():
    conv, dense, rest = parameter_groups(network(), 0.5, squared=True)

    assert conv["lr"] == pytest.approx(0.5 / (1.5 / (3 * 6 + 5 * 6)))
    assert dense["lr"] == pytest.approx(0.5 / (1.5 / (784 + 4096)))
    assert rest["lr"] == 0.5


def test_learning_rates_are_one_without_glorot():
    assert [group["lr"] for group in parameter_groups(network(), 0.5, glorot=False)] == [0.5] * 3


def test_every_parameter_is_in_one_group_even_if_layers_are_shared():
    model = network()
    shared = nn.ModuleDict({"first": model, "second": model[0]})

    groups = parameter_groups(shared, 1e-3)

    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in shared.parameters()}
    assert [len(group["params"]) for group in groups] == [1, 1, 6]
    assert groups[1]["params"][0] is model[4].weight


def test_groups_fit_an_optimizer_whose_step_is_scaled():
    model = nn.Sequential(BinaryLinear(2, 4), nn.BatchNorm1d(4))
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(parameter_groups(model, 0.25))

    model[0].weight.grad = torch.ones(4, 2)
    optimizer.step()

    torch.testing.assert_close(before - model[0].weight, torch.full((4, 2), 0.25 * 2.0))


# --- Baking ---------------------------------------------------------------------------------------


def test_bake_puts_signs_in_the_place_of_latent_weights(layer):
    model = nn.Sequential(nn.Sequential(layer, BinaryActivation()), BinaryLinear(2, 4)).eval()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    baked = bake_weights(model)

    assert baked[0][0].weight.tolist() == SIGNS
    assert not baked[0][0].weight.requires_grad
    assert not any(part.training for part in baked.modules())
    assert torch.equal(model(x), baked(x))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **options: BinaryLinear(6, 4, **options), (2, 6)),
        (lambda **options: BinaryConv1d(6, 4, 3, padding=1, padding_value=1, **options), (2, 6, 9)),
        (lambda **options: BinaryConv2d(6, 4, 3, padding=1, **options), (2, 6, 9, 7)),
    ],
)
@pytest.mark.parametrize(
    "make_scale", [lambda: None, Alpha, AbsMean, AlphaKappa, lambda: Factorised(4)]
)
@pytest.mark.parametrize("estimator", [ste, magnitude_aware])
def test_baked_layers_compute_the_same_bits(estimator, make_scale, make, shape):
    layer = make(estimator=estimator, activation=ste, scale=make_scale(), bias=True).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    baked = bake_weights(layer)
    twice = bake_weights(baked)

    assert len(baked.weight[0].abs().unique()) == 1
    assert torch.equal(layer(x), baked(x))
    assert torch.equal(layer(x), twice(x))


def test_bake_leaves_the_model_and_the_generator_alone(layer):
    model = nn.Sequential(layer)
    state = torch.get_rng_state()

    baked = bake_weights(model)
    with torch.no_grad():
        baked[0].bias.zero_()

    assert model[0] is layer
    assert layer.weight.tolist() == WEIGHT
    assert layer.weight.requires_grad
    assert layer.estimator is ste
    assert layer.bias.tolist() == [10.0, -20.0]
    assert torch.equal(state, torch.get_rng_state())


def test_bake_leaves_the_scale_of_the_model_alone():
    layer = BinaryLinear(3, 2, scale=Alpha())

    bake_weights(layer)

    assert layer.scale.baked is None


def test_bake_keeps_a_layer_under_all_its_names():
    square = BinaryLinear(2, 2)

    baked = bake_weights(nn.ModuleDict({"first": square, "second": square}))

    assert baked["first"] is baked["second"]
    assert isinstance(baked["first"], BinaryLayer)


def test_bake_takes_a_single_layer(layer):
    assert bake_weights(layer).weight.tolist() == SIGNS
