"""How ONNX's elementwise operators are said in the IR."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from bnncc.frontends.onnx.report import Refusal, element_name, quoted
from bnncc.frontends.onnx.site import Site
from bnncc.ir.ops.base import Op
from bnncc.ir.ops.elementwise import (
    BatchNormalization,
    Cast,
    Clip,
    Equal,
    HardSigmoid,
    Identity,
    LeakyRelu,
    Not,
    PRelu,
    Xor,
)
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import Element

__all__ = [
    "batch_normalization",
    "cast",
    "clip",
    "dropout",
    "elementwise",
    "equal",
    "hard_sigmoid",
    "leaky_relu",
    "prelu",
]

_LARGEST = float(np.finfo(np.float32).max)
_TRAINING_HELP = "export in eval mode: call model.eval() before torch.onnx.export"


def elementwise(op: Op, arity: int = 1) -> Callable[[Site], None]:
    """Return the entry of an operator that is an IR operation of the same operands."""

    def entry(site: Site) -> None:
        site.emit(op, [site.operand(i) for i in range(arity)])

    return entry


def batch_normalization(site: Site) -> None:
    """Say BatchNormalization in inference mode, with statistics that can be divided by."""
    # Before opset 14, results beside the first are what says "training".
    says_training = site.opset < 14 and any(site.node.output[1:])
    if site.attribute("training_mode", 0) or says_training:
        what = "BatchNormalization in training mode"
        why = "it normalises by each batch's own statistics, so that nothing can be folded"
        raise Refusal("BNN012", what, why=why, help=_TRAINING_HELP)
    epsilon = np.float32(site.attribute("epsilon", 1e-5))
    statistics = [site.numbers(i) for i in range(1, 5)]
    variance = statistics[3]
    bad = (variance < 0) | (variance + epsilon <= 0)
    if bad.any():
        first = int(np.argmax(bad))
        raise Refusal(
            "BNN010",
            f"variance {quoted(site.node.input[4])} cannot be normalised by",
            why=f"{int(bad.sum())} of {bad.size} channels are negative, or zero with epsilon zero; "
            f"channel {first} is {variance.reshape(-1)[first]:.6g} with epsilon {epsilon:.6g}",
            help="export again from a checkpoint whose running statistics are intact",
        )
    x, *rest = (site.operand(i) for i in range(5))
    op = BatchNormalization(float(epsilon))
    flat = _flat_source(site, x)
    if flat is None:
        site.emit(op, [x, *rest])
        return
    row = site.emit(op, [flat, *rest], site.fresh("row"))
    site.emit(Reshape(site.type_of(x).shape), [row])


def _flat_source(site: Site, x: str) -> str | None:
    """Return the row [1, C] that x is a mere reshape of, to [1, C, 1], if it is one.

    FINN wraps normalisations of rows so; on the row itself, the layer before may take them up.
    """
    shape = site.type_of(x).shape
    if len(shape) < 3 or math.prod(shape[2:]) != 1:
        return None
    maker = next((n for n in reversed(site.scope.builder.nodes) if x in n.outputs), None)
    if maker is None or not isinstance(maker.op, Reshape):
        return None
    source = maker.inputs[0]
    return source if site.type_of(source).shape == shape[:2] else None


def dropout(site: Site) -> None:
    """Say Dropout, which outside of training does nothing."""
    if site.has(2) and bool(site.array(2).any()):
        what = "Dropout in training mode"
        why = "it draws random numbers, so that there is nothing fixed to compile"
        raise Refusal("BNN012", what, why=why, help=_TRAINING_HELP)
    site.emit(Identity(), [site.operand(0)])


def clip(site: Site) -> None:
    """Say Clip: bounds are attributes before opset 11, missing ones the largest floats."""
    low = _bound(site, "min", 1, -_LARGEST)
    high = _bound(site, "max", 2, _LARGEST)
    site.emit(Clip(low, high), [site.operand(0)])


def _bound(site: Site, name: str, index: int, missing: float) -> float:
    """Return one of Clip's bounds, which may be infinite."""
    value = float(site.raw(name, missing))
    if site.has(index):
        array = site.array(index)
        if array.size != 1:
            raise Refusal("BNN008", f"the bound {name} of Clip is a tensor of {array.size} values")
        value = float(array.reshape(()))
    if np.isnan(value):
        raise Refusal("BNN009", f"the bound {name} of Clip is NaN")
    return value


def equal(site: Site) -> None:
    """Say Equal, of reals or of truth values."""
    operands = [site.operand(0), site.operand(1)]
    if any(site.type_of(name).element is Element.BOOL for name in operands):
        site.emit(Not(), [site.part(Xor(), *operands)])
    else:
        site.emit(Equal(), operands)


def leaky_relu(site: Site) -> None:
    """Say LeakyRelu."""
    site.emit(LeakyRelu(site.attribute("alpha", 0.01)), [site.operand(0)])


def prelu(site: Site) -> None:
    """Say PRelu, whose slope, unlike other operands, never widens x."""
    x, slope = site.operand(0), site.operand(1)
    shapes = site.type_of(x).shape, site.type_of(slope).shape
    if len(shapes[1]) > len(shapes[0]) or any(
        b not in (1, a) for a, b in zip(reversed(shapes[0]), reversed(shapes[1]), strict=False)
    ):
        why = f"{list(shapes[1])} does not broadcast to {list(shapes[0])}"
        raise Refusal("BNN003", f"the slope {quoted(site.node.input[1])} of PRelu", why=why)
    site.emit(PRelu(), [x, slope])


def hard_sigmoid(site: Site) -> None:
    """Say HardSigmoid."""
    op = HardSigmoid(site.attribute("alpha", 0.2), site.attribute("beta", 0.5))
    site.emit(op, [site.operand(0)])


def cast(site: Site) -> None:
    """Say Cast of truth values, bytes and float32; those that round are refused."""
    x = site.operand(0)
    source, target = site.type_of(x).element, site.attribute("to", 0)
    match source, target:
        case (Element.F32, onnx.TensorProto.FLOAT) | (Element.BOOL, onnx.TensorProto.BOOL):
            site.emit(Identity(), [x])
        case (Element.BOOL | Element.U8 | Element.I8, onnx.TensorProto.FLOAT):
            site.emit(Cast(Element.F32), [x])
        case (Element.F32, onnx.TensorProto.BOOL):
            site.emit(Not(), [site.part(Equal(), x, site.scalar(0))])
        case (Element.U8, onnx.TensorProto.UINT8) | (Element.I8, onnx.TensorProto.INT8):
            site.emit(Identity(), [x])
        case (
            Element.BOOL | Element.U8 | Element.I8,
            onnx.TensorProto.INT32 | onnx.TensorProto.INT64,
        ):
            # Small integers pass as the float32 they equal, until a Cast to float32 says so.
            site.emit(Cast(Element.F32), [x])
        case _:
            what = f"Cast from {source.value} to {element_name(target)}"
            why = "activations are float32, or truth values on their way to float32"
            raise Refusal("BNN008", what, why=why)
