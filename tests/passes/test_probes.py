"""The chosen values: sums land where they are meant to, and images shrink only where they may."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnncc.ir.graph import Graph, Rewrite
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import BinaryConv, BinaryDense, Conv
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.ops.reduce import ReduceMean
from bnncc.ir.ops.shape import Reshape, Slice
from bnncc.ir.types import Array, Element, TensorType
from bnncc.ir.window import POINT, Axis, Window
from bnncc.passes.probes import probes
from bnncc.passes.regions import Region, regions
from tests.ir.sketch import F, Sketch

SAME = Window((Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1)))


def layer(
    element: Element, op: BinaryConv, sizes: tuple[int, ...], thresholds: Array, zeros: int = 0
) -> Graph:
    """x -> BinaryConv "n" -> Step "y": as many channels as thresholds, some weights 0."""
    groups, depth = op.groups, 3
    random = np.random.default_rng(len(thresholds))
    shape = (len(thresholds), depth, *op.window.kernel)
    w = random.choice(np.array([-1, 1], np.int8), shape)
    w.flat[random.choice(w.size, zeros, replace=False)] = 0
    s = Sketch(shape=(1, groups * depth, *sizes), element=element)
    kind = Element.TERNARY if zeros else Element.BIPOLAR
    s(op, "x", s.const(w, "w", kind), to="n")
    held = Element.F32 if element is Element.F32 else Element.I32
    levels = [[-1, 1]] * len(thresholds)
    s(ew.Step(Element.BIPOLAR), "n", s.const(thresholds, "t", held), levels, to="y")
    return s.done()


def given(graph: Graph, *names: str) -> dict[str, Array]:
    """Return the values on which the nodes that make `names` would be run, if rewritten."""
    nodes = tuple(graph.producers[name] for name in names)
    return probes(graph, graph, Region(nodes, nodes))


LAYERS = {
    "dense": (BinaryDense(), (), 1),
    "3x3": (BinaryConv(Window((Axis(3), Axis(3)))), (8, 9), 9),
    "3x3, pad 0": (BinaryConv(SAME), (7, 7), 9),
    "3x3, pad -1": (BinaryConv(SAME, pad=-1), (5, 7), 9),
    "groups": (BinaryConv(SAME, groups=2), (7, 7), 9),
    "1-D, dilated, strided": (BinaryConv(Window((Axis(3, 2, 2, 2, 1),)), pad=1), (12,), 3),
    "wider than its input": (BinaryConv(Window((Axis(5, 1, 1, 2, 2),))), (2,), 2),
}
"""name -> (layer, sizes, the most taps of a window that lie in the image)"""


@pytest.mark.parametrize("element", [Element.BIPOLAR, Element.TERNARY], ids=lambda e: e.value)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("zeros", [0, 2])
def test_sums_land_on_either_side_of_thresholds(element: Element, name: str, zeros: int) -> None:
    op, sizes, taps = LAYERS[name]
    far = 3 * taps - zeros - 1  # where random bits hardly ever come
    thresholds = np.array([[far], [-far], [1], [0]], np.int32)
    graph = layer(element, op, sizes, thresholds, zeros)
    weights = graph.constants["w"]
    (n,) = op.evaluate([given(graph, "n", "y")["x"], weights])
    for c, (t,) in enumerate(thresholds):
        reached = np.unique(n[:, c])
        assert (reached[reached >= t] - t).min() <= 1, (c, t)
        assert (t - reached[reached < t]).min() <= 2, (c, t)


@pytest.mark.parametrize("name", ["3x3", "groups"])
def test_sums_of_codes_land_on_thresholds(name: str) -> None:
    op, sizes, _ = LAYERS[name]
    thresholds = np.array([[100], [-177], [250], [0]], np.int32)
    graph = layer(Element.U8, op, sizes, thresholds)
    (n,) = op.evaluate([given(graph, "n", "y")["x"], graph.constants["w"]])
    for c, (t,) in enumerate(thresholds):
        assert {int(t), int(t) - 1} <= set(n[:, c].reshape(-1).tolist())


@pytest.mark.parametrize("name", ["dense", "3x3, pad 0", "groups"])
def test_real_sums_land_on_thresholds(name: str) -> None:
    op, sizes, _ = LAYERS[name]
    thresholds = np.array([[0.1], [-7.3], [1e-30], [0]], F)
    graph = layer(Element.F32, op, sizes, thresholds)
    (n,) = op.evaluate([given(graph, "n", "y")["x"], graph.constants["w"]])
    for c, (t,) in enumerate(thresholds):
        assert {t, np.nextafter(t, F(-np.inf))} <= set(n[:, c].reshape(-1).tolist())


def test_pixels_of_an_image_share_the_thresholds() -> None:
    s = Sketch(shape=(1, 2, 3, 3))
    s(ew.Step(Element.BIPOLAR), "x", [[0.25], [-1e9]], [[-1, 1], [-1, 1]], to="y")
    x = given(s.done(), "y")["x"]
    for c, t in enumerate((F(0.25), F(-1e9))):
        assert {t, np.nextafter(t, F(-np.inf))} <= set(x[:, c].reshape(-1).tolist())


# --- Sizes ----------------------------------------------------------------------------------------


def image(size: int = 56, channels: int = 16) -> Sketch:
    return Sketch(shape=(1, channels, size, size))


def test_images_shrink_with_everything_between_them() -> None:
    s = image()
    w = s.const(np.ones((16, 16, 3, 3)), "w")
    a = s(Conv(Window((Axis(3, 2, 1, 1, 1),) * 2)), "x", w, to="a")
    b = s(MaxPool(Window((Axis(2, 2),) * 2)), "x", to="b")
    c = s(ew.Add(), a, b, to="c")
    s(ReduceMean((2, 3), keepdims=True), c, to="d")
    assert given(s.done(), "a", "b", "c", "d")["x"].shape[1:] == (16, 14, 14)  # a, b, c have 7x7


def test_a_shortcut_shrinks_as_its_layer_does() -> None:
    s = image(57)
    other = s.builder.input("other", TensorType((1, 16, 29, 29), Element.F32))
    a = s(Conv(Window((Axis(1, 2),) * 2)), "x", s.const(np.ones((16, 16, 1, 1)), "w"), to="a")
    s(ew.Add(), a, other, to="y")
    feeds = given(s.done(), "a", "y")
    assert feeds["x"].shape[1:] == (16, 15, 15)
    assert feeds["other"].shape[1:] == (16, 8, 8)


@pytest.mark.parametrize("kind", ["reshape", "slice", "constant"])
def test_what_knows_its_size_keeps_it(kind: str) -> None:
    s = image()
    if kind == "reshape":
        s(Reshape((1, 16 * 56 * 56)), "x", to="y")
    elif kind == "slice":
        s(Slice((0, 0, 1, 1), (1, 16, 55, 55), (1, 1, 1, 1)), "x", to="y")
    else:
        s(ew.Mul(), "x", s.const(np.ones((1, 56, 56)), "map"), to="y")
    assert given(s.done(), "y")["x"].shape[1:] == (16, 56, 56)


def test_one_pixel_stays_one_pixel() -> None:
    s = image()
    gate = s.builder.input("gate", TensorType((1, 16, 1, 1), Element.F32))
    s(ew.Mul(), "x", gate, to="y")
    feeds = given(s.done(), "y")
    assert feeds["x"].shape[1:] == (16, 7, 7)
    assert feeds["gate"].shape[1:] == (16, 1, 1)


def test_a_constant_result_keeps_its_size() -> None:
    s = image()
    s(ew.Mul(), "x", 0.0, to="y")
    before = s.done()
    rewrite = Rewrite(before)
    rewrite.fix(before.producers["y"], np.zeros((1, 16, 56, 56), F))
    after = rewrite.finish()
    (region,) = regions(before, after)
    assert probes(before, after, region)["x"].shape[1:] == (16, 56, 56)


def test_the_more_there_is_to_multiply_the_fewer_rows() -> None:
    def rows(channels: int) -> int:
        s = image(7, channels)
        w = np.broadcast_to(F(1), (channels, channels, 3, 3))
        s(Conv(SAME), "x", s.const(w, "w"), to="y")
        return len(given(s.done(), "y")["x"])

    assert rows(8) == 10
    assert rows(1024) == 2


# --- Regions --------------------------------------------------------------------------------------


def test_shared_constants_do_not_join_regions() -> None:
    s = Sketch(3)
    a = s(ew.Relu(), "x", to="a")
    s(ew.Relu(), s(ew.Neg(), a, to="b"), to="y")
    before = s.done()
    rewrite = Rewrite(before)
    zero = rewrite.constant("zero", np.zeros((), F), Element.F32)
    for name, x in (("a", "x"), ("y", "b")):
        bounded = rewrite.node(ew.Clip(0, np.inf), (x,), f"{name}.clip", ("o",))
        total = rewrite.node(ew.Add(), (f"{name}.clip", zero), name, ("o",))
        rewrite.replace(before.producers[name], [bounded, total])
    found = regions(before, rewrite.finish())
    assert sorted(len(region.new) for region in found) == [2, 2]


def test_a_region_starts_where_both_sides_can() -> None:
    s = Sketch(3)
    s(ew.Neg(), s(ew.Abs(), s(ew.Relu(), "x", to="a"), to="b"), to="y")
    before = s.done()
    node = before.producers["y"]
    direct = dataclasses.replace(node, inputs=("a",))
    after = dataclasses.replace(before, nodes=(*before.nodes[:-1], direct))
    (region,) = regions(before, after)
    assert [n.output for n in region.old] == ["b", "y"]
    assert [n.output for n in region.new] == ["y"]


def test_dense_layers_keep_their_probes() -> None:
    graph = layer(Element.BIPOLAR, BinaryDense(POINT), (), np.arange(40)[:, np.newaxis] - 20)
    assert len(given(graph, "n", "y")["x"]) == 10 + 2 * 2 * 16  # on both sides of the region
