"""The blocks of fuzzed networks. Each reads `net.x`, appends nodes, and replaces it.

A block that does not apply to what it finds, such as a pool to a row, appends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.fuzz.blocks.activations import activation, choice, curve, root, rprelu, squash
from tests.fuzz.blocks.branches import (
    blend,
    concat,
    dense_block,
    extremes,
    gate,
    improvement,
    kappa,
    reactnet,
    residual,
    two_halves,
)
from tests.fuzz.blocks.layers import (
    adabin,
    binary_conv,
    binary_dense,
    binary_transposed,
    conv,
    dense,
    depthwise,
    factorised,
    few_bits_conv,
    few_bits_dense,
    pointwise,
    transposed,
)
from tests.fuzz.blocks.moves import (
    border,
    crop,
    duplicate,
    flatten,
    gather,
    nhwc,
    noise,
    pixels,
    reshape,
    resize,
    shuffle,
    split,
    transpose,
)
from tests.fuzz.blocks.norms import affine, batch_norm, own_norm, sample_norm, wrapped_norm
from tests.fuzz.blocks.pools import average_pool, global_pool, max_pool, pool_sign, reduction
from tests.fuzz.blocks.quantisers import quantise
from tests.fuzz.blocks.signs import scaled_sign, shifted_sign, sign
from tests.fuzz.blocks.tails import (
    classifier,
    decision,
    heads,
    mask,
    nothing,
    probabilities,
    ranking,
)
from tests.fuzz.net import Net

__all__ = ["BLOCKS", "TAILS"]

BLOCKS: Mapping[str, Callable[[Net], None]] = MappingProxyType(
    {
        block.__name__: block
        for block in (
            *(sign, scaled_sign, shifted_sign, quantise),
            *(batch_norm, affine, wrapped_norm, own_norm, sample_norm),
            *(activation, rprelu, squash, curve, root, choice),
            *(binary_dense, few_bits_dense, dense),
            *(binary_conv, few_bits_conv, adabin, conv, depthwise, pointwise, factorised),
            *(transposed, binary_transposed),
            *(max_pool, average_pool, global_pool, pool_sign, reduction),
            *(residual, reactnet, improvement, kappa, concat, dense_block, two_halves),
            *(gate, blend, extremes),
            *(flatten, reshape, transpose, nhwc, noise, crop, split, gather, border, duplicate),
            *(resize, pixels, shuffle),
        )
    }
)
TAILS: Mapping[str, Callable[[Net], None]] = MappingProxyType(
    {
        tail.__name__: tail
        for tail in (nothing, classifier, probabilities, decision, ranking, heads, mask)
    }
)
