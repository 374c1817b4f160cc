"""bnncc.nn.training.report: the comparison with the C, and that it would notice."""

import io

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402  # torch first: without it the module is skipped
from torch import nn  # noqa: E402

import bnncc  # noqa: E402
from bnncc.nn import float_twin  # noqa: E402
from bnncc.nn.models import bnn_mlp  # noqa: E402
from bnncc.nn.training import (  # noqa: E402
    Row,
    compile_and_check,
    float_row,
    results_table,
    synthetic,
)

IMAGES = synthetic((36,), classes=10, train=64, test=50).test


def hostile(model):
    """Give BatchNorm what training gives it, and worse: falling and constant channels."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias, std=3)
            nn.init.normal_(layer.running_mean, std=4)
            nn.init.uniform_(layer.running_var, 0.5, 30)
            with torch.no_grad():
                layer.weight[::7] = 0
    return model.eval()


def classes_of(model):
    return torch.cat([model(images).argmax(1) for images, _ in IMAGES.in_order()])


@pytest.fixture(scope="module")
def model():
    return hostile(bnn_mlp(40, 2, in_features=36))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """The whole way, once: the folder, what was compiled, and what came of the comparison."""
    folder = tmp_path_factory.mktemp("report") / "new"
    compiled, original = [], bnncc.compile

    def remember(*args, **options):
        compiled.append(original(*args, **options))
        return compiled[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bnncc, "compile", remember)
        result = compile_and_check("small", model, IMAGES, folder, sample=10)
    return folder, compiled[0], result


@pytest.fixture
def compiled_before(done, monkeypatch):
    """Compiling gives what was compiled before: exporting takes seconds."""
    monkeypatch.setattr(bnncc, "compile", lambda *args, **options: done[1])


def test_float_and_c_are_compared_image_by_image(model, done):
    folder, _, result = done
    correct = int((classes_of(model) == IMAGES.labels).sum())
    assert {one.name for one in folder.iterdir()} == {"small.c", "small.h"}
    assert (result.in_float.correct, result.in_c.correct) == (correct, correct)
    assert (result.in_float.network, result.in_c.network) == ("small: float", "small: C")
    agreement = result.agreement
    assert (agreement.images, agreement.differing, agreement.ok) == (50, 0, True)
    assert (agreement.verified, agreement.bits) == (10, 10 * 80)
    assert str(agreement) == (
        "C = float: same class for 50 of 50 images; 10 verified layer by layer, "
        "800 bits compared, 0 undecided"
    )


def test_sizes_and_times_are_those_of_each(done):
    result = done[2]
    # Latent weights, and four numbers a channel of BatchNorm.
    weights = 36 * 40 + 40 * 40 + 40 * 10
    assert result.in_float.size == 4 * (weights + 4 * (40 + 40 + 10))
    assert weights / 8 < result.in_c.size < result.in_float.size / 8
    assert 0 < result.in_c.milliseconds < result.in_float.milliseconds


def test_c_that_answers_otherwise_is_noticed(model, compiled_before, tmp_path, monkeypatch):
    load = bnncc.load

    class Wrong:
        """Answers with the scores of the classes in reverse."""

        def __init__(self, runner):
            self.nanoseconds_per_sample = runner.nanoseconds_per_sample
            self.runner = runner

        def __call__(self, x):
            return self.runner(x)[:, ::-1].copy()

    monkeypatch.setattr(bnncc, "load", lambda artifact: Wrong(load(artifact)))

    agreement = compile_and_check("small", model, IMAGES, tmp_path, sample=10).agreement

    assert (agreement.differing, agreement.verified, agreement.ok) == (50, 50, False)
    assert str(agreement).startswith("C DIFFERS from float: same class for 0 of 50 images")


def test_a_difference_in_a_layer_is_noticed(model, compiled_before, tmp_path, monkeypatch):
    verify = bnncc.verify

    def failing(artifact, data):
        result = verify(artifact, data=data)
        result.layers[0].mismatches = 1
        return result

    monkeypatch.setattr(bnncc, "verify", failing)

    assert not compile_and_check("small", model, IMAGES, tmp_path, sample=10).agreement.ok


def test_the_float_twin_has_a_row_of_its_own():
    model = hostile(float_twin(bnn_mlp(40, 2, in_features=36)))

    row = float_row("twin", model.train(), IMAGES)

    assert not model.training
    assert row.network == "twin"
    assert row.correct == int((classes_of(model) == IMAGES.labels).sum())
    assert row.images == 50
    assert row.milliseconds > 0


def test_the_table_reads_as_the_papers_do():
    rows = [Row("twin", 990, 1000, 1234567, 1.5), Row("net: C", 985, 1000, 4321, 0.0123)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_table("MNIST", rows))

    lines = [line.split("│") for line in console.export_text().splitlines() if "│" in line]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines] == [
        ["twin", "1.00%", "99.00%", "1,234,567", "1.5000"],
        ["net: C", "1.50%", "98.50%", "4,321", "0.0123"],
    ]
