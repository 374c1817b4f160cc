"""What a trained network came to: in float, and as the C that bnncc makes of it, image by image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

import bnncc
from bnncc.nn.training.data import Images
from bnncc.nn.weights import bake_weights
from bnncc.verification.run import CompiledModel

__all__ = ["Agreement", "Compiled", "Row", "compile_and_check", "float_row", "results_table"]

_TIMED_RUNS = 30


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        network: what it is, in words.
        correct: how many test images it puts in their class.
        images: how many test images there are.
        size: bytes of its constants: float32 parameters and statistics, or what the C holds.
        milliseconds: an image, alone, on one core of this machine; the fastest of many runs. Binary
            weights are made binary before, not in each run.
    """

    network: str
    correct: int
    images: int
    size: int
    milliseconds: float

    @property
    def accuracy(self) -> float:
        """The share of the test images in their class."""
        return self.correct / self.images


@dataclass(frozen=True)
class Agreement:
    """How the C compares with the float model on the test set.

    Attributes:
        images: how many were classified by both.
        differing: on how many of them the classes differ.
        verified: how many of them `bnncc.verify` looked at layer by layer: all that differ, and a
            sample of the others.
        bits: hidden bits compared in that.
        undecided: bits that differ where float32 rounding leaves the decision open.
        ok: whether nothing else differs, in any layer of any image verified.
    """

    images: int
    differing: int
    verified: int
    bits: int
    undecided: int
    ok: bool

    def __str__(self) -> str:
        """The verdict in a line."""
        verdict = "C = float" if self.ok else "C DIFFERS from float"
        return (
            f"{verdict}: same class for {self.images - self.differing} of {self.images} images; "
            f"{self.verified} verified layer by layer, {self.bits} bits compared, "
            f"{self.undecided} undecided"
        )


@dataclass(frozen=True)
class Compiled:
    """A network in float and in C."""

    in_float: Row
    in_c: Row
    agreement: Agreement


def float_row(name: str, model: nn.Module, test: Images) -> Row:
    """Return the line of a PyTorch model, put on the CPU and in eval mode."""
    model.cpu().eval()
    correct = 0
    with torch.no_grad():
        for images, labels in test.in_order():
            correct += int((model(images).argmax(1) == labels).sum())
    return _float_row(name, model, test, correct)


def compile_and_check(
    name: str, model: nn.Module, test: Images, folder: Path, sample: int = 100
) -> Compiled:
    """Compile and verify a model; write its C into `folder`.

    Classes are compared on every test image: PyTorch's, of a batch, with the C's. `bnncc.verify`
    then goes through all images that differ and through a sample, bit by bit against ONNX
    Runtime: a class may differ only where float32 rounding explains it, layer by layer.

    Args:
        name: of the files, a C identifier.
        model: takes images as `scale` returns them; put on the CPU and in eval mode.
        test: the test set, on the CPU.
        folder: where the C goes; created if it is missing.
        sample: how many images to verify besides.
    """
    model.cpu().eval()
    first, _ = next(test[:1].in_order())
    artifact = bnncc.compile(model, folder, bnncc.Options(name=name), example_inputs=first)
    runner = bnncc.load(artifact)

    seen = _classify(model, runner, test, max(1, len(test) // max(1, sample)))
    data = {"x": seen.kept.numpy(), "labels": seen.classes_c.numpy()}
    result = bnncc.verify(artifact, data=data)
    nanoseconds = min(runner.nanoseconds_per_sample(first.numpy()) for _ in range(_TIMED_RUNS))
    return Compiled(
        _float_row(f"{name}: float", model, test, seen.correct_float),
        Row(
            f"{name}: C",
            seen.correct_c,
            len(test),
            artifact.report.flash_bytes,
            nanoseconds / 1e6,
        ),
        Agreement(
            images=len(test),
            differing=seen.differing,
            verified=len(seen.kept),
            bits=sum(layer.compared for layer in result.layers),
            undecided=sum(layer.undecided for layer in result.layers),
            # The C that was verified must be the one that classified.
            ok=result.ok and all(one.accuracy_c == 1 for one in result.outputs),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What both made of the test set, and some images to look into.

    Attributes:
        correct_float, correct_c: how many images each put in their class.
        differing: on how many the classes differ.
        kept: those, and a sample of the others: real [M, ...].
        classes_c: what the C made of them: integers [M].
    """

    correct_float: int
    correct_c: int
    differing: int
    kept: Tensor
    classes_c: Tensor


def _classify(model: nn.Module, runner: CompiledModel, test: Images, every: int) -> _Seen:
    """Run both on all images; keep those whose classes differ, and one in `every`."""
    in_float = in_c = differing = position = 0
    kept, classes = [], []
    for images, labels in test.in_order():
        with torch.no_grad():
            expected = model(images).argmax(1)
        scores = runner(images.numpy())
        assert isinstance(scores, np.ndarray), "a classifier has one output"
        actual = torch.from_numpy(scores.argmax(1))
        in_float += int((expected == labels).sum())
        in_c += int((actual == labels).sum())
        differs = actual != expected
        differing += int(differs.sum())
        sampled = (torch.arange(len(images)) + position) % every == 0
        kept.append(images[differs | sampled])
        classes.append(actual[differs | sampled])
        position += len(images)
    return _Seen(in_float, in_c, differing, torch.cat(kept), torch.cat(classes))


def results_table(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table for a `rich` console."""
    table = Table(title=title, title_justify="left")
    table.add_column("network", no_wrap=True)
    for heading in ("test error", "accuracy", "bytes", "ms an image"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.network,
            f"{1 - row.accuracy:.2%}",
            f"{row.accuracy:.2%}",
            f"{row.size:,}",
            f"{row.milliseconds:.4f}",
        )
    return table


def _float_row(name: str, model: nn.Module, test: Images, correct: int) -> Row:
    state = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in state)
    image, _ = next(test[:1].in_order())
    return Row(name, correct, len(test), size, _milliseconds(bake_weights(model), image))


def _milliseconds(model: nn.Module, image: Tensor) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        with torch.no_grad():
            for _ in range(_TIMED_RUNS):
                start = time.perf_counter()
                model(image)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return min(seconds) * 1e3
