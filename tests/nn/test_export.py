"""Both ONNX exporters of PyTorch, against PyTorch itself, through ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # torch may be missing

from bnncc.nn import (  # noqa: E402  # torch may be missing
    BinaryActivation,
    BinaryLinear,
    bake_weights,
    bipolar_sign,
)
from bnncc.nn.models import bnn_mlp  # noqa: E402

IN_FEATURES, HIDDEN, CLASSES = 50, 37, 5
EXPORTERS = {
    "dynamo": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
    "dynamo-unoptimised": {
        "dynamo": True,
        "dynamic_shapes": ({0: torch.export.Dim("batch")},),
        "optimize": False,
    },
    "torchscript": {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}},
}
PLAIN_OPS = {
    "BatchNormalization",
    "Constant",
    "Gemm",
    "GreaterOrEqual",
    "Identity",
    "MatMul",
    "Transpose",
    "Where",
}


def export(model, width, path, exporter):
    torch.onnx.export(
        model,
        (torch.zeros(2, width),),
        path,
        input_names=["x"],
        output_names=["y"],
        external_data=False,
        verbose=False,
        **EXPORTERS[exporter],
    )
    exported = onnx.load(path)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def run(exported, x):
    """Evaluate in ONNX Runtime, op by op, and without flushing denormals."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        exported.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x.numpy()})[0]


def trained_like(seed):
    """Return an MLP in eval mode whose BatchNorms have every sign of gamma, and zero twice.

    Channel 0 has gamma = beta = 0 and so sits on the decision: sign(0) is part of each comparison.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, size):
        return low + (high - low) * torch.rand(size, generator=generator)

    model = bnn_mlp(HIDDEN, 2, in_features=IN_FEATURES, classes=CLASSES).eval()
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, BinaryLinear):
                layer.weight.copy_(uniform(-1, 1, layer.weight.shape))
                layer.weight[1, :3] = torch.tensor([0.0, -0.0, -(2.0**-149)])
            elif isinstance(layer, nn.BatchNorm1d):
                size = layer.num_features
                layer.weight.copy_(uniform(-1.5, 1.5, size))
                layer.bias.copy_(uniform(-1, 1, size))
                layer.running_mean.copy_(uniform(-6, 6, size))
                layer.running_var.copy_(uniform(1, 60, size))
                layer.weight[:2] = 0.0
                layer.bias[0] = 0.0
    return model


def dyadic_inputs(samples, seed):
    """Return multiples of 2^-7 in [-1, 1): sums of +-x are exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (samples, IN_FEATURES), generator=generator) / 128 - 1


def hidden_margin(model, x):
    """Return how close a hidden value comes to the decision, channels at exactly 0 apart."""
    margin = float("inf")
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.BatchNorm1d) and layer is not model[-1]:
            assert layer.weight[0] == layer.bias[0] == 0.0
            assert not x[:, 0].any()
            margin = min(margin, x[:, 1:].abs().min().item())
    return margin


def rounding_bound(model):
    """Return per class how far two float32 evaluations, each within its own rounding, may part."""
    norm, k = model[-1], HIDDEN
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs()
    magnitude = scale * (k + norm.running_mean.abs()) + norm.bias.abs()
    # K roundings of a sum whose weights already hold gamma, and five of BatchNorm; two sides.
    return (2 * (k + 5) * 2.0**-24 * magnitude).detach().numpy()


@pytest.mark.parametrize("baked", [False, True], ids=["latent", "baked"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_export_computes_what_torch_computes(exporter, baked, tmp_path):
    model = trained_like(seed=1)
    x = dyadic_inputs(40, seed=2)
    exported = export(
        bake_weights(model) if baked else model, IN_FEATURES, tmp_path / "m.onnx", exporter
    )

    with torch.no_grad():
        expected = model(x).numpy()
        margin = hidden_margin(model, x)
    # Far beyond what rounding moves: a difference below is a wrong graph, not an undecided sign.
    assert margin > 1e-4
    for rows in (slice(0, 1), slice(1, None)):
        actual = run(exported, x[rows])
        assert (np.abs(expected[rows] - actual) <= rounding_bound(model)).all()
    assert expected.std(axis=0)[2:].min() > 0.1


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_export_has_plain_operations_only(exporter, tmp_path):
    exported = export(trained_like(seed=1), IN_FEATURES, tmp_path / "m.onnx", exporter)

    assert {node.op_type for node in exported.graph.node} <= PLAIN_OPS
    assert {node.domain for node in exported.graph.node} == {""}
    assert len(exported.functions) == 0


@pytest.mark.parametrize("exporter", ["dynamo-unoptimised", "torchscript"])
def test_export_binarises_latent_reals_in_the_graph(exporter, tmp_path):
    model = trained_like(seed=1)

    exported = export(model, IN_FEATURES, tmp_path / "m.onnx", exporter)

    stored = {one.name: onnx.numpy_helper.to_array(one) for one in exported.graph.initializer}
    for name in ("fc1", "fc2", "fc3"):
        latent = model.get_submodule(name).weight.detach().numpy()
        assert latent.tobytes() == stored[f"{name}.weight"].tobytes()
    # Three weights and two activations are binarised.
    assert [node.op_type for node in exported.graph.node].count("Where") == 5


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_baked_export_binarises_activations_only(exporter, tmp_path):
    baked = bake_weights(trained_like(seed=1))

    exported = export(baked, IN_FEATURES, tmp_path / "m.onnx", exporter)

    assert [node.op_type for node in exported.graph.node].count("Where") == 2


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_exported_sign_of_zero_is_plus_one(exporter, tmp_path):
    x = torch.tensor([[-1.0, -(2.0**-149), -0.0, 0.0, 2.0**-149, 1.0, float("nan")]])

    exported = export(BinaryActivation().eval(), 7, tmp_path / "m.onnx", exporter)

    assert run(exported, x).tolist() == [[-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0]]
    assert bipolar_sign(x).tolist() == [[-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0]]
