"""QONNX's operators, decomposed, against the specification said once more in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx import Imported
from bnncc.ir import interpret
from bnncc.ir.types import Array, Element
from tests.frontends.builders import NODE, assert_agrees, hostile, load, make, oracle

BREVITAS, QONNX, FINN = "onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general"
F32 = np.float32
# Where the forms differ: Round and Clip with operands came with 11, GreaterOrEqual with 12.
OPSETS = (9, 10, 11, 12, 13, 17, 21)


# --- The specification ----------------------------------------------------------------------------


def _away(x: Array, whole: Callable[[Array], Array], offset: float) -> Array:
    return np.sign(x) * whole(np.abs(x) + F32(offset))


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: _away(x, np.ceil, 0),
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": lambda x: _away(x, np.floor, 0.5),
    "HALF_DOWN": lambda x: _away(x, np.ceil, -0.5),
}

# The table of QONNX's documentation, intquant_v1.md.
TABLE = {
    "ROUND": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
    "HALF_EVEN": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
    "CEIL": (6, 3, 2, 2, 1, -1, -1, -1, -2, -5),
    "FLOOR": (5, 2, 1, 1, 1, -1, -2, -2, -3, -6),
    "UP": (6, 3, 2, 2, 1, -1, -2, -2, -3, -6),
    "DOWN": (5, 2, 1, 1, 1, -1, -1, -1, -2, -5),
    "ROUND_TO_ZERO": (5, 2, 1, 1, 1, -1, -1, -1, -2, -5),
    "HALF_UP": (6, 3, 2, 1, 1, -1, -1, -2, -3, -6),
    "HALF_DOWN": (5, 2, 2, 1, 1, -1, -1, -2, -2, -5),
}
NUMBERS = np.asarray([5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5], F32)


def bipolar(x: Array, scale: Array) -> Array:
    return np.where(x >= 0, F32(1), F32(-1)) * scale


def bounds(bits: Array, signed: bool, narrow: bool) -> tuple[Array, Array]:
    bits = np.asarray(bits, np.float64)
    if signed:
        return (-(2 ** (bits - 1)) + narrow).astype(F32), (2 ** (bits - 1) - 1).astype(F32)
    return np.zeros_like(bits, F32), (2**bits - 1 - narrow).astype(F32)


def quant(
    x: Array,
    scale: Array,
    zero: Array,
    bits: Array,
    *,
    signed: bool = True,
    narrow: bool = False,
    mode: str = "ROUND",
) -> Array:
    codes = x / scale + zero
    if signed and np.all(bits == 1):
        codes = np.where(codes >= 0, F32(1), F32(-1))
    else:
        low, high = bounds(bits, signed, narrow)
        codes = np.where(codes > high, high, codes)
        codes = ROUNDINGS[mode](np.where(codes < low, low, codes))
    return (codes - zero) * scale


def multi_threshold(x: Array, thresholds: Array, axis: int, scale: float, bias: float) -> Array:
    x = np.moveaxis(x, axis, -1)[..., np.newaxis]
    counts = np.count_nonzero(x >= thresholds, axis=-1).astype(F32)
    return np.moveaxis(F32(scale) * counts + F32(bias), -1, axis)


# --- Models of one custom node --------------------------------------------------------------------


def custom(
    op_type: str,
    *parameters: Array,
    shape: Sequence[int] = (1, 4),
    domain: str = QONNX,
    opset: int = 17,
    **attributes: object,
) -> onnx.ModelProto:
    """Return a model y = op_type(x, *parameters)."""
    names = [f"p{i}" for i in range(len(parameters))]
    node = NODE(op_type, ["x", *names], ["y"], name="layer", domain=domain, **attributes)
    return make(
        node,
        inputs={"x": shape},
        constants=dict(zip(names, parameters, strict=True)),
        opset=opset,
    )


def computed(model: onnx.ModelProto, x: Array, folder: Path) -> Array:
    """Return what ONNX Runtime makes of the decomposed model; bnncc's own IR must agree."""
    imported = load(model, folder)
    assert_agrees(imported, {"x": x}, zero_signs=False)
    return oracle(imported.source, {"x": x}, ["y"])[0]


def single(*values: float) -> Array:
    return np.asarray(values, F32) if len(values) > 1 else np.asarray(values[0], F32)


def ties(scale: float, zero: float = 0.0, count: int = 80) -> Array:
    """Return [N, 4]: multiples of a quarter step around zero, neighbours of each, and rubbish."""
    steps = np.arange(-count, count, dtype=F32) / F32(4) * F32(scale) - F32(zero * scale)
    near = [np.nextafter(steps, F32(side), dtype=F32) for side in (-np.inf, np.inf)]
    values = np.concatenate([steps, *near])
    return np.concatenate([values[: len(values) // 4 * 4].reshape(-1, 4), hostile(1e30)])


# --- Rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", TABLE)
@pytest.mark.parametrize("opset", OPSETS)
def test_rounding_is_the_documented_table(mode: str, opset: int, tmp_path: Path) -> None:
    numbers = np.resize(NUMBERS, (3, 4))
    wanted = np.resize(np.asarray(TABLE[mode], F32), (3, 4))
    model = custom(
        "Quant", single(1), single(0), single(8), opset=opset, rounding_mode=mode, signed=1
    )
    np.testing.assert_array_equal(computed(model, numbers, tmp_path), wanted)


def test_lower_case_names_of_roundings(tmp_path: Path) -> None:
    model = custom("Quant", single(1), single(0), single(8), rounding_mode="half_down")
    wanted = np.asarray([[5, 2, 2, 1]], F32)
    np.testing.assert_array_equal(computed(model, NUMBERS[np.newaxis, :4], tmp_path), wanted)


# --- Quant ----------------------------------------------------------------------------------------

CASES = [
    (bits, signed, narrow, mode, opset)
    for i, (bits, signed, narrow, mode) in enumerate(
        product((1, 2, 3, 4, 8), (True, False), (True, False), ("ROUND", "FLOOR", "HALF_UP"))
    )
    for opset in (OPSETS[i % len(OPSETS)],)
    if not (bits == 1 and narrow)  # a single code
]


@pytest.mark.parametrize("case", CASES)
def test_quant(case: tuple[int, bool, bool, str, int], tmp_path: Path) -> None:
    bits, signed, narrow, mode, opset = case
    for scale, zero in ((1, 0), (0.3, 0), (0.0078125, 2), (2.5, -1)):
        parameters = single(scale), single(zero), single(bits)
        x = ties(scale, zero)
        model = custom(
            "Quant",
            *parameters,
            opset=opset,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode=mode,
        )
        wanted = quant(x, *parameters, signed=signed, narrow=narrow, mode=mode)
        np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


@pytest.mark.parametrize("opset", OPSETS)
def test_quant_by_default_is_signed_and_wide(opset: int, tmp_path: Path) -> None:
    parameters = single(0.5), single(0), single(3)
    x = ties(0.5)
    y = computed(custom("IntQuant", *parameters, opset=opset), x, tmp_path)
    np.testing.assert_array_equal(y, quant(x, *parameters))
    assert (y.min(), y.max()) == (-2, 1.5)


@pytest.mark.parametrize("opset", [9, 17])
def test_quant_of_channels_on_their_own(opset: int, tmp_path: Path) -> None:
    """Scales of either sign, zero points and even bit widths that differ between channels."""
    scale = np.asarray([0.5, -0.25, 3.0], F32).reshape(1, 3, 1, 1)
    zero = np.asarray([0, 1, -2], F32).reshape(1, 3, 1, 1)
    x = np.random.default_rng(3).normal(0, 4, (20, 3, 2, 2)).astype(F32)
    x[::2] = np.round(x[::2] * 8) / 8
    for bits in (single(4), np.asarray([2, 3, 8], F32).reshape(1, 3, 1, 1)):
        model = custom("Quant", scale, zero, bits, shape=(1, 3, 2, 2), opset=opset)
        y = computed(model, x, tmp_path)
        np.testing.assert_array_equal(y, quant(x, scale, zero, bits))


def test_quant_of_many_bits(tmp_path: Path) -> None:
    """Biases have 32; their clamp is at what float32 makes of the bounds."""
    parameters = single(2.0**-20), single(0), single(32)
    x = hostile(1e3)
    np.testing.assert_array_equal(
        computed(custom("Quant", *parameters), x, tmp_path), quant(x, *parameters)
    )


@pytest.mark.parametrize("opset", [9, 10])
def test_rounding_before_round_existed_is_exact_to_22_bits(opset: int, tmp_path: Path) -> None:
    parameters = single(1), single(0), single(22)
    x = np.concatenate([hostile(), (hostile(2.0**20) * 4 + F32(0.5)).astype(F32)])
    y = computed(custom("Quant", *parameters, opset=opset, signed=0), x, tmp_path)
    np.testing.assert_array_equal(y, quant(x, *parameters, signed=False))


# --- BipolarQuant ---------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("domain", [BREVITAS, QONNX, FINN])
def test_bipolar_quant(domain: str, opset: int, tmp_path: Path) -> None:
    x = hostile()
    assert np.signbit(x[x == 0]).any()
    for scale in (single(1), single(0.3), single(-0.7), np.asarray([0.1, -2, 3, 1], F32)):
        model = custom("BipolarQuant", scale, domain=domain, opset=opset)
        np.testing.assert_array_equal(computed(model, x, tmp_path), bipolar(x, scale))


# --- Trunc ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", sorted(ROUNDINGS))
@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_trunc(mode: str, zero: float, tmp_path: Path) -> None:
    scale, x = single(0.25), ties(0.25, zero, 400)
    model = custom("Trunc", scale, single(zero), single(10), single(4), rounding_mode=mode)
    codes = np.rint(x / scale + F32(zero)) / F32(64)
    wanted = (ROUNDINGS[mode](codes) - F32(zero)) * scale
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


def test_trunc_drops_fractions_downwards_by_default(tmp_path: Path) -> None:
    model = custom("Trunc", single(1), single(0), single(8), single(6))
    x = np.asarray([[7, 8, -1, -9]], F32)
    np.testing.assert_array_equal(computed(model, x, tmp_path), [[1, 2, -1, -3]])


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("zero", [0.0, 8.0])
def test_second_version_of_trunc(signed: int, narrow: int, zero: float, tmp_path: Path) -> None:
    """It clamps, and its output has a scale of its own, whose ratio becomes a power of two."""
    scale, out_scale, x = single(0.25), single(1.1), ties(0.25, zero, 400)
    attributes = {"rounding_mode": "ROUND", "signed": signed, "narrow": narrow}
    operands = scale, single(zero), single(10), out_scale, single(4)
    model = custom("Trunc", *operands, **attributes)
    low, high = bounds(single(4), bool(signed), bool(narrow))
    codes = np.rint(x / scale + F32(zero)) / F32(4)
    codes = np.rint(np.where(codes < low, low, np.where(codes > high, high, codes)))
    wanted = (codes - F32(zero) / F32(4)) * out_scale
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


# --- MultiThreshold -------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 12, 17])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3), "NC"),
        ((1, 3), "NCHW"),  # FINN leaves the default on matrices
        ((1, 3, 5), "NCW"),
        ((1, 3, 2, 2), "NCHW"),
        ((1, 2, 2, 3), "NHWC"),
    ],
)
def test_multi_threshold(shape: tuple[int, ...], layout: str, opset: int, tmp_path: Path) -> None:
    """Unsorted rows, equal thresholds, and values that lie on them."""
    rng = np.random.default_rng(5)
    axis = len(shape) - 1 if layout[-1] == "C" else 1
    for channels, steps, scale, bias in ((3, 3, 1, 0), (3, 7, 0.3, -1.1), (1, 1, 2, -1)):
        thresholds = (np.round(rng.normal(0, 2, (channels, steps)) * 2) / 2).astype(F32)
        x = (np.round(rng.normal(0, 2, (40, *shape[1:])) * 4) / 4).astype(F32)
        attributes = {"out_scale": float(scale), "out_bias": float(bias), "out_dtype": "INT4"}
        model = custom(
            "MultiThreshold",
            thresholds,
            shape=shape,
            domain=FINN,
            opset=opset,
            data_layout=layout,
            **attributes,
        )
        wanted = multi_threshold(x, thresholds, axis, scale, bias)
        np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


def test_thresholds_after_operators_whose_rank_must_be_inferred(tmp_path: Path) -> None:
    """The default layout says 4 dimensions; behind the Flatten and a quantiser there are 2."""
    thresholds = np.asarray([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [-1.0, 5.0]], F32)
    model = make(
        NODE("Flatten", ["x"], ["f"]),
        NODE("Quant", ["f", "one", "zero", "bits"], ["q"], domain=QONNX),
        NODE("MultiThreshold", ["q", "t"], ["y"], domain=FINN, out_dtype="UINT2"),
        inputs={"x": (1, 4, 1, 1)},
        constants={"one": single(1), "zero": single(0), "bits": single(8), "t": thresholds},
    )
    x = np.round(hostile(100)).reshape(-1, 4, 1, 1)
    wanted = multi_threshold(x.reshape(-1, 4), thresholds, 1, 1, 0)
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


# --- The model around them ------------------------------------------------------------------------


def weights(folder: Path, domain: str = QONNX) -> Imported:
    rng = np.random.default_rng(0)
    return load(
        make(
            NODE("BipolarQuant", ["w", "scale"], ["q"], name="weight_quant", domain=domain),
            NODE("MatMul", ["x", "q"], ["a"], name="dense"),
            NODE("BipolarQuant", ["a", "one"], ["y"], name="act_quant", domain=domain),
            constants={
                "w": rng.normal(size=(4, 3)).astype(F32),
                "scale": np.asarray([[0.5, 2.0, 0.25]], F32),
                "one": single(1),
            },
        ),
        folder,
    )


def test_quantised_weights_fold(tmp_path: Path) -> None:
    imported = weights(tmp_path)
    assert [node.op.name for node in imported.graph.nodes] == ["MatMul", "GreaterOrEqual", "Where"]
    w = imported.graph.constants[imported.graph.nodes[0].inputs[1]]
    np.testing.assert_array_equal(np.abs(w), np.tile([[0.5], [2], [0.25]], 4))
    assert {(w > 0).any(), (w < 0).any()} == {True}


def test_the_report_says_that_the_oracle_is_decomposed(tmp_path: Path) -> None:
    imported = weights(tmp_path, BREVITAS)
    note = "2 custom operators said in standard ones: 2 BipolarQuant"
    assert note in imported.notes
    assert {node.domain for node in imported.source.graph.node} == {""}


def test_nodes_keep_the_users_names(tmp_path: Path) -> None:
    graph = weights(tmp_path).graph
    assert [node.origin for node in graph.nodes] == [("dense",), ("act_quant",), ("act_quant",)]
    model = custom("Quant", single(0.5), single(0), single(2))
    model.graph.node[0].name = ""
    graph = load(model, tmp_path).graph
    assert {node.origin for node in graph.nodes} == {("Quant(y)",)}


def test_names_of_parts_do_not_collide(tmp_path: Path) -> None:
    model = make(
        NODE("Mul", ["x", "quantiser.constant"], ["y.sign"]),
        NODE("BipolarQuant", ["y.sign", "quantiser.constant"], ["y"], domain=QONNX),
        constants={"quantiser.constant": single(-3)},
    )
    x = hostile(1e30)
    np.testing.assert_array_equal(computed(model, x, tmp_path), bipolar(x * F32(-3), F32(-3)))


@pytest.mark.parametrize("through", [(), ("Identity",), ("Cast",), ("Cast", "Identity", "Cast")])
def test_parameters_may_be_constant_nodes(through: Sequence[str], tmp_path: Path) -> None:
    """And what Identity and Cast make of them: bit widths are then int64, say."""
    start = numpy_helper.from_array(np.asarray(3.0 if through != ("Cast",) else 3, np.float64))
    start = start if through else numpy_helper.from_array(single(3))
    nodes, name = [NODE("Constant", [], ["b"], value=start)], "b"
    for i, op_type in enumerate(through):
        attributes = {"to": TensorProto.INT64 if i == 0 else TensorProto.FLOAT}
        more = attributes if op_type == "Cast" else {}
        nodes.append(NODE(op_type, [name], [f"b{i}"], **more))
        name = f"b{i}"
    model = make(
        *nodes,
        NODE("Quant", ["x", "scale", "zero", name], ["y"], domain=QONNX),
        constants={"scale": single(0.5), "zero": single(0)},
    )
    x = ties(0.5)
    wanted = quant(x, single(0.5), single(0), single(3))
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


def test_parameters_may_be_constant_nodes_of_one_number(tmp_path: Path) -> None:
    model = make(
        NODE("Constant", [], ["bits"], value_int=3),
        NODE("Constant", [], ["scale"], value_float=0.5),
        NODE("Constant", [], ["zero"], value_floats=[0.0]),
        NODE("Quant", ["x", "scale", "zero", "bits"], ["y"], domain=QONNX),
    )
    x = ties(0.5)
    wanted = quant(x, single(0.5), single(0), single(3))
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


def test_scales_may_be_computed(tmp_path: Path) -> None:
    model = make(
        NODE("Mul", ["half", "half"], ["scale"]),
        NODE("Quant", ["x", "scale", "zero", "bits"], ["y"], domain=QONNX),
        constants={"half": single(0.5), "zero": single(0), "bits": single(3)},
    )
    x = ties(0.25)
    wanted = quant(x, single(0.25), single(0), single(3))
    np.testing.assert_array_equal(computed(model, x, tmp_path), wanted)


def test_parameters_of_other_types_that_float32_holds(tmp_path: Path) -> None:
    bits, zero = np.asarray(4, np.int32), np.asarray(2, np.int64)
    x = ties(0.5, 2)
    y = computed(custom("Quant", np.asarray(0.5), zero, bits), x, tmp_path)
    np.testing.assert_array_equal(y, quant(x, single(0.5), single(2), single(4)))


# --- Refusals -------------------------------------------------------------------------------------

ONE, NOTHING, BITS = single(1), single(0), single(4)
STEPS = np.zeros((4, 3), F32)
REFUSED = {
    "no scale": (custom("BipolarQuant"), "BNN003", "BipolarQuant of 1 operand instead of 2"),
    "no bits": (custom("Quant", ONE, NOTHING), "BNN003", "Quant of 3 operands instead of 4"),
    "seven operands": (
        custom("Trunc", ONE, NOTHING, BITS, ONE, BITS, ONE),
        "BNN003",
        "Trunc of 7 operands instead of 5 or 6",
    ),
    "scale zero": (custom("BipolarQuant", NOTHING), "BNN008", 'scale "p0" of BipolarQuant is 0'),
    "one scale zero": (
        custom("Quant", single(1, 0, 1, 1), NOTHING, BITS),
        "BNN008",
        'scale "p0" of Quant is 0',
    ),
    "scale NaN": (custom("BipolarQuant", single(np.nan)), "BNN009", '"p0" holds NaN or infinity'),
    "scale infinite": (
        custom("Quant", single(np.inf), NOTHING, BITS),
        "BNN009",
        '"p0" holds NaN or infinity',
    ),
    "scale a double": (
        custom("Quant", np.asarray(0.1), NOTHING, BITS),
        "BNN008",
        'the scale "p0" does not fit float32',
    ),
    "scale empty": (custom("BipolarQuant", np.zeros(0, F32)), "BNN003", "of 0 values"),
    "scale truth values": (custom("BipolarQuant", np.asarray(True)), "BNN003", "is bool"),
    "half a bit": (custom("Quant", ONE, NOTHING, single(2.5)), "BNN008", "bit width 2.5 of Quant"),
    "no bit": (custom("Quant", ONE, NOTHING, NOTHING), "BNN008", "bit width 0 of Quant"),
    "minus bits": (custom("Quant", ONE, NOTHING, single(-3)), "BNN008", "bit width -3 of Quant"),
    "a million bits": (custom("Quant", ONE, NOTHING, single(1e6)), "BNN008", "bit width 1e+06"),
    "one bit here and there": (
        custom("Quant", ONE, NOTHING, single(1, 2, 2, 2)),
        "BNN008",
        "one signed bit in some channels only",
    ),
    "bits from the input": (
        make(
            NODE("ReduceMean", ["x"], ["b"]),
            NODE("Quant", ["x", "one", "zero", "b"], ["y"], domain=QONNX),
            constants={"one": ONE, "zero": NOTHING},
        ),
        "BNN008",
        "the bit width of Quant is no constant",
    ),
    "bits from themselves": (
        make(
            NODE("Identity", ["b"], ["b"]),
            NODE("Quant", ["x", "one", "zero", "b"], ["y"], domain=QONNX),
            constants={"one": ONE, "zero": NOTHING},
        ),
        "BNN008",
        "the bit width of Quant is no constant",
    ),
    "stochastic rounding": (
        custom("Quant", ONE, NOTHING, BITS, rounding_mode="STOCHASTIC_ROUND"),
        "BNN008",
        'rounding mode "STOCHASTIC_ROUND" of Quant',
    ),
    "signed twice": (
        custom("Quant", ONE, NOTHING, BITS, signed=2),
        "BNN003",
        'attribute "signed" is 2',
    ),
    "signed by name": (
        custom("Quant", ONE, NOTHING, BITS, signed="yes"),
        "BNN003",
        'attribute "signed" has the wrong type',
    ),
    "an attribute of another specification": (
        custom("Quant", ONE, NOTHING, BITS, overflow="WRAP"),
        "BNN008",
        'Quant with attribute "overflow"',
    ),
    "before the operators that say it": (
        custom("Quant", ONE, NOTHING, BITS, opset=8),
        "BNN008",
        "Quant beside operators of opset 8",
    ),
    "wide rounding in old opsets": (
        custom("Quant", ONE, NOTHING, single(32), opset=10),
        "BNN008",
        "Quant rounds to nearest even",
    ),
    "unbounded rounding in old opsets": (
        custom("Trunc", ONE, NOTHING, BITS, BITS, opset=10),
        "BNN008",
        "Trunc rounds to nearest even",
    ),
    "scales of different signs": (
        custom("Trunc", ONE, NOTHING, BITS, single(-1), BITS),
        "BNN008",
        "Trunc whose scales have no positive ratio",
    ),
    "scales worlds apart": (
        custom("Trunc", single(1e-30), NOTHING, BITS, single(1e30), BITS),
        "BNN008",
        "Trunc whose scales have no positive ratio",
    ),
    "thresholds in a row": (
        custom("MultiThreshold", single(1, 2, 3)),
        "BNN003",
        'thresholds "p0" of shape [3]',
    ),
    "no thresholds": (custom("MultiThreshold", np.zeros((4, 0), F32)), "BNN003", "of 0 values"),
    "a thresholds' NaN": (
        custom("MultiThreshold", np.full((1, 2), np.nan, F32)),
        "BNN009",
        'thresholds "p0" holds NaN or infinity',
    ),
    "too many thresholds": (
        custom("MultiThreshold", np.zeros((1, 256), F32)),
        "BNN008",
        "256 thresholds a channel",
    ),
    "layout of no known kind": (
        custom("MultiThreshold", STEPS, data_layout="CHWN"),
        "BNN008",
        'data layout "CHWN" of MultiThreshold',
    ),
    "bias infinite": (
        custom("MultiThreshold", STEPS, out_bias=float("inf")),
        "BNN009",
        'attribute "out_bias" is inf',
    ),
    "thresholds of other channels": (
        custom("MultiThreshold", np.zeros((3, 2), F32)),
        "BNN003",
        "shapes or element types contradict each other",
    ),
    "another operator of the domain": (
        custom("FloatQuant", ONE),
        "BNN007",
        'operator "qonnx.custom_op.general.FloatQuant" is not supported (1 node)',
    ),
    "another domain": (
        custom("Quant", ONE, NOTHING, BITS, domain="com.example"),
        "BNN007",
        'operator "com.example.Quant" is not supported (1 node)',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, tmp_path: Path) -> None:
    model, code, what = REFUSED[case]
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    assert caught.value.code == code
    assert what in caught.value.diagnostics[0].what


def test_all_refusals_are_reported_at_once(tmp_path: Path) -> None:
    model = make(
        NODE("BipolarQuant", ["x", "zero"], ["a"], name="first", domain=QONNX),
        NODE("Quant", ["a", "one", "zero", "zero"], ["y"], name="second", domain=QONNX),
        constants={"one": ONE, "zero": NOTHING},
    )
    with pytest.raises(UnsupportedModelError) as caught:
        load(model, tmp_path)
    assert [found.where for found in caught.value.diagnostics] == [
        'ONNX node "first"',
        'ONNX node "second"',
    ]


def test_two_results(tmp_path: Path) -> None:
    model = custom("BipolarQuant", ONE)
    model.graph.node[0].output.append("z")
    with pytest.raises(UnsupportedModelError, match="BipolarQuant with 2 results"):
        load(model, tmp_path)


# --- Inputs of bytes ------------------------------------------------------------------------------

CODES = np.arange(256, dtype=np.uint8).reshape(-1, 4)


def bytes_model(*nodes: onnx.NodeProto, **constants: Array) -> onnx.ModelProto:
    model = make(*nodes, constants=constants)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


@pytest.mark.parametrize("integer", [None, TensorProto.INT32, TensorProto.INT64])
def test_inputs_of_bytes(integer: int | None, tmp_path: Path) -> None:
    """Moved as they are, or as the integers that some exporters cast them to first."""
    steps = [] if integer is None else [NODE("Cast", ["f"], ["i"], to=integer)]
    last = "f" if integer is None else "i"
    model = bytes_model(
        NODE("Reshape", ["x", "shape"], ["f"]),
        *steps,
        NODE("Cast", [last], ["r"], to=TensorProto.FLOAT),
        NODE("Div", ["r", "c255"], ["y"]),
        shape=np.asarray([1, 2, 2]),
        c255=single(255),
    )
    imported = load(model, tmp_path)
    assert imported.graph.types["x"].element is Element.U8
    assert_agrees(imported, {"x": CODES})
    y = interpret.run(imported.graph, {"x": CODES})["y"]
    np.testing.assert_array_equal(y.reshape(-1, 4), CODES.astype(F32) / F32(255))


def test_arithmetic_on_bytes_is_refused(tmp_path: Path) -> None:
    model = bytes_model(
        NODE("Mul", ["x", "two"], ["m"]),
        NODE("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
        two=np.asarray(2, np.uint8),
    )
    with pytest.raises(UnsupportedModelError, match="Mul computes UINT8"):
        load(model, tmp_path)


def test_inputs_of_signed_bytes(tmp_path: Path) -> None:
    model = make(
        NODE("Flatten", ["x"], ["f"]),
        NODE("Cast", ["f"], ["r"], to=TensorProto.FLOAT),
        NODE("Mul", ["r", "c"], ["y"]),
        constants={"c": single(0.1)},
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    imported = load(model, tmp_path)
    assert imported.graph.types["x"].element is Element.I8
    assert_agrees(imported, {"x": CODES.view(np.int8)})


@pytest.mark.parametrize("element", [TensorProto.INT16, TensorProto.INT32, TensorProto.DOUBLE])
def test_other_inputs_are_refused(element: int, tmp_path: Path) -> None:
    model = make(NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = element
    with pytest.raises(UnsupportedModelError, match="whose inputs are FLOAT, UINT8 or INT8"):
        load(model, tmp_path)


def annotated(tensor: str, kind: str) -> onnx.ModelProto:
    model = make(NODE("Mul", ["x", "c"], ["y"]), constants={"c": single(0.5)})
    note = onnx.TensorAnnotation(tensor_name=tensor)
    note.quant_parameter_tensor_names.append(
        onnx.StringStringEntryProto(key="finn_datatype", value=kind)
    )
    model.graph.quantization_annotation.append(note)
    return model


def test_finns_annotations_make_inputs_bytes(tmp_path: Path) -> None:
    imported = load(annotated("x", "UINT8"), tmp_path)
    assert imported.graph.types["x"].element is Element.U8
    assert 'input "x" taken as bytes: its annotation says so' in imported.notes
    y = interpret.run(imported.graph, {"x": CODES})["y"]
    np.testing.assert_array_equal(y, CODES.astype(F32) / 2)
    (given,) = imported.source.graph.input
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT  # the oracle's stays


@pytest.mark.parametrize(("tensor", "kind"), [("x", "INT8"), ("x", "FLOAT32"), ("y", "UINT8")])
def test_other_annotations_do_not(tensor: str, kind: str, tmp_path: Path) -> None:
    imported = load(annotated(tensor, kind), tmp_path)
    assert imported.graph.types["x"].element is Element.F32


# --- Normalisation of rows ------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_normalisation_of_a_row_in_disguise(depth: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    statistics = {name: rng.normal(size=4).astype(F32) for name in ("gamma", "beta", "mean")}
    statistics["variance"] = rng.uniform(0.1, 2, 4).astype(F32)
    axes = list(range(2, 2 + depth))
    model = make(
        NODE("Unsqueeze", ["x"], ["u"], axes=axes),
        NODE("BatchNormalization", ["u", *statistics], ["b"]),
        NODE("Squeeze", ["b"], ["y"], axes=axes),
        constants=statistics,
        opset=11,
    )
    imported = load(model, tmp_path)
    assert_agrees(imported, {"x": hostile(1e30)})
    norm = next(n for n in imported.graph.nodes if n.op.name == "BatchNormalization")
    assert norm.inputs[0] == "x"


def test_normalisation_of_columns_stays(tmp_path: Path) -> None:
    statistics = {name: np.ones(1, F32) for name in ("gamma", "beta", "mean", "variance")}
    model = make(
        NODE("Unsqueeze", ["x"], ["u"], axes=[1]),
        NODE("BatchNormalization", ["u", *statistics], ["y"]),
        constants=statistics,
        opset=11,
    )
    imported = load(model, tmp_path)
    assert_agrees(imported, {"x": hostile(1e30)})
    assert imported.graph.nodes[-1].inputs[0] == "u"


def test_custom_domain_is_imported_no_more(tmp_path: Path) -> None:
    model = custom("BipolarQuant", ONE)
    model.opset_import.extend([helper.make_opsetid(QONNX, 2), helper.make_opsetid("other", 1)])
    imports = {entry.domain for entry in load(model, tmp_path).source.opset_import}
    assert imports == {"", "other"}
