"""Data parallel training in the processes that `torchrun` starts; one process needs none of it.

    torchrun --nproc-per-node 2 examples/mnist_mlp/train.py ...

Every process takes its share of each minibatch, gradients are averaged, and each applies the same
update, the clipping of weights included, so that all keep the same parameters. A step of W
processes is the step that one process takes on the whole minibatch, but for one thing: BatchNorm
and dropout see a share by itself. Running statistics are averaged after every epoch.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Processes", "processes"]

_NEW, _OLD = "forward_sync_buffers", "broadcast_buffers"  # of PyTorch 2.13, and until then
_SYNC_EACH_STEP = _NEW if _NEW in signature(DistributedDataParallel).parameters else _OLD


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: where it computes.
        rank: its number, from 0; only 0 prints and writes.
        world: how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module to call while training; `model` itself keeps the parameters."""
        if self.world == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        # Statistics are averaged by `average_statistics`, not overwritten by rank 0's each step.
        options: dict[str, Any] = {"device_ids": devices, _SYNC_EACH_STEP: False}
        return DistributedDataParallel(model, **options)

    def total(self, *values: float) -> list[float]:
        """Return each value's sum over all processes."""
        if self.world == 1:
            return list(values)
        # Counts of images beyond 2^24 need doubles.
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        totals: list[float] = sums.tolist()
        return totals

    def average_statistics(self, model: nn.Module) -> None:
        """Replace the model's real buffers, BatchNorm's running statistics, by their average."""
        if self.world == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.world)


@contextmanager
def processes(device: str = "") -> Generator[Processes]:
    """Join the processes that torchrun started, or be the only one; leave them at the end.

    Args:
        device: "cpu", "cuda", "cuda:1"; "" takes a GPU where there is one. Under torchrun each
            process takes the GPU of its local rank, with NCCL; on a CPU they talk through Gloo.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
