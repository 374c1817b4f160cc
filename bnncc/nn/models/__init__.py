"""The networks of the papers, built from the layers of `bnncc.nn`.

Each has the layers that its paper or the code published with it has, and sizes of which
the paper's are the defaults. `bnncc.nn.float_twin` gives the twin in reals of any of them.
"""

from bnncc.nn.models.binary_connect import binary_connect_mlp, binary_connect_vgg
from bnncc.nn.models.bireal import BiRealBlock, bireal18, bireal34, bireal_cifar
from bnncc.nn.models.bnn import bnn_mlp, bnn_vgg
from bnncc.nn.models.xnor import XnorBasicBlock, xnor_alexnet, xnor_lenet5, xnor_resnet18

__all__ = [
    "BiRealBlock",
    "XnorBasicBlock",
    "binary_connect_mlp",
    "binary_connect_vgg",
    "bireal18",
    "bireal34",
    "bireal_cifar",
    "bnn_mlp",
    "bnn_vgg",
    "xnor_alexnet",
    "xnor_lenet5",
    "xnor_resnet18",
]
