"""examples/: every script by --quick, its table, and the numbers in it."""

import importlib.util
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.nn.pictures import write_cifar, write_mnist  # noqa: E402  # torch first, or it skips

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small layers are fastest so, and figures do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("mnist"), 1200, 200)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return write_cifar(tmp_path_factory.mktemp("cifar") / "cifar.npz", 480, 100)


@pytest.fixture
def run(tmp_path, capsys):
    """`run("xnor_lenet5", "--data", ...)` runs a script with --quick and returns its outcomes."""

    def start(name, *options):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        return script.main(["--quick", "--out", str(tmp_path), *map(str, options)])

    return start


def check(outcomes, printed, folder, compiled):
    """Assert what every script promises: its files, its table, and C that is the float network."""
    assert [one.name for one in outcomes if one.agreement] == list(compiled)
    for name in compiled:
        assert (folder / f"{name}.c").exists()
        assert (folder / f"{name}.h").exists()
    results = json.loads((folder / "results.json").read_text())["networks"]
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in printed.splitlines()
        if line.startswith("│")
    ]
    assert [(row.network, f"{row.accuracy:.2%}") for one in outcomes for row in one.rows] == [
        (row[0], row[2]) for row in cells
    ]
    for one in outcomes:
        assert results[one.name]["rows"][0]["correct"] == one.rows[0].correct
        if not one.agreement:
            continue
        in_float, in_c = one.rows
        assert one.agreement.ok
        assert one.agreement.differing == 0
        assert in_float.correct == in_c.correct
        assert in_c.size < in_float.size
        assert f"{one.name}: {one.agreement}" in printed


def test_xnor_lenet5(run, mnist, tmp_path, capsys):
    outcomes = run("xnor_lenet5", "--data", mnist)

    check(outcomes, capsys.readouterr().out, tmp_path, ["lenet5_alpha", "lenet5_alpha_kappa"])
    # Chance is 10 %; the patterns differ in every pixel.
    assert all(row.accuracy > 0.7 for one in outcomes for row in one.rows)


@pytest.mark.slow
def test_binary_connect(run, mnist, tmp_path, capsys):
    outcomes = run("binary_connect", "--data", mnist)

    check(outcomes, capsys.readouterr().out, tmp_path, ["deterministic", "stochastic"])
    assert all(row.accuracy > 0.7 for one in outcomes for row in one.rows)


@pytest.mark.slow
def test_binary_connect_vgg(run, cifar, tmp_path, capsys):
    outcomes = run("binary_connect", "--network", "vgg", "--data", cifar)

    check(outcomes, capsys.readouterr().out, tmp_path, ["deterministic", "stochastic"])


@pytest.mark.slow
def test_bireal_ablation(run, cifar, tmp_path, capsys):
    outcomes = run("bireal_ablation", "--data", cifar)

    names = ["bireal", "without_shortcuts", "without_approx_sign", "without_magnitude"]
    names += ["without_clip_start", "without_any"]
    check(outcomes, capsys.readouterr().out, tmp_path, names)
    assert (tmp_path / "ablation.png").stat().st_size > 0
    assert (tmp_path / "curves.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--adam",)], ids=["paper", "adam"])
def test_bireal_imagenet_on_made_up_images(run, tmp_path, capsys, options):
    outcomes = run("bireal_imagenet", *options)

    check(outcomes, capsys.readouterr().out, tmp_path, ["bireal18"])
    assert [one.name for one in outcomes] == (["bireal18"] if options else ["clip", "bireal18"])
    # Ten patterns, each seen six times an epoch; chance among 1000 classes is nothing.
    assert outcomes[-1].rows[1].accuracy > 0.5


@pytest.mark.slow
def test_bireal_imagenet_reads_folders(run, tmp_path, capsys):
    image_module = pytest.importorskip("PIL.Image")
    for split in ("train", "val"):
        for label, grey in enumerate((40, 200)):
            folder = tmp_path / "imagenet" / split / f"n{label}"
            folder.mkdir(parents=True)
            for i in range(26 if split == "train" else 4):
                image_module.new("RGB", (80, 70), (grey, i, 90)).save(folder / f"{i}.JPEG")

    outcomes = run(
        *("bireal_imagenet", "--no-synthetic", "--data", tmp_path / "imagenet", "--epochs", 2),
        *("--workers", 0),
    )

    check(outcomes, capsys.readouterr().out, tmp_path, ["bireal18"])
    assert outcomes[0].rows[0].images == 8


def test_imagenet_needs_its_folder(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("bireal_imagenet", "--no-synthetic")

    assert stopped.value.code == "give the folder of ImageNet with --data, or --synthetic"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    # On 10 000 or 6 000 of the images and a few epochs: below what each reached by a few points.
    [("mnist_mlp/train", 0.86), ("xnor_lenet5", 0.88), ("binary_connect", 0.80)],
)
def test_quick_on_the_real_images(run, shared_dir, name, least):
    outcomes = run(name, "--data", shared_dir / "data" / "mnist")

    assert all(one.agreement.ok for one in outcomes if one.agreement)
    assert all(one.agreement.differing == 0 for one in outcomes if one.agreement)
    assert all(row.accuracy > least for one in outcomes for row in one.rows)
