"""PyTorch layers for binary neural networks, which export cleanly and compile exactly.

In training mode they carry the gradients of the literature; in eval mode they are plain
operations, so that both ONNX exporters of PyTorch give a graph without a custom node. Importing
this package imports torch; nothing else in bnncc does so by itself.
"""

from bnncc.nn.activation import BinaryActivation
from bnncc.nn.binarize import bipolar_sign, straight_through_sign
from bnncc.nn.linear import BinaryLinear
from bnncc.nn.models import bnn_mlp
from bnncc.nn.weights import bake_weights, clip_weights_

__all__ = [
    "BinaryActivation",
    "BinaryLinear",
    "bake_weights",
    "bipolar_sign",
    "bnn_mlp",
    "clip_weights_",
    "straight_through_sign",
]
