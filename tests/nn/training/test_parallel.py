"""bnncc.nn.training.parallel: two processes of torchrun against what is written of them."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch first: without it the module is skipped

from bnncc.nn import BinaryLinear, clip_weights_  # noqa: E402
from bnncc.nn.training import (  # noqa: E402
    Processes,
    count_correct,
    fit,
    processes,
    seed_everything,
    square_hinge,
)

ROOT = Path(__file__).resolve().parents[3]
ALONE = Processes(torch.device("cpu"))
SCRIPT = Path(__file__).with_name("team.py")


@pytest.fixture(scope="module")
def team():
    """team.py as a module: the same images, plan and network as the two processes have."""
    spec = importlib.util.spec_from_file_location("training_team", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What both processes wrote: results["norms"][rank], and the folder they wrote to."""
    folder = tmp_path_factory.mktemp("team")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *launch, str(SCRIPT), str(folder)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    loaded = {
        name: [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name in ("norms", "plain")
    }
    return loaded, folder


@pytest.fixture(autouse=True)
def one_thread():
    """As many as the processes have: another number would add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_hand(team, epochs):
    """Train two copies in this process, each on its share, with the mean of their gradients."""
    first = team.network()
    second = copy.deepcopy(first)
    optimizer = team.optimizer(first)
    schedule = team.plan().schedule(optimizer, team.plan().epochs)
    for epoch in range(1, epochs + 1):
        first.train()
        second.train()
        shares = [
            team.IMAGES.train.batches(16, seed_everything(0, epoch), rank, 2) for rank in (0, 1)
        ]
        for (x, labels), (other_x, other_labels) in zip(*shares, strict=True):
            optimizer.zero_grad()
            second.zero_grad()
            square_hinge(first(x), labels).backward()
            square_hinge(second(other_x), other_labels).backward()
            for one, other in zip(first.parameters(), second.parameters(), strict=True):
                one.grad = (one.grad + other.grad) / 2
            optimizer.step()
            clip_weights_(first)
            for one, other in zip(first.parameters(), second.parameters(), strict=True):
                other.data.copy_(one.data)
        for one, other in zip(first.buffers(), second.buffers(), strict=True):
            if one.is_floating_point():
                one.copy_((one + other) / 2)
                other.copy_(one)
        schedule.step()
    return first.eval()


@pytest.mark.parametrize("name", ["norms", "plain"])
def test_both_processes_end_with_the_same_bits(results, name):
    (zero, one), _ = results[0][name], results[1]

    assert zero["state"].keys() == one["state"].keys()
    assert all(torch.equal(value, one["state"][key]) for key, value in zero["state"].items())
    assert zero["losses"] == one["losses"]
    assert zero["accuracies"] == one["accuracies"]
    assert zero["correct"] == one["correct"]


def test_a_step_is_one_on_the_mean_gradient_with_a_batch_norm_each(team, results):
    """Bit for bit: of two processes the sum has one order, and halving is exact."""
    result = results[0]["norms"][0]
    best = max(range(2), key=lambda i: result["accuracies"][i]) + 1

    expected = by_hand(team, best)

    for name, value in expected.state_dict().items():
        assert torch.equal(value, result["state"][name]), name
    assert result["correct"] == count_correct(
        expected, team.IMAGES.test, Processes(torch.device("cpu"))
    )


def test_latent_weights_met_the_clip_in_both(results):
    state = results[0]["norms"][0]["state"]

    assert state["1.weight"].abs().max() == 1.0


def test_without_batch_norm_two_processes_do_what_one_does(team, results):
    result = results[0]["plain"][0]
    alone = team.network(norms=False)

    history = fit(alone, team.IMAGES, team.plan(), ALONE)

    # The mean over 16 images and that of two means over 8 differ by the rounding of float32 sums,
    # 2^-24 of values around 1 in each of 12 steps.
    assert [figures.loss for figures in history.epochs] == pytest.approx(result["losses"], rel=1e-5)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(result["state"][name], value, rtol=0, atol=1e-5)


def test_only_the_first_writes(results):
    names = {one.name for one in results[1].iterdir()}

    assert names == {
        *("norms.checkpoint", "norms0.pt", "norms1.pt"),
        *("plain.checkpoint", "plain0.pt", "plain1.pt"),
    }


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = nn.Sequential(BinaryLinear(2, 2))

    with processes("cpu") as alone:
        assert not torch.distributed.is_initialized()
        assert (alone.rank, alone.world, alone.leads) == (0, 1, True)
        assert alone.wrap(model) is model
        assert alone.total(1.0, 2.0) == [1.0, 2.0]
