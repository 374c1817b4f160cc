"""The float twin: same names and weights, ordinary layers."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402
    Alpha,
    BinaryActivation,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    RSign,
    float_twin,
    ste,
)


def network():
    return nn.Sequential(
        BinaryConv2d(3, 4, (3, 2), 2, (1, 0), bias=True, padding_value=1, scale=Alpha()),
        nn.BatchNorm2d(4),
        BinaryActivation(),
        nn.Flatten(2),
        BinaryConv1d(4, 6, 3, dilation=2, groups=2),
        RSign(6),
        nn.Flatten(),
        BinaryLinear(12, 5, activation=ste),
    )


def test_twin_has_ordinary_layers_of_the_same_kind():
    twin = float_twin(network())

    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Conv1d, nn.ReLU, nn.Flatten]
    assert [type(part) for part in twin[:-1]] == kinds
    assert [type(part) for part in twin[-1]] == [nn.ReLU, nn.Linear]
    assert not any(isinstance(p, BinaryLayer | BinaryActivation) for p in twin.modules())
    assert twin(torch.ones(2, 3, 5, 5)).shape == (2, 5)


def test_twin_computes_with_the_latent_weights():
    layer = BinaryConv2d(4, 6, (3, 2), (2, 1), (1, 0), dilation=(1, 2), groups=2, bias=True)
    x = torch.randn(2, 4, 7, 6, generator=torch.Generator().manual_seed(0))

    outputs = float_twin(nn.Sequential(layer))(x)

    expected = nn.functional.conv2d(
        x, layer.weight, layer.bias, (2, 1), (1, 0), dilation=(1, 2), groups=2
    )
    assert torch.equal(expected, outputs)


def test_twin_takes_the_activation_that_it_is_given():
    twin = float_twin(nn.Sequential(BinaryActivation(), BinaryLinear(2, 3)), nn.Hardtanh)

    assert isinstance(twin[0], nn.Hardtanh)


def test_binary_network_starts_from_its_trained_twin():
    """Bi-Real Net's initialisation: train with a clip, then put signs in its place."""
    model = nn.Sequential(BinaryActivation(), BinaryLinear(2, 3), nn.BatchNorm1d(3))
    twin = float_twin(model, nn.Hardtanh)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(0.75)

    model.load_state_dict(twin.state_dict())

    assert model[1].weight.unique().tolist() == [0.75]
    assert model[2].bias.tolist() == [0.75] * 3


def test_twin_shares_nothing_and_keeps_mode_and_generator():
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()

    twin = float_twin(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(9.0)

    assert not any(part.training for part in twin.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in twin.parameters())


def test_twin_of_one_layer_and_of_a_layer_with_two_names():
    square = BinaryLinear(2, 2)

    assert type(float_twin(square)) is nn.Linear
    twin = float_twin(nn.ModuleDict({"first": square, "second": square}))
    assert type(twin["first"]) is nn.Linear
    assert twin["first"] is twin["second"]


def test_a_layer_of_ones_own_is_refused():
    class Own(BinaryLayer):
        pass

    with pytest.raises(TypeError, match=r"^no float twin is known for Own$"):
        float_twin(nn.Sequential(Own()))
