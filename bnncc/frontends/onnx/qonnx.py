"""QONNX's and FINN's quantisers, said in standard operators before anything else looks.

The folder, the frontend and verify's oracle then see one and the same standard graph. Semantics are
those of the QONNX specification (docs/qonnx-custom-ops and qonnx.custom_op.general, version 1 and,
of `Trunc`, 2), float32 operation by float32 operation in its order; only what changes no value is
left out: a division or product by 1, a zero point of 0. (Zeros may thereby have another sign.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnncc.errors import Diagnostic, UnsupportedModelError
from bnncc.frontends.onnx import runtime
from bnncc.frontends.onnx.operator import Bits, Family
from bnncc.frontends.onnx.outline import infer, literal, outline
from bnncc.frontends.onnx.read import tensor_array
from bnncc.frontends.onnx.report import Refusal, origin, plural, quoted, where
from bnncc.ir.types import Array

__all__ = ["ATTRIBUTES", "DOMAINS", "FAMILY", "OPERATORS", "byte_inputs", "decompose"]

DOMAINS = frozenset({"onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general"})
"""Where exporters keep these operators; which of the three says nothing about their meaning."""

FAMILY = Family(
    "quantisers of QONNX, Brevitas, FINN", "constants as parameters; 255 thresholds", Bits.FOLDS
)
"""How these operators are listed beside the standard ones."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "BipolarQuant": (),
        "IntQuant": ("narrow", "rounding_mode", "signed"),
        "MultiThreshold": ("data_layout", "out_bias", "out_dtype", "out_scale"),
        "Quant": ("narrow", "rounding_mode", "signed"),
        "Trunc": ("narrow", "rounding_mode", "signed"),
    }
)
"""The attributes of each operator; `out_dtype` says nothing that the other attributes do not."""

_MOST_BITS = 64
_MOST_THRESHOLDS = 255  # those of 8 bits; each becomes two nodes
# Adding and subtracting 1.5 * 2^23 rounds a float32 of at most 2^22 to the nearest even integer.
_ROUNDING = 1.5 * 2.0**23
_EXACT_BITS = 22
_OPSET_WHERE = 9
_OPSET_ROUND = 11
_OPSET_CLIP_OPERANDS = 11
_OPSET_GREATER_OR_EQUAL = 12
_CASTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_HELP_OPSET = "export again with opset_version=13 or newer"
_BYTE = "UINT8"


def byte_inputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the float32 graph inputs that FINN's annotations declare to hold bytes."""
    floats = {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return frozenset(
        note.tensor_name
        for note in model.graph.quantization_annotation
        if note.tensor_name in floats
        and any(
            (entry.key, entry.value) == ("finn_datatype", _BYTE)
            for entry in note.quant_parameter_tensor_names
        )
    )


def decompose(model: onnx.ModelProto) -> list[str]:
    """Replace QONNX's operators in `model` by standard ones, and return a note if there are any.

    Args:
        model: with fixed input shapes and without functions; changed in place.

    Raises:
        UnsupportedModelError: every node that cannot be said: BNN003 it contradicts the
            specification, BNN008 it uses what is not supported, BNN009 a parameter is no number.
    """
    custom = [node for node in model.graph.node if _is_custom(node)]
    if not custom:
        return []
    writer = _Writer(model)
    found: list[Diagnostic] = []
    for node in model.graph.node:
        if not _is_custom(node):
            writer.nodes.append(node)
            continue
        try:
            OPERATORS[node.op_type](_Quantiser(writer, node))
        except Refusal as refusal:
            found.append(refusal.diagnostic(where([node])))
        except UnsupportedModelError as error:  # a parameter that does not hold what it declares
            found += error.diagnostics
    if found:
        raise UnsupportedModelError.of(dict.fromkeys(found))
    _drop_domains(model, writer.nodes)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.constants.values())
    counts = Counter(node.op_type for node in custom)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return [f"{plural(len(custom), 'custom operator')} said in standard ones: {listed}"]


def _is_custom(node: onnx.NodeProto) -> bool:
    return node.domain in DOMAINS and node.op_type in OPERATORS


def _drop_domains(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Import custom operators no more, if none is left."""
    used = {node.domain for node in nodes}
    kept = [e for e in model.opset_import if e.domain not in DOMAINS or e.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


class _Writer:
    """The nodes and constants that take the place of a model's own.

    Attributes:
        nodes: in topological order if the model's were.
        constants: the added ones, by what they hold.
        opset: version of the standard operators.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Start from the names and known values of `model`."""
        opset = runtime.opset_version(model)
        assert opset is not None  # checked by `normalise_model`
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[object, ...], onnx.TensorProto] = {}
        self._model = model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._ranks: Mapping[str, int] | None = None
        self._taken = {value.name for value in model.graph.input} | set(self._tensors)
        self._taken.update(n for node in model.graph.node for n in (*node.input, *node.output))

    def fresh(self, hint: str) -> str:
        """Return a name that starts with `hint` and that nothing else has."""
        name, suffix = hint, 1
        while name in self._taken:
            name, suffix = f"{hint}.{suffix}", suffix + 1
        self._taken.add(name)
        return name

    def constant(self, array: Array) -> str:
        """Return the name of a float32 constant that holds `array`, which is added once."""
        array = np.asarray(array, np.float32)
        key = (array.shape, array.tobytes())
        if key not in self.constants:
            name = self.fresh("quantiser.constant")
            self.constants[key] = numpy_helper.from_array(array, name)
        return self.constants[key].name

    def value(self, name: str) -> Array | None:
        """Return what is known of a tensor without computing anything, else None.

        Known are initializers and `Constant` nodes, and what `Identity` and `Cast` make of them.
        """
        casts: list[int] = []
        seen: set[str] = set()
        while name not in self._tensors:
            node = self._producers.get(name)
            if node is None or name in seen:
                return None
            seen.add(name)
            known = literal(node)
            if known is not None:
                return _cast(known, casts)
            if node.op_type not in ("Identity", "Cast") or len(node.input) != 1:
                return None
            if node.op_type == "Cast":
                casts.append(next((a.i for a in node.attribute if a.name == "to"), 0))
            name = node.input[0]
        return _cast(tensor_array(self._tensors[name]), casts)

    def rank(self, name: str) -> int | None:
        """Return how many dimensions a tensor has, as far as that can be inferred."""
        if self._ranks is None:
            self._ranks = _ranks(self._model)
        return self._ranks.get(name)


def _cast(array: Array, types: Sequence[int]) -> Array | None:
    """Return `array` cast to the last of `types` first, or None where that is not plain."""
    for code in reversed(types):
        if code not in _CASTS:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(helper.tensor_dtype_to_np_dtype(code))
        is_whole = np.array_equal(cast.astype(np.float64), array.astype(np.float64))
        if code != onnx.TensorProto.FLOAT and not is_whole:
            return None
        array = cast
    return array


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return the inferred number of dimensions of tensors; quantisers keep their operand's."""
    outlined = outline(model)
    nodes: list[onnx.NodeProto] = []
    for node in outlined.nodes:
        if _is_custom(node):
            nodes.append(helper.make_node("Identity", node.input[:1], node.output[:1]))
        else:
            nodes.append(node)
    outlined.nodes = nodes
    try:
        types = infer(outlined)
    except UnsupportedModelError:
        return {}  # what is wrong is reported where all of the model is looked at
    return {name: len(kind.shape) for name, kind in types.items() if kind.shape is not None}


class _Quantiser:
    """One custom node: its attributes and parameters checked, its parts appended."""

    def __init__(self, writer: _Writer, node: onnx.NodeProto) -> None:
        """Look at `node`."""
        if writer.opset < _OPSET_WHERE:
            what = f"{node.op_type} beside operators of opset {writer.opset}"
            why = "standard operators that say what it does came with opset 9"
            raise Refusal("BNN008", what, why=why, help=_HELP_OPSET)
        if len(node.output) != 1 or not node.output[0]:
            raise Refusal("BNN003", f"{node.op_type} with {len(node.output)} results")
        self.writer = writer
        self.node = node
        self._attributes = {attribute.name: attribute for attribute in node.attribute}
        unknown = sorted(self._attributes.keys() - {*ATTRIBUTES[node.op_type]})
        if unknown:
            why = "the specification that bnncc follows has no such attribute"
            raise Refusal("BNN008", f"{node.op_type} with attribute {quoted(unknown[0])}", why=why)
        self._label = origin(node)

    def operands(self, *counts: int) -> list[str]:
        """Return the operands, all of which must be there."""
        names = list(self.node.input)
        if len(names) not in counts or not all(names):
            wanted = " or ".join(map(str, counts))
            what = f"{self.node.op_type} of {plural(len(names), 'operand')} instead of {wanted}"
            raise Refusal("BNN003", what)
        return names

    def flag(self, name: str, default: bool) -> bool:
        """Return an attribute that is 0 or 1."""
        attribute = self._attribute(name, onnx.AttributeProto.INT)
        if attribute is None:
            return default
        if attribute.i not in (0, 1):
            raise Refusal("BNN003", f"attribute {quoted(name)} is {attribute.i}, neither 0 nor 1")
        return bool(attribute.i)

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a string."""
        attribute = self._attribute(name, onnx.AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def number(self, name: str, default: float) -> np.float32:
        """Return an attribute that is a finite number."""
        attribute = self._attribute(name, onnx.AttributeProto.FLOAT)
        value = np.float32(default if attribute is None else attribute.f)
        if not np.isfinite(value):
            raise Refusal("BNN009", f"attribute {quoted(name)} is {value}")
        return value

    def _attribute(self, name: str, kind: int) -> onnx.AttributeProto | None:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != kind:
            raise Refusal("BNN003", f"attribute {quoted(name)} has the wrong type")
        return attribute

    def known(self, name: str, what: str) -> Array:
        """Return a parameter that must be a constant of the file, of finite numbers."""
        array = self.writer.value(name)
        if array is None:
            why = f"{quoted(name)} is computed inside the model"
            raise Refusal("BNN008", f"the {what} of {self.node.op_type} is no constant", why=why)
        return self._numbers(array, name, what)

    def _numbers(self, array: Array, name: str, what: str) -> Array:
        if array.dtype.kind not in "fiu" or array.size == 0:
            kind = f"{array.dtype} of {array.size} values"
            raise Refusal("BNN003", f"the {what} {quoted(name)} is {kind}")
        if not np.isfinite(array).all():
            raise Refusal("BNN009", f"the {what} {quoted(name)} holds NaN or infinity")
        return array

    def parameter(self, name: str, what: str) -> tuple[str, Array | None]:
        """Return a float32 parameter as (name, value as far as known)."""
        array = self.writer.value(name)
        if array is None:
            return name, None
        array = self._numbers(array, name, what)
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if not np.array_equal(single.astype(array.dtype), array):
            raise Refusal("BNN008", f"the {what} {quoted(name)} does not fit float32")
        same = array.dtype == np.float32
        return (name if same else self.writer.constant(single)), single

    def single(self, name: str, what: str) -> Array:
        """Return a float32 parameter that must be a constant of the file."""
        self.known(name, what)
        value = self.parameter(name, what)[1]
        assert value is not None  # it is known
        return value

    def scale(self, name: str) -> tuple[str, Array | None]:
        """Return a scale as (name, value as far as known), which must not be 0."""
        given, value = self.parameter(name, "scale")
        if value is not None and (value == 0).any():
            what = f"the scale {quoted(name)} of {self.node.op_type} is 0"
            raise Refusal("BNN008", what, why="values are divided by it, or lost")
        return given, value

    def bits(self, name: str) -> Array:
        """Return bit widths, as float64 whole numbers from 1 on."""
        width = self.known(name, "bit width").astype(np.float64)
        if ((width < 1) | (width > _MOST_BITS) | (width != np.round(width))).any():
            shown = ", ".join(f"{value:g}" for value in width.reshape(-1)[:3])
            why = f"it must be a whole number from 1 to {_MOST_BITS}"
            raise Refusal("BNN008", f"bit width {shown} of {self.node.op_type}", why=why)
        return width

    def node_of(self, op_type: str, operands: Sequence[str], role: str, **attributes: Any) -> str:
        """Append a standard operator, and return its result's name."""
        result = self.writer.fresh(f"{self.node.output[0]}.{role}")
        made = helper.make_node(op_type, operands, [result], name=self._label, **attributes)
        self.writer.nodes.append(made)
        return result

    def finish(self, result: str) -> None:
        """Give the last result, `result`, the name of the custom node's."""
        last = self.writer.nodes[-1]
        assert last.output[0] == result
        last.output[0] = self.node.output[0]

    def constant(self, value: float | np.float32 | Array) -> str:
        """Return the name of a float32 constant."""
        return self.writer.constant(np.asarray(value, np.float32))

    def unless(
        self, neutral: float, op_type: str, x: str, parameter: tuple[str, Array | None], role: str
    ) -> str:
        """Append `op_type` of x and a parameter, unless that is known to change no value."""
        name, value = parameter
        if value is not None and value.ndim <= 1 and value.size == 1 and value.item() == neutral:
            return x
        return self.node_of(op_type, [x, name], role)

    def choose(self, x: str, bound: str, above: str, below: str, role: str) -> str:
        """Append a choice between `above` where x >= bound, and `below`."""
        if self.writer.opset >= _OPSET_GREATER_OR_EQUAL:
            mask = self.node_of("GreaterOrEqual", [x, bound], f"{role}.mask")
            return self.node_of("Where", [mask, above, below], role)
        mask = self.node_of("Less", [x, bound], f"{role}.mask")
        return self.node_of("Where", [mask, below, above], role)

    def signs(self, x: str) -> str:
        """Append +1 where x >= 0, -1 elsewhere."""
        return self.choose(x, self.constant(0), self.constant(1), self.constant(-1), "sign")

    def clamp(self, x: str, low: Array, high: Array) -> str:
        """Append a clamp to [low, high], which may differ from channel to channel."""
        if low.size > 1 or high.size > 1:
            above = self.node_of("Greater", [x, self.constant(high)], "above")
            x = self.node_of("Where", [above, self.constant(high), x], "low")
            below = self.node_of("Less", [x, self.constant(low)], "below")
            return self.node_of("Where", [below, self.constant(low), x], "clamped")
        bounds = [np.float32(low.item()), np.float32(high.item())]
        if self.writer.opset >= _OPSET_CLIP_OPERANDS:
            return self.node_of("Clip", [x, *map(self.constant, bounds)], "clamped")
        return self.node_of("Clip", [x], "clamped", min=float(bounds[0]), max=float(bounds[1]))

    def rounded(self, x: str, mode: str, limit: float = np.inf) -> str:
        """Append a rounding of x, whose magnitude does not exceed `limit`."""
        match mode.upper():
            case "ROUND" | "HALF_EVEN":
                return self._nearest_even(x, limit)
            case "FLOOR":
                return self.node_of("Floor", [x], "rounded")
            case "CEIL":
                return self.node_of("Ceil", [x], "rounded")
            case "UP":
                return self._by_magnitude(x, "Ceil", 0)
            case "DOWN" | "ROUND_TO_ZERO":
                return self._by_magnitude(x, "Floor", 0)
            case "HALF_UP":
                return self._by_magnitude(x, "Floor", 0.5)
            case "HALF_DOWN":
                return self._by_magnitude(x, "Ceil", -0.5)
        known = "ROUND, HALF_EVEN, HALF_UP, HALF_DOWN, FLOOR, CEIL, UP, DOWN, ROUND_TO_ZERO"
        what = f"rounding mode {quoted(mode)} of {self.node.op_type}"
        raise Refusal("BNN008", what, why=f"those that bnncc knows are {known}")

    def _nearest_even(self, x: str, limit: float) -> str:
        if self.writer.opset >= _OPSET_ROUND:
            return self.node_of("Round", [x], "rounded")
        if limit > 2.0**_EXACT_BITS:
            why = f"opset {self.writer.opset} has no Round, and its values may exceed 2^22"
            what = f"{self.node.op_type} rounds to nearest even"
            raise Refusal("BNN008", what, why=why, help=_HELP_OPSET)
        shifted = self.node_of("Add", [x, self.constant(_ROUNDING)], "shifted")
        return self.node_of("Sub", [shifted, self.constant(_ROUNDING)], "rounded")

    def _by_magnitude(self, x: str, op_type: str, offset: float) -> str:
        """Append sign(x) * op(|x| + offset)."""
        sign = self.node_of("Sign", [x], "side")
        size = self.node_of("Abs", [x], "magnitude")
        if offset:
            size = self.node_of("Add", [size, self.constant(offset)], "shifted")
        whole = self.node_of(op_type, [size], "whole")
        return self.node_of("Mul", [sign, whole], "rounded")


def _integers(bits: Array, signed: bool, narrow: bool) -> tuple[Array, Array]:
    """Return the least and largest integer of so many bits, float64 (exact where float32 is)."""
    if signed:
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return np.zeros_like(bits), 2.0**bits - 1 - narrow


def _bipolar(site: _Quantiser) -> None:
    """Say BipolarQuant(x, scale): scale * (+1 where x >= 0, -1 elsewhere)."""
    x, scale = site.operands(2)
    site.finish(site.unless(1, "Mul", site.signs(x), site.scale(scale), "scaled"))


def _quant(site: _Quantiser) -> None:
    """Say Quant(x, scale, zero point, bit width): divide, shift, clamp, round, and back."""
    x, scale_name, zero_name, bits_name = site.operands(4)
    scale, zero = site.scale(scale_name), site.parameter(zero_name, "zero point")
    bits = site.bits(bits_name)
    signed, narrow = site.flag("signed", True), site.flag("narrow", False)
    mode = site.text("rounding_mode", "ROUND")
    codes = site.unless(1, "Div", x, scale, "divided")
    codes = site.unless(0, "Add", codes, zero, "offset")
    if signed and (bits == 1).all():  # which QONNX takes as bipolar
        codes = site.signs(codes)
    elif signed and (bits == 1).any():
        raise Refusal("BNN008", "Quant with one signed bit in some channels only")
    else:
        low, high = _integers(bits, signed, narrow)
        limit = max(float(np.abs(low).max()), float(np.abs(high).max()))
        codes = site.rounded(site.clamp(codes, low, high), mode, limit)
    codes = site.unless(0, "Sub", codes, zero, "centred")
    site.finish(site.unless(1, "Mul", codes, scale, "scaled"))


def _trunc(site: _Quantiser) -> None:
    """Say Trunc, which drops low bits: version 1 of five operands, or 2 of six."""
    names = site.operands(5, 6)
    scale, zero = site.scale(names[1]), site.parameter(names[2], "zero point")
    mode = site.text("rounding_mode", "FLOOR")
    codes = site.unless(1, "Div", names[0], scale, "divided")
    codes = site.unless(0, "Add", codes, zero, "offset")
    codes = site.rounded(codes, "ROUND")
    if len(names) == 5:
        factor = 2.0 ** (site.bits(names[3]) - site.bits(names[4]))
        codes = site.unless(1, "Div", codes, _with_name(site, factor), "truncated")
        codes = site.rounded(codes, mode)
        codes = site.unless(0, "Sub", codes, zero, "centred")
        site.finish(site.unless(1, "Mul", codes, scale, "scaled"))
        return
    out_scale = site.scale(names[4])
    shift = site.single(names[2], "zero point")
    site.bits(names[3])
    ratio = _power_of_two(site.single(names[4], "output scale"), site.single(names[1], "scale"))
    codes = site.unless(1, "Div", codes, _with_name(site, ratio), "truncated")
    signed, narrow = site.flag("signed", True), site.flag("narrow", False)
    codes = site.clamp(codes, *_integers(site.bits(names[5]), signed, narrow))
    codes = site.rounded(codes, mode)
    codes = site.unless(0, "Sub", codes, _with_name(site, shift / ratio), "centred")
    site.finish(site.unless(1, "Mul", codes, out_scale, "scaled"))


def _power_of_two(after: Array, before: Array) -> Array:
    """Return the ratio of two scales, rounded to a power of two as the specification does."""
    with np.errstate(over="ignore", under="ignore"):
        ratio = after / before
    if not (np.isfinite(ratio) & (ratio > 0)).all():
        raise Refusal("BNN008", "Trunc whose scales have no positive ratio in float32")
    return np.asarray(2.0 ** np.round(np.log2(ratio)))


def _with_name(site: _Quantiser, array: Array) -> tuple[str, Array | None]:
    with np.errstate(over="ignore"):
        single = np.asarray(array, np.float32)
    if not np.isfinite(single).all():
        raise Refusal("BNN009", "Trunc divides by more than float32 holds")
    return site.constant(single), single


def _multi_threshold(site: _Quantiser) -> None:
    """Say MultiThreshold(x, thresholds [C or 1, T]): scale * (how many x reaches) + bias.

    In ascending order, each threshold that x reaches overrides the level of those before.
    """
    x, name = site.operands(2)
    thresholds = site.single(name, "thresholds")
    if thresholds.ndim != 2:
        what = f"thresholds {quoted(name)} of shape {list(thresholds.shape)}"
        raise Refusal("BNN003", what, why="they must be [channels, steps]")
    channels, steps = thresholds.shape
    if steps > _MOST_THRESHOLDS:
        why = f"the limit is {_MOST_THRESHOLDS}"
        raise Refusal("BNN008", f"{steps} thresholds a channel in {quoted(name)}", why=why)
    # The specification's own two float32 operations.
    counts = np.arange(steps + 1, dtype=np.float32)
    levels = site.number("out_scale", 1) * counts + site.number("out_bias", 0)
    shape = _threshold_shape(site, x, channels)
    result = site.constant(levels[0])
    for level, row in zip(levels[1:], np.sort(thresholds, axis=1).T, strict=True):
        bound = site.constant(row.reshape(shape))
        result = site.choose(x, bound, site.constant(level), result, "step")
    site.finish(result)


def _threshold_shape(site: _Quantiser, x: str, channels: int) -> tuple[int, ...]:
    """Return the shape in which one threshold a channel broadcasts to x."""
    layout = site.text("data_layout", "NCHW")
    if len(layout) < 2 or layout[0] != "N" or "C" not in (layout[1], layout[-1]):
        raise Refusal("BNN008", f"data layout {quoted(layout)} of MultiThreshold")
    if channels == 1:
        return ()
    if layout[-1] == "C":
        return (channels,)
    # Files keep the default layout for matrices, so what x really has comes first.
    rank = site.writer.rank(x) or len(layout)
    return (channels, *(1,) * (rank - 2))


OPERATORS: Mapping[str, Callable[[_Quantiser], None]] = MappingProxyType(
    {
        "BipolarQuant": _bipolar,
        "IntQuant": _quant,
        "MultiThreshold": _multi_threshold,
        "Quant": _quant,
        "Trunc": _trunc,
    }
)
"""How each custom operator is said, whichever of `DOMAINS` it is in."""
