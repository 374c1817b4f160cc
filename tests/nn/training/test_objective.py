"""bnncc.nn.training.objective: the loss and the schedules, on hand-computed cases."""

import pytest

torch = pytest.importorskip("torch")

from bnncc.nn.training import (  # noqa: E402  # torch first: without it the module is skipped
    exponential_decay,
    linear_decay,
    square_hinge,
    step_decay,
)


def rates(schedule, epochs, first=(1.0,)):
    """The learning rates of each epoch, a list for each parameter group."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in first]
    optimizer = torch.optim.SGD(groups)
    stepped = schedule(optimizer)
    seen = []
    for _ in range(epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        stepped.step()
    return [list(group) for group in zip(*seen, strict=True)]


def test_square_hinge_is_that_of_the_paper():
    logits = torch.tensor([[2.0, -3.0, 0.5], [0.0, 1.0, -1.0]])
    labels = torch.tensor([0, 2], dtype=torch.uint8)

    loss = square_hinge(logits, labels)

    # Targets +1 -1 -1 and -1 -1 +1, so the hinges are 0 0 1.5 and 1 2 2.
    assert loss.item() == pytest.approx((1.5**2 + 1 + 4 + 4) / 6)


def test_exponential_decay_ends_at_the_share_and_keeps_ratios():
    first, second = rates(lambda o: exponential_decay(o, 5, 1e-4), 5, first=(1.0, 3.0))

    assert first == pytest.approx([1, 1e-1, 1e-2, 1e-3, 1e-4])
    assert second == pytest.approx([3, 3e-1, 3e-2, 3e-3, 3e-4])


def test_one_epoch_decays_nothing():
    assert rates(lambda o: exponential_decay(o, 1, 1e-4), 1) == [[1.0]]


def test_linear_decay_reaches_zero_after_the_last_epoch():
    assert rates(lambda o: linear_decay(o, 4), 5) == [[1.0, 0.75, 0.5, 0.25, 0.0]]


def test_step_decay_is_bi_real_nets():
    (seen,) = rates(lambda o: step_decay(o, (10, 15)), 20, first=(0.01,))

    assert seen == pytest.approx([0.01] * 10 + [0.001] * 5 + [0.0001] * 5)
