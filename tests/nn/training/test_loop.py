"""bnncc.nn.training.loop: steps, the choice of an epoch, exact resuming, statistics anew."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch first: without it the module is skipped

from bnncc.nn import BinaryActivation, BinaryLinear, stochastic  # noqa: E402
from bnncc.nn.training import (  # noqa: E402
    Plan,
    Processes,
    count_correct,
    exponential_decay,
    fit,
    recalibrate_statistics,
    seed_everything,
    square_hinge,
    synthetic,
    train_epoch,
)

ALONE = Processes(torch.device("cpu"))
IMAGES = synthetic((1, 8, 8), classes=5, train=160, test=40)


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)


PLAN = Plan(3, 20, adam, lambda optimizer, epochs: exponential_decay(optimizer, epochs, 0.01))


def network(seed=0):
    """Everything that draws random numbers, and everything that has a state."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        BinaryLinear(64, 32, estimator=stochastic),
        nn.BatchNorm1d(32),
        BinaryActivation(),
        nn.Dropout(0.2),
        BinaryLinear(32, 5),
        nn.BatchNorm1d(5),
    )


def assert_same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def without_seconds(history):
    return [replace(figures, seconds=0) for figures in history.epochs]


def test_a_step_is_that_of_the_optimizer_and_the_clip():
    model = nn.Sequential(BinaryLinear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, -0.9, 0.1], [-0.1, 0.5, -0.5]]))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    # Both weights are +-1, so the gradient of the sum of outputs is x for each.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    loss = train_epoch(model, [(x, x)], lambda logits, _: -logits.sum(), optimizer)

    assert loss == -((1 - 2 + 3) + (-1 + 2 - 3))
    expected = [[1.0, -0.7, 0.4], [0.0, 0.7, -0.2]]  # 0.9 + 0.1 stays 1; no other meets the clip
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor(expected))
    train_epoch(model, [(x, x)], lambda logits, _: -logits.sum(), optimizer)
    assert model[0].weight[0, 0].item() == 1.0


def test_the_loss_of_an_epoch_is_the_mean_of_its_minibatches():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [(torch.ones(2, 1), value) for value in (1.0, 2.0, 6.0)]

    assert train_epoch(model, batches, lambda y, value: 0 * y.sum() + value, optimizer) == 3.0


def test_training_learns():
    model = network()

    history = fit(model, IMAGES, replace(PLAN, epochs=8), ALONE)

    assert not model.training
    assert history.epochs[-1].loss < history.epochs[0].loss
    # Chance is 0.2; the patterns are told apart by any look at them.
    assert count_correct(model, IMAGES.test, ALONE) / len(IMAGES.test) > 0.8


def test_the_same_seed_gives_the_same_bits():
    models = [network(), network(), network()]
    seeds = [1, 1, 2]
    histories = [
        fit(model, IMAGES, replace(PLAN, seed=seed), ALONE)
        for model, seed in zip(models, seeds, strict=True)
    ]

    assert_same_state(models[0], models[1])
    assert without_seconds(histories[0]) == without_seconds(histories[1])
    assert not torch.equal(models[0][1].weight, models[2][1].weight)


def test_resuming_gives_the_bits_of_an_uninterrupted_training(tmp_path):
    straight = network()
    expected = fit(straight, IMAGES, PLAN, ALONE)
    path = tmp_path / "folder" / "checkpoint"

    first = fit(network(), IMAGES, PLAN, ALONE, checkpoint=path, stop_after=1)
    torch.rand(7)  # whatever happened in between
    resumed = network(seed=9)
    history = fit(resumed, IMAGES, PLAN, ALONE, checkpoint=path, resume=True)

    assert len(first.epochs) == 1
    assert without_seconds(history) == without_seconds(expected)
    assert_same_state(straight, resumed)
    assert [one.name for one in path.parent.iterdir()] == ["checkpoint"]


def test_resuming_what_is_done_gives_what_came_out(tmp_path):
    model = network()
    history = fit(model, IMAGES, PLAN, ALONE, checkpoint=tmp_path / "checkpoint")
    again = network(seed=9)

    repeated = fit(again, IMAGES, PLAN, ALONE, checkpoint=tmp_path / "checkpoint", resume=True)

    assert repeated == history
    assert_same_state(model, again)


def test_without_resume_a_checkpoint_is_overwritten(tmp_path):
    path = tmp_path / "checkpoint"
    fit(network(), IMAGES, PLAN, ALONE, checkpoint=path)

    history = fit(network(), IMAGES, PLAN, ALONE, checkpoint=path, stop_after=2)

    assert [figures.epoch for figures in history.epochs] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 4, "was written with epochs = 3, not 4"),
        ("batch_size", 40, "was written with batch_size = 20, not 40"),
        ("seed", 5, "was written with seed = 0, not 5"),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused(tmp_path, name, value, message):
    path = tmp_path / "checkpoint"
    fit(network(), IMAGES, PLAN, ALONE, checkpoint=path, stop_after=1)

    with pytest.raises(ValueError, match=message):
        fit(network(), IMAGES, replace(PLAN, **{name: value}), ALONE, checkpoint=path, resume=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit(network(), IMAGES, PLAN, ALONE, checkpoint=path, stop_after=1)
    other = nn.Sequential(nn.Flatten(), BinaryLinear(64, 5))

    with pytest.raises(ValueError, match="is of another model"):
        fit(other, IMAGES, PLAN, ALONE, checkpoint=path, resume=True)


def test_no_epoch_is_no_training():
    with pytest.raises(ValueError, match="a training has at least 1 epoch, not 0"):
        fit(network(), IMAGES, replace(PLAN, epochs=0), ALONE)


def test_the_best_epoch_by_validation_is_kept(monkeypatch):
    """The model is the one after the first of the best epochs, whatever came later."""
    accuracies = iter([3, 9, 9, 1])
    kept = []

    def counted(model, images, team):
        kept.append(copy.deepcopy(model.state_dict()))
        return next(accuracies)

    monkeypatch.setattr("bnncc.nn.training.loop.count_correct", counted)
    model = network()

    history = fit(model, IMAGES, replace(PLAN, epochs=4), ALONE)

    assert history.best.epoch == 2
    assert all(torch.equal(value, kept[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(kept[1]["1.weight"], kept[3]["1.weight"])


def test_flips_are_counted_by_layer():
    history = fit(network(), IMAGES, PLAN, ALONE)

    assert [list(figures.flips) for figures in history.epochs] == [["1", "5"]] * 3
    assert all(0 < figures.flips["1"] < 1 for figures in history.epochs)


def test_the_test_images_are_not_looked_at():
    blind = replace(IMAGES, test=None)

    assert without_seconds(fit(network(), blind, PLAN, ALONE)) == without_seconds(
        fit(network(), IMAGES, PLAN, ALONE)
    )


def test_progress_is_shown_a_minibatch_at_a_time():
    seen = []

    def watch(batches, count):
        for number, batch in enumerate(batches):
            seen.append((number, count))
            yield batch

    fit(network(), IMAGES, replace(PLAN, epochs=1), ALONE, watch=watch)

    assert seen == [(number, 8) for number in range(8)]


def test_recalibrated_statistics_are_the_averages_of_the_minibatches():
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=0.3), nn.Dropout(0.5), nn.Linear(2, 2))
    batches = [(torch.randn(6, 2) * 3 + 1, None) for _ in range(4)]

    recalibrate_statistics(model, batches)

    means = torch.stack([x.mean(0) for x, _ in batches])
    variances = torch.stack([x.var(0) for x, _ in batches])
    torch.testing.assert_close(model[0].running_mean, means.mean(0))
    torch.testing.assert_close(model[0].running_var, variances.mean(0))
    assert model[0].momentum == 0.3
    assert not any(layer.training for layer in model.modules())


def test_random_weights_are_deterministic_while_statistics_are_taken():
    """A stochastic layer's statistics are those of the signs that are evaluated."""
    model = network()
    x = torch.randn(50, 64)

    recalibrate_statistics(model, [(x, None)])

    sums = x @ torch.where(model[1].weight >= 0, 1.0, -1.0).T
    torch.testing.assert_close(model[2].running_mean, sums.mean(0))


def test_seeds_are_hashed():
    first = [seed_everything(*numbers).initial_seed() for numbers in ((0, 1), (1, 0), (0, 1), (1,))]

    assert first[0] == first[2]
    assert len(set(first)) == 3
    assert torch.initial_seed() == first[-1]


def test_equal_logits_count_as_the_first_class():
    always_first = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    nn.init.zeros_(always_first[1].weight)
    nn.init.zeros_(always_first[1].bias)

    correct = count_correct(always_first, IMAGES.test, ALONE)

    assert correct == int((IMAGES.test.labels == 0).sum())


def test_the_default_loss_is_the_papers():
    assert PLAN.loss is square_hinge
