"""One fuzzed network: built from its plan, compiled, and held against ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bnncc.compiler import Compilation, Options, compile_in_memory
from bnncc.errors import BnnccError, InternalError, ToolchainError, printable
from bnncc.frontends.inputs import parse_input_spec
from bnncc.ir.storage import decode
from bnncc.ir.types import Array
from bnncc.verification.compare import compare
from bnncc.verification.data import load_samples
from bnncc.verification.result import LayerCheck, OutputCheck, Verification
from bnncc.verification.run import CompiledModel, load_many
from tests.fuzz.blocks import BLOCKS, TAILS, stem_shape
from tests.fuzz.net import Net
from tests.fuzz.plan import Menu, Plan

__all__ = ["MENU", "Case", "Outcome", "build", "check_all"]

SAMPLES = 8
_COMMON = (
    "batch_norm",
    "batch_norm",
    "sign",
    "binary_conv",
    "binary_conv",
    "activation",
    "residual",
)
MENU = Menu(
    stems=("dense", "1d", "2d", "2d", "2d"),
    blocks=(*_COMMON, *BLOCKS),
    tails=("nothing", "nothing", "classifier", "classifier", *TAILS),
)
_PREFIXES = ("", "", "", "/features/0.", "a b*/", "for", "ü:")


@dataclass(frozen=True, eq=False)
class Case:
    """A network to compile and check.

    Attributes:
        plan: what it was built from.
        model: the ONNX model.
        options: how to compile it.
        samples: its input as the C takes it.
        exact: the values of all tensors that are the same in every float32 implementation.
        outputs: the names of the model's outputs.
    """

    plan: Plan
    model: onnx.ModelProto
    options: Options
    samples: Array
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
        layers, blind: how many tensors are certified, and how many of those verify never compared.
        is_exact: see `Case`.
    """

    plan: Plan
    refused: str = ""
    failure: str = ""
    undecided: int = 0
    compared: int = 0
    layers: int = 0
    blind: int = 0
    is_exact: bool = False


# --- Building -------------------------------------------------------------------------------------


def build(plan: Plan, name: str = "fz") -> Case:
    """Return the case of a plan; the same one every time."""
    random = np.random.default_rng(plan.stem.seed)
    dyadic = bool(random.random() < 0.65)
    net = Net(int(random.integers(17, 23)), plan.limit, dyadic=dyadic)
    net.enter(plan.stem)
    net.prefix = net.pick(_PREFIXES)
    shape = stem_shape(net, plan.stem.kind)
    spec = net.pick(("", "", "", "uint8:1,0", "uint8:0.0078125,-1", "uint8:0.007843137,-1"))
    samples = _codes(net, shape) if spec else _reals(net, shape)
    fed = parse_input_spec(spec)[1].decode(samples) if spec else samples
    net.input("x", fed, exact=True)
    for block in plan.blocks:
        net.enter(block)
        BLOCKS[block.kind](net)
        net.made.append(net.x)
    net.enter(plan.tail)
    TAILS[plan.tail.kind](net)
    if net.x == "x":  # no block applied
        net.follow("Identity")
    options = Options(
        name=name,
        inputs=(spec,) if spec else (),
        sign_zero=net.pick(("auto", "auto", "auto", "exact", "plus", "minus")),
        target=net.pick(("", "", "", "generic")),
    )
    outputs = _outputs(net)
    exact = {name: net.values[name] for name in net.exact if name in net.values}
    return Case(plan, net.model(outputs), options, samples, exact, tuple(outputs))


def _outputs(net: Net) -> list[str]:
    """Return the last result, all that its node makes, and now and then an earlier one."""
    outputs = [net.x]
    last = next((node for node in net.nodes if net.x in node.output), None)
    if last is not None and last.op_type == "TopK":
        outputs = list(last.output)
    if net.chance(0.1):
        outputs.append(net.pick(net.made[1:] or outputs))
    return [name for name in dict.fromkeys(outputs) if name != "x"]


def _reals(net: Net, shape: tuple[int, ...]) -> Array:
    """Return samples [8, ...]: zeros, +-1, one-hot, and normal ones, coarse or not."""
    values = net.random.normal(0, 1, (SAMPLES, *shape))
    if net.dyadic:
        values = np.clip(np.round(values * 8) / 8, -2, 2)
    else:
        values[::2] = np.round(values[::2] * 8) / 8
        values[3] *= net.pick((1e3, 1e-3, 1e-20, 1e-42))
    values[4] = 0 if net.chance(0.5) else -0.0
    values[5] = net.pick((1, -1))
    values[6] = np.sign(net.random.normal(0, 1, shape))
    values[7] = 0
    values[7].reshape(-1)[net.between(0, values[7].size - 1)] = 1
    return values.astype(np.float32)


def _codes(net: Net, shape: tuple[int, ...]) -> Array:
    values = net.random.integers(0, 256, (SAMPLES, *shape))
    values[4], values[5] = 0, 255
    values[6] = net.random.choice([0, 255], shape)
    values[7] = net.random.integers(126, 130, shape)
    return values.astype(np.uint8)


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


def _compared(case: Case, compilation: Compilation, model: CompiledModel) -> Outcome:
    graph = compilation.lowered.graph
    samples = load_samples(graph, compilation.inputs, {"x": case.samples})
    try:
        result = compare(compilation, model, samples, "cc", lambda *_: None)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
        return Outcome(case.plan, failure=f"{type(error).__name__} in compare: {error}")
    certified = {printable(layer.layer) for layer in compilation.certificate.layers}
    checked = [layer for layer in result.layers if layer.name in certified]
    found = [*_differences(result), *_inexact(case, compilation, model, result)]
    return Outcome(
        case.plan,
        failure="\n".join(found),
        undecided=sum(layer.undecided for layer in result.layers),
        compared=sum(layer.compared for layer in result.layers),
        layers=len(certified),
        blind=len(certified) - sum(layer.compared > 0 for layer in checked),
        is_exact=case.is_exact,
    )


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
    _, stored = model.traced(case.samples)
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
