"""Operations that work on each element alone, by ONNX's names and ONNX Runtime's float32 semantics.

Each rounds to float32 once, except where its docstring says otherwise. All broadcast as numpy does.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from bnncc.ir.ops.base import Op, OpError
from bnncc.ir.ops.transcendental import erf32, exp32, log32, power32, sigmoid32, tanh32
from bnncc.ir.types import DENSE, Array, Element, Stage, TensorType

__all__ = [
    "Abs",
    "Add",
    "And",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Dequantize",
    "DequantizeTwo",
    "Div",
    "Elementwise",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Power",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sqrt",
    "Step",
    "Sub",
    "Tanh",
    "Where",
    "Xor",
    "over_channels",
]

_F32 = np.float32


def over_channels(row: Array, rank: int) -> Array:
    """Return a row [C] (or a scalar) so that it broadcasts over axis 1 of that many axes."""
    return row.reshape(-1, *(1,) * (rank - 2))


@dataclass(frozen=True)
class Elementwise(Op):
    """An operation on each element alone; operands broadcast, the result has one element type."""

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.BINARY})
    arity: ClassVar[int] = 1
    operand_element: ClassVar[Element | None] = Element.F32
    channel_operands: ClassVar[frozenset[int]] = frozenset()
    """Operands with a row a channel, whatever the rank of the others: channels are axis 1."""

    @property
    def result_element(self) -> Element:
        """The element type of the result."""
        return Element.F32

    @abc.abstractmethod
    def compute(self, *operands: Array) -> Array:
        """Return the result, as numpy arrays of the operands' own types."""

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the broadcast shape with the result's element type."""
        if len(operands) != self.arity:
            raise OpError(f"{self.name} takes {self.arity} operands, not {len(operands)}")
        if any(operand.layout != DENSE for operand in operands):
            raise OpError(f"{self.name} needs dense operands")
        wanted = self.operand_element
        if wanted is not None and any(operand.element is not wanted for operand in operands):
            found = ", ".join(operand.element.value for operand in operands)
            raise OpError(f"{self.name} needs {wanted.value} operands, not {found}")
        try:
            shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        except ValueError as error:
            shapes = " and ".join(str(list(operand.shape)) for operand in operands)
            raise OpError(f"shapes {shapes} do not broadcast") from error
        return (TensorType(shape, self.result_element),)

    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the one result, computed without numpy warnings (overflow gives infinities)."""
        with np.errstate(all="ignore"):
            return (self.compute(*operands),)


@dataclass(frozen=True)
class Identity(Elementwise):
    """y = x, of any element type."""

    operand_element: ClassVar[Element | None] = None

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the operand's own type."""
        if len(operands) != 1:
            raise OpError("Identity takes one operand")
        return (operands[0],)

    def compute(self, *operands: Array) -> Array:
        """Return the operand."""
        return operands[0]


@dataclass(frozen=True)
class Add(Elementwise):
    """y = fl(a + b)."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the rounded sum."""
        return operands[0] + operands[1]


@dataclass(frozen=True)
class Sub(Elementwise):
    """y = fl(a - b)."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the rounded difference."""
        return operands[0] - operands[1]


@dataclass(frozen=True)
class Mul(Elementwise):
    """y = fl(a * b)."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the rounded product."""
        return operands[0] * operands[1]


@dataclass(frozen=True)
class Div(Elementwise):
    """y = fl(a / b)."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the rounded quotient."""
        return operands[0] / operands[1]


@dataclass(frozen=True)
class Max(Elementwise):
    """y = the larger of a and b, exact; b of equals, and a NaN wins."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the larger operand."""
        a, b = operands
        return np.where((a > b) | np.isnan(a), a, b)


@dataclass(frozen=True)
class Min(Elementwise):
    """y = the smaller of a and b, exact; b of equals, and a NaN wins."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the smaller operand."""
        a, b = operands
        return np.where((a < b) | np.isnan(a), a, b)


@dataclass(frozen=True)
class Neg(Elementwise):
    """y = -x, exact."""

    def compute(self, *operands: Array) -> Array:
        """Return the negated operand."""
        return -operands[0]


@dataclass(frozen=True)
class Abs(Elementwise):
    """y = |x|, exact."""

    def compute(self, *operands: Array) -> Array:
        """Return the magnitude."""
        return np.abs(operands[0])


@dataclass(frozen=True)
class Relu(Elementwise):
    """y = max(x, 0), exact."""

    def compute(self, *operands: Array) -> Array:
        """Return the operand where positive, else 0."""
        return np.where(operands[0] < 0, _F32(0), operands[0])


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """y = x where x >= 0, fl(alpha * x) elsewhere."""

    alpha: float

    def compute(self, *operands: Array) -> Array:
        """Return the leaky rectification."""
        x = operands[0]
        return np.where(x >= 0, x, _F32(self.alpha) * x)


@dataclass(frozen=True)
class PRelu(Elementwise):
    """y = fl(slope * x) where x < 0, x elsewhere; operands (x, slope)."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the parametric rectification."""
        x, slope = operands
        return np.where(x < 0, slope * x, x)


def _clip(x: Array, low: np.float32, high: np.float32) -> Array:
    """Return min(max(x, low), high); x itself where it equals a bound, or is NaN."""
    raised = np.where(x < low, low, x)
    return np.where(raised > high, high, raised)


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = min(max(x, low), high), exact; Hardtanh is Clip(-1, 1)."""

    low: float
    high: float

    def compute(self, *operands: Array) -> Array:
        """Return the clipped operand."""
        return _clip(operands[0], _F32(self.low), _F32(self.high))


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """y = max(0, min(1, fl(fl(alpha * x) + beta)))."""

    alpha: float
    beta: float

    def compute(self, *operands: Array) -> Array:
        """Return the piecewise linear sigmoid."""
        line = _F32(self.alpha) * operands[0] + _F32(self.beta)
        return _clip(line, _F32(0), _F32(1))


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh32(x), within 1.4 ulp of tanh(x); `rounding` allows for what other libraries give."""

    def compute(self, *operands: Array) -> Array:
        """Return the hyperbolic tangent."""
        return tanh32(operands[0])


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = sigmoid32(x), within 2.5 ulp of 1 / (1 + exp(-x)); other libraries as for Tanh."""

    def compute(self, *operands: Array) -> Array:
        """Return the logistic function."""
        return sigmoid32(operands[0])


@dataclass(frozen=True)
class Erf(Elementwise):
    """y = erf32(x), within 1.2 ulp of the error function; other libraries as for Tanh."""

    def compute(self, *operands: Array) -> Array:
        """Return the error function."""
        return erf32(operands[0])


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = exp32(x), within 1 ulp of exp(x); other libraries as for Tanh."""

    def compute(self, *operands: Array) -> Array:
        """Return the exponential."""
        return exp32(operands[0])


@dataclass(frozen=True)
class Log(Elementwise):
    """y = log32(x), within 0.9 ulp of log(x); NaN below 0. Other libraries as for Tanh."""

    def compute(self, *operands: Array) -> Array:
        """Return the natural logarithm."""
        return log32(operands[0])


@dataclass(frozen=True)
class Sqrt(Elementwise):
    """y = fl(sqrt(x)): IEEE 754 rounds it once; NaN below 0."""

    def compute(self, *operands: Array) -> Array:
        """Return the rounded root."""
        return np.sqrt(operands[0])


@dataclass(frozen=True)
class Power(Elementwise):
    """y = power32(x, halves), x to the power of halves / 2; other libraries as for Tanh.

    Attributes:
        halves: twice the exponent, not 0.
    """

    halves: int

    def compute(self, *operands: Array) -> Array:
        """Return the power."""
        return power32(operands[0], self.halves)


@dataclass(frozen=True)
class Sign(Elementwise):
    """y = -1, 0 or +1: three levels, sign(0) = 0."""

    def compute(self, *operands: Array) -> Array:
        """Return the sign; both zeros give +0."""
        return np.sign(operands[0]) + _F32(0)


@dataclass(frozen=True)
class Round(Elementwise):
    """y = x rounded to the nearest integer, halves to even."""

    def compute(self, *operands: Array) -> Array:
        """Return the rounded operand."""
        return np.rint(operands[0])


@dataclass(frozen=True)
class Floor(Elementwise):
    """y = the largest integer <= x."""

    def compute(self, *operands: Array) -> Array:
        """Return the floor."""
        return np.floor(operands[0])


@dataclass(frozen=True)
class Ceil(Elementwise):
    """y = the smallest integer >= x."""

    def compute(self, *operands: Array) -> Array:
        """Return the ceiling."""
        return np.ceil(operands[0])


@dataclass(frozen=True)
class _Comparison(Elementwise):
    """A truth value from two operands of one element type."""

    arity: ClassVar[int] = 2

    @property
    def result_element(self) -> Element:
        """BOOL."""
        return Element.BOOL


@dataclass(frozen=True)
class Greater(_Comparison):
    """y = a > b."""

    def compute(self, *operands: Array) -> Array:
        """Return the comparison."""
        return operands[0] > operands[1]


@dataclass(frozen=True)
class GreaterOrEqual(_Comparison):
    """y = a >= b."""

    def compute(self, *operands: Array) -> Array:
        """Return the comparison."""
        return operands[0] >= operands[1]


@dataclass(frozen=True)
class Less(_Comparison):
    """y = a < b."""

    def compute(self, *operands: Array) -> Array:
        """Return the comparison."""
        return operands[0] < operands[1]


@dataclass(frozen=True)
class LessOrEqual(_Comparison):
    """y = a <= b."""

    def compute(self, *operands: Array) -> Array:
        """Return the comparison."""
        return operands[0] <= operands[1]


@dataclass(frozen=True)
class Equal(_Comparison):
    """y = a == b."""

    def compute(self, *operands: Array) -> Array:
        """Return the comparison."""
        return np.equal(operands[0], operands[1])


@dataclass(frozen=True)
class _Logical(Elementwise):
    """A truth value from truth values."""

    operand_element: ClassVar[Element | None] = Element.BOOL

    @property
    def result_element(self) -> Element:
        """BOOL."""
        return Element.BOOL


@dataclass(frozen=True)
class Not(_Logical):
    """y = not a."""

    def compute(self, *operands: Array) -> Array:
        """Return the negation."""
        return ~operands[0]


@dataclass(frozen=True)
class And(_Logical):
    """y = a and b."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the conjunction."""
        return operands[0] & operands[1]


@dataclass(frozen=True)
class Or(_Logical):
    """y = a or b."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the disjunction."""
        return operands[0] | operands[1]


@dataclass(frozen=True)
class Xor(_Logical):
    """y = either a or b, and not both."""

    arity: ClassVar[int] = 2

    def compute(self, *operands: Array) -> Array:
        """Return the exclusive disjunction."""
        return operands[0] ^ operands[1]


@dataclass(frozen=True)
class Where(Elementwise):
    """y = a where the condition holds, else b; operands (condition: BOOL, a, b)."""

    arity: ClassVar[int] = 3
    operand_element: ClassVar[Element | None] = None

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the broadcast shape in F32."""
        result = super().infer(operands)
        if [operand.element for operand in operands] != [Element.BOOL, Element.F32, Element.F32]:
            raise OpError("Where needs operands (bool, f32, f32)")
        return result

    def compute(self, *operands: Array) -> Array:
        """Return the selection."""
        return np.where(operands[0], operands[1], operands[2])


@dataclass(frozen=True)
class Cast(Elementwise):
    """y = x in another element type: bool to f32 is 0 or 1, u8 and i32 to f32 round to nearest."""

    to: Element

    operand_element: ClassVar[Element | None] = None

    @property
    def result_element(self) -> Element:
        """The target type."""
        return self.to

    def compute(self, *operands: Array) -> Array:
        """Return the converted operand."""
        return operands[0].astype(self.to.dtype)

    def __str__(self) -> str:
        return f"Cast({self.to.value})"


@dataclass(frozen=True)
class BatchNormalization(Elementwise):
    """y = fl(fl(x * s) + t), every operation rounded to float32 on its own.

    s = fl(gamma * fl(1 / fl(sqrt(fl(variance + epsilon))))) and t = fl(beta - fl(mean * s)).


    Operands (x, gamma, beta, mean, variance); channels on axis 1, the last four [C]. The order of
    roundings is ONNX Runtime's; PyTorch's own differs from it in the last bit, which is what the
    certificate's undecided accumulators are about.

    Source: Ioffe and Szegedy 2015, algorithm 2; ONNX BatchNormalization-15, training_mode 0.
    """

    epsilon: float

    arity: ClassVar[int] = 5
    channel_operands: ClassVar[frozenset[int]] = frozenset({1, 2, 3, 4})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the type of x."""
        if len(operands) != self.arity:
            raise OpError("BatchNormalization takes 5 operands")
        x, *statistics = operands
        if any(operand.element is not Element.F32 for operand in operands):
            raise OpError("BatchNormalization needs f32 operands")
        if len(x.shape) < 2 or any(s.shape != (x.shape[1],) for s in statistics):
            shapes = ", ".join(str(list(s.shape)) for s in statistics)
            raise OpError(f"statistics {shapes} do not fit an input of shape {list(x.shape)}")
        return (TensorType(x.shape, Element.F32),)

    def scale_and_shift(
        self, gamma: Array, beta: Array, mean: Array, variance: Array
    ) -> tuple[Array, Array]:
        """Return (s, t), both float32 [C], with the roundings of the definition."""
        with np.errstate(all="ignore"):
            scale = gamma * (_F32(1) / np.sqrt(variance + _F32(self.epsilon)))
            return scale, beta - mean * scale

    def compute(self, *operands: Array) -> Array:
        """Return the normalised operand."""
        x, *statistics = operands
        scale, shift = self.scale_and_shift(*statistics)
        return x * over_channels(scale, x.ndim) + over_channels(shift, x.ndim)


@dataclass(frozen=True)
class Dequantize(Elementwise):
    """y = float32(n * scale + shift): the real value of an accumulator, by definition.

    Operands (n: I32 [N, C, ...], scale: F64 [C], shift: F64 [C], slack: F64 [C]). The product and
    the sum are IEEE double operations. With shift 0 and a float32 alpha as scale this is
    fl(alpha * n). A float32 reference that sums +-alpha itself reaches a value that depends on its
    order of summation; `slack` bounds the distance between any such value and this one, and is 0
    where every order gives the same. It does not enter the result.

    Where the taps that a border cuts off change it, shift is F32 [1, C, *S], a value a pixel.
    """

    arity: ClassVar[int] = 4
    channel_operands: ClassVar[frozenset[int]] = frozenset({1, 2, 3})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 of the accumulator's shape."""
        return _dequantized(self, operands, 1)

    def compute(self, *operands: Array) -> Array:
        """Return the dequantised accumulator."""
        n, scale, shift, _ = operands
        value = n * _aligned(scale, n) + _aligned(shift, n)
        return np.asarray(value, np.float32)


@dataclass(frozen=True)
class DequantizeTwo(Elementwise):
    """y = float32((n * scale + total * weight) + shift): a real value of two accumulators.

    Operands (n: I32 [N, C, ...], total: I32 [N, C or 1, ...], scale, weight: F64 [C], shift, slack:
    see `Dequantize`). Of weights a s + b with s = +-1, n sums s x and total sums x.
    """

    arity: ClassVar[int] = 6
    channel_operands: ClassVar[frozenset[int]] = frozenset({2, 3, 4, 5})

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return F32 of the first accumulator's shape."""
        return _dequantized(self, operands, 2)

    def compute(self, *operands: Array) -> Array:
        """Return the value of both accumulators."""
        n, total, scale, weight, shift, _ = operands
        products = n * _aligned(scale, n) + total * _aligned(weight, n)
        return np.asarray(products + _aligned(shift, n), np.float32)


def _dequantized(
    op: Elementwise, operands: Sequence[TensorType], accumulators: int
) -> tuple[TensorType, ...]:
    """Return F32 of the first accumulator's shape, or refuse operands that do not fit."""
    wanted = [Element.I32] * accumulators + [Element.F64] * (op.arity - accumulators)
    image = len(operands) == op.arity and operands[-2].element is Element.F32
    if image:
        wanted[-2] = Element.F32
    if [operand.element for operand in operands] != wanted:
        kinds = ["i32"] * accumulators + ["f64"] * (op.arity - accumulators)
        raise OpError(f"{op.name} needs operands ({', '.join(kinds)}), or an f32 image as shift")
    sums, (*rows, shift, slack) = operands[:accumulators], operands[accumulators:]
    n = sums[0]
    rows.append(slack)
    if not image:
        rows.append(shift)
    elif shift.shape != (1, *n.shape[1:]):
        raise OpError(f"{shift} is no shift a pixel of an accumulator {n}")
    if len(n.shape) < 2 or any(row.shape not in ((1,), n.shape[1:2]) for row in rows):
        raise OpError(f"the scales do not fit an accumulator {n}")
    for total in sums[1:]:
        if total.shape not in (n.shape, (n.shape[0], 1, *n.shape[2:])):
            raise OpError(f"{total} does not fit an accumulator {n}")
    return (TensorType(n.shape, Element.F32),)


def _aligned(row: Array, n: Array) -> Array:
    """Return a row [C] so that it broadcasts over n [N, C, ...]; a value a pixel does already."""
    return row if row.ndim > 1 else over_channels(row, n.ndim)


@dataclass(frozen=True)
class Step(Elementwise):
    """y = levels[c, j] with j the number of thresholds[c] that are <= x: the canonical quantiser.

    Operands (x: F32 or I32 [N, C, ...], thresholds: same element [C or 1, T] ascending, levels: F32
    [C or 1, T + 1]). `to` is BIPOLAR where every level is -1 or +1, TERNARY where 0 occurs too, a
    code (U1 to U4) where they are 0, 1, ..., F32 for any other levels.

    Attributes:
        to: see above.
        stands_for: the real values that the integers of `to` stand for in the model, ascending;
            none where they are the values themselves.
        codes: the integer that stands for each of those values, if not one after the other: of one
            of several planes that sum to them.
    """

    to: Element
    stands_for: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.BINARY})
    arity: ClassVar[int] = 3
    operand_element: ClassVar[Element | None] = None
    channel_operands: ClassVar[frozenset[int]] = frozenset({1, 2})

    @property
    def result_element(self) -> Element:
        """The attribute."""
        return self.to

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return x's shape with the result's element type."""
        x, thresholds, levels = operands
        if x.element not in (Element.F32, Element.I32) or thresholds.element is not x.element:
            raise OpError("Step needs thresholds of the operand's own element type, f32 or i32")
        rows, count = thresholds.shape
        if rows not in (1, *x.shape[1:2]) or levels.shape != (rows, count + 1):
            raise OpError(f"{thresholds} thresholds and {levels} levels do not fit {x}")
        return (TensorType(x.shape, self.to),)

    def compute(self, *operands: Array) -> Array:
        """Return the level each element falls on."""
        x, thresholds, levels = operands
        column = partial(over_channels, rank=x.ndim)
        result = np.broadcast_to(column(levels[:, 0]), x.shape)
        for j in range(thresholds.shape[1]):
            passed = x >= column(thresholds[:, j])
            result = np.where(passed, column(levels[:, j + 1]), result)
        return result.astype(self.to.dtype)

    def integers(self, real: Array) -> Array:
        """Return the elements of `to` that stand for the model's own values, the nearest each."""
        if not self.stands_for:
            return real
        values = np.asarray(self.stands_for, np.float32)
        between = (values[1:] + values[:-1]) / 2
        index = np.searchsorted(between, real)
        if self.codes:
            return np.asarray(self.codes)[index]
        if self.to is Element.BIPOLAR:
            return 2 * index - 1
        return index - 1 if self.to is Element.TERNARY else index

    def __str__(self) -> str:
        scaled = f" for {', '.join(map(str, self.stands_for))}" if self.stands_for else ""
        return f"Step({self.to.value}{scaled})"
