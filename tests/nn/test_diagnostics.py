"""What to look at while a network trains, on cases counted by hand."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402
    BinaryActivation,
    BinaryConv1d,
    BinaryLinear,
    RSign,
    flip_rate,
    share_at_clip,
    share_in_window,
    snapshot_signs,
    ste,
)


def network():
    """A dense layer within another module, and a convolution, with weights known by heart."""
    model = nn.ModuleDict(
        {"inner": nn.Sequential(BinaryLinear(4, 2), nn.Linear(2, 2)), "conv": BinaryConv1d(1, 1, 5)}
    )
    with torch.no_grad():
        model["inner"][0].weight.copy_(
            torch.tensor([[0.5, -0.5, 0.0, -0.0], [1.0, -1.0, 1.5, -0.25]])
        )
        model["conv"].weight.fill_(-0.5)
    return model


def test_flip_rate_counts_the_signs_that_changed():
    model = network()
    before = snapshot_signs(model)
    with torch.no_grad():
        # From 0 to -0 is no flip, from 0 to below is one.
        model["inner"][0].weight[0] = torch.tensor([-0.5, -0.1, -0.0, -(2.0**-149)])
        model["inner"][1].weight.neg_()

    assert flip_rate(before, snapshot_signs(model)) == {"inner.0": 2 / 8, "conv": 0.0}
    assert flip_rate(before, before) == {"inner.0": 0.0, "conv": 0.0}


def test_a_snapshot_is_not_moved_by_training():
    model = network()
    before = snapshot_signs(model)
    with torch.no_grad():
        model["conv"].weight.neg_()

    assert flip_rate(before, snapshot_signs(model))["conv"] == 1.0


def test_snapshots_of_different_models_are_refused():
    model = network()

    message = r"^snapshots of different models: \['', 'conv', 'inner.0'\] are in one only$"
    with pytest.raises(ValueError, match=message):
        flip_rate(snapshot_signs(model), snapshot_signs(BinaryLinear(4, 2)))


def test_share_at_clip_counts_both_ends():
    assert share_at_clip(network()) == {"inner.0": 3 / 8, "conv": 0.0}


def test_share_in_window_looks_at_what_is_decided():
    model = nn.Sequential(
        BinaryActivation(),
        nn.Sequential(RSign(1), nn.Identity()),
        BinaryLinear(4, 1, activation=ste),
        BinaryLinear(1, 1),
    )
    with torch.no_grad():
        model[1][0].threshold.fill_(-0.5)  # 1.5 and -0.5 are decided
    x = torch.tensor([[[-1.0, 1.0, 1.0 + 2.0**-23, -3.0]]])

    shares = share_in_window(model, x)

    # Signs of the first: - + + -, of the second the same: all within the window of the third.
    assert shares == {"0": 2 / 4, "1.0": 2 / 4, "2": 1.0}


def test_share_in_window_leaves_no_hook_behind_even_on_failure():
    model = nn.Sequential(BinaryActivation(), nn.Linear(3, 1))

    with pytest.raises(RuntimeError):
        share_in_window(model, torch.zeros(1, 2))

    assert not model[0]._forward_pre_hooks
