"""One fuzzed network: built from its plan, compiled, and held against ONNX Runtime."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.errors import BnnccError, InternalError, ToolchainError, printable
from bnncc.ir.storage import decode
from bnncc.ir.types import Array
from bnncc.passes.transplant import UNPOOLED, source_name
from bnncc.verification.compare import compare
from bnncc.verification.data import load_samples
from bnncc.verification.result import LayerCheck, OutputCheck, Verification
from bnncc.verification.run import CompiledModel, load_many
from tests.fuzz.blocks import BLOCKS, TAILS
from tests.fuzz.net import Net
from tests.fuzz.plan import Menu, Plan
from tests.fuzz.stems import STEMS, feed

__all__ = ["MENU", "Case", "Outcome", "build", "check_all"]

_COMMON = (
    "batch_norm",
    "batch_norm",
    "sign",
    "binary_conv",
    "binary_conv",
    "few_bits_conv",
    "activation",
    "residual",
)
MENU = Menu(
    stems=(*STEMS, "2d", "2d", "2d"),
    blocks=(*_COMMON, *BLOCKS),
    tails=("nothing", "nothing", "classifier", "classifier", *TAILS),
)
_POOLED = re.compile(rf"({re.escape(UNPOOLED)}(\.\d+)?)+$")
_PREFIXES = ("", "", "", "/features/0.", "a b*/", "for", "ü:")


@dataclass(frozen=True, eq=False)
class Case:
    """A network to compile and check.

    Attributes:
        plan: what it was built from.
        model: the ONNX model.
        options: how to compile it.
        samples: its inputs as the C takes them.
        exact: the values of all tensors that are the same in every float32 implementation.
        outputs: the names of the model's outputs.
    """

    plan: Plan
    model: onnx.ModelProto
    options: Options
    samples: Mapping[str, Array]
    exact: Mapping[str, Array]
    outputs: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Whether every float32 implementation gives the same outputs, bit for bit."""
        return all(name in self.exact for name in self.outputs)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        plan: the case's.
        refused: the code of bnncc's refusal, "" if it compiled.
        failure: what went wrong, "" if nothing did.
        undecided, compared: bits, see `LayerCheck`.
        certified: how many tensors were.
        is_exact: see `Case`.
    """

    plan: Plan
    refused: str = ""
    failure: str = ""
    undecided: int = 0
    compared: int = 0
    certified: int = 0
    is_exact: bool = False


# --- Building -------------------------------------------------------------------------------------


def build(plan: Plan, name: str = "fz") -> Case:
    """Return the case of a plan; the same one every time."""
    random = np.random.default_rng(plan.stem.seed)
    dyadic = bool(random.random() < 0.65)
    net = Net(int(random.integers(17, 23)), plan.limit, dyadic=dyadic)
    net.enter(plan.stem)
    net.prefix = net.pick(_PREFIXES)
    fed = feed(net, plan.stem)
    for block in plan.blocks:
        net.enter(block)
        BLOCKS[block.kind](net)
        net.made.append(net.x)
    net.enter(plan.tail)
    TAILS[plan.tail.kind](net)
    if net.x in fed.samples:  # no block applied
        net.follow("Identity")
    options = Options(
        name=name,
        inputs=fed.specs,
        sign_zero=net.pick(("auto", "auto", "auto", "exact", "plus", "minus")),
        target=net.pick(("", "", "", "generic", "cortex-m4", "aarch64")),
    )
    outputs = _outputs(net, set(fed.samples))
    exact = {name: net.values[name] for name in net.exact if name in net.values}
    return Case(plan, net.model(outputs), options, fed.samples, exact, tuple(outputs))


def _outputs(net: Net, inputs: Collection[str]) -> list[str]:
    """Return the last result, what else the tail names, and now and then an earlier one."""
    outputs = [net.x, *net.outputs]
    if net.chance(0.1):
        outputs.append(net.pick(net.made))
    return [name for name in dict.fromkeys(outputs) if name not in inputs]


# --- Checking -------------------------------------------------------------------------------------


def check_all(plans: Sequence[Plan], *, compiler: str = "", cflags: str = "-O1") -> list[Outcome]:
    """Return what becomes of each plan; those that compile share one library of C.

    A warning, such as numpy's of a division by zero, counts as a failure.
    """
    with warnings.catch_warnings(), _environment(CFLAGS=cflags):
        warnings.simplefilter("error")
        return _check_all(plans, compiler)


def _check_all(plans: Sequence[Plan], compiler: str) -> list[Outcome]:
    cases = [build(plan, f"fz{i}") for i, plan in enumerate(plans)]
    outcomes: dict[int, Outcome] = {}
    compiled: dict[int, Compilation] = {}
    for i, case in enumerate(cases):
        done = _compiled(case)
        if isinstance(done, Outcome):
            outcomes[i] = done
        else:
            compiled[i] = done
    for i, model in _loaded(compiled, compiler).items():
        if isinstance(model, CompiledModel):
            outcomes[i] = _compared(cases[i], compiled[i], model)
        else:
            outcomes[i] = Outcome(cases[i].plan, failure=f"the C is rejected: {model}")
    return [outcomes[i] for i in range(len(cases))]


def _compiled(case: Case) -> Compilation | Outcome:
    """Return the compiled case, or the outcome that stands in the way: a refusal or a failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            return compile_in_memory(path, case.options)
        except InternalError as error:
            return Outcome(case.plan, failure=str(error))
        except BnnccError as error:
            return Outcome(case.plan, refused=_reason(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
            return Outcome(case.plan, failure=f"{type(error).__name__}: {error}")


def _reason(error: BnnccError) -> str:
    first = error.diagnostics[0]
    return f"{first.code} {first.what}"


def _loaded(
    compiled: Mapping[int, Compilation], compiler: str
) -> dict[int, CompiledModel | ToolchainError]:
    """Return the models: of one library, or each of its own if a compiler rejects them together."""
    try:
        models = load_many(list(compiled.values()), compiler=compiler)
        return dict(zip(compiled, models, strict=True))
    except ToolchainError as error:
        if len(compiled) == 1:
            return dict.fromkeys(compiled, error)
    found: dict[int, CompiledModel | ToolchainError] = {}
    for i, compilation in compiled.items():
        found |= _loaded({i: compilation}, compiler)
    return found


def _compared(case: Case, compilation: Compilation, compiled: CompiledModel) -> Outcome:
    graph = compilation.lowered.graph
    samples = load_samples(graph, compilation.inputs, case.samples)
    try:
        result = compare(compilation, compiled, samples, "cc", lambda *_: None)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
        return Outcome(case.plan, failure=f"{type(error).__name__} in compare: {error}")
    # A step that a later one took in is no tensor of the program.
    types = compilation.lowered.folded.types
    certified = {layer.layer for layer in compilation.certificate.layers if layer.layer in types}
    model = {name for node in compilation.oracle.graph.node for name in node.output}
    unseen = [name for name in certified if not _is_seen(name, model, result)]
    found = [*_differences(result), *_inexact(case, compilation, compiled, result)]
    found += [f"certified, but never compared: {name}" for name in sorted(unseen)]
    return Outcome(
        case.plan,
        failure="\n".join(found),
        undecided=sum(layer.undecided for layer in result.layers),
        compared=sum(layer.compared for layer in result.layers),
        certified=len(certified),
        is_exact=case.is_exact,
    )


def _is_seen(name: str, model: Container[str], result: Verification) -> bool:
    """Whether the levels of a certified tensor were compared with the model's, if it has them.

    A sign that moved before a pool is seen behind it, where the model has it. Inside of an operator
    that is said in several, such as the Neg before ReduceMin's maximum, the model has nothing.
    """
    levels = {layer.name for layer in result.layers if layer.compared > 0}
    if levels & {printable(name), printable(_POOLED.sub("", name))}:
        return True
    return source_name(name) not in model


def _differences(result: Verification) -> list[str]:
    """Return what a verification found wrong."""
    checks: list[LayerCheck | OutputCheck] = [*result.layers, *result.outputs]
    return [f"{check}" for check in checks if check.mismatches or check.c_mismatches]


def _inexact(
    case: Case, compilation: Compilation, model: CompiledModel, result: Verification
) -> list[str]:
    """Return where the C differs from ONNX Runtime though no sum on the way there rounds.

    This asks for the same bits, whatever verify would explain by rounding, and without its help.
    Where sign(0) was assumed, and met, the models do differ.
    """
    if any(layer.assumed for layer in result.layers):
        return []
    found = []
    if case.is_exact:
        found += [f"undecided, but exact: {c}" for c in result.layers if c.undecided]
        found += [f"differs, but exact: {c}" for c in result.outputs if c.max_abs_error != 0]
    types = compilation.lowered.graph.types
    layers = compilation.program.layers
    names = [output.buffer.tensor for layer in layers for output in layer.outputs]
    _, stored = model.traced(**case.samples)
    for name, array in zip(names, stored, strict=True):
        truth = case.exact.get(name)
        value = decode(array, types[name])
        if truth is not None and not np.array_equal(value.reshape(truth.shape), truth, True):
            at = np.flatnonzero(value.reshape(-1) != truth.reshape(-1))
            found.append(f"differs, but exact: {name} in {len(at)} values, first {at[0]}")
    return found


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
