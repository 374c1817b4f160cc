"""Models that others trained and exported, unedited: they compile, verify, and score as stated."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import bnncc
from bnncc.ir.ops.kernels import Fused, Linear, Map, RealConv, SignSum, XnorConv
from bnncc.ir.ops.shared_sums import ClassSums, SharedConv, SharedSums

_LETTERS = {XnorConv: "b", SharedSums: "b", SharedConv: "b", SignSum: "s", RealConv: "r"}


@dataclass(frozen=True)
class Expected:
    """What becomes of a file.

    Attributes:
        file: below ../shared/models, without its suffix; its samples are in the .npz beside it.
        layers: a letter for each linear layer in the order in which they run: "b" on bits, "s" sums
            of reals with binary weights, "r" real weights.
        maps: elementwise layers that are part of no other layer.
        exact: whether the network computes with whole numbers: its outputs are PyTorch's.
        zero: how many layers' signs are taken as +1 at 0 by assumption.
    """

    file: str
    layers: str
    maps: int = 0
    exact: bool = False
    zero: int = 0

    @property
    def samples(self) -> str:
        """The .npz file."""
        return f"{self.file.rsplit('.', 1)[0]}.npz"

    def __str__(self) -> str:
        return self.file.rsplit("/", 1)[1]


def by_both(file: str, layers: str, **more: int) -> tuple[Expected, Expected]:
    """Return a row for the file of either exporter."""
    dynamo, torchscript = (
        Expected(f"{file}.{by}", layers, **more) for by in ("dynamo", "torchscript")
    )
    return dynamo, torchscript


TFC = by_both("trained/tfc_1w1a_trained_plain", "bbbb", maps=1)
LFC = Expected("trained/bnnpynq_lfc_trained.dynamo", "bbbb", maps=1, exact=True)
ZIN = by_both("trained/zin_bwn_cnn_trained_det", "ssrr")

# The maps: signs of the input; shortcuts that PyTorch slices and pads after the layer beside them;
# signs after a Flatten, whose thresholds differ from pixel to pixel.
NETWORKS = [
    *TFC,
    LFC,
    Expected("trained/bnnpynq_cnv_trained.torchscript", "sbbbbbbbb", exact=True, zero=1),
    *ZIN,
    Expected("random/bireal18_224.dynamo", "rbbbbbrbbbbrbbbbrbbbr", zero=16),
    *by_both("random/xnornet_lenet5_clean", "rbbr", zero=1),
    *by_both("random/irnet_resnet20", "rbbbbbbbbbbbbbbbbbbr", maps=1, zero=18),
    *by_both("random/luca_bnn_caffenet_clean", "sbbb", maps=1, zero=2),
    *by_both("random/binarynet_clean_mlp", "sbbr", zero=1),
]

# x[mask] = value, which the new exporter says without static shapes.
REFUSED = {"idiom_ones_index_put.dynamo", "idiom_sign_inplace_mask.dynamo"}
# Every spelling, and how many layers' signs have 0, or no number, at 0.
SIGNS = {
    "bireal": 1,
    "div_abs": 2,
    "ge_float_2m1": 0,
    "hard_sigmoid_round": 0,
    "hardtanh_sign": 1,
    "one_minus_2lt": 0,
    "ones_index_put": 0,
    "sign": 1,
    "sign_add_half": 0,
    "sign_eps": 1,
    "sign_inplace_mask": 0,
    "sign_where0": 0,
    "ste_detach": 1,
    "unsigned_dorefa": 0,
    "where_ge": 0,
    "where_lt": 0,
}
ONLY_BY_DYNAMO = Expected("idioms/idiom_ste_symbolic_custom.dynamo", "rbb")
IDIOMS = [
    ONLY_BY_DYNAMO,
    *(
        row
        for sign, zero in SIGNS.items()
        for row in by_both(f"idioms/idiom_{sign}", "rbb", zero=zero)
        if str(row) not in REFUSED
    ),
]


def sparing(rows: Iterable[Expected]) -> list[Any]:
    """Return the rows as parameters; the second export of a model, and large ones, are slow."""
    seen: set[str] = set()
    chosen = []
    for row in rows:
        slow = row.samples in seen or "224" in row.file
        chosen.append(pytest.param(row, id=str(row), marks=[pytest.mark.slow] if slow else []))
        seen.add(row.samples)
    return chosen


@pytest.fixture
def models(shared_dir):
    return shared_dir / "models"


def fused(artifact: bnncc.Artifact) -> list[Fused | SharedSums]:
    nodes = artifact.compilation.lowered.graph.nodes
    return [node.op for node in nodes if isinstance(node.op, Fused | SharedSums)]


def check(
    models: Path, expected: Expected, folder: Path, target: str = "x86-64", kernels: str = "auto"
) -> None:
    """Compile, hold the layers against the table, verify on the stored samples and on random."""
    options = bnncc.Options(target=target, kernels=(kernels,))
    artifact = bnncc.compile(models / f"{expected.file}.onnx", folder, options)
    layers = fused(artifact)
    linear = [op for op in layers if isinstance(op, Linear | ClassSums)]
    assert "".join(_LETTERS[type(op)] for op in linear) == expected.layers
    assert sum(isinstance(op, Map) for op in layers) == expected.maps
    zero = [text for text in artifact.report.assumptions if "sign(0) is taken as +1" in text]
    assert len(zero) == expected.zero
    stored = np.load(models / expected.samples)
    result = bnncc.verify(artifact, data={"x": stored["x"]})
    assert result.ok
    model = bnncc.load(artifact)
    (wanted,) = model.inputs
    scores = model(stored["x"].reshape(-1, *wanted.shape)).reshape(stored["y_torch"].shape)
    np.testing.assert_array_equal(scores.argmax(1), stored["y_torch"].argmax(1))
    if expected.exact:
        assert sum(layer.undecided for layer in result.layers) == 0
        np.testing.assert_array_equal(scores, stored["y_torch"])


@pytest.mark.parametrize("expected", sparing(NETWORKS))
def test_network(models, tmp_path, expected):
    check(models, expected, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["dense", "shared", "lean"])
@pytest.mark.parametrize("expected", NETWORKS, ids=str)
def test_network_in_either_family(models, tmp_path, expected, kernels):
    check(models, expected, tmp_path, kernels=kernels)


@pytest.mark.parametrize("expected", sparing([*TFC, LFC, *ZIN]))
def test_network_in_portable_c(models, tmp_path, expected):
    check(models, expected, tmp_path, "generic")


@pytest.mark.parametrize("expected", sparing(IDIOMS))
def test_every_spelling_of_sign(models, tmp_path, expected):
    check(models, expected, tmp_path)


def test_the_tables_leave_no_idiom_out(models):
    files = {path.stem for path in (models / "idioms").glob("*.onnx")}
    assert files == {str(row) for row in IDIOMS} | REFUSED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_masked_assignments_are_refused(models, tmp_path, name):
    with pytest.raises(bnncc.UnsupportedModelError) as caught:
        bnncc.compile(models / "idioms" / f"{name}.onnx", tmp_path)
    assert {d.code for d in caught.value.diagnostics} == {"BNN007"}
    assert "write x = torch.where(mask, value, x)" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_spellings_of_one_sign_become_one_program(models, tmp_path):
    """The same weights under another spelling: every kernel and every constant is the same."""
    programs = set()
    for sign in ("sign_where0", "where_ge", "where_lt", "ste_detach"):
        path = models / "idioms" / f"idiom_{sign}.dynamo.onnx"
        graph = bnncc.compile(path, tmp_path).compilation.lowered.graph
        constants = [graph.constants.get(name) for node in graph.nodes for name in node.inputs]
        kernels = tuple(str(node.op) for node in graph.nodes)
        programs.add((kernels, tuple(c.tobytes() for c in constants if c is not None)))
    assert len(programs) == 1


def test_random_inputs_too(models, tmp_path):
    """The stored samples of the real MLP are few, and its last layers round."""
    artifact = bnncc.compile(models / "random/binarynet_clean_mlp.dynamo.onnx", tmp_path)
    assert bnncc.verify(artifact, samples=300).ok


def test_sign_of_zero_is_found_unreachable_layer_by_layer(models, tmp_path):
    """Odd sums cannot be 0, but only once the layer above is known to give no 0 either."""
    artifact = bnncc.compile(models / f"{LFC.file}.onnx", tmp_path)
    assert artifact.report.assumptions == ()
    assert [len(layer.zero_reachable) for layer in artifact.certificate.layers] == [0] * 4


# --- The whole of MNIST ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(shared_dir):
    """The 10 000 test images as bytes [N, 28, 28], and their labels."""
    folder = shared_dir / "data" / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def unit(images):
    """As the MLPs of Brevitas and BNN-PYNQ were fed."""
    return images.astype(np.float32) / np.float32(255)


def standardised(images):
    """By mean and deviation of MNIST, as PyTorch's own example does."""
    return (unit(images) - np.float32(0.1307)) / np.float32(0.3081)


def reference(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the scores of the float model, image by image, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in x])


@dataclass(frozen=True)
class Score:
    """How many of the 10 000 a model gets right.

    Attributes:
        row: the model.
        correct: of the C, where the lowest of tied classes wins.
        stated: in MODELS.md, as PyTorch counted. Where all sums of the last layer are multiples of
            one alpha, tied classes are frequent, and PyTorch's rounding of its sums decides which
            wins: in 51 images of tfc_1w1a. So the C has to be right without doubt in no more
            images, and in no fewer if every tie went to the label.
    """

    row: Expected
    correct: int
    stated: int

    def __str__(self) -> str:
        return str(self.row)


SCORES = [
    *(Score(row, 9338, 9342) for row in TFC),
    Score(LFC, 9834, 9834),
    *(Score(row, 9846, 9846) for row in ZIN),
]


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES, ids=str)
def test_score_on_mnist(models, digits, tmp_path, score):
    images, labels = digits
    x = (standardised if score.row in ZIN else unit)(images)[:, np.newaxis]
    stored = np.load(models / score.row.samples)["x"]
    np.testing.assert_array_equal(x[: len(stored)], stored.reshape(-1, 1, 28, 28))
    path = models / f"{score.row.file}.onnx"
    model = bnncc.load(bnncc.compile(path, tmp_path))
    scores = model(x.reshape(-1, *model.inputs[0].shape)).reshape(len(x), -1)
    assert (scores.argmax(1) == labels).sum() == score.correct

    best = scores == scores.max(1, keepdims=True)
    tied = best.sum(1) > 1
    right = best[range(len(x)), labels]
    assert (right & ~tied).sum() <= score.stated <= right.sum()
    if not score.row.exact and score.row not in TFC:
        assert not tied.any()

    # Image by image, the float model ranks first what the C does, or what ties with it.
    oracle = reference(path, x).reshape(scores.shape)
    top = oracle.argmax(1)
    assert best[range(len(x)), top].all()
    if score.row.exact:
        np.testing.assert_array_equal(scores, oracle)
