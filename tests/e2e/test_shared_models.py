"""Models that others trained and exported, unedited: they compile, verify, and score as stated."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import bnncc
from bnncc.ir.ops.kernels import Linear, RealConv, SignSum, XnorConv

_LETTERS = {XnorConv: "b", SignSum: "s", RealConv: "r"}


@dataclass(frozen=True)
class Expected:
    """What a file gives.

    Attributes:
        file: below ../shared/models, without .onnx; samples and PyTorch's results are in the .npz.
        layers: a letter for each linear layer: "b" on bits, "s" sums of reals with binary weights,
            "r" real weights; a space before another stage of the network.
        exact: whether it computes with whole numbers throughout, so that nothing can round.
        assumed: how many signs are taken as +1 at 0.
        slow: whether only CI has the time.
    """

    file: str
    layers: str
    exact: bool = False
    assumed: int = 0
    slow: bool = False

    @property
    def name(self) -> str:
        return self.file.rsplit("/", 1)[-1]


def both(file: str, layers: str, **more) -> list[Expected]:
    return [Expected(f"{file}.{exporter}", layers, **more) for exporter in EXPORTERS]


EXPORTERS = ("dynamo", "torchscript")

TFC = "trained/tfc_1w1a_trained_plain"
LFC = "trained/bnnpynq_lfc_trained"
ZIN = "trained/zin_bwn_cnn_trained_det"

NETWORKS = [
    *both(TFC, "bbbb"),
    Expected(f"{LFC}.dynamo", "bbbb", exact=True),
    Expected("trained/bnnpynq_cnv_trained.torchscript", "sbbbbb bbb", exact=True),
    *both(ZIN, "ss sr"),
    Expected("random/bireal18_224.dynamo", "r bbbb brbbb brbbb brbbb r", assumed=16, slow=True),
    *both("random/xnornet_lenet5_clean", "rb br", assumed=2),
    *both("random/irnet_resnet20", "r bbbbbb bbbbbb bbbbbb r", assumed=18),
    *both("random/luca_bnn_caffenet_clean", "sbbb b"),
    *both("random/binarynet_clean_mlp", "bbb r"),
]

IDIOMS = [
    "bireal",
    "div_abs",
    "ge_float_2m1",
    "hard_sigmoid_round",
    "hardtanh_sign",
    "one_minus_2lt",
    "ones_index_put",
    "sign",
    "sign_add_half",
    "sign_eps",
    "sign_inplace_mask",
    "sign_where0",
    "ste_detach",
    "ste_symbolic_custom",
    "unsigned_dorefa",
    "where_ge",
    "where_lt",
]


def compiled(shared_dir: Path, file: str, folder: Path, target: str = "x86-64") -> bnncc.Artifact:
    model = shared_dir / "models" / f"{file}.onnx"
    return bnncc.compile(model, folder, bnncc.Options(target=target))
