"""What a table of operators says of each: who says it in the IR, and how much of it bnncc takes."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import helper

from bnncc.frontends.onnx.report import Refusal, quoted
from bnncc.frontends.onnx.site import Site

__all__ = ["Bits", "Family", "Operator", "refuse_unknown"]


class Bits(enum.Enum):
    """What becomes of an operator that stands between two binary layers."""

    SUMS = "XNOR and popcount"
    STAYS = "bits to bits"
    FOLDS = "part of thresholds"
    REALS = "real numbers"


@dataclass(frozen=True)
class Family:
    """Operators that are taken alike.

    Attributes:
        title: what people call them.
        limits: what of them is taken, where that is not all, in a few words.
        bits: what becomes of them where operands allow it.
    """

    title: str
    limits: str
    bits: Bits


@dataclass(frozen=True)
class Operator:
    """An ONNX operator.

    Attributes:
        say: appends what a node computes to the graph, or refuses.
        family: of operators that are taken alike.
        attributes: those that may differ from ONNX's default; a node with another is refused.
        idle: attributes and operands that change nothing of what bnncc computes.
        torch: what it is called in the namespaces `torch` and `torch.nn`, which may be exported as
            operators that say the same.
    """

    say: Callable[[Site], None]
    family: Family
    attributes: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    torch: tuple[str, ...] = ()


def refuse_unknown(site: Site, operator: Operator) -> None:
    """Refuse a node for an attribute that nobody looks at, unless it has ONNX's default.

    A later opset may add attributes to an operator, whose meaning must not be lost.

    Raises:
        Refusal: BNN008 there is one.
    """
    defaults = onnx.defs.get_schema(site.node.op_type, site.opset, "").attributes
    for name in site.attributes.keys() - {*operator.attributes, *operator.idle}:
        default = helper.get_attribute_value(defaults[name].default_value)
        if site.attributes[name] != default:
            what = f"attribute {quoted(name)} of {site.node.op_type}"
            why = "bnncc takes it with ONNX's default alone"
            raise Refusal("BNN008", what, why=why)
