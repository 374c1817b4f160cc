"""Which layers are accused of a lost sign: each kind of evidence, and what clears a layer of it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import Conv, MatMul
from bnncc.ir.ops.pool import AveragePool, MaxPool
from bnncc.ir.ops.shape import Concat, Pad, Reshape
from bnncc.ir.types import Element, TensorType
from bnncc.ir.window import Axis, Window
from bnncc.report import Evidence, Report, Suspect
from bnncc.report.suspects import lost_sign
from tests.models import add_sign, batch_norm, compilation

WIDTH = 16
Between = Callable[[GraphBuilder, str], str]
"""What a test puts between two layers: appends to the graph, and returns its result."""


class Net:
    """A graph that grows from "x" [1, 16], or [1, 16, 4, 4]."""

    def __init__(self, *, image: bool = False) -> None:
        self.build = GraphBuilder("net")
        self.rng = np.random.default_rng(11)
        self.count = itertools.count()
        shape = (1, WIDTH, 4, 4) if image else (1, WIDTH)
        self.x = self.build.input("x", TensorType(shape, Element.F32))

    def constant(self, value: np.ndarray) -> str:
        return self.build.constant(f"c{next(self.count)}", np.float32(value), Element.F32)

    def op(self, op: ew.Elementwise, *constants: float) -> Net:
        operands = [self.constant(np.float32(value)) for value in constants]
        self.x = self.build.node(op, [self.x, *operands], f"{op.name.lower()}{next(self.count)}")
        return self

    def dense(self, name: str, *, real: bool = False) -> Net:
        weights = self.rng.choice([-0.5, 0.5], (WIDTH, self.build.types[self.x].shape[1]))
        if real:
            weights = self.rng.normal(0, 1, weights.shape)
        self.x = self.build.node(MatMul(), [self.x, self.constant(weights)], name)
        return self

    def conv(self, name: str) -> Net:
        weights = self.rng.choice([-1, 1], (WIDTH, self.build.types[self.x].shape[1], 3, 3))
        window = Window((Axis(3, before=1, after=1),) * 2)
        self.x = self.build.node(Conv(window), [self.x, self.constant(weights)], name)
        return self

    def norm(self) -> Net:
        name = f"bn{next(self.count)}"
        self.x = batch_norm(self.build, self.x, 4.0, self.rng, name)
        return self

    def sign(self) -> Net:
        self.x = add_sign(self.build, self.x, f"sign{next(self.count)}")
        return self

    def graph(self) -> Graph:
        return self.build.build([self.x])

    def report(self) -> Report:
        return compilation(self.graph()).report

    def suspects(self) -> list[tuple[str, Evidence]]:
        return [(found.layer, found.evidence) for found in self.report().suspects]


HARDTANH = ew.Clip(-1.0, 1.0)


@pytest.mark.parametrize("activation", [HARDTANH, ew.Tanh(), ew.Clip(-3.0, 0.5)])
def test_inputs_clipped_to_both_sides(activation: ew.Elementwise) -> None:
    net = Net().dense("a").norm().op(activation).dense("b").norm().op(activation).dense("c")
    assert net.suspects() == [("b", Evidence.BOUNDED), ("c", Evidence.BOUNDED)]


def test_no_activation_function_between_layers() -> None:
    net = Net().dense("a").dense("b").op(ew.Mul(), 0.5).op(ew.Add(), 1.0).dense("c")
    assert net.suspects() == [("b", Evidence.NO_ACTIVATION), ("c", Evidence.NO_ACTIVATION)]


def test_a_residual_network_without_activation_functions() -> None:
    """Bi-Real Net: the shortcut joins behind the BatchNorm, and only signs come between."""
    net = Net(image=True).conv("stem")
    for i in range(2):
        shortcut = net.x
        net.conv(f"block{i}").norm()
        net.x = net.build.node(ew.Add(), [net.x, shortcut], f"sum{i}")
    found = net.suspects()
    assert found == [("block0", Evidence.NO_ACTIVATION), ("block1", Evidence.NO_ACTIVATION)]


def test_a_batchnorm_right_before_the_layer() -> None:
    """XNOR-Net's order: BatchNorm, sign, convolution, ReLU."""
    net = Net().dense("a", real=True).op(ew.Relu()).norm().dense("b").op(ew.Relu())
    assert net.suspects() == [("b", Evidence.NORMALISED)]


def test_both_signs_beside_layers_on_bits() -> None:
    net = Net().dense("a").sign().dense("b").norm().op(ew.LeakyRelu(0.1)).dense("c")
    assert net.suspects() == [("c", Evidence.BESIDE_BITS)]


def test_leaky_inputs_alone_are_no_evidence() -> None:
    assert Net().dense("a").norm().op(ew.LeakyRelu(0.1)).dense("b").suspects() == []


@pytest.mark.parametrize("activation", [ew.Relu(), ew.Clip(0.0, 6.0), ew.Sigmoid(), ew.Abs()])
def test_rectified_inputs_are_those_of_binaryconnect(activation: ew.Elementwise) -> None:
    net = Net().dense("a").norm().op(activation).dense("b").norm().op(activation).dense("c")
    assert net.suspects() == []
    (caution,) = [c for c in net.report().cautions if c.kind == "real input"]
    assert caution.layers == ("b", "c")
    assert "BinaryConnect and BWN" in caution.text


def test_rectified_inputs_beside_layers_on_bits() -> None:
    assert Net().dense("a").sign().dense("b").op(ew.Relu()).dense("c").suspects() == []


def test_networks_on_reals_may_have_linear_bottlenecks() -> None:
    """MobileNetV2's blocks with binary weights: the projection has no activation function."""
    net = Net().dense("a").norm().op(ew.Relu()).dense("project").norm().dense("expand")
    assert net.suspects() == []
    net = Net().dense("a").norm().op(ew.Relu()).norm().dense("b").op(ew.Relu()).dense("c")
    assert net.suspects() == []


def test_what_is_clipped_is_accused_in_any_network() -> None:
    net = Net().dense("a").op(ew.Relu()).dense("b").op(HARDTANH).dense("c")
    assert net.suspects() == [("c", Evidence.BOUNDED)]


def test_first_layers_are_not_accused() -> None:
    """Whatever is done to the model's own input, it was never to be signed."""
    assert Net().op(HARDTANH).dense("a").suspects() == []
    assert Net().op(ew.Mul(), 0.5).dense("a").sign().dense("b").suspects() == []


def test_real_weights_are_not_accused() -> None:
    assert Net().dense("a").op(HARDTANH).dense("b", real=True).suspects() == []


@pytest.mark.parametrize("levels", [1.0, 3.0, 255.0])
def test_codes_are_not_accused(levels: float) -> None:
    """DoReFa: round(clip(x) * levels) / levels; 255 of them are summed as reals."""
    net = Net().dense("a").op(ew.Clip(-1.0, 1.0)).op(ew.Mul(), levels).op(ew.Round())
    assert net.op(ew.Div(), levels).dense("b").suspects() == []


def test_three_levels_are_not_accused() -> None:
    net = Net().dense("a")
    net.x = net.build.node(ew.Sign(), [net.x], "ternary")
    assert net.dense("b").suspects() == []


def test_truth_values_are_not_accused() -> None:
    """Cast(x >= t) with a threshold an element, which is no Step."""
    net = Net().dense("a")
    thresholds = net.constant(np.arange(WIDTH).reshape(1, WIDTH))
    risen = net.build.node(ew.GreaterOrEqual(), [net.x, thresholds], "risen")
    net.x = net.build.node(ew.Cast(Element.F32), [risen], "bits")
    assert net.op(ew.Mul(), 0.3).op(ew.Sub(), 0.7).dense("b").suspects() == []


def test_means_over_images_are_real() -> None:
    net = Net(image=True).conv("a").sign().conv("b").norm()
    whole = Window((Axis(4),) * 2)
    net.x = net.build.node(AveragePool(whole, True), [net.x], "mean")
    net.x = net.build.node(Reshape((1, WIDTH)), [net.x], "row")
    assert net.dense("head").suspects() == []


@pytest.mark.parametrize("pool", [MaxPool, lambda window: AveragePool(window, True)])
def test_pools_and_movements_hide_nothing(pool: Callable[[Window], MaxPool]) -> None:
    net = Net(image=True).conv("a").op(HARDTANH)
    net.x = net.build.node(pool(Window((Axis(2, stride=2),) * 2)), [net.x], "pool")
    before = (0, 0, 1, 1)
    net.x = net.build.node(Pad(before, before, 0.0), [net.x], "pad")
    assert net.conv("b").suspects() == [("b", Evidence.BOUNDED)]
    net = Net(image=True).conv("a").op(ew.Relu())
    net.x = net.build.node(pool(Window((Axis(2, stride=2),) * 2)), [net.x], "pool")
    assert net.conv("b").suspects() == []


def test_concatenations_are_as_wide_as_their_parts() -> None:
    def joined(first: ew.Elementwise, second: ew.Elementwise) -> Net:
        net = Net().dense("a")
        parts = [net.build.node(op, [net.x], name) for op, name in ((first, "p"), (second, "q"))]
        net.x = net.build.node(Concat(1), parts, "both")
        return net.dense("b")

    assert joined(ew.Relu(), ew.Sigmoid()).suspects() == []
    assert joined(ew.Sigmoid(), ew.Tanh()).suspects() == [("b", Evidence.BOUNDED)]
    assert joined(ew.Relu(), ew.LeakyRelu(0.1)).suspects() == []


def test_who_makes_the_input_and_who_else_reads_it() -> None:
    net = Net().dense("a").op(HARDTANH)
    x = net.x
    net.dense("b")
    net.x = net.build.node(ew.Add(), [net.x, x], "shortcut")
    (found,) = net.report().suspects
    assert (found.fed_by, found.input, found.shared_with) == (f'Clip "{x}"', x, ("shortcut",))
    assert found.text == (
        f'b: its weights are binary, its input is real, made by Clip "{x}": clipped to both sides '
        "of 0, as a hardtanh leaves it right before a sign. shortcut read the same tensor: in "
        "PyTorch, an assignment to .data changes it for whatever runs later"
    )


def accused(count: int) -> Sequence[Suspect]:
    one = Suspect("fc", "node_fc", "y", "x", 'Clip "clip"', Evidence.BOUNDED, ())
    return [one] * count


def test_the_warning() -> None:
    one, two = lost_sign(accused(1)), lost_sign(accused(2))
    assert one.code == "BNN016"
    assert one.what == (
        "the exporter has probably lost a sign: a layer with binary weights reads real numbers"
    )
    assert "2 layers with binary weights read real numbers" in two.what
    assert one.where == accused(1)[0].text
    assert two.where == f"{one.where}\n{one.where}"
    assert "--insert-sign-at LAYER" in one.help


def test_no_suspects_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Net().dense("a").sign().dense("b").report().warnings == ()
