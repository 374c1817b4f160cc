"""Windows for tests: random ones, and what they see, spelled out in Python integers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from hypothesis import strategies as st

from bnncc.ir.types import Array
from bnncc.ir.window import Axis, Window
from tests.ir.sketch import F

Place = tuple[int, ...]


def places(axis: Axis, output: int) -> list[int]:
    """Return where the taps of one output lie; below 0 or beyond the end is padding."""
    return [output * axis.stride - axis.before + k * axis.dilation for k in range(axis.kernel)]


def outputs_of(axis: Axis, size: int) -> list[int]:
    """Return the outputs an input of `size` has, by asking of one after another.

    A window counts if it ends within the padding. With ceil the first that ends beyond it counts
    too, unless it starts beyond the input. That is the rule of torch, and of ONNX Runtime at every
    opset since it follows https://github.com/onnx/onnx/pull/5741.
    """

    def counts(output: int) -> bool:
        seen, end = places(axis, output), size + axis.after
        unfinished = seen[-1] - axis.stride < end - 1  # the one before ends before the padding
        return seen[-1] < end or (axis.ceil and unfinished and seen[0] < size)

    return list(itertools.takewhile(counts, itertools.count()))


def sees(axis: Axis, size: int) -> bool:
    """Whether every output sees at least one element."""
    seen = [places(axis, output) for output in outputs_of(axis, size)]
    return all(any(0 <= place < size for place in some) for some in seen)


def output_places(window: Window, sizes: Sequence[int]) -> Iterator[tuple[Place, list[Place]]]:
    """Yield each output and the places of all its taps, both in C order."""
    counts = [outputs_of(axis, size) for axis, size in zip(window.axes, sizes, strict=True)]
    for output in itertools.product(*counts):
        along = [places(axis, o) for axis, o in zip(window.axes, output, strict=True)]
        yield output, list(itertools.product(*along))


def within(place: Place, sizes: Sequence[int]) -> bool:
    """Whether a place lies in the input."""
    return all(0 <= p < size for p, size in zip(place, sizes, strict=True))


Pads = Callable[[int], st.SearchStrategy[tuple[int, int]]]
"""kernel -> (before, after)"""


def any_pads(kernel: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, 3), st.integers(0, 3))


def pads_below_kernel(kernel: int) -> st.SearchStrategy[tuple[int, int]]:
    """What ONNX Runtime allows pools."""
    return st.tuples(st.integers(0, kernel - 1), st.integers(0, kernel - 1))


def pads_half_kernel(kernel: int) -> st.SearchStrategy[tuple[int, int]]:
    """What torch allows pools."""
    return st.integers(0, kernel // 2).map(lambda pad: (pad, pad))


@st.composite
def axes_and_size(
    draw: st.DrawFn, *, ceil: bool = False, pads: Pads = any_pads, dilation: int = 3
) -> tuple[Axis, int]:
    """Draw an axis dilated by at most `dilation`, and a size it fits, often narrower than it."""
    kernel, stride, apart = draw(st.tuples(*[st.integers(1, most) for most in (4, 3, dilation)]))
    axis = Axis(kernel, stride, apart, *draw(pads(kernel)), ceil)
    least = next(size for size in itertools.count(1) if outputs_of(axis, size))
    return axis, least + draw(st.integers(0, 4))


@st.composite
def windows_and_sizes(
    draw: st.DrawFn,
    *,
    least: int = 0,
    ceil: bool = False,
    pads: Pads = any_pads,
    dilation: int = 3,
) -> tuple[Window, tuple[int, ...]]:
    """Draw a window of `least` to 2 axes, and spatial sizes that it fits."""
    rounded = ceil and draw(st.booleans())
    axis = axes_and_size(ceil=rounded, pads=pads, dilation=dilation)
    pairs = draw(st.lists(axis, min_size=least, max_size=2))
    return Window(tuple(axis for axis, _ in pairs)), tuple(size for _, size in pairs)


def whole_numbers(random: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return float32 whole numbers of which every order of summing gives the same."""
    return random.integers(-9, 10, tuple(shape)).astype(F)


def runtime(op: str, operands: Sequence[Array], opset: int, **attributes: object) -> Array:
    """Return what ONNX Runtime makes of a model with this one operation."""
    import onnxruntime
    from onnx import helper

    names = [f"x{i}" for i in range(len(operands))]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, operands, strict=True)
    ]
    result = helper.make_tensor_value_info("y", infos[0].type.tensor_type.elem_type, None)
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph([node], "one", infos, [result])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, dict(zip(names, operands, strict=True)))
    return np.asarray(y)


def onnx_attributes(window: Window) -> dict[str, object]:
    """Return a window as the attributes that Conv, MaxPool and AveragePool share."""
    return {
        "kernel_shape": window.kernel,
        "strides": [axis.stride for axis in window.axes],
        "dilations": [axis.dilation for axis in window.axes],
        "pads": [a.before for a in window.axes] + [a.after for a in window.axes],
    }
