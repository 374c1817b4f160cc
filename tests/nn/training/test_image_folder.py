"""bnncc.nn.training.image_folder: files to minibatches."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
image_module = pytest.importorskip("PIL.Image")

from bnncc.nn.training import ImageFolder, scale  # noqa: E402  # both are there

COLOURS = {"ant": (200, 10, 10), "bee": (10, 200, 10), "cat": (10, 10, 200)}


@pytest.fixture
def folder(tmp_path):
    """Plain images of each class's colour, 5 of ant, 4 of bee, 3 of cat, and what is none."""
    for count, (name, colour) in zip((5, 4, 3), COLOURS.items(), strict=True):
        (tmp_path / name).mkdir()
        for i in range(count):
            image = image_module.new("RGB", (40 + i, 30), colour)
            image.save(tmp_path / name / f"{i}.{('png', 'PNG')[i % 2]}")
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "README").write_text("not a class")
    return tmp_path


def test_any_number_of_files_from_the_start_is_balanced(folder):
    images = ImageFolder.below(folder)

    assert [label for _, label in images.files] == [0, 1, 2] * 3 + [0, 1, 0]
    assert [path.name for path, _ in images[:4].files] == ["0.png", "0.png", "0.png", "1.PNG"]
    assert (len(images), len(images[3:])) == (12, 9)


@pytest.mark.parametrize("workers", [0, 2])
def test_minibatches_hold_the_images_of_their_labels(folder, workers):
    images = ImageFolder.below(folder, 16, workers)

    batches = list(images.batches(4, torch.Generator().manual_seed(0)))

    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 16, 16)] * 3
    colours = scale(torch.tensor(list(COLOURS.values()), dtype=torch.uint8))
    for x, labels in batches:
        assert torch.equal(x, colours[labels][:, :, None, None].expand_as(x))
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(
        label for _, label in images.files
    )


def test_crops_depend_on_the_generator_alone(tmp_path):
    (tmp_path / "noise").mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        pixels = random.integers(0, 256, (50, 60, 3), dtype=np.uint8)
        image_module.fromarray(pixels).save(tmp_path / "noise" / f"{i}.png")

    def epoch(seed, workers):
        images = ImageFolder.below(tmp_path, 8, workers)
        return torch.cat([x for x, _ in images.batches(2, torch.Generator().manual_seed(seed))])

    assert torch.equal(epoch(0, 0), epoch(0, 2))
    assert not torch.equal(epoch(0, 0), epoch(1, 0))


def test_in_order_shows_the_middle(tmp_path):
    """7/8 of the shorter side: a border of 1/16 of it above and below is cut off."""
    (tmp_path / "framed").mkdir()
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[8:56, 40:88] = 255  # well inside the square from 4 to 60 and from 36 to 92
    image_module.fromarray(pixels).save(tmp_path / "framed" / "a.png")

    ((x, labels),) = ImageFolder.below(tmp_path, 56, 0).in_order()

    expected = np.zeros((56, 56), bool)
    expected[4:52, 4:52] = True
    assert labels.tolist() == [0]
    assert np.array_equal(x[0, 0].numpy() > 0, expected)


def test_shares_in_order_make_the_whole(folder):
    images = ImageFolder.below(folder, 8, 0)

    labels = [torch.cat([one for _, one in images.in_order(5, rank, 2)]) for rank in (0, 1)]

    assert labels[0].tolist() == [label for _, label in images.files[::2]]
    assert labels[1].tolist() == [label for _, label in images.files[1::2]]


def test_minibatches_go_where_they_are_asked_to(folder):
    images = ImageFolder.below(folder, 8, 0).to(torch.device("meta"))

    x, labels = next(images.in_order())

    assert (x.device.type, labels.device.type) == ("meta", "meta")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_images_is_said(tmp_path, name):
    (tmp_path / "empty" / "class").mkdir(parents=True)
    folder = tmp_path / name

    with pytest.raises(SystemExit) as stopped:
        ImageFolder.below(folder)

    assert stopped.value.code == f"{folder} holds no images: they lie in a folder for each class"
