"""Image sets in memory: MNIST, CIFAR-shaped arrays and synthetic ones, in minibatches by index."""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "Augment",
    "ImageSet",
    "Images",
    "Splits",
    "download_mnist",
    "flip_and_shift",
    "load_cifar",
    "load_mnist",
    "read_idx",
    "scale",
    "shuffled",
    "synthetic",
]

Augment = Callable[[Tensor], Tensor]
"""Takes a minibatch, uint8 [B, C, H, W], and returns another of the same shape."""

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""Of each .gz file as the authors of MNIST made it."""


def scale(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1), byte / 128 - 1."""
    # 1/128 and not the usual 1/127.5: every x is then a multiple of 2^-7, each sum of up to 2^16
    # values +-x a multiple of 2^-7 below 2^17, and so exact in float32 in whatever order it is
    # taken. That is why the compiler may feed a network whose first layer is binary the bytes
    # themselves, with --input uint8:0.0078125,-1, and compute provably the same.
    return images.float() / 128 - 1


class Images(Protocol):
    """What a network is trained or counted on: `ImageSet`, or images read from files."""

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, index: slice) -> Images:
        """Some of them."""

    def to(self, device: torch.device) -> Images:
        """The same, with minibatches on `device`."""

    def batches(
        self, size: int, generator: torch.Generator, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch of shuffled minibatches, scaled: real [size / world, ...] and labels.

        What does not fill a minibatch is left out, since BatchNorm needs more than one sample;
        the next epoch's order leaves out others.

        Args:
            size: of a minibatch, over all processes together.
            generator: gives the order; the same state in every process.
            rank: which share of each minibatch to yield.
            world: how many shares there are.

        Raises:
            ValueError: if `world` does not divide `size`, or there are fewer than `size` images.
        """

    def in_order(
        self, size: int = 1000, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every world-th image from `rank` on, unshuffled, in minibatches of up to `size`."""


def shuffled(
    count: int, size: int, generator: torch.Generator, rank: int, world: int
) -> tuple[Tensor, ...]:
    """Return the indices of one rank's share of each minibatch of an epoch.

    Args and Raises as for `Images.batches`; `count` is the number of images.
    """
    if size % world:
        raise ValueError(f"a minibatch of {size} cannot be shared by {world} processes")
    if count < size:
        raise ValueError(f"{count} images do not fill a minibatch of {size}")
    order = torch.randperm(count, generator=generator)
    return tuple(order[i + rank : i + size : world] for i in range(0, count - size + 1, size))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their classes, in memory.

    Attributes:
        images: uint8 [N, ...].
        labels: int64 [N].
        augment: applied to every minibatch of `batches`, never to `in_order`; None leaves it out.
    """

    images: Tensor
    labels: Tensor
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice) -> ImageSet:
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device) -> ImageSet:
        """Return the set on `device`: small sets are fed fastest from where they are used."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(
        self, size: int, generator: torch.Generator, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch of shuffled minibatches; see `Images.batches`."""
        for share in shuffled(len(self), size, generator, rank, world):
            near = share.to(self.images.device)
            images = self.images[near]
            if self.augment is not None:
                images = self.augment(images)
            yield scale(images), self.labels[near]

    def in_order(
        self, size: int = 1000, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield some images unshuffled; see `Images.in_order`."""
        images, labels = self.images[rank::world], self.labels[rank::world]
        for i in range(0, len(images), size):
            yield scale(images[i : i + size]), labels[i : i + size]


@dataclass(frozen=True, eq=False)
class Splits:
    """What a network learns from, what is chosen by, and what is reported on.

    Attributes:
        train: to take gradients on.
        validation: to choose an epoch and hyperparameters by.
        test: looked at once, at the end.
    """

    train: Images
    validation: Images
    test: Images

    def to(self, device: torch.device) -> Splits:
        """Return all three on `device`."""
        return Splits(self.train.to(device), self.validation.to(device), self.test.to(device))

    def shortened(self, train: int, validation: int, test: int) -> Splits:
        """Return the first samples of each."""
        return Splits(self.train[:train], self.validation[:validation], self.test[:test])


def download_mnist(url: str, folder: Path) -> None:
    """Fetch the MNIST files that `folder` lacks from below `url`.

    Raises:
        SystemExit: if a file is not the canonical one, by its SHA-256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, expected in MNIST_SHA256.items():
        path = folder / f"{name}.gz"
        if path.exists():
            continue
        with urllib.request.urlopen(f"{url.rstrip('/')}/{path.name}", timeout=60) as response:
            content = response.read()
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            raise SystemExit(f"{path.name} from {url}: SHA-256 is {actual}, expected {expected}")
        path.write_bytes(content)


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor of a gzipped idx file.

    Raises:
        SystemExit: if it is missing, or no idx file of unsigned bytes.
    """
    if not path.exists():
        raise SystemExit(f"{path} is missing: give its folder with --data, or --url to download")
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path} is not an idx file of unsigned bytes")
    rank = content[3]  # then as many big-endian sizes, then the bytes
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(pixels.reshape(shape).copy())


def load_mnist(folder: Path, *, flat: bool, validation: float = 1 / 6) -> Splits:
    """Return MNIST from its four .gz files.

    Args:
        folder: where they lie.
        flat: images as [784] for dense networks, or as [1, 28, 28].
        validation: the share at the end of the training set to choose by; the papers take the
            last 10 000 of 60 000.

    Raises:
        SystemExit: if a file is missing or of another format.
    """
    sets = []
    for split in ("train", "t10k"):
        images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz").long()
        sets.append(ImageSet(images.flatten(1) if flat else images.unsqueeze(1), labels))
    learn, test = sets
    return _split(learn, test, validation)


def load_cifar(path: Path, validation: float = 1 / 8) -> Splits:
    """Return CIFAR-10, or a part of it, from an .npz file.

    The file holds x_train and x_test, uint8 [N, 32, 32, 3], and y_train and y_test, [N].

    Args:
        path: the file.
        validation: the share at the end of the training set to choose by.

    Raises:
        SystemExit: if it is missing or lacks an array.
    """
    if not path.exists():
        raise SystemExit(f"{path} is missing: give the .npz file of CIFAR-10 with --data")
    sets = []
    with np.load(path, allow_pickle=False) as arrays:
        for split in ("train", "test"):
            names = f"x_{split}", f"y_{split}"
            if not set(names) <= set(arrays.files):
                raise SystemExit(f"{path} holds no {names[0]} and {names[1]}")
            images, labels = (torch.from_numpy(arrays[name]) for name in names)
            channels_first = images.permute(0, 3, 1, 2).contiguous()
            sets.append(ImageSet(channels_first, labels.reshape(-1).long()))
    learn, test = sets
    return _split(learn, test, validation)


def synthetic(
    shape: tuple[int, ...], classes: int, train: int, test: int, *, seed: int = 0
) -> Splits:
    """Return noisy copies of one random pattern a class: to try a recipe without its data.

    Args:
        shape: of an image, such as (3, 224, 224).
        classes: how many patterns.
        train: how many training images; an eighth as many for validation, at least one.
        test: how many test images.
        seed: of patterns, classes and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 256, (classes, *shape), generator=generator)

    def draw(count: int) -> ImageSet:
        labels = torch.randint(0, classes, (count,), generator=generator)
        noise = torch.randint(-64, 64, (count, *shape), generator=generator)
        return ImageSet((patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    return Splits(draw(train), draw(max(1, train // 8)), draw(test))


def flip_and_shift(images: Tensor, padding: int = 4) -> Tensor:
    """Return the minibatch, half of it mirrored, each image moved by up to `padding` pixels.

    What comes in from outside is the middle grey that `scale` maps to 0.

    Args:
        images: uint8 [B, C, H, W].
        padding: the largest shift, in pixels.

    Source:
        He et al. 2016, "Deep Residual Learning for Image Recognition", sec. 4.2.
    """
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4, value=128)
    offsets = torch.randint(0, 2 * padding + 1, (2, count), device=images.device)
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)
    columns = offsets[1, :, None] + torch.arange(width, device=images.device)
    mirrored = torch.rand(count, device=images.device) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around a slice put their own axes first: [B, H, W, C].
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _split(learn: ImageSet, test: ImageSet, validation: float) -> Splits:
    count = len(learn) - round(len(learn) * validation)
    return Splits(learn[:count], learn[count:], test)
