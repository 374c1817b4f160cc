"""What of a model bnncc does not compile at all: each operator by name, where, why, and what to do.

Uses of an operator that bnncc knows in general are refused by `build`, node by node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from bnncc.errors import Diagnostic
from bnncc.frontends.onnx.constants import live_nodes
from bnncc.frontends.onnx.outline import Outline
from bnncc.frontends.onnx.report import plural, quoted, where
from bnncc.frontends.onnx.runtime import STANDARD_DOMAINS
from bnncc.frontends.onnx.table import RANDOM, TABLE

__all__ = ["unsupported"]


@dataclass(frozen=True)
class _Advice:
    """Why some operators are not compiled, and what to do instead."""

    why: str
    help: str


_OTHER = "say it in operators that bnncc compiles, or compute it outside of the model"
_MASK = "exporters say x[mask] = value this way: write x = torch.where(mask, value, x)"

_CONTROL = _Advice(
    "what it computes depends on the input, and generated C takes one path",
    "export without branches and loops that depend on the input, or by tracing",
)
_RECURRENT = _Advice(
    "it carries a state from step to step, and bnncc compiles networks without one",
    "compile what comes before and behind it, and keep it in your own code",
)
_QUANTISED = _Advice(
    "it is part of an 8-bit quantisation that was put round a trained network, while bnncc "
    "computes on bits and in float32",
    "compile the model from before it was quantised; bytes from a camera are declared with "
    "--input uint8:SCALE,OFFSET",
)
_CHOSEN = _Advice("how many values it gives depends on the input, and C has fixed sizes", _OTHER)
_MASKED = _Advice(_CHOSEN.why, _MASK)
_WRITTEN = _Advice("it writes to some places of a tensor, as an assignment x[...] = y does", _MASK)
_PRODUCT = _Advice(
    "it multiplies activations by one another, and bnncc packs weights that are known at compile "
    "time",
    "keep attention in your own code, and compile what comes before and behind it",
)
_EINSUM = _Advice(
    "it stands for any product of tensors, of activations among themselves too",
    "write it with torch.matmul or torch.nn.functional.linear, and constant weights",
)
_LISTS = _Advice(
    "it handles lists of tensors, or tensors that may be missing", "pass each tensor by itself"
)
_RANKED = _Advice(
    "it only marks the class that is ranked first",
    "export the model without it: its operand ranks the classes in the same order",
)

_ADVICE: Mapping[str, _Advice] = MappingProxyType(
    {
        "Attention": _PRODUCT,
        "Compress": _MASKED,
        "ConcatFromSequence": _LISTS,
        "ConvInteger": _QUANTISED,
        "DequantizeLinear": _QUANTISED,
        "DynamicQuantizeLinear": _QUANTISED,
        "Einsum": _EINSUM,
        "GRU": _RECURRENT,
        "Hardmax": _RANKED,
        "If": _CONTROL,
        "LSTM": _RECURRENT,
        "Loop": _CONTROL,
        "MatMulInteger": _QUANTISED,
        "NonMaxSuppression": _CHOSEN,
        "NonZero": _MASKED,
        "Optional": _LISTS,
        "OptionalGetElement": _LISTS,
        "QLinearConv": _QUANTISED,
        "QLinearMatMul": _QUANTISED,
        "QuantizeLinear": _QUANTISED,
        "RNN": _RECURRENT,
        "Range": _CHOSEN,
        "Scan": _CONTROL,
        "ScatterElements": _WRITTEN,
        "ScatterND": _WRITTEN,
        "SequenceAt": _LISTS,
        "SequenceConstruct": _LISTS,
        "SequenceMap": _CONTROL,
        "SplitToSequence": _LISTS,
        "Unique": _CHOSEN,
    }
)

_LEFT_BY_PYTORCH = _Advice(
    "PyTorch's exporter had no ONNX for it, and left PyTorch's own operator in the file",
    "export with torch.onnx.export(..., dynamo=True), or without custom autograd functions that "
    "have no symbolic()",
)
_DOMAINS: Mapping[str, _Advice] = MappingProxyType(
    {
        "ai.onnx.ml": _Advice(
            "it is one of ONNX's operators for classical machine learning, which are no network",
            "export the network alone",
        ),
        "aten": _LEFT_BY_PYTORCH,
        "com.microsoft": _Advice(
            "it is ONNX Runtime's own, which its optimiser and quantiser write",
            "compile the model from before ONNX Runtime optimised or quantised it",
        ),
        "org.pytorch.aten": _LEFT_BY_PYTORCH,
        "prim": _LEFT_BY_PYTORCH,
    }
)
_CUSTOM = _Advice(
    "what it computes is defined outside of the file",
    "export without custom operators, so that standard ones spell out what it does",
)
_HELP_RANDOM = (
    "export in eval mode (model.eval()), with a sign in place of torch.bernoulli or torch.rand"
)


def unsupported(outlined: Outline) -> list[Diagnostic]:
    """Return a finding for each operator type that bnncc does not compile, however it is used.

    Args:
        outlined: the graph before folding. It need not be well-formed: the checker refuses graphs
            with operators it does not know, so this comes first.
    """
    live = {id(node) for node in live_nodes(outlined.nodes, outlined.outputs)}
    constants = set(outlined.tensors)
    groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    random: list[onnx.NodeProto] = []
    for node in outlined.nodes:
        # Of what it is to be like, CastLike reads the type alone.
        read = node.input[:1] if node.op_type == "CastLike" else node.input
        is_constant = node.op_type in ("Shape", "Size") or constants.issuperset(
            name for name in read if name
        )
        if not _is_standard(node, outlined.opset):
            groups[_full_name(node)].append(node)
        elif id(node) in live and node.op_type in RANDOM:
            random.append(node)
        elif id(node) in live and (
            _has_subgraph(node) or not (is_constant or node.op_type in TABLE)
        ):
            groups[_full_name(node)].append(node)
        if is_constant:
            constants.update(node.output)
    found = [_unsupported(name, nodes, outlined.opset) for name, nodes in groups.items()]
    return found + ([_random(random)] if random else [])


def _is_standard(node: onnx.NodeProto, opset: int) -> bool:
    return node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type, opset, "")


def _full_name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def _has_subgraph(node: onnx.NodeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attribute)


def _unsupported(name: str, nodes: Sequence[onnx.NodeProto], opset: int) -> Diagnostic:
    advice = _advice(nodes[0], opset)
    what = f"operator {quoted(name)} is not supported ({plural(len(nodes), 'node')})"
    return Diagnostic("BNN007", what, where(nodes), advice.why, advice.help)


def _advice(node: onnx.NodeProto, opset: int) -> _Advice:
    if node.domain not in STANDARD_DOMAINS:
        return _DOMAINS.get(node.domain, _CUSTOM)
    if not _is_standard(node, opset):
        known = onnx.defs.has(node.op_type, onnx.defs.onnx_opset_version(), "")
        newer = f"it is newer than opset {opset}, which the model names, or older"
        return _Advice(newer if known else "ONNX has no operator of this name", _OTHER)
    return _ADVICE.get(node.op_type, _Advice("", _OTHER))


def _random(nodes: Sequence[onnx.NodeProto]) -> Diagnostic:
    kinds = ", ".join(dict.fromkeys(node.op_type for node in nodes))
    return Diagnostic(
        "BNN012",
        f"the model draws random numbers ({plural(len(nodes), 'node')}: {kinds})",
        where(nodes),
        "stochastic binarisation or noise was left on, so there is nothing fixed to compile",
        _HELP_RANDOM,
    )
