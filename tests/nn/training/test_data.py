"""bnncc.nn.training.data: reading, splitting, minibatches, augmentation."""

import gzip

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnncc.nn.training import (  # noqa: E402  # torch first: without it the module is skipped
    ImageSet,
    Splits,
    download_mnist,
    flip_and_shift,
    load_cifar,
    load_mnist,
    read_idx,
    scale,
    synthetic,
)
from bnncc.nn.training import data as module  # noqa: E402
from tests.nn.pictures import write_idx  # noqa: E402


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count, shape=(1,)):
    """Images whose first byte is their number, which is their label too."""
    images = torch.zeros(count, *shape, dtype=torch.uint8)
    images.flatten(1)[:, 0] = torch.arange(count)
    return ImageSet(images, torch.arange(count))


@pytest.fixture
def mnist(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("t10k", 10)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8))
    return tmp_path


def test_scaled_pixels_are_exact_multiples_of_one_128th():
    scaled = scale(torch.arange(256, dtype=torch.uint8))

    assert scaled.tolist() == [value * 0.0078125 - 1 for value in range(256)]


def test_an_epoch_has_each_image_once_but_for_the_rest():
    batches = list(numbered(25).batches(4, generator()))

    labels = torch.cat([labels for _, labels in batches]).tolist()
    assert [len(labels) for _, labels in batches] == [4] * 6
    assert len(set(labels)) == 24
    assert labels != sorted(labels)
    for images, labels in batches:
        assert torch.equal(images.flatten(), scale(labels.to(torch.uint8)))


def test_the_generator_decides_the_order():
    def order(seed):
        return torch.cat([labels for _, labels in numbered(24).batches(4, generator(seed))])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


def test_shares_of_a_minibatch_make_the_minibatch():
    whole = [set(labels.tolist()) for _, labels in numbered(24).batches(6, generator())]
    shares = [
        [labels.tolist() for _, labels in numbered(24).batches(6, generator(), rank, 3)]
        for rank in range(3)
    ]

    assert [len(share) for share in shares[0]] == [2, 2, 2, 2]
    assert whole == [{*a, *b, *c} for a, b, c in zip(*shares, strict=True)]


def test_shares_in_order_make_the_whole():
    parts = [list(numbered(25).in_order(4, rank, 2)) for rank in range(2)]

    assert [len(labels) for _, labels in parts[0]] == [4, 4, 4, 1]
    labels = torch.cat([labels for part in parts for _, labels in part])
    assert sorted(labels.tolist()) == list(range(25))


@pytest.mark.parametrize(
    ("count", "size", "world", "message"),
    [
        (25, 5, 2, "a minibatch of 5 cannot be shared by 2 processes"),
        (4, 5, 1, "4 images do not fill a minibatch of 5"),
    ],
)
def test_minibatches_that_cannot_be(count, size, world, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        next(numbered(count).batches(size, generator(), 0, world))


def test_only_training_minibatches_are_augmented():
    images = ImageSet(
        torch.zeros(8, 1, dtype=torch.uint8), torch.zeros(8).long(), lambda x: x + 128
    )

    ((batch, _),) = images.batches(8, generator())
    ((plain, _),) = images.in_order()
    assert batch.unique().tolist() == [0.0]
    assert plain.unique().tolist() == [-1.0]


def test_flip_and_shift_moves_and_mirrors_whole_images():
    image = torch.arange(1, 37, dtype=torch.uint8).reshape(1, 6, 6)
    padded = torch.nn.functional.pad(image, (2,) * 4, value=128)
    possible = {
        tuple(view.flatten().tolist())
        for top in range(5)
        for left in range(5)
        for crop in [padded[:, top : top + 6, left : left + 6]]
        for view in (crop, crop.flip(2))
    }
    torch.manual_seed(0)

    moved = flip_and_shift(image.expand(1000, 1, 6, 6), padding=2)

    assert moved.shape == (1000, 1, 6, 6)
    # All 50 occur: each is missed by 1000 draws with probability 2e-9.
    assert {tuple(one.flatten().tolist()) for one in moved} == possible


def test_flip_and_shift_keeps_channels_together():
    image = torch.stack([torch.full((4, 4), value, dtype=torch.uint8) for value in (1, 2, 3)])
    torch.manual_seed(0)

    moved = flip_and_shift(image.expand(100, 3, 4, 4), padding=1)

    pixels = {tuple(pixel) for pixel in moved.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert pixels == {(1, 2, 3), (128, 128, 128)}


@pytest.mark.parametrize(("flat", "shape"), [(True, (784,)), (False, (1, 28, 28))])
def test_mnist_keeps_its_last_sixth_for_validation(mnist, flat, shape):
    splits = load_mnist(mnist, flat=flat)

    assert [len(one) for one in (splits.train, splits.validation, splits.test)] == [50, 10, 10]
    assert splits.validation.labels.tolist() == list(range(50, 60))
    assert splits.train.images.shape[1:] == shape
    pixels = read_idx(mnist / "train-images-idx3-ubyte.gz")
    assert torch.equal(splits.train.images.flatten(), pixels[:50].flatten())


def test_missing_data_is_said(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"

    with pytest.raises(SystemExit) as stopped:
        load_mnist(tmp_path, flat=True)

    expected = f"{path} is missing: give its folder with --data, or --url to download"
    assert expected == stopped.value.code


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + bytes(8)))

    with pytest.raises(SystemExit) as stopped:
        read_idx(path)

    assert f"{path} is not an idx file of unsigned bytes" == stopped.value.code


def test_download_takes_only_the_canonical_files(mnist, tmp_path, monkeypatch):
    first = "train-images-idx3-ubyte"
    expected = module.MNIST_SHA256[first]
    actual = module.hashlib.sha256((mnist / f"{first}.gz").read_bytes())
    url = mnist.as_uri()

    with pytest.raises(SystemExit) as stopped:
        download_mnist(url, tmp_path / "refused")

    assert stopped.value.code == (
        f"{first}.gz from {url}: SHA-256 is {actual.hexdigest()}, expected {expected}"
    )
    assert list((tmp_path / "refused").iterdir()) == []

    for name in module.MNIST_SHA256:
        content = (mnist / f"{name}.gz").read_bytes()
        monkeypatch.setitem(module.MNIST_SHA256, name, module.hashlib.sha256(content).hexdigest())
    download_mnist(f"{url}/", tmp_path / "taken")

    for name in module.MNIST_SHA256:
        expected = (mnist / f"{name}.gz").read_bytes()
        assert expected == (tmp_path / "taken" / f"{name}.gz").read_bytes()
    download_mnist("file:///nowhere", tmp_path / "taken")  # nothing is missing: nothing fetched


def test_the_sums_are_those_of_the_canonical_files(shared_dir):
    folder = shared_dir / "data" / "mnist"

    for name, expected in module.MNIST_SHA256.items():
        content = (folder / f"{name}.gz").read_bytes()
        assert module.hashlib.sha256(content).hexdigest() == expected


def test_cifar_is_read_channels_first(tmp_path):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    y = np.arange(24, dtype=np.uint8).reshape(24, 1)
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])

    splits = load_cifar(tmp_path / "c.npz")

    assert [len(one) for one in (splits.train, splits.validation, splits.test)] == [21, 3, 5]
    assert splits.train.images[4, 2, 10, 20] == x[4, 10, 20, 2]
    assert splits.validation.labels.tolist() == [21, 22, 23]


def test_cifar_that_is_none(tmp_path):
    np.savez(tmp_path / "c.npz", x_train=np.zeros(1))

    with pytest.raises(SystemExit, match=r"is missing: give the \.npz file"):
        load_cifar(tmp_path / "none.npz")
    with pytest.raises(SystemExit, match="holds no x_train and y_train"):
        load_cifar(tmp_path / "c.npz")


def test_synthetic_images_are_told_apart_by_their_pattern():
    splits = synthetic((1, 6, 6), classes=4, train=80, test=40, seed=3)
    again = synthetic((1, 6, 6), classes=4, train=80, test=40, seed=3)

    assert torch.equal(splits.train.images, again.train.images)
    assert [len(one) for one in (splits.train, splits.validation, splits.test)] == [80, 10, 40]
    train, test = (one.images.flatten(1).float() for one in (splits.train, splits.test))
    means = torch.stack([train[splits.train.labels == label].mean(0) for label in range(4)])
    assert torch.equal(torch.cdist(test, means).argmin(1), splits.test.labels)


def test_splits_move_and_shorten_together():
    splits = Splits(numbered(10), numbered(8), numbered(6)).shortened(3, 2, 1)
    moved = splits.to(torch.device("meta"))

    assert [len(one) for one in (splits.train, splits.validation, splits.test)] == [3, 2, 1]
    assert moved.test.images.device.type == "meta"
