"""The model definitions: structure, size, and that they learn."""

import itertools
import re

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402  # torch may be missing
    BinaryActivation,
    BinaryLinear,
    bipolar_sign,
    bnn_mlp,
    clip_weights_,
)


def test_mlp_is_the_network_of_the_paper():
    with torch.device("meta"):
        model = bnn_mlp()

    assert [(name, type(layer)) for name, layer in model.named_children()] == [
        ("fc1", BinaryLinear),
        ("bn1", nn.BatchNorm1d),
        ("sign1", BinaryActivation),
        ("fc2", BinaryLinear),
        ("bn2", nn.BatchNorm1d),
        ("sign2", BinaryActivation),
        ("fc3", BinaryLinear),
        ("bn3", nn.BatchNorm1d),
        ("sign3", BinaryActivation),
        ("fc4", BinaryLinear),
        ("bn4", nn.BatchNorm1d),
    ]
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, BinaryLinear)]
    assert shapes == [(4096, 784), (4096, 4096), (4096, 4096), (10, 4096)]


def test_mlp_takes_its_sizes_from_the_caller():
    model = bnn_mlp(7, 1, in_features=5, classes=3, dropout=0.25)

    assert [name for name, _ in model.named_children()] == [
        "fc1",
        "bn1",
        "sign1",
        "drop1",
        "fc2",
        "bn2",
    ]
    assert model.drop1.p == 0.25
    assert model(torch.zeros(4, 5)).shape == (4, 3)


def test_mlp_without_a_hidden_layer_is_refused():
    message = re.escape("bnn_mlp needs at least 1 hidden layer, not 0")
    with pytest.raises(ValueError, match=f"^{message}$"):
        bnn_mlp(layers=0)


def test_mlp_learns_the_parity_of_two_bits_in_all_its_layers():
    """No linear model can, and hidden signs that never flip would not have been trained."""
    x = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
    labels = (x[:, 0] * x[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = bnn_mlp(64, 2, in_features=8, classes=2)
    hidden = (model.fc1, model.fc2)
    before = [bipolar_sign(layer.weight) for layer in hidden]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clip_weights_(model)

    accuracy = (model.eval()(x).argmax(1) == labels).float().mean().item()
    flips = [
        (bipolar_sign(layer.weight) != signs).sum().item()
        for layer, signs in zip(hidden, before, strict=True)
    ]
    assert accuracy > 0.9
    assert min(flips) > 50
    assert max(layer.weight.abs().max().item() for layer in hidden) <= 1.0
