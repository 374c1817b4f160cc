"""bnncc.nn.training.recipe: from a command line to a table, without a compiler."""

import json
import re
import statistics
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch first: without it the module is skipped

from bnncc.nn import BinaryActivation, BinaryLinear, float_twin  # noqa: E402
from bnncc.nn.training import (  # noqa: E402
    Agreement,
    Plan,
    Recipe,
    Row,
    linear_decay,
    option_parser,
    parse_options,
    run,
    synthetic,
)

IMAGES = synthetic((16,), classes=4, train=80, test=40)
PLAN = Plan(2, 20, lambda model: torch.optim.Adam(model.parameters(), lr=0.01), linear_decay)


def network():
    return nn.Sequential(
        BinaryLinear(16, 12), nn.BatchNorm1d(12), BinaryActivation(), BinaryLinear(12, 4)
    )


TWIN = Recipe("twin", lambda: float_twin(network(), nn.Hardtanh), PLAN, compiled=False)
FROM_TWIN = Recipe("from_twin", network, PLAN, compiled=False, start="twin")


def options(out, *argv):
    parser = option_parser("A test.", out=out, epochs=2, batch_size=20, learning_rate=0.01)
    return parse_options(parser, list(map(str, argv)), {"epochs": 1, "images": 40})


def test_quick_sets_what_is_not_given(tmp_path):
    assert options(tmp_path).epochs == 2
    assert (options(tmp_path, "--quick").epochs, options(tmp_path, "--quick").images) == (1, 40)
    quick = options(tmp_path, "--quick", "--epochs", 7)
    assert (quick.epochs, quick.images) == (7, 40)


def test_what_is_printed_and_written(tmp_path, capsys):
    (outcome,) = run("Title", [TWIN], IMAGES, options(tmp_path, "--seed", 5))

    printed = capsys.readouterr().out
    assert re.match(
        r"twin, seed 5\n"
        r"  epoch 1/2: loss \d\.\d{5}, validation error \d+\.\d\d%, \d+\.\d s\n"
        r"  epoch 2/2: loss \d\.\d{5}, validation error \d+\.\d\d%, \d+\.\d s\n"
        r"Title *\n",
        printed,
    )
    row = outcome.rows[0]
    cells = next(line for line in printed.splitlines() if line.startswith("│ twin")).split("│")
    assert [cell.strip() for cell in cells[2:4]] == [
        f"{1 - row.accuracy:.2%}",
        f"{row.accuracy:.2%}",
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["options"]["seed"] == [5]
    assert results["networks"]["twin"]["rows"][0]["images"] == 40
    assert [one["epoch"] for one in results["networks"]["twin"]["epochs"]] == [1, 2]
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()


def test_fewer_images_of_all_three(tmp_path):
    (outcome,) = run("Title", [TWIN], IMAGES, options(tmp_path, "--images", 40))

    assert outcome.rows[0].images == 8


def test_seeds_change_the_initial_weights_too(tmp_path):
    still = replace(PLAN, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    recipes = [replace(TWIN, plan=still)]

    first, second = run("Title", recipes, IMAGES, options(tmp_path, "--seeds", 1, 2))

    assert (first.seed, second.seed) == (1, 2)
    assert not torch.equal(first.model[0].weight, second.model[0].weight)
    assert {one.name for one in tmp_path.iterdir()} == {"seed1", "seed2"}


def test_several_seeds_give_their_mean(tmp_path, capsys):
    outcomes = run("Title", [TWIN], IMAGES, options(tmp_path, "--seeds", 1, 2, 3))

    table = capsys.readouterr().out.split("Title: test error over seeds")[1]
    errors = [100 * (1 - one.rows[0].accuracy) for one in outcomes]
    (row,) = re.findall(
        r"^│ twin +│ +(\S+)% │ +(\S+)% │ +(\S+)% (\S+)% (\S+)% │$", table, re.MULTILINE
    )
    expected = [statistics.mean(errors), statistics.stdev(errors), *errors]
    assert len(set(errors)) > 1
    assert [float(value) for value in row] == pytest.approx(expected, abs=0.0051)


def test_a_recipe_starts_from_the_trained_weights_of_another(tmp_path):
    still = replace(PLAN, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    twin, binary = run("Title", [TWIN, replace(FROM_TWIN, plan=still)], IMAGES, options(tmp_path))

    assert torch.equal(binary.model[0].weight, twin.model[0].weight.clamp(-1, 1))


def test_a_run_in_parts_waits_for_what_it_starts_from(tmp_path, capsys):
    """Each part resumed, and the bits of a run in one go."""
    straight = run("Title", [TWIN, FROM_TWIN], IMAGES, options(tmp_path / "straight"))
    parts = partial(run, "Title", [TWIN, FROM_TWIN], IMAGES)
    capsys.readouterr()

    assert parts(options(tmp_path / "parts", "--stop-after", 1)) == []
    assert capsys.readouterr().out.splitlines()[-1] == "from_twin waits until twin is trained"
    resumed = parts(options(tmp_path / "parts", "--resume"))

    for one, other in zip(straight, resumed, strict=True):
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name])


@pytest.mark.parametrize("ok", [True, False])
def test_c_that_differs_ends_with_3(tmp_path, monkeypatch, capsys, ok):
    row = Row("net", 1, 2, 3, 4.0)
    agreement = Agreement(2, 1, 1, 10, 0, ok)
    judged = SimpleNamespace(in_float=row, in_c=row, agreement=agreement)
    monkeypatch.setattr("bnncc.nn.training.recipe.compile_and_check", lambda *_: judged)
    recipes = [replace(TWIN, name="net", compiled=True)]

    if ok:
        run("Title", recipes, IMAGES, options(tmp_path))
    else:
        with pytest.raises(SystemExit, match=r"^3$"):
            run("Title", recipes, IMAGES, options(tmp_path))

    assert f"\nnet: {agreement}\n" in capsys.readouterr().out


def test_without_matplotlib_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bnncc.nn.training.recipe.plot_histories", lambda *_: False)

    run("Title", [TWIN], IMAGES, options(tmp_path))

    wanted = "no curves.png without matplotlib: pip install 'bnncc[train]'"
    assert wanted in capsys.readouterr().out.splitlines()
