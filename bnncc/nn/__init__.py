"""PyTorch layers for binary neural networks, which export cleanly and compile exactly.

In training mode they carry the gradients of the literature; in eval mode they are plain
operations, so that both ONNX exporters of PyTorch give a graph without a custom node. Importing
this package imports torch; nothing else in bnncc does so by itself.

    block = nn.Sequential(
        BinaryActivation(approx_sign),
        BinaryConv2d(64, 64, 3, padding=1, estimator=magnitude_aware),
        nn.BatchNorm2d(64),
    )

What a layer can be given: an estimator (`estimators`: how reals become bipolar, and the gradient
taken for it), a scale (`scales`: real factors of its sums) and the value of its padding. Around a
whole model: `parameter_groups`, `clip_weights_` after each step, `flip_rate` and its like to look
at, `float_twin` to compare with or to start from. `bnncc.nn.models` holds the networks of the
papers.
"""

from bnncc.nn.activations import BinaryActivation, RPReLU, RSign
from bnncc.nn.diagnostics import flip_rate, share_at_clip, share_in_window, snapshot_signs
from bnncc.nn.estimators import (
    Estimator,
    approx_sign,
    bipolar_sign,
    magnitude_aware,
    ste,
    stochastic,
)
from bnncc.nn.layers import BinaryConv1d, BinaryConv2d, BinaryLayer, BinaryLinear
from bnncc.nn.scales import AbsMean, Alpha, AlphaKappa, Factorised, Scale
from bnncc.nn.twins import float_twin
from bnncc.nn.weights import bake_weights, clip_weights_, parameter_groups

__all__ = [
    "AbsMean",
    "Alpha",
    "AlphaKappa",
    "BinaryActivation",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "Estimator",
    "Factorised",
    "RPReLU",
    "RSign",
    "Scale",
    "approx_sign",
    "bake_weights",
    "bipolar_sign",
    "clip_weights_",
    "flip_rate",
    "float_twin",
    "magnitude_aware",
    "parameter_groups",
    "share_at_clip",
    "share_in_window",
    "snapshot_signs",
    "ste",
    "stochastic",
]
