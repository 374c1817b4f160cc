"""ONNX Runtime as the reference's own evaluator: silent, single-threaded, nothing optimised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import onnx
import onnxruntime
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.report import quoted
from bnncc.ir.types import Array

__all__ = [
    "ERRORS",
    "STANDARD_DOMAINS",
    "NotImplementedByRuntime",
    "adapt",
    "evaluate",
    "open_session",
    "opset_version",
    "run_session",
]

# ONNX Runtime's exceptions have no common base class of their own.
ERRORS: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    RuntimeError,
    ValueError,
    TypeError,
)
NotImplementedByRuntime: type[Exception] = _state.NotImplemented

# What the oldest ONNX Runtime that bnncc installs with (1.20) reads; newer versions are asked for.
_SURE_IR = 10
_SURE_OPSET = 21
STANDARD_DOMAINS = ("", "ai.onnx")
_SILENT = 4


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of `model`, each operator computed as verify's oracle computes it.

    Raises:
        Exception: one of `ERRORS`, if ONNX Runtime cannot load or run the model.
    """
    return run_session(open_session(model), feeds)


def run_session(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of a session, in the model's order."""
    results: list[Array] = session.run(None, dict(feeds), _run_options())
    return results


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session that runs `model` operation by operation, in one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep the largest layer's memory
    options.log_severity_level = _SILENT
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run_options() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    return options


def opset_version(model: onnx.ModelProto) -> int | None:
    """Return the version of the standard operators, or None if the model does not name one."""
    versions = {i.version for i in model.opset_import if i.domain in STANDARD_DOMAINS}
    return versions.pop() if len(versions) == 1 else None


def adapt(model: onnx.ModelProto) -> Iterator[str]:
    """Lower versions that are newer than ONNX Runtime reads, where that changes nothing.

    Yields:
        What was lowered.

    Raises:
        UnsupportedModelError: BNN008 an operator changed since the newest opset it reads.
    """
    newest_ir = _SURE_IR if model.ir_version <= _SURE_IR else _newest(_loads_ir, onnx.IR_VERSION)
    if model.ir_version > newest_ir:
        yield f"IR version {model.ir_version} read as {newest_ir}, ONNX Runtime's newest"
        model.ir_version = newest_ir
    opset = opset_version(model)
    assert opset is not None  # checked before, by the caller
    if opset <= _SURE_OPSET:
        return
    newest = _newest(_loads_opset, onnx.defs.onnx_opset_version())
    if opset > newest:
        _check_unchanged(model.graph.node, opset, newest)
        yield f"opset {opset} read as {newest}, ONNX Runtime's newest; no operator used differs"
        for entry in model.opset_import:
            if entry.domain in STANDARD_DOMAINS:
                entry.version = newest


def _check_unchanged(nodes: Sequence[onnx.NodeProto], opset: int, newest: int) -> None:
    for op_type in dict.fromkeys(n.op_type for n in nodes if n.domain in STANDARD_DOMAINS):
        if not onnx.defs.has(op_type, opset, ""):
            continue  # reported with all other unknown operators
        if onnx.defs.get_schema(op_type, opset, "").since_version > newest:
            raise UnsupportedModelError(
                "BNN008",
                f"operator {quoted(op_type)} of opset {opset} is newer than ONNX Runtime reads",
                why=f"the installed onnxruntime reads opsets up to {newest}",
                help=f"export with opset_version={newest} or older, or update onnxruntime",
            )


def _loads_ir(version: int) -> bool:
    return _loads(version, _SURE_OPSET)


def _loads_opset(version: int) -> bool:
    return _loads(_SURE_IR, version)


def _loads(ir_version: int, opset: int) -> bool:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ()) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    opsets = [helper.make_opsetid("", opset)]
    try:
        open_session(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))
    except ERRORS:
        return False
    return True


@lru_cache
def _newest(loads: Callable[[int], bool], newest: int) -> int:
    """Return the newest version up to `newest` that ONNX Runtime loads."""
    while not loads(newest):
        newest -= 1
    return newest
