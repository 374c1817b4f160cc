"""Small data sets in the formats of the real ones: ten noisy patterns that anything can learn."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write uint8 values as MNIST's files hold them."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def patterns(shape: tuple[int, ...], count: int, random: np.random.Generator, noise: int = 128):
    """Return images of ten patterns, uint8 [count, *shape], and which pattern each is of.

    The patterns are the same whatever has been drawn from `random`.
    """
    originals = np.random.default_rng(7).integers(0, 256, (10, *shape))
    labels = random.integers(0, 10, count, dtype=np.uint8)
    added = random.integers(-noise, noise, (count, *shape))
    return np.clip(originals[labels] + added, 0, 255).astype(np.uint8), labels


def write_mnist(folder: Path, train: int, test: int) -> Path:
    """Write MNIST's four files, with other images in them; return the folder."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        images, labels = patterns((28, 28), count, random)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


def write_cifar(path: Path, train: int, test: int) -> Path:
    """Write an .npz file as `load_cifar` reads it; return its path."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        # Blocks of 8 x 8 pixels: mirrored and shifted, they stay what they are to a convolution.
        images, arrays[f"y_{split}"] = patterns((4, 4, 3), count, random, noise=32)
        arrays[f"x_{split}"] = images.repeat(8, axis=1).repeat(8, axis=2)
    np.savez(path, **arrays)
    return path
