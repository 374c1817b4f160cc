"""Images read from files while training, ImageNet's way: one folder a class."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnncc.nn.training.data import scale, shuffled

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageFolder"]

_SUFFIXES = (".jpeg", ".jpg", ".png")
_CPU = torch.device("cpu")
_LOG_RATIO = math.log(4 / 3)  # crops are between 3:4 and 4:3


@dataclass(frozen=True)
class ImageFolder:
    """Images decoded while they are needed, by Pillow, which the extra `train` installs.

    Attributes:
        files: each image and the number of its class.
        size: height and width of what a network gets.
        workers: processes that decode; 0 decodes in this one.
        device: where minibatches go.
    """

    files: tuple[tuple[Path, int], ...]
    size: int = 224
    workers: int = 4
    device: torch.device = _CPU

    @staticmethod
    def below(folder: Path, size: int = 224, workers: int = 4) -> ImageFolder:
        """Return the images FOLDER/CLASS/NAME.jpeg (or .jpg, .png); classes are numbered by name.

        The first image of each class comes first, then the second: any number of them from the
        start is balanced.

        Raises:
            SystemExit: if there is no such image.
        """
        entries = os.scandir(folder) if folder.is_dir() else ()
        classes = sorted(entry.name for entry in entries if entry.is_dir())
        found = [
            (rank, label, path)
            for label, name in enumerate(classes)
            for rank, path in enumerate(_images(folder / name))
        ]
        if not found:
            raise SystemExit(f"{folder} holds no images: they lie in a folder for each class")
        return ImageFolder(tuple((path, label) for _, label, path in sorted(found)), size, workers)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice) -> ImageFolder:
        return replace(self, files=self.files[index])

    def to(self, device: torch.device) -> ImageFolder:
        """Return the same images, with minibatches on `device`."""
        return replace(self, device=device)

    def batches(
        self, size: int, generator: torch.Generator, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch of shuffled minibatches of random crops, half of them mirrored.

        See `Images.batches`.

        Source:
            Szegedy et al. 2015, "Going Deeper with Convolutions", sec. 6 (the crops).
        """
        shares = shuffled(len(self), size, generator, rank, world)
        # What is random in a crop comes from the image's own seed, whichever worker decodes it.
        seeds = torch.randint(2**31, (len(self),), generator=generator).tolist()
        yield from self._load(torch.cat(shares).tolist(), seeds, size // world)

    def in_order(
        self, size: int = 250, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the middle of some images, 7/8 of the shorter side; see `Images.in_order`."""
        yield from self._load(range(rank, len(self), world), (), size)

    def _load(
        self, chosen: Sequence[int], seeds: Sequence[int], size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        decoder = _Decoder(self.files, chosen, seeds, self.size)
        for images, labels in DataLoader(decoder, size, num_workers=self.workers):
            yield scale(images.to(self.device)), labels.to(self.device)


@dataclass(frozen=True)
class _Decoder(Dataset[tuple[Tensor, int]]):
    """Some of the images, decoded and cropped: at random from `seeds`, or in the middle."""

    files: Sequence[tuple[Path, int]]
    chosen: Sequence[int]
    seeds: Sequence[int]
    size: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        number = self.chosen[index]
        path, label = self.files[number]
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if self.seeds:
            random = np.random.default_rng(self.seeds[number])
            image = _random_crop(image, self.size, random)
        else:
            image = _centre_crop(image, self.size)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), label


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def _random_crop(image: Image, size: int, random: np.random.Generator) -> Image:
    """Return 8 % to 100 % of the image's area, sides from 3:4 to 4:3, mirrored or not, resized."""
    from PIL import Image, ImageOps

    width, height = image.size
    area = width * height * random.uniform(0.08, 1)
    ratio = math.exp(random.uniform(-_LOG_RATIO, _LOG_RATIO))
    w = min(width, max(1, round(math.sqrt(area * ratio))))
    h = min(height, max(1, round(math.sqrt(area / ratio))))
    left, top = random.integers(width - w + 1), random.integers(height - h + 1)
    box = (int(left), int(top), int(left) + w, int(top) + h)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box)
    return ImageOps.mirror(crop) if random.random() < 0.5 else crop


def _centre_crop(image: Image, size: int) -> Image:
    from PIL import Image

    side = min(image.size) * 7 / 8
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box)
