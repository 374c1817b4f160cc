"""From a PACKED graph to a Program: what is refused, and corners that the zoo's models lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnncc.backend.lower import lower
from bnncc.errors import BnnccError, UnsupportedModelError
from bnncc.ir import interpret
from bnncc.ir.expression import Expression, Operand, Source, Term
from bnncc.ir.graph import Graph, GraphBuilder
from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.kernels import Epilogue, Map, Move, Store
from bnncc.ir.ops.shape import Reshape
from bnncc.ir.types import DENSE, Element, Stage, TensorType
from tests.backend import zoo
from tests.backend.toolchain import (
    DIALECTS,
    WARNINGS,
    assert_same_bits,
    callable_model,
    objects,
    write,
)

F32 = Element.F32
X = Operand(Source.VARIABLE, 0)
RESULT = Store(Operand(Source.TERM, 0), F32)


def _map(*ops: ew.Elementwise) -> Graph:
    """Return a PACKED graph of one Map a unary operation, each with an output."""
    builder = GraphBuilder("maps", Stage.PACKED)
    x = builder.input("x", TensorType((1, 3), F32))
    outputs = [
        builder.node(
            Map(Epilogue(Expression((Term(op, (X,)),)), 0, 0, (RESULT,))),
            [x],
            f"y{i}",
            [f"{op} of mine"],
        )
        for i, op in enumerate(ops)
    ]
    return builder.build(outputs)


def test_all_operations_without_a_form_are_reported_at_once() -> None:
    long, double = ew.Cast(Element.I64), ew.Cast(Element.F64)
    with pytest.raises(UnsupportedModelError) as caught:
        lower(_map(long, ew.Relu(), double), "model", ())
    assert caught.value.code == "BNN030"
    assert [(d.what, d.where) for d in caught.value.diagnostics] == [
        ("Cast has no form in C yet", "Cast(i64) of mine"),
        ("Cast has no form in C yet", "Cast(f64) of mine"),
    ]


def test_an_output_of_truth_values_is_refused_with_a_code() -> None:
    net = zoo.Net(1)
    y = net.op(ew.Greater(), net.input("x", 3), net.constant(0.0))
    with pytest.raises(BnnccError):
        zoo.emit(zoo.Model(net.build(y)), "truth", "x86-64")


def test_a_reshaped_input_that_is_an_output_is_copied(any_cc: str, tmp_path: Path) -> None:
    builder = GraphBuilder("reshaped", Stage.PACKED)
    kind = TensorType((1, 2, 3), F32)
    x = builder.input("x", kind)
    first = builder.node(Move(Reshape((1, 6)), (kind,), DENSE), [x], "first")
    again = Move(Reshape((1, 3, 2)), (builder.types[first],), DENSE)
    e = zoo.print_c(builder.build([first, builder.node(again, [first], "y")]), "two")
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    assert_same_bits(callable_model(any_cc, e, tmp_path)(feeds), interpret.run(e.graph, feeds))


def test_a_step_without_thresholds_is_its_one_level(any_cc: str, tmp_path: Path) -> None:
    # What folding leaves of a layer all of whose channels are constant.
    builder = GraphBuilder("constant", Stage.PACKED)
    x = builder.input("x", TensorType((1, 3), F32))
    thresholds = builder.constant("t", np.zeros((1, 0), np.float32), F32)
    levels = builder.constant("v", np.float32([[2.5]]), F32)
    step = Term(ew.Step(F32), (X, *(Operand(Source.PARAMETER, i) for i in range(2))))
    epilogue = Epilogue(Expression((step,)), 0, 2, (RESULT,))
    y = builder.node(Map(epilogue), [x, thresholds, levels], "y")
    e = zoo.print_c(builder.build([y]), "constant")
    feeds = {"x": np.float32([[1, 2, 3]])}
    assert_same_bits(callable_model(any_cc, e, tmp_path)(feeds), interpret.run(e.graph, feeds))


def test_zeros_of_both_signs_keep_their_signs(any_cc: str, tmp_path: Path) -> None:
    net = zoo.Net(2)
    x = net.input("x", 4)
    y = net.op(ew.Mul(), x, net.constant([0.0, -0.0, 0.0, -0.0]))
    e = zoo.emit(zoo.Model(net.build(y)), "zeros", "x86-64")
    feeds = {"x": np.float32([[1, 1, -1, -1]])}
    assert_same_bits(callable_model(any_cc, e, tmp_path)(feeds), interpret.run(e.graph, feeds))


@pytest.mark.parametrize("channels", [8, 16])
def test_one_threshold_for_all_channels_gives_no_warning(
    any_cc: str, tmp_path: Path, channels: int
) -> None:
    net = zoo.Net(3)
    x = net.dense(net.sign(net.input("x", 33)), channels)
    x = net.op(ew.GreaterOrEqual(), x, net.constant(1.0))
    x = net.op(ew.Where(), x, net.constant(1.0), net.constant(-1.0))
    e = zoo.emit(zoo.Model(net.build(net.dense(x, 1))), "uniform", "x86-64")
    objects(any_cc, [write(e, tmp_path)], tmp_path, *DIALECTS["c99"], *WARNINGS)


def test_lowering_twice_gives_the_same_text() -> None:
    graph = zoo.emitted("shapes", "x86-64").graph
    first, second = (zoo.print_c(graph, "shapes") for _ in range(2))
    assert (first.header, first.source) == (second.header, second.source)
    assert first.source == zoo.emitted("shapes", "x86-64").source


def test_the_name_is_the_prefix_of_everything() -> None:
    graph = zoo.emitted("shapes", "x86-64").graph
    one, two = (zoo.print_c(graph, name) for name in ("one", "two"))
    renamed = one.source.replace("one", "two").replace("ONE", "TWO")
    # Words of the runtime's comments hold "one" too: compare past them.
    start = "/* Called after each layer"
    assert two.source[two.source.index(start) :] == renamed[renamed.index(start) :].replace(
        "ntwo", "none"
    )
