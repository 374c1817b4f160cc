"""Does a pass keep the meaning? Re-execute what it rewrote, before and after, on chosen values.

The rewritten nodes fall into regions, cut at every tensor that exists on both sides. Each region is
run on values made for its own boundary (see `probes`). Regions compose, so that together they speak
for the whole graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnncc.ir.analysis.rounding import UNIT_ROUNDOFF, gamma
from bnncc.ir.graph import Graph
from bnncc.ir.ops.elementwise import Step, over_channels
from bnncc.ir.ops.linear import BinaryConv, Conv, matrix_conv
from bnncc.ir.storage import decode
from bnncc.ir.types import Array
from bnncc.passes.base import Exactness
from bnncc.passes.probes import probes
from bnncc.passes.regions import Region, execute, regions

__all__ = ["differences"]

_CRUMBS = 2.0**-19
"""Relative difference that weights taken for one alpha can make (see binarise_weights)."""


def differences(before: Graph, after: Graph, exactness: Exactness) -> list[str]:
    """Return what the two graphs compute differently, region by region; [] if nothing."""
    found = [
        f"constant {name} changed"
        for name in before.constants.keys() & after.constants.keys()
        if not _same_constant(before.constants[name], after.constants[name])
    ]
    for region in regions(before, after):
        found += _differing(before, after, region, exactness)
    return sorted(found)


def _differing(before: Graph, after: Graph, region: Region, exactness: Exactness) -> list[str]:
    """Return what the two sides of one region compute differently."""
    made = {name for node in region.new for name in node.outputs} | after.constants.keys()
    shared = {name for node in region.old for name in node.outputs} & made
    if not shared:
        return []
    any_order = exactness is Exactness.REDUCTION_ORDER
    feeds = probes(before, after, region, any_order=any_order)
    old = execute(before, region.old, feeds, any_order=any_order)
    new = execute(after, region.new, feeds, any_order=any_order)
    codes = any(
        (isinstance(node.op, Step) and node.op.codes)
        or any(after.types[n].element.code_bits for n in node.inputs)
        for node in region.new
    )
    found = []
    for name in shared:
        was = decode(old[name], before.types[name])
        is_ = after.constants[name] if name in after.constants else new[name]
        is_ = decode(is_, after.types[name])
        if was.shape[1:] != is_.shape[1:]:
            found.append(f"{name} differs in shape ({region.origin})")
            continue
        slack = _slack(before, name, old, codes=codes) if any_order else None
        defined = ~_is_undefined(before, region, {**feeds, **old}, was.shape)
        if exactness is Exactness.ASSUMPTION:
            defined &= ~_asks_for_sign_of_zero(before, name, {**feeds, **old}, was)
        wrong = _mismatches(was, np.broadcast_to(is_, was.shape), exactness, slack, defined)
        if wrong:
            found.append(f"{name} differs in {wrong} of {was.size} values ({region.origin})")
    return found


def _same_constant(was: Array, is_: Array) -> bool:
    return was is is_ or (was.shape == is_.shape and was.tobytes() == is_.tobytes())


def _slack(graph: Graph, name: str, env: Mapping[str, Array], *, codes: bool) -> Array | None:
    """Return how far a float32 sum may move when its order changes: gamma_K * sum |x w|.

    None where the tensor is no such sum.
    """
    node = graph.producers[name]
    if not isinstance(node.op, Conv):
        return None
    x, weights = np.abs(env[node.inputs[0]]), np.abs(graph.constants[node.inputs[1]])
    with np.errstate(invalid="ignore"):  # infinity times 0, which is no number in the sum either
        magnitude = matrix_conv(x, weights, node.op.window, node.op.groups)
    k = weights[0].size
    # The magnitude's own sum may round down, by another gamma_K at most.
    bound = (gamma(2 * k + 8) * (1 + 2 * gamma(k)) + _CRUMBS) * magnitude
    if codes:
        # Codes may be decoded 4 u of the largest off the affine map (see binarise_weights).
        total = weights.reshape(len(weights), -1).sum(axis=1)
        bound += over_channels(8 * UNIT_ROUNDOFF * x.max(initial=0) * total, bound.ndim)
    return np.asarray(bound)


def _is_undefined(
    graph: Graph, region: Region, env: Mapping[str, Array], shape: tuple[int, ...]
) -> Array:
    """Return bool of a shape: where a value of the region is no number, beside the result.

    A model that takes the root of a negative variance, or divides 0 by 0, has no sign there: a Step
    and the comparisons that become of it part ways on a NaN.
    """
    found = np.zeros(shape, bool)
    names = {name for node in region.old for name in (*graph.variables(node), *node.outputs)}
    for name in names:
        value = env[name]
        if value.dtype == np.float32 and np.isnan(value).any() and _spreads(value.shape, shape):
            found |= np.isnan(value)
    spread = any(isinstance(node.op, Conv | BinaryConv) for node in region.old)
    for x in (env[node.inputs[0]] for node in region.old if isinstance(node.op, Step)):
        unreal = np.isnan(x)
        if _spreads(x.shape, shape):
            found |= unreal
        if spread:  # a layer behind the Step passes its level on to other places, as a number
            found[unreal.reshape(len(x), -1).any(axis=1)] = True
    return found


def _asks_for_sign_of_zero(graph: Graph, name: str, env: Mapping[str, Array], was: Array) -> Array:
    """Return bool where a result is sign(0), or what a Step makes of that: levels may be scaled."""
    step = graph.producers[name]
    if not isinstance(step.op, Step):
        return np.asarray(was == 0)
    return np.asarray((was == 0) | (env[step.inputs[0]] == 0))


def _spreads(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    same_rank = len(shape) == len(to)
    return same_rank and all(a in (1, b) for a, b in zip(shape, to, strict=True))


def _mismatches(
    was: Array, is_: Array, exactness: Exactness, slack: Array | None, defined: Array
) -> int:
    """Return how many values differ by more than the pass's exactness allows, where defined."""
    if slack is not None:
        with np.errstate(invalid="ignore"):
            apart = np.abs(was.astype(np.float64) - is_.astype(np.float64)) > slack
    elif was.dtype == is_.dtype == np.float32 and exactness is not Exactness.VALUE:
        apart = was.view(np.uint32) != np.ascontiguousarray(is_).view(np.uint32)
        apart &= ~(np.isnan(was) & np.isnan(is_))
    else:
        apart = (was != is_) & ~(_is_nan(was) & _is_nan(is_))
    if exactness is Exactness.VALUE:
        apart &= ~_is_nan(was)
    return int((apart & defined).sum())


def _is_nan(values: Array) -> Array:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
