"""Small networks with hostile statistics, built straight in the IR, and compiled without a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx

from bnncc._version import __version__
from bnncc.backend.emit import render_header, render_source
from bnncc.backend.lower import lower
from bnncc.certificate import Certificate
from bnncc.compiler import Compilation
from bnncc.frontends.inputs import InputSpec, declare_inputs
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.linear import MatMul
from bnncc.ir.types import Array, Element, TensorType
from bnncc.layouts import size_of
from bnncc.passes.base import Context, Family, SignZero
from bnncc.pipeline import run_pipeline
from bnncc.report import make_report
from bnncc.targets import costs_of, target_named

IMAGE = InputSpec(1 / 127.5, -1.0)
"""How uint8 inputs are decoded: 0..255 to about -1..1, with roundings that real cameras give."""

_EPSILON = 1e-5


def mlp(
    sizes: Sequence[int],
    seed: int,
    *,
    uint8: bool = False,
    sign: str = "where",
    alpha: bool = False,
    affine: bool = True,
) -> Graph:
    """Return a FLOAT graph from "x" [1, sizes[0]] to "y": a dense layer for each further size.

    After every layer but the last come BatchNorm and a sign. See `batch_norm` for the statistics.

    Args:
        sizes: inputs, hidden channels, outputs.
        seed: of weights and statistics.
        uint8: whether "x" holds codes, to be decoded as `IMAGE` says.
        sign: "where" (x >= 0 ? 1 : -1) or "sign" (three levels, sign(0) = 0).
        alpha: whether each output channel's weights are +-alpha instead of +-1.
        affine: whether BatchNorm follows the last layer too; "y" is its sums otherwise.
    """
    rng = np.random.default_rng(seed)
    build = GraphBuilder("mlp")
    x = build.input("x", TensorType((1, sizes[0]), Element.F32))
    layers = list(itertools.pairwise(sizes))
    for i, (k, channels) in enumerate(layers, start=1):
        last = i == len(layers)
        weights = rng.choice(np.float32([-1, 1]), (channels, k))
        if alpha:
            weights *= rng.uniform(0.01, 0.3, (channels, 1)).astype(np.float32)
        name = build.constant(f"w{i}", weights, Element.F32)
        x = build.node(MatMul(), [x, name], "y" if last and not affine else f"fc{i}")
        if not last or affine:
            spread = float(np.abs(weights).mean() * np.sqrt(k))
            x = batch_norm(build, x, spread, rng, "y" if last else f"bn{i}")
        if not last:
            x = add_sign(build, x, f"sign{i}", sign)
    graph = build.build([x])
    return declare_inputs(graph, {"x": IMAGE}) if uint8 else graph


def batch_norm(
    build: GraphBuilder, x: str, spread: float, rng: np.random.Generator, output: str
) -> str:
    """Append a BatchNorm of the kind that breaks compilers, and return its result.

    About half of the gammas are negative. Of eight channels, one has gamma 0 (of either sign, and
    beta 0 in some), one a tiny variance, one its mean on an integer with beta 0 (a tie at the
    decision if x can be that integer), one a tiny gamma.

    Args:
        build: what to append to.
        x: [1, C], of about normal values with standard deviation `spread`.
        rng: for the statistics.
        output: the result's name.
    """
    channels = build.types[x].shape[1]
    gamma = rng.normal(0, 1, channels)
    beta = rng.normal(0, 0.5, channels)
    mean = rng.normal(0, spread / 2, channels)
    variance = spread**2 * rng.uniform(0.3, 2, channels)
    kind = np.arange(channels) % 8
    gamma[kind == 1] = rng.choice([0.0, -0.0], (kind == 1).sum())
    beta[(kind == 1) & (np.arange(channels) % 16 == 1)] = 0
    variance[kind == 3] = 1e-12
    mean[kind == 5] = np.rint(mean[kind == 5])
    beta[kind == 5] = 0
    gamma[kind == 7] *= 1e-30
    names = [
        build.constant(f"{output}.{role}", values.astype(np.float32), Element.F32)
        for role, values in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", variance))
    ]
    return build.node(ew.BatchNormalization(_EPSILON), [x, *names], output)


def add_sign(build: GraphBuilder, x: str, output: str, form: str = "where") -> str:
    """Append a sign in the form "where" or "sign", and return its result."""
    if form == "sign":
        return build.node(ew.Sign(), [x], output)
    zero, one, minus = (
        build.constant(f"{output}.{value}", np.asarray(value, np.float32), Element.F32)
        for value in (0, 1, -1)
    )
    risen = build.node(ew.GreaterOrEqual(), [x, zero], f"{output}.ge")
    return build.node(ew.Where(), [risen, one, minus], output)


def compilation(
    graph: Graph,
    target: str = "x86-64",
    *,
    name: str = "model",
    sign_zero: str = "auto",
    kernels: Family | None = None,
) -> Compilation:
    """Return what compiling a FLOAT graph gives; the oracle is empty, since there is no file."""
    machine = target_named(target)
    families = {"*": kernels} if kernels else {}
    lowered = run_pipeline(graph, Context(machine, SignZero(sign_zero), families))
    program = lower(lowered.graph, name, ["Generated by bnncc's tests."])
    inputs = {n: IMAGE for n in graph.inputs if graph.types[n].element is Element.U8}
    return Compilation(
        program=program,
        header=render_header(program),
        source=render_source(program),
        lowered=lowered,
        certificate=Certificate("", __version__, lowered.assumptions, lowered.certificates),
        report=make_report(graph, lowered, program, target=machine.name, notes=(), seconds={}),
        target=machine,
        size=size_of(program, costs_of(machine)),
        inputs=inputs,
        oracle=onnx.ModelProto(),
    )


def samples(graph: Graph, count: int, seed: int) -> dict[str, Array]:
    """Return `count` random samples of each input by name: uint8 codes, or reals in -1..1."""
    rng = np.random.default_rng(seed)
    return {name: _random(graph.types[name], count, rng) for name in graph.inputs}


def _random(kind: TensorType, count: int, rng: np.random.Generator) -> Array:
    shape = (count, *kind.shape[1:])
    if kind.element is Element.U8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.uniform(-1, 1, shape).astype(kind.element.dtype)
