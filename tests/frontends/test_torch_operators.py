"""What the table says of PyTorch is true: each function and module is taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnncc.frontends.onnx import load_onnx
from bnncc.frontends.onnx.table import TABLE
from bnncc.ir import interpret

IMAGE = (1, 4, 6, 6)
Function = Callable[[Tensor, Tensor], Tensor]


def layers() -> dict[str, nn.Module]:
    """Return modules by name, each for an image x [1, 4, 6, 6]."""
    return {
        "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(1),
        "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
        "AvgPool1d": nn.Sequential(nn.Flatten(2), nn.AvgPool1d(2)),
        "AvgPool2d": nn.AvgPool2d(2),
        "BatchNorm1d": nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(4)),
        "BatchNorm2d": nn.BatchNorm2d(4),
        "Conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 4, 3)),
        "Conv2d": nn.Conv2d(4, 4, 3),
        "ConvTranspose1d": nn.Sequential(nn.Flatten(2), nn.ConvTranspose1d(4, 4, 3)),
        "ConvTranspose2d": nn.ConvTranspose2d(4, 4, 3),
        "Flatten": nn.Flatten(),
        "GroupNorm": nn.GroupNorm(2, 4),
        "InstanceNorm2d": nn.InstanceNorm2d(4, affine=True),
        "LayerNorm": nn.LayerNorm(6),
        "Linear": nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
        "LogSoftmax": nn.Sequential(nn.Flatten(), nn.LogSoftmax(1)),
        "MaxPool1d": nn.Sequential(nn.Flatten(2), nn.MaxPool1d(2)),
        "MaxPool2d": nn.MaxPool2d(2),
        "PReLU": nn.PReLU(4),
        "PixelShuffle": nn.PixelShuffle(2),
        "PixelUnshuffle": nn.PixelUnshuffle(2),
        "ReflectionPad2d": nn.ReflectionPad2d(1),
        "ReplicationPad2d": nn.ReplicationPad2d(1),
        "Softmax": nn.Sequential(nn.Flatten(), nn.Softmax(1)),
        "Threshold": nn.Threshold(0.0, 0.0),
        "Unflatten": nn.Unflatten(1, (2, 2)),
        "Upsample": nn.Upsample(scale_factor=2),
        "ZeroPad2d": nn.ZeroPad2d(1),
    }


FUNCTIONS: dict[str, Function] = {
    "add": torch.add,
    "amax": lambda x, row: torch.amax(x, (2, 3)),
    "amin": lambda x, row: torch.amin(x, (2, 3)),
    "argmax": lambda x, row: torch.argmax(x.flatten(1), 1),
    "broadcast_to": lambda x, row: torch.broadcast_to(x[:, :, :1, :1], IMAGE),
    "cat": lambda x, row: torch.cat([x, x.abs()], 1),
    "chunk": lambda x, row: torch.cat(torch.chunk(x, 2, 1)[::-1], 1),
    "clamp": lambda x, row: torch.clamp(x, -0.5, 0.5),
    "div": torch.div,
    "eq": lambda x, row: torch.eq(x, row).float(),
    "ge": lambda x, row: torch.ge(x, row).float(),
    "gt": lambda x, row: torch.gt(x, row).float(),
    "index_select": lambda x, row: torch.index_select(x, 1, row.flatten().argsort()[:2]),
    "le": lambda x, row: torch.le(x, row).float(),
    "log": lambda x, row: torch.log(x.abs() + 1),
    "logical_and": lambda x, row: torch.logical_and(x > 0, x < 1).float(),
    "logical_not": lambda x, row: torch.logical_not(x > 0).float(),
    "logical_or": lambda x, row: torch.logical_or(x > 1, x < 0).float(),
    "logical_xor": lambda x, row: torch.logical_xor(x > 1, x > 0).float(),
    "lt": lambda x, row: torch.lt(x, row).float(),
    "matmul": lambda x, row: torch.matmul(x.flatten(1), row.reshape(4, 1).repeat(36, 3)),
    "maximum": torch.maximum,
    "mean": lambda x, row: torch.mean(x, (2, 3)),
    "minimum": torch.minimum,
    "mul": torch.mul,
    "narrow": lambda x, row: torch.narrow(x, 1, 1, 2),
    "permute": lambda x, row: torch.permute(x, (0, 2, 3, 1)),
    "pow": lambda x, row: torch.pow(x, 3),
    "reshape": lambda x, row: torch.reshape(x, (1, 2, 72)),
    "select": lambda x, row: torch.select(x, 1, 2),
    "split": lambda x, row: torch.cat(torch.split(x, [1, 3], 1)[::-1], 1),
    "sqrt": lambda x, row: torch.sqrt(x.abs() + 1),
    "squeeze": lambda x, row: torch.squeeze(x.mean(2, keepdim=True), 2),
    "sub": torch.sub,
    "sum": lambda x, row: torch.sum(x, (2, 3)),
    "tile": lambda x, row: torch.tile(x, (1, 2, 1, 1)),
    "topk": lambda x, row: torch.topk(x.flatten(1), 3).values,
    "transpose": lambda x, row: torch.transpose(x, 2, 3),
    "unsqueeze": lambda x, row: torch.unsqueeze(x.flatten(1), 1),
    "where": lambda x, row: torch.where(x > 0, x, row),
}


class Each(nn.Module):
    """All that the table names but some, of one image, side by side."""

    def __init__(self, left_out: Collection[str]) -> None:
        super().__init__()
        known = layers()
        named = (name for operator in TABLE.values() for name in operator.torch)
        self.names = [name for name in named if name not in left_out]
        self.layers = nn.ModuleDict(
            {f"the {n}": known.get(n) or getattr(nn, n)() for n in self.names if hasattr(nn, n)}
        )
        self.register_buffer("row", torch.tensor([0.5, -1.0, 2.0, 0.25]).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.of(name, x) for name in self.names)

    def of(self, name: str, x: Tensor) -> Tensor:
        """Return what one function or module makes of an image."""
        if hasattr(nn, name):
            return self.layers[f"the {name}"](x)
        return FUNCTIONS[name](x, self.row) if name in FUNCTIONS else getattr(torch, name)(x)


BRANCHES = {"tile"}
"""What the older exporter says with branches, which are refused."""


@pytest.mark.parametrize("dynamo", [True, False], ids=["exported", "traced"])
def test_what_the_table_names_is_taken(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(5)
    each = Each(() if dynamo else BRANCHES).eval()
    for part in each.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.weight.data = torch.tensor([0.5, -2.0, 0.0, 1.5])
            part.running_mean = torch.tensor([0.1, -3.0, 2.0, 0.0])
            part.running_var = torch.tensor([2.0, 0.01, 30.0, 1.0])
    path = tmp_path / "each.onnx"
    results = [f"result of {name}" for name in each.names]
    x = torch.randn(*IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, that it is old
        torch.onnx.export(each, (x,), path, dynamo=dynamo, output_names=results, verbose=False)
    graph = load_onnx(path).graph
    values = interpret.run(graph, {graph.inputs[0]: x.numpy()})
    with torch.no_grad():
        for name, result in zip(each.names, results, strict=True):
            # Sums of up to 144 products of numbers near 1, in another order.
            expected = each.of(name, x).numpy()
            np.testing.assert_allclose(values[result], expected, 1e-5, 1e-5, err_msg=name)
