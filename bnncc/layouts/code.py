"""What the code of a program consists of, function by function, to estimate its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from bnncc.backend.program import (
    ClassSum,
    Finish,
    Layer,
    LinearWork,
    NumbersWork,
    Program,
    SharedWork,
    SpreadWork,
    TileWork,
)

__all__ = ["Parts", "functions_of", "parts_of_layer", "parts_of_program"]

Parts = Mapping[str, float]
"""What code consists of -> how much of it. A name with a colon is more of what stands before it."""


def parts_of_program(program: Program) -> Parts:
    """Return the parts of all functions of a program."""
    return _sum(functions_of(program).values())


def parts_of_layer(layer: Layer) -> Parts:
    """Return the parts of the functions that a layer has to itself, and of its call."""
    return _sum(({"run: call": 1}, *_of_layer(layer).values()))


def functions_of(program: Program) -> Mapping[str, Parts]:
    """Return what each function consists of, by its C name; what is always inlined is none."""
    found: dict[str, Parts] = {f"{program.name}_run": {"run": 1, "run: call": len(program.layers)}}
    for layer in program.layers:
        found |= _of_layer(layer)
        if isinstance(layer.work, TileWork):
            kernel = layer.work.compare if layer.work.limits else layer.work.kernel
            found[kernel] = {kernel: 1}
    slices = program.slices
    for one in (*slices.adds, *slices.less_twice):
        found[one.function] = {one.kind: 1, f"{one.kind}: bit": one.bits}
    for each in slices.class_sums:
        found[each.function] = _class_sum(each)
    for lists in slices.lists:
        found[lists.function] = {"lists": 1, "lists: bit": lists.k}
    return found


def _sum(functions: Iterable[Parts]) -> Parts:
    total: Counter[str] = Counter()
    for parts in functions:
        total.update(parts)
    return total


def _class_sum(one: ClassSum) -> Parts:
    name = "class sum of parts" if one.weighted else "class sum"
    return {name: 1, f"{name}: bit": one.bits, f"{name}: plane": one.planes if one.weighted else 0}


def _of_layer(layer: Layer) -> dict[str, Parts]:
    """Return what the functions of a layer consist of."""
    f, name = layer.function, layer.template.removesuffix(".c.j2")
    match layer.work:
        case SharedWork() as work:
            found: dict[str, Parts] = {
                f: {name: 1, f"{name}: step": len(work.steps), f"{name}: built": _on(work.built)}
            }
            if layer.copies:
                found[f"{f}_copy"] = _spread(layer.copies)
            if work.numbers is None:
                found[f"{f}_decide"] = _decide(work)
            else:
                assert layer.finish is not None  # numbers have one
                found[f"{f}_finish"] = _finish(work, work.numbers, layer.finish)
            return found
        case SpreadWork() as work:
            return {f: _spread(work)}
        case LinearWork() as work:
            body = _linear(layer, work, name)
        case _:
            body = {layer.call.partition("(")[0] or name: 1}
    return {f: {**body, **_epilogue(layer.finish)}}


def _on(what: object) -> int:
    return 1 if what else 0


def _spread(work: SpreadWork) -> Parts:
    return {f"spread {work.form}": 1}


def _decide(work: SharedWork) -> Parts:
    """A comparison of every bit of a sum with those of a limit, for each decision."""
    times = work.planes * work.comparisons
    bits = "limit: bit of a kind" if work.masked else "limit: bit"
    return {"limit": 1, "limit: of a kind": times if work.masked else 0, bits: times * work.width}


def _finish(work: SharedWork, numbers: NumbersWork, finish: Finish) -> Parts:
    wide = numbers.type != "int16_t"
    return {
        "numbers": 1,
        "numbers: of 32 bits": _on(wide),
        "numbers: of two bytes": _on(work.width > 8 and not wide),
        "numbers: edges": _on(numbers.edges is not None),
        "numbers: gaps": _on(numbers.gaps),
        **{f"numbers: {part}": count for part, count in _epilogue(finish).items()},
    }


def _linear(layer: Layer, work: LinearWork, name: str) -> Parts:
    """Loops over an image and its window, around the micro-kernel."""
    bits = f"{name}, bits" if work.kernel.startswith("bnn_xnor") else f"{name}, {work.kernel}"
    partial = layer.nest.y.partial + layer.nest.x.partial
    return {
        bits: 1,
        f"{name}: planes": _on(work.planes > 1),
        f"{name}: padding": partial,
        f"{name}: filled padding": partial * _on(work.fill),
        f"{name}: weights of 0": _on(work.zeros),
        f"{name}: parts": len(work.parts) - 1,
    }


_TRANSCENDENTAL = ("bnn_erf(", "bnn_exp(", "bnn_log(", "bnn_sigmoid(", "bnn_tanh(")


def _epilogue(finish: Finish | None) -> Parts:
    if finish is None:
        return {}
    values = [statement.value for statement in finish.statements]
    return {
        "epilogue: statement": len(values),
        "epilogue: transcendental": sum(value.startswith(_TRANSCENDENTAL) for value in values),
        "epilogue: number": sum(not store.decisions for store in finish.stores),
        "epilogue: decision": sum(len(store.decisions) for store in finish.stores),
    }
