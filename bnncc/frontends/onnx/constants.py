"""Evaluate everything that does not depend on a graph input, by ONNX Runtime itself.

mean(|W|), a standard deviation or a power of two then round as they do in the float reference: the
folder *is* the reference's evaluator. Nodes are folded a connected region at a time, so that a
layer's latent weights are gone before the next layer's are touched, and weights pass in and out as
arrays, never through a protobuf.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnncc.errors import Diagnostic, UnsupportedModelError
from bnncc.frontends.onnx import runtime
from bnncc.frontends.onnx.outline import Outline, ValueType, infer
from bnncc.frontends.onnx.read import ITEM_BYTES, MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import library_text, plural, quoted, where
from bnncc.ir.types import Array

__all__ = ["fold", "live_nodes", "not_finite"]

# Results whose size depends on values, but never exceeds rank times the operand's.
_BOUNDED_BY_OPERAND = frozenset({"Compress", "NonZero", "Unique"})

_MOST_ROUNDS = 50


def live_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that some of `outputs` depends on, in their order.

    The graph may still be ill-formed.
    """
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    seen: set[int] = set()
    waiting = list(outputs)
    while waiting:
        index = producers.get(waiting.pop())
        if index is not None and index not in seen:
            seen.add(index)
            waiting.extend(nodes[index].input)
    return [nodes[i] for i in sorted(seen)]


def fold(outlined: Outline) -> dict[str, ValueType]:
    """Replace all constant nodes of `outlined` by their values, in place.

    Nodes that remain although their operands are constant are those whose results are too large,
    or have a size that cannot be known before.

    Returns:
        The inferred type of every tensor that is left.

    Raises:
        UnsupportedModelError: BNN003 shapes contradict each other, or a constant cannot be
            computed; BNN005 constants take too much memory; BNN009 a tensor that constants are
            computed from holds NaN or infinity.
    """
    types = infer(outlined)
    # Values that become known give shapes that become known, a few times over.
    for _ in range(_MOST_ROUNDS):
        _measure(outlined, types)
        ready = _ready(outlined, types)
        if not ready:
            break
        _fold_round(outlined, types, ready)
        types = infer(outlined)
    return types


def _measure(outlined: Outline, types: Mapping[str, ValueType]) -> None:
    """Turn `Shape` and `Size` of tensors with known shapes into constants, `CastLike` into `Cast`.

    They read no value of their operand: what they say of a variable may be constant all the same.
    """
    remaining = []
    for node in outlined.nodes:
        value = _measured(node, types) if node.op_type in ("Shape", "Size") else None
        if node.op_type == "CastLike" and (like := types.get(node.input[1])):
            remaining.append(
                helper.make_node(
                    "Cast", node.input[:1], node.output, name=node.name, to=like.element
                )
            )
        elif value is None:
            remaining.append(node)
        else:
            outlined.tensors[node.output[0]] = value
    outlined.nodes = remaining


def _measured(node: onnx.NodeProto, types: Mapping[str, ValueType]) -> Array | None:
    kind = types.get(node.input[0])
    shape = kind.known if kind else None
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(math.prod(shape), dtype=np.int64)
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    # ONNX clamps start and end as Python's slices do.
    return np.asarray(shape[bounds.get("start", 0) : bounds.get("end")], dtype=np.int64)


def _ready(outlined: Outline, types: Mapping[str, ValueType]) -> list[onnx.NodeProto]:
    """Return the nodes that can be folded now: operands known, results of a known size."""
    known = set(outlined.tensors)
    ready = []
    for node in outlined.nodes:
        is_constant = all(name in known for name in node.input if name)
        if is_constant and _result_bytes(node, types) is not None:
            ready.append(node)
            known.update(node.output)
    return ready


def _result_bytes(node: onnx.NodeProto, types: Mapping[str, ValueType]) -> int | None:
    """Return how many bytes the node's results take at most, or None if that is not known."""
    if node.op_type in _BOUNDED_BY_OPERAND:
        operand = types.get(node.input[0])
        shape = operand.known if operand else None
        return None if shape is None else 8 * max(1, len(shape)) * math.prod(shape)
    total = 0
    for name in filter(None, node.output):
        kind = types.get(name)
        if kind is None or kind.known is None or kind.element not in ITEM_BYTES:
            return None
        total += math.prod(kind.known) * ITEM_BYTES[kind.element]
    return total


def _fold_round(
    outlined: Outline, types: Mapping[str, ValueType], ready: Sequence[onnx.NodeProto]
) -> None:
    """Replace the nodes of `ready`, which are in topological order, by their values."""
    folded = {id(node) for node in ready}
    outlined.nodes = [node for node in outlined.nodes if id(node) not in folded]
    needed = {name for node in ready for name in node.input}
    # A transposed weight costs nothing as a view, and the linear layer transposes it back.
    views = [node for node in ready if node.output[0] not in needed and _is_view(node, types)]
    viewed = {id(node) for node in views}
    wanted = {name for node in (*outlined.nodes, *views) for name in node.input}
    wanted.update(outlined.outputs)
    regions = _regions([node for node in ready if id(node) not in viewed])
    last_use = {n: i for i, region in enumerate(regions) for node in region for n in node.input}
    found: list[Diagnostic] = []
    for i, region in enumerate(regions):
        found += _evaluate(outlined, types, region, wanted)
        for name in {name for node in region for name in node.input}:
            if last_use[name] == i and name not in wanted:
                outlined.tensors.pop(name, None)
    if found:
        raise UnsupportedModelError.of(found)
    for node in views:
        outlined.tensors[node.output[0]] = outlined.tensors[node.input[0]].transpose(_axes(node))
    used = {name for node in outlined.nodes for name in node.input} | set(outlined.outputs)
    outlined.tensors = {n: array for n, array in outlined.tensors.items() if n in used}
    _check_total(sum(array.nbytes for array in outlined.tensors.values()), [])


def _axes(node: onnx.NodeProto) -> list[int] | None:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), None)


def _is_view(node: onnx.NodeProto, types: Mapping[str, ValueType]) -> bool:
    """Whether the node is a transposition, and a valid one, which shape inference does not see."""
    if node.op_type != "Transpose":
        return False
    axes, shape = _axes(node), types[node.input[0]].known
    return axes is None or (shape is not None and sorted(axes) == list(range(len(shape))))


def _check_total(size: int, nodes: Sequence[onnx.NodeProto]) -> None:
    if size > MAX_TENSOR_BYTES:
        raise UnsupportedModelError(
            "BNN005",
            f"computing the model's constants takes {size} bytes",
            where=where(nodes) if nodes else "",
            why=f"the limit is {MAX_TENSOR_BYTES} bytes",
        )


def _regions(nodes: Sequence[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
    """Return the nodes in groups that read nothing computed in another group."""
    parents = list(range(len(nodes)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    producers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.input:
            if name in producers:
                parents[root(i)] = root(producers[name])
        producers.update(dict.fromkeys(node.output, i))
    groups: dict[int, list[onnx.NodeProto]] = defaultdict(list)
    for i, node in enumerate(nodes):
        groups[root(i)].append(node)
    return list(groups.values())


def _evaluate(
    outlined: Outline,
    types: Mapping[str, ValueType],
    region: Sequence[onnx.NodeProto],
    wanted: Collection[str],
) -> list[Diagnostic]:
    """Store what `region` computes of `wanted` in `outlined.tensors`; return what went wrong."""
    _check_total(sum(_result_bytes(node, types) or 0 for node in region), region)
    made = dict.fromkeys(name for node in region for name in node.output if name)
    read = dict.fromkeys(n for node in region for n in node.input if n and n not in made)
    sources = {name: outlined.tensors[name] for name in read}
    found = [
        damage
        for name, array in sources.items()
        # A lone infinity is a bound, as in Clip(W, -inf, 1), or the neutral element of a maximum.
        if array.size > 1 and (damage := not_finite(name, array, region))
    ]
    results = [name for name in made if name in wanted]
    model, feeds = _region_model(outlined.opset, region, sources, results)
    try:
        values = runtime.evaluate(model, feeds)
    except runtime.ERRORS as error:
        is_unknown = isinstance(error, runtime.NotImplementedByRuntime)
        return [
            Diagnostic(
                "BNN008" if is_unknown else "BNN003",
                f"constants behind {quoted(results[0])} cannot be computed",
                where(region),
                library_text(error, {}),
            )
        ]
    outlined.tensors.update(zip(results, values, strict=True))
    return found


def _region_model(
    opset: int,
    region: Sequence[onnx.NodeProto],
    sources: Mapping[str, Array],
    results: Sequence[str],
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model of the region with plain names, and the arrays to feed it."""
    made = (name for node in region for name in node.output)
    names = {name: f"t{i}" for i, name in enumerate(dict.fromkeys((*sources, *made))) if name}
    names[""] = ""
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain="", version=opset)
    model.graph.name = "constants"
    for node in region:
        copy = model.graph.node.add(op_type=node.op_type)
        copy.attribute.extend(node.attribute)
        copy.input.extend(names[name] for name in node.input)
        copy.output.extend(names[name] for name in node.output)
    feeds: dict[str, Array] = {}
    for name, array in sources.items():
        if array.dtype.isbuiltin == 1:
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            feeds[names[name]] = array
            info = helper.make_tensor_value_info(names[name], element, array.shape)
            model.graph.input.append(info)
        else:  # bfloat16, which cannot be fed as an array
            model.graph.initializer.append(numpy_helper.from_array(array, names[name]))
    model.graph.output.extend(onnx.ValueInfoProto(name=names[name]) for name in results)
    return model, feeds


def not_finite(name: str, array: Array, nodes: Iterable[onnx.NodeProto]) -> Diagnostic | None:
    """Return a BNN009 finding if a floating-point tensor holds NaN or infinity, else None.

    Args:
        name: of the tensor.
        array: its values.
        nodes: those of them that read the tensor are named.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    nans = int(np.isnan(array).sum())
    infinities = int(np.isinf(array).sum())
    counts = [f"{nans} NaN"] if nans else []
    counts += [plural(infinities, "infinite value")] if infinities else []
    return Diagnostic(
        "BNN009",
        f"tensor {quoted(name)} holds {' and '.join(counts)} among {array.size} values",
        where([node for node in nodes if name in node.input]),
        "no threshold can be read off a layer whose parameters are not numbers",
        "train again with a smaller learning rate, or export an earlier checkpoint",
    )
